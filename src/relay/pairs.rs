//! Tells an observer between which channels and peers the table forwards: the seam where a faster path, such as one inside
//! the kernel, would be joined on.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;

use tokio::time::Instant;

use super::command::AllocationId;
use crate::address::FiveTuple;
use crate::address::PeerAddr;
use crate::address::RelayedAddr;

/// The two ends that data travels between: as ChannelData on the client's side, bare on the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The client's 5-tuple, whatever its transport.
    pub client: FiveTuple,
    /// The channel number on it.
    pub channel: u16,
    /// The relayed address, as bound.
    pub relayed: RelayedAddr,
    /// The peer.
    pub peer: PeerAddr,
}

/// What becomes of a pair. For each the events are up, extended any number of times, down, and so again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairEvent {
    /// Data is forwarded between the two ends, both ways.
    Up {
        /// Which.
        pair: Pair,
        /// When that ends unless extended.
        deadline: Instant,
    },
    /// It goes on for longer. (Should it ever end sooner, it goes down and comes up.)
    Extended {
        /// Which.
        pair: Pair,
        /// When that ends unless extended.
        deadline: Instant,
    },
    /// Nothing is forwarded between the two ends: one may still reach the other as another pair, or by indications.
    Down {
        /// Which.
        pair: Pair,
    },
}

/// Hears which pairs a shard forwards between, in order and each change once, on the media thread: it must not block.
///
/// A pair is up while its allocation, its channel and the permission for its peer all live, and data for that peer
/// leaves through the kernel: neither denied by the policy nor joined to another client of this server. What another
/// shard opens and closes is seen when the channel is next looked at, by a command or at its deadline: until then a
/// pair whose peer has become that one's relayed address stays up (what is sent there arrives by that socket), and one
/// whose peer was stays down. What the shard counts and limits it counts for what it forwards itself. When an observer
/// is dropped, its shard is over and all pairs are down.
pub trait Observer: fmt::Debug + Send {
    /// Takes what became of a pair.
    fn handle_pair(&mut self, event: PairEvent);
}

/// A bound channel as the table has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) pair: Pair,
    /// When the channel ends.
    pub(super) bound: Instant,
    /// When the pair does, if data may flow.
    pub(super) up: Option<Instant>,
}

/// What an observer has been told, and when it is to be told more.
#[derive(Debug)]
pub(super) struct Pairs {
    observer: Box<dyn Observer>,
    /// Every live channel, up or not: as many as the table holds at most. By peer first, for one may become a client's
    /// relayed address.
    known: BTreeMap<(PeerAddr, AllocationId), Known>,
    /// When to look at each again, once each.
    due: BTreeSet<(Instant, PeerAddr, AllocationId)>,
}

#[derive(Debug)]
struct Known {
    pair: Pair,
    /// The deadline that was told; none while it is down.
    up: Option<Instant>,
    due: Instant,
}

impl Pairs {
    /// Tells `observer`, which has not been told of any.
    pub(super) fn new(observer: Box<dyn Observer>) -> Self {
        Self { observer, known: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// Takes how the channel of an allocation to a peer stands, and tells what has changed by it.
    pub(super) fn set(&mut self, peer: PeerAddr, id: AllocationId, standing: Option<Standing>, now: Instant) {
        let known = self.known.remove(&(peer, id));
        if let Some(Known { due, .. }) = known {
            self.due.remove(&(due, peer, id));
        }
        let told = known.and_then(|known| Some((known.pair, known.up?)));
        let standing = standing.filter(|standing| standing.bound > now);
        let up = standing.and_then(|standing| Some((standing.pair, standing.up.filter(|deadline| *deadline > now)?)));
        self.tell(told, up);
        if let Some(Standing { pair, bound, .. }) = standing {
            let up = up.map(|(_, deadline)| deadline);
            let due = up.unwrap_or(bound);
            self.known.insert((peer, id), Known { pair, up, due });
            self.due.insert((due, peer, id));
        }
    }

    /// When the next one is to be looked at.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, ..)| *due)
    }

    /// The next one to be looked at by now.
    pub(super) fn due(&self, now: Instant) -> Option<(PeerAddr, AllocationId)> {
        self.due.first().filter(|(due, ..)| *due <= now).map(|(_, peer, id)| (*peer, *id))
    }

    /// The allocations that have a channel bound to a peer.
    pub(super) fn bound_to(&self, peer: PeerAddr) -> Vec<AllocationId> {
        let every = (peer, AllocationId(u64::MIN))..=(peer, AllocationId(u64::MAX));
        self.known.range(every).map(|((_, id), _)| *id).collect()
    }

    /// How many channels it knows of, and how many moments it waits for.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.known.len(), self.due.len())
    }

    fn tell(&mut self, told: Option<(Pair, Instant)>, up: Option<(Pair, Instant)>) {
        match (told, up) {
            (Some(told), Some(up)) if told == up => {}
            (Some((told, before)), Some((pair, deadline))) if told == pair && before < deadline => {
                self.observer.handle_pair(PairEvent::Extended { pair, deadline });
            }
            (told, up) => {
                if let Some((pair, _)) = told {
                    self.observer.handle_pair(PairEvent::Down { pair });
                }
                if let Some((pair, deadline)) = up {
                    self.observer.handle_pair(PairEvent::Up { pair, deadline });
                }
            }
        }
    }
}
