//! The clients: all of one thread, over UDP or over streams.

use std::net::SocketAddr;
use std::time::Duration;

use stun::attributes::*;
use stun::message::Getter;
use stun::message::Message;
use turn::proto::relayaddr::RelayedAddress;

use super::datagrams::Datagrams;
use super::streams::Streams;
use crate::servers::Failure;
use crate::servers::now;
use crate::servers::request;
use crate::servers::request::ALLOCATE;
use crate::servers::request::CHANNEL_BIND;
use crate::servers::request::TRANSPORT;
use crate::servers::request::message;

/// The channel of every client.
pub(crate) const CHANNEL: u16 = 0x4000;

/// How many clients ask at once.
const AT_ONCE: usize = 64;
/// After how long they ask again, and how often.
const PATIENCE: Duration = Duration::from_millis(500);
const TRIES: usize = 20;

/// Clients of a server, by number.
pub(crate) enum Clients {
    Udp(Box<Datagrams>),
    Streams(Streams),
}

impl Clients {
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Udp(clients) => clients.count(),
            Self::Streams(clients) => clients.count(),
        }
    }

    /// Sends a message; whether it left.
    pub(crate) fn send(&mut self, client: usize, message: &[u8]) -> Result<bool, Failure> {
        match self {
            Self::Udp(clients) => clients.send(client, message),
            Self::Streams(clients) => clients.send(client, message),
        }
    }

    /// Hands over what has come in, if anything: for whom, and the message.
    pub(crate) fn receive(&mut self, each: impl FnMut(usize, &[u8])) -> Result<(), Failure> {
        match self {
            Self::Udp(clients) => clients.receive(each),
            Self::Streams(clients) => clients.receive(each),
        }
    }

    /// Gets each client a relayed address and a channel to `peer`, or without one to the client beside it.
    pub(crate) fn allocate(&mut self, peer: Option<SocketAddr>) -> Result<Vec<SocketAddr>, Failure> {
        let key = request::key();
        let strangers: Vec<_> = (0..self.count()).map(|_| message(ALLOCATE, TRANSPORT)).collect();
        let challenges = self.exchange(&strangers)?;
        let nonces = challenges.iter().map(|it| it.get(ATTR_NONCE)).collect::<Result<Vec<_>, _>>()?;

        let signed = nonces.iter().map(|nonce| request::signed(ALLOCATE, TRANSPORT, nonce, &key));
        let answers = self.exchange(&signed.collect::<Result<Vec<_>, _>>()?)?;
        let mut relayed = Vec::new();
        for answer in answers {
            let mut address = RelayedAddress::default();
            address.get_from(&request::accepted(ALLOCATE, answer)?)?;
            relayed.push(SocketAddr::new(address.ip, address.port));
        }

        let [c0, c1] = CHANNEL.to_be_bytes();
        let mut binds = Vec::new();
        for (client, nonce) in nonces.iter().enumerate() {
            let peer = peer.or_else(|| relayed.get(client ^ 1).copied()).ok_or("no peer")?;
            let address = request::peer(peer)?;
            let attributes = [(ATTR_CHANNEL_NUMBER, &[c0, c1, 0, 0][..]), (ATTR_XOR_PEER_ADDRESS, &address[..])];
            binds.push(request::signed(CHANNEL_BIND, &attributes, nonce, &key)?);
        }
        for answer in self.exchange(&binds)? {
            request::accepted(CHANNEL_BIND, answer)?;
        }
        Ok(relayed)
    }

    /// Sends each client's request until it is answered.
    fn exchange(&mut self, requests: &[Message]) -> Result<Vec<Message>, Failure> {
        let mut answers = Vec::new();
        for (group, first) in requests.chunks(AT_ONCE).zip((0..).step_by(AT_ONCE)) {
            let mut waiting: Vec<Result<Message, &Message>> = group.iter().map(Err).collect();
            for _ in 0..TRIES {
                for (client, request) in (first..).zip(&waiting) {
                    if let Err(request) = request {
                        self.send(client, &request.raw)?;
                    }
                }
                let asked = now();
                while waiting.iter().any(Result::is_err) && now() < asked + PATIENCE {
                    self.receive(|client, data| {
                        let place = client.checked_sub(first).and_then(|place| waiting.get_mut(place));
                        let Some(place) = place else { return };
                        let mut answer = Message { raw: data.to_vec(), ..Message::default() };
                        let is_ours = answer.decode().is_ok();
                        if is_ours && place.as_ref().is_err_and(|it| it.transaction_id == answer.transaction_id) {
                            *place = Ok(answer);
                        }
                    })?;
                }
            }
            answers.extend(waiting.into_iter().map(|it| it.map_err(|_| "no answer")).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(answers)
    }
}
