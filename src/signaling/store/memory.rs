//! The stores of a server that is alone: what they hold ends with the process.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::Bus;
use super::Holder;
use super::Lost;
use super::NoEntry;
use super::Registry;
use super::Taken;
use super::Undelivered;
use crate::credentials::SessionId;
use crate::signaling::mailbox::Mailbox;
use crate::signaling::message::Message;
use crate::signaling::name::Name;

/// Names and rooms in tables.
///
/// Never more of either than the hub has sessions, times the rooms that each may be in: what is past its deadline counts
/// as free, and goes when somebody wants it or its holder is released.
#[derive(Debug, Default)]
pub struct Tables {
    names: HashMap<Name, SessionId>,
    holdings: HashMap<SessionId, Holding>,
    /// In the order they came in; none is empty.
    rooms: HashMap<Name, Vec<SessionId>>,
}

#[derive(Debug)]
struct Holding {
    name: Name,
    rooms: Vec<Name>,
    deadline: Instant,
}

impl Registry for Tables {
    fn claim(&mut self, name: &Name, holder: SessionId, deadline: Instant, now: Instant) -> Result<(), Taken> {
        if self.holder_of(name, now).is_some() {
            return Err(Taken);
        }
        if let Some(late) = self.names.get(name).copied() {
            self.release(late);
        }
        self.names.insert(name.clone(), holder);
        self.holdings.insert(holder, Holding { name: name.clone(), rooms: Vec::new(), deadline });
        Ok(())
    }

    fn renew(&mut self, holder: SessionId, deadline: Instant, now: Instant) -> Result<(), Lost> {
        let holding = self.holdings.get_mut(&holder).filter(|holding| now < holding.deadline).ok_or(Lost)?;
        holding.deadline = deadline;
        Ok(())
    }

    fn release(&mut self, holder: SessionId) {
        let Some(holding) = self.holdings.remove(&holder) else { return };
        self.names.remove(&holding.name);
        for room in &holding.rooms {
            self.take_out(room, holder);
        }
    }

    fn enter(&mut self, room: &Name, holder: SessionId, most: usize, now: Instant) -> Result<Vec<Holder>, NoEntry> {
        if self.live(holder, now).is_none() {
            return Err(Lost.into());
        }
        let mut present = self.in_room(room, now);
        if let Some(at) = present.iter().position(|other| other.session == holder) {
            present.remove(at);
            return Ok(present);
        }
        if present.len() >= most {
            return Err(NoEntry::Full);
        }
        self.rooms.entry(room.clone()).or_default().push(holder);
        if let Some(holding) = self.holdings.get_mut(&holder) {
            holding.rooms.push(room.clone());
        }
        Ok(present)
    }

    fn leave(&mut self, room: &Name, holder: SessionId) -> bool {
        if let Some(holding) = self.holdings.get_mut(&holder) {
            holding.rooms.retain(|known| known != room);
        }
        self.take_out(room, holder)
    }

    fn holder_of(&self, name: &Name, now: Instant) -> Option<SessionId> {
        let holder = *self.names.get(name)?;
        self.live(holder, now).map(|_| holder)
    }

    fn in_room(&self, room: &Name, now: Instant) -> Vec<Holder> {
        let sessions = self.rooms.get(room).into_iter().flatten();
        let live = sessions.filter_map(|session| Some((*session, self.live(*session, now)?)));
        live.map(|(session, holding)| Holder { name: holding.name.clone(), session }).collect()
    }

    fn rooms(&self) -> usize {
        self.rooms.len()
    }

    fn names(&self, most: usize, now: Instant) -> Vec<Name> {
        let live = self.holdings.values().filter(|holding| now < holding.deadline);
        live.take(most).map(|holding| holding.name.clone()).collect()
    }
}

impl Tables {
    fn take_out(&mut self, room: &Name, holder: SessionId) -> bool {
        let Some(present) = self.rooms.get_mut(room) else { return false };
        let before = present.len();
        present.retain(|session| *session != holder);
        let left = present.len() < before;
        if present.is_empty() {
            self.rooms.remove(room);
        }
        left
    }

    fn live(&self, holder: SessionId, now: Instant) -> Option<&Holding> {
        self.holdings.get(&holder).filter(|holding| now < holding.deadline)
    }
}

/// Mailboxes side by side. Never more of them than the hub has sessions.
#[derive(Debug, Default)]
pub struct Mailboxes(HashMap<SessionId, Arc<Mailbox>>);

impl Bus for Mailboxes {
    fn open(&mut self, holder: SessionId, mailbox: Arc<Mailbox>) {
        self.0.insert(holder, mailbox);
    }

    fn close(&mut self, holder: SessionId) {
        self.0.remove(&holder);
    }

    fn deliver(&self, holder: SessionId, message: Message, now: Instant) -> Result<(), Undelivered> {
        let mailbox = self.0.get(&holder).ok_or(Undelivered::UnknownMember)?;
        Ok(mailbox.put(message, now)?)
    }
}
