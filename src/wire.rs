//! STUN and ChannelData framing, strict and without allocation: what both planes must read the same way.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

/// The fixed second word of every STUN message (RFC 8489, section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Bytes before a STUN message's attributes.
pub const STUN_HEADER: usize = 20;
/// Bytes before ChannelData's data.
pub const CHANNEL_HEADER: usize = 4;
/// Channel numbers taken: RFC 8656 narrows the range to 0x4FFF, coturn's client uses all of RFC 5766's.
pub const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x7FFF;

/// Attribute types that both planes know (RFC 8489, section 18.3; RFC 8656, section 18).
pub mod attr {
    /// XOR-PEER-ADDRESS.
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    /// DATA.
    pub const DATA: u16 = 0x0013;
    /// DONT-FRAGMENT.
    pub const DONT_FRAGMENT: u16 = 0x001A;
    /// XOR-MAPPED-ADDRESS.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// ICMP.
    pub const ICMP: u16 = 0x8004;
    /// FINGERPRINT.
    pub const FINGERPRINT: u16 = 0x8028;
}

/// Methods (RFC 8489, section 18.2; RFC 8656, section 17).
pub mod method {
    /// Binding.
    pub const BINDING: u16 = 0x001;
    /// Allocate.
    pub const ALLOCATE: u16 = 0x003;
    /// Refresh.
    pub const REFRESH: u16 = 0x004;
    /// Send.
    pub const SEND: u16 = 0x006;
    /// CreatePermission.
    pub const CREATE_PERMISSION: u16 = 0x008;
    /// ChannelBind.
    pub const CHANNEL_BIND: u16 = 0x009;
}

/// What kind of packet a first byte announces (RFC 7983, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 0x00 to 0x3F with a STUN type: the two highest bits are zero.
    Stun,
    /// 0x40 to 0x7F.
    ChannelData,
    /// Anything else, and nothing.
    Other,
}

impl Kind {
    /// Looks at the first byte.
    pub fn of(packet: &[u8]) -> Self {
        match packet.first() {
            Some(0x00..=0x3F) => Self::Stun,
            Some(0x40..=0x7F) => Self::ChannelData,
            Some(0x80..=0xFF) | None => Self::Other,
        }
    }
}

/// A STUN message's class (RFC 8489, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// A success response.
    Success,
    /// An error response.
    Error,
}

/// Bytes that are not what they announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Too short, or with a length that isn't its own.
    #[error("length")]
    Length,
    /// The two highest bits or the magic cookie are wrong.
    #[error("header")]
    Header,
    /// An attribute runs past the end.
    #[error("attribute")]
    Attribute,
    /// FINGERPRINT is wrong, or not the last attribute.
    #[error("fingerprint")]
    Fingerprint,
    /// A channel number outside [`CHANNELS`].
    #[error("channel number")]
    ChannelNumber,
}

/// A well-formed STUN message: header right, attributes tiling it exactly, FINGERPRINT (if any) last and right.
#[derive(Clone, Copy, Debug)]
pub struct Stun<'a> {
    raw: &'a [u8],
    kind: u16,
    transaction_id: [u8; 12],
}

impl<'a> Stun<'a> {
    /// Reads a whole message: its length is that of `packet`.
    ///
    /// # Errors
    ///
    /// [`Malformed`], by what is wrong.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        let (header, attributes) = packet.split_first_chunk::<STUN_HEADER>().ok_or(Malformed::Length)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, transaction_id @ ..] = *header;
        if t0 & 0xC0 != 0 || u32::from_be_bytes([c0, c1, c2, c3]) != MAGIC_COOKIE {
            return Err(Malformed::Header);
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length % 4 != 0 || length != attributes.len() {
            return Err(Malformed::Length);
        }
        let stun = Self { raw: packet, kind: u16::from_be_bytes([t0, t1]), transaction_id };
        stun.check_attributes()?;
        Ok(stun)
    }

    fn check_attributes(&self) -> Result<(), Malformed> {
        let mut attributes = self.attributes();
        while let Some(attribute) = attributes.next() {
            if attribute.kind != attr::FINGERPRINT {
                continue;
            }
            let before = self.raw.get(..attribute.offset).ok_or(Malformed::Fingerprint)?;
            let right = fingerprint(before).to_be_bytes();
            if attribute.value != right || !attributes.rest.is_empty() {
                return Err(Malformed::Fingerprint);
            }
        }
        if attributes.rest.is_empty() { Ok(()) } else { Err(Malformed::Attribute) }
    }

    /// The whole message.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The message type as it stands in the header: method and class.
    pub fn message_type(&self) -> u16 {
        self.kind
    }

    /// The 12-bit method.
    pub fn method(&self) -> u16 {
        (self.kind & 0x000F) | ((self.kind & 0x00E0) >> 1) | ((self.kind & 0x3E00) >> 2)
    }

    /// The class.
    pub fn class(&self) -> Class {
        match (self.kind & 0x0100 != 0, self.kind & 0x0010 != 0) {
            (false, false) => Class::Request,
            (false, true) => Class::Indication,
            (true, false) => Class::Success,
            (true, true) => Class::Error,
        }
    }

    /// The 96-bit transaction ID.
    pub fn transaction_id(&self) -> [u8; 12] {
        self.transaction_id
    }

    /// The attributes, in order.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.raw.get(STUN_HEADER..).unwrap_or_default(), offset: STUN_HEADER }
    }

    /// The value of the first attribute of a type: duplicates don't count (RFC 8489, section 14).
    pub fn first(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }
}

/// One attribute of a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type; below 0x8000 it is comprehension-required.
    pub kind: u16,
    /// Its value without padding.
    pub value: &'a [u8],
    /// Where its header begins in the message.
    pub offset: usize,
}

/// Iterates over attributes; ends early at one that doesn't fit.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let ([k0, k1, l0, l1], body) = self.rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = body.get(..length)?;
        let rest = body.get(length.next_multiple_of(4)..)?;
        let attribute = Attribute { kind: u16::from_be_bytes([*k0, *k1]), value, offset: self.offset };
        self.offset += self.rest.len() - rest.len();
        self.rest = rest;
        Some(attribute)
    }
}

/// A well-formed ChannelData message (RFC 8656, section 12.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// The channel number, one of [`CHANNELS`].
    pub number: u16,
    /// The data, without padding.
    pub data: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Reads one datagram: data longer than it is an error, padding behind it isn't (at most 3 bytes).
    ///
    /// # Errors
    ///
    /// [`Malformed`], by what is wrong.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        let ([n0, n1, l0, l1], body) = packet.split_first_chunk::<CHANNEL_HEADER>().ok_or(Malformed::Length)?;
        let number = u16::from_be_bytes([*n0, *n1]);
        if !CHANNELS.contains(&number) {
            return Err(Malformed::ChannelNumber);
        }
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let data = body.get(..length).ok_or(Malformed::Length)?;
        if body.len() - length > 3 {
            return Err(Malformed::Length);
        }
        Ok(Self { number, data })
    }
}

/// Reads the value of an XOR-...-ADDRESS attribute: strictly 8 or 20 bytes (RFC 8489, section 14.2).
pub fn xor_address(value: &[u8], transaction_id: [u8; 12]) -> Option<SocketAddr> {
    let ([_, family, p0, p1], ip) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([*p0, *p1]) ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = match family {
        1 => IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes(ip.try_into().ok()?) ^ MAGIC_COOKIE)),
        2 => IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(ip.try_into().ok()?) ^ mask(transaction_id))),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Writes an XOR-...-ADDRESS attribute, header included, at the start of `out`; how many bytes it took (12 or 24).
pub fn put_xor_address(out: &mut [u8], kind: u16, addr: SocketAddr, transaction_id: [u8; 12]) -> Option<usize> {
    let port = addr.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let (family, len) = if addr.is_ipv4() { (1, 8_u16) } else { (2, 20) };
    let [k0, k1] = kind.to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    let [p0, p1] = port.to_be_bytes();
    let (head, ip) = out.split_first_chunk_mut::<8>()?;
    *head = [k0, k1, l0, l1, 0, family, p0, p1];
    match addr.ip() {
        IpAddr::V4(v4) => *ip.first_chunk_mut()? = (v4.to_bits() ^ MAGIC_COOKIE).to_be_bytes(),
        IpAddr::V6(v6) => *ip.first_chunk_mut()? = (v6.to_bits() ^ mask(transaction_id)).to_be_bytes(),
    }
    Some(4 + usize::from(len))
}

/// The value of FINGERPRINT behind `before` (RFC 8489, section 14.7). The crate's own builds its table for each call.
fn fingerprint(before: &[u8]) -> u32 {
    static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    CRC.checksum(before) ^ stun::fingerprint::FINGERPRINT_XOR_VALUE
}

fn mask(transaction_id: [u8; 12]) -> u128 {
    let mut mask = [0; 16];
    let (cookie, rest) = mask.split_at_mut(4);
    cookie.copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    rest.copy_from_slice(&transaction_id);
    u128::from_be_bytes(mask)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Allocate with REQUESTED-TRANSPORT and a right FINGERPRINT.
    fn allocate() -> Vec<u8> {
        let mut message = stun::message::Message::new();
        message.typ.read_value(0x0003);
        message.transaction_id.0 = *b"abcdefghijkl";
        message.write_header();
        message.add(stun::attributes::ATTR_REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        stun::message::Setter::add_to(&stun::fingerprint::FINGERPRINT, &mut message).unwrap();
        message.raw
    }

    #[test]
    fn a_message_that_the_crate_wrote_is_read_back() {
        let raw = allocate();

        let stun = Stun::parse(&raw).unwrap();

        assert_eq!((stun.method(), stun.class()), (3, Class::Request));
        assert_eq!(&stun.transaction_id(), b"abcdefghijkl");
        assert_eq!(stun.first(0x0019), Some(&[17, 0, 0, 0][..]));
        assert_eq!(stun.attributes().map(|attribute| attribute.offset).collect::<Vec<_>>(), [20, 28]);
    }

    #[test]
    fn classes_and_methods_are_told_apart() {
        for (kind, method, class) in [
            (0x0001, 0x001, Class::Request),
            (0x0016, 0x006, Class::Indication),
            (0x0103, 0x003, Class::Success),
            (0x0119, 0x009, Class::Error),
            (0x3EEF, 0xFFF, Class::Request),
        ] {
            let mut raw = [0; 20];
            raw[..2].copy_from_slice(&u16::to_be_bytes(kind));
            raw[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            let stun = Stun::parse(&raw).unwrap();
            assert_eq!((stun.method(), stun.class()), (method, class), "{kind:#06x}");
        }
    }

    #[test]
    fn every_flaw_has_its_name() {
        let good = allocate();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut raw = good.clone();
            change(&mut raw);
            Stun::parse(&raw).map(|_| ()).unwrap_err()
        };

        assert_eq!(with(&|raw| raw.truncate(19)), Malformed::Length);
        assert_eq!(with(&|raw| raw.push(0)), Malformed::Length);
        assert_eq!(with(&|raw| raw[2..4].copy_from_slice(&[0xFF, 0xFC])), Malformed::Length);
        assert_eq!(with(&|raw| raw[0] = 0x40), Malformed::Header);
        assert_eq!(with(&|raw| raw[4] = 0), Malformed::Header);
        assert_eq!(with(&|raw| raw[23] = 200), Malformed::Attribute);
        assert_eq!(with(&|raw| raw[30] ^= 1), Malformed::Attribute);
        assert_eq!(with(&|raw| *raw.last_mut().unwrap() ^= 1), Malformed::Fingerprint);
        assert_eq!(
            with(&|raw| {
                raw.extend([0x80, 0x22, 0, 0]);
                raw[3] += 4;
            }),
            Malformed::Fingerprint
        );
    }

    #[test]
    fn channel_data_longer_than_its_datagram_or_out_of_range_is_malformed() {
        assert_eq!(ChannelData::parse(&[0x40, 0, 0, 2, 7, 8, 0, 0]).unwrap().data, [7, 8]);
        assert_eq!(ChannelData::parse(&[0x7F, 0xFF, 0, 0]).unwrap().number, 0x7FFF);
        assert_eq!(ChannelData::parse(&[0x40, 0, 0]), Err(Malformed::Length));
        assert_eq!(ChannelData::parse(&[0x40, 0, 0, 3, 7, 8]), Err(Malformed::Length));
        assert_eq!(ChannelData::parse(&[0x40, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed::Length), "more than padding");
        assert_eq!(ChannelData::parse(&[0x3F, 0xFF, 0, 0]), Err(Malformed::ChannelNumber));
        assert_eq!(ChannelData::parse(&[0x80, 0, 0, 0]), Err(Malformed::ChannelNumber));
    }

    #[test]
    fn only_addresses_of_8_or_20_bytes_are_read() {
        for length in (0..=32).filter(|length| ![8, 20].contains(length)) {
            for family in [1, 2] {
                let mut value = vec![0; length];
                value.get_mut(1).into_iter().for_each(|byte| *byte = family);
                assert_eq!(xor_address(&value, [0; 12]), None, "{length} bytes");
            }
        }
        assert_eq!(xor_address(&[0, 2, 0, 0, 0, 0, 0, 0], [0; 12]), None, "IPv6 in 8 bytes");
    }

    proptest! {
        #[test]
        fn addresses_survive_the_xor(v6: bool, bits: u128, port: u16, id: [u8; 12]) {
            let ip = if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4(((bits & 0xFFFF_FFFF) as u32).into()) };
            let addr = SocketAddr::new(ip, port);
            let mut out = [0; 24];

            let length = put_xor_address(&mut out, attr::XOR_PEER_ADDRESS, addr, id).unwrap();

            prop_assert_eq!(length, if v6 { 24 } else { 12 });
            prop_assert_eq!(xor_address(&out[4..length], id), Some(addr));
        }

        #[test]
        fn no_bytes_at_all_bring_the_decoders_down(mut raw: Vec<u8>, cookie: bool) {
            if let (true, Some(word)) = (cookie, raw.get_mut(4..8)) {
                word.copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            }
            let _ = ChannelData::parse(&raw);
            let _ = xor_address(&raw, [0; 12]);
            if let Ok(stun) = Stun::parse(&raw) {
                let tiled: usize = stun.attributes().map(|one| 4 + one.value.len().next_multiple_of(4)).sum();
                prop_assert_eq!(tiled + STUN_HEADER, raw.len());
            }
        }
    }
}
