//! What a STUN request says, read strictly: only what counts, and each attribute in its own type.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::address::Family;
use crate::address::PeerAddr;
use crate::metrics;
use crate::turn::Rejection;
use crate::turn::answer::Integrity;
use crate::turn::answer::PASSWORD_ALGORITHMS;
use crate::turn::answer::PasswordAlgorithm;
use crate::wire::Attribute;
use crate::wire::CHANNELS;
use crate::wire::Stun;
use crate::wire::method;
use crate::wire::xor_address;

/// The methods that need a proof of who asks (RFC 8656, section 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Allocate.
    Allocate,
    /// Refresh.
    Refresh,
    /// CreatePermission.
    CreatePermission,
    /// ChannelBind.
    ChannelBind,
}

impl Method {
    /// The method of this number, if this server has it.
    pub(super) fn of(number: u16) -> Option<Self> {
        Some(match number {
            method::ALLOCATE => Self::Allocate,
            method::REFRESH => Self::Refresh,
            method::CREATE_PERMISSION => Self::CreatePermission,
            method::CHANNEL_BIND => Self::ChannelBind,
            _ => return None,
        })
    }
}

impl From<Method> for metrics::Request {
    fn from(method: Method) -> Self {
        match method {
            Method::Allocate => Self::Allocate,
            Method::Refresh => Self::Refresh,
            Method::CreatePermission => Self::CreatePermission,
            Method::ChannelBind => Self::ChannelBind,
        }
    }
}

/// The integrity part of a request, complete (RFC 8489, section 9.2.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof<'a> {
    /// USERNAME.
    pub(super) username: &'a str,
    /// REALM.
    pub(super) realm: &'a [u8],
    /// NONCE.
    pub(super) nonce: &'a [u8],
    /// Which integrity the message carries.
    pub(super) integrity: Integrity,
    /// Its value.
    pub(super) value: &'a [u8],
    /// Where its header begins.
    pub(super) offset: usize,
}

/// A request whose attributes can be asked for. Those behind its integrity don't exist for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    stun: Stun<'a>,
}

impl<'a> Asked<'a> {
    /// The attributes of `stun` that count.
    pub(super) fn new(stun: Stun<'a>) -> Self {
        Self { stun }
    }

    /// The message itself.
    pub(super) fn stun(&self) -> &Stun<'a> {
        &self.stun
    }

    /// The proof of who asks; None without an integrity. Of two the stronger counts.
    ///
    /// # Errors
    ///
    /// 400 when it stands without USERNAME, REALM or NONCE, or one of them is longer than its limit.
    pub(super) fn proof(&self) -> Result<Option<Proof<'a>>, Rejection> {
        let sha256 = self.stun.attributes().find(|attribute| attribute.kind == kind::MESSAGE_INTEGRITY_SHA256);
        let sha1 = || self.attribute(kind::MESSAGE_INTEGRITY).map(|found| (Integrity::Sha1, found));
        let Some((integrity, found)) = sha256.map(|found| (Integrity::Sha256, found)).or_else(sha1) else {
            return Ok(None);
        };
        let text = |kind, longest: usize| {
            let value =
                self.value(kind).ok_or(Rejection::bad_request("USERNAME, REALM and NONCE belong to an integrity"))?;
            if value.len() > longest {
                Err(Rejection::bad_request("USERNAME, REALM or NONCE is too long"))
            } else {
                Ok(value)
            }
        };
        let username = text(kind::USERNAME, 513)?;
        let username = std::str::from_utf8(username).map_err(|_| Rejection::bad_request("USERNAME is not UTF-8"))?;
        Ok(Some(Proof {
            username,
            realm: text(kind::REALM, 763)?,
            nonce: text(kind::NONCE, 763)?,
            integrity,
            value: found.value,
            offset: found.offset,
        }))
    }

    /// How the password was hashed, where algorithms were offered (RFC 8489, section 9.2.4).
    ///
    /// # Errors
    ///
    /// 400 unless the client repeats the offer and takes one of it, or knows nothing of either.
    pub(super) fn password_algorithm(&self) -> Result<PasswordAlgorithm, Rejection> {
        match (self.value(kind::PASSWORD_ALGORITHMS), self.value(kind::PASSWORD_ALGORITHM)) {
            (None, None) => Ok(PasswordAlgorithm::Md5),
            (Some(PASSWORD_ALGORITHMS), Some([0, 1, 0, 0])) => Ok(PasswordAlgorithm::Md5),
            (Some(PASSWORD_ALGORITHMS), Some([0, 2, 0, 0])) => Ok(PasswordAlgorithm::Sha256),
            (_, _) => Err(Rejection::bad_request("PASSWORD-ALGORITHM is not one of those offered")),
        }
    }

    /// Whether all comprehension-required attributes are known (RFC 8489, section 6.3.1).
    ///
    /// # Errors
    ///
    /// 420 with those that aren't, without repetition, 16 at most.
    pub(super) fn all_known(&self) -> Result<(), Rejection> {
        let mut unknown = Vec::new();
        for attribute in self.counting() {
            let strange = attribute.kind < 0x8000 && !kind::KNOWN.contains(&attribute.kind);
            if strange && !unknown.contains(&attribute.kind) && unknown.len() < 16 {
                unknown.push(attribute.kind);
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(Rejection { unknown, ..Rejection::UNKNOWN_ATTRIBUTES }) }
    }

    /// REQUESTED-TRANSPORT's protocol number (RFC 8656, section 18.8).
    ///
    /// # Errors
    ///
    /// 400 when missing or misshapen.
    pub(super) fn requested_transport(&self) -> Result<u8, Rejection> {
        match self.value(kind::REQUESTED_TRANSPORT) {
            Some([protocol, _, _, _]) => Ok(*protocol),
            Some(_) | None => Err(Rejection::bad_request("REQUESTED-TRANSPORT is missing or misshapen")),
        }
    }

    /// REQUESTED-ADDRESS-FAMILY (RFC 8656, section 18.6).
    ///
    /// # Errors
    ///
    /// 400 when misshapen, 440 for a family that nobody knows.
    pub(super) fn requested_family(&self) -> Result<Option<Family>, Rejection> {
        match self.value(kind::REQUESTED_ADDRESS_FAMILY) {
            None => Ok(None),
            Some([1, _, _, _]) => Ok(Some(Family::V4)),
            Some([2, _, _, _]) => Ok(Some(Family::V6)),
            Some([_, _, _, _]) => Err(Rejection::FAMILY_NOT_SUPPORTED),
            Some(_) => Err(Rejection::bad_request("REQUESTED-ADDRESS-FAMILY is misshapen")),
        }
    }

    /// Whether ADDITIONAL-ADDRESS-FAMILY asks for an IPv6 address besides the IPv4 one (RFC 8656, section 18.11).
    ///
    /// # Errors
    ///
    /// 400 when misshapen, or for any other family.
    pub(super) fn additional_family(&self) -> Result<bool, Rejection> {
        match self.value(kind::ADDITIONAL_ADDRESS_FAMILY) {
            None => Ok(false),
            Some([2, _, _, _]) => Ok(true),
            Some(_) => Err(Rejection::bad_request("ADDITIONAL-ADDRESS-FAMILY is for IPv6")),
        }
    }

    /// EVEN-PORT; true when the next port is to be reserved (RFC 8656, section 18.5).
    ///
    /// # Errors
    ///
    /// 400 when misshapen.
    pub(super) fn even_port(&self) -> Result<Option<bool>, Rejection> {
        match self.value(kind::EVEN_PORT) {
            None => Ok(None),
            Some([flags]) => Ok(Some(flags & 0x80 != 0)),
            Some(_) => Err(Rejection::bad_request("EVEN-PORT is misshapen")),
        }
    }

    /// RESERVATION-TOKEN (RFC 8656, section 18.10).
    ///
    /// # Errors
    ///
    /// 400 when misshapen.
    pub(super) fn reservation_token(&self) -> Result<Option<[u8; 8]>, Rejection> {
        self.value(kind::RESERVATION_TOKEN)
            .map(|value| value.try_into().map_err(|_| Rejection::bad_request("RESERVATION-TOKEN is misshapen")))
            .transpose()
    }

    /// LIFETIME in seconds (RFC 8656, section 18.2).
    ///
    /// # Errors
    ///
    /// 400 when misshapen.
    pub(super) fn lifetime(&self) -> Result<Option<u32>, Rejection> {
        self.value(kind::LIFETIME)
            .map(|value| {
                value.try_into().map(u32::from_be_bytes).map_err(|_| Rejection::bad_request("LIFETIME is misshapen"))
            })
            .transpose()
    }

    /// CHANNEL-NUMBER, one of [`CHANNELS`] (RFC 8656, section 18.1).
    ///
    /// # Errors
    ///
    /// 400 when missing, misshapen or out of range.
    pub(super) fn channel_number(&self) -> Result<u16, Rejection> {
        match self.value(kind::CHANNEL_NUMBER) {
            Some([n0, n1, _, _]) => Some(u16::from_be_bytes([*n0, *n1])),
            Some(_) | None => None,
        }
        .filter(|number| CHANNELS.contains(number))
        .ok_or(Rejection::bad_request("CHANNEL-NUMBER is missing, misshapen or out of range"))
    }

    /// The one XOR-PEER-ADDRESS, canonical.
    ///
    /// # Errors
    ///
    /// 400 when it is missing, misshapen or not alone.
    pub(super) fn peer(&self) -> Result<PeerAddr, Rejection> {
        match self.peers()?.as_slice() {
            [peer] => Ok(*peer),
            _ => Err(Rejection::bad_request("one XOR-PEER-ADDRESS is wanted")),
        }
    }

    /// The IP address of every XOR-PEER-ADDRESS, canonical, each once, at least one.
    ///
    /// # Errors
    ///
    /// 400 when none is there or one is misshapen.
    pub(super) fn peer_ips(&self) -> Result<BTreeSet<IpAddr>, Rejection> {
        Ok(self.peers()?.into_iter().map(PeerAddr::ip).collect())
    }

    fn peers(&self) -> Result<Vec<PeerAddr>, Rejection> {
        let misshapen = Rejection::bad_request("XOR-PEER-ADDRESS is missing or misshapen");
        let id = self.stun.transaction_id();
        let peers: Result<Vec<_>, _> = self
            .counting()
            .filter(|attribute| attribute.kind == kind::XOR_PEER_ADDRESS)
            .map(|attribute| xor_address(attribute.value, id).map(PeerAddr::new).ok_or(misshapen.clone()))
            .collect();
        peers.and_then(|peers| if peers.is_empty() { Err(misshapen) } else { Ok(peers) })
    }

    fn value(&self, kind: u16) -> Option<&'a [u8]> {
        self.attribute(kind).map(|attribute| attribute.value)
    }

    fn attribute(&self, kind: u16) -> Option<Attribute<'a>> {
        self.counting().find(|attribute| attribute.kind == kind)
    }

    /// Up to and with the first integrity (RFC 8489, sections 14.5 and 14.6).
    fn counting(&self) -> impl Iterator<Item = Attribute<'a>> {
        let mut over = false;
        self.stun.attributes().take_while(move |attribute| {
            let counts = !over;
            over |= [kind::MESSAGE_INTEGRITY, kind::MESSAGE_INTEGRITY_SHA256].contains(&attribute.kind);
            counts
        })
    }
}

/// Attribute types of requests, by their numbers.
mod kind {
    use stun::attributes::*;

    pub(super) const USERNAME: u16 = ATTR_USERNAME.0;
    pub(super) const MESSAGE_INTEGRITY: u16 = ATTR_MESSAGE_INTEGRITY.0;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = ATTR_MESSAGE_INTEGRITY_SHA256.0;
    /// RFC 8489, section 14.12; the crate has names for neither of these.
    pub(super) const PASSWORD_ALGORITHM: u16 = 0x001D;
    /// RFC 8489, section 14.11.
    pub(super) const PASSWORD_ALGORITHMS: u16 = 0x8002;
    pub(super) const CHANNEL_NUMBER: u16 = ATTR_CHANNEL_NUMBER.0;
    pub(super) const LIFETIME: u16 = ATTR_LIFETIME.0;
    pub(super) const XOR_PEER_ADDRESS: u16 = ATTR_XOR_PEER_ADDRESS.0;
    pub(super) const REALM: u16 = ATTR_REALM.0;
    pub(super) const NONCE: u16 = ATTR_NONCE.0;
    pub(super) const REQUESTED_ADDRESS_FAMILY: u16 = ATTR_REQUESTED_ADDRESS_FAMILY.0;
    pub(super) const EVEN_PORT: u16 = ATTR_EVEN_PORT.0;
    pub(super) const REQUESTED_TRANSPORT: u16 = ATTR_REQUESTED_TRANSPORT.0;
    pub(super) const RESERVATION_TOKEN: u16 = ATTR_RESERVATION_TOKEN.0;
    /// RFC 8656, section 18.11; the crate has no name for it.
    pub(super) const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;

    /// Comprehension-required types that are understood, if only to ignore them where they mean nothing.
    pub(super) const KNOWN: &[u16] = &[
        USERNAME,
        MESSAGE_INTEGRITY,
        CHANNEL_NUMBER,
        LIFETIME,
        XOR_PEER_ADDRESS,
        REALM,
        NONCE,
        REQUESTED_ADDRESS_FAMILY,
        EVEN_PORT,
        REQUESTED_TRANSPORT,
        RESERVATION_TOKEN,
        ATTR_DONT_FRAGMENT.0,
        ATTR_MAPPED_ADDRESS.0,
        ATTR_ERROR_CODE.0,
        ATTR_UNKNOWN_ATTRIBUTES.0,
        ATTR_DATA.0,
        ATTR_XOR_RELAYED_ADDRESS.0,
        MESSAGE_INTEGRITY_SHA256,
        PASSWORD_ALGORITHM,
        ATTR_XORMAPPED_ADDRESS.0,
    ];
}
