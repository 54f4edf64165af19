//! The only place that reads time: one value that holds both clocks, and its reader.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use tokio::time::Instant;

/// One moment, on both clocks: deadlines count on the monotonic one, credentials on Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Never goes back; tokio's, so that a paused test clock moves it.
    pub monotonic: Instant,
    /// Time since 1970-01-01 UTC.
    pub unix: Duration,
}

impl Now {
    /// The same moment moved forward by `by`, for tests and simulations.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self { monotonic: self.monotonic + by, unix: self.unix + by }
    }
}

/// Reads time. Copied freely: it holds no state but its origin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    anchor: Option<Now>,
}

impl Clock {
    /// The machine's clocks.
    pub const fn system() -> Self {
        Self { anchor: None }
    }

    /// A clock whose Unix time follows tokio's clock from now on, so that a paused test clock moves both.
    #[must_use]
    pub fn anchored(unix: Duration) -> Self {
        Self { anchor: Some(Now { monotonic: monotonic(), unix }) }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        let monotonic = monotonic();
        let unix = match self.anchor {
            Some(anchor) => anchor.unix + (monotonic - anchor.monotonic),
            None => unix(),
        };
        Now { monotonic, unix }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads time")]
fn monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads time")]
fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
