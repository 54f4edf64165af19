//! A shard whose neighbour is far behind: two of them, of which a test lets only one run.

use std::net::UdpSocket;

use super::super::*;
use crate::address::FiveTuple;
use crate::address::RelayedAddr;
use crate::address::Transport;
use crate::metrics::Direction;
use crate::net::udp::MAX_PAYLOAD;
use crate::relay::neighbours;

/// Two shards, with a client each that has bound channel 0x4000 to the other's relayed address.
struct Pair {
    shards: [(Media, Shard); 2],
    clients: [UdpSocket; 2],
    metrics: Arc<Metrics>,
}

fn pair() -> Pair {
    let metrics = Arc::new(Metrics::default());
    let listener = || Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let settings = |()| Settings::plain(vec![listener()], &metrics).0;
    let mut shards = Media::of_all([(), ()].map(settings).into()).unwrap();
    let clients = [(), ()].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let relays = [(), ()].map(|()| Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap());
    let addresses = relays.each_ref().map(Socket::local_addr);
    let deadline = Clock::system().now().monotonic + Duration::from_secs(600);
    for (number, (((media, _), client), socket)) in shards.iter_mut().zip(&clients).zip(relays).enumerate() {
        let server = media.forwarder.listeners[0].socket.local_addr();
        client.connect(server).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let five_tuple = FiveTuple::new(Transport::Udp, client.local_addr().unwrap(), server);
        let (id, via) = (AllocationId(number as u64), Via::Datagram(ListenerId(0)));
        let (relayed, advertised) = (RelayedAddr(addresses[number]), addresses[number]);
        let peer = PeerAddr::new(addresses[1 - number]);
        let traffic = Arc::default();
        media.carry_out(Command::Open { id, five_tuple, via, relayed, advertised, socket, deadline, traffic });
        media.carry_out(Command::Permit { id, peer: peer.ip(), deadline });
        media.carry_out(Command::Bind { id, channel: 0x4000, peer, deadline });
    }
    Pair { shards: shards.try_into().map_err(drop).unwrap(), clients, metrics }
}

fn run((media, mut shard): (Media, Shard)) -> Shard {
    shard.thread = Some(thread::spawn(move || media.run()));
    shard
}

/// Sends `data` on the channel, each piece as a datagram, and waits until all of them have been dealt with.
fn send(client: &UdpSocket, data: impl Iterator<Item = Vec<u8>>) {
    for data in data {
        let length = u16::try_from(data.len()).unwrap();
        client.send(&[&[0x40, 0], &length.to_be_bytes()[..], &data].concat()).unwrap();
    }
    client.send(b"\x00\x01\x00\x00\x21\x12\xA4\x42still there?").unwrap();
    assert_eq!(client.recv(&mut [0; 64]).unwrap(), 32);
}

#[test]
fn what_a_shard_far_behind_has_no_room_for_is_dropped_and_counted_and_the_rest_comes_in_order() {
    let Pair { shards: [one, other], clients: [sender, receiver], metrics } = pair();
    let _one = run(one);
    let total = neighbours::LETTERS + 100;

    for first in (0..total).step_by(50) {
        send(&sender, (first..first + 50).map(|n| n.to_be_bytes().to_vec()));
    }

    let dropped = u64::try_from(total.next_multiple_of(50) - neighbours::LETTERS).unwrap();
    assert_eq!(metrics.drops(DropReason::QueueFull), dropped);
    assert_eq!(metrics.relayed_bytes(), 0, "nothing has arrived");
    let _other = run(other);
    for n in 0..100_usize {
        let mut buffer = [0; 64];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 12);
        assert_eq!(buffer[..12], [&[0x40, 0, 0, 8], &n.to_be_bytes()[..]].concat());
    }
}

#[test]
fn data_of_every_size_crosses_shards_whole() {
    let Pair { shards, clients: [sender, receiver], metrics } = pair();
    let shards = shards.map(run);

    for round in 0..40_u8 {
        for size in [0, 1, 1200, 9000, MAX_PAYLOAD - 4] {
            send(&sender, std::iter::once(vec![round; size]));
            let mut buffer = vec![0; 65_536];
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(length, size + 4);
            assert!(buffer[4..length].iter().all(|byte| *byte == round), "across the end of the ring, too");
        }
    }

    drop(shards);
    let count = |direction| metrics.relayed_packets(direction);
    assert_eq!((count(Direction::Hairpin), count(Direction::ToPeers)), (200, 0));
}
