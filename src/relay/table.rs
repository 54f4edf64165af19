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

use super::command::AllocationId;
use super::command::MAX_CHANNELS;
use super::command::MAX_PERMISSIONS;
use super::command::Via;
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
    allocations: Slab<Allocation<S>>,
    by_id: HashMap<AllocationId, usize>,
    by_client: HashMap<FiveTuple, Legs>,
    /// Under the local and the advertised address.
    by_relayed: HashMap<PeerAddr, usize>,
    /// The IPs in `by_relayed`, and how often.
    relayed_ips: HashMap<IpAddr, usize>,
}

impl<S> Table<S> {
    /// An empty table; `policy` is asked where data may leave to.
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            allocations: Slab::new(),
            by_id: HashMap::new(),
            by_client: HashMap::new(),
            by_relayed: HashMap::new(),
            relayed_ips: HashMap::new(),
        }
    }

    /// Begins an allocation.
    ///
    /// # Errors
    ///
    /// [`Refused`], and nothing changes, when its name, 5-tuple or one of its addresses has an entry, live or not.
    pub(super) fn open(&mut self, opening: Opening<S>) -> Result<Slot, Refused> {
        let (names, family) = (names(&opening), opening.family());
        if self.by_id.contains_key(&opening.id)
            || self.by_client.get(&opening.client.five_tuple).is_some_and(|legs| legs.of(family).is_some())
            || names.iter().flatten().any(|name| self.by_relayed.contains_key(name))
        {
            return Err(Refused);
        }
        let (id, five_tuple) = (opening.id, opening.client.five_tuple);
        let slot = self.allocations.insert(Allocation::new(opening));
        self.by_id.insert(id, slot);
        *self.by_client.entry(five_tuple).or_default().of_mut(family) = Some(slot);
        for name in names.into_iter().flatten() {
            self.by_relayed.insert(name, slot);
            *self.relayed_ips.entry(name.ip()).or_default() += 1;
        }
        Ok(Slot(slot))
    }

    /// Moves the end of an allocation. Here and below, one that is already closed is passed over.
    pub(super) fn extend(&mut self, id: AllocationId, deadline: Instant) {
        if let Some(allocation) = self.by_id(id) {
            allocation.opening.deadline = deadline;
        }
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
        self.by_id(id).map_or(Ok(()), |allocation| allocation.permit(peer, deadline, now))
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
        let reach = self.policy.reach(peer);
        let channel = Channel { peer, reach, deadline };
        self.by_id(id).map_or(Ok(()), |allocation| allocation.bind(number, channel, now))
    }

    /// Ends an allocation, and gives back what it began with: its socket among it.
    pub(super) fn close(&mut self, id: AllocationId) -> Option<Opening<S>> {
        let allocation = self.allocations.try_remove(self.by_id.remove(&id)?)?;
        if let Entry::Occupied(mut legs) = self.by_client.entry(allocation.opening.client.five_tuple) {
            *legs.get_mut().of_mut(allocation.opening.family()) = None;
            if legs.get().v4.or(legs.get().v6).is_none() {
                legs.remove();
            }
        }
        for name in names(&allocation.opening).into_iter().flatten() {
            self.by_relayed.remove(&name);
            if let Entry::Occupied(mut count) = self.relayed_ips.entry(name.ip()) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        Some(allocation.opening)
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
        let owner = self.by_relayed.get(&peer);
        match owner.and_then(|owner| Some((Slot(*owner), self.allocations.get(*owner)?))) {
            Some((to, receiver)) => Ok(Forward::Hairpin { from, to, delivery: hairpin(sender, receiver, now)? }),
            None => match reach.unwrap_or_else(|| self.policy.reach(peer)) {
                Reach::Kernel => Ok(Forward::ToPeer { from, to: peer }),
                Reach::Denied(_) if self.relayed_ips.contains_key(&peer.ip()) => Err(DropReason::NotOurs),
                Reach::Denied(_) => Err(DropReason::PeerDenied),
            },
        }
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

    /// Whether a 5-tuple has an allocation of any family, live or not.
    pub(super) fn is_client(&self, five_tuple: &FiveTuple) -> bool {
        self.by_client.contains_key(five_tuple)
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

    fn by_id(&mut self, id: AllocationId) -> Option<&mut Allocation<S>> {
        self.allocations.get_mut(*self.by_id.get(&id)?)
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

#[derive(Debug)]
struct Allocation<S> {
    opening: Opening<S>,
    /// At most [`MAX_PERMISSIONS`].
    permissions: HashMap<IpAddr, Instant>,
    /// At most [`MAX_CHANNELS`].
    channels: HashMap<u16, Channel>,
    /// The same channels by their peers.
    numbers: HashMap<PeerAddr, u16>,
    /// Those that its client may be told of; None is full.
    icmp_errors: Option<TokenBucket>,
    /// Bytes that may go either way; None is full.
    bandwidth: Option<TokenBucket>,
}

/// How many ICMP errors a client is told of: anybody may forge them.
pub(super) const ICMP_ERRORS: Rate = Rate { per_second: 10.0, burst: 20.0 };

#[derive(Clone, Copy, Debug)]
struct Channel {
    peer: PeerAddr,
    reach: Reach,
    deadline: Instant,
}

impl<S> Allocation<S> {
    fn new(opening: Opening<S>) -> Self {
        let (permissions, channels, numbers) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { opening, permissions, channels, numbers, icmp_errors: None, bandwidth: None }
    }

    fn permit(&mut self, peer: IpAddr, deadline: Instant, now: Instant) -> Result<(), Refused> {
        if self.permissions.len() >= MAX_PERMISSIONS && !self.permissions.contains_key(&peer) {
            self.permissions.retain(|_, deadline| *deadline > now);
            if self.permissions.len() >= MAX_PERMISSIONS {
                return Err(Refused);
            }
        }
        self.permissions.insert(peer, deadline);
        Ok(())
    }

    fn bind(&mut self, number: u16, channel: Channel, now: Instant) -> Result<(), Refused> {
        let bound = self.channels.get(&number).map(|bound| (bound.peer, number));
        let other = self.numbers.get(&channel.peer).map(|other| (channel.peer, *other));
        for (peer, other) in [bound, other].into_iter().flatten() {
            if (peer, other) == (channel.peer, number) {
                continue;
            }
            if self.channels.get(&other).is_some_and(|it| it.deadline > now) {
                return Err(Refused);
            }
            self.channels.remove(&other);
            self.numbers.remove(&peer);
        }
        if self.channels.len() >= MAX_CHANNELS && !self.channels.contains_key(&number) {
            self.channels.retain(|_, channel| channel.deadline > now);
            self.numbers.retain(|_, number| self.channels.contains_key(number));
            if self.channels.len() >= MAX_CHANNELS {
                return Err(Refused);
            }
        }
        self.channels.insert(number, channel);
        self.numbers.insert(channel.peer, number);
        Ok(())
    }

    fn is_live(&self, now: Instant) -> bool {
        self.opening.deadline > now
    }

    fn permits(&self, ip: IpAddr, now: Instant) -> bool {
        self.permissions.get(&ip).is_some_and(|deadline| *deadline > now)
    }

    fn channel_to(&self, peer: PeerAddr, now: Instant) -> Option<u16> {
        let number = *self.numbers.get(&peer)?;
        self.channels.get(&number).filter(|channel| channel.deadline > now).map(|_| number)
    }
}

/// The receiver's side of the way between two clients: as if the sender's relay socket had sent it.
fn hairpin<S>(sender: &Allocation<S>, receiver: &Allocation<S>, now: Instant) -> Result<Delivery, DropReason> {
    if !receiver.is_live(now) {
        return Err(DropReason::NotOurs);
    }
    let names = names(&sender.opening).into_iter().flatten();
    let mut permitted = names.filter(|name| receiver.permits(name.ip(), now)).peekable();
    permitted.peek().ok_or(DropReason::NoPermission)?;
    let channel = permitted.find_map(|name| receiver.channel_to(name, now));
    let framing = channel.map_or(Framing::Data(sender.opening.advertised), Framing::Channel);
    Ok(Delivery { client: receiver.opening.client, framing })
}

/// What an allocation's relayed address is known as: advertised first, then local where that is another.
fn names<S>(opening: &Opening<S>) -> [Option<PeerAddr>; 2] {
    let local = PeerAddr::new(opening.relayed.0);
    [Some(opening.advertised), (local != opening.advertised).then_some(local)]
}

#[cfg(test)]
mod tests;
