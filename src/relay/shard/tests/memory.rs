//! Rounds of a media thread on the test's own, while every allocation of memory is counted.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::UdpSocket;

use super::super::*;
use crate::address::FiveTuple;
use crate::address::RelayedAddr;
use crate::address::Transport;
use crate::metrics::Direction;
use crate::policy;
use crate::rate::Rate;
use crate::wire::attr;
use crate::wire::put_xor_address;

const ID: [u8; 12] = *b"transaction!";
const LIFE: Duration = Duration::from_secs(600);
const DONT_FRAGMENT: [u8; 4] = [0, 0x1A, 0, 0];
/// Rounds that are counted, after some that may set up what is kept.
const ROUNDS: usize = 300;
const WARM_UP: usize = 20;
/// Datagrams that come in before a round: of two lengths, so that some leave together and some don't.
const LENGTHS: [usize; 6] = [1200, 1200, 1200, 160, 160, 0];

/// Tells how many datagrams of a kind have been dealt with.
type Count = fn(&Metrics) -> u64;

/// What it is, which socket sends where, what, and how that is counted.
type Case<'a> = (&'static str, &'a UdpSocket, SocketAddr, Vec<Vec<u8>>, Count);

/// A media thread that has yet to run, two clients with allocations, and a peer.
struct Rig {
    media: Media,
    batch: Batch,
    events: Events,
    metrics: Arc<Metrics>,
    listener: SocketAddr,
    clients: [UdpSocket; 2],
    relayed: [SocketAddr; 2],
    peer: UdpSocket,
    /// Where the two clients' commands and streams, and what the thread asks, would go.
    _ends: (Shard, mpsc::Receiver<Event>),
}

impl Rig {
    /// Both clients permit 127.0.0.1; the first has channels to the peer and to the second, who has none.
    fn new() -> Self {
        let listener = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (addr, metrics) = (listener.local_addr(), Arc::new(Metrics::default()));
        let allow = vec!["127.0.0.0/8".parse().unwrap()];
        let plenty = Rate { per_second: 1e9, burst: 1e9 };
        let (plain, events) = Settings::plain(vec![listener], &metrics);
        let settings = Settings {
            policy: Arc::new(Policy::new(policy::Settings { allow, ..policy::Settings::default() })),
            allowance: Allowance { per_allocation: Some(plenty), ..Allowance::default() },
            ..plain
        };
        let (media, shard) = Media::of_all(vec![settings]).unwrap().remove(0);
        let mut rig = Self {
            media,
            batch: Batch::new(),
            events: Events::with_capacity(EVENTS),
            metrics,
            listener: addr,
            clients: [socket("127.0.0.1"), socket("127.0.0.1")],
            relayed: [addr; 2],
            peer: socket("127.0.0.1"),
            _ends: (shard, events),
        };
        let deadline = rig.media.clock.now().monotonic + LIFE;
        for (n, client) in [0, 1].map(|n| (n, local(&rig.clients[n]))) {
            let (id, socket) = (AllocationId(n as u64), Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap());
            let (five_tuple, relayed) = (FiveTuple::new(Transport::Udp, client, addr), socket.local_addr());
            rig.relayed[n] = relayed;
            let via = Via::Datagram(ListenerId(0));
            let (advertised, relayed) = (relayed, RelayedAddr(relayed));
            let traffic = Arc::default();
            rig.media.carry_out(Command::Open { id, five_tuple, via, relayed, advertised, socket, deadline, traffic });
            rig.media.carry_out(Command::Permit { id, peer: IpAddr::from([127, 0, 0, 1]), deadline });
        }
        for (channel, peer) in [(0x4000, local(&rig.peer)), (0x4001, rig.relayed[1])] {
            let (id, peer) = (AllocationId(0), PeerAddr::new(peer));
            rig.media.carry_out(Command::Bind { id, channel, peer, deadline });
        }
        rig
    }

    /// Sends `datagrams` from one socket to `to` before each of many rounds, until as many are counted: how often the
    /// thread allocates memory for it.
    fn allocations(&mut self, from: &UdpSocket, to: SocketAddr, datagrams: &[Vec<u8>], count: Count) -> u64 {
        let mut served = count(&self.metrics);
        let mut serve = |rounds| {
            for _ in 0..rounds {
                for datagram in datagrams {
                    from.send_to(datagram, to).unwrap();
                }
                served += datagrams.len() as u64;
                self.run_until(|metrics| count(metrics) == served);
            }
        };
        serve(WARM_UP);

        allocation_counter::measure(|| serve(ROUNDS)).count_total
    }

    /// Runs rounds until the metrics say so, and reads what they sent.
    fn run_until(&mut self, done: impl Fn(&Metrics) -> bool) {
        let mut rounds = 0..1000;
        while !done(&self.metrics) {
            assert!(rounds.next().is_some(), "it is counted");
            // So that no round waits.
            self.media.bell.ring();
            self.media.round(&mut self.batch, &mut self.events).unwrap();
        }
        let mut buffer = [0; 2048];
        for socket in [&self.clients[0], &self.clients[1], &self.peer] {
            while socket.recv(&mut buffer).is_ok() {}
        }
    }
}

fn socket(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn local(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

fn stun(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap();
    [&kind.to_be_bytes(), &length.to_be_bytes(), &[0x21, 0x12, 0xA4, 0x42][..], &ID, attributes].concat()
}

fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&number.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

fn send_indication(peer: SocketAddr, data: &[u8], more: &[u8]) -> Vec<u8> {
    let mut attributes = vec![0; 12];
    put_xor_address(&mut attributes, attr::XOR_PEER_ADDRESS, peer, ID).unwrap();
    attributes.extend(attr::DATA.to_be_bytes());
    attributes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    attributes.extend(data);
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    attributes.extend(more);
    stun(0x0016, &attributes)
}

fn of_every_length(datagram: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
    LENGTHS.iter().map(|length| datagram(&vec![7; *length])).collect()
}

/// What comes from streams is not counted: it is read elsewhere, and comes with memory of its own. Nor are requests, which
/// are copied for the control plane.
#[test]
fn no_datagram_of_media_makes_the_media_thread_allocate_memory() {
    let mut rig = Rig::new();
    let [client, other, peer] = [&rig.clients[0], &rig.clients[1], &rig.peer].map(|it| it.try_clone().unwrap());
    let (unbound, stranger) = (socket("127.0.0.1"), socket("127.0.0.2"));
    let (peer_addr, forbidden) = (local(&peer), local(&stranger));
    let (listener, [at_client, at_other]) = (rig.listener, rig.relayed);
    let data = |number| of_every_length(|data| channel_data(number, data));
    let indications = |to| of_every_length(|data| send_indication(to, data, &[]));
    let whole = of_every_length(|data| send_indication(peer_addr, data, &DONT_FRAGMENT));
    let bare = of_every_length(<[u8]>::to_vec);
    let to_peers: Count = |metrics| metrics.relayed_packets(Direction::ToPeers);
    let to_clients: Count = |metrics| metrics.relayed_packets(Direction::ToClients);
    let joined: Count = |metrics| metrics.relayed_packets(Direction::Hairpin);
    let cases: [Case<'_>; 14] = [
        ("ChannelData", &client, listener, data(0x4000), to_peers),
        ("Send indications", &client, listener, indications(peer_addr), to_peers),
        ("Send indications with DONT-FRAGMENT", &client, listener, whole, to_peers),
        ("data for a channel", &peer, at_client, bare.clone(), to_clients),
        ("data for indications", &unbound, at_client, bare.clone(), to_clients),
        ("ChannelData for another client", &client, listener, data(0x4001), joined),
        ("Send indications for another client's channel", &other, listener, indications(at_client), joined),
        ("Binding requests", &stranger, listener, vec![stun(0x0001, &[]); 6], |it| it.bindings.get()),
        ("junk", &client, listener, vec![vec![0xFF; 100]; 6], |it| it.drops(DropReason::NotTurn)),
        ("broken STUN", &client, listener, vec![stun(0x0016, &[]); 6], |it| it.drops(DropReason::Malformed)),
        ("an unbound channel", &client, listener, data(0x4002), |it| it.drops(DropReason::NoChannel)),
        ("no allocation", &stranger, listener, data(0x4000), |it| it.drops(DropReason::NoAllocation)),
        ("to whom isn't permitted", &client, listener, indications(forbidden), |it| it.drops(DropReason::NoPermission)),
        ("from whom isn't permitted", &stranger, at_other, bare, |it| it.drops(DropReason::NoPermission)),
    ];

    for (what, from, to, datagrams, count) in cases {
        let counted = rig.allocations(from, to, &datagrams, count);
        assert_eq!(counted, 0, "{what}");
    }
}
