//! The forwarding table of one shard: who may send what to whom, decided for one packet at a time, without I/O.
//!
//! A plain copy of what the control plane granted. Every entry carries its deadline and counts only while that lies
//! ahead; nothing is scanned for a packet. Keys a stranger chooses are hashed by std's keyed hasher (SipHash), which
//! no choice of addresses can degrade.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use slab::Slab;
use tokio::time::Instant;

use self::allocation::Allocation;
use self::allocation::Channel;
use super::command::AllocationId;
use super::command::Via;
use super::directory::Directory;
use super::directory::Owner;
use super::directory::ShardId;
use super::pairs::Observer;
use super::pairs::Pair;
use super::pairs::Pairs;
use super::pairs::Standing;
use crate::address::Family;
use crate::address::FiveTuple;
use crate::address::PeerAddr;
use crate::address::RelayedAddr;
use crate::metrics::DropReason;
use crate::policy::Policy;
use crate::policy::Reach;
use crate::rate::Rate;
use crate::rate::TokenBucket;

/// A client, and the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// Its 5-tuple.
    pub(super) five_tuple: FiveTuple,
    /// How its packets come in and go out.
    pub(super) via: Via,
}

/// What an allocation begins with. `S` is its relay socket, which the table only keeps.
#[derive(Debug)]
pub(super) struct Opening<S> {
    /// Its name.
    pub(super) id: AllocationId,
    /// Whose it is.
    pub(super) client: Client,
    /// The address `socket` is bound to.
    pub(super) relayed: RelayedAddr,
    /// What clients and peers know that address as.
    pub(super) advertised: PeerAddr,
    /// The relay socket.
    pub(super) socket: S,
    /// When it ends unless extended.
    pub(super) deadline: Instant,
}

impl<S> Opening<S> {
    fn family(&self) -> Family {
        Family::of(self.relayed.0.ip())
    }

    fn names(&self) -> Names {
        Names { advertised: self.advertised, local: PeerAddr::new(self.relayed.0) }
    }
}

/// What an allocation's relayed address is known as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// To clients and peers.
    pub(super) advertised: PeerAddr,
    /// To this host; often the same.
    pub(super) local: PeerAddr,
}

impl Names {
    /// Each name once, the advertised one first.
    fn iter(self) -> impl Iterator<Item = PeerAddr> {
        std::iter::once(self.advertised).chain((self.local != self.advertised).then_some(self.local))
    }
}

/// Where an allocation stands in the table: fixed while it lives, used again after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(pub(super) usize);

/// Whom a client's data is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The peer that a channel is bound to: ChannelData.
    Channel(u16),
    /// A peer by its address: a Send indication.
    Peer(PeerAddr),
}

/// Where a client's data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forward {
    /// Out through the kernel.
    ToPeer {
        /// The allocation whose relay socket sends it.
        from: Slot,
        /// The peer.
        to: PeerAddr,
    },
    /// To another client, without leaving the process.
    Hairpin {
        /// The allocation of the client that sends.
        from: Slot,
        /// The allocation of the one that receives.
        to: Slot,
        /// How it gets there.
        delivery: Delivery,
    },
    /// To another shard's client, without leaving the process.
    Elsewhere {
        /// The allocation of the client that sends.
        from: Slot,
        /// What its relayed address is known as.
        names: Names,
        /// The relayed address that it is for.
        to: PeerAddr,
        /// Whose that is.
        shard: ShardId,
    },
}

/// A datagram for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Which.
    pub(super) client: Client,
    /// How the data is wrapped.
    pub(super) framing: Framing,
}

/// How data for a client is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// As ChannelData of this number.
    Channel(u16),
    /// As a Data indication from this peer.
    Data(PeerAddr),
}

/// A command that contradicts the table: an address or channel that is taken, or one entry too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("taken or full")]
pub(super) struct Refused;

/// What one client has: at most an allocation of each family (RFC 8656, section 7.2).
#[derive(Clone, Copy, Debug, Default)]
struct Legs {
    v4: Option<usize>,
    v6: Option<usize>,
}

impl Legs {
    fn of(&self, family: Family) -> Option<usize> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    fn of_mut(&mut self, family: Family) -> &mut Option<usize> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// The table. Its number of allocations is bounded by that of relayed ports, theirs of entries by the caps.
#[derive(Debug)]
pub(super) struct Table<S> {
    policy: Arc<Policy>,
    /// Each in a place of its own: grown by doubling, half of the places would be empty ones.
    allocations: Slab<Box<Allocation<S>>>,
    by_id: HashMap<AllocationId, usize>,
    by_client: HashMap<FiveTuple, Legs>,
    /// Which shard this is the table of.
    shard: ShardId,
    /// Whose each relayed address is, under its local and its advertised name: of all shards.
    directory: Arc<Directory>,
    /// What an observer is told. Looked at by commands and the clock, never for a packet.
    pairs: Option<Pairs>,
}

impl<S> Table<S> {
    /// The empty table of a shard; `policy` is asked where data may leave to, `directory` what other shards have, and
    /// `observer` is told between whom it flows.
    pub(super) fn new(
        policy: Arc<Policy>,
        directory: Arc<Directory>,
        shard: ShardId,
        observer: Option<Box<dyn Observer>>,
    ) -> Self {
        let (by_id, by_client, pairs) = (HashMap::new(), HashMap::new(), observer.map(Pairs::new));
        Self { policy, allocations: Slab::new(), by_id, by_client, shard, directory, pairs }
    }

    /// Begins an allocation.
    ///
    /// # Errors
    ///
    /// [`Refused`], and nothing changes, when its name, 5-tuple or one of its addresses has an entry here, live or not, and
    /// when there are too many relay addresses.
    pub(super) fn open(&mut self, opening: Opening<S>, now: Instant) -> Result<Slot, Refused> {
        self.handle_timeout(now);
        let (names, family) = (opening.names(), opening.family());
        if self.by_id.contains_key(&opening.id)
            || self.by_client.get(&opening.client.five_tuple).is_some_and(|legs| legs.of(family).is_some())
            || names.iter().any(|name| self.own(name).is_some())
        {
            return Err(Refused);
        }
        let slot = Slot(self.allocations.vacant_key());
        let owner = Owner { shard: self.shard, slot };
        if !names.iter().all(|name| self.directory.enter(name, owner)) {
            names.iter().for_each(|name| self.directory.strike(name, owner));
            return Err(Refused);
        }
        self.by_id.insert(opening.id, slot.0);
        *self.by_client.entry(opening.client.five_tuple).or_default().of_mut(family) = Some(slot.0);
        self.allocations.insert(Box::new(Allocation::new(opening)));
        for name in names.iter() {
            self.tell_bound_to(name, now);
        }
        Ok(slot)
    }

    /// Moves the end of an allocation. Here and below, one that is already closed is passed over.
    pub(super) fn extend(&mut self, id: AllocationId, deadline: Instant, now: Instant) {
        self.handle_timeout(now);
        if let Some(allocation) = self.by_id(id) {
            allocation.opening.deadline = deadline;
        }
        self.tell_of(id, |_| true, now);
    }

    /// Grants or renews a permission.
    ///
    /// # Errors
    ///
    /// [`Refused`] beyond [`MAX_PERMISSIONS`] live ones.
    pub(super) fn permit(
        &mut self,
        id: AllocationId,
        peer: IpAddr,
        deadline: Instant,
        now: Instant,
    ) -> Result<(), Refused> {
        self.handle_timeout(now);
        self.by_id(id).map_or(Ok(()), |allocation| allocation.permit(peer, deadline, now))?;
        self.tell_of(id, |bound| bound.ip() == peer, now);
        Ok(())
    }

    /// Binds a channel or renews its bind; what the policy says of the peer is remembered with it.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the number or the peer is bound otherwise, and beyond [`MAX_CHANNELS`] live ones.
    pub(super) fn bind(
        &mut self,
        id: AllocationId,
        number: u16,
        peer: PeerAddr,
        deadline: Instant,
        now: Instant,
    ) -> Result<(), Refused> {
        self.handle_timeout(now);
        let reach = self.policy.reach(peer);
        let channel = Channel { peer, reach, deadline };
        self.by_id(id).map_or(Ok(()), |allocation| allocation.bind(number, channel, now))?;
        self.tell(id, peer, now);
        Ok(())
    }

    /// Ends an allocation, and gives back what it began with: its socket among it.
    pub(super) fn close(&mut self, id: AllocationId, now: Instant) -> Option<Opening<S>> {
        self.handle_timeout(now);
        let slot = self.by_id.remove(&id)?;
        let allocation = self.allocations.try_remove(slot)?;
        if let Entry::Occupied(mut legs) = self.by_client.entry(allocation.opening.client.five_tuple) {
            *legs.get_mut().of_mut(allocation.opening.family()) = None;
            if legs.get().v4.or(legs.get().v6).is_none() {
                legs.remove();
            }
        }
        let (owner, names) = (Owner { shard: self.shard, slot: Slot(slot) }, allocation.opening.names());
        names.iter().for_each(|name| self.directory.strike(name, owner));
        for peer in allocation.numbers.into_keys() {
            self.tell(id, peer, now);
        }
        for name in names.iter() {
            self.tell_bound_to(name, now);
        }
        Some(allocation.opening)
    }

    /// Tells the observer what has expired.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((peer, id)) = self.pairs.as_ref().and_then(|pairs| pairs.due(now)) {
            self.tell(id, peer, now);
        }
    }

    /// When [`Table::handle_timeout`] is due: never, when nobody observes.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pairs.as_ref().and_then(Pairs::poll_timeout)
    }

    /// Decides about data from a client.
    ///
    /// The permission comes first. Then: a relayed address of ours is reached inside the process, if its owner permits
    /// the sender's relayed IP, whatever the policy says; other peers are reached as the policy says.
    ///
    /// # Errors
    ///
    /// Why they go nowhere.
    pub(super) fn handle_client_data(
        &self,
        five_tuple: &FiveTuple,
        target: Target,
        now: Instant,
    ) -> Result<Forward, DropReason> {
        let Sending { from, sender, peer, reach } = self.sending(five_tuple, target, now)?;
        if !sender.permits(peer.ip(), now) {
            return Err(DropReason::NoPermission);
        }
        let names = sender.opening.names();
        match self.directory.owner(peer) {
            Some(Owner { shard, slot: to }) if shard == self.shard => {
                Ok(Forward::Hairpin { from, to, delivery: self.hairpin(names, to, now)? })
            }
            Some(Owner { shard, .. }) => Ok(Forward::Elsewhere { from, names, to: peer, shard }),
            None => match reach.unwrap_or_else(|| self.policy.reach(peer)) {
                Reach::Kernel => Ok(Forward::ToPeer { from, to: peer }),
                Reach::Denied(_) if self.directory.is_relay_ip(peer.ip()) => Err(DropReason::NotOurs),
                Reach::Denied(_) => Err(DropReason::PeerDenied),
            },
        }
    }

    /// Decides about data from another shard's client, for a relayed address that was this one's when it was sent off: in
    /// whose bandwidth it counts, and how it gets there.
    ///
    /// # Errors
    ///
    /// Why it goes nowhere.
    pub(super) fn handle_neighbours_data(
        &self,
        from: Names,
        to: PeerAddr,
        now: Instant,
    ) -> Result<(Slot, Delivery), DropReason> {
        let to = self.own(to).ok_or(DropReason::NotOurs)?;
        Ok((to, self.hairpin(from, to, now)?))
    }

    /// Decides about data that a peer sent to a relay socket.
    ///
    /// # Errors
    ///
    /// Why they go nowhere.
    pub(super) fn handle_peer_data(&self, slot: Slot, peer: PeerAddr, now: Instant) -> Result<Delivery, DropReason> {
        let receiver = self.allocations.get(slot.0).filter(|it| it.is_live(now)).ok_or(DropReason::NotOurs)?;
        if !receiver.permits(peer.ip(), now) {
            return Err(DropReason::NoPermission);
        }
        let framing = receiver.channel_to(peer, now).map_or(Framing::Data(peer), Framing::Channel);
        Ok(Delivery { client: receiver.opening.client, framing })
    }

    /// Decides about an ICMP error that came back for what was sent to a peer: whom to tell (RFC 8656, section 11.5).
    ///
    /// # Errors
    ///
    /// Why it goes nowhere: only what a client permits is told, and of forged errors no more than [`ICMP_ERRORS`].
    pub(super) fn handle_icmp_error(&mut self, slot: Slot, peer: PeerAddr, now: Instant) -> Result<Client, DropReason> {
        let sender = self.allocations.get_mut(slot.0).filter(|it| it.is_live(now)).ok_or(DropReason::NotOurs)?;
        if !sender.permits(peer.ip(), now) {
            return Err(DropReason::NoPermission);
        }
        let bucket = sender.icmp_errors.get_or_insert_with(|| TokenBucket::new(ICMP_ERRORS, now));
        if bucket.take(ICMP_ERRORS, now) { Ok(sender.opening.client) } else { Err(DropReason::RateLimited) }
    }

    /// Counts so many bytes for an allocation, in whichever direction; false when it has had its share.
    pub(super) fn take_bandwidth(&mut self, slot: Slot, bytes: usize, rate: Rate, now: Instant) -> bool {
        let Some(allocation) = self.allocations.get_mut(slot.0) else { return false };
        let bucket = allocation.bandwidth.get_or_insert_with(|| TokenBucket::new(rate, now));
        bucket.take_many(bytes as f64, rate, now)
    }

    /// The relay socket of an allocation.
    pub(super) fn socket(&self, slot: Slot) -> Option<&S> {
        self.allocations.get(slot.0).map(|allocation| &allocation.opening.socket)
    }

    /// The relay socket of an allocation, to be changed.
    pub(super) fn socket_mut(&mut self, slot: Slot) -> Option<&mut S> {
        self.allocations.get_mut(slot.0).map(|allocation| &mut allocation.opening.socket)
    }

    /// Where an allocation stands.
    pub(super) fn slot_of(&self, id: AllocationId) -> Option<Slot> {
        self.by_id.get(&id).copied().map(Slot)
    }

    /// Where a 5-tuple has an allocation, of any family, live or not.
    pub(super) fn slot_on(&self, five_tuple: &FiveTuple) -> Option<Slot> {
        let legs = self.by_client.get(five_tuple)?;
        legs.v4.or(legs.v6).map(Slot)
    }

    fn sending(&self, five_tuple: &FiveTuple, target: Target, now: Instant) -> Result<Sending<'_, S>, DropReason> {
        let legs = self.by_client.get(five_tuple).ok_or(DropReason::NoAllocation)?;
        let live = |slot: usize| Some((Slot(slot), self.allocations.get(slot).filter(|it| it.is_live(now))?));
        let mut live = [legs.v4, legs.v6].into_iter().flatten().filter_map(live).peekable();
        live.peek().ok_or(DropReason::NoAllocation)?;
        match target {
            // No number is bound on both legs at once: the control plane sees to it.
            Target::Channel(number) => live.find_map(|(from, sender)| {
                let channel = sender.channels.get(&number).filter(|channel| channel.deadline > now)?;
                Some(Sending { from, sender, peer: channel.peer, reach: Some(channel.reach) })
            }),
            Target::Peer(peer) => live
                .find(|(_, sender)| sender.opening.family() == Family::of(peer.ip()))
                .map(|(from, sender)| Sending { from, sender, peer, reach: None }),
        }
        .ok_or(match target {
            Target::Channel(_) => DropReason::NoChannel,
            Target::Peer(_) => DropReason::NoPermission,
        })
    }

    /// The receiver's side of the way between two clients: as if the sender's relay socket had sent it.
    fn hairpin(&self, from: Names, to: Slot, now: Instant) -> Result<Delivery, DropReason> {
        let receiver = self.allocations.get(to.0).filter(|it| it.is_live(now)).ok_or(DropReason::NotOurs)?;
        let mut permitted = from.iter().filter(|name| receiver.permits(name.ip(), now)).peekable();
        permitted.peek().ok_or(DropReason::NoPermission)?;
        let channel = permitted.find_map(|name| receiver.channel_to(name, now));
        let framing = channel.map_or(Framing::Data(from.advertised), Framing::Channel);
        Ok(Delivery { client: receiver.opening.client, framing })
    }

    /// Which allocation of this shard's has that relayed address.
    fn own(&self, name: PeerAddr) -> Option<Slot> {
        self.directory.owner(name).filter(|owner| owner.shard == self.shard).map(|owner| owner.slot)
    }

    fn by_id(&mut self, id: AllocationId) -> Option<&mut Allocation<S>> {
        self.allocations.get_mut(*self.by_id.get(&id)?).map(Box::as_mut)
    }

    /// Tells the observer what has become of an allocation's channel to a peer, if anything has.
    fn tell(&mut self, id: AllocationId, peer: PeerAddr, now: Instant) {
        let Some(pairs) = &mut self.pairs else { return };
        let allocation = self.by_id.get(&id).and_then(|slot| self.allocations.get(*slot));
        let mut standing = allocation.and_then(|allocation| allocation.standing(peer));
        if let Some(standing) = &mut standing
            && self.directory.owner(peer).is_some()
        {
            standing.up = None;
        }
        pairs.set(peer, id, standing, now);
    }

    /// The same of those of its channels whose peers are meant.
    fn tell_of(&mut self, id: AllocationId, is_meant: impl Fn(&PeerAddr) -> bool, now: Instant) {
        if self.pairs.is_none() {
            return;
        }
        let bound = self.by_id(id).into_iter().flat_map(|allocation| allocation.numbers.keys());
        for peer in bound.copied().filter(is_meant).collect::<Vec<_>>() {
            self.tell(id, peer, now);
        }
    }

    /// The same of everybody's channels to what has become, or was, a relayed address of ours.
    fn tell_bound_to(&mut self, name: PeerAddr, now: Instant) {
        for id in self.pairs.as_ref().map(|pairs| pairs.bound_to(name)).unwrap_or_default() {
            self.tell(id, name, now);
        }
    }
}

/// Which of a client's allocations sends, and to whom.
struct Sending<'a, S> {
    from: Slot,
    sender: &'a Allocation<S>,
    peer: PeerAddr,
    /// What the policy said of the peer, where that is remembered.
    reach: Option<Reach>,
}

/// How many ICMP errors a client is told of: anybody may forge them.
pub(super) const ICMP_ERRORS: Rate = Rate { per_second: 10.0, burst: 20.0 };

mod allocation;
mod change;
#[cfg(test)]
mod tests;
