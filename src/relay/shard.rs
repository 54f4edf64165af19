//! A shard: one media thread, an edge-triggered poll loop over its listeners and relay sockets, steered by commands.
//!
//! It runs no futures and never waits but for sockets, commands, what happens on streams and what other shards send. Each
//! socket gets one batch in its turn, so that nobody at full blast starves the others; one with more to give goes to the end
//! of the list, and the next poll doesn't wait. The same goes for what comes back about datagrams that a relay socket has
//! sent.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
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
use super::directory::Directory;
use super::forwarder::Forwarder;
use super::forwarder::Watched;
use super::neighbours::Neighbours;
use super::pairs::Observer;
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
    /// Told between whom it forwards.
    pub observer: Option<Box<dyn Observer>>,
    /// Where what it doesn't answer itself goes: when that is full, dropped.
    pub events: mpsc::Sender<Event>,
}

/// Starts shards, each on a thread of its own.
///
/// The `events` of one close when it is over, by [`Shard::stop`] or because its poll failed.
///
/// # Errors
///
/// The system's, for lack of threads or descriptors.
pub fn spawn(settings: Vec<Settings>) -> io::Result<Vec<Shard>> {
    Media::of_all(settings)?
        .into_iter()
        .map(|(media, mut shard)| {
            shard.thread = Some(thread::Builder::new().name("media".to_owned()).spawn(move || media.run())?);
            Ok(shard)
        })
        .collect()
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

    /// What tells whether its thread turns.
    pub fn pulse(&self) -> Pulse {
        Pulse(Arc::clone(&self.commands.bell))
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

/// Tells whether a media thread turns.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Bell>);

impl Pulse {
    /// Waits until the thread has ended a round, for which it is woken.
    pub async fn beat(&self) {
        let Self(bell) = self;
        let before = bell.rounds.load(Ordering::Relaxed);
        bell.ring();
        while bell.rounds.load(Ordering::Relaxed) == before {
            tokio::time::sleep(BEAT).await;
        }
    }
}

/// Wakes the media thread.
#[derive(Debug)]
pub(super) struct Bell {
    waker: Waker,
    /// Rung since what waits in queues was last looked at: no need to ring again.
    rung: AtomicBool,
    stopped: AtomicBool,
    /// How many rounds it has done; written by the thread alone.
    rounds: AtomicU64,
}

impl Bell {
    fn new(poll: &Poll) -> io::Result<Arc<Self>> {
        let waker = Waker::new(poll.registry(), BELL)?;
        Ok(Arc::new(Self {
            waker,
            rung: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
        }))
    }

    /// Has it look at what waits in queues.
    pub(super) fn ring(&self) {
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
    /// Whether other shards may have sent more than was taken in a round.
    unread: bool,
    /// Where it is copied to: has room for the longest datagram of any client's, which comes by a stream.
    buffer: Vec<u8>,
    bell: Arc<Bell>,
    clock: Clock,
    /// Whether relay sockets join what they receive.
    gro: bool,
}

impl Media {
    /// Shards that know each other, each with the handle of its thread to be.
    fn of_all(settings: Vec<Settings>) -> io::Result<Vec<(Self, Shard)>> {
        let polls = settings.iter().map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let bells = polls.iter().map(Bell::new).collect::<io::Result<Vec<_>>>()?;
        let neighbours = Neighbours::join(&bells);
        let directory = Arc::new(Directory::new());
        let of = settings.into_iter().zip(polls).zip(bells).zip(neighbours);
        of.map(|(((settings, poll), bell), all)| Self::new(settings, poll, bell, all, Arc::clone(&directory))).collect()
    }

    fn new(
        mut settings: Settings,
        poll: Poll,
        bell: Arc<Bell>,
        neighbours: Neighbours,
        directory: Arc<Directory>,
    ) -> io::Result<(Self, Shard)> {
        let (policy, clock, gro) = (Arc::clone(&settings.policy), settings.clock, settings.offload.gro);
        let mut listeners: Vec<_> = std::mem::take(&mut settings.listeners).into_iter().map(Watched::new).collect();
        for (number, listener) in listeners.iter_mut().enumerate() {
            listener.socket.ask_for_buffers(LISTENER_BUFFERS);
            if gro {
                listener.socket.join_received(true)?;
            }
            poll.registry().register(&mut listener.socket, Token(number), Interest::READABLE)?;
        }
        let (sender, commands) = mpsc::channel(COMMANDS_QUEUED);
        let (streams, happened) = mpsc::channel(EVENTS_QUEUED);
        let observer = settings.observer.take();
        let table = Table::new(policy, directory, neighbours.shard(), observer);
        let forwarder = Forwarder::new(settings, listeners, table, neighbours);
        let buffer = vec![0; 1 << 16];
        let (ready, streams) = (VecDeque::new(), StreamSender { queue: streams, bell: Arc::clone(&bell) });
        let commands_in = CommandSender { queue: sender, bell: Arc::clone(&bell) };
        let media =
            Self { forwarder, poll, ready, commands, streams: happened, unread: false, buffer, bell, clock, gro };
        Ok((media, Shard { commands: commands_in, streams, thread: None }))
    }

    fn run(mut self) {
        let mut batch = Batch::new();
        let mut events = Events::with_capacity(EVENTS);
        while !self.bell.stopped.load(Ordering::Acquire) {
            match self.round(&mut batch, &mut events) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "media thread cannot poll");
                    return;
                }
            }
        }
    }

    /// Waits until something is to be done, and does a share of each kind of it.
    fn round(&mut self, batch: &mut Batch, events: &mut Events) -> io::Result<()> {
        self.poll.poll(events, self.patience())?;
        for event in &*events {
            self.queue(event.token(), event.is_error());
        }
        let now = self.clock.now().monotonic;
        self.forwarder.table.handle_timeout(now);
        let mut budget = DATAGRAMS_PER_ROUND;
        while budget > 0
            && let Some(token) = self.ready.pop_front()
        {
            budget = budget.saturating_sub(self.serve(token, batch, now).max(1));
        }
        self.forwarder.depart();
        // Swapped, not stored: what was sent before a ring that is taken back here is seen below; what comes later rings.
        let rung = self.bell.rung.swap(false, Ordering::AcqRel);
        self.carry_out_commands();
        self.serve_streams(now);
        if rung || self.unread {
            self.serve_neighbours(now);
        }
        self.forwarder.neighbours.announce();
        self.forwarder.depart();
        self.bell.rounds.store(self.bell.rounds.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        Ok(())
    }

    /// How long nothing is to be done, unless a socket or the bell is heard.
    fn patience(&self) -> Option<Duration> {
        if self.unread || !self.commands.is_empty() || !self.streams.is_empty() || !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let timeout = self.forwarder.table.poll_timeout()?;
        Some(timeout.saturating_duration_since(self.clock.now().monotonic))
    }

    fn queue(&mut self, token: Token, reported: bool) {
        let Some(watched) = self.watched(token) else { return };
        watched.reported |= reported;
        if !std::mem::replace(&mut watched.queued, true) {
            self.ready.push_back(token);
        }
    }

    /// One batch from a socket, behind what was reported about it; how many datagrams.
    fn serve(&mut self, token: Token, batch: &mut Batch, now: Instant) -> usize {
        let slot = self.slot_of(token);
        let Some(watched) = self.watched(token) else { return 0 };
        watched.queued = false;
        if std::mem::take(&mut watched.reported) {
            self.serve_reports(token, now);
        }
        let Some(watched) = self.watched(token) else { return 0 };
        let more = match batch.receive(&watched.socket) {
            Ok(()) => batch.is_full(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
            Err(_) => {
                // Reading the error cleared it, and hides what waits behind it.
                if self.serve_reports(token, now) == 0 {
                    self.forwarder.metrics.dropped(DropReason::SocketError);
                }
                self.queue(token, false);
                return 0;
            }
        };
        let mut served = 0;
        for packet in batch.datagrams() {
            served += 1;
            match slot {
                None => self.forwarder.handle_client_packet(ListenerId(token.0), &packet, now),
                Some(slot) => self.forwarder.handle_peer_packet(slot, &packet, now),
            }
        }
        if more {
            self.queue(token, false);
        }
        served
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
        let mut budget = DATAGRAMS_PER_ROUND;
        while budget > 0
            && let Ok(event) = self.streams.try_recv()
        {
            budget = budget.saturating_sub(self.forwarder.handle_stream_event(event, now).max(1));
        }
    }

    fn serve_neighbours(&mut self, now: Instant) {
        self.unread = false;
        for shard in self.forwarder.neighbours.others() {
            let mut taken = 0;
            while taken < LETTERS_PER_ROUND
                && let Some((letter, data)) = self.forwarder.neighbours.receive(shard, &mut self.buffer)
            {
                self.forwarder.handle_neighbours_data(letter, data, now);
                taken += 1;
            }
            self.unread |= taken == LETTERS_PER_ROUND;
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
            Command::Open { id, five_tuple, via, relayed, advertised, socket, deadline, traffic } => {
                let client = Client { five_tuple, via };
                let (advertised, socket) = (PeerAddr::new(advertised), Watched::new(socket));
                let opened = table.open(Opening { id, client, relayed, advertised, socket, deadline }, now);
                match opened {
                    Ok(slot) => {
                        self.forwarder.departures.open(slot, five_tuple.transport, traffic);
                        self.watch(id, via, slot, now);
                    }
                    Err(_) => self.forwarder.refuse(id),
                }
                opened.map(drop)
            }
            Command::Extend { id, deadline } => {
                table.extend(id, deadline, now);
                Ok(())
            }
            Command::Permit { id, peer, deadline } => table.permit(id, peer, deadline, now),
            Command::Forbid { id, peer } => {
                table.forbid(id, peer, now);
                Ok(())
            }
            Command::Configure(rules) => {
                self.forwarder.configure(*rules, now);
                Ok(())
            }
            Command::Bind { id, channel, peer, deadline } => table.bind(id, channel, peer, deadline, now),
            Command::Close { id } => {
                self.close(id, now);
                Ok(())
            }
        };
        if done.is_err() {
            self.forwarder.metrics.dropped(DropReason::Bug);
        }
    }

    fn watch(&mut self, id: AllocationId, via: Via, slot: Slot, now: Instant) {
        self.forwarder.set_allocated(via, true);
        let token = Token(self.forwarder.listeners.len() + slot.0);
        let Some(relay) = self.forwarder.table.socket_mut(slot) else { return };
        let kept = relay.socket.keep_reports();
        let kept = kept.and_then(|()| if self.gro { relay.socket.join_received(true) } else { Ok(()) });
        if kept.and_then(|()| self.poll.registry().register(&mut relay.socket, token, Interest::READABLE)).is_err() {
            self.forwarder.metrics.dropped(DropReason::SocketError);
            self.close(id, now);
            self.forwarder.refuse(id);
        }
    }

    fn close(&mut self, id: AllocationId, now: Instant) {
        // While its socket is there.
        self.forwarder.depart();
        if let Some(slot) = self.forwarder.table.slot_of(id) {
            self.forwarder.departures.close(slot);
        }
        if let Some(opening) = self.forwarder.table.close(id, now) {
            let Client { five_tuple, via } = opening.client;
            // Of a dual allocation the other family may live on.
            self.forwarder.set_allocated(via, self.forwarder.table.slot_on(&five_tuple).is_some());
            let mut relay = opening.socket;
            if relay.queued {
                // The next allocation in its place gets a turn of its own.
                let (listeners, table) = (self.forwarder.listeners.len(), &self.forwarder.table);
                let is_there = |slot: usize| table.socket(Slot(slot)).is_some();
                self.ready.retain(|token| token.0.checked_sub(listeners).is_none_or(is_there));
            }
            // Closing it would do as well.
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

/// How often it is looked whether a thread has turned.
const BEAT: Duration = Duration::from_millis(5);
const BELL: Token = Token(usize::MAX);
/// Bytes of kernel buffers asked for at a listener, each way: many clients share it.
const LISTENER_BUFFERS: usize = 4 << 20;
/// Sockets that one poll reports; the rest come with the next.
const EVENTS: usize = 1024;
/// Commands that wait; more make the control plane wait.
const COMMANDS_QUEUED: usize = 1024;
/// What happened on streams and waits; more makes their clients wait. Each is messages, of 80 KiB and some at most.
const EVENTS_QUEUED: usize = 256;
/// How much of what another shard has sent is taken between two rounds of media.
const LETTERS_PER_ROUND: usize = 256;
/// Datagrams, or messages of streams, taken between two departures at most, and one batch more: the more there are, the
/// more leave together, and the longer the first of them waits, when there is that much to do.
const DATAGRAMS_PER_ROUND: usize = 1024;
/// Reports taken from one relay socket in its turn.
const REPORTS_PER_ROUND: usize = 32;
/// Commands carried out between two rounds of media.
const COMMANDS_PER_ROUND: usize = 256;

#[cfg(test)]
mod tests;
