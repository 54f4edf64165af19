//! DF, read from the wire, and what is too large for the first link.

use std::io::Read;

use nix::sched::CloneFlags;
use socket2::Domain;
use socket2::Protocol;
use socket2::Type;

use super::icmp::read_icmp;
use super::*;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker;
use crate::support::asker::ALLOCATE;
use crate::support::asker::Asker;
use crate::support::asker::SEND;
use crate::support::asker::UDP;
use crate::support::asker::xor;
use crate::support::line::Line;

const DONT_FRAGMENT: (u16, &[u8]) = (0x001A, b"");
/// Of the link in [`on_a_narrow_link`]: the least that IPv6 takes.
const MTU: u16 = 1280;

/// Sees every UDP datagram that this host receives over IPv4, with its IP header.
struct Wire(socket2::Socket);

impl Wire {
    /// None, with a line that says why, where that isn't allowed.
    fn tap() -> Option<Self> {
        match socket2::Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) {
            Ok(socket) => {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                Some(Self(socket))
            }
            Err(error) => {
                eprintln!("skipped, it takes CAP_NET_RAW to see IP headers: {error}");
                None
            }
        }
    }

    /// Whether DF is set in the next datagram between these.
    fn df(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let mut packet = [0; 2048];
        loop {
            let length = (&self.0).read(&mut packet).expect("a datagram between these");
            let header = usize::from(packet[0] & 0x0F) * 4;
            assert!(length >= header + 8);
            let port = |at: usize| u16::from_be_bytes([packet[header + at], packet[header + at + 1]]);
            if (port(0), port(2)) == (from.port(), to.port()) {
                return packet[6] & 0x40 != 0;
            }
        }
    }
}

/// Runs `test` in a network namespace of its own, which has nothing but a loopback of [`MTU`].
fn on_a_narrow_link(test: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(error) = nix::sched::unshare(CloneFlags::CLONE_NEWNET) {
            return eprintln!("skipped, it takes CAP_SYS_ADMIN to make a network of one's own: {error}");
        }
        let link = ["link", "set", "lo", "mtu", &MTU.to_string(), "up"];
        assert!(std::process::Command::new("ip").args(link).status().unwrap().success());
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    });
    thread.join().unwrap();
}

#[tokio::test]
async fn df_is_set_on_what_may_not_be_fragmented_and_clear_on_all_else() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let asker = Asker::new(server.udp(), "alice", "wonderland").await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = peer.local_addr().unwrap();
    let relayed = asker.allocate().await;
    assert_eq!(asker.bind(0x4000, to).await, 0);
    let Some(wire) = Wire::tap() else { return };
    let indication = |attributes: &[(u16, &[u8])]| {
        let address = xor(to);
        asker::message(SEND, &[attributes, &[(0x0012, &address)]].concat()).raw
    };

    let mut seen = Vec::new();
    for message in [
        indication(&[(0x0013, b"fragmented as you like")]),
        indication(&[(0x0013, b"whole"), DONT_FRAGMENT]),
        indication(&[(0x0013, b"as you like again")]),
        asker::channel_data(0x4000, b"as you like too"),
    ] {
        asker.send(&message).await;
        seen.push(wire.df(relayed, to));
    }
    peer.send_to(b"back", relayed).await.unwrap();
    let received = asker.receive().await;

    assert_eq!(seen, [false, true, false, false]);
    assert_eq!(received, asker::channel_data(0x4000, b"back"));
    assert!(!wire.df(server.udp(), asker.line.local_addr()), "to the client");
}

#[tokio::test]
async fn a_client_on_a_stream_has_its_df_too() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let asker = Asker::over(Line::stream(server.turn_tcp(), None).await, "alice", "wonderland").await;
    let to: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let relayed = asker.allocate().await;
    assert_eq!(asker.permit(to).await, 0);
    let Some(wire) = Wire::tap() else { return };

    asker.send(&asker::message(SEND, &[(0x0012, &xor(to)), (0x0013, b"whole"), DONT_FRAGMENT]).raw).await;

    assert!(wire.df(relayed, to));
}

#[tokio::test]
async fn an_allocate_may_ask_whether_fragments_can_be_forbidden() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let asker = Asker::new(server.udp(), "alice", "wonderland").await;

    let answer = asker.ask(ALLOCATE, &[UDP, DONT_FRAGMENT]).await;

    assert_eq!(asker::code(&answer), 0);
}

#[test]
fn the_client_is_told_of_the_mtu_that_its_datagram_does_not_fit() {
    on_a_narrow_link(async {
        let rig = Rig::start();
        let (client, peer) = (Client::new(&rig).await, Client::new(&rig).await);
        rig.open(1, &client, None).await;
        rig.permit(1, peer.addr(), LIFE).await;
        rig.settle(&client).await;
        let data = vec![7; usize::from(MTU)];
        let mut whole = send_indication(peer.addr(), &data);
        whole.extend([0, 0x1A, 0, 0]);
        let length = u16::try_from(whole.len() - 20).unwrap();
        whole[2..4].copy_from_slice(&length.to_be_bytes());

        client.send(&whole).await;
        let told = read_icmp(&client.receive().await);
        client.send(&send_indication(peer.addr(), &data)).await;

        let [high, low] = MTU.to_be_bytes();
        assert_eq!(told, (peer.addr(), vec![0, 0, 3 << 1, 4, 0, 0, high, low]), "fragmentation needed");
        assert_eq!(peer.receive().await, data, "in fragments, and the only one that came");
        client.drain().await;
        assert_eq!((rig.drops(DropReason::TooLarge), rig.drops(DropReason::Icmp)), (1, 0));
    });
}

#[test]
fn what_goes_on_over_another_ip_version_may_be_fragmented_whatever_its_client_says() {
    on_a_narrow_link(async {
        let allow = vec!["::1".parse().unwrap()];
        let rig = Rig::with("127.0.0.1", policy::Settings { allow, ..policy::Settings::default() });
        let (client, peer) = (Client::new(&rig).await, UdpSocket::bind("[::1]:0").await.unwrap());
        let to = peer.local_addr().unwrap();
        rig.open_on(1, &client, udp::Socket::bind("[::1]:0".parse().unwrap()).unwrap(), None).await;
        rig.permit(1, to, LIFE).await;
        rig.settle(&client).await;
        let mut attributes = vec![0; 24];
        put_xor_address(&mut attributes, attr::XOR_PEER_ADDRESS, to, ID).unwrap();
        attributes.extend([0, 0x1A, 0, 0, 0, 0x13]);
        attributes.extend(MTU.to_be_bytes());
        attributes.resize(attributes.len() + usize::from(MTU), 7);

        client.send(&stun(0x0016, &attributes)).await;

        let mut received = [0; 2048];
        let length = timeout(PATIENCE, peer.recv(&mut received)).await.expect("a datagram").unwrap();
        assert_eq!(received[..length], [7; MTU as usize]);
    });
}

#[test]
fn sockets_of_both_families_forbid_fragments_for_one_datagram_alone() {
    on_a_narrow_link(async {
        for ip in ["127.0.0.1", "::1"] {
            let bind = || udp::Socket::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
            let (from, to) = (bind(), bind());
            from.keep_reports().unwrap();
            let data = vec![7; usize::from(MTU)];

            let refused = from.send_unfragmented(&data, to.local_addr(), None).unwrap_err();
            let report = from.take_report().unwrap();
            from.send_unfragmented(&data[..1000], to.local_addr(), None).unwrap();
            from.send(&data, to.local_addr(), None, None).unwrap();

            assert!(udp::is_too_large(&refused), "{ip}");
            assert!(matches!(report, udp::Report::TooLarge { mtu } if mtu <= MTU.into() && mtu > 1200), "{report:?}");
            let mut batch = udp::Batch::new();
            batch.receive(&to).unwrap();
            assert_eq!(batch.datagrams().map(|it| it.data.len()).collect::<Vec<_>>(), [1000, data.len()], "{ip}");
        }
    });
}
