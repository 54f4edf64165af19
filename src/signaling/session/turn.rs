//! One frame's turn: what a member can have the hub do, with nothing in between.

use std::net::IpAddr;
use std::sync::MutexGuard;

use super::Session;
use crate::clock::Now;
use crate::signaling::hub::Hub;
use crate::signaling::hub::NotJoined;
use crate::signaling::hub::NotThere;
use crate::signaling::hub::waiting::Step;
use crate::signaling::message::Payload;
use crate::signaling::message::Sender;
use crate::signaling::message::SignalKind;
use crate::signaling::name::Name;
use crate::signaling::store::Undelivered;

/// A frame's turn in the hub.
pub struct Turn<'a> {
    hub: MutexGuard<'a, Hub>,
    sender: Sender,
    session: &'a Session,
}

impl<'a> Turn<'a> {
    pub(super) fn new(hub: MutexGuard<'a, Hub>, sender: Sender, session: &'a Session) -> Self {
        Self { hub, sender, session }
    }

    /// Passes a step of a negotiation on, as [`Hub::signal`]; it tells of peers at `addresses`.
    ///
    /// # Errors
    ///
    /// [`Undelivered`], as there.
    pub fn signal(
        mut self,
        to: &Name,
        kind: SignalKind,
        payload: Payload,
        addresses: &[IpAddr],
        now: Now,
    ) -> Result<(), Undelivered> {
        // Before the recipient can act on it. What a member tells itself opens nothing.
        let recipient = if addresses.is_empty() { None } else { self.hub.session_of(to, now) };
        if let Some(recipient) = recipient.filter(|recipient| *recipient != self.sender.session) {
            self.session.sessions.credentials.signaled(recipient, self.sender.session, addresses);
        }
        self.hub.signal(self.sender, to, kind, payload, now)
    }

    /// The same, or has it wait, as [`Hub::signal_or_wait`]. What it tells of peers counts for nobody: clients that wait
    /// for others get no credentials of a session.
    ///
    /// # Errors
    ///
    /// [`Undelivered`], as there.
    pub fn signal_or_wait(
        mut self,
        to: &Name,
        kind: SignalKind,
        payload: Payload,
        now: Now,
    ) -> Result<(), Undelivered> {
        self.hub.signal_or_wait(Step { from: self.sender, kind, payload }, to, self.session.source, now)
    }

    /// Passes an application's own message on, as [`Hub::send`].
    ///
    /// # Errors
    ///
    /// [`Undelivered`], as there.
    pub fn send(mut self, to: &Name, payload: Payload, now: Now) -> Result<(), Undelivered> {
        self.hub.send(self.sender, to, payload, now)
    }

    /// The same to everybody else in a room, as [`Hub::send_to_room`].
    ///
    /// # Errors
    ///
    /// [`NotThere`].
    pub fn send_to_room(mut self, room: &Name, payload: &Payload, now: Now) -> Result<usize, NotThere> {
        self.hub.send_to_room(&self.sender, room, payload, now)
    }

    /// The same to everybody else in any of `rooms`, as [`Hub::send_to_rooms`].
    pub fn send_to_rooms(mut self, rooms: &[Name], payload: &Payload, now: Now) -> usize {
        self.hub.send_to_rooms(&self.sender, rooms, payload, now)
    }

    /// The same to everybody in a room, as [`Hub::publish`]; how many that are.
    pub fn publish(mut self, room: &Name, payload: impl FnOnce(usize) -> Option<Payload>, now: Now) -> usize {
        self.hub.publish(&self.sender, room, payload, now)
    }

    /// Hangs up on `to`, as [`Hub::leave`].
    ///
    /// # Errors
    ///
    /// [`Undelivered`], as there.
    pub fn leave(mut self, to: &Name, now: Now) -> Result<(), Undelivered> {
        self.hub.leave(&self.sender, to, now)
    }

    /// Hangs up on every partner.
    pub fn leave_all(mut self, now: Now) {
        self.hub.leave_all(self.sender.session, now);
    }

    /// Comes into a room, as [`Hub::join`], and has `tell` told who is there before anything else can happen there. There is
    /// room in the mailbox for an answer then.
    ///
    /// # Errors
    ///
    /// [`NotJoined`], as there, and for who has too much to read yet.
    pub fn join<T>(mut self, room: &Name, tell: impl FnOnce(Vec<Name>) -> T, now: Now) -> Result<T, NotJoined> {
        if !self.session.reader.has_room() {
            return Err(NotJoined::TooMuchUnread);
        }
        Ok(tell(self.hub.join(self.sender.session, room, now)?))
    }

    /// Leaves a room, as [`Hub::part`].
    ///
    /// # Errors
    ///
    /// [`NotThere`].
    pub fn part(mut self, room: &Name, now: Now) -> Result<usize, NotThere> {
        self.hub.part(self.sender.session, room, now)
    }

    /// Who else is in a room with the member, as [`Hub::others`].
    pub fn others(&self, room: &Name, now: Now) -> Vec<Name> {
        self.hub.others(self.sender.session, room, now)
    }

    /// The last frame that was taken from the client.
    pub fn last_frame(&self) -> u64 {
        self.hub.last_frame(self.sender.session)
    }

    /// Who is there, as [`Hub::who`].
    pub fn who(self, room: Option<&Name>, now: Now) -> Option<Vec<Name>> {
        self.hub.who(room, now)
    }
}
