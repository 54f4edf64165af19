//! TURN over TCP and TLS: on every port that takes it, cut apart, bounded, and over when its stream is.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;

async fn alice(line: Line) -> Asker {
    Asker::over(line, "alice", "wonderland").await
}

/// Everything that comes until the server ends the connection.
async fn read_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    // Whether it is ended politely doesn't matter.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("the server ends it");
    String::from_utf8_lossy(&all).into_owned()
}

/// RFC 8656, sections 3.1 and 12.5: padded to four bytes here.
#[tokio::test]
async fn turn_is_served_in_clear_and_inside_tls_on_every_port_that_takes_it() {
    let scene = Scene::open();
    let server = &scene.server;
    let tls = server.tls();
    let peer = Peer::new().await;

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
        assert_eq!(asker.bind(0x4000, peer.addr).await, 0);
        for size in [0, 1, 2, 3, 4, 1200, 60_000] {
            let data = vec![7; size];
            asker.send(&channel_data(0x4000, &data)).await;
            assert_eq!(peer.received().await, (data.clone(), relayed));
            peer.send(&data, relayed).await;
            assert_eq!(asker.receive().await, channel_data(0x4000, &data));
        }
        asker.indicate(peer.addr, b"by indication").await;
        assert_eq!(peer.received().await, (b"by indication".to_vec(), relayed));
    }
}

/// design.md, "One port".
#[tokio::test]
async fn what_a_port_is_not_for_gets_400_or_is_closed() {
    let scene = Scene::closed();
    let server = &scene.server;
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

/// RFC 8489, section 6.2.2: a message is as long as it says.
#[tokio::test]
async fn messages_survive_one_byte_at_a_time_and_pipelining() {
    let scene = Scene::open();
    let server = &scene.server;
    let tls = server.tls();
    let peer = Peer::new().await;

    for tls in [None, Some(&tls)] {
        let asker = alice(Line::stream(server.turn_tcp(), tls).await).await;
        for byte in asker.signed(ALLOCATE, &[UDP]) {
            asker.line.write(&[byte]).await;
        }
        assert_eq!(code(&asker.receive_stun().await), 0);
        assert_eq!(asker.bind(0x4000, peer.addr).await, 0);
        let pipelined: Vec<u8> = (1..=200_u8)
            .flat_map(|n| {
                let mut frame = channel_data(0x4000, &vec![n; usize::from(n)]);
                frame.resize(frame.len().next_multiple_of(4), 0xEE);
                frame
            })
            .collect();
        asker.line.write(&pipelined).await;
        for n in 1..=200_u8 {
            assert_eq!(peer.received().await.0, vec![n; usize::from(n)]);
        }
    }
}

/// RFC 8656, section 7.1: a stream is its 5-tuple, and where the next message begins must be known.
#[tokio::test]
async fn garbage_ends_the_stream_and_the_streams_end_ends_its_allocation() {
    let scene = Scene::open();
    let server = &scene.server;

    for over in [Over::Tcp, Over::Tls] {
        let (garbled, leaver) = (scene.alice_over(over).await, scene.alice_over(over).await);
        garbled.allocate().await;
        leaver.allocate().await;
        assert_eq!(server.metric("throughway_allocations").await, 2);

        garbled.line.write(b"\xDE\xAD\xBE\xEF").await;
        assert_eq!(tokio::time::timeout(PATIENCE, garbled.line.receive()).await.unwrap(), None);
        server.metric_becomes("throughway_allocations", 1).await;
        drop(leaver);
        server.metric_becomes("throughway_allocations", 0).await;
    }
    let granted = "throughway_turn_requests_total{method=\"allocate\",answer=\"success\"}";
    let before = server.metric(granted).await;
    for _ in 0..20 {
        let hasty = scene.alice_over(Over::Tcp).await;
        // Gone before the answer: what it asked for is granted behind its back, and taken away again.
        hasty.send(&hasty.signed(ALLOCATE, &[UDP])).await;
    }
    server.metric_becomes(granted, before + 20).await;
    server.metric_becomes("throughway_allocations", 0).await;
}

/// RFC 8656, section 3.1: a stream keeps its order, between data and requests too.
#[tokio::test]
async fn what_was_sent_before_a_deletion_or_the_end_of_a_stream_still_reaches_the_peer() {
    let scene = Scene::open();
    let peer = Peer::new().await;
    let data: Vec<u8> = (0..200).flat_map(|_| channel_data(0x4000, b"data")).collect();

    for round in 0..20 {
        let asker = alice(Line::stream(scene.server.turn_tcp(), None).await).await;
        asker.allocate().await;
        assert_eq!(asker.bind(0x4000, peer.addr).await, 0);
        if round % 2 == 0 {
            let deletion = asker.signed(REFRESH, &[(LIFETIME, &[0; 4])]);
            asker.line.write(&[&data[..], &deletion].concat()).await;
            assert_eq!(code(&asker.receive_stun().await), 0);
        } else {
            asker.line.write(&data).await;
        }
        drop(asker);
        for number in 0..200 {
            assert_eq!(peer.received().await.0, b"data", "round {round}: datagram {number}");
        }
    }
}

/// design.md, "Hairpin".
#[tokio::test]
async fn clients_over_udp_tcp_and_tls_meet_inside_the_process() {
    let scene = Scene::closed();
    let server = &scene.server;
    use Over::*;

    for (left, right) in [(Udp, Udp), (Udp, Tcp), (Udp, Tls), (Tcp, Tcp), (Tcp, Tls), (Tls, Tls)] {
        let (alice, bob) = (scene.alice_over(left).await, scene.bob_over(right).await);
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

    assert_eq!(server.relayed("to-peers").await, 0, "never through the kernel");
}

/// shared/turn.md, "Limits".
#[tokio::test]
async fn who_reads_too_slowly_loses_data_but_no_answer_and_holds_nobody_back() {
    const FULL: &str = "throughway_dropped_total{reason=\"stream-full\"}";
    let scene = Scene::open();
    let server = &scene.server;
    let (slow, quick) = (scene.alice_over(Over::Tcp).await, scene.alice_over(Over::Tcp).await);
    let peer = Peer::new().await;
    let (at_slow, at_quick) = (slow.allocate().await, quick.allocate().await);
    assert_eq!((slow.bind(0x4000, peer.addr).await, quick.bind(0x4000, peer.addr).await), (0, 0));

    // Until the kernel takes no more for it, and ours is full.
    while server.metric(FULL).await < 100 {
        for _ in 0..20 {
            peer.send(&[1; 60_000], at_slow).await;
        }
        peer.send(b"in between", at_quick).await;
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

/// shared/turn.md, "Limits".
#[tokio::test]
async fn one_source_has_so_many_streams() {
    let limits = "[turn.limits]\nconnections_per_source = 2\n[limits]\nexempt = []\n";
    let scene = Scene::with(limits);

    let first = scene.alice_over(Over::Tcp).await;
    let _second = scene.alice_over(Over::Tcp).await;
    let third = scene.line(Over::Tcp).await;
    third.send(&message(ALLOCATE, &[UDP]).raw).await;
    assert_eq!(tokio::time::timeout(PATIENCE, third.receive()).await.unwrap(), None);
    drop(first);

    let let_in = async {
        loop {
            let line = scene.line(Over::Tcp).await;
            line.send(&message(ALLOCATE, &[UDP]).raw).await;
            if line.receive().await.is_some() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, let_in).await.expect("one that ended makes room");
}

/// RFC 8656, section 12.6, and RFC 8489, section 6.3: behind them nobody knows where the next message begins.
#[tokio::test]
async fn what_cannot_be_framed_ends_the_stream_and_what_can_is_dropped_alone() {
    let scene = Scene::open();
    let mut odd = message(ALLOCATE, &[UDP]).raw;
    odd[3] = 9;
    let mut foreign = message(ALLOCATE, &[UDP]).raw;
    foreign[4] ^= 1;

    for over in [Over::Tcp, Over::Tls] {
        let asker = scene.alice_over(over).await;
        let attribute_too_long = [&message(ALLOCATE, &[UDP]).raw[..22], &[0xFF, 0xFC, 17, 0, 0, 0]].concat();
        scene.drops_each(&asker, "malformed", [attribute_too_long]).await;
        scene.drops_each(&asker, "no-allocation", [channel_data(0x4000, b"data")]).await;
        for end in [&odd, &foreign, &vec![0x80, 0, 0, 0], &vec![0xFF; 20]] {
            let asker = scene.alice_over(over).await;
            asker.line.write(end).await;
            assert_eq!(tokio::time::timeout(PATIENCE, asker.line.receive()).await.unwrap(), None, "{over:?}: {end:x?}");
        }
    }
}
