//! What the control plane knows of each allocation: whose it is, when it ends, what it may still ask for.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::address::Family;
use crate::address::FiveTuple;
use crate::address::PeerAddr;
use crate::credentials::Identity;
use crate::credentials::Mark;
use crate::credentials::SessionId;
use crate::credentials::journal;
use crate::relay::command::AllocationId;
use crate::relay::command::Traffic;
use crate::relay::command::Via;

/// Where an allocation stands: on whose 5-tuple, and in which family it relays.
///
/// What RFC 8656 calls a dual allocation is two here, one on each leg of a 5-tuple, that differ in nothing but what
/// belongs to a family: relayed address, lifetime, permissions, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leg {
    /// The 5-tuple.
    pub(super) client: FiveTuple,
    /// The family of the relayed address.
    pub(super) family: Family,
}

/// One allocation (RFC 8656, section 3).
#[derive(Debug)]
pub(super) struct Allocation {
    /// Its name.
    pub(super) id: AllocationId,
    /// How its client came.
    pub(super) via: Via,
    /// USERNAME of the Allocate request: every later request on the 5-tuple must carry it.
    pub(super) username: String,
    /// Whom it counts for.
    pub(super) owner: Owner,
    /// The relay socket's address.
    pub(super) relayed: SocketAddr,
    /// What clients and peers know it as.
    pub(super) advertised: SocketAddr,
    /// Where it belongs in the journal, if that is kept.
    pub(super) place: Option<journal::Key>,
    /// Where the data plane counts what it relays.
    pub(super) traffic: Arc<Traffic>,
    /// When it ends.
    pub(super) deadline: Instant,
    /// The Allocate request's transaction ID, for its retransmissions.
    pub(super) allocated_by: [u8; 12],
    /// The answer to it.
    pub(super) answer: Vec<u8>,
    /// Peers permitted, with their deadlines. Capped by `Limits::permissions`.
    pub(super) permissions: Deadlines<IpAddr>,
    /// Channels bound. Capped by `Limits::channels`.
    pub(super) channels: Channels,
}

/// Channel numbers bound to peers, one to one (RFC 8656, section 12).
#[derive(Debug, Default)]
pub(super) struct Channels {
    deadlines: Deadlines<u16>,
    peers: HashMap<u16, PeerAddr>,
}

impl Channels {
    /// Whether `number` and `peer` may be bound: both to each other already, or neither to anything.
    pub(super) fn may_bind(&self, number: u16, peer: PeerAddr, now: Instant) -> bool {
        let live = |number: &u16| self.deadlines.is_live(number, now);
        match self.peers.get(&number).filter(|_| live(&number)) {
            Some(bound) => *bound == peer,
            None => !self.peers.iter().any(|(other, bound)| *bound == peer && live(other)),
        }
    }

    /// Forgets what has expired; whether `number` then fits under `cap`.
    pub(super) fn have_room_for(&mut self, number: u16, cap: usize, now: Instant) -> bool {
        let room = self.deadlines.have_room_for([number], cap, now);
        self.peers.retain(|number, _| self.deadlines.0.contains_key(number));
        room
    }

    /// Forgets what is bound to `peer`, whatever the port; which numbers those were.
    pub(super) fn forbid(&mut self, peer: IpAddr) -> Vec<u16> {
        let forbidden: Vec<_> =
            self.peers.extract_if(|_, bound| bound.ip() == peer).map(|(number, _)| number).collect();
        forbidden.iter().for_each(|number| self.deadlines.remove(number));
        forbidden
    }

    /// Binds `number` to `peer` until `deadline`.
    pub(super) fn bind(&mut self, number: u16, peer: PeerAddr, deadline: Instant) {
        self.deadlines.set(number, deadline);
        self.peers.insert(number, peer);
    }
}

/// Keys with deadlines, few enough to be looked through when one is added.
#[derive(Debug)]
pub(super) struct Deadlines<K>(HashMap<K, Instant>);

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash> Deadlines<K> {
    /// Forgets what has expired; whether `keys` then fit beside the rest under `cap`.
    pub(super) fn have_room_for(&mut self, keys: impl IntoIterator<Item = K>, cap: usize, now: Instant) -> bool {
        self.0.retain(|_, deadline| *deadline > now);
        let new: std::collections::HashSet<K> = keys.into_iter().filter(|key| !self.0.contains_key(key)).collect();
        self.0.len() + new.len() <= cap
    }

    /// Whether `key` is here and hasn't expired.
    pub(super) fn is_live(&self, key: &K, now: Instant) -> bool {
        self.0.get(key).is_some_and(|deadline| *deadline > now)
    }

    /// Every key, live or not.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> {
        self.0.keys().copied()
    }

    /// Forgets `key`.
    pub(super) fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }

    /// Adds `key`, or sets its deadline anew.
    pub(super) fn set(&mut self, key: K, deadline: Instant) {
        self.0.insert(key, deadline);
    }
}

/// Whom an allocation or reservation counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The member or user.
    pub(super) identity: Identity,
    /// The signaling session with which it ends.
    pub(super) session: Option<SessionId>,
    /// The source address ([`crate::address::source_of`]); None for an exempt one.
    pub(super) source: Option<IpAddr>,
    /// What proved the user name: with that it ends, too.
    pub(super) mark: Mark,
}

/// How many allocations and reservations each identity and each source has.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    identities: HashMap<Identity, usize>,
    sources: HashMap<IpAddr, usize>,
}

impl Quotas {
    /// Counts `more` for `owner`, unless that is beyond what one may have.
    pub(super) fn take(&mut self, owner: &Owner, more: usize, per_identity: usize, per_source: usize) -> bool {
        let has = self.identities.get(&owner.identity).copied().unwrap_or(0);
        let there = owner.source.and_then(|source| self.sources.get(&source).copied()).unwrap_or(0);
        if has + more > per_identity || (owner.source.is_some() && there + more > per_source) {
            return false;
        }
        self.identities.insert(owner.identity.clone(), has + more);
        if let Some(source) = owner.source {
            self.sources.insert(source, there + more);
        }
        true
    }

    /// Counts `fewer` less for `owner`.
    pub(super) fn give_back(&mut self, owner: &Owner, fewer: usize) {
        Self::lower(&mut self.identities, &owner.identity, fewer);
        if let Some(source) = &owner.source {
            Self::lower(&mut self.sources, source, fewer);
        }
    }

    /// Counts `fewer` less for `key`; what is zero is forgotten.
    pub(super) fn lower<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K, fewer: usize) {
        if let Some(count) = counts.get_mut(key) {
            *count = count.saturating_sub(fewer);
            if *count == 0 {
                counts.remove(key);
            }
        }
    }

    /// Whether nothing is counted for anyone.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.sources.is_empty()
    }
}

/// Every live allocation of one shard. Capped by the ports there are.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    by_leg: HashMap<Leg, Allocation>,
    legs: HashMap<AllocationId, Leg>,
    deadlines: BTreeSet<(Instant, AllocationId)>,
}

impl Ledger {
    /// Enters an allocation.
    pub(super) fn insert(&mut self, leg: Leg, allocation: Allocation) {
        self.legs.insert(allocation.id, leg);
        self.deadlines.insert((allocation.deadline, allocation.id));
        self.by_leg.insert(leg, allocation);
    }

    /// Strikes an allocation off; None when it is off already.
    pub(super) fn remove(&mut self, id: AllocationId) -> Option<Allocation> {
        let leg = self.legs.remove(&id)?;
        let allocation = self.by_leg.remove(&leg)?;
        self.deadlines.remove(&(allocation.deadline, id));
        Some(allocation)
    }

    /// Sets an allocation's end anew.
    pub(super) fn extend(&mut self, leg: Leg, deadline: Instant) {
        if let Some(allocation) = self.by_leg.get_mut(&leg) {
            self.deadlines.remove(&(allocation.deadline, allocation.id));
            self.deadlines.insert((deadline, allocation.id));
            allocation.deadline = deadline;
        }
    }

    /// The allocation on one leg of a 5-tuple.
    pub(super) fn get(&self, leg: Leg) -> Option<&Allocation> {
        self.by_leg.get(&leg)
    }

    /// The allocation on one leg, to change its permissions and channels.
    pub(super) fn get_mut(&mut self, leg: Leg) -> Option<&mut Allocation> {
        self.by_leg.get_mut(&leg)
    }

    /// The legs of a 5-tuple that have an allocation, with it.
    pub(super) fn on(&self, client: FiveTuple) -> impl Iterator<Item = (Leg, &Allocation)> {
        let legs = Family::ALL.map(|family| Leg { client, family });
        legs.into_iter().filter_map(|leg| Some((leg, self.get(leg)?)))
    }

    /// Keeps the answer to the Allocate request that made what is on a 5-tuple.
    pub(super) fn note_answer(&mut self, client: FiveTuple, answer: &[u8]) {
        for family in Family::ALL {
            if let Some(allocation) = self.by_leg.get_mut(&Leg { client, family }) {
                answer.clone_into(&mut allocation.answer);
            }
        }
    }

    /// Every allocation, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (Leg, &Allocation)> {
        self.by_leg.iter().map(|(leg, allocation)| (*leg, allocation))
    }

    /// Where an allocation stands.
    pub(super) fn leg_of(&self, id: AllocationId) -> Option<Leg> {
        self.legs.get(&id).copied()
    }

    /// The first `most` allocations behind `id`, in their order.
    pub(super) fn after(&self, id: AllocationId, most: usize) -> Vec<(Leg, &Allocation)> {
        let mut ids: Vec<_> = self.legs.keys().copied().filter(|other| *other > id).collect();
        if ids.len() > most {
            ids.select_nth_unstable(most);
            ids.truncate(most);
        }
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| self.leg_of(id)).filter_map(|leg| Some((leg, self.get(leg)?))).collect()
    }

    /// The first deadline.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// An allocation whose time has come.
    pub(super) fn poll_expired(&self, now: Instant) -> Option<AllocationId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }
}
