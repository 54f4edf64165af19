//! Writes into the log what became of each session and relay, once it is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::credentials::journal;
use crate::credentials::journal::News;
use crate::credentials::journal::verdict::Verdict;
use crate::rate::Rate;
use crate::rate::TokenBucket;

/// Lines that tell of one session or relay each: whoever comes and goes without end fills no disk, for they are 87,000 a day at
/// most, some tens of megabytes.
const LINES: Rate = Rate { per_second: 1.0, burst: 500.0 };
/// How often a line says how many more there were, and how many strangers were refused.
const SUMMARY: Duration = Duration::from_secs(60);

/// Who writes it.
pub(super) struct Scribe {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Scribe {
    /// Begins with what begins from here on.
    pub(super) fn start(credentials: Arc<Credentials>, clock: Clock) -> Self {
        let stop = CancellationToken::new();
        credentials.journal().open(clock.now());
        Self { task: tokio::spawn(write(credentials, clock, stop.clone())), stop }
    }

    /// Writes what is left, when everything else has ended.
    pub(super) async fn finish(self) {
        self.stop.cancel();
        // It can only have panicked, which was reported where it happened.
        let _ = self.task.await;
    }
}

async fn write(credentials: Arc<Credentials>, clock: Clock, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(journal::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pen = Pen::new(clock.now().monotonic);
    loop {
        tokio::select! {
            _ = ticks.tick() => pen.write(credentials.journal().tick(clock.now()), clock.now().monotonic),
            () = stop.cancelled() => break,
        }
    }
    let now = clock.now();
    pen.write(credentials.journal().end(now), now.monotonic);
    pen.summarise();
}

/// What was written, and what is to be told in sum.
struct Pen {
    lines: TokenBucket,
    next_summary: Instant,
    untold: u64,
    wrong: u64,
    expired: u64,
}

impl Pen {
    fn new(now: Instant) -> Self {
        Self { lines: TokenBucket::new(LINES, now), next_summary: now + SUMMARY, untold: 0, wrong: 0, expired: 0 }
    }

    fn write(&mut self, news: News, now: Instant) {
        self.untold += news.untold;
        for verdict in news.verdicts {
            if self.has_room_for(&verdict, now) {
                verdict.log();
            }
        }
        self.wrong += news.strangers.wrong;
        self.expired += news.strangers.expired;
        if now >= self.next_summary {
            self.summarise();
            self.next_summary = now + SUMMARY;
        }
    }

    /// Whether a line may be written; counts it if not. Idle ones are lines of DEBUG: who asks for that much gets it.
    fn has_room_for(&mut self, verdict: &Verdict, now: Instant) -> bool {
        let has_room = verdict.is_idle() || self.lines.take(LINES, now);
        self.untold += u64::from(!has_room);
        has_room
    }

    fn summarise(&mut self) {
        let [untold, wrong, expired] = [&mut self.untold, &mut self.wrong, &mut self.expired].map(std::mem::take);
        if untold > 0 {
            tracing::info!(untold, "{untold} more sessions or relays are over: too many at once for a line each");
        }
        if wrong > 0 {
            tracing::info!(
                requests = wrong,
                "{wrong} requests answered 401, of nobody signed in: wrong secret or password, see turn.secrets and \
                 turn.users"
            );
        }
        if expired > 0 {
            tracing::info!(
                requests = expired,
                "{expired} requests answered 401, of nobody signed in: the credential had expired or its \
                 session was over, see turn.credential_life"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Transport;
    use crate::credentials::journal::Carried;
    use crate::credentials::journal::Whose;

    #[test]
    fn of_more_endings_than_a_log_has_lines_for_the_rest_is_told_in_sum() {
        let credentials = Credentials::new(Default::default());
        let relay = Verdict {
            whose: Whose::User(credentials.journal().tag("camera")),
            lasted: Duration::ZERO,
            outlived: Duration::ZERO,
            relays: 1,
            over: vec![Transport::Udp],
            peers: 0,
            carried: Carried::default(),
            refusals: Vec::new(),
        };
        let idle = Verdict { relays: 0, ..relay.clone() };
        let now = Clock::system().now().monotonic;
        let mut pen = Pen::new(now);

        let told = (0..600).filter(|_| pen.has_room_for(&relay, now)).count();

        assert_eq!((told, pen.untold), (500, 100));
        assert!(pen.has_room_for(&idle, now), "what only shows when it is asked for");
        let a_day = (0..24 * 3600 * 2).map(|half| now + Duration::from_millis(500) * half);
        let told = a_day.filter(|now| pen.has_room_for(&relay, *now)).count();
        assert!(told <= 24 * 3600, "{told}");
        pen.summarise();
        assert_eq!(pen.untold, 0);
    }
}
