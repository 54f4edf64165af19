//! What the sessions of signaling mean for those who relay: refreshed while they live, ended when they are over.

use super::world::*;
use super::*;
use crate::credentials;
use crate::credentials::Mode;
use crate::credentials::SessionId;

const RESERVING: fn() -> Given = || and(transport(), vec![(0x0018, vec![0x80])]);

fn about(mode: Mode) -> credentials::Settings {
    credentials::Settings { mode, ..credentials::Settings::default() }
}

fn begun(world: &World) -> SessionId {
    let session = SessionId::new();
    world.credentials.begin(session);
    session
}

#[tokio::test(start_paused = true)]
async fn a_revoked_session_loses_its_allocations_and_reservations_at_once_and_nobody_else_any() {
    let mut world = World::new(|_| ());
    let (kicked, other) = (begun(&world), begun(&world));
    for (client, session) in [("198.51.100.1:1", kicked), ("198.51.100.1:2", other), ("198.51.100.1:3", kicked)] {
        world.turn_into_session(client, session, None).await;
        assert_eq!(world.code_of(ALLOCATE, RESERVING()).await, 0);
    }
    world.turn_into("198.51.100.1:4", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(ALLOCATE, RESERVING()).await, 0);
    world.turn_into_session("198.51.100.1:1", kicked, None).await;
    world.commands.clear();

    world.credentials.revoke(kicked, world.clock.now());
    let mut ended = world.hear_of_an_end().await;

    ended.sort_by_key(|id| id.0);
    assert_eq!(ended, [crate::relay::command::AllocationId(1), crate::relay::command::AllocationId(3)]);
    assert_eq!((world.metrics.allocations.get(), world.metrics.reservations.get()), (2, 2));
    for method in [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
        assert_eq!(world.code_of(method, transport()).await, 401, "{method}");
    }
    world.turn_into_session("198.51.100.1:2", other, None).await;
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 0);
    world.credentials.revoke(other, world.clock.now());
    world.hear_of_an_end().await;
    world.turn_into("198.51.100.1:4", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(world.processor.idle_ports("192.0.2.9".parse().unwrap()), Some(1000));
}

#[tokio::test(start_paused = true)]
async fn who_hears_of_too_many_ends_at_once_ends_what_is_over_and_no_more() {
    for mode in [Mode::Ttl, Mode::Session] {
        let mut world = World::with(about(mode), |_| ());
        let (over, living) = (begun(&world), begun(&world));
        for (client, session) in [("198.51.100.1:1", over), ("198.51.100.1:2", living)] {
            world.turn_into_session(client, session, None).await;
            assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
        }
        world.commands.clear();

        world.credentials.revoke(over, world.clock.now());
        (0..5000).for_each(|_| world.credentials.revoke(SessionId::new(), world.clock.now()));

        assert_eq!(world.hear_of_an_end().await, [crate::relay::command::AllocationId(1)]);
        assert_eq!(world.metrics.allocations.get(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_allocation_is_refreshed_with_its_own_user_name_while_its_session_lives_however_old_that_is() {
    let mut world = World::new(|_| ());
    let session = begun(&world);
    world.turn_into_session("198.51.100.1:1", session, None).await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);

    for _ in 0..48 {
        world.challenged().await;
        assert_eq!(world.code_of(REFRESH, lifetime(3600)).await, 0);
        world.pass(Duration::from_secs(3599)).await;
    }
    world.challenged().await;
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 0);
    let first = world.client;
    world.client = from("198.51.100.1:2");
    world.challenged().await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 401, "but it opens nothing new");
    world.credentials.end(session);

    world.client = first;
    world.challenged().await;
    assert_eq!(world.code_of(REFRESH, lifetime(3600)).await, 401, "the grace passed long ago");
}

#[tokio::test(start_paused = true)]
async fn a_relayed_call_outlives_its_session_for_the_grace_or_ends_with_it_as_configured() {
    let mut ttl = World::new(|_| ());
    let session = begun(&ttl);
    ttl.turn_into_session("198.51.100.1:1", session, None).await;
    assert_eq!(ttl.code_of(ALLOCATE, transport()).await, 0);
    ttl.credentials.end(session);
    for _ in 0..13 {
        ttl.challenged().await;
        assert_eq!(ttl.code_of(REFRESH, lifetime(3600)).await, 0);
        ttl.pass(Duration::from_secs(3599)).await;
    }
    ttl.challenged().await;
    assert_eq!(ttl.metrics.allocations.get(), 1);
    ttl.pass(Duration::from_secs(1)).await;
    assert_eq!(ttl.metrics.allocations.get(), 0);

    let mut bound = World::with(about(Mode::Session), |_| ());
    let session = begun(&bound);
    bound.turn_into_session("198.51.100.1:1", session, None).await;
    assert_eq!(bound.code_of(ALLOCATE, transport()).await, 0);
    bound.commands.clear();
    bound.credentials.end(session);
    assert_eq!(bound.hear_of_an_end().await.len(), 1);
    assert_eq!(bound.code_of(ALLOCATE, transport()).await, 401);
}

#[tokio::test(start_paused = true)]
async fn a_session_permits_and_binds_only_peers_that_were_signaled_to_it() {
    let wanted = credentials::Settings { signaled_peers: true, ..about(Mode::Ttl) };
    let mut world = World::with(wanted, |_| ());
    let session = begun(&world);
    world.turn_into_session("198.51.100.1:1", session, None).await;
    let own = relayed(&world.ask(ALLOCATE, transport()).await);
    world.credentials.signaled(session, SessionId::new(), &["8.8.8.8", "10.0.0.1"].map(|ip| ip.parse().unwrap()));

    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 0);
    assert_eq!(world.code_of(CREATE_PERMISSION, peer(&own.to_string())).await, 0, "who relays here");
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 0);
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("10.0.0.1:1")).await, 403, "the policy goes above it");
    assert_eq!(world.code_of(CREATE_PERMISSION, and(peer("8.8.8.8:1"), peer("8.8.8.9:1"))).await, 403);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4001, "8.8.8.9:1")).await, 403);
    world.credentials.end(session);
    world.pass(Duration::from_secs(299)).await;
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 0, "it was permitted");
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 0);
    world.pass(Duration::from_secs(300)).await;
    world.challenged().await;
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 403, "it is permitted no more");
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 403);

    world.turn_into("198.51.100.1:2", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.4.4:1")).await, 0, "who never signals is not bound by it");
}

#[tokio::test(start_paused = true)]
async fn quotas_count_a_member_in_all_its_sessions_and_a_session_without_one_alone() {
    let mut world = World::new(|settings| settings.limits.allocations_per_member = 1);
    let sessions = [begun(&world), begun(&world), begun(&world), begun(&world)];
    let mut codes = Vec::new();

    for (port, (session, member)) in sessions.into_iter().zip([Some("carol"), Some("carol"), None, None]).enumerate() {
        world.turn_into_session(&format!("198.51.100.1:{}", port + 1), session, member).await;
        codes.push(world.code_of(ALLOCATE, transport()).await);
    }
    // Signing in once more makes no second member of her.
    world.credentials.end(sessions[0]);
    world.turn_into_session("198.51.100.1:9", begun(&world), Some("carol")).await;
    codes.push(world.code_of(ALLOCATE, transport()).await);

    assert_eq!(codes, [0, 486, 0, 0, 486]);
}
