//! One media thread: an edge-triggered poll loop over its listeners and relay sockets, steered by commands.
//!
//! It runs no futures and never waits but for sockets, commands and what happens on streams. Each socket gets one batch
//! a round, so that nobody at full blast starves the others; one with more to give stays on a list, and the next poll
//! doesn't wait. The same goes for what comes back about datagrams that a relay socket has sent.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Events;
use mio::Interest;
use mio::Poll;
use mio::Token;
use mio::Waker;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::allowance::Allowance;
use super::command;
use super::command::AllocationId;
use super::command::Event;
use super::command::ListenerId;
use super::command::Via;
use super::forwarder::Forwarder;
use super::forwarder::Watched;
use super::stream::StreamEvent;
use super::table::Client;
use super::table::Opening;
use super::table::Slot;
use super::table::Table;
use crate::address::PeerAddr;
use crate::clock::Clock;
use crate::metrics::DropReason;
use crate::metrics::Metrics;
use crate::net::udp::Batch;
use crate::net::udp::Offload;
use crate::net::udp::Socket;
use crate::policy::Policy;
use crate::rate::PerSource;

/// What a shard is told; its relay sockets are UDP sockets.
pub type Command = command::Command<Socket>;

/// What a shard is made of.
#[derive(Debug)]
pub struct Settings {
    /// The sockets that clients reach it by: [`ListenerId`] counts them in this order.
    pub listeners: Vec<Socket>,
    /// Asked where data may leave to.
    pub policy: Arc<Policy>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// Read once a round, and for each command.
    pub clock: Clock,
    /// How many Binding requests a source gets answered.
    pub bindings: PerSource,
    /// How much is relayed.
    pub allowance: Allowance,
    /// What the kernel is to do for runs of datagrams; what it can't, it must not be asked for.
    pub offload: Offload,
}

/// Starts a shard on a thread of its own. What it doesn't answer itself goes to `events`: when that is full, dropped.
///
/// `events` closes when the shard is over, by [`Shard::stop`] or because its poll failed.
///
/// # Errors
///
/// The system's, for lack of threads or descriptors.
pub fn spawn(settings: Settings, events: mpsc::Sender<Event>) -> io::Result<Shard> {
    let poll = Poll::new()?;
    let mut listeners: Vec<_> = settings.listeners.into_iter().map(Watched::new).collect();
    for (number, listener) in listeners.iter_mut().enumerate() {
        listener.socket.ask_for_buffers(LISTENER_BUFFERS);
        if settings.offload.gro {
            listener.socket.join_received(true)?;
        }
        poll.registry().register(&mut listener.socket, Token(number), Interest::READABLE)?;
    }
    let bell = Arc::new(Bell {
        waker: Waker::new(poll.registry(), BELL)?,
        rung: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
    });
    let (sender, commands) = mpsc::channel(COMMANDS_QUEUED);
    let (streams, happened) = mpsc::channel(EVENTS_QUEUED);
    let table = Table::new(settings.policy);
    let media = Media {
        forwarder: Forwarder::new(
            listeners,
            table,
            settings.metrics,
            events,
            settings.bindings,
            settings.allowance,
            settings.offload.gso,
        ),
        poll,
        ready: VecDeque::new(),
        commands,
        streams: happened,
        bell: bell.clone(),
        clock: settings.clock,
        gro: settings.offload.gro,
    };
    let thread = thread::Builder::new().name("media".to_owned()).spawn(move || media.run())?;
    let streams = StreamSender { queue: streams, bell: bell.clone() };
    Ok(Shard { commands: CommandSender { queue: sender, bell }, streams, thread: Some(thread) })
}

/// A running shard. Dropping it stops it.
#[derive(Debug)]
pub struct Shard {
    commands: CommandSender,
    streams: StreamSender,
    thread: Option<JoinHandle<()>>,
}

impl Shard {
    /// Where its commands go in.
    pub fn commands(&self) -> CommandSender {
        self.commands.clone()
    }

    /// Where what happens on streams goes in.
    pub fn streams(&self) -> StreamSender {
        self.streams.clone()
    }

    /// Ends it after the round it is in, its sockets with it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.commands.bell.stopped.store(true, Ordering::Release);
        self.commands.bell.ring();
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, which has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// The shard is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the media thread has ended")]
pub struct Stopped;

/// The way of commands to one shard: bounded, in order.
#[derive(Clone, Debug)]
pub struct CommandSender {
    queue: mpsc::Sender<Command>,
    bell: Arc<Bell>,
}

impl CommandSender {
    /// Sends one command, once there is room for it.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.queue.send(command).await.map_err(|_| Stopped)?;
        self.bell.ring();
        Ok(())
    }
}

/// The way of what happens on streams to one shard: bounded, in order on each stream, and fair between those that wait.
#[derive(Clone, Debug)]
pub struct StreamSender {
    queue: mpsc::Sender<StreamEvent>,
    bell: Arc<Bell>,
}

impl StreamSender {
    /// Sends one, once there is room for it: a client that sends faster than the shard forwards waits.
    pub(super) async fn send(&self, event: StreamEvent) -> Result<(), Stopped> {
        self.queue.send(event).await.map_err(|_| Stopped)?;
        self.bell.ring();
        Ok(())
    }
}

/// Wakes the media thread.
#[derive(Debug)]
struct Bell {
    waker: Waker,
    /// Rung since commands and streams were last looked at: no need to ring again.
    rung: AtomicBool,
    stopped: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // An eventfd is only ever full of wake-ups.
            let _ = self.waker.wake();
        }
    }
}

/// The thread itself.
struct Media {
    forwarder: Forwarder,
    poll: Poll,
    /// Sockets that may have something to give, each at most once: listeners by number, then relay sockets by slot.
    ready: VecDeque<Token>,
    commands: mpsc::Receiver<Command>,
    streams: mpsc::Receiver<StreamEvent>,
    bell: Arc<Bell>,
    clock: Clock,
    /// Whether relay sockets join what they receive.
    gro: bool,
}

impl Media {
    fn run(mut self) {
        let mut batch = Batch::new();
        let mut events = Events::with_capacity(EVENTS);
        while !self.bell.stopped.load(Ordering::Acquire) {
            let rest = !self.commands.is_empty() || !self.streams.is_empty() || !self.ready.is_empty();
            match self.poll.poll(&mut events, rest.then_some(Duration::ZERO)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "media thread cannot poll");
                    return;
                }
            }
            for event in &events {
                self.queue(event.token(), event.is_error());
            }
            let now = self.clock.now().monotonic;
            for _ in 0..self.ready.len() {
                self.serve_next(&mut batch, now);
            }
            self.forwarder.depart();
            // Swapped, not stored: what was sent before a ring that is taken back here is seen below; what comes later rings.
            self.bell.rung.swap(false, Ordering::AcqRel);
            self.carry_out_commands();
            self.serve_streams(now);
            self.forwarder.depart();
        }
    }

    fn queue(&mut self, token: Token, reported: bool) {
        let Some(watched) = self.watched(token) else { return };
        watched.reported |= reported;
        if !std::mem::replace(&mut watched.queued, true) {
            self.ready.push_back(token);
        }
    }

    /// One batch from the socket whose turn it is, behind what was reported about it.
    fn serve_next(&mut self, batch: &mut Batch, now: Instant) {
        let Some(token) = self.ready.pop_front() else { return };
        let slot = self.slot_of(token);
        let Some(watched) = self.watched(token) else { return };
        watched.queued = false;
        if std::mem::take(&mut watched.reported) {
            self.serve_reports(token, now);
        }
        let Some(watched) = self.watched(token) else { return };
        let more = match batch.receive(&watched.socket) {
            Ok(()) => batch.is_full(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => {
                // Reading the error cleared it, and hides what waits behind it.
                if self.serve_reports(token, now) == 0 {
                    self.forwarder.metrics.dropped(DropReason::SocketError);
                }
                self.queue(token, false);
                return;
            }
        };
        for packet in batch.datagrams() {
            match slot {
                None => self.forwarder.handle_client_packet(ListenerId(token.0), &packet, now),
                Some(slot) => self.forwarder.handle_peer_packet(slot, &packet, now),
            }
        }
        if more {
            self.queue(token, false);
        }
    }

    /// Some of what came back about a relay socket's datagrams; how many. The rest has to wait for its next turn.
    fn serve_reports(&mut self, token: Token, now: Instant) -> usize {
        let Some(slot) = self.slot_of(token) else { return 0 };
        for served in 0..REPORTS_PER_ROUND {
            let report = self.forwarder.table.socket_mut(slot).map(|relay| relay.socket.take_report());
            let Some(Ok(report)) = report else { return served };
            self.forwarder.handle_report(slot, report, now);
        }
        self.queue(token, true);
        REPORTS_PER_ROUND
    }

    fn carry_out_commands(&mut self) {
        for _ in 0..COMMANDS_PER_ROUND {
            let Ok(command) = self.commands.try_recv() else { return };
            self.carry_out(command);
        }
    }

    fn serve_streams(&mut self, now: Instant) {
        for _ in 0..EVENTS_PER_ROUND {
            let Ok(event) = self.streams.try_recv() else { break };
            self.forwarder.handle_stream_event(event, now);
        }
    }

    fn carry_out(&mut self, command: Command) {
        // Not the round's: by the control plane's later one, what stands in the way may have expired.
        let now = self.clock.now().monotonic;
        let table = &mut self.forwarder.table;
        let done = match command {
            Command::Answer { five_tuple, via, message } => {
                self.forwarder.answer(&five_tuple, via, &message);
                Ok(())
            }
            Command::Open { id, five_tuple, via, relayed, advertised, socket, deadline } => {
                let client = Client { five_tuple, via };
                let (advertised, socket) = (PeerAddr::new(advertised), Watched::new(socket));
                let opened = table.open(Opening { id, client, relayed, advertised, socket, deadline });
                match opened {
                    Ok(slot) => self.watch(id, via, slot),
                    Err(_) => self.forwarder.refuse(id),
                }
                opened.map(drop)
            }
            Command::Extend { id, deadline } => {
                table.extend(id, deadline);
                Ok(())
            }
            Command::Permit { id, peer, deadline } => table.permit(id, peer, deadline, now),
            Command::Bind { id, channel, peer, deadline } => table.bind(id, channel, peer, deadline, now),
            Command::Close { id } => {
                self.close(id);
                Ok(())
            }
        };
        if done.is_err() {
            self.forwarder.metrics.dropped(DropReason::Bug);
        }
    }

    fn watch(&mut self, id: AllocationId, via: Via, slot: Slot) {
        self.forwarder.set_allocated(via, true);
        self.forwarder.admit_flows(slot);
        let token = Token(self.forwarder.listeners.len() + slot.0);
        let Some(relay) = self.forwarder.table.socket_mut(slot) else { return };
        let kept = relay.socket.keep_reports();
        let kept = kept.and_then(|()| if self.gro { relay.socket.join_received(true) } else { Ok(()) });
        if kept.and_then(|()| self.poll.registry().register(&mut relay.socket, token, Interest::READABLE)).is_err() {
            self.forwarder.metrics.dropped(DropReason::SocketError);
            self.close(id);
            self.forwarder.refuse(id);
        }
    }

    fn close(&mut self, id: AllocationId) {
        // While its socket is there.
        self.forwarder.depart();
        if let Some(opening) = self.forwarder.table.close(id) {
            let Client { five_tuple, via } = opening.client;
            // Of a dual allocation the other family may live on.
            self.forwarder.set_allocated(via, self.forwarder.table.is_client(&five_tuple));
            let mut relay = opening.socket;
            // Closing it would do as well; what is on the ready list falls away by itself.
            let _ = self.poll.registry().deregister(&mut relay.socket);
        }
    }

    /// The socket of a token; none for the bell's, and for one that is closed by now.
    fn watched(&mut self, token: Token) -> Option<&mut Watched> {
        match self.slot_of(token) {
            None => self.forwarder.listeners.get_mut(token.0),
            Some(slot) => self.forwarder.table.socket_mut(slot),
        }
    }

    /// Whose relay socket a token is for; none for a listener's.
    fn slot_of(&self, token: Token) -> Option<Slot> {
        token.0.checked_sub(self.forwarder.listeners.len()).map(Slot)
    }
}

const BELL: Token = Token(usize::MAX);
/// Bytes of kernel buffers asked for at a listener, each way: many clients share it.
const LISTENER_BUFFERS: usize = 4 << 20;
/// Sockets that one poll reports; the rest come with the next.
const EVENTS: usize = 1024;
/// Commands that wait; more make the control plane wait.
const COMMANDS_QUEUED: usize = 1024;
/// What happened on streams and waits; more makes their clients wait. Each is a message, of 64 KiB at most.
const EVENTS_QUEUED: usize = 256;
/// How much of it is taken between two rounds of media.
const EVENTS_PER_ROUND: usize = 128;
/// Reports taken from one relay socket in its turn.
const REPORTS_PER_ROUND: usize = 32;
/// Commands carried out between two rounds of media.
const COMMANDS_PER_ROUND: usize = 256;
