//! The log: lines on stderr with the time in UTC, and addresses only for those who ask for detail.
//!
//! But for one: of a peer that was denied, an address of a special-purpose range, such as 192.168.1.5, which is nobody's on
//! the internet and tells the operator what to allow ([`crate::credentials::journal::Refusal`]).

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

static REVEAL: AtomicBool = AtomicBool::new(false);

/// Starts logging. Only the first call counts.
pub fn start(level: Level, json: bool) {
    REVEAL.store(level >= Level::DEBUG, Ordering::Relaxed);
    // webrtc-rs has a line for each packet, with addresses: only for those who ask for everything.
    let others = if level == Level::TRACE { LevelFilter::TRACE } else { LevelFilter::OFF };
    let filter = Targets::new().with_default(Level::WARN.min(level)).with_target("throughway", level).with_targets([
        ("turn", others),
        ("stun", others),
        ("webrtc_util", others),
    ]);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = if json {
        tracing_subscriber::registry().with(filter).with(lines.json()).try_init()
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        tracing_subscriber::registry().with(filter).with(lines.with_ansi(colours).with_target(false)).try_init()
    };
    // A second start, in a test that runs two parts in one process, keeps the first log.
    drop(started);
}

/// A value that the log shows at the levels DEBUG and TRACE only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redacted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if REVEAL.load(Ordering::Relaxed) { self.0.fmt(f) } else { f.write_str("(hidden)") }
    }
}
