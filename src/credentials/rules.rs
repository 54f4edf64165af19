//! The rules that credentials are under, as a reload may change them: secrets, users, times.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use super::Mode;
use super::Proof;
use super::Settings;
use super::key;

/// Stands for a secret or a password where that itself isn't to be kept: equal for equal ones, in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark([u8; 16]);

impl Mark {
    fn of(text: &[u8], marks: &hmac::Key) -> Self {
        let tag = hmac::sign(marks, text);
        Self(tag.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

/// What time-limited credentials are signed with.
#[derive(Clone)]
pub(super) struct Secret {
    key: hmac::Key,
    pub(super) mark: Mark,
}

impl Secret {
    pub(super) fn new(secret: &[u8], marks: &hmac::Key) -> Self {
        Self { key: key(secret), mark: Mark::of(secret, marks) }
    }

    pub(super) fn password(&self, username: &str) -> String {
        BASE64_STANDARD.encode(hmac::sign(&self.key, username.as_bytes()))
    }

    pub(super) fn proof(&self, username: &str) -> Proof {
        Proof { password: self.password(username), mark: self.mark }
    }
}

/// The rules in force.
pub(super) struct Rules {
    /// The first one signs, all verify.
    pub(super) secrets: Vec<Secret>,
    /// What proves each static user.
    pub(super) users: HashMap<String, Proof>,
    pub(super) mode: Mode,
    pub(super) life: Duration,
    /// The longest life that a credential was ever given.
    pub(super) longest_life: Duration,
    pub(super) expired_grace: Duration,
    pub(super) signaled_peers: bool,
    /// Whether the process's own secret signs, or did.
    has_own_signed: bool,
}

impl Rules {
    /// Those of `settings`, after `earlier` ones. Without any secret in them `own` signs; nobody else can know it, so that
    /// what it has signed stays good.
    pub(super) fn new(settings: Settings, earlier: Option<&Self>, own: &Secret, marks: &hmac::Key) -> Self {
        let Settings { secrets, users, mode, life, expired_grace, signaled_peers } = settings;
        let mut secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(secret.as_bytes(), marks)).collect();
        let has_own_signed = secrets.is_empty() || earlier.is_some_and(|earlier| earlier.has_own_signed);
        if has_own_signed {
            secrets.push(own.clone());
        }
        let proof = |password: String| Proof { mark: Mark::of(password.as_bytes(), marks), password };
        let users = users.into_iter().map(|(name, password)| (name, proof(password))).collect();
        let longest_life = earlier.map_or(life, |earlier| earlier.longest_life.max(life));
        Self { secrets, users, mode, life, longest_life, expired_grace, signaled_peers, has_own_signed }
    }
}
