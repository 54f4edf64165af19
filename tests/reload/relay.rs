//! What a reload means for those who relay.

use std::net::SocketAddr;

use serde_json::Value;
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Running;
use super::config;
use crate::support::PATIENCE;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::client::Client;
use crate::support::line::Line;

const ALLOCATIONS: &str = "throughway_allocations";

fn peers(keys: &str) -> String {
    config(&[], &format!("[turn.peers]\n{keys}\n"))
}

/// A peer at `ip`, and its address.
async fn peer(ip: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((ip, 0)).await.unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

async fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 64];
    let (length, _) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.expect("something comes").unwrap();
    buffer[..length].to_vec()
}

/// Has a client and its peer exchange data by a channel.
async fn exchange(asker: &Asker, channel: u16, relayed: SocketAddr, peer: &UdpSocket) {
    asker.send(&channel_data(channel, b"out")).await;
    assert_eq!(received(peer).await, b"out");
    peer.send_to(b"back", relayed).await.unwrap();
    assert_eq!(asker.receive().await, channel_data(channel, b"back"));
}

async fn asker(server: &Server, user: &str, password: &str) -> Asker {
    Asker::new(server.udp(), user, password).await
}

#[tokio::test]
async fn a_denied_peer_gets_nothing_more_from_a_living_allocation_and_nothing_of_it_comes_in() {
    let running = Running::start(&peers("allow = [\"127.0.0.3\", \"127.0.0.4\"]"));
    let server = &running.server;
    let tcp = Line::stream(server.turn_tcp(), None).await;
    for client in [asker(server, "alice", "wonderland").await, Asker::over(tcp, "bob", "builder").await] {
        let ((denied, to_denied), (other, to_other)) = (peer("127.0.0.3").await, peer("127.0.0.4").await);
        running.reload(&peers("allow = [\"127.0.0.3\", \"127.0.0.4\"]")).await;
        let relayed = client.allocate().await;
        assert_eq!((client.bind(0x4000, to_denied).await, client.bind(0x4001, to_other).await), (0, 0));
        exchange(&client, 0x4000, relayed, &denied).await;
        exchange(&client, 0x4001, relayed, &other).await;
        let [channels, permissions] = [server.drops("no-channel").await, server.drops("no-permission").await];

        running.applies(&peers("allow = [\"127.0.0.4\"]"), "turn.peers.allow").await;

        client.send(&channel_data(0x4000, b"nothing")).await;
        client.indicate(to_denied, b"nothing").await;
        denied.send_to(b"nothing", relayed).await.unwrap();
        server.drops_become("no-channel", channels + 1).await;
        server.drops_become("no-permission", permissions + 2).await;
        exchange(&client, 0x4001, relayed, &other).await;
        assert_eq!((client.permit(to_denied).await, client.bind(0x4000, to_denied).await), (403, 403));
        denied.try_recv(&mut [0; 8]).expect_err("nothing came");
    }
}

#[tokio::test]
async fn clients_of_ours_reach_each_other_on_every_shard_whatever_is_denied() {
    let with_shards = |tables| config(&[("shards", "2")], tables);
    let running = Running::start(&with_shards("[turn.peers]\nallow = [\"127.0.0.0/8\"]\n"));
    let (outsider, outside) = peer("127.0.0.1").await;
    let mut clients = Vec::new();
    for (user, password) in [("alice", "wonderland"), ("bob", "builder"), ("alice", "wonderland")] {
        // Handed to the shards in turn.
        let line = Line::stream(running.server.turn_tcp(), None).await;
        let client = Asker::over(line, user, password).await;
        let relayed = client.allocate().await;
        clients.push((client, relayed));
    }
    for (number, (client, _)) in clients.iter().enumerate() {
        for (other, (_, relayed)) in clients.iter().enumerate().filter(|(other, _)| *other != number) {
            assert_eq!(client.bind(0x4000 + u16::try_from(other).unwrap(), *relayed).await, 0);
        }
    }
    assert_eq!(clients[0].0.bind(0x4003, outside).await, 0);
    exchange(&clients[0].0, 0x4003, clients[0].1, &outsider).await;

    running.applies(&with_shards(""), "turn.peers.allow").await;

    for (number, (client, _)) in clients.iter().enumerate() {
        for (other, (receiver, _)) in clients.iter().enumerate().filter(|(other, _)| *other != number) {
            client.send(&channel_data(0x4000 + u16::try_from(other).unwrap(), b"hello")).await;
            assert_eq!(receiver.receive().await, channel_data(0x4000 + u16::try_from(number).unwrap(), b"hello"));
        }
    }
    // Whose address is that of relayed ones is no relayed address itself.
    clients[0].0.send(&channel_data(0x4003, b"nothing")).await;
    running.server.drops_become("no-such-relayed-address", 1).await;
    outsider.try_recv(&mut [0; 8]).expect_err("nothing came");
}

#[tokio::test]
async fn a_user_who_is_gone_or_has_another_password_loses_its_relays_at_once_and_nobody_else_does() {
    let users = |users| config(&[("users", users)], "");
    let running = Running::start(&users("{ alice = \"wonderland\", bob = \"builder\", carol = \"c\" }"));
    let server = &running.server;
    let [alice, bob, carol] = [("alice", "wonderland"), ("bob", "builder"), ("carol", "c")];
    let (alice, bob) = (asker(server, alice.0, alice.1).await, asker(server, bob.0, bob.1).await);
    let carol = asker(server, carol.0, carol.1).await;
    for client in [&alice, &bob, &carol] {
        client.allocate().await;
    }

    running.applies(&users("{ bob = \"another\", carol = \"c\" }"), "turn.users").await;

    assert_eq!(server.metric(ALLOCATIONS).await, 1);
    for client in [&alice, &bob] {
        assert_eq!((client.refresh(600).await, code(&client.ask(ALLOCATE, &[UDP]).await)), (401, 401));
    }
    assert_eq!(carol.refresh(600).await, 0);
    asker(server, "bob", "another").await.allocate().await;
    let log = server.log();
    assert!(!log.contains("alice") && !log.contains("another") && !log.contains("builder"), "{log}");
}

/// What `/ws` hands out.
fn credential(ice_servers: &Value) -> (String, String) {
    let text = |key| ice_servers[1][key].as_str().unwrap().to_owned();
    (text("username"), text("credential"))
}

#[tokio::test]
async fn members_get_credentials_of_the_next_secret_at_once_and_what_an_old_one_opened_ends_with_it() {
    let secrets = |secrets| config(&[("secrets", secrets)], "");
    let running = Running::start(&secrets("[\"north\"]"));
    let server = &running.server;
    let (mut second, mut first) =
        (Client::connect(server.http(), "/ws").await, Client::connect(server.http(), "/ws").await);
    second.send(&json!({ "type": "login", "name": "alice", "v": 2 })).await;
    let old = credential(&second.hear().await["iceServers"]);
    assert_eq!(first.log_in("bob").await["success"], true);
    let with_old = asker(server, &old.0, &old.1).await;
    with_old.allocate().await;

    running.applies(&secrets("[\"west\", \"north\"]"), "turn.secrets").await;
    let told = second.hear().await;
    let new = credential(&told["iceServers"]);
    first.is_served().await;
    let with_new = asker(server, &new.0, &new.1).await;
    with_new.allocate().await;
    assert_eq!((&told["type"], with_old.refresh(600).await), (&json!("ice"), 0), "the old secret verifies");
    running.applies(&secrets("[\"west\"]"), "turn.secrets").await;

    assert_eq!((server.metric(ALLOCATIONS).await, with_new.refresh(600).await), (1, 0));
    for method in [REFRESH, ALLOCATE] {
        assert_eq!(code(&with_old.ask(method, &[UDP]).await), 401);
    }
    for secret in [&old.1, &new.1] {
        assert!(!server.log().contains(secret));
    }
    assert!(!server.log().contains("north") && !server.log().contains("west"));
}

#[tokio::test]
async fn without_secrets_nobody_notices_a_reload_and_other_ice_servers_are_told_at_once() {
    let turn = |keys: &[(&str, &str)]| config(&[&[("secrets", "[]")], keys].concat(), "");
    let running = Running::start(&turn(&[]));
    let server = &running.server;
    let mut alice = Client::connect(server.http(), "/ws").await;
    alice.send(&json!({ "type": "login", "name": "alice", "v": 2 })).await;
    let (name, password) = credential(&alice.hear().await["iceServers"]);
    let client = asker(server, &name, &password).await;
    client.allocate().await;

    running.applies(&turn(&[("expired_grace", "\"1h\"")]), "turn.expired_grace").await;
    assert_eq!(client.refresh(600).await, 0);
    running
        .applies(
            &turn(&[("credential_life", "\"2h\"")]),
            "turn.credential_life,turn.expired_grace".replace(',', ", ").as_str(),
        )
        .await;
    assert_eq!(alice.hear().await["iceTtl"], 7200, "nothing came before");
    let list = "[{ urls = \"stun:stun.example.org\" }]";
    running.applies(&turn(&[("ice_servers", list)]), "turn.credential_life, turn.ice_servers").await;

    assert_eq!(alice.hear().await["iceServers"], json!([{ "urls": "stun:stun.example.org" }]));
    assert_eq!(client.refresh(600).await, 0);
}

#[tokio::test]
async fn lower_limits_end_nothing_and_refuse_more_at_once() {
    let limits = |limits: &str| peers(&format!("allow = [\"127.0.0.0/8\"]\n[turn.limits]\n{limits}"));
    let running = Running::start(&limits(""));
    let server = &running.server;
    let alice = asker(server, "alice", "wonderland").await;
    let (relayed, (socket, addr)) = (alice.allocate().await, peer("127.0.0.1").await);
    assert_eq!(alice.bind(0x4000, addr).await, 0);
    exchange(&alice, 0x4000, relayed, &socket).await;
    let again = asker(server, "alice", "wonderland").await;

    running.applies(&limits("allocations_per_member = 1"), "turn.limits.allocations_per_member").await;
    assert_eq!(code(&again.ask(ALLOCATE, &[UDP]).await), 486);
    exchange(&alice, 0x4000, relayed, &socket).await;
    running
        .applies(&limits("bytes_per_day = \"1B\""), "turn.limits.allocations_per_member, turn.limits.bytes_per_day")
        .await;
    alice.send(&channel_data(0x4000, b"nothing")).await;
    server.drops_become("volume", 1).await;
    assert_eq!(code(&again.ask(ALLOCATE, &[UDP]).await), 508);
    let bandwidth = "bandwidth_per_allocation = \"1B/s\"";
    running.applies(&limits(bandwidth), "turn.limits.bandwidth_per_allocation, turn.limits.bytes_per_day").await;
    for _ in 0..2 {
        // The smallest burst is the longest datagram.
        alice.send(&channel_data(0x4000, &[0; 40_000])).await;
    }
    server.drops_become("bandwidth", 1).await;
    let longest = timeout(PATIENCE, socket.recv_from(&mut [0; 65_000])).await.expect("one of them comes").unwrap();
    assert_eq!(longest.0, 40_000);
    running.applies(&limits(""), "turn.limits.bandwidth_per_allocation").await;

    exchange(&alice, 0x4000, relayed, &socket).await;
    assert_eq!(code(&again.ask(ALLOCATE, &[UDP]).await), 0);
    assert_eq!(server.metric(ALLOCATIONS).await, 2);
}

#[tokio::test]
async fn peers_must_be_signaled_from_then_on_and_who_is_permitted_stays_so() {
    let mode = |mode| peers(&format!("allow = [\"127.0.0.0/8\"]\nmode = \"{mode}\""));
    let running = Running::start(&mode("any"));
    let server = &running.server;
    let mut alice = Client::connect(server.http(), "/ws").await;
    let (name, password) = credential(&alice.log_in("alice").await["iceServers"]);
    let client = asker(server, &name, &password).await;
    let (relayed, (socket, addr)) = (client.allocate().await, peer("127.0.0.3").await);
    assert_eq!(client.bind(0x4000, addr).await, 0);
    assert_eq!(server.ask("GET /ice", "", "").await.0, 200);

    running.applies(&mode("signaled"), "turn.peers.mode").await;

    assert_eq!(server.ask("GET /ice", "", "").await.0, 403);
    assert_eq!(client.permit("127.0.0.4:9".parse().unwrap()).await, 403);
    exchange(&client, 0x4000, relayed, &socket).await;
    assert_eq!(client.permit(addr).await, 0);
    running.applies(&mode("any"), "turn.peers.mode").await;
    assert_eq!(client.permit("127.0.0.4:9".parse().unwrap()).await, 0);
}
