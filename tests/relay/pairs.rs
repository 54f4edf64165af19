//! What an observer of a real media thread is told.

use throughway::net::udp::Offload;
use throughway::relay::pairs::Pair;
use throughway::relay::pairs::PairEvent;
use tokio::time::Instant;

use super::*;
use crate::support::asker::Asker;
use crate::support::planes::Planes;

/// Passes on what it is told.
#[derive(Debug)]
struct Recorder(mpsc::UnboundedSender<PairEvent>);

impl Observer for Recorder {
    fn handle_pair(&mut self, event: PairEvent) {
        // The test may be over.
        let _ = self.0.send(event);
    }
}

fn observer() -> (Option<Box<dyn Observer>>, mpsc::UnboundedReceiver<PairEvent>) {
    let (told, heard) = mpsc::unbounded_channel();
    (Some(Box::new(Recorder(told))), heard)
}

/// All that was told so far.
fn all(heard: &mut mpsc::UnboundedReceiver<PairEvent>) -> Vec<PairEvent> {
    std::iter::from_fn(|| heard.try_recv().ok()).collect()
}

/// The deadline in an event, which must have been given from `began` until now for `life`.
fn deadline(event: &PairEvent, began: Instant, life: Duration) -> Instant {
    let (PairEvent::Up { deadline, .. } | PairEvent::Extended { deadline, .. }) = *event else {
        panic!("{event:?} has no deadline")
    };
    assert!((began + life..=Clock::system().now().monotonic + life).contains(&deadline), "{event:?}");
    deadline
}

#[tokio::test]
async fn an_observer_sees_a_whole_call() {
    const PERMISSION: Duration = Duration::from_secs(300);
    let (observer, mut heard) = observer();
    let planes = Planes::start(observer);
    let asker = Asker::new(planes.udp, "alice", "wonderland").await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let peer_addr = peer.local_addr().unwrap();
    let began = Clock::system().now().monotonic;

    let relayed = asker.allocate().await;
    assert_eq!(asker.permit(peer_addr).await, 0);
    assert_eq!(all(&mut heard), [], "a permission alone makes no pair");
    assert_eq!(asker.bind(0x4000, peer_addr).await, 0);
    let mut told = all(&mut heard);
    asker.send(&channel_data(0x4000, b"out")).await;
    let mut buffer = [0; 100];
    let received = timeout(PATIENCE, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!((&buffer[..received.0], received.1), (&b"out"[..], relayed));
    peer.send_to(b"back", relayed).await.unwrap();
    assert_eq!(asker.receive().await, channel_data(0x4000, b"back"));
    assert_eq!(all(&mut heard), [], "data changes nothing");
    assert_eq!(asker.refresh(3600).await, 0);
    assert_eq!(all(&mut heard), [], "the permission ends before the allocation, as it did");
    let refreshed = Clock::system().now().monotonic;
    assert_eq!(asker.bind(0x4000, peer_addr).await, 0);
    assert_eq!(asker.refresh(0).await, 0);
    told.extend(all(&mut heard));

    let client = FiveTuple::new(Transport::Udp, asker.line.local_addr(), planes.udp);
    let pair = Pair { client, channel: 0x4000, relayed: RelayedAddr(relayed), peer: PeerAddr::new(peer_addr) };
    let [up, extended, _] = &told[..] else { panic!("{told:?}") };
    let expected = [
        PairEvent::Up { pair, deadline: deadline(up, began, PERMISSION) },
        PairEvent::Extended { pair, deadline: deadline(extended, refreshed, PERMISSION) },
        PairEvent::Down { pair },
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn an_observer_hears_of_an_expiry_when_nothing_else_happens_and_of_the_return() {
    let (observer, mut heard) = observer();
    let rig = Rig::made_of("127.0.0.1", loopback_allowed(), Offload::ALL, observer);
    let (client, peer) = (Client::new(&rig).await, Client::new(&rig).await);
    let relayed = rig.open(1, &client, None).await;
    rig.bind(1, 0x4000, peer.addr()).await;
    rig.settle(&client).await;
    assert_eq!(all(&mut heard), []);

    rig.permit(1, peer.addr(), Duration::from_secs(1)).await;
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(timeout(PATIENCE, heard.recv()).await.expect("it is told").unwrap());
    }
    let expired = rig.clock.now().monotonic;
    rig.permit(1, peer.addr(), LIFE / 2).await;
    rig.command(Command::Close { id: AllocationId(1) }).await;
    rig.settle(&client).await;
    told.extend(all(&mut heard));

    let client = client.five_tuple;
    let pair = Pair { client, channel: 0x4000, relayed: RelayedAddr(relayed), peer: PeerAddr::new(peer.addr()) };
    let [PairEvent::Up { deadline: first, .. }, _, PairEvent::Up { deadline: second, .. }, _] = told[..] else {
        panic!("{told:?}")
    };
    let (up, down) = (|deadline| PairEvent::Up { pair, deadline }, PairEvent::Down { pair });
    assert_eq!(told, [up(first), down, up(second), down]);
    assert!(first <= expired && expired + LIFE / 2 <= second);
}
