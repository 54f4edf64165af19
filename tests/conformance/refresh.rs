//! Refresh: longer, shorter, over.

use super::*;

/// RFC 8656, section 8.2.
#[tokio::test]
async fn a_lifetime_is_refreshed_to_between_ten_minutes_and_an_hour() {
    let scene = Scene::open();
    let (asker, _) = scene.allocated().await;

    assert_eq!(seconds(&asker.ask(REFRESH, &[]).await), 600);
    for (asked, granted) in [(1, 600), (599, 600), (1200, 1200), (3601, 3600), (u32::MAX, 3600)] {
        let answer = asker.ask(REFRESH, &[(LIFETIME, &asked.to_be_bytes())]).await;
        assert_eq!(seconds(&answer), granted, "{asked}");
    }
}

/// RFC 8656, section 8.2: and with it permissions, channels, and the port.
#[tokio::test]
async fn a_lifetime_of_zero_deletes_the_allocation_and_everything_of_it() {
    let scene = Scene::open();
    let ((asker, relayed), peer) = (scene.allocated().await, Peer::new().await);
    assert_eq!(asker.bind(0x4000, peer.addr).await, 0);
    meet_by_channel(&asker, 0x4000, relayed, &peer).await;

    let answer = asker.ask(REFRESH, &[(LIFETIME, &[0; 4])]).await;

    assert_eq!((code(&answer), seconds(&answer)), (0, 0));
    assert_eq!(scene.allocations().await, 0);
    let send = message(SEND, &[(PEER, &xor(peer.addr)), (DATA_VALUE, b"x")]).raw;
    scene.drops_each(&asker, "no-allocation", [channel_data(0x4000, b"x"), send.clone()]).await;
    assert_eq!(asker.refresh(0).await, 437, "what a retransmission gets, which clients take for success");
    assert_eq!((asker.permit(peer.addr).await, asker.bind(0x4000, peer.addr).await), (437, 437));
    asker.allocate().await;
    scene.drops_each(&asker, "no-channel", [channel_data(0x4000, b"x")]).await;
    scene.drops_each(&asker, "no-permission", [send]).await;
    peer.heard_nothing().await;
}

/// RFC 8656, section 5.
#[tokio::test]
async fn every_method_but_allocate_wants_an_allocation() {
    let scene = Scene::open();
    let asker = scene.alice().await;

    assert_eq!(asker.refresh(600).await, 437);
    assert_eq!(asker.permit(addr("127.0.0.1:9")).await, 437);
    assert_eq!(asker.bind(0x4000, addr("127.0.0.1:9")).await, 437);
}

/// RFC 8656, section 8.2.
#[tokio::test]
async fn a_family_that_the_allocation_is_not_of_is_answered_443() {
    let scene = Scene::open();
    let (asker, _) = scene.allocated().await;

    assert_eq!(asker.code_of(REFRESH, &[(FAMILY, &[2, 0, 0, 0]), (LIFETIME, &[0; 4])]).await, 443);
    assert_eq!(asker.code_of(REFRESH, &[(FAMILY, &[9, 0, 0, 0])]).await, 443, "nor one that nobody knows");
    assert_eq!(asker.code_of(REFRESH, &[(FAMILY, &[1, 0, 0, 0])]).await, 0, "and is still there");
}

/// RFC 8489, section 6.3.1.
#[tokio::test]
async fn what_is_retransmitted_is_answered_byte_for_byte_the_same() {
    let scene = Scene::open();
    let (asker, _) = scene.allocated().await;
    let (peer, number) = ((PEER, &xor(addr("127.0.0.1:9"))[..]), (NUMBER, &[0x40, 0, 0, 0][..]));

    for (method, given) in [
        (REFRESH, &[(LIFETIME, &1200_u32.to_be_bytes()[..])][..]),
        (CREATE_PERMISSION, &[peer]),
        (CHANNEL_BIND, &[peer, number]),
        (CHANNEL_BIND, &[number]),
        (CREATE_PERMISSION, &[]),
        (REFRESH, &[(0x7FFF, b"")]),
    ] {
        let question = asker.signed(method, given);
        assert_eq!(asker.exchange(&question).await.raw, asker.exchange(&question).await.raw);
    }
}
