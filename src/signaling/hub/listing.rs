//! Who and what is here, for an operator: a page at a time, in the order of names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Hub;
use super::Seat;
use crate::clock::Now;
use crate::credentials::SessionId;
use crate::signaling::name::Name;

/// One member.
#[derive(Clone, Debug)]
pub struct Member {
    /// By this name.
    pub name: Name,
    /// In this session.
    pub session: SessionId,
    /// Whose it is, where accounts have names.
    pub account: Option<Name>,
    /// Where its client came from.
    pub source: IpAddr,
    /// When it signed in, in Unix time.
    pub since: Duration,
    /// The rooms that it is in.
    pub rooms: Vec<Name>,
    /// Whether its client has lost its connection and may come back.
    pub is_away: bool,
}

/// One room.
#[derive(Clone, Debug)]
pub struct Room {
    /// By this name.
    pub name: Name,
    /// How many members are in it.
    pub members: usize,
}

impl Hub {
    /// The first `most` members behind `after`.
    pub fn members(&self, after: Option<&Name>, most: usize) -> Vec<Member> {
        let by_name = |a: &Seat, b: &Seat| a.name.as_str().cmp(b.name.as_str());
        let mut seats: Vec<_> = self.sessions.iter().filter(|(_, seat)| is_behind(&seat.name, after)).collect();
        if seats.len() > most {
            seats.select_nth_unstable_by(most, |(_, a), (_, b)| by_name(a, b));
            seats.truncate(most);
        }
        seats.sort_unstable_by(|(_, a), (_, b)| by_name(a, b));
        let listed = seats.into_iter().map(|(session, seat)| Member {
            name: seat.name.clone(),
            session: *session,
            account: seat.account.name.clone(),
            source: seat.source,
            since: seat.since,
            rooms: seat.rooms.clone(),
            is_away: seat.away_until.is_some(),
        });
        listed.collect()
    }

    /// The first `most` rooms behind `after` that somebody signed in here is in.
    pub fn rooms(&self, after: Option<&Name>, most: usize) -> Vec<Room> {
        let mut rooms = BTreeMap::<&str, Room>::new();
        for name in self.sessions.values().flat_map(|seat| &seat.rooms).filter(|room| is_behind(room, after)) {
            let is_full = rooms.len() >= most;
            if is_full && rooms.last_key_value().is_none_or(|(last, _)| name.as_str() > *last) {
                continue;
            }
            let room = rooms.entry(name.as_str()).or_insert_with(|| Room { name: name.clone(), members: 0 });
            room.members += 1;
            if rooms.len() > most {
                rooms.pop_last();
            }
        }
        rooms.into_values().collect()
    }

    /// How many rooms somebody is in.
    pub fn count_rooms(&self) -> usize {
        self.registry.rooms()
    }

    /// Whose the session of `name` is, where accounts have names.
    pub fn account_of(&self, name: &Name, now: Now) -> Option<Name> {
        let session = self.session_of(name, now)?;
        self.sessions.get(&session)?.account.name.clone()
    }

    /// The sessions that are `account`'s.
    pub fn sessions_of(&self, account: &Name) -> Vec<SessionId> {
        let theirs = self.sessions.iter().filter(|(_, seat)| seat.account.name.as_ref() == Some(account));
        theirs.map(|(session, _)| *session).collect()
    }

    /// Who `session` is, if it is signed in here.
    pub fn name_of(&self, session: SessionId) -> Option<Name> {
        self.sessions.get(&session).map(|seat| seat.name.clone())
    }

    /// Whether `session` is somebody's who is signed in here.
    pub fn has(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }
}

fn is_behind(name: &Name, after: Option<&Name>) -> bool {
    after.is_none_or(|after| name.as_str() > after.as_str())
}
