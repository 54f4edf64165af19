//! The end of the process: nobody new is let in, relays in use are waited for, members are told when to come back.

use std::time::Duration;

use tokio::time::Instant;

use super::App;
use crate::gateway;
use crate::net::notify;

/// How often it is looked whether relays are left.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is said how many.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// How often the service manager is told that it goes on, and how much longer than that it is to wait.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
const EXTEND_BY: Duration = Duration::from_secs(30);
/// How long the last connections may take to close, once all members are told.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a reload under way may take.
const RELOADED_WITHIN: Duration = Duration::from_secs(1);

impl App {
    /// Lets in nobody new and waits until no relay is left, or for `shutdown.drain`. Then it has every member told when to
    /// come back.
    ///
    /// Meanwhile calls go on, and so does signaling for who is signed in: calls need it, and most clients end theirs when
    /// they hear that the other side has left. With a drain of "0s" nothing of this happens. Another time by a reload counts
    /// from the beginning of the drain.
    pub async fn drain(&self) {
        notify::stopping("ending");
        let Ok(parts) = tokio::time::timeout(RELOADED_WITHIN, self.parts.lock()).await else {
            tracing::error!("a reload doesn't end: nothing is waited for");
            return;
        };
        let most = parts.config.shutdown.drain.get();
        drop(parts);
        if most.is_zero() {
            return;
        }
        self.draining.cancel();
        let drained = async {
            self.wait_for_relays(most).await;
            self.say_goodbye().await;
        };
        // Without the parts that others need there is nothing to wait for.
        self.stop.run_until_cancelled(drained).await;
    }

    async fn wait_for_relays(&self, mut most: Duration) {
        let began = self.clock.now().monotonic;
        let (mut say_at, mut extend_at) = (began, began);
        loop {
            if let Ok(parts) = self.parts.try_lock() {
                most = parts.config.shutdown.drain.get();
            }
            let end = began + most;
            let (now, left) = (self.clock.now().monotonic, self.metrics.allocations.get());
            if left == 0 || now >= end {
                break;
            }
            if is_due(&mut say_at, SAY_EVERY, now) {
                let progress = progress(left, end - now);
                tracing::info!("{progress}");
                notify::status(&progress);
            }
            if is_due(&mut extend_at, EXTEND_EVERY, now) {
                notify::extend(EXTEND_BY);
            }
            tokio::time::sleep(LOOK_EVERY.min(end - now)).await;
        }
        match self.metrics.allocations.get() {
            0 => tracing::info!("drained: no relay is left"),
            left => tracing::info!("the time to drain is over: {} cut off", relays(left)),
        }
    }

    /// Listens no more, so that who comes back comes to the next process, and has the members told.
    async fn say_goodbye(&self) {
        notify::status("telling members when to come back");
        notify::extend(EXTEND_BY);
        self.farewell.cancel();
        let until = self.clock.now().monotonic + gateway::FAREWELL + LAST_WORDS;
        while self.metrics.connections.get() > 0 && self.clock.now().monotonic < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Whether it is time; sets the next.
fn is_due(at: &mut Instant, every: Duration, now: Instant) -> bool {
    let due = now >= *at;
    if due {
        *at = now + every;
    }
    due
}

/// For people to read, such as `draining: 12 relays left, 9m at most`.
fn progress(left: u64, rest: Duration) -> String {
    let seconds = rest.as_millis().div_ceil(1000);
    let rest = if seconds < 60 { format!("{seconds}s") } else { format!("{}m", seconds.div_ceil(60)) };
    format!("draining: {} left, {rest} at most", relays(left))
}

fn relays(count: u64) -> String {
    if count == 1 { "1 relay".to_owned() } else { format!("{count} relays") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_said_in_plain_words() {
        assert_eq!(progress(12, Duration::from_secs(540)), "draining: 12 relays left, 9m at most");
        assert_eq!(progress(1, Duration::from_millis(1500)), "draining: 1 relay left, 2s at most");
        assert_eq!(progress(2, Duration::from_millis(60_001)), "draining: 2 relays left, 2m at most");
    }
}
