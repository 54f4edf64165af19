//! Clients over in-memory streams, under a clock that jumps to the next deadline.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::SinkExt;
use futures_util::StreamExt;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::credentials;
use crate::credentials::Credentials;
use crate::credentials::SessionId;
use crate::gateway::FAREWELL;
use crate::gateway::dismiss;
use crate::gateway::tests::*;
use crate::metrics::Gateway;

impl Client {
    async fn connect(context: &Arc<Context>, dialect: Dialect) -> Self {
        let context = Arc::clone(context);
        Self::over(|io| serve(context, visitor(), dialect, io)).await
    }

    async fn sign_in(context: &Arc<Context>, dialect: Dialect, name: &str) -> Self {
        let mut client = Self::connect(context, dialect).await;
        client.send(&json!({ "type": "login", "name": name })).await;
        while client.hear().await["success"] != true {}
        client
    }
}

mod change;
mod pace;
mod second;

#[tokio::test(start_paused = true)]
async fn a_member_is_told_its_name_session_and_ice_servers() {
    let context = context(9.0);
    let mut client = Client::connect(&context, Dialect::Strings).await;

    client.send(&json!({ "type": "login", "name": "Zoe\u{308}", "v": 1, "resume": "x", "myName": "no" })).await;

    assert_eq!(client.hear().await, json!({ "status": "success" }));
    let reply = client.hear().await;
    let session = reply["session"].as_str().unwrap();
    let username = reply["iceServers"][1]["username"].as_str().unwrap();
    assert_eq!((&reply["success"], &reply["name"], &reply["iceTtl"]), (&json!(true), &json!("Zo\u{eb}"), &json!(3600)));
    assert_eq!(reply["myName"], reply["name"]);
    assert_eq!(username.split_once(':').unwrap().1, format!("~{session}"));
    assert_eq!((reply.get("resume"), reply.get("id")), (None, None), "the first version has no such things");
    assert_eq!(context.metrics.members.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn logins_fail_for_a_reason_and_may_be_tried_again() {
    let context = context(3.0);
    let _bob = Client::sign_in(&context, Dialect::Objects, "bob").await;
    let mut client = Client::connect(&context, Dialect::Objects).await;

    for (name, reason) in [
        (json!("bob"), "name-taken"),
        (json!(""), "bad-name"),
        (json!(null), "bad-name"),
        (json!(7), "bad-name"),
        (json!("a\u{202e}b"), "bad-name"),
        (json!("bob"), "name-taken"),
        (json!("carol"), "rate"),
    ] {
        client.send(&json!({ "type": "login", "name": name })).await;
        assert_eq!(client.hear().await, json!({ "type": "login", "success": false, "reason": reason }), "{name}");
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    client.send(&json!({ "type": "login", "name": "carol" })).await;
    assert_eq!(client.hear().await["success"], true);
    client.send(&json!({ "type": "login", "name": "dave" })).await;
    assert_eq!(client.hear().await["code"], "forbidden");
}

#[tokio::test(start_paused = true)]
async fn a_kicked_member_is_closed_with_4000_and_its_partners_hear_leave() {
    let context = context(9.0);
    let mut alice = Client::sign_in(&context, Dialect::Objects, "alice").await;
    let mut bob = Client::sign_in(&context, Dialect::Objects, "bob").await;
    alice.send(&json!({ "type": "offer", "name": "bob", "offer": {} })).await;
    bob.hear().await;
    let name = Name::new("alice").unwrap();

    let banned = context.sessions.ban(name.clone(), context.clock.now());

    assert_eq!(banned.map(|banned| banned.kicked), Ok(true));
    assert_eq!(alice.hear_out().await, (0, Some(4000)));
    assert_eq!(bob.hear().await, json!({ "type": "leave", "name": "alice" }));
    let mut again = Client::connect(&context, Dialect::Objects).await;
    again.send(&json!({ "type": "login", "name": "alice" })).await;
    assert_eq!(again.hear().await["reason"], "auth");
    assert!(context.sessions.unban(&name));
    again.send(&json!({ "type": "login", "name": "alice" })).await;
    assert_eq!(again.hear().await["success"], true);
}

#[tokio::test(start_paused = true)]
async fn candidates_open_peers_to_whom_they_are_sent_and_to_nobody_else() {
    let settings = credentials::Settings { signaled_peers: true, ..Default::default() };
    let credentials = Arc::new(Credentials::new(settings));
    let context = context_with(9.0, Arc::clone(&credentials));
    let mut alice = Client::connect(&context, Dialect::Objects).await;
    let mut bob = Client::connect(&context, Dialect::Strings).await;
    assert_eq!(bob.hear().await, json!({ "status": "success" }));
    let sessions = [(&mut alice, "alice"), (&mut bob, "bob")].map(async |(client, name)| {
        client.send(&json!({ "type": "login", "name": name })).await;
        client.hear().await["session"].as_str().unwrap().parse::<SessionId>().unwrap()
    });
    let [at_alice, at_bob] = futures_util::future::join_all(sessions).await[..] else { panic!("two sessions") };
    let reaches = |session, ip: &str| credentials.may_reach(session, ip.parse().unwrap());
    let candidate = |ip| json!({ "candidate": format!("candidate:1 1 udp 1 {ip} 9 typ host"), "sdpMid": "0" });

    alice.send(&json!({ "type": "candidate", "name": "alice", "candidate": candidate("8.8.8.1") })).await;
    alice.send(&json!({ "type": "candidate", "name": "bob", "candidate": candidate("8.8.8.2") })).await;
    alice.send(&json!({ "type": "offer", "name": "bob", "offer": { "sdp": "v=0\r\nc=IN IP4 8.8.8.3\r\n" } })).await;
    let answer = json!({ "sdp": "a=candidate:1 1 udp 1 8.8.8.4 9 typ host\r\n" }).to_string();
    bob.hear().await;
    bob.hear().await;
    bob.send(&json!({ "type": "answer", "name": "alice", "answer": answer })).await;
    while alice.hear().await["type"] != "answer" {}

    assert!(reaches(at_bob, "8.8.8.2") && reaches(at_bob, "8.8.8.3") && reaches(at_alice, "8.8.8.4"));
    for (session, ip) in [(at_alice, "8.8.8.1"), (at_alice, "8.8.8.2"), (at_bob, "8.8.8.1"), (at_bob, "8.8.8.4")] {
        assert!(!reaches(session, ip), "{ip}");
    }
}

#[tokio::test(start_paused = true)]
async fn payloads_are_handed_out_as_the_recipient_has_them_however_they_came() {
    let context = context(9.0);
    let mut objects = Client::sign_in(&context, Dialect::Objects, "objects").await;
    let mut strings = Client::sign_in(&context, Dialect::Strings, "strings").await;
    let offer = json!({ "type": "offer", "sdp": "v=0\r\ns=\"\u{2028}\\" });

    for sent in [offer.clone(), json!(offer.to_string())] {
        objects.send(&json!({ "type": "offer", "name": "strings", "offer": sent })).await;
        let heard = strings.hear().await;
        assert_eq!(serde_json::from_str::<Value>(heard["offer"].as_str().unwrap()).unwrap(), offer);
        assert_eq!(heard["name"], "objects");

        strings.send(&json!({ "type": "offer", "name": "objects", "offer": sent, "myName": "eve" })).await;
        assert_eq!(objects.hear().await, json!({ "type": "offer", "name": "strings", "offer": offer }));
    }
    objects.send(&json!({ "type": "candidate", "name": "strings", "candidate": null })).await;
    assert_eq!(strings.hear().await, json!({ "type": "candidate", "name": "objects", "candidate": "null" }));
}

#[tokio::test(start_paused = true)]
async fn partners_hear_leave_when_a_connection_breaks() {
    let context = context(9.0);
    let mut alice = Client::sign_in(&context, Dialect::Objects, "alice").await;
    let mut bob = Client::sign_in(&context, Dialect::Objects, "bob").await;
    alice.send(&json!({ "type": "offer", "name": "bob", "offer": {} })).await;
    bob.hear().await;

    drop(alice);

    assert_eq!(bob.hear().await, json!({ "type": "leave", "name": "alice" }));
    assert_eq!(context.metrics.members.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_sign_in_within_two_minutes_is_closed() {
    let context = context(9.0);
    let began = context.clock.now().monotonic;
    let mut client = Client::connect(&context, Dialect::Objects).await;

    let (_, code) = client.hear_out().await;

    assert_eq!(code, Some(4001));
    assert_eq!(context.clock.now().monotonic - began, Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn a_silent_member_is_pinged_and_gone_at_45_s() {
    let context = context(9.0);
    let mut alive = Client::sign_in(&context, Dialect::Objects, "alive").await;
    let dead = Client::sign_in(&context, Dialect::Objects, "dead").await;
    let began = context.clock.now().monotonic;

    let pongs = async { while alive.socket.next().await.is_some() {} };
    tokio::select! {
        () = pongs => panic!("who answers pings stays"),
        ended = dead.served => ended.unwrap(),
    }

    assert_eq!(context.clock.now().monotonic - began, Duration::from_secs(45));
    assert_eq!(context.metrics.members.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_is_closed_after_a_second_and_never_holds_its_sender_back() {
    let context = context(9.0);
    let mut stalled = Client::sign_in(&context, Dialect::Objects, "stalled").await;
    let mut sender = Client::sign_in(&context, Dialect::Objects, "sender").await;
    let offer = json!({ "type": "offer", "name": "stalled", "offer": "x".repeat(60_000) });

    for _ in 0..6 {
        sender.send(&offer).await;
    }
    let refused = sender.hear().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    sender.send(&offer).await;

    assert_eq!((&refused["code"], &refused["name"]), (&json!("rate"), &json!("stalled")));
    while sender.hear().await != json!({ "type": "leave", "name": "stalled" }) {}
    assert_eq!(stalled.hear_out().await.1, Some(4008));
    stalled.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_that_never_reads_again_is_dropped_all_the_same() {
    let context = context(9.0);
    let stalled = Client::sign_in(&context, Dialect::Objects, "stalled").await;
    let mut sender = Client::sign_in(&context, Dialect::Objects, "sender").await;
    let offer = json!({ "type": "offer", "name": "stalled", "offer": "x".repeat(60_000) });

    for _ in 0..6 {
        sender.send(&offer).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    sender.send(&offer).await;

    stalled.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_its_answers_is_not_read_and_then_gone() {
    let context = context(9.0);
    let mut client = Client::sign_in(&context, Dialect::Objects, "flood").await;
    let began = context.clock.now().monotonic;

    while client.socket.send(Message::text(r#"{"type":"ping"}"#)).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    client.served.await.unwrap();

    assert!(context.clock.now().monotonic - began < Duration::from_secs(120));
    assert!(context.metrics.frames(Gateway::Json) < 400, "{}", context.metrics.frames(Gateway::Json));
}

#[tokio::test(start_paused = true)]
async fn messages_beyond_the_rate_are_dropped_with_an_error_and_persistence_ends_it() {
    let context = context(9.0);
    let mut client = Client::sign_in(&context, Dialect::Objects, "flood").await;

    for _ in 1..200 {
        client.send(&json!({ "type": "ping" })).await;
        assert_eq!(client.hear().await, json!({ "type": "pong" }));
    }
    client.send(&json!({ "type": "ping" })).await;
    assert_eq!(client.hear().await["code"], "rate");
    for _ in 1..200 {
        client.send(&json!({ "type": "ping" })).await;
        assert_eq!(client.hear().await["code"], "rate");
    }
    client.send(&json!({ "type": "ping" })).await;

    assert_eq!(client.hear_out().await, (0, Some(4400)));
}

#[tokio::test(start_paused = true)]
async fn every_connection_is_closed_with_1012_at_the_end() {
    let context = context(9.0);
    let mut member = Client::sign_in(&context, Dialect::Objects, "member").await;
    let mut stranger = Client::connect(&context, Dialect::Objects).await;

    context.shutdown.cancel();

    assert_eq!(member.hear_out().await.1, Some(1012));
    assert_eq!(stranger.hear_out().await.1, Some(1012));
    member.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn at_the_end_nobody_hears_that_others_leave_and_not_all_are_told_in_one_moment() {
    let context = context(1e9);
    let (farewell, stop) = (CancellationToken::new(), CancellationToken::new());
    let dismissing = dismiss(Arc::clone(&context.sessions), farewell.clone(), stop);
    let mut members = Vec::new();
    for number in 0..300 {
        members.push(Client::sign_in(&context, Dialect::Objects, &format!("member{number}")).await);
    }
    // Each is in a call with the next.
    for number in 0..150 {
        let offer = json!({ "type": "offer", "name": format!("member{}", 2 * number + 1), "offer": {} });
        members[2 * number].send(&offer).await;
        assert_eq!(members[2 * number + 1].hear().await["type"], "offer");
    }

    let dismissing = tokio::spawn(dismissing);
    let began = context.clock.now().monotonic;
    farewell.cancel();
    let all =
        members.into_iter().map(async |mut member| (member.hear_out().await, context.clock.now().monotonic - began));
    let closed = futures_util::future::join_all(all).await;

    assert!(closed.iter().all(|(end, _)| *end == (0, Some(1012))), "{closed:?}");
    let early = closed.iter().filter(|(_, after)| *after < FAREWELL / 10).count();
    let last = closed.iter().map(|(_, after)| *after).max().unwrap();
    assert!(
        (1..150).contains(&early) && last > FAREWELL / 4 && last <= FAREWELL,
        "{early} early, the last after {last:?}"
    );
    dismissing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn three_bad_frames_are_answered_and_close() {
    let context = context(9.0);
    let mut client = Client::sign_in(&context, Dialect::Objects, "bad").await;

    for bad in ["null", "[\"login\",\"x\"]", "not json"] {
        client.socket.send(Message::text(bad)).await.unwrap();
    }

    assert_eq!(client.hear_out().await, (3, Some(4400)));
}

#[tokio::test(start_paused = true)]
async fn bye_closes_and_frees_the_name() {
    let context = context(9.0);
    let mut client = Client::sign_in(&context, Dialect::Objects, "bob").await;

    client.send(&json!({ "type": "bye" })).await;

    assert_eq!(client.hear_out().await, (0, Some(1000)));
    Client::sign_in(&context, Dialect::Objects, "bob").await;
}

#[test]
fn commands_that_there_are_not_are_honestly_unknown() {
    for kind in ["resume", "presence", "Login", "", &"x".repeat(1000)] {
        let incoming = Incoming::read(&json!({ "type": kind }).to_string(), Some(Version::Second));
        let fault = incoming.said.unwrap_err();

        let start: String = kind.chars().take(64).collect();
        let frame: Value = serde_json::from_str(&fault.encode()).unwrap();
        assert_eq!(frame["code"], "unknown-command");
        assert_eq!(frame["message"], format!("Command not found: {start}"));
    }
}

/// JSON of any shape, with the words of the protocol often in the right places.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "type",
        "name",
        "login",
        "offer",
        "answer",
        "candidate",
        "leave",
        "ice",
        "ping",
        "bye",
        "join",
        "part",
        "send",
        "who",
        "ack",
        "room",
        "data",
        "id",
        "seq",
        "__proto__",
        "bob",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        let key = prop_oneof![4 => word.clone().prop_map(str::to_owned), 1 => ".*"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_a_client_sends_it_gets_json_or_nothing(
        frames in prop::collection::vec(prop_oneof![any_json().prop_map(|json| json.to_string()), ".*"], 1..20),
        version in 0..3_u64,
    ) {
        let context = context(9.0);
        let now = context.clock.now();
        let mut connection = Connection::new(Arc::clone(&context), visitor(), Dialect::Strings);
        if version > 0 {
            let login = format!(r#"{{"type":"login","name":"bob","v":{version}}}"#);
            connection.hear(&login, now).now_or_never().unwrap();
        }

        for frame in frames {
            if let Some(reply) = connection.hear(&frame, now).now_or_never().unwrap().reply {
                let reply: Value = serde_json::from_str(&reply).unwrap();
                prop_assert!(reply["type"].is_string());
            }
            let mailbox = connection.member.as_ref().map(|me| Arc::clone(me.reader()));
            while let Some((seq, message)) = mailbox.as_ref().and_then(|mailbox| mailbox.take()) {
                let joined = connection.member.as_ref().map(Session::joined);
                let told: Value = serde_json::from_str(&frame::told(seq, &message, Dialect::Strings, joined)).unwrap();
                prop_assert_eq!((told["type"].is_string(), told["seq"].as_u64()), (true, seq));
            }
        }
        drop(connection);
        prop_assert_eq!(context.metrics.members.get(), 0);
    }
}
