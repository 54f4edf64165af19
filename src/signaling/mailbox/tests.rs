//! What waits, how much, for whom, and how often it is handed out.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Wake;

use super::*;
use crate::clock::Clock;
use crate::credentials::SessionId;
use crate::signaling::message::Change;
use crate::signaling::message::Joined;
use crate::signaling::message::Payload;
use crate::signaling::message::Recipient;
use crate::signaling::message::Sender;
use crate::signaling::message::SignalKind;
use crate::signaling::message::Told;

const CAPACITY: Capacity = Capacity { messages: 256, bytes: 256 * 1024 };

struct Scene {
    mailbox: Arc<Mailbox>,
    reader: Reader,
    now: Instant,
}

impl Scene {
    fn new(delivery: Delivery) -> Self {
        Self::of(delivery, CAPACITY)
    }

    fn of(delivery: Delivery, capacity: Capacity) -> Self {
        let mailbox = Arc::new(Mailbox::new(named("alice"), capacity, delivery, Vocabulary::default()));
        let reader = mailbox.attach(0).unwrap();
        Self { mailbox, reader, now: Clock::system().now().monotonic }
    }

    fn put(&self, message: Message) -> Result<(), Refused> {
        self.mailbox.put(message, self.now)
    }

    fn watch(&self) -> Result<(), Cut> {
        self.reader.watch(Waker::noop())
    }

    /// The numbers of what waits, and of the frames that it came in.
    fn read(&self) -> Vec<(Option<u64>, Option<u64>)> {
        std::iter::from_fn(|| self.reader.take()).map(|(seq, message)| (seq, frame_of(message))).collect()
    }
}

fn named(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn sender(name: &str, frame: u64) -> Sender {
    let session = SessionId::new();
    let joined = Joined::new(Duration::ZERO, session);
    Sender { name: named(name), session, joined, frame: Some(frame), told: Told::default() }
}

fn leave() -> Message {
    Message::Leave { from: named("bob") }
}

fn signal(frame: u64, bytes: usize) -> Message {
    let json = format!("\"{}\"", "x".repeat(bytes));
    let payload = Payload::new(serde_json::from_str(&json).unwrap());
    Message::Signal { from: sender("bob", frame), kind: SignalKind::Offer, payload }
}

fn notice() -> Message {
    Message::Notice("no".into())
}

fn frame_of(message: Message) -> Option<u64> {
    if let Message::Signal { from, .. } = message { from.frame } else { None }
}

#[test]
fn a_full_mailbox_refuses_and_overflows_only_when_nothing_has_been_taken_for_a_second() {
    let mut scene = Scene::new(Delivery::Once);
    (0..256).for_each(|_| scene.put(leave()).unwrap());

    scene.now += STALLED / 2;
    assert_eq!(scene.put(leave()), Err(Refused::Full));
    assert!(scene.reader.take().is_some());
    scene.now += STALLED / 2;
    assert_eq!(scene.put(leave()), Ok(()));
    scene.now += STALLED / 2;
    assert_eq!(scene.put(leave()), Err(Refused::Full), "it is read, if slowly");
    assert_eq!(scene.watch(), Ok(()));
    scene.now += STALLED / 2;
    assert_eq!(scene.put(leave()), Err(Refused::Full));

    assert_eq!(scene.watch(), Err(Cut::Overflown));
    assert!(scene.reader.take().is_none(), "what waited is given up");
    assert_eq!(scene.put(leave()), Err(Refused::Full));
}

#[test]
fn notices_fit_into_a_full_mailbox_but_not_without_end() {
    for delivery in [Delivery::Once, Delivery::Acknowledged] {
        let scene = Scene::new(delivery);
        (0..256).for_each(|_| scene.put(signal(1, 1)).unwrap());

        (0..NOTICES).for_each(|_| scene.put(notice()).unwrap());
        assert_eq!(scene.put(signal(1, 1)), Err(Refused::Full));
        assert_eq!(scene.watch(), Ok(()));
        assert_eq!(scene.put(notice()), Err(Refused::Full));

        assert_eq!(scene.watch(), Err(Cut::Overflown));
        assert_eq!(scene.mailbox.inner().queue.len(), 256 + NOTICES);
    }
}

fn presence() -> Message {
    Message::Presence { room: named("room"), name: named("bob"), change: Change::Joined }
}

#[test]
fn presence_beyond_measure_is_left_out_and_cuts_nobody() {
    let scene = Scene::new(Delivery::Acknowledged);
    let is_missed = |taken: Option<(Option<u64>, Message)>| matches!(taken, Some((_, Message::Missed)));
    (0..MOST_WITH_PRESENCE).for_each(|_| scene.put(presence()).unwrap());
    assert_eq!(std::iter::from_fn(|| scene.reader.take()).count(), MOST_WITH_PRESENCE);

    (0..NOTICES).for_each(|_| scene.put(presence()).unwrap());

    assert_eq!(scene.watch(), Ok(()));
    assert!(
        is_missed(scene.reader.take()) && scene.reader.take().is_none(),
        "told once, while it hasn't said it heard"
    );
    assert_eq!(scene.mailbox.inner().queue.len(), MOST_WITH_PRESENCE + 1);
    (0..256).for_each(|n| scene.put(signal(n, 1)).unwrap());
    scene.put(notice()).unwrap();
    assert_eq!(scene.read().len(), 257, "there is room for all else");

    let first = MOST_WITH_PRESENCE as u64 + 1;
    scene.reader.acknowledge(first).unwrap();
    assert!(is_missed(scene.reader.take()), "more was left out after it was told");
    scene.put(presence()).unwrap();
    assert!(!is_missed(scene.reader.take()), "and the next is told");
    scene.reader.acknowledge(first + 257 + 2).unwrap();
    assert!(scene.reader.take().is_none() && scene.mailbox.inner().missed == Missed::Nothing);
}

#[test]
fn an_answer_fits_wherever_anything_does() {
    let scene = Scene::of(Delivery::Acknowledged, Capacity { messages: 9, bytes: 100 });
    let answer = || Message::Answer("x".repeat(1000).into());
    scene.put(signal(1, 97)).unwrap();

    assert!(scene.reader.has_room());
    assert_eq!(scene.put(signal(2, 1)), Err(Refused::Full));
    assert_eq!(scene.put(answer()), Ok(()));

    assert!(!scene.reader.has_room());
    assert_eq!(scene.put(answer()), Err(Refused::Full));
    scene.mailbox.kick();
    assert!(!Scene { reader: scene.mailbox.attach(0).unwrap_or(scene.reader), ..scene }.reader.has_room());
}

#[test]
fn a_kick_cuts_even_what_nothing_waits_in() {
    let scene = Scene::new(Delivery::Acknowledged);
    scene.put(leave()).unwrap();

    scene.mailbox.kick();

    assert_eq!(scene.watch(), Err(Cut::Kicked));
    assert!(scene.reader.take().is_none());
    assert_eq!(scene.mailbox.attach(0).err(), Some(NotSent), "nobody comes back from that");
}

#[test]
fn one_message_always_fits() {
    let scene = Scene::of(Delivery::Once, Capacity { messages: 9, bytes: 100 });

    assert_eq!(scene.put(signal(1, 101)), Ok(()));
    assert_eq!(scene.put(leave()), Err(Refused::Full));
}

#[test]
fn a_mailbox_is_full_by_bytes_and_what_is_taken_or_acknowledged_makes_room() {
    for delivery in [Delivery::Once, Delivery::Acknowledged] {
        let scene = Scene::new(delivery);

        for n in 1..=20 {
            scene.put(signal(n, 60_000)).unwrap();
            assert!(scene.reader.take().is_some());
            let acknowledged = scene.reader.acknowledge(n);
            assert_eq!(acknowledged.is_ok(), delivery == Delivery::Acknowledged);
        }
        (0..4).for_each(|n| scene.put(signal(n, 60_000)).unwrap());

        assert_eq!(scene.put(signal(9, 60_000)), Err(Refused::Full));
        assert_eq!(scene.watch(), Ok(()));
    }
}

#[test]
fn what_is_not_acknowledged_fills_the_mailbox_and_is_never_given_up() {
    let mut scene = Scene::new(Delivery::Acknowledged);
    (1..=256).for_each(|n| scene.put(signal(n, 1)).unwrap());
    assert_eq!(scene.read().len(), 256);

    scene.now += STALLED * 60;
    assert_eq!(scene.put(signal(257, 1)), Err(Refused::Full));
    assert_eq!(scene.watch(), Ok(()), "a bad network is no reason to lose the session");

    scene.reader.acknowledge(1).unwrap();
    assert_eq!(scene.put(signal(258, 1)), Ok(()));
    assert_eq!(scene.read(), [(Some(257), Some(258))]);
}

#[test]
fn another_connection_gets_what_the_earlier_may_not_have_got_and_the_earlier_nothing_more() {
    let scene = Scene::new(Delivery::Acknowledged);
    (1..=5).for_each(|n| scene.put(signal(n, 1)).unwrap());
    assert_eq!((scene.reader.take().unwrap().0, scene.reader.take().unwrap().0), (Some(1), Some(2)));

    let second = scene.mailbox.attach(1).unwrap();
    assert_eq!((scene.watch(), scene.reader.take().is_none()), (Err(Cut::Replaced), true));
    assert!(second.is_current() && !scene.reader.is_current());
    let scene = Scene { reader: second, ..scene };

    assert_eq!(scene.reader.take().map(|(seq, message)| (seq, frame_of(message))), Some((Some(2), Some(2))));
    let scene = Scene { reader: scene.mailbox.attach(1).unwrap(), ..scene };
    let numbers: Vec<_> = (2..=5).map(|n| (Some(n), Some(n))).collect();
    assert_eq!(scene.read(), numbers, "as often as it takes");
}

#[test]
fn nobody_acknowledges_what_was_never_sent_or_takes_an_acknowledgement_back() {
    let scene = Scene::new(Delivery::Acknowledged);
    (1..=5).for_each(|n| scene.put(signal(n, 1)).unwrap());
    scene.reader.take();
    scene.reader.take();
    scene.reader.take();

    assert_eq!(scene.reader.acknowledge(4), Err(NotSent));
    assert_eq!(scene.reader.acknowledge(u64::MAX), Err(NotSent));
    assert_eq!(scene.mailbox.attach(4).err(), Some(NotSent));
    assert!(scene.reader.is_current(), "and nothing has changed");
    assert_eq!(scene.reader.acknowledge(2), Ok(2));
    assert_eq!(scene.reader.acknowledge(1), Ok(0), "said again, it says nothing");
    assert_eq!(scene.mailbox.attach(1).err(), Some(NotSent));

    let scene = Scene { reader: scene.mailbox.attach(2).unwrap(), ..scene };
    scene.reader.acknowledge(3).unwrap();
    assert_eq!(scene.read(), [(Some(4), Some(4)), (Some(5), Some(5))], "what came by the earlier one counts");
}

#[test]
fn closing_says_whose_messages_may_not_have_arrived() {
    let scene = Scene::new(Delivery::Acknowledged);
    (1..=3).for_each(|n| scene.put(signal(n, 1)).unwrap());
    scene.put(notice()).unwrap();
    scene.reader.take();
    scene.reader.take();
    scene.reader.acknowledge(1).unwrap();

    let lost: Vec<_> = scene.mailbox.close().into_iter().filter_map(frame_of).collect();

    assert_eq!(lost, [2, 3]);
    assert_eq!(scene.put(signal(4, 1)), Err(Refused::Full));
    assert!(scene.mailbox.close().is_empty() && scene.reader.take().is_none());
}

#[test]
fn who_reads_what_is_closed_is_woken_and_can_ask_for_nothing_more() {
    let scene = Scene::new(Delivery::Acknowledged);
    let woken = Arc::new(Woken::default());
    (1..=3).for_each(|n| scene.put(signal(n, 1)).unwrap());
    scene.read();
    scene.mailbox.add_partner(&named("carol"));
    scene.reader.watch(&Waker::from(Arc::clone(&woken))).unwrap();

    scene.mailbox.close();

    assert!(woken.0.load(Ordering::Relaxed));
    assert_eq!(scene.watch(), Err(Cut::Replaced));
    assert_eq!(scene.reader.acknowledge(3), Err(NotSent), "there is nothing");
    assert!(scene.mailbox.partners().is_empty());
    let closed_by_the_operator = Scene::new(Delivery::Once);
    closed_by_the_operator.mailbox.kick();
    closed_by_the_operator.mailbox.close();
    assert_eq!(closed_by_the_operator.watch(), Err(Cut::Kicked));
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn who_acknowledges_nothing_hears_only_what_the_first_version_has() {
    let scene = Scene::new(Delivery::Once);
    let payload = Payload::new(serde_json::from_str("1").unwrap());
    let undelivered = Message::Undelivered { to: Recipient::Member(named("bob")), frame: None };

    assert_eq!(scene.put(Message::Data { from: sender("bob", 1), room: None, payload }), Err(Refused::Unknown));
    assert_eq!(scene.put(undelivered), Ok(()));
    let (room, name) = (named("room"), named("bob"));
    assert_eq!(scene.put(Message::Presence { room, name, change: Change::Left }), Ok(()));

    assert!(scene.reader.take().is_none());
}

#[test]
fn who_acknowledges_nothing_hears_what_its_gateway_has_words_for() {
    let everything = Vocabulary { data: true, presence: true, undelivered: true };
    let mailbox = Arc::new(Mailbox::new(named("alice"), CAPACITY, Delivery::Once, everything));
    let (reader, now) = (mailbox.attach(0).unwrap(), Clock::system().now().monotonic);
    let payload = Payload::new(serde_json::from_str("1").unwrap());
    let presence = Message::Presence { room: named("room"), name: named("bob"), change: Change::Left };

    assert_eq!(mailbox.put(Message::Data { from: sender("bob", 1), room: None, payload }, now), Ok(()));
    assert_eq!(mailbox.put(presence, now), Ok(()));
    assert_eq!(mailbox.put(Message::Undelivered { to: Recipient::Member(named("bob")), frame: None }, now), Ok(()));

    assert!(matches!(reader.take(), Some((None, Message::Data { .. }))));
    assert!(matches!(reader.take(), Some((None, Message::Presence { .. }))));
    assert!(matches!(reader.take(), Some((None, Message::Undelivered { .. }))));
}

#[test]
fn only_partners_are_told_that_somebody_goes_and_each_time_once() {
    let gone = || Message::Gone { from: named("bob") };
    for (delivery, heard) in [(Delivery::Once, 1), (Delivery::Acknowledged, 0)] {
        let scene = Scene::new(delivery);
        scene.put(gone()).unwrap();
        assert!(scene.reader.take().is_none());

        scene.mailbox.add_partner(&named("bob"));
        scene.put(Message::Away { from: named("bob") }).unwrap();
        assert_eq!(scene.read().len(), heard, "who can wait for it isn't told yet");
        scene.put(gone()).unwrap();
        scene.put(gone()).unwrap();

        assert_eq!(scene.read().len(), 1 - heard);
        assert!(scene.mailbox.partners().is_empty());
    }
}

#[test]
fn partners_are_capped_and_the_earliest_is_forgotten() {
    let scene = Scene::new(Delivery::Acknowledged);
    (0..=MAX_PARTNERS).for_each(|n| scene.mailbox.add_partner(&named(&n.to_string())));
    scene.mailbox.add_partner(&named("alice"));

    let partners = scene.mailbox.partners();
    assert_eq!((partners.len(), partners[0].as_str()), (MAX_PARTNERS, "1"), "and nobody is its own");
}
