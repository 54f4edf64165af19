//! Sessions that wait for their clients, how many of them, and what ends them before their time.

use super::*;
use crate::signaling::hub::away::MAX_AWAY_PER_SOURCE;

#[test]
fn sessions_that_wait_are_capped_and_the_one_that_waits_longest_ends() {
    let mut scene = Scene::new();
    let members: Vec<_> = (0..=MAX_AWAY).map(|n| scene.sign_in(&n.to_string())).collect();
    for (n, member) in (0_u32..).zip(&members) {
        // Each network has its share.
        scene.hub.sessions.get_mut(&member.session).unwrap().source = IpAddr::V4((n << 8).into());
        scene.now = scene.now.after(Duration::from_millis(1));
        scene.loses(member);
    }

    assert_eq!((scene.hub.away.len(), scene.hub.sessions.len()), (MAX_AWAY, MAX_AWAY));
    assert_eq!(scene.resume("0", &members[0], 0).err(), Some(Refusal::NoSession));
    assert!(scene.resume("1", &members[1], 0).is_ok());
    assert_eq!(scene.hub.away.len(), MAX_AWAY - 1);
}

#[test]
fn a_network_has_so_many_sessions_that_wait_and_its_own_ends_for_more() {
    let sources = || Sources::networks(vec!["10.0.0.0/8".parse().unwrap()]);
    for (ip, is_exempt) in [([192, 0, 2, 200], false), ([10, 0, 0, 1], true)] {
        let mut scene = Scene::with(|settings| settings.sources = sources());
        scene.source = [198, 51, 100, 1].into();
        let bob = scene.sign_in("bob");
        scene.loses(&bob);
        scene.source = ip.into();

        let members: Vec<_> = (0..=MAX_AWAY_PER_SOURCE).map(|n| scene.sign_in(&n.to_string())).collect();
        for member in &members {
            scene.now = scene.now.after(Duration::from_millis(1));
            scene.loses(member);
        }

        assert_eq!(scene.resume("0", &members[0], 0).is_ok(), is_exempt);
        assert!(scene.resume("1", &members[1], 0).is_ok());
        assert!(scene.resume("bob", &bob, 0).is_ok(), "who waited longest came from elsewhere");
        assert_eq!(scene.hub.away.len(), MAX_AWAY_PER_SOURCE - 1);
    }
}

#[test]
fn a_session_counts_for_the_network_that_its_client_came_from_last() {
    let mut scene = Scene::with(|settings| settings.sources = Sources::networks(Vec::new()));
    let alice = scene.sign_in("alice");
    scene.source = [198, 51, 100, 1].into();
    let alice = scene.resume("alice", &alice, 0).unwrap();
    scene.loses(&alice);
    scene.source = [192, 0, 2, 1].into();

    for n in 0..=MAX_AWAY_PER_SOURCE {
        let member = scene.sign_in(&n.to_string());
        scene.loses(&member);
    }

    assert!(scene.resume("alice", &alice, 0).is_ok());
}

#[test]
fn the_next_tick_is_never_too_late() {
    let mut scene = Scene::new();
    let idle = scene.hub.tick(scene.now);
    let alice = scene.sign_in("alice");
    scene.loses(&alice);

    let due = scene.hub.tick(scene.now);

    assert_eq!(due, scene.now.monotonic + GRACE);
    assert!(idle <= due, "who slept since before it went away wakes in time");
}

#[test]
fn however_many_end_at_once_others_have_their_turn_between() {
    let mut scene = Scene::new();
    for n in 0..2 * MAX_ENDINGS + 1 {
        let member = scene.sign_in(&n.to_string());
        scene.loses(&member);
    }
    scene.now = scene.now.after(GRACE);
    let soon = scene.now.monotonic + ENDINGS_PAUSE;

    let ticks: Vec<_> = (0..3).map(|_| (scene.hub.tick(scene.now), scene.hub.away.len())).collect();

    let idle = scene.now.monotonic + GRACE;
    assert_eq!(ticks, [(soon, MAX_ENDINGS + 1), (soon, 1), (idle, 0)]);
    assert_eq!(scene.metrics.members.get(), 0);
}

#[test]
fn who_cannot_take_up_its_own_session_loses_it_at_once_and_may_sign_in() {
    for (is_away, arrived) in [(true, 9), (false, 9), (true, 0)] {
        let mut scene = Scene::new();
        let (alice, bob) = (scene.sign_in("alice"), scene.sign_in("bob"));
        scene.offer(&bob, 1, "alice").unwrap();
        heard(&alice);
        alice.reader.acknowledge(1).unwrap();
        if is_away {
            scene.loses(&alice);
        }

        assert_eq!(scene.resume("alice", &alice, arrived).err(), Some(Refusal::NoSession));

        assert_eq!(alice.reader.watch(Waker::noop()), Err(Cut::Replaced));
        assert_eq!((heard(&bob), scene.hub.away.len()), (vec!["leave alice".to_owned()], 0));
        assert!(scene.try_sign_in("alice", Delivery::Acknowledged).is_ok());
        scene.loses(&alice);
        assert_eq!(scene.metrics.members.get(), 2);
    }
}

#[test]
fn a_guess_ends_nobodys_session() {
    let mut scene = Scene::new();
    let (alice, mallory) = (scene.sign_in("alice"), scene.sign_in("mallory"));
    let guess = mallory.secret.unwrap().reveal();
    scene.loses(&alice);

    for arrived in [0, 9] {
        let refused = scene.hub.resume(&named("alice"), &guess, arrived, scene.source, scene.now);
        assert_eq!(refused.err(), Some(Refusal::NoSession));
    }

    assert!(scene.resume("alice", &alice, 0).is_ok());
}

/// Fills the mailbox of `to` until it is cut.
fn overflow(scene: &mut Scene, to: &Attached) {
    let mailbox = Arc::clone(&scene.hub.sessions[&to.session].mailbox);
    while mailbox.put(Message::Notice("".into()), scene.now.monotonic).is_ok() {}
}

#[test]
fn nobody_waits_for_who_was_cut_off() {
    let mut scene = Scene::new();
    let alice = scene.sign_in("alice");
    overflow(&mut scene, &alice);

    scene.loses(&alice);

    assert!(scene.try_sign_in("alice", Delivery::Acknowledged).is_ok());
}

#[test]
fn who_is_cut_off_while_it_is_away_can_sign_in_at_once() {
    let mut scene = Scene::new();
    let alice = scene.sign_in("alice");
    scene.loses(&alice);
    assert_eq!(scene.try_sign_in("alice", Delivery::Acknowledged).err(), Some(Refusal::NameTaken));

    overflow(&mut scene, &alice);

    assert!(scene.try_sign_in("alice", Delivery::Acknowledged).is_ok());
    assert_eq!((scene.hub.sessions.len(), scene.hub.away.len()), (1, 0));
}

#[test]
fn who_comes_back_learns_that_an_old_partner_has_left() {
    for goodbye in [true, false] {
        let mut scene = Scene::new();
        let (alice, old) = (scene.sign_in("alice"), scene.old("old"));
        scene.offer(&alice, 1, "old").unwrap();
        heard(&old);
        scene.loses(&alice);
        assert_eq!(heard(&old), ["leave alice"]);

        if goodbye {
            scene.hub.leave_all(old.session, scene.now);
        } else {
            scene.loses(&old);
        }

        let back = scene.resume("alice", &alice, 0).unwrap();
        assert_eq!(heard(&back), ["leave old"]);
        scene.bye(&back);
        assert!(heard(&old).is_empty(), "which knows that already");
    }
}

#[test]
fn an_old_partner_that_was_told_is_told_again_only_of_another_call() {
    let mut scene = Scene::new();
    let (alice, old) = (scene.sign_in("alice"), scene.old("old"));
    scene.offer(&alice, 1, "old").unwrap();
    scene.loses(&alice);
    let back = scene.resume("alice", &alice, 0).unwrap();
    scene.loses(&back);
    assert_eq!(heard(&old), ["offer alice 1", "leave alice"]);

    let back = scene.resume("alice", &back, 0).unwrap();
    scene.offer(&back, 2, "old").unwrap();
    scene.bye(&back);

    assert_eq!(heard(&old), ["offer alice 2", "leave alice"]);
}
