//! How many signaling connections are open, in all and of each source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::address::Prefix;
use crate::address::source_of;
use crate::metrics::Metrics;

/// How many connections may be open at once: what the default limits of a small host can carry.
pub const MAX_CONNECTIONS: usize = 50_000;

/// Settings of [`Connections`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most connections at once.
    pub total: usize,
    /// The most connections of one source at once.
    pub per_source: usize,
    /// Whose connections count only for the total.
    pub exempt: Vec<Prefix>,
}

/// Counts open connections. Its map never outgrows [`Settings::total`].
#[derive(Debug)]
pub struct Connections {
    settings: Settings,
    open: Mutex<Open>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// Why one more connection can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many in all.
    #[error("too many connections")]
    Full,
    /// Too many of this source.
    #[error("too many connections from this source")]
    Source,
}

/// One open connection; counted until dropped.
#[derive(Debug)]
pub struct Admitted {
    connections: Arc<Connections>,
    source: IpAddr,
}

impl Connections {
    /// None open.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self { settings, open: Mutex::default(), metrics }
    }

    /// Counts one more connection from `ip`, until what it returns is dropped.
    ///
    /// # Errors
    ///
    /// [`Refused`], by the limit that is met.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Admitted, Refused> {
        let source = source_of(ip);
        let exempt = self.settings.exempt.iter().any(|prefix| prefix.contains(ip.to_canonical()));
        let mut open = self.open();
        if open.total >= self.settings.total {
            return Err(Refused::Full);
        }
        let of_source = open.by_source.get(&source).copied().unwrap_or(0);
        if of_source >= self.settings.per_source && !exempt {
            return Err(Refused::Source);
        }
        open.total += 1;
        open.by_source.insert(source, of_source + 1);
        self.metrics.connections.increment();
        Ok(Admitted { connections: Arc::clone(self), source })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.total -= 1;
        if let Some(of_source) = open.by_source.get_mut(&self.source) {
            *of_source -= 1;
            if *of_source == 0 {
                open.by_source.remove(&self.source);
            }
        }
        self.connections.metrics.connections.decrement();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(total: usize, per_source: usize) -> Arc<Connections> {
        let settings = Settings { total, per_source, exempt: vec!["127.0.0.0/8".parse().unwrap()] };
        Arc::new(Connections::new(settings, Arc::default()))
    }

    #[test]
    fn a_source_has_so_many_connections_and_gets_more_when_some_end() {
        let connections = connections(10, 2);
        let from = |last| connections.admit([192, 0, 2, last].into());

        let first = from(1).unwrap();
        let _second = from(1).unwrap();
        assert_eq!(from(1).err(), Some(Refused::Source));
        let _other = from(2).unwrap();
        drop(first);

        let _third = from(1).unwrap();
        assert_eq!(connections.metrics.connections.get(), 3);
    }

    #[test]
    fn exempt_sources_meet_the_total_only_and_nothing_is_left_behind() {
        let connections = connections(3, 1);

        let open: Vec<_> = (0..3).map(|_| connections.admit([127, 0, 0, 1].into()).unwrap()).collect();
        assert_eq!(connections.admit([127, 0, 0, 1].into()).err(), Some(Refused::Full));
        drop(open);

        assert_eq!(connections.metrics.connections.get(), 0);
        assert!(connections.open().by_source.is_empty());
    }
}
