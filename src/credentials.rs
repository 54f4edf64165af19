//! Time-limited TURN credentials, minted for signaling sessions and checked for TURN: the only thing both share.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use ring::rand::SecureRandom;
use ring::rand::SystemRandom;

use crate::clock::Now;

/// What decides which credentials are good.
#[derive(Clone, Default)]
pub struct Settings {
    /// Shared secrets of time-limited credentials: the first one signs, all verify. Empty: a random one.
    pub secrets: Vec<String>,
    /// Static long-term credentials: user name to password.
    pub users: HashMap<String, String>,
}

/// A credential as `iceServers` carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredential {
    /// `expiry:session`, the expiry in Unix seconds.
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
    /// A member signed in to this server.
    Member(String),
    /// Somebody to whom a back end with one of our secrets gave a credential.
    Foreign(String),
}

/// What is known of a user name before its password is proven.
#[derive(Clone)]
pub struct Claim {
    /// Whom it would be counted for.
    pub identity: Identity,
    /// Every password that proves it; for an unknown name one that nobody has, so that the work is the same.
    pub passwords: Vec<String>,
    /// None for a name that cannot be proven, else whether its time has passed.
    pub standing: Standing,
}

/// Whether a credential still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is good now.
    Good,
    /// Its expiry has passed.
    Expired,
    /// No such user.
    Unknown,
}

/// No more grants can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many live credentials")]
pub struct Full;

/// Mints and checks credentials. Shared by signaling and TURN; each call is short and never waits for I/O.
pub struct Credentials {
    secrets: Vec<hmac::Key>,
    users: HashMap<String, String>,
    nobody: hmac::Key,
    grants: Mutex<Grants>,
}

/// Who holds a credential that is still good, by session.
#[derive(Default)]
struct Grants {
    by_session: HashMap<String, Grant>,
    by_expiry: BTreeSet<(Duration, String)>,
}

struct Grant {
    member: String,
    expires: Duration,
    /// Whether anybody has come with it.
    claimed: bool,
}

/// How long a minted credential is good for.
pub const LIFETIME: Duration = Duration::from_secs(3600);
/// How many sessions may hold a credential at once.
pub const MAX_GRANTS: usize = 200_000;

impl Credentials {
    /// Credentials under these secrets and users.
    ///
    /// # Panics
    ///
    /// When the operating system has no random numbers to give.
    pub fn new(settings: Settings) -> Self {
        let key = |secret: &[u8]| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
        let mut secrets: Vec<_> = settings.secrets.iter().map(|secret| key(secret.as_bytes())).collect();
        if secrets.is_empty() {
            secrets.push(key(&random::<32>()));
        }
        Self { secrets, users: settings.users, nobody: key(&random::<32>()), grants: Mutex::default() }
    }

    /// A credential for `session` of `member`, good for [`LIFETIME`] from now. A session's earlier ones stay good.
    ///
    /// # Errors
    ///
    /// [`Full`], when [`MAX_GRANTS`] sessions hold one.
    pub fn mint(&self, session: &str, member: &str, now: Now) -> Result<IceCredential, Full> {
        let expires = now.unix + LIFETIME;
        self.grants().put(session, member, expires, now)?;
        let username = format!("{}:{session}", expires.as_secs());
        let signer = self.secrets.first().unwrap_or(&self.nobody);
        let password = password(signer, &username);
        Ok(IceCredential { username, password, lifetime: LIFETIME })
    }

    /// Forgets whose `session` is, once that has ended, unless somebody has come with a credential of it: signing in
    /// and out again leaves nothing behind. The credential stays good, as that of a foreign one.
    pub fn forget(&self, session: &str) {
        let mut grants = self.grants();
        if grants.by_session.get(session).is_some_and(|grant| !grant.claimed) {
            grants.remove(session);
        }
    }

    /// What would prove `username`, and what it would be counted as.
    pub fn claim(&self, username: &str, now: Now) -> Claim {
        if let Some(password) = self.users.get(username) {
            let identity = Identity::User(username.to_owned());
            return Claim { identity, passwords: vec![password.clone()], standing: Standing::Good };
        }
        let Some((expiry, session)) = expiry_and_session(username) else {
            let identity = Identity::Foreign(String::new());
            return Claim { identity, passwords: vec![password(&self.nobody, username)], standing: Standing::Unknown };
        };
        let standing = if expiry <= now.unix { Standing::Expired } else { Standing::Good };
        let identity = match self.grants().by_session.get_mut(session) {
            Some(grant) => {
                grant.claimed = true;
                Identity::Member(grant.member.clone())
            }
            None => Identity::Foreign(session.to_owned()),
        };
        let passwords = self.secrets.iter().map(|secret| password(secret, username)).collect();
        Claim { identity, passwords, standing }
    }

    fn grants(&self) -> std::sync::MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grants {
    fn put(&mut self, session: &str, member: &str, expires: Duration, now: Now) -> Result<(), Full> {
        while let Some((_, expired)) = self.by_expiry.first().filter(|(expiry, _)| *expiry <= now.unix).cloned() {
            self.remove(&expired);
        }
        let earlier = self.remove(session);
        if self.by_session.len() >= MAX_GRANTS {
            return Err(Full);
        }
        let claimed = earlier.is_some_and(|grant| grant.claimed);
        self.by_session.insert(session.to_owned(), Grant { member: member.to_owned(), expires, claimed });
        self.by_expiry.insert((expires, session.to_owned()));
        Ok(())
    }

    fn remove(&mut self, session: &str) -> Option<Grant> {
        let grant = self.by_session.remove(session)?;
        self.by_expiry.remove(&(grant.expires, session.to_owned()));
        Some(grant)
    }
}

/// `expiry:session`, or the bare `expiry` that coturn's convention allows too.
fn expiry_and_session(username: &str) -> Option<(Duration, &str)> {
    let (expiry, session) = username.split_once(':').unwrap_or((username, ""));
    if !expiry.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((Duration::from_secs(expiry.parse().ok()?), session))
}

fn password(secret: &hmac::Key, username: &str) -> String {
    BASE64_STANDARD.encode(hmac::sign(secret, username.as_bytes()))
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
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn with_secrets(secrets: &[&str]) -> Credentials {
        Credentials::new(Settings {
            secrets: secrets.iter().map(ToString::to_string).collect(),
            users: HashMap::from([("alice".into(), "wonderland".into())]),
        })
    }

    #[test]
    fn a_minted_credential_is_claimed_by_its_member_until_it_expires() {
        let credentials = with_secrets(&["new", "old"]);
        let now = Clock::system().now();

        let minted = credentials.mint("s1", "bob", now).unwrap();
        let claim = credentials.claim(&minted.username, now);
        let late = credentials.claim(&minted.username, now.after(LIFETIME));

        assert_eq!(claim.identity, Identity::Member("bob".into()));
        assert_eq!(claim.standing, Standing::Good);
        assert_eq!(claim.passwords.first(), Some(&minted.password));
        assert_eq!(late.standing, Standing::Expired);
    }

    #[test]
    fn the_password_is_the_one_that_coturn_computes() {
        let credentials = with_secrets(&["north", "south"]);

        let claim = credentials.claim("1700000000:carol", Clock::system().now());

        // printf 1700000000:carol | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(claim.passwords.first().map(String::as_str), Some("+7vnw9QGdV9hTZ/4Cg+GqOxH//Q="));
        assert_eq!(claim.passwords.len(), 2, "every secret verifies");
        assert_eq!(claim.standing, Standing::Expired);
        assert_eq!(claim.identity, Identity::Foreign("carol".into()));
    }

    #[test]
    fn names_that_nobody_has_are_unknown_at_the_same_work() {
        let credentials = with_secrets(&["s"]);
        let now = Clock::system().now();

        for name in ["", "mallory", "+5:x", "-1:x", "99999999999999999999:x", ":x", "\u{0}"] {
            let claim = credentials.claim(name, now);

            assert_eq!(claim.standing, Standing::Unknown, "{name}");
            assert_eq!(claim.passwords.len(), 1);
        }
        assert_eq!(credentials.claim("alice", now).identity, Identity::User("alice".into()));
    }

    #[test]
    fn a_session_that_ends_is_forgotten_unless_its_credential_was_used() {
        let credentials = with_secrets(&[]);
        let now = Clock::system().now();
        let [used, unused] = ["used", "unused"].map(|session| credentials.mint(session, "m", now).unwrap().username);
        credentials.claim(&used, now);

        credentials.forget("used");
        credentials.forget("unused");
        credentials.forget("nobody's");

        assert_eq!(credentials.claim(&used, now).identity, Identity::Member("m".into()));
        assert_eq!(credentials.claim(&unused, now).identity, Identity::Foreign("unused".into()));
        assert_eq!(credentials.claim(&unused, now).standing, Standing::Good);
    }

    #[test]
    fn grants_are_capped_and_expired_ones_make_room() {
        let credentials = with_secrets(&[]);
        let now = Clock::system().now();
        for session in 0..MAX_GRANTS {
            credentials.mint(&session.to_string(), "m", now).unwrap();
        }

        assert_eq!(credentials.mint("one more", "m", now).err(), Some(Full));
        assert!(credentials.mint("7", "m", now).is_ok(), "a session that has one may renew it");

        assert!(credentials.mint("one more", "m", now.after(LIFETIME)).is_ok());
    }
}
