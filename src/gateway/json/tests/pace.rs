//! How much a client of the second version may say, what of it counts, and how much waits for it.

use super::second::Member;
use super::second::offer;
use super::second::resuming;
use super::*;

fn credentials() -> Arc<Credentials> {
    Arc::new(Credentials::new(Default::default()))
}

fn ack(seq: u64) -> Value {
    json!({ "type": "ack", "seq": seq })
}

/// Sends `ping`, and has what comes of it.
async fn ping(client: &mut Client) -> Value {
    client.send(&json!({ "type": "ping" })).await;
    client.hear().await
}

#[tokio::test(start_paused = true)]
async fn acknowledging_costs_nothing_as_long_as_it_says_something_new() {
    let context = context(99.0);
    let mut bob = Member::named(&context, "bob").await;
    let mut alice = Member::named(&context, "alice").await;
    for seq in 1..=100 {
        bob.client.send(&offer("alice", seq)).await;
        assert_eq!(alice.client.hear().await["seq"], seq);
        alice.client.send(&ack(seq)).await;
    }
    for _ in 1..200 {
        assert_eq!(ping(&mut alice.client).await["type"], "pong", "all but the login are left");
    }
    assert_eq!(ping(&mut alice.client).await["code"], "rate");
    bob.client.send(&offer("alice", 101)).await;
    assert_eq!(alice.client.hear().await["seq"], 102);

    alice.client.send(&ack(102)).await;

    assert_eq!(ping(&mut alice.client).await["code"], "rate");
    let left = alice.breaks().await;
    let mut late = Client::connect(&context, Dialect::Objects).await;
    late.send(&resuming(&left, 101)).await;
    assert_eq!(late.hear().await["resume"], false, "what it said beyond its rate was heard");
    for _ in 0..98 {
        bob.client.send(&ack(0)).await;
    }
    assert_eq!(bob.client.hear().await["type"], "leave");
    assert_eq!(ping(&mut bob.client).await["code"], "rate", "what says nothing counts");
}

#[tokio::test(start_paused = true)]
async fn four_of_the_largest_messages_wait_and_each_that_is_acknowledged_makes_room() {
    let context = context(99.0);
    let mut bob = Member::named(&context, "bob").await;
    let mut alice = Member::named(&context, "alice").await;
    let largest = |id| {
        let frame = |data: String| json!({ "type": "send", "name": "alice", "id": id, "data": data });
        let rest = LIMITS.message_bytes - frame(String::new()).to_string().len();
        frame("x".repeat(rest))
    };

    for id in 1..=5 {
        bob.client.send(&largest(id)).await;
    }
    let refused = bob.client.hear().await;
    for seq in 1..=4 {
        assert_eq!(alice.client.hear().await["seq"], seq);
    }
    alice.client.send(&ack(1)).await;
    assert_eq!(ping(&mut alice.client).await["type"], "pong");
    bob.client.send(&largest(6)).await;

    assert_eq!((&refused["code"], &refused["id"]), (&json!("undelivered"), &json!(5)));
    assert_eq!(alice.client.hear().await["seq"], 5);
}

#[tokio::test(start_paused = true)]
async fn guessing_a_secret_counts_as_signing_in_and_knowing_it_never_does() {
    let context = context(5.0);
    let mut alice = Member::named(&context, "alice").await;
    let mut mallory = Client::connect(&context, Dialect::Objects).await;
    let mut guess = resuming(&alice.reply, 0);
    guess["resume"] = json!("AAAAAAAAAAAAAAAAAAAAAA");

    let mut reasons = Vec::new();
    for _ in 0..6 {
        mallory.send(&guess).await;
        reasons.push(mallory.hear().await["reason"].clone());
    }

    assert_eq!(reasons, ["auth", "auth", "auth", "auth", "rate", "rate"]);
    for _ in 0..9 {
        let session = alice.reply["session"].clone();
        alice = Member::back(&context, &alice.reply, 0).await;
        assert_eq!(alice.reply["session"], session);
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_to_many_counts_for_more() {
    let context = context_where(99.0, credentials(), |settings| settings.room_members = 100);
    let (room, now) = (Name::new("room").unwrap(), context.clock.now());
    let mut crowd = Vec::new();
    for _ in 0..32 {
        let name = Name::random();
        crowd.push(context.sessions.sign_in(name, Delivery::Once, Some(&room), &visitor(), now).await.unwrap());
    }
    let send = json!({ "type": "send", "room": "room", "data": 1 });
    let (part, join) = (json!({ "type": "part", "room": "room" }), json!({ "type": "join", "room": "room" }));

    for (name, frames) in [("alice", [&send, &send]), ("bob", [&part, &join])] {
        let login = json!({ "type": "login", "v": 2, "name": name, "room": "room" });
        let mut member = Member::sign_in(&context, login).await;
        for (id, frame) in (1..=68).zip(frames.into_iter().cycle()) {
            let mut frame = frame.clone();
            frame["id"] = json!(id);
            member.client.send(&frame).await;
        }
        let refused = loop {
            let heard = member.client.hear().await;
            if heard["code"] == "rate" {
                break heard;
            }
        };
        assert_eq!(refused["id"], 68, "three each of 199, and what the last is short of is owed");
        tokio::time::advance(Duration::from_millis(39)).await;
        assert_eq!(ping(&mut member.client).await["code"], "rate");
        tokio::time::advance(Duration::from_millis(22)).await;
        assert_eq!(ping(&mut member.client).await["type"], "pong");
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_no_room_for_the_answer_does_not_come_into_a_room() {
    let context = context_where(99.0, credentials(), |settings| settings.queue.messages = 2);
    let mut bob = Member::named(&context, "bob").await;
    let mut alice = Member::named(&context, "alice").await;
    for id in 1..=2 {
        bob.client.send(&offer("alice", id)).await;
        assert_eq!(alice.client.hear().await["seq"], id);
    }
    let join = |id: u64| json!({ "type": "join", "room": "room", "id": id });

    alice.client.send(&join(1)).await;

    let refused = alice.client.hear().await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("rate"), &json!(1)));
    bob.client.send(&join(3)).await;
    assert_eq!(bob.client.hear().await["members"], json!([]));
    alice.client.send(&ack(2)).await;
    alice.client.send(&join(2)).await;
    assert_eq!(alice.client.hear().await["members"], json!(["bob"]));
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_after_a_break_costs_nothing_so_often() {
    let context = context(99.0);
    let mut alice = Member::named(&context, "alice").await;
    let leave = |id: u64| json!({ "type": "leave", "id": id });
    for id in 1..=150 {
        alice.client.send(&leave(id)).await;
    }
    assert_eq!(ping(&mut alice.client).await["id"], 150);
    let left = alice.breaks().await;

    let mut alice = Member::back(&context, &left, 0).await;
    for id in 1..=300 {
        alice.client.send(&leave(id)).await;
    }
    assert_eq!(ping(&mut alice.client).await, json!({ "type": "pong", "id": 300 }));
    for _ in 0..256 - 150 {
        alice.client.send(&leave(1)).await;
    }
    assert_eq!(ping(&mut alice.client).await["type"], "pong");
    for _ in 0..200 - 150 - 3 {
        alice.client.send(&leave(1)).await;
    }

    assert_eq!(ping(&mut alice.client).await["code"], "rate", "the login, 150, two pings, and what is too often");
}

#[test]
fn who_missed_presence_and_whom_a_room_did_not_get_are_told_by_name_of_the_room() {
    let text = |message| frame::told(Some(7), &message, Dialect::Objects, None);
    let told = |message| -> Value { serde_json::from_str(&text(message)).unwrap() };
    let room = signaling::Recipient::Room(Name::new("room").unwrap());

    let undelivered = told(signaling::Message::Undelivered { to: room, frame: Some(3) });

    assert_eq!(told(signaling::Message::Missed), json!({ "type": "presence", "missed": true, "seq": 7 }));
    assert_eq!((&undelivered["code"], &undelivered["room"]), (&json!("undelivered"), &json!("room")));
    assert_eq!((&undelivered["id"], undelivered.get("name")), (&json!(3), None));
}
