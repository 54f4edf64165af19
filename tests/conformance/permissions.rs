//! Permissions: who may send to an allocation.

use super::*;

/// RFC 8656, sections 9 and 11.3.
#[tokio::test]
async fn a_peer_without_permission_reaches_nobody_and_one_with_it_from_every_port() {
    let scene = Scene::open();
    let ((asker, relayed), bob) = (scene.allocated().await, scene.bob().await);
    let (peer, same_ip, other) = (Peer::new().await, Peer::new().await, Peer::at("127.0.0.2").await);
    let bobs = bob.allocate().await;

    let before = scene.drops("no-permission").await;
    peer.send(b"too early", relayed).await;
    scene.server.metric_becomes("throughway_dropped_total{reason=\"no-permission\"}", before + 1).await;
    assert_eq!(asker.permit(peer.addr).await, 0);
    meet_by_indication(&asker, relayed, &peer).await;
    meet_by_indication(&asker, relayed, &same_ip).await;
    other.send(b"of another address", relayed).await;
    peer.send(b"to another allocation", bobs).await;
    scene.server.metric_becomes("throughway_dropped_total{reason=\"no-permission\"}", before + 3).await;
    asker.hears_nothing().await;
    bob.hears_nothing().await;
}

/// RFC 8656, section 10.2.
#[tokio::test]
async fn permissions_are_given_to_all_peers_of_a_request_or_to_none() {
    let scene = Scene::open();
    let ((asker, _), peer) = (scene.allocated().await, Peer::new().await);
    let good = (PEER, &xor(peer.addr)[..]);
    let denied = [xor(addr("10.0.0.1:9")), xor(addr("[::1]:9")), vec![0, 1, 0]];

    assert_eq!(asker.code_of(CREATE_PERMISSION, &[]).await, 400, "at least one");
    for (bad, expected) in denied.iter().zip([403, 443, 400]) {
        assert_eq!(asker.code_of(CREATE_PERMISSION, &[good, (PEER, bad)]).await, expected);
        assert_eq!(asker.code_of(CREATE_PERMISSION, &[(PEER, bad), good]).await, expected);
    }
    let send = message(SEND, &[good, (DATA_VALUE, b"data")]).raw;
    scene.drops_each(&asker, "no-permission", [send.clone()]).await;
    let others: Vec<_> = (2..=20).map(|n| xor(addr(&format!("127.0.0.{n}:0")))).collect();
    let all: Vec<_> = others.iter().map(|other| (PEER, &other[..])).chain([good]).collect();
    assert_eq!(asker.code_of(CREATE_PERMISSION, &all).await, 0, "and as many as one likes");
    asker.send(&send).await;
    assert_eq!(peer.received().await.0, b"data");
}

/// RFC 8656, section 10.2.
#[tokio::test]
async fn the_port_in_a_permission_means_nothing() {
    let scene = Scene::open();
    let ((asker, relayed), peer) = (scene.allocated().await, Peer::new().await);

    assert_eq!(asker.permit(SocketAddr::new(peer.addr.ip(), 0)).await, 0);

    meet_by_indication(&asker, relayed, &peer).await;
}

/// RFC 8656, section 10.2, and shared/turn.md, "Limits".
#[tokio::test]
async fn permissions_beyond_the_cap_are_answered_508_and_renewals_are_not() {
    let scene = Scene::with("[turn.limits]\npermissions_per_allocation = 2\n");
    let (asker, _) = scene.allocated().await;
    let [one, two, three] = [1, 2, 3].map(|n| addr(&format!("127.0.0.{n}:9")));

    assert_eq!(asker.permit(one).await, 0);
    let both = [xor(two), xor(three)];
    assert_eq!(asker.code_of(CREATE_PERMISSION, &[(PEER, &both[0]), (PEER, &both[1])]).await, 508, "all or none");
    assert_eq!(asker.permit(two).await, 0);
    assert_eq!(asker.permit(three).await, 508);
    assert_eq!(asker.bind(0x4000, three).await, 508, "a channel gives a permission, too");
    assert_eq!((asker.permit(one).await, asker.permit(two).await), (0, 0));
}
