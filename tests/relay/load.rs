//! A media thread at full blast, and in bursts of many flows.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::*;

/// Sends junk to `to` as fast as a thread can, until dropped.
struct Flood {
    on: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(to: SocketAddr) -> Self {
        let on = Arc::new(AtomicBool::new(true));
        let socket = std::net::UdpSocket::bind("127.0.0.3:0").unwrap();
        let flag = on.clone();
        let thread = std::thread::spawn(move || {
            while flag.load(Ordering::Relaxed) {
                let _ = socket.send_to(&[0xFF; 1_200], to);
            }
        });
        Self { on, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.on.store(false, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[tokio::test]
async fn one_socket_at_full_blast_does_not_starve_the_others() {
    let rig = Rig::start();
    let (client, peer) = (Client::new(&rig).await, Client::new(&rig).await);
    let relayed = rig.open(1, &client, None).await;
    rig.permit(1, peer.addr(), LIFE).await;
    rig.settle(&client).await;
    let flood = Flood::start(rig.listeners[1]);

    for round in 0..200_u8 {
        peer.send_to(&[round], relayed).await;
        assert_eq!(read_data_indication(&client.receive().await).1, [round]);
        client.send(&send_indication(peer.addr(), &[round])).await;
        assert_eq!(peer.receive().await, [round]);
    }

    drop(flood);
    assert!(rig.drops(DropReason::NotTurn) > 0);
}

#[tokio::test]
async fn a_shard_stops_at_once_under_load_and_closes_everything() {
    let mut rig = Rig::start();
    let client = Client::new(&rig).await;
    let relayed = rig.open(1, &client, None).await;
    rig.settle(&client).await;
    let commands = rig.shard.commands();
    let flood = Flood::start(rig.listeners[0]);

    let begin = rig.clock.now().monotonic;
    rig.shard.stop();
    let took = rig.clock.now().monotonic - begin;

    drop(flood);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(rig.events.recv().await.is_none());
    assert!(commands.send(Command::Close { id: AllocationId(1) }).await.is_err());
    let free: HashSet<_> = rig.listeners.into_iter().chain([relayed]).map(|it| udp::Socket::bind(it).is_ok()).collect();
    assert_eq!(free, HashSet::from([true]));
}

#[tokio::test]
async fn bursts_of_mixed_flows_arrive_in_order_with_the_kernels_help_and_without() {
    for offload in [Offload::ALL, Offload::NONE] {
        let rig = Rig::made_of("127.0.0.1", loopback_allowed(), offload, None);
        let clients = [Client::new(&rig).await, Client::new(&rig).await];
        let peer = Client::new(&rig).await;
        let mut relayed = Vec::new();
        for (id, client) in (1..).zip(&clients) {
            relayed.push(rig.open(id, client, None).await);
            rig.permit(id, peer.addr(), LIFE).await;
            rig.bind(id, 0x4000, peer.addr()).await;
        }
        rig.settle(&clients[0]).await;

        for number in 0..30_u8 {
            for client in &clients {
                client.send(&channel_data(0x4000, &[number; 200])).await;
            }
        }
        let mut heard = [Vec::new(), Vec::new()];
        for _ in 0..60 {
            let (data, from) = peer.receive_from().await;
            assert_eq!(data.len(), 200);
            let which = relayed.iter().position(|relayed| *relayed == from).unwrap();
            heard[which].push(data[0]);
            peer.send_to(&data, from).await;
        }

        assert_eq!(heard, [(0..30).collect::<Vec<_>>(), (0..30).collect()], "{offload:?}");
        for client in &clients {
            for number in 0..30 {
                assert_eq!(client.receive().await, channel_data(0x4000, &[number; 200]), "{offload:?}");
            }
        }
    }
}
