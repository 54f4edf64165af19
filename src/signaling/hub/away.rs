//! Sessions that wait for their clients to come back: when each ends, and which does before because too many wait.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::net::IpAddr;

use tokio::time::Instant;

use crate::address::Sources;
use crate::credentials::SessionId;

/// How many sessions wait for their clients to come back; beyond, the one that has waited longest ends.
pub const MAX_AWAY: usize = 10_000;
/// How many of them had their clients in one network; beyond, the one of these that has waited longest ends. More than the
/// connections that one source may have by default, so that an office whose line breaks comes back as a whole.
pub(super) const MAX_AWAY_PER_SOURCE: usize = 500;

/// Sessions without connection, by when each ends.
#[derive(Debug)]
pub(super) struct Away {
    sources: Sources,
    /// Capped by [`MAX_AWAY`].
    all: BTreeSet<(Instant, SessionId)>,
    /// The same by source, each capped by [`MAX_AWAY_PER_SOURCE`] and none empty.
    by_source: HashMap<IpAddr, BTreeSet<(Instant, SessionId)>>,
}

impl Away {
    /// None yet.
    pub(super) fn new(sources: Sources) -> Self {
        Self { sources, all: BTreeSet::new(), by_source: HashMap::new() }
    }

    /// Has other sources count, by where the client of each session came from.
    pub(super) fn regroup(&mut self, sources: Sources, ip_of: impl Fn(SessionId) -> Option<IpAddr>) {
        self.by_source.clear();
        for (until, session) in &self.all {
            if let Some(source) = ip_of(*session).and_then(|ip| sources.of(ip)) {
                self.by_source.entry(source).or_default().insert((*until, *session));
            }
        }
        self.sources = sources;
    }

    /// Has `session`, whose client came from `ip`, wait until then; which one must end now, because too many wait.
    pub(super) fn insert(&mut self, until: Instant, session: SessionId, ip: IpAddr) -> Option<SessionId> {
        self.all.insert((until, session));
        if let Some(source) = self.sources.of(ip) {
            let alike = self.by_source.entry(source).or_default();
            alike.insert((until, session));
            if alike.len() > MAX_AWAY_PER_SOURCE {
                return alike.first().map(|(_, longest)| *longest);
            }
        }
        let longest = self.all.first().map(|(_, longest)| *longest);
        longest.filter(|_| self.all.len() > MAX_AWAY)
    }

    /// Has `session` wait no more.
    pub(super) fn remove(&mut self, until: Instant, session: SessionId, ip: IpAddr) {
        self.all.remove(&(until, session));
        if let Some(source) = self.sources.of(ip)
            && let Some(alike) = self.by_source.get_mut(&source)
        {
            alike.remove(&(until, session));
            if alike.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }

    /// The next to end, and when.
    pub(super) fn first(&self) -> Option<(Instant, SessionId)> {
        self.all.first().copied()
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        debug_assert!(self.by_source.values().all(|alike| !alike.is_empty()));
        self.all.len()
    }
}
