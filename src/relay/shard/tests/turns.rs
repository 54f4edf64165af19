//! What is served, and how often.

use std::net::SocketAddr;
use std::net::UdpSocket;

use super::super::*;
use crate::address::FiveTuple;
use crate::address::RelayedAddr;
use crate::address::Transport;
use crate::net::udp::Datagram;

/// A shard that has yet to run, and the address of its listener.
fn shard(metrics: &Arc<Metrics>) -> (Media, SocketAddr) {
    let listener = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr();
    let (settings, _) = Settings::plain(vec![listener], metrics);
    (Media::of_all(vec![settings]).unwrap().remove(0).0, addr)
}

/// Opens allocation `id` of a client of its own; its relayed address.
fn open(media: &mut Media, id: u16, server: SocketAddr) -> SocketAddr {
    let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let advertised = socket.local_addr();
    let five_tuple = FiveTuple::new(Transport::Udp, SocketAddr::from(([192, 0, 2, 1], id)), server);
    let (via, relayed) = (Via::Datagram(ListenerId(0)), RelayedAddr(advertised));
    let deadline = media.clock.now().monotonic + Duration::from_secs(600);
    let id = AllocationId(id.into());
    let traffic = Arc::default();
    media.carry_out(Command::Open { id, five_tuple, via, relayed, advertised, socket, deadline, traffic });
    advertised
}

#[test]
fn an_allocation_that_takes_the_place_of_one_with_a_turn_to_come_has_one_turn_as_all_have() {
    let (mut media, server) = shard(&Arc::default());
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut events = Events::with_capacity(EVENTS);

    for id in 1..=3 {
        let relayed = open(&mut media, id, server);
        peer.send_to(b"unread", relayed).unwrap();
        media.poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        for event in &events {
            media.queue(event.token(), false);
        }
        assert_eq!(media.ready, [Token(1)], "the {id}. in the same place");
        media.carry_out(Command::Close { id: AllocationId(id.into()) });
    }

    assert!(media.ready.is_empty());
}

#[test]
fn what_says_it_came_from_port_0_is_malformed_and_gets_no_answer() {
    let metrics = Arc::default();
    let (mut media, _) = shard(&metrics);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let somewhere = client.local_addr().unwrap();
    let nowhere = SocketAddr::new(somewhere.ip(), 0);
    let data = b"\x00\x01\x00\x00\x21\x12\xA4\x42transaction!";

    for source in [nowhere, somewhere] {
        let (datagram, now) = (Datagram { data, source, local_ip: None, ecn: None }, media.clock.now().monotonic);
        media.forwarder.handle_client_packet(ListenerId(0), &datagram, now);
    }
    media.forwarder.depart();

    assert_eq!(client.recv(&mut [0; 64]).unwrap(), 32);
    let drops = [DropReason::Malformed, DropReason::SocketError].map(|reason| metrics.drops(reason));
    assert_eq!((metrics.bindings.get(), drops), (1, [1, 0]));
}
