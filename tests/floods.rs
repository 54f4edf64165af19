//! Floods from strangers against the real binary with nobody exempt from its limits: what they cost, and what they get.

use std::net::SocketAddr;
use std::net::UdpSocket;
use std::time::Duration;

use stun::attributes::*;

use crate::support::Server;
use crate::support::asker::*;
use crate::support::footprint::Footprint;

/// The defaults, but for addresses and accounts, and for the exemption of loopback.
const NOBODY_EXEMPT: &str = r#"
[http]
listen = ["127.0.0.1:0"]
plain_listen = ["127.0.0.1:0"]
[metrics]
listen = ["127.0.0.1:0"]
[limits]
exempt = []
[turn]
listen_udp = ["127.0.0.1:0"]
listen_tcp = []
listen_tls = []
relay_ports = "20000-29999" # apart from the ports that the system chooses for listeners
users = { ann = "1", bob = "2", cat = "3", dan = "4", eve = "5", fay = "6" }
"#;

/// Datagrams in each flood.
const FLOOD: usize = 20_000;
/// So many are in the listener's queue at once at most: none is lost before the server has read it.
const BATCH: usize = 100;
/// What memory may rise by in KiB. At as little as 50 bytes kept of each datagram, every flood would exceed it.
const MARGIN: u64 = 768;

/// Strangers that send what they like, and somebody else whose answers tell that it has been read.
struct Strangers {
    sockets: Vec<UdpSocket>,
    witness: Asker,
    server: SocketAddr,
}

/// What a flood got back.
#[derive(Debug, Default)]
struct Answers {
    count: usize,
    bytes: usize,
}

impl Strangers {
    /// As many as `count`, each in a network of its own.
    async fn new(server: &Server, count: u8) -> Self {
        let socket = |n: u8| {
            let socket = UdpSocket::bind((format!("127.1.{n}.1"), 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let witness = Asker::new(server.udp(), "ann", "1").await;
        Self { sockets: (0..count).map(socket).collect(), witness, server: server.udp() }
    }

    /// Sends `count` datagrams from all in turn, and waits until the server has read them.
    async fn send(&self, count: usize, datagram: impl Fn(usize) -> Vec<u8>) -> Answers {
        let mut answers = Answers::default();
        for start in (0..count).step_by(BATCH) {
            for n in start..count.min(start + BATCH) {
                let socket = &self.sockets[n % self.sockets.len()];
                socket.send_to(&datagram(n), self.server).unwrap();
            }
            self.witness.exchange(&message(BINDING, &[]).raw).await;
            self.collect(&mut answers);
        }
        self.settled().await;
        self.collect(&mut answers);
        answers
    }

    /// Waits until the witness's own request, which goes through the same queue as theirs, is answered: behind it, all of
    /// them are dealt with. As long as that queue is full it is dropped, and asked again, as every client does.
    async fn settled(&self) {
        for _ in 0..60 {
            let request = self.witness.signed(REFRESH, &[]);
            self.witness.send(&request).await;
            let answered = async { while self.witness.receive().await[8..20] != request[8..20] {} };
            if tokio::time::timeout(Duration::from_millis(500), answered).await.is_ok() {
                return;
            }
        }
        panic!("the control plane does not answer");
    }

    fn collect(&self, answers: &mut Answers) {
        let mut buffer = [0; 2048];
        for socket in &self.sockets {
            while let Ok(length) = socket.recv(&mut buffer) {
                answers.count += 1;
                answers.bytes += length;
            }
        }
    }

    /// A nonce that the first of them was given.
    fn nonce(&self) -> Vec<u8> {
        let socket = self.sockets[0].try_clone().unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.send_to(&message(ALLOCATE, &[UDP]).raw, self.server).unwrap();
        let mut raw = vec![0; 2048];
        let length = socket.recv(&mut raw).unwrap();
        socket.set_nonblocking(true).unwrap();
        raw.truncate(length);
        let mut challenge = stun::message::Message { raw, ..Default::default() };
        challenge.decode().unwrap();
        challenge.get(ATTR_NONCE).unwrap()
    }
}

/// Signed under a password that isn't the user's.
fn forged(nonce: &[u8]) -> Vec<u8> {
    let mut message = message(ALLOCATE, &[UDP, (0x0006, b"ann"), (0x0014, b"throughway"), (0x0015, nonce)]);
    let key = stun::integrity::MessageIntegrity::new_long_term_integrity("ann".into(), "throughway".into(), "?".into());
    stun::message::Setter::add_to(&key, &mut message).unwrap();
    message.raw
}

/// Floods of every kind, from so many networks: memory, files and allocations stay as they were.
async fn floods_cost_nothing(networks: u8) {
    let server = Server::start(NOBODY_EXEMPT);
    let strangers = Strangers::new(&server, networks).await;
    assert_eq!(strangers.witness.ask(ALLOCATE, &[UDP]).await.typ.value(), 0x0103);
    let nonce = strangers.nonce();
    let kinds: [(&str, Vec<u8>); 4] = [
        ("a bare header", message(ALLOCATE, &[]).raw),
        ("a valid Allocate without credentials", message(ALLOCATE, &[UDP]).raw),
        ("forged integrity under a live nonce", forged(&nonce)),
        ("forged integrity under an invented nonce", forged(b"AAAAAAAAAAAAAAAA")),
    ];
    // What the first of each kind makes the process set up, it keeps.
    for (_, datagram) in &kinds {
        strangers.send(1000, |_| datagram.clone()).await;
    }

    for (kind, datagram) in &kinds {
        let limited = server.metric("throughway_dropped_total{reason=\"rate-limited\"}").await;
        Footprint::stays(server.pid(), MARGIN, async || {
            let answers = strangers
                .send(FLOOD, |n| {
                    let mut datagram = datagram.clone();
                    datagram[8..16].copy_from_slice(&(n as u64).to_be_bytes());
                    datagram
                })
                .await;

            assert!(answers.bytes * 10 <= FLOOD * datagram.len() * 23, "{kind}: {answers:?}");
            if networks == 1 && datagram.len() >= 28 {
                assert!(answers.count < FLOOD / 2, "{kind}: the share of one network, and then silence: {answers:?}");
            }
        })
        .await;

        assert_eq!(server.metric("throughway_allocations").await, 1, "{kind}: only the witness's");
        if networks == 1 && datagram.len() >= 28 {
            assert!(server.metric("throughway_dropped_total{reason=\"rate-limited\"}").await > limited, "{kind}");
        }
    }

    let other = Asker::new(server.udp(), "bob", "2").await;
    other.allocate().await;
    assert_eq!(server.metric("throughway_allocations").await, 2, "others are served as ever");
}

#[tokio::test]
async fn floods_from_one_stranger_leave_memory_files_and_allocations_flat() {
    floods_cost_nothing(1).await;
}

#[tokio::test]
async fn floods_from_two_hundred_networks_leave_memory_files_and_allocations_flat() {
    floods_cost_nothing(200).await;
}

#[tokio::test]
async fn a_mesh_of_six_people_behind_one_address_goes_through_on_the_defaults() {
    let server = Server::start(NOBODY_EXEMPT);
    let mut mesh = Vec::new();

    // Each has a connection to the five others, and tries four URLs for each.
    for (user, password) in [("ann", "1"), ("bob", "2"), ("cat", "3"), ("dan", "4"), ("eve", "5"), ("fay", "6")] {
        for _ in 0..5 * 4 {
            let asker = Asker::new(server.udp(), user, password).await;
            let relayed = asker.allocate().await;
            mesh.push((asker, relayed));
        }
    }

    assert_eq!(server.metric("throughway_allocations").await, 120);
    for ((asker, _), (_, other)) in mesh.iter().zip(mesh.iter().rev()) {
        assert_eq!(asker.permit(*other).await, 0);
    }
    for (asker, _) in &mesh {
        assert_eq!(code(&asker.ask(REFRESH, &[(0x000D, &[0; 4])]).await), 0);
    }
    assert_eq!(server.metric("throughway_allocations").await, 0);
}
