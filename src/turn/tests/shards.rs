//! Two control planes of one process: what one has given counts, and is good, on the other.

use super::world::*;
use super::*;
use crate::relay::command::AllocationId;

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
const RESERVING: fn() -> Given = || and(transport(), vec![(0x0018, vec![0x80])]);

fn with_token(answer: &Message) -> Given {
    and(transport(), vec![(0x0022, answer.get(ATTR_RESERVATION_TOKEN).unwrap())])
}

#[tokio::test(start_paused = true)]
async fn quotas_count_over_all_shards_and_what_ends_on_one_makes_room_on_another() {
    let mut world = World::new(|settings| settings.limits.allocations_per_member = 2);
    let mut codes = Vec::new();

    for port in 1..=3 {
        world.turn_into(&format!("198.51.100.1:{port}"), ("alice", "wonderland")).await;
        codes.push(world.code_of(ALLOCATE, transport()).await);
        world.change_shard();
    }

    assert_eq!(codes, [0, 0, 486]);
    world.turn_into("198.51.100.1:2", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
    world.change_shard();
    world.turn_into("198.51.100.1:3", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn no_port_and_no_name_is_given_twice_on_whichever_shards() {
    let mut world = World::new(|settings| settings.relay_ports = 50_000..=50_019);
    let mut ports = HashSet::new();

    for port in 1..=20 {
        world.turn_into(&format!("198.51.100.1:{port}"), ("alice", "wonderland")).await;
        ports.insert(relayed(&world.ask(ALLOCATE, transport()).await).port());
        world.change_shard();
    }

    world.turn_into("198.51.100.1:21", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 508, "no port is left");
    let opened =
        world.commands.iter().filter_map(|it| if let Command::Open { id, .. } = it { Some(*id) } else { None });
    assert_eq!((ports.len(), opened.collect::<HashSet<_>>().len()), (20, 20));
    world.pass(Duration::from_secs(600)).await;
    world.change_shard();
    assert!(world.processor.idle_ports(SERVER).is_none(), "what is open on this one counts");
    world.pass(Duration::ZERO).await;
    assert_eq!(world.processor.idle_ports(SERVER), Some(20));
}

#[tokio::test(start_paused = true)]
async fn a_nonce_is_good_on_every_shard() {
    let mut world = World::new(|_| ());
    world.challenged().await;

    world.change_shard();

    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reserved_port_goes_to_whichever_shard_redeems_it_and_comes_back_once() {
    let mut world = World::new(|settings| settings.relay_ports = 50_000..=50_001);
    let first = world.ask(ALLOCATE, RESERVING()).await;

    world.change_shard();
    world.turn_into("198.51.100.1:4001", ("alice", "wonderland")).await;
    let second = world.ask(ALLOCATE, with_token(&first)).await;

    assert_eq!([relayed(&first).port(), relayed(&second).port()], [50_000, 50_001]);
    assert_eq!(world.metrics.reservations.get(), 0);
    world.change_shard();
    world.turn_into("198.51.100.1:4002", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(ALLOCATE, with_token(&first)).await, 508, "a token is good once");
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(world.metrics.allocations.get(), 2, "its reservation's end is not the allocation's");
    for _ in 0..2 {
        world.pass(Duration::from_secs(600)).await;
        world.change_shard();
    }
    assert_eq!(world.processor.idle_ports(SERVER), Some(2));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_redeems_ends_on_whichever_shard_is_up_first() {
    let mut world = World::new(|_| ());
    world.ask(ALLOCATE, RESERVING()).await;
    world.ask(REFRESH, lifetime(0)).await;

    world.change_shard();
    let due = world.processor.poll_timeout().unwrap();
    world.pass(due - world.clock.now().monotonic).await;

    assert_eq!(world.processor.idle_ports(SERVER), Some(1000));
    assert_eq!(world.metrics.reservations.get(), 0);
    world.change_shard();
    assert_eq!(world.processor.poll_timeout(), None);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_ends_what_it_holds_on_every_shard() {
    let mut world = World::new(|_| ());
    let session = SessionId::new();
    world.credentials.begin(session);
    for client in ["198.51.100.1:1", "198.51.100.1:2"] {
        world.turn_into_session(client, session, None).await;
        assert_eq!(world.code_of(ALLOCATE, RESERVING()).await, 0);
        world.change_shard();
    }
    world.commands.clear();
    world.credentials.revoke(session, world.clock.now());
    let ending = world.endings.next().await;
    let mut ended = Vec::new();

    for _ in 0..2 {
        world.processor.handle_ending(ending, world.clock.now()).await;
        assert!(world.answer().is_none());
        ended.push(world.closed());
        world.change_shard();
    }

    assert_eq!(ended, [[AllocationId(1)], [AllocationId(2)]]);
    assert_eq!((world.metrics.allocations.get(), world.metrics.reservations.get()), (0, 0));
    assert_eq!(world.processor.idle_ports(SERVER), Some(1000));
}

#[tokio::test(start_paused = true)]
async fn where_another_shard_relays_may_be_permitted_for_as_long_as_it_does() {
    let mut world = World::new(|settings| {
        settings.relay_ip = ["10.9.9.1", "10.9.9.2"].map(|ip| ip.parse().unwrap()).into();
        settings.relay_ports = 50_000..=50_000;
    });
    let first = relayed(&world.ask(ALLOCATE, transport()).await);
    world.change_shard();
    world.turn_into("198.51.100.1:4001", ("bob", "builder")).await;
    let second = relayed(&world.ask(ALLOCATE, transport()).await);

    assert_eq!([first, second].map(|addr| addr.to_string()), ["10.9.9.1:50000", "10.9.9.2:50000"]);
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("10.9.9.1:50000")).await, 0);
    world.change_shard();
    world.turn_into("198.51.100.1:4000", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
    world.change_shard();
    world.turn_into("198.51.100.1:4001", ("bob", "builder")).await;
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("10.9.9.1:50000")).await, 403);
}

#[tokio::test(start_paused = true)]
async fn strangers_and_new_peers_are_counted_over_all_shards() {
    let mut world = World::new(|settings| {
        settings.limits.challenges = Rate { per_second: 1.0, burst: 4.0 };
        settings.limits.new_peers = Rate { per_second: 1.0, burst: 2.0 };
    });
    world.ask(ALLOCATE, transport()).await;
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.1:1")).await, 0);
    world.change_shard();
    world.turn_into("198.51.100.1:4001", ("alice", "wonderland")).await;
    world.ask(ALLOCATE, transport()).await;

    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.2:1")).await, 0);
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.3:1")).await, 508);
    let mut answered = 0;
    for _ in 0..10 {
        let bare = world.message(ALLOCATE, &transport());
        answered += usize::from(world.send(&bare.raw).await.is_some());
        world.change_shard();
    }
    assert_eq!(answered, 2, "two challenges were given before");
}
