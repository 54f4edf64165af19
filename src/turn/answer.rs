//! Answers: webrtc-rs `stun` messages, signed with the asker's key once it has proven who it is.

use std::net::SocketAddr;

use ring::digest;
use ring::hmac;
use stun::agent::TransactionId;
use stun::attributes::ATTR_MESSAGE_INTEGRITY;
use stun::attributes::ATTR_MESSAGE_INTEGRITY_SHA256;
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
use crate::turn::auth::Challenge;
use crate::wire::STUN_HEADER;
use crate::wire::Stun;

/// RFC 8656, section 18.12; the crate has names for neither of these.
const ADDRESS_ERROR_CODE: AttrType = AttrType(0x8001);
/// RFC 8489, section 14.11.
const ATTR_PASSWORD_ALGORITHMS: AttrType = AttrType(0x8002);

/// What proves a message's sender, and signs the answer to it (RFC 8489, section 9.2.2).
#[derive(Clone)]
pub(super) struct Key {
    hmac: hmac::Key,
    attribute: AttrType,
}

impl Key {
    /// The key of these: hashed as `algorithm` says, for the kind of integrity that the client used.
    pub(super) fn new(
        username: &str,
        realm: &str,
        password: &str,
        algorithm: PasswordAlgorithm,
        integrity: Integrity,
    ) -> Self {
        let (hash, attribute) = match integrity {
            Integrity::Sha1 => (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, ATTR_MESSAGE_INTEGRITY),
            Integrity::Sha256 => (hmac::HMAC_SHA256, ATTR_MESSAGE_INTEGRITY_SHA256),
        };
        let hmac = match algorithm {
            PasswordAlgorithm::Md5 => {
                let key = MessageIntegrity::new_long_term_integrity(username.into(), realm.into(), password.into());
                hmac::Key::new(hash, &key.0)
            }
            PasswordAlgorithm::Sha256 => {
                let text = format!("{username}:{realm}:{password}");
                hmac::Key::new(hash, digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
            }
        };
        Self { hmac, attribute }
    }

    /// Whether `integrity`, whose header begins at `at`, is right for the message before it. In constant time.
    pub(super) fn proves(&self, stun: &Stun<'_>, integrity: &[u8], at: usize) -> bool {
        let Some((header, body)) = stun.raw().get(..at).and_then(|before| before.split_first_chunk::<STUN_HEADER>())
        else {
            return false;
        };
        // The length counts as if the integrity were the last attribute (RFC 8489, sections 14.5 and 14.6).
        let Ok(length) = u16::try_from(body.len() + ATTRIBUTE_HEADER + self.length()) else {
            return false;
        };
        let mut header = *header;
        let [_, _, l0, l1, ..] = &mut header;
        [*l0, *l1] = length.to_be_bytes();
        let mut context = hmac::Context::with_key(&self.hmac);
        context.update(&header);
        context.update(body);
        context.sign().as_ref().ct_eq(integrity).into()
    }

    /// Adds the integrity of all that `message` holds.
    fn sign(&self, message: &mut Message) {
        let at = message.raw.len();
        message.add(self.attribute, &vec![0; self.length()]);
        let (signed, integrity) = message.raw.split_at_mut(at);
        let tag = hmac::sign(&self.hmac, signed);
        integrity.iter_mut().skip(ATTRIBUTE_HEADER).zip(tag.as_ref()).for_each(|(byte, of_tag)| *byte = *of_tag);
    }

    fn length(&self) -> usize {
        self.hmac.algorithm().digest_algorithm().output_len()
    }
}

/// Bytes before an attribute's value.
const ATTRIBUTE_HEADER: usize = 4;

/// How a password becomes a key (RFC 8489, section 18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PasswordAlgorithm {
    /// MD5, and what is meant where none is named.
    Md5,
    /// SHA-256.
    Sha256,
}

/// What integrity a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Integrity {
    /// MESSAGE-INTEGRITY.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

/// PASSWORD-ALGORITHMS as offered, the better one first: each is a number and the length of parameters that it doesn't
/// have (RFC 8489, section 14.11).
pub(super) const PASSWORD_ALGORITHMS: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];

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

    /// Adds REALM and NONCE: what a client needs to ask again; and PASSWORD-ALGORITHMS if the nonce announces them.
    #[must_use]
    pub(super) fn challenge(self, challenge: &Challenge<'_>) -> Self {
        let answer = self.raw(ATTR_REALM, challenge.realm.as_bytes()).raw(ATTR_NONCE, challenge.nonce.as_bytes());
        match challenge.algorithms {
            true => answer.raw(ATTR_PASSWORD_ALGORITHMS, PASSWORD_ALGORITHMS),
            false => answer,
        }
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
    pub(super) fn finish(mut self, key: Option<&Key>) -> Option<Vec<u8>> {
        if let Some(key) = key {
            key.sign(&mut self.message);
        }
        self.sound.then_some(self.message.raw)
    }
}
