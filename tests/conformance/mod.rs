//! What a TURN server must do, rule by rule, on the real binary over real sockets: RFC 8489, RFC 8656, and the limits and
//! attacks of this server's own. One file a method; each test's first line says where its rule stands.
//!
//! What takes minutes can't be waited for here: it is tested under a clock that the test moves.
//!
//! | what passes | test |
//! |---|---|
//! | a nonce's ten minutes | `a_nonce_is_good_for_its_client_for_ten_minutes_and_no_longer` |
//! | the same, while its source floods | `a_client_whose_nonce_has_aged_gets_a_new_one_however_busy_its_source_is` |
//! | a permission's five minutes, a channel's ten | `a_permission_is_granted_for_five_minutes_and_a_channel_for_ten` |
//! | the same in the data plane | `the_table_decides_as_a_naive_model_does` |
//! | a channel that outlives its permission | `a_bound_channel_is_silent_both_ways_without_a_live_permission` |
//! | room that expired permissions make | `permissions_are_granted_to_all_peers_or_to_none`, `permissions_are_capped_and_expired_ones_make_room` |
//! | a channel's number once it has expired | `channels_are_bound_one_to_one_within_their_range_and_cap`, `channels_are_capped_and_expired_ones_make_room` |
//! | an allocation's lifetime | `lifetimes_are_kept_between_ten_minutes_and_an_hour_and_zero_deletes` |
//! | one family's lifetime | `of_a_dual_allocation_one_family_is_refreshed_and_deleted_alone_or_both_together` |
//! | a reservation's thirty seconds | `an_even_port_with_a_reservation_holds_the_next_one_for_its_user_for_thirty_seconds` |
//! | a credential's expiry, and the grace behind it | `a_credential_opens_nothing_after_its_expiry_but_keeps_what_it_opened` |
//! | the second in which the crate's own timers fire | `refreshing_permissions_and_channels_in_the_second_they_expire_leaves_the_control_plane_answering` |
//! | a stream that says nothing | `who_says_nothing_whole_and_has_no_allocation_is_closed_after_a_minute` |
//! | data that waits for a slow stream | `data_that_has_waited_too_long_is_dropped_and_answers_never` |

mod algorithms;
mod allocate;
mod authentication;
mod binding;
mod channel_data;
mod channels;
mod dual;
mod indications;
mod limits;
mod permissions;
mod policy;
mod refresh;
mod shape;
mod streams;

use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;

use stun::attributes::ATTR_DATA;
use stun::attributes::ATTR_XOR_PEER_ADDRESS;

use crate::support::DEFAULT_PEERS;
use crate::support::PATIENCE;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::line::Line;

/// How a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Udp,
    Tcp,
    Tls,
}

impl Over {
    const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];
}

/// A server, and the clients that come to it.
struct Scene {
    server: Server,
}

impl Scene {
    /// Peers on loopback are allowed.
    fn open() -> Self {
        Self::with("")
    }

    /// The same with more configuration.
    fn with(more: &str) -> Self {
        Self { server: Server::start(&format!("{PEERS_ON_LOOPBACK}{more}")) }
    }

    /// The deny list as it comes.
    fn closed() -> Self {
        Self { server: Server::start(DEFAULT_PEERS) }
    }

    /// Each relay address has an even port and the next one, and no more.
    fn with_two_ports() -> Self {
        let first = free_ports(2);
        Self { server: Server::start(&PEERS_ON_LOOPBACK.replace("20000-29999", &format!("{first}-{}", first + 1))) }
    }

    async fn line(&self, over: Over) -> Line {
        match over {
            Over::Udp => Line::udp(self.server.udp()).await,
            Over::Tcp => Line::stream(self.server.turn_tcp(), None).await,
            Over::Tls => Line::stream(self.server.turn_tls(), Some(&self.server.tls())).await,
        }
    }

    /// Datagrams from this address of loopback.
    async fn line_from(&self, ip: &str) -> Line {
        Line::udp_from(ip, self.server.udp()).await
    }

    /// A client with a nonce, over UDP.
    async fn alice(&self) -> Asker {
        self.alice_over(Over::Udp).await
    }

    async fn alice_over(&self, over: Over) -> Asker {
        Asker::over(self.line(over).await, "alice", "wonderland").await
    }

    async fn bob(&self) -> Asker {
        self.bob_over(Over::Udp).await
    }

    async fn bob_over(&self, over: Over) -> Asker {
        Asker::over(self.line(over).await, "bob", "builder").await
    }

    /// A client with an allocation, and its relayed transport address.
    async fn allocated(&self) -> (Asker, SocketAddr) {
        let alice = self.alice().await;
        let relayed = alice.allocate().await;
        (alice, relayed)
    }

    async fn drops(&self, reason: &str) -> u64 {
        self.server.drops(reason).await
    }

    async fn allocations(&self) -> u64 {
        self.server.metric("throughway_allocations").await
    }

    /// Asserts that each of these is dropped for this reason, and answered with nothing.
    async fn drops_each(&self, asker: &Asker, reason: &str, sent: impl IntoIterator<Item = Vec<u8>>) {
        for raw in sent {
            let before = self.drops(reason).await;
            asker.send(&raw).await;
            asker.hears_nothing().await;
            assert_eq!(self.drops(reason).await, before + 1, "{reason}: {raw:x?}");
        }
    }
}

/// A peer on loopback.
struct Peer {
    socket: tokio::net::UdpSocket,
    addr: SocketAddr,
}

impl Peer {
    async fn new() -> Self {
        Self::at("127.0.0.1").await
    }

    async fn at(ip: &str) -> Self {
        let socket = tokio::net::UdpSocket::bind((ip, 0)).await.unwrap();
        let addr = socket.local_addr().unwrap();
        Self { socket, addr }
    }

    async fn send(&self, data: &[u8], to: SocketAddr) {
        self.socket.send_to(data, to).await.unwrap();
    }

    /// The next datagram, and where it came from.
    async fn received(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65_536];
        let (length, source) =
            tokio::time::timeout(PATIENCE, self.socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        buffer.truncate(length);
        (buffer, source)
    }

    /// Asserts that nothing has come: the next to arrive is what it sends to itself.
    async fn heard_nothing(&self) {
        self.send(b"marker", self.addr).await;
        assert_eq!(self.received().await, (b"marker".to_vec(), self.addr));
    }
}

/// Asserts that data goes both ways by indications.
async fn meet_by_indication(asker: &Asker, relayed: SocketAddr, peer: &Peer) {
    asker.indicate(peer.addr, b"there").await;
    assert_eq!(peer.received().await, (b"there".to_vec(), relayed));
    peer.send(b"back", relayed).await;
    let data = asker.receive_stun().await;
    assert_eq!(data.typ.value(), DATA);
    assert_eq!(addresses(&data, ATTR_XOR_PEER_ADDRESS), [peer.addr]);
    assert_eq!(data.get(ATTR_DATA).unwrap(), b"back");
}

/// Asserts that data goes both ways by this channel.
async fn meet_by_channel(asker: &Asker, number: u16, relayed: SocketAddr, peer: &Peer) {
    asker.send(&channel_data(number, b"there")).await;
    assert_eq!(peer.received().await, (b"there".to_vec(), relayed));
    peer.send(b"back", relayed).await;
    assert_eq!(asker.receive().await, channel_data(number, b"back"));
}

/// The first, even one of so many ports that nobody uses, and that the system doesn't choose for anybody.
fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = 15_000 + u16::try_from(std::process::id() % 90).unwrap() * 50;
    let is_free = |port: u16| {
        let free = |ip: &str| UdpSocket::bind((ip, port)).is_ok() && TcpListener::bind((ip, port)).is_ok();
        free("127.0.0.1") && free("::1")
    };
    loop {
        let first = own + NEXT.fetch_add(count.next_multiple_of(2), Ordering::Relaxed);
        if (first..first + count).all(is_free) {
            return first;
        }
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn the_tests_of_what_takes_time_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    let mut directories = vec![root.join("src"), root.join("tests")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources += &std::fs::read_to_string(path).unwrap();
            }
        }
    }

    let rows: Vec<_> = include_str!("mod.rs").lines().filter(|line| line.starts_with("//! | ")).skip(1).collect();
    let named = |row: &str| -> Vec<String> { row.split('`').skip(1).step_by(2).map(str::to_owned).collect() };

    assert!(rows.len() > 10, "the table is not where it is looked for");
    for row in rows {
        assert!(!named(row).is_empty(), "no test: {row}");
        for name in named(row) {
            assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
        }
    }
}
