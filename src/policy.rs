//! Which peers may be reached: one function, asked by every method that names a peer and again for every Send.

use std::collections::HashSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use crate::address::PeerAddr;
use crate::address::Prefix;

/// What the operator said, and what this host is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Beats every denial but our own listeners.
    pub allow: Vec<Prefix>,
    /// Denied besides the built-in list.
    pub deny: Vec<Prefix>,
    /// Every address of this host, and the external addresses it is reached by.
    pub host: HashSet<IpAddr>,
    /// Every port this process listens on: never reached through a relay.
    pub listening_ports: HashSet<u16>,
}

/// What is to become of data for a peer that is no live relayed address of ours (those come first, inside the process).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Out through the kernel.
    Kernel,
    /// Nowhere, by a denial in words.
    Denied(&'static str),
}

/// The policy in force. Pure: the same peer always gets the same answer.
#[derive(Clone, Debug)]
pub struct Policy {
    settings: Settings,
    built_in: Vec<(Prefix, &'static str)>,
}

impl Policy {
    /// The built-in denials and `settings` on top.
    pub fn new(settings: Settings) -> Self {
        let built_in = BUILT_IN
            .iter()
            .flat_map(|(why, list)| list.split(' ').filter_map(|prefix| Some((prefix.parse().ok()?, *why))))
            .collect();
        Self { settings, built_in }
    }

    /// What it was made of.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether data may leave for `peer`.
    ///
    /// The order is: the unspecified address and our own listeners never; `allow`; the denials, on the address itself
    /// and on every IPv4 address that it embeds; else yes. Port 0 stands for any port, as in a permission.
    pub fn reach(&self, peer: PeerAddr) -> Reach {
        let ip = peer.ip();
        if ip.is_unspecified() {
            // Linux takes it for loopback.
            return Reach::Denied("the unspecified address");
        }
        let judged = || std::iter::once(ip).chain(embedded_in(ip));
        if self.settings.listening_ports.contains(&peer.get().port()) && judged().any(|ip| self.may_be_this_host(ip)) {
            return Reach::Denied("a listener of this server");
        }
        if self.settings.allow.iter().any(|prefix| prefix.contains(ip)) {
            return Reach::Kernel;
        }
        judged().find_map(|ip| self.denial(ip)).map_or(Reach::Kernel, Reach::Denied)
    }

    /// Whether `ip` is of a special-purpose range, so that it names nobody on the internet: neither does what it embeds.
    pub fn is_special(&self, ip: IpAddr) -> bool {
        let is_listed = |ip| self.built_in.iter().any(|(prefix, _)| prefix.contains(ip));
        std::iter::once(ip).chain(embedded_in(ip)).all(is_listed)
    }

    /// Whether what is sent to `ip` may reach a socket of this host, alone or with others.
    fn may_be_this_host(&self, ip: IpAddr) -> bool {
        let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || broadcast || self.settings.host.contains(&ip)
    }

    fn denial(&self, ip: IpAddr) -> Option<&'static str> {
        if self.settings.host.contains(&ip) {
            return Some("an address of this host");
        }
        if self.settings.deny.iter().any(|prefix| prefix.contains(ip)) {
            return Some("turn.peers.deny");
        }
        self.built_in.iter().find(|(prefix, _)| prefix.contains(ip)).map(|(_, why)| *why)
    }
}

/// The IPv4 addresses that an IPv6 address carries inside: mapped, compatible, NAT64, 6to4, Teredo (server and client).
///
/// Inside 64:ff9b:1::/48 the operator of the NAT64 chooses the prefix's length: every place that it may put the IPv4
/// address (RFC 6052, section 2.2) is looked at.
fn embedded_in(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let mut found = [None; 4];
    if let IpAddr::V6(v6) = ip {
        let bits = v6.to_bits();
        let at = |shift: u32| Some(Ipv4Addr::from_bits((bits >> shift & 0xffff_ffff) as u32));
        let [a, b, c, ..] = v6.segments();
        found = match (a, b, c) {
            (0, ..) if bits >> 48 == 0 => [at(0), None, None, None],
            (0x64, 0xff9b, 0) => [at(0), None, None, None],
            (0x64, 0xff9b, 1) => {
                // All forms but the longest leave out bits 64 to 71.
                let joined = bits >> 64 << 56 | bits & (u128::MAX >> 72);
                let at_joined = |shift: u32| Some(Ipv4Addr::from_bits((joined >> shift & 0xffff_ffff) as u32));
                [at_joined(40), at_joined(32), at_joined(24), at(0)]
            }
            (0x2002, ..) => [at(80), None, None, None],
            (0x2001, 0, _) => [at(64), at(0).map(|client| Ipv4Addr::from_bits(!client.to_bits())), None, None],
            _ => [None; 4],
        };
    }
    found.into_iter().flatten().map(IpAddr::V4)
}

/// Denied unless allowed (IANA's special-purpose registries, and clouds' metadata services).
const BUILT_IN: &[(&str, &str)] = &[
    ("a metadata service", "169.254.169.254 100.100.100.200 fd00:ec2::254"),
    ("private range", "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10"),
    ("loopback", "127.0.0.0/8 ::1"),
    ("link-local", "169.254.0.0/16 fe80::/10"),
    ("multicast or broadcast", "224.0.0.0/4 240.0.0.0/4 ff00::/8"),
    ("shared range of carrier-grade NAT", "100.64.0.0/10"),
    ("the unspecified address", "0.0.0.0/8"),
    (
        "a special-purpose range",
        "192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.175.48.0/24 198.18.0.0/15 \
         198.51.100.0/24 203.0.113.0/24 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 \
         3fff::/20 5f00::/16",
    ),
];

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn peer(ip: impl Into<IpAddr>) -> PeerAddr {
        PeerAddr::new(SocketAddr::new(ip.into(), 9))
    }

    fn defaults() -> Policy {
        Policy::new(Settings::default())
    }

    #[test]
    fn every_built_in_prefix_parses() {
        let named: usize = BUILT_IN.iter().map(|(_, list)| list.split(' ').count()).sum();

        assert_eq!(defaults().built_in.len(), named);
    }

    #[test]
    fn public_addresses_are_reached_and_special_ones_are_not() {
        let policy = defaults();

        for good in ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"] {
            assert_eq!(policy.reach(peer(good.parse::<IpAddr>().unwrap())), Reach::Kernel, "{good}");
        }
        for bad in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "64:ff9b:1:ffff:a00:1::",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "2002:a00:1::1",
        ] {
            assert!(matches!(policy.reach(peer(bad.parse::<IpAddr>().unwrap())), Reach::Denied(_)), "{bad}");
        }
    }

    #[test]
    fn a_special_address_names_nobody_on_the_internet_not_even_by_what_it_embeds() {
        let policy = defaults();
        let is_special = |ip: &&str| policy.is_special(ip.parse().unwrap());

        let nobodys = ["192.168.1.5", "10.0.0.1", "127.0.0.1", "fd00::1", "fe80::1", "::1", "2002:a00:1::1"];
        assert!(nobodys.iter().all(is_special), "{nobodys:?}");
        let somebodys = ["8.8.8.8", "2606:4700::1111", "2002:808:808::1", "64:ff9b::808:808", "64:ff9b:1::808:808"];
        assert!(!somebodys.iter().any(is_special), "{somebodys:?}");
    }

    #[test]
    fn allow_beats_deny_but_never_opens_our_own_listeners() {
        let policy = Policy::new(Settings {
            allow: ["127.0.0.0/8", "203.0.113.7", "8.8.4.4"].map(|prefix| prefix.parse().unwrap()).into(),
            deny: vec!["8.8.0.0/16".parse().unwrap()],
            host: HashSet::from(["203.0.113.7".parse().unwrap(), "198.18.0.1".parse().unwrap()]),
            listening_ports: HashSet::from([3478]),
        });
        let reach = |addr: &str| policy.reach(PeerAddr::new(addr.parse().unwrap()));

        assert_eq!(reach("127.0.0.1:5000"), Reach::Kernel);
        assert_eq!(reach("203.0.113.7:5000"), Reach::Kernel);
        assert_eq!(reach("127.0.0.1:3478"), Reach::Denied("a listener of this server"));
        assert_eq!(reach("203.0.113.7:3478"), Reach::Denied("a listener of this server"));
        assert_eq!(reach("[::ffff:127.0.0.1]:3478"), Reach::Denied("a listener of this server"));
        assert_eq!(reach("8.8.4.4:53"), Reach::Kernel);
        assert_eq!(reach("8.8.8.8:53"), Reach::Denied("turn.peers.deny"));
        assert_eq!(reach("198.18.0.1:5000"), Reach::Denied("an address of this host"));
    }

    #[test]
    fn no_disguise_of_this_host_reaches_its_listeners_even_if_everything_is_allowed() {
        let policy = Policy::new(Settings {
            allow: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            listening_ports: HashSet::from([3478]),
            ..Settings::default()
        });
        let reach = |ip: &str, port| policy.reach(PeerAddr::new(SocketAddr::new(ip.parse().unwrap(), port)));

        for ip in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            assert_eq!(reach(ip, 5000), Reach::Denied("the unspecified address"), "{ip}");
        }
        for ip in [
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1:7f00:0:100::",
            "64:ff9b:1:7f:0:1::",
            "64:ff9b:1:0:7f:0:100:0",
            "64:ff9b:1::7f00:1",
        ] {
            assert_eq!(reach(ip, 3478), Reach::Denied("a listener of this server"), "{ip}");
            assert_eq!(reach(ip, 5000), Reach::Kernel, "{ip}");
        }
    }

    /// Addresses from every denied IPv4 prefix, evenly.
    fn denied() -> impl Strategy<Value = u32> {
        let texts = BUILT_IN.iter().flat_map(|(_, list)| list.split(' ')).filter(|text| text.contains('.'));
        let prefixes: Vec<(u32, u32)> = texts
            .map(|text| {
                let (ip, len) = text.split_once('/').unwrap_or((text, "32"));
                (ip.parse::<Ipv4Addr>().unwrap().to_bits(), u32::MAX.checked_shr(len.parse().unwrap()).unwrap_or(0))
            })
            .collect();
        (prop::sample::select(prefixes), any::<u32>()).prop_map(|((base, hosts), random)| base | (random & hosts))
    }

    proptest! {
        #[test]
        fn every_embedding_of_a_denied_ipv4_address_is_denied(bits in denied(), low: u16) {
            let policy = defaults();
            let v4 = Ipv4Addr::from_bits(bits);
            let (wide, low) = (u128::from(bits), u128::from(low));
            let embeddings = [
                wide,
                0xffff_0000_0000 | wide,
                0x0064_ff9b << 96 | wide,
                0x0064_ff9b_0001 << 80 | wide,
                0x0064_ff9b_0001 << 80 | wide >> 16 << 64 | (wide & 0xffff) << 40,
                0x0064_ff9b_0001 << 80 | (low & 0xff) << 72 | wide >> 24 << 64 | (wide & 0xff_ffff) << 32,
                0x0064_ff9b_0001 << 80 | low << 64 | wide << 24,
                0x2002 << 112 | wide << 80 | low,
                0x2001 << 112 | wide << 64 | low,
                0x2001 << 112 | low << 64 | (!wide & 0xffff_ffff),
            ];

            for embedding in embeddings {
                let v6 = Ipv6Addr::from_bits(embedding);
                let seen = embedded_in(v6.into()).any(|ip| ip == v4) || v6.to_canonical() == v4;
                prop_assert!(seen, "{v6} carries {v4}");
                prop_assert!(matches!(policy.reach(peer(v6)), Reach::Denied(_)), "{v6} carries {v4}");
            }
        }
    }

    /// The policy once more, as an operator would put it: texts, looked through one after the other, bit by bit.
    struct Model {
        allow: Vec<String>,
        deny: Vec<String>,
        host: Vec<String>,
        listening: u16,
    }

    impl Model {
        const SPECIAL: &str = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 \
            192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 \
            198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 ::/128 ::1/128 64:ff9b:1::/48 100::/64 100:0:0:1::/64 \
            2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8";
        const THIS_HOST: &str = "127.0.0.0/8 ::1/128 0.0.0.0/32 ::/128 224.0.0.0/4 ff00::/8 255.255.255.255/32";

        fn reaches(&self, ip: IpAddr, port: u16) -> bool {
            let ip = ip.to_canonical();
            let judged: Vec<IpAddr> = [vec![ip], carried(ip)].concat();
            let host = || self.host.iter().map(String::as_str);
            let any_in = |texts: &mut dyn Iterator<Item = &str>| {
                let texts: Vec<_> = texts.collect();
                judged.iter().any(|ip| texts.iter().any(|text| is_in(*ip, text)))
            };
            if ["0.0.0.0", "::"].contains(&ip.to_string().as_str()) {
                return false;
            }
            if port == self.listening && any_in(&mut Self::THIS_HOST.split_whitespace().chain(host())) {
                return false;
            }
            let allowed = self.allow.iter().any(|text| is_in(ip, text));
            let denied = self.deny.iter().map(String::as_str).chain(Self::SPECIAL.split_whitespace()).chain(host());
            allowed || !any_in(&mut denied.collect::<Vec<_>>().into_iter())
        }
    }

    /// An address as its bits, in writing.
    fn in_bits(ip: IpAddr) -> String {
        match ip {
            IpAddr::V4(v4) => format!("{:032b}", v4.to_bits()),
            IpAddr::V6(v6) => format!("{:0128b}", v6.to_bits()),
        }
    }

    fn is_in(ip: IpAddr, text: &str) -> bool {
        let (network, length) = text.split_once('/').unwrap();
        let network: IpAddr = network.parse().unwrap();
        let length: usize = length.parse().unwrap();
        network.is_ipv4() == ip.is_ipv4() && in_bits(ip).starts_with(&in_bits(network)[..length])
    }

    /// The IPv4 addresses in an IPv6 address, by where their bits stand in it.
    fn carried(ip: IpAddr) -> Vec<IpAddr> {
        let bits = in_bits(ip);
        let v4 = |bits: String| IpAddr::V4(u32::from_str_radix(&bits, 2).unwrap().into());
        let at = |at: usize| v4(bits[at..at + 32].to_owned());
        let around = |at: usize| v4(format!("{}{}", &bits[at..64], &bits[72..72 + 32 - (64 - at)]));
        let in_any = |texts: &[&str]| texts.iter().any(|text| is_in(ip, text));
        if in_any(&["::/80", "64:ff9b::/48"]) {
            vec![at(96)]
        } else if in_any(&["64:ff9b:1::/48"]) {
            vec![around(48), around(56), around(64), at(96)]
        } else if in_any(&["2002::/16"]) {
            vec![at(16)]
        } else if in_any(&["2001::/32"]) {
            let flipped = bits[96..].chars().map(|bit| if bit == '0' { '1' } else { '0' }).collect();
            vec![at(32), v4(flipped)]
        } else {
            vec![]
        }
    }

    /// A prefix of any length, and often one that means something.
    fn networks() -> impl Strategy<Value = String> {
        let special: Vec<_> = Model::SPECIAL.split_whitespace().map(str::to_owned).collect();
        prop_oneof![
            3 => prop::sample::select(special),
            1 => (any::<u32>(), 0..=32_usize).prop_map(|(bits, length)| format!("{}/{length}", Ipv4Addr::from_bits(bits))),
            1 => (any::<u128>(), 0..=128_usize)
                .prop_map(|(bits, length)| format!("{}/{length}", Ipv6Addr::from_bits(bits))),
            1 => prop::sample::select(vec!["64:ff9b::/96", "::/96", "2001::/32", "8.8.8.0/24", "0.0.0.0/0", "::/0"])
                .prop_map(str::to_owned),
        ]
    }

    /// The first or last address of a network, or its neighbour outside.
    fn at_an_edge(network: &str, edge: u8) -> IpAddr {
        let (ip, length) = network.split_once('/').unwrap();
        let length: u32 = length.parse().unwrap();
        let of = |bits: u128, width: u32| {
            let hosts = u128::MAX.checked_shr(128 - width + length).unwrap_or(0);
            let first = bits & !hosts;
            [first, first.wrapping_sub(1), first | hosts, (first | hosts).wrapping_add(1)][usize::from(edge % 4)]
        };
        match ip.parse().unwrap() {
            IpAddr::V4(v4) => Ipv4Addr::from_bits((of(v4.to_bits().into(), 32) & 0xffff_ffff) as u32).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(of(v6.to_bits(), 128)).into(),
        }
    }

    /// An IPv4 address in one of its IPv6 forms, the bits around it by chance.
    fn dressed(ip: IpAddr, form: u8, around: u128) -> IpAddr {
        let IpAddr::V4(v4) = ip else { return ip };
        let bits = u128::from(v4.to_bits());
        let (prefix, length, shift, bits) = match form {
            0 => (0x2002 << 112, 16, 80, bits),
            1 => (0x2001 << 112, 32, 64, bits),
            2 => (0x2001 << 112, 32, 0, bits ^ 0xffff_ffff),
            3 => (0, 96, 0, bits),
            4 => (0xffff << 32, 96, 0, bits),
            5 => (0x0064_ff9b << 96, 96, 0, bits),
            6 => (0x0064_ff9b_0001 << 80, 48, 0, bits),
            7 => (0x0064_ff9b_0001 << 80, 64, 24, bits),
            // These two are parted by bits 64 to 71.
            8 => (0x0064_ff9b_0001 << 80 | bits >> 16 << 64, 72, 40, bits & 0xffff),
            9 => (0x0064_ff9b_0001 << 80 | bits >> 24 << 64, 72, 32, bits & 0xff_ffff),
            _ => return ip,
        };
        let free = (u128::MAX >> length) & !(0xffff_ffff << shift);
        Ipv6Addr::from_bits(prefix | bits << shift | around & free).into()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

        #[test]
        fn the_policy_decides_as_a_naive_model_does(
            allow in prop::collection::vec(networks(), 0..3),
            deny in prop::collection::vec(networks(), 0..3),
            host in prop::collection::vec((networks(), any::<u8>()), 0..3),
            peers in prop::collection::vec((networks(), any::<[u8; 2]>(), 0..14_u8, any::<u128>()), 1..24),
        ) {
            let host: Vec<IpAddr> = host.iter().map(|(network, edge)| at_an_edge(network, *edge)).collect();
            let parsed = |texts: &[String]| texts.iter().map(|text| text.parse().unwrap()).collect();
            let policy = Policy::new(Settings {
                allow: parsed(&allow),
                deny: parsed(&deny),
                host: host.iter().copied().collect(),
                listening_ports: HashSet::from([3478]),
            });
            let whole = |ip: &IpAddr| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
            let known = [&allow[..], &deny].concat();
            let model = Model { allow, deny, host: host.iter().map(whole).collect(), listening: 3478 };

            for (network, [edge, port], form, around) in peers {
                // Some of them at what the operator named, and at what this host is.
                let network = known.get(usize::from(edge / 4)).unwrap_or(&network);
                let ip = *host.get(usize::from(port / 8)).unwrap_or(&at_an_edge(network, edge));
                let ip = dressed(ip, form, around);
                let port = [0, 9, 3478][usize::from(port % 3)];
                let reached = policy.reach(PeerAddr::new(SocketAddr::new(ip, port))) == Reach::Kernel;
                prop_assert_eq!(reached, model.reaches(ip, port), "{} port {}", ip, port);
            }
        }
    }
}
