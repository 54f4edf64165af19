//! TURN as others' clients meet it: webrtc-rs `turn::client`, turn-client-proto, and coturn's.

mod coturn;
mod sansio;

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::process::Child;
use tokio::process::Command;
use webrtc_util::Conn;

use crate::support::DEFAULT_PEERS;
use crate::support::PATIENCE;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::client::Client;

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
    assert_eq!(server.relayed("to-peers").await, 50);
    client.close().await.unwrap();
    assert!(self::client(&server, "alice", "wrong").await.allocate().await.is_err());
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
        let before = server.relayed("hairpin").await;
        let tally = uclient(server.udp().port(), &[&["-y", "-n", "50", "-m", "4"], method].concat()).await;
        let hairpin = server.relayed("hairpin").await - before;
        assert_eq!(tally.sent, tally.received, "{method:?}");
        assert!(tally.sent >= 200, "{tally:?}");
        assert_eq!(hairpin, tally.received, "every datagram was joined in the process");
    }

    assert_eq!(server.relayed("to-peers").await, 0);
}

#[tokio::test]
async fn turns_is_listed_only_with_a_certificate_that_browsers_accept() {
    let home = tempfile::tempdir().unwrap();
    let files = "[tls]\nmode = \"files\"\ncertificate = \"certs/self-signed.pem\"\nkey = \"certs/self-signed.key\"\n";
    let files = files.replace("certs/", &format!("{}/certs/", home.path().display()));

    for (more, listed) in [("", false), (&*files, true)] {
        let server = Server::start_in(home.path(), &format!("{DEFAULT_PEERS}{more}"));
        let reply = Client::connect(server.http(), "/ws").await.log_in("alice").await;
        let (udp, tcp, tls) = (server.udp().port(), server.turn_tcp().port(), server.https().port());
        let mut urls =
            vec![format!("turn:localhost:{udp}?transport=udp"), format!("turn:localhost:{tcp}?transport=tcp")];
        urls.extend(listed.then(|| format!("turns:localhost:{tls}?transport=tcp")));
        assert_eq!(reply["iceServers"][1]["urls"], serde_json::json!(urls));
    }
}

#[tokio::test]
async fn coturns_clients_lose_nothing_over_tcp_and_tls() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let peer = CoturnsPeer::start("127.0.0.1").await;

    for (port, transport) in [
        (server.turn_tcp().port(), &["-t"][..]),
        (server.turn_tls().port(), &["-t", "-S"]),
        (server.https().port(), &["-t", "-S"]),
    ] {
        let to_peer = ["-e", "127.0.0.1", "-r", &peer.port];
        let ways = [&to_peer[..], &[&to_peer[..], &["-s"]].concat(), &["-y"], &["-y", "-s"]];
        let runs = ways.map(async |way| uclient(port, &[&["-n", "50", "-m", "4"], transport, way].concat()).await);
        for tally in futures_util::future::join_all(runs).await {
            assert_eq!(tally.sent, tally.received, "{transport:?}");
            assert!(tally.sent >= 200, "{tally:?}");
        }
    }

    server.metric_becomes("throughway_allocations", 0).await;
}
