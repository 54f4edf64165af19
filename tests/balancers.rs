//! Behind load balancers and HTTP proxies, on the real binary: the PROXY header before a connection, and X-Forwarded-For.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use stun::attributes::*;
use stun::message::Getter;
use stun::xoraddr::XorMappedAddress;
use tempfile::TempDir;
use throughway::clock::Clock;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::client::Client;
use crate::support::line::Line;

/// The load balancer is 127.0.0.2. Listeners are where this host has no address of that name but takes what is sent there.
const BEHIND: &str = r#"
[http]
listen = ["127.0.0.5:0"]
plain_listen = ["127.0.0.5:0"]
proxy_protocol = ["127.0.0.2"]
trusted_proxies = ["127.0.0.4", "198.51.100.4"]
[metrics]
listen = ["127.0.0.5:0"]
[turn]
listen_udp = ["127.0.0.5:0"]
listen_tcp = ["127.0.0.5:0"]
listen_tls = ["127.0.0.5:0"]
relay_ports = "20000-29999" # apart from the ports that the system chooses for listeners
users = { alice = "wonderland" }
[turn.peers]
allow = ["127.0.0.0/8"]
"#;

/// A header begins so, whatever it says.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a load balancer sends that checks whether we are there.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const REFUSED: &str = "throughway_unannounced_total";

/// The header for a client at `source` that reached the load balancer at `destination`; of the same family.
fn header(source: &str, destination: &str) -> Vec<u8> {
    let [source, destination]: [SocketAddr; 2] = [source, destination].map(|addr| addr.parse().unwrap());
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    // As haproxy does, with something more behind the addresses.
    let more = b"\x04\0\x01\0";
    let ips = [octets(source.ip()), octets(destination.ip())].concat();
    let block = [&ips[..], &source.port().to_be_bytes(), &destination.port().to_be_bytes(), more].concat();
    let transport = if source.is_ipv4() { 0x11 } else { 0x21 };
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[0x21, transport], &length, &block].concat()
}

/// A connection from `ip` that has sent `bytes`.
async fn from(ip: &str, server: SocketAddr, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
    let mut stream = socket.connect(server).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // The server may have closed it by now.
    let _ = stream.write_all(bytes).await;
    stream
}

/// A connection from the load balancer.
async fn balanced(server: SocketAddr, bytes: &[u8]) -> TcpStream {
    from("127.0.0.2", server, bytes).await
}

/// Everything until the server closes, by whatever means.
async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server keeps the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn behind_its_header_a_connection_speaks_http_and_tls_as_any_other() {
    let server = Server::start(BEHIND);
    let announced = header("192.0.2.1:4000", "203.0.113.9:443");

    for header in [&announced[..], &header("[2001:db8:1::1]:4000", "[2001:db8::9]:443"), LOCAL] {
        let mut clear = balanced(server.http(), &[header, GET].concat()).await;
        assert!(read_all(&mut clear).await.ends_with("\r\n\r\nok\n"));
        let stream = balanced(server.https(), header).await;
        let mut inside = server.tls().connect("localhost".try_into().unwrap(), stream).await.unwrap();
        inside.write_all(GET).await.unwrap();
        assert!(read_all(&mut inside).await.ends_with("\r\n\r\nok\n"));
    }
    let mut dribbled = balanced(server.http(), b"").await;
    for byte in [&announced[..], GET].concat() {
        dribbled.write_all(&[byte]).await.unwrap();
    }
    assert!(read_all(&mut dribbled).await.ends_with("\r\n\r\nok\n"), "one byte at a time");
    let nowhere = [&announced[..], b"GET / HTTP/1.0\r\n\r\n"].concat();
    let redirected = read_all(&mut balanced(server.https(), &nowhere).await).await;
    assert!(redirected.contains("location: https://203.0.113.9:443/\r\n"), "{redirected}");
}

#[tokio::test]
async fn turn_maps_the_announced_client_and_relays_from_an_address_of_this_host() {
    let server = Server::start(BEHIND);
    let tls = server.tls();
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let peer_addr = peer.local_addr().unwrap();

    for (addr, tls) in [
        (server.turn_tcp(), None),
        (server.turn_tcp(), Some(&tls)),
        (server.turn_tls(), Some(&tls)),
        (server.https(), Some(&tls)),
        (server.http(), None),
    ] {
        // The load balancer's own address is none to relay from; one of ours is, wherever the connection came in.
        for (source, destination, relay) in [
            ("192.0.2.1:4000", "203.0.113.9:443", "127.0.0.5"),
            ("192.0.2.1:4000", "127.0.0.1:443", "127.0.0.1"),
            ("[2001:db8:1::1]:4000", "[2001:db8::9]:443", "127.0.0.5"),
        ] {
            let stream = balanced(addr, &header(source, destination)).await;
            let line = match tls {
                Some(tls) => Line::over(Box::new(tls.connect("localhost".try_into().unwrap(), stream).await.unwrap())),
                None => Line::over(Box::new(stream)),
            };
            let asker = Asker::over(line, "alice", "wonderland").await;
            let bound = asker.exchange(&message(BINDING, &[]).raw).await;
            let allocated = asker.ask(ALLOCATE, &[UDP]).await;
            let (mut seen, mut mapped) = (XorMappedAddress::default(), XorMappedAddress::default());
            seen.get_from(&bound).unwrap();
            mapped.get_from(&allocated).unwrap();
            let mut relayed = turn::proto::relayaddr::RelayedAddress::default();
            relayed.get_from(&allocated).unwrap();

            assert_eq!(SocketAddr::new(seen.ip, seen.port), source.parse().unwrap());
            assert_eq!(SocketAddr::new(mapped.ip, mapped.port), source.parse().unwrap());
            assert_eq!(relayed.ip, relay.parse::<IpAddr>().unwrap(), "{destination}");
            assert_eq!(asker.bind(0x4000, peer_addr).await, 0);
            asker.send(&channel_data(0x4000, b"there")).await;
            let mut data = [0; 16];
            let (length, from) = timeout(PATIENCE, peer.recv_from(&mut data)).await.unwrap().unwrap();
            assert_eq!((&data[..length], from), (&b"there"[..], SocketAddr::new(relayed.ip, relayed.port)));
            drop(asker);
            server.metric_becomes("throughway_allocations", 0).await;
        }
    }
    let line = Line::over(Box::new(balanced(server.turn_tcp(), LOCAL).await));
    let own = Asker::over(line, "alice", "wonderland").await.exchange(&message(BINDING, &[]).raw).await;
    let mut seen = XorMappedAddress::default();
    seen.get_from(&own).unwrap();
    assert_eq!(seen.ip, "127.0.0.2".parse::<IpAddr>().unwrap(), "the load balancer itself");
    assert!(own.contains(ATTR_XORMAPPED_ADDRESS));
}

#[tokio::test]
async fn without_a_good_header_a_load_balancers_connection_is_closed_and_counted_on_every_port() {
    let server = Server::start(BEHIND);
    let good = header("192.0.2.1:4000", "203.0.113.9:443");
    let mut too_long = [&SIGNATURE[..], &[0x20, 0, 0xFF, 0xFF]].concat();
    too_long.resize(5000, 0);
    let binding = message(BINDING, &[]).raw;
    let mut refused = 0;

    for addr in [server.http(), server.https(), server.turn_tcp(), server.turn_tls()] {
        for bytes in [
            GET,
            &binding,
            b"\x16\x03\x01\x02\x00\x01",
            b"PROXY TCP4 192.0.2.1 203.0.113.9 4000 443\r\n",
            &[&SIGNATURE[..], b"\x21\x11\0\x0Bshort addr."].concat(),
            &[&SIGNATURE[..], b"\x22\0\0\0"].concat(),
            &too_long,
            b"\r\n\r\n\0\r\nQUIT\r",
        ] {
            assert_eq!(read_all(&mut balanced(addr, bytes).await).await, "", "{bytes:x?}");
            refused += 1;
        }
    }

    server.metric_becomes(REFUSED, refused).await;
    assert_eq!(server.log().matches("http.proxy_protocol").count(), 1, "{}", server.log());
    let mut twice = balanced(server.http(), &[&good[..], &good, GET].concat()).await;
    assert_eq!(read_all(&mut twice).await, "", "a client's own header is no header");
    let mut scrape = balanced(server.metrics_addr(), &[b"GET /metrics", &GET[12..]].concat()).await;
    assert!(read_all(&mut scrape).await.starts_with("HTTP/1.1 200 "), "counters are not balanced");
}

#[tokio::test]
async fn nobody_else_can_announce_a_client() {
    let server = Server::start(BEHIND);
    let forged = header("192.0.2.1:4000", "203.0.113.9:443");
    let binding = message(BINDING, &[]).raw;

    for (addr, rest) in [(server.http(), GET), (server.https(), GET), (server.turn_tcp(), &binding)] {
        let mut stream = from("127.0.0.3", addr, &[&forged[..], rest].concat()).await;
        assert_eq!(read_all(&mut stream).await, "");
    }

    assert_eq!(server.metric(REFUSED).await, 0, "a stranger's junk, as any other");
    let mut direct = from("127.0.0.3", server.http(), GET).await;
    assert!(read_all(&mut direct).await.ends_with("ok\n"));
}

#[tokio::test]
async fn limits_per_source_count_the_announced_client_and_never_the_load_balancer() {
    let limits = "[limits]\nexempt = []\nhalf_open_per_source = 2\n[turn.limits]\nconnections_per_source = 2\n";
    let server = Server::start(&format!("{BEHIND}{limits}"));
    let announced = |n: u8, port: u16| header(&format!("192.0.2.{n}:{port}"), "203.0.113.9:443");
    let answered = async |addr, header: Vec<u8>, request: &[u8]| {
        let mut stream = balanced(addr, &[&header, request].concat()).await;
        let mut first = [0; 1];
        timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap().is_ok().then_some(stream)
    };
    let binding = message(BINDING, &[]).raw;

    // More than two that nothing is known of, and a source that has its two.
    let mut unknown = Vec::new();
    for _ in 0..5 {
        unknown.push(balanced(server.http(), b"").await);
    }
    let mut silent = Vec::new();
    for port in [1, 2] {
        silent.push(balanced(server.turn_tcp(), &announced(1, port)).await);
    }
    let third = async {
        // Until the two have been read; one that came to be third itself, and was closed, comes again.
        while answered(server.http(), announced(1, 3), GET).await.is_some() {
            for (stream, port) in silent.iter_mut().zip([1, 2]) {
                if stream.try_read(&mut [0]).map_or_else(|error| error.kind() != ErrorKind::WouldBlock, |_| true) {
                    *stream = balanced(server.turn_tcp(), &announced(1, port)).await;
                }
            }
        }
    };
    timeout(PATIENCE, third).await.expect("the third of one source is closed");
    assert!(answered(server.http(), announced(2, 1), GET).await.is_some(), "others have room");

    let first = answered(server.turn_tcp(), announced(3, 1), &binding).await;
    let second = answered(server.turn_tcp(), announced(3, 2), &binding).await;
    assert!(first.is_some() && second.is_some());
    assert!(answered(server.turn_tcp(), announced(3, 3), &binding).await.is_none(), "so many streams of one source");
    assert!(answered(server.turn_tcp(), announced(4, 1), &binding).await.is_some());
}

#[tokio::test]
async fn who_dawdles_with_the_header_or_behind_it_is_closed_after_the_same_ten_seconds() {
    let server = Server::start(BEHIND);
    let header = header("192.0.2.1:4000", "203.0.113.9:443");
    let (head, tail) = header.split_at(20);
    let stops = async |first: &[u8], after: Duration, then: &[u8]| {
        let began = Clock::system().now().monotonic;
        let mut stream = balanced(server.http(), first).await;
        tokio::time::sleep(after).await;
        stream.write_all(then).await.unwrap();
        assert_eq!(read_all(&mut stream).await, "");
        let took = Clock::system().now().monotonic - began;
        assert!((Duration::from_secs(9)..Duration::from_secs(14)).contains(&took), "{took:?}");
    };

    tokio::join!(
        stops(b"", Duration::ZERO, b""),
        stops(head, Duration::ZERO, b""),
        stops(&header, Duration::ZERO, b""),
        stops(head, Duration::from_secs(6), tail),
    );

    assert_eq!(server.metric(REFUSED).await, 0, "slow is not malformed");
}

/// A running haproxy that reaches the server from 127.0.0.2. It ends when this is dropped.
struct Haproxy {
    _process: Child,
    _home: TempDir,
    addr: SocketAddr,
}

impl Haproxy {
    /// In front of `server`, and checking it all the time.
    async fn start(server: SocketAddr) -> Self {
        // Apart from where connections come from: one that finds nobody listening could meet itself.
        let addr = TcpListener::bind("127.0.0.8:0").await.unwrap().local_addr().unwrap();
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("haproxy.cfg");
        let config = format!(
            "defaults\n mode tcp\n timeout connect 9s\n timeout client 9s\n timeout server 9s\n timeout check 9s\nlisten front\n bind {addr}\n \
             server ours {server} source 127.0.0.2 send-proxy-v2-ssl-cn check check-send-proxy inter 50ms fall 999\n"
        );
        std::fs::write(&file, config).unwrap();
        let process = Command::new("haproxy").arg("-db").arg("-f").arg(&file).kill_on_drop(true).spawn().unwrap();
        let listens = async {
            while TcpStream::connect(addr).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, listens).await.expect("haproxy listens");
        Self { _process: process, _home: home, addr }
    }
}

#[tokio::test]
async fn behind_haproxy_pages_are_served_and_turn_maps_who_reached_it() {
    let server = Server::start(BEHIND);
    let tls = server.tls();

    for (addr, tls) in [(server.turn_tcp(), None), (server.turn_tls(), Some(&tls)), (server.https(), Some(&tls))] {
        let haproxy = Haproxy::start(addr).await;
        let stream = TcpStream::connect(haproxy.addr).await.unwrap();
        let client = stream.local_addr().unwrap();
        let line = match tls {
            Some(tls) => Line::over(Box::new(tls.connect("localhost".try_into().unwrap(), stream).await.unwrap())),
            None => Line::over(Box::new(stream)),
        };
        let asker = Asker::over(line, "alice", "wonderland").await;
        let allocated = asker.ask(ALLOCATE, &[UDP]).await;
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&allocated).unwrap();
        assert_eq!(SocketAddr::new(mapped.ip, mapped.port), client);
    }
    let haproxy = Haproxy::start(server.https()).await;
    let stream = TcpStream::connect(haproxy.addr).await.unwrap();
    let mut inside = tls.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    inside.write_all(GET).await.unwrap();
    assert!(read_all(&mut inside).await.ends_with("\r\n\r\nok\n"));

    assert_eq!(server.metric(REFUSED).await, 0, "its checks have headers of their own");
}

#[tokio::test]
async fn the_client_that_a_trusted_proxy_forwards_counts_for_web_sockets_and_sign_ins() {
    let limits = "[limits]\nexempt = []\n[signaling.limits]\nconnections_per_source = 1\nsign_ins = \"1/h\"\n";
    let server = Server::start(&format!("{BEHIND}{limits}"));
    let connect = async |ip: &str, header: &[u8], lines: &[&str]| {
        let headers: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        Client::over(from(ip, server.http(), header).await, "/ws", &headers).await
    };
    let proxied = async |lines: &[&str]| connect("127.0.0.4", b"", lines).await;

    let mut first = proxied(&["192.0.2.1"]).await.unwrap();
    for again in ["192.0.2.1", "192.0.2.7, 192.0.2.1", "192.0.2.1, 127.0.0.4", "192.0.2.1:99, 198.51.100.4"] {
        assert_eq!(proxied(&[again]).await.err(), Some(429), "{again}");
    }
    let balanced = header("198.51.100.4:4000", "203.0.113.9:443");
    assert_eq!(connect("127.0.0.2", &balanced, &["192.0.2.1"]).await.err(), Some(429), "behind both");
    let mut second = proxied(&["192.0.2.2"]).await.unwrap();
    let _malformed = proxied(&["192.0.2.3, nobody"]).await.unwrap();
    assert_eq!(proxied(&["192.0.2.4, "]).await.err(), Some(429), "both are the proxy's own");
    let _direct = connect("127.0.0.3", b"", &["192.0.2.5"]).await.unwrap();
    assert_eq!(
        connect("127.0.0.3", b"", &["192.0.2.6"]).await.err(),
        Some(429),
        "a stranger's word counts for nothing"
    );

    assert_eq!(first.log_in("alice").await["success"], true);
    assert_eq!(second.log_in("bob").await["success"], true, "each client has its own sign-ins");
    drop(first);
    server.metric_becomes("throughway_connections", 3).await;
    let mut back = proxied(&["192.0.2.1"]).await.unwrap();
    assert_eq!(back.log_in("carol").await["reason"], "rate");
}

#[tokio::test]
async fn a_trusted_proxys_own_connections_meet_no_limit_per_source() {
    let server =
        Server::start(&format!("{BEHIND}[limits]\nexempt = []\nhalf_open_per_source = 1\nhttp_per_source = 1\n"));
    let mut held = Vec::new();

    for _ in 0..3 {
        held.push(from("127.0.0.4", server.http(), b"").await);
        let mut kept_alive =
            from("127.0.0.4", server.http(), b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut status = [0; 12];
        timeout(PATIENCE, kept_alive.read_exact(&mut status)).await.unwrap().unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        held.push(kept_alive);
    }
}
