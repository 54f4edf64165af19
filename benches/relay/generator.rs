//! The load: one thread that is all clients and all peers, told apart by their loopback addresses.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use stun::attributes::*;
use stun::message::Getter;
use stun::message::Message;
use throughway::net::udp::Batch;
use throughway::net::udp::Socket;
use turn::proto::relayaddr::RelayedAddress;

use crate::servers::Failure;
use crate::servers::Server;
use crate::servers::now;
use crate::servers::request;
use crate::servers::request::ALLOCATE;
use crate::servers::request::CHANNEL_BIND;
use crate::servers::request::Given;
use crate::servers::request::TRANSPORT;
use crate::servers::request::message;

/// How long a scenario runs.
const RUN: Duration = Duration::from_secs(2);
/// How long what is under way may take to come in after it.
const DRAIN: Duration = Duration::from_millis(200);
/// Nothing has come in for so long: what was under way is lost, and is sent anew.
const STALL: Duration = Duration::from_millis(50);
/// Datagrams a second offered in bursts, and how many there are in one.
const OFFERED: u32 = 200_000;
const BURST: u32 = 16;
/// The channel of every client.
const CHANNEL: u16 = 0x4000;
/// Bytes for the kernel to hold: everything that is under way.
const BUFFERS: usize = 8 << 20;

/// How a scenario loads a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Each client has so many datagrams under way to a peer that sends them back.
    Echo { clients: u16, bytes: usize, window: usize },
    /// Each client has so many under way to another client.
    Pairs { clients: u16, bytes: usize, window: usize },
    /// Bursts at a fixed rate, whatever comes in: one client's or peer's after the other's.
    Bursts { clients: u16, bytes: usize, from_clients: bool },
    /// Each client has so many Binding requests under way.
    Binding { clients: u16, window: usize },
}

/// What a run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Of the server, user and system, for each datagram that came through.
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    /// The part that didn't come through.
    pub(crate) lost: f64,
}

/// A scenario, set up.
pub(crate) struct Load<'a> {
    server: &'a Server,
    shape: Shape,
    /// Where all clients are, each with an address of its own.
    socket: Socket,
    /// Where all peers are.
    peers: Socket,
    clients: Vec<Client>,
    batch: Batch,
    counts: Counts,
}

struct Client {
    ip: IpAddr,
    relayed: Option<SocketAddr>,
    nonce: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    sent: u64,
    received: u64,
}

impl<'a> Load<'a> {
    /// Allocates and binds what the scenario needs; `number` keeps its clients apart from those of others.
    pub(crate) fn start(server: &'a Server, shape: Shape, number: u8) -> Result<Self, Failure> {
        let socket = Socket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        let peers = Socket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        socket.ask_for_buffers(BUFFERS);
        peers.ask_for_buffers(BUFFERS);
        let count = match shape {
            Shape::Echo { clients, .. }
            | Shape::Pairs { clients, .. }
            | Shape::Bursts { clients, .. }
            | Shape::Binding { clients, .. } => clients,
        };
        let client = |n: u16| {
            let [high, low] = n.to_be_bytes();
            Client { ip: Ipv4Addr::new(127, 10 + number, high, low + 1).into(), relayed: None, nonce: Vec::new() }
        };
        let clients = (0..count).map(client).collect();
        let mut load = Self { server, shape, socket, peers, clients, batch: Batch::new(), counts: Counts::default() };
        if !matches!(shape, Shape::Binding { .. }) {
            load.allocate()?;
        }
        Ok(load)
    }

    /// Loads the server for a while.
    pub(crate) fn run(mut self) -> Result<Outcome, Failure> {
        let (cpu, began) = (self.server.cpu()?, now());
        match self.shape {
            Shape::Echo { bytes, window, .. } => self.in_windows(&channel_data(bytes), window, 2)?,
            Shape::Pairs { bytes, window, .. } => self.in_windows(&channel_data(bytes), window, 1)?,
            Shape::Binding { window, .. } => {
                self.in_windows(b"\x00\x01\x00\x00\x21\x12\xA4\x42transaction!", window, 1)?;
            }
            Shape::Bursts { bytes, from_clients, .. } => self.in_bursts(bytes, from_clients)?,
        }
        let (took, used) = (now() - began, self.server.cpu()? - cpu);
        let Counts { sent, received } = self.counts;
        let through = received.max(1) as f64;
        Ok(Outcome {
            cpu_us: used.as_secs_f64() * 1e6 / through,
            per_second: through / took.as_secs_f64(),
            lost: 1.0 - through / sent.max(1) as f64,
        })
    }

    /// Keeps `window` datagrams of each client under way; each that comes back is `hops` through the server.
    fn in_windows(&mut self, message: &[u8], window: usize, hops: u64) -> Result<(), Failure> {
        let end = now() + RUN;
        self.fill_windows(message, window, hops)?;
        let mut heard = now();
        loop {
            let at = now();
            self.echo()?;
            let back = self.receive()?;
            self.counts.received += back.len() as u64 * hops;
            if at < end {
                for ip in &back {
                    self.send(message, *ip, hops)?;
                }
            }
            if !back.is_empty() {
                heard = at;
            } else if at >= end && at >= heard + DRAIN {
                return Ok(());
            } else if at < end && at >= heard + STALL {
                self.fill_windows(message, window, hops)?;
                heard = at;
            }
        }
    }

    fn fill_windows(&mut self, message: &[u8], window: usize, hops: u64) -> Result<(), Failure> {
        for _ in 0..window {
            for client in 0..self.clients.len() {
                let ip = self.clients.get(client).ok_or("no client")?.ip;
                self.send(message, ip, hops)?;
            }
        }
        Ok(())
    }

    /// Offers [`OFFERED`] datagrams a second.
    fn in_bursts(&mut self, bytes: usize, from_clients: bool) -> Result<(), Failure> {
        let (framed, plain) = (channel_data(bytes), vec![7; bytes]);
        let (begin, pause) = (now(), Duration::from_secs(1) * BURST / OFFERED);
        let mut bursts = 0;
        let mut heard = begin;
        loop {
            let at = now();
            if at < begin + RUN && at >= begin + pause * bursts {
                let client = self.clients.get(bursts as usize % self.clients.len()).ok_or("no client")?;
                let (ip, relayed) = (client.ip, client.relayed.ok_or("no relayed address")?);
                for _ in 0..BURST {
                    match from_clients {
                        true => self.send(&framed, ip, 1)?,
                        false => {
                            self.counts.sent += 1;
                            sent(self.peers.send(&plain, relayed, None, None))?;
                        }
                    }
                }
                bursts += 1;
            }
            let came = if from_clients { self.swallow()? } else { self.receive()?.len() as u64 };
            self.counts.received += came;
            if came > 0 {
                heard = at;
            } else if at >= (begin + RUN).max(heard) + DRAIN {
                return Ok(());
            }
        }
    }

    fn send(&mut self, message: &[u8], from: IpAddr, hops: u64) -> Result<(), Failure> {
        self.counts.sent += hops;
        sent(self.socket.send(message, self.server.addr, Some(from), None))
    }

    /// What came for clients: which of them, for each datagram.
    fn receive(&mut self) -> Result<Vec<IpAddr>, Failure> {
        match self.batch.receive(&self.socket) {
            Ok(()) => Ok(self.batch.datagrams().filter_map(|datagram| datagram.local_ip).collect()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends back what came for peers.
    fn echo(&mut self) -> Result<(), Failure> {
        match self.batch.receive(&self.peers) {
            Ok(()) => {
                for datagram in self.batch.datagrams() {
                    sent(self.peers.send(datagram.data, datagram.source, None, None))?;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How many came for peers.
    fn swallow(&mut self) -> Result<u64, Failure> {
        match self.batch.receive(&self.peers) {
            Ok(()) => Ok(self.batch.datagrams().count() as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn allocate(&mut self) -> Result<(), Failure> {
        for client in 0..self.clients.len() {
            let ip = self.clients.get(client).ok_or("no client")?.ip;
            let challenge = self.exchange(&message(ALLOCATE, TRANSPORT), ip)?;
            let nonce = challenge.get(ATTR_NONCE)?;
            let answer = self.ask(ALLOCATE, TRANSPORT, &nonce, ip)?;
            let mut relayed = RelayedAddress::default();
            relayed.get_from(&answer)?;
            if let Some(client) = self.clients.get_mut(client) {
                client.relayed = Some(SocketAddr::new(relayed.ip, relayed.port));
                client.nonce = nonce;
            }
        }
        for client in 0..self.clients.len() {
            let peer = match self.shape {
                Shape::Pairs { .. } => self.clients.get(client ^ 1).and_then(|other| other.relayed),
                Shape::Echo { .. } | Shape::Bursts { .. } | Shape::Binding { .. } => Some(self.peers.local_addr()),
            };
            let (ip, nonce) = self.clients.get(client).map(|it| (it.ip, it.nonce.clone())).ok_or("no client")?;
            let address = request::peer(peer.ok_or("no peer")?)?;
            let [c0, c1] = CHANNEL.to_be_bytes();
            let attributes = [(ATTR_CHANNEL_NUMBER, &[c0, c1, 0, 0][..]), (ATTR_XOR_PEER_ADDRESS, &address[..])];
            self.ask(CHANNEL_BIND, &attributes, &nonce, ip)?;
        }
        Ok(())
    }

    fn ask(&mut self, method: u16, attributes: &Given<'_>, nonce: &[u8], ip: IpAddr) -> Result<Message, Failure> {
        let request = request::signed(method, attributes, nonce, &request::key())?;
        request::accepted(method, self.exchange(&request, ip)?)
    }

    fn exchange(&mut self, request: &Message, ip: IpAddr) -> Result<Message, Failure> {
        for _ in 0..20 {
            self.socket.send(&request.raw, self.server.addr, Some(ip), None)?;
            let patience = now() + Duration::from_millis(500);
            while now() < patience {
                match self.batch.receive(&self.socket) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                }
                for datagram in self.batch.datagrams() {
                    let mut answer = Message { raw: datagram.data.to_vec(), ..Message::default() };
                    if answer.decode().is_ok() && answer.transaction_id == request.transaction_id {
                        return Ok(answer);
                    }
                }
            }
        }
        Err("no answer".into())
    }
}

fn channel_data(bytes: usize) -> Vec<u8> {
    let length = u16::try_from(bytes).unwrap_or(u16::MAX);
    [&CHANNEL.to_be_bytes()[..], &length.to_be_bytes(), &vec![7; bytes]].concat()
}

/// A full socket loses the datagram, as any would.
fn sent(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
