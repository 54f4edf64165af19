//! A member's bounded queue of messages: whoever fills it is never held back, whoever leaves it full for long is closed.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::signaling::message::Message;

/// How much may wait for one member: at least one message, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// In messages.
    pub messages: usize,
    /// In bytes.
    pub bytes: usize,
}

/// How long nothing may be taken from a mailbox that is full, before its member counts as stalled: a prompt reader, too,
/// finds it full when others are faster than its task.
const STALLED: Duration = Duration::from_secs(1);
/// How many notices that a partner left are taken beyond the capacity. More than a member has partners, and none of
/// those who come later can put anything before there is room.
const NOTICES: usize = 256;

/// What waits for one member. The hub fills it, the member's connection empties it.
#[derive(Debug)]
pub struct Mailbox {
    capacity: Capacity,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Message>,
    bytes: usize,
    /// The first time that something was put in since something was taken.
    untaken: Option<Instant>,
    cut: Option<Cut>,
    reader: Option<Waker>,
}

/// The member doesn't read as fast as it is written to: the message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much is waiting")]
pub struct Full;

/// Why the member's connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// It has stopped reading.
    #[error("it has stopped reading")]
    Overflown,
    /// The operator wants it to.
    #[error("the operator ended it")]
    Kicked,
}

impl Mailbox {
    /// An empty one.
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, inner: Mutex::default() }
    }

    /// Adds one message and wakes the reader. When it doesn't fit and the reader has taken nothing for a second, all that
    /// wait are lost, and the mailbox is cut from then on.
    ///
    /// # Errors
    ///
    /// [`Full`], when it doesn't fit into the mailbox of a reader that is at work.
    pub fn put(&self, message: Message, now: Instant) -> Result<(), Full> {
        let mut inner = self.inner();
        let untaken = *inner.untaken.get_or_insert(now);
        let Capacity { messages, bytes } = self.capacity;
        let fits = inner.waiting.len() < messages && inner.bytes + message.cost() <= bytes;
        if fits || inner.waiting.is_empty() {
            inner.add(message);
        } else if now.saturating_duration_since(untaken) >= STALLED {
            inner.cut(Cut::Overflown);
        } else {
            return Err(Full);
        }
        Inner::wake(inner);
        Ok(())
    }

    /// Adds the notice that a partner left, and wakes the reader. It is never refused: there is room for as many as there
    /// can be partners.
    pub fn notify(&self, notice: Message) {
        let mut inner = self.inner();
        if inner.waiting.len() < self.capacity.messages + NOTICES {
            inner.add(notice);
        } else {
            inner.cut(Cut::Overflown);
        }
        Inner::wake(inner);
    }

    /// Has the reader end its connection; all that wait are lost.
    pub fn kick(&self) {
        let mut inner = self.inner();
        inner.cut(Cut::Kicked);
        Inner::wake(inner);
    }

    /// Takes the message that waits longest.
    pub fn take(&self) -> Option<Message> {
        let mut inner = self.inner();
        let message = inner.waiting.pop_front()?;
        inner.bytes -= message.cost();
        inner.untaken = None;
        Some(message)
    }

    /// Has `reader` woken at the next message, or when the mailbox is cut.
    ///
    /// # Errors
    ///
    /// [`Cut`], when that has happened.
    pub fn watch(&self, reader: &Waker) -> Result<(), Cut> {
        let mut inner = self.inner();
        if let Some(cut) = inner.cut {
            return Err(cut);
        }
        match &mut inner.reader {
            Some(known) => known.clone_from(reader),
            unknown @ None => *unknown = Some(reader.clone()),
        }
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, message: Message) {
        if self.cut.is_none() {
            self.bytes += message.cost();
            self.waiting.push_back(message);
        }
    }

    fn cut(&mut self, why: Cut) {
        self.cut = Some(why);
        self.waiting = VecDeque::new();
    }

    fn wake(mut inner: MutexGuard<'_, Self>) {
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::signaling::message::Payload;
    use crate::signaling::message::SignalKind;
    use crate::signaling::name::Name;

    fn leave() -> Message {
        Message::Leave { from: Name::new("bob").unwrap() }
    }

    fn signal(bytes: usize) -> Message {
        let json = format!("\"{}\"", "x".repeat(bytes));
        let payload = Payload::new(serde_json::from_str(&json).unwrap());
        Message::Signal { from: Name::new("bob").unwrap(), kind: SignalKind::Offer, payload }
    }

    fn mailbox() -> Mailbox {
        Mailbox::new(Capacity { messages: 256, bytes: 256 * 1024 })
    }

    fn now() -> Instant {
        Clock::system().now().monotonic
    }

    #[test]
    fn a_full_mailbox_refuses_and_overflows_only_when_nothing_has_been_taken_for_a_second() {
        let (mailbox, now) = (mailbox(), now());
        (0..256).for_each(|_| mailbox.put(leave(), now).unwrap());

        assert_eq!(mailbox.put(leave(), now + STALLED / 2), Err(Full));
        assert!(mailbox.take().is_some());
        assert_eq!(mailbox.put(leave(), now + STALLED), Ok(()));
        assert_eq!(mailbox.put(leave(), now + STALLED * 3 / 2), Err(Full), "it is read, if slowly");
        assert_eq!(mailbox.watch(Waker::noop()), Ok(()));
        assert_eq!(mailbox.put(leave(), now + STALLED * 2), Ok(()));

        assert_eq!(mailbox.watch(Waker::noop()), Err(Cut::Overflown));
        mailbox.notify(leave());
        assert!(mailbox.take().is_none(), "what waited is given up");
    }

    #[test]
    fn notices_fit_into_a_full_mailbox_but_not_without_end() {
        let (mailbox, now) = (mailbox(), now());
        (0..256).for_each(|_| mailbox.put(signal(1), now).unwrap());

        (0..NOTICES).for_each(|_| mailbox.notify(leave()));
        assert_eq!(mailbox.put(signal(1), now), Err(Full));
        assert_eq!(mailbox.watch(Waker::noop()), Ok(()));
        mailbox.notify(leave());

        assert_eq!(mailbox.watch(Waker::noop()), Err(Cut::Overflown));
    }

    #[test]
    fn a_kick_cuts_even_what_nothing_waits_in() {
        let (mailbox, now) = (mailbox(), now());
        mailbox.put(leave(), now).unwrap();

        mailbox.kick();
        mailbox.notify(leave());

        assert_eq!(mailbox.watch(Waker::noop()), Err(Cut::Kicked));
        assert!(mailbox.take().is_none());
    }

    #[test]
    fn one_message_always_fits() {
        let (mailbox, now) = (Mailbox::new(Capacity { messages: 9, bytes: 100 }), now());

        assert_eq!(mailbox.put(signal(101), now), Ok(()));
        assert_eq!(mailbox.put(leave(), now), Err(Full));
    }

    #[test]
    fn a_mailbox_is_full_by_bytes_and_taking_makes_room() {
        let (mailbox, now) = (mailbox(), now());

        for _ in 0..20 {
            mailbox.put(signal(60_000), now).unwrap();
            assert!(mailbox.take().is_some());
        }
        (0..4).for_each(|_| mailbox.put(signal(60_000), now).unwrap());

        assert_eq!(mailbox.put(signal(60_000), now), Err(Full));
        assert_eq!(mailbox.watch(Waker::noop()), Ok(()));
    }
}
