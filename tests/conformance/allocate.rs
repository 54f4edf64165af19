//! Allocate: what is given, to whom, and what is refused.

use std::io::ErrorKind;

use stun::attributes::*;

use super::*;

/// EVEN-PORT with the bit that reserves the next port.
const RESERVING: (u16, &[u8]) = (EVEN_PORT, &[0x80]);

/// RFC 8656, section 7.2.
#[tokio::test]
async fn success_tells_the_relayed_and_the_mapped_address_and_the_lifetime() {
    let scene = Scene::open();

    for over in Over::ALL {
        let asker = scene.alice_over(over).await;
        let answer = asker.ask(ALLOCATE, &[UDP]).await;
        let [relayed] = relayed(&answer)[..] else { panic!("one relayed address") };
        assert_eq!(addresses(&answer, ATTR_XORMAPPED_ADDRESS), [asker.line.local_addr()], "{over:?}");
        assert_eq!(seconds(&answer), 600);
        assert!(!answer.contains(ATTR_RESERVATION_TOKEN));
        assert!((20_000..30_000).contains(&relayed.port()) && relayed.ip().is_loopback());
        let taken = UdpSocket::bind(relayed).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse, "it is bound when it is told");
    }
}

/// RFC 8656, section 7.2.
#[tokio::test]
async fn a_retransmitted_allocate_is_answered_byte_for_byte_the_same_and_gives_nothing_more() {
    let scene = Scene::open();
    let askers = [scene.alice().await, scene.alice_over(Over::Tcp).await, scene.alice_over(Over::Tls).await];

    for (asker, allocations) in askers.iter().zip(1..) {
        let question = asker.signed(ALLOCATE, &[UDP, RESERVING]);
        let first = asker.exchange(&question).await;
        assert_eq!(code(&first), 0);
        assert_eq!(asker.exchange(&question).await.raw, first.raw);
        assert_eq!(scene.allocations().await, allocations);
    }
}

/// RFC 8656, section 7.2.
#[tokio::test]
async fn a_5_tuple_has_one_allocation_until_it_is_deleted() {
    let scene = Scene::open();
    let (asker, _) = scene.allocated().await;

    assert_eq!(asker.code_of(ALLOCATE, &[UDP]).await, 437);
    assert_eq!(asker.code_of(ALLOCATE, &[UDP, (FAMILY, &[2, 0, 0, 0])]).await, 437, "of another family neither");
    assert_eq!(asker.code_of(ALLOCATE, &[]).await, 437, "whatever else is wrong with it");
    assert_eq!(asker.refresh(0).await, 0);
    asker.allocate().await;
    assert_eq!(scene.allocations().await, 1);
}

/// RFC 8656, sections 7.2 and 18.8.
#[tokio::test]
async fn requested_transport_is_wanted_and_is_udp() {
    let scene = Scene::open();
    let asker = scene.alice().await;

    assert_eq!(asker.code_of(ALLOCATE, &[]).await, 400);
    for protocol in (0..=255).filter(|protocol| *protocol != 17) {
        assert_eq!(asker.code_of(ALLOCATE, &[(UDP.0, &[protocol, 0, 0, 0])]).await, 442, "{protocol}");
    }
    assert_eq!(asker.code_of(ALLOCATE, &[(UDP.0, &[17, 0xFF, 0xFF, 0xFF])]).await, 0, "what is reserved is ignored");
}

/// RFC 8656, section 7.2.
#[tokio::test]
async fn a_lifetime_is_granted_between_ten_minutes_and_an_hour() {
    let scene = Scene::open();

    for (asked, granted) in [(0, 600), (1, 600), (599, 600), (601, 601), (3600, 3600), (3601, 3600), (u32::MAX, 3600)] {
        let answer = scene.alice().await.ask(ALLOCATE, &[UDP, (LIFETIME, &asked.to_be_bytes())]).await;
        assert_eq!(seconds(&answer), granted, "{asked}");
    }
}

/// RFC 8656, sections 7.2 and 18.7.
#[tokio::test]
async fn even_port_gives_an_even_port() {
    let scene = Scene::open();

    for _ in 0..20 {
        let answer = scene.alice().await.ask(ALLOCATE, &[UDP, (EVEN_PORT, &[0x7F])]).await;
        assert_eq!(relayed(&answer)[0].port() % 2, 0);
        assert!(!answer.contains(ATTR_RESERVATION_TOKEN), "the other bits mean nothing");
    }
}

/// RFC 8656, section 7.2: the next port is held, for who asked, and really.
#[tokio::test]
async fn a_reserved_port_is_bound_and_is_given_to_its_users_next_5_tuple_for_its_token() {
    let scene = Scene::with_two_ports();
    let (first, second, bob) = (scene.alice().await, scene.alice_over(Over::Tcp).await, scene.bob().await);

    let answer = first.ask(ALLOCATE, &[UDP, RESERVING]).await;
    let token = answer.get(ATTR_RESERVATION_TOKEN).unwrap();
    let mut next = relayed(&answer)[0];
    next.set_port(next.port() + 1);
    assert_eq!(next.port() % 2, 1);
    assert_eq!(UdpSocket::bind(next).unwrap_err().kind(), ErrorKind::AddrInUse, "nobody else binds it");
    assert_eq!(scene.server.metric("throughway_reservations").await, 1);
    assert_eq!(bob.code_of(ALLOCATE, &[UDP]).await, 508, "nor gets it");
    assert_eq!(bob.code_of(ALLOCATE, &[UDP, (TOKEN, &token)]).await, 508, "with somebody else's token neither");

    assert_eq!(relayed(&second.ask(ALLOCATE, &[UDP, (TOKEN, &token)]).await), [next]);
    assert_eq!(scene.server.metric("throughway_reservations").await, 0);
    let third = scene.alice().await;
    assert_eq!(third.code_of(ALLOCATE, &[UDP, (TOKEN, &token)]).await, 508, "a token is good once");
    let peer = Peer::new().await;
    assert_eq!(second.permit(peer.addr).await, 0);
    meet_by_indication(&second, next, &peer).await;
}

/// RFC 8656, section 7.2.
#[tokio::test]
async fn a_reservation_token_goes_with_no_other_wish_and_an_unknown_one_is_answered_508() {
    let scene = Scene::open();
    let asker = scene.alice().await;
    let token = (TOKEN, &[7; 8][..]);

    for other in [RESERVING, (EVEN_PORT, &[0]), (FAMILY, &[1, 0, 0, 0]), (FAMILY, &[2, 0, 0, 0]), BOTH] {
        assert_eq!(asker.code_of(ALLOCATE, &[UDP, token, other]).await, 400, "{other:x?}");
    }
    assert_eq!(asker.code_of(ALLOCATE, &[UDP, token]).await, 508);
}

/// RFC 8656, section 7.2, and shared/turn.md: the server lives on.
#[tokio::test]
async fn no_port_that_can_be_bound_is_answered_508_and_the_next_free_one_is_found() {
    let scene = Scene::with_two_ports();
    let asker = scene.alice().await;
    let relayed = asker.allocate().await;
    assert_eq!(asker.refresh(0).await, 0);
    let mut other = relayed;
    other.set_port(relayed.port() ^ 1);
    let free = async {
        // It is closed behind the answer.
        loop {
            match UdpSocket::bind(relayed) {
                Ok(socket) => break socket,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let held = [tokio::time::timeout(PATIENCE, free).await.unwrap(), UdpSocket::bind(other).unwrap()];

    for given in [&[UDP][..], &[UDP, (EVEN_PORT, &[0])], &[UDP, RESERVING]] {
        assert_eq!(asker.code_of(ALLOCATE, given).await, 508);
    }
    drop(held);

    assert_eq!(asker.code_of(ALLOCATE, &[UDP, RESERVING]).await, 0, "nothing was lost by it");
}

/// RFC 8656, section 2: a 5-tuple is one of a transport.
#[tokio::test]
async fn the_same_addresses_over_udp_and_tcp_are_two_5_tuples() {
    let udp = free_ports(1);
    let toml = PEERS_ON_LOOPBACK
        .replace("listen_udp = [\"127.0.0.1:0\"]", &format!("listen_udp = [\"127.0.0.1:{udp}\"]"))
        .replace("listen_tcp = [\"127.0.0.1:0\"]", &format!("listen_tcp = [\"127.0.0.1:{udp}\"]"));
    let scene = Scene { server: Server::start(&toml) };
    let stream = scene.alice_over(Over::Tcp).await;
    let socket = tokio::net::UdpSocket::bind(stream.line.local_addr()).await.unwrap();
    let datagrams = Asker::over(Line::Datagrams(socket, scene.server.udp()), "alice", "wonderland").await;

    assert_ne!(stream.allocate().await, datagrams.allocate().await);
    assert_eq!(datagrams.refresh(0).await, 0);
    assert_eq!(stream.refresh(600).await, 0, "untouched by the other's end");
    assert_eq!(scene.allocations().await, 1);
}
