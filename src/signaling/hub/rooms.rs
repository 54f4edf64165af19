//! Rooms: who is in which, and what goes to everybody there.

use std::collections::HashSet;

use super::Hub;
use super::MAX_WHO;
use super::NotJoined;
use super::NotThere;
use crate::clock::Now;
use crate::credentials::SessionId;
use crate::signaling::message::Change;
use crate::signaling::message::Message;
use crate::signaling::message::Payload;
use crate::signaling::message::Sender;
use crate::signaling::name::Name;
use crate::signaling::store::Holder;
use crate::signaling::store::Lost;
use crate::signaling::store::NoEntry;

impl Hub {
    /// Passes an application's own message on to everybody else in `room`; how many these are. The sender is told, once, if
    /// it can't be delivered to all of them.
    ///
    /// # Errors
    ///
    /// [`NotThere`]; nobody is told anything then.
    pub fn send_to_room(&mut self, from: &Sender, room: &Name, payload: &Payload, now: Now) -> Result<usize, NotThere> {
        if !self.sessions.get(&from.session).is_some_and(|seat| seat.rooms.contains(room)) {
            return Err(NotThere);
        }
        let message = Message::Data { from: from.clone(), room: Some(room.clone()), payload: payload.clone() };
        let mut others = 0;
        for other in self.registry.in_room(room, now.monotonic) {
            if other.session != from.session {
                others += 1;
                self.tell(&other, &message, now);
            }
        }
        Ok(others)
    }

    /// Passes it on to everybody else in any of `rooms`, once however many of them somebody is in; how many were looked at in
    /// all of them, which is what it costs. The sender needn't be there.
    pub fn send_to_rooms(&mut self, from: &Sender, rooms: &[Name], payload: &Payload, now: Now) -> usize {
        let mut told = HashSet::from([from.session]);
        let mut visited = 0;
        for room in rooms {
            let message = Message::Data { from: from.clone(), room: Some(room.clone()), payload: payload.clone() };
            for other in self.registry.in_room(room, now.monotonic) {
                visited += 1;
                if told.insert(other.session) {
                    self.tell(&other, &message, now);
                }
            }
        }
        visited
    }

    /// Passes what `payload` makes of their number on to everybody in `room`, the sender too if it is there, which it needn't
    /// be; how many that are. Where nobody is, or nothing is made, nobody is told anything.
    pub fn publish(
        &mut self,
        from: &Sender,
        room: &Name,
        payload: impl FnOnce(usize) -> Option<Payload>,
        now: Now,
    ) -> usize {
        let present = self.registry.in_room(room, now.monotonic);
        let members = present.len();
        let Some(payload) = (members > 0).then(|| payload(members)).flatten() else { return 0 };
        let message = Message::Data { from: from.clone(), room: Some(room.clone()), payload };
        for member in present {
            self.tell(&member, &message, now);
        }
        members
    }

    /// Lets a member into `room` and tells those there; who they are, in the order they came in.
    ///
    /// # Errors
    ///
    /// [`NotJoined`]; nothing has changed then.
    pub fn join(&mut self, session: SessionId, room: &Name, now: Now) -> Result<Vec<Name>, NotJoined> {
        let seat = self.sessions.get_mut(&session).ok_or(NotJoined::NoEntry(NoEntry::Lost(Lost)))?;
        let is_there = seat.rooms.contains(room);
        if !is_there && seat.rooms.len() >= self.settings.rooms {
            return Err(NotJoined::TooManyRooms);
        }
        let others = self.registry.enter(room, session, self.settings.room_members, now.monotonic)?;
        if !is_there {
            seat.rooms.push(room.clone());
            let name = seat.name.clone();
            self.tell_room(room, &name, Change::Joined, now);
        }
        Ok(others.into_iter().map(|other| other.name).collect())
    }

    /// Takes a member out of `room` and tells those left there; how many these are.
    ///
    /// # Errors
    ///
    /// [`NotThere`].
    pub fn part(&mut self, session: SessionId, room: &Name, now: Now) -> Result<usize, NotThere> {
        let seat = self.sessions.get_mut(&session).ok_or(NotThere)?;
        let at = seat.rooms.iter().position(|known| known == room).ok_or(NotThere)?;
        seat.rooms.remove(at);
        let name = seat.name.clone();
        self.registry.leave(room, session);
        Ok(self.tell_room(room, &name, Change::Left, now))
    }

    /// Who else is in `room` with the member of `session`; nobody, if it isn't there.
    pub fn others(&self, session: SessionId, room: &Name, now: Now) -> Vec<Name> {
        let mut present = self.registry.in_room(room, now.monotonic);
        let Some(at) = present.iter().position(|holder| holder.session == session) else { return Vec::new() };
        present.remove(at);
        present.into_iter().map(|holder| holder.name).collect()
    }

    /// Who is in `room`, or signed in at all, [`MAX_WHO`] of them; none, if members may not ask.
    pub fn who(&self, room: Option<&Name>, now: Now) -> Option<Vec<Name>> {
        self.settings.who.then(|| match room {
            Some(room) => {
                let present = self.registry.in_room(room, now.monotonic);
                present.into_iter().take(MAX_WHO).map(|holder| holder.name).collect()
            }
            None => self.registry.names(MAX_WHO, now.monotonic),
        })
    }

    /// Brings one of them what goes to all, or its sender that it didn't get there.
    fn tell(&self, to: &Holder, message: &Message, now: Now) {
        if self.bring(to.session, message.clone(), now).is_err() {
            self.report(message.clone(), &to.name, now);
        }
    }

    /// Tells all in `room` but `name`; how many these are.
    pub(super) fn tell_room(&self, room: &Name, name: &Name, change: Change, now: Now) -> usize {
        if !self.settings.presence {
            return 0;
        }
        let mut others = 0;
        for other in self.registry.in_room(room, now.monotonic) {
            if other.name != *name {
                others += 1;
                let presence = Message::Presence { room: room.clone(), name: name.clone(), change };
                let _ = self.bring(other.session, presence, now);
            }
        }
        others
    }
}
