//! Steps of a negotiation with somebody who isn't signed in: they wait a little while, for whoever reloads its page.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Hub;
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
    sender: SessionId,
    /// Capped by [`MAX_STEPS`] and [`MAX_BYTES`]. Never empty.
    steps: Vec<Step>,
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

    /// Has `step` wait for `to`; its sender is at `source`.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]; nothing has changed then.
    fn put(&mut self, to: &Name, step: Step, source: IpAddr, now: Instant) -> Result<(), NoRoom> {
        let (sender, bytes) = (step.from.session, step.payload.json().len());
        let queues = self.absent.get_mut(to);
        if let Some(queue) = queues.and_then(|queues| queues.iter_mut().find(|queue| queue.sender == sender)) {
            if queue.steps.len() >= MAX_STEPS || queue.bytes + bytes > MAX_BYTES {
                return Err(NoRoom);
            }
            queue.bytes += bytes;
            queue.steps.push(step);
            return Ok(());
        }
        if bytes > MAX_BYTES {
            return Err(NoRoom);
        }
        let place = self.places.enter(source).map_err(|_| NoRoom)?;
        let queue = Queue { sender, steps: vec![step], bytes, _place: place };
        self.absent.entry(to.clone()).or_default().push(queue);
        self.deadlines.push_back((now + WAIT, to.clone(), sender));
        Ok(())
    }

    /// Everything that waits for `name`, of each sender in the order it came: it waits no more.
    fn take(&mut self, name: &Name) -> Vec<Step> {
        let Some(queues) = self.absent.remove(name) else { return Vec::new() };
        self.deadlines.retain(|(_, absent, _)| absent != name);
        queues.into_iter().flat_map(|queue| queue.steps).collect()
    }

    /// One sender that has waited for somebody long enough, and for whom; nothing of it waits any more.
    fn give_up(&mut self, now: Instant) -> Option<(Sender, Name)> {
        let (_, name, sender) = self.deadlines.pop_front_if(|(deadline, ..)| *deadline <= now)?;
        let queues = self.absent.get_mut(&name)?;
        let at = queues.iter().position(|queue| queue.sender == sender)?;
        let queue = queues.remove(at);
        if queues.is_empty() {
            self.absent.remove(&name);
        }
        Some((queue.steps.into_iter().next()?.from, name))
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
        waiting.put(to, step, source, now.monotonic).map_err(|NoRoom| Undelivered::UnknownMember)
    }

    /// Hands out what waited for `name`, who is signed in.
    pub(super) fn hand_out(&mut self, name: &Name, now: Now) {
        let steps = self.waiting.as_mut().map(|waiting| waiting.take(name)).unwrap_or_default();
        for Step { from, kind, payload } in steps {
            let message = Message::Signal { from: from.clone(), kind, payload: payload.clone() };
            if self.signal(from, name, kind, payload, now).is_err() {
                self.report(message, name, now);
            }
        }
    }

    /// Gives up on what has waited long enough; when to look again, if anything can wait.
    pub(super) fn give_up(&mut self, now: Now) -> Option<Instant> {
        while let Some((sender, to)) = self.waiting.as_mut()?.give_up(now.monotonic) {
            // Its client may have come back meanwhile, to its name: it waits all the same.
            let undelivered = Message::Undelivered { to: Recipient::Member(to), frame: sender.frame };
            self.notify(&sender.name, undelivered, now);
        }
        Some(self.waiting.as_ref()?.next(now.monotonic))
    }
}
