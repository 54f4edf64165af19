//! CreatePermission and ChannelBind: which peers an allocation may exchange data with.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::SocketAddr;

use tokio::time::Instant;

use super::CHANNEL_LIFETIME;
use super::PERMISSION_LIFETIME;
use super::Processor;
use crate::address::Family;
use crate::address::FiveTuple;
use crate::address::PeerAddr;
use crate::clock::Now;
use crate::policy::Reach;
use crate::relay::command::Command;
use crate::turn::Rejection;
use crate::turn::answer::Answer;
use crate::turn::ledger::Allocation;
use crate::turn::ledger::Leg;
use crate::turn::request::Asked;

impl<S> Processor<S> {
    /// CreatePermission (RFC 8656, section 10.2): all peers or none.
    ///
    /// A peer named a thousand times is one, and more than may be permitted are refused before any of them costs work.
    pub(super) async fn create_permission(
        &mut self,
        asked: &Asked<'_>,
        client: FiveTuple,
        now: Now,
    ) -> Result<Answer, Rejection> {
        let peers = asked.peer_ips()?;
        let (cap, deadline) = (self.pool.rules.get().limits.permissions, now.monotonic + PERMISSION_LIFETIME);
        for family in Family::ALL {
            let mut of_family = peers.iter().copied().filter(|peer| Family::of(*peer) == family).peekable();
            if of_family.peek().is_none() {
                continue;
            }
            let allocation = self.ledger.get_mut(Leg { client, family }).ok_or(Rejection::PEER_FAMILY)?;
            if !allocation.permissions.have_room_for(of_family, cap, now.monotonic) {
                return Err(Rejection::PERMISSIONS);
            }
        }
        for peer in &peers {
            self.may_reach(client, any_port(*peer), now)?;
        }
        self.meet(client, &peers, now)?;
        for peer in peers {
            let leg = Leg { client, family: Family::of(peer) };
            self.backstop.permit(leg, any_port(peer)).await;
            self.permit(leg, peer, deadline);
        }
        Ok(Answer::success(asked.stun()))
    }

    /// ChannelBind (RFC 8656, section 12.2), which gives or refreshes the peer's permission too.
    pub(super) async fn channel_bind(
        &mut self,
        asked: &Asked<'_>,
        client: FiveTuple,
        now: Now,
    ) -> Result<Answer, Rejection> {
        let (channel, peer) = (asked.channel_number()?, asked.peer()?);
        let leg = Leg { client, family: Family::of(peer.ip()) };
        // A number is the whole 5-tuple's: ChannelData names no family.
        let elsewhere = |other: &Allocation| !other.channels.may_bind(channel, peer, now.monotonic);
        if self.ledger.on(client).any(|(_, allocation)| elsewhere(allocation)) {
            return Err(Rejection::bad_request("the channel or the peer is bound otherwise"));
        }
        let rules = self.pool.rules.get();
        let limits = &rules.limits;
        let allocation = self.ledger.get_mut(leg).ok_or(Rejection::PEER_FAMILY)?;
        let may_be_permitted = allocation.permissions.have_room_for([peer.ip()], limits.permissions, now.monotonic);
        let may_be_bound = allocation.channels.have_room_for(channel, limits.channels, now.monotonic);
        let id = allocation.id;
        self.may_reach(client, peer, now)?;
        if !may_be_permitted {
            return Err(Rejection::PERMISSIONS);
        }
        if !may_be_bound {
            return Err(Rejection::CHANNELS);
        }
        self.meet(client, &BTreeSet::from([peer.ip()]), now)?;
        if let Err(error) = self.backstop.bind(leg, channel, peer, CHANNEL_LIFETIME).await {
            tracing::warn!(%error, "a channel could not be entered");
            return Err(Rejection::NOT_ENTERED);
        }
        self.permit(leg, peer.ip(), now.monotonic + PERMISSION_LIFETIME);
        let deadline = now.monotonic + CHANNEL_LIFETIME;
        if let Some(allocation) = self.ledger.get_mut(leg) {
            allocation.channels.bind(channel, peer, deadline);
        }
        self.commands.push_back(Command::Bind { id, channel, peer, deadline });
        Ok(Answer::success(asked.stun()))
    }

    /// Counts those of `peers` that have no permission yet against what a member or user may begin with.
    fn meet(&self, client: FiveTuple, peers: &BTreeSet<IpAddr>, now: Now) -> Result<(), Rejection> {
        let permitted = |allocation: &Allocation, peer: &IpAddr| allocation.permissions.is_live(peer, now.monotonic);
        let is_new = |peer: &&IpAddr| !self.ledger.on(client).any(|(_, allocation)| permitted(allocation, peer));
        let new = u32::try_from(peers.iter().filter(is_new).count()).unwrap_or(u32::MAX);
        let (_, allocation) = self.ledger.on(client).next().ok_or(Rejection::NO_ALLOCATION)?;
        if !self.pool.take_new_peers(&allocation.owner, new, now.monotonic) {
            return Err(Rejection::NEW_PEERS);
        }
        if let Some(place) = allocation.place {
            self.pool.credentials.journal().met(place, new);
        }
        Ok(())
    }

    fn permit(&mut self, leg: Leg, peer: IpAddr, deadline: Instant) {
        if let Some(allocation) = self.ledger.get_mut(leg) {
            allocation.permissions.set(peer, deadline);
            self.commands.push_back(Command::Permit { id: allocation.id, peer, deadline });
        }
    }

    /// The policy, and what was signaled. Where our relayed addresses are is always granted: the data plane delivers what is
    /// sent there inside the process, to a live relayed port, or drops it.
    fn may_reach(&self, client: FiveTuple, peer: PeerAddr, now: Now) -> Result<(), Rejection> {
        if self.may_be_ours(peer) {
            return Ok(());
        }
        match self.pool.rules.get().policy.reach(peer) {
            Reach::Kernel if self.is_known(client, peer.ip(), now) => Ok(()),
            Reach::Kernel => Err(Rejection::NOT_SIGNALED),
            Reach::Denied(why) => {
                let peer = Some(peer.ip()).filter(|ip| self.pool.rules.get().policy.is_special(*ip));
                Err(Rejection { peer, ..Rejection::new(403, why) })
            }
        }
    }

    /// Whether signaling lets the client's session have the peer. Whom it has permitted already it may keep, for the session
    /// may have ended since; who has none never signals here.
    fn is_known(&self, client: FiveTuple, peer: IpAddr, now: Now) -> bool {
        let allocation = self.ledger.get(Leg { client, family: Family::of(peer) });
        let Some((allocation, session)) = allocation.and_then(|found| Some((found, found.owner.session?))) else {
            return true;
        };
        self.pool.credentials.may_reach(session, peer) || allocation.permissions.is_live(&peer, now.monotonic)
    }

    pub(super) fn may_be_ours(&self, peer: PeerAddr) -> bool {
        let port = peer.get().port();
        self.pool.is_relay_ip(peer.ip()) && (port == 0 || self.pool.settings.relay_ports.contains(&port))
    }
}

pub(super) fn any_port(ip: IpAddr) -> PeerAddr {
    PeerAddr::new(SocketAddr::new(ip, 0))
}
