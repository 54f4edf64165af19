//! A TURN client of the tests' own: asks one question at a time, with any flaw that is wished.

use std::net::SocketAddr;

use stun::attributes::*;
use stun::integrity::MessageIntegrity;
use stun::message::*;
use throughway::wire::put_xor_address;
use throughway::wire::xor_address;

use super::PATIENCE;
use super::line::Line;

pub(crate) const BINDING: u16 = 0x001;
pub(crate) const ALLOCATE: u16 = 0x003;
pub(crate) const REFRESH: u16 = 0x004;
pub(crate) const SEND: u16 = 0x0016;
pub(crate) const DATA: u16 = 0x0017;
pub(crate) const CREATE_PERMISSION: u16 = 0x008;
pub(crate) const CHANNEL_BIND: u16 = 0x009;
/// Attribute types, by what they hold.
pub(crate) const NUMBER: u16 = 0x000C;
pub(crate) const LIFETIME: u16 = 0x000D;
pub(crate) const PEER: u16 = 0x0012;
pub(crate) const DATA_VALUE: u16 = 0x0013;
pub(crate) const FAMILY: u16 = 0x0017;
pub(crate) const EVEN_PORT: u16 = 0x0018;
pub(crate) const TOKEN: u16 = 0x0022;
/// RFC 8489, sections 14.11 and 14.12.
pub(crate) const ALGORITHMS: AttrType = AttrType(0x8002);
pub(crate) const ALGORITHM: AttrType = AttrType(0x001D);
/// REQUESTED-TRANSPORT and ADDITIONAL-ADDRESS-FAMILY with the values that are taken.
pub(crate) const UDP: (u16, &[u8]) = (0x0019, &[17, 0, 0, 0]);
pub(crate) const BOTH: (u16, &[u8]) = (0x8000, &[2, 0, 0, 0]);

pub(crate) struct Asker {
    pub(crate) line: Line,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) realm: String,
    pub(crate) nonce: Vec<u8>,
    /// Whether it takes the better algorithms of PASSWORD-ALGORITHMS and integrity (RFC 8489, section 9.2).
    pub(crate) sha256: bool,
}

impl Asker {
    /// A client from a loopback port of its own, with a nonce.
    pub(crate) async fn new(server: SocketAddr, user: &str, password: &str) -> Self {
        Self::over(Line::udp(server).await, user, password).await
    }

    /// A client on a line of its own, with a nonce.
    pub(crate) async fn over(line: Line, user: &str, password: &str) -> Self {
        let (user, password, realm) = (user.to_owned(), password.to_owned(), "throughway".to_owned());
        let mut asker = Self { line, user, password, realm, nonce: Vec::new(), sha256: false };
        let challenge = asker.exchange(&message(ALLOCATE, &[UDP]).raw).await;
        assert_eq!(code(&challenge), 401);
        asker.nonce = challenge.get(ATTR_NONCE).unwrap();
        asker
    }

    pub(crate) async fn send(&self, raw: &[u8]) {
        self.line.send(raw).await;
    }

    /// The next message, whose padding is zero.
    pub(crate) async fn receive(&self) -> Vec<u8> {
        let received = tokio::time::timeout(PATIENCE, self.line.receive()).await;
        let raw = received.expect("something to receive").expect("the line is open");
        if raw[0] < 0x40 {
            assert!(padding(&raw).iter().all(|byte| *byte == 0), "padding is zero: {raw:x?}");
        }
        raw
    }

    /// The next message, which is STUN.
    pub(crate) async fn receive_stun(&self) -> Message {
        parsed(self.receive().await)
    }

    /// Asserts that what was sent before this got no answer: the next to arrive is the one to a question that goes
    /// through media thread and control plane both. When it does, both are done with what came before.
    pub(crate) async fn hears_nothing(&self) {
        assert_eq!(self.exchange(&message(BINDING, &[(0x0006, b"anybody")]).raw).await.typ.value(), 0x0101);
    }

    pub(crate) async fn exchange(&self, raw: &[u8]) -> Message {
        self.send(raw).await;
        let answer = self.receive_stun().await;
        assert_eq!(answer.transaction_id.0, raw[8..20]);
        answer
    }

    /// Asks with a proof; the answer's signature is checked when there is one to be.
    pub(crate) async fn ask(&self, method: u16, attributes: &[(u16, &[u8])]) -> Message {
        let mut answer = self.exchange(&self.signed(method, attributes)).await;
        match code(&answer) {
            401 | 438 => {}
            _ if self.sha256 => {
                let at = answer.raw.len() - 32;
                assert_eq!(answer.raw[at - 4..], self.integrity_sha256(&answer.raw[..at - 4], 32), "a signed answer");
            }
            _ => self.key().check(&mut answer).expect("a signed answer"),
        }
        answer
    }

    pub(crate) fn signed(&self, method: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = message(method, attributes);
        message.add(ATTR_USERNAME, self.user.as_bytes());
        message.add(ATTR_REALM, self.realm.as_bytes());
        message.add(ATTR_NONCE, &self.nonce);
        if !self.sha256 {
            self.key().add_to(&mut message).unwrap();
            return message.raw;
        }
        message.add(ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);
        message.add(ALGORITHM, &[0, 2, 0, 0]);
        self.seal(message, 32)
    }

    /// The message with a MESSAGE-INTEGRITY-SHA256 of so many bytes at its end.
    pub(crate) fn seal(&self, message: Message, length: usize) -> Vec<u8> {
        let integrity = self.integrity_sha256(&message.raw, length);
        let mut message = message;
        message.add(ATTR_MESSAGE_INTEGRITY_SHA256, &integrity[4..]);
        message.raw
    }

    /// MESSAGE-INTEGRITY-SHA256, of so many bytes and with its header, for the message before it.
    fn integrity_sha256(&self, before: &[u8], length: usize) -> Vec<u8> {
        let password = format!("{}:{}:{}", self.user, self.realm, self.password);
        let key = ring::digest::digest(&ring::digest::SHA256, password.as_bytes());
        let [l0, l1] = u16::try_from(before.len() - 20 + 4 + length).unwrap().to_be_bytes();
        let mut covered = before.to_vec();
        covered[2..4].copy_from_slice(&[l0, l1]);
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_ref()), &covered);
        [&[0x00, 0x1C, 0, length.to_le_bytes()[0]], &tag.as_ref()[..length]].concat()
    }

    /// Asks with a proof; the answer's code, 0 for success.
    pub(crate) async fn code_of(&self, method: u16, attributes: &[(u16, &[u8])]) -> u16 {
        code(&self.ask(method, attributes).await)
    }

    /// Allocates; the relayed transport address.
    pub(crate) async fn allocate(&self) -> SocketAddr {
        let answer = self.ask(ALLOCATE, &[UDP]).await;
        assert_eq!(code(&answer), 0);
        relayed(&answer)[0]
    }

    /// Allocates in both families; the relayed transport addresses, IPv4 first.
    pub(crate) async fn allocate_both(&self) -> [SocketAddr; 2] {
        let answer = self.ask(ALLOCATE, &[UDP, BOTH]).await;
        assert_eq!(code(&answer), 0);
        relayed(&answer).try_into().unwrap()
    }

    /// Permits `peer`; the answer's code, 0 for success.
    pub(crate) async fn permit(&self, peer: SocketAddr) -> u16 {
        self.code_of(CREATE_PERMISSION, &[(PEER, &xor(peer))]).await
    }

    /// Binds `channel` to `peer`; the answer's code, 0 for success.
    pub(crate) async fn bind(&self, channel: u16, peer: SocketAddr) -> u16 {
        let [c0, c1] = channel.to_be_bytes();
        self.code_of(CHANNEL_BIND, &[(PEER, &xor(peer)), (NUMBER, &[c0, c1, 0, 0])]).await
    }

    /// Refreshes; the answer's code, 0 for success.
    pub(crate) async fn refresh(&self, lifetime: u32) -> u16 {
        self.code_of(REFRESH, &[(LIFETIME, &lifetime.to_be_bytes())]).await
    }

    /// Sends a Send indication.
    pub(crate) async fn indicate(&self, peer: SocketAddr, data: &[u8]) {
        self.send(&message(SEND, &[(PEER, &xor(peer)), (DATA_VALUE, data)]).raw).await;
    }

    /// What answers are signed with.
    pub(crate) fn key(&self) -> MessageIntegrity {
        MessageIntegrity::new_long_term_integrity(self.user.clone(), self.realm.clone(), self.password.clone())
    }
}

/// A message with a random transaction ID, under which the IPv6 addresses of [`xor`] are put.
pub(crate) fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Message {
    let mut message = Message::new();
    message.transaction_id = stun::agent::TransactionId::new();
    message.typ.read_value(kind);
    message.write_header();
    for (kind, value) in attributes {
        let mut value = value.to_vec();
        if *kind == PEER && value.len() == 20 {
            value[8..].iter_mut().zip(message.transaction_id.0).for_each(|(byte, id)| *byte ^= id);
        }
        message.add(AttrType(*kind), &value);
    }
    message
}

/// A message as it came.
pub(crate) fn parsed(raw: Vec<u8>) -> Message {
    let mut message = Message { raw, ..Message::default() };
    message.decode().unwrap();
    message
}

pub(crate) fn channel_data(channel: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&channel.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

/// An XOR-PEER-ADDRESS without its header, for [`message`].
pub(crate) fn xor(peer: SocketAddr) -> Vec<u8> {
    let mut out = [0; 24];
    let length = put_xor_address(&mut out, PEER, peer, [0; 12]).unwrap();
    out[4..length].to_vec()
}

/// The addresses in every attribute of this type, in order.
pub(crate) fn addresses(message: &Message, kind: AttrType) -> Vec<SocketAddr> {
    let found = message.attributes.0.iter().filter(|attribute| attribute.typ == kind);
    found.map(|attribute| xor_address(&attribute.value, message.transaction_id.0).unwrap()).collect()
}

/// Every relayed transport address in an answer.
pub(crate) fn relayed(answer: &Message) -> Vec<SocketAddr> {
    addresses(answer, ATTR_XOR_RELAYED_ADDRESS)
}

/// The attribute types of a message, in order.
pub(crate) fn kinds(message: &Message) -> Vec<u16> {
    message.attributes.0.iter().map(|attribute| attribute.typ.0).collect()
}

/// The seconds of LIFETIME.
pub(crate) fn seconds(answer: &Message) -> u32 {
    u32::from_be_bytes(answer.get(ATTR_LIFETIME).unwrap().try_into().unwrap())
}

/// The error code, 0 for success.
pub(crate) fn code(answer: &Message) -> u16 {
    answer.get(ATTR_ERROR_CODE).map_or(0, |value| u16::from(value[2]) * 100 + u16::from(value[3]))
}

/// The bytes between a STUN message's attributes.
fn padding(raw: &[u8]) -> Vec<u8> {
    let (mut at, mut padding) = (20, Vec::new());
    while let Some([_, _, l0, l1]) = raw.get(at..at + 4) {
        let end = at + 4 + usize::from(u16::from_be_bytes([*l0, *l1]));
        at = end.next_multiple_of(4);
        padding.extend(&raw[end..at]);
    }
    padding
}
