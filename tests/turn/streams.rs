//! TURN over TCP and TLS: on every port that takes it, cut apart, bounded, and over when its stream is.

use super::*;
use crate::support::client::Client;
use line::Line;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

async fn alice(line: Line) -> Asker {
    Asker::over(line, "alice", "wonderland").await
}

async fn tcp(server: &Server) -> Line {
    Line::stream(server.turn_tcp(), None).await
}

/// A peer that nobody has talked to.
async fn peer() -> (UdpSocket, SocketAddr) {
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = peer.local_addr().unwrap();
    (peer, addr)
}

/// Everything that comes until the server ends the connection.
async fn read_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    // Whether it is ended politely doesn't matter.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("the server ends it");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn turn_is_served_in_clear_and_inside_tls_on_every_port_that_takes_it() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let tls = server.tls();
    let (peer, peer_addr) = peer().await;

    for (addr, tls) in [
        (server.turn_tcp(), None),
        (server.turn_tcp(), Some(&tls)),
        (server.turn_tls(), Some(&tls)),
        (server.https(), None),
        (server.https(), Some(&tls)),
        (server.http(), None),
    ] {
        let asker = alice(Line::stream(addr, tls).await).await;
        let relayed = asker.allocate().await;
        assert_eq!(asker.bind(0x4000, peer_addr).await, 0);
        for size in [0, 1, 2, 3, 4, 1200, 60_000] {
            let data = vec![7; size];
            asker.send(&channel_data(0x4000, &data)).await;
            assert_eq!(received(&peer).await, (data.clone(), relayed));
            peer.send_to(&data, relayed).await.unwrap();
            assert_eq!(asker.receive().await, channel_data(0x4000, &data));
        }
        asker.send(&message(SEND, &[(0x0012, &xor(peer_addr)), (0x0013, b"by indication")]).raw).await;
        assert_eq!(received(&peer).await, (b"by indication".to_vec(), relayed));
    }
}

#[tokio::test]
async fn what_a_port_is_not_for_gets_400_or_is_closed() {
    let server = Server::start(DEFAULT_PEERS);
    let get = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let binding = message(0x0001, &[]).raw;

    for (addr, bytes, answer) in [
        (server.turn_tcp(), &get[..], "HTTP/1.1 400 "),
        (server.turn_tls(), get, ""),
        (server.turn_tls(), &binding, ""),
        (server.turn_tcp(), b"\xFF\xFE", ""),
        (server.http(), b"\x16\x03\x01\x00\x00", ""),
    ] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let got = read_all(&mut stream).await;
        assert!(got.starts_with(answer) && got.is_empty() == answer.is_empty(), "{addr}: {got}");
    }
    for addr in [server.turn_tcp(), server.turn_tls()] {
        let stream = TcpStream::connect(addr).await.unwrap();
        let mut stream = server.tls().connect("localhost".try_into().unwrap(), stream).await.unwrap();
        stream.write_all(get).await.unwrap();
        assert_eq!(read_all(&mut stream).await, "", "no web pages inside TLS on a TURN port");
    }
    let stream = TcpStream::connect(server.https()).await.unwrap();
    let mut stream = server.tls().connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 200 "), "the shared port still serves pages");
}

#[tokio::test]
async fn messages_survive_one_byte_at_a_time_and_pipelining() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let tls = server.tls();
    let (peer, peer_addr) = peer().await;

    for tls in [None, Some(&tls)] {
        let asker = alice(Line::stream(server.turn_tcp(), tls).await).await;
        for byte in asker.signed(ALLOCATE, &[UDP]) {
            asker.line.write(&[byte]).await;
        }
        let mut allocated = stun::message::Message { raw: asker.receive().await, ..Default::default() };
        allocated.decode().unwrap();
        assert_eq!(code(&allocated), 0);
        assert_eq!(asker.bind(0x4000, peer_addr).await, 0);
        let pipelined: Vec<u8> = (1..=200_u8)
            .flat_map(|n| {
                let mut frame = channel_data(0x4000, &vec![n; usize::from(n)]);
                frame.resize(frame.len().next_multiple_of(4), 0xEE);
                frame
            })
            .collect();
        asker.line.write(&pipelined).await;
        for n in 1..=200_u8 {
            assert_eq!(received(&peer).await.0, vec![n; usize::from(n)]);
        }
    }
}

#[tokio::test]
async fn garbage_ends_the_stream_and_the_streams_end_ends_its_allocation() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let tls = server.tls();

    for tls in [None, Some(&tls)] {
        let garbled = alice(Line::stream(server.turn_tcp(), tls).await).await;
        let leaver = alice(Line::stream(server.turn_tcp(), tls).await).await;
        garbled.allocate().await;
        leaver.allocate().await;
        assert_eq!(server.metric("throughway_allocations").await, 2);

        garbled.line.write(b"\xDE\xAD\xBE\xEF").await;
        assert_eq!(tokio::time::timeout(PATIENCE, garbled.line.receive()).await.unwrap(), None);
        server.metric_becomes("throughway_allocations", 1).await;
        drop(leaver);
        server.metric_becomes("throughway_allocations", 0).await;
    }
    let before = server.metric("throughway_turn_successes_total").await;
    for _ in 0..20 {
        let hasty = alice(tcp(&server).await).await;
        // Gone before the answer: what it asked for is granted behind its back, and taken away again.
        hasty.send(&hasty.signed(ALLOCATE, &[UDP])).await;
    }
    server.metric_becomes("throughway_turn_successes_total", before + 20).await;
    server.metric_becomes("throughway_allocations", 0).await;
}

#[tokio::test]
async fn clients_over_udp_tcp_and_tls_meet_inside_the_process() {
    let server = Server::start(DEFAULT_PEERS);
    let tls = server.tls();
    let line = async |kind| match kind {
        0 => Line::udp(server.udp()).await,
        1 => tcp(&server).await,
        _ => Line::stream(server.https(), Some(&tls)).await,
    };

    for (left, right) in [(0, 1), (0, 2), (1, 1), (1, 2), (2, 2)] {
        let alice = alice(line(left).await).await;
        let bob = Asker::over(line(right).await, "bob", "builder").await;
        let (at_alice, at_bob) = (alice.allocate().await, bob.allocate().await);
        assert_eq!((alice.bind(0x4000, at_bob).await, bob.bind(0x5000, at_alice).await), (0, 0));
        for size in [0, 1, 2, 3, 1200, 60_000] {
            let data = vec![7; size];
            alice.send(&channel_data(0x4000, &data)).await;
            assert_eq!(bob.receive().await, channel_data(0x5000, &data));
            bob.send(&channel_data(0x5000, &data)).await;
            assert_eq!(alice.receive().await, channel_data(0x4000, &data));
        }
    }

    assert_eq!(server.metric("throughway_relayed_to_peers_total").await, 0, "never through the kernel");
}

#[tokio::test]
async fn who_reads_too_slowly_loses_data_but_no_answer_and_holds_nobody_back() {
    const FULL: &str = "throughway_dropped_total{reason=\"stream-full\"}";
    let server = Server::start(PEERS_ON_LOOPBACK);
    let (slow, quick) = (alice(tcp(&server).await).await, alice(tcp(&server).await).await);
    let (peer, peer_addr) = peer().await;
    let (at_slow, at_quick) = (slow.allocate().await, quick.allocate().await);
    assert_eq!((slow.bind(0x4000, peer_addr).await, quick.bind(0x4000, peer_addr).await), (0, 0));

    // Until the kernel takes no more for it, and ours is full.
    while server.metric(FULL).await < 100 {
        for _ in 0..20 {
            peer.send_to(&[1; 60_000], at_slow).await.unwrap();
        }
        peer.send_to(b"in between", at_quick).await.unwrap();
        assert_eq!(quick.receive().await, channel_data(0x4000, b"in between"));
    }
    let refresh = slow.signed(REFRESH, &[]);
    slow.send(&refresh).await;
    let answer = tokio::time::timeout(PATIENCE, async {
        loop {
            let message = slow.line.receive().await.expect("it is kept");
            if message[0] < 0x40 {
                return message;
            }
            assert_eq!(message, channel_data(0x4000, &[1; 60_000]), "frames come whole or not at all");
        }
    });

    assert_eq!(answer.await.unwrap()[8..20], refresh[8..20]);
}

#[tokio::test]
async fn one_source_has_so_many_streams() {
    let limits = "[turn.limits]\nconnections_per_source = 2\n[limits]\nexempt = []\n";
    let server = Server::start(&format!("{DEFAULT_PEERS}{limits}"));

    let first = alice(tcp(&server).await).await;
    let _second = alice(tcp(&server).await).await;
    let third = tcp(&server).await;
    third.send(&message(ALLOCATE, &[UDP]).raw).await;
    assert_eq!(tokio::time::timeout(PATIENCE, third.receive()).await.unwrap(), None);
    drop(first);

    let let_in = async {
        loop {
            let line = tcp(&server).await;
            line.send(&message(ALLOCATE, &[UDP]).raw).await;
            if line.receive().await.is_some() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, let_in).await.expect("one that ended makes room");
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
