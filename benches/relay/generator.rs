//! The load: one thread that is all clients and all peers.

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use super::clients::CHANNEL;
use super::clients::Clients;
use super::datagrams::Counts;
use super::datagrams::Datagrams;
use super::datagrams::Peers;
use super::datagrams::unread;
use super::streams::Streams;
use crate::cores::core_used;
use crate::servers::Failure;
use crate::servers::Pair;
use crate::servers::Server;
use crate::servers::now;

/// How long what is under way may take to come in when nothing more is sent.
const DRAIN: Duration = Duration::from_millis(200);
/// Nothing has come in for so long: what was under way is lost, and is sent anew.
const STALL: Duration = Duration::from_millis(50);
/// Datagrams sent one behind the other at most to make up for being late.
const CATCH_UP: u32 = 8;
/// Rates that are tried to find saturation, each halving what is left; for how long, and how often one that fails.
const STEPS: usize = 5;
const STEP: Duration = Duration::from_millis(250);
const TRIES: usize = 2;
/// The part of a rate that the generator has to send for the rate to be called that.
pub(crate) const KEPT_UP: f64 = 0.99;

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) flow: Flow,
    pub(crate) over: Transport,
    pub(crate) clients: u16,
    /// Of a payload, at least 8.
    pub(crate) bytes: usize,
}

/// Between whom data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// From a client to a peer that sends it back.
    Echo,
    /// From a client to another client.
    Pairs,
    /// From a client to a peer.
    ToPeers,
    /// From a peer to a client.
    ToClients,
    /// Each client in turn to a peer, and from a peer.
    BothWays,
    /// Binding requests, with no allocation.
    Binding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// How fast.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As fast as the server goes: each client has so many under way.
    Windows(usize),
    /// So many relayed datagrams a second, evenly in bursts of so many, whatever comes in.
    Rate { per_second: f64, burst: u32 },
}

/// What a run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Of the server, user and system, for each datagram that came through.
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    pub(crate) sent: u64,
    /// How many the server didn't bring through.
    pub(crate) lost: u64,
    /// How many of those its listeners were too full for, and how many its relay sockets.
    pub(crate) lost_at: [u64; 2],
    /// How many it did, and our own sockets dropped.
    pub(crate) unread: u64,
    /// The part of its core that the server used.
    pub(crate) busy: f64,
    /// The part of the server's core that others had: processes, interrupts, the hypervisor.
    pub(crate) foreign: f64,
    /// The part of what was to be sent that the generator could send: 1 where there is no rate.
    pub(crate) made: f64,
    /// How long what came for clients was under way, in microseconds: the median, the 99th and the 99.9th percentile.
    pub(crate) delays_us: [f64; 3],
}

/// A scenario, set up: it may run more than once.
pub(crate) struct Load<'a> {
    server: &'a Server,
    shape: Shape,
    clients: Clients,
    peers: Peers,
    relayed: Vec<SocketAddr>,
    counts: Counts,
    /// Of each datagram that came for a client, where there is a rate, in nanoseconds.
    delays: Vec<u64>,
    /// What the time stamps in datagrams count from.
    epoch: Instant,
}

impl<'a> Load<'a> {
    /// Allocates and binds what the scenario needs; `number` keeps its clients apart from those of others.
    pub(crate) fn start(server: &'a Server, pair: &Pair, shape: Shape, number: u8) -> Result<Self, Failure> {
        let mut clients = match shape.over {
            Transport::Udp => Clients::Udp(Box::new(Datagrams::new(server.addr, shape.clients, 10 + number)?)),
            Transport::Tcp => Clients::Streams(Streams::tcp(server.addr, shape.clients)?),
            Transport::Tls => Clients::Streams(Streams::tls(server.tls, shape.clients, pair)?),
        };
        let peers = Peers::new()?;
        let relayed = match shape.flow {
            Flow::Binding => Vec::new(),
            Flow::Pairs => clients.allocate(None)?,
            Flow::Echo | Flow::ToPeers | Flow::ToClients | Flow::BothWays => clients.allocate(Some(peers.addr()))?,
        };
        let (counts, delays, epoch) = (Counts::default(), Vec::new(), now());
        Ok(Self { server, shape, clients, peers, relayed, counts, delays, epoch })
    }

    /// Loads the server for a while.
    pub(crate) fn run(&mut self, pace: Pace, time: Duration) -> Result<Outcome, Failure> {
        self.counts = Counts::default();
        self.delays.clear();
        let (before, core, cpu, began) = (self.all_unread()?, core_used()?, self.server.cpu()?, now());
        let (ended, made) = match pace {
            Pace::Windows(window) => (self.in_windows(window, time)?, 1.0),
            Pace::Rate { per_second, burst } => self.at_rate(per_second, burst, time)?,
        };
        // Waiting for what doesn't come any more is none of it.
        let took = (ended - began).max(time).as_secs_f64();
        let (used, core) = ((self.server.cpu()? - cpu).as_secs_f64(), core_used()?.saturating_sub(core).as_secs_f64());
        let [ours, listener, relays] = self.all_unread()?;
        let (unread, lost_at) = (ours - before[0], [listener - before[1], relays - before[2]]);
        let Counts { sent, received } = self.counts;
        let through = received.max(1) as f64;
        Ok(Outcome {
            cpu_us: used * 1e6 / through,
            per_second: through / took,
            sent,
            lost: sent.saturating_sub(received + unread),
            lost_at,
            unread,
            busy: used / took,
            foreign: (core - used).max(0.0) / took,
            made,
            delays_us: self.percentiles(),
        })
    }

    /// The highest rate, paced evenly and of at most `most` a second, at which nothing is lost and the generator keeps up.
    pub(crate) fn saturation(&mut self, most: f64) -> Result<f64, Failure> {
        let (mut carried, mut too_much) = (0.0, most);
        for _ in 0..STEPS {
            let rate = (carried + too_much) / 2.0;
            let mut is_carried = false;
            for _ in 0..TRIES {
                // What others take of the core for a moment fails a step, and hardly two of them.
                if !is_carried {
                    let outcome = self.run(Pace::Rate { per_second: rate, burst: 1 }, STEP)?;
                    is_carried = outcome.lost + outcome.unread == 0 && outcome.made >= KEPT_UP;
                }
            }
            *(if is_carried { &mut carried } else { &mut too_much }) = rate;
        }
        Ok(carried)
    }

    /// Keeps `window` datagrams of each client under way; when the last one came in.
    fn in_windows(&mut self, window: usize, time: Duration) -> Result<Instant, Failure> {
        let message = self.message();
        let end = now() + time;
        self.fill_windows(&message, window)?;
        let (mut heard, mut back) = (now(), Vec::new());
        loop {
            let (at, before) = (now(), self.counts.received);
            self.serve_peers()?;
            self.serve_clients(|client, _| back.push(client))?;
            for client in back.drain(..).filter(|_| at < end) {
                self.send(client, &message)?;
            }
            if self.counts.received > before {
                heard = at;
            } else if at >= end && at >= heard + DRAIN {
                return Ok(heard);
            } else if at < end && at >= heard + STALL {
                self.fill_windows(&message, window)?;
                heard = at;
            }
        }
    }

    fn fill_windows(&mut self, message: &[u8], window: usize) -> Result<(), Failure> {
        for _ in 0..window {
            for client in 0..self.clients.count() {
                self.send(client, message)?;
            }
        }
        Ok(())
    }

    /// Offers so many a second; when the last one came in, and which part could be sent.
    fn at_rate(&mut self, per_second: f64, burst: u32, time: Duration) -> Result<(Instant, f64), Failure> {
        let hops = if self.shape.flow == Flow::Echo { 2.0 } else { 1.0 };
        let pause = Duration::from_secs(1).mul_f64(f64::from(burst) * hops / per_second);
        let (mut framed, mut plain) = (self.message(), vec![7; self.shape.bytes]);
        // A Binding request has its time in its transaction ID, which comes back.
        let stamp = if self.shape.flow == Flow::Binding { 8 } else { 4 };
        let begin = now();
        let (end, epoch, mut heard, mut made) = (begin + time, self.epoch, begin, 0_usize);
        loop {
            let (at, before) = (now(), self.counts.received);
            if at < end {
                let due = 1 + usize::try_from((at - begin).as_nanos() / pause.as_nanos())?;
                for number in (made..due).take((CATCH_UP / burst).max(1) as usize) {
                    put_time(&mut framed, stamp, epoch);
                    put_time(&mut plain, 0, epoch);
                    self.offer(number, burst, &framed, &plain)?;
                    made += 1;
                }
            }
            self.serve_peers()?;
            let mut delays = std::mem::take(&mut self.delays);
            self.serve_clients(|_, data| delays.extend(delay(data, stamp, epoch)))?;
            self.delays = delays;
            if self.counts.received > before {
                heard = at;
            } else if at >= end.max(heard) + DRAIN {
                return Ok((heard, made as f64 * pause.as_secs_f64() / time.as_secs_f64()));
            }
        }
    }

    /// Sends the burst of this number: clients take turns.
    fn offer(&mut self, number: usize, burst: u32, framed: &[u8], plain: &[u8]) -> Result<(), Failure> {
        let (turn, client) = (number / self.clients.count(), number % self.clients.count());
        let from_client = match self.shape.flow {
            Flow::Echo | Flow::Pairs | Flow::ToPeers | Flow::Binding => true,
            Flow::ToClients => false,
            Flow::BothWays => (turn + client).is_multiple_of(2),
        };
        for _ in 0..burst {
            if from_client {
                self.send(client, framed)?;
            } else {
                let relayed = *self.relayed.get(client).ok_or("no relayed address")?;
                self.counts.sent += u64::from(self.peers.send(relayed, plain)?);
            }
        }
        Ok(())
    }

    fn send(&mut self, client: usize, message: &[u8]) -> Result<(), Failure> {
        self.counts.sent += u64::from(self.clients.send(client, message)?);
        Ok(())
    }

    /// Counts what came for clients, and hands it over.
    fn serve_clients(&mut self, mut each: impl FnMut(usize, &[u8])) -> Result<(), Failure> {
        let [expected, _] = if self.shape.flow == Flow::Binding { [1, 1] } else { CHANNEL.to_be_bytes() };
        self.clients.receive(|client, data| {
            if data.first() == Some(&expected) {
                self.counts.received += 1;
                each(client, data);
            }
        })
    }

    fn serve_peers(&mut self) -> Result<(), Failure> {
        if !matches!(self.shape.flow, Flow::Echo | Flow::ToPeers | Flow::BothWays) {
            return Ok(());
        }
        self.peers.receive(self.shape.flow == Flow::Echo, &mut self.counts)
    }

    /// What a client sends.
    fn message(&self) -> Vec<u8> {
        if self.shape.flow == Flow::Binding {
            return b"\x00\x01\x00\x00\x21\x12\xA4\x42transaction!".to_vec();
        }
        let length = u16::try_from(self.shape.bytes).unwrap_or(u16::MAX);
        [&CHANNEL.to_be_bytes()[..], &length.to_be_bytes(), &vec![7; self.shape.bytes]].concat()
    }

    /// What the kernel has dropped at our own sockets, at the server's listener, and at its relay sockets.
    fn all_unread(&self) -> Result<[u64; 3], Failure> {
        let clients = match &self.clients {
            Clients::Udp(clients) => Some(clients.number()),
            Clients::Streams(_) => None,
        };
        let ours = unread(clients.into_iter().chain([self.peers.number()]))?;
        Ok([ours, unread([self.server.addr.port()])?, unread(self.relayed.iter().map(SocketAddr::port))?])
    }

    fn percentiles(&mut self) -> [f64; 3] {
        self.delays.sort_unstable();
        [500, 990, 999].map(|per_mille| {
            let delay = self.delays.get(self.delays.len() * per_mille / 1000);
            delay.map_or(f64::NAN, |nanos| *nanos as f64 / 1e3)
        })
    }
}

/// Nanoseconds since `epoch`.
fn nanos(epoch: Instant) -> u64 {
    u64::try_from((now() - epoch).as_nanos()).unwrap_or(u64::MAX)
}

fn put_time(message: &mut [u8], at: usize, epoch: Instant) {
    if let Some(place) = message.get_mut(at..at + 8) {
        place.copy_from_slice(&nanos(epoch).to_be_bytes());
    }
}

/// For how long a message has been under way, in nanoseconds.
fn delay(message: &[u8], at: usize, epoch: Instant) -> Option<u64> {
    let sent = message.get(at..)?.first_chunk()?;
    Some(nanos(epoch).saturating_sub(u64::from_be_bytes(*sent)))
}
