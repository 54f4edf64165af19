//! PASSWORD-ALGORITHMS and MESSAGE-INTEGRITY-SHA256 (RFC 8489, section 9.2).

use ring::digest;
use ring::hmac;

use super::*;
use crate::address::FiveTuple;
use crate::address::Transport;

const OFFER: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];
const SHA1: (hmac::Algorithm, u16) = (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 0x0008);
const SHA256: (hmac::Algorithm, u16) = (hmac::HMAC_SHA256, 0x001C);

/// A world whose client came over a stream, with the challenge that it got.
async fn over(transport: Transport) -> (World, Message) {
    let mut world = World::new(|_| ());
    world.client = FiveTuple { transport, ..world.client };
    let message = world.message(ALLOCATE, &self::transport());
    let challenge = parsed(&world.send(&message.raw).await.unwrap());
    world.nonce = challenge.get(ATTR_NONCE).unwrap();
    (world, challenge)
}

/// The key of alice's password by the algorithm of this number.
fn key(algorithm: u8) -> Vec<u8> {
    let text = b"alice:throughway:wonderland";
    match algorithm {
        1 => MessageIntegrity::new_long_term_integrity("alice".into(), "throughway".into(), "wonderland".into()).0,
        _ => digest::digest(&digest::SHA256, text).as_ref().to_vec(),
    }
}

fn integrity(raw: &[u8], hash: hmac::Algorithm, key: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hash, key), raw).as_ref().to_vec()
}

/// Adds an integrity as a client does.
fn sign(message: &mut Message, (hash, kind): (hmac::Algorithm, u16), key: &[u8]) {
    let at = message.raw.len();
    let length = hash.digest_algorithm().output_len();
    message.add(AttrType(kind), &vec![0; length]);
    let right = integrity(&message.raw[..at], hash, key);
    message.raw[at + 4..].copy_from_slice(&right);
}

fn asking(world: &mut World, algorithms: Given) -> Message {
    let mut message = world.message(ALLOCATE, &transport());
    message.add(ATTR_USERNAME, b"alice");
    message.add(ATTR_REALM, b"throughway");
    message.add(ATTR_NONCE, &world.nonce.clone());
    for (kind, value) in algorithms {
        message.add(AttrType(kind), &value);
    }
    message
}

fn chosen(offer: &[u8], algorithm: u8) -> Given {
    vec![(0x8002, offer.to_vec()), (0x001D, vec![0, algorithm, 0, 0])]
}

/// Whether the answer's last attribute is this kind of integrity, and right.
fn is_signed(answer: &[u8], (hash, kind): (hmac::Algorithm, u16), key: &[u8]) -> bool {
    let length = hash.digest_algorithm().output_len();
    let at = answer.len() - length - 4;
    answer[at..at + 2] == kind.to_be_bytes() && answer[at + 4..] == integrity(&answer[..at], hash, key)
}

#[tokio::test(start_paused = true)]
async fn streams_are_offered_password_algorithms_by_a_nonce_that_says_so_and_datagrams_are_not() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let (world, challenge) = over(transport).await;

        assert_eq!(challenge.get(AttrType(0x8002)).unwrap(), OFFER);
        assert!(world.nonce.starts_with(b"obMatJos2gAAB"));
    }

    let (world, challenge) = over(Transport::Udp).await;
    assert!(challenge.get(AttrType(0x8002)).is_err());
    assert_eq!(world.nonce.len(), 16);
}

#[tokio::test(start_paused = true)]
async fn every_algorithm_and_integrity_proves_and_the_answer_is_signed_likewise() {
    for (algorithm, signature) in [(1, SHA1), (1, SHA256), (2, SHA1), (2, SHA256)] {
        let (mut world, _) = over(Transport::Tls).await;
        let mut message = asking(&mut world, chosen(&OFFER, algorithm));
        sign(&mut message, signature, &key(algorithm));

        let answer = world.send(&message.raw).await.unwrap();

        assert_eq!(code(&parsed(&answer)), 0, "algorithm {algorithm}");
        assert!(is_signed(&answer, signature, &key(algorithm)), "algorithm {algorithm}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_knows_nothing_of_algorithms_is_taken_for_md5() {
    let (mut world, _) = over(Transport::Tcp).await;
    let mut old = asking(&mut world, Given::new());
    sign(&mut old, SHA1, &key(1));

    let answer = world.send(&old.raw).await.unwrap();

    assert_eq!(code(&parsed(&answer)), 0);
    assert!(is_signed(&answer, SHA1, &key(1)));
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_is_changed_or_half_taken_is_refused_before_anything_else() {
    let md5_only = [0, 1, 0, 0];
    for algorithms in [
        chosen(&md5_only, 1),
        chosen(&OFFER, 3),
        chosen(&OFFER, 2)[..1].to_vec(),
        chosen(&OFFER, 2)[1..].to_vec(),
        vec![(0x8002, OFFER.to_vec()), (0x001D, vec![0, 2])],
    ] {
        let (mut world, _) = over(Transport::Tcp).await;
        let mut message = asking(&mut world, algorithms.clone());
        sign(&mut message, SHA256, &key(2));

        let answer = parsed(&world.send(&message.raw).await.unwrap());

        assert_eq!(code(&answer), 400, "{algorithms:?}");
        assert!(answer.get(ATTR_NONCE).is_err() && answer.get(ATTR_MESSAGE_INTEGRITY).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stripped_nonce_cookie_is_a_nonce_that_was_not_issued() {
    let (mut world, _) = over(Transport::Tcp).await;
    world.nonce.drain(..b"obMatJos2gAAB".len());
    let mut message = asking(&mut world, Given::new());
    sign(&mut message, SHA1, &key(1));

    let answer = parsed(&world.send(&message.raw).await.unwrap());

    assert_eq!(code(&answer), 438);
    assert_eq!(answer.get(AttrType(0x8002)).unwrap(), OFFER, "the offer comes with every nonce");
}

#[tokio::test(start_paused = true)]
async fn of_two_integrities_the_stronger_counts_and_a_cut_one_proves_nothing() {
    let (mut world, _) = over(Transport::Tcp).await;
    let mut both = asking(&mut world, chosen(&OFFER, 2));
    sign(&mut both, SHA1, &key(2));
    sign(&mut both, SHA256, b"another");
    let mut cut = asking(&mut world, chosen(&OFFER, 2));
    let right = {
        let at = cut.raw.len();
        cut.add(AttrType(SHA256.1), &[0; 16]);
        integrity(&cut.raw[..at], SHA256.0, &key(2))
    };
    let at = cut.raw.len() - 16;
    cut.raw[at..].copy_from_slice(&right[..16]);

    assert_eq!(code(&parsed(&world.send(&both.raw).await.unwrap())), 401);
    assert_eq!(code(&parsed(&world.send(&cut.raw).await.unwrap())), 401);

    let mut right = asking(&mut world, chosen(&OFFER, 2));
    sign(&mut right, SHA1, b"another");
    sign(&mut right, SHA256, &key(2));
    let answer = world.send(&right.raw).await.unwrap();
    assert!(is_signed(&answer, SHA256, &key(2)));
}

#[tokio::test(start_paused = true)]
async fn what_stands_behind_a_sha256_integrity_does_not_count() {
    let (mut world, _) = over(Transport::Tcp).await;
    let mut message = asking(&mut world, chosen(&OFFER, 2));
    sign(&mut message, SHA256, &key(2));
    message.add(ATTR_LIFETIME, &3600_u32.to_be_bytes());

    let answer = parsed(&world.send(&message.raw).await.unwrap());

    assert_eq!(seconds(&answer), 600);
}
