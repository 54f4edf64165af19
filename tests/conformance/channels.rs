//! ChannelBind: a number for a peer.

use super::*;

/// RFC 8656, sections 12 and 18.1; beyond 0x4FFF it is a departure that turn/mod.rs names.
#[tokio::test]
async fn numbers_from_0x4000_to_0x7fff_are_bound_and_no_others() {
    let scene = Scene::open();
    let (asker, _) = scene.allocated().await;

    for bad in [0x0000, 0x0001, 0x3FFF, 0x8000, 0xFFFF] {
        assert_eq!(asker.bind(bad, addr("127.0.0.1:9")).await, 400, "{bad:#06x}");
    }
    for (good, port) in [0x4000, 0x4FFF, 0x5000, 0x7FFF].into_iter().zip(1..) {
        assert_eq!(asker.bind(good, SocketAddr::new([127, 0, 0, 1].into(), port)).await, 0, "{good:#06x}");
    }
}

/// RFC 8656, section 12.2.
#[tokio::test]
async fn a_number_and_one_peer_are_wanted() {
    let scene = Scene::open();
    let (asker, _) = scene.allocated().await;
    let (one, two) = (xor(addr("127.0.0.1:9")), xor(addr("127.0.0.1:10")));
    let number = (NUMBER, &[0x40, 0, 0, 0][..]);

    for given in [&[][..], &[number], &[(PEER, &one)], &[(PEER, &one), number, (PEER, &two)]] {
        assert_eq!(asker.code_of(CHANNEL_BIND, given).await, 400, "{given:x?}");
    }
    assert_eq!(asker.code_of(CHANNEL_BIND, &[(PEER, &one), (NUMBER, &[0x40, 0, 0xFF, 0xFF])]).await, 0, "RFFU");
}

/// RFC 8656, section 12.2.
#[tokio::test]
async fn a_bound_number_has_no_other_peer_and_a_bound_peer_no_other_number() {
    let scene = Scene::open();
    let ((asker, relayed), peer) = (scene.allocated().await, Peer::new().await);
    let another = Peer::new().await;
    assert_eq!(asker.bind(0x4000, peer.addr).await, 0);

    assert_eq!(asker.bind(0x4000, another.addr).await, 400);
    assert_eq!(asker.bind(0x4001, peer.addr).await, 400);
    assert_eq!(asker.bind(0x4000, peer.addr).await, 0, "that is a refresh");
    assert_eq!(asker.bind(0x4001, another.addr).await, 0, "the port makes another peer");
    meet_by_channel(&asker, 0x4000, relayed, &peer).await;
    meet_by_channel(&asker, 0x4001, relayed, &another).await;
}

/// RFC 8656, section 12.2.
#[tokio::test]
async fn a_bind_gives_the_permission_too() {
    let scene = Scene::open();
    let ((asker, relayed), peer, neighbour) = (scene.allocated().await, Peer::new().await, Peer::new().await);

    assert_eq!(asker.bind(0x4000, peer.addr).await, 0);

    meet_by_channel(&asker, 0x4000, relayed, &peer).await;
    meet_by_indication(&asker, relayed, &neighbour).await;
}

/// RFC 8656, section 12.2.
#[tokio::test]
async fn a_refused_bind_gives_neither_channel_nor_permission() {
    let scene = Scene::open();
    let ((asker, _), peer) = (scene.allocated().await, Peer::new().await);
    let denied = addr("10.0.0.1:9");

    assert_eq!(asker.bind(0x4000, denied).await, 403);
    assert_eq!(asker.bind(0x3FFF, peer.addr).await, 400);

    let send = |peer| message(SEND, &[(PEER, &xor(peer)), (DATA_VALUE, b"x")]).raw;
    scene.drops_each(&asker, "no-permission", [send(denied), send(peer.addr)]).await;
    scene.drops_each(&asker, "no-channel", [channel_data(0x4000, b"x")]).await;
}

/// RFC 8656, section 12: a number is its allocation's.
#[tokio::test]
async fn the_same_number_is_another_channel_for_another_client() {
    let scene = Scene::open();
    let ((alice, at_alice), bob) = (scene.allocated().await, scene.bob().await);
    let at_bob = bob.allocate().await;
    let [one, two] = [Peer::new().await, Peer::new().await];

    assert_eq!((alice.bind(0x4000, one.addr).await, bob.bind(0x4000, two.addr).await), (0, 0));

    meet_by_channel(&alice, 0x4000, at_alice, &one).await;
    meet_by_channel(&bob, 0x4000, at_bob, &two).await;
}

/// RFC 8656, section 12.2, and shared/turn.md, "Limits".
#[tokio::test]
async fn channels_beyond_the_cap_are_answered_508_and_renewals_are_not() {
    let scene = Scene::with("[turn.limits]\nchannels_per_allocation = 2\n");
    let (asker, _) = scene.allocated().await;
    let [one, two, three] = [1, 2, 3].map(|port| SocketAddr::new([127, 0, 0, 1].into(), port));

    assert_eq!((asker.bind(0x4000, one).await, asker.bind(0x4001, two).await), (0, 0));
    assert_eq!(asker.bind(0x4002, three).await, 508);
    assert_eq!((asker.bind(0x4000, one).await, asker.bind(0x4001, two).await), (0, 0));
}
