//! Who may sign in: anyone, or who proves to have been let in.

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
}

/// Why somebody may not sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// What is asked for is missing or wrong.
    #[error("not allowed to sign in")]
    Proof,
    /// It was wrong too often.
    #[error("failed too often")]
    Rate,
}

impl Accounts {
    /// Asks for `proof`; sources in `exempt` may fail at will.
    pub fn new(proof: Proof, exempt: Vec<Prefix>) -> Self {
        Self { proof, failures: Mutex::new(PerSource::new(FAILURES, Sources::new(exempt))) }
    }

    /// Lets somebody from `source` in.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn admit(&self, token: Option<&str>, source: IpAddr, now: Now) -> Result<(), Denied> {
        let Proof::Token(right) = &self.proof else { return Ok(()) };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if !failures.has_one(source, now.monotonic) {
            return Err(Denied::Rate);
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

    #[test]
    fn anyone_is_let_in_unless_a_token_is_asked_for() {
        let (now, source) = (Clock::system().now(), [192, 0, 2, 1].into());
        let open = Accounts::new(Proof::None, Vec::new());
        let shared = Accounts::new(Proof::Token(RIGHT.into()), Vec::new());

        assert_eq!((open.admit(None, source, now), open.admit(Some("x"), source, now)), (Ok(()), Ok(())));
        assert_eq!(shared.admit(Some(RIGHT), source, now), Ok(()));
        for wrong in [None, Some(""), Some("0123456789abcdeF"), Some(&RIGHT[1..])] {
            assert_eq!(shared.admit(wrong, source, now), Err(Denied::Proof), "{wrong:?}");
        }
    }

    #[test]
    fn who_fails_too_often_waits_even_with_the_right_token_and_others_do_not() {
        let (now, source) = (Clock::system().now(), [192, 0, 2, 1].into());
        let shared = Accounts::new(Proof::Token(RIGHT.into()), vec!["127.0.0.0/8".parse().unwrap()]);
        (0..10).for_each(|_| assert_eq!(shared.admit(None, source, now), Err(Denied::Proof)));

        assert_eq!(shared.admit(Some(RIGHT), source, now), Err(Denied::Rate));
        assert_eq!(shared.admit(Some(RIGHT), [198, 51, 100, 1].into(), now), Ok(()));
        (0..99).for_each(|_| assert_eq!(shared.admit(None, [127, 0, 0, 1].into(), now), Err(Denied::Proof)));

        assert_eq!(shared.admit(Some(RIGHT), source, now.after(Duration::from_millis(1001))), Ok(()));
    }
}
