//! The control plane driven by calls under a paused clock: no socket, no thread.

mod algorithms;
mod families;
mod fuzz;
mod recheck;
mod sessions;
mod shards;
mod world;

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use stun::attributes::*;
use stun::integrity::MessageIntegrity;
use stun::message::*;

use self::world::*;
use super::*;
use crate::credentials::SessionId;
use crate::metrics::DropReason;
use crate::relay::command::Command;
use crate::relay::command::StreamId;

#[tokio::test(start_paused = true)]
async fn a_challenge_is_short_and_an_allocate_with_its_nonce_gets_a_relayed_address() {
    let mut world = World::new(|_| ());
    let bare = world.message(ALLOCATE, &transport());

    let challenge = world.send(&bare.raw).await.unwrap();
    let answer = world.ask(ALLOCATE, transport()).await;

    assert_eq!(bare.raw.len(), 28);
    assert!(challenge.len() * 10 <= 28 * 23, "a challenge of {} bytes reflects too much", challenge.len());
    assert_eq!(code(&answer), 0);
    assert_eq!(relayed(&answer).ip(), "192.0.2.9".parse::<IpAddr>().unwrap(), "the address that the client reached");
    assert!((50_000..=50_999).contains(&relayed(&answer).port()));
    assert_eq!(seconds(&answer), 600);
    assert!(matches!(world.commands.as_slice(), [Command::Open { .. }]));
    assert_eq!(world.metrics.allocations.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_checks_come_in_the_order_of_the_rfcs() {
    let mut world = World::new(|_| ());
    world.challenged().await;
    let nonce = world.nonce.clone();

    let mut no_username = world.message(ALLOCATE, &vec![]);
    world.key().add_to(&mut no_username).unwrap();
    let answer = parsed(&world.send(&no_username.raw).await.unwrap());
    assert_eq!(code(&answer), 400, "integrity without USERNAME, REALM and NONCE");

    world.nonce = b"AAAAAAAAAAAAAAAA".to_vec();
    let stale = world.ask(ALLOCATE, vec![]).await;
    assert_eq!(code(&stale), 438, "the nonce comes before all that is wrong behind it");
    assert!(stale.contains(ATTR_NONCE) && stale.contains(ATTR_REALM));
    world.nonce = nonce;

    world.user = ("alice", "wrong");
    assert_eq!(world.code_of(ALLOCATE, vec![]).await, 401);
    world.user = ("nobody", "wonderland");
    assert_eq!(world.code_of(ALLOCATE, vec![]).await, 401);
    world.user = ("alice", "wonderland");
    world.realm = "elsewhere";
    assert_eq!(world.code_of(ALLOCATE, vec![]).await, 401, "a foreign realm");
    world.realm = "throughway";

    let unknown = world.ask(REFRESH, vec![(0x0026, vec![]), (0x0024, vec![0; 4]), (0x8099, vec![])]).await;
    assert_eq!(code(&unknown), 420);
    assert_eq!(unknown.get(ATTR_UNKNOWN_ATTRIBUTES).unwrap(), [0x00, 0x26, 0x00, 0x24]);
    for method in [REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
        assert_eq!(world.code_of(method, vec![]).await, 437, "no allocation");
    }
}

#[tokio::test(start_paused = true)]
async fn an_allocate_request_is_refused_for_what_is_wrong_with_it() {
    let mut world = World::new(|settings| settings.relay_ports = 50_000..=50_003);
    let token = || vec![(0x0022, vec![0; 8])];

    assert_eq!(world.code_of(ALLOCATE, vec![]).await, 400, "no REQUESTED-TRANSPORT");
    assert_eq!(world.code_of(ALLOCATE, vec![(0x0019, vec![17])]).await, 400);
    assert_eq!(world.code_of(ALLOCATE, vec![(0x0019, vec![6, 0, 0, 0])]).await, 442);
    assert_eq!(
        world.code_of(ALLOCATE, and(transport(), vec![(0x0017, vec![2, 0, 0, 0])])).await,
        440,
        "no IPv6 address"
    );
    assert_eq!(world.code_of(ALLOCATE, and(transport(), vec![(0x0017, vec![9, 0, 0, 0])])).await, 440);
    assert_eq!(world.code_of(ALLOCATE, and(transport(), and(token(), vec![(0x0018, vec![0])]))).await, 400);
    assert_eq!(world.code_of(ALLOCATE, and(transport(), token())).await, 508, "a token that nobody was given");
    assert_eq!(world.code_of(ALLOCATE, and(transport(), vec![(0x0018, vec![0, 0])])).await, 400);
    assert_eq!(world.code_of(ALLOCATE, and(transport(), vec![(0x000D, vec![0])])).await, 400);
    for port in 4001..=4004 {
        world.turn_into(&format!("198.51.100.1:{port}"), ("alice", "wonderland")).await;
        assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
    }
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 437, "the 5-tuple is taken");
    world.turn_into("198.51.100.1:4005", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 508, "no port is left");
}

#[tokio::test(start_paused = true)]
async fn a_retransmitted_allocate_gets_the_same_answer_and_nothing_more() {
    let mut world = World::new(|_| ());
    world.challenged().await;
    let message = world.signed(ALLOCATE, &transport());

    let first = world.send(&message.raw).await;
    let second = world.send(&message.raw).await;

    assert!(first.is_some());
    assert_eq!(first, second);
    assert_eq!(world.metrics.allocations.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn lifetimes_are_kept_between_ten_minutes_and_an_hour_and_zero_deletes() {
    let mut world = World::new(|_| ());

    assert_eq!(seconds(&world.ask(ALLOCATE, and(transport(), lifetime(5))).await), 600);
    assert_eq!(seconds(&world.ask(REFRESH, lifetime(1200)).await), 1200);
    assert_eq!(seconds(&world.ask(REFRESH, lifetime(u32::MAX)).await), 3600);
    world.pass(Duration::from_secs(3599)).await;
    world.challenged().await;
    assert_eq!(seconds(&world.ask(REFRESH, vec![]).await), 600);
    world.pass(Duration::from_secs(599)).await;
    assert_eq!(world.metrics.allocations.get(), 1);
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.metrics.allocations.get(), 0, "it ends when its time has come");
    assert_eq!(world.closed().len(), 1);

    world.challenged().await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
    assert_eq!(seconds(&world.ask(REFRESH, lifetime(0)).await), 0);
    assert_eq!(world.metrics.allocations.get(), 0);
    assert_eq!(world.closed().len(), 1);
    assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 437);
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0, "the 5-tuple is free again");
}

#[tokio::test(start_paused = true)]
async fn what_stands_behind_the_integrity_does_not_count() {
    let mut world = World::new(|_| ());
    world.ask(ALLOCATE, transport()).await;
    let mut message = world.signed(REFRESH, &lifetime(1200));
    message.add(ATTR_LIFETIME, &[0; 4]);
    message.add(AttrType(0x0026), &[]);

    let answer = parsed(&world.send(&message.raw).await.unwrap());

    assert_eq!(code(&answer), 0);
    assert_eq!(seconds(&answer), 1200);
    assert_eq!(world.metrics.allocations.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_user_on_the_5_tuple_is_refused_and_a_nonce_from_elsewhere_is_stale() {
    let mut world = World::new(|_| ());
    world.ask(ALLOCATE, transport()).await;

    world.user = ("bob", "builder");
    for attributes in [lifetime(0), lifetime(600)] {
        assert_eq!(world.code_of(REFRESH, attributes).await, 441);
    }
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 441);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 441);
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 437);

    world.user = ("alice", "wonderland");
    world.client = from("198.51.100.1:4001");
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 438, "a nonce is bound to its address");
    assert_eq!(world.metrics.allocations.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_credential_opens_nothing_after_its_expiry_but_keeps_what_it_opened() {
    let mut world = World::new(|_| ());
    // The REST convention: base64 of HMAC-SHA1 of the name under the secret "north", as openssl computes it.
    world.user = ("1700000300:carol", "dj/Xg13pYUTZ0PgY23qHdd7RXQ0=");

    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
    world.pass(Duration::from_secs(301)).await;

    assert_eq!(world.code_of(REFRESH, lifetime(3600)).await, 0, "a call lives on with the credential it began with");
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 0);
    world.client = from("198.51.100.1:4001");
    world.challenged().await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 401);

    world.client = from("198.51.100.1:4000");
    for _ in 0..13 {
        world.challenged().await;
        world.code_of(REFRESH, lifetime(3600)).await;
        world.pass(Duration::from_secs(3599)).await;
    }
    world.challenged().await;
    assert_eq!(world.code_of(REFRESH, lifetime(3600)).await, 401, "but not for ever");
}

#[tokio::test(start_paused = true)]
async fn permissions_are_granted_to_all_peers_or_to_none() {
    let mut world = World::new(|settings| settings.limits.permissions = 3);
    let own = relayed(&world.ask(ALLOCATE, transport()).await);
    world.commands.clear();

    assert_eq!(world.code_of(CREATE_PERMISSION, vec![]).await, 400);
    assert_eq!(world.code_of(CREATE_PERMISSION, vec![(0x0012, vec![0, 1, 0, 1, 8])]).await, 400, "5 bytes");
    assert_eq!(world.code_of(CREATE_PERMISSION, and(peer("8.8.8.8:1"), peer("10.0.0.1:1"))).await, 403);
    assert_eq!(world.code_of(CREATE_PERMISSION, and(peer("8.8.8.8:1"), peer("[2606:4700::1]:1"))).await, 443);
    let four = ["8.8.8.1:1", "8.8.8.2:1", "8.8.8.3:1", "8.8.8.4:1"].iter().flat_map(|addr| peer(addr)).collect();
    assert_eq!(world.code_of(CREATE_PERMISSION, four).await, 508, "beyond the cap");
    assert!(world.commands.is_empty(), "nothing was granted");

    assert_eq!(world.code_of(CREATE_PERMISSION, and(peer("8.8.8.8:1"), peer("[::ffff:1.1.1.1]:1"))).await, 0);
    assert_eq!(world.code_of(CREATE_PERMISSION, peer(&own.to_string())).await, 0, "our own relay address");
    let permitted: Vec<IpAddr> = world
        .commands
        .iter()
        .filter_map(|command| if let Command::Permit { peer, .. } = command { Some(*peer) } else { None })
        .collect();
    assert_eq!(permitted, ["1.1.1.1", "8.8.8.8", "192.0.2.9"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.9:1")).await, 508);
    world.pass(Duration::from_secs(300)).await;
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.9:1")).await, 0, "expired ones make room");
}

#[tokio::test(start_paused = true)]
async fn a_permission_is_granted_for_five_minutes_and_a_channel_for_ten() {
    let mut world = World::new(|_| ());
    world.ask(ALLOCATE, and(transport(), lifetime(3600))).await;
    let begin = world.clock.now().monotonic;

    // Again after four minutes: each counts from its last request.
    for _ in 0..2 {
        assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 0);
        assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.4.4:1")).await, 0);
        world.pass(Duration::from_secs(240)).await;
    }

    let granted = world.commands.iter().filter_map(|command| match command {
        Command::Permit { peer, deadline, .. } => Some((peer.to_string(), (*deadline - begin).as_secs())),
        Command::Bind { peer, deadline, .. } => Some((peer.get().to_string(), (*deadline - begin).as_secs())),
        Command::Answer { .. }
        | Command::Open { .. }
        | Command::Extend { .. }
        | Command::Forbid { .. }
        | Command::Configure(_)
        | Command::Close { .. } => None,
    });
    let expected = [0, 240].map(|at| [("8.8.8.8", at + 300), ("8.8.4.4", at + 300), ("8.8.4.4:1", at + 600)]);
    assert!(granted.eq(expected.as_flattened().iter().map(|(peer, end)| ((*peer).to_owned(), *end))));
}

#[tokio::test(start_paused = true)]
async fn a_peer_named_five_thousand_times_costs_as_much_as_one() {
    let mut world = World::new(|_| ());
    world.ask(ALLOCATE, transport()).await;
    world.commands.clear();
    let once = (0..5_000).flat_map(|_| peer("8.8.8.8:1")).collect();
    let distinct = (0..5_000).flat_map(|n| peer(&format!("8.8.{}.{}:1", n / 250, n % 250))).collect();

    assert_eq!(world.code_of(CREATE_PERMISSION, once).await, 0);
    assert_eq!(world.commands.len(), 1);
    assert_eq!(world.code_of(CREATE_PERMISSION, distinct).await, 508);
    assert_eq!(world.commands.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_meets_so_many_new_peers_a_second_however_many_allocations_it_has() {
    let mut world = World::new(|settings| settings.limits.new_peers = Rate { per_second: 2.0, burst: 4.0 });
    world.ask(ALLOCATE, transport()).await;
    let three = and(and(peer("8.8.8.1:1"), peer("8.8.8.2:1")), peer("8.8.8.3:1"));

    assert_eq!(world.code_of(CREATE_PERMISSION, three.clone()).await, 0);
    assert_eq!(world.code_of(CREATE_PERMISSION, three.clone()).await, 0, "known ones cost nothing");
    assert_eq!(world.code_of(CREATE_PERMISSION, and(peer("8.8.8.4:1"), peer("8.8.8.5:1"))).await, 508);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.4:1")).await, 0, "the refused took nothing");
    world.turn_into("198.51.100.1:4001", ("alice", "wonderland")).await;
    world.ask(ALLOCATE, transport()).await;
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.4:1")).await, 508, "the same member");
    world.turn_into("198.51.100.1:4002", ("bob", "builder")).await;
    world.ask(ALLOCATE, transport()).await;
    assert_eq!(world.code_of(CREATE_PERMISSION, three).await, 0, "another");
    world.turn_into("198.51.100.1:4001", ("alice", "wonderland")).await;
    world.pass(Duration::from_millis(501)).await;
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.4:1")).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_source_meets_so_many_new_peers_whatever_names_it_goes_by() {
    let mut world = World::new(|settings| settings.limits.new_peers = Rate { per_second: 1.0, burst: 2.0 });
    let mut granted = 0;

    for n in 0..10_u8 {
        let client = format!("198.51.100.1:{}", 4100 + u16::from(n));
        world.turn_into_session(&client, SessionId::new(), None).await;
        world.ask(ALLOCATE, transport()).await;
        for peer_number in 0..2 {
            let wanted = peer(&format!("8.8.{n}.{peer_number}:1"));
            granted += usize::from(world.code_of(CREATE_PERMISSION, wanted).await == 0);
        }
    }

    assert_eq!(granted, 10, "five members' worth");
    world.turn_into_session("203.0.113.1:4000", SessionId::new(), None).await;
    world.ask(ALLOCATE, transport()).await;
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("8.8.8.8:1")).await, 0, "another source");
}

#[tokio::test(start_paused = true)]
async fn channels_are_bound_one_to_one_within_their_range_and_cap() {
    let mut world = World::new(|settings| settings.limits.channels = 2);
    world.ask(ALLOCATE, transport()).await;

    for bad in [0x0001, 0x3FFF, 0x8000, 0xFFFF] {
        assert_eq!(world.code_of(CHANNEL_BIND, channel(bad, "8.8.8.8:1")).await, 400, "{bad:#x}");
    }
    assert_eq!(world.code_of(CHANNEL_BIND, peer("8.8.8.8:1")).await, 400, "no number");
    assert_eq!(world.code_of(CHANNEL_BIND, and(channel(0x4000, "8.8.8.8:1"), peer("8.8.8.9:1"))).await, 400);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "192.168.0.1:1")).await, 403);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "[2606:4700::1]:1")).await, 443);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 0);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:1")).await, 0, "a refresh");
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4000, "8.8.8.8:2")).await, 400, "the number is bound");
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4001, "8.8.8.8:1")).await, 400, "the peer is bound");
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x7FFF, "8.8.8.8:2")).await, 0);
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4002, "8.8.8.8:3")).await, 508, "beyond the cap");
    world.ask(REFRESH, lifetime(3600)).await;
    world.pass(Duration::from_secs(600)).await;
    world.challenged().await;
    assert_eq!(world.code_of(CHANNEL_BIND, channel(0x4002, "8.8.8.8:1")).await, 0, "expired ones bind nothing");
}

#[tokio::test(start_paused = true)]
async fn an_even_port_with_a_reservation_holds_the_next_one_for_its_user_for_thirty_seconds() {
    let mut world = World::new(|settings| settings.relay_ports = 50_000..=50_001);
    let even = || and(transport(), vec![(0x0018, vec![0x80])]);
    let with = |token: &[u8]| and(transport(), vec![(0x0022, token.to_vec())]);

    let answer = world.ask(ALLOCATE, even()).await;
    let token = answer.get(ATTR_RESERVATION_TOKEN).unwrap();
    assert_eq!(relayed(&answer).port(), 50_000);
    world.turn_into("198.51.100.1:4001", ("bob", "builder")).await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 508, "the next port is held");
    assert_eq!(world.code_of(ALLOCATE, with(&token)).await, 508, "for another user");
    world.turn_into("198.51.100.1:4001", ("alice", "wonderland")).await;
    assert_eq!(relayed(&world.ask(ALLOCATE, with(&token)).await).port(), 50_001);
    world.turn_into("198.51.100.1:4002", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(ALLOCATE, with(&token)).await, 508, "a token is good once");

    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.code_of(ALLOCATE, even()).await, 438);
    world.challenged().await;
    let token = world.ask(ALLOCATE, even()).await.get(ATTR_RESERVATION_TOKEN).unwrap();
    world.pass(Duration::from_secs(30)).await;
    world.turn_into("198.51.100.1:4003", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(ALLOCATE, with(&token)).await, 508, "its time has passed");
    assert_eq!(relayed(&world.ask(ALLOCATE, transport()).await).port(), 50_001, "and its port is free");
}

#[tokio::test(start_paused = true)]
async fn twenty_thousand_even_port_allocations_leave_the_port_pool_and_the_quotas_whole() {
    let mut world = World::new(|settings| settings.limits.challenges.burst = 1e9);
    for round in 0..20_000 {
        assert_eq!(world.code_of(ALLOCATE, and(transport(), vec![(0x0018, vec![0x80])])).await, 0);
        assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
        world.commands.clear();
        world.pass(Duration::from_secs(1)).await;
        if round % 500 == 0 {
            world.challenged().await;
        }
    }

    world.pass(Duration::from_secs(30)).await;

    assert_eq!(world.processor.idle_ports("192.0.2.9".parse().unwrap()), Some(1000));
}

#[tokio::test(start_paused = true)]
async fn a_member_and_a_source_have_so_many_allocations_and_no_more() {
    let mut world = World::new(|settings| {
        settings.limits.allocations_per_member = 3;
        settings.limits.allocations_per_source = 4;
    });
    for port in 1..=3 {
        world.turn_into(&format!("198.51.100.1:{port}"), ("alice", "wonderland")).await;
        assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
    }
    world.turn_into("198.51.100.2:4", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 486, "of one user");
    world.turn_into("198.51.100.1:5", ("bob", "builder")).await;
    assert_eq!(
        world.code_of(ALLOCATE, and(transport(), vec![(0x0018, vec![0x80])])).await,
        486,
        "a reservation counts"
    );
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);
    world.turn_into("198.51.100.1:6", ("bob", "builder")).await;
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 486, "of one source");

    world.turn_into("198.51.100.1:1", ("alice", "wonderland")).await;
    assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0, "what ends makes room");
}

#[tokio::test(start_paused = true)]
async fn strangers_get_so_many_answers_a_second_and_then_silence() {
    let mut world = World::new(|settings| settings.limits.challenges = Rate { per_second: 100.0, burst: 500.0 });
    let forged = {
        world.nonce = b"AAAAAAAAAAAAAAAA".to_vec();
        world.user = ("alice\r\n\u{1b}[31m%s\"", "x");
        world.signed(ALLOCATE, &transport())
    };
    let mut answered = 0;
    for _ in 0..2_000 {
        answered += usize::from(world.send(&forged.raw).await.is_some());
    }

    assert_eq!(answered, 500);
    assert_eq!(world.metrics.drops(DropReason::RateLimited), 1_500);
    assert_eq!(world.metrics.allocations.get(), 0);
    world.client = from("198.51.100.77:1");
    assert!(world.send(&forged.raw).await.is_none(), "the same network");
    world.client = from("198.51.101.77:1");
    assert!(world.send(&forged.raw).await.is_some(), "another has its own");
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_nonce_has_aged_gets_a_new_one_however_busy_its_source_is() {
    let mut world = World::new(|settings| settings.limits.challenges = Rate { per_second: 0.001, burst: 3.0 });
    world.ask(ALLOCATE, and(transport(), lifetime(3600))).await;
    let bare = world.message(ALLOCATE, &transport());
    while world.send(&bare.raw).await.is_some() {}
    tokio::time::advance(Duration::from_secs(600)).await;

    let stale = world.ask(REFRESH, vec![]).await;

    assert_eq!(code(&stale), 438);
    world.nonce = stale.get(ATTR_NONCE).unwrap();
    assert_eq!(world.code_of(REFRESH, vec![]).await, 0);
    world.nonce = b"AAAAAAAAAAAAAAAA".to_vec();
    let message = world.signed(REFRESH, &vec![]);
    assert!(world.send(&message.raw).await.is_none(), "a nonce of nobody's proves nothing");
}

#[tokio::test(start_paused = true)]
async fn a_binding_request_with_a_required_attribute_that_nobody_knows_is_answered_420() {
    let mut world = World::new(|_| ());
    let change = world.message(BINDING, &vec![(0x0003, vec![0, 0, 0, 6])]);
    let named = world.message(BINDING, &vec![(0x0006, b"somebody".to_vec())]);

    let refused = parsed(&world.send(&change.raw).await.unwrap());
    let answered = parsed(&world.send(&named.raw).await.unwrap());

    assert_eq!(code(&refused), 420);
    assert_eq!(refused.get(ATTR_UNKNOWN_ATTRIBUTES).unwrap(), [0x00, 0x03]);
    assert!(answered.contains(ATTR_XORMAPPED_ADDRESS));
}

#[tokio::test(start_paused = true)]
async fn the_external_address_is_told_and_reached_and_the_local_one_is_bound() {
    let mut world = World::new(|settings| {
        settings.relay_ip = vec!["10.0.0.4".parse().unwrap()];
        settings.external_ip =
            vec![ExternalIp { external: "203.0.113.5".parse().unwrap(), local: "10.0.0.4".parse().ok() }];
    });

    let told = relayed(&world.ask(ALLOCATE, transport()).await);

    assert_eq!(told.ip(), "203.0.113.5".parse::<IpAddr>().unwrap());
    let Some(Command::Open { relayed, advertised, .. }) = world.commands.first() else { panic!("not opened") };
    assert_eq!((relayed.0.ip(), *advertised), ("10.0.0.4".parse().unwrap(), told));
    assert_eq!(world.code_of(CREATE_PERMISSION, peer("203.0.113.5:1")).await, 0, "another client's relayed address");
}

/// The attack that hangs the crate's own server for good: 200 permissions and channels refreshed twice in the second
/// they expire.
#[tokio::test(start_paused = true)]
async fn refreshing_permissions_and_channels_in_the_second_they_expire_leaves_the_control_plane_answering() {
    let attack = async {
        let mut world = World::new(|settings| (settings.limits.permissions, settings.limits.channels) = (400, 400));
        world.ask(ALLOCATE, and(transport(), lifetime(3600))).await;
        // The crate's permissions live 300 s, its channels 602: in each of those seconds its timers have fired, and the
        // requests come before the tasks that wait for them have run.
        for (life, channels) in [(300, false), (300, true), (602, true), (602, false)] {
            refresh_all(&mut world, channels).await;
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_secs(life)).await;
            world.challenged().await;
            refresh_all(&mut world, channels).await;
            assert_eq!(world.code_of(REFRESH, lifetime(3600)).await, 0);
        }
        assert_eq!(world.code_of(REFRESH, lifetime(0)).await, 0);
        assert_eq!(world.metrics.allocations.get(), 0);
    };

    let outcome = tokio::time::timeout(Duration::from_secs(86_400), attack).await;

    assert!(outcome.is_ok(), "the control plane hangs");
}

/// Twice each, back to back: the crate's timer would still hold the first refresh when the second comes.
async fn refresh_all(world: &mut World, channels: bool) {
    for n in (0..200).flat_map(|n| [n, n]) {
        let addr = format!("8.8.{n}.8:1000");
        let code = match channels {
            true => world.code_of(CHANNEL_BIND, channel(0x4000 + n, &addr)).await,
            false => world.code_of(CREATE_PERMISSION, peer(&addr)).await,
        };
        assert_eq!(code, 0, "{addr}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_allocation_that_the_data_plane_refused_is_over() {
    let mut world = World::new(|_| ());
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);

    world.processor.handle_refused(crate::relay::command::AllocationId(1)).await;

    assert_eq!(world.processor.idle_ports("192.0.2.9".parse().unwrap()), Some(1000));
    assert_eq!(world.code_of(REFRESH, lifetime(600)).await, 437);
}

#[tokio::test(start_paused = true)]
async fn a_streams_end_leaves_what_came_another_way_on_its_5_tuple_alone() {
    let mut world = World::new(|_| ());
    assert_eq!(world.code_of(ALLOCATE, transport()).await, 0);

    world.processor.handle_stream_closed(world.client, StreamId(1)).await;

    assert!(world.answer().is_none());
    assert_eq!(world.closed(), []);
    assert_eq!(world.metrics.allocations.get(), 1);
}
