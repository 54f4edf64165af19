//! What data travels in between client and server: written and read without allocation.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::net::SocketAddr;

use crate::address::PeerAddr;
use crate::metrics::DropReason;
use crate::net::udp::Icmp;
use crate::wire::CHANNEL_HEADER;
use crate::wire::MAGIC_COOKIE;
use crate::wire::STUN_HEADER;
use crate::wire::Stun;
use crate::wire::attr;
use crate::wire::put_xor_address;
use crate::wire::xor_address;

/// A Data indication (RFC 8656, section 18: method 0x007 in the class of indications).
const DATA_INDICATION: u16 = 0x0017;
/// A Binding success response.
const BINDING_SUCCESS: u16 = 0x0101;

/// What a Send indication says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendIndication<'a> {
    pub(super) peer: PeerAddr,
    pub(super) data: &'a [u8],
    /// Whether it holds DONT-FRAGMENT.
    pub(super) whole: bool,
}

impl<'a> SendIndication<'a> {
    /// Reads it from a message of that method. Of duplicates the first counts (RFC 8489, section 14).
    pub(super) fn read(message: &Stun<'a>) -> Result<Self, DropReason> {
        let (mut peer, mut data, mut whole) = (None, None, false);
        for attribute in message.attributes() {
            match attribute.kind {
                attr::XOR_PEER_ADDRESS => _ = peer.get_or_insert(attribute.value),
                attr::DATA => _ = data.get_or_insert(attribute.value),
                attr::DONT_FRAGMENT => whole = true,
                0x0000..=0x7FFF => return Err(DropReason::Unexpected),
                0x8000..=0xFFFF => {}
            }
        }
        let peer = peer.and_then(|value| xor_address(value, message.transaction_id()));
        let (Some(peer), Some(data)) = (peer, data) else { return Err(DropReason::Malformed) };
        Ok(Self { peer: PeerAddr::new(peer), data, whole })
    }
}

/// Writes ChannelData without padding, as UDP has it; its length, none if it doesn't fit `out`.
pub(super) fn put_channel_data(out: &mut [u8], number: u16, data: &[u8]) -> Option<usize> {
    let total = CHANNEL_HEADER + data.len();
    let (head, body) = out.get_mut(..total)?.split_first_chunk_mut::<CHANNEL_HEADER>()?;
    let [n0, n1] = number.to_be_bytes();
    let [l0, l1] = u16::try_from(data.len()).ok()?.to_be_bytes();
    *head = [n0, n1, l0, l1];
    body.copy_from_slice(data);
    Some(total)
}

/// Writes a Data indication; its length, none if it doesn't fit `out`.
pub(super) fn put_data_indication(out: &mut [u8], id: [u8; 12], peer: PeerAddr, data: &[u8]) -> Option<usize> {
    let address = put_xor_address(out.get_mut(STUN_HEADER..)?, attr::XOR_PEER_ADDRESS, peer.get(), id)?;
    let start = STUN_HEADER + address;
    let end = start + 4 + data.len();
    let total = end.next_multiple_of(4);
    let (head, body) = out.get_mut(start..total)?.split_first_chunk_mut::<4>()?;
    let [k0, k1] = attr::DATA.to_be_bytes();
    let [l0, l1] = u16::try_from(data.len()).ok()?.to_be_bytes();
    *head = [k0, k1, l0, l1];
    let (value, padding) = body.split_at_mut_checked(data.len())?;
    value.copy_from_slice(data);
    padding.fill(0);
    put_header(out, DATA_INDICATION, id, total)
}

/// Writes a Data indication that tells of an ICMP error instead of data (RFC 8656, section 18.13); its length.
///
/// The type has 7 bits and the code 9; the error data is zero but for errors about an MTU.
pub(super) fn put_icmp_indication(out: &mut [u8], id: [u8; 12], peer: PeerAddr, error: Icmp) -> Option<usize> {
    let address = put_xor_address(out.get_mut(STUN_HEADER..)?, attr::XOR_PEER_ADDRESS, peer.get(), id)?;
    let start = STUN_HEADER + address;
    let [k0, k1] = attr::ICMP.to_be_bytes();
    let [w0, w1] = ((u16::from(error.kind) << 9) | u16::from(error.code)).to_be_bytes();
    let about_mtu = matches!((peer.ip().is_ipv4(), error.kind, error.code), (true, 3, 4) | (false, 2, _));
    let [d0, d1, d2, d3] = if about_mtu { error.mtu } else { 0 }.to_be_bytes();
    *out.get_mut(start..)?.first_chunk_mut()? = [k0, k1, 0, 8, 0, 0, w0, w1, d0, d1, d2, d3];
    put_header(out, DATA_INDICATION, id, start + 12)
}

/// Writes the answer to a Binding request: XOR-MAPPED-ADDRESS and nothing else, 32 bytes for IPv4, 44 for IPv6.
pub(super) fn put_binding_success(out: &mut [u8], id: [u8; 12], client: SocketAddr) -> Option<usize> {
    let address = put_xor_address(out.get_mut(STUN_HEADER..)?, attr::XOR_MAPPED_ADDRESS, client, id)?;
    put_header(out, BINDING_SUCCESS, id, STUN_HEADER + address)
}

fn put_header(out: &mut [u8], kind: u16, id: [u8; 12], total: usize) -> Option<usize> {
    let (head, _) = out.split_first_chunk_mut::<STUN_HEADER>()?;
    let [k0, k1] = kind.to_be_bytes();
    let [l0, l1] = u16::try_from(total - STUN_HEADER).ok()?.to_be_bytes();
    let [c0, c1, c2, c3] = MAGIC_COOKIE.to_be_bytes();
    let (fixed, transaction_id) = head.split_first_chunk_mut::<8>()?;
    *fixed = [k0, k1, l0, l1, c0, c1, c2, c3];
    transaction_id.copy_from_slice(&id);
    Some(total)
}

/// Makes the transaction IDs of Data indications: all different, and different from other runs', without a system call.
///
/// Nothing is ever answered by them, so they need not be secret.
#[derive(Debug)]
pub(super) struct TransactionIds {
    run: u32,
    count: u64,
}

impl TransactionIds {
    pub(super) fn new() -> Self {
        let random = RandomState::new().hash_one(());
        let (run, count) = ((random >> 32) as u32, RandomState::new().hash_one(random));
        Self { run, count }
    }

    /// The next one: SplitMix64, a bijection of its counter.
    pub(super) fn next(&mut self) -> [u8; 12] {
        self.count = self.count.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.count;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let mut id = [0; 12];
        let (run, rest) = id.split_at_mut(4);
        run.copy_from_slice(&self.run.to_be_bytes());
        rest.copy_from_slice(&mixed.to_be_bytes());
        id
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::udp::MAX_PAYLOAD;
    use crate::wire::ChannelData;

    fn peer() -> PeerAddr {
        PeerAddr::new("192.0.2.1:9".parse().unwrap())
    }

    /// A Send indication with these attributes.
    fn send(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; STUN_HEADER];
        for (kind, value) in attributes {
            message.extend(kind.to_be_bytes());
            message.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            message.extend_from_slice(value);
            message.resize(message.len().next_multiple_of(4), 0xAA);
        }
        let total = message.len();
        put_header(&mut message, 0x0016, [7; 12], total).unwrap();
        message
    }

    fn address() -> [u8; 8] {
        let mut attribute = [0; 12];
        put_xor_address(&mut attribute, attr::XOR_PEER_ADDRESS, peer().get(), [7; 12]).unwrap();
        attribute[4..].try_into().unwrap()
    }

    proptest! {
        #[test]
        fn data_indications_hold_their_data_behind_zero_padding(data in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut out = vec![0xFF; 100];

            let length = put_data_indication(&mut out, [7; 12], peer(), &data).unwrap();

            let message = Stun::parse(&out[..length]).unwrap();
            prop_assert_eq!(message.first(attr::DATA), Some(&data[..]));
            prop_assert_eq!(message.first(attr::XOR_PEER_ADDRESS), Some(&address()[..]));
            prop_assert!(out[36 + data.len()..length].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn an_icmp_indication_says_peer_type_code_and_mtu_and_holds_no_data() {
        let mut out = [0xFF; 64];

        for (peer, kind, code, expected) in [
            ("192.0.2.1:9", 3, 3, [0, 0, 6, 3, 0, 0, 0, 0]),
            ("192.0.2.1:9", 3, 4, [0, 0, 6, 4, 0, 0, 5, 0x14]),
            ("192.0.2.1:9", 11, 0, [0, 0, 22, 0, 0, 0, 0, 0]),
            ("[2001:db8::1]:9", 1, 4, [0, 0, 2, 4, 0, 0, 0, 0]),
            ("[2001:db8::1]:9", 2, 0, [0, 0, 4, 0, 0, 0, 5, 0x14]),
            ("[2001:db8::1]:9", 3, 1, [0, 0, 6, 1, 0, 0, 0, 0]),
        ] {
            let peer = PeerAddr::new(peer.parse().unwrap());
            let length = put_icmp_indication(&mut out, [7; 12], peer, Icmp { kind, code, mtu: 1300 }).unwrap();
            let message = Stun::parse(&out[..length]).unwrap();
            assert_eq!(message.message_type(), DATA_INDICATION);
            assert_eq!(xor_address(message.first(attr::XOR_PEER_ADDRESS).unwrap(), [7; 12]), Some(peer.get()));
            assert_eq!(message.first(attr::ICMP), Some(&expected[..]));
            assert_eq!(message.attributes().count(), 2);
        }
    }

    #[test]
    fn what_does_not_fit_a_datagram_is_not_written() {
        let mut out = vec![0; MAX_PAYLOAD];
        let data = vec![0; MAX_PAYLOAD];

        assert_eq!(put_channel_data(&mut out, 0x4000, &data[4..]), Some(MAX_PAYLOAD));
        assert_eq!(ChannelData::parse(&out).unwrap().data.len(), MAX_PAYLOAD - 4);
        assert_eq!(put_channel_data(&mut out, 0x4000, &data[3..]), None);
        assert_eq!(put_data_indication(&mut out, [0; 12], peer(), &data[39..]), Some(MAX_PAYLOAD - 3));
        assert_eq!(put_data_indication(&mut out, [0; 12], peer(), &data[38..]), None, "padding counts");
    }

    #[test]
    fn a_send_indication_wants_an_exact_address_its_data_and_nothing_unknown() {
        let read = |attributes: &[(u16, &[u8])]| {
            let message = send(attributes);
            SendIndication::read(&Stun::parse(&message).unwrap()).map(|send| send.data.to_vec())
        };
        let (address, data) = ((attr::XOR_PEER_ADDRESS, &address()[..]), (attr::DATA, &b"hello"[..]));

        assert_eq!(read(&[address, data]), Ok(b"hello".to_vec()));
        assert_eq!(read(&[data, address, (attr::DATA, b"second"), (0x8022, b"optional")]), Ok(b"hello".to_vec()));
        assert_eq!(read(&[address]), Err(DropReason::Malformed));
        assert_eq!(read(&[data]), Err(DropReason::Malformed));
        assert_eq!(read(&[(address.0, &address.1[..7]), data]), Err(DropReason::Malformed));
        assert_eq!(read(&[(address.0, &[0; 20]), data]), Err(DropReason::Malformed), "no such family");
        assert_eq!(read(&[address, data, (0x7FFF, b"")]), Err(DropReason::Unexpected));
    }

    #[test]
    fn a_send_indication_says_whether_it_may_be_fragmented() {
        let (address, data) = ((attr::XOR_PEER_ADDRESS, &address()[..]), (attr::DATA, &b"hello"[..]));
        let whole = |attributes: &[(u16, &[u8])]| {
            let message = send(attributes);
            SendIndication::read(&Stun::parse(&message).unwrap()).unwrap().whole
        };

        assert!(whole(&[address, data, (attr::DONT_FRAGMENT, b"")]));
        assert!(!whole(&[address, data]));
    }

    #[test]
    fn a_binding_answer_says_the_client_address_and_nothing_else() {
        let mut out = [0; 64];

        for (client, expected) in [("192.0.2.1:9", 32), ("[2001:db8::1]:9", 44)] {
            let client = client.parse().unwrap();
            let length = put_binding_success(&mut out, [7; 12], client).unwrap();
            let message = Stun::parse(&out[..length]).unwrap();
            assert_eq!((length, message.transaction_id()), (expected, [7; 12]));
            assert_eq!(xor_address(message.first(attr::XOR_MAPPED_ADDRESS).unwrap(), [7; 12]), Some(client));
        }
    }

    #[test]
    fn transaction_ids_differ() {
        let mut ids = TransactionIds::new();

        let made: std::collections::HashSet<_> = (0..10_000).map(|_| ids.next()).collect();

        assert_eq!(made.len(), 10_000);
    }
}
