//! Which peers are reached: every method, every way to write an address, every transport.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use super::*;

/// An address in every denied IPv4 range, at its edges where these are telling.
const DENIED_IPV4: &[&str] = &[
    "0.0.0.1",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.2",
    "169.254.169.254",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
];

/// The same for IPv6.
const DENIED_IPV6: &[&str] = &[
    "::",
    "64:ff9b:1::808:808",
    "100::1",
    "100:0:0:1::1",
    "2001:1::1",
    "2001:db8::1",
    "2002:808:808::1",
    "2620:4f:8000::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
];

/// What nobody forbids.
const REACHED: &[&str] = &["8.8.8.8", "172.32.0.1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700::1111"];

/// Every way in which an IPv6 address can hold this IPv4 address, by name.
fn encodings(v4: Ipv4Addr) -> [(&'static str, IpAddr); 12] {
    let [a, b, c, d] = v4.octets().map(u16::from);
    let (high, low) = (a << 8 | b, c << 8 | d);
    let v6 = |segments: [u16; 8]| IpAddr::V6(segments.into());
    [
        ("plain", v4.into()),
        ("mapped", v6([0, 0, 0, 0, 0, 0xFFFF, high, low])),
        ("compatible", v6([0, 0, 0, 0, 0, 0, high, low])),
        ("6to4", v6([0x2002, high, low, 0, 0, 0, 0, 1])),
        ("Teredo server", v6([0x2001, 0, high, low, 0, 0, 0, 0])),
        ("Teredo client", v6([0x2001, 0, 0, 0, 0, 0, !high, !low])),
        ("NAT64", v6([0x64, 0xFF9B, 0, 0, 0, 0, high, low])),
        ("local NAT64, /48", v6([0x64, 0xFF9B, 1, high, c, d << 8, 0, 0])),
        ("local NAT64, /56", v6([0x64, 0xFF9B, 1, a, b, c << 8 | d, 0, 0])),
        ("local NAT64, /64", v6([0x64, 0xFF9B, 1, 0, a, b << 8 | c, d << 8, 0])),
        ("local NAT64, /96", v6([0x64, 0xFF9B, 1, 0, 0, 0, high, low])),
        ("local NAT64, another /96", v6([0x64, 0xFF9B, 1, 7, 7, 7, high, low])),
    ]
}

/// shared/turn.md, "Peer policy": methods by encodings by transports.
#[tokio::test]
async fn no_method_in_no_encoding_over_no_transport_reaches_what_is_denied() {
    let scene = Scene::closed();
    let ipv4 = DENIED_IPV4.iter().flat_map(|text| encodings(text.parse().unwrap()));
    let ipv6 = DENIED_IPV6.iter().map(|text| ("special", text.parse().unwrap()));
    let denied: Vec<(&str, IpAddr)> = ipv4.chain(ipv6).filter(|(_, ip)| !ours(*ip)).collect();
    assert!(denied.len() > 290);

    for over in Over::ALL {
        let asker = scene.alice_over(over).await;
        asker.allocate_both().await;
        let before = scene.drops("no-permission").await;
        for (encoding, ip) in &denied {
            let peer = SocketAddr::new(*ip, 9);
            let at = format!("{ip}, {encoding}, over {over:?}");
            assert_eq!(asker.permit(peer).await, 403, "CreatePermission for {at}");
            assert_eq!(asker.bind(0x4000, peer).await, 403, "ChannelBind to {at}");
            asker.indicate(peer, b"Send").await;
        }
        scene.drops_each(&asker, "no-channel", [channel_data(0x4000, b"ChannelData")]).await;
        let dropped = scene.drops("no-permission").await - before;
        assert_eq!(dropped, denied.len() as u64, "Send indications over {over:?}");
    }

    assert_eq!(scene.server.relayed("to-peers").await, 0);
}

/// shared/turn.md, "Peer policy".
#[tokio::test]
async fn what_is_not_denied_is_granted_by_every_method_over_every_transport() {
    let scene = Scene::closed();

    for over in Over::ALL {
        let asker = scene.alice_over(over).await;
        asker.allocate_both().await;
        for (ip, number) in REACHED.iter().zip(0x4000..) {
            let peer = SocketAddr::new(ip.parse().unwrap(), 9);
            assert_eq!(asker.permit(peer).await, 0, "CreatePermission for {ip} over {over:?}");
            // In one of its forms an address may be bound already.
            let bound = if ip.starts_with("::ffff:") { 0x4000 } else { number };
            assert_eq!(asker.bind(bound, peer).await, 0, "ChannelBind to {ip} over {over:?}");
        }
    }
}

/// shared/turn.md, "Peer policy": with `allow`, data arrives.
#[tokio::test]
async fn an_allowed_peer_is_reached_by_every_method_in_every_form_of_its_address_over_every_transport() {
    let scene = Scene::open();

    for over in Over::ALL {
        for (ip, forms) in [("127.0.0.1", &["127.0.0.1", "::ffff:127.0.0.1"][..]), ("::1", &["::1"])] {
            for form in forms {
                let (asker, peer) = (scene.alice_over(over).await, Peer::at(ip).await);
                let relayed = asker.allocate_both().await.into_iter().find(|it| it.is_ipv4() == peer.addr.is_ipv4());
                let named = SocketAddr::new(form.parse().unwrap(), peer.addr.port());
                let at = format!("{form} over {over:?}");
                assert_eq!(asker.permit(named).await, 0, "CreatePermission for {at}");
                asker.indicate(named, at.as_bytes()).await;
                assert_eq!(peer.received().await, (at.clone().into_bytes(), relayed.unwrap()), "Send to {at}");
                assert_eq!(asker.bind(0x4000, named).await, 0, "ChannelBind to {at}");
                meet_by_channel(&asker, 0x4000, relayed.unwrap(), &peer).await;
            }
        }
    }
}

/// shared/turn.md, "Peer policy": in process only, and only in the form that is its own.
#[tokio::test]
async fn a_relayed_address_is_reached_by_its_own_name_over_every_transport_and_by_no_disguise() {
    let scene = Scene::closed();

    for (left, right) in Over::ALL.into_iter().flat_map(|left| Over::ALL.map(|right| (left, right))) {
        let (alice, bob) = (scene.alice_over(left).await, scene.bob_over(right).await);
        let (at_alice, at_bob) = (alice.allocate_both().await, bob.allocate_both().await);
        for (from, to) in at_alice.into_iter().zip(at_bob) {
            assert_eq!((alice.permit(to).await, bob.permit(from).await), (0, 0));
            alice.indicate(to, b"hairpin").await;
            let data = bob.receive_stun().await;
            assert_eq!(addresses(&data, ATTR_XOR_PEER_ADDRESS), [from], "{left:?} to {right:?}");
        }
        for (encoding, ip) in encodings(Ipv4Addr::LOCALHOST) {
            let named = SocketAddr::new(ip, at_bob[0].port());
            let expected = if ours(ip) { 0 } else { 403 };
            assert_eq!(alice.permit(named).await, expected, "CreatePermission, {encoding}, over {left:?}");
            let number = if ours(ip) { 0x4000 } else { 0x4001 };
            assert_eq!(alice.bind(number, named).await, expected, "ChannelBind, {encoding}, over {left:?}");
        }
        alice.send(&channel_data(0x4000, b"by channel")).await;
        assert_eq!(bob.receive_stun().await.get(ATTR_DATA).unwrap(), b"by channel", "{left:?} to {right:?}");
    }

    assert_eq!(scene.server.relayed("to-peers").await, 0, "never through the kernel");
}

/// shared/turn.md, "Peer policy": a permission for our own relay address is granted, for clients meet there.
#[tokio::test]
async fn what_no_allocation_owns_on_our_relay_address_is_dropped_and_never_sent() {
    let scene = Scene::closed();
    let bystanders = [Peer::new().await, Peer::at("::1").await];

    for over in Over::ALL {
        let asker = scene.alice_over(over).await;
        asker.allocate_both().await;
        for bystander in &bystanders {
            let send = message(SEND, &[(PEER, &xor(bystander.addr)), (DATA_VALUE, b"inwards")]).raw;
            assert_eq!(asker.permit(bystander.addr).await, 0, "{over:?}");
            assert_eq!(asker.bind(0x4000, bystander.addr).await, 403, "a channel names a port, which isn't ours");
            scene.drops_each(&asker, "no-such-relayed-address", [send]).await;
            bystander.heard_nothing().await;
        }
    }

    assert_eq!(scene.server.relayed("to-peers").await, 0);
}

/// shared/turn.md, "Attacks to keep as tests": the loop.
#[tokio::test]
async fn our_own_listener_is_never_a_peer_even_when_allowed() {
    let scene = Scene::open();
    let listeners = [scene.server.udp(), scene.server.turn_tcp(), scene.server.turn_tls(), scene.server.https()];

    for over in Over::ALL {
        let asker = scene.alice_over(over).await;
        asker.allocate().await;
        for listener in listeners {
            let mapped = addr(&format!("[::ffff:127.0.0.1]:{}", listener.port()));
            assert_eq!(asker.bind(0x4000, listener).await, 403, "{listener} over {over:?}");
            assert_eq!(asker.bind(0x4000, mapped).await, 403, "{mapped} over {over:?}");
            assert_eq!(asker.permit(listener).await, 0, "a permission names no port");
            let send = message(SEND, &[(PEER, &xor(listener)), (DATA_VALUE, b"loop")]).raw;
            scene.drops_each(&asker, "no-such-relayed-address", [send]).await;
        }
    }

    assert_eq!(scene.server.relayed("to-peers").await, 0);
}

/// shared/turn.md, "Attacks to keep as tests": the policy is for peers.
#[tokio::test]
async fn a_client_in_a_denied_range_is_served() {
    let scene = Scene { server: Server::start(&format!("{DEFAULT_PEERS}[turn.peers]\ndeny = [\"127.0.0.0/8\"]\n")) };
    let alice = Asker::over(scene.line_from("127.1.2.3").await, "alice", "wonderland").await;
    let bob = Asker::over(scene.line_from("127.4.5.6").await, "bob", "builder").await;
    let (at_alice, at_bob) = (alice.allocate().await, bob.allocate().await);

    assert_eq!((alice.bind(0x4000, at_bob).await, bob.bind(0x5000, at_alice).await), (0, 0));
    alice.send(&channel_data(0x4000, b"there")).await;

    assert_eq!(bob.receive().await, channel_data(0x5000, b"there"));
    assert_eq!(alice.permit(alice.line.local_addr()).await, 403, "as a peer it is denied");
}

/// Whether it is where the server relays from, which is granted.
fn ours(ip: IpAddr) -> bool {
    ip.to_canonical() == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
}
