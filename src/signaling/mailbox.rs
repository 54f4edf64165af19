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
use crate::signaling::message::Sender;
use crate::signaling::name::Name;

/// How much may wait for one member: at least one message, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// In messages.
    pub messages: usize,
    /// In bytes.
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

/// How many partners a member is known to have; beyond, the earliest is forgotten, whose leaving is then not told.
///
/// More than the connections that one source may have by default, so that no single stranger can push out the others.
pub const MAX_PARTNERS: usize = 256;
/// How long nothing may be taken from a mailbox that is full, before a member that doesn't acknowledge counts as stalled: a
/// prompt reader, too, finds it full when others are faster than its task.
const STALLED: Duration = Duration::from_secs(1);
/// How many notices are taken beyond the capacity. More than a member has partners, and than it can send by default while
/// its recipients are waited for: each of those frames may come back as undelivered.
const NOTICES: usize = 2048;

/// What waits for one member. The hub fills it, the member's connection empties it.
#[derive(Debug)]
pub struct Mailbox {
    name: Name,
    capacity: Capacity,
    delivery: Delivery,
    calls_only: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Capped by the capacity and [`NOTICES`].
    queue: VecDeque<Message>,
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
    partners: Vec<Name>,
    cut: Option<Cut>,
    /// How many connections there have been.
    connection: u64,
    waker: Option<Waker>,
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
}

/// A number that says of messages that they came, which can't have come or have been said to before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such message can have come")]
pub struct NotSent;

impl Mailbox {
    /// An empty one of the member `name`, whose client has no words for anything but calls, if `calls_only`.
    pub fn new(name: Name, capacity: Capacity, delivery: Delivery, calls_only: bool) -> Self {
        Self { name, capacity, delivery, calls_only, inner: Mutex::default() }
    }

    /// Adds one message and wakes the reader, or ignores it if it's about somebody who is no partner. Whatever is refused
    /// changes nothing, but that too many notices cut the mailbox, and that it is cut when it doesn't acknowledge, this one
    /// doesn't fit and nothing has been taken for a second.
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
            return Ok(());
        }
        if message.is_notice() {
            if inner.queue.len() >= self.capacity.messages + NOTICES {
                inner.cut(Cut::Overflown);
                return Err(Refused::Full);
            }
        } else {
            let untaken = *inner.untaken.get_or_insert(now);
            let Capacity { messages, bytes } = self.capacity;
            let fits = inner.queue.len() < messages && inner.bytes + message.cost() <= bytes;
            if !fits && !inner.queue.is_empty() {
                if self.delivery == Delivery::Once && now.saturating_duration_since(untaken) >= STALLED {
                    inner.cut(Cut::Overflown);
                }
                return Err(Refused::Full);
            }
        }
        self.keep_partners(&mut inner, &message);
        inner.bytes += message.cost();
        inner.queue.push_back(message);
        inner.wake();
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
        self.inner().partners.clone()
    }

    /// Has the reader end its connection.
    pub fn kick(&self) {
        self.inner().cut(Cut::Kicked);
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
        inner.connection += 1;
        let connection = inner.connection;
        inner.wake();
        drop(inner);
        Ok(Reader { mailbox: Arc::clone(self), connection })
    }

    /// Empties it for good: who sent what may not have arrived.
    pub fn close(&self) -> Vec<Sender> {
        let mut inner = self.inner();
        inner.cut.get_or_insert(Cut::Replaced);
        inner.bytes = 0;
        std::mem::take(&mut inner.queue).into_iter().filter_map(Message::into_sender).collect()
    }

    /// Whether a message is for this member, as far as who it is and what it understands go.
    fn is_for_it(&self, inner: &Inner, message: &Message) -> Result<bool, Refused> {
        Ok(match message {
            Message::Data { .. } if self.calls_only => return Err(Refused::Unknown),
            Message::Presence { .. } | Message::Undelivered { .. } if self.calls_only => false,
            Message::Away { .. } if self.delivery == Delivery::Acknowledged => false,
            Message::Away { from } | Message::Gone { from } => inner.partners.contains(from),
            Message::Signal { .. }
            | Message::Data { .. }
            | Message::Leave { .. }
            | Message::Presence { .. }
            | Message::Undelivered { .. }
            | Message::Answer(_)
            | Message::Notice(_) => true,
        })
    }

    fn keep_partners(&self, inner: &mut Inner, message: &Message) {
        match message {
            Message::Signal { from, .. } if from.name != self.name => inner.add_partner(&from.name),
            Message::Leave { from } | Message::Away { from } | Message::Gone { from } => inner.forget_partner(from),
            Message::Signal { .. }
            | Message::Data { .. }
            | Message::Presence { .. }
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
            Delivery::Once => {
                let message = inner.queue.pop_front()?;
                inner.bytes -= message.cost();
                (None, message)
            }
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

    /// Lets go of all messages up to the number `arrived`.
    ///
    /// # Errors
    ///
    /// [`NotSent`], when there can't be so many.
    pub fn acknowledge(&self, arrived: u64) -> Result<(), NotSent> {
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
    fn acknowledge(&mut self, arrived: u64) -> Result<(), NotSent> {
        let more = usize::try_from(arrived.saturating_sub(self.acknowledged)).unwrap_or(usize::MAX);
        if more > self.known {
            return Err(NotSent);
        }
        for message in self.queue.drain(..more) {
            self.bytes -= message.cost();
        }
        self.known -= more;
        self.taken = self.taken.saturating_sub(more);
        self.acknowledged += more as u64;
        Ok(())
    }

    fn add_partner(&mut self, name: &Name) {
        if self.partners.contains(name) {
            return;
        }
        if self.partners.len() >= MAX_PARTNERS {
            self.partners.remove(0);
        }
        self.partners.push(name.clone());
    }

    fn forget_partner(&mut self, name: &Name) {
        self.partners.retain(|known| known != name);
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
