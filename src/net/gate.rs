//! Caps how many connections may be half-open, in total and per source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::address::Prefix;
use crate::address::source_of;

/// How many connections may be half-open: accepted, but with no request understood yet.
#[derive(Clone, Debug)]
pub struct Settings {
    /// In total; also caps how many sources are remembered.
    pub total: usize,
    /// From one source ([`source_of`]).
    pub per_source: usize,
    /// Sources that only the total counts.
    pub exempt: Vec<Prefix>,
}

/// Counts half-open connections; shared by every listener.
#[derive(Debug)]
pub struct Gate {
    settings: Settings,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// Never more entries than `total`, and none that is zero.
    by_source: HashMap<IpAddr, usize>,
}

/// One half-open connection; it ends when this is dropped.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    source: Option<IpAddr>,
}

impl Gate {
    /// A gate that nobody has passed.
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self { settings, open: Mutex::default() })
    }

    /// Lets a connection from `ip` in, unless a cap is met.
    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Permit> {
        let ip = ip.to_canonical();
        let exempt = self.settings.exempt.iter().any(|prefix| prefix.contains(ip));
        let source = (!exempt).then(|| source_of(ip));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.settings.total {
            return None;
        }
        if let Some(source) = source {
            let count = open.by_source.get(&source).copied().unwrap_or(0);
            if count >= self.settings.per_source {
                return None;
            }
            open.by_source.insert(source, count + 1);
        }
        open.total += 1;
        Some(Permit { gate: self.clone(), source })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        let Some(source) = self.source else { return };
        match open.by_source.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                open.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(total: usize, per_source: usize) -> Arc<Gate> {
        Gate::new(Settings { total, per_source, exempt: vec!["127.0.0.0/8".parse().unwrap()] })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_meets_its_cap_and_leaves_room_to_others() {
        let gate = gate(10, 2);

        let first = gate.enter(ip("2001:db8::1"));
        let second = gate.enter(ip("2001:db8:0:ff::1"));
        let third = gate.enter(ip("2001:db8::2"));
        let other = gate.enter(ip("192.0.2.1"));

        assert!(first.is_some() && second.is_some() && other.is_some());
        assert!(third.is_none(), "the whole /56 is one source");
        drop(first);
        assert!(gate.enter(ip("2001:db8::2")).is_some(), "one that ended makes room");
    }

    #[test]
    fn the_total_holds_for_exempt_sources_too_and_nothing_is_left_behind() {
        let gate = gate(3, 1);

        let held: Vec<_> = (0..5).filter_map(|_| gate.enter(ip("127.0.0.1"))).collect();

        assert_eq!(held.len(), 3);
        drop(held);
        drop(gate.enter(ip("192.0.2.1")));
        let open = gate.open.lock().unwrap();
        assert_eq!((open.total, open.by_source.len()), (0, 0));
    }
}
