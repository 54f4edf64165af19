//! What load balancers put before the connections that they pass on: the header of the PROXY protocol, version 2.
//!
//! The protocol is haproxy's (proxy-protocol.txt, section 2.2).

use std::collections::HashSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use crate::address::Prefix;
use crate::address::canonical;

/// Load balancers: who begins every connection with a header.
#[derive(Clone, Debug, Default)]
pub struct Balancers {
    /// Where they are.
    pub from: Vec<Prefix>,
    /// The addresses of this host: what else a header names as the server's is a balancer's own.
    pub host: HashSet<IpAddr>,
}

/// The ends of a connection, canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub remote: SocketAddr,
    /// The server's address that the client reached.
    pub local: SocketAddr,
}

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It takes at least so many more bytes, and all of them are its own.
    More(usize),
    /// It is whole. None: the connection's own ends count, for the balancer speaks for itself or doesn't know.
    Whole(Option<Ends>),
}

/// Bytes that are no header, or one that isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Something else begins the connection.
    #[error("no PROXY v2 header")]
    Signature,
    /// Another version, or a command that doesn't exist.
    #[error("a PROXY header of another version or with an unknown command")]
    Command,
    /// Neither TCP over IPv4, nor over IPv6, nor unspecified.
    #[error("a PROXY header of another transport than TCP")]
    Transport,
    /// Too short for its addresses, or longer than [`MOST`].
    #[error("a PROXY header of a length that can't be")]
    Length,
    /// An address that no connection has.
    #[error("a PROXY header with an address that no connection has")]
    Address,
}

/// The longest header taken: room for what is known of a client's certificate, and as much as nginx takes.
pub const MOST: usize = 4096;

/// How a header begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// How long the part before the addresses is.
const FIXED: usize = 16;
/// Version 2, and the balancer's own connection: a health check.
const LOCAL: u8 = 0x20;
/// Version 2, and a client's connection.
const PROXY: u8 = 0x21;
/// A transport that the balancer doesn't know or doesn't tell.
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

impl Balancers {
    /// Whether a connection from `ip` begins with a header.
    pub fn announce(&self, ip: IpAddr) -> bool {
        self.from.iter().any(|prefix| prefix.contains(ip.to_canonical()))
    }
}

/// Decodes a header that begins with `bytes`; what stands behind its end doesn't matter.
///
/// # Errors
///
/// [`Malformed`].
pub fn decode(bytes: &[u8]) -> Result<Step, Malformed> {
    if !bytes.iter().zip(SIGNATURE).all(|(byte, expected)| *byte == expected) {
        return Err(Malformed::Signature);
    }
    let Some(([.., command, transport, l0, l1], block)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Step::More(FIXED - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    if length > MOST - FIXED {
        return Err(Malformed::Length);
    }
    // Behind the addresses stands what a balancer likes to add, and nobody here asks for.
    let Some(block) = block.get(..length) else { return Ok(Step::More(length - block.len())) };
    let ends = match (*command, *transport) {
        (LOCAL, _) | (PROXY, UNSPECIFIED) => return Ok(Step::Whole(None)),
        (PROXY, TCP_OVER_IPV4) => ends::<4>(block),
        (PROXY, TCP_OVER_IPV6) => ends::<16>(block),
        (PROXY, _) => return Err(Malformed::Transport),
        (_, _) => return Err(Malformed::Command),
    };
    let ends = ends.ok_or(Malformed::Length)?;
    if is_possible(ends.remote) && is_possible(ends.local) {
        Ok(Step::Whole(Some(ends)))
    } else {
        Err(Malformed::Address)
    }
}

/// Both IP addresses, of `N` bytes each, then both ports.
fn ends<const N: usize>(block: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let [s0, s1, d0, d1] = *rest.first_chunk()?;
    Some(Ends {
        remote: canonical(SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([s0, s1]))),
        local: canonical(SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes([d0, d1]))),
    })
}

/// Whether a TCP connection can have `addr` at an end.
fn is_possible(addr: SocketAddr) -> bool {
    let broadcast = addr.ip() == IpAddr::V4(Ipv4Addr::BROADCAST);
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast() && !broadcast
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    /// A header with this command, transport and block.
    fn header(command: u8, transport: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, transport], &length, block].concat()
    }

    fn v4(source: [u8; 4], port: u16) -> Vec<u8> {
        [&source[..], &[203, 0, 113, 9], &port.to_be_bytes(), &443_u16.to_be_bytes()].concat()
    }

    fn v6(source: &str) -> Vec<u8> {
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        [&ip(source)[..], &ip("2001:db8::9"), &4000_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat()
    }

    fn whole(remote: &str, local: &str) -> Result<Step, Malformed> {
        Ok(Step::Whole(Some(Ends { remote: remote.parse().unwrap(), local: local.parse().unwrap() })))
    }

    #[test]
    fn headers_of_tcp_announce_both_ends_and_what_follows_is_skipped() {
        let added = [v4([192, 0, 2, 1], 4000), b"\x03\x00\x04crc!".to_vec()].concat();

        assert_eq!(decode(&header(0x21, 0x11, &v4([192, 0, 2, 1], 4000))), whole("192.0.2.1:4000", "203.0.113.9:443"));
        assert_eq!(decode(&header(0x21, 0x11, &added)), whole("192.0.2.1:4000", "203.0.113.9:443"));
        assert_eq!(decode(&header(0x21, 0x21, &v6("2001:db8::1"))), whole("[2001:db8::1]:4000", "[2001:db8::9]:443"));
        let mapped = decode(&header(0x21, 0x21, &v6("::ffff:192.0.2.1")));
        assert_eq!(mapped, whole("192.0.2.1:4000", "[2001:db8::9]:443"), "canonical");
    }

    #[test]
    fn headers_of_the_balancers_own_or_of_unknown_connections_announce_nothing() {
        for (command, transport, block) in [
            (0x20, 0x00, &b""[..]),
            (0x20, 0x11, b"short"),
            (0x20, 0xFF, b""),
            (0x21, 0x00, b""),
            (0x21, 0x00, &[7; 90]),
        ] {
            assert_eq!(decode(&header(command, transport, block)), Ok(Step::Whole(None)), "{command:x} {transport:x}");
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        let good = v4([192, 0, 2, 1], 4000);
        for (bytes, malformed) in [
            (b"PROXY TCP4 192.0.2.1 203.0.113.9 4000 443\r\n".to_vec(), Malformed::Signature),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Malformed::Signature),
            (b"G".to_vec(), Malformed::Signature),
            (header(0x11, 0x11, &good), Malformed::Command),
            (header(0x22, 0x11, &good), Malformed::Command),
            (header(0x21, 0x12, &good), Malformed::Transport),
            (header(0x21, 0x10, &good), Malformed::Transport),
            (header(0x21, 0x31, &[7; 216]), Malformed::Transport),
            (header(0x21, 0x11, &good[..11]), Malformed::Length),
            (header(0x21, 0x21, &v6("2001:db8::1")[..35]), Malformed::Length),
            (header(0x20, 0x00, &[0; MOST - FIXED + 1]), Malformed::Length),
            (header(0x21, 0x11, &v4([0; 4], 4000)), Malformed::Address),
            (header(0x21, 0x11, &v4([255; 4], 4000)), Malformed::Address),
            (header(0x21, 0x11, &v4([224, 0, 0, 1], 4000)), Malformed::Address),
            (header(0x21, 0x11, &v4([192, 0, 2, 1], 0)), Malformed::Address),
            (header(0x21, 0x21, &v6("::")), Malformed::Address),
        ] {
            assert_eq!(decode(&bytes), Err(malformed), "{bytes:x?}");
        }
        assert_eq!(decode(&header(0x20, 0x00, &[0; MOST - FIXED])), Ok(Step::Whole(None)), "as long as can be");
    }

    proptest! {
        #[test]
        fn a_header_asks_for_its_own_bytes_and_no_more(added in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = header(0x21, 0x21, &[v6("2001:db8::1"), added].concat());

            for come in 0..bytes.len() {
                let Ok(Step::More(more)) = decode(&bytes[..come]) else { panic!("{come} bytes are no header") };
                prop_assert!((1..=bytes.len() - come).contains(&more));
            }
            prop_assert_eq!(decode(&bytes), decode(&[&bytes[..], b"GET /"].concat()));
        }
    }
}
