//! Several media threads in the real binary: to clients they are one server, wherever the kernel puts them.
//!
//! Streams are handed to the shards in turn, so that four of them are on all four; where datagrams come to, nobody chooses.

use std::net::SocketAddr;

use stun::attributes::ATTR_RESERVATION_TOKEN;

use crate::ground::refusal;
use crate::support::DEFAULT_PEERS;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::line::Line;

/// Several, however many cores there are.
const SHARDS: u16 = 4;

fn start(more: &str) -> Server {
    Server::start(&(DEFAULT_PEERS.replace("[turn]\n", &format!("[turn]\nshards = {SHARDS}\n")) + more))
}

async fn alice(line: Line) -> Asker {
    Asker::over(line, "alice", "wonderland").await
}

/// A client on each shard, by streams.
async fn on_each(server: &Server) -> Vec<Asker> {
    let mut clients = Vec::new();
    for _ in 0..SHARDS {
        clients.push(alice(Line::stream(server.turn_tcp(), None).await).await);
    }
    clients
}

fn number(client: usize) -> u16 {
    0x4000 + u16::try_from(client).unwrap()
}

/// Has clients allocate, and bind channels to each other: its number names the other.
async fn acquaint(clients: &[Asker]) -> Vec<SocketAddr> {
    let mut relayed = Vec::new();
    for client in clients {
        relayed.push(client.allocate().await);
    }
    for client in clients {
        for (other, addr) in relayed.iter().enumerate() {
            assert_eq!(client.bind(number(other), *addr).await, 0);
        }
    }
    relayed
}

#[tokio::test]
async fn clients_on_whichever_shards_reach_each_other_in_order_and_inside_the_process() {
    const EACH: u8 = 4;
    let server = start("");
    let mut clients = on_each(&server).await;
    for _ in 0..16 {
        clients.push(alice(Line::udp(server.udp()).await).await);
    }
    acquaint(&clients).await;
    let before = server.relayed("hairpin").await;

    for (from, sender) in clients.iter().enumerate() {
        for n in 0..EACH {
            for to in 0..clients.len() {
                sender.send(&channel_data(number(to), &[n; 200])).await;
            }
        }
        for receiver in &clients {
            for n in 0..EACH {
                assert_eq!(receiver.receive().await, channel_data(number(from), &[n; 200]));
            }
        }
    }

    let sent = u64::from(EACH) * u64::try_from(clients.len().pow(2)).unwrap();
    server.relayed_becomes("hairpin", before + sent).await;
    assert_eq!(server.relayed("to-peers").await, 0);
    assert_eq!(server.relayed("to-clients").await, 0);
}

#[tokio::test]
async fn what_is_not_bound_crosses_shards_as_an_indication_and_only_with_permission_on_both_sides() {
    let server = start("[turn.limits]\nbandwidth_per_allocation = \"1KiB/s\"\n");
    let clients = on_each(&server).await;
    let mut relayed = Vec::new();
    for client in &clients[..3] {
        relayed.push(client.allocate().await);
        assert_eq!(client.permit(relayed[0]).await, 0);
    }

    clients[0].indicate(relayed[1], b"there").await;
    let data = clients[1].receive_stun().await;

    assert_eq!(data.typ.value(), DATA);
    assert_eq!(addresses(&data, stun::attributes::ATTR_XOR_PEER_ADDRESS), [relayed[0]]);
    assert_eq!(data.get(stun::attributes::ATTR_DATA).unwrap(), b"there");
    // 64 KiB may go at once: the third has its whole share, the second has not.
    let most = vec![7; 60_000];
    for sender in [0, 2] {
        clients[sender].indicate(relayed[1], &most).await;
    }
    assert_eq!(clients[1].receive_stun().await.get(stun::attributes::ATTR_DATA).unwrap(), most);
    server.drops_become("bandwidth", 1).await;
}

#[tokio::test]
async fn what_ends_on_one_shard_is_out_of_reach_on_every_other() {
    let server = start("");
    let clients = on_each(&server).await;
    let relayed = acquaint(&clients).await;
    let dropped = server.drops("no-such-relayed-address").await;
    let forbidden = server.drops("no-permission").await;

    assert_eq!(clients[3].refresh(0).await, 0);
    for client in &clients[..3] {
        client.send(&channel_data(number(3), b"anybody?")).await;
        client.indicate(relayed[3], b"anybody?").await;
    }

    server.drops_become("no-such-relayed-address", dropped + 6).await;
    let again = clients[3].allocate().await;
    clients[0].indicate(again, b"there").await;
    server.drops_become("no-permission", forbidden + 1).await;
    assert_eq!(clients[3].bind(number(0), relayed[0]).await, 0);
    clients[0].indicate(again, b"there again").await;
    assert_eq!(clients[3].receive().await, channel_data(number(0), b"there again"));
    assert_eq!(server.relayed("to-peers").await, 0);
}

#[test]
fn a_second_instance_with_however_many_shards_is_refused() {
    let first = start("");

    for shards in [1, SHARDS] {
        let toml = DEFAULT_PEERS.replace("[turn]\n", &format!("[turn]\nshards = {shards}\n"));
        let listen = |addr: SocketAddr| format!("listen_udp = [\"{addr}\"]");
        let toml = toml.replace(&listen("127.0.0.1:0".parse().unwrap()), &listen(first.udp()));
        let line = refusal(&toml);
        assert!(line.contains("(turn.listen_udp): address in use; another program has it"), "{line}");
    }
}

#[tokio::test]
async fn limits_count_over_all_shards() {
    let server = start("[turn.limits]\nallocations_per_member = 3\n");
    let clients = on_each(&server).await;
    let mut codes = Vec::new();

    for client in &clients {
        codes.push(client.code_of(ALLOCATE, &[UDP]).await);
    }

    assert_eq!(codes, [0, 0, 0, 486]);
    assert_eq!(clients[1].refresh(0).await, 0);
    assert_eq!(clients[3].code_of(ALLOCATE, &[UDP]).await, 0);
}

#[tokio::test]
async fn a_reserved_port_is_redeemed_on_another_shard() {
    let server = start("");
    let clients = on_each(&server).await;
    let answer = clients[0].ask(ALLOCATE, &[UDP, (EVEN_PORT, &[0x80])]).await;

    let token = answer.get(ATTR_RESERVATION_TOKEN).unwrap();
    let second = clients[1].ask(ALLOCATE, &[UDP, (TOKEN, &token)]).await;

    assert_eq!(relayed(&second)[0].port(), relayed(&answer)[0].port() + 1);
    assert_eq!(clients[2].code_of(ALLOCATE, &[UDP, (TOKEN, &token)]).await, 508, "once");
}

#[tokio::test]
async fn a_client_over_udp_keeps_to_its_shard_whatever_others_come_and_go() {
    let server = start("");
    let mut clients = Vec::new();

    for _ in 0..32 {
        let client = alice(Line::udp(server.udp()).await).await;
        client.allocate().await;
        clients.push(client);
    }

    for client in &clients {
        for _ in 0..3 {
            assert_eq!(client.refresh(600).await, 0);
        }
        assert_eq!(client.refresh(0).await, 0);
    }
    server.metric_becomes("throughway_allocations", 0).await;
}
