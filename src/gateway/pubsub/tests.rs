//! Subscribers over in-memory streams.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::SinkExt;
use futures_util::StreamExt;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message as WebSocketMessage;

use super::super::tests::Client;
use super::super::tests::context_of;
use super::super::tests::visitor;
use super::frame::MAX_TOPIC_BYTES;
use super::frame::MAX_TOPICS;
use super::*;
use crate::metrics::Gateway;
use crate::signaling::mailbox::Delivery;
use crate::signaling::mailbox::Vocabulary;
use crate::signaling::name::Name;

/// Topics have room for three, and clients for three topics.
fn context() -> Arc<Context> {
    context_of(Gateway::PubSub, |settings| {
        settings.presence = false;
        settings.vocabulary = Vocabulary { data: true, ..Default::default() };
    })
}

async fn signed_in(context: &Arc<Context>) -> Session {
    context
        .sessions
        .sign_in_unnamed(Name::random(), Delivery::Once, None, &visitor(), context.clock.now())
        .await
        .unwrap()
        .0
}

async fn connect(context: &Arc<Context>) -> Client {
    let member = signed_in(context).await;
    Client::over(|far| serve(Arc::clone(context), member, far)).await
}

async fn subscriber(context: &Arc<Context>, topics: &Value) -> Client {
    let mut client = connect(context).await;
    client.send(&json!({ "type": "subscribe", "topics": topics })).await;
    is_served(&mut client).await;
    client
}

/// All that was sent before is done, and nothing came of it.
async fn is_served(client: &mut Client) {
    client.send(&json!({ "type": "ping" })).await;
    assert_eq!(client.hear().await, json!({ "type": "pong" }));
}

async fn say(client: &mut Client, text: &str) {
    client.socket.send(WebSocketMessage::text(text)).await.unwrap();
}

async fn hear_text(client: &mut Client) -> String {
    client.socket.next().await.unwrap().unwrap().to_text().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn y_webrtc_hears_the_frame_as_it_was_published_and_how_many_heard_it() {
    let context = context();
    let mut alice = subscriber(&context, &json!(["one", "document"])).await;
    let mut bob = subscriber(&context, &json!(["document"])).await;
    let published =
        r#"{"type":"publish", "topic":"document","data":{"token":1.50,"n":12345678901234567890123,"s":"\u00e9\/"}"#;

    say(&mut alice, &format!("{published}}} \n")).await;
    say(&mut alice, r#"{"clients":7,"type":"publish","topic":"one"}"#).await;

    for client in [&mut alice, &mut bob] {
        assert_eq!(hear_text(client).await, format!(r#"{published},"clients":2}}"#));
    }
    assert_eq!(alice.hear().await["clients"], 1, "ours counts");
    is_served(&mut bob).await;
}

#[tokio::test(start_paused = true)]
async fn trystero_hears_what_was_published_from_wherever_and_nothing_besides() {
    let context = context();
    let mut alice = connect(&context).await;
    let mut bob = connect(&context).await;
    alice.send(&json!({ "type": "subscribe", "topic": "self \"alice\"" })).await;
    is_served(&mut alice).await;

    say(&mut bob, r#"{"type":"publish","topic":"self \"alice\"","payload":"{\"offer\":1}","more":1}"#).await;
    say(&mut bob, r#"{"type":"publish","topic":"self \"alice\"","payload":{"n":1.0}}"#).await;

    assert_eq!(hear_text(&mut alice).await, r#"{"topic":"self \"alice\"","payload":"{\"offer\":1}"}"#);
    assert_eq!(hear_text(&mut alice).await, r#"{"topic":"self \"alice\"","payload":{"n":1.0}}"#);
    is_served(&mut bob).await;
    alice.send(&json!({ "type": "unsubscribe", "topic": "self \"alice\"" })).await;
    is_served(&mut alice).await;
    bob.send(&json!({ "type": "publish", "topic": "self \"alice\"", "payload": 1 })).await;
    is_served(&mut bob).await;
    is_served(&mut alice).await;
}

#[tokio::test(start_paused = true)]
async fn any_text_is_a_topic_up_to_its_length() {
    let context = context();
    let longest = "x".repeat(MAX_TOPIC_BYTES);

    for topic in ["", " ", "\0", "\u{202e}", "Zoe\u{308}", "__proto__", &longest] {
        let mut client = subscriber(&context, &json!([topic])).await;
        client.send(&json!({ "type": "publish", "topic": topic })).await;
        assert_eq!(client.hear().await, json!({ "type": "publish", "topic": topic, "clients": 1 }));
    }
    let mut client = connect(&context).await;
    for _ in 0..3 {
        client.send(&json!({ "type": "subscribe", "topics": ["Zo\u{eb}", format!("{longest}x")] })).await;
        assert_eq!(client.hear().await["code"], "bad-topic");
        client.send(&json!({ "type": "publish", "topic": format!("{longest}x") })).await;
        assert_eq!(client.hear().await["code"], "bad-topic");
    }
    is_served(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn topics_are_capped_for_each_client_and_clients_for_each_topic_and_it_is_told() {
    let context = context();
    let mut greedy = connect(&context).await;
    greedy.send(&json!({ "type": "subscribe", "topics": ["a", "b", "a", "c", "d", "e"] })).await;
    let error = greedy.hear().await;
    assert_eq!((&error["code"], &error["name"], error.get("topic")), (&json!("forbidden"), &json!("d"), None));
    let _others = [subscriber(&context, &json!(["a"])).await, subscriber(&context, &json!(["a"])).await];
    let mut late = connect(&context).await;

    late.send(&json!({ "type": "subscribe", "topics": ["a", "b"] })).await;

    assert_eq!(late.hear().await["name"], "a");
    late.send(&json!({ "type": "publish", "topic": "b" })).await;
    assert_eq!(late.hear().await["clients"], 2, "the other topic is none the worse");
    assert_eq!(greedy.hear().await["topic"], "b");
    greedy.send(&json!({ "type": "unsubscribe", "topics": ["c", "nothing"] })).await;
    greedy.send(&json!({ "type": "subscribe", "topics": ["d", "a"] })).await;
    is_served(&mut greedy).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_names_so_many_topics() {
    let context = context();
    let mut client = connect(&context).await;
    let topics = |count| json!({ "type": "unsubscribe", "topics": vec!["x"; count] });

    client.send(&topics(MAX_TOPICS)).await;
    is_served(&mut client).await;
    client.send(&topics(MAX_TOPICS + 1)).await;

    assert_eq!(client.hear().await["code"], "bad-message");
}

#[tokio::test(start_paused = true)]
async fn topics_count_each_once_and_so_does_everybody_there() {
    let context = context();
    let _others = [subscriber(&context, &json!(["1"])).await, subscriber(&context, &json!(["1", "2"])).await];
    let mut subscriber = Subscriber { context: Arc::clone(&context), member: signed_in(&context).await };
    let now = context.clock.now();
    let all: Vec<_> = (0..MAX_TOPICS).map(|n| n.to_string()).collect();

    for (kind, topics, price) in [
        ("subscribe", json!(["1", "1", "2", "1"]), 2 + 3),
        ("subscribe", json!(["1"]), 1 + 2),
        ("unsubscribe", json!(["1", "2", "1"]), 2),
        ("unsubscribe", json!(all), MAX_TOPICS),
        ("subscribe", json!(vec!["same"; MAX_TOPICS]), 1),
        // There is no place for all of them, and they cost as much.
        ("subscribe", json!(all), MAX_TOPICS + 2),
    ] {
        let frame = json!({ "type": kind, "topics": topics }).to_string();
        assert_eq!(subscriber.hear(&frame, now).await.price, Price::ToMembers(price), "{frame:.60}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_names_a_thousand_topics_again_and_again_is_beyond_its_rate() {
    let context = context();
    let mut client = connect(&context).await;
    let all: Vec<_> = (0..MAX_TOPICS).map(|n| n.to_string()).collect();

    for kind in ["subscribe", "unsubscribe"].repeat(2) {
        client.send(&json!({ "type": kind, "topics": all })).await;
    }
    client.send(&json!({ "type": "ping" })).await;

    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(client.hear().await["code"].clone());
    }
    assert_eq!(codes, ["forbidden", "forbidden", "rate"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_stops_reading_is_closed_and_holds_nobody_back() {
    let context = context();
    let mut stalled = subscriber(&context, &json!(["topic"])).await;
    let mut reader = subscriber(&context, &json!(["topic"])).await;
    let large = json!({ "type": "publish", "topic": "topic", "data": "x".repeat(60_000) });

    for _ in 0..6 {
        reader.send(&large).await;
        assert_eq!(reader.hear().await["clients"], 2);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    reader.send(&large).await;
    assert_eq!(reader.hear().await["clients"], 2);

    assert_eq!(stalled.hear_out().await.1, Some(4008));
    stalled.served.await.unwrap();
    reader.send(&large).await;
    assert_eq!(reader.hear().await["clients"], 1);
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_answered_and_closes_the_third_time() {
    let context = context();
    for bad in [
        "null",
        "[]",
        "42",
        "not json",
        "",
        r#"["publish","topic"]"#,
        r#"{"type":7}"#,
        r#"{"topic":"x"}"#,
        r#"{"type":"publish"}"#,
        r#"{"type":"publish","topic":{}}"#,
        r#"{"type":"subscribe","topics":"x"}"#,
        r#"{"type":"subscribe","topics":[1]}"#,
        r#"{"type":"publish","topic":"x","payload":1} x"#,
        &format!(r#"{{"type":"publish","topic":"x","payload":{}"#, "[".repeat(9999)),
    ] {
        let mut client = connect(&context).await;
        for _ in 0..3 {
            say(&mut client, bad).await;
        }
        assert_eq!(client.hear_out().await, (3, Some(4400)), "{bad}");
    }
    let mut client = connect(&context).await;
    for _ in 0..9 {
        client.send(&json!({ "type": "constructor" })).await;
        assert_eq!(client.hear().await["code"], "unknown-command");
    }
    client.socket.send(WebSocketMessage::binary(vec![0, 159])).await.unwrap();
    assert_eq!(client.hear().await["code"], "bad-message");
    say(&mut client, &"x".repeat(65_537)).await;
    assert_eq!(client.hear().await["code"], "too-large");
    assert_eq!(client.hear_out().await.1, Some(1009));
}

#[tokio::test(start_paused = true)]
async fn who_goes_is_counted_no_more() {
    let context = context();
    let mut stays = subscriber(&context, &json!(["topic"])).await;
    let goes = subscriber(&context, &json!(["topic"])).await;

    drop(goes.socket);
    goes.served.await.unwrap();

    stays.send(&json!({ "type": "publish", "topic": "topic" })).await;
    assert_eq!(stays.hear().await["clients"], 1);
    assert_eq!(context.metrics.members.get(), 1);
}

fn any_frame() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["subscribe", "unsubscribe", "publish", "ping", "a", "b", "", "\u{e9}\"\\"]);
    let topic = prop_oneof![word.clone().prop_map(Value::from), Just(Value::Null), Just(json!([[]]))];
    let topics = prop_oneof![prop::collection::vec(word.clone(), 0..6).prop_map(Value::from), topic.clone()];
    let payload = prop_oneof![Just(Value::Null), any::<f64>().prop_map(Value::from), ".*".prop_map(Value::from)];
    (word, topic, topics, payload, any::<u8>()).prop_map(|(kind, topic, topics, payload, which)| {
        let mut frame = json!({ "type": kind, "topic": topic, "topics": topics, "payload": payload, "data": 1 });
        for (bit, field) in ["topic", "topics", "payload", "data"].into_iter().enumerate() {
            if which & 1 << bit != 0 {
                frame.as_object_mut().unwrap().remove(field);
            }
        }
        frame.to_string()
    })
}

proptest! {
    #[test]
    fn whatever_is_published_everybody_hears_json(
        frames in prop::collection::vec(prop_oneof![4 => any_frame(), 1 => ".*"], 1..30),
    ) {
        let context = context();
        let now = context.clock.now();
        let member = signed_in(&context).now_or_never().unwrap();
        let mut subscriber = Subscriber { context: Arc::clone(&context), member };

        for frame in frames {
            if let Some(reply) = subscriber.hear(&frame, now).now_or_never().unwrap().reply {
                prop_assert!(serde_json::from_str::<Value>(&reply).unwrap()["type"].is_string());
            }
            while let Some((number, message)) = subscriber.member.reader().take() {
                let told: Value = serde_json::from_str(&subscriber.put(number, &message).text.unwrap()).unwrap();
                let mut sent: Value = serde_json::from_str(&frame).unwrap();
                prop_assert_eq!(&told["topic"], &sent["topic"]);
                match sent.get("payload") {
                    Some(payload) if !payload.is_null() => prop_assert_eq!(&told["payload"], payload),
                    Some(_) | None => {
                        sent["clients"] = 1.into();
                        prop_assert_eq!(told, sent);
                    }
                }
            }
        }
        drop(subscriber);
        prop_assert_eq!(context.metrics.members.get(), 0);
    }
}
