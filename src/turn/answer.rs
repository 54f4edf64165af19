//! Answers: webrtc-rs `stun` messages, signed with the asker's key once it has proven who it is.

use std::net::SocketAddr;

use ring::hmac;
use stun::agent::TransactionId;
use stun::attributes::ATTR_NONCE;
use stun::attributes::ATTR_REALM;
use stun::attributes::ATTR_UNKNOWN_ATTRIBUTES;
use stun::attributes::AttrType;
use stun::error_code::ErrorCode;
use stun::error_code::ErrorCodeAttribute;
use stun::integrity::MessageIntegrity;
use stun::message::CLASS_ERROR_RESPONSE;
use stun::message::CLASS_SUCCESS_RESPONSE;
use stun::message::Message;
use stun::message::MessageClass;
use stun::message::Setter;
use stun::xoraddr::XorMappedAddress;
use subtle::ConstantTimeEq;

use crate::address::Family;
use crate::turn::Rejection;
use crate::wire::STUN_HEADER;
use crate::wire::Stun;

/// RFC 8656, section 18.12; the crate has no name for it.
const ADDRESS_ERROR_CODE: AttrType = AttrType(0x8001);

/// A long-term credential's key: MD5 of `username:realm:password` (RFC 8489, section 9.2.2).
#[derive(Clone)]
pub(super) struct Key(MessageIntegrity);

impl Key {
    /// The key of these.
    pub(super) fn new(username: &str, realm: &str, password: &str) -> Self {
        Self(MessageIntegrity::new_long_term_integrity(username.into(), realm.into(), password.into()))
    }

    /// Whether `integrity`, whose header begins at `at`, is right for the message before it. In constant time.
    pub(super) fn proves(&self, stun: &Stun<'_>, integrity: &[u8], at: usize) -> bool {
        let Some((header, body)) = stun.raw().get(..at).and_then(|before| before.split_first_chunk::<STUN_HEADER>())
        else {
            return false;
        };
        // The length counts as if MESSAGE-INTEGRITY were the last attribute (RFC 8489, section 14.5).
        let Ok(length) = u16::try_from(body.len() + 24) else {
            return false;
        };
        let mut header = *header;
        let [_, _, l0, l1, ..] = &mut header;
        [*l0, *l1] = length.to_be_bytes();
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0.0));
        context.update(&header);
        context.update(body);
        context.sign().as_ref().ct_eq(integrity).into()
    }
}

/// An answer under construction. What doesn't fit a STUN message is a bug of ours, and gives no answer.
pub(super) struct Answer {
    message: Message,
    sound: bool,
}

impl Answer {
    /// A success response to `asked`.
    pub(super) fn success(asked: &Stun<'_>) -> Self {
        Self::new(asked, CLASS_SUCCESS_RESPONSE)
    }

    /// An error response to `asked`, with an empty reason phrase: over UDP each byte is one that a reflection gains.
    pub(super) fn error(asked: &Stun<'_>, rejection: &Rejection) -> Self {
        let code = ErrorCodeAttribute { code: ErrorCode(rejection.code), reason: Vec::new() };
        let answer = Self::new(asked, CLASS_ERROR_RESPONSE).with(&code);
        if rejection.unknown.is_empty() {
            return answer;
        }
        let unknown: Vec<u8> = rejection.unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        answer.raw(ATTR_UNKNOWN_ATTRIBUTES, &unknown)
    }

    fn new(asked: &Stun<'_>, class: MessageClass) -> Self {
        let mut message = Message::new();
        message.transaction_id = TransactionId(asked.transaction_id());
        message.typ.read_value(asked.message_type());
        message.typ.class = class;
        message.write_header();
        Self { message, sound: true }
    }

    /// Adds an attribute of the crates'.
    #[must_use]
    pub(super) fn with(mut self, attribute: &dyn Setter) -> Self {
        self.sound &= attribute.add_to(&mut self.message).is_ok();
        self
    }

    /// Adds XOR-MAPPED-ADDRESS.
    #[must_use]
    pub(super) fn mapped(self, client: SocketAddr) -> Self {
        self.with(&XorMappedAddress { ip: client.ip(), port: client.port() })
    }

    /// Adds REALM and NONCE: what a client needs to ask again.
    #[must_use]
    pub(super) fn challenge(self, realm: &str, nonce: &str) -> Self {
        self.raw(ATTR_REALM, realm.as_bytes()).raw(ATTR_NONCE, nonce.as_bytes())
    }

    /// Adds ADDRESS-ERROR-CODE: why there is no relayed address of this family (RFC 8656, section 18.12).
    #[must_use]
    pub(super) fn address_error(self, family: Family, rejection: &Rejection) -> Self {
        let family = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        let [_, code] = (rejection.code % 100).to_be_bytes();
        let [_, class] = (rejection.code / 100).to_be_bytes();
        self.raw(ADDRESS_ERROR_CODE, &[family, 0, class, code])
    }

    fn raw(mut self, kind: AttrType, value: &[u8]) -> Self {
        self.message.add(kind, value);
        self
    }

    /// The whole message, signed when there is a key.
    pub(super) fn finish(self, key: Option<&Key>) -> Option<Vec<u8>> {
        let signed = match key {
            Some(key) => self.with(&key.0),
            None => self,
        };
        signed.sound.then_some(signed.message.raw)
    }
}
