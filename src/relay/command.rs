//! What crosses between the planes: requests and events up to the control plane, commands down to a media shard.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::rules::Rules;
use crate::address::FiveTuple;
use crate::address::PeerAddr;
use crate::address::RelayedAddr;
use crate::metrics::DropReason;

/// Names one allocation for the life of the process: never used twice, so that a late command hits nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(pub u64);

/// Which of a shard's sockets a datagram came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub usize);

/// Names one stream (TCP or TLS) for the life of the process: never used twice, so that what comes late hits nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// The way between a client and this server: answers take the one that the question came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// Datagrams at one of the shard's sockets.
    Datagram(ListenerId),
    /// A stream.
    Stream(StreamId),
}

/// Permissions an allocation holds at once at most, however `turn.limits` is set; expired ones make room.
pub const MAX_PERMISSIONS: usize = 1024;
/// Channels an allocation holds at once at most, however `turn.limits` is set; expired ones make room.
pub const MAX_CHANNELS: usize = 1024;

/// What a shard and streams tell the control plane, each by a queue of their own: a shard drops and counts when it is full,
/// a stream waits.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client asks.
    Request(Request),
    /// What [`Command::Open`] began is over before it lived: its names were taken, its relay address is one too many, or
    /// its socket couldn't be watched.
    Refused {
        /// Which.
        id: AllocationId,
    },
    /// A stream is over, and the allocation that it made with it; comes behind its requests, and is never dropped.
    StreamClosed {
        /// Between whom it was.
        five_tuple: FiveTuple,
        /// Which.
        stream: StreamId,
    },
}

/// A STUN request that the data plane does not answer itself.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks, and where.
    pub five_tuple: FiveTuple,
    /// The address of this host that it came to: the 5-tuple's, unless that is a load balancer's own.
    pub reached: IpAddr,
    /// How it came in.
    pub via: Via,
    /// The whole message. [`crate::wire::Stun::parse`] takes it: the data plane checked.
    pub message: Vec<u8>,
}

/// What was relayed for one allocation so far: counted by its shard alone, read by anybody.
///
/// Alone on its cache lines, so that no two shards ever write to one.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Traffic {
    /// From its client to peers, other clients' relayed addresses among them.
    pub to_peers: Flow,
    /// From peers to its client.
    pub to_client: Flow,
    lost: AtomicU64,
    /// Of the reason that they were lost for last, its place among all and one.
    lost_for: AtomicUsize,
}

impl Traffic {
    /// Counts packets of its client's that went nowhere. By one thread only, as [`Flow::add`].
    pub fn lose(&self, packets: u64, reason: DropReason) {
        self.lost.store(self.lost.load(Ordering::Relaxed) + packets, Ordering::Relaxed);
        self.lost_for.store(reason as usize + 1, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn count(&self) -> TrafficCount {
        let lost_for = self.lost_for.load(Ordering::Relaxed).checked_sub(1);
        TrafficCount {
            to_peers: self.to_peers.count(),
            to_client: self.to_client.count(),
            lost: self.lost.load(Ordering::Relaxed),
            lost_for: lost_for.and_then(|place| DropReason::ALL.get(place).copied()),
        }
    }
}

/// What was relayed one way, by one thread.
#[derive(Debug, Default)]
pub struct Flow {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    /// Adds so many packets, and the bytes of payload in them. By one thread only: an addition between another's reading and
    /// writing would be lost.
    pub fn add(&self, packets: u64, bytes: u64) {
        for (count, more) in [(&self.packets, packets), (&self.bytes, bytes)] {
            count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        }
    }

    /// What it stands at.
    pub fn count(&self) -> FlowCount {
        FlowCount { packets: self.packets.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// [`Traffic`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCount {
    /// From its client to peers.
    pub to_peers: FlowCount,
    /// From peers to its client.
    pub to_client: FlowCount,
    /// Packets of its client's that went nowhere.
    pub lost: u64,
    /// Why the last of them didn't.
    pub lost_for: Option<DropReason>,
}

impl TrafficCount {
    /// Whether a peer was ever heard.
    pub fn heard(&self) -> bool {
        self.to_client.packets > 0
    }
}

/// [`Flow`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// Datagrams, and messages of streams.
    pub packets: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
}

/// What the control plane tells a shard. Carried out in order; `S` is the relay socket, opaque to the control plane.
#[derive(Debug)]
pub enum Command<S> {
    /// Sends a STUN answer to a client.
    Answer {
        /// Whom to, and from where.
        five_tuple: FiveTuple,
        /// How the question came in.
        via: Via,
        /// The whole message.
        message: Vec<u8>,
    },
    /// An allocation begins: one 5-tuple, one relayed address, no permission yet.
    ///
    /// The one that had its 5-tuple or its relayed address must be closed before, even if expired.
    Open {
        /// Its name.
        id: AllocationId,
        /// Its client.
        five_tuple: FiveTuple,
        /// How its client is reached.
        via: Via,
        /// The address `socket` is bound to.
        relayed: RelayedAddr,
        /// What clients and peers know the relayed address as: `relayed`, or the external address in front of it.
        advertised: SocketAddr,
        /// The bound socket.
        socket: S,
        /// When it ends unless extended.
        deadline: Instant,
        /// Where what is relayed for it is counted.
        traffic: Arc<Traffic>,
    },
    /// An allocation ends later.
    Extend {
        /// Which.
        id: AllocationId,
        /// The new end.
        deadline: Instant,
    },
    /// A peer IP may send to the client and be sent to. Replaces an earlier permission for it.
    ///
    /// Whether data may leave through the kernel the shard asks the policy, once more for every Send and bind.
    Permit {
        /// Whose.
        id: AllocationId,
        /// The peer, canonical.
        peer: IpAddr,
        /// When the permission ends.
        deadline: Instant,
    },
    /// A peer IP may send to the client and be sent to no more, whatever channels are bound to it: they are over, too.
    Forbid {
        /// Whose.
        id: AllocationId,
        /// The peer, canonical.
        peer: IpAddr,
    },
    /// A channel is bound to a peer, or its bind is refreshed. Neither may be bound otherwise, unless that has expired.
    Bind {
        /// Whose.
        id: AllocationId,
        /// The channel number, one of [`crate::wire::CHANNELS`].
        channel: u16,
        /// The peer.
        peer: PeerAddr,
        /// When the bind ends. (The permission that comes with it is a command of its own.)
        deadline: Instant,
    },
    /// Other rules hold from here on, for what is open already too.
    Configure(Box<Rules>),
    /// An allocation is over: its entries go, its socket is closed.
    Close {
        /// Which.
        id: AllocationId,
    },
}
