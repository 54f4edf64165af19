//! TURN by turn-client-proto, a client that shares no code with webrtc-rs, over UDP, TCP and TLS.

use std::collections::HashSet;

use throughway::clock::Clock;
use throughway::relay::stream::frames::Frames;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use turn_client_proto::api::Transmit;
use turn_client_proto::api::TurnConfig;
use turn_client_proto::api::TurnEvent;
use turn_client_proto::api::TurnPollRet;
use turn_client_proto::api::TurnRecvRet;
use turn_client_proto::prelude::TurnClientApi;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::AddressFamily;
use turn_client_proto::types::Instant;
use turn_client_proto::types::TransportType;
use turn_client_proto::types::TurnCredentials;
use turn_client_proto::types::stun::message::IntegrityAlgorithm;
use turn_client_proto::udp::TurnClientUdp;

use super::*;
use crate::support::client::Io;

/// What the client's bytes travel by.
enum Wire {
    Datagrams(UdpSocket),
    Stream(Box<dyn Io>),
}

/// The client, its wire, and a clock that may be ahead of ours.
struct Driven<C> {
    client: C,
    wire: Wire,
    /// By how much its clock is ahead.
    skipped: Duration,
    began: tokio::time::Instant,
    /// What came in by a stream, cut apart once more.
    frames: Frames,
    /// Requests that wait for their answers, by transaction ID.
    unanswered: HashSet<[u8; 12]>,
    /// The types of all that was sent.
    sent: Vec<[u8; 2]>,
}

/// What is worth telling a test.
#[derive(Debug)]
enum Heard {
    Event(TurnEvent),
    Data(SocketAddr, Vec<u8>),
}

impl<C: TurnClientApi> Driven<C> {
    fn new(client: C, wire: Wire) -> Self {
        let (began, frames) = (Clock::system().now().monotonic, Frames::default());
        Self { client, wire, skipped: Duration::ZERO, began, frames, unanswered: HashSet::new(), sent: Vec::new() }
    }

    fn now(&self) -> Instant {
        let passed = Clock::system().now().monotonic - self.began + self.skipped;
        Instant::from_nanos(i64::try_from(passed.as_nanos()).unwrap())
    }

    async fn send(&mut self, bytes: &[u8]) {
        // A request, as the first two bytes say (RFC 8489, section 5).
        if bytes[0] & 0xC1 == 0 && bytes[1] & 0x10 == 0 {
            self.unanswered.insert(bytes[8..20].try_into().unwrap());
        }
        self.sent.push([bytes[0], bytes[1]]);
        match &mut self.wire {
            Wire::Datagrams(socket) => _ = socket.send(bytes).await.unwrap(),
            Wire::Stream(stream) => stream.write_all(bytes).await.unwrap(),
        }
    }

    /// Sends what waits, and takes what has happened; else when the client wants to be asked again.
    async fn step(&mut self) -> Result<Heard, Duration> {
        while let Some(transmit) = self.client.poll_transmit(self.now()) {
            self.send(&transmit.data).await;
        }
        if let Some(event) = self.client.poll_event() {
            return Ok(Heard::Event(event));
        }
        if let Some(data) = self.client.poll_recv(self.now()) {
            return Ok(Heard::Data(data.peer, data.data().to_vec()));
        }
        match self.client.poll(self.now()) {
            TurnPollRet::WaitUntil(wait) => Err(wait.duration_since(self.now())),
            other @ (TurnPollRet::AllocateTcpSocket { .. } | TurnPollRet::TcpClose { .. } | TurnPollRet::Closed) => {
                panic!("{other:?} after {:?}", self.sent)
            }
        }
    }

    /// Takes what comes, for so long at most.
    async fn receive(&mut self, wait: Duration) -> Option<Heard> {
        let mut buffer = vec![0; 65_536];
        let coming = async {
            match &mut self.wire {
                Wire::Datagrams(socket) => socket.recv(&mut buffer).await,
                Wire::Stream(stream) => stream.read(&mut buffer).await,
            }
        };
        let length = tokio::time::timeout(wait, coming).await.ok()?.unwrap();
        buffer.truncate(length);
        match &self.wire {
            Wire::Datagrams(_) => self.note(&buffer.clone()),
            Wire::Stream(_) => {
                self.frames.space().extend_from_slice(&buffer);
                while let Some(message) = self.frames.next_message().unwrap().map(<[u8]>::to_vec) {
                    self.note(&message);
                }
            }
        }
        let (from, to) = (self.client.remote_addr(), self.client.local_addr());
        match self.client.recv(Transmit::new(buffer, self.client.transport(), from, to), self.now()) {
            TurnRecvRet::PeerData(data) => Some(Heard::Data(data.peer, data.data().to_vec())),
            TurnRecvRet::Handled => None,
            other @ (TurnRecvRet::Ignored(_) | TurnRecvRet::PeerIcmp { .. }) => panic!("{other:?}"),
        }
    }

    fn note(&mut self, message: &[u8]) {
        if message[0] < 0x40 {
            self.unanswered.remove(&message[8..20]);
        }
    }

    /// Drives it until something is worth telling.
    async fn hear(&mut self) -> Heard {
        let heard = async {
            loop {
                match self.step().await {
                    Ok(heard) => return heard,
                    Err(wait) => {
                        if let Some(heard) = self.receive(wait).await {
                            return heard;
                        }
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("something to hear")
    }

    async fn event(&mut self) -> TurnEvent {
        match self.hear().await {
            Heard::Event(event) => event,
            Heard::Data(..) => panic!("data before the event"),
        }
    }

    async fn data(&mut self) -> (SocketAddr, Vec<u8>) {
        match self.hear().await {
            Heard::Data(peer, data) => (peer, data),
            Heard::Event(event) => panic!("{event:?} instead of data"),
        }
    }

    /// Lets its clock run on to `span` from here, as fast as its requests are answered. Nothing else may happen.
    async fn live(&mut self, span: Duration) {
        let end = self.now() + span;
        let lived = async {
            loop {
                let wait = self.step().await.expect_err("nothing happens");
                let left = end.duration_since(self.now());
                if !self.unanswered.is_empty() {
                    assert!(self.receive(wait).await.is_none(), "no data");
                } else if left.is_zero() {
                    return;
                } else {
                    self.skipped += wait.min(left);
                }
            }
        };
        tokio::time::timeout(PATIENCE, lived).await.expect("every request is answered");
    }

    async fn send_to(&mut self, peer: SocketAddr, data: &[u8]) {
        let now = self.now();
        let transmit = self.client.send_to(TransportType::Udp, peer, data, now).unwrap().unwrap().build();
        self.send(&transmit.data).await;
    }

    /// Allocates, relays both ways with a permission and with a channel, outlives what it was granted, and deletes.
    async fn exercise(mut self, server: &Server, peer: &UdpSocket) {
        let peer_addr = peer.local_addr().unwrap();
        let TurnEvent::AllocationCreated(TransportType::Udp, relayed) = self.event().await else {
            panic!("no allocation: {:?}", self.sent)
        };

        let now = self.now();
        self.client.create_permission(TransportType::Udp, peer_addr.ip(), now).unwrap();
        assert!(matches!(self.event().await, TurnEvent::PermissionCreated(_, ip) if ip == peer_addr.ip()));
        self.relays(peer, relayed).await;
        let now = self.now();
        self.client.bind_channel(TransportType::Udp, peer_addr, now).unwrap();
        assert!(matches!(self.event().await, TurnEvent::ChannelCreated(_, addr) if addr == peer_addr));
        self.relays(peer, relayed).await;

        self.live(Duration::from_secs(3600)).await;
        for refreshed in [[0, 4], [0, 8], [0, 9]] {
            assert!(self.sent.iter().filter(|kind| **kind == refreshed).count() > 1, "{refreshed:?}: {:?}", self.sent);
        }
        self.relays(peer, relayed).await;

        let now = self.now();
        self.client.delete(now).unwrap();
        while !self.unanswered.is_empty() || self.sent.last() != Some(&[0, 4]) {
            if let Err(wait) = self.step().await {
                self.receive(wait.min(Duration::from_millis(10))).await;
            }
        }
        server.metric_becomes("throughway_allocations", 0).await;
    }

    async fn relays(&mut self, peer: &UdpSocket, relayed: SocketAddr) {
        let peer_addr = peer.local_addr().unwrap();
        // On streams it doesn't pad ChannelData (RFC 8656, section 12.5): only whole words can be told apart.
        let word = if self.client.transport() == TransportType::Tcp { 4 } else { 1 };
        for size in [1, 2, 3, 300].map(|size| size * word) {
            let data = vec![7; size];
            self.send_to(peer_addr, &data).await;
            assert_eq!(received(peer).await, (data.clone(), relayed));
            peer.send_to(&data, relayed).await.unwrap();
            assert_eq!(self.data().await, (peer_addr, data));
        }
    }
}

fn config(integrity: &[IntegrityAlgorithm]) -> TurnConfig {
    let mut config = TurnConfig::new(TurnCredentials::new("alice", "wonderland"));
    config.set_supported_integrity(integrity[0]);
    for more in &integrity[1..] {
        config.add_supported_integrity(*more);
    }
    config
}

async fn over_udp(server: SocketAddr, config: TurnConfig) -> Driven<TurnClientUdp> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let client = TurnClientUdp::allocate(socket.local_addr().unwrap(), server, config);
    Driven::new(client, Wire::Datagrams(socket))
}

async fn over_stream(
    server: SocketAddr,
    tls: Option<&tokio_rustls::TlsConnector>,
    config: TurnConfig,
) -> Driven<TurnClientTcp> {
    let stream = TcpStream::connect(server).await.unwrap();
    let client = TurnClientTcp::allocate(stream.local_addr().unwrap(), server, config);
    let stream: Box<dyn Io> = match tls {
        Some(tls) => Box::new(tls.connect("localhost".try_into().unwrap(), stream).await.unwrap()),
        None => Box::new(stream),
    };
    Driven::new(client, Wire::Stream(stream))
}

#[tokio::test]
async fn turn_client_proto_relays_over_udp_tcp_and_tls_and_outlives_all_it_was_granted() {
    use IntegrityAlgorithm::Sha1;
    use IntegrityAlgorithm::Sha256;
    let server = Server::start(PEERS_ON_LOOPBACK);
    let tls = server.tls();
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();

    over_udp(server.udp(), config(&[Sha1])).await.exercise(&server, &peer).await;
    over_udp(server.udp(), config(&[Sha256, Sha1])).await.exercise(&server, &peer).await;
    for integrity in [&[Sha1][..], &[Sha1, Sha256], &[Sha256]] {
        over_stream(server.turn_tcp(), None, config(integrity)).await.exercise(&server, &peer).await;
        over_stream(server.turn_tls(), Some(&tls), config(integrity)).await.exercise(&server, &peer).await;
    }
}

#[tokio::test]
async fn turn_client_proto_gets_an_allocation_of_each_family_on_one_5_tuple() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let mut both = config(&[IntegrityAlgorithm::Sha1]);
    both.add_address_family(AddressFamily::IPV6);

    let mut client = over_udp(server.udp(), both).await;
    let mut relayed = Vec::new();
    for _ in 0..2 {
        let TurnEvent::AllocationCreated(_, addr) = client.event().await else { panic!("{:?}", client.sent) };
        relayed.push(addr.ip().to_string());
    }

    relayed.sort();
    assert_eq!(relayed, ["127.0.0.1", "::1"]);
}
