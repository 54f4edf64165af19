//! Counters and gauges that cost one relaxed atomic addition, and their text exposition.
//!
//! Our own few lines and no crate: of `prometheus-client` and `metrics` we would use a number, a label and the printing of
//! both. Theirs find the number by its labels in a table under a lock, or want handles kept wherever something is counted;
//! here labels are the variants of an enum and the number's place is known when it is compiled, so that a media thread may
//! count each datagram, no label can come from a client, and no series can appear that wasn't there from the start.

use crate::address::Transport;

mod count;
pub mod exposition;
mod label;
pub mod process;
mod relayed;

pub use count::Counter;
pub use count::Family;
pub use count::Gauge;
pub use count::Key;
pub use exposition::Exposition;
pub use label::AllocationEnd;
pub use label::Answer;
pub use label::AuthFailure;
pub use label::Delivery;
pub use label::Direction;
pub use label::DropReason;
pub use label::Gateway;
pub use label::NoPlace;
pub use label::PlaceOf;
pub use label::Request;
pub use label::SignIn;
pub use relayed::EachWay;
pub use relayed::Relayed;

/// The live counts of one process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// TURN allocations alive.
    pub allocations: Family<Transport, Gauge>,
    /// Those that began.
    pub allocations_begun: Family<Transport>,
    /// Those that ended.
    pub allocations_ended: Family<AllocationEnd>,
    /// Relay sockets held for a reservation.
    pub reservations: Gauge,
    /// STUN Binding requests answered.
    pub bindings: Counter,
    /// Requests that the control plane answered.
    pub requests: Family<(Request, Answer)>,
    /// User names that weren't proven, though something was shown for them.
    pub auth_failures: Family<AuthFailure>,
    /// Connections of load balancers closed because they didn't begin with a good header.
    pub unannounced: Counter,
    /// Signaling members signed in.
    pub members: Family<Gateway, Gauge>,
    /// Tries to sign in.
    pub sign_ins: Family<(Gateway, SignIn)>,
    /// Tries to have ICE servers without signing in.
    pub ice: Family<SignIn>,
    /// Messages to one member each.
    pub messages: Family<(Gateway, Delivery)>,
    /// WebSocket connections open.
    pub connections: Gauge,
    /// The last second of the certificate that is served, in Unix time.
    pub certificate_expiry: Gauge,
    relayed: EachWay<Relayed>,
    frames: Family<Gateway>,
    dropped: Family<DropReason>,
}

impl Metrics {
    /// Counts one drop.
    pub fn dropped(&self, reason: DropReason) {
        self.dropped_many(reason, 1);
    }

    /// Counts several.
    pub fn dropped_many(&self, reason: DropReason, count: u64) {
        self.dropped.add(reason, count);
    }

    /// How many were dropped for `reason`.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.dropped.at(reason)
    }

    /// What was relayed for clients that come by `transport`; between two of them, by that of the one that receives.
    pub fn relayed(&self, transport: Transport, direction: Direction) -> &Relayed {
        self.relayed.of(transport, direction)
    }

    /// How many packets were relayed in one direction, for whomever.
    pub fn relayed_packets(&self, direction: Direction) -> u64 {
        Transport::ALL.into_iter().map(|transport| self.relayed(transport, direction).packets.get()).sum()
    }

    /// How many bytes of payload were relayed, in every way.
    pub fn relayed_bytes(&self) -> u64 {
        self.relayed.iter().map(|(_, _, relayed)| relayed.bytes.get()).sum()
    }

    /// Counts one signaling frame that was taken from a client.
    pub fn frame(&self, gateway: Gateway) {
        self.frames.increment(gateway);
    }

    /// How many were taken by `gateway`.
    pub fn frames(&self, gateway: Gateway) -> u64 {
        self.frames.at(gateway)
    }

    /// Adds all of them.
    pub fn expose(&self, to: &mut Exposition) {
        self.expose_relay(to);
        self.expose_signaling(to);
    }

    fn expose_relay(&self, to: &mut Exposition) {
        to.gauges("throughway_allocations", "TURN allocations alive.", &self.allocations);
        let begun = &self.allocations_begun;
        to.counters("throughway_allocations_begun_total", "TURN allocations that began.", begun);
        to.counters("throughway_allocations_ended_total", "TURN allocations that ended.", &self.allocations_ended);
        let held = self.reservations.get();
        to.gauge("throughway_reservations", "Relayed ports held for a RESERVATION-TOKEN.", held);
        to.counters_by(
            "throughway_relayed_packets_total",
            "Packets relayed, by the client's transport; for hairpin, the receiving client's.",
            self.relayed.iter().map(|(transport, direction, relayed)| ((transport, direction), relayed.packets.get())),
        );
        to.counters_by(
            "throughway_relayed_bytes_total",
            "Bytes of payload relayed, by the client's transport; for hairpin, the receiving client's.",
            self.relayed.iter().map(|(transport, direction, relayed)| ((transport, direction), relayed.bytes.get())),
        );
        to.counter("throughway_bindings_total", "STUN Binding requests answered.", self.bindings.get());
        to.counters(
            "throughway_turn_requests_total",
            "STUN and TURN requests that the control plane answered; shards answer most of method binding themselves.",
            &self.requests,
        );
        to.counters(
            "throughway_auth_failures_total",
            "Requests whose user name was not proven, though they tried.",
            &self.auth_failures,
        );
        to.counters("throughway_dropped_total", "Datagrams dropped, by reason.", &self.dropped);
    }

    fn expose_signaling(&self, to: &mut Exposition) {
        to.gauge("throughway_connections", "Signaling connections open.", self.connections.get());
        let unannounced = self.unannounced.get();
        to.counter("throughway_unannounced_total", "Connections closed for want of a PROXY header.", unannounced);
        let expiry = self.certificate_expiry.get();
        to.gauge("throughway_certificate_expiry_seconds", "When the certificate ends, in Unix time.", expiry);
        to.gauges("throughway_members", "Signaling members signed in.", &self.members);
        to.counters("throughway_sign_ins_total", "Tries to sign in.", &self.sign_ins);
        to.counters("throughway_ice_requests_total", "Tries to have ICE servers without signing in.", &self.ice);
        to.counters("throughway_frames_total", "Signaling frames taken from clients, by gateway.", &self.frames);
        to.counters("throughway_messages_total", "Signaling messages to one member each.", &self.messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_names_every_drop_reason_and_its_count() {
        let (metrics, mut exposition) = (Metrics::default(), Exposition::default());
        metrics.dropped(DropReason::NoPermission);
        metrics.relayed(Transport::Tcp, Direction::Hairpin).packets.add(7);
        metrics.relayed(Transport::Tls, Direction::ToPeers).bytes.add(8);
        metrics.sign_ins.increment((Gateway::Ayame, SignIn::Banned));

        metrics.expose(&mut exposition);

        let text = exposition.finish();
        assert!(text.contains("throughway_dropped_total{reason=\"no-permission\"} 1\n"));
        assert!(text.contains("throughway_sign_ins_total{gateway=\"ayame\",outcome=\"banned\"} 1\n"));
        let relayed = |what: &str, labels: &str, count: u64| {
            assert!(text.contains(&format!("\nthroughway_relayed_{what}_total{{{labels}}} {count}\n")), "{text}");
        };
        relayed("packets", "transport=\"tcp\",direction=\"hairpin\"", 7);
        relayed("bytes", "transport=\"tls\",direction=\"to-peers\"", 8);
        relayed("bytes", "transport=\"udp\",direction=\"to-clients\"", 0);
        assert!(DropReason::ALL.iter().all(|reason| text.contains(reason.label())));
    }
}
