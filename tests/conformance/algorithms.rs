//! PASSWORD-ALGORITHMS and MESSAGE-INTEGRITY-SHA256: offered on streams, where a longer 401 costs nobody anything.

use stun::attributes::*;
use stun::message::Setter;

use super::*;

const STREAMS: [Over; 2] = [Over::Tcp, Over::Tls];

/// RFC 8489, sections 9.2.1 and 9.2.4.
#[tokio::test]
async fn algorithms_are_offered_on_streams_by_the_nonce_and_by_their_list_and_over_udp_by_neither() {
    let scene = Scene::open();

    for over in Over::ALL {
        let challenge = scene.alice_over(over).await.exchange(&message(ALLOCATE, &[UDP]).raw).await;
        let (nonce, offered) = (challenge.get(ATTR_NONCE).unwrap(), challenge.get(ALGORITHMS).ok());
        let expected = (over != Over::Udp).then(|| vec![0, 2, 0, 0, 0, 1, 0, 0]);
        assert_eq!(offered, expected, "{over:?}");
        assert_eq!(nonce.starts_with(b"obMatJos2"), over != Over::Udp, "{over:?}");
    }
}

/// RFC 8489, sections 9.2.2, 9.2.5 and 14.6: the answer is signed as the request was.
#[tokio::test]
async fn a_sha_256_proof_is_taken_and_answered_by_one() {
    let scene = Scene::open();

    for over in STREAMS {
        let (mut asker, peer) = (scene.alice_over(over).await, Peer::new().await);
        asker.sha256 = true;
        let relayed = asker.allocate().await;
        assert_eq!(asker.bind(0x4000, peer.addr).await, 0);
        meet_by_channel(&asker, 0x4000, relayed, &peer).await;
        let error = asker.ask(CREATE_PERMISSION, &[]).await;
        assert_eq!((code(&error), kinds(&error)), (400, vec![ATTR_ERROR_CODE.0, ATTR_MESSAGE_INTEGRITY_SHA256.0]));
        asker.password = "wrong".into();
        assert_eq!(asker.refresh(600).await, 401);
    }
}

/// RFC 8489, section 9.2.4: what a client answers to the offer tells whether somebody between has changed it.
#[tokio::test]
async fn an_offer_that_comes_back_otherwise_is_answered_400() {
    let scene = Scene::open();
    let offer: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];

    for over in STREAMS {
        let asker = scene.alice_over(over).await;
        for (given, expected) in [
            (&[(ALGORITHMS.0, offer), (ALGORITHM.0, &[0, 1, 0, 0])][..], 437),
            (&[], 437),
            (&[(ALGORITHMS.0, offer)], 400),
            (&[(ALGORITHM.0, &[0, 1, 0, 0])], 400),
            (&[(ALGORITHMS.0, &offer[4..]), (ALGORITHM.0, &[0, 1, 0, 0])], 400),
            (&[(ALGORITHMS.0, &[0, 1, 0, 0, 0, 2, 0, 0]), (ALGORITHM.0, &[0, 1, 0, 0])], 400),
            (&[(ALGORITHMS.0, offer), (ALGORITHM.0, &[0, 3, 0, 0])], 400),
            (&[(ALGORITHMS.0, offer), (ALGORITHM.0, b"")], 400),
        ] {
            assert_eq!(code(&asker.exchange(&asker.signed(REFRESH, given)).await), expected, "{over:?}: {given:x?}");
        }
    }
}

/// RFC 8489, section 14.6.
#[tokio::test]
async fn nothing_but_a_fingerprint_counts_behind_a_sha_256_integrity() {
    let scene = Scene::open();

    for over in STREAMS {
        let mut asker = scene.alice_over(over).await;
        asker.sha256 = true;
        asker.allocate().await;
        for (kind, value) in [(LIFETIME, &[0; 4][..]), (0x7FFF, b""), (FAMILY, &[2, 0, 0, 0]), (0x0008, &[0; 20])] {
            let mut refresh = parsed(asker.signed(REFRESH, &[]));
            refresh.add(AttrType(kind), value);
            let answer = asker.exchange(&refresh.raw).await;
            assert_eq!((code(&answer), seconds(&answer)), (0, 600), "{over:?}: {kind:#06x}");
        }
        let mut refresh = parsed(asker.signed(REFRESH, &[]));
        stun::fingerprint::FINGERPRINT.add_to(&mut refresh).unwrap();
        assert_eq!(code(&asker.exchange(&refresh.raw).await), 0, "{over:?}");
    }
}

/// RFC 8489, section 14.6: only a usage that says so takes one cut short, and TURN doesn't.
#[tokio::test]
async fn a_sha_256_integrity_that_is_cut_short_is_answered_401() {
    let scene = Scene::open();

    for over in STREAMS {
        let mut asker = scene.alice_over(over).await;
        asker.sha256 = true;
        for (length, expected) in [(32, 437), (28, 401), (20, 401), (16, 401), (12, 401), (0, 401)] {
            let mut refresh = parsed(asker.signed(REFRESH, &[]));
            refresh.raw.truncate(refresh.raw.len() - 36);
            let [l0, l1] = u16::try_from(refresh.raw.len() - 20).unwrap().to_be_bytes();
            refresh.raw[2..4].copy_from_slice(&[l0, l1]);
            let cut = asker.seal(parsed(refresh.raw), length);
            assert_eq!(code(&asker.exchange(&cut).await), expected, "{length} bytes over {over:?}");
        }
    }
}
