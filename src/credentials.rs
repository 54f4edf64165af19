//! Time-limited TURN credentials, minted for signaling sessions and checked for TURN: the only thing both share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SecureRandom;
use ring::rand::SystemRandom;
use tokio::sync::broadcast;

use self::grants::Grants;
pub use self::grants::MAX_SIGNALED;
pub use self::grants::NotASession;
pub use self::grants::SessionId;
use self::journal::Journal;
pub use self::rules::Mark;
use self::rules::Rules;
use self::rules::Secret;
use crate::clock::Now;
use crate::live::Live;

mod grants;
pub mod journal;
mod rules;

/// What decides which credentials are good, and for what.
#[derive(Clone)]
pub struct Settings {
    /// Shared secrets of time-limited credentials: the first one signs, all verify. Empty: a random one, which stays good
    /// for what it has signed when there are others.
    pub secrets: Vec<String>,
    /// Static long-term credentials: user name to password.
    pub users: HashMap<String, String>,
    /// What the end of a session means for its credentials.
    pub mode: Mode,
    /// How long a minted credential is good for.
    pub life: Duration,
    /// How long what was opened with a credential may be kept after its expiry, when no live session vouches for it.
    pub expired_grace: Duration,
    /// Whether a session may reach only those peers that it was told of by signaling.
    pub signaled_peers: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            users: HashMap::new(),
            mode: Mode::default(),
            life: Duration::from_secs(3600),
            expired_grace: Duration::ZERO,
            signaled_peers: false,
        }
    }
}

/// What the end of a session means for its credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: they are good for their time.
    #[default]
    Ttl,
    /// They end with it, and so does what they opened.
    Session,
}

/// A credential as `iceServers` carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredential {
    /// `expiry:holder`, the expiry in Unix seconds.
    pub username: String,
    /// Base64 of HMAC-SHA1 of the user name under the first secret.
    pub password: String,
    /// How long it is good for.
    pub lifetime: Duration,
}

/// Whom an allocation is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A static user.
    User(String),
    /// The holder of a credential that was minted for no session: what follows the expiry in its user name, or all of a
    /// bare one.
    Holder(String),
    /// A signaling session alone.
    Session(SessionId),
    /// A member in all its sessions, by what its user names say of it.
    Member(String),
}

/// What is known of a user name before its password is proven.
#[derive(Clone)]
pub struct Claim {
    /// Whom it would be counted for.
    pub identity: Identity,
    /// The signaling session that it was minted for, if any.
    pub session: Option<SessionId>,
    /// Everything that proves it; for an unknown name what nobody has, so that the work is the same.
    pub proofs: Vec<Proof>,
    /// What it is good for, once proven.
    pub standing: Standing,
}

impl Claim {
    /// Whether nobody can have such a user name.
    pub fn is_of_nobody(&self) -> bool {
        matches!(&self.identity, Identity::Holder(holder) if holder.is_empty()) && self.standing == Standing::Refused
    }
}

/// One way to prove a user name.
#[derive(Clone)]
pub struct Proof {
    /// The password.
    pub password: String,
    /// What it comes from: [`Credentials::still_proves`] tells whether that still holds.
    pub mark: Mark,
}

/// What a credential is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything.
    Good,
    /// Its time has passed: what it opened may be kept, nothing else be opened.
    Kept,
    /// Nothing: nobody's name, or revoked, or its time is over for good.
    Refused,
}

/// Mints and checks credentials, and knows which signaling sessions live. Shared by signaling and TURN; it keeps no record
/// of what it minted.
///
/// A session's user names are `expiry:~session`, or `expiry:~session` and a pseudonym of the member that it counts for;
/// `expiry:~~` and the pseudonym are a member's without a session.
/// What a back end signs with the same secrets (`expiry:user`, coturn's convention) is told apart by the tilde, and has no
/// session: it is good until it expires, reaches what the peer policy lets it, and is refused only by a change of secrets.
pub struct Credentials {
    rules: Live<Rules>,
    /// Signs while no other secret does.
    own: Secret,
    nobody: Secret,
    /// What the marks of secrets and passwords are made with.
    marks: hmac::Key,
    pseudonyms: hmac::Key,
    grants: Mutex<Grants>,
    journal: Journal,
    endings: broadcast::Sender<SessionId>,
}

/// Marks the holder in a user name as a session.
const SESSION: char = '~';
/// Stands instead of one, for a member without; no session's name has it.
const NO_SESSION: char = '~';
/// Ended sessions that wait to be looked at; who falls behind further looks at all that it has.
const MAX_ENDINGS: usize = 1024;
/// How long a revoked session's connection could at most go on asking for credentials.
const CLOSING: Duration = Duration::from_secs(60);

impl Credentials {
    /// Credentials under these settings; no session lives.
    ///
    /// # Panics
    ///
    /// When the operating system has no random numbers to give.
    pub fn new(settings: Settings) -> Self {
        let marks = hmac::Key::new(hmac::HMAC_SHA256, &random::<32>());
        let [own, nobody] = [(); 2].map(|()| Secret::new(&random::<32>(), &marks));
        let journal = Journal::new(settings.secrets.first().map_or(&random::<32>()[..], |secret| secret.as_bytes()));
        Self {
            rules: Live::new(Rules::new(settings, None, &own, &marks)),
            own,
            nobody,
            marks,
            pseudonyms: key(&random::<32>()),
            grants: Mutex::default(),
            journal,
            endings: broadcast::channel(MAX_ENDINGS).0,
        }
    }

    /// Has other settings hold from now on. What was minted before is good as long as the secret that signed it is among
    /// them, for the life that it was given.
    pub fn configure(&self, settings: Settings) {
        let rules = Rules::new(settings, Some(&self.rules.get()), &self.own, &self.marks);
        self.rules.set(rules);
    }

    /// Whether what proved `username` once would again, as far as secrets and passwords go.
    pub fn still_proves(&self, username: &str, mark: Mark) -> bool {
        let rules = self.rules.get();
        match rules.users.get(username) {
            Some(user) => user.mark == mark,
            None => rules.secrets.iter().any(|secret| secret.mark == mark),
        }
    }

    /// Lets `session` live, until [`Credentials::end`] or [`Credentials::revoke`].
    pub fn begin(&self, session: SessionId) {
        self.grants().add(session);
    }

    /// A credential for `session`, good for [`Settings::life`] from now. A session's earlier ones stay good.
    ///
    /// It counts for `member` in all its sessions, or, without one, for the session alone.
    pub fn mint(&self, session: SessionId, member: Option<&str>, now: Now) -> IceCredential {
        let pseudonym = member.map(|member| self.pseudonym(member)).unwrap_or_default();
        self.mint_for(&format!("{SESSION}{session}{pseudonym}"), now)
    }

    /// A credential for somebody who signals elsewhere, good for [`Settings::life`] from now.
    ///
    /// It counts for `member`, as those of its sessions do, or, without one, for itself.
    pub fn mint_elsewhere(&self, member: Option<&str>, now: Now) -> IceCredential {
        match member {
            Some(member) => self.mint_for(&format!("{SESSION}{NO_SESSION}{}", self.pseudonym(member)), now),
            None => self.mint_for(&SessionId::new().to_string(), now),
        }
    }

    /// A credential for somebody without a session, as a back end would sign it for its user `holder`.
    pub fn mint_for(&self, holder: &str, now: Now) -> IceCredential {
        let rules = self.rules.get();
        let username = format!("{}:{holder}", (now.unix + rules.life).as_secs());
        let password = rules.secrets.first().unwrap_or(&self.nobody).password(&username);
        IceCredential { username, password, lifetime: rules.life }
    }

    /// What would prove `username`, what it would be counted as, and what it is good for.
    pub fn claim(&self, username: &str, now: Now) -> Claim {
        let rules = self.rules.get();
        if let Some(user) = rules.users.get(username) {
            let identity = Identity::User(username.to_owned());
            return Claim { identity, session: None, proofs: vec![user.clone()], standing: Standing::Good };
        }
        let Some((expiry, holder)) = expiry_and_holder(username) else {
            let identity = Identity::Holder(String::new());
            let proofs = vec![self.nobody.proof(username)];
            return Claim { identity, session: None, proofs, standing: Standing::Refused };
        };
        let proofs = rules.secrets.iter().map(|secret| secret.proof(username)).collect();
        let (session, identity) = match (session_of(holder), member_of(holder)) {
            (Some((session, identity)), _) => (Some(session), identity),
            (None, Some(identity)) => (None, identity),
            (None, None) => (None, Identity::Holder(holder.to_owned())),
        };
        Claim { identity, session, proofs, standing: self.standing(&rules, expiry, session, now) }
    }

    /// Ends `session` for good, once no resumption can follow. In mode [`Mode::Session`] all that it opened ends too.
    pub fn end(&self, session: SessionId) {
        let ended = self.grants().end(session);
        self.journal.signed_out(session);
        match self.rules.get().mode {
            Mode::Session if ended => self.announce(session),
            Mode::Session | Mode::Ttl => {}
        }
    }

    /// Ends `session` and all that it opened, whether it lives or not, and refuses its credentials until they expire.
    pub fn revoke(&self, session: SessionId, now: Now) {
        let life = self.rules.get().longest_life;
        self.grants().revoke(session, now.unix + life + CLOSING, now.unix);
        self.announce(session);
    }

    /// Notes that `session` was told of peers at `ips`, which are canonical, by another session.
    pub fn signaled(&self, session: SessionId, by: SessionId, ips: &[IpAddr]) {
        self.grants().signaled(session, by, ips);
    }

    /// Whether peers must have been signaled to a session before it may reach them.
    pub fn binds_peers(&self) -> bool {
        self.rules.get().signaled_peers
    }

    /// Whether `session` may reach a peer at `ip`, as far as signaling goes.
    pub fn may_reach(&self, session: SessionId, ip: IpAddr) -> bool {
        !self.binds_peers() || self.grants().knows(session, ip)
    }

    /// What becomes of sessions and relays.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Tells of every session that ends from now on together with what it opened.
    pub fn endings(&self) -> Endings {
        Endings(self.endings.subscribe())
    }

    /// Whether what `session` opened must end.
    pub fn is_over(&self, session: SessionId, now: Now) -> bool {
        refuses(&self.rules.get(), &self.grants(), session, now.unix)
    }

    fn standing(&self, rules: &Rules, expiry: Duration, session: Option<SessionId>, now: Now) -> Standing {
        let lives = match session {
            None => false,
            Some(session) => {
                let grants = self.grants();
                if refuses(rules, &grants, session, expiry) {
                    return Standing::Refused;
                }
                grants.lives(session)
            }
        };
        if expiry > now.unix {
            Standing::Good
        } else if lives || now.unix - expiry <= rules.expired_grace {
            Standing::Kept
        } else {
            Standing::Refused
        }
    }

    fn pseudonym(&self, member: &str) -> String {
        let tag = hmac::sign(&self.pseudonyms, member.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(tag.as_ref().get(..PSEUDONYM_BYTES).unwrap_or_default())
    }

    fn announce(&self, session: SessionId) {
        // Without a relay there is nobody to tell.
        let _ = self.endings.send(session);
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sessions that end together with what they opened, one after the other.
pub struct Endings(broadcast::Receiver<SessionId>);

/// What has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// This session.
    One(SessionId),
    /// More sessions than were waited for: [`Credentials::is_over`] tells of each.
    Many,
}

impl Endings {
    /// Waits for the next. Can be dropped and called again at any time.
    pub async fn next(&mut self) -> Ending {
        match self.0.recv().await {
            Ok(session) => Ending::One(session),
            Err(broadcast::error::RecvError::Lagged(_)) => Ending::Many,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// How much of a member's pseudonym stands in user names: it travels with every request, so it is short.
const PSEUDONYM_BYTES: usize = 12;
/// The same in characters.
const PSEUDONYM_CHARS: usize = 16;

/// Whether a credential of `session` that expires at `expiry` is good for nothing any more, however much of its time is
/// left.
fn refuses(rules: &Rules, grants: &Grants, session: SessionId, expiry: Duration) -> bool {
    grants.refuses(session, expiry) || (rules.mode == Mode::Session && !grants.lives(session))
}

/// The session that `holder` names, and whom it counts for.
fn session_of(holder: &str) -> Option<(SessionId, Identity)> {
    let (session, pseudonym) = holder.strip_prefix(SESSION)?.split_at_checked(SessionId::CHARS)?;
    let session: SessionId = session.parse().ok()?;
    match pseudonym.len() {
        0 => Some((session, Identity::Session(session))),
        PSEUDONYM_CHARS => Some((session, Identity::Member(pseudonym.to_owned()))),
        _ => None,
    }
}

/// The member without a session that `holder` names.
fn member_of(holder: &str) -> Option<Identity> {
    let pseudonym = holder.strip_prefix(SESSION)?.strip_prefix(NO_SESSION)?;
    (pseudonym.len() == PSEUDONYM_CHARS).then(|| Identity::Member(pseudonym.to_owned()))
}

/// Of `expiry:holder`, or of the bare `expiry` that coturn's convention allows too, which is its own holder.
fn expiry_and_holder(username: &str) -> Option<(Duration, &str)> {
    let (expiry, holder) = username.split_once(':').unwrap_or((username, username));
    if !expiry.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((Duration::from_secs(expiry.parse().ok()?), holder))
}

fn key(secret: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret)
}

/// `N` random bytes from the operating system.
///
/// # Panics
///
/// When it has none to give: nothing here is safe then.
#[expect(clippy::expect_used, reason = "without random numbers no secret can be made, so nothing may go on")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system gives random numbers");
    bytes
}

#[cfg(test)]
mod tests;
