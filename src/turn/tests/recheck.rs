//! Other rules while clients hold what they were granted by the earlier ones.

use std::sync::Arc;

use super::world::*;
use super::*;
use crate::credentials;
use crate::credentials::Mode;
use crate::credentials::SessionId;
use crate::policy;
use crate::policy::Policy;
use crate::relay::command::AllocationId;

const ALICE: &str = "198.51.100.1:1";
const BOB: &str = "198.51.100.1:2";

fn settings(secrets: &[&str], users: &[(&str, &str)]) -> credentials::Settings {
    let users = users.iter().map(|(name, password)| ((*name).to_owned(), (*password).to_owned())).collect();
    let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
    credentials::Settings { secrets, users, ..credentials::Settings::default() }
}

fn limits(world: &World) -> Limits {
    world.processor.pool().rules.get().limits.clone()
}

/// Has other limits and this denied; which allocations end, and which peers lose whose permissions.
async fn configure(
    world: &mut World,
    limits: Limits,
    deny: &[&str],
) -> (Vec<AllocationId>, Vec<(AllocationId, String)>) {
    let deny = deny.iter().map(|prefix| prefix.parse().unwrap()).collect();
    let policy = Arc::new(Policy::new(policy::Settings { deny, ..policy::Settings::default() }));
    let mut rechecks = world.processor.rechecks();
    world.commands.clear();
    let pool = Arc::clone(world.processor.pool());
    let recheck = async {
        let token = rechecks.recv().await.unwrap();
        world.processor.handle_recheck(world.clock.now()).await;
        drop((token, rechecks));
    };
    tokio::join!(pool.configure(limits, policy), recheck);
    assert!(world.answer().is_none());
    let commands = std::mem::take(&mut world.commands);
    let forbidden = commands.iter().filter_map(|command| match command {
        Command::Forbid { id, peer } => Some((*id, peer.to_string())),
        Command::Answer { .. }
        | Command::Open { .. }
        | Command::Extend { .. }
        | Command::Permit { .. }
        | Command::Bind { .. }
        | Command::Configure(_)
        | Command::Close { .. } => None,
    });
    let mut forbidden: Vec<_> = forbidden.collect();
    forbidden.sort();
    world.commands = commands;
    let mut closed = world.closed();
    closed.sort_by_key(|id| id.0);
    (closed, forbidden)
}

#[tokio::test(start_paused = true)]
async fn denied_peers_lose_their_permissions_and_channels_and_others_keep_theirs() {
    let mut world = World::new(|_| ());
    for (client, user) in [(ALICE, ("alice", "wonderland")), (BOB, ("bob", "builder"))] {
        world.turn_into(client, user).await;
        assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
        assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 0);
        assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.4.4:1")).await, 0);
    }
    let limits = limits(&world);

    let (closed, forbidden) = configure(&mut world, limits.clone(), &["8.8.8.0/24"]).await;

    let of = |id| (AllocationId(id), "8.8.8.8".to_owned());
    assert_eq!((closed, forbidden), (vec![], vec![of(1), of(2)]));
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 403);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 403);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.4.4:1")).await, 0, "its number is free");
    assert_eq!(configure(&mut world, limits, &[]).await, (vec![], vec![]));
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4001, "8.8.8.8:1")).await, 0);
}

#[tokio::test(start_paused = true)]
async fn other_clients_of_ours_are_never_denied() {
    let mut world = World::new(|_| ());
    world.turn_into(ALICE, ("alice", "wonderland")).await;
    let ours = relayed(&world.ask(ALLOCATE, transport()).await).to_string();
    world.turn_into(BOB, ("bob", "builder")).await;
    world.ask(ALLOCATE, transport()).await;
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, &ours)).await, 0);
    let limits = limits(&world);

    let taken = configure(&mut world, limits, &["0.0.0.0/0"]).await;

    assert_eq!(taken, (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_was_opened_by_a_user_or_secret_that_is_gone_ends_with_its_reservations() {
    let mut world = World::new(|_| ());
    let carol = world.credentials.mint_for("carol", world.clock.now());
    let carol: (&str, &str) = (carol.username.leak(), carol.password.leak());
    let reserving = || and(transport(), vec![(0x0018, vec![0x80])]);
    for (client, user) in [(ALICE, ("alice", "wonderland")), (BOB, ("bob", "builder")), ("198.51.100.1:3", carol)] {
        world.turn_into(client, user).await;
        assert_eq!(world.code_of(ALLOCATE, reserving()).await, 0);
    }
    let limits = limits(&world);

    world.credentials.configure(settings(&["west", "north"], &[("alice", "other"), ("bob", "builder")]));
    assert_eq!(configure(&mut world, limits.clone(), &[]).await.0, [AllocationId(1)]);
    assert_eq!(world.code_of(REFRESH, lifetime(600)).await, 0, "the secret is still among them");
    world.credentials.configure(settings(&["west"], &[("bob", "builder")]));
    assert_eq!(configure(&mut world, limits.clone(), &[]).await.0, [AllocationId(3)]);
    assert_eq!(world.code_of(REFRESH, lifetime(600)).await, 401);
    assert_eq!((world.metrics.allocations.get(), world.metrics.reservations.get()), (1, 1));
    world.credentials.configure(settings(&["west"], &[]));
    assert_eq!(configure(&mut world, limits, &[]).await.0, [AllocationId(2)]);

    assert_eq!(world.processor.idle_ports("192.0.2.9".parse().unwrap()), Some(1000));
}

#[tokio::test(start_paused = true)]
async fn when_credentials_end_with_their_sessions_what_ended_sessions_left_behind_ends() {
    let mut world = World::new(|_| ());
    let [over, living] = [(); 2].map(|()| SessionId::new());
    for (client, session) in [(ALICE, over), (BOB, living)] {
        world.credentials.begin(session);
        world.turn_into_session(client, session, None).await;
        assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
    }
    world.credentials.end(over);
    let limits = limits(&world);

    world.credentials.configure(credentials::Settings { mode: Mode::Session, ..settings(&["north"], &[]) });

    assert_eq!(configure(&mut world, limits, &[]).await.0, [AllocationId(1)]);
}

#[tokio::test(start_paused = true)]
async fn lower_limits_end_nothing_and_refuse_more_until_there_is_less() {
    let mut world = World::new(|_| ());
    let alice = ("alice", "wonderland");
    for client in [ALICE, BOB] {
        world.turn_into(client, alice).await;
        assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
    }
    for ip in ["8.8.8.8:1", "8.8.4.4:1"] {
        assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000 + u16::from(ip.contains("4.4")), ip)).await, 0);
    }
    let lower = Limits { allocations_per_member: 1, permissions: 1, channels: 1, ..limits(&world) };

    assert_eq!(configure(&mut world, lower, &[]).await, (vec![], vec![]));

    assert_eq!(world.code_of(REFRESH, lifetime(600)).await, 0);
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("1.1.1.1:1")).await, 508);
    world.turn_into("198.51.100.1:3", alice).await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 486);
    world.turn_into(ALICE, alice).await;
    assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 486, "there is one already");
    world.turn_into(BOB, alice).await;
    assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
}
