//! What clients of TURN servers ask, as the user that all of them know.

use std::net::SocketAddr;

use stun::attributes::*;
use stun::integrity::MessageIntegrity;
use stun::message::Message;
use stun::message::Setter;
use throughway::wire::put_xor_address;

use super::Failure;
use super::PASSWORD;
use super::REALM;
use super::USER;

pub(crate) const ALLOCATE: u16 = 0x003;
pub(crate) const CHANNEL_BIND: u16 = 0x009;

/// Attributes with their values.
pub(crate) type Given<'a> = [(AttrType, &'a [u8])];

/// REQUESTED-TRANSPORT of UDP, which is all that an Allocate request needs.
pub(crate) const TRANSPORT: &Given<'static> = &[(ATTR_REQUESTED_TRANSPORT, &[17, 0, 0, 0])];

/// A request with a random transaction ID that proves nothing.
pub(crate) fn message(method: u16, attributes: &Given<'_>) -> Message {
    let mut message = Message::new();
    message.transaction_id = stun::agent::TransactionId::new();
    message.typ.read_value(method);
    message.write_header();
    for (kind, value) in attributes {
        message.add(*kind, value);
    }
    message
}

/// A request of the user's under this nonce.
pub(crate) fn signed(
    method: u16,
    attributes: &Given<'_>,
    nonce: &[u8],
    key: &MessageIntegrity,
) -> Result<Message, Failure> {
    let mut request = message(method, attributes);
    request.add(ATTR_USERNAME, USER.as_bytes());
    request.add(ATTR_REALM, REALM.as_bytes());
    request.add(ATTR_NONCE, nonce);
    key.add_to(&mut request)?;
    Ok(request)
}

/// The user's key.
pub(crate) fn key() -> MessageIntegrity {
    MessageIntegrity::new_long_term_integrity(USER.into(), REALM.into(), PASSWORD.into())
}

/// The value of an IPv4 XOR-PEER-ADDRESS.
pub(crate) fn peer(addr: SocketAddr) -> Result<[u8; 8], Failure> {
    let mut attribute = [0; 12];
    put_xor_address(&mut attribute, ATTR_XOR_PEER_ADDRESS.0, addr, [0; 12]).ok_or("not an IPv4 address")?;
    let [_, _, _, _, value @ ..] = attribute;
    Ok(value)
}

/// The answer, if it is no refusal.
pub(crate) fn accepted(method: u16, answer: Message) -> Result<Message, Failure> {
    match answer.get(ATTR_ERROR_CODE) {
        Err(_) => Ok(answer),
        Ok(code) => Err(format!("method {method:#x} refused: {code:?}").into()),
    }
}
