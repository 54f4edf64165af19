//! ChannelData over UDP. Over streams see there.

use super::*;

/// A channel bound on an allocation over UDP.
async fn bound(scene: &Scene) -> (Asker, SocketAddr, Peer) {
    let ((asker, relayed), peer) = (scene.allocated().await, Peer::new().await);
    assert_eq!(asker.bind(0x4000, peer.addr).await, 0);
    (asker, relayed, peer)
}

/// RFC 8656, sections 12.5 to 12.7: no padding over UDP.
#[tokio::test]
async fn data_of_any_size_goes_both_ways_unpadded() {
    let scene = Scene::open();
    let (asker, relayed, peer) = bound(&scene).await;

    for size in [0, 1, 2, 3, 4, 1200, 9000, 65_000] {
        let data = vec![7; size];
        asker.send(&channel_data(0x4000, &data)).await;
        assert_eq!(peer.received().await, (data.clone(), relayed));
        peer.send(&data, relayed).await;
        assert_eq!(asker.receive().await, channel_data(0x4000, &data));
    }
}

/// RFC 8656, section 12.5: a client may pad over UDP, too.
#[tokio::test]
async fn padding_over_udp_is_not_relayed() {
    let scene = Scene::open();
    let (asker, relayed, peer) = bound(&scene).await;

    for size in 0..=4 {
        let mut padded = channel_data(0x4000, &vec![7; size]);
        padded.resize(padded.len().next_multiple_of(4), 0xEE);
        asker.send(&padded).await;
        assert_eq!(peer.received().await, (vec![7; size], relayed));
    }
}

/// RFC 8656, section 12.6.
#[tokio::test]
async fn a_length_beyond_the_datagram_or_more_than_padding_behind_it_is_dropped() {
    let scene = Scene::open();
    let (asker, _, peer) = bound(&scene).await;
    let claims = |length: u16, data: &[u8]| [&[0x40, 0][..], &length.to_be_bytes(), data].concat();

    let bad = [
        claims(1, b""),
        claims(5, b"four"),
        claims(0xFFFF, b"four"),
        claims(0xFFFC, &[7; 1200]),
        claims(0, b"four"),
        claims(4, b"fourfour"),
        vec![0x40],
        vec![0x40, 0],
        vec![0x40, 0, 0],
    ];
    scene.drops_each(&asker, "malformed", bad).await;
    peer.heard_nothing().await;
}

/// RFC 8656, sections 12 and 12.6.
#[tokio::test]
async fn a_number_that_is_not_bound_or_reserved_is_dropped() {
    let scene = Scene::open();
    let (asker, _, peer) = bound(&scene).await;

    let unbound = [0x4001, 0x4FFF, 0x5000, 0x7FFF].map(|number| channel_data(number, b"data"));
    scene.drops_each(&asker, "no-channel", unbound).await;
    let reserved = [0x8000, 0xA000, 0xC000, 0xFFFF].map(|number| channel_data(number, b"data"));
    scene.drops_each(&asker, "not-turn", reserved).await;
    let stranger = scene.bob().await;
    scene.drops_each(&stranger, "no-allocation", [channel_data(0x4000, b"data")]).await;
    peer.heard_nothing().await;
}

/// RFC 8656, section 12.7: never cut, unlike what others do.
#[tokio::test]
async fn a_datagram_that_fits_no_message_is_dropped_whole() {
    let scene = Scene::open();
    let (asker, relayed, peer) = bound(&scene).await;
    let neighbour = Peer::new().await;

    peer.send(&vec![7; 65_503], relayed).await;
    assert_eq!(asker.receive().await, channel_data(0x4000, &vec![7; 65_503]), "the largest that fits");
    peer.send(&vec![7; 65_504], relayed).await;
    neighbour.send(&vec![7; 65_500], relayed).await;
    peer.send(b"after", relayed).await;
    assert_eq!(asker.receive().await, channel_data(0x4000, b"after"));
    assert_eq!(scene.drops("too-large").await, 2);
}
