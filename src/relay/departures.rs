//! What leaves by the shard's sockets: datagrams of one flow are held back until another's comes or the turn ends, and then
//! leave together.

use super::command::ListenerId;
use super::forwarder::reason_of;
use super::table::Slot;
use crate::metrics::DropReason;
use crate::metrics::Metrics;
use crate::net::udp::Socket;
use crate::net::udp::Train;
use crate::net::udp::Way;

/// The socket that datagrams leave by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// To a client.
    Listener(ListenerId),
    /// To a peer, from its relayed address.
    Relay(Slot),
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
    /// Word of an ICMP error.
    Report,
}

/// Datagrams that are about to leave.
#[derive(Debug, Default)]
pub(super) struct Departures {
    train: Train,
    from: Option<(Exit, Purpose)>,
    /// Bytes of data in each. Never more than [`Train::MOST`].
    payloads: Vec<usize>,
}

impl Departures {
    /// Whether so long a datagram may join those that wait.
    pub(super) fn takes(&self, exit: Exit, purpose: Purpose, way: Way, length: usize) -> bool {
        self.from.is_none_or(|from| from == (exit, purpose)) && self.train.takes(way, length)
    }

    /// Adds a datagram that they take, with so many bytes of data in it.
    pub(super) fn push(&mut self, exit: Exit, purpose: Purpose, way: Way, datagram: &[u8], payload: usize) {
        self.from = Some((exit, purpose));
        self.train.push(way, datagram);
        self.payloads.push(payload);
    }

    /// The socket that they wait for; none when none waits.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.from.map(|(exit, _)| exit)
    }

    /// Sends them by that socket, and counts what became of each.
    pub(super) fn leave(&mut self, socket: &Socket, metrics: &Metrics) {
        let Some((_, purpose)) = self.from.take() else { return };
        let mut payloads = self.payloads.drain(..);
        socket.send_train(&self.train, |sent| {
            let payload = payloads.next().unwrap_or_default();
            match sent {
                Ok(()) => count(purpose, payload, metrics),
                Err(error) => metrics.dropped(reason_of(&error)),
            }
        });
        drop(payloads);
        self.train.clear();
    }

    /// Drops them: their socket is gone, which is a bug.
    pub(super) fn give_up(&mut self, metrics: &Metrics) {
        metrics.dropped_many(DropReason::Bug, self.train.len() as u64);
        *self = Self::default();
    }
}

/// Counts data that has left, or was left at a stream.
pub(super) fn count(purpose: Purpose, payload: usize, metrics: &Metrics) {
    match purpose {
        Purpose::ToPeer => metrics.to_peers.increment(),
        Purpose::ToClient => metrics.to_clients.increment(),
        Purpose::Hairpin => metrics.hairpin.increment(),
        Purpose::Report => return,
    }
    metrics.relayed_bytes.add(payload as u64);
}
