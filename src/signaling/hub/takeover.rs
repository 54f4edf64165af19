//! Names that their owner takes over: for protocols whose clients come back to a name and not to a session.

use std::net::IpAddr;
use std::sync::Arc;

use super::Attached;
use super::Hub;
use super::Refusal;
use super::Seat;
use crate::clock::Now;
use crate::credentials::SessionId;
use crate::signaling::accounts::Account;
use crate::signaling::mailbox::Delivery;
use crate::signaling::message::Joined;
use crate::signaling::name::Name;
use crate::signaling::secret::Token;

/// Whose a name is: the same account's, if that has a name, or who says the same token.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    account: Arc<Account>,
    token: Option<Token>,
}

impl Seat {
    /// Whose it is.
    pub(super) fn owner(&self) -> Owner {
        Owner { account: Arc::clone(&self.account), token: self.token.clone() }
    }

    /// Whether it is `owner`'s.
    pub(super) fn is_of(&self, owner: &Owner) -> bool {
        let same_account = owner.account.name.is_some() && self.account.name == owner.account.name;
        let known = self.token.as_ref().zip(owner.token.as_ref());
        same_account || known.is_some_and(|(ours, theirs)| ours.is(theirs))
    }
}

impl Hub {
    /// Signs `name` in, whose session goes on over any later connection for the same account, or that says the same `token`,
    /// if it has one of its own: the earlier one ends then, if it hasn't yet. The session waits for nobody.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nothing has changed then.
    pub fn sign_in_or_take_over(
        &mut self,
        name: Name,
        token: Option<&str>,
        account: Account,
        source: IpAddr,
        now: Now,
    ) -> Result<Attached, Refusal> {
        let owner = Owner { account: Arc::new(account), token: token.map(Token::of) };
        let holder = self.registry.holder_of(&name, now.monotonic);
        let is_its = |session: &SessionId| self.sessions.get(session).is_some_and(|seat| seat.is_of(&owner));
        if let Some(session) = holder.filter(is_its) {
            return self.take_over(session, owner, source, now);
        }
        let Owner { account, token } = owner;
        let attached = self.sign_in(name, Arc::unwrap_or_clone(account), Delivery::Once, source, now)?;
        if let Some(seat) = self.sessions.get_mut(&attached.session) {
            seat.token = token;
        }
        Ok(attached)
    }

    fn take_over(&mut self, session: SessionId, owner: Owner, source: IpAddr, now: Now) -> Result<Attached, Refusal> {
        let seat = self.sessions.get_mut(&session).ok_or(Refusal::NameTaken)?;
        // Nothing is acknowledged: what an earlier connection took is gone. One that was cut has the name until it ends.
        let reader = seat.mailbox.attach(0).map_err(|_| Refusal::NameTaken)?;
        seat.source = source;
        // A signed token is another one each time.
        seat.token = owner.token;
        let (account, last_frame) = (Arc::clone(&seat.account), seat.last_frame);
        let joined = Joined::new(seat.since, session);
        self.renew(session, now).map_err(|_| Refusal::NameTaken)?;
        Ok(Attached { session, account, reader, secret: None, last_frame, joined })
    }
}
