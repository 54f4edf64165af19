//! The control plane: one STUN request in, at most one answer out, and commands to the data plane.
//!
//! Requests and answers are webrtc-rs `stun` messages, and every allocation, permission and channel is held by
//! webrtc-rs `turn`'s allocation manager (`backstop`). The crate's own server loop is not used: any account can hang
//! it for good with a handful of datagrams, and it leaves most of RFC 8656's error answers out.
//!
//! Each shard has a processor and a manager of its own; what holds for all of a client's 5-tuples, whichever shards they
//! lead to, they share ([`Pool`]).
//!
//! # Fragments
//!
//! DONT-FRAGMENT is understood, in an Allocate (RFC 8656, section 7.2) as in a Send indication: its datagram leaves with DF
//! set, and the client is told of the MTU that it doesn't fit. All other datagrams leave with DF clear, whatever those had
//! that they came in by (the alternate behavior of RFC 8656, section 14), and may be fragmented on the way. So may what
//! comes in as a datagram and goes on over another IP version, or over IPv6 (RFC 8656, section 13).
//!
//! # Departures from a MUST
//!
//! - Channel numbers 0x5000 to 0x7FFF are accepted, although RFC 8656, section 12 narrows the range to 0x4FFF: clients
//!   written to RFC 5766 use them, coturn's own among them.
//! - A request under 28 bytes, or from a source that has had its share of challenges, gets silence instead of 401
//!   (RFC 8489, section 9.2.4): nothing that spoofed packets can ask for is worth reflecting.
//! - The transaction IDs of Data indications are unique, but not cryptographically random (RFC 8489, section 5): nothing
//!   is ever answered by them.

mod answer;
mod auth;
mod backstop;
mod control;
mod holdings;
mod ledger;
mod nonce;
mod notes;
mod pool;
mod ports;
pub mod probe;
mod processor;
mod request;
pub mod status;
#[cfg(test)]
mod tests;

pub use control::run;
pub use pool::Pool;
pub use ports::Bind;
pub use processor::Processor;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::address::Family;
use crate::address::Prefix;
use crate::rate::Rate;
use crate::volume::Volume;

/// How this server relays. Addresses are those of this host; see [`Settings::relay_addresses`] for their order.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The realm of long-term credentials.
    pub realm: String,
    /// Where relay sockets are bound; of each family the one that the client reached, else in this order as long as they
    /// have ports. None of a family: where the client reached us.
    pub relay_ip: Vec<IpAddr>,
    /// The addresses that the kernel routes from, one of each family that has a route.
    pub routed: Vec<IpAddr>,
    /// The ports of relayed addresses.
    pub relay_ports: RangeInclusive<u16>,
    /// What clients and peers are told instead of a relay address, behind 1:1 NAT.
    pub external_ip: Vec<ExternalIp>,
    /// What one client may have, until [`Pool::configure`].
    pub limits: Limits,
    /// Cancelled when nobody gets an allocation any more, because the process is about to end.
    pub draining: CancellationToken,
}

/// An external address and the relay addresses that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalIp {
    /// What is told.
    pub external: IpAddr,
    /// The one relay address it covers; None: every one of its family.
    pub local: Option<IpAddr>,
}

/// What one client may have.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Allocations and reservations of one member or user.
    pub allocations_per_member: usize,
    /// Allocations and reservations of one source address.
    pub allocations_per_source: usize,
    /// Live permissions of one allocation.
    pub permissions: usize,
    /// Live channels of one allocation.
    pub channels: usize,
    /// Peers that one member or user may begin to exchange data with: beyond it nobody scans others through us.
    ///
    /// All from one source address together may begin with [`Limits::MEMBERS_OF_A_SOURCE`] times as many.
    pub new_peers: Rate,
    /// Answers to a network that hasn't proven who it is; beyond it, silence.
    pub challenges: Rate,
    /// Sources that limits by source don't count.
    pub exempt: Vec<Prefix>,
    /// What was relayed in all; when that is all that may be, nobody gets an allocation.
    pub volume: Arc<Volume>,
}

impl Limits {
    /// How many members behind one address a limit by member alone would let.
    pub const MEMBERS_OF_A_SOURCE: f64 = 5.0;

    fn new_peers_of_source(&self) -> Rate {
        let Rate { per_second, burst } = self.new_peers;
        Rate { per_second: per_second * Self::MEMBERS_OF_A_SOURCE, burst: burst * Self::MEMBERS_OF_A_SOURCE }
    }
}

impl Settings {
    /// Where a relay socket for a client that reached `server` may be bound, best first: `relay_ip`, else `server` if it is
    /// of the family, else what the kernel routes from. A link-local address needs a scope that peers don't have.
    pub fn relay_addresses(&self, server: IpAddr, family: Family) -> Vec<IpAddr> {
        let of_family = |ip: &IpAddr| Family::of(*ip) == family;
        let mut configured: Vec<_> = self.relay_ip.iter().copied().filter(of_family).collect();
        if !configured.is_empty() {
            configured.sort_by_key(|ip| *ip != server);
            return configured;
        }
        let link_local = matches!(server, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let reached = Some(server).filter(|ip| !ip.is_unspecified() && !link_local);
        let routed = self.routed.iter().copied();
        reached.into_iter().chain(routed).find(of_family).into_iter().collect()
    }

    /// What `relay_address` is told as.
    pub fn advertised(&self, relay_address: IpAddr) -> IpAddr {
        let covers = |entry: &&ExternalIp| match entry.local {
            Some(local) => local == relay_address,
            None => entry.external.is_ipv4() == relay_address.is_ipv4(),
        };
        self.external_ip.iter().find(covers).map_or(relay_address, |entry| entry.external)
    }
}

/// The client asked wrongly: what the STUN error response will say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The error code (RFC 8489, section 14.8; RFC 8656, section 19).
    pub code: u16,
    /// For the log, in words.
    pub reason: &'static str,
    /// Types for UNKNOWN-ATTRIBUTES.
    pub unknown: Vec<u16>,
    /// The peer that is denied, if its address names nobody on the internet.
    pub peer: Option<IpAddr>,
}

impl Rejection {
    const UNAUTHENTICATED: Self = Self::new(401, "no proof of who asks");
    const UNKNOWN_ATTRIBUTES: Self = Self::new(420, "unknown attributes");
    const WRONG_CREDENTIALS: Self = Self::new(441, "the allocation belongs to another user name");
    const STALE_NONCE: Self = Self::new(438, "the nonce is too old");
    const FOREIGN_NONCE: Self = Self::new(438, "the nonce was not issued to this client");
    const NO_ALLOCATION: Self = Self::new(437, "no allocation on this 5-tuple");
    const ALLOCATED_ALREADY: Self = Self::new(437, "an allocation exists on this 5-tuple");
    const NOT_SIGNALED: Self =
        Self::new(403, "no candidate of the peer was signaled to this session, see turn.peers.mode");
    const FAMILY_NOT_SUPPORTED: Self = Self::new(440, "address family not supported");
    const NOT_UDP: Self = Self::new(442, "only UDP is relayed");
    const PEER_FAMILY: Self = Self::new(443, "the peer is of another address family than the relayed address");
    const QUOTA: Self = Self::new(486, "allocation quota reached, see turn.limits");
    const NO_PORT: Self = Self::new(508, "no relayed port can be had, see turn.relay_ports");
    const NO_RESERVATION: Self = Self::new(508, "no port is reserved for this RESERVATION-TOKEN and user name");
    const DRAINING: Self = Self::new(508, "the server is about to end, see shutdown.drain");
    const VOLUME: Self = Self::new(508, "turn.limits.bytes_per_day or bytes_per_month is used up");
    const PERMISSIONS: Self = Self::new(508, "too many permissions, see turn.limits.permissions_per_allocation");
    const CHANNELS: Self = Self::new(508, "too many channels, see turn.limits.channels_per_allocation");
    const NOT_ENTERED: Self = Self::new(508, "webrtc-rs did not take it");
    const NEW_PEERS: Self = Self::new(508, "too many new peers at once, see turn.limits.new_peers");

    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason, unknown: Vec::new(), peer: None }
    }

    const fn bad_request(reason: &'static str) -> Self {
        Self::new(400, reason)
    }
}
