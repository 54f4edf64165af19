//! Names that their client's own token takes over: for protocols whose clients come back to a name and not to a session.

use std::net::IpAddr;
use std::sync::Arc;

use super::Attached;
use super::Hub;
use super::Refusal;
use crate::clock::Now;
use crate::credentials::SessionId;
use crate::signaling::accounts::Account;
use crate::signaling::mailbox::Delivery;
use crate::signaling::name::Name;
use crate::signaling::secret::Token;

impl Hub {
    /// Signs `name` in, whose session goes on over any later connection that says the same `token`: the earlier one ends
    /// then, if it hasn't yet. The session waits for nobody.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nothing has changed then.
    pub fn sign_in_or_take_over(
        &mut self,
        name: Name,
        token: &str,
        account: Account,
        source: IpAddr,
        now: Now,
    ) -> Result<Attached, Refusal> {
        let token = Token::of(token);
        let holder = self.registry.holder_of(&name, now.monotonic);
        if let Some(session) = holder.filter(|session| self.is_of(*session, &token)) {
            return self.take_over(session, now);
        }
        let attached = self.sign_in(name, account, Delivery::Once, source, now)?;
        if let Some(seat) = self.sessions.get_mut(&attached.session) {
            seat.token = Some(token);
        }
        Ok(attached)
    }

    fn take_over(&mut self, session: SessionId, now: Now) -> Result<Attached, Refusal> {
        let seat = self.sessions.get(&session).ok_or(Refusal::NameTaken)?;
        // Nothing is acknowledged: what an earlier connection took is gone. One that was cut has the name until it ends.
        let reader = seat.mailbox.attach(0).map_err(|_| Refusal::NameTaken)?;
        let (account, last_frame) = (Arc::clone(&seat.account), seat.last_frame);
        self.renew(session, now).map_err(|_| Refusal::NameTaken)?;
        Ok(Attached { session, account, reader, secret: None, last_frame })
    }

    fn is_of(&self, session: SessionId, token: &Token) -> bool {
        self.sessions.get(&session).and_then(|seat| seat.token.as_ref()).is_some_and(|known| known.is(token))
    }
}
