//! A media thread at full blast.

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
