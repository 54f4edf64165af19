//! Who sends too much takes nothing from others: media goes on without loss beside a client or peer at full blast, beside a
//! flood of requests, and without any control plane.
//!
//! Time paces what is sent, and nothing else: a datagram is lost when it hasn't come although nothing comes any more.

use std::net::UdpSocket;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use socket2::SockRef;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::*;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::ALLOCATE;
use crate::support::asker::Asker;
use crate::support::asker::UDP;
use crate::support::asker::message;
use crate::support::line::Line;
use crate::support::planes::Planes;

/// Two of these tests beside each other would measure each other.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Bytes of kernel buffer asked for at the tests' own sockets: what they lose would look like the server's loss.
const BUFFERS: usize = 4 << 20;
/// How long nothing comes before what hasn't come counts as lost.
const QUIET: Duration = Duration::from_secs(1);
/// Clients in a call.
const CALLERS: usize = 20;
/// Datagrams that each of them sends a second.
const EACH: u32 = 50;

fn now() -> Instant {
    Clock::system().now().monotonic
}

fn socket(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    SockRef::from(&socket).set_recv_buffer_size(BUFFERS).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Tells how many datagrams are due: so many a second, evenly. What a late thread has missed by more than a few is left out,
/// for nobody offers it in one burst.
struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    const MOST: u32 = 64;

    fn new(per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second, next: now() }
    }

    /// Waits until one is due at least.
    fn due(&mut self) -> u32 {
        let now = now();
        if self.next > now {
            thread::sleep(self.next - now);
            return self.due();
        }
        self.next = self.next.max(now - self.interval * Self::MOST);
        let due = (now - self.next).as_nanos() / self.interval.as_nanos() + 1;
        let due = u32::try_from(due).unwrap();
        self.next += self.interval * due;
        due
    }
}

/// A client with an allocation, and a peer that sends back what it gets, by channel 0x4000. Both are driven by the test.
struct Caller {
    _asker: Asker,
    client: UdpSocket,
    peer: UdpSocket,
    server: SocketAddr,
    relayed: SocketAddr,
    sent: u64,
    /// What has come back to the client.
    back: u64,
}

impl Caller {
    async fn new(server: SocketAddr) -> Self {
        let (client, peer) = (socket("127.0.0.1"), socket("127.0.0.1"));
        let line = tokio::net::UdpSocket::from_std(client.try_clone().unwrap()).unwrap();
        let asker = Asker::over(Line::Datagrams(line, server), "alice", "wonderland").await;
        let relayed = asker.allocate().await;
        assert_eq!(asker.bind(0x4000, peer.local_addr().unwrap()).await, 0);
        Self { _asker: asker, client, peer, server, relayed, sent: 0, back: 0 }
    }

    async fn several(server: SocketAddr, count: usize) -> Vec<Self> {
        let mut callers = Vec::new();
        for _ in 0..count {
            callers.push(Self::new(server).await);
        }
        callers
    }

    fn send(&mut self) {
        self.client.send_to(&channel_data(0x4000, &[7; 160]), self.server).unwrap();
        self.sent += 1;
    }

    /// Lets the peer answer and the client hear; whether anything came.
    fn turn(&mut self) -> bool {
        let (mut buffer, mut came) = ([0; 2048], false);
        while let Ok((length, relayed)) = self.peer.recv_from(&mut buffer) {
            assert_eq!(relayed, self.relayed);
            self.peer.send_to(&buffer[..length], relayed).unwrap();
            came = true;
        }
        while let Ok(length) = self.client.recv(&mut buffer) {
            assert_eq!(buffer[..length], channel_data(0x4000, &[7; 160]));
            self.back += 1;
            came = true;
        }
        came
    }
}

/// Lets all of them talk, one after the other, as long as `go_on`.
fn talk(callers: &mut [Caller], go_on: impl Fn() -> bool) {
    let mut pace = Pace::new(EACH * u32::try_from(callers.len()).unwrap());
    let mut turn = 0;
    while go_on() {
        for _ in 0..pace.due() {
            callers[turn].send();
            turn = (turn + 1) % callers.len();
            callers[turn].turn();
        }
    }
}

/// Hears what is still under way; how many datagrams were sent, and lost.
fn settle(callers: &mut [Caller]) -> (u64, u64) {
    let mut heard = now();
    while callers.iter().any(|it| it.back < it.sent) && now() < heard + QUIET {
        if callers.iter_mut().fold(false, |came, it| it.turn() | came) {
            heard = now();
        }
        thread::yield_now();
    }
    let (sent, back) = callers.iter().fold((0, 0), |(sent, back), it| (sent + it.sent, back + it.back));
    (sent, sent - back)
}

/// Does something over and over on a thread of its own, until dropped.
struct Doing {
    on: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Doing {
    fn start(mut deed: impl FnMut() + Send + 'static) -> Self {
        let on = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&on);
        let thread = thread::spawn(move || {
            while flag.load(Ordering::Relaxed) {
                deed();
            }
        });
        Self { on, thread: Some(thread) }
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        self.on.store(false, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Callers talk for two seconds beside one whose client or peer sends as fast as a thread can: nothing of theirs is lost.
///
/// That one comes by a listener of its own. At theirs the kernel would drop what comes while the media thread waits for its
/// core, whoever has sent it: at full blast its buffer, of 4 MiB if the system allows so much, lasts for milliseconds.
async fn beside_a_blaster(from_client: bool) {
    const BANDWIDTH: &str = "throughway_dropped_total{reason=\"bandwidth\"}";
    let _alone = ALONE.lock().await;
    let two = "listen_udp = [\"127.0.0.1:0\", \"127.0.0.1:0\"]";
    let server = Server::start(&PEERS_ON_LOOPBACK.replace("listen_udp = [\"127.0.0.1:0\"]", two));
    let [listener, other] = server.all_udp().try_into().unwrap();
    let mut callers = Caller::several(listener, CALLERS).await;
    let blaster = Caller::new(other).await;
    let (from, to) = if from_client { (&blaster.client, blaster.server) } else { (&blaster.peer, blaster.relayed) };
    let (from, datagram) = (from.try_clone().unwrap(), channel_data(0x4000, &[7; 1196]));

    let blast = Doing::start(move || _ = from.send_to(&datagram, to));
    let end = now() + Duration::from_secs(2);
    talk(&mut callers, || now() < end);
    let (sent, lost) = settle(&mut callers);
    drop(blast);

    assert_eq!(lost, 0, "of {sent}");
    assert!(server.metric(BANDWIDTH).await > 0, "more than one allocation may send");
}

#[tokio::test]
async fn a_client_at_full_blast_costs_the_others_no_datagram() {
    beside_a_blaster(true).await;
}

#[tokio::test]
async fn a_peer_at_full_blast_costs_the_others_no_datagram() {
    beside_a_blaster(false).await;
}

#[tokio::test]
async fn fifty_thousand_allocate_requests_a_second_of_strangers_cost_media_no_datagram() {
    const A_SECOND: u32 = 50_000;
    const ALL: u64 = 3 * A_SECOND as u64;
    let _alone = ALONE.lock().await;
    let server = Server::start(&format!("{PEERS_ON_LOOPBACK}[limits]\nexempt = [\"127.0.0.1\"]\n"));
    let mut callers = Caller::several(server.udp(), CALLERS).await;
    let strangers: Vec<_> = (0..200).map(|n| socket(&format!("127.1.{n}.1"))).collect();
    let (to, request) = (server.udp(), message(ALLOCATE, &[UDP]).raw);
    let sent = Arc::new(AtomicU64::new(0));
    let (mut pace, mut stranger, count) = (Pace::new(A_SECOND), strangers.iter().cycle(), Arc::clone(&sent));

    thread::scope(|scope| {
        scope.spawn(|| {
            while count.load(Ordering::Relaxed) < ALL {
                for _ in 0..pace.due() {
                    stranger.next().unwrap().send_to(&request, to).unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        talk(&mut callers, || sent.load(Ordering::Relaxed) < ALL);
    });
    let (talked, lost) = settle(&mut callers);

    assert_eq!(lost, 0, "of {talked}");
    let mut read = server.metric("throughway_turn_requests_total").await;
    for reason in ["rate-limited", "queue-full"] {
        read += server.drops(reason).await;
    }
    assert!(read > ALL / 2, "only {read} of {ALL} requests were read");
}

#[tokio::test]
async fn without_its_control_task_the_media_thread_relays_and_answers_without_loss() {
    let _alone = ALONE.lock().await;
    let planes = Planes::start(None);
    let mut callers = Caller::several(planes.udp, 8).await;
    let asking = socket("127.0.0.1");

    planes.halt_control();
    for _ in 0..200 {
        asking.send_to(&message(ALLOCATE, &[UDP]).raw, planes.udp).unwrap();
    }
    let saturation = saturation(&mut callers);
    let offered = saturation / 2;
    let mut pace = Pace::new(offered);
    let (mut turn, mut asked, mut answered) = (0, 0, 0);
    let end = now() + Duration::from_secs(10);
    while now() < end {
        for _ in 0..pace.due() {
            callers[turn % 8].send();
            callers[turn % 8].turn();
            turn += 1;
            if turn % 100 == 0 {
                asking.send_to(&binding(&[]), planes.udp).unwrap();
                asked += 1;
            }
        }
        answered += heard(&asking);
    }
    let (sent, lost) = settle(&mut callers);
    let patience = now() + QUIET;
    while answered < asked && now() < patience {
        answered += heard(&asking);
    }

    assert_eq!(
        (lost, asked - answered),
        (0, 0),
        "of {sent} and {asked}, at half of {saturation} there and back a second"
    );
    assert!(planes.metrics.drops(DropReason::QueueFull) > 0, "nobody reads what is asked");
}

/// How many datagrams wait at a socket; they are gone then.
fn heard(socket: &UdpSocket) -> usize {
    std::iter::from_fn(|| socket.recv(&mut [0; 100]).ok()).count()
}

/// How many datagrams a second go to the peers and back at most: half a second with some of each always under way.
fn saturation(callers: &mut [Caller]) -> u32 {
    const UNDER_WAY: u64 = 16;
    let began = now();
    let end = began + Duration::from_millis(500);
    while now() < end {
        for caller in &mut *callers {
            for _ in 0..(caller.back + UNDER_WAY).saturating_sub(caller.sent) {
                caller.send();
            }
            caller.turn();
        }
    }
    let (sent, lost) = settle(callers);
    assert_eq!(lost, 0, "of {sent}");
    u32::try_from(sent * 1_000_000 / u64::try_from((now() - began).as_micros()).unwrap()).unwrap()
}
