//! Addresses with roles, made canonical where they enter, and prefixes of them.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV6;
use std::str::FromStr;

/// How a client's packets reach this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A clear stream.
    Tcp,
    /// A stream inside TLS.
    Tls,
}

impl Transport {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// Its name, in short.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// An IP version, as a relayed address has one (RFC 8656, section 18.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, the one that is meant where none is named first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `ip`.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// The client's transport address, the server's, and the transport between them (RFC 8656, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// Transport between client and server.
    pub transport: Transport,
    /// The client's address as the server sees it, with the scope that a link-local one is answered in.
    pub client: SocketAddr,
    /// The server's address that the client reached: never a wildcard.
    pub server: SocketAddr,
}

impl FiveTuple {
    /// A 5-tuple of canonical addresses.
    pub fn new(transport: Transport, client: SocketAddr, server: SocketAddr) -> Self {
        let scope = match client {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let client = match canonical(client) {
            SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope).into(),
            v4 @ SocketAddr::V4(_) => v4,
        };
        Self { transport, client, server: canonical(server) }
    }
}

/// A relayed transport address of this server: the local one, as bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayedAddr(pub SocketAddr);

/// A peer's transport address, canonical: never an IPv4-mapped IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerAddr(SocketAddr);

impl PeerAddr {
    /// Makes `addr` canonical and takes it.
    pub fn new(addr: SocketAddr) -> Self {
        Self(canonical(addr))
    }

    /// The address itself.
    pub fn get(self) -> SocketAddr {
        self.0
    }

    /// Its IP address, which permissions are for (RFC 8656, section 9).
    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }
}

/// Without IPv4-mapped forms, flow labels and scopes.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// An IP prefix such as `10.0.0.0/8`; a bare address is a prefix of its full length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// A text that is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or prefix such as 10.0.0.0/8 or 2001:db8::/32")]
pub struct NotAPrefix;

impl Prefix {
    /// The prefix of `len` bits that `addr` is in; `len` beyond the family's is cut to it.
    pub fn new(addr: IpAddr, len: u8) -> Self {
        match addr {
            IpAddr::V4(v4) => {
                let len = len.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Self { addr: IpAddr::V4((v4.to_bits() & mask).into()), len }
            }
            IpAddr::V6(v6) => {
                let len = len.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Self { addr: IpAddr::V6((v6.to_bits() & mask).into()), len }
            }
        }
    }

    /// Whether `ip` is in it. Families never mix.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.addr.is_ipv4() && Self::new(ip, self.len).addr == self.addr
    }
}

impl FromStr for Prefix {
    type Err = NotAPrefix;

    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| NotAPrefix)?;
        let full = if addr.is_ipv4() { 32 } else { 128 };
        let len = match len {
            Some(len) => len.parse().ok().filter(|len| *len <= full).ok_or(NotAPrefix)?,
            None => full,
        };
        Ok(Self::new(addr, len))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// The source that limits count by: an IPv4 /32 or an IPv6 /56, of the canonical address.
pub fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 72))),
    }
}

/// Whether `text` is a host name or an IPv4 address.
pub fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (1..=253).contains(&text.len()) && text.split('.').all(is_label)
}

/// A host as it stands in a URL: IPv6 addresses in brackets (RFC 3986, section 3.2.2).
pub fn host_in_url(host: &str) -> Cow<'_, str> {
    if host.contains(':') { format!("[{host}]").into() } else { host.into() }
}

/// Whom limits per source count, and as what.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    exempt: Vec<Prefix>,
    networks: bool,
}

impl Sources {
    /// All but those in `exempt`.
    pub fn new(exempt: Vec<Prefix>) -> Self {
        Self { exempt, networks: false }
    }

    /// The same, but counts IPv4 addresses by their /24: for what costs a stranger nothing to ask from many of them.
    pub fn networks(exempt: Vec<Prefix>) -> Self {
        Self { exempt, networks: true }
    }

    /// What `ip` counts as ([`source_of`]); none, if it is exempt.
    pub fn of(&self, ip: IpAddr) -> Option<IpAddr> {
        let ip = ip.to_canonical();
        if self.exempt.iter().any(|prefix| prefix.contains(ip)) {
            return None;
        }
        Some(match source_of(ip) {
            IpAddr::V4(v4) if self.networks => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !0xFF)),
            source @ (IpAddr::V4(_) | IpAddr::V6(_)) => source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_its_addresses_and_no_others() {
        let ten: Prefix = "10.1.2.3/8".parse().unwrap();

        assert_eq!(ten.to_string(), "10.0.0.0/8");
        assert!(ten.contains("10.255.0.1".parse().unwrap()));
        assert!(!ten.contains("11.0.0.1".parse().unwrap()));
        assert!(!ten.contains("::ffff:10.0.0.1".parse().unwrap()), "families never mix");
        assert!("0.0.0.0/0".parse::<Prefix>().unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!("::/0".parse::<Prefix>().unwrap().contains("2001::1".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "10/8", "example.org"] {
            assert_eq!(bad.parse::<Prefix>(), Err(NotAPrefix), "{bad}");
        }
    }

    #[test]
    fn mapped_addresses_become_plain_ones() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:5".parse().unwrap();

        assert_eq!(PeerAddr::new(mapped).get(), "192.0.2.1:5".parse().unwrap());
    }

    #[test]
    fn a_link_local_client_keeps_its_scope_and_nobody_keeps_a_flow_label() {
        let at = |ip: &str, scope| SocketAddr::from(SocketAddrV6::new(ip.parse().unwrap(), 5, 7, scope));
        let client = |addr| FiveTuple::new(Transport::Udp, addr, "[fe80::2]:3478".parse().unwrap()).client;

        assert_eq!(client(at("fe80::1", 3)), SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 0, 3).into());
        assert_ne!(client(at("fe80::1", 3)), client(at("fe80::1", 4)));
        assert_eq!(client(at("::ffff:192.0.2.1", 3)), "192.0.2.1:5".parse().unwrap());
        assert_eq!(PeerAddr::new(at("fe80::1", 3)).get(), "[fe80::1]:5".parse().unwrap());
    }

    #[test]
    fn networks_are_24s_of_ipv4_and_56s_of_ipv6_and_exempt_addresses_none() {
        let networks = Sources::networks(vec!["192.0.2.7".parse().unwrap()]);
        let of = |ip: &str| networks.of(ip.parse().unwrap());

        assert_eq!(of("192.0.2.1"), of("192.0.2.255"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:1:2ff::1"), of("2001:db8:1:201::2"));
        assert_eq!(of("192.0.2.7"), None);
    }

    #[test]
    fn sources_are_whole_ipv4_addresses_and_ipv6_56s() {
        assert_eq!(source_of("2001:db8:1:2ff:3::1".parse().unwrap()), "2001:db8:1:200::".parse::<IpAddr>().unwrap());
        assert_eq!(source_of("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
