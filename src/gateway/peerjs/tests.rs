//! PeerServer's protocol over in-memory streams, under a paused clock.

use futures_util::SinkExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::gateway::tests::Client;
use crate::gateway::tests::LIMITS;
use crate::gateway::tests::context_for;
use crate::gateway::tests::visitor;
use crate::metrics::Gateway;
use crate::signaling::accounts::Proof;
use crate::signaling::mailbox::Vocabulary;

const SHARED: &str = "0123456789abcdef";

fn context(proof: Proof) -> Arc<Context> {
    context_for(Gateway::PeerJs, proof, 9.0, |settings| {
        settings.presence = false;
        settings.vocabulary = Vocabulary { data: true, presence: false, undelivered: true };
    })
}

fn open() -> Arc<Context> {
    context(Proof::None)
}

/// A client that came with `id` and `token` in its URL.
async fn connect(context: &Arc<Context>, id: &str, token: &str) -> Client {
    let visitor = Visitor { token: Some(token.to_owned()), ..visitor() };
    let (context, query) = (Arc::clone(context), format!("key=peerjs&id={id}&token={token}&version=1.5.5"));
    Client::over(async move |io| serve(context, visitor, &query, io).await).await
}

async fn sign_in(context: &Arc<Context>, id: &str) -> Client {
    let mut client = connect(context, id, &format!("token-of-{id}")).await;
    assert_eq!(client.hear().await, json!({ "type": "OPEN" }));
    client
}

impl Client {
    /// Whether it is there, and nothing came before what it sends itself.
    async fn hears_nothing(&mut self, id: &str) {
        self.send(&json!({ "type": "OFFER", "dst": id, "payload": "marker" })).await;
        assert_eq!(self.hear().await, json!({ "type": "OFFER", "src": id, "dst": id, "payload": "marker" }));
    }
}

fn expired(absent: &str, sender: &str) -> Value {
    json!({ "type": "EXPIRE", "src": absent, "dst": sender })
}

fn refused(msg: &str) -> Value {
    json!({ "type": "ERROR", "payload": { "msg": msg } })
}

#[tokio::test(start_paused = true)]
async fn frames_are_passed_on_by_name_and_stamped_with_their_sender() {
    let context = open();
    let (mut alice, mut bob) = (sign_in(&context, "alice").await, sign_in(&context, "bob").await);

    for kind in ["OFFER", "ANSWER", "CANDIDATE", "EXPIRE", "LEAVE"] {
        alice.send(&json!({ "type": kind, "dst": "bob", "src": "eve", "payload": { "a": [1, "\u{2028}"] } })).await;
        let mut frame = json!({ "type": kind, "src": "alice", "dst": "bob", "payload": { "a": [1, "\u{2028}"] } });
        if kind == "LEAVE" {
            frame.as_object_mut().unwrap().remove("payload");
        }
        assert_eq!(bob.hear().await, frame);
    }
    drop(alice);
    bob.hears_nothing("bob").await;
    assert_eq!(context.metrics.frames(Gateway::PeerJs), 6);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_signed_in_without_all_that_the_url_must_have() {
    let context = open();
    let missing = "No id, token, or key supplied to websocket server";
    let long = "x".repeat(65);
    let bad_name = format!("Invalid id provided: {}", crate::signaling::name::BadName);
    let long = format!("key=peerjs&id={long}");
    for (query, token, why) in [
        ("", Some("t"), missing),
        ("key=peerjs", Some("t"), missing),
        ("id=alice", Some("t"), missing),
        ("key=peerjs&id=alice", None, missing),
        ("key=peerjs&id=alice", Some(""), missing),
        ("key=other&id=alice", Some("t"), "Invalid key provided"),
        ("key=peerjs&id=a%0Ab", Some("t"), &bad_name),
        (&long, Some("t"), &bad_name),
    ] {
        let visitor = Visitor { token: token.map(str::to_owned), ..visitor() };
        let (context, query) = (Arc::clone(&context), query.to_owned());
        let mut client = Client::over(async move |io| serve(context, visitor, &query, io).await).await;
        assert_eq!(client.hear().await, refused(why));
        assert_eq!(client.hear_out().await, (0, Some(4001)));
    }
    assert_eq!(context.metrics.members.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_id_in_use_is_its_tokens_which_takes_it_over_at_once() {
    let context = open();
    let (mut before, mut bob) = (sign_in(&context, "alice").await, sign_in(&context, "bob").await);

    let mut eve = connect(&context, "alice", "eve").await;
    assert_eq!(eve.hear().await, json!({ "type": "ID-TAKEN", "payload": { "msg": "ID is taken" } }));
    assert_eq!(eve.hear_out().await, (0, Some(4001)));
    before.hears_nothing("alice").await;

    let mut after = sign_in(&context, "alice").await;
    assert_eq!(before.hear_out().await, (0, Some(4002)));
    bob.send(&json!({ "type": "OFFER", "dst": "alice", "payload": 1 })).await;
    assert_eq!(after.hear().await["src"], "bob");
    assert_eq!(context.metrics.members.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_all_share_lets_in_and_takes_nothing_over() {
    let context = context(Proof::Token(SHARED.to_owned()));

    let mut eve = connect(&context, "alice", "another-token---").await;
    assert_eq!(eve.hear().await, refused("not allowed to sign in"));
    let mut alice = connect(&context, "alice", SHARED).await;
    assert_eq!(alice.hear().await, json!({ "type": "OPEN" }));
    let mut again = connect(&context, "alice", SHARED).await;
    assert_eq!(again.hear().await["type"], "ID-TAKEN");
    alice.hears_nothing("alice").await;

    drop(alice);
    while connect(&context, "alice", SHARED).await.hear().await["type"] == "ID-TAKEN" {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn guessing_tokens_counts_as_signing_in() {
    let context = open();
    let _alice = sign_in(&context, "alice").await;

    let mut said = Vec::new();
    for guess in 0..9 {
        said.push(connect(&context, "alice", &guess.to_string()).await.hear().await);
    }

    assert!(said[..8].iter().all(|said| said["type"] == "ID-TAKEN"), "{said:?}");
    assert_eq!(said[8], refused("too many sign-ins"));
}

#[tokio::test(start_paused = true)]
async fn what_is_for_somebody_absent_waits_for_it_and_expires() {
    let context = open();
    let mut alice = sign_in(&context, "alice").await;

    for dst in ["bob", "bob", "carol"] {
        alice.send(&json!({ "type": "CANDIDATE", "dst": dst, "payload": { "to": dst } })).await;
    }
    for kind in ["LEAVE", "EXPIRE", "HEARTBEAT"] {
        alice.send(&json!({ "type": kind, "dst": "bob" })).await;
    }
    alice.hears_nothing("alice").await;
    let mut bob = sign_in(&context, "bob").await;
    for _ in 0..2 {
        let frame = json!({ "type": "CANDIDATE", "src": "alice", "dst": "bob", "payload": { "to": "bob" } });
        assert_eq!(bob.hear().await, frame);
    }
    bob.hears_nothing("bob").await;
    let began = context.clock.now().monotonic;
    assert_eq!(alice.hear().await, expired("carol", "alice"));
    assert!(context.clock.now().monotonic - began <= crate::signaling::hub::waiting::WAIT);
    alice.hears_nothing("alice").await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_even_wait_expires_at_once() {
    let context = open();
    let mut alice = sign_in(&context, "alice").await;

    for n in 0..4 {
        alice.send(&json!({ "type": "OFFER", "dst": format!("absent-{n}") })).await;
    }
    assert_eq!(alice.hear().await, expired("absent-3", "alice"), "its source has so many");
    alice.send(&json!({ "type": "OFFER", "dst": "\u{202e}" })).await;
    assert_eq!(alice.hear().await, expired("\u{202e}", "alice"), "nobody can be called that");
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_is_passed_over_and_closes_when_it_is_too_much() {
    let context = open();
    let mut alice = sign_in(&context, "alice").await;

    for nothing in [
        r#"{"type":"HEARTBEAT"}"#,
        r#"{"type":"__proto__","dst":"alice"}"#,
        r#"{"type":"OFFER"}"#,
        r#"{"type":"OFFER","dst":""}"#,
        r#"{"type":"OPEN","dst":"alice","payload":{}}"#,
    ] {
        alice.socket.send(Message::text(nothing)).await.unwrap();
    }
    alice.hears_nothing("alice").await;
    for bad in [Message::text("[]"), Message::binary(vec![0]), Message::text(r#"{"type":"OFFER","dst":7}"#)] {
        alice.socket.send(bad).await.unwrap();
    }
    assert_eq!(alice.hear_out().await, (0, Some(4400)));

    let mut bob = sign_in(&context, "bob").await;
    bob.send(&json!({ "type": "LEAVE" })).await;
    assert_eq!(bob.hear_out().await, (0, Some(1000)), "it leaves");
    let mut carol = sign_in(&context, "carol").await;
    carol.socket.send(Message::text("x".repeat(LIMITS.message_bytes + 1))).await.unwrap();
    assert_eq!(carol.hear().await, refused("A message has at most 65536 bytes"));
    assert_eq!(carol.hear_out().await, (0, Some(1009)));
}

#[tokio::test(start_paused = true)]
async fn frames_beyond_the_rate_expire_and_a_flood_ends() {
    let context = open();
    let (mut alice, mut bob) = (sign_in(&context, "alice").await, sign_in(&context, "bob").await);

    for _ in 0..200 {
        alice.send(&json!({ "type": "CANDIDATE", "dst": "bob" })).await;
        bob.hear().await;
    }
    alice.send(&json!({ "type": "CANDIDATE", "dst": "bob" })).await;

    assert_eq!(alice.hear().await, expired("bob", "alice"));
    let mut said = 0;
    while alice.socket.send(Message::text(r#"{"type":"HEARTBEAT"}"#)).await.is_ok() && said < 1000 {
        said += 1;
    }
    assert_eq!(alice.hear_out().await, (0, Some(4400)));
    bob.hears_nothing("bob").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_only_beats_stays_and_one_that_is_silent_is_gone() {
    let context = open();
    let mut alice = sign_in(&context, "alice").await;
    let (silent, far) = tokio::io::duplex(4096);
    let visitor = Visitor { token: Some("t".to_owned()), ..visitor() };
    let served = tokio::spawn({
        let context = Arc::clone(&context);
        async move { serve(context, visitor, "key=peerjs&id=silent", far).await }
    });

    while context.metrics.members.get() < 2 {
        tokio::task::yield_now().await;
    }
    while !served.is_finished() {
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        alice.send(&json!({ "type": "HEARTBEAT" })).await;
        tokio::task::yield_now().await;
    }

    assert_eq!(context.metrics.members.get(), 1);
    alice.hears_nothing("alice").await;
    drop(silent);
}
