//! Tells the service manager that this process lives, for as long as all its parts do.

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

/// A part that can be asked whether it lives.
pub(super) struct Part {
    name: &'static str,
    asked: Box<dyn Fn() -> Answer + Send + Sync>,
}

/// Comes when the part has answered.
type Answer = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Part {
    /// A part that lives if the future that `ask` makes ends.
    pub(super) fn new<F>(name: &'static str, ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { name, asked: Box::new(move || Box::pin(ask())) }
    }
}

/// Asks all `parts` twice within `timeout` whether they live, and says so by `alive` when each has answered, until `stop`. Who
/// doesn't answer is asked again at once: it may be well again before it is too late.
///
/// Who is to be told waits for `timeout` at most: then the process is killed, and started again. That this task runs at all is
/// the sign of life of the tasks that no part stands for.
pub(super) async fn run(parts: Vec<Part>, timeout: Duration, alive: impl Fn(), stop: CancellationToken) {
    let (every, patience) = (timeout / 2, timeout / 4);
    let watching = async {
        loop {
            let stuck: Vec<_> = join_all(parts.iter().map(|part| is_stuck(part, patience))).await;
            let names: Vec<_> = stuck.into_iter().flatten().collect();
            if names.is_empty() {
                alive();
                tokio::time::sleep(every).await;
            } else {
                // It took as long as it may: there is just time to ask again at once.
                tracing::error!("hung, so that the watchdog is not told that all is well: {}", names.join(", "));
            }
        }
    };
    stop.run_until_cancelled(watching).await;
}

/// What it is called, if it doesn't answer.
async fn is_stuck(part: &Part, patience: Duration) -> Option<&'static str> {
    tokio::time::timeout(patience, (part.asked)()).await.is_err().then_some(part.name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::clock::Clock;

    #[tokio::test(start_paused = true)]
    async fn who_hangs_for_less_than_half_the_time_is_heard_in_time() {
        const TIMEOUT: Duration = Duration::from_secs(20);
        let (hang, hung) = tokio::sync::watch::channel(false);
        let part = Part::new("part", move || {
            let mut hung = hung.clone();
            async move { drop(hung.wait_for(|hung| !hung).await) }
        });
        let (heard, mut pings) = tokio::sync::mpsc::unbounded_channel();
        let alive = move || heard.send(Clock::system().now().monotonic).unwrap();
        let stop = CancellationToken::new();
        let watching = tokio::spawn(run(vec![part], TIMEOUT, alive, stop.clone()));

        let before = pings.recv().await.unwrap();
        hang.send(true).unwrap();
        tokio::time::sleep(TIMEOUT * 7 / 8).await;
        hang.send(false).unwrap();
        let after = pings.recv().await.unwrap();

        assert!(after - before < TIMEOUT, "{:?}", after - before);
        stop.cancel();
        watching.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_hung_part_stops_the_signs_of_life_of_all_and_its_recovery_brings_them_back() {
        let (pings, hung) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (heard, is_hung) = (Arc::clone(&pings), Arc::clone(&hung));
        let well = Part::new("well", async || ());
        let other = Part::new("other", move || {
            let is_hung = is_hung.load(Ordering::Relaxed);
            async move {
                if is_hung {
                    std::future::pending().await
                }
            }
        });
        let alive = move || {
            heard.fetch_add(1, Ordering::Relaxed);
        };
        let stop = CancellationToken::new();
        let watching = tokio::spawn(run(vec![well, other], Duration::from_secs(20), alive, stop.clone()));
        let within_a_minute = async || {
            let before = pings.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(60)).await;
            pings.load(Ordering::Relaxed) - before
        };

        assert!(within_a_minute().await >= 6);
        hung.store(true, Ordering::Relaxed);
        within_a_minute().await;
        assert_eq!(within_a_minute().await, 0);
        hung.store(false, Ordering::Relaxed);
        assert!(within_a_minute().await >= 3);

        stop.cancel();
        watching.await.unwrap();
    }
}
