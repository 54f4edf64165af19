//! The data plane on real sockets, steered by commands as the control plane would.
//!
//! What is counted, is counted after it left: counters are read when a later answer or the end of the thread is seen.

mod fairness;
mod fragments;
mod icmp;
mod limits;
mod load;
mod pairs;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::net::SocketAddrV6;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use throughway::address::FiveTuple;
use throughway::address::PeerAddr;
use throughway::address::RelayedAddr;
use throughway::address::Sources;
use throughway::address::Transport;
use throughway::clock::Clock;
use throughway::metrics::Direction;
use throughway::metrics::DropReason;
use throughway::metrics::Metrics;
use throughway::net::udp;
use throughway::net::udp::Offload;
use throughway::policy;
use throughway::policy::Policy;
use throughway::rate::PerSource;
use throughway::rate::Rate;
use throughway::relay::allowance::Allowance;
use throughway::relay::command::AllocationId;
use throughway::relay::command::Event;
use throughway::relay::command::ListenerId;
use throughway::relay::command::Request;
use throughway::relay::command::Traffic;
use throughway::relay::command::Via;
use throughway::relay::pairs::Observer;
use throughway::relay::shard;
use throughway::relay::shard::Command;
use throughway::relay::shard::Shard;
use throughway::wire::Class;
use throughway::wire::Stun;
use throughway::wire::attr;
use throughway::wire::put_xor_address;
use throughway::wire::xor_address;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

const ID: [u8; 12] = *b"transaction!";
const PATIENCE: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(600);

/// A running shard, its two listeners and both ends of its queues.
struct Rig {
    shard: Shard,
    events: mpsc::Receiver<Event>,
    metrics: Arc<Metrics>,
    /// Where each allocation is counted.
    traffic: Mutex<BTreeMap<u64, Arc<Traffic>>>,
    listeners: [SocketAddr; 2],
    clock: Clock,
}

impl Rig {
    /// Peers on loopback are allowed.
    fn start() -> Self {
        Self::with("127.0.0.1", loopback_allowed())
    }

    fn with(listen: &str, policy: policy::Settings) -> Self {
        Self::made_of(listen, policy, Offload::ALL, None)
    }

    fn made_of(listen: &str, policy: policy::Settings, offload: Offload, observer: Option<Box<dyn Observer>>) -> Self {
        let clock = Clock::system();
        let metrics = Arc::new(Metrics::default());
        let sockets = [0, 1].map(|_| udp::Socket::bind(SocketAddr::new(listen.parse().unwrap(), 0)).unwrap());
        let listeners = sockets.each_ref().map(udp::Socket::local_addr);
        let (sender, events) = mpsc::channel(2);
        let settings = shard::Settings {
            listeners: sockets.into(),
            policy: Arc::new(Policy::new(policy)),
            metrics: metrics.clone(),
            clock,
            bindings: PerSource::new(
                Rate { per_second: 0.001, burst: 300.0 },
                Sources::new(vec!["127.0.0.1".parse().unwrap()]),
            ),
            allowance: Allowance::default(),
            offload,
            observer,
            events: sender,
        };
        let (shard, traffic) = (shard::spawn(vec![settings]).unwrap().remove(0), Mutex::default());
        Self { shard, events, metrics, traffic, listeners, clock }
    }

    async fn command(&self, command: Command) {
        self.shard.commands().send(command).await.unwrap();
    }

    /// Opens allocation `id` for `client`; its relayed address.
    async fn open(&self, id: u64, client: &Client, external: Option<&str>) -> SocketAddr {
        let socket = udp::Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        self.open_on(id, client, socket, external).await
    }

    async fn open_on(&self, id: u64, client: &Client, socket: udp::Socket, external: Option<&str>) -> SocketAddr {
        let relayed = socket.local_addr();
        let advertised = external.map_or(relayed, |ip| SocketAddr::new(ip.parse().unwrap(), relayed.port()));
        let traffic = Arc::<Traffic>::default();
        self.traffic.lock().unwrap().insert(id, Arc::clone(&traffic));
        self.command(Command::Open {
            id: AllocationId(id),
            five_tuple: client.five_tuple,
            via: Via::Datagram(ListenerId(0)),
            relayed: RelayedAddr(relayed),
            advertised,
            socket,
            deadline: self.clock.now().monotonic + LIFE,
            traffic,
        })
        .await;
        advertised
    }

    async fn permit(&self, id: u64, peer: SocketAddr, life: Duration) {
        let deadline = self.clock.now().monotonic + life;
        self.command(Command::Permit { id: AllocationId(id), peer: peer.ip(), deadline }).await;
    }

    async fn bind(&self, id: u64, channel: u16, peer: SocketAddr) {
        let (peer, deadline) = (PeerAddr::new(peer), self.clock.now().monotonic + LIFE);
        self.command(Command::Bind { id: AllocationId(id), channel, peer, deadline }).await;
    }

    /// Waits until every command so far is carried out: they are, in order.
    async fn settle(&self, client: &Client) {
        let message = b"settled".to_vec();
        self.command(Command::Answer { five_tuple: client.five_tuple, via: Via::Datagram(ListenerId(0)), message })
            .await;
        assert_eq!(client.receive().await, b"settled");
    }

    /// Packets relayed to peers, to clients and between clients, as the metrics have them.
    fn relayed(&self) -> (u64, u64, u64) {
        let count = |direction| self.metrics.relayed_packets(direction);
        (count(Direction::ToPeers), count(Direction::ToClients), count(Direction::Hairpin))
    }

    /// What was relayed for an allocation: packets and bytes to peers, then to its client.
    fn traffic(&self, id: u64) -> [(u64, u64); 2] {
        let count = self.traffic.lock().unwrap()[&id].count();
        [count.to_peers, count.to_client].map(|flow| (flow.packets, flow.bytes))
    }

    async fn request(&mut self) -> Request {
        match timeout(PATIENCE, self.events.recv()).await.expect("an event") {
            Some(Event::Request(request)) => request,
            other => panic!("{other:?} is no request"),
        }
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.metrics.drops(reason)
    }
}

fn loopback_allowed() -> policy::Settings {
    policy::Settings { allow: vec!["127.0.0.0/8".parse().unwrap()], ..policy::Settings::default() }
}

/// A client of the first listener, or a peer.
struct Client {
    socket: UdpSocket,
    five_tuple: FiveTuple,
}

impl Client {
    async fn new(rig: &Rig) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let five_tuple = FiveTuple::new(Transport::Udp, socket.local_addr().unwrap(), rig.listeners[0]);
        Self { socket, five_tuple }
    }

    fn addr(&self) -> SocketAddr {
        self.five_tuple.client
    }

    async fn send(&self, packet: &[u8]) {
        self.send_to(packet, self.five_tuple.server).await;
    }

    async fn send_to(&self, packet: &[u8], to: SocketAddr) {
        assert_eq!(self.socket.send_to(packet, to).await.unwrap(), packet.len());
    }

    async fn receive(&self) -> Vec<u8> {
        self.receive_from().await.0
    }

    async fn receive_from(&self) -> (Vec<u8>, SocketAddr) {
        let mut packet = vec![0; 65_535];
        let received = timeout(PATIENCE, self.socket.recv_from(&mut packet)).await;
        let (length, from) = received.expect("something should have arrived").unwrap();
        packet.truncate(length);
        (packet, from)
    }

    /// Waits until everything sent to the listener before is dealt with: it answers in order.
    async fn drain(&self) {
        self.send(&binding(&[])).await;
        assert_eq!(Stun::parse(&self.receive().await).unwrap().class(), Class::Success);
    }
}

/// Waits for what the media thread counts.
async fn until(condition: impl Fn() -> bool) {
    let counted = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, counted).await.expect("should have been counted");
}

fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&number.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

fn stun(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap();
    [&kind.to_be_bytes(), &length.to_be_bytes(), &[0x21, 0x12, 0xA4, 0x42][..], &ID, attributes].concat()
}

fn binding(attributes: &[u8]) -> Vec<u8> {
    stun(0x0001, attributes)
}

fn send_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut attributes = vec![0; 12];
    put_xor_address(&mut attributes, attr::XOR_PEER_ADDRESS, peer, ID).unwrap();
    attributes.extend(attr::DATA.to_be_bytes());
    attributes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    attributes.extend(data);
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    stun(0x0016, &attributes)
}

/// What a Data indication says: the peer, the data.
fn read_data_indication(packet: &[u8]) -> (SocketAddr, Vec<u8>) {
    let message = Stun::parse(packet).unwrap();
    assert_eq!(message.class(), Class::Indication);
    let peer = xor_address(message.first(attr::XOR_PEER_ADDRESS).unwrap(), message.transaction_id());
    (peer.unwrap(), message.first(attr::DATA).unwrap().to_vec())
}

#[tokio::test]
async fn data_flows_both_ways_by_channel_and_by_indication() {
    let rig = Rig::start();
    let (client, bound, unbound) = (Client::new(&rig).await, Client::new(&rig).await, Client::new(&rig).await);
    let relayed = rig.open(1, &client, None).await;
    rig.permit(1, bound.addr(), LIFE).await;
    rig.bind(1, 0x4000, bound.addr()).await;
    rig.settle(&client).await;

    client.send(&channel_data(0x4000, b"by channel")).await;
    client.send(&send_indication(unbound.addr(), b"by Send")).await;
    client.send(&channel_data(0x4000, b"")).await;

    assert_eq!(bound.receive_from().await, (b"by channel".to_vec(), relayed));
    assert_eq!(unbound.receive_from().await, (b"by Send".to_vec(), relayed));
    assert_eq!(bound.receive().await, b"");

    bound.send_to(b"back by channel", relayed).await;
    assert_eq!(client.receive_from().await, (channel_data(0x4000, b"back by channel"), rig.listeners[0]));
    unbound.send_to(b"back by Data", relayed).await;
    let (packet, from) = client.receive_from().await;
    assert_eq!(read_data_indication(&packet), (unbound.addr(), b"back by Data".to_vec()));
    assert_eq!(from, rig.listeners[0]);

    client.drain().await;
    assert_eq!(rig.relayed(), (3, 2, 0));
    assert_eq!(rig.metrics.relayed_bytes(), 10 + 7 + 15 + 12);
    assert_eq!(rig.traffic(1), [(3, 10 + 7), (2, 15 + 12)]);
}

#[tokio::test]
async fn two_clients_are_joined_inside_the_process_under_the_default_policy() {
    let rig = Rig::with("127.0.0.1", policy::Settings::default());
    let (a, b) = (Client::new(&rig).await, Client::new(&rig).await);
    let at_a = rig.open(1, &a, None).await;
    let at_b = rig.open(2, &b, Some("203.0.113.1")).await;
    rig.permit(1, at_b, LIFE).await;
    rig.permit(2, at_a, LIFE).await;
    rig.bind(1, 0x4001, at_b).await;
    rig.settle(&a).await;

    for round in 0..100_u8 {
        a.send(&channel_data(0x4001, &[round])).await;
        assert_eq!(read_data_indication(&b.receive().await), (at_a, vec![round]));
        b.send(&send_indication(at_a, &[round])).await;
        assert_eq!(a.receive().await, channel_data(0x4001, &[round]), "the sender goes by its external address");
    }

    a.drain().await;
    assert_eq!(rig.relayed(), (0, 0, 200));
    assert_eq!([rig.traffic(1), rig.traffic(2)], [[(100, 100); 2]; 2], "each sent and received so much");
}

#[tokio::test]
async fn the_receiver_of_a_hairpin_must_permit_the_sender() {
    let rig = Rig::with("127.0.0.1", policy::Settings::default());
    let (a, b) = (Client::new(&rig).await, Client::new(&rig).await);
    rig.open(1, &a, None).await;
    let at_b = rig.open(2, &b, None).await;
    rig.permit(1, at_b, LIFE).await;
    rig.settle(&a).await;

    a.send(&send_indication(at_b, b"unwanted")).await;

    a.drain().await;
    assert_eq!((rig.drops(DropReason::NoPermission), rig.metrics.relayed_packets(Direction::Hairpin)), (1, 0));
}

#[tokio::test]
async fn a_bound_channel_is_silent_both_ways_without_a_live_permission() {
    let rig = Rig::start();
    let (client, peer, other) = (Client::new(&rig).await, Client::new(&rig).await, Client::new(&rig).await);
    let relayed = rig.open(1, &client, None).await;
    rig.bind(1, 0x4000, peer.addr()).await;
    rig.permit(1, peer.addr(), Duration::ZERO).await;
    rig.settle(&client).await;

    client.send(&channel_data(0x4000, b"out")).await;
    client.drain().await;
    assert_eq!(rig.drops(DropReason::NoPermission), 1);

    peer.send_to(b"in", relayed).await;
    until(|| rig.drops(DropReason::NoPermission) == 2).await;
    rig.permit(1, peer.addr(), LIFE).await;
    rig.settle(&client).await;
    other.send_to(b"from a permitted IP", relayed).await;
    assert_eq!(read_data_indication(&client.receive().await).1, b"from a permitted IP");
    client.drain().await;
    assert_eq!(rig.relayed(), (0, 1, 0));
}

#[tokio::test]
async fn denied_peers_and_dead_relayed_addresses_are_never_reached() {
    let rig = Rig::with("127.0.0.1", policy::Settings::default());
    let client = Client::new(&rig).await;
    let relayed = rig.open(1, &client, None).await;
    let denied: SocketAddr = "10.0.0.1:9".parse().unwrap();
    let dead = SocketAddr::new(relayed.ip(), relayed.port() ^ 1);
    rig.permit(1, denied, LIFE).await;
    rig.permit(1, dead, LIFE).await;
    rig.bind(1, 0x4000, denied).await;
    rig.settle(&client).await;

    client.send(&channel_data(0x4000, b"x")).await;
    client.send(&send_indication(denied, b"x")).await;
    client.send(&send_indication(dead, b"x")).await;

    client.drain().await;
    assert_eq!((rig.drops(DropReason::PeerDenied), rig.drops(DropReason::NotOurs)), (2, 1));
    assert_eq!(rig.metrics.relayed_packets(Direction::ToPeers), 0);
}

#[tokio::test]
async fn junk_of_every_kind_is_counted_by_its_reason() {
    let rig = Rig::start();
    let client = Client::new(&rig).await;
    let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let junk: &[(DropReason, &[Vec<u8>])] = &[
        (DropReason::NotTurn, &[vec![], vec![0x80; 100], b"\xFFGET / HTTP/1.1".to_vec()]),
        (
            DropReason::Malformed,
            &[
                vec![0; 1],
                vec![0; 20],
                stun(0x0003, &[0; 3]),
                stun(0x0003, &[0x80, 0x22, 0xFF, 0xFC, 0, 0, 0, 0]),
                stun(0x0016, &[]),
                b"\x40\x00\x00\x09short".to_vec(),
                b"\x40\x00\x00\x01xpadded".to_vec(),
                b"\x40".to_vec(),
            ],
        ),
        (DropReason::Unexpected, &[stun(0x0011, &[]), stun(0x0017, &[]), stun(0x0101, &[]), stun(0x0113, &[])]),
        (DropReason::TooShort, &[stun(0x0003, &[]), stun(0x0004, &[0x80, 0x22, 0, 0])]),
        (DropReason::NoAllocation, &[channel_data(0x4000, b"x"), send_indication(peer, b"x")]),
    ];

    for packet in junk.iter().flat_map(|(_, packets)| *packets) {
        client.send(packet).await;
    }

    client.drain().await;
    for (reason, packets) in junk {
        assert_eq!(rig.drops(*reason), packets.len() as u64, "{reason:?}");
    }
}

#[tokio::test]
async fn binding_is_answered_in_32_bytes_from_the_address_that_was_asked() {
    let rig = Rig::with("0.0.0.0", policy::Settings::default());
    let client = Client::new(&rig).await;
    let software = [0x80, 0x22, 0, 4, b't', b'e', b's', b't'];

    for (listener, ip) in rig.listeners.iter().zip(["127.0.0.1", "127.0.0.7"]) {
        let asked = SocketAddr::new(ip.parse().unwrap(), listener.port());
        for question in [binding(&[]), binding(&software)] {
            client.send_to(&question, asked).await;

            let (answer, from) = client.receive_from().await;
            let message = Stun::parse(&answer).unwrap();
            let mapped = xor_address(message.first(attr::XOR_MAPPED_ADDRESS).unwrap(), ID);
            assert_eq!((answer.len(), from, mapped), (32, asked, Some(client.addr())));
            assert_eq!((message.class(), message.transaction_id()), (Class::Success, ID));
        }
    }
    rig.shard.stop();
    assert_eq!(rig.metrics.bindings.get(), 4);
}

/// On every link-local address of this machine.
#[tokio::test]
async fn a_link_local_client_is_answered_in_its_scope() {
    let rig = Rig::with("::", policy::Settings::default());

    for local in link_local() {
        let client = UdpSocket::bind(local).await.unwrap();
        let asked = SocketAddrV6::new(*local.ip(), rig.listeners[0].port(), 0, local.scope_id());
        client.send_to(&binding(&[]), asked).await.unwrap();

        let mut answer = [0; 100];
        let (length, _) = timeout(PATIENCE, client.recv_from(&mut answer)).await.expect("an answer").unwrap();
        assert_eq!(length, 44);
    }
}

fn link_local() -> Vec<SocketAddrV6> {
    let all = nix::ifaddrs::getifaddrs().unwrap();
    let addresses = all.filter_map(|it| it.address?.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6)));
    addresses.filter(|it| it.ip().is_unicast_link_local()).collect()
}

#[tokio::test]
async fn binding_is_limited_by_source_and_others_are_not_touched() {
    let rig = Rig::start();
    let client = Client::new(&rig).await;
    let greedy = UdpSocket::bind("127.0.0.2:0").await.unwrap();

    for _ in 0..310 {
        greedy.send_to(&binding(&[]), rig.listeners[0]).await.unwrap();
    }

    client.drain().await;
    let limited = rig.drops(DropReason::RateLimited);
    rig.shard.stop();
    assert_eq!((limited, rig.metrics.bindings.get()), (10, 301));
}

#[tokio::test]
async fn requests_go_up_with_their_way_back_until_the_queue_is_full() {
    let mut rig = Rig::start();
    let client = Client::new(&rig).await;
    let allocate = stun(0x0003, &[0, 0x19, 0, 4, 17, 0, 0, 0]);
    let unknown_required = binding(&[0, 0x03, 0, 0]);

    for request in [&allocate, &unknown_required, &allocate, &allocate] {
        client.send(request).await;
    }
    client.drain().await;

    assert_eq!(rig.drops(DropReason::QueueFull), 2);
    let first = rig.request().await;
    assert_eq!(
        (first.five_tuple, first.via, first.message),
        (client.five_tuple, Via::Datagram(ListenerId(0)), allocate)
    );
    assert_eq!(rig.request().await.message, unknown_required);

    client.send_to(&binding(&[0, 0x03, 0, 0]), rig.listeners[1]).await;
    let asked = rig.request().await;
    let message = b"answer".to_vec();
    rig.command(Command::Answer { five_tuple: asked.five_tuple, via: asked.via, message }).await;
    assert_eq!(client.receive_from().await, (b"answer".to_vec(), rig.listeners[1]));
}

#[tokio::test]
async fn large_datagrams_pass_whole_or_not_at_all() {
    let rig = Rig::start();
    let (client, peer, marker) = (Client::new(&rig).await, Client::new(&rig).await, Client::new(&rig).await);
    let relayed = rig.open(1, &client, None).await;
    rig.permit(1, peer.addr(), LIFE).await;
    rig.bind(1, 0x4000, peer.addr()).await;
    rig.settle(&client).await;

    for size in [1_400, 9_000, 65_000, udp::MAX_PAYLOAD - 4] {
        let data: Vec<u8> = (0..size).map(|n| n.to_le_bytes()[0]).collect();
        client.send(&channel_data(0x4000, &data)).await;
        assert_eq!(peer.receive().await, data);
        peer.send_to(&data, relayed).await;
        assert_eq!(client.receive().await, channel_data(0x4000, &data));
    }

    peer.send_to(&[0; udp::MAX_PAYLOAD - 3], relayed).await;
    marker.send_to(b"after", relayed).await;
    assert_eq!(read_data_indication(&client.receive().await).1, b"after");
    assert_eq!(rig.drops(DropReason::TooLarge), 1);
}

#[tokio::test]
async fn an_answer_leaves_behind_the_data_that_came_before_its_question() {
    let rig = Rig::start();
    let client = Client::new(&rig).await;
    let peer = udp::Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    rig.open(1, &client, None).await;
    rig.permit(1, peer.local_addr(), LIFE).await;
    rig.bind(1, 0x4000, peer.local_addr()).await;
    rig.settle(&client).await;
    let mut batch = udp::Batch::new();

    for round in 0..500 {
        client.send(&channel_data(0x4000, b"x")).await;
        client.drain().await;

        assert!(batch.receive(&peer).is_ok(), "round {round}: the answer was there before the data");
    }
}

#[tokio::test]
async fn ecn_bits_are_carried_both_ways() {
    let rig = Rig::start();
    let marker = Client::new(&rig).await;
    let [client, peer] = [0, 1].map(|_| udp::Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap());
    let five_tuple = FiveTuple::new(Transport::Udp, client.local_addr(), rig.listeners[0]);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let relayed = rig.open(1, &Client { socket, five_tuple }, None).await;
    rig.permit(1, peer.local_addr(), LIFE).await;
    rig.bind(1, 0x4000, peer.local_addr()).await;
    rig.settle(&marker).await;
    let mut batch = udp::Batch::new();

    client.send(&channel_data(0x4000, b"x"), rig.listeners[0], None, Some(udp::Ecn::Ect0)).unwrap();
    marker.drain().await;
    batch.receive(&peer).unwrap();
    let out = batch.datagrams().next().unwrap().ecn;
    peer.send(b"x", relayed, None, Some(udp::Ecn::Ce)).unwrap();
    until(|| rig.metrics.relayed_packets(Direction::ToClients) > 0).await;
    batch.receive(&client).unwrap();
    let back = batch.datagrams().next().unwrap().ecn;

    assert_eq!((out, back), (Some(udp::Ecn::Ect0), Some(udp::Ecn::Ce)));
}

#[tokio::test]
async fn a_closed_allocation_gives_its_port_back_and_its_late_packets_fall_away() {
    let mut rig = Rig::start();
    let (client, peer) = (Client::new(&rig).await, Client::new(&rig).await);
    let relayed = rig.open(1, &client, None).await;
    rig.permit(1, peer.addr(), LIFE).await;
    rig.bind(1, 0x4000, peer.addr()).await;
    rig.command(Command::Close { id: AllocationId(1) }).await;
    rig.command(Command::Extend { id: AllocationId(1), deadline: rig.clock.now().monotonic + LIFE }).await;
    rig.settle(&client).await;

    client.send(&channel_data(0x4000, b"late")).await;
    client.drain().await;

    assert_eq!(rig.drops(DropReason::NoAllocation), 1);
    assert_eq!(udp::Socket::bind(relayed).unwrap().local_addr(), relayed);
    rig.open(2, &client, None).await;
    rig.settle(&client).await;
    assert_eq!(rig.drops(DropReason::Bug), 0);
    rig.open(3, &client, None).await;
    rig.settle(&client).await;
    assert_eq!(rig.drops(DropReason::Bug), 1, "the 5-tuple is taken");
    let told = rig.events.try_recv().unwrap();
    assert!(matches!(told, Event::Refused { id: AllocationId(3) }), "{told:?}");
}
