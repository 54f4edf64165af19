//! Members, all of them in one thread: pairs that send each other candidates.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use mio::Events;
use mio::Interest;
use mio::Poll;
use mio::Token;
use mio::net::TcpStream;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::cores::core_used;
use crate::process::Failure;
use crate::process::now;
use crate::servers::Kind;
use crate::servers::Server;
use crate::wire::PING;
use crate::wire::PONG;
use crate::wire::TEXT;
use crate::wire::first_frame;
use crate::wire::frame;
use crate::wire::put_time;
use crate::wire::time;
use crate::wire::upgraded;

/// How many may be signing in at a time.
const AT_ONCE: usize = 100;
/// Members that share a source address, which has ports for no more than some 28,000.
const PER_SOURCE: usize = 5_000;
/// How much one read takes.
const READ: usize = 64 << 10;
/// How long what is under way may take to come in when nothing more is sent.
const DRAIN: Duration = Duration::from_millis(300);
/// How long signing in may take without one that gets there.
const PATIENCE: Duration = Duration::from_secs(20);
/// Candidates sent one behind the other at most to make up for being late.
const CATCH_UP: usize = 16;

/// How fast members send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As fast as the server goes: each pair has one candidate under way.
    PingPong,
    /// So many a second, evenly, whatever comes in: members take turns.
    Rate(f64),
}

/// What a run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Of the server, user and system, for each candidate that arrived.
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// The part of its core that the server used.
    pub(crate) busy: f64,
    /// The part of the server's core that others had: processes, interrupts, the hypervisor.
    pub(crate) foreign: f64,
    /// The part of what was to be sent that the generator could send: 1 where there is no rate.
    pub(crate) made: f64,
    /// How long candidates were under way, in microseconds: the median, the 99th and the 99.9th percentile.
    pub(crate) delays_us: [f64; 3],
}

/// Signed-in members, in pairs.
pub(crate) struct Crowd<'a> {
    server: &'a Server,
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    buffer: Vec<u8>,
    epoch: Instant,
    sent: u64,
    delays: Vec<u64>,
}

struct Member {
    stream: TcpStream,
    phase: Phase,
    /// What came, from the beginning of a frame that isn't whole.
    unread: Vec<u8>,
    /// What the kernel hasn't taken.
    unsent: Vec<u8>,
    /// What it sends to its partner, and where the time stands in it.
    candidate: (Vec<u8>, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Upgrading,
    SigningIn,
    SignedIn,
}

impl<'a> Crowd<'a> {
    /// Signs in so many members.
    pub(crate) fn gather(server: &'a Server, count: usize) -> Result<Self, Failure> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(1024));
        let (members, buffer) = (Vec::with_capacity(count), vec![0; READ]);
        let mut crowd = Self { server, poll, events, members, buffer, epoch: now(), sent: 0, delays: Vec::new() };
        let (mut signed_in, mut heard) = (0, now());
        while signed_in < count {
            while crowd.members.len() < count && crowd.members.len() - signed_in < AT_ONCE {
                crowd.connect()?;
            }
            let before = signed_in;
            crowd.poll(Some(Duration::from_millis(100)), |_, phase, _| {
                signed_in += usize::from(phase == Phase::SigningIn)
            })?;
            if signed_in > before {
                heard = now();
            } else if now() - heard > PATIENCE {
                return Err(format!("{} members of {count} signed in", signed_in).into());
            }
        }
        Ok(crowd)
    }

    /// Has them send for a while.
    pub(crate) fn run(&mut self, pace: Pace, time: Duration) -> Result<Outcome, Failure> {
        self.sent = 0;
        self.delays.clear();
        let (core, cpu, began) = (core_used()?, self.server.process.cpu()?, now());
        let (ended, made) = match pace {
            Pace::PingPong => (self.ping_pong(began + time)?, 1.0),
            Pace::Rate(per_second) => self.at_rate(per_second, time)?,
        };
        let used = (self.server.process.cpu()? - cpu).as_secs_f64();
        let core = core_used()?.saturating_sub(core).as_secs_f64();
        // Waiting for what doesn't come any more is none of it.
        let (took, received) = ((ended - began).max(time).as_secs_f64(), self.delays.len() as u64);
        Ok(Outcome {
            cpu_us: used * 1e6 / received.max(1) as f64,
            per_second: received as f64 / took,
            sent: self.sent,
            received,
            busy: used / took,
            foreign: (core - used).max(0.0) / took,
            made,
            delays_us: percentiles(&mut self.delays),
        })
    }

    /// When the last one came in.
    fn ping_pong(&mut self, end: Instant) -> Result<Instant, Failure> {
        for member in (0..self.members.len()).step_by(2) {
            self.send(member)?;
        }
        let (mut back, mut heard) = (Vec::new(), now());
        loop {
            self.hear(Some(Duration::from_millis(10)), |member| back.push(member))?;
            let at = now();
            if !back.is_empty() {
                heard = at;
            } else if at >= end.max(heard) + DRAIN {
                return Ok(heard);
            }
            for member in back.drain(..).filter(|_| at < end) {
                self.send(member)?;
            }
        }
    }

    /// When the last one came in, and which part of what was to be sent could be.
    fn at_rate(&mut self, per_second: f64, time: Duration) -> Result<(Instant, f64), Failure> {
        let pause = Duration::from_secs(1).div_f64(per_second);
        let begin = now();
        let (end, mut heard, mut made) = (begin + time, begin, 0_usize);
        loop {
            let at = now();
            if at < end {
                let due = 1 + usize::try_from((at - begin).as_nanos() / pause.as_nanos())?;
                for number in (made..due).take(CATCH_UP) {
                    self.send(number % self.members.len())?;
                    made += 1;
                }
            }
            let mut count = 0;
            self.hear(Some(Duration::ZERO), |_| count += 1)?;
            if count > 0 {
                heard = at;
            } else if at >= end.max(heard) + DRAIN {
                return Ok((heard, made as f64 * pause.as_secs_f64() / time.as_secs_f64()));
            }
        }
    }

    /// Notes how long each candidate that came was under way, and says whose it was.
    fn hear(&mut self, timeout: Option<Duration>, mut each: impl FnMut(usize)) -> Result<(), Failure> {
        let (epoch, mut delays) = (self.epoch, std::mem::take(&mut self.delays));
        let mut stranger = None;
        self.poll(timeout, |member, _, text| match time(text) {
            Some(sent) => {
                delays.push(nanos(epoch).saturating_sub(sent));
                each(member);
            }
            None => stranger = Some(String::from_utf8_lossy(text).into_owned()),
        })?;
        self.delays = delays;
        stranger.map_or(Ok(()), |text| Err(text.into()))
    }

    /// Sends a member's candidate to its partner.
    fn send(&mut self, member: usize) -> Result<(), Failure> {
        let nanos = nanos(self.epoch);
        let member = self.members.get_mut(member).ok_or("no such member")?;
        let (mut frame, at) = std::mem::take(&mut member.candidate);
        put_time(&mut frame, at, nanos);
        let written = member.write(&frame);
        member.candidate = (frame, at);
        self.sent += 1;
        written
    }

    fn connect(&mut self) -> Result<(), Failure> {
        let number = self.members.len();
        let host = u8::try_from(1 + number / PER_SOURCE)?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 1, host), 0)).into())?;
        socket.connect(&self.server.plain.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        // Closing resets, and leaves no port behind that the next round would have to pass by.
        socket.set_linger(Some(Duration::ZERO))?;
        let mut stream = TcpStream::from_std(socket.into());
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let candidate = self.server.kind.candidate(number ^ 1);
        let mut member = Member { stream, phase: Phase::Upgrading, unread: Vec::new(), unsent: Vec::new(), candidate };
        member.write(self.server.kind.upgrade(number).as_bytes())?;
        self.members.push(member);
        Ok(())
    }

    /// Waits for something to come, and hands over each text, with whose it is and the phase that the member was in.
    fn poll(&mut self, timeout: Option<Duration>, mut each: impl FnMut(usize, Phase, &[u8])) -> Result<(), Failure> {
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &self.events {
            let Token(number) = event.token();
            let Some(member) = self.members.get_mut(number) else { continue };
            if event.is_writable() && !member.unsent.is_empty() {
                member.write(&[])?;
            }
            if event.is_readable() {
                member.read(self.server.kind, number, &mut self.buffer, |phase, text| each(number, phase, text))?;
            }
        }
        Ok(())
    }
}

impl Member {
    /// Reads all there is.
    fn read(
        &mut self,
        kind: Kind,
        number: usize,
        buffer: &mut [u8],
        mut each: impl FnMut(Phase, &[u8]),
    ) -> Result<(), Failure> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Err(format!("{} closed a member's connection", kind.name()).into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let came = buffer.get(..count).unwrap_or_default();
            if self.unread.is_empty() {
                let taken = self.take(kind, number, came, &mut each)?;
                self.unread.extend_from_slice(came.get(taken..).unwrap_or_default());
            } else {
                let mut unread = std::mem::take(&mut self.unread);
                unread.extend_from_slice(came);
                let taken = self.take(kind, number, &unread, &mut each)?;
                unread.drain(..taken);
                self.unread = unread;
            }
            // A read that isn't filled has emptied the socket (epoll(7)).
            if count < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Takes what is whole; how much that was.
    fn take(
        &mut self,
        kind: Kind,
        number: usize,
        bytes: &[u8],
        each: &mut impl FnMut(Phase, &[u8]),
    ) -> Result<usize, Failure> {
        let mut taken = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = upgraded(bytes)? else { return Ok(0) };
            taken = end;
            self.phase = Phase::SigningIn;
            self.write(&kind.login(number).unwrap_or_default())?;
        }
        while let Some((opcode, payload)) = first_frame(bytes.get(taken..).unwrap_or_default()) {
            let whole = bytes.get(taken..taken + payload.end).unwrap_or_default();
            let payload = whole.get(payload).unwrap_or_default();
            taken += whole.len();
            match opcode {
                TEXT if self.phase == Phase::SigningIn && !kind.is_welcome(payload) => {
                    return Err(String::from_utf8_lossy(payload).into_owned().into());
                }
                TEXT => each(std::mem::replace(&mut self.phase, Phase::SignedIn), payload),
                PING => self.write(&frame(PONG, payload))?,
                other => return Err(format!("{} sent a frame of kind {other}: {payload:?}", kind.name()).into()),
            }
        }
        Ok(taken)
    }

    /// Writes what was left and then `bytes`, as much as the kernel takes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            let unsent = std::mem::take(&mut self.unsent);
            let count = written(&mut self.stream, &unsent)?;
            self.unsent.extend_from_slice(unsent.get(count..).unwrap_or_default());
            return Ok(());
        }
        let count = written(&mut self.stream, bytes)?;
        self.unsent.extend_from_slice(bytes.get(count..).unwrap_or_default());
        Ok(())
    }
}

fn written(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize, Failure> {
    match stream.write(bytes) {
        Ok(count) => Ok(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Nanoseconds since `epoch`.
fn nanos(epoch: Instant) -> u64 {
    u64::try_from((now() - epoch).as_nanos()).unwrap_or(u64::MAX)
}

/// The median, the 99th and the 99.9th percentile, in microseconds.
pub(crate) fn percentiles(nanos: &mut [u64]) -> [f64; 3] {
    nanos.sort_unstable();
    [500, 990, 999].map(|per_mille| {
        let at = nanos.get(nanos.len() * per_mille / 1000);
        at.map_or(f64::NAN, |nanos| *nanos as f64 / 1e3)
    })
}
