//! Sessions: a name held for as long as its connection lives, and the ICE servers that go with it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::clock::Now;
use crate::credentials::Credentials;
use crate::credentials::random;
use crate::signaling::hub::Hub;
use crate::signaling::hub::Refusal;
use crate::signaling::hub::Undelivered;
use crate::signaling::ice::Served;
use crate::signaling::mailbox::Mailbox;
use crate::signaling::message::Payload;
use crate::signaling::message::SignalKind;
use crate::signaling::name::Name;

/// How much of a session's id stands in its TURN user name: it travels with every request, so it is short.
const TURN_CHARS: usize = 16;

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

/// A member signed in; signed out when dropped.
pub struct Session {
    sessions: Arc<Sessions>,
    name: Name,
    id: String,
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
        self.hub().sign_in(name.clone(), mailbox, visitor.source, now)?;
        let id = BASE64_URL_SAFE_NO_PAD.encode(random::<16>());
        tracing::debug!(session = id, "signed in");
        let session = Session { sessions: Arc::clone(self), name, id, host: visitor.host.clone() };
        let ice = session.ice(now);
        Ok((session, ice))
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

    /// 128 random bits in Base64 for URLs. No secret: a part of it stands in TURN user names.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// ICE servers with fresh credentials; earlier ones stay good for their time.
    pub fn ice(&self, now: Now) -> Ice {
        let short = self.id.get(..TURN_CHARS).unwrap_or(&self.id);
        let credential = self.sessions.credentials.mint(short, now);
        let servers = self.sessions.served.ice_servers(&self.host, &credential);
        Ice { servers, lifetime: credential.lifetime }
    }

    /// Passes a step of a negotiation on, as [`Hub::signal`].
    ///
    /// # Errors
    ///
    /// [`Undelivered`], as there.
    pub fn signal(&self, to: &Name, kind: SignalKind, payload: Payload, now: Now) -> Result<(), Undelivered> {
        self.sessions.hub().signal(&self.name, to, kind, payload, now)
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
        tracing::debug!(session = self.id, "signed out");
    }
}
