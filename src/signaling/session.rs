//! Sessions: a name held for as long as its connection lives, and the ICE servers that go with it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::Value;

use crate::clock::Now;
use crate::credentials::Credentials;
use crate::credentials::IceCredential;
use crate::credentials::SessionId;
use crate::signaling::candidates;
use crate::signaling::hub::Hub;
use crate::signaling::hub::Refusal;
use crate::signaling::hub::TooManyBanned;
use crate::signaling::hub::Undelivered;
use crate::signaling::ice::Served;
use crate::signaling::mailbox::Mailbox;
use crate::signaling::message::Payload;
use crate::signaling::message::SignalKind;
use crate::signaling::name::Name;

/// Signs members in: what every gateway talks to.
pub struct Sessions {
    hub: Mutex<Hub>,
    credentials: Arc<Credentials>,
    served: Served,
}

/// Who asks to sign in.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The host of this server as the client reached it.
    pub host: String,
    /// Where it comes from.
    pub source: IpAddr,
}

/// A member signed in; signed out for good when dropped, which ends its credentials as `turn.credentials` has it. Whoever
/// keeps it while a member is away puts that off.
pub struct Session {
    sessions: Arc<Sessions>,
    name: Name,
    id: SessionId,
    host: String,
}

/// What a session is handed for ICE.
#[derive(Clone, Debug)]
pub struct Ice {
    /// Ready for `RTCPeerConnection`.
    pub servers: Value,
    /// How long their credentials are good for.
    pub lifetime: Duration,
}

/// Why there are no ICE servers for who signals elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoIce {
    /// The source asks too often.
    #[error("too many requests")]
    Rate,
    /// Peers must be signaled here: a credential without a session would be the way around that.
    #[error("turn.peers.mode is \"signaled\": sign in and signal here")]
    SignaledPeersOnly,
}

impl Sessions {
    /// Members meet in `hub` and get credentials of `credentials` for what is `served`.
    pub fn new(hub: Hub, credentials: Arc<Credentials>, served: Served) -> Self {
        Self { hub: Mutex::new(hub), credentials, served }
    }

    /// Signs `name` in: what is for it goes to `mailbox` for as long as the session is kept.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nobody is signed in then.
    pub fn sign_in(
        self: &Arc<Self>,
        name: Name,
        mailbox: Arc<Mailbox>,
        visitor: &Visitor,
        now: Now,
    ) -> Result<(Session, Ice), Refusal> {
        let id = SessionId::new();
        let mut hub = self.hub();
        hub.sign_in(name.clone(), id, mailbox, visitor.source, now)?;
        // Before anybody can kick it.
        self.credentials.begin(id);
        drop(hub);
        tracing::debug!(session = %id, "signed in");
        let session = Session { sessions: Arc::clone(self), name, id, host: visitor.host.clone() };
        let ice = session.ice(now);
        Ok((session, ice))
    }

    /// ICE servers for an application that signals elsewhere; asking for them counts as a sign-in. They belong to no
    /// session, so nothing but time ends them.
    ///
    /// # Errors
    ///
    /// [`NoIce`].
    pub fn ice_elsewhere(&self, visitor: &Visitor, now: Now) -> Result<Ice, NoIce> {
        if self.credentials.binds_peers() {
            return Err(NoIce::SignaledPeersOnly);
        }
        self.hub().knock(visitor.source, now).map_err(|_| NoIce::Rate)?;
        // Nobody is known to be behind it: it counts for itself, beside what counts by source.
        let credential = self.credentials.mint_for(&SessionId::new().to_string(), now);
        Ok(self.ice(&visitor.host, credential))
    }

    /// Ends the connection, the session and the allocations of `name`; false when nobody is signed in by it.
    pub fn kick(&self, name: &Name, now: Now) -> bool {
        let mut hub = self.hub();
        let kicked = hub.kick(name);
        if let Some(session) = kicked {
            self.credentials.revoke(session, now);
        }
        kicked.is_some()
    }

    /// Refuses `name` until it is unbanned, and kicks who is signed in by it; whether somebody was.
    ///
    /// # Errors
    ///
    /// [`TooManyBanned`]; nothing has changed then.
    pub fn ban(&self, name: Name, now: Now) -> Result<bool, TooManyBanned> {
        self.hub().ban(name.clone())?;
        Ok(self.kick(&name, now))
    }

    /// Lets `name` sign in again; false when it was not banned.
    pub fn unban(&self, name: &Name) -> bool {
        self.hub().unban(name)
    }

    /// Ends all that `session` has, whether it lives or has left its allocations behind; whether somebody was kicked.
    pub fn revoke(&self, session: SessionId, now: Now) -> bool {
        let mut hub = self.hub();
        let kicked = hub.member_of(session).and_then(|name| hub.kick(&name));
        self.credentials.revoke(session, now);
        kicked.is_some()
    }

    fn ice(&self, host: &str, credential: IceCredential) -> Ice {
        let servers = self.served.ice_servers(host, &credential);
        Ice { servers, lifetime: credential.lifetime }
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// The member's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// What this session is called.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// ICE servers with fresh credentials; earlier ones stay good for their time.
    pub fn ice(&self, now: Now) -> Ice {
        // While accounts are open a name is anyone's, and whoever had it before must not use up what its next bearer may
        // have: the session counts for itself.
        let member = None;
        let credential = self.sessions.credentials.mint(self.id, member, now);
        self.sessions.ice(&self.host, credential)
    }

    /// Passes a step of a negotiation on, as [`Hub::signal`].
    ///
    /// # Errors
    ///
    /// [`Undelivered`], as there.
    pub fn signal(&self, to: &Name, kind: SignalKind, payload: Payload, now: Now) -> Result<(), Undelivered> {
        let Sessions { credentials, .. } = &*self.sessions;
        let told = if credentials.binds_peers() { candidates::addresses(&payload) } else { Vec::new() };
        let mut hub = self.sessions.hub();
        // Before the recipient can act on it. What a member tells itself opens nothing.
        if let Some(recipient) = hub.session_of(to).filter(|recipient| !told.is_empty() && *recipient != self.id) {
            credentials.signaled(recipient, self.id, &told);
        }
        hub.signal(&self.name, to, kind, payload, now)
    }

    /// Hangs up on `to`, as [`Hub::leave`].
    ///
    /// # Errors
    ///
    /// [`Undelivered`], as there.
    pub fn leave(&self, to: &Name, now: Now) -> Result<(), Undelivered> {
        self.sessions.hub().leave(&self.name, to, now)
    }

    /// Hangs up on every partner.
    pub fn leave_all(&self) {
        self.sessions.hub().leave_all(&self.name);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.hub().sign_out(&self.name);
        self.sessions.credentials.end(self.id);
        tracing::debug!(session = %self.id, "signed out");
    }
}
