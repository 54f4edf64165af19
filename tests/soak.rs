//! Minutes of everything that clients do and leave undone: what is left behind at the end is nothing.

use std::time::Duration;

use throughway::clock::Clock;
use tokio::net::UdpSocket;

use crate::signaling::resume::exchange;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::footprint::Footprint;
use crate::watching::scrape;

/// How long, unless `THROUGHWAY_SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 120;
/// How often the counters are scraped.
const SCRAPES: usize = 1_000_000;
/// Clients at work at once.
const CLIENTS: u64 = 16;
/// Allocations that a client leaves to themselves before it ends the oldest of them.
const ABANDONED: usize = 8;
/// What memory may rise by from the first tenth to the end, in KiB: the allocator's, for no count may rise at all.
const MARGIN: u64 = 2048;

#[tokio::test]
#[ignore = "takes minutes: tests/run --full runs it"]
async fn minutes_of_calls_and_abandoned_calls_leave_nothing_behind() {
    let seconds = std::env::var("THROUGHWAY_SOAK_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let server = Server::start(&format!(
        "{PEERS_ON_LOOPBACK}[turn.limits]\nallocations_per_member = 5000\nnew_peers = \"10000/s\"\n"
    ));

    // What a first round sets up once, is kept.
    soak(&server, seconds.div_ceil(10)).await;
    settled(&server).await;

    Footprint::stays(server.pid(), MARGIN, async || {
        let calls = soak(&server, seconds).await;
        settled(&server).await;

        assert!(calls > 100, "{calls} calls are no soak");
    })
    .await;
}

#[tokio::test]
#[ignore = "takes minutes: tests/run --full runs it"]
async fn minutes_of_breaking_connections_lose_no_message_and_bring_none_twice() {
    let seconds = std::env::var("THROUGHWAY_SOAK_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap());

    let (heard, resumed) = exchange(Duration::from_secs(seconds), 2).await;

    assert!(heard > 100 && resumed > 10, "{heard} messages over {resumed} connections are no soak");
}

#[tokio::test]
#[ignore = "takes minutes: tests/run --full runs it"]
async fn a_million_scrapes_leave_memory_flat() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    scrape(&server, 10_000).await;
    let before = Footprint::of(server.pid());

    scrape(&server, SCRAPES).await;

    let after = Footprint::of(server.pid());
    println!("{SCRAPES} scrapes: {} KiB before, {} KiB after", before.rss, after.rss);
    assert!(after.rss <= before.rss + MARGIN, "{before:?}, then {after:?}");
}

/// Waits until nothing is allocated or reserved.
async fn settled(server: &Server) {
    server.metric_becomes("throughway_allocations", 0).await;
    // What was reserved and never redeemed is given back by time alone, within 30 s (RFC 8656, section 7.2).
    tokio::time::timeout(Duration::from_secs(45), async {
        while server.metric("throughway_reservations").await > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await
    .expect("reservations end");
}

/// So many seconds of calls; how many there were. Every allocation is deleted at the end.
async fn soak(server: &Server, seconds: u64) -> usize {
    let clock = Clock::system();
    let end = clock.now().after(Duration::from_secs(seconds)).monotonic;
    let clients = (0..CLIENTS).map(|n| async move {
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (mut abandoned, mut calls) = (std::collections::VecDeque::new(), 0);
        while clock.now().monotonic < end {
            abandoned.push_back(call(server, n, calls, &peer).await);
            calls += 1;
            if abandoned.len() > ABANDONED {
                give_up(abandoned.pop_front().unwrap()).await;
            }
        }
        for asker in abandoned {
            give_up(asker).await;
        }
        calls
    });
    futures_util::future::join_all(clients).await.into_iter().sum()
}

/// One client's call: allocates, refreshes, permits, binds and sends, each call in a way of its own.
async fn call(server: &Server, client: u64, round: usize, peer: &UdpSocket) -> Asker {
    let (user, password) = if client.is_multiple_of(2) { ("alice", "wonderland") } else { ("bob", "builder") };
    let asker = Asker::new(server.udp(), user, password).await;
    let peer_addr = peer.local_addr().unwrap();
    // A reservation every few hundred calls: each counts as an allocation for its 30 s.
    let even_port = (0x0018, &[0x80][..]);
    let reserving = round % 400 == 399;
    let attributes = if reserving { vec![UDP, even_port] } else { vec![UDP] };
    assert_eq!(code(&asker.ask(ALLOCATE, &attributes).await), 0);
    if round.is_multiple_of(2) {
        assert_eq!(code(&asker.ask(REFRESH, &[(0x000D, &3600_u32.to_be_bytes())]).await), 0);
    }
    assert_eq!(asker.permit(peer_addr).await, 0);
    for n in 0..round % 3 {
        let number = 0x4000 + u16::try_from(n).unwrap();
        let to = std::net::SocketAddr::new(peer_addr.ip(), peer_addr.port() ^ u16::try_from(n).unwrap());
        assert_eq!(asker.bind(number, to).await, 0);
        assert_eq!(asker.bind(number, to).await, 0, "refreshed");
    }
    if !round.is_multiple_of(3) {
        asker.send(&channel_data(0x4000, b"by channel")).await;
    } else {
        asker.send(&message(SEND, &[(0x0012, &xor(peer_addr)), (0x0013, b"by indication")]).raw).await;
    }
    let mut buffer = [0; 64];
    let arrived = tokio::time::timeout(crate::support::PATIENCE, peer.recv(&mut buffer)).await;
    assert!(arrived.expect("it arrives").unwrap() > 9);
    asker
}

/// Ends what was abandoned, for it would live for ten minutes more.
async fn give_up(asker: Asker) {
    assert_eq!(code(&asker.ask(REFRESH, &[(0x000D, &[0; 4])]).await), 0);
}
