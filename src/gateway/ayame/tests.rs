//! Rooms of two over in-memory streams.

use futures_util::FutureExt;
use futures_util::SinkExt;
use futures_util::StreamExt;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message as WebSocketMessage;

use super::super::tests::Client;
use super::super::tests::LIMITS;
use super::super::tests::context_of;
use super::super::tests::visitor;
use super::frame::MAX_ROOM_BYTES;
use super::*;
use crate::metrics::Gateway;
use crate::signaling::mailbox::Vocabulary;

fn context() -> Arc<Context> {
    context_of(Gateway::Ayame, |settings| {
        (settings.rooms, settings.room_members) = (1, 2);
        settings.vocabulary = Vocabulary { presence: true, ..Default::default() };
    })
}

async fn connect(context: &Arc<Context>) -> Client {
    Client::over(|far| serve(Arc::clone(context), visitor(), far)).await
}

/// One that has sent `register`, with `more` fields.
async fn registering(context: &Arc<Context>, more: Value) -> Client {
    let mut client = connect(context).await;
    let mut frame = json!({ "type": "register", "roomId": "room", "clientId": "same for all" });
    frame.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.send(&frame).await;
    client
}

/// One that was let in, as the second or not.
async fn registered(context: &Arc<Context>, more: Value, is_second: bool) -> Client {
    let mut client = registering(context, more).await;
    let accept = client.hear().await;
    assert_eq!((&accept["type"], &accept["isExistUser"]), (&json!("accept"), &json!(is_second)));
    client
}

async fn pair(context: &Arc<Context>) -> [Client; 2] {
    [registered(context, json!({}), false).await, registered(context, json!({}), true).await]
}

#[tokio::test(start_paused = true)]
async fn the_second_is_told_that_there_is_a_first_and_both_get_ice_servers_of_their_own() {
    let context = context();
    let mut clients = [registering(&context, json!({})).await, connect(&context).await];

    let first = clients[0].hear().await;
    clients[1].send(&json!({ "type": "register", "roomId": "room", "authnMetadata": {}, "key": null })).await;
    let second = clients[1].hear().await;

    for (accept, is_second) in [(&first, false), (&second, true)] {
        assert_eq!((&accept["type"], &accept["isExistClient"]), (&json!("accept"), &json!(is_second)));
        assert_eq!(accept["isExistUser"], is_second);
        assert!(accept["iceServers"][1]["credential"].is_string(), "{accept}");
    }
    assert_ne!(first["connectionId"], second["connectionId"]);
    assert_ne!(first["iceServers"], second["iceServers"]);
}

#[tokio::test(start_paused = true)]
async fn steps_of_a_negotiation_reach_the_other_as_they_came() {
    let context = context();
    let [mut alice, mut bob] = pair(&context).await;
    let _elsewhere = registered(&context, json!({ "roomId": "elsewhere" }), false).await;

    for (n, frame) in [
        r#"{"type":"offer", "sdp":"v=0\r\n","n":1.50}"#,
        r#"{"type":"candidate","ice":{"candidate":"\u00e9","sdpMLineIndex":0}}"#,
        r#"{"sdp":"v=0\r\n","type":"answer"}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let (from, to) = if n % 2 == 0 { (&mut bob, &mut alice) } else { (&mut alice, &mut bob) };
        from.socket.send(WebSocketMessage::text(frame)).await.unwrap();
        assert_eq!(to.socket.next().await.unwrap().unwrap().to_text().unwrap(), frame);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_alone_is_lost_and_before_registering_refused() {
    let context = context();
    let mut alice = connect(&context).await;
    let candidate = json!({ "type": "candidate", "ice": {} });

    alice.send(&candidate).await;
    assert_eq!(alice.hear().await["code"], "not-signed-in");
    alice.send(&json!({ "type": "register", "roomId": "room" })).await;
    assert_eq!(alice.hear().await["isExistUser"], false);
    alice.send(&candidate).await;
    alice.send(&json!({ "type": "register", "roomId": "another" })).await;
    assert_eq!(alice.hear().await["code"], "forbidden");

    let mut bob = registered(&context, json!({}), true).await;
    bob.send(&json!({ "type": "offer" })).await;
    assert_eq!(alice.hear().await, json!({ "type": "offer" }));
}

#[tokio::test(start_paused = true)]
async fn a_third_is_rejected_and_what_cannot_be_a_room_too() {
    let context = context();
    let [_alice, _bob] = pair(&context).await;

    for (room, reason) in [("room", "full"), ("", "bad-room"), (&*"x".repeat(MAX_ROOM_BYTES + 1), "bad-room")] {
        let mut third = registering(&context, json!({ "roomId": room })).await;
        assert_eq!(third.hear().await, json!({ "type": "reject", "reason": reason }));
        assert_eq!(third.hear_out().await, (0, Some(1000)));
    }
    registered(&context, json!({ "roomId": "x".repeat(MAX_ROOM_BYTES) }), false).await;
    assert_eq!(context.metrics.members.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_room_ends_for_both_with_the_first_that_goes() {
    let context = context();
    for goes in 0..3 {
        let [mut alice, mut bob] = pair(&context).await;
        bob.send(&json!({ "type": "offer" })).await;
        assert_eq!(alice.hear().await["type"], "offer");

        match goes {
            0 => drop(alice.socket),
            1 => alice.socket.close(None).await.unwrap(),
            _ => alice.send(&json!({ "type": "bye" })).await,
        }

        assert_eq!(bob.hear().await, json!({ "type": "bye" }));
        assert_eq!(bob.hear_out().await, (0, Some(1000)));
        bob.served.await.unwrap();
        alice.served.await.unwrap();
        assert_eq!(context.metrics.members.get(), 0);
    }
    registered(&context, json!({}), false).await;
}

#[tokio::test(start_paused = true)]
async fn standalone_clients_part_without_bye() {
    let context = context();
    let mut alice = registered(&context, json!({ "standalone": true }), false).await;
    let mut bob = registered(&context, json!({ "standalone": true }), true).await;

    alice.send(&json!({ "type": "connected" })).await;

    assert_eq!(alice.hear_out().await, (0, Some(1000)));
    assert_eq!(bob.hear_out().await, (0, Some(1000)));
}

#[tokio::test(start_paused = true)]
async fn connected_means_nothing_of_clients_that_stay() {
    let context = context();
    let mut unknown = connect(&context).await;
    unknown.send(&json!({ "type": "connected" })).await;
    let mut alice = registered(&context, json!({}), false).await;
    let mut bob = registered(&context, json!({}), true).await;

    alice.send(&json!({ "type": "connected" })).await;
    alice.send(&json!({ "type": "offer", "sdp": "after" })).await;

    assert_eq!(bob.hear().await["sdp"], "after");
    unknown.send(&json!({ "type": "offer", "sdp": "" })).await;
    assert_eq!(unknown.hear().await["code"], "not-signed-in", "it is served");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_pinged_every_five_seconds_and_gone_when_nothing_comes() {
    let context = context();
    let mut alive = registered(&context, json!({}), false).await;
    let dead = registered(&context, json!({ "roomId": "elsewhere" }), false).await;
    let began = context.clock.now().monotonic;

    let answers = async {
        for n in 1..100_u32 {
            assert_eq!(alive.hear().await, json!({ "type": "ping" }));
            assert_eq!(context.clock.now().monotonic - began, PING_EVERY * n);
            alive.send(&json!({ "type": "pong" })).await;
        }
    };
    tokio::select! {
        () = answers => panic!("who says nothing is gone"),
        ended = dead.served => ended.unwrap(),
    }

    assert_eq!(context.clock.now().monotonic - began, LIMITS.gone_after);
    assert_eq!(context.metrics.members.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_answered_and_closes_the_third_time() {
    let context = context();
    for bad in [
        "null",
        "[]",
        "not json",
        r#"{"type":7}"#,
        r#"{"type":"register"}"#,
        r#"{"type":"register","roomId":7}"#,
        &format!(r#"{{"type":"offer","sdp":{}"#, "[".repeat(9999)),
    ] {
        let mut client = connect(&context).await;
        for _ in 0..3 {
            client.socket.send(WebSocketMessage::text(bad)).await.unwrap();
        }
        assert_eq!(client.hear_out().await, (3, Some(4400)), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn filling_the_others_mailbox_is_refused_to_the_sender() {
    let context = context();
    let [alice, mut bob] = pair(&context).await;
    let offer = json!({ "type": "offer", "sdp": "x".repeat(60_000) });

    for _ in 0..6 {
        bob.send(&offer).await;
    }

    assert_eq!(bob.hear().await["code"], "rate");
    drop(alice);
    assert_eq!(bob.hear().await, json!({ "type": "bye" }));
}

proptest! {
    #[test]
    fn whatever_a_client_says_it_gets_json_or_nothing(
        frames in prop::collection::vec(
            prop_oneof![
                (
                    prop::sample::select(vec!["register", "offer", "answer", "candidate", "pong", "connected", "bye", ""]),
                    prop::sample::select(vec![json!("room"), json!("other"), json!(""), json!(null), json!(7)]),
                    any::<bool>(),
                )
                    .prop_map(|(kind, room, standalone)| {
                        json!({ "type": kind, "roomId": room, "standalone": standalone, "ice": room }).to_string()
                    }),
                ".*",
            ],
            1..20,
        ),
    ) {
        let context = context();
        let now = context.clock.now();
        let mut pair = [(); 2].map(|()| Connection {
            context: Arc::clone(&context),
            visitor: visitor(),
            ping_at: now.monotonic,
            member: None,
        });

        for (n, frame) in frames.iter().enumerate() {
            if let Some(reply) = pair[n % 2].hear(frame, now).now_or_never().unwrap().reply {
                prop_assert!(serde_json::from_str::<Value>(&reply).unwrap()["type"].is_string());
            }
            for connection in &pair {
                let reader = connection.member().map(|me| Arc::clone(me.reader()));
                while let Some((number, message)) = reader.as_ref().and_then(|reader| reader.take()) {
                    if let Some(told) = connection.put(number, &message).text {
                        prop_assert!(serde_json::from_str::<Value>(&told).unwrap()["type"].is_string());
                    }
                }
            }
        }
        drop(pair);
        prop_assert_eq!(context.metrics.members.get(), 0);
    }
}
