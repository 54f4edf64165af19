//! The second version of the protocol: numbers, rooms, and sessions that are taken up again.

use super::*;

pub(super) struct Member {
    pub(super) client: Client,
    pub(super) reply: Value,
}

impl Member {
    pub(super) async fn sign_in(context: &Arc<Context>, login: Value) -> Self {
        let mut client = Client::connect(context, Dialect::Objects).await;
        client.send(&login).await;
        let reply = client.hear().await;
        assert_eq!(reply["success"], true, "{reply}");
        Self { client, reply }
    }

    pub(super) async fn named(context: &Arc<Context>, name: &str) -> Self {
        Self::sign_in(context, json!({ "type": "login", "v": 2, "name": name })).await
    }

    /// Over another connection, with everything up to `seq`.
    pub(super) async fn back(context: &Arc<Context>, reply: &Value, seq: u64) -> Self {
        Self::sign_in(context, resuming(reply, seq)).await
    }

    /// The connection breaks without a word, and the server has noticed.
    pub(super) async fn breaks(self) -> Value {
        let Self { client: Client { socket, served }, reply } = self;
        drop(socket);
        served.await.unwrap();
        reply
    }
}

pub(super) fn resuming(reply: &Value, seq: u64) -> Value {
    json!({ "type": "login", "v": 2, "name": reply["name"], "resume": reply["resume"], "seq": seq })
}

pub(super) fn offer(to: &str, id: u64) -> Value {
    json!({ "type": "offer", "name": to, "offer": { "n": id }, "id": id })
}

#[tokio::test(start_paused = true)]
async fn a_session_is_taken_up_where_it_was_left_off() {
    let context = context(99.0);
    let mut bob = Member::named(&context, "bob").await;
    let mut alice = Member::named(&context, "alice").await;
    for id in 1..=3 {
        bob.client.send(&offer("alice", id)).await;
    }
    for n in 1..=3 {
        let heard = alice.client.hear().await;
        assert_eq!(
            heard,
            json!({ "type": "offer", "name": "bob", "polite": heard["polite"], "offer": { "n": n }, "seq": n })
        );
    }
    alice.client.send(&json!({ "type": "answer", "name": "bob", "answer": 1, "id": 5 })).await;
    assert_eq!(bob.client.hear().await["seq"], 1);

    let left = alice.breaks().await;
    bob.client.send(&offer("alice", 4)).await;
    bob.client.send(&json!({ "type": "ping" })).await;
    assert_eq!(bob.client.hear().await, json!({ "type": "pong", "id": 4 }));
    let mut alice = Member::back(&context, &left, 2).await;

    assert_eq!((&alice.reply["id"], &alice.reply["session"]), (&json!(5), &left["session"]));
    assert_eq!((&alice.reply["resume"], alice.reply["iceServers"].is_array()), (&left["resume"], true));
    for n in 3..=4 {
        assert_eq!(alice.client.hear().await["seq"], n, "what it had not got, and nothing twice");
    }
    for id in [5, 6] {
        alice.client.send(&json!({ "type": "answer", "name": "bob", "answer": 1, "id": id })).await;
    }
    alice.client.send(&json!({ "type": "bye" })).await;
    assert_eq!(bob.client.hear().await["seq"], 2, "the answer that it sent twice came once");
    let rest = [bob.client.hear().await, bob.client.hear().await, bob.client.hear().await];
    assert_eq!(rest[0], json!({ "type": "leave", "name": "alice", "seq": 3 }));
    let undelivered = |id: u64| rest.iter().any(|frame| frame["code"] == "undelivered" && frame["id"] == id);
    assert!(undelivered(3) && undelivered(4), "nobody knows whether it got these: {rest:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_version_hears_at_once_that_a_connection_ended_and_the_second_after_the_grace() {
    let context = context(99.0);
    let mut old = Client::sign_in(&context, Dialect::Strings, "old").await;
    let mut young = Member::named(&context, "young").await;
    let mut alice = Member::named(&context, "alice").await;
    for (id, to) in [(1, "old"), (2, "young")] {
        alice.client.send(&offer(to, id)).await;
    }
    assert_eq!(old.hear().await, json!({ "type": "offer", "name": "alice", "offer": "{\"n\":1}" }), "as it ever was");
    young.client.hear().await;
    alice.client.send(&json!({ "type": "send", "name": "old", "data": 1, "id": 3 })).await;
    assert_eq!(alice.client.hear().await["code"], "undelivered", "there is no such thing in the first version");

    alice.breaks().await;
    let began = context.clock.now().monotonic;

    assert_eq!(old.hear().await, json!({ "type": "leave", "name": "alice" }));
    assert_eq!(context.clock.now().monotonic, began);
    young.client.send(&offer("alice", 1)).await;
    assert_eq!(young.client.hear().await["type"], "leave");
    assert_eq!(context.clock.now().monotonic - began, GRACE);
    let undelivered = young.client.hear().await;
    assert_eq!((&undelivered["code"], &undelivered["id"]), (&json!("undelivered"), &json!(1)));
    assert_eq!(undelivered["name"], "alice");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_offer_each_other_who_joined_later_is_polite_whatever_breaks_meanwhile() {
    let context = context(99.0);
    let zoe = Member::named(&context, "zoe").await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut adam = Member::named(&context, "adam").await;
    let mut old = Client::sign_in(&context, Dialect::Objects, "old").await;
    let left = zoe.breaks().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut zoe = Member::back(&context, &left, 0).await;

    adam.client.send(&offer("zoe", 1)).await;
    zoe.client.send(&offer("adam", 1)).await;
    for (id, to) in [(2, "old"), (3, "adam")] {
        adam.client.send(&offer(to, id)).await;
    }
    zoe.client.send(&json!({ "type": "answer", "name": "adam", "answer": {}, "id": 2 })).await;

    assert_eq!(zoe.client.hear().await["polite"], false, "its session is the elder's, its connection the younger");
    let heard = [adam.client.hear().await, adam.client.hear().await, adam.client.hear().await];
    let from =
        |name: &str, kind: &str| heard.iter().find(|frame| frame["name"] == name && frame["type"] == kind).unwrap();
    assert_eq!(from("zoe", "offer")["polite"], true);
    assert_eq!(from("adam", "offer")["polite"], false, "nobody comes after itself");
    assert_eq!(from("zoe", "answer").get("polite"), None);
    assert_eq!(old.hear().await.get("polite"), None, "the first version is told as it ever was");
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_session_goes_on_elsewhere_is_closed_with_4002() {
    let context = context(99.0);
    let mut alice = Member::named(&context, "alice").await;

    let mut back = Member::back(&context, &alice.reply, 0).await;

    assert_eq!(alice.client.hear_out().await, (0, Some(4002)));
    alice.client.served.await.unwrap();
    back.client.send(&json!({ "type": "ping" })).await;
    assert_eq!(back.client.hear().await, json!({ "type": "pong", "id": 0 }));
}

#[tokio::test(start_paused = true)]
async fn a_resume_that_cannot_be_is_refused_and_the_client_signs_in_again() {
    let context = context(99.0);
    let alice = Member::named(&context, "alice").await;
    let mut client = Client::connect(&context, Dialect::Objects).await;
    let mut guess = resuming(&alice.reply, 0);
    guess["resume"] = json!("AAAAAAAAAAAAAAAAAAAAAA");

    for login in [guess, resuming(&alice.reply, 1)] {
        client.send(&login).await;
        let refused = json!({ "type": "login", "success": false, "reason": "auth", "resume": false });
        assert_eq!(client.hear().await, refused);
    }
    let left = alice.breaks().await;
    tokio::time::sleep(GRACE).await;
    client.send(&resuming(&left, 0)).await;
    assert_eq!(client.hear().await["reason"], "auth");
    client.send(&json!({ "type": "login", "v": 2, "name": "alice" })).await;

    let reply = client.hear().await;
    assert_eq!((&reply["success"], &reply["id"]), (&json!(true), &json!(0)));
    assert_ne!(reply["resume"], left["resume"]);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_ends_the_session_and_any_other_close_does_not() {
    let context = context(99.0);
    for (code, members) in [(Some(1000), 0), (Some(1001), 0), (None, 0), (Some(3000), 1)] {
        let mut alice = Member::named(&context, "alice").await;

        let frame = code.map(|code: u16| CloseFrame { code: code.into(), reason: "".into() });
        alice.client.socket.close(frame).await.unwrap();
        alice.client.hear_out().await;
        alice.client.served.await.unwrap();

        assert_eq!(context.metrics.members.get(), members, "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fresh_ice_servers_come_at_seven_tenths_of_their_life_and_can_be_asked_for() {
    let context = context(99.0);
    let mut old = Client::sign_in(&context, Dialect::Objects, "old").await;
    let mut alice = Member::named(&context, "alice").await;
    let began = context.clock.now().monotonic;

    let pushed = tokio::select! {
        pushed = alice.client.hear() => pushed,
        frame = old.hear() => panic!("the first version asks: {frame}"),
    };
    let took = context.clock.now().monotonic - began;
    alice.client.send(&json!({ "type": "ice", "id": 1 })).await;
    let asked = alice.client.hear().await;

    assert_eq!(took, Duration::from_secs(3600 * 7 / 10));
    assert_eq!((&pushed["type"], &pushed["seq"], &asked["seq"]), (&json!("ice"), &json!(1), &json!(2)));
    let credential = |frame: &Value| frame["iceServers"][1]["username"].as_str().unwrap().to_owned();
    assert_ne!(credential(&pushed), credential(&alice.reply));
    assert_eq!(asked["iceTtl"], 3600);
}

#[tokio::test(start_paused = true)]
async fn rooms_are_joined_told_of_talked_to_and_left() {
    let context = context(99.0);
    let login = |name: &str| json!({ "type": "login", "v": 2, "name": name, "room": "lobby" });
    let mut alice = Member::sign_in(&context, login("alice")).await;
    let mut bob = Member::sign_in(&context, login("bob")).await;
    let mut carol = Member::named(&context, "carol").await;
    assert_eq!((&alice.reply["members"], &bob.reply["members"]), (&json!([]), &json!(["alice"])));
    carol.client.send(&json!({ "type": "join", "room": "lobby", "id": 1 })).await;

    let members = json!({ "type": "join", "room": "lobby", "members": ["alice", "bob"], "seq": 1 });
    assert_eq!(carol.client.hear().await, members);
    for (n, name) in [(1, "bob"), (2, "carol")] {
        let joined = json!({ "type": "presence", "room": "lobby", "joined": name, "seq": n });
        assert_eq!(alice.client.hear().await, joined);
    }
    bob.client.hear().await;
    carol.client.send(&json!({ "type": "send", "room": "lobby", "data": { "hi": "\u{e9}" }, "id": 2 })).await;
    let data = json!({ "type": "send", "name": "carol", "room": "lobby", "data": { "hi": "\u{e9}" }, "seq": 3 });
    assert_eq!(alice.client.hear().await, data);
    assert_eq!(bob.client.hear().await["seq"], 2);
    bob.client.send(&json!({ "type": "send", "name": "alice", "data": "{\"kept\":\"as it is\"}", "id": 1 })).await;
    let data = json!({ "type": "send", "name": "bob", "data": "{\"kept\":\"as it is\"}", "seq": 4 });
    assert_eq!(alice.client.hear().await, data);
    carol.client.send(&json!({ "type": "part", "room": "lobby", "id": 3 })).await;
    assert_eq!(alice.client.hear().await["left"], "carol");
    for frame in [json!({ "type": "ack", "seq": 2 }), json!({ "type": "bye" })] {
        bob.client.send(&frame).await;
    }
    assert_eq!(alice.client.hear().await, json!({ "type": "presence", "room": "lobby", "left": "bob", "seq": 6 }));

    for (id, frame) in [
        (4, json!({ "type": "send", "room": "lobby", "data": 1 })),
        (5, json!({ "type": "part", "room": "lobby" })),
        (6, json!({ "type": "join", "room": "a\u{200b}b" })),
        (7, json!({ "type": "who" })),
    ] {
        let mut frame = frame;
        frame["id"] = json!(id);
        carol.client.send(&frame).await;
        let error = carol.client.hear().await;
        assert_eq!((&error["code"], &error["id"]), (&json!("forbidden"), &json!(id)), "{error}");
    }
    let mut stranger = Client::connect(&context, Dialect::Objects).await;
    stranger.send(&json!({ "type": "login", "v": 2, "name": "dave", "room": "" })).await;
    assert_eq!(stranger.hear().await["reason"], "bad-name");
    for name in ["dave", "erin"] {
        Member::sign_in(&context, login(name)).await;
    }
    stranger.send(&login("frank")).await;
    assert_eq!(stranger.hear().await["reason"], "full");
    assert!(!context.sessions.kick(&Name::new("frank").unwrap(), context.clock.now()), "and nobody is signed in");
}

#[tokio::test(start_paused = true)]
async fn mistakes_have_the_number_of_their_frame_and_come_again_after_a_break() {
    let context = context(99.0);
    let mut alice = Member::named(&context, "alice").await;
    for (frame, code) in [
        (offer("nobody", 1), "unknown-member"),
        (json!({ "type": "dance", "id": 2 }), "unknown-command"),
        (json!({ "type": "send", "name": "alice", "id": 3 }), "bad-message"),
        (json!({ "type": "login", "name": "again", "id": 4 }), "forbidden"),
    ] {
        alice.client.send(&frame).await;
        let error = alice.client.hear().await;
        assert_eq!((&error["code"], &error["id"], &error["seq"]), (&json!(code), &frame["id"], &frame["id"]));
    }
    alice.client.send(&json!({ "type": "dance", "id": 2 })).await;

    let left = alice.breaks().await;
    let mut back = Member::back(&context, &left, 1).await;

    for n in 2..=4 {
        assert_eq!(back.client.hear().await["seq"], n);
    }
    for bad in [json!({ "type": "ack", "seq": 5 }), json!({ "type": "ack" }), json!({ "type": "ice", "id": "7" })] {
        back.client.send(&bad).await;
    }
    assert_eq!(back.client.hear_out().await, (2, Some(4400)), "the last one waits for the next connection");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_held_by_signs_of_life_and_who_lost_it_is_closed_with_4009() {
    let context = context(99.0);
    let (name, visitor) = (|| Name::new("alice").unwrap(), visitor());
    let mut now = context.clock.now();
    let sign_in = |now| context.sessions.sign_in(name(), Delivery::Acknowledged, None, &visitor, now);
    let (alice, _) = sign_in(now).await.unwrap();

    for _ in 0..9 {
        now = now.after(LIMITS.ping_every);
        assert_eq!(alice.renew(now), Ok(()));
    }
    now = now.after(LIMITS.gone_after + GRACE);
    assert!(alice.renew(now).is_err(), "nobody vouched for it");
    let (heir, _) = sign_in(now).await.unwrap();

    alice.disconnect(false, now);
    assert_eq!(heir.renew(now), Ok(()));
    assert_eq!(Ending::NameLost.close_code().unwrap().0, 4009);
}

#[tokio::test(start_paused = true)]
async fn messages_beyond_the_rate_are_told_by_number() {
    let context = context(99.0);
    let mut alice = Member::named(&context, "alice").await;

    for id in 1..=210 {
        alice.client.send(&json!({ "type": "leave", "id": id })).await;
    }

    let error = alice.client.hear().await;
    assert_eq!((&error["code"], &error["id"]), (&json!("rate"), &json!(200)), "the login was one, too");
}

#[tokio::test(start_paused = true)]
async fn the_first_version_knows_nothing_of_the_second() {
    let context = context(99.0);
    let mut old = Client::sign_in(&context, Dialect::Objects, "old").await;

    for kind in ["join", "part", "send", "who", "ack"] {
        old.send(&json!({ "type": kind, "room": "r", "data": 1, "seq": 0, "id": "mine" })).await;
        let error = old.hear().await;
        assert_eq!(
            error,
            json!({
                "type": "error", "code": "unknown-command", "message": format!("Command not found: {kind}"),
            })
        );
    }
    for id in [2, 1, 1] {
        old.send(&json!({ "type": "ping", "id": id })).await;
        assert_eq!(old.hear().await, json!({ "type": "pong" }), "its numbers are its own");
    }
}
