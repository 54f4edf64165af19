//! Who is in which room, and what everybody there is told.

use super::*;

#[test]
fn rooms_tell_who_comes_and_goes_and_pass_on_to_all_others() {
    let mut scene = Scene::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| scene.sign_in(name));
    assert_eq!(scene.join(&alice, "room"), Ok(vec![]));
    assert_eq!(scene.join(&bob, "room"), Ok(vec!["alice".to_owned()]));
    assert_eq!(scene.join(&bob, "room"), Ok(vec!["alice".to_owned()]), "again, it is no news");

    scene.send_to_room(&alice, 1, "room").unwrap();
    assert_eq!(scene.send_to_room(&carol, 1, "room"), Err(NotThere));
    assert_eq!(heard(&alice), ["Joined room bob"]);
    assert_eq!((heard(&bob), heard(&carol)), (vec!["data alice 1 room".to_owned()], vec![]));
    bob.reader.acknowledge(1).unwrap();
    scene.loses(&bob);
    scene.passes(GRACE / 2);
    assert!(heard(&alice).is_empty(), "who is away is there yet");
    scene.passes(GRACE / 2);
    scene.hub.part(alice.session, &named("room"), scene.now).unwrap();

    assert_eq!(heard(&alice), ["Left room bob"]);
    assert_eq!(scene.hub.part(alice.session, &named("room"), scene.now), Err(NotThere));
    assert_eq!(scene.join(&carol, "room"), Ok(vec![]));
}

#[test]
fn rooms_are_capped_for_each_member_and_members_for_each_room() {
    let mut scene = Scene::new();
    let members: Vec<_> = (0..5).map(|n| scene.sign_in(&n.to_string())).collect();
    for room in ["a", "b", "c"] {
        scene.join(&members[0], room).unwrap();
    }

    assert_eq!(scene.join(&members[0], "d"), Err(NotJoined::TooManyRooms));
    assert!(scene.join(&members[0], "a").is_ok(), "it is there already");
    (1..4).for_each(|n| drop(scene.join(&members[n], "a").unwrap()));
    assert_eq!(scene.join(&members[4], "a"), Err(NotJoined::NoEntry(NoEntry::Full)));
    scene.hub.part(members[0].session, &named("a"), scene.now).unwrap();

    assert!(scene.join(&members[0], "d").is_ok() && scene.join(&members[4], "a").is_ok());
}

#[test]
fn a_frame_that_not_all_in_a_room_got_comes_back_once() {
    let mut scene = Scene::new();
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| scene.sign_in(name));
    for member in [&alice, &bob, &carol, &dave] {
        scene.join(member, "room").unwrap();
    }
    heard(&alice);
    (1..=256).for_each(|n| scene.offer(&carol, n, "bob").unwrap());
    (1..=256).for_each(|n| scene.offer(&bob, n, "dave").unwrap());

    assert_eq!(scene.send_to_room(&alice, 1, "room"), Ok(3));

    assert_eq!(heard(&alice), ["undelivered room 1"], "to two it didn't get");
    assert_eq!(heard(&carol), ["Joined room dave", "data alice 1 room"]);
    scene.bye(&carol);
    assert_eq!(heard(&alice), ["Left room carol"], "nor to a third, which it knows already");
}

#[test]
fn a_frame_that_nobody_in_a_room_acknowledged_comes_back_once() {
    let mut scene = Scene::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| scene.sign_in(name));
    for member in [&alice, &bob, &carol] {
        scene.join(member, "room").unwrap();
    }
    scene.loses(&bob);
    scene.loses(&carol);
    heard(&alice);

    (1..=2).for_each(|frame| assert_eq!(scene.send_to_room(&alice, frame, "room"), Ok(2)));
    assert!(heard(&alice).is_empty());
    scene.passes(GRACE);

    let undelivered: Vec<_> = heard(&alice).into_iter().filter(|told| told.starts_with("undelivered")).collect();
    assert_eq!(undelivered, ["undelivered room 1", "undelivered room 2"]);
}

#[test]
fn who_is_told_only_where_members_may_ask_and_not_without_end() {
    let mut scene = Scene::with(|settings| settings.who = true);
    for n in 0..=MAX_WHO {
        scene.sign_in(&n.to_string());
    }
    let alice = scene.sign_in("alice");
    scene.join(&alice, "room").unwrap();

    assert_eq!(scene.hub.who(None, scene.now).map(|names| names.len()), Some(MAX_WHO));
    assert_eq!(scene.hub.who(Some(&named("room")), scene.now), Some(vec![named("alice")]));
    assert_eq!(Scene::new().hub.who(None, scene.now), None);
}

/// Strangers without number, who hear of nothing themselves.
fn strangers(scene: &mut Scene) -> Vec<Attached> {
    (0..200).map(|n| scene.old(&n.to_string())).collect()
}

/// Each of them comes in and goes out again so many times.
fn burst(scene: &mut Scene, strangers: &[Attached], times: usize) {
    for _ in 0..times {
        for stranger in strangers {
            scene.join(stranger, "room").unwrap();
        }
        for stranger in strangers {
            scene.hub.part(stranger.session, &named("room"), scene.now).unwrap();
        }
    }
}

#[test]
fn strangers_who_come_and_go_neither_cut_who_reads_nor_keep_from_it_what_others_say() {
    let mut scene = Scene::with(|settings| settings.room_members = 300);
    let (alice, bob) = (scene.sign_in("alice"), scene.sign_in("bob"));
    scene.join(&alice, "room").unwrap();
    let strangers = strangers(&mut scene);
    let mut missed = 0;

    for round in 1..=3 {
        // More than fits, before anything that she acknowledges arrives.
        burst(&mut scene, &strangers, 5);
        assert_eq!(scene.offer(&bob, round, "alice"), Ok(()), "it isn't what fills her mailbox");
        let told: Vec<_> = std::iter::from_fn(|| alice.reader.take()).collect();
        let (last, _) = told.last().unwrap();
        assert_eq!(told.iter().filter(|(_, message)| in_words(message) == format!("offer bob {round}")).count(), 1);
        missed += told.iter().filter(|(_, message)| matches!(message, Message::Missed)).count();
        alice.reader.acknowledge(last.unwrap()).unwrap();
    }

    assert_eq!(alice.reader.watch(Waker::noop()), Ok(()));
    assert!(missed >= 3, "and she knows that she missed something: {missed}");
    let scene = &mut scene;
    scene.join(&strangers[7], "room").unwrap();
    assert_eq!(scene.join(&alice, "room"), Ok(vec!["7".to_owned()]), "of which she is told when she asks");
}

#[test]
fn who_never_reads_is_not_cut_by_strangers_either() {
    let mut scene = Scene::with(|settings| settings.room_members = 300);
    let alice = scene.sign_in("alice");
    scene.join(&alice, "room").unwrap();
    let strangers = strangers(&mut scene);

    burst(&mut scene, &strangers, 10);

    assert_eq!(alice.reader.watch(Waker::noop()), Ok(()));
    assert_eq!(heard(&alice).last().map(String::as_str), Some("missed"));
}

#[test]
fn who_shares_several_rooms_with_a_sender_is_told_once() {
    let mut scene = Scene::with(|settings| settings.presence = false);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| scene.sign_in(name));
    for (member, room) in [(&alice, "a"), (&alice, "b"), (&bob, "a"), (&bob, "b"), (&carol, "b")] {
        scene.join(member, room).unwrap();
    }
    let sender = scene.hub.admit(alice.session, &alice.reader, None).unwrap();

    let visited = scene.hub.send_to_rooms(&sender, &["a", "b", "nobody's"].map(named), &payload(), scene.now);

    assert_eq!(visited, 5, "what it costs: two in one room and three in the other");
    assert_eq!(heard(&bob), ["data alice 0 a"]);
    assert_eq!(heard(&carol), ["data alice 0 b"]);
    assert!(heard(&alice).is_empty());
}
