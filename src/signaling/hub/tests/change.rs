//! Other settings while members are signed in.

use super::*;
use crate::signaling::hub::away::MAX_AWAY_PER_SOURCE;

fn configure(scene: &mut Scene, change: impl FnOnce(&mut Settings)) {
    let mut settings = scene.hub.settings.clone();
    change(&mut settings);
    scene.hub.configure(settings);
}

#[test]
fn fewer_rooms_and_a_smaller_queue_take_nothing_away_and_hold_for_what_comes() {
    let mut scene = Scene::new();
    let (alice, bob) = (scene.sign_in("alice"), scene.sign_in("bob"));
    for room in ["a", "b"] {
        scene.join(&alice, room).unwrap();
    }
    (1..=3).for_each(|frame| scene.offer(&bob, frame, "alice").unwrap());

    configure(&mut scene, |settings| (settings.rooms, settings.queue.messages) = (1, 2));

    assert_eq!(scene.offer(&bob, 4, "alice"), Err(Undelivered::Refused(Refused::Full)));
    assert_eq!(scene.join(&alice, "c"), Err(NotJoined::TooManyRooms));
    assert_eq!(heard(&alice), ["offer bob 1", "offer bob 2", "offer bob 3"]);
    alice.reader.acknowledge(2).unwrap();
    assert_eq!(scene.offer(&bob, 5, "alice"), Ok(()));
    assert_eq!(scene.send_to_room(&alice, 1, "b"), Ok(0), "it is there");
}

#[test]
fn sessions_that_wait_count_for_other_networks_when_these_are_others() {
    let mut scene = Scene::new();
    let waiting: Vec<_> = (0..MAX_AWAY_PER_SOURCE).map(|n| scene.sign_in(&n.to_string())).collect();
    waiting.iter().for_each(|member| scene.loses(member));
    let another = |scene: &mut Scene, name: &str| {
        scene.source = [192, 0, 2, 200].into();
        let member = scene.sign_in(name);
        scene.loses(&member);
        scene.hub.away.len()
    };

    configure(&mut scene, |settings| settings.sources = Sources::new(vec!["192.0.2.0/24".parse().unwrap()]));
    assert_eq!(another(&mut scene, "exempt"), MAX_AWAY_PER_SOURCE + 1);
    configure(&mut scene, |settings| settings.sources = Sources::networks(Vec::new()));
    assert_eq!(another(&mut scene, "one too many"), MAX_AWAY_PER_SOURCE + 1);
    scene.passes(GRACE);

    assert_eq!((scene.hub.away.len(), scene.hub.sessions.len()), (0, 0));
}
