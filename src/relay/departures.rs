//! What leaves by the shard's sockets: what a share of a round brings is held back, so that the datagrams of one flow leave
//! as one run, and the runs of one socket by one system call.

use std::ops::Range;
use std::sync::Arc;

use super::command::ListenerId;
use super::command::Traffic;
use super::forwarder::reason_of;
use super::table::Slot;
use crate::address::Transport;
use crate::metrics::Direction;
use crate::metrics::DropReason;
use crate::metrics::EachWay;
use crate::metrics::Metrics;
use crate::net::udp::Fate;
use crate::net::udp::RunId;
use crate::net::udp::Runs;
use crate::net::udp::Socket;
use crate::net::udp::Way;

/// The socket that datagrams leave by: those to peers before those to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exit {
    /// To a peer, from its relayed address.
    Relay(Slot),
    /// To a client.
    Listener(ListenerId),
}

/// What a datagram counts as once it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A client's data for a peer.
    ToPeer,
    /// A peer's data for a client.
    ToClient,
    /// One client's data for another.
    Hairpin,
    /// The answer to a Binding request.
    Binding,
    /// Another answer, or word of an ICMP error.
    Word,
}

impl Purpose {
    fn direction(self) -> Option<Direction> {
        match self {
            Self::ToPeer => Some(Direction::ToPeers),
            Self::ToClient => Some(Direction::ToClients),
            Self::Hairpin => Some(Direction::Hairpin),
            Self::Binding | Self::Word => None,
        }
    }
}

/// A datagram that is about to leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    /// By which socket.
    pub(super) exit: Exit,
    /// Whose flow it belongs to: the allocation whose data it is. None for answers, which leave each alone.
    pub(super) slot: Option<Slot>,
    /// What it counts as.
    pub(super) purpose: Purpose,
    /// Where to.
    pub(super) way: Way,
    /// Bytes of data in it.
    pub(super) payload: usize,
}

/// Datagrams that are about to leave.
#[derive(Debug)]
pub(super) struct Departures {
    runs: Runs<Tag>,
    /// By slot. Capped with the allocations.
    accounts: Vec<Option<Account>>,
    /// How often all have left: what a lane remembers of earlier ones means nothing.
    round: u32,
    /// Whether the kernel is to cut runs apart.
    gso: bool,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    exit: Exit,
    slot: Option<Slot>,
    purpose: Purpose,
}

impl Tag {
    fn is_answer(&self) -> bool {
        self.slot.is_none()
    }

    /// When it leaves: an answer behind the data that came before its question, and once that has been counted.
    fn turn(&self) -> (bool, Exit) {
        (self.is_answer(), self.exit)
    }
}

/// What is kept of one allocation.
#[derive(Debug)]
struct Account {
    /// Towards the peers and towards the client.
    lanes: [Lane; 2],
    /// By what its client comes.
    transport: Transport,
    /// Where what has left for it is counted.
    traffic: Arc<Traffic>,
}

/// One direction of one allocation.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// Its latest run, and in which round that began.
    latest: Option<(u32, RunId)>,
    /// Whether the kernel has refused to cut a run on this way: each datagram leaves alone from then on.
    alone: bool,
}

impl Departures {
    /// None. With `gso`, the kernel cuts apart what leaves as one.
    pub(super) fn new(gso: bool) -> Self {
        Self { runs: Runs::new(), accounts: Vec::new(), round: 0, gso, counts: Counts::default() }
    }

    /// Makes room for the flows of an allocation whose client comes by `transport`, to be counted in `traffic` too.
    pub(super) fn open(&mut self, slot: Slot, transport: Transport, traffic: Arc<Traffic>) {
        if self.accounts.len() <= slot.0 {
            self.accounts.resize_with(slot.0 + 1, || None);
        }
        if let Some(account) = self.accounts.get_mut(slot.0) {
            *account = Some(Account { lanes: Default::default(), transport, traffic });
        }
    }

    /// Forgets an allocation, once all that was held back for it has left.
    pub(super) fn close(&mut self, slot: Slot) {
        if let Some(account) = self.accounts.get_mut(slot.0) {
            *account = None;
        }
    }

    /// Whether there is room for a datagram so long before those that wait have left.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.runs.has_room(length)
    }

    /// Where the next one is to be written.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.runs.room()
    }

    /// Adds the datagram of `length` that was written there; false if there is no room for it.
    pub(super) fn push(&mut self, departure: Departure, length: usize) -> bool {
        let Departure { exit, slot, purpose, way, payload } = departure;
        let (round, gso) = (self.round, self.gso);
        let lane = lane(&mut self.accounts, slot, exit);
        let open = lane.as_ref().filter(|lane| gso && !lane.alone).and_then(|lane| lane.latest);
        let run = open.filter(|(began, _)| *began == round).map(|(_, run)| run);
        let joined = self.runs.push(run, Tag { exit, slot, purpose }, way, length, payload);
        if let (Some(lane), Some(run)) = (lane, joined) {
            lane.latest = Some((round, run));
        }
        joined.is_some()
    }

    /// Counts what went another way: was left at a stream, or sent at once because nobody may fragment it.
    pub(super) fn count(&mut self, slot: Option<Slot>, purpose: Purpose, payload: usize) {
        self.counts.count(&self.accounts, slot, purpose, 1, payload as u64);
    }

    /// Counts data that goes to another client, for the one that sent it: what leaves is counted for the one that receives.
    pub(super) fn count_sender(&self, slot: Slot, payload: usize) {
        if let Some(account) = account(&self.accounts, Some(slot)) {
            account.traffic.to_peers.add(1, payload as u64);
        }
    }

    /// Counts data of a client's that goes nowhere.
    pub(super) fn count_lost(&self, slot: Slot, reason: DropReason) {
        if let Some(account) = account(&self.accounts, Some(slot)) {
            account.traffic.lose(1, reason);
        }
    }

    /// Has all of them leave by the sockets that `socket_of` finds, and counts what became of each.
    pub(super) fn leave<'a>(&mut self, metrics: &Metrics, mut socket_of: impl FnMut(Exit) -> Option<&'a Socket>) {
        self.runs.sort_by_key(Tag::turn);
        let mut start = 0;
        while let Some(first) = self.runs.tag(start) {
            let end = start + self.runs.tags(start).take_while(|tag| tag.turn() == first.turn()).count();
            if first.is_answer() {
                self.counts.take_to(metrics);
            }
            match socket_of(first.exit) {
                Some(socket) => self.leave_by(socket, start..end, metrics),
                None => metrics.dropped_many(DropReason::Bug, (end - start) as u64),
            }
            start = end;
        }
        if !self.runs.is_empty() {
            self.runs.clear();
            // Once it has come round, a lane may remember another run: what doesn't belong there doesn't join it.
            self.round = self.round.wrapping_add(1);
        }
        self.counts.take_to(metrics);
    }

    fn leave_by(&mut self, socket: &Socket, runs: Range<usize>, metrics: &Metrics) {
        let (accounts, counts) = (&mut self.accounts, &mut self.counts);
        self.runs.send(socket, runs, |tag, fate| match fate {
            Fate::Sent { datagrams, payload } => {
                counts.count(accounts, tag.slot, tag.purpose, datagrams.into(), payload);
            }
            Fate::Failed { datagrams, error } => {
                let reason = reason_of(&error);
                metrics.dropped_many(reason, datagrams.into());
                if let (Exit::Relay(_), Some(account)) = (tag.exit, account(accounts, tag.slot)) {
                    account.traffic.lose(datagrams.into(), reason);
                }
            }
            Fate::Uncut => {
                if let Some(lane) = lane(accounts, tag.slot, tag.exit) {
                    lane.alone = true;
                }
            }
        });
    }
}

fn account(accounts: &[Option<Account>], slot: Option<Slot>) -> Option<&Account> {
    accounts.get(slot?.0)?.as_ref()
}

fn lane(accounts: &mut [Option<Account>], slot: Option<Slot>, exit: Exit) -> Option<&mut Lane> {
    let [to_peers, to_client] = &mut accounts.get_mut(slot?.0)?.as_mut()?.lanes;
    Some(match exit {
        Exit::Relay(_) => to_peers,
        Exit::Listener(_) => to_client,
    })
}

/// What has left since it was last told to all: theirs cost more, for every thread adds to them.
#[derive(Debug, Default)]
struct Counts {
    relayed: EachWay<Left>,
    /// Whether any of those is not zero.
    any: bool,
    bindings: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Left {
    datagrams: u64,
    bytes: u64,
}

impl Counts {
    fn count(
        &mut self,
        accounts: &[Option<Account>],
        slot: Option<Slot>,
        purpose: Purpose,
        datagrams: u64,
        payload: u64,
    ) {
        let Some(direction) = purpose.direction() else {
            if purpose == Purpose::Binding {
                self.bindings += datagrams;
            }
            return;
        };
        let Some(Account { transport, traffic, .. }) = account(accounts, slot) else { return };
        match direction {
            Direction::ToPeers => traffic.to_peers.add(datagrams, payload),
            Direction::ToClients | Direction::Hairpin => traffic.to_client.add(datagrams, payload),
        }
        let left = self.relayed.of_mut(*transport, direction);
        (left.datagrams, left.bytes) = (left.datagrams + datagrams, left.bytes + payload);
        self.any = true;
    }

    fn take_to(&mut self, metrics: &Metrics) {
        if self.bindings > 0 {
            metrics.bindings.add(std::mem::take(&mut self.bindings));
        }
        if !std::mem::take(&mut self.any) {
            return;
        }
        for (transport, direction, left) in std::mem::take(&mut self.relayed).iter() {
            if left.datagrams > 0 {
                let relayed = metrics.relayed(transport, direction);
                relayed.packets.add(left.datagrams);
                relayed.bytes.add(left.bytes);
            }
        }
    }
}
