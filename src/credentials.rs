//! Time-limited TURN credentials, minted for signaling sessions and checked for TURN: the only thing both share.

use std::collections::HashMap;
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
    /// The holder of a time-limited credential: what follows the expiry in its user name, or all of a bare one.
    ///
    /// For our own it is the session, not the member's name: as long as names are anyone's, whoever had one before must
    /// not use up what its next bearer may have.
    Holder(String),
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
    /// Its expiry has passed, so long ago.
    Expired(Duration),
    /// No such user.
    Unknown,
}

/// Mints and checks credentials. Shared by signaling and TURN; it keeps no record of what it minted.
pub struct Credentials {
    secrets: Vec<hmac::Key>,
    users: HashMap<String, String>,
    nobody: hmac::Key,
}

/// How long a minted credential is good for.
pub const LIFETIME: Duration = Duration::from_secs(3600);

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
        Self { secrets, users: settings.users, nobody: key(&random::<32>()) }
    }

    /// A credential for `session`, good for [`LIFETIME`] from now. A session's earlier ones stay good.
    pub fn mint(&self, session: &str, now: Now) -> IceCredential {
        let username = format!("{}:{session}", (now.unix + LIFETIME).as_secs());
        let password = password(self.secrets.first().unwrap_or(&self.nobody), &username);
        IceCredential { username, password, lifetime: LIFETIME }
    }

    /// What would prove `username`, and what it would be counted as.
    pub fn claim(&self, username: &str, now: Now) -> Claim {
        if let Some(password) = self.users.get(username) {
            let identity = Identity::User(username.to_owned());
            return Claim { identity, passwords: vec![password.clone()], standing: Standing::Good };
        }
        let Some((expiry, holder)) = expiry_and_holder(username) else {
            let identity = Identity::Holder(String::new());
            return Claim { identity, passwords: vec![password(&self.nobody, username)], standing: Standing::Unknown };
        };
        let identity = Identity::Holder(holder.to_owned());
        let standing = if expiry <= now.unix { Standing::Expired(now.unix - expiry) } else { Standing::Good };
        let passwords = self.secrets.iter().map(|secret| password(secret, username)).collect();
        Claim { identity, passwords, standing }
    }
}

/// Of `expiry:holder`, or of the bare `expiry` that coturn's convention allows too, which is its own holder.
fn expiry_and_holder(username: &str) -> Option<(Duration, &str)> {
    let (expiry, holder) = username.split_once(':').unwrap_or((username, username));
    if !expiry.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((Duration::from_secs(expiry.parse().ok()?), holder))
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
    fn a_minted_credential_is_good_for_its_session_until_it_expires() {
        let credentials = with_secrets(&["new", "old"]);
        let now = Clock::system().now();

        let minted = credentials.mint("s1", now);
        let claim = credentials.claim(&minted.username, now);
        let late = credentials.claim(&minted.username, now.after(LIFETIME));

        assert_eq!(claim.identity, Identity::Holder("s1".into()));
        assert_eq!(claim.standing, Standing::Good);
        assert_eq!(claim.passwords.first(), Some(&minted.password));
        assert!(matches!(late.standing, Standing::Expired(_)));
    }

    #[test]
    fn the_password_is_the_one_that_coturn_computes() {
        let credentials = with_secrets(&["north", "south"]);

        let claim = credentials.claim("1700000000:carol", Clock::system().now());

        // printf 1700000000:carol | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(claim.passwords.first().map(String::as_str), Some("+7vnw9QGdV9hTZ/4Cg+GqOxH//Q="));
        assert_eq!(claim.passwords.len(), 2, "every secret verifies");
        assert!(matches!(claim.standing, Standing::Expired(_)));
        assert_eq!(claim.identity, Identity::Holder("carol".into()));
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
        assert_eq!(credentials.claim("1700000000", now).identity, Identity::Holder("1700000000".into()));
        assert_eq!(credentials.claim("alice", now).identity, Identity::User("alice".into()));
    }
}
