//! Random lives: whatever members do, what the hub keeps of them agrees.

use proptest::prelude::*;

use super::*;

/// What a random life does next.
#[derive(Clone, Debug)]
enum Step {
    SignIn,
    Lose,
    Resume,
    Bye,
    Offer(u8),
    Join(u8),
    Part(u8),
    Room(u8),
    Pass(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::SignIn),
        1 => Just(Step::Lose),
        2 => Just(Step::Resume),
        1 => Just(Step::Bye),
        4 => (0..6_u8).prop_map(Step::Offer),
        2 => (0..5_u8).prop_map(Step::Join),
        1 => (0..5_u8).prop_map(Step::Part),
        2 => (0..5_u8).prop_map(Step::Room),
        1 => (0..20_u8).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_counts_agree_and_nothing_is_left_behind(
        steps in prop::collection::vec((0..6_usize, step()), 0..300),
    ) {
        let mut scene = Scene::new();
        let mut members: Vec<Option<Attached>> = (0..6).map(|_| None).collect();
        let mut frame = 0;

        for (n, step) in steps {
            let name = n.to_string();
            frame += 1;
            if let Step::SignIn = step {
                if let Ok(member) = scene.try_sign_in(&name, Delivery::Acknowledged) {
                    members[n] = Some(member);
                }
            } else if let Some(member) = members[n].take() {
                let lives = scene.hub.sessions.contains_key(&member.session);
                match step {
                    Step::SignIn => {}
                    Step::Lose => scene.loses(&member),
                    Step::Bye => scene.bye(&member),
                    Step::Resume => {
                        if let Ok(back) = scene.resume(&name, &member, 0) {
                            members[n] = Some(back);
                            continue;
                        }
                    }
                    Step::Offer(to) if lives => drop(scene.offer(&member, frame, &to.to_string())),
                    Step::Join(room) => drop(scene.join(&member, &room.to_string())),
                    Step::Part(room) => drop(scene.hub.part(member.session, &named(&room.to_string()), scene.now)),
                    Step::Room(room) if lives => drop(scene.send_to_room(&member, frame, &room.to_string())),
                    Step::Offer(_) | Step::Room(_) => {}
                    Step::Pass(seconds) => scene.passes(Duration::from_secs(seconds.into())),
                }
                members[n] = Some(member);
            }
            for member in members.iter().flatten() {
                if scene.hub.sessions.contains_key(&member.session) && member.reader.is_current() {
                    scene.hub.renew(member.session, scene.now).unwrap();
                }
            }
            let Hub { sessions, away, registry, .. } = &scene.hub;
            prop_assert_eq!(scene.metrics.members.get(), sessions.len() as u64);
            prop_assert_eq!(away.len(), sessions.values().filter(|seat| seat.away_until.is_some()).count());
            for (session, seat) in sessions {
                prop_assert_eq!(registry.holder_of(&seat.name, scene.now.monotonic), Some(*session));
                for room in &seat.rooms {
                    let present = registry.in_room(room, scene.now.monotonic);
                    prop_assert!(present.iter().any(|holder| holder.session == *session));
                }
            }
        }
        for member in members.iter().flatten() {
            scene.loses(member);
        }
        scene.passes(GRACE);
        let Hub { sessions, away, registry, .. } = &scene.hub;
        prop_assert!(sessions.is_empty() && away.len() == 0);
        prop_assert!(registry.names(9, scene.now.monotonic).is_empty());
    }
}
