//! What an operator sees of who is signed in, and has done to them.

use super::Sessions;
use crate::clock::Now;
use crate::credentials::SessionId;
use crate::signaling::hub::TooManyBanned;
use crate::signaling::hub::listing::Member;
use crate::signaling::hub::listing::Room;
use crate::signaling::name::Name;

/// Whom a ban was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banned {
    /// Whether somebody was signed in.
    pub kicked: bool,
    /// The account that is refused, too.
    pub account: Option<Name>,
}

impl Sessions {
    /// Ends the connection, the session and the allocations of `name`; false when nobody is signed in by it.
    pub fn kick(&self, name: &Name, now: Now) -> bool {
        let mut hub = self.hub();
        let kicked = hub.kick(name, now);
        if let Some(session) = kicked {
            self.credentials.revoke(session, now);
        }
        kicked.is_some()
    }

    /// Refuses `name` until it is unbanned, and kicks who is signed in by it; whether somebody was. Whose that is is refused
    /// by every other name, too, wherever it signs in: the account, if there is one. In our own protocol it is called as
    /// the member.
    ///
    /// # Errors
    ///
    /// [`TooManyBanned`]; nothing has changed then.
    pub fn ban(&self, name: Name, now: Now) -> Result<Banned, TooManyBanned> {
        let mut hub = self.hub();
        let account = hub.account_of(&name, now).or_else(|| self.names_accounts().then(|| name.clone()));
        let is_new = hub.ban(name.clone())?;
        if let Some(account) = &account
            && let Err(full) = self.accounts.ban(account.clone())
        {
            if is_new {
                hub.unban(&name);
            }
            return Err(full);
        }
        drop(hub);
        Ok(Banned { kicked: self.kick(&name, now), account })
    }

    /// Lets `name` sign in again, and the account that is called so where members are; false when neither was banned.
    pub fn unban(&self, name: &Name) -> bool {
        let was_account = self.names_accounts() && self.accounts.unban(name);
        self.hub().unban(name) || was_account
    }

    /// Kicks whoever is signed in for `account`; whether somebody was.
    pub fn kick_account(&self, account: &Name, now: Now) -> bool {
        let mut hub = self.hub();
        let sessions = hub.sessions_of(account);
        for session in &sessions {
            hub.kick_session(*session, now);
            self.credentials.revoke(*session, now);
        }
        !sessions.is_empty()
    }

    /// Who `session` is, if it is signed in here.
    pub fn name_of(&self, session: SessionId) -> Option<Name> {
        self.hub().name_of(session)
    }

    /// How many rooms somebody is in.
    pub fn count_rooms(&self) -> usize {
        self.hub().count_rooms()
    }

    /// Whether `session` is somebody's who is signed in here.
    pub fn has(&self, session: SessionId) -> bool {
        self.hub().has(session)
    }

    /// The first `most` members behind `after`.
    pub fn members(&self, after: Option<&Name>, most: usize) -> Vec<Member> {
        self.hub().members(after, most)
    }

    /// The first `most` rooms behind `after`.
    pub fn rooms(&self, after: Option<&Name>, most: usize) -> Vec<Room> {
        self.hub().rooms(after, most)
    }

    /// Ends all that `session` has, whether it lives or has left its allocations behind; whether somebody was kicked.
    pub fn revoke(&self, session: SessionId, now: Now) -> bool {
        let mut hub = self.hub();
        let kicked = hub.kick_session(session, now);
        self.credentials.revoke(session, now);
        kicked
    }
}
