//! One allocation's part in the table: whom it permits, and which channels it has.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::time::Instant;

use super::Opening;
use super::Pair;
use super::Refused;
use super::Standing;
use crate::address::PeerAddr;
use crate::policy::Reach;
use crate::rate::TokenBucket;
use crate::relay::command::MAX_CHANNELS;
use crate::relay::command::MAX_PERMISSIONS;

/// What an allocation may do.
#[derive(Debug)]
pub(super) struct Allocation<S> {
    pub(super) opening: Opening<S>,
    /// At most [`MAX_PERMISSIONS`].
    pub(super) permissions: HashMap<IpAddr, Instant>,
    /// At most [`MAX_CHANNELS`].
    pub(super) channels: HashMap<u16, Channel>,
    /// The same channels by their peers.
    pub(super) numbers: HashMap<PeerAddr, u16>,
    /// Those that its client may be told of; None is full.
    pub(super) icmp_errors: Option<TokenBucket>,
    /// Bytes that may go either way; None is full.
    pub(super) bandwidth: Option<TokenBucket>,
}

/// A channel that is bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    pub(super) peer: PeerAddr,
    pub(super) reach: Reach,
    pub(super) deadline: Instant,
}

impl<S> Allocation<S> {
    pub(super) fn new(opening: Opening<S>) -> Self {
        let (permissions, channels, numbers) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { opening, permissions, channels, numbers, icmp_errors: None, bandwidth: None }
    }

    pub(super) fn permit(&mut self, peer: IpAddr, deadline: Instant, now: Instant) -> Result<(), Refused> {
        if self.permissions.len() >= MAX_PERMISSIONS && !self.permissions.contains_key(&peer) {
            self.permissions.retain(|_, deadline| *deadline > now);
            if self.permissions.len() >= MAX_PERMISSIONS {
                return Err(Refused);
            }
        }
        self.permissions.insert(peer, deadline);
        Ok(())
    }

    pub(super) fn bind(&mut self, number: u16, channel: Channel, now: Instant) -> Result<(), Refused> {
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

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.opening.deadline > now
    }

    pub(super) fn permits(&self, ip: IpAddr, now: Instant) -> bool {
        self.permissions.get(&ip).is_some_and(|deadline| *deadline > now)
    }

    /// How the channel to a peer stands, which data may leave to through the kernel.
    pub(super) fn standing(&self, peer: PeerAddr) -> Option<Standing> {
        let number = *self.numbers.get(&peer)?;
        let channel = self.channels.get(&number).filter(|channel| channel.reach == Reach::Kernel)?;
        let permission = self.permissions.get(&peer.ip());
        let Opening { client, relayed, deadline, .. } = &self.opening;
        Some(Standing {
            pair: Pair { client: client.five_tuple, channel: number, relayed: *relayed, peer },
            bound: channel.deadline,
            up: permission.map(|permission| channel.deadline.min(*permission).min(*deadline)),
        })
    }

    pub(super) fn channel_to(&self, peer: PeerAddr, now: Instant) -> Option<u16> {
        let number = *self.numbers.get(&peer)?;
        self.channels.get(&number).filter(|channel| channel.deadline > now).map(|_| number)
    }
}
