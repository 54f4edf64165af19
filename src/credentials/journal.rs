//! What became of each signaling session at the relay, and of each relay without one: until it can be told in a line.
//!
//! Signaling enters who signs in and out, TURN what it was asked for with their credentials, and whoever keeps the log takes
//! what is over ([`Journal::tick`]). Only a session that lives and an allocation that lives have a place here: nothing that
//! a stranger sends takes one.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use ring::hmac;

use self::verdict::Verdict;
use super::SessionId;
use crate::address::Transport;
use crate::clock::Now;
use crate::metrics::DropReason;
use crate::metrics::Gateway;

pub mod verdict;

/// How often [`Journal::tick`] is due.
pub const TICK: Duration = Duration::from_millis(500);
/// Ticks that the data plane has to count its last packets in, once it was told that an allocation is over.
const LAST_PACKETS: u64 = 2;
/// Allocations that wait for that; beyond, what is counted by then is told.
const MAX_CLOSING: usize = 1 << 14;
/// What is over and waits to be told; beyond, it is only counted.
const MAX_OVER: usize = 2048;
/// Different refusals that are remembered of one session; beyond, those that came first.
const MAX_REFUSALS: usize = 8;
/// Bytes of a name's hash in the log.
const TAG_BYTES: usize = 8;

/// Sessions and relays that are not over, and those that wait to be told of.
pub struct Journal {
    names: hmac::Key,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    /// Nothing is entered before.
    is_kept: bool,
    /// Capped with the sessions that live and the allocations that live or close.
    records: HashMap<Key, Record>,
    /// Allocations that are over, each with the tick that it came behind. Capped by [`MAX_CLOSING`].
    closing: VecDeque<(u64, Key, u64)>,
    /// Capped by [`MAX_OVER`].
    over: VecDeque<Verdict>,
    untold: u64,
    strangers: Strangers,
    ticks: u64,
    last_tick: Option<Now>,
    relays: u64,
}

/// What is told of together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(Place);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// A session, and all that was allocated with its credentials while it lived.
    Session(SessionId),
    /// What one Allocate request opened, by number.
    Relay(u64),
}

/// What counts for one allocation.
pub trait Meter: Send + Sync {
    /// What it stands at.
    fn read(&self) -> Carried;
}

/// What was relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Packets from the client.
    pub packets_sent: u64,
    /// Bytes of payload in them.
    pub sent: u64,
    /// Packets to the client.
    pub packets_received: u64,
    /// Bytes of payload in them.
    pub received: u64,
    /// Packets from the client that went nowhere.
    pub lost: u64,
    /// Why the last of them didn't.
    pub lost_for: Option<DropReason>,
}

impl Carried {
    fn add(&mut self, more: Self) {
        self.packets_sent += more.packets_sent;
        self.sent += more.sent;
        self.packets_received += more.packets_received;
        self.received += more.received;
        self.lost += more.lost;
        self.lost_for = more.lost_for.or(self.lost_for);
    }
}

/// Why something wasn't granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Who asks has not proven to be whom the credential is for, or that is good for nothing; in words.
    Proof(&'static str),
    /// A peer that the policy denies.
    Peer {
        /// By which denial, in words.
        why: &'static str,
        /// Which: only an address that is nobody's on the internet, for it goes into the log.
        peer: Option<IpAddr>,
    },
    /// Anything else, in words.
    Other(&'static str),
}

impl Refusal {
    /// Whether another is the same, whichever peer it is about.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Peer { why, .. }, Self::Peer { why: other, .. }) => why == other,
            (Self::Proof(why), Self::Proof(other)) | (Self::Other(why), Self::Other(other)) => why == other,
            (Self::Proof(_) | Self::Peer { .. } | Self::Other(_), _) => false,
        }
    }
}

/// A name as the log has it: the same for the same name, and worth nothing to who hasn't got the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag([u8; TAG_BYTES]);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whose something was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A member's.
    Member {
        /// Its session.
        session: SessionId,
        /// What it signed in by.
        gateway: Gateway,
        /// Its name.
        name: Tag,
    },
    /// A TURN user's, without a session.
    User(Tag),
}

/// What became of a session or a relay so far.
struct Record {
    whose: Whose,
    began: Now,
    /// Of a session: when it signed out.
    ended: Option<Now>,
    /// What it had to do with TURN: nothing, for most.
    dealings: Option<Box<Dealings>>,
}

/// What somebody asked TURN for, and got.
#[derive(Default)]
struct Dealings {
    /// Allocations whose last packets aren't counted yet, by number, and what counts for them.
    open: Vec<(u64, Arc<dyn Meter>)>,
    relays: u32,
    /// Whether some were over UDP, TCP and TLS.
    over: [bool; 3],
    peers: u32,
    carried: Carried,
    /// Each with how often. Capped by [`MAX_REFUSALS`].
    refusals: Vec<(Refusal, u32)>,
}

/// What there is to tell.
#[derive(Debug, Default)]
pub struct News {
    /// What is over.
    pub verdicts: Vec<Verdict>,
    /// How much more is, too much to tell of each.
    pub untold: u64,
    /// What was refused to those who have no place here.
    pub strangers: Strangers,
}

/// Requests with credentials such as ours are, of nobody who is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strangers {
    /// With a wrong password.
    pub wrong: u64,
    /// With the right one, too late.
    pub expired: u64,
}

impl Journal {
    /// An empty one, whose tags nobody can make who hasn't got `secret`.
    pub(super) fn new(secret: &[u8]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let names = hmac::sign(&secret, b"names in the log of throughway");
        Self { names: hmac::Key::new(hmac::HMAC_SHA256, names.as_ref()), pages: Mutex::default() }
    }

    /// Begins to keep it: what was before is not told of.
    pub fn open(&self, now: Now) {
        let mut pages = self.pages();
        (pages.is_kept, pages.last_tick) = (true, Some(now));
    }

    /// A name as the log has it.
    pub fn tag(&self, name: &str) -> Tag {
        let mut tag = [0; TAG_BYTES];
        tag.iter_mut().zip(hmac::sign(&self.names, name.as_bytes()).as_ref()).for_each(|(byte, of)| *byte = *of);
        Tag(tag)
    }

    /// Somebody has signed in by `gateway` as `name`, or goes on with a session.
    pub fn signed_in(&self, session: SessionId, gateway: Gateway, name: &str, now: Now) {
        let whose = Whose::Member { session, gateway, name: self.tag(name) };
        let mut pages = self.pages();
        if pages.is_kept {
            let record = Record { whose, began: now, ended: None, dealings: None };
            pages.records.entry(Key(Place::Session(session))).or_insert(record);
        }
    }

    /// A session is over.
    pub(super) fn signed_out(&self, session: SessionId) {
        let (mut pages, key) = (self.pages(), Key(Place::Session(session)));
        let now = pages.last_tick;
        if let Some(record) = pages.records.get_mut(&key) {
            record.ended = now;
            pages.close_if_over(key);
        }
    }

    /// Where what is opened with a credential belongs: to `session`, if that is known here, else to itself; `user` is whose
    /// the credential is.
    pub fn place(&self, session: Option<SessionId>, user: &str, now: Now) -> Option<Key> {
        let mut pages = self.pages();
        if let Some(key) = pages.of_session(session) {
            return Some(key);
        }
        if !pages.is_kept {
            return None;
        }
        pages.relays += 1;
        let key = Key(Place::Relay(pages.relays));
        let record = Record { whose: Whose::User(self.tag(user)), began: now, ended: Some(now), dealings: None };
        pages.records.insert(key, record);
        Some(key)
    }

    /// Where what is asked with a credential of `session` belongs, if that is known here.
    pub fn of_session(&self, session: Option<SessionId>) -> Option<Key> {
        self.pages().of_session(session)
    }

    /// Gives up a place that nothing was opened in.
    pub fn leave(&self, key: Key) {
        let mut pages = self.pages();
        let is_empty = |record: &Record| record.dealings.as_ref().is_none_or(|it| it.relays == 0);
        if matches!(key.0, Place::Relay(_)) && pages.records.get(&key).is_some_and(is_empty) {
            pages.records.remove(&key);
        }
    }

    /// The allocation `id` has begun; what is relayed for it counts in `meter`.
    pub fn opened(&self, key: Key, id: u64, transport: Transport, meter: Arc<dyn Meter>) {
        self.pages().with(key, |dealings| {
            let [udp, tcp, tls] = &mut dealings.over;
            let over = match transport {
                Transport::Udp => udp,
                Transport::Tcp => tcp,
                Transport::Tls => tls,
            };
            *over = true;
            dealings.open.push((id, meter));
            dealings.relays = dealings.relays.saturating_add(1);
        });
    }

    /// An allocation may exchange data with so many more peers.
    pub fn met(&self, key: Key, peers: u32) {
        self.pages().with(key, |dealings| dealings.peers = dealings.peers.saturating_add(peers));
    }

    /// Something wasn't granted.
    pub fn refused(&self, key: Key, refusal: Refusal) {
        self.pages().with(key, |Dealings { refusals, .. }| {
            if let Some((_, times)) = refusals.iter_mut().find(|(known, _)| known.is_like(&refusal)) {
                *times = times.saturating_add(1);
            } else if refusals.len() < MAX_REFUSALS {
                refusals.push((refusal, 1));
            }
        });
    }

    /// Somebody without a place here used a credential such as ours are, with a wrong password or too late.
    pub fn refused_stranger(&self, has_expired: bool) {
        let Strangers { wrong, expired } = &mut self.pages().strangers;
        let count = if has_expired { expired } else { wrong };
        *count = count.saturating_add(1);
    }

    /// The allocation `id` is over; its last packets may still be on their way into what counts them.
    pub fn closed(&self, key: Key, id: u64) {
        let mut pages = self.pages();
        if !pages.records.contains_key(&key) {
            return;
        }
        if pages.closing.len() >= MAX_CLOSING {
            return pages.settle(key, id);
        }
        let ticks = pages.ticks;
        pages.closing.push_back((ticks, key, id));
    }

    /// What is over since the last time.
    pub fn tick(&self, now: Now) -> News {
        let mut pages = self.pages();
        (pages.ticks, pages.last_tick) = (pages.ticks + 1, Some(now));
        let due = pages.ticks;
        while let Some((_, key, id)) = pages.closing.pop_front_if(|(since, ..)| *since + LAST_PACKETS <= due) {
            pages.settle(key, id);
        }
        pages.news()
    }

    /// What is over because everything is.
    pub fn end(&self, now: Now) -> News {
        let mut pages = self.pages();
        (pages.is_kept, pages.last_tick) = (false, Some(now));
        pages.closing.clear();
        for record in std::mem::take(&mut pages.records).into_values() {
            pages.tell(record);
        }
        pages.news()
    }

    /// How much is kept: records, what closes, what waits to be told.
    #[cfg(test)]
    fn size(&self) -> (usize, usize, usize) {
        let pages = self.pages();
        (pages.records.len(), pages.closing.len(), pages.over.len())
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn of_session(&self, session: Option<SessionId>) -> Option<Key> {
        session.map(|session| Key(Place::Session(session))).filter(|key| self.records.contains_key(key))
    }

    fn with(&mut self, key: Key, note: impl FnOnce(&mut Dealings)) {
        if let Some(record) = self.records.get_mut(&key) {
            note(record.dealings.get_or_insert_default());
        }
    }

    /// Counts what an allocation has carried in all.
    fn settle(&mut self, key: Key, id: u64) {
        self.with(key, |dealings| {
            for (_, meter) in dealings.open.extract_if(.., |(open, _)| *open == id) {
                dealings.carried.add(meter.read());
            }
        });
        self.close_if_over(key);
    }

    fn close_if_over(&mut self, key: Key) {
        let is_over = |record: &Record| {
            record.ended.is_some() && record.dealings.as_ref().is_none_or(|dealings| dealings.open.is_empty())
        };
        if !self.records.get(&key).is_some_and(is_over) {
            return;
        }
        if let Some(record) = self.records.remove(&key) {
            self.tell(record);
        }
    }

    fn tell(&mut self, record: Record) {
        match self.last_tick {
            Some(now) if self.over.len() < MAX_OVER => self.over.push_back(Verdict::of(record, now)),
            Some(_) | None => self.untold += 1,
        }
    }

    fn news(&mut self) -> News {
        News {
            verdicts: std::mem::take(&mut self.over).into(),
            untold: std::mem::take(&mut self.untold),
            strangers: std::mem::take(&mut self.strangers),
        }
    }
}

#[cfg(test)]
mod tests;
