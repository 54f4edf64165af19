//! TURN over one TCP or TLS connection: cuts it into messages for the shard, and writes what the shard has for it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio::time::timeout_at;

use self::frames::Frames;
use super::command;
use super::command::StreamId;
use super::forwarder::is_long_enough;
use super::outbox::Outbox;
use super::shard::Stopped;
use super::shard::StreamSender;
use crate::address::FiveTuple;
use crate::address::Transport;
use crate::clock::Clock;
use crate::metrics::DropReason;
use crate::metrics::Metrics;
use crate::net::demux::Opened;
use crate::places::Place;
use crate::places::Places;
use crate::places::Refused;
use crate::wire::Class;
use crate::wire::Kind;
use crate::wire::Stun;
use crate::wire::method;

pub mod frames;

/// What happens on a stream, for the shard; in order on each.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// It begins.
    Opened {
        id: StreamId,
        five_tuple: FiveTuple,
        /// Where what goes to the client is left.
        outbox: Arc<Outbox>,
    },
    /// Whole messages from the client, one behind the other, which the control plane has not been asked: at most
    /// [`TOGETHER`].
    Frames { id: StreamId, messages: Vec<u8> },
    /// Told when the shard has dealt with what came before.
    Sync(oneshot::Sender<()>),
    /// It is over.
    Closed { id: StreamId },
}

/// Serves TURN on streams; each belongs to one shard for life.
#[derive(Debug)]
pub struct Streams {
    shards: Vec<Home>,
    places: Arc<Places>,
    metrics: Arc<Metrics>,
    clock: Clock,
    next: AtomicU64,
}

/// Where streams belong: a shard and its control plane.
#[derive(Clone, Debug)]
pub struct Home {
    /// The shard.
    pub shard: StreamSender,
    /// What streams ask, and that they are over: in order on each. Nobody asks twice by a stream, so that whoever finds it
    /// full waits.
    pub control: mpsc::Sender<command::Event>,
}

/// Who asks on a stream, and of whom.
#[derive(Clone, Copy)]
struct Asking<'a> {
    home: &'a Home,
    id: StreamId,
    five_tuple: FiveTuple,
    /// The address of this host that it came to.
    reached: IpAddr,
}

/// How long a client without an allocation may say nothing whole.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of one message that are held for a client without an allocation: no request is that long, and there may be as many
/// such clients as places.
const LONGEST_UNALLOCATED: usize = 4096;
/// Messages that are handed to the shard together, at most.
const TOGETHER: usize = 16;
/// Bytes of them that are enough: no more than one message goes beyond.
const ENOUGH: usize = 16 << 10;
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

impl Streams {
    /// Streams, each in one of `places`, that are handed to `shards` in turn.
    pub fn new(shards: Vec<Home>, places: Arc<Places>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { shards, places, metrics, clock, next: AtomicU64::new(0) }
    }

    /// The places that they have.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Takes a place for a connection from `ip`.
    ///
    /// # Errors
    ///
    /// [`Refused`], when its source, or everybody, has too many.
    pub fn enter(&self, ip: IpAddr) -> Result<Place, Refused> {
        self.places.enter(ip)
    }

    /// Serves a connection to its end; `place` is given back when its allocation is sure to go.
    pub async fn serve(&self, opened: Opened, place: Place) {
        let id = StreamId(self.next.fetch_add(1, Ordering::Relaxed));
        let number = usize::try_from(id.0).unwrap_or_default().checked_rem(self.shards.len());
        let Some(home) = number.and_then(|number| self.shards.get(number)) else { return };
        let transport = if opened.tls { Transport::Tls } else { Transport::Tcp };
        let five_tuple = FiveTuple::new(transport, opened.remote, opened.local);
        let outbox = Arc::new(Outbox::new(Arc::clone(&self.metrics)));
        let (mut reader, mut writer) = tokio::io::split(opened.stream);
        let event = StreamEvent::Opened { id, five_tuple, outbox: Arc::clone(&outbox) };
        if home.shard.send(event).await.is_err() {
            return;
        }
        let asking = Asking { home, id, five_tuple, reached: opened.reached };
        let why = tokio::select! {
            why = self.read(&asking, &outbox, &mut reader) => why,
            why = self.write(transport, &outbox, &mut writer) => why,
            () = outbox.cut() => End::Cut,
        };
        tracing::debug!(?why, "a TURN stream is over");
        // Behind everything that it has asked for; when nobody is there to hear it, nothing is left to be ended.
        let _ = home.tell_control(command::Event::StreamClosed { five_tuple, stream: id }).await;
        let _ = home.shard.send(StreamEvent::Closed { id }).await;
        drop(place);
        let _ = timeout(GOODBYE, writer.shutdown()).await;
    }

    async fn read(&self, asking: &Asking<'_>, outbox: &Outbox, reader: &mut (impl AsyncRead + Unpin)) -> End {
        let mut frames = Frames::default();
        let mut patience = self.clock.now().monotonic + IDLE;
        loop {
            match asking.take(&mut frames).await {
                Ok(true) => patience = self.clock.now().monotonic + IDLE,
                Ok(false) => {}
                Err(end) => {
                    if matches!(end, End::NotTurn) {
                        self.metrics.dropped(DropReason::NotTurn);
                    }
                    return end;
                }
            }
            if frames.waiting() > LONGEST_UNALLOCATED && !outbox.is_allocated() {
                self.metrics.dropped(DropReason::TooLarge);
                return End::TooLarge;
            }
            match timeout_at(patience, reader.read_buf(frames.space())).await {
                Ok(Ok(0)) => return End::ByClient,
                Ok(Ok(_)) => (),
                Ok(Err(error)) => return End::Failed(error),
                Err(_) if outbox.is_allocated() => patience = self.clock.now().monotonic + IDLE,
                Err(_) => return End::Idle,
            }
        }
    }

    async fn write(&self, transport: Transport, outbox: &Outbox, writer: &mut (impl AsyncWrite + Unpin)) -> End {
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            outbox.take(&mut buffer, self.clock.now().monotonic);
            if buffer.is_empty() {
                outbox.filled().await;
                continue;
            }
            let written = async {
                let mut rest = &buffer[..];
                while !rest.is_empty() {
                    let piece;
                    (piece, rest) = rest.split_at(piece_of(rest, transport));
                    writer.write_all(piece).await?;
                }
                writer.flush().await
            };
            if let Err(error) = written.await {
                return End::Failed(error);
            }
        }
    }
}

impl Asking<'_> {
    /// Takes every whole message that has been read; whether there was one.
    async fn take(&self, frames: &mut Frames) -> Result<bool, End> {
        let (mut gathered, mut any) = (Gathered::default(), false);
        let end = loop {
            match frames.next_message() {
                Ok(Some(message)) if is_request(message) => self.ask(message, &mut gathered).await?,
                Ok(Some(message)) => gathered.add(message),
                Ok(None) => break Ok(any),
                Err(_) => break Err(End::NotTurn),
            }
            any = true;
            if gathered.is_full() {
                self.hand_over(&mut gathered).await?;
            }
        };
        self.hand_over(&mut gathered).await?;
        end
    }

    /// Hands a message to the control plane, behind what was gathered for the shard.
    async fn ask(&self, message: &[u8], gathered: &mut Gathered) -> Result<(), Stopped> {
        let Self { home, id, five_tuple, reached } = *self;
        let request =
            command::Request { five_tuple, reached, via: command::Via::Stream(id), message: message.to_vec() };
        self.hand_over(gathered).await?;
        home.tell_control(command::Event::Request(request)).await
    }

    /// Hands what was gathered to the shard.
    async fn hand_over(&self, gathered: &mut Gathered) -> Result<(), Stopped> {
        let Gathered { messages, count } = std::mem::take(gathered);
        if count == 0 {
            return Ok(());
        }
        self.home.shard.send(StreamEvent::Frames { id: self.id, messages }).await
    }
}

/// Messages for the shard that came together.
#[derive(Default)]
struct Gathered {
    messages: Vec<u8>,
    count: usize,
}

impl Gathered {
    fn add(&mut self, message: &[u8]) {
        self.messages.extend_from_slice(message);
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count >= TOGETHER || self.messages.len() >= ENOUGH
    }
}

/// Whether a message is a request for the control plane.
fn is_request(message: &[u8]) -> bool {
    let asks =
        |stun: &Stun<'_>| stun.class() == Class::Request && stun.method() != method::BINDING && is_long_enough(stun);
    Kind::of(message) == Kind::Stun && Stun::parse(message).is_ok_and(|stun| asks(&stun))
}

impl Home {
    /// Tells the control plane, behind all that the shard was told: what comes of it overtakes neither the stream's
    /// beginning nor its data.
    async fn tell_control(&self, event: command::Event) -> Result<(), Stopped> {
        let (done, told) = oneshot::channel();
        self.shard.send(StreamEvent::Sync(done)).await?;
        told.await.map_err(|_| Stopped)?;
        self.control.send(event).await.map_err(|_| Stopped)
    }
}

/// How much of what waits goes into one write: all of it in clear; inside TLS a message, for there a write is a record,
/// and coturn's client takes a record for a message.
fn piece_of(waiting: &[u8], transport: Transport) -> usize {
    let message = match transport {
        Transport::Udp | Transport::Tcp => None,
        Transport::Tls => frames::length(waiting).ok().flatten(),
    };
    message.unwrap_or(waiting.len()).min(waiting.len())
}

impl From<Stopped> for End {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

/// Why a stream is over.
#[derive(Debug)]
#[expect(dead_code, reason = "read by people, in the log")]
enum End {
    ByClient,
    /// It sent what is neither STUN nor ChannelData.
    NotTurn,
    /// It had no allocation, and sent more than any request is long.
    TooLarge,
    /// It said nothing and had no allocation.
    Idle,
    /// It asked and didn't read.
    Cut,
    Failed(io::Error),
    /// The shard did.
    Stopped,
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::address::RelayedAddr;
    use crate::address::Sources;
    use crate::net::demux::Protocol;
    use crate::net::udp::Socket;
    use crate::places;
    use crate::relay::command::AllocationId;
    use crate::relay::shard;
    use crate::relay::shard::Command;
    use crate::relay::shard::Shard;

    const BINDING: &[u8] = b"\x00\x01\x00\x00\x21\x12\xA4\x42transaction!";

    /// A stream that is served, and what hears of its end.
    struct Rig {
        client: DuplexStream,
        serving: JoinHandle<()>,
        control: mpsc::Receiver<command::Event>,
        shard: Shard,
    }

    fn start() -> Rig {
        let metrics = Arc::new(Metrics::default());
        let (settings, _) = shard::Settings::plain(Vec::new(), &metrics);
        let clock = settings.clock;
        let (asks, control) = mpsc::channel(1);
        let shard = shard::spawn(vec![settings]).unwrap().remove(0);
        let places = Places::new(places::Settings { total: 1, per_source: 1, sources: Sources::new(Vec::new()) });
        let home = Home { shard: shard.streams(), control: asks };
        let streams = Streams::new(vec![home], places, metrics, clock);
        let (client, stream) = tokio::io::duplex(1024);
        let remote = "192.0.2.1:4000".parse().unwrap();
        let local = "192.0.2.9:3478".parse().unwrap();
        let (protocol, stream) = (Protocol::Turn, Box::new(stream));
        let opened = Opened { protocol, tls: false, remote, local, reached: local.ip(), stream };
        let place = streams.enter(remote.ip()).unwrap();
        let serving = tokio::spawn(async move { streams.serve(opened, place).await });
        Rig { client, serving, control, shard }
    }

    #[tokio::test]
    async fn who_says_nothing_whole_and_has_no_allocation_is_closed_after_a_minute() {
        let mut rig = start();
        rig.client.write_all(BINDING).await.unwrap();
        rig.client.read_exact(&mut [0; 32]).await.unwrap();
        tokio::time::pause();
        let began = Clock::system().now().monotonic;

        for byte in BINDING.iter().take(10) {
            tokio::time::sleep(IDLE / 8).await;
            // It may have ended already.
            let _ = rig.client.write_all(&[*byte]).await;
        }
        rig.serving.await.unwrap();

        let took = Clock::system().now().monotonic - began;
        assert!((IDLE..IDLE * 2).contains(&took), "{took:?}");
        assert!(matches!(rig.control.recv().await, Some(command::Event::StreamClosed { .. })));
    }

    #[tokio::test]
    async fn before_it_has_an_allocation_nobody_makes_us_hold_a_long_message() {
        let mut rig = start();
        let mut message = BINDING.to_vec();
        message[2..4].copy_from_slice(&0xFFFC_u16.to_be_bytes());
        message.resize(60_000, 0);

        // It may be closed before all of it is written.
        let _ = rig.client.write_all(&message).await;

        timeout(IDLE / 2, rig.serving).await.expect("it is not waited for").unwrap();
        assert!(matches!(rig.control.recv().await, Some(command::Event::StreamClosed { .. })));
    }

    #[tokio::test]
    async fn a_silent_stream_is_kept_as_long_as_one_family_of_its_allocation_lives() {
        let mut rig = start();
        rig.client.write_all(BINDING).await.unwrap();
        rig.client.read_exact(&mut [0; 32]).await.unwrap();
        let (id, commands) = (StreamId(0), rig.shard.commands());
        let via = command::Via::Stream(id);
        let (remote, local) = ("192.0.2.1:4000".parse().unwrap(), "192.0.2.9:3478".parse().unwrap());
        let five_tuple = FiveTuple::new(Transport::Tcp, remote, local);
        let deadline = Clock::system().now().monotonic + IDLE * 60;
        let [v4, v6] = [AllocationId(1), AllocationId(2)];

        for (id, ip) in [(v4, "127.0.0.1:0"), (v6, "[::1]:0")] {
            let socket = Socket::bind(ip.parse().unwrap()).unwrap();
            let advertised = socket.local_addr();
            let relayed = RelayedAddr(advertised);
            let open =
                Command::Open { id, five_tuple, via, relayed, advertised, socket, deadline, traffic: Arc::default() };
            commands.send(open).await.unwrap();
        }
        commands.send(Command::Close { id: v6 }).await.unwrap();
        commands.send(Command::Answer { five_tuple, via, message: b"done".to_vec() }).await.unwrap();
        rig.client.read_exact(&mut [0; 4]).await.unwrap();
        tokio::time::pause();
        tokio::time::sleep(IDLE * 3).await;

        assert!(!rig.serving.is_finished());
        commands.send(Command::Close { id: v4 }).await.unwrap();
        rig.serving.await.unwrap();
    }

    #[tokio::test]
    async fn who_asks_and_never_reads_is_cut() {
        let mut rig = start();

        while rig.client.write_all(BINDING).await.is_ok() {}

        rig.serving.await.unwrap();
        assert!(matches!(rig.control.recv().await, Some(command::Event::StreamClosed { .. })));
    }

    #[tokio::test]
    async fn all_that_was_asked_is_heard_and_the_end_behind_it_however_full_the_queue_is() {
        let mut rig = start();
        let mut allocate = BINDING.to_vec();
        allocate[1] = 3;
        allocate[3] = 8;
        allocate.extend([0, 0x19, 0, 4, 17, 0, 0, 0]);

        let asking = tokio::spawn(async move {
            for _ in 0..200 {
                rig.client.write_all(&allocate).await.unwrap();
            }
        });
        let mut heard = Vec::new();
        while let Some(event) = rig.control.recv().await {
            let over = matches!(event, command::Event::StreamClosed { .. });
            heard.push(event);
            if over {
                break;
            }
        }
        asking.await.unwrap();
        rig.serving.await.unwrap();

        let Some(command::Event::StreamClosed { five_tuple, stream }) = heard.pop() else { panic!("no end") };
        assert_eq!(heard.len(), 200);
        for event in heard {
            let command::Event::Request(asked) = event else { panic!("not a request") };
            assert_eq!((asked.five_tuple, asked.via), (five_tuple, command::Via::Stream(stream)));
        }
    }
}
