//! What every store must do, run on each that there is.

use std::time::Duration;

use super::memory::Mailboxes;
use super::memory::Tables;
use super::*;
use crate::clock::Clock;
use crate::signaling::mailbox::Capacity;
use crate::signaling::mailbox::Delivery;
use crate::signaling::mailbox::Vocabulary;

const HELD: Duration = Duration::from_secs(10);

/// One module of tests for a kind of registry, made by `Default`.
macro_rules! registry {
    ($module:ident, $registry:ty) => {
        mod $module {
            use super::*;

            #[test]
            fn a_name_has_one_holder_until_its_deadline_or_its_release() {
                names_are_held(&mut <$registry>::default());
            }

            #[test]
            fn who_renews_in_time_keeps_all_and_who_does_not_has_lost_it() {
                deadlines_hold(&mut <$registry>::default());
            }

            #[test]
            fn a_room_has_its_order_and_its_most() {
                rooms_are_bounded(&mut <$registry>::default());
            }

            #[test]
            fn what_ends_leaves_its_rooms() {
                rooms_are_left(&mut <$registry>::default());
            }
        }
    };
}

registry!(tables, Tables);

mod mailboxes {
    use super::*;

    #[test]
    fn what_is_for_a_holder_comes_to_it_in_order_or_its_sender_knows() {
        a_bus_delivers(&mut Mailboxes::default());
    }
}

fn named(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn names(holders: &[Holder]) -> Vec<&str> {
    holders.iter().map(|holder| holder.name.as_str()).collect()
}

fn start() -> Instant {
    Clock::system().now().monotonic
}

fn claimed(registry: &mut dyn Registry, name: &str, now: Instant) -> SessionId {
    let holder = SessionId::new();
    registry.claim(&named(name), holder, now + HELD, now).unwrap();
    holder
}

fn names_are_held(registry: &mut dyn Registry) {
    let now = start();
    let first = claimed(registry, "alice", now);
    let second = SessionId::new();

    assert_eq!(registry.claim(&named("alice"), second, now + HELD, now), Err(Taken));
    assert_eq!(registry.holder_of(&named("alice"), now), Some(first));
    assert_eq!(registry.holder_of(&named("bob"), now), None);
    registry.release(second);
    assert_eq!(registry.holder_of(&named("alice"), now), Some(first), "only its holder can release it");
    registry.release(first);

    assert_eq!(registry.holder_of(&named("alice"), now), None);
    assert_eq!(registry.claim(&named("alice"), second, now + HELD, now), Ok(()));
    assert_eq!(registry.names(9, now), [named("alice")]);
    claimed(registry, "bob", now);
    assert_eq!(registry.names(1, now).len(), 1);
}

fn deadlines_hold(registry: &mut dyn Registry) {
    let now = start();
    let (kept, late) = (claimed(registry, "kept", now), claimed(registry, "late", now));
    registry.enter(&named("room"), late, 9, now).unwrap();
    registry.enter(&named("room"), kept, 9, now).unwrap();

    assert_eq!(registry.renew(kept, now + 2 * HELD, now + HELD / 2), Ok(()));
    assert_eq!(registry.holder_of(&named("late"), now + HELD - Duration::from_millis(1)), Some(late));
    let after = now + HELD;

    assert_eq!(registry.holder_of(&named("kept"), after), Some(kept));
    assert_eq!(registry.holder_of(&named("late"), after), None);
    assert_eq!(registry.names(9, after), [named("kept")]);
    assert_eq!(names(&registry.in_room(&named("room"), after)), ["kept"]);
    assert_eq!(registry.renew(late, after + HELD, after), Err(Lost));
    assert_eq!(registry.enter(&named("other"), late, 9, after), Err(NoEntry::Lost(Lost)));
    let heir = SessionId::new();
    assert_eq!(registry.claim(&named("late"), heir, after + HELD, after), Ok(()));
    registry.release(late);
    assert_eq!(registry.holder_of(&named("late"), after), Some(heir), "who lost it can't release it either");
    assert_eq!(names(&registry.in_room(&named("room"), after)), ["kept"], "a name comes without its rooms");
}

fn rooms_are_bounded(registry: &mut dyn Registry) {
    let now = start();
    let [a, b, c] = ["a", "b", "c"].map(|name| claimed(registry, name, now));
    let room = named("room");

    assert_eq!(registry.enter(&room, b, 2, now), Ok(vec![]));
    assert_eq!(names(&registry.enter(&room, a, 2, now).unwrap()), ["b"]);
    assert_eq!(registry.enter(&room, c, 2, now), Err(NoEntry::Full));
    assert_eq!(names(&registry.enter(&room, b, 2, now).unwrap()), ["a"], "who is in it may ask again");
    assert_eq!(names(&registry.in_room(&room, now)), ["b", "a"]);

    assert!(registry.leave(&room, b) && !registry.leave(&room, b));
    assert_eq!(names(&registry.enter(&room, c, 2, now).unwrap()), ["a"]);
    assert_eq!(registry.enter(&room, SessionId::new(), 9, now), Err(NoEntry::Lost(Lost)));
}

fn rooms_are_left(registry: &mut dyn Registry) {
    let now = start();
    let [a, b] = ["a", "b"].map(|name| claimed(registry, name, now));
    for room in ["one", "two"] {
        registry.enter(&named(room), a, 9, now).unwrap();
        registry.enter(&named(room), b, 9, now).unwrap();
    }

    registry.release(a);

    for room in ["one", "two"] {
        assert_eq!(registry.in_room(&named(room), now), [Holder { name: named("b"), session: b }]);
    }
    assert!(!registry.leave(&named("one"), a));
}

fn a_bus_delivers(bus: &mut dyn Bus) {
    let now = start();
    let (holder, nobody) = (SessionId::new(), SessionId::new());
    let capacity = Capacity { messages: 2, bytes: 1 << 16 };
    let mailbox = Arc::new(Mailbox::new(named("alice"), capacity, Delivery::Once, Vocabulary::default()));
    let reader = mailbox.attach(0).unwrap();
    let leave = |from| Message::Leave { from: named(from) };
    bus.open(holder, mailbox);

    assert_eq!(bus.deliver(nobody, leave("a"), now), Err(Undelivered::UnknownMember));
    assert_eq!(bus.deliver(holder, leave("a"), now), Ok(()));
    assert_eq!(bus.deliver(holder, leave("b"), now), Ok(()));
    assert_eq!(bus.deliver(holder, leave("c"), now), Err(Undelivered::Refused(Refused::Full)));
    let leaver = |message| if let Message::Leave { from } = message { Some(from.as_str().to_owned()) } else { None };
    let heard: Vec<_> = std::iter::from_fn(|| leaver(reader.take()?.1)).collect();
    bus.close(holder);

    assert_eq!(heard, ["a", "b"]);
    assert_eq!(bus.deliver(holder, leave("d"), now), Err(Undelivered::UnknownMember));
}
