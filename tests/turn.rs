//! TURN as clients meet it: webrtc-rs `turn::client`, turn-client-proto, coturn's clients, and one that asks with every
//! flaw.

pub(crate) mod asker;
mod coturn;
pub(crate) mod line;
mod sansio;
mod streams;

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use asker::*;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::net::UdpSocket;
use tokio::process::Child;
use tokio::process::Command;
use webrtc_util::Conn;

use crate::support::PATIENCE;
use crate::support::Server;

/// Every listener on a port of its own, two users.
macro_rules! local {
    () => {
        r#"
[http]
listen = ["127.0.0.1:0"]
plain_listen = ["127.0.0.1:0"]
[metrics]
listen = ["127.0.0.1:0"]
[turn]
listen_udp = ["127.0.0.1:0"]
listen_tcp = ["127.0.0.1:0"]
listen_tls = ["127.0.0.1:0"]
relay_ports = "20000-29999" # apart from the ports that the system chooses for listeners
users = { alice = "wonderland", bob = "builder" }
"#
    };
}

/// The deny list as it comes.
const DEFAULT_PEERS: &str = local!();

/// Peers on loopback are allowed here, which lets tests play the peer.
pub(crate) const PEERS_ON_LOOPBACK: &str = concat!(
    local!(),
    r#"secrets = ["north"]
[turn.peers]
allow = ["127.0.0.0/8"]
"#
);

async fn client(server: &Server, user: &str, password: &str) -> turn::client::Client {
    let config = turn::client::ClientConfig {
        stun_serv_addr: server.udp().to_string(),
        turn_serv_addr: server.udp().to_string(),
        username: user.into(),
        password: password.into(),
        realm: "throughway".into(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()),
        vnet: None,
    };
    let client = turn::client::Client::new(config).await.unwrap();
    client.listen().await.unwrap();
    client
}

fn rest_password(username: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"north");
    BASE64_STANDARD.encode(ring::hmac::sign(&key, username.as_bytes()))
}

async fn received(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, source) = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(length);
    (buffer, source)
}

#[tokio::test]
async fn the_crates_client_allocates_and_relays_both_ways() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let client = client(&server, "alice", "wonderland").await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let peer_addr = peer.local_addr().unwrap();

    let mapped = client.send_binding_request().await.unwrap();
    let relay = client.allocate().await.unwrap();
    // By Send indication first, by channel once the client's ChannelBind has been answered.
    for round in 0..50_u8 {
        relay.send_to(&[round; 100], peer_addr).await.unwrap();
        let (data, from) = received(&peer).await;
        assert_eq!((data, from), (vec![round; 100], relay.local_addr().unwrap()));
        peer.send_to(&[round; 200], from).await.unwrap();
        let mut buffer = [0; 1500];
        let (length, source) = relay.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], source), (&[round; 200][..], peer_addr));
    }
    assert_eq!(server.metric("throughway_allocations").await, 1);
    relay.close().await.unwrap();

    assert!(mapped.ip().is_loopback());
    server.metric_becomes("throughway_allocations", 0).await;
    assert_eq!(server.metric("throughway_relayed_to_peers_total").await, 50);
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_an_unknown_user_and_an_expired_credential_get_401() {
    let server = Server::start(PEERS_ON_LOOPBACK);

    for (user, password) in [
        ("alice", "wrong".to_owned()),
        ("nobody", "wonderland".to_owned()),
        ("1000000000:carol", rest_password("1000000000:carol")),
        ("9000000000:carol", rest_password("9000000001:carol")),
    ] {
        let asker = Asker::new(server.udp(), user, &password).await;
        assert_eq!(code(&asker.ask(ALLOCATE, &[UDP]).await), 401, "{user}");
    }
    let good = client(&server, "9000000000:carol", &rest_password("9000000000:carol")).await;
    assert!(good.allocate().await.is_ok());
    assert!(client(&server, "alice", "wrong").await.allocate().await.is_err());
}

#[tokio::test]
async fn permission_channel_refresh_and_delete_do_what_they_say_on_the_wire() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let asker = Asker::new(server.udp(), "alice", "wonderland").await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let peer_addr = peer.local_addr().unwrap();
    let relayed = asker.allocate().await;

    let early = server.metric("throughway_dropped_total{reason=\"no-permission\"}").await;
    peer.send_to(b"too early", relayed).await.unwrap();
    server.metric_becomes("throughway_dropped_total{reason=\"no-permission\"}", early + 1).await;
    assert_eq!(asker.permit(peer_addr).await, 0);
    asker.send(&message(SEND, &[(0x0012, &xor(peer_addr)), (0x0013, b"by indication")]).raw).await;
    assert_eq!(received(&peer).await, (b"by indication".to_vec(), relayed));
    peer.send_to(b"back", relayed).await.unwrap();
    let mut data = stun::message::Message { raw: asker.receive().await, ..Default::default() };
    data.decode().unwrap();
    assert_eq!(data.typ.value(), DATA);
    assert_eq!(data.get(stun::attributes::ATTR_DATA).unwrap(), b"back");
    assert_eq!(data.get(stun::attributes::ATTR_XOR_PEER_ADDRESS).unwrap(), xor(peer_addr));

    assert_eq!(asker.bind(0x4000, peer_addr).await, 0);
    asker.send(&channel_data(0x4000, b"by channel")).await;
    assert_eq!(received(&peer).await, (b"by channel".to_vec(), relayed));
    peer.send_to(b"back by channel", relayed).await.unwrap();
    assert_eq!(asker.receive().await, channel_data(0x4000, b"back by channel"));

    let refreshed = asker.ask(REFRESH, &[(0x000D, &1200_u32.to_be_bytes())]).await;
    assert_eq!(refreshed.get(stun::attributes::ATTR_LIFETIME).unwrap(), 1200_u32.to_be_bytes());
    assert_eq!(code(&asker.ask(REFRESH, &[(0x000D, &[0; 4])]).await), 0);
    assert_eq!(code(&asker.ask(REFRESH, &[(0x000D, &[0; 4])]).await), 437);
    asker.send(&channel_data(0x4000, b"nobody's")).await;
    server.metric_becomes("throughway_dropped_total{reason=\"no-allocation\"}", 1).await;
    assert_eq!(server.metric("throughway_allocations").await, 0);
}

#[tokio::test]
async fn peers_on_this_machine_and_in_private_ranges_are_denied_by_default() {
    let server = Server::start(DEFAULT_PEERS);
    let asker = Asker::new(server.udp(), "alice", "wonderland").await;
    let relayed = asker.allocate().await;

    for denied in
        ["127.0.0.2:9", "10.0.0.1:9", "192.168.1.1:9", "169.254.169.254:80", "224.0.0.1:9", "255.255.255.255:9"]
    {
        let denied: SocketAddr = denied.parse().unwrap();
        assert_eq!(asker.permit(denied).await, 403, "{denied}");
        assert_eq!(asker.bind(0x4001, denied).await, 403, "{denied}");
    }
    // Our own relay address is granted, for clients meet there; what nobody owns on it is dropped, never sent.
    let bystander = UdpSocket::bind((relayed.ip(), 0)).await.unwrap();
    let bystander_addr = bystander.local_addr().unwrap();
    assert_eq!(asker.permit(bystander_addr).await, 0);
    asker.send(&message(SEND, &[(0x0012, &xor(bystander_addr)), (0x0013, b"inwards")]).raw).await;
    asker.send(&message(SEND, &[(0x0012, &xor(server.udp())), (0x0013, b"loop")]).raw).await;
    server.metric_becomes("throughway_dropped_total{reason=\"no-such-relayed-address\"}", 2).await;
    assert_eq!(bystander.try_recv(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(server.metric("throughway_relayed_to_peers_total").await, 0);
}

#[tokio::test]
async fn our_own_listener_is_never_a_peer_even_when_allowed() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let asker = Asker::new(server.udp(), "alice", "wonderland").await;
    asker.allocate().await;

    assert_eq!(asker.bind(0x4000, server.udp()).await, 403);
    assert_eq!(asker.permit(server.udp()).await, 0, "a permission names no port");
    asker.send(&message(SEND, &[(0x0012, &xor(server.udp())), (0x0013, b"loop")]).raw).await;

    server.metric_becomes("throughway_dropped_total{reason=\"no-such-relayed-address\"}", 1).await;
    assert_eq!(server.metric("throughway_relayed_to_peers_total").await, 0);
}

#[tokio::test]
async fn two_clients_meet_inside_the_process() {
    let server = Server::start(DEFAULT_PEERS);
    let alice = Asker::new(server.udp(), "alice", "wonderland").await;
    let bob = Asker::new(server.udp(), "bob", "builder").await;
    let (at_alice, at_bob) = (alice.allocate().await, bob.allocate().await);

    assert_eq!((alice.bind(0x4000, at_bob).await, bob.bind(0x5000, at_alice).await), (0, 0));
    let before = server.metric("throughway_hairpin_total").await;
    for size in [0, 1, 1200, 9000, 60_000] {
        let data = vec![7; size];
        alice.send(&channel_data(0x4000, &data)).await;
        assert_eq!(bob.receive().await, channel_data(0x5000, &data));
        bob.send(&channel_data(0x5000, &data)).await;
        assert_eq!(alice.receive().await, channel_data(0x4000, &data));
    }

    assert_eq!(server.metric("throughway_hairpin_total").await - before, 10);
    assert_eq!(server.metric("throughway_relayed_to_peers_total").await, 0, "never through the kernel");
}

#[tokio::test]
async fn junk_is_counted_and_answered_with_nothing_and_the_server_lives() {
    let server = Server::start(DEFAULT_PEERS);
    let before = server.drops().await;
    let asker = Asker::new(server.udp(), "alice", "wonderland").await;
    let mut cut = message(ALLOCATE, &[UDP]).raw;
    cut[2..4].copy_from_slice(&[0xFF, 0xFC]);
    let junk: [&[u8]; 9] = [
        b"",
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xFF; 1400],
        &[0x40; 3],
        &cut,
        &message(0x0101, &[]).raw,
        &message(0x0017, &[]).raw,
        &message(ALLOCATE, &[]).raw,
    ];

    for packet in junk {
        asker.send(packet).await;
    }

    assert_eq!(code(&asker.ask(ALLOCATE, &[UDP]).await), 0, "the next to arrive is the answer to this");
    assert_eq!(server.drops().await - before, junk.len() as u64);
}

/// What coturn's client says it sent and received.
#[derive(Debug, PartialEq, Eq)]
struct Tally {
    sent: u64,
    received: u64,
}

/// A running `turnutils_peer`, which sends back what it gets. It ends when this is dropped.
struct CoturnsPeer {
    _process: Child,
    port: String,
}

impl CoturnsPeer {
    async fn start(ip: &str) -> Self {
        let port = UdpSocket::bind((ip, 0)).await.unwrap().local_addr().unwrap().port();
        let process = Command::new("turnutils_peer")
            .args(["-L", ip, "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let asking = UdpSocket::bind((ip, 0)).await.unwrap();
        asking.connect((ip, port)).await.unwrap();
        let echoed = async {
            // Refused until it listens; what it is sent then, comes back.
            while asking.send(b"there?").await.is_err() || asking.recv(&mut [0; 16]).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, echoed).await.expect("turnutils_peer listens");
        Self { _process: process, port: port.to_string() }
    }
}

/// Runs `turnutils_uclient` against the server's `port` on 127.0.0.1; every message must come back.
async fn uclient(port: u16, arguments: &[&str]) -> Tally {
    uclient_at("127.0.0.1", port, arguments).await
}

/// The same against the server at `ip`.
async fn uclient_at(ip: &str, port: u16, arguments: &[&str]) -> Tally {
    let port = port.to_string();
    let output = Command::new("turnutils_uclient")
        .args(["-u", "alice", "-w", "wonderland", "-p", &port, "-l", "170", "-z", "5"])
        .args(arguments)
        .arg(ip)
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(Duration::from_secs(60), output).await.expect("uclient ends").expect("uclient runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let last = |name: &str| -> u64 {
        let found = text.rsplit_once(name).unwrap_or_else(|| panic!("no {name} in:\n{text}")).1;
        found.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    assert!(text.contains("Total lost packets 0 (0.0"), "{text}");
    Tally { sent: last("tot_send_msgs="), received: last("tot_recv_msgs=") }
}

#[tokio::test]
async fn coturns_client_reaches_coturns_peer_by_channels_and_by_indications() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let peer = CoturnsPeer::start("127.0.0.1").await;

    for method in [&[][..], &["-s"]] {
        let to_peer = ["-e", "127.0.0.1", "-r", &peer.port, "-n", "50", "-m", "4"];
        let tally = uclient(server.udp().port(), &[&to_peer, method].concat()).await;
        assert_eq!(tally.sent, tally.received, "{method:?}");
        assert!(tally.sent >= 200, "{tally:?}");
    }
}

#[tokio::test]
async fn coturns_clients_reach_each_other_under_the_default_deny_list_inside_the_process() {
    let server = Server::start(DEFAULT_PEERS);

    for method in [&[][..], &["-s"]] {
        let before = server.metric("throughway_hairpin_total").await;
        let tally = uclient(server.udp().port(), &[&["-y", "-n", "50", "-m", "4"], method].concat()).await;
        let hairpin = server.metric("throughway_hairpin_total").await - before;
        assert_eq!(tally.sent, tally.received, "{method:?}");
        assert!(tally.sent >= 200, "{tally:?}");
        assert_eq!(hairpin, tally.received, "every datagram was joined in the process");
    }

    assert_eq!(server.metric("throughway_relayed_to_peers_total").await, 0);
}
