//! What is relayed: a number, or a pair of them, for every transport and direction.

use super::count::Counter;
use super::label::Direction;
use crate::address::Transport;

/// One of each for every transport of a client's and every direction.
#[derive(Debug, Default)]
pub struct EachWay<T>([[T; 3]; 3]);

impl<T> EachWay<T> {
    /// The one for these.
    pub fn of(&self, transport: Transport, direction: Direction) -> &T {
        let [udp, tcp, tls] = &self.0;
        let [to_peers, to_clients, hairpin] = match transport {
            Transport::Udp => udp,
            Transport::Tcp => tcp,
            Transport::Tls => tls,
        };
        match direction {
            Direction::ToPeers => to_peers,
            Direction::ToClients => to_clients,
            Direction::Hairpin => hairpin,
        }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, transport: Transport, direction: Direction) -> &mut T {
        let [udp, tcp, tls] = &mut self.0;
        let [to_peers, to_clients, hairpin] = match transport {
            Transport::Udp => udp,
            Transport::Tcp => tcp,
            Transport::Tls => tls,
        };
        match direction {
            Direction::ToPeers => to_peers,
            Direction::ToClients => to_clients,
            Direction::Hairpin => hairpin,
        }
    }

    /// All of them, and what each is for.
    pub fn iter(&self) -> impl Iterator<Item = (Transport, Direction, &T)> {
        let directions = |transport| Direction::ALL.iter().map(move |direction| (transport, *direction));
        let all = Transport::ALL.into_iter().flat_map(directions);
        all.map(|(transport, direction)| (transport, direction, self.of(transport, direction)))
    }
}

/// What was relayed one way.
#[derive(Debug, Default)]
pub struct Relayed {
    /// Datagrams, and messages of streams.
    pub packets: Counter,
    /// Bytes of payload in them.
    pub bytes: Counter,
}
