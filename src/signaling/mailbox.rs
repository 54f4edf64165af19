//! A member's bounded queue of messages: whoever fills it is never held back, whoever leaves it full is closed.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Waker;

use crate::signaling::message::Message;

/// How much may wait for one member: at least one message, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// In messages.
    pub messages: usize,
    /// In bytes.
    pub bytes: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { messages: 256, bytes: 256 * 1024 }
    }
}

/// What waits for one member. The hub fills it, the member's connection empties it.
#[derive(Debug, Default)]
pub struct Mailbox {
    capacity: Capacity,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Message>,
    bytes: usize,
    overflown: bool,
    reader: Option<Waker>,
}

/// The member reads slower than it is written to: its connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much is waiting")]
pub struct Overflown;

impl Mailbox {
    /// An empty one.
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, inner: Mutex::default() }
    }

    /// Adds one message and wakes the reader. One that doesn't fit is lost, with all that wait, and the mailbox is
    /// overflown from then on.
    pub fn put(&self, message: Message) {
        let mut inner = self.inner();
        if inner.overflown {
            return;
        }
        let cost = message.cost();
        let Capacity { messages, bytes } = self.capacity;
        let fits = inner.waiting.len() < messages && inner.bytes + cost <= bytes;
        if fits || inner.waiting.is_empty() {
            inner.bytes += cost;
            inner.waiting.push_back(message);
        } else {
            inner.overflown = true;
            inner.waiting = VecDeque::new();
        }
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Takes the message that waits longest.
    pub fn take(&self) -> Option<Message> {
        let mut inner = self.inner();
        let message = inner.waiting.pop_front()?;
        inner.bytes -= message.cost();
        Some(message)
    }

    /// Has `reader` woken at the next message, or when the mailbox overflows.
    ///
    /// # Errors
    ///
    /// [`Overflown`], when that has happened.
    pub fn watch(&self, reader: &Waker) -> Result<(), Overflown> {
        let mut inner = self.inner();
        if inner.overflown {
            return Err(Overflown);
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

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn a_mailbox_overflows_by_number() {
        let mailbox = Mailbox::default();

        (0..256).for_each(|_| mailbox.put(leave()));
        assert_eq!(mailbox.watch(Waker::noop()), Ok(()));
        mailbox.put(leave());

        assert_eq!(mailbox.watch(Waker::noop()), Err(Overflown));
        assert!(mailbox.take().is_none(), "what waited is given up");
    }

    #[test]
    fn one_message_always_fits() {
        let mailbox = Mailbox::new(Capacity { messages: 9, bytes: 100 });

        mailbox.put(signal(101));
        assert_eq!(mailbox.watch(Waker::noop()), Ok(()));
        mailbox.put(leave());

        assert_eq!(mailbox.watch(Waker::noop()), Err(Overflown));
    }

    #[test]
    fn a_mailbox_overflows_by_bytes_and_taking_makes_room() {
        let mailbox = Mailbox::default();

        for _ in 0..20 {
            mailbox.put(signal(60_000));
            assert!(mailbox.take().is_some());
        }
        (0..4).for_each(|_| mailbox.put(signal(60_000)));
        assert_eq!(mailbox.watch(Waker::noop()), Ok(()));
        mailbox.put(signal(60_000));

        assert_eq!(mailbox.watch(Waker::noop()), Err(Overflown));
    }
}
