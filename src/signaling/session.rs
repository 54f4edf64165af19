//! Sessions as gateways have them: one connection's part in the hub, and the ICE servers that go with it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::credentials::Credentials;
use crate::credentials::IceCredential;
use crate::credentials::SessionId;
use crate::live::Live;
use crate::metrics::Gateway;
use crate::metrics::Metrics;
use crate::metrics::SignIn;
use crate::signaling::accounts::Account;
use crate::signaling::accounts::Accounts;
use crate::signaling::accounts::Asking;
use crate::signaling::accounts::Denied;
use crate::signaling::candidates;
use crate::signaling::hub::Attached;
use crate::signaling::hub::Hub;
use crate::signaling::hub::NotJoined;
use crate::signaling::hub::Refusal;
use crate::signaling::hub::Settings;
use crate::signaling::hub::Stale;
use crate::signaling::ice::Served;
use crate::signaling::mailbox::Delivery;
use crate::signaling::mailbox::Mailbox;
use crate::signaling::mailbox::Reader;
use crate::signaling::message::Joined;
use crate::signaling::message::Payload;
use crate::signaling::name::Name;
use crate::signaling::secret::Secret;
use crate::signaling::session::turn::Turn;
use crate::signaling::store::Lost;

mod operator;
mod outcome;
pub mod turn;

pub use self::operator::Banned;

/// Signs members in: what every gateway talks to.
pub struct Sessions {
    hub: Mutex<Hub>,
    accounts: Arc<Accounts>,
    credentials: Arc<Credentials>,
    served: Live<Served>,
    gateway: Gateway,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
    /// Rung when a tick may be due earlier than the last one said.
    retick: Notify,
}

/// Who asks to sign in.
#[derive(Clone)]
pub struct Visitor {
    /// The host of this server as the client reached it.
    pub host: String,
    /// Where it comes from.
    pub source: IpAddr,
    /// What it shows to be let in.
    pub token: Option<String>,
}

/// A member's connection. When it is dropped the session ends for good, unless [`Session::disconnect`] has had its say.
pub struct Session {
    sessions: Arc<Sessions>,
    name: Name,
    id: SessionId,
    account: Arc<Account>,
    reader: Arc<Reader>,
    secret: Option<Secret>,
    joined: Joined,
    host: String,
    source: IpAddr,
    since: Now,
    is_over: bool,
}

/// What a session is handed for ICE: nothing that a log may show.
#[derive(Clone)]
pub struct Ice {
    /// Ready for `RTCPeerConnection`.
    pub servers: Value,
    /// How long their credentials are good for.
    pub lifetime: Duration,
}

/// What asks for ICE servers without signing in.
const ELSEWHERE: &str = "ice";

/// Why somebody isn't signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSignedIn {
    /// At all.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// By this name, or from here.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Into the room that it wants to be in.
    #[error(transparent)]
    NotJoined(#[from] NotJoined),
    /// By no name at all, and its account has none either.
    #[error("no name to sign in by")]
    Nameless,
}

/// Why there are no ICE servers for who signals elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoIce {
    /// Who asks may not sign in either.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Peers must be signaled here: a credential without a session would be the way around that.
    #[error("turn.peers.mode is \"signaled\": sign in and signal here")]
    SignaledPeersOnly,
}

/// Why nobody is told who is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTold {
    /// Who asks may not sign in either.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nobody is.
    #[error("nobody is told who is here")]
    Nobody,
}

impl Sessions {
    /// Whom `accounts` let in meet in `hub` and get credentials of `credentials` for what is `served`, by our own protocol.
    pub fn new(
        mut hub: Hub,
        accounts: Arc<Accounts>,
        credentials: Arc<Credentials>,
        served: impl Into<Live<Served>>,
    ) -> Self {
        let gateway = Gateway::Json;
        let metrics = Arc::clone(hub.count_for(gateway));
        let (hub, served, draining, retick) = (Mutex::new(hub), served.into(), CancellationToken::new(), Notify::new());
        Self { hub, accounts, credentials, served, gateway, metrics, draining, retick }
    }

    /// The same by another protocol.
    pub fn by(self, gateway: Gateway) -> Self {
        self.hub().count_for(gateway);
        Self { gateway, ..self }
    }

    /// The same, but that nobody signs in any more once `draining` is cancelled. Who was signed in may still come back.
    pub fn until(self, draining: CancellationToken) -> Self {
        Self { draining, ..self }
    }

    /// Whether nobody signs in any more.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Whether a session waits for its client, which has lost its connection.
    pub fn awaits_somebody(&self) -> bool {
        self.hub().awaits_somebody()
    }

    /// What every member is told by, in no order.
    pub fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.hub().mailboxes()
    }

    /// Signs `name` in, and into `room`; with who else is there. In our own protocol, who has an account with a name signs
    /// in by that one and no other, and needn't say it. Elsewhere a member's name is what its connection is called, which
    /// anyone may choose who may sign in.
    ///
    /// # Errors
    ///
    /// [`NotSignedIn`]; nobody is signed in then.
    pub async fn sign_in(
        self: &Arc<Self>,
        name: impl Into<Option<Name>>,
        delivery: Delivery,
        room: Option<&Name>,
        visitor: &Visitor,
        now: Now,
    ) -> Result<(Session, Vec<Name>), NotSignedIn> {
        let done = self.sign_in_by(name.into(), delivery, room, visitor, now).await;
        self.counted(SignIn::Ok, done)
    }

    async fn sign_in_by(
        self: &Arc<Self>,
        name: Option<Name>,
        delivery: Delivery,
        room: Option<&Name>,
        visitor: &Visitor,
        now: Now,
    ) -> Result<(Session, Vec<Name>), NotSignedIn> {
        if name.is_none() && !self.accounts.have_names() {
            return Err(NotSignedIn::Nameless);
        }
        let (account, now) = self.admit(name.as_ref(), self.gateway.label(), visitor, now).await?;
        let name = if self.names_accounts() { account.bind(name)? } else { name };
        let name = name.ok_or(NotSignedIn::Nameless)?;
        self.enter(&name, account, room, visitor, now, |hub, account| {
            hub.sign_in(name.clone(), account, delivery, visitor.source, now)
        })
    }

    /// Signs somebody in who was let in, as `claim` has the hub do it: there is no other way in.
    fn enter(
        self: &Arc<Self>,
        name: &Name,
        account: Account,
        room: Option<&Name>,
        visitor: &Visitor,
        now: Now,
        claim: impl FnOnce(&mut Hub, Account) -> Result<Attached, Refusal>,
    ) -> Result<(Session, Vec<Name>), NotSignedIn> {
        let mut hub = self.hub();
        // Under the lock that a ban takes to end what there is.
        if self.accounts.refuses(&account) {
            return Err(Refusal::Banned.into());
        }
        let attached = claim(&mut hub, account)?;
        self.credentials.journal().signed_in(attached.session, self.gateway, name.as_str(), now);
        let joined = room.map_or(Ok(Vec::new()), |room| hub.join(attached.session, room, now));
        drop(hub);
        tracing::debug!(session = %attached.session, "signed in");
        let session = self.session(name.clone(), attached, visitor, now).0;
        Ok((session, joined?))
    }

    /// Signs somebody in who doesn't say by which name, under `name`, which nobody is asked about, and into `room`; with who
    /// else is there.
    ///
    /// # Errors
    ///
    /// [`NotSignedIn`]; nobody is signed in then.
    pub async fn sign_in_unnamed(
        self: &Arc<Self>,
        name: Name,
        delivery: Delivery,
        room: Option<&Name>,
        visitor: &Visitor,
        now: Now,
    ) -> Result<(Session, Vec<Name>), NotSignedIn> {
        let done = match self.admit(None, self.gateway.label(), visitor, now).await {
            Ok((account, now)) => self.enter(&name, account, room, visitor, now, |hub, account| {
                hub.sign_in(name.clone(), account, delivery, visitor.source, now)
            }),
            Err(denied) => Err(denied.into()),
        };
        self.counted(SignIn::Ok, done)
    }

    /// Signs `name` in, in the place of an earlier connection for the same account, or that showed the same token: that
    /// proves that it is the same client, unless the token is one that all share.
    ///
    /// # Errors
    ///
    /// [`NotSignedIn`]; nothing has changed then.
    pub async fn sign_in_or_take_over(
        self: &Arc<Self>,
        name: Name,
        visitor: &Visitor,
        now: Now,
    ) -> Result<Session, NotSignedIn> {
        let token = visitor.token.as_deref().filter(|_| self.accounts.are_tokens_personal());
        let done = match self.admit(Some(&name), self.gateway.label(), visitor, now).await {
            Ok((account, now)) => self.enter(&name, account, None, visitor, now, |hub, account| {
                hub.sign_in_or_take_over(name.clone(), token, account, visitor.source, now)
            }),
            Err(denied) => Err(denied.into()),
        };
        Ok(self.counted(SignIn::Ok, done)?.0)
    }

    /// Takes the session of `name` up again, as [`Hub::resume`]; with the last frame that was taken from its client. A try
    /// that fails counts as a sign-in.
    ///
    /// # Errors
    ///
    /// [`NotSignedIn`].
    pub fn resume(
        self: &Arc<Self>,
        name: Name,
        secret: &str,
        arrived: u64,
        visitor: &Visitor,
        now: Now,
    ) -> Result<(Session, u64), NotSignedIn> {
        let resumed = self.hub().resume(&name, secret, arrived, visitor.source, now);
        let resumed = resumed.map_err(|why| match self.accounts.knock(visitor.source, now) {
            // Who has the secret may come back as often as its network breaks.
            Ok(()) => NotSignedIn::from(why),
            Err(denied) => denied.into(),
        });
        let attached = self.counted(SignIn::Resumed, resumed)?;
        tracing::debug!(session = %attached.session, "resumed");
        Ok(self.session(name, attached, visitor, now))
    }

    /// Who is signed in, as [`Hub::who`], for somebody who isn't; asking counts as a sign-in.
    ///
    /// # Errors
    ///
    /// [`NotTold`].
    pub async fn who(&self, visitor: &Visitor, now: Now) -> Result<Vec<Name>, NotTold> {
        let (account, now) = self.admit(None, self.gateway.label(), visitor, now).await?;
        if self.accounts.refuses(&account) {
            return Err(Denied::Proof.into());
        }
        self.hub().who(None, now).ok_or(NotTold::Nobody)
    }

    /// Ends what is over, as [`Hub::tick`]; when to do so again.
    pub fn tick(&self, now: Now) -> Instant {
        self.hub().tick(now)
    }

    /// Waits until [`Sessions::tick`] may be due earlier than it said.
    pub async fn reticked(&self) {
        self.retick.notified().await;
    }

    /// Has other settings hold, as [`Hub::configure`].
    pub fn configure(&self, settings: Settings) {
        self.hub().configure(settings);
        self.retick.notify_one();
    }

    /// ICE servers for an application that signals elsewhere; asking for them counts as a sign-in. They belong to no
    /// session, so nothing but time ends them.
    ///
    /// # Errors
    ///
    /// [`NoIce`].
    pub async fn ice_elsewhere(&self, visitor: &Visitor, now: Now) -> Result<Ice, NoIce> {
        let done = self.mint_elsewhere(visitor, now).await;
        self.metrics.ice.increment(done.as_ref().map_or_else(|why| (*why).into(), |_| SignIn::Ok));
        done
    }

    async fn mint_elsewhere(&self, visitor: &Visitor, now: Now) -> Result<Ice, NoIce> {
        if self.credentials.binds_peers() {
            return Err(NoIce::SignaledPeersOnly);
        }
        let (account, now) = self.admit(None, ELSEWHERE, visitor, now).await?;
        if self.accounts.refuses(&account) {
            return Err(Denied::Proof.into());
        }
        let credential = self.credentials.mint_elsewhere(account.name.as_ref().map(Name::as_str), now);
        Ok(self.ice(&visitor.host, credential, &account))
    }

    /// What sessions are handed ICE servers of.
    pub fn served(&self) -> Arc<Served> {
        self.served.get()
    }

    /// Whether a member is called what its account is called, if that has a name.
    fn names_accounts(&self) -> bool {
        self.gateway == Gateway::Json
    }

    /// Whose account it is, and when that is known.
    async fn admit(
        &self,
        name: Option<&Name>,
        gateway: &'static str,
        Visitor { host, source, token }: &Visitor,
        now: Now,
    ) -> Result<(Account, Now), Denied> {
        if self.is_draining() {
            return Err(Denied::Later);
        }
        self.accounts.admit(&Asking { name, token: token.as_deref(), source: *source, host, gateway }, now).await
    }

    fn session(self: &Arc<Self>, name: Name, attached: Attached, visitor: &Visitor, now: Now) -> (Session, u64) {
        let Attached { session, account, reader, secret, last_frame, joined } = attached;
        let session = Session {
            sessions: Arc::clone(self),
            name,
            id: session,
            account,
            reader: Arc::new(reader),
            secret,
            joined,
            host: visitor.host.clone(),
            source: visitor.source,
            since: now,
            is_over: false,
        };
        (session, last_frame)
    }

    fn ice(&self, host: &str, credential: IceCredential, account: &Account) -> Ice {
        let mut servers = self.served.get().ice_servers(host, &credential);
        if let Some(list) = servers.as_array_mut() {
            list.extend_from_slice(&account.ice_servers);
        }
        Ice { servers, lifetime: credential.lifetime }
    }

    /// Counts how a sign-in went that would be `good`.
    fn counted<T>(&self, good: SignIn, done: Result<T, NotSignedIn>) -> Result<T, NotSignedIn> {
        let outcome = done.as_ref().map_or_else(|why| (*why).into(), |_| good);
        self.metrics.sign_ins.increment((self.gateway, outcome));
        done
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// The connection has ended. If the client `may_return`, and can, the session waits for it.
    pub fn disconnect(mut self, may_return: bool, now: Now) {
        self.is_over = true;
        self.sessions.hub().disconnect(self.id, &self.reader, may_return, now);
    }

    /// The process is about to end, and the session with it: nobody is told that the member has left. Calls go on without
    /// signaling, and most clients would end them when they heard so.
    pub fn leave_behind(mut self) {
        self.is_over = true;
    }

    /// The member's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// What this session is called.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// What it can be taken up again by, if at all.
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Its place in the order of joining.
    pub fn joined(&self) -> Joined {
        self.joined
    }

    /// What the member is told.
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Notes that the connection lives.
    ///
    /// # Errors
    ///
    /// [`Lost`], when the name isn't the session's any more.
    pub fn renew(&self, now: Now) -> Result<(), Lost> {
        self.sessions.hub().renew(self.id, now)
    }

    /// ICE servers with fresh credentials; earlier ones stay good for their time.
    pub fn ice(&self, now: Now) -> Ice {
        // Without an account its name is anyone's who may sign in, and whoever had it before must not use up what its next
        // bearer may have: then the session counts for itself.
        let member = self.account.name.as_ref().map(Name::as_str);
        let credential = self.sessions.credentials.mint(self.id, member, now);
        self.sessions.ice(&self.host, credential, &self.account)
    }

    /// The addresses of peers that `payload` tells its recipient of, if that matters.
    pub fn addresses(&self, payload: &Payload) -> Vec<IpAddr> {
        if self.sessions.credentials.binds_peers() { candidates::addresses(payload) } else { Vec::new() }
    }

    /// Takes one of the client's frames, by its number if it has one. Until the turn is over nothing else happens in the
    /// hub: what the frame says is done before any later one, whatever connection that comes over.
    ///
    /// # Errors
    ///
    /// [`Stale`], when nothing may come of it.
    pub fn turn(&self, frame: Option<u64>) -> Result<Turn<'_>, Stale> {
        let mut hub = self.sessions.hub();
        let sender = hub.admit(self.id, &self.reader, frame)?;
        Ok(Turn::new(hub, sender, self))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_over {
            self.sessions.hub().disconnect(self.id, &self.reader, false, self.since);
        }
    }
}

#[cfg(test)]
mod tests;
