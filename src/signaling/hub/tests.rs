//! Members that come, go and come back, under a clock of the test's own.

use std::task::Waker;

use super::*;
use crate::clock::Clock;
use crate::credentials;
use crate::credentials::Standing;
use crate::signaling::mailbox::Cut;
use crate::signaling::mailbox::MAX_PARTNERS;
use crate::signaling::mailbox::Refused;
use crate::signaling::message::Recipient;

mod absent;
mod away;
mod change;
mod life;
mod rooms;

const GRACE: Duration = Duration::from_secs(30);

struct Scene {
    hub: Hub,
    metrics: Arc<Metrics>,
    credentials: Arc<Credentials>,
    /// Where clients come from.
    source: IpAddr,
    now: Now,
}

impl Scene {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            queue: Capacity { messages: 256, bytes: 256 * 1024 },
            silence: Duration::from_secs(45),
            grace: GRACE,
            rooms: 3,
            room_members: 4,
            who: false,
            presence: true,
            sources: Sources::default(),
            vocabulary: Default::default(),
        };
        change(&mut settings);
        let metrics = Arc::new(Metrics::default());
        let credentials = Arc::new(Credentials::new(Default::default()));
        let hub = Hub::new(settings, Arc::clone(&credentials), Arc::clone(&metrics));
        Self { hub, metrics, credentials, source: [192, 0, 2, 1].into(), now: Clock::system().now() }
    }

    fn try_sign_in(&mut self, name: &str, delivery: Delivery) -> Result<Attached, Refusal> {
        self.hub.sign_in(named(name), Account::default(), delivery, self.source, self.now)
    }

    /// A client of the first version.
    fn old(&mut self, name: &str) -> Attached {
        self.try_sign_in(name, Delivery::Once).unwrap()
    }

    /// A client that can come back.
    fn sign_in(&mut self, name: &str) -> Attached {
        self.try_sign_in(name, Delivery::Acknowledged).unwrap()
    }

    fn resume(&mut self, name: &str, lost: &Attached, arrived: u64) -> Result<Attached, Refusal> {
        let secret = lost.secret.as_ref().unwrap().reveal();
        self.hub.resume(&named(name), &secret, arrived, self.source, self.now)
    }

    fn loses(&mut self, member: &Attached) {
        self.hub.disconnect(member.session, &member.reader, true, self.now);
    }

    fn bye(&mut self, member: &Attached) {
        self.hub.disconnect(member.session, &member.reader, false, self.now);
    }

    fn offer(&mut self, from: &Attached, frame: u64, to: &str) -> Result<(), Undelivered> {
        let sender = self.hub.admit(from.session, &from.reader, Some(frame)).unwrap();
        self.hub.signal(sender, &named(to), SignalKind::Offer, payload(), self.now)
    }

    fn leave(&mut self, from: &Attached, to: &str) -> Result<(), Undelivered> {
        let sender = self.hub.admit(from.session, &from.reader, None).unwrap();
        self.hub.leave(&sender, &named(to), self.now)
    }

    fn join(&mut self, member: &Attached, room: &str) -> Result<Vec<String>, NotJoined> {
        let present = self.hub.join(member.session, &named(room), self.now)?;
        Ok(present.iter().map(|name| name.as_str().to_owned()).collect())
    }

    fn send_to_room(&mut self, from: &Attached, frame: u64, room: &str) -> Result<usize, NotThere> {
        let sender = self.hub.admit(from.session, &from.reader, Some(frame)).unwrap();
        self.hub.send_to_room(&sender, &named(room), &payload(), self.now)
    }

    fn passes(&mut self, time: Duration) {
        self.now = self.now.after(time);
        while self.hub.away.first().is_some_and(|(until, _)| until <= self.now.monotonic) {
            self.hub.tick(self.now);
        }
    }
}

fn named(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn payload() -> Payload {
    Payload::new(serde_json::from_str("{}").unwrap())
}

/// All that waits, in words.
fn heard(member: &Attached) -> Vec<String> {
    std::iter::from_fn(|| member.reader.take()).map(|(_, message)| in_words(&message)).collect()
}

fn in_words(message: &Message) -> String {
    match message {
        Message::Signal { from, .. } => format!("offer {} {}", from.name.as_str(), from.frame.unwrap_or(0)),
        Message::Data { from, room, .. } => {
            let room = room.as_ref().map_or("alone", Name::as_str);
            format!("data {} {} {room}", from.name.as_str(), from.frame.unwrap_or(0))
        }
        Message::Leave { from } | Message::Away { from } | Message::Gone { from } => format!("leave {}", from.as_str()),
        Message::Presence { room, name, change } => format!("{change:?} {} {}", room.as_str(), name.as_str()),
        Message::Missed => "missed".to_owned(),
        Message::Undelivered { to: Recipient::Member(name) | Recipient::Room(name), frame } => {
            format!("undelivered {} {}", name.as_str(), frame.unwrap_or(0))
        }
        Message::Answer(text) | Message::Notice(text) => text.to_string(),
    }
}

#[test]
fn a_name_has_one_member_until_it_signs_out() {
    let mut scene = Scene::new();

    let alice = scene.old("alice");
    assert_eq!(scene.try_sign_in("alice", Delivery::Once).err(), Some(Refusal::NameTaken));
    assert_eq!(scene.metrics.members.get(), 1);
    scene.bye(&alice);

    assert!(scene.try_sign_in("alice", Delivery::Acknowledged).is_ok());
    assert_eq!(scene.metrics.members.get(), 1);
}

#[test]
fn a_kicked_member_is_cut_and_a_banned_name_is_refused_until_it_is_not() {
    let mut scene = Scene::new();
    let alice = scene.sign_in("alice");

    assert_eq!(scene.hub.kick(&named("nobody"), scene.now), None);
    assert_eq!(scene.hub.kick(&named("alice"), scene.now), Some(alice.session));
    assert_eq!(alice.reader.watch(Waker::noop()), Err(Cut::Kicked));
    assert!(scene.hub.kick_session(alice.session, scene.now) && !scene.hub.kick_session(SessionId::new(), scene.now));
    assert_eq!(scene.resume("alice", &alice, 0).err(), Some(Refusal::NoSession), "nobody comes back from that");
    scene.bye(&alice);
    scene.hub.ban(named("alice")).unwrap();
    assert_eq!(scene.try_sign_in("alice", Delivery::Once).err(), Some(Refusal::Banned));

    assert!(scene.hub.unban(&named("alice")) && !scene.hub.unban(&named("alice")));
    assert!(scene.try_sign_in("alice", Delivery::Once).is_ok());
}

#[test]
fn who_is_away_can_be_kicked_too() {
    let mut scene = Scene::new();
    let alice = scene.sign_in("alice");
    scene.loses(&alice);

    assert_eq!(scene.hub.kick(&named("alice"), scene.now), Some(alice.session));

    assert_eq!((scene.hub.sessions.len(), scene.hub.away.len(), scene.metrics.members.get()), (0, 0, 0));
    assert_eq!(scene.resume("alice", &alice, 0).err(), Some(Refusal::NoSession));
}

#[test]
fn so_many_names_may_be_banned_and_no_more() {
    let mut scene = Scene::new();
    (0..MAX_BANNED).for_each(|n| assert_eq!(scene.hub.ban(named(&n.to_string())), Ok(true)));

    assert_eq!(scene.hub.ban(named("one more")), Err(TooManyBanned));
    assert_eq!(scene.hub.ban(named("0")), Ok(false), "it is banned already");
    scene.hub.unban(&named("0"));

    assert_eq!(scene.hub.ban(named("one more")), Ok(true));
    assert_eq!(scene.hub.banned.len(), MAX_BANNED);
}

#[test]
fn partners_are_told_once_when_a_member_goes_and_others_never() {
    let mut scene = Scene::new();
    let [alice, carol, bob] = ["alice", "carol", "bob"].map(|name| scene.old(name));
    (1..=3).for_each(|n| scene.offer(&bob, n, "alice").unwrap());
    assert_eq!(heard(&alice).len(), 3);

    scene.loses(&bob);

    assert_eq!((heard(&alice), heard(&carol)), (vec!["leave bob".to_owned()], vec![]));
    assert_eq!(scene.offer(&alice, 1, "bob"), Err(Undelivered::UnknownMember));
}

#[test]
fn after_leave_two_are_partners_no_more() {
    let mut scene = Scene::new();
    let [alice, bob] = ["alice", "bob"].map(|name| scene.old(name));
    scene.offer(&bob, 1, "alice").unwrap();
    heard(&alice);

    scene.leave(&alice, "bob").unwrap();
    assert_eq!(heard(&bob), ["leave alice"]);
    scene.bye(&bob);
    scene.hub.leave_all(alice.session, scene.now);

    assert!(heard(&alice).is_empty());
    assert_eq!(scene.leave(&alice, "bob"), Err(Undelivered::UnknownMember));
}

#[test]
fn a_full_mailbox_refuses_what_members_send_but_not_that_a_partner_is_gone() {
    let mut scene = Scene::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| scene.old(name));
    (1..=256).for_each(|n| scene.offer(&bob, n, "alice").unwrap());

    let full = Err(Undelivered::Refused(Refused::Full));
    assert_eq!(scene.offer(&carol, 1, "alice"), full);
    assert_eq!(scene.leave(&bob, "alice"), full);
    scene.bye(&carol);
    scene.bye(&bob);

    assert_eq!(heard(&alice)[256..], ["leave bob"]);
}

#[test]
fn a_member_may_call_itself_and_is_not_its_own_partner() {
    let mut scene = Scene::new();
    let alice = scene.old("alice");

    scene.offer(&alice, 1, "alice").unwrap();
    heard(&alice);
    scene.hub.leave_all(alice.session, scene.now);

    assert!(heard(&alice).is_empty());
}

#[test]
fn partners_are_told_of_as_many_as_are_remembered() {
    let mut scene = Scene::new();
    let all: Vec<_> = (0..=MAX_PARTNERS).map(|n| scene.old(&n.to_string())).collect();
    let bot = scene.old("bot");
    for (frame, n) in (1..).zip(0..=MAX_PARTNERS) {
        scene.offer(&bot, frame, &n.to_string()).unwrap();
    }
    all.iter().for_each(|member| drop(heard(member)));

    scene.bye(&bot);

    assert!(heard(&all[0]).is_empty(), "the earliest is forgotten");
    assert!(all[1..].iter().all(|member| heard(member) == ["leave bot"]));
}

#[test]
fn a_lost_connection_costs_nothing_when_the_client_comes_back_in_time() {
    let mut scene = Scene::new();
    let (alice, bob) = (scene.sign_in("alice"), scene.sign_in("bob"));
    scene.offer(&bob, 1, "alice").unwrap();
    scene.offer(&bob, 2, "alice").unwrap();
    assert_eq!(heard(&alice), ["offer bob 1", "offer bob 2"]);
    scene.offer(&alice, 1, "bob").unwrap();
    heard(&bob);

    scene.loses(&alice);
    scene.offer(&bob, 3, "alice").unwrap();
    scene.passes(GRACE - Duration::from_millis(1));
    assert_eq!(scene.try_sign_in("alice", Delivery::Once).err(), Some(Refusal::NameTaken));
    let back = scene.resume("alice", &alice, 1).unwrap();

    assert_eq!((back.session, back.last_frame), (alice.session, 1));
    assert_eq!(heard(&back), ["offer bob 2", "offer bob 3"]);
    scene.passes(GRACE * 3);
    assert!(heard(&bob).is_empty(), "nobody noticed");
    assert_eq!((scene.hub.away.len(), scene.metrics.members.get()), (0, 2));
}

#[test]
fn a_frame_counts_once_whatever_connection_it_comes_over() {
    let mut scene = Scene::new();
    let (alice, bob) = (scene.sign_in("alice"), scene.sign_in("bob"));
    scene.offer(&alice, 7, "bob").unwrap();

    let again = scene.hub.admit(alice.session, &alice.reader, Some(7)).err();
    let earlier = scene.hub.admit(alice.session, &alice.reader, Some(1)).err();
    let back = scene.resume("alice", &alice, 0).unwrap();

    assert_eq!((again, earlier), (Some(Stale::Frame), Some(Stale::Frame)));
    assert_eq!(scene.hub.admit(back.session, &back.reader, Some(7)).err(), Some(Stale::Frame));
    assert_eq!(scene.hub.admit(alice.session, &alice.reader, Some(8)).err(), Some(Stale::Connection), "too late");
    assert_eq!(back.last_frame, 7);
    scene.offer(&back, 8, "bob").unwrap();
    assert_eq!(heard(&bob), ["offer alice 7", "offer alice 8"]);
}

#[test]
fn a_connection_that_was_replaced_ends_nothing_any_more() {
    let mut scene = Scene::new();
    let alice = scene.sign_in("alice");
    let back = scene.resume("alice", &alice, 0).unwrap();
    assert_eq!(alice.reader.watch(Waker::noop()), Err(Cut::Replaced));

    scene.loses(&alice);
    scene.bye(&alice);
    scene.passes(GRACE);

    assert_eq!(scene.metrics.members.get(), 1);
    scene.loses(&back);
    scene.passes(GRACE);
    assert_eq!(scene.metrics.members.get(), 0);
}

#[test]
fn a_resumption_that_was_overtaken_by_a_later_one_ends_nothing() {
    let mut scene = Scene::new();
    let (alice, bob) = (scene.sign_in("alice"), scene.sign_in("bob"));
    scene.offer(&bob, 1, "alice").unwrap();
    let back = scene.resume("alice", &alice, 0).unwrap();
    assert_eq!(heard(&back), ["offer bob 1"]);
    back.reader.acknowledge(1).unwrap();

    assert_eq!(scene.resume("alice", &alice, 0).err(), Some(Refusal::NoSession));
    assert!(back.reader.is_current() && back.reader.watch(Waker::noop()).is_ok());
    scene.loses(&back);
    scene.offer(&bob, 2, "alice").unwrap();
    assert_eq!(heard(&scene.resume("alice", &alice, 1).unwrap()), ["offer bob 2"]);
}

#[test]
fn only_who_knows_the_secret_and_left_off_where_we_know_comes_back() {
    let mut scene = Scene::new();
    let (alice, bob, old) = (scene.sign_in("alice"), scene.sign_in("bob"), scene.old("old"));
    scene.offer(&bob, 1, "alice").unwrap();
    heard(&alice);

    for (name, secret, arrived) in
        [("alice", bob.secret.as_ref(), 0), ("nobody", alice.secret.as_ref(), 0), ("alice", bob.secret.as_ref(), 2)]
    {
        let refused = scene.hub.resume(&named(name), &secret.unwrap().reveal(), arrived, scene.source, scene.now);
        assert_eq!(refused.err(), Some(Refusal::NoSession), "{name} {arrived}");
    }
    assert_eq!(scene.hub.resume(&named("old"), "", 0, scene.source, scene.now).err(), Some(Refusal::NoSession));
    assert!(old.secret.is_none() && alice.reader.is_current() && alice.reader.watch(Waker::noop()).is_ok());
    scene.bye(&alice);
    assert_eq!(scene.resume("alice", &alice, 1).err(), Some(Refusal::NoSession), "after a goodbye nobody does");
}

#[test]
fn after_the_grace_partners_and_senders_learn_what_became_of_it() {
    let mut scene = Scene::new();
    let (alice, bob, old) = (scene.sign_in("alice"), scene.sign_in("bob"), scene.old("old"));
    let gone = scene.sign_in("gone");
    for (from, frame) in [(&bob, 1), (&old, 1), (&gone, 1)] {
        scene.offer(from, frame, "alice").unwrap();
    }
    assert_eq!(heard(&alice).len(), 3);
    alice.reader.acknowledge(1).unwrap();
    scene.bye(&gone);

    scene.loses(&alice);
    assert_eq!((heard(&old), heard(&bob)), (vec!["leave alice".to_owned()], vec![]));
    scene.offer(&bob, 2, "alice").unwrap();
    scene.offer(&bob, 3, "alice").unwrap();
    scene.offer(&old, 2, "alice").unwrap();
    assert!(scene.credentials.claim(&username(&scene, &alice), scene.now).standing == Standing::Good);
    scene.passes(GRACE);

    assert_eq!(heard(&bob), ["leave alice", "undelivered alice 2", "undelivered alice 3"]);
    assert_eq!(heard(&old), ["leave alice"], "it called again, and knows of no more");
    assert_eq!(scene.offer(&bob, 4, "alice"), Err(Undelivered::UnknownMember));
    assert_eq!(scene.resume("alice", &alice, 1).err(), Some(Refusal::NoSession));
    assert_eq!(scene.metrics.members.get(), 2);
}

#[test]
fn a_session_that_is_away_has_its_credentials_until_it_is_over() {
    let mut scene = Scene::with(|_| {});
    scene.credentials =
        Arc::new(Credentials::new(credentials::Settings { mode: credentials::Mode::Session, ..Default::default() }));
    let settings = scene.hub.settings.clone();
    scene.hub = Hub::new(settings, Arc::clone(&scene.credentials), Arc::clone(&scene.metrics));
    let alice = scene.sign_in("alice");

    scene.loses(&alice);
    scene.passes(GRACE / 2);
    assert!(!scene.credentials.is_over(alice.session, scene.now));
    scene.passes(GRACE / 2);

    assert!(scene.credentials.is_over(alice.session, scene.now));
}

#[test]
fn what_waits_for_who_is_away_is_bounded_and_the_rest_refused() {
    let mut scene = Scene::new();
    let (alice, bob) = (scene.sign_in("alice"), scene.sign_in("bob"));
    scene.loses(&alice);

    (1..=256).for_each(|n| scene.offer(&bob, n, "alice").unwrap());
    assert_eq!(scene.offer(&bob, 257, "alice"), Err(Undelivered::Refused(Refused::Full)));
    scene.passes(GRACE);

    assert_eq!(heard(&bob).len(), 257, "all 256, and that it left");
}

#[test]
fn a_name_that_nobody_renews_is_free_again_and_its_holder_learns_that() {
    let mut scene = Scene::new();
    let alice = scene.sign_in("alice");
    scene.now = scene.now.after(Duration::from_secs(40));
    assert_eq!(scene.hub.renew(alice.session, scene.now), Ok(()));
    scene.now = scene.now.after(Duration::from_secs(45) + GRACE);

    let heir = scene.try_sign_in("alice", Delivery::Once);

    assert!(heir.is_ok());
    assert_eq!(scene.hub.renew(alice.session, scene.now), Err(Lost));
    scene.loses(&alice);
    assert_eq!((scene.hub.sessions.len(), scene.metrics.members.get()), (1, 1));
    assert_eq!(scene.hub.session_of(&named("alice"), scene.now), heir.ok().map(|heir| heir.session));
}

fn username(scene: &Scene, member: &Attached) -> String {
    scene.credentials.mint(member.session, None, scene.now).username
}

#[test]
fn what_is_published_reaches_everybody_there_the_sender_too_and_says_how_many_that_are() {
    let mut scene = Scene::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| scene.sign_in(name));
    let publish = |scene: &mut Scene, from: &Attached, frame, room| {
        let mut told = None;
        let sender = scene.hub.admit(from.session, &from.reader, Some(frame)).unwrap();
        let payload = |present| {
            told = Some(present);
            Some(payload())
        };
        scene.hub.publish(&sender, &named(room), payload, scene.now);
        told
    };
    for member in [&alice, &bob] {
        scene.join(member, "topic").unwrap();
    }
    heard(&alice);

    assert_eq!(publish(&mut scene, &alice, 1, "topic"), Some(2));
    assert_eq!(publish(&mut scene, &carol, 1, "topic"), Some(2), "from elsewhere");
    assert_eq!(publish(&mut scene, &carol, 2, "nowhere"), None);
    scene.hub.part(bob.session, &named("topic"), scene.now).unwrap();
    assert_eq!(publish(&mut scene, &alice, 2, "topic"), Some(1));

    assert_eq!(heard(&alice), ["data alice 1 topic", "data carol 1 topic", "Left topic bob", "data alice 2 topic"]);
    assert!(heard(&carol).is_empty());
}

#[test]
fn others_are_told_of_to_who_is_there_too() {
    let mut scene = Scene::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| scene.sign_in(name));
    for member in [&alice, &bob] {
        scene.join(member, "room").unwrap();
    }
    let others = |member: &Attached| scene.hub.others(member.session, &named("room"), scene.now);

    assert_eq!(others(&alice), [named("bob")]);
    assert_eq!(others(&bob), [named("alice")]);
    assert!(others(&carol).is_empty());
}
