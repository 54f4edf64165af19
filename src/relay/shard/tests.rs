//! Shards without threads, which a test lets run as it wants.

use super::*;
use crate::address::Sources;
use crate::policy;
use crate::rate::Rate;

mod memory;
mod neighbours;
mod pulse;
mod turns;

impl Settings {
    /// Without limits or anything allowed; and what hears of one thing at a time that the shard doesn't answer itself.
    pub(in crate::relay) fn plain(listeners: Vec<Socket>, metrics: &Arc<Metrics>) -> (Self, mpsc::Receiver<Event>) {
        let (events, asked) = mpsc::channel(1);
        let settings = Self {
            listeners,
            policy: Arc::new(Policy::new(policy::Settings::default())),
            metrics: Arc::clone(metrics),
            clock: Clock::system(),
            bindings: PerSource::new(Rate { per_second: 1e6, burst: 1e6 }, Sources::default()),
            allowance: Allowance::default(),
            offload: Offload::ALL,
            observer: None,
            events,
        };
        (settings, asked)
    }
}
