//! A TURN client of the tests' own: asks one question at a time, with any flaw that is wished.

use std::net::SocketAddr;

use stun::attributes::*;
use stun::integrity::MessageIntegrity;
use stun::message::*;
use throughway::wire::put_xor_address;

use super::line::Line;

use crate::support::PATIENCE;

pub(crate) const BINDING: u16 = 0x001;
pub(crate) const ALLOCATE: u16 = 0x003;
pub(crate) const REFRESH: u16 = 0x004;
pub(crate) const SEND: u16 = 0x0016;
pub(crate) const DATA: u16 = 0x0017;
pub(crate) const CREATE_PERMISSION: u16 = 0x008;
pub(crate) const CHANNEL_BIND: u16 = 0x009;
pub(crate) const UDP: (u16, &[u8]) = (0x0019, &[17, 0, 0, 0]);

pub(crate) struct Asker {
    pub(crate) line: Line,
    user: String,
    password: String,
    nonce: Vec<u8>,
}

impl Asker {
    /// A client from a loopback port of its own, with a nonce.
    pub(crate) async fn new(server: SocketAddr, user: &str, password: &str) -> Self {
        Self::over(Line::udp(server).await, user, password).await
    }

    /// A client on a line of its own, with a nonce.
    pub(crate) async fn over(line: Line, user: &str, password: &str) -> Self {
        let mut asker = Self { line, user: user.to_owned(), password: password.to_owned(), nonce: Vec::new() };
        let challenge = asker.exchange(&message(ALLOCATE, &[UDP]).raw).await;
        assert_eq!(code(&challenge), 401);
        asker.nonce = challenge.get(ATTR_NONCE).unwrap();
        asker
    }

    pub(crate) async fn send(&self, raw: &[u8]) {
        self.line.send(raw).await;
    }

    pub(crate) async fn receive(&self) -> Vec<u8> {
        let received = tokio::time::timeout(PATIENCE, self.line.receive()).await;
        received.expect("something to receive").expect("the line is open")
    }

    pub(crate) async fn exchange(&self, raw: &[u8]) -> Message {
        self.send(raw).await;
        let mut answer = Message { raw: self.receive().await, ..Message::default() };
        answer.decode().unwrap();
        assert_eq!(answer.transaction_id.0, raw[8..20]);
        answer
    }

    /// Asks with a proof; the answer's signature is checked when there is one to be.
    pub(crate) async fn ask(&self, method: u16, attributes: &[(u16, &[u8])]) -> Message {
        let mut answer = self.exchange(&self.signed(method, attributes)).await;
        if ![401, 438].contains(&code(&answer)) {
            self.key().check(&mut answer).expect("a signed answer");
        }
        answer
    }

    pub(crate) fn signed(&self, method: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = message(method, attributes);
        message.add(ATTR_USERNAME, self.user.as_bytes());
        message.add(ATTR_REALM, b"throughway");
        message.add(ATTR_NONCE, &self.nonce);
        self.key().add_to(&mut message).unwrap();
        message.raw
    }

    /// Allocates; the relayed transport address.
    pub(crate) async fn allocate(&self) -> SocketAddr {
        let answer = self.ask(ALLOCATE, &[UDP]).await;
        assert_eq!(code(&answer), 0);
        let mut relayed = turn::proto::relayaddr::RelayedAddress::default();
        relayed.get_from(&answer).unwrap();
        SocketAddr::new(relayed.ip, relayed.port)
    }

    /// Permits `peer`; the answer's code, 0 for success.
    pub(crate) async fn permit(&self, peer: SocketAddr) -> u16 {
        code(&self.ask(CREATE_PERMISSION, &[(0x0012, &xor(peer))]).await)
    }

    /// Binds `channel` to `peer`; the answer's code, 0 for success.
    pub(crate) async fn bind(&self, channel: u16, peer: SocketAddr) -> u16 {
        let [c0, c1] = channel.to_be_bytes();
        code(&self.ask(CHANNEL_BIND, &[(0x0012, &xor(peer)), (0x000C, &[c0, c1, 0, 0])]).await)
    }

    fn key(&self) -> MessageIntegrity {
        MessageIntegrity::new_long_term_integrity(self.user.clone(), "throughway".into(), self.password.clone())
    }
}

/// A message with a random transaction ID.
pub(crate) fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Message {
    let mut message = Message::new();
    message.transaction_id = stun::agent::TransactionId::new();
    message.typ.read_value(kind);
    message.write_header();
    for (kind, value) in attributes {
        message.add(AttrType(*kind), value);
    }
    message
}

pub(crate) fn channel_data(channel: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&channel.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

/// An IPv4 XOR-PEER-ADDRESS, without its header.
pub(crate) fn xor(peer: SocketAddr) -> Vec<u8> {
    assert!(peer.is_ipv4(), "an IPv6 address would depend on the transaction ID");
    let mut out = [0; 12];
    put_xor_address(&mut out, 0x0012, peer, [0; 12]).unwrap();
    out[4..].to_vec()
}

/// The error code, 0 for success.
pub(crate) fn code(answer: &Message) -> u16 {
    answer.get(ATTR_ERROR_CODE).map_or(0, |value| u16::from(value[2]) * 100 + u16::from(value[3]))
}
