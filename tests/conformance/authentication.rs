//! The long-term credential mechanism, and what is signed by whom.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use stun::attributes::*;

use super::*;

const METHODS: [u16; 4] = [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND];
const USERNAME: u16 = 0x0006;
const INTEGRITY: u16 = 0x0008;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;

/// RFC 8489, section 9.2.4.
#[tokio::test]
async fn a_request_without_integrity_is_challenged_with_realm_and_nonce_only() {
    let scene = Scene::open();
    let asker = scene.alice().await;

    for method in METHODS {
        for more in [&[UDP][..], &[UDP, (USERNAME, b"alice")], &[UDP, (USERNAME, b"alice"), (REALM, b"throughway")]] {
            let answer = asker.exchange(&message(method, more).raw).await;
            assert_eq!(answer.typ.value(), method | 0x0110);
            assert_eq!((code(&answer), kinds(&answer)), (401, vec![ATTR_ERROR_CODE.0, REALM, NONCE]));
            assert_eq!(answer.get(ATTR_REALM).unwrap(), b"throughway");
            assert!(answer.get(ATTR_NONCE).unwrap().len() <= 16);
        }
    }
}

/// RFC 8489, section 9.2.4.
#[tokio::test]
async fn an_integrity_without_username_realm_or_nonce_is_answered_400_and_no_challenge() {
    let scene = Scene::open();
    let asker = scene.alice().await;
    let all = [(USERNAME, &b"alice"[..]), (REALM, b"throughway"), (NONCE, &asker.nonce)];

    for method in METHODS {
        for missing in 0..3 {
            let mut given = all.to_vec();
            given.remove(missing);
            given.push((INTEGRITY, &[0; 20]));
            let answer = asker.exchange(&message(method, &given).raw).await;
            assert_eq!((code(&answer), kinds(&answer)), (400, vec![ATTR_ERROR_CODE.0]), "without {:?}", all[missing]);
        }
    }
}

/// RFC 8489, section 9.2.4: whatever else is wrong, the first in this order is told.
#[tokio::test]
async fn checks_are_made_in_their_order() {
    let scene = Scene::open();
    let (mut asker, mut bob) = (scene.alice().await, scene.bob().await);
    let good = (asker.nonce.clone(), asker.user.clone());
    let wrong = [(0x7FFF, &b"what"[..])];
    let unsigned = asker.exchange(&message(REFRESH, &wrong).raw).await;
    let bare = asker.exchange(&message(REFRESH, &[wrong[0], (INTEGRITY, &[0; 20])]).raw).await;
    (asker.nonce, asker.user, asker.realm) = (b"not a nonce".to_vec(), "nobody".into(), "elsewhere".into());

    let mut codes = vec![code(&unsigned), code(&bare)];
    codes.push(asker.code_of(REFRESH, &wrong).await);
    asker.nonce = good.0;
    codes.push(asker.code_of(REFRESH, &wrong).await);
    asker.realm = "throughway".into();
    codes.push(asker.code_of(REFRESH, &wrong).await);
    asker.user = good.1;
    asker.password = "wrong".into();
    codes.push(asker.code_of(REFRESH, &wrong).await);
    asker.password = "wonderland".into();
    codes.push(asker.code_of(REFRESH, &wrong).await);
    codes.push(asker.code_of(REFRESH, &[(LIFETIME, b"")]).await);
    asker.allocate().await;
    codes.push(asker.code_of(REFRESH, &[(LIFETIME, b"")]).await);
    std::mem::swap(&mut asker.line, &mut bob.line);
    std::mem::swap(&mut asker.nonce, &mut bob.nonce);
    codes.push(bob.code_of(REFRESH, &[(LIFETIME, b"")]).await);

    assert_eq!(codes, [401, 400, 438, 401, 401, 401, 420, 437, 400, 441]);
}

/// RFC 8489, section 9.2.4.
#[tokio::test]
async fn a_nonce_that_is_not_good_is_answered_438_with_one_that_is() {
    let scene = Scene::open();
    let mut asker = scene.alice().await;

    for bad in [&b""[..], b"AAAAAAAAAAAAAAAA", b"%s%n\r\n", &[0xFF; 128]] {
        asker.nonce = bad.to_vec();
        let answer = asker.ask(REFRESH, &[]).await;
        assert_eq!((code(&answer), kinds(&answer)), (438, vec![ATTR_ERROR_CODE.0, REALM, NONCE]));
        asker.nonce = answer.get(ATTR_NONCE).unwrap();
        assert_eq!(asker.code_of(REFRESH, &[]).await, 437);
    }
}

/// shared/turn.md, "Requests": a replayed nonce is nobody else's.
#[tokio::test]
async fn a_nonce_is_good_for_the_address_and_transport_it_was_given_to_only() {
    let scene = Scene::open();
    let asker = scene.alice().await;

    for over in Over::ALL {
        let mut thief = scene.alice_over(over).await;
        thief.nonce = asker.nonce.clone();
        assert_eq!(thief.code_of(ALLOCATE, &[UDP]).await, 438, "{over:?}");
    }

    let stream = scene.alice_over(Over::Tcp).await;
    let socket = tokio::net::UdpSocket::bind(stream.line.local_addr()).await.unwrap();
    let mut same = Asker::over(Line::Datagrams(socket, scene.server.udp()), "alice", "wonderland").await;
    let cookie = stream.nonce.len() - same.nonce.len();
    for nonce in [&stream.nonce[..], &stream.nonce[cookie..]] {
        same.nonce = nonce.to_vec();
        assert_eq!(same.code_of(ALLOCATE, &[UDP]).await, 438, "from the same address over another transport");
    }
}

/// RFC 8489, section 9.2.4: and nobody learns which of it was wrong.
#[tokio::test]
async fn an_unknown_user_a_wrong_password_and_a_foreign_realm_get_the_same_401() {
    let scene = Scene::open();
    let mut answers = Vec::new();

    for (user, password, realm) in [
        ("alice", "wrong", "throughway"),
        ("nobody", "wonderland", "throughway"),
        ("", "", "throughway"),
        ("alice", "wonderland", "elsewhere"),
        ("alice", "wonderland", ""),
        ("alice", "builder", "throughway"),
    ] {
        let mut asker = scene.alice().await;
        (asker.user, asker.password, asker.realm) = (user.into(), password.into(), realm.into());
        let answer = asker.ask(ALLOCATE, &[UDP]).await;
        answers.push((code(&answer), kinds(&answer), answer.raw.len()));
    }

    assert!(answers.iter().all(|answer| *answer == (401, vec![ATTR_ERROR_CODE.0, REALM, NONCE], answers[0].2)));
}

/// RFC 8489, section 14.5.
#[tokio::test]
async fn an_integrity_that_covers_another_message_or_is_cut_short_is_answered_401() {
    let scene = Scene::open();
    let asker = scene.alice().await;
    let good = asker.signed(ALLOCATE, &[UDP, (LIFETIME, &600_u32.to_be_bytes())]);

    for at in [8, 35, 45, good.len() - 1] {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert_eq!(code(&asker.exchange(&changed).await), 401, "byte {at}");
    }
    for length in [0, 4, 16, 19, 24, 32] {
        let whole = [&good[good.len() - 20..], &[0; 12]].concat();
        let mut cut = parsed(asker.signed(ALLOCATE, &[UDP])).raw;
        cut.truncate(cut.len() - 24);
        let mut cut = parsed({
            let [l0, l1] = u16::try_from(cut.len() - 20).unwrap().to_be_bytes();
            cut[2..4].copy_from_slice(&[l0, l1]);
            cut
        });
        cut.add(AttrType(INTEGRITY), &whole[..length]);
        assert_eq!(code(&asker.exchange(&cut.raw).await), 401, "{length} bytes");
    }
}

/// shared/turn.md, "Requests".
#[tokio::test]
async fn every_answer_after_authentication_is_signed_and_gives_no_reason() {
    let scene = Scene::with("[turn.limits]\nallocations_per_member = 1\nchannels_per_allocation = 1\n");
    let (asker, second, other) = (scene.allocated().await.0, scene.alice().await, scene.bob().await);
    let (peer, denied, v6) = (xor(addr("127.0.0.1:9")), xor(addr("10.0.0.1:9")), xor(addr("[::1]:9")));
    let number = (NUMBER, &[0x40, 0, 0, 0][..]);
    assert_eq!(asker.bind(0x4001, addr("127.0.0.1:1")).await, 0);

    for (client, method, given, expected) in [
        (&asker, REFRESH, &[(LIFETIME, &b"?"[..])][..], 400),
        (&asker, CREATE_PERMISSION, &[(PEER, &denied)], 403),
        (&asker, REFRESH, &[(0x7FFF, b"")], 420),
        (&other, REFRESH, &[], 437),
        (&asker, ALLOCATE, &[UDP], 437),
        (&other, ALLOCATE, &[UDP, (FAMILY, &[3, 0, 0, 0])], 440),
        (&other, ALLOCATE, &[(UDP.0, &[6, 0, 0, 0])], 442),
        (&asker, CREATE_PERMISSION, &[(PEER, &v6)], 443),
        (&second, ALLOCATE, &[UDP], 486),
        (&asker, CHANNEL_BIND, &[(PEER, &peer), number], 508),
        (&other, ALLOCATE, &[UDP, (TOKEN, &[0; 8])], 508),
    ] {
        // Whose signature it is, `ask` looks at.
        let answer = client.ask(method, given).await;
        assert_eq!(code(&answer), expected);
        assert_eq!(answer.get(ATTR_ERROR_CODE).unwrap().len(), 4, "{expected} with an empty reason phrase");
        assert_eq!(kinds(&answer).last(), Some(&INTEGRITY), "{expected}");
    }
}

/// RFC 8656, sections 5, 8.2, 10.2 and 12.2.
#[tokio::test]
async fn another_user_on_the_5_tuple_is_refused_with_441_and_changes_nothing() {
    let scene = Scene::open();
    let (mut asker, _) = scene.allocated().await;
    (asker.user, asker.password) = ("bob".into(), "builder".into());

    assert_eq!(asker.refresh(0).await, 441);
    assert_eq!(asker.refresh(3600).await, 441);
    assert_eq!(asker.permit(addr("127.0.0.1:9")).await, 441);
    assert_eq!(asker.bind(0x4000, addr("127.0.0.1:9")).await, 441);
    assert_eq!(asker.code_of(ALLOCATE, &[UDP]).await, 437);
    assert_eq!(scene.allocations().await, 1);
    let peer = Peer::new().await;
    scene
        .drops_each(&asker, "no-permission", [message(SEND, &[(PEER, &xor(peer.addr)), (DATA_VALUE, b"x")]).raw])
        .await;
}

/// shared/turn.md, "Requests": a credential's time is in its name, and under its signature.
#[tokio::test]
async fn an_expired_or_forged_time_limited_credential_allocates_nothing() {
    let scene = Scene::open();
    let password = |username: &str| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"north");
        BASE64_STANDARD.encode(ring::hmac::sign(&key, username.as_bytes()))
    };

    for (user, signed, expected) in [
        ("9000000000:carol", "9000000000:carol", 0),
        ("9000000000", "9000000000", 0),
        ("1000000000:carol", "1000000000:carol", 401),
        ("9000000000:carol", "9000000001:carol", 401),
        ("9000000000:carol", "9000000000:alice", 401),
    ] {
        let asker = Asker::new(scene.server.udp(), user, &password(signed)).await;
        assert_eq!(asker.code_of(ALLOCATE, &[UDP]).await, expected, "{user} by the password of {signed}");
    }
}

/// shared/turn.md, "Attacks to keep as tests", and RFC 8489, section 14.3.
#[tokio::test]
async fn whatever_is_in_a_username_is_refused_and_shows_in_no_log_and_no_metric() {
    let scene = Scene::with("[log]\nlevel = \"debug\"\n");
    let asker = scene.alice().await;
    let longest = [b'x'; 513];
    let names: [(&[u8], u16); 12] = [
        (b"%s%s%s%n-evil", 401),
        (b"evil\r\nERROR forged line", 401),
        (b"evil\x1b[31;1m\x1b]0;title\x07", 401),
        (b"evil\"} 1\nthroughway_allocations 99", 401),
        (b"evil'; drop table users; --", 401),
        (b"evil\0zero", 401),
        ("evil\u{202E}\u{200B}".as_bytes(), 401),
        (&longest, 401),
        (&[b'x'; 514], 400),
        (&[b'x'; 4000], 400),
        (b"evil\xFF\xFE\x80", 400),
        (b"\xC0\xAEevil", 400),
    ];

    for (name, expected) in names {
        let proof = [(USERNAME, name), (REALM, b"throughway"), (NONCE, &asker.nonce), (INTEGRITY, &[7; 20])];
        let answer = asker.exchange(&message(ALLOCATE, &[&[UDP], &proof[..]].concat()).raw).await;
        assert_eq!(code(&answer), expected, "{}", name.escape_ascii());
        assert!(!answer.contains(ATTR_USERNAME));
    }

    let said = format!("{}{}", scene.server.log(), scene.server.metrics().await);
    for trace in ["evil", "forged", "xxxx", "\x1b", "\0", "%s", "drop table"] {
        assert!(!said.contains(trace), "{trace:?} shows:\n{said}");
    }
    assert_eq!(scene.allocations().await, 0);
}
