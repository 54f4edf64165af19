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
    patient_with(places::Settings { total: TOTAL, per_source: PER_SOURCE, sources: Sources::default() })
}

fn patient_with(places: places::Settings) -> Scene {
    let mut scene = Scene::with(|settings| {
        settings.vocabulary = Vocabulary { data: true, presence: false, undelivered: true };
        settings.presence = false;
    });
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
        self.for_account(None, name, Some(token), 1)
    }

    fn for_account(
        &mut self,
        account: Option<&str>,
        name: &str,
        token: Option<&str>,
        source: u8,
    ) -> Result<Attached, Refusal> {
        let account = Account { name: account.map(named), ..Default::default() };
        self.hub.sign_in_or_take_over(named(name), token, account, [192, 0, 2, source].into(), self.now)
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

    assert_eq!(heard(&bob), ["offer alice 0", "offer carol 0", "offer alice 0"]);
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
fn what_waits_is_its_senders_that_comes_back_and_no_strangers_that_has_its_name() {
    for (token, is_back) in [("mine", true), ("another", false)] {
        let mut scene = patient();
        let alice = scene.by_token("alice", "mine").unwrap();
        scene.calls(&alice, "bob").unwrap();
        scene.calls(&alice, "carol").unwrap();
        scene.bye(&alice);
        let heir = scene.by_token("alice", token).unwrap();

        let bob = scene.old("bob");
        scene.waits(WAIT);

        assert_eq!(heard(&bob).is_empty(), !is_back, "{token}");
        assert_eq!(heard(&heir).is_empty(), !is_back, "{token}");
        scene.bye(&bob);
        assert_eq!(heard(&heir).is_empty(), !is_back, "it hears of its partner's end: {token}");
    }
}

#[test]
fn what_waits_of_a_sender_that_is_gone_is_handed_out_while_nobody_has_its_name() {
    let mut scene = patient();
    let alice = scene.by_token("alice", "mine").unwrap();
    scene.calls(&alice, "bob").unwrap();
    scene.bye(&alice);

    let bob = scene.old("bob");

    assert_eq!(heard(&bob), ["offer alice 0"]);
}

#[test]
fn nothing_waits_any_more_of_who_was_kicked() {
    for ends in [true, false] {
        let mut scene = patient();
        let [eve, alice] = ["eve", "alice"].map(|name| scene.by_token(name, name).unwrap());
        scene.calls(&alice, "bob").unwrap();
        scene.calls(&eve, "bob").unwrap();
        scene.calls(&eve, "carol").unwrap();
        scene.hub.kick(&named("eve"), scene.now);
        if ends {
            scene.bye(&eve);
            assert!(scene.calls(&alice, "carol").is_ok() && scene.calls(&alice, "dave").is_ok(), "there is room");
        }

        let (bob, carol) = (scene.old("bob"), scene.old("carol"));

        assert_eq!(heard(&bob), ["offer alice 0"]);
        assert_eq!(heard(&carol).len(), usize::from(ends));
    }
}

#[test]
fn each_sender_has_its_turn_in_a_mailbox_that_has_not_room_for_all_and_is_told_once() {
    const SENDERS: usize = 9;
    let mut scene = patient_with(places::Settings { total: 9, per_source: 9, sources: Sources::default() });
    let senders: Vec<_> = (0..SENDERS).map(|n| scene.old(&format!("sender-{n}"))).collect();
    for sender in &senders {
        for _ in 0..MAX_STEPS {
            scene.calls(sender, "bob").unwrap();
        }
    }

    let bob = scene.old("bob");

    let heard_by_bob = heard(&bob);
    assert_eq!(heard_by_bob.len(), scene.hub.settings.queue.messages);
    for (n, sender) in senders.iter().enumerate() {
        let of = heard_by_bob.iter().filter(|heard| **heard == format!("offer sender-{n} 0")).count();
        assert!(of >= heard_by_bob.len() / SENDERS, "{of} of sender-{n}");
        assert_eq!(heard(sender), ["undelivered bob 0"]);
    }
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

#[test]
fn an_account_takes_its_own_name_over_whatever_it_shows_and_no_others() {
    let mut scene = patient();
    let before = scene.for_account(Some("account"), "alice", Some("signed once"), 1).unwrap();
    let unnamed = scene.for_account(None, "bob", None, 1).unwrap();
    for (account, name) in [(Some("other"), "alice"), (None, "alice"), (Some("account"), "bob"), (None, "bob")] {
        assert_eq!(scene.for_account(account, name, None, 1).err(), Some(Refusal::NameTaken), "{account:?} {name}");
    }

    let again = scene.for_account(Some("account"), "alice", Some("signed again"), 2).unwrap();
    let after = scene.for_account(Some("account"), "alice", None, 3).unwrap();

    assert_eq!([again.session, after.session], [before.session; 2]);
    assert_eq!(again.reader.watch(Waker::noop()), Err(Cut::Replaced));
    assert_eq!(unnamed.reader.watch(Waker::noop()), Ok(()));
    assert_eq!(scene.hub.sessions[&after.session].source, IpAddr::from([192, 0, 2, 3]));
}

#[test]
fn who_takes_over_has_its_own_time_to_read_what_waits() {
    let mut scene = patient();
    scene.hub.settings.queue.messages = 1;
    let (before, bob) = (scene.by_token("alice", "mine").unwrap(), scene.old("bob"));
    scene.calls(&bob, "alice").unwrap();
    scene.passes(Duration::from_secs(2));
    let after = scene.by_token("alice", "mine").unwrap();

    assert_eq!(scene.calls(&bob, "alice"), Err(Undelivered::Refused(Refused::Full)));

    assert_eq!(after.reader.watch(Waker::noop()), Ok(()));
    assert_eq!(heard(&after), ["offer bob 0"]);
    assert!(heard(&before).is_empty());
}
