//! What comes back about relayed datagrams: told to the client that permits the peer, and to nobody too often.

use socket2::Domain;
use socket2::Protocol;
use socket2::Type;

use super::*;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::Asker;
use crate::support::asker::SEND;
use crate::support::asker::message;
use crate::support::asker::xor;

/// What a client is told of at once, as the table has it.
const BURST: u64 = 20;

/// An address that nobody listens on: of a host that nothing else in the tests uses.
async fn closed(ip: &str) -> SocketAddr {
    UdpSocket::bind((ip, 0)).await.unwrap().local_addr().unwrap()
}

/// What a Data indication without data tells: about which peer, and the value of ICMP.
pub(super) fn read_icmp(packet: &[u8]) -> (SocketAddr, Vec<u8>) {
    let message = Stun::parse(packet).unwrap();
    assert_eq!((message.message_type(), message.first(attr::DATA)), (0x0017, None));
    let peer = xor_address(message.first(attr::XOR_PEER_ADDRESS).unwrap(), message.transaction_id());
    (peer.unwrap(), message.first(attr::ICMP).unwrap().to_vec())
}

/// The ICMPv4 error that a router would send about a datagram between these, with the checksum that it needs.
fn icmp_error([kind, code]: [u8; 2], mtu: u16, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("IPv4 only") };
    let mut error = vec![kind, code, 0, 0, 0, 0];
    error.extend(mtu.to_be_bytes());
    error.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    error.extend(from.ip().octets());
    error.extend(to.ip().octets());
    for half in [from.port(), to.port(), 8, 0] {
        error.extend(half.to_be_bytes());
    }
    let sum: u32 = error.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = u16::try_from(sum % 0xFFFF).unwrap();
    error[2..4].copy_from_slice(&(!folded).to_be_bytes());
    error
}

#[tokio::test]
async fn a_closed_port_is_told_as_a_data_indication_however_it_was_sent_to() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let asker = Asker::new(server.udp(), "alice", "wonderland").await;
    let peer = closed("127.77.0.1").await;
    asker.allocate().await;
    assert_eq!(asker.permit(peer).await, 0);

    asker.send(&message(SEND, &[(0x0012, &xor(peer)), (0x0013, b"by indication")]).raw).await;
    let by_indication = read_icmp(&asker.receive().await);
    assert_eq!(asker.bind(0x4000, peer).await, 0);
    asker.send(&channel_data(0x4000, b"by channel")).await;
    let by_channel = read_icmp(&asker.receive().await);

    let port_unreachable = vec![0, 0, 3 << 1, 3, 0, 0, 0, 0];
    assert_eq!([by_indication, by_channel], [(peer, port_unreachable.clone()), (peer, port_unreachable)]);
}

#[tokio::test]
async fn icmpv6_errors_are_told_about_ipv6_peers() {
    let allow = vec!["::1".parse().unwrap()];
    let rig = Rig::with("127.0.0.1", policy::Settings { allow, ..policy::Settings::default() });
    let client = Client::new(&rig).await;
    let peer = closed("::1").await;
    let socket = udp::Socket::bind("[::1]:0".parse().unwrap()).unwrap();
    rig.open_on(1, &client, socket, None).await;
    rig.permit(1, peer, LIFE).await;
    rig.settle(&client).await;

    let mut attributes = vec![0; 24];
    put_xor_address(&mut attributes, attr::XOR_PEER_ADDRESS, peer, ID).unwrap();
    attributes.extend([0, 0x13, 0, 0]);
    client.send(&stun(0x0016, &attributes)).await;

    assert_eq!(read_icmp(&client.receive().await), (peer, vec![0, 0, 1 << 1, 4, 0, 0, 0, 0]));
}

#[tokio::test]
async fn no_datagram_is_lost_behind_an_icmp_error_and_the_client_is_told_of_so_many() {
    let rig = Rig::start();
    let (client, live) = (Client::new(&rig).await, Client::new(&rig).await);
    let dead = closed("127.77.0.2").await;
    let relayed = rig.open(1, &client, None).await;
    for peer in [live.addr(), dead] {
        rig.permit(1, peer, LIFE).await;
    }
    rig.bind(1, 0x4000, live.addr()).await;
    rig.settle(&client).await;

    let rounds = 200_u8;
    for round in 0..rounds {
        client.send(&send_indication(dead, b"to nobody")).await;
        client.send(&channel_data(0x4000, &[round])).await;
        assert_eq!(live.receive().await, [round]);
        live.send_to(&[round], relayed).await;
    }
    let mut told = 0;
    let mut echoed: Vec<u8> = Vec::new();
    while echoed.len() < usize::from(rounds) {
        let packet = client.receive().await;
        match packet.strip_prefix(&[0x40, 0, 0, 1]) {
            Some(data) => echoed.extend(data),
            None => {
                assert_eq!(read_icmp(&packet).0, dead);
                told += 1;
            }
        }
    }

    assert_eq!(echoed, (0..rounds).collect::<Vec<_>>());
    until(|| rig.drops(DropReason::RateLimited) > 0).await;
    assert!((BURST..u64::from(rounds)).contains(&told), "{told}");
    assert_eq!(rig.drops(DropReason::SocketError), 0);
}

#[tokio::test]
async fn forged_icmp_errors_reach_no_client_beyond_its_permissions_and_its_share() {
    let rig = Rig::start();
    let (client, live) = (Client::new(&rig).await, Client::new(&rig).await);
    let relayed = rig.open(1, &client, None).await;
    rig.permit(1, live.addr(), LIFE).await;
    rig.settle(&client).await;
    let forger = match socket2::Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)) {
        Ok(forger) => forger,
        Err(error) => return eprintln!("skipped, it takes CAP_NET_RAW to forge ICMP: {error}"),
    };
    let forge = |kind, code, peer: &str| {
        let error = icmp_error([kind, code], 1400, relayed, SocketAddr::new(peer.parse().unwrap(), 9));
        forger.send_to(&error, &SocketAddr::new(relayed.ip(), 0).into()).unwrap();
    };

    forge(3, 1, "192.0.2.1");
    until(|| rig.drops(DropReason::NoPermission) == 1).await;
    forge(12, 0, "127.0.0.1");
    until(|| rig.drops(DropReason::Icmp) == 1).await;
    forge(3, 4, "127.0.0.1");
    assert_eq!(read_icmp(&client.receive().await).1, [0, 0, 3 << 1, 4, 0, 0, 0x05, 0x78], "what it says is passed on");
    let mut told = 0;
    for _ in 0..1000 {
        forge(11, 0, "127.0.0.1");
        live.send_to(b"meanwhile", relayed).await;
        loop {
            let packet = client.receive().await;
            if Stun::parse(&packet).unwrap().first(attr::DATA).is_some() {
                break;
            }
            assert_eq!(read_icmp(&packet).1, [0, 0, 11 << 1, 0, 0, 0, 0, 0]);
            told += 1;
        }
    }

    until(|| told + rig.drops(DropReason::RateLimited) == 1000).await;
    assert!((BURST - 1..100).contains(&told), "{told}");
}
