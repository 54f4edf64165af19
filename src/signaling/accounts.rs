//! Who may sign in, and how often: anyone, or who proves to have been let in. The same for all gateways.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;

use subtle::ConstantTimeEq;

use crate::address::Prefix;
use crate::address::Sources;
use crate::clock::Now;
use crate::rate::PerSource;
use crate::rate::Rate;

/// How often one source may fail; while it has no try left, it isn't let in with the right proof either.
const FAILURES: Rate = Rate { per_second: 1.0, burst: 10.0 };

/// What is asked of who signs in.
#[derive(Clone, Default)]
pub enum Proof {
    /// Nothing.
    #[default]
    None,
    /// The token that everybody shares who may.
    Token(String),
}

/// Asks for it, of each source so often.
pub struct Accounts {
    proof: Proof,
    failures: Mutex<PerSource>,
    sign_ins: Mutex<PerSource>,
}

/// Why somebody may not sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// What is asked for is missing or wrong.
    #[error("not allowed to sign in")]
    Proof,
    /// It was wrong too often.
    #[error("failed too often")]
    Failures,
    /// Too many sign-ins, or what counts as much.
    #[error("too many sign-ins")]
    Rate,
}

impl Accounts {
    /// Asks for `proof`, and lets a source sign in as often as `sign_ins` has it; those in `exempt` may try, and fail, at
    /// will.
    pub fn new(proof: Proof, sign_ins: Rate, exempt: Vec<Prefix>) -> Self {
        let per_source = |rate| Mutex::new(PerSource::new(rate, Sources::new(exempt.clone())));
        Self { proof, failures: per_source(FAILURES), sign_ins: per_source(sign_ins) }
    }

    /// Lets somebody from `source` try to sign in, or do what counts as much.
    ///
    /// # Errors
    ///
    /// [`Denied::Rate`], when it tries too often.
    pub fn knock(&self, source: IpAddr, now: Now) -> Result<(), Denied> {
        let mut sign_ins = self.sign_ins.lock().unwrap_or_else(PoisonError::into_inner);
        if sign_ins.take(source, now.monotonic) { Ok(()) } else { Err(Denied::Rate) }
    }

    /// Lets somebody from `source` in, if it shows what is asked for and doesn't knock too often.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn admit(&self, token: Option<&str>, source: IpAddr, now: Now) -> Result<(), Denied> {
        self.check(token, source, now)?;
        self.knock(source, now)
    }

    /// Whether who shows the same token twice is the same member.
    pub fn are_tokens_personal(&self) -> bool {
        match self.proof {
            Proof::None => true,
            Proof::Token(_) => false,
        }
    }

    fn check(&self, token: Option<&str>, source: IpAddr, now: Now) -> Result<(), Denied> {
        let Proof::Token(right) = &self.proof else { return Ok(()) };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if !failures.has_one(source, now.monotonic) {
            return Err(Denied::Failures);
        }
        if token.is_some_and(|token| right.as_bytes().ct_eq(token.as_bytes()).into()) {
            return Ok(());
        }
        failures.take(source, now.monotonic);
        Err(Denied::Proof)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    const RIGHT: &str = "0123456789abcdef";
    const OFTEN: Rate = Rate { per_second: 5.0, burst: 1e9 };

    #[test]
    fn anyone_is_let_in_unless_a_token_is_asked_for() {
        let (now, source) = (Clock::system().now(), [192, 0, 2, 1].into());
        let open = Accounts::new(Proof::None, OFTEN, Vec::new());
        let shared = Accounts::new(Proof::Token(RIGHT.into()), OFTEN, Vec::new());

        assert_eq!((open.admit(None, source, now), open.admit(Some("x"), source, now)), (Ok(()), Ok(())));
        assert_eq!(shared.admit(Some(RIGHT), source, now), Ok(()));
        for wrong in [None, Some(""), Some("0123456789abcdeF"), Some(&RIGHT[1..])] {
            assert_eq!(shared.admit(wrong, source, now), Err(Denied::Proof), "{wrong:?}");
        }
    }

    #[test]
    fn who_fails_too_often_waits_even_with_the_right_token_and_others_do_not() {
        let (now, source) = (Clock::system().now(), [192, 0, 2, 1].into());
        let shared = Accounts::new(Proof::Token(RIGHT.into()), OFTEN, vec!["127.0.0.0/8".parse().unwrap()]);
        (0..10).for_each(|_| assert_eq!(shared.admit(None, source, now), Err(Denied::Proof)));

        assert_eq!(shared.admit(Some(RIGHT), source, now), Err(Denied::Failures));
        assert_eq!(shared.admit(Some(RIGHT), [198, 51, 100, 1].into(), now), Ok(()));
        (0..99).for_each(|_| assert_eq!(shared.admit(None, [127, 0, 0, 1].into(), now), Err(Denied::Proof)));

        assert_eq!(shared.admit(Some(RIGHT), source, now.after(Duration::from_millis(1001))), Ok(()));
    }

    #[test]
    fn sign_ins_of_a_source_are_limited() {
        let (now, source) = (Clock::system().now(), [192, 0, 2, 1].into());
        let few = Rate { per_second: 5.0, burst: 2.0 };
        let open = Accounts::new(Proof::None, few, vec!["127.0.0.0/8".parse().unwrap()]);
        (0..2).for_each(|_| assert_eq!(open.admit(None, source, now), Ok(())));

        assert_eq!(open.admit(None, source, now), Err(Denied::Rate));
        assert_eq!(open.knock(source, now), Err(Denied::Rate));
        assert_eq!(open.admit(None, [198, 51, 100, 1].into(), now), Ok(()));
        (0..9).for_each(|_| assert_eq!(open.knock([127, 0, 0, 1].into(), now), Ok(())));

        assert_eq!(open.admit(None, source, now.after(Duration::from_millis(201))), Ok(()));
    }
}
