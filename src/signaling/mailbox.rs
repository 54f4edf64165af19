//! A member's bounded queue of messages, and the partners it hears of: whoever fills it is never held back.
//!
//! A message leaves it when its reader takes it, or, for members that acknowledge, when it is acknowledged: until then
//! every connection that takes the place of an earlier one begins with what that one may not have got.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::signaling::message::Message;
use crate::signaling::name::Name;

/// How much may wait for one member: at least one message, however large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// In messages.
    pub messages: usize,
    /// In bytes of what they carry.
    pub bytes: usize,
}

/// When a message has done its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Once it is taken. Whoever leaves the mailbox full for long is closed.
    Once,
    /// Once it is acknowledged.
    Acknowledged,
}

/// What the clients of a gateway know of that acknowledge nothing, besides signals and that somebody leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// Applications' own messages.
    pub data: bool,
    /// Who comes into their rooms and leaves them.
    pub presence: bool,
    /// What of their own didn't get there.
    pub undelivered: bool,
}

/// How many partners a member is known to have; beyond, the earliest is forgotten, whose leaving is then not told.
///
/// More than the connections that one source may have by default, so that no single stranger can push out the others.
pub const MAX_PARTNERS: usize = 256;
/// How long nothing may be taken from a mailbox that is full, before a member that doesn't acknowledge counts as stalled: a
/// prompt reader, too, finds it full when others are faster than its task.
const STALLED: Duration = Duration::from_secs(1);
/// How many notices may wait before the member isn't told any more of who comes into its rooms and leaves them, but only
/// that this is so: others could go on with that for ever.
const MOST_WITH_PRESENCE: usize = 1024;
/// How many notices may wait, beside the capacity. Beyond the above, more than a member has partners, and than it can send
/// by default while its recipients are waited for: each of those frames may come back as undelivered.
const NOTICES: usize = MOST_WITH_PRESENCE + 2048;

/// What waits for one member. The hub fills it, the member's connection empties it.
#[derive(Debug)]
pub struct Mailbox {
    name: Name,
    delivery: Delivery,
    vocabulary: Vocabulary,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    capacity: Capacity,
    /// Capped by the capacity and [`NOTICES`], and one message each more that a single one may take.
    queue: VecDeque<Message>,
    /// How many in it are notices.
    notices: usize,
    /// What the others carry.
    bytes: usize,
    /// How many of the queue's first this connection took.
    taken: usize,
    /// How many of them any connection took.
    known: usize,
    /// How many have left the queue: the first in it is the next in number.
    acknowledged: u64,
    /// The first time that something was put in since something was taken.
    untaken: Option<Instant>,
    /// Capped by [`MAX_PARTNERS`].
    partners: Vec<Partner>,
    missed: Missed,
    cut: Option<Cut>,
    /// How many connections there have been.
    connection: u64,
    waker: Option<Waker>,
}

/// Whom the member is in a call with.
#[derive(Debug)]
struct Partner {
    name: Name,
    /// It lost its connection, which the member was told as if it had left. It may come back, and then it wants to hear of
    /// the member's own leaving.
    is_away: bool,
}

/// Whether the member missed what happened in its rooms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Missed {
    #[default]
    Nothing,
    /// That it did is in the queue.
    Queued,
    /// The same, and more may have happened since it was told.
    Again,
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The member doesn't read as fast as it is written to.
    #[error("too much is waiting")]
    Full,
    /// The member's client knows no such messages.
    #[error("the member's client knows no such messages")]
    Unknown,
}

/// Why the member's connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// It has stopped reading.
    #[error("it has stopped reading")]
    Overflown,
    /// The operator wants it to.
    #[error("the operator ended it")]
    Kicked,
    /// Another connection has taken its place.
    #[error("another connection has taken its place")]
    Replaced,
    /// The process is about to end.
    #[error("the server restarts")]
    Restart,
}

/// A number that says of messages that they came, which can't have come or have been said to before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such message can have come")]
pub struct NotSent;

impl Mailbox {
    /// An empty one of the member `name`. Who acknowledges knows every message, who doesn't what is in `vocabulary`.
    pub fn new(name: Name, capacity: Capacity, delivery: Delivery, vocabulary: Vocabulary) -> Self {
        let inner = Mutex::new(Inner { capacity, ..Inner::default() });
        Self { name, delivery, vocabulary, inner }
    }

    /// Has another capacity. What waits stays, even if it is more.
    pub fn resize(&self, capacity: Capacity) {
        self.inner().capacity = capacity;
    }

    /// Adds one message and wakes the reader, or ignores it if it's about somebody who is no partner. Whatever is refused
    /// changes nothing, but that too many notices cut the mailbox, and that it is cut when it doesn't acknowledge, this one
    /// doesn't fit and nothing has been taken for a second. Presence cuts nobody: what is too much is left out, which the
    /// member is told, again after each time that it has acknowledged it.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn put(&self, message: Message, now: Instant) -> Result<(), Refused> {
        let mut inner = self.inner();
        if inner.cut.is_some() {
            return Err(Refused::Full);
        }
        if !self.is_for_it(&inner, &message)? {
            if let Message::Gone { from } = &message {
                inner.forget_partner(from);
            }
            return Ok(());
        }
        if let Message::Presence { .. } = message
            && inner.notices >= MOST_WITH_PRESENCE
        {
            inner.miss();
            return Ok(());
        }
        if message.is_notice() {
            if inner.notices >= NOTICES {
                inner.cut(Cut::Overflown);
                return Err(Refused::Full);
            }
        } else {
            let untaken = *inner.untaken.get_or_insert(now);
            // What is asked for must fit wherever anything does, so that it can be known before.
            let least = if let Message::Answer(_) = message { 1 } else { message.cost() };
            if !inner.has_room(least) {
                if self.delivery == Delivery::Once && now.saturating_duration_since(untaken) >= STALLED {
                    inner.cut(Cut::Overflown);
                }
                return Err(Refused::Full);
            }
        }
        self.keep_partners(&mut inner, &message);
        inner.push(message);
        Ok(())
    }

    /// Notes that the member is in a call with `name`, whose leaving it will hear of.
    pub fn add_partner(&self, name: &Name) {
        if *name != self.name {
            self.inner().add_partner(name);
        }
    }

    /// Notes that the member has hung up on `name`.
    pub fn forget_partner(&self, name: &Name) {
        self.inner().forget_partner(name);
    }

    /// Whom the member is in a call with.
    pub fn partners(&self) -> Vec<Name> {
        self.inner().partners.iter().map(|partner| partner.name.clone()).collect()
    }

    /// Whether nobody can read it any more.
    pub fn is_cut(&self) -> bool {
        self.inner().cut.is_some()
    }

    /// Has the reader end its connection.
    pub fn kick(&self) {
        self.inner().cut(Cut::Kicked);
    }

    /// Has the reader end its connection, because the process is about to end.
    pub fn dismiss(&self) {
        self.inner().cut(Cut::Restart);
    }

    /// The one reader from now on: earlier ones get nothing more. What was taken before has arrived up to the message number
    /// `arrived`; the rest is there again.
    ///
    /// # Errors
    ///
    /// [`NotSent`], when that can't be, or the mailbox is cut; nothing has changed then.
    pub fn attach(self: &Arc<Self>, arrived: u64) -> Result<Reader, NotSent> {
        let mut inner = self.inner();
        if inner.cut.is_some() || arrived < inner.acknowledged {
            return Err(NotSent);
        }
        inner.acknowledge(arrived)?;
        inner.taken = 0;
        // Its own time to read begins: what waited was an earlier one's to take.
        inner.untaken = None;
        inner.connection += 1;
        let connection = inner.connection;
        inner.wake();
        drop(inner);
        Ok(Reader { mailbox: Arc::clone(self), connection })
    }

    /// The number of the last message that is known to have arrived.
    pub fn acknowledged(&self) -> u64 {
        self.inner().acknowledged
    }

    /// Empties it for good, and has the reader end its connection; what may not have arrived.
    pub fn close(&self) -> VecDeque<Message> {
        let mut inner = self.inner();
        let why = inner.cut.unwrap_or(Cut::Replaced);
        inner.cut(why);
        let Inner { acknowledged, connection, cut, queue, .. } = std::mem::take(&mut *inner);
        *inner = Inner { acknowledged, connection, cut, ..Inner::default() };
        queue
    }

    /// Whether a message is for this member, as far as who it is and what it understands go.
    fn is_for_it(&self, inner: &Inner, message: &Message) -> Result<bool, Refused> {
        Ok(match (message, self.delivery) {
            (Message::Data { .. }, Delivery::Once) if !self.vocabulary.data => return Err(Refused::Unknown),
            (Message::Presence { .. } | Message::Missed, Delivery::Once) => self.vocabulary.presence,
            (Message::Undelivered { .. }, Delivery::Once) => self.vocabulary.undelivered,
            (Message::Away { .. }, Delivery::Acknowledged) => false,
            (Message::Away { from } | Message::Gone { from }, _) => {
                inner.partners.iter().any(|partner| partner.name == *from && !partner.is_away)
            }
            (
                Message::Signal { .. }
                | Message::Data { .. }
                | Message::Leave { .. }
                | Message::Presence { .. }
                | Message::Missed
                | Message::Undelivered { .. }
                | Message::Answer(_)
                | Message::Notice(_),
                _,
            ) => true,
        })
    }

    fn keep_partners(&self, inner: &mut Inner, message: &Message) {
        match message {
            Message::Signal { from, .. } if from.name != self.name => inner.add_partner(&from.name),
            Message::Leave { from } | Message::Gone { from } => inner.forget_partner(from),
            Message::Away { from } => {
                inner.partners.iter_mut().filter(|known| known.name == *from).for_each(|known| known.is_away = true);
            }
            Message::Signal { .. }
            | Message::Data { .. }
            | Message::Presence { .. }
            | Message::Missed
            | Message::Undelivered { .. }
            | Message::Answer(_)
            | Message::Notice(_) => {}
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's end of a mailbox.
#[derive(Debug)]
pub struct Reader {
    mailbox: Arc<Mailbox>,
    connection: u64,
}

impl Reader {
    /// Takes the message that waits longest; with its number, if it wants to be acknowledged.
    pub fn take(&self) -> Option<(Option<u64>, Message)> {
        let mut inner = self.mailbox.inner();
        if inner.cut.is_some() || inner.connection != self.connection {
            return None;
        }
        let taken = match self.mailbox.delivery {
            Delivery::Once => (None, inner.pop()?),
            Delivery::Acknowledged => {
                let message = inner.queue.get(inner.taken)?.clone();
                inner.taken += 1;
                inner.known = inner.known.max(inner.taken);
                (Some(inner.acknowledged + inner.taken as u64), message)
            }
        };
        inner.untaken = None;
        Some(taken)
    }

    /// Lets go of all messages up to the number `arrived`; how many these were.
    ///
    /// # Errors
    ///
    /// [`NotSent`], when there can't be so many.
    pub fn acknowledge(&self, arrived: u64) -> Result<usize, NotSent> {
        self.mailbox.inner().acknowledge(arrived)
    }

    /// Puts something in that the connection itself has to say.
    ///
    /// # Errors
    ///
    /// [`Refused`], as [`Mailbox::put`] has it.
    pub fn put(&self, message: Message, now: Instant) -> Result<(), Refused> {
        self.mailbox.put(message, now)
    }

    /// Whether an answer fits in, however long.
    pub fn has_room(&self) -> bool {
        let inner = self.mailbox.inner();
        inner.cut.is_none() && inner.has_room(1)
    }

    /// Has `waker` woken at the next message, or when the connection must end.
    ///
    /// # Errors
    ///
    /// [`Cut`], when it must.
    pub fn watch(&self, waker: &Waker) -> Result<(), Cut> {
        let mut inner = self.mailbox.inner();
        if inner.connection != self.connection {
            return Err(Cut::Replaced);
        }
        if let Some(cut) = inner.cut {
            return Err(cut);
        }
        match &mut inner.waker {
            Some(known) => known.clone_from(waker),
            unknown @ None => *unknown = Some(waker.clone()),
        }
        Ok(())
    }

    /// Whether no other has taken its place.
    pub fn is_current(&self) -> bool {
        self.mailbox.inner().connection == self.connection
    }
}

impl Inner {
    fn acknowledge(&mut self, arrived: u64) -> Result<usize, NotSent> {
        let more = usize::try_from(arrived.saturating_sub(self.acknowledged)).unwrap_or(usize::MAX);
        if more > self.known {
            return Err(NotSent);
        }
        for _ in 0..more {
            self.pop();
        }
        self.known -= more;
        self.taken = self.taken.saturating_sub(more);
        self.acknowledged += more as u64;
        Ok(more)
    }

    /// Whether a message of so many bytes that is no notice fits in; one always does.
    fn has_room(&self, bytes: usize) -> bool {
        let capacity = self.capacity;
        let messages = self.queue.len() - self.notices;
        messages == 0 || (messages < capacity.messages && self.bytes + bytes <= capacity.bytes)
    }

    fn push(&mut self, message: Message) {
        if message.is_notice() {
            self.notices += 1;
        } else {
            self.bytes += message.cost();
        }
        self.queue.push_back(message);
        self.wake();
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.queue.pop_front()?;
        if message.is_notice() {
            self.notices -= 1;
        } else {
            self.bytes -= message.cost();
        }
        if let Message::Missed = message {
            let missed = std::mem::take(&mut self.missed);
            if missed == Missed::Again {
                self.miss();
            }
        }
        Some(message)
    }

    /// Has the member told that it isn't told of everything. That is never in the queue twice.
    fn miss(&mut self) {
        if self.missed == Missed::Nothing {
            self.missed = Missed::Queued;
            self.push(Message::Missed);
        } else {
            self.missed = Missed::Again;
        }
    }

    fn add_partner(&mut self, name: &Name) {
        if let Some(known) = self.partners.iter_mut().find(|known| known.name == *name) {
            known.is_away = false;
            return;
        }
        if self.partners.len() >= MAX_PARTNERS {
            self.partners.remove(0);
        }
        self.partners.push(Partner { name: name.clone(), is_away: false });
    }

    fn forget_partner(&mut self, name: &Name) {
        self.partners.retain(|known| known.name != *name);
    }

    fn cut(&mut self, why: Cut) {
        self.cut = Some(why);
        self.wake();
    }

    /// A waker only marks a task as ready: it may be called under the lock.
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
