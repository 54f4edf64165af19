//! The long-term credential mechanism (RFC 8489, section 9.2): who asks, and with what key the answer is signed.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::address::FiveTuple;
use crate::clock::Now;
use crate::credentials::Claim;
use crate::credentials::Credentials;
use crate::credentials::Identity;
use crate::credentials::Mark;
use crate::credentials::SessionId;
use crate::credentials::Standing;
use crate::credentials::journal::Refusal;
use crate::metrics::AuthFailure;
use crate::metrics::Metrics;
use crate::turn::Rejection;
use crate::turn::answer::Key;
use crate::turn::answer::PasswordAlgorithm;
use crate::turn::nonce::Age;
use crate::turn::nonce::Nonces;
use crate::turn::nonce::offers_algorithms;
use crate::turn::notes;
use crate::turn::request::Asked;

/// Somebody who has proven a user name.
pub(super) struct Asker {
    /// The proven user name.
    pub(super) username: String,
    /// Whom it counts for.
    pub(super) identity: Identity,
    /// The signaling session that the user name was minted for.
    pub(super) session: Option<SessionId>,
    /// What answers are signed with.
    pub(super) key: Key,
    /// What proved it.
    pub(super) mark: Mark,
    /// Whether the credential's time has passed, so that it opens nothing more.
    pub(super) expired: bool,
}

/// What a client needs to prove who it is.
pub(super) struct Challenge<'a> {
    /// REALM.
    pub(super) realm: &'a str,
    /// NONCE.
    pub(super) nonce: String,
    /// Whether PASSWORD-ALGORITHMS are offered.
    pub(super) algorithms: bool,
}

/// Checks proofs for one realm.
pub(super) struct Authenticator {
    realm: String,
    nonces: Nonces,
    credentials: Arc<Credentials>,
    metrics: Arc<Metrics>,
}

impl Authenticator {
    /// For this realm and these credentials; what fails is counted.
    pub(super) fn new(realm: String, credentials: Arc<Credentials>, metrics: Arc<Metrics>) -> Self {
        Self { realm, nonces: Nonces::new(), credentials, metrics }
    }

    /// Who asks. The same work is done for unknown names, and what is compared with a secret is so in constant time.
    ///
    /// # Errors
    ///
    /// 401, 400 or 438, in the order of RFC 8489, section 9.2.4.
    pub(super) fn check(&self, asked: &Asked<'_>, client: FiveTuple, now: Now) -> Result<Asker, Rejection> {
        let proof = asked.proof()?.ok_or(Rejection::UNAUTHENTICATED)?;
        let algorithm = if offers_algorithms(client) { asked.password_algorithm()? } else { PasswordAlgorithm::Md5 };
        match self.nonces.age(proof.nonce, client, now) {
            Age::Fresh => {}
            Age::Stale => return Err(self.failed(AuthFailure::StaleNonce, Rejection::STALE_NONCE)),
            Age::Foreign => return Err(self.failed(AuthFailure::ForeignNonce, Rejection::FOREIGN_NONCE)),
        }
        let claim = self.credentials.claim(proof.username, now);
        let mut proven = None;
        for known in &claim.proofs {
            let key = Key::new(proof.username, &self.realm, &known.password, algorithm, proof.integrity);
            if key.proves(asked.stun(), proof.value, proof.offset) {
                proven = Some((key, known.mark));
            }
        }
        let realm_is_ours = bool::from(self.realm.as_bytes().ct_eq(proof.realm));
        let proven = proven.filter(|_| realm_is_ours);
        let expired = match claim.standing {
            Standing::Good => Some(false),
            Standing::Kept => Some(true),
            Standing::Refused => None,
        };
        let is_proven = proven.is_some();
        let (Some((key, mark)), Some(expired)) = (proven, expired) else {
            self.note(&claim, is_proven);
            let why = match is_proven {
                _ if claim.is_of_nobody() => AuthFailure::UnknownUser,
                true => AuthFailure::Expired,
                false => AuthFailure::WrongPassword,
            };
            return Err(self.failed(why, Rejection::UNAUTHENTICATED));
        };
        let (username, identity) = (proof.username.to_owned(), claim.identity);
        Ok(Asker { username, identity, session: claim.session, key, mark, expired })
    }

    fn failed(&self, why: AuthFailure, rejection: Rejection) -> Rejection {
        self.metrics.auth_failures.increment(why);
        rejection
    }

    /// Has the journal know why somebody's proof is none, or good for nothing: where a session is meant that it knows, of
    /// that one; else, if the credential is one that might be ours, as one of many.
    fn note(&self, claim: &Claim, is_proven: bool) {
        let journal = self.credentials.journal();
        if let Some(key) = journal.of_session(claim.session) {
            return journal.refused(key, Refusal::Proof(if is_proven { notes::EXPIRED } else { notes::WRONG }));
        }
        if is_proven || claim.standing != Standing::Refused {
            journal.refused_stranger(is_proven);
        }
    }

    /// What lets this client ask again.
    pub(super) fn challenge(&self, client: FiveTuple, now: Now) -> Challenge<'_> {
        Challenge { realm: &self.realm, nonce: self.nonces.issue(client, now), algorithms: offers_algorithms(client) }
    }
}
