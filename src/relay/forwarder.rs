//! What a shard does with one packet: forward it by the table, answer it, hand it to the control plane, or drop it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::allowance::Allowance;
use super::command::AllocationId;
use super::command::Event;
use super::command::ListenerId;
use super::command::Request;
use super::command::StreamId;
use super::command::Via;
use super::departures::Departure;
use super::departures::Departures;
use super::departures::Exit;
use super::departures::Purpose;
use super::framing;
use super::framing::SendIndication;
use super::framing::TransactionIds;
use super::neighbours::Letter;
use super::neighbours::Neighbours;
use super::outbox::Outbox;
use super::rules::Rules;
use super::shard::Settings;
use super::stream::StreamEvent;
use super::stream::frames;
use super::table::Client;
use super::table::Delivery;
use super::table::Forward;
use super::table::Framing;
use super::table::Slot;
use super::table::Table;
use super::table::Target;
use crate::address::FiveTuple;
use crate::address::PeerAddr;
use crate::address::Transport;
use crate::metrics::DropReason;
use crate::metrics::Metrics;
use crate::net::udp::Datagram;
use crate::net::udp::Ecn;
use crate::net::udp::Icmp;
use crate::net::udp::MAX_PAYLOAD;
use crate::net::udp::Report;
use crate::net::udp::Socket;
use crate::net::udp::Way;
use crate::net::udp::is_too_large;
use crate::rate::PerSource;
use crate::wire::ChannelData;
use crate::wire::Class;
use crate::wire::Kind;
use crate::wire::STUN_HEADER;
use crate::wire::Stun;
use crate::wire::method;

/// Shorter requests than the plainest Allocate (REQUESTED-TRANSPORT alone) have nothing to be answered about.
const SHORTEST_REQUEST: usize = 28;

/// A socket of a shard.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) socket: Socket,
    /// Whether it waits for its turn.
    pub(super) queued: bool,
    /// Whether reports may wait at it.
    pub(super) reported: bool,
}

impl Watched {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, queued: false, reported: false }
    }
}

/// What a client wants sent to a peer.
#[derive(Clone, Copy, Debug)]
struct Payload<'a> {
    data: &'a [u8],
    ecn: Option<Ecn>,
    /// Whether it may not be fragmented.
    whole: bool,
}

/// What was framed for a client.
#[derive(Clone, Copy, Debug)]
struct Frame {
    length: usize,
    /// Bytes of data in it.
    payload: usize,
    purpose: Purpose,
}

/// A stream of a client.
#[derive(Debug)]
struct Stream {
    five_tuple: FiveTuple,
    outbox: Arc<Outbox>,
}

/// The longest head and padding that data gets: as a Data indication from an IPv6 address.
const MAX_HEAD: usize = STUN_HEADER + 24 + 4 + 3;

/// Everything that packets are judged by, and the sockets they leave by.
#[derive(Debug)]
pub(super) struct Forwarder {
    /// By [`ListenerId`].
    pub(super) listeners: Vec<Watched>,
    pub(super) table: Table<Watched>,
    pub(super) metrics: Arc<Metrics>,
    events: mpsc::Sender<Event>,
    /// Capped by the places that streams take before they come here.
    streams: HashMap<StreamId, Stream>,
    bindings: PerSource,
    allowance: Allowance,
    ids: TransactionIds,
    pub(super) departures: Departures,
    pub(super) neighbours: Neighbours,
}

impl Forwarder {
    /// Of a shard with these sockets, this table and these neighbours; the rest as set.
    pub(super) fn new(
        settings: Settings,
        listeners: Vec<Watched>,
        table: Table<Watched>,
        neighbours: Neighbours,
    ) -> Self {
        let Settings { metrics, events, bindings, allowance, offload, .. } = settings;
        let (streams, ids, departures) = (HashMap::new(), TransactionIds::new(), Departures::new(offload.gso));
        Self { listeners, table, metrics, events, streams, bindings, allowance, ids, departures, neighbours }
    }

    /// Has other rules hold.
    pub(super) fn configure(&mut self, Rules { policy, bindings, sources, allowance }: Rules, now: Instant) {
        self.table.judge_by(policy, now);
        self.bindings.configure(bindings, sources);
        self.allowance = allowance;
    }

    /// Takes a packet that came in by a listener.
    pub(super) fn handle_client_packet(&mut self, listener: ListenerId, packet: &Datagram<'_>, now: Instant) {
        if let Err(reason) = self.judge_client_packet(listener, packet, now) {
            self.metrics.dropped(reason);
        }
    }

    /// Takes a packet that came in by a relay socket.
    pub(super) fn handle_peer_packet(&mut self, slot: Slot, packet: &Datagram<'_>, now: Instant) {
        if let Err(reason) = self.judge_peer_packet(slot, packet, now) {
            self.metrics.dropped(reason);
        }
    }

    /// Takes data from another shard's client.
    pub(super) fn handle_neighbours_data(&mut self, letter: Letter, data: &[u8], now: Instant) {
        if let Err(reason) = self.judge_neighbours_data(letter, data, now) {
            self.metrics.dropped(reason);
        }
    }

    /// Takes what came back about a datagram that a relay socket has sent.
    pub(super) fn handle_report(&mut self, slot: Slot, report: Report, now: Instant) {
        if let Err(reason) = self.judge_report(slot, report, now) {
            self.metrics.dropped(reason);
        }
    }

    /// Has everything leave that was held back to leave together: while its sockets are there.
    pub(super) fn depart(&mut self) {
        self.departures.leave(&self.metrics, |exit| match exit {
            Exit::Listener(id) => self.listeners.get(id.0).map(|listener| &listener.socket),
            Exit::Relay(slot) => self.table.socket(slot).map(|relay| &relay.socket),
        });
    }

    /// Takes what happened on a stream; how many messages that were.
    pub(super) fn handle_stream_event(&mut self, event: StreamEvent, now: Instant) -> usize {
        match event {
            StreamEvent::Opened { id, five_tuple, outbox } => {
                self.streams.insert(id, Stream { five_tuple, outbox });
            }
            StreamEvent::Sync(done) => {
                // Its task may have been ended together with the process.
                let _ = done.send(());
            }
            StreamEvent::Frames { id, messages } => return self.handle_frames(id, &messages, now),
            StreamEvent::Closed { id } => {
                self.streams.remove(&id);
            }
        }
        1
    }

    fn handle_frames(&mut self, id: StreamId, messages: &[u8], now: Instant) -> usize {
        let (mut rest, mut count) = (messages, 0);
        let five_tuple = self.streams.get(&id).map(|stream| stream.five_tuple).ok_or(DropReason::Bug);
        while let Ok(Some(length)) = frames::length(rest)
            && let Some((message, behind)) = rest.split_at_checked(length)
        {
            let judged = five_tuple.and_then(|it| self.judge_message(Via::Stream(id), &it, message, None, now));
            if let Err(reason) = judged {
                self.metrics.dropped(reason);
            }
            (rest, count) = (behind, count + 1);
        }
        count
    }

    /// Notes at a client's stream, if it uses one, whether it has an allocation.
    pub(super) fn set_allocated(&self, via: Via, allocated: bool) {
        if let Via::Stream(id) = via
            && let Some(stream) = self.streams.get(&id)
        {
            stream.outbox.set_allocated(allocated);
        }
    }

    /// Sends a STUN answer of the control plane.
    pub(super) fn answer(&mut self, five_tuple: &FiveTuple, via: Via, message: &[u8]) {
        let written = self.write(message);
        if let Err(reason) = written.and_then(|()| self.send_answer(five_tuple, via, message.len(), Purpose::Word)) {
            self.metrics.dropped(reason);
        }
    }

    /// Tells the control plane that an allocation did not begin. Never for want of anything but a bug, memory, or places
    /// for relay addresses.
    pub(super) fn refuse(&self, id: AllocationId) {
        if self.events.try_send(Event::Refused { id }).is_err() {
            self.metrics.dropped(DropReason::QueueFull);
        }
    }

    fn judge_client_packet(&mut self, id: ListenerId, packet: &Datagram<'_>, now: Instant) -> Result<(), DropReason> {
        if packet.source.port() == 0 {
            // Nobody could be answered there.
            return Err(DropReason::Malformed);
        }
        let listening = self.listeners.get(id.0).ok_or(DropReason::Bug)?.socket.local_addr();
        let server = SocketAddr::new(packet.local_ip.unwrap_or(listening.ip()), listening.port());
        let five_tuple = FiveTuple::new(Transport::Udp, packet.source, server);
        self.judge_message(Via::Datagram(id), &five_tuple, packet.data, packet.ecn, now)
    }

    /// Judges what a client sent, which came in whole: as a datagram, or cut from its stream.
    fn judge_message(
        &mut self,
        via: Via,
        five_tuple: &FiveTuple,
        message: &[u8],
        ecn: Option<Ecn>,
        now: Instant,
    ) -> Result<(), DropReason> {
        match Kind::of(message) {
            Kind::ChannelData => {
                let message = ChannelData::parse(message).map_err(|_| DropReason::Malformed)?;
                let payload = Payload { data: message.data, ecn, whole: false };
                self.forward(five_tuple, Target::Channel(message.number), payload, now)
            }
            Kind::Stun => {
                let message = Stun::parse(message).map_err(|_| DropReason::Malformed)?;
                self.judge_stun(via, five_tuple, &message, ecn, now)
            }
            Kind::Other => Err(DropReason::NotTurn),
        }
    }

    fn judge_stun(
        &mut self,
        via: Via,
        five_tuple: &FiveTuple,
        message: &Stun<'_>,
        ecn: Option<Ecn>,
        now: Instant,
    ) -> Result<(), DropReason> {
        match (message.class(), message.method()) {
            (Class::Indication, method::SEND) => {
                let SendIndication { peer, data, whole } = SendIndication::read(message)?;
                // Between datagrams of which one travels by IPv6 it means nothing (RFC 8656, section 13).
                let translated = five_tuple.client.is_ipv6() || !peer.ip().is_ipv4();
                let whole = whole && (five_tuple.transport != Transport::Udp || !translated);
                self.forward(five_tuple, Target::Peer(peer), Payload { data, ecn, whole }, now)
            }
            (Class::Request, method::BINDING) if message.attributes().all(|it| it.kind >= 0x8000) => {
                self.answer_binding(via, five_tuple, message.transaction_id(), now)
            }
            (Class::Request, _) if !is_long_enough(message) => Err(DropReason::TooShort),
            (Class::Request, _) => {
                let place = self.events.try_reserve().map_err(|_| DropReason::QueueFull)?;
                place.send(Event::Request(Request {
                    five_tuple: *five_tuple,
                    reached: five_tuple.server.ip(),
                    via,
                    message: message.raw().to_vec(),
                }));
                Ok(())
            }
            (Class::Indication | Class::Success | Class::Error, _) => Err(DropReason::Unexpected),
        }
    }

    fn answer_binding(
        &mut self,
        via: Via,
        five_tuple: &FiveTuple,
        id: [u8; 12],
        now: Instant,
    ) -> Result<(), DropReason> {
        if !self.bindings.take(five_tuple.client.ip(), now) {
            return Err(DropReason::RateLimited);
        }
        self.make_room(MAX_HEAD);
        let length = framing::put_binding_success(self.departures.room(), id, five_tuple.client);
        self.send_answer(five_tuple, via, length.ok_or(DropReason::Bug)?, Purpose::Binding)
    }

    /// Forwards a client's data; what goes nowhere is noted at its allocation, if it has one.
    fn forward(
        &mut self,
        five_tuple: &FiveTuple,
        target: Target,
        payload: Payload<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let forwarded = self.try_forward(five_tuple, target, payload, now);
        // A stranger's costs no second look.
        if let Err(reason) = forwarded
            && reason != DropReason::NoAllocation
            && let Some(slot) = self.table.slot_on(five_tuple)
        {
            self.departures.count_lost(slot, reason);
        }
        forwarded
    }

    fn try_forward(
        &mut self,
        five_tuple: &FiveTuple,
        target: Target,
        payload: Payload<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let Payload { data, ecn, whole } = payload;
        match self.table.handle_client_data(five_tuple, target, now)? {
            Forward::ToPeer { from, to } if whole => {
                self.admit(&[from], data.len(), now)?;
                self.depart();
                self.send_whole(from, to, data, ecn, now)?;
                self.departures.count(Some(from), Purpose::ToPeer, data.len());
                Ok(())
            }
            Forward::ToPeer { from, to } => {
                self.admit(&[from], data.len(), now)?;
                self.write(data)?;
                let way = Way { to: to.get(), source: None, ecn };
                let (exit, slot, purpose, payload) = (Exit::Relay(from), Some(from), Purpose::ToPeer, data.len());
                self.push(Departure { exit, slot, purpose, way, payload }, payload)
            }
            Forward::Hairpin { from, to, delivery } => {
                self.admit(&[from, to], data.len(), now)?;
                self.deliver(to, &delivery, data, ecn, Purpose::Hairpin, now)?;
                self.departures.count_sender(from, data.len());
                Ok(())
            }
            Forward::Elsewhere { from, names, to, shard } => {
                // What is dropped for want of room counts against no limit.
                self.neighbours.has_room(shard, data.len()).then_some(()).ok_or(DropReason::QueueFull)?;
                self.admit(&[from], data.len(), now)?;
                self.neighbours.send(shard, Letter { from: names, to, ecn }, data)?;
                self.departures.count_sender(from, data.len());
                Ok(())
            }
        }
    }

    /// What its own shard has counted for the sender, and for all, counts for the receiver here.
    fn judge_neighbours_data(
        &mut self,
        Letter { from, to, ecn }: Letter,
        data: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let (to, delivery) = self.table.handle_neighbours_data(from, to, now)?;
        self.admit_each(&[to], data.len(), now)?;
        self.deliver(to, &delivery, data, ecn, Purpose::Hairpin, now)
    }

    /// Sends to a peer what may not be fragmented. When it is too large for the first link, its client is told so, as any
    /// router would have it told (RFC 8656, section 11.5).
    fn send_whole(
        &mut self,
        from: Slot,
        to: PeerAddr,
        data: &[u8],
        ecn: Option<Ecn>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let relay = self.table.socket_mut(from).ok_or(DropReason::Bug)?;
        let Err(error) = relay.socket.send_unfragmented(data, to.get(), ecn) else { return Ok(()) };
        let reason = reason_of(&error);
        let mut mtu = None;
        while reason == DropReason::TooLarge
            && let Some(relay) = self.table.socket_mut(from)
            && let Ok(report) = relay.socket.take_report()
        {
            match report {
                Report::TooLarge { mtu: found } => mtu = Some(found),
                Report::Icmp { .. } | Report::Other => self.handle_report(from, report, now),
            }
        }
        if let Some(mtu) = mtu {
            let (kind, code) = if to.ip().is_ipv4() { (3, 4) } else { (2, 0) };
            self.handle_report(from, Report::Icmp { to: to.get(), error: Icmp { kind, code, mtu } }, now);
        }
        Err(reason)
    }

    /// Counts data against the limits of its allocations, then against those of all.
    fn admit(&mut self, allocations: &[Slot], bytes: usize, now: Instant) -> Result<(), DropReason> {
        self.admit_each(allocations, bytes, now)?;
        self.allowance.take(bytes, now)
    }

    /// Counts data against the limits of its allocations.
    fn admit_each(&mut self, allocations: &[Slot], bytes: usize, now: Instant) -> Result<(), DropReason> {
        if let Some(rate) = self.allowance.per_allocation {
            for slot in allocations {
                if !self.table.take_bandwidth(*slot, bytes, rate, now) {
                    return Err(DropReason::Bandwidth);
                }
            }
        }
        Ok(())
    }

    fn judge_peer_packet(&mut self, slot: Slot, packet: &Datagram<'_>, now: Instant) -> Result<(), DropReason> {
        let peer = PeerAddr::new(packet.source);
        let delivery = self.table.handle_peer_data(slot, peer, now)?;
        self.admit(&[slot], packet.data.len(), now)?;
        self.deliver(slot, &delivery, packet.data, packet.ecn, Purpose::ToClient, now)
    }

    /// Tells a client of an ICMP error: not checked against whoever sent that, any router may (RFC 8656, section 11.5).
    fn judge_report(&mut self, slot: Slot, report: Report, now: Instant) -> Result<(), DropReason> {
        let (peer, error) = match report {
            Report::Icmp { to, error } => (PeerAddr::new(to), error),
            Report::TooLarge { .. } | Report::Other => return Err(DropReason::Icmp),
        };
        let told = if peer.ip().is_ipv4() { matches!(error.kind, 3 | 11) } else { matches!(error.kind, 1..=3) };
        if !told {
            return Err(DropReason::Icmp);
        }
        let client = self.table.handle_icmp_error(slot, peer, now)?;
        self.make_room(MAX_HEAD);
        let length = framing::put_icmp_indication(self.departures.room(), self.ids.next(), peer, error);
        let frame = Frame { length: length.ok_or(DropReason::Bug)?, payload: 0, purpose: Purpose::Word };
        self.send_frame(slot, &client, frame, None, now)
    }

    /// Frames data for the client of the allocation at `slot`, and sends it.
    fn deliver(
        &mut self,
        slot: Slot,
        delivery: &Delivery,
        data: &[u8],
        ecn: Option<Ecn>,
        purpose: Purpose,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.make_room(MAX_HEAD + data.len());
        let room = self.departures.room();
        let length = match delivery.framing {
            Framing::Channel(number) => framing::put_channel_data(room, number, data),
            Framing::Data(peer) => framing::put_data_indication(room, self.ids.next(), peer, data),
        };
        let frame = Frame { length: length.ok_or(DropReason::TooLarge)?, payload: data.len(), purpose };
        self.send_frame(slot, &delivery.client, frame, ecn, now)
    }

    /// Sends what was framed, where the next departure is written, to a client.
    fn send_frame(
        &mut self,
        slot: Slot,
        client: &Client,
        Frame { length, payload, purpose }: Frame,
        ecn: Option<Ecn>,
        now: Instant,
    ) -> Result<(), DropReason> {
        match client.via {
            Via::Datagram(listener) => {
                let FiveTuple { client, server, .. } = client.five_tuple;
                // From the very address and socket that it uses.
                let way = Way { to: client, source: Some(server.ip()), ecn };
                let (exit, slot) = (Exit::Listener(listener), Some(slot));
                self.push(Departure { exit, slot, purpose, way, payload }, length)
            }
            Via::Stream(id) => {
                // On streams ChannelData is padded, too (RFC 8656, section 12.5).
                let padded = length.next_multiple_of(4);
                let frame = self.departures.room().get_mut(..padded).ok_or(DropReason::TooLarge)?;
                frame.get_mut(length..).unwrap_or_default().fill(0);
                let stream = self.streams.get(&id).ok_or(DropReason::StreamClosed)?;
                stream.outbox.push_data(frame, now);
                self.departures.count(Some(slot), purpose, payload);
                Ok(())
            }
        }
    }

    /// Sends a STUN answer of `length`, written where the next departure is, the way that the question came.
    fn send_answer(
        &mut self,
        five_tuple: &FiveTuple,
        via: Via,
        length: usize,
        purpose: Purpose,
    ) -> Result<(), DropReason> {
        match via {
            Via::Datagram(listener) => {
                let FiveTuple { client, server, .. } = *five_tuple;
                let way = Way { to: client, source: Some(server.ip()), ecn: None };
                let exit = Exit::Listener(listener);
                self.push(Departure { exit, slot: None, purpose, way, payload: 0 }, length)
            }
            Via::Stream(id) => {
                let stream = self.streams.get(&id).ok_or(DropReason::StreamClosed)?;
                stream.outbox.push_answer(self.departures.room().get(..length).ok_or(DropReason::Bug)?);
                self.departures.count(None, purpose, 0);
                Ok(())
            }
        }
    }

    /// Writes a datagram, as it is, where the next departure is.
    fn write(&mut self, datagram: &[u8]) -> Result<(), DropReason> {
        self.make_room(datagram.len());
        let room = self.departures.room().get_mut(..datagram.len()).ok_or(DropReason::TooLarge)?;
        room.copy_from_slice(datagram);
        Ok(())
    }

    fn make_room(&mut self, length: usize) {
        if !self.departures.has_room(length) {
            self.depart();
        }
    }

    fn push(&mut self, departure: Departure, length: usize) -> Result<(), DropReason> {
        if length > MAX_PAYLOAD {
            return Err(DropReason::TooLarge);
        }
        if self.departures.push(departure, length) { Ok(()) } else { Err(DropReason::Bug) }
    }
}

/// Whether a request is long enough for the control plane to have something to say to it.
pub(super) fn is_long_enough(request: &Stun<'_>) -> bool {
    request.method() == method::BINDING || request.raw().len() >= SHORTEST_REQUEST
}

/// Why a packet that couldn't be sent is dropped; the socket lives on.
pub(super) fn reason_of(error: &io::Error) -> DropReason {
    if error.kind() == io::ErrorKind::WouldBlock {
        DropReason::SocketFull
    } else if is_too_large(error) {
        DropReason::TooLarge
    } else {
        DropReason::SocketError
    }
}
