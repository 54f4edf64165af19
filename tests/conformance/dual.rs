//! IPv6 relayed addresses, and two families on one 5-tuple.

use stun::attributes::ATTR_RESERVATION_TOKEN;
use stun::attributes::AttrType;

use super::*;

const IPV4: (u16, &[u8]) = (FAMILY, &[1, 0, 0, 0]);
const IPV6: (u16, &[u8]) = (FAMILY, &[2, 0, 0, 0]);
const ADDRESS_ERROR_CODE: AttrType = AttrType(0x8001);

/// RFC 8656, sections 7.2 and 18.6.
#[tokio::test]
async fn the_family_that_is_asked_for_is_given_and_ipv4_when_none_is() {
    let scene = Scene::open();

    for (given, ipv6) in [(&[UDP][..], false), (&[UDP, IPV4], false), (&[UDP, IPV6], true)] {
        let answer = scene.alice().await.ask(ALLOCATE, given).await;
        assert_eq!(relayed(&answer).iter().map(SocketAddr::is_ipv6).collect::<Vec<_>>(), [ipv6]);
    }
    for unknown in [0, 3, 255] {
        assert_eq!(scene.alice().await.code_of(ALLOCATE, &[UDP, (FAMILY, &[unknown, 0, 0, 0])]).await, 440);
    }
}

/// RFC 8656, sections 10.2, 11.2 and 12.2.
#[tokio::test]
async fn a_peer_of_the_other_family_is_answered_443_or_dropped() {
    let scene = Scene::open();

    for (family, good, bad) in [(IPV4, "127.0.0.1:9", "[::1]:9"), (IPV6, "[::1]:9", "127.0.0.1:9")] {
        let asker = scene.alice().await;
        assert_eq!(asker.code_of(ALLOCATE, &[UDP, family]).await, 0);
        let (good, bad) = (addr(good), addr(bad));
        assert_eq!(asker.permit(bad).await, 443);
        assert_eq!(asker.code_of(CREATE_PERMISSION, &[(PEER, &xor(good)), (PEER, &xor(bad))]).await, 443);
        assert_eq!(asker.bind(0x4000, bad).await, 443);
        let send = |peer| message(SEND, &[(PEER, &xor(peer)), (DATA_VALUE, b"data")]).raw;
        scene.drops_each(&asker, "no-permission", [send(bad), send(good)]).await;
        assert_eq!(asker.bind(0x4000, good).await, 0, "nothing of it was done");
    }
}

/// RFC 8656, sections 7.2, 11 and 12.
#[tokio::test]
async fn a_dual_allocation_relays_both_ways_in_both_families_over_every_transport() {
    let scene = Scene::open();

    for over in Over::ALL {
        let asker = scene.alice_over(over).await;
        let relayed = asker.allocate_both().await;
        assert!(relayed[0].is_ipv4() && relayed[1].is_ipv6(), "{over:?}: {relayed:?}");
        let peers = [Peer::new().await, Peer::at("::1").await];
        let both = [(PEER, &xor(peers[0].addr)[..]), (PEER, &xor(peers[1].addr))];
        assert_eq!(asker.code_of(CREATE_PERMISSION, &both).await, 0);
        for (relayed, peer) in relayed.into_iter().zip(&peers) {
            meet_by_indication(&asker, relayed, peer).await;
        }
        for ((relayed, peer), number) in relayed.into_iter().zip(&peers).zip(0x4000..) {
            assert_eq!(asker.bind(number, peer.addr).await, 0, "{over:?}");
            meet_by_channel(&asker, number, relayed, peer).await;
        }
    }
}

/// RFC 8656, section 12.2: a channel number names no family.
#[tokio::test]
async fn a_channel_number_means_one_peer_of_either_family() {
    let scene = Scene::open();
    let asker = scene.alice().await;
    asker.allocate_both().await;

    assert_eq!(asker.bind(0x4000, addr("127.0.0.1:9")).await, 0);
    assert_eq!(asker.bind(0x4000, addr("[::1]:9")).await, 400);
    assert_eq!(asker.bind(0x4001, addr("[::1]:9")).await, 0);
    assert_eq!(asker.bind(0x4001, addr("127.0.0.1:8")).await, 400);
}

/// RFC 8656, section 7.2.
#[tokio::test]
async fn an_additional_family_is_ipv6_and_goes_with_no_other_family_and_no_reservation() {
    let scene = Scene::open();
    let asker = scene.alice().await;

    for wrong in [0, 1, 3, 255] {
        assert_eq!(asker.code_of(ALLOCATE, &[UDP, (BOTH.0, &[wrong, 0, 0, 0])]).await, 400, "{wrong}");
    }
    for other in [IPV4, IPV6, (EVEN_PORT, &[0x80]), (TOKEN, &[0; 8])] {
        assert_eq!(asker.code_of(ALLOCATE, &[UDP, BOTH, other]).await, 400, "{other:x?}");
    }
    let answer = asker.ask(ALLOCATE, &[UDP, BOTH, (EVEN_PORT, &[0])]).await;
    assert!(relayed(&answer).iter().all(|relayed| relayed.port() % 2 == 0), "both are even");
    assert!(!answer.contains(ATTR_RESERVATION_TOKEN) && !answer.contains(ADDRESS_ERROR_CODE));
}

/// RFC 8656, sections 7.2 and 18.12.
#[tokio::test]
async fn a_family_that_cannot_be_had_is_named_with_its_error_beside_the_one_that_can() {
    let scene = Scene::with_two_ports();
    for _ in 0..2 {
        assert_eq!(scene.alice().await.code_of(ALLOCATE, &[UDP, IPV6]).await, 0);
    }
    let asker = scene.alice().await;
    assert_eq!(asker.code_of(ALLOCATE, &[UDP, IPV6]).await, 508, "alone it is an error");

    let answer = asker.ask(ALLOCATE, &[UDP, BOTH]).await;

    assert_eq!((code(&answer), relayed(&answer).len()), (0, 1));
    assert_eq!(answer.get(ADDRESS_ERROR_CODE).unwrap(), [2, 0, 5, 8]);
    assert_eq!(scene.allocations().await, 3);
    assert_eq!((asker.permit(addr("[::1]:9")).await, asker.permit(addr("127.0.0.1:9")).await), (443, 0));
}

/// RFC 8656, section 8.2.
#[tokio::test]
async fn refresh_with_a_family_is_for_it_alone_and_without_one_for_both() {
    let scene = Scene::open();
    let asker = scene.alice().await;
    asker.allocate_both().await;
    let zero = (LIFETIME, &[0; 4][..]);

    assert_eq!(asker.code_of(REFRESH, &[IPV6, zero]).await, 0);
    assert_eq!(scene.allocations().await, 1);
    assert_eq!(asker.code_of(REFRESH, &[IPV6]).await, 443, "there is none of it any more");
    assert_eq!(asker.permit(addr("[::1]:9")).await, 443);
    assert_eq!(asker.permit(addr("127.0.0.1:9")).await, 0);
    assert_eq!(asker.code_of(ALLOCATE, &[UDP, IPV6]).await, 437, "the 5-tuple is taken all the same");
    assert_eq!(asker.code_of(REFRESH, &[IPV4, zero]).await, 0);
    assert_eq!(asker.code_of(REFRESH, &[]).await, 437);

    asker.allocate_both().await;
    assert_eq!(asker.code_of(REFRESH, &[]).await, 0);
    assert_eq!(asker.code_of(REFRESH, &[zero]).await, 0);
    assert_eq!(scene.allocations().await, 0);
}

/// RFC 8656, section 7.2.
#[tokio::test]
async fn a_retransmitted_dual_allocate_is_answered_byte_for_byte_the_same() {
    let scene = Scene::open();
    let asker = scene.alice().await;
    let question = asker.signed(ALLOCATE, &[UDP, BOTH]);

    assert_eq!(asker.exchange(&question).await.raw, asker.exchange(&question).await.raw);
    assert_eq!(scene.allocations().await, 2);
}
