//! Send and Data indications.

use std::collections::HashSet;

use stun::attributes::*;

use super::*;

fn send(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    message(SEND, attributes).raw
}

/// RFC 8656, section 11.2.
#[tokio::test]
async fn a_send_indication_without_allocation_or_permission_is_dropped_and_counted() {
    let scene = Scene::open();
    let peer = Peer::new().await;
    let there = send(&[(PEER, &xor(peer.addr)), (DATA_VALUE, b"data")]);

    for over in Over::ALL {
        let asker = scene.alice_over(over).await;
        scene.drops_each(&asker, "no-allocation", [there.clone()]).await;
        asker.allocate().await;
        scene.drops_each(&asker, "no-permission", [there.clone()]).await;
        assert_eq!(asker.permit(addr("127.0.0.2:9")).await, 0);
        scene.drops_each(&asker, "no-permission", [there.clone()]).await;
    }
    peer.heard_nothing().await;
}

/// RFC 8656, section 11.2.
#[tokio::test]
async fn a_send_indication_without_peer_or_data_is_dropped() {
    let scene = Scene::open();
    let ((asker, _), peer) = (scene.allocated().await, Peer::new().await);
    assert_eq!(asker.permit(peer.addr).await, 0);
    let xored = xor(peer.addr);

    scene.drops_each(&asker, "malformed", [send(&[]), send(&[(PEER, &xored)]), send(&[(DATA_VALUE, b"data")])]).await;
    peer.heard_nothing().await;
}

/// RFC 8656, section 11.2.
#[tokio::test]
async fn data_of_no_length_makes_an_empty_datagram() {
    let scene = Scene::open();
    let ((asker, relayed), peer) = (scene.allocated().await, Peer::new().await);
    assert_eq!(asker.permit(peer.addr).await, 0);

    asker.indicate(peer.addr, b"").await;
    assert_eq!(peer.received().await, (vec![], relayed));
    peer.send(b"", relayed).await;
    assert_eq!(asker.receive_stun().await.get(ATTR_DATA).unwrap(), b"");
}

/// RFC 8656, sections 11.3 and 11.4.
#[tokio::test]
async fn a_data_indication_says_from_whom_and_what_and_has_an_id_of_its_own() {
    let scene = Scene::open();

    for over in Over::ALL {
        let (asker, peer) = (scene.alice_over(over).await, Peer::new().await);
        let relayed = asker.allocate().await;
        assert_eq!(asker.permit(peer.addr).await, 0);
        let mut ids = HashSet::new();
        for n in 0..20_u8 {
            peer.send(&vec![n; n.into()], relayed).await;
            let data = asker.receive_stun().await;
            assert_eq!((data.typ.value(), kinds(&data)), (DATA, vec![PEER, DATA_VALUE]), "unsigned, nothing else");
            assert_eq!(addresses(&data, ATTR_XOR_PEER_ADDRESS), [peer.addr]);
            assert_eq!(data.get(ATTR_DATA).unwrap(), vec![n; n.into()]);
            ids.insert(data.transaction_id.0);
        }
        assert_eq!(ids.len(), 20, "{over:?}");
    }
}

/// RFC 8656, sections 11.3 and 12.7.
#[tokio::test]
async fn what_comes_from_a_bound_peer_is_channel_data_and_from_others_a_data_indication() {
    let scene = Scene::open();
    let (asker, relayed) = scene.allocated().await;
    let [bound, permitted] = [Peer::new().await, Peer::new().await];

    assert_eq!(asker.permit(bound.addr).await, 0);
    meet_by_indication(&asker, relayed, &bound).await;
    assert_eq!(asker.bind(0x4000, bound.addr).await, 0);
    meet_by_channel(&asker, 0x4000, relayed, &bound).await;
    meet_by_indication(&asker, relayed, &permitted).await;
}

/// RFC 8656, section 12: a client may go on using Send indications.
#[tokio::test]
async fn a_send_indication_to_a_bound_peer_is_relayed_all_the_same() {
    let scene = Scene::open();
    let ((asker, relayed), peer) = (scene.allocated().await, Peer::new().await);
    assert_eq!(asker.bind(0x4000, peer.addr).await, 0);

    asker.indicate(peer.addr, b"by indication").await;

    assert_eq!(peer.received().await, (b"by indication".to_vec(), relayed));
}
