//! How much is relayed, in a second, a day and a month: on the real binary with small limits.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::*;

const KIB: usize = 1024;
const TO_PEERS: &str = "throughway_relayed_packets_total{transport=\"udp\",direction=\"to-peers\"}";
const HAIRPIN: &str = "throughway_relayed_packets_total{transport=\"udp\",direction=\"hairpin\"}";
const BANDWIDTH: &str = "throughway_dropped_total{reason=\"bandwidth\"}";
const VOLUME: &str = "throughway_dropped_total{reason=\"volume\"}";

/// Peers on loopback, and these limits.
fn limited(limits: &str) -> String {
    format!("{PEERS_ON_LOOPBACK}\n[turn.limits]\n{limits}\n")
}

/// A client with an allocation, and a peer of its own bound to channel 0x4000.
struct Pair {
    asker: Asker,
    peer: UdpSocket,
    relayed: SocketAddr,
}

impl Pair {
    async fn new(server: &Server, user: &str, password: &str) -> Self {
        let asker = Asker::new(server.udp(), user, password).await;
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let relayed = asker.allocate().await;
        assert_eq!(asker.bind(0x4000, peer.local_addr().unwrap()).await, 0);
        Self { asker, peer, relayed }
    }

    /// Sends so many datagrams of 1 KiB to a channel, and waits until all are dealt with.
    async fn send(&self, channel: u16, count: usize) {
        for _ in 0..count {
            self.asker.send(&channel_data(channel, &[7; KIB])).await;
        }
        self.settle().await;
    }

    /// Waits for an answer behind everything that was sent, whatever else comes before it.
    async fn settle(&self) {
        let question = message(BINDING, &[]).raw;
        self.asker.send(&question).await;
        while self.asker.receive().await.get(8..20) != question.get(8..20) {}
    }
}

/// How far two counters rise, in that order, while something is done.
async fn rise<const N: usize>(server: &Server, names: [&str; N], deed: impl Future<Output = ()>) -> [u64; N] {
    let read = async || {
        let mut values = [0; N];
        for (value, name) in values.iter_mut().zip(names) {
            *value = server.metric(name).await;
        }
        values
    };
    let before = read().await;
    deed.await;
    let after = read().await;
    std::array::from_fn(|n| after[n] - before[n])
}

#[tokio::test]
async fn an_allocation_has_its_bandwidth_both_ways_and_no_other_pays_for_it() {
    let server = Server::start(&limited("bandwidth_per_allocation = '1KiB/s'"));
    let (alice, bob) = (Pair::new(&server, "alice", "wonderland").await, Pair::new(&server, "bob", "builder").await);

    let [sent, dropped] = rise(&server, [TO_PEERS, BANDWIDTH], alice.send(0x4000, 100)).await;
    assert_eq!(sent + dropped, 100);
    assert!((64..80).contains(&sent), "a burst, and a little for each second since: {sent}");

    let before = server.metric(BANDWIDTH).await;
    alice.peer.send_to(&[7; 60 * KIB], alice.relayed).await.unwrap();
    server.metric_becomes(BANDWIDTH, before + 1).await;

    let [sent, dropped] = rise(&server, [TO_PEERS, BANDWIDTH], bob.send(0x4000, 60)).await;
    assert_eq!((sent, dropped), (60, 0));
}

#[tokio::test]
async fn what_stays_inside_the_process_counts_for_both_allocations() {
    let server = Server::start(&limited("bandwidth_per_allocation = '1KiB/s'"));
    let (alice, bob) = (Pair::new(&server, "alice", "wonderland").await, Pair::new(&server, "bob", "builder").await);
    let bound = [alice.asker.bind(0x4001, bob.relayed).await, bob.asker.bind(0x4001, alice.relayed).await];
    assert_eq!(bound, [0, 0]);

    // Bob's may be another media thread than the one that answers alice.
    let counted = async || server.metric(HAIRPIN).await + server.metric(BANDWIDTH).await;
    let before = counted().await;
    let arrives = async {
        alice.send(0x4001, 100).await;
        while counted().await < before + 100 {}
    };
    let arrives = async { timeout(PATIENCE, arrives).await.expect("all are counted") };
    let [joined, dropped] = rise(&server, [HAIRPIN, BANDWIDTH], arrives).await;
    assert_eq!(joined + dropped, 100);
    assert!((64..80).contains(&joined), "{joined}");

    let [sent, dropped] = rise(&server, [TO_PEERS, BANDWIDTH], bob.send(0x4000, 60)).await;
    assert_eq!(sent + dropped, 60);
    assert!(sent < 30, "only what has come back since: {sent}");
}

#[tokio::test]
async fn all_allocations_share_the_bandwidth_of_the_server() {
    let server = Server::start(&limited("bandwidth = '1KiB/s'"));
    let (alice, bob) = (Pair::new(&server, "alice", "wonderland").await, Pair::new(&server, "bob", "builder").await);

    let [sent, dropped] = rise(&server, [TO_PEERS, BANDWIDTH], alice.send(0x4000, 100)).await;
    assert_eq!(sent + dropped, 100);
    assert!((60..80).contains(&sent), "{sent}");

    let [sent, dropped] = rise(&server, [TO_PEERS, BANDWIDTH], bob.send(0x4000, 60)).await;
    assert_eq!(sent + dropped, 60);
    assert!(sent < 30, "{sent}");
}

#[tokio::test]
async fn a_limit_can_be_switched_off() {
    let off = "bandwidth = '0B/s'\nbandwidth_per_allocation = '0B/s'\nbytes_per_day = '0B'\nbytes_per_month = '0B'";
    let server = Server::start(&limited(off));
    let alice = Pair::new(&server, "alice", "wonderland").await;

    let [sent, dropped, spent] = rise(&server, [TO_PEERS, BANDWIDTH, VOLUME], alice.send(0x4000, 200)).await;

    assert_eq!((sent, dropped, spent), (200, 0, 0));
}

#[tokio::test]
async fn a_used_up_volume_stops_relaying_and_allocating_even_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("relayed.json");
    for key in ["bytes_per_day", "bytes_per_month"] {
        let toml = limited(&format!("{key} = '10KiB'"));
        let server = Server::start_in(home.path(), &toml);
        let alice = Pair::new(&server, "alice", "wonderland").await;

        let [sent, dropped] = rise(&server, [TO_PEERS, VOLUME], alice.send(0x4000, 20)).await;
        assert_eq!(sent + dropped, 20);
        assert!((9..=10).contains(&sent), "the test at the start relays some bytes, too: {sent}");
        let bob = Asker::new(server.udp(), "bob", "builder").await;
        assert_eq!(code(&bob.ask(ALLOCATE, &[UDP]).await), 508);
        assert_eq!(code(&alice.asker.ask(REFRESH, &[]).await), 0, "who has an allocation keeps it");
        logged(&server, &format!("turn.limits.{key} is used up")).await;
        assert!(server.terminate().0.success());
        let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert!(kept["day"].as_u64() >= Some(10 * KIB as u64) && kept["day"] == kept["month"], "{kept}");

        let server = Server::start_in(home.path(), &toml);
        let alice = Asker::new(server.udp(), "alice", "wonderland").await;
        assert_eq!(code(&alice.ask(ALLOCATE, &[UDP]).await), 508, "{key}");
        drop(server);

        std::fs::write(&file, "broken").unwrap();
        let server = Server::start_in(home.path(), &toml);
        let alice = Asker::new(server.udp(), "alice", "wonderland").await;
        assert_eq!(code(&alice.ask(ALLOCATE, &[UDP]).await), 0, "{key}");
        logged(&server, "cannot tell what was relayed before").await;
        drop(server);
        std::fs::remove_file(&file).unwrap();
    }
}

/// Waits until the log says so: once.
async fn logged(server: &Server, what: &str) {
    let said = async {
        while server.log().matches(what).count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("no {what:?} in:\n{}", server.log()));
    assert_eq!(server.log().matches(what).count(), 1);
}
