//! Clients of both revisions, polling and over WebSockets, in memory and under a clock that jumps to the next deadline.

use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::engineio::Packets;
use super::*;
use crate::gateway::tests::*;
use crate::metrics::Gateway;
use crate::signaling::accounts::Proof;
use crate::signaling::mailbox::Delivery;

type Engine = super::Engine<DuplexStream>;
type ClientSocket = tokio_tungstenite::WebSocketStream<DuplexStream>;

const BOTH: [Revision; 2] = [Revision::Third, Revision::Fourth];

fn engine() -> Arc<Engine> {
    Engine::new(context_of(Gateway::SocketIo, |settings| {
        settings.presence = false;
        settings.vocabulary.data = true;
    }))
}

/// A client that polls.
struct Poller {
    engine: Arc<Engine>,
    revision: Revision,
    sid: String,
    served: JoinHandle<()>,
}

impl Poller {
    fn open(engine: &Arc<Engine>, revision: Revision) -> Self {
        let (opening, serve) = engine.open(revision, visitor());
        let opening = Packets::of(opening, revision).next().unwrap().unwrap();
        let handshake: Value = serde_json::from_str(opening.strip_prefix('0').unwrap()).unwrap();
        let sid = handshake["sid"].as_str().unwrap().to_owned();
        assert_eq!(handshake["upgrades"], serde_json::json!(["websocket"]));
        Self { engine: Arc::clone(engine), revision, sid, served: tokio::spawn(serve) }
    }

    /// One that is in the namespace.
    async fn connect(engine: &Arc<Engine>, revision: Revision) -> Self {
        let client = Self::open(engine, revision);
        if revision == Revision::Fourth {
            client.say(&["40"]).await;
        }
        assert!(client.poll().await[0].starts_with("40"));
        client
    }

    async fn poll(&self) -> Vec<String> {
        self.try_poll().await.expect("the session lives")
    }

    async fn try_poll(&self) -> Option<Vec<String>> {
        let payload = self.engine.poll(&self.sid, self.revision, std::future::pending()).await?;
        Some(self.packets(payload))
    }

    fn packets(&self, payload: String) -> Vec<String> {
        Packets::of(payload, self.revision).map(Result::unwrap).collect()
    }

    async fn try_say(&self, packets: &[&str]) -> Option<()> {
        let mut payload = engineio::Payload::new(self.revision);
        for packet in packets {
            payload.push(packet);
        }
        self.engine.post(&self.sid, payload.into_text()).await
    }

    async fn say(&self, packets: &[&str]) {
        self.try_say(packets).await.expect("the session lives");
    }

    /// A WebSocket for its session.
    async fn socket(&self) -> Socket {
        let (near, far) = tokio::io::duplex(4096);
        self.engine.upgrade(&self.sid, far).await;
        Socket(ClientSocket::from_raw_socket(near, Role::Client, None).await)
    }
}

struct Socket(ClientSocket);

impl Socket {
    async fn open(engine: &Arc<Engine>, revision: Revision) -> Self {
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(Arc::clone(engine).serve(revision, visitor(), far));
        let mut client = Self(ClientSocket::from_raw_socket(near, Role::Client, None).await);
        assert!(client.hear().await.starts_with("0{"));
        client
    }

    /// One that is in the namespace.
    async fn connect(engine: &Arc<Engine>, revision: Revision) -> Self {
        let mut client = Self::open(engine, revision).await;
        if revision == Revision::Fourth {
            client.say("40").await;
        }
        assert!(client.hear().await.starts_with("40"));
        client
    }

    async fn say(&mut self, packet: &str) {
        self.0.send(Message::text(packet)).await.unwrap();
    }

    async fn hear(&mut self) -> String {
        self.0.next().await.unwrap().unwrap().into_text().unwrap().as_str().to_owned()
    }

    /// Has all that it has said heard; what it is told until then.
    async fn settle(&mut self) -> Vec<String> {
        self.say("42999[\"leave\",\"nowhere\"]").await;
        let mut heard = Vec::new();
        loop {
            match self.hear().await {
                last if last.contains("not in this room") => return heard,
                other => heard.push(other),
            }
        }
    }

    /// The last packet before the end, and the code that closed.
    async fn hear_out(&mut self) -> (Option<String>, Option<u16>) {
        let mut last = None;
        while let Some(Ok(message)) = self.0.next().await {
            if let Message::Close(close) = message {
                return (last, close.map(|close| close.code.into()));
            }
            last = Some(message.into_text().unwrap().as_str().to_owned());
        }
        (last, None)
    }
}

/// What the only member is called.
fn name_of(engine: &Engine) -> Name {
    engine.context.sessions.members(None, 1).pop().unwrap().name
}

const OFFER: &str = r#"42["offer",{"sdp" : "€ 😀"}]"#;

#[tokio::test(start_paused = true)]
async fn what_one_emits_reaches_everybody_else_as_it_came() {
    let engine = engine();
    for revision in BOTH {
        let mut alice = Socket::connect(&engine, revision).await;
        let mut bob = Socket::connect(&engine, Revision::Third).await;
        let carol = Poller::connect(&engine, revision).await;

        alice.say(OFFER).await;
        assert_eq!((bob.hear().await, carol.poll().await), (OFFER.into(), vec![OFFER.to_owned()]));
        carol.say(&[OFFER, "420[\"bye\"]"]).await;
        for socket in [&mut alice, &mut bob] {
            assert_eq!([socket.hear().await, socket.hear().await], [OFFER, "42[\"bye\"]"]);
        }
        assert_eq!(carol.poll().await, ["430[]"], "an empty acknowledgement");

        carol.say(&["1"]).await;
        alice.say("41").await;
        assert_eq!(alice.hear_out().await, (None, Some(1000)));
        drop(bob);
        carol.served.await.unwrap();
        while engine.context.metrics.members.get() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(engine.polling().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_in_a_room_emits_to_it_alone_until_it_leaves() {
    let engine = engine();
    let [mut alice, mut bob, mut carol] = [
        Socket::connect(&engine, Revision::Fourth).await,
        Socket::connect(&engine, Revision::Third).await,
        Socket::connect(&engine, Revision::Fourth).await,
    ];

    alice.say("421[\"join\",\"r\"]").await;
    bob.say("421[\"join\",{\"room\":\"r\"}]").await;
    assert_eq!([alice.hear().await, bob.hear().await], ["431[]", "431[]"]);
    alice.say(OFFER).await;
    carol.say("42[\"outside\"]").await;
    assert_eq!(bob.hear().await, OFFER);
    assert_eq!([carol.settle().await.len(), bob.settle().await.len(), alice.settle().await.len()], [0; 3]);

    alice.say("421[\"join\",7]").await;
    assert_eq!(alice.hear().await, "431[]");
    alice.say("42[\"leave\",\"r\"]").await;
    assert!(alice.settle().await.is_empty());
    bob.say(OFFER).await;
    assert!(bob.settle().await.is_empty());
    assert!(alice.settle().await.is_empty(), "it has left");
    alice.say("42[\"leave\"]").await;
    assert!(alice.settle().await.is_empty());
    carol.say(OFFER).await;
    assert_eq!(alice.hear().await, OFFER, "who is in no room is with all who aren't");
}

#[tokio::test(start_paused = true)]
async fn create_or_join_makes_pairs() {
    let engine = engine();
    let mut alice = Socket::connect(&engine, Revision::Fourth).await;
    let mut bob = Socket::connect(&engine, Revision::Third).await;
    let mut carol = Socket::connect(&engine, Revision::Fourth).await;

    alice.say("42[\"create or join\",\"foo\"]").await;
    assert!(alice.hear().await.starts_with("42[\"created\",\"foo\",\""));
    bob.say("42[\"create or join\",\"foo\"]").await;
    assert!(bob.hear().await.starts_with("42[\"joined\",\"foo\",\""));
    assert_eq!(bob.hear().await, "42[\"ready\"]");
    assert_eq!([alice.hear().await, alice.hear().await], ["42[\"join\",\"foo\"]", "42[\"ready\"]"]);
    carol.say("42[\"create or join\",\"foo\"]").await;
    assert_eq!(carol.hear().await, "42[\"full\",\"foo\"]");

    alice.say("42[\"message\",{\"type\":\"offer\"}]").await;
    carol.say("42[\"message\",{\"channel\":\"foo\",\"message\":{\"type\" : \"candidate\"}}]").await;
    assert_eq!(bob.hear().await, "42[\"message\",{\"type\":\"offer\"}]");
    for socket in [&mut alice, &mut bob] {
        assert_eq!(socket.hear().await, "42[\"message\",{\"type\" : \"candidate\"}]");
    }
    assert!(carol.settle().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn rooms_and_the_lobby_have_so_many_places_and_say_when_they_are_full() {
    let engine = engine();
    let mut inside = Vec::new();
    for _ in 0..3 {
        inside.push(Socket::connect(&engine, Revision::Fourth).await);
    }
    let mut outside =
        [Socket::connect(&engine, Revision::Fourth).await, Socket::connect(&engine, Revision::Third).await];

    for socket in &mut outside {
        assert!(socket.hear().await.contains("too many are connected without a room"));
        socket.say(OFFER).await;
        assert!(socket.hear().await.contains("too many are connected without a room"), "so nobody heard it");
        socket.say("42[\"join\",\"elsewhere\"]").await;
        assert!(socket.settle().await.is_empty(), "a room is free");
    }
    let [mut fourth, mut third] = outside;
    fourth.say(OFFER).await;
    assert_eq!(third.hear().await, OFFER);
    fourth.say("42[\"leave\"]").await;
    assert!(fourth.hear().await.contains("too many are connected without a room"));
    for socket in &mut inside {
        socket.say("42[\"join\",\"r\"]").await;
        assert!(socket.settle().await.is_empty());
    }
    third.say("42[\"leave\"]").await;
    assert!(third.settle().await.is_empty(), "those in rooms leave room");
    fourth.say(OFFER).await;
    assert_eq!(third.hear().await, OFFER, "also for who was without");
    fourth.say("42[\"join\",\"r\"]").await;
    assert_eq!(fourth.settle().await, ["42[\"full\",\"r\"]"]);
    fourth.say(&format!("42[\"join\",\"{}\"]", "x".repeat(257))).await;
    assert!(fourth.settle().await[0].contains("at most 256 bytes"));
    for room in ["a", "b"] {
        inside[0].say(&format!("42[\"join\",\"{room}\"]")).await;
    }
    assert!(inside[0].settle().await.is_empty());
    inside[0].say("42[\"join\",\"c\"]").await;
    assert!(inside[0].settle().await[0].contains("too many rooms"));
}

#[tokio::test(start_paused = true)]
async fn a_session_moves_from_polling_to_a_web_socket_with_nothing_lost() {
    let engine = engine();
    let mut bob = Socket::connect(&engine, Revision::Fourth).await;
    for revision in BOTH {
        let alice = Poller::connect(&engine, revision).await;

        let mut socket = alice.socket().await;
        let (polled, ()) = tokio::join!(alice.poll(), async {
            socket.say("2probe").await;
            assert_eq!(socket.hear().await, "3probe");
        });
        assert_eq!(polled, ["6"], "the poll that waits ends");
        bob.say(OFFER).await;
        assert!(bob.settle().await.is_empty());
        socket.say("5").await;

        assert_eq!(socket.hear().await, OFFER, "what came meanwhile");
        socket.say("42[\"answer\",1]").await;
        assert_eq!(bob.hear().await, "42[\"answer\",1]");
        assert!(!engine.knows(&alice.sid));
        assert_eq!(alice.try_poll().await, None);
        socket.say("41").await;
        alice.served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_web_socket_that_is_not_tried_as_it_should_changes_nothing() {
    let engine = engine();
    let alice = Poller::connect(&engine, Revision::Fourth).await;

    for wrong in ["5", "2", "42[\"a\"]", "nonsense"] {
        let mut socket = alice.socket().await;
        socket.say(wrong).await;
        assert_eq!(socket.hear_out().await, (None, None), "{wrong}");
    }
    let mut slow = alice.socket().await;
    let mut second = alice.socket().await;
    assert_eq!(second.hear_out().await, (None, None), "one at a time");
    assert_eq!(slow.hear_out().await, (None, None), "and not for ever");
    alice.say(&["421[\"join\",\"r\"]"]).await;
    assert_eq!(alice.poll().await, ["431[]"]);
}

#[tokio::test(start_paused = true)]
async fn who_polls_no_more_is_gone_and_its_name_is_free() {
    let engine = engine();
    let alice = Poller::connect(&engine, Revision::Third).await;
    let name = name_of(&engine);
    assert_ne!(name.as_str(), alice.sid, "who knows the number speaks for it");
    let began = engine.context.clock.now().monotonic;

    let patience = tokio::time::sleep(Duration::from_secs(30));
    assert_eq!(engine.poll(&alice.sid, Revision::Third, patience).await.as_deref(), Some("1:6"), "who waits is there");
    alice.served.await.unwrap();

    assert_eq!(
        engine.context.clock.now().monotonic - began,
        Duration::from_secs(30) + wire::ABSENT,
        "who is gone isn't waited for"
    );
    assert!(!engine.knows(&alice.sid));
    assert_eq!(engine.context.metrics.members.get(), 0);
    let now = engine.context.clock.now();
    let (sessions, visitor) = (&engine.context.sessions, visitor());
    assert!(sessions.sign_in(name, Delivery::Once, None, &visitor, now).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_comes_into_no_namespace_is_let_go_of() {
    let engine = engine();
    let sessions: Vec<_> = (0..100).map(|_| Poller::open(&engine, Revision::Fourth)).collect();
    assert_eq!(engine.polling().len(), 100);

    for session in sessions {
        session.served.await.unwrap();
    }

    assert_eq!(engine.polling().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_server_pings_clients_of_revision_4_and_answers_those_of_revision_3() {
    let engine = engine();
    let mut fourth = Socket::connect(&engine, Revision::Fourth).await;
    let poller = Poller::connect(&engine, Revision::Fourth).await;
    let mut third = Socket::connect(&engine, Revision::Third).await;

    for _ in 0..5 {
        assert_eq!(tokio::join!(fourth.hear(), poller.poll()), ("2".into(), vec!["2".to_owned()]));
        fourth.say("3").await;
        poller.say(&["3"]).await;
        third.say("2").await;
        assert_eq!(third.hear().await, "3");
    }
    assert_eq!(engine.context.metrics.members.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_answered_and_ends_the_connection_the_third_time() {
    for nonsense in ["x", "0", "5", "2x", "4", "42[]", "42/chat,[\"a\"]", "41/chat,", "bAAA="] {
        let engine = engine();
        let mut client = Socket::connect(&engine, Revision::Fourth).await;
        let polling = Poller::connect(&engine, Revision::Fourth).await;

        for _ in 0..3 {
            client.say(nonsense).await;
        }
        let (last, code) = client.hear_out().await;
        polling.try_say(&[nonsense; 3]).await;
        let told = polling.poll().await;

        assert!(last.unwrap().starts_with("42[\"exception\","), "{nonsense}");
        assert_eq!(code, Some(4400), "{nonsense}");
        assert_eq!((told.len(), told[3].as_str()), (4, "1"), "{nonsense}: {told:?}");
        polling.served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn other_namespaces_bytes_and_payloads_that_are_none_are_refused() {
    let engine = engine();
    let mut third = Socket::connect(&engine, Revision::Third).await;
    let mut fourth = Socket::connect(&engine, Revision::Fourth).await;

    third.say("40/chat?token=1").await;
    assert_eq!(third.hear().await, "44/chat,\"Invalid namespace\"");
    fourth.say("40/chat,{}").await;
    assert_eq!(fourth.hear().await, "44/chat,{\"message\":\"Invalid namespace\"}");
    for _ in 0..4 {
        fourth.say("452-[\"image\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]").await;
        assert!(fourth.hear().await.contains("send text"));
        for _ in 0..2 {
            fourth.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
        }
    }
    assert!(fourth.settle().await.is_empty());
    assert!(third.settle().await.is_empty(), "nothing of it went on");
    let poller = Poller::connect(&engine, Revision::Third).await;
    assert_eq!(engine.post(&poller.sid, "5:40".into()).await, Some(()));
    assert!(poller.poll().await[0].contains("not Engine.IO"));
    assert_eq!(engine.post("nobody", String::new()).await, None);
}

#[tokio::test(start_paused = true)]
async fn who_sends_too_much_is_told_and_then_cut() {
    let engine = engine();
    let mut bob = Socket::connect(&engine, Revision::Fourth).await;
    let alice = Poller::connect(&engine, Revision::Fourth).await;

    alice.try_say(&["42[\"a\"]"; 1000]).await;
    let told = alice.poll().await;

    assert!(told.iter().filter(|packet| packet.contains("too many messages")).count() >= 200);
    assert_eq!(told.last().map(String::as_str), Some("1"));
    assert!(bob.settle().await.len() < 210);
    alice.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_cut_and_holds_nobody_back() {
    let engine = engine();
    let mut bob = Socket::connect(&engine, Revision::Fourth).await;
    let mut alice = Poller::connect(&engine, Revision::Fourth).await;
    let long = format!("42[\"offer\",\"{}\"]", "x".repeat(60_000));

    for _ in 0..10 {
        bob.say(&long).await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    assert!(bob.settle().await.iter().all(|packet| packet == "2"));
    (&mut alice.served).await.unwrap();
    assert_eq!(alice.try_poll().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_poll_brings_so_much_at_once_and_the_next_one_the_rest() {
    let engine = engine();
    let mut bob = Socket::connect(&engine, Revision::Fourth).await;
    let alice = Poller::connect(&engine, Revision::Fourth).await;
    for _ in 0..4 {
        bob.say(&format!("42[\"offer\",\"{}\"]", "x".repeat(40_000))).await;
    }
    bob.settle().await;

    let counts = [alice.poll().await.len(), alice.poll().await.len()];

    assert_eq!(counts, [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_given_up_brings_nothing_and_loses_nothing() {
    let engine = engine();
    let mut bob = Socket::connect(&engine, Revision::Fourth).await;
    for revision in BOTH {
        let alice = Poller::connect(&engine, revision).await;

        let patience = tokio::time::sleep(Duration::from_secs(1));
        let told = engine.poll(&alice.sid, revision, patience).await.unwrap();
        bob.say(OFFER).await;
        bob.settle().await;

        assert_eq!(alice.packets(told), ["6"]);
        assert_eq!(alice.poll().await, [OFFER]);
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_web_sockets_are_closed_for_a_restart_and_polls_are_answered() {
    let engine = engine();
    let mut socket = Socket::connect(&engine, Revision::Fourth).await;
    let poller = Poller::connect(&engine, Revision::Third).await;

    engine.context.shutdown.cancel();

    assert_eq!(socket.hear_out().await, (None, Some(1012)));
    assert_eq!(poller.poll().await, ["1"]);
    poller.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_kicked_is_told_not_to_come_back_and_who_says_too_much_that_it_does() {
    let engine = engine();
    let kicked = Poller::connect(&engine, Revision::Third).await;
    let name = name_of(&engine);
    let mut wordy = Socket::connect(&engine, Revision::Fourth).await;
    let poster = Poller::connect(&engine, Revision::Fourth).await;

    engine.context.sessions.kick(&name, engine.context.clock.now());
    wordy.say(&"x".repeat(LIMITS.message_bytes + 1)).await;
    poster.try_say(&["40", &"x".repeat(LIMITS.message_bytes + 1)]).await;

    assert_eq!(kicked.poll().await, ["41", "1"]);
    let (last, code) = wordy.hear_out().await;
    assert!(last.unwrap().contains("at most 65536 bytes"));
    assert_eq!(code, Some(1009));
    let told = poster.poll().await;
    assert!(told[0].contains("at most 65536 bytes") && told[1] == "1");
}

#[tokio::test(start_paused = true)]
async fn who_may_try_again_later_has_its_transport_closed_which_clients_come_back_from() {
    for revision in BOTH {
        let engine = Engine::new(context_for(Gateway::SocketIo, Proof::None, 1.0, |_| {}));
        let _first = Socket::connect(&engine, Revision::Third).await;

        let mut socket = Socket::open(&engine, revision).await;
        let poller = Poller::open(&engine, revision);
        if revision == Revision::Fourth {
            socket.say("40").await;
            poller.say(&["40"]).await;
        }

        assert_eq!(socket.hear_out().await, (None, Some(4001)));
        assert_eq!(poller.poll().await, ["1"]);
        poller.served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_mean_something_to_clients_are_refused_and_all_others_go_on() {
    let engine = engine();
    let mut alice = Socket::connect(&engine, Revision::Fourth).await;
    let mut bob = Socket::connect(&engine, Revision::Third).await;

    for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
        alice.say(&format!("42[\"{name}\",1]")).await;
        assert!(alice.hear().await.contains("the clients themselves"), "{name}");
    }
    for name in ["ping", "pong", "error", "reconnect", "reconnecting", "connecting"] {
        alice.say(&format!("42[\"{name}\",1]")).await;
        assert_eq!(bob.hear().await, format!("42[\"{name}\",1]"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_array_is_not_taken_for_an_object_of_fields() {
    let engine = engine();
    let mut alice = Socket::connect(&engine, Revision::Fourth).await;
    let mut bob = Socket::connect(&engine, Revision::Fourth).await;

    alice.say("42[\"message\",[\"foo\",\"bar\"]]").await;
    assert_eq!(bob.hear().await, "42[\"message\",[\"foo\",\"bar\"]]");
    alice.say("42[\"join\",[\"foo\"]]").await;
    assert!(alice.hear().await.contains("which room?"));
}

#[tokio::test(start_paused = true)]
async fn a_post_during_the_upgrade_is_heard_though_nobody_polls_for_replies() {
    let engine = engine();
    let mut bob = Socket::connect(&engine, Revision::Fourth).await;
    let alice = Poller::connect(&engine, Revision::Fourth).await;
    let mut socket = alice.socket().await;
    let (polled, ()) = tokio::join!(alice.poll(), async {
        socket.say("2probe").await;
        assert_eq!(socket.hear().await, "3probe");
    });
    assert_eq!(polled, ["6"]);

    alice.say(&["421[\"first\"]"]).await;
    alice.say(&["42[\"second\"]"]).await;
    socket.say("5").await;

    assert_eq!([bob.hear().await, bob.hear().await], ["42[\"first\"]", "42[\"second\"]"]);
    assert_eq!(socket.hear().await, "431[]");
}

#[tokio::test(start_paused = true)]
async fn parts_in_bytes_of_what_is_refused_for_the_rate_count_for_nothing() {
    let engine = engine();
    let mut alice = Socket::connect(&engine, Revision::Fourth).await;

    // The first of the 200 that it may send at once was its coming in.
    for _ in 1..200 {
        alice.say("3").await;
    }
    for _ in 0..3 {
        alice.say("451-[\"image\",{\"_placeholder\":true,\"num\":0}]").await;
        assert!(alice.hear().await.contains("too many messages"));
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..3 {
        alice.0.send(Message::binary(vec![1])).await.unwrap();
    }

    assert!(alice.settle().await.is_empty());
}
