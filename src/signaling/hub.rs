//! Who is signed in under which name, who is in a room or a call with whom, and what each has yet to be told.
//!
//! Names and rooms are the registry's, the way to a member is the bus's ([`crate::signaling::store`]): of what others do,
//! the hub knows what these tell it. Its own are the sessions whose connections it has: the mailbox of each, and how far
//! it is with its client's frames.
//!
//! A session ends with its connection, or, if its client can come back to it, when that hasn't happened within the grace.
//! What was not delivered by then comes back to its senders.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::away::Away;
pub use self::away::MAX_AWAY;
use self::waiting::Waiting;
use crate::address::Sources;
use crate::clock::Now;
use crate::credentials::Credentials;
use crate::credentials::SessionId;
use crate::metrics;
use crate::metrics::Gateway;
use crate::metrics::Metrics;
use crate::signaling::accounts::Account;
use crate::signaling::mailbox::Capacity;
use crate::signaling::mailbox::Delivery;
use crate::signaling::mailbox::Mailbox;
use crate::signaling::mailbox::Reader;
use crate::signaling::mailbox::Refused;
use crate::signaling::mailbox::Vocabulary;
use crate::signaling::message::Change;
use crate::signaling::message::Joined;
use crate::signaling::message::Message;
use crate::signaling::message::Payload;
use crate::signaling::message::Sender;
use crate::signaling::message::SignalKind;
use crate::signaling::message::Told;
use crate::signaling::name::Name;
use crate::signaling::secret::Secret;
use crate::signaling::secret::Token;
use crate::signaling::store::Bus;
use crate::signaling::store::Lost;
use crate::signaling::store::NoEntry;
use crate::signaling::store::Registry;
use crate::signaling::store::Undelivered;
use crate::signaling::store::memory::Mailboxes;
use crate::signaling::store::memory::Tables;

mod away;
pub mod listing;
mod rooms;
mod takeover;
pub mod waiting;

/// How many names may be banned, and how many accounts.
pub const MAX_BANNED: usize = 10_000;
/// How many members `who` tells of.
pub const MAX_WHO: usize = 500;
/// How many sessions one [`Hub::tick`] ends, and how long others have their turn until the next does.
const MAX_ENDINGS: usize = 32;
const ENDINGS_PAUSE: Duration = Duration::from_millis(1);

/// What members may do, and how long they are waited for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What may wait for one member.
    pub queue: Capacity,
    /// How long a member that is connected may give no sign of life.
    pub silence: Duration,
    /// How long a session waits for its client to come back.
    pub grace: Duration,
    /// How many rooms a member may be in.
    pub rooms: usize,
    /// How many members a room may have.
    pub room_members: usize,
    /// Whether members may ask who is signed in.
    pub who: bool,
    /// Whether members hear of who comes into their rooms and leaves them.
    pub presence: bool,
    /// What the clients' networks are: of each, only so many sessions wait.
    pub sources: Sources,
    /// What the clients know of that acknowledge nothing.
    pub vocabulary: Vocabulary,
}

/// The members signed in here.
pub struct Hub {
    settings: Settings,
    registry: Box<dyn Registry>,
    bus: Box<dyn Bus>,
    /// Never more than open connections, which have places ([`crate::places`]), and those that are away.
    sessions: HashMap<SessionId, Seat>,
    away: Away,
    /// What waits for who isn't here, if anything does.
    waiting: Option<Waiting>,
    /// Capped by [`MAX_BANNED`].
    banned: HashSet<Name>,
    credentials: Arc<Credentials>,
    metrics: Arc<Metrics>,
    /// Whom members are counted for.
    gateway: Gateway,
}

/// One session.
#[derive(Debug)]
struct Seat {
    name: Name,
    account: Arc<Account>,
    /// When it signed in, in Unix time.
    since: Duration,
    mailbox: Arc<Mailbox>,
    /// None, if it ends with its connection.
    secret: Option<Secret>,
    /// Whose its name is, if another connection may take it over.
    token: Option<Token>,
    /// The last of its client's frames, by the client's count.
    last_frame: u64,
    /// Capped by [`Settings::rooms`].
    rooms: Vec<Name>,
    /// Where its client came from.
    source: IpAddr,
    /// Until when its client may come back.
    away_until: Option<Instant>,
}

/// A session as its connection has it.
#[derive(Debug)]
pub struct Attached {
    /// What it is called.
    pub session: SessionId,
    /// Whose it is.
    pub account: Arc<Account>,
    /// What it is told.
    pub reader: Reader,
    /// What it can be taken up again by, if at all.
    pub secret: Option<Secret>,
    /// The last frame that was taken from its client.
    pub last_frame: u64,
    /// Its place in the order of joining.
    pub joined: Joined,
}

/// Why nobody may sign in by this name, or from here, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody is signed in by it.
    #[error("the name is taken")]
    NameTaken,
    /// The operator doesn't want it.
    #[error("the name is banned")]
    Banned,
    /// There is no such session, or nothing to take up where the client left off.
    #[error("no session to come back to")]
    NoSession,
}

/// Why a frame isn't acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// It was already.
    #[error("the frame came before")]
    Frame,
    /// The session goes on over another connection.
    #[error("the session goes on over another connection")]
    Connection,
}

/// Why a member is not let into a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJoined {
    /// It is in as many as it may be.
    #[error("in too many rooms already")]
    TooManyRooms,
    /// There is no room in its mailbox for who is there.
    #[error("too much waits to be read")]
    TooMuchUnread,
    /// The room says no.
    #[error(transparent)]
    NoEntry(#[from] NoEntry),
}

/// The member isn't in the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not in this room")]
pub struct NotThere;

/// No more names, or accounts, can be banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_BANNED} are banned already")]
pub struct TooManyBanned;

impl Hub {
    /// Nobody signed in, and everything in memory. Sessions begin and end with `credentials`.
    pub fn new(settings: Settings, credentials: Arc<Credentials>, metrics: Arc<Metrics>) -> Self {
        Self::over(Box::new(Tables::default()), Box::new(Mailboxes::default()), settings, credentials, metrics)
    }

    /// Nobody signed in here, with names and rooms in `registry` and others reached by `bus`.
    pub fn over(
        registry: Box<dyn Registry>,
        bus: Box<dyn Bus>,
        settings: Settings,
        credentials: Arc<Credentials>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let away = Away::new(settings.sources.clone());
        Self {
            registry,
            bus,
            sessions: HashMap::new(),
            away,
            waiting: None,
            banned: HashSet::new(),
            settings,
            credentials,
            metrics,
            gateway: Gateway::Json,
        }
    }

    /// The same, counted as another gateway's; before anybody is signed in.
    pub(super) fn count_for(&mut self, gateway: Gateway) -> &Arc<Metrics> {
        self.gateway = gateway;
        &self.metrics
    }

    /// Has other settings hold, for who is signed in too. Whoever is in more rooms than it may be, or has more waiting, stays
    /// so; what is away is waited for as long as it was told.
    pub fn configure(&mut self, settings: Settings) {
        let sessions = &self.sessions;
        self.away.regroup(settings.sources.clone(), |session| sessions.get(&session).map(|seat| seat.source));
        for seat in self.sessions.values() {
            seat.mailbox.resize(settings.queue);
        }
        self.settings = settings;
    }

    /// Signs `name` in, for `account` and a client at `source`. A session whose messages are acknowledged can be taken up
    /// again.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nothing has changed then.
    pub fn sign_in(
        &mut self,
        name: Name,
        account: Account,
        delivery: Delivery,
        source: IpAddr,
        now: Now,
    ) -> Result<Attached, Refusal> {
        if self.banned.contains(&name) {
            return Err(Refusal::Banned);
        }
        self.end_if_lost(&name, now);
        let session = SessionId::new();
        let claimed = self.registry.claim(&name, session, self.connected_until(now), now.monotonic);
        claimed.map_err(|_| Refusal::NameTaken)?;
        let Settings { queue, vocabulary, .. } = self.settings;
        let mailbox = Arc::new(Mailbox::new(name.clone(), queue, delivery, vocabulary));
        let reader = mailbox.attach(0).map_err(|_| Refusal::NoSession)?;
        let secret = (delivery == Delivery::Acknowledged).then(Secret::new);
        self.bus.open(session, Arc::clone(&mailbox));
        self.credentials.begin(session);
        self.metrics.members.increment(self.gateway);
        let account = Arc::new(account);
        let seat = Seat {
            name: name.clone(),
            account: Arc::clone(&account),
            since: now.unix,
            mailbox,
            secret: secret.clone(),
            token: None,
            last_frame: 0,
            rooms: Vec::new(),
            source,
            away_until: None,
        };
        self.sessions.insert(session, seat);
        self.hand_out(&name, now);
        Ok(Attached { session, account, reader, secret, last_frame: 0, joined: Joined::new(now.unix, session) })
    }

    /// Takes the session of `name` up again, over a connection from `source` that takes the place of an earlier one. Of what
    /// it was told its client has everything up to the message number `arrived`; the rest it is told again.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nothing has changed then, but that a session that its own client can't take up has ended.
    pub fn resume(
        &mut self,
        name: &Name,
        secret: &str,
        arrived: u64,
        source: IpAddr,
        now: Now,
    ) -> Result<Attached, Refusal> {
        let deadline = self.connected_until(now);
        let session = self.registry.holder_of(name, now.monotonic).ok_or(Refusal::NoSession)?;
        let seat = self.sessions.get_mut(&session).ok_or(Refusal::NoSession)?;
        let secret = seat.secret.clone().filter(|known| known.is(secret)).ok_or(Refusal::NoSession)?;
        // Its client has come back later over another connection that was quicker, and has said there what had come since.
        if seat.away_until.is_none() && arrived < seat.mailbox.acknowledged() {
            return Err(Refusal::NoSession);
        }
        let renewed = self.registry.renew(session, deadline, now.monotonic);
        let (Ok(()), Ok(reader)) = (renewed, seat.mailbox.attach(arrived)) else {
            self.end(session, now);
            return Err(Refusal::NoSession);
        };
        if let Some(until) = seat.away_until.take() {
            self.away.remove(until, session, seat.source);
        }
        seat.source = source;
        let (account, joined) = (Arc::clone(&seat.account), Joined::new(seat.since, session));
        Ok(Attached { session, account, reader, secret: Some(secret), last_frame: seat.last_frame, joined })
    }

    /// Notes that the connection of `session` lives.
    ///
    /// # Errors
    ///
    /// [`Lost`], when the name isn't the session's any more.
    pub fn renew(&mut self, session: SessionId, now: Now) -> Result<(), Lost> {
        let deadline = self.connected_until(now);
        self.registry.renew(session, deadline, now.monotonic)
    }

    /// Takes one frame of the session's client that came over the connection of `reader`; `frame` is its number, if it has
    /// one. As whom what it says is passed on.
    ///
    /// # Errors
    ///
    /// [`Stale`], when nothing may come of it.
    pub fn admit(&mut self, session: SessionId, reader: &Reader, frame: Option<u64>) -> Result<Sender, Stale> {
        let seat = self.sessions.get_mut(&session).filter(|_| reader.is_current()).ok_or(Stale::Connection)?;
        if let Some(frame) = frame {
            if frame <= seat.last_frame {
                return Err(Stale::Frame);
            }
            seat.last_frame = frame;
        }
        let joined = Joined::new(seat.since, session);
        Ok(Sender { name: seat.name.clone(), session, joined, frame, told: Told::default() })
    }

    /// The connection of `reader` is over. The session is, too, or waits for its client if it can and `may_return`.
    pub fn disconnect(&mut self, session: SessionId, reader: &Reader, may_return: bool, now: Now) {
        let current = self.sessions.get_mut(&session).filter(|seat| seat.away_until.is_none() && reader.is_current());
        let Some(seat) = current else { return };
        let until = now.monotonic + self.settings.grace;
        let can_return = seat.secret.is_some() && !seat.mailbox.is_cut();
        if !may_return || !can_return || self.registry.renew(session, until, now.monotonic).is_err() {
            return self.end(session, now);
        }
        seat.away_until = Some(until);
        let too_many = self.away.insert(until, session, seat.source);
        let (name, partners) = (seat.name.clone(), seat.mailbox.partners());
        for partner in partners {
            self.notify(&partner, Message::Away { from: name.clone() }, now);
        }
        if let Some(longest) = too_many {
            self.end(longest, now);
        }
    }

    /// Ends sessions whose clients were waited for long enough, as many as others have the time for, and gives up what waited
    /// itself; when there may be something to do again.
    pub fn tick(&mut self, now: Now) -> Instant {
        let given_up = self.give_up(now);
        let ended = self.end_away(now);
        given_up.map_or(ended, |next| next.min(ended))
    }

    fn end_away(&mut self, now: Now) -> Instant {
        for _ in 0..MAX_ENDINGS {
            match self.away.first() {
                // Whoever goes away from here on is waited for at least until then.
                None => return now.monotonic + self.settings.grace,
                Some((until, _)) if until > now.monotonic => return until,
                Some((_, session)) => self.end(session, now),
            }
        }
        now.monotonic + ENDINGS_PAUSE
    }

    /// Has the connection of `name` end, and the session with it; which it was, if somebody is signed in by it here.
    pub fn kick(&mut self, name: &Name, now: Now) -> Option<SessionId> {
        let session = self.registry.holder_of(name, now.monotonic)?;
        self.kick_session(session, now).then_some(session)
    }

    /// Has the connection of `session` end, and the session with it; whether it is here.
    pub fn kick_session(&mut self, session: SessionId, now: Now) -> bool {
        let Some(seat) = self.sessions.get(&session) else { return false };
        seat.mailbox.kick();
        if seat.away_until.is_some() {
            self.end(session, now);
        }
        true
    }

    /// The mailbox of every session, in no order.
    pub fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.sessions.values().map(|seat| Arc::clone(&seat.mailbox)).collect()
    }

    /// Whether a session waits for its client, which has lost its connection.
    pub fn awaits_somebody(&self) -> bool {
        self.away.first().is_some()
    }

    /// Refuses `name` from now on; who is signed in by it stays so. Whether it wasn't refused before.
    ///
    /// # Errors
    ///
    /// [`TooManyBanned`]; nothing has changed then.
    pub fn ban(&mut self, name: Name) -> Result<bool, TooManyBanned> {
        if self.banned.len() >= MAX_BANNED && !self.banned.contains(&name) {
            return Err(TooManyBanned);
        }
        Ok(self.banned.insert(name))
    }

    /// Refuses `name` no more; whether it was.
    pub fn unban(&mut self, name: &Name) -> bool {
        self.banned.remove(name)
    }

    /// Passes a step of a negotiation on. From then on the two are partners.
    ///
    /// # Errors
    ///
    /// [`Undelivered`]; nothing has changed then.
    pub fn signal(
        &mut self,
        from: Sender,
        to: &Name,
        kind: SignalKind,
        payload: Payload,
        now: Now,
    ) -> Result<(), Undelivered> {
        let session = from.session;
        self.deliver(to, Message::Signal { from, kind, payload }, now)?;
        if let Some(seat) = self.sessions.get(&session) {
            seat.mailbox.add_partner(to);
        }
        Ok(())
    }

    /// Passes an application's own message on to one member.
    ///
    /// # Errors
    ///
    /// [`Undelivered`]; nothing has changed then.
    pub fn send(&mut self, from: Sender, to: &Name, payload: Payload, now: Now) -> Result<(), Undelivered> {
        self.deliver(to, Message::Data { from, room: None, payload }, now)
    }

    /// Tells `to` that `from` left; the two are partners no more.
    ///
    /// # Errors
    ///
    /// [`Undelivered`]; nothing has changed then.
    pub fn leave(&mut self, from: &Sender, to: &Name, now: Now) -> Result<(), Undelivered> {
        self.deliver(to, Message::Leave { from: from.name.clone() }, now)?;
        if let Some(seat) = self.sessions.get(&from.session) {
            seat.mailbox.forget_partner(to);
        }
        Ok(())
    }

    /// Tells every partner that the member of `session` left.
    pub fn leave_all(&mut self, session: SessionId, now: Now) {
        let Some(seat) = self.sessions.get(&session) else { return };
        let (name, mailbox) = (seat.name.clone(), Arc::clone(&seat.mailbox));
        for partner in mailbox.partners() {
            mailbox.forget_partner(&partner);
            self.notify(&partner, Message::Gone { from: name.clone() }, now);
        }
    }

    /// The last frame that was taken from the client of `session`.
    pub fn last_frame(&self, session: SessionId) -> u64 {
        self.sessions.get(&session).map_or(0, |seat| seat.last_frame)
    }

    /// The session of `name`.
    pub fn session_of(&self, name: &Name, now: Now) -> Option<SessionId> {
        self.registry.holder_of(name, now.monotonic)
    }

    /// Signs the session out: partners and rooms learn that it is over, and senders what it didn't get.
    fn end(&mut self, session: SessionId, now: Now) {
        self.leave_all(session, now);
        let Some(seat) = self.sessions.remove(&session) else { return };
        if let Some(until) = seat.away_until {
            self.away.remove(until, session, seat.source);
        }
        for room in &seat.rooms {
            self.registry.leave(room, session);
            self.tell_room(room, &seat.name, Change::Left, now);
        }
        self.registry.release(session);
        self.bus.close(session);
        if seat.mailbox.is_cut() {
            self.forget_waiting(session);
        }
        for message in seat.mailbox.close() {
            self.report(message, &seat.name, now);
        }
        self.credentials.end(session);
        self.metrics.members.decrement(self.gateway);
        tracing::debug!(%session, "signed out");
    }

    /// Ends the session of `name` if nobody can come back to it.
    fn end_if_lost(&mut self, name: &Name, now: Now) {
        let lost = self.registry.holder_of(name, now.monotonic).filter(|session| {
            self.sessions.get(session).is_some_and(|seat| seat.away_until.is_some() && seat.mailbox.is_cut())
        });
        if let Some(lost) = lost {
            self.end(lost, now);
        }
    }

    fn deliver(&self, to: &Name, message: Message, now: Now) -> Result<(), Undelivered> {
        match self.registry.holder_of(to, now.monotonic) {
            Some(holder) => self.bring(holder, message, now),
            None => self.counted(Err(Undelivered::UnknownMember)),
        }
    }

    /// Brings a message to a session by the bus.
    fn bring(&self, to: SessionId, message: Message, now: Now) -> Result<(), Undelivered> {
        self.counted(self.bus.deliver(to, message, now.monotonic))
    }

    fn counted(&self, delivered: Result<(), Undelivered>) -> Result<(), Undelivered> {
        let outcome = match delivered {
            Ok(()) => metrics::Delivery::Queued,
            Err(Undelivered::UnknownMember) => metrics::Delivery::UnknownMember,
            Err(Undelivered::Refused(Refused::Full)) => metrics::Delivery::Overflow,
            Err(Undelivered::Refused(Refused::Unknown)) => metrics::Delivery::NotUnderstood,
        };
        self.metrics.messages.increment((self.gateway, outcome));
        delivered
    }

    /// Whoever is gone needs no notice.
    fn notify(&self, to: &Name, notice: Message, now: Now) {
        let _ = self.deliver(to, notice, now);
    }

    /// Tells a sender, if it is still there and doesn't know yet, what did not get to `to`.
    fn report(&self, message: Message, to: &Name, now: Now) {
        if let Some((sender, undelivered)) = message.undelivered(to) {
            let _ = self.bring(sender, undelivered, now);
        }
    }

    fn connected_until(&self, now: Now) -> Instant {
        now.monotonic + self.settings.silence + self.settings.grace
    }
}

#[cfg(test)]
mod tests;
