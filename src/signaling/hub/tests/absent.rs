//! Who is sent something before it is here, and who comes back to its name.

use super::*;
use crate::address::Sources;
use crate::places;
use crate::places::Places;
use crate::signaling::hub::waiting::MAX_BYTES;
use crate::signaling::hub::waiting::MAX_STEPS;
use crate::signaling::hub::waiting::Step;
use crate::signaling::hub::waiting::WAIT;

const TOTAL: usize = 5;
const PER_SOURCE: usize = 3;

/// A hub where things wait, and members that are told all.
fn patient() -> Scene {
    let mut scene = Scene::with(|settings| {
        settings.vocabulary = Vocabulary { data: true, presence: false, undelivered: true };
        settings.presence = false;
    });
    let places = places::Settings { total: TOTAL, per_source: PER_SOURCE, sources: Sources::default() };
    scene.hub = scene.hub.patient(Places::new(places));
    scene
}

impl Scene {
    fn calls_from(&mut self, source: u8, from: &Attached, to: &str, bytes: usize) -> Result<(), Undelivered> {
        let sender = self.hub.admit(from.session, &from.reader, None).unwrap();
        let json = format!("\"{}\"", "x".repeat(bytes - 2));
        let payload = Payload::verbatim(serde_json::from_str(&json).unwrap());
        let step = Step { from: sender, kind: SignalKind::Offer, payload };
        self.hub.signal_or_wait(step, &named(to), [192, 0, 2, source].into(), self.now)
    }

    fn calls(&mut self, from: &Attached, to: &str) -> Result<(), Undelivered> {
        self.calls_from(1, from, to, 2)
    }

    fn waits(&mut self, time: Duration) {
        self.passes(time);
        self.hub.tick(self.now);
    }

    fn by_token(&mut self, name: &str, token: &str) -> Result<Attached, Refusal> {
        self.hub.sign_in_or_take_over(named(name), token, Default::default(), [192, 0, 2, 1].into(), self.now)
    }
}

#[test]
fn what_waits_is_handed_out_to_whoever_comes_and_given_up_no_more() {
    let mut scene = patient();
    let [alice, carol] = ["alice", "carol"].map(|name| scene.old(name));
    for from in [&alice, &carol, &alice] {
        assert_eq!(scene.calls(from, "bob"), Ok(()));
    }
    scene.waits(WAIT / 2);

    let bob = scene.old("bob");

    assert_eq!(heard(&bob), ["offer alice 0", "offer alice 0", "offer carol 0"]);
    assert_eq!(scene.calls(&alice, "bob"), Ok(()));
    assert_eq!(heard(&bob), ["offer alice 0"], "it is here");
    scene.waits(WAIT);
    assert!(heard(&alice).is_empty() && heard(&carol).is_empty() && heard(&bob).is_empty());
}

#[test]
fn what_waited_long_enough_is_told_to_each_sender_once() {
    let mut scene = patient();
    let [alice, carol] = ["alice", "carol"].map(|name| scene.old(name));
    scene.calls(&alice, "bob").unwrap();
    scene.calls(&alice, "dave").unwrap();
    scene.waits(WAIT / 2);
    scene.calls(&carol, "bob").unwrap();
    scene.calls(&alice, "bob").unwrap();

    scene.waits(WAIT / 2);
    assert_eq!(heard(&alice), ["undelivered bob 0", "undelivered dave 0"]);
    assert!(heard(&carol).is_empty());

    let bob = scene.old("bob");
    assert_eq!(heard(&bob), ["offer carol 0"]);
}

#[test]
fn a_sender_that_has_come_back_is_told_by_its_name() {
    let mut scene = patient();
    let alice = scene.old("alice");
    scene.calls(&alice, "bob").unwrap();
    scene.bye(&alice);
    let back = scene.old("alice");

    scene.waits(WAIT);

    assert_eq!(heard(&back), ["undelivered bob 0"]);
}

#[test]
fn what_waits_is_bounded_for_each_pair_and_nobody_fills_anothers_share() {
    let mut scene = patient();
    let [alice, eve] = ["alice", "eve"].map(|name| scene.old(name));
    let full = Err(Undelivered::UnknownMember);

    for _ in 0..MAX_STEPS {
        assert_eq!(scene.calls(&eve, "bob"), Ok(()));
    }
    assert_eq!(scene.calls(&eve, "bob"), full);
    assert_eq!(scene.calls_from(1, &eve, "carol", MAX_BYTES + 1), full);
    assert_eq!(scene.calls_from(1, &eve, "carol", MAX_BYTES), Ok(()));
    assert_eq!(scene.calls(&eve, "carol"), full);
    assert_eq!(scene.calls(&alice, "bob"), Ok(()));

    let bob = scene.old("bob");
    assert_eq!(heard(&bob).len(), MAX_STEPS + 1);
}

#[test]
fn what_waits_is_bounded_for_each_source_and_in_all_and_makes_room_when_it_waits_no_more() {
    let mut scene = patient();
    let [alice, eve] = ["alice", "eve"].map(|name| scene.old(name));
    let full = Err(Undelivered::UnknownMember);

    for (n, source) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)] {
        assert_eq!(scene.calls_from(source, &eve, &format!("absent-{n}"), 2), Ok(()));
        if n == PER_SOURCE - 1 {
            assert_eq!(scene.calls_from(source, &eve, "one more", 2), full);
        }
    }
    assert_eq!(scene.calls_from(3, &alice, "bob", 2), full);
    scene.old("absent-0");
    assert_eq!(scene.calls_from(3, &alice, "bob", 2), Ok(()));
    assert_eq!(scene.calls_from(3, &alice, "carol", 2), full);
    scene.waits(WAIT);
    assert_eq!(heard(&eve).len(), TOTAL - 1);
    assert_eq!(scene.calls_from(1, &eve, "one more", 2), Ok(()));
}

#[test]
fn a_mailbox_that_is_full_gives_back_what_waited_for_it() {
    let mut scene = patient();
    scene.hub.settings.queue.messages = 2;
    let alice = scene.old("alice");
    for _ in 0..3 {
        scene.calls(&alice, "bob").unwrap();
    }

    let bob = scene.old("bob");

    assert_eq!(heard(&bob).len(), 2);
    assert_eq!(heard(&alice), ["undelivered bob 0"]);
}

#[test]
fn the_next_tick_comes_in_time_for_what_waits() {
    let mut scene = patient();
    let idle = scene.hub.tick(scene.now);
    let alice = scene.old("alice");
    scene.calls(&alice, "bob").unwrap();

    assert_eq!(scene.hub.tick(scene.now), scene.now.monotonic + WAIT);
    assert!(idle <= scene.now.monotonic + WAIT);
}

#[test]
fn without_room_to_wait_nobody_is_waited_for() {
    let mut scene = Scene::new();
    let alice = scene.old("alice");

    assert_eq!(scene.calls(&alice, "bob"), Err(Undelivered::UnknownMember));
}

#[test]
fn the_same_token_takes_a_name_over_with_its_session_and_another_does_not() {
    let mut scene = patient();
    let before = scene.by_token("alice", "mine").unwrap();
    let bob = scene.old("bob");
    assert_eq!(scene.by_token("alice", "min").err(), Some(Refusal::NameTaken));
    assert_eq!(scene.try_sign_in("alice", Delivery::Once).err(), Some(Refusal::NameTaken));
    assert_eq!(scene.by_token("bob", "").err(), Some(Refusal::NameTaken), "who showed none has none");

    let after = scene.by_token("alice", "mine").unwrap();

    assert_eq!(after.session, before.session);
    assert_eq!(before.reader.watch(Waker::noop()), Err(Cut::Replaced));
    assert!(scene.hub.admit(before.session, &before.reader, None).is_err(), "the earlier says nothing more");
    scene.loses(&before);
    scene.calls(&bob, "alice").unwrap();
    assert_eq!(heard(&after), ["offer bob 0"]);
    assert_eq!(scene.metrics.members.get(), 2);
    scene.loses(&after);
    assert!(scene.by_token("alice", "another").is_ok(), "it is free as soon as its connection is over");
}

#[test]
fn a_kicked_name_is_not_taken_over() {
    let mut scene = patient();
    let alice = scene.by_token("alice", "mine").unwrap();
    scene.hub.kick(&named("alice"), scene.now);

    assert_eq!(scene.by_token("alice", "mine").err(), Some(Refusal::NameTaken));
    scene.bye(&alice);
    scene.hub.ban(named("alice")).unwrap();
    assert_eq!(scene.by_token("alice", "mine").err(), Some(Refusal::Banned));
}
