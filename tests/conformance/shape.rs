//! Messages: what is read, what is passed over, what falls away.

use stun::attributes::*;
use stun::message::Setter;

use super::*;

const UNKNOWN: (u16, &[u8]) = (0x7FFF, b"");

/// An Allocate request, changed.
fn allocate(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut raw = message(ALLOCATE, &[UDP]).raw;
    change(&mut raw);
    raw
}

fn with_fingerprint(mut message: stun::message::Message) -> Vec<u8> {
    stun::fingerprint::FINGERPRINT.add_to(&mut message).unwrap();
    message.raw
}

/// RFC 8489, sections 5 and 6.3.
#[tokio::test]
async fn a_header_that_is_not_stuns_or_a_length_that_is_not_its_own_is_dropped() {
    let scene = Scene::open();
    let asker = scene.alice().await;

    scene
        .drops_each(
            &asker,
            "malformed",
            [
                allocate(|raw| raw[4] ^= 1),
                allocate(|raw| raw[3] = 7),
                allocate(|raw| raw[3] = 4),
                allocate(|raw| raw[3] = 12),
                allocate(|raw| raw[2..4].copy_from_slice(&[0xFF, 0xFC])),
                allocate(|raw| raw.truncate(19)),
                allocate(|raw| raw.extend([0; 4])),
                allocate(|raw| raw[23] = 5),
                allocate(|raw| raw[22..24].copy_from_slice(&[0xFF, 0xFC])),
                vec![0],
            ],
        )
        .await;
    let others = [allocate(|raw| raw[0] |= 0x80), allocate(|raw| raw[0] |= 0xC0), vec![], vec![0xFF; 1400]];
    scene.drops_each(&asker, "not-turn", others).await;
}

/// RFC 8489, sections 6.3.1 to 6.3.4: a server asks nothing, and takes no indication but Send.
#[tokio::test]
async fn responses_and_methods_and_indications_that_no_client_sends_are_dropped() {
    let scene = Scene::open();
    let (asker, _) = scene.allocated().await;
    let responses = [0x0101, 0x0111, 0x0103, 0x0113, 0x0118].map(|kind| message(kind, &[UDP]).raw);
    let indications = [0x0013, 0x0014, DATA, 0x0018, 0x3EFF].map(|kind| message(kind, &[UDP]).raw);
    let methods = [0x0000, 0x0002, 0x0005, 0x0006, 0x0007, 0x000A, 0x3EEF].map(|kind| asker.signed(kind, &[UDP]));

    for sent in [&responses[..], &indications, &methods] {
        scene.drops_each(&asker, "unexpected", sent.iter().cloned()).await;
    }
}

/// RFC 8489, sections 6.3.1 and 14.9.
#[tokio::test]
async fn required_attributes_that_nobody_knows_are_listed_once_each_in_a_signed_420() {
    let scene = Scene::open();
    let (asker, _) = scene.allocated().await;
    let given = [UNKNOWN, (0x8099, b""), (0x0024, &[0; 4]), UNKNOWN, (0x7FFE, b"")];

    for method in [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
        let answer = asker.ask(method, &given).await;
        assert_eq!(code(&answer), 420);
        assert_eq!(answer.get(ATTR_UNKNOWN_ATTRIBUTES).unwrap(), [0x7F, 0xFF, 0x00, 0x24, 0x7F, 0xFE]);
    }
}

/// RFC 8489, section 6.3.2.
#[tokio::test]
async fn an_indication_with_a_required_attribute_that_nobody_knows_is_dropped() {
    let scene = Scene::open();
    let (asker, peer) = (scene.allocated().await.0, Peer::new().await);
    assert_eq!(asker.permit(peer.addr).await, 0);
    let send = |more| message(SEND, &[(PEER, &xor(peer.addr)), (DATA_VALUE, b"data"), more]).raw;

    scene.drops_each(&asker, "unexpected", [send(UNKNOWN)]).await;
    peer.heard_nothing().await;
    asker.send(&send((0x8099, b"optional"))).await;
    assert_eq!(peer.received().await.0, b"data");
}

/// RFC 8489, section 14.5.
#[tokio::test]
async fn attributes_behind_the_integrity_do_not_count_whatever_they_are() {
    let scene = Scene::open();
    let (asker, _) = scene.allocated().await;

    for (kind, value) in [(LIFETIME, &[0; 4][..]), UNKNOWN, (FAMILY, &[2, 0, 0, 0]), (0x0006, b"bob")] {
        let mut message = parsed(asker.signed(REFRESH, &[]));
        message.add(AttrType(kind), value);
        let answer = asker.exchange(&message.raw).await;
        assert_eq!((code(&answer), seconds(&answer)), (0, 600), "{kind:#06x}");
    }

    let mut unsigned_peer = parsed(asker.signed(CREATE_PERMISSION, &[]));
    unsigned_peer.add(ATTR_XOR_PEER_ADDRESS, &xor(addr("127.0.0.1:9")));
    assert_eq!(code(&asker.exchange(&unsigned_peer.raw).await), 400, "as if there were none");
}

/// RFC 8489, section 14.
#[tokio::test]
async fn of_attributes_that_come_twice_the_first_counts() {
    let scene = Scene::open();
    let (asker, peer, other) = (scene.allocated().await.0, Peer::new().await, Peer::new().await);
    let lifetimes = [(LIFETIME, &1200_u32.to_be_bytes()[..]), (LIFETIME, &[0; 4])];

    assert_eq!(seconds(&asker.ask(REFRESH, &lifetimes).await), 1200);
    assert_eq!(asker.permit(peer.addr).await, 0);
    let (first, second) = (xor(peer.addr), xor(other.addr));
    let send = [(PEER, &first[..]), (DATA_VALUE, b"first"), (PEER, &second), (DATA_VALUE, b"second")];
    asker.send(&message(SEND, &send).raw).await;
    assert_eq!(peer.received().await.0, b"first");
    asker.hears_nothing().await;
    other.heard_nothing().await;
}

/// RFC 8489, sections 7.3 and 14.7.
#[tokio::test]
async fn a_fingerprint_is_right_and_last_or_the_message_is_dropped() {
    let scene = Scene::open();
    let asker = scene.alice().await;
    let good = with_fingerprint(message(ALLOCATE, &[UDP]));
    let mut wrong = good.clone();
    *wrong.last_mut().unwrap() ^= 1;
    // Right for the bytes before it, and yet not the last.
    let early = |behind: (u16, &[u8])| {
        let mut message = message(ALLOCATE, &[UDP, (0x8028, &[0; 4]), behind]).raw;
        let right = stun::fingerprint::fingerprint_value(&message[..28]);
        message[32..36].copy_from_slice(&right.to_be_bytes());
        message
    };
    let mut short = message(ALLOCATE, &[UDP]);
    short.add(AttrType(0x8028), &[0; 2]);

    assert_eq!(code(&asker.exchange(&good).await), 401);
    let not_last = [early((0x8022, b"software")), early((0x8028, &good[32..])), early((0x8022, b""))];
    scene.drops_each(&asker, "malformed", [&[wrong, short.raw][..], &not_last].concat()).await;
}

/// RFC 8489, section 14.7: behind the integrity, where nothing else counts.
#[tokio::test]
async fn a_fingerprint_behind_the_integrity_is_looked_at() {
    let scene = Scene::open();
    let asker = scene.alice().await;
    let good = with_fingerprint(parsed(asker.signed(ALLOCATE, &[UDP])));
    let mut wrong = with_fingerprint(parsed(asker.signed(ALLOCATE, &[UDP])));
    *wrong.last_mut().unwrap() ^= 1;

    scene.drops_each(&asker, "malformed", [wrong]).await;
    assert_eq!(code(&asker.exchange(&good).await), 0);
}

/// RFC 8489, section 14.2.
#[tokio::test]
async fn an_address_is_read_from_8_or_20_bytes_of_its_family_and_from_no_others() {
    let scene = Scene::open();
    let asker = scene.alice().await;
    asker.allocate_both().await;
    let number = (NUMBER, &[0x40, 0, 0, 0][..]);

    for family in [0, 1, 2, 3] {
        for length in (0..=24).filter(|length| (family, *length) != (1, 8) && (family, *length) != (2, 20)) {
            let mut value = vec![0x55; length];
            value.get_mut(1).into_iter().for_each(|byte| *byte = family);
            let at = format!("family {family} in {length} bytes");
            assert_eq!(asker.code_of(CREATE_PERMISSION, &[(PEER, &value)]).await, 400, "{at}");
            assert_eq!(asker.code_of(CHANNEL_BIND, &[(PEER, &value), number]).await, 400, "{at}");
            scene.drops_each(&asker, "malformed", [message(SEND, &[(PEER, &value), (DATA_VALUE, b"x")]).raw]).await;
        }
    }
}

/// RFC 8656, section 18.
#[tokio::test]
async fn attributes_of_another_length_than_theirs_are_answered_400() {
    let scene = Scene::open();
    let (asker, _) = scene.allocated().await;
    let other = scene.bob().await;
    let peer = (PEER, &xor(addr("127.0.0.1:9"))[..]);

    for length in (0..=12).filter(|length| *length != 4) {
        let value = &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..length];
        assert_eq!(asker.code_of(REFRESH, &[(LIFETIME, value)]).await, 400, "{length}");
        assert_eq!(asker.code_of(REFRESH, &[(FAMILY, value)]).await, 400, "{length}");
        assert_eq!(asker.code_of(CHANNEL_BIND, &[peer, (NUMBER, value)]).await, 400, "{length}");
        assert_eq!(other.code_of(ALLOCATE, &[(UDP.0, value)]).await, 400, "{length}");
        assert_eq!(other.code_of(ALLOCATE, &[UDP, (LIFETIME, value)]).await, 400, "{length}");
        assert_eq!(other.code_of(ALLOCATE, &[UDP, (FAMILY, value)]).await, 400, "{length}");
        assert_eq!(other.code_of(ALLOCATE, &[UDP, (BOTH.0, value)]).await, 400, "{length}");
        if length != 1 {
            assert_eq!(other.code_of(ALLOCATE, &[UDP, (EVEN_PORT, value)]).await, 400, "{length}");
        }
        if length != 8 {
            assert_eq!(other.code_of(ALLOCATE, &[UDP, (TOKEN, value)]).await, 400, "{length}");
        }
    }
}

/// RFC 8489, section 14.
#[tokio::test]
async fn padding_is_zero_where_we_send_it_and_anything_where_we_receive_it() {
    let scene = Scene::open();
    let ((asker, relayed), peer) = (scene.allocated().await, Peer::new().await);
    let mut padded = message(BINDING, &[(0x8022, b"odd")]).raw;
    *padded.last_mut().unwrap() = 0xEE;

    assert_eq!(asker.exchange(&padded).await.typ.value(), 0x0101);
    assert_eq!(asker.permit(peer.addr).await, 0);
    for size in 0..8 {
        peer.send(&vec![0xFF; size], relayed).await;
        // That the padding is zero is what every message is looked at for.
        assert_eq!(asker.receive_stun().await.get(ATTR_DATA).unwrap(), vec![0xFF; size]);
    }
}
