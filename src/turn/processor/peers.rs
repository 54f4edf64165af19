//! CreatePermission and ChannelBind: which peers an allocation may exchange data with.

use std::net::IpAddr;
use std::net::SocketAddr;

use tokio::time::Instant;

use super::CHANNEL_LIFETIME;
use super::Held;
use super::PERMISSION_LIFETIME;
use super::Processor;
use crate::address::PeerAddr;
use crate::clock::Now;
use crate::policy::Reach;
use crate::relay::command::Command;
use crate::turn::Rejection;
use crate::turn::answer::Answer;
use crate::turn::request::Asked;
use crate::turn::request::Family;

impl<S> Processor<S> {
    /// CreatePermission (RFC 8656, section 10.2): all peers or none.
    ///
    /// A peer named a thousand times is one, and more than may be permitted are refused before any of them costs work.
    pub(super) async fn create_permission(
        &mut self,
        asked: &Asked<'_>,
        held: Held,
        now: Now,
    ) -> Result<Answer, Rejection> {
        let peers = asked.peer_ips()?;
        let (cap, deadline) = (self.settings.limits.permissions, now.monotonic + PERMISSION_LIFETIME);
        let allocation = self.ledger.get_mut(&held.client).ok_or(Rejection::NO_ALLOCATION)?;
        if !allocation.permissions.have_room_for(peers.iter().copied(), cap, now.monotonic) {
            return Err(Rejection::CAPACITY);
        }
        for peer in &peers {
            self.may_reach(any_port(*peer), held.relay)?;
        }
        for peer in peers {
            self.backstop.permit(held.client, any_port(peer)).await;
            self.permit(held, peer, deadline);
        }
        Ok(Answer::success(asked.stun()))
    }

    /// ChannelBind (RFC 8656, section 12.2), which gives or refreshes the peer's permission too.
    pub(super) async fn channel_bind(&mut self, asked: &Asked<'_>, held: Held, now: Now) -> Result<Answer, Rejection> {
        let (channel, peer) = (asked.channel_number()?, asked.peer()?);
        let allocation = self.ledger.get_mut(&held.client).ok_or(Rejection::NO_ALLOCATION)?;
        if !allocation.channels.may_bind(channel, peer, now.monotonic) {
            return Err(Rejection::bad_request("the channel or the peer is bound otherwise"));
        }
        let limits = &self.settings.limits;
        let room = allocation.permissions.have_room_for([peer.ip()], limits.permissions, now.monotonic)
            && allocation.channels.have_room_for(channel, limits.channels, now.monotonic);
        self.may_reach(peer, held.relay)?;
        if !room {
            return Err(Rejection::CAPACITY);
        }
        if let Err(error) = self.backstop.bind(held.client, channel, peer, CHANNEL_LIFETIME).await {
            tracing::warn!(%error, "a channel could not be entered");
            return Err(Rejection::CAPACITY);
        }
        self.permit(held, peer.ip(), now.monotonic + PERMISSION_LIFETIME);
        let deadline = now.monotonic + CHANNEL_LIFETIME;
        if let Some(allocation) = self.ledger.get_mut(&held.client) {
            allocation.channels.bind(channel, peer, deadline);
        }
        self.commands.push_back(Command::Bind { id: held.id, channel, peer, deadline });
        Ok(Answer::success(asked.stun()))
    }

    fn permit(&mut self, held: Held, peer: IpAddr, deadline: Instant) {
        if let Some(allocation) = self.ledger.get_mut(&held.client) {
            allocation.permissions.set(peer, deadline);
        }
        self.commands.push_back(Command::Permit { id: held.id, peer, deadline });
    }

    /// Family and policy. Where our relayed addresses are is always granted: the data plane delivers what is sent there
    /// inside the process, to a live relayed port, or drops it.
    fn may_reach(&self, peer: PeerAddr, relay: IpAddr) -> Result<(), Rejection> {
        if Family::of(peer.ip()) != Family::of(relay) {
            return Err(Rejection::PEER_FAMILY);
        }
        match self.policy.reach(peer) {
            Reach::Kernel => Ok(()),
            Reach::Denied(_) if self.may_be_ours(peer) => Ok(()),
            Reach::Denied(why) => Err(Rejection::new(403, why)),
        }
    }

    fn may_be_ours(&self, peer: PeerAddr) -> bool {
        let port = peer.get().port();
        self.ledger.is_relay_ip(peer.ip()) && (port == 0 || self.settings.relay_ports.contains(&port))
    }
}

fn any_port(ip: IpAddr) -> PeerAddr {
    PeerAddr::new(SocketAddr::new(ip, 0))
}
