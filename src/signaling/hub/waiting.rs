//! Steps of a negotiation with somebody who isn't signed in: they wait a little while, for whoever reloads its page.
//!
//! They wait for a name, and go to whoever signs in by it, as PeerServer has it. Whose they are is more than a name: once
//! somebody else has the sender's, they go to nobody, and nobody is told what became of them.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Hub;
use super::takeover::Owner;
use crate::clock::Now;
use crate::credentials::SessionId;
use crate::places::Place;
use crate::places::Places;
use crate::signaling::message::Message;
use crate::signaling::message::Payload;
use crate::signaling::message::Recipient;
use crate::signaling::message::Sender;
use crate::signaling::message::SignalKind;
use crate::signaling::name::Name;
use crate::signaling::store::Undelivered;

/// How long they wait, from the first that one sender has for one absent name.
pub const WAIT: Duration = Duration::from_secs(5);
/// How many steps of one sender wait for one name: an offer and its candidates.
pub const MAX_STEPS: usize = 32;
/// The same in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// One step of a negotiation.
#[derive(Clone, Debug)]
pub struct Step {
    /// Who sends it.
    pub from: Sender,
    /// Which it is.
    pub kind: SignalKind,
    /// What it carries.
    pub payload: Payload,
}

/// What waits for whom. Each sender has a queue of its own for each absent name, so that nobody can fill another's.
#[derive(Debug)]
pub(super) struct Waiting {
    /// One for each queue: the cap on all of them, and on those that come from one source.
    places: Arc<Places>,
    absent: HashMap<Name, Vec<Queue>>,
    /// When which queue is given up, in order. As many as there are queues.
    deadlines: VecDeque<(Instant, Name, SessionId)>,
}

/// What one sender has for one name.
#[derive(Debug)]
struct Queue {
    /// As the first step has it.
    sender: Sender,
    /// Whose the sender's name was.
    owner: Owner,
    /// Capped by [`MAX_STEPS`] and [`MAX_BYTES`].
    steps: VecDeque<Step>,
    bytes: usize,
    _place: Place,
}

/// Too much waits already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much waits already")]
pub(super) struct NoRoom;

impl Waiting {
    /// Nothing yet; each queue takes one of `places`.
    fn new(places: Arc<Places>) -> Self {
        Self { places, absent: HashMap::new(), deadlines: VecDeque::new() }
    }

    /// Has `step` wait for `to`; its sender is `owner`'s, and at `source`.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]; nothing has changed then.
    fn put(&mut self, to: &Name, step: Step, owner: Owner, source: IpAddr, now: Instant) -> Result<(), NoRoom> {
        let (sender, bytes) = (step.from.clone(), step.payload.json().len());
        let session = sender.session;
        let queues = self.absent.get_mut(to);
        if let Some(queue) = queues.and_then(|queues| queues.iter_mut().find(|queue| queue.sender.session == session)) {
            if queue.steps.len() >= MAX_STEPS || queue.bytes + bytes > MAX_BYTES {
                return Err(NoRoom);
            }
            queue.bytes += bytes;
            queue.steps.push_back(step);
            return Ok(());
        }
        if bytes > MAX_BYTES {
            return Err(NoRoom);
        }
        let place = self.places.enter(source).map_err(|_| NoRoom)?;
        let queue = Queue { sender, owner, steps: VecDeque::from([step]), bytes, _place: place };
        self.absent.entry(to.clone()).or_default().push(queue);
        self.deadlines.push_back((now + WAIT, to.clone(), session));
        Ok(())
    }

    /// Everything that waits for `name`: it waits no more.
    fn take(&mut self, name: &Name) -> Vec<Queue> {
        let Some(queues) = self.absent.remove(name) else { return Vec::new() };
        self.deadlines.retain(|(_, absent, _)| absent != name);
        queues
    }

    /// What one sender has had for somebody for long enough, and for whom; it waits no more.
    fn give_up(&mut self, now: Instant) -> Option<(Queue, Name)> {
        let (_, name, sender) = self.deadlines.pop_front_if(|(deadline, ..)| *deadline <= now)?;
        let queues = self.absent.get_mut(&name)?;
        let at = queues.iter().position(|queue| queue.sender.session == sender)?;
        let queue = queues.remove(at);
        if queues.is_empty() {
            self.absent.remove(&name);
        }
        Some((queue, name))
    }

    /// Lets go of all that `sender` has for anybody.
    fn forget(&mut self, sender: SessionId) {
        self.deadlines.retain(|(.., session)| *session != sender);
        self.absent.retain(|_, queues| {
            queues.retain(|queue| queue.sender.session != sender);
            !queues.is_empty()
        });
    }

    /// When there may be something to give up next: whatever comes later waits at least until then.
    fn next(&self, now: Instant) -> Instant {
        self.deadlines.front().map_or(now + WAIT, |(deadline, ..)| *deadline)
    }
}

impl Hub {
    /// The same that keeps steps of negotiations for who isn't here, as long as there are `places` for them.
    #[must_use]
    pub fn patient(self, places: Arc<Places>) -> Self {
        Self { waiting: Some(Waiting::new(places)), ..self }
    }

    /// Passes a step of a negotiation on as [`Hub::signal`] does, or has it wait for `to`. Its sender, who is at `source`,
    /// is told that all it had for `to` is undelivered, once, if nobody signs in by that name in time.
    ///
    /// # Errors
    ///
    /// [`Undelivered`], also when there is no room for it to wait; nothing has changed then.
    pub fn signal_or_wait(&mut self, step: Step, to: &Name, source: IpAddr, now: Now) -> Result<(), Undelivered> {
        if self.registry.holder_of(to, now.monotonic).is_some() {
            let Step { from, kind, payload } = step;
            return self.signal(from, to, kind, payload, now);
        }
        let waiting = self.waiting.as_mut().ok_or(Undelivered::UnknownMember)?;
        let seat = self.sessions.get(&step.from.session).ok_or(Undelivered::UnknownMember)?;
        let put = waiting.put(to, step, seat.owner(), source, now.monotonic);
        put.map_err(|NoRoom| Undelivered::UnknownMember)
    }

    /// Hands out what waited for `name`, who is signed in: a step of each sender after the other, so that none of them takes
    /// up all the room there is before the others had a word.
    pub(super) fn hand_out(&mut self, name: &Name, now: Now) {
        let queues = self.waiting.as_mut().map(|waiting| waiting.take(name)).unwrap_or_default();
        let mut left: Vec<_> = queues.into_iter().filter_map(|queue| self.follow(queue, now)).collect();
        while !left.is_empty() {
            left.retain_mut(|queue| self.hand_out_next(queue, name, now));
        }
    }

    /// The same for one step of one sender; whether it may have more. If it can't be delivered, neither is the rest.
    fn hand_out_next(&mut self, queue: &mut Queue, name: &Name, now: Now) -> bool {
        let Some(Step { from, kind, payload }) = queue.steps.pop_front() else { return false };
        let from = Sender { session: queue.sender.session, ..from };
        let delivered = self.signal(from, name, kind, payload, now).is_ok();
        if !delivered {
            self.give_back(queue, name, now);
        }
        delivered
    }

    /// Gives up on what has waited long enough; when to look again, if anything can wait.
    pub(super) fn give_up(&mut self, now: Now) -> Option<Instant> {
        while let Some((queue, to)) = self.waiting.as_mut()?.give_up(now.monotonic) {
            if let Some(queue) = self.follow(queue, now) {
                self.give_back(&queue, &to, now);
            }
        }
        Some(self.waiting.as_ref()?.next(now.monotonic))
    }

    /// Lets go of what `session` has waiting, who was thrown out.
    pub(super) fn forget_waiting(&mut self, session: SessionId) {
        if let Some(waiting) = &mut self.waiting {
            waiting.forget(session);
        }
    }

    /// `queue`, of the session that its sender has come back with, if it has; none, if its name is somebody else's by then.
    fn follow(&self, queue: Queue, now: Now) -> Option<Queue> {
        let Some(holder) = self.registry.holder_of(&queue.sender.name, now.monotonic) else { return Some(queue) };
        let seat = self.sessions.get(&holder).filter(|seat| !seat.mailbox.is_cut())?;
        let is_its = holder == queue.sender.session || seat.is_of(&queue.owner);
        is_its.then(|| Queue { sender: Sender { session: holder, ..queue.sender }, ..queue })
    }

    /// Tells the sender of `queue`, if it is there, that nothing of it gets to `to`.
    fn give_back(&self, queue: &Queue, to: &Name, now: Now) {
        let Sender { session, frame, .. } = queue.sender;
        let undelivered = Message::Undelivered { to: Recipient::Member(to.clone()), frame };
        let _ = self.bring(session, undelivered, now);
    }
}
