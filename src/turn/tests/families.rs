//! IPv6 relayed addresses, and two families on one 5-tuple.

use std::collections::HashSet;
use std::net::IpAddr;

use super::*;
use crate::wire::xor_address;

const V4: &str = "192.0.2.9";
const V6: &str = "2001:db8::9";

/// A server that reaches both families, from `world`'s IPv4 address and by route.
fn both() -> World {
    World::new(|settings| settings.routed = vec![V6.parse().unwrap()])
}

fn family(number: u8) -> Given {
    vec![(0x0017, vec![number, 0, 0, 0])]
}

fn additional(number: u8) -> Given {
    vec![(0x8000, vec![number, 0, 0, 0])]
}

/// The IP address of every XOR-RELAYED-ADDRESS, in order.
fn relay_ips(answer: &Message) -> Vec<IpAddr> {
    let relayed = answer.attributes.0.iter().filter(|attribute| attribute.typ == ATTR_XOR_RELAYED_ADDRESS);
    relayed.map(|attribute| xor_address(&attribute.value, answer.transaction_id.0).unwrap().ip()).collect()
}

fn opened(world: &World) -> Vec<IpAddr> {
    let opened = world.commands.iter().filter_map(|command| match command {
        Command::Open { relayed, .. } => Some(relayed.0.ip()),
        Command::Answer { .. }
        | Command::Extend { .. }
        | Command::Permit { .. }
        | Command::Bind { .. }
        | Command::Forbid { .. }
        | Command::Configure(_)
        | Command::Close { .. } => None,
    });
    opened.collect()
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_address_is_given_to_who_asks_for_one_and_reaches_ipv6_peers_only() {
    let mut world = both();

    let answer = world.ask(ALLOCATE, and(transport(), family(2))).await;

    assert_eq!(relayed(&answer).ip(), V6.parse::<IpAddr>().unwrap());
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("[2606:4700::1]:1")).await, 0);
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 443);
    assert_eq!(world.code_of(CREATE_PERMISSION, and(peer("[2606:4700::1]:1"), peer("8.8.8.8:1"))).await, 443);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 443);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "[2606:4700::1]:1")).await, 0);
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("[fc00::1]:1")).await, 403);
    assert_eq!(world.code_of(REFRESH, family(1)).await, 443);
    assert_eq!(world.code_of(REFRESH, and(family(2), lifetime(0))).await, 0);
    assert_eq!(world.metrics.allocations.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dual_allocation_has_an_address_of_each_family_and_counts_twice() {
    let mut world = World::new(|settings| {
        settings.routed = vec![V6.parse().unwrap()];
        settings.limits.allocations_per_member = 3;
    });

    let answer = world.ask(ALLOCATE, and(transport(), additional(2))).await;

    assert_eq!(code(&answer), 0);
    assert_eq!(relay_ips(&answer), opened(&world), "IPv4 first");
    assert_eq!(opened(&world), [V4, V6].map(|ip| ip.parse::<IpAddr>().unwrap()));
    assert!(answer.get(AttrType(0x8001)).is_err(), "no ADDRESS-ERROR-CODE");
    let peers = and(peer("8.8.8.8:1"), peer("[2606:4700::1]:1"));
    assert_eq!(world.code_of(CREATE_PERMISSION, peers).await, 0, "peers of both families in one request");
    world.turn_into("198.51.100.1:4001", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(ALLOCATE, and(transport(), additional(2))).await, 486);
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_channel_number_of_a_dual_allocation_means_one_peer_of_either_family() {
    let mut world = both();
    world.ask(ALLOCATE, and(transport(), additional(2))).await;

    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 0);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "[2606:4700::1]:1")).await, 400);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4001, "[2606:4700::1]:1")).await, 0);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4001, "8.8.4.4:1")).await, 400);

    world.pass(Duration::from_secs(599)).await;
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "[2606:4700::1]:2")).await, 400, "still bound");
    assert_eq!(world.code_of(REFRESH, Given::new()).await, 0);
    world.pass(Duration::from_secs(1)).await;
    world.challenged().await;
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "[2606:4700::1]:2")).await, 0, "expired");
}

#[tokio::test(start_paused = true)]
async fn of_a_dual_allocation_one_family_is_refreshed_and_deleted_alone_or_both_together() {
    let mut world = both();
    world.ask(ALLOCATE, and(transport(), additional(2))).await;

    assert_eq!(world.code_of(REFRESH, and(family(2), lifetime(1200))).await, 0);
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.closed().len(), 1, "the IPv4 address expired alone");
    world.challenged().await;
    assert_eq!(world.code_of(REFRESH, family(1)).await, 443, "it is gone");
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 443);
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("[2606:4700::1]:1")).await, 0);
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 437, "the 5-tuple is still taken");
    assert_eq!(world.code_of(REFRESH, and(family(2), lifetime(0))).await, 0);
    assert_eq!(world.code_of(REFRESH, Given::new()).await, 437);

    world.ask(ALLOCATE, and(transport(), additional(2))).await;
    world.commands.clear();
    assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
    assert_eq!(world.closed().len(), 2);
    assert_eq!(world.metrics.allocations.get(), 0);
    let ports = [V4, V6].map(|ip| world.processor.idle_ports(ip.parse().unwrap()));
    assert_eq!(ports, [Some(1000), Some(1000)], "ports and quotas are whole");
}

#[tokio::test(start_paused = true)]
async fn a_family_that_cannot_be_had_is_named_with_its_error_beside_the_one_that_can() {
    let mut world = World::new(|_| ());

    let answer = world.ask(ALLOCATE, and(transport(), additional(2))).await;

    assert_eq!(code(&answer), 0);
    assert_eq!(relay_ips(&answer), [V4.parse::<IpAddr>().unwrap()]);
    assert_eq!(answer.get(AttrType(0x8001)).unwrap(), [2, 0, 4, 40], "IPv6: 440");
    assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
    assert_eq!(world.processor.idle_ports(V4.parse().unwrap()), Some(1000));

    world = World::new(|settings| {
        settings.routed = vec![V6.parse().unwrap()];
        settings.relay_ports = 50_000..=50_001;
    });
    for client in ["198.51.100.1:4001", "198.51.100.1:4002"] {
        world.turn_into(client, ("alice", "wonderland")).await;
        assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
    }
    world.turn_into("198.51.100.1:4003", ("alice", "wonderland")).await;
    let answer = world.ask(ALLOCATE, and(transport(), additional(2))).await;
    assert_eq!(answer.get(AttrType(0x8001)).unwrap(), [1, 0, 5, 8], "IPv4: 508");
    assert_eq!(relay_ips(&answer), [V6.parse::<IpAddr>().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn an_additional_family_goes_with_ipv6_alone() {
    let mut world = both();
    let dual = |more| and(and(transport(), additional(2)), more);

    assert_eq!(world.code_of(ALLOCATE, and(transport(), additional(1))).await, 400, "IPv4 is no additional one");
    assert_eq!(world.code_of(ALLOCATE, dual(family(1))).await, 400);
    assert_eq!(world.code_of(ALLOCATE, dual(vec![(0x0018, vec![0x80])])).await, 400, "EVEN-PORT with R");
    assert_eq!(world.code_of(ALLOCATE, dual(vec![(0x0022, vec![0; 8])])).await, 400, "RESERVATION-TOKEN");
    assert_eq!(world.code_of(ALLOCATE, dual(vec![(0x0018, vec![0])])).await, 0, "even ports of both");
}

#[tokio::test(start_paused = true)]
async fn a_retransmitted_dual_allocate_gets_the_same_answer() {
    let mut world = both();
    world.challenged().await;
    let message = world.signed(ALLOCATE, &and(transport(), additional(2)));

    let first = world.send(&message.raw).await;
    let again = world.send(&message.raw).await;

    assert_eq!(first, again);
    assert_eq!(world.metrics.allocations.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn relay_addresses_are_taken_in_order_and_the_one_that_was_reached_first() {
    let mut world = World::new(|settings| {
        settings.relay_ip = ["192.0.2.7", V4, V6].map(|ip| ip.parse().unwrap()).into();
        settings.relay_ports = 50_000..=50_001;
    });

    let mut given = Vec::new();
    for port in 4001..=4005 {
        world.turn_into(&format!("198.51.100.1:{port}"), ("alice", "wonderland")).await;
        let answer = world.ask(ALLOCATE, transport()).await;
        given.push(if code(&answer) == 0 { relayed(&answer).to_string() } else { code(&answer).to_string() });
    }

    assert!(given[..2].iter().all(|addr| addr.starts_with("192.0.2.9:")), "{given:?}");
    assert!(given[2..4].iter().all(|addr| addr.starts_with("192.0.2.7:")), "{given:?}");
    assert_eq!(given[4], "508");
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn when_neither_family_can_be_had_the_answer_names_the_one_that_could_be_another_time() {
    let mut world = World::new(|settings| settings.relay_ports = 50_000..=50_000);
    world.ask(ALLOCATE, transport()).await;
    world.turn_into("198.51.100.1:4001", ("bob", "builder")).await;

    assert_eq!(world.code_of(ALLOCATE, and(transport(), additional(2))).await, 508, "no port left, and no IPv6");
    world.turn_into("198.51.100.1:4000", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
    assert_eq!(world.processor.idle_ports(V4.parse().unwrap()), Some(1));
}
