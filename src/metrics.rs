//! Counters and gauges that cost one relaxed atomic addition, and their text exposition.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $label:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            /// Every one of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its label in the exposition.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),* }
            }
        }
    };
}

labels! {
    /// Why a datagram went no further. One counter each, never a log line.
    DropReason {
        /// Not STUN, not ChannelData.
        NotTurn => "not-turn",
        /// Announces itself as STUN or ChannelData and isn't well-formed.
        Malformed => "malformed",
        /// A STUN class or method that no client sends to a server, or an unknown required attribute in an indication.
        Unexpected => "unexpected",
        /// Data from a client that has no allocation on this 5-tuple.
        NoAllocation => "no-allocation",
        /// Data for a channel that isn't bound.
        NoChannel => "no-channel",
        /// Data to or from a peer without permission, or an ICMP error about one.
        NoPermission => "no-permission",
        /// A peer that the policy denies.
        PeerDenied => "peer-denied",
        /// A relayed address of ours that no live allocation owns.
        NotOurs => "no-such-relayed-address",
        /// An ICMP error, or one of this host's, that clients aren't told of.
        Icmp => "icmp",
        /// The control plane's queue is full, or the ring to another shard.
        QueueFull => "queue-full",
        /// The source asks more often than its limit, or ICMP errors come more often than a client is told of.
        RateLimited => "rate-limited",
        /// An unauthenticated request too short to answer.
        TooShort => "too-short",
        /// More bytes a second than an allocation, or all, may have.
        Bandwidth => "bandwidth",
        /// More bytes than may be relayed in a day or month.
        Volume => "volume",
        /// Wouldn't fit one datagram, or is larger than what a socket can take.
        TooLarge => "too-large",
        /// The socket refused it for now.
        SocketFull => "socket-full",
        /// The client's stream takes too little: data that waited too long, or too much of it.
        StreamFull => "stream-full",
        /// The client's stream has ended.
        StreamClosed => "stream-closed",
        /// The socket reported an error.
        SocketError => "socket-error",
        /// Should not happen; worth a report.
        Bug => "bug",
    }
}

labels! {
    /// Client protocols of signaling: each has a name space of its own.
    Gateway {
        /// Our own protocol, in both of its dialects.
        Json => "json",
        /// Socket.IO.
        SocketIo => "socketio",
        /// PeerServer's.
        PeerJs => "peerjs",
        /// What y-webrtc and Trystero speak.
        PubSub => "pubsub",
        /// Ayame.
        Ayame => "ayame",
    }
}

/// The live counts of one process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// TURN allocations alive.
    pub allocations: Gauge,
    /// Relay sockets held for a reservation.
    pub reservations: Gauge,
    /// Datagrams relayed from clients to peers through the kernel.
    pub to_peers: Counter,
    /// Datagrams relayed from peers to clients through the kernel.
    pub to_clients: Counter,
    /// Datagrams relayed between two clients inside the process.
    pub hairpin: Counter,
    /// Payload bytes relayed, in every way.
    pub relayed_bytes: Counter,
    /// STUN Binding requests answered.
    pub bindings: Counter,
    /// TURN requests answered with success.
    pub turn_successes: Counter,
    /// TURN requests answered with an error.
    pub turn_errors: Counter,
    /// Connections of load balancers closed because they didn't begin with a good header.
    pub unannounced: Counter,
    /// Signaling members signed in.
    pub members: Gauge,
    /// WebSocket connections open.
    pub connections: Gauge,
    /// The last second of the certificate that is served, in Unix time.
    pub certificate_expiry: Gauge,
    frames: [Counter; Gateway::ALL.len()],
    dropped: [Counter; DropReason::ALL.len()],
}

impl Metrics {
    /// Counts one drop.
    pub fn dropped(&self, reason: DropReason) {
        self.dropped_many(reason, 1);
    }

    /// Counts several.
    pub fn dropped_many(&self, reason: DropReason, count: u64) {
        if let Some(counter) = self.dropped.get(reason as usize) {
            counter.add(count);
        }
    }

    /// How many were dropped for `reason`.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).map_or(0, Counter::get)
    }

    /// Counts one signaling frame that was taken from a client.
    pub fn frame(&self, gateway: Gateway) {
        if let Some(counter) = self.frames.get(gateway as usize) {
            counter.increment();
        }
    }

    /// How many were taken by `gateway`.
    pub fn frames(&self, gateway: Gateway) -> u64 {
        self.frames.get(gateway as usize).map_or(0, Counter::get)
    }

    /// All of them in Prometheus' text exposition format 0.0.4.
    pub fn exposition(&self) -> String {
        let mut text = String::with_capacity(4096);
        let numbers = [
            ("allocations", "gauge", "TURN allocations alive", self.allocations.get()),
            ("reservations", "gauge", "relayed ports held for a RESERVATION-TOKEN", self.reservations.get()),
            ("members", "gauge", "signaling members signed in", self.members.get()),
            ("connections", "gauge", "WebSocket connections open", self.connections.get()),
            ("relayed_to_peers_total", "counter", "datagrams relayed from clients to peers", self.to_peers.get()),
            ("relayed_to_clients_total", "counter", "datagrams relayed from peers to clients", self.to_clients.get()),
            ("hairpin_total", "counter", "datagrams relayed between two clients in the process", self.hairpin.get()),
            ("relayed_bytes_total", "counter", "payload bytes relayed", self.relayed_bytes.get()),
            ("bindings_total", "counter", "STUN Binding requests answered", self.bindings.get()),
            ("turn_successes_total", "counter", "TURN requests answered with success", self.turn_successes.get()),
            ("turn_errors_total", "counter", "TURN requests answered with an error", self.turn_errors.get()),
            (
                "certificate_expiry_seconds",
                "gauge",
                "when the certificate ends, Unix time",
                self.certificate_expiry.get(),
            ),
            ("unannounced_total", "counter", "connections closed for want of a PROXY header", self.unannounced.get()),
        ];
        for (name, kind, help, value) in numbers {
            let name = format!("throughway_{name}");
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        let name = "throughway_frames_total";
        let _ = write!(text, "# HELP {name} signaling frames taken from clients, by gateway\n# TYPE {name} counter\n");
        for gateway in Gateway::ALL {
            let _ = writeln!(text, "{name}{{gateway=\"{}\"}} {}", gateway.label(), self.frames(*gateway));
        }
        let name = "throughway_dropped_total";
        let _ = write!(text, "# HELP {name} datagrams dropped, by reason\n# TYPE {name} counter\n");
        for reason in DropReason::ALL {
            let _ = writeln!(text, "{name}{{reason=\"{}\"}} {}", reason.label(), self.drops(*reason));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_names_every_drop_reason_and_its_count() {
        let metrics = Metrics::default();
        metrics.dropped(DropReason::NoPermission);
        metrics.hairpin.add(7);

        let text = metrics.exposition();

        assert!(text.contains("throughway_dropped_total{reason=\"no-permission\"} 1\n"));
        assert!(text.contains("\nthroughway_hairpin_total 7\n"));
        assert!(DropReason::ALL.iter().all(|reason| text.contains(reason.label())));
    }
}
