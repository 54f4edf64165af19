//! Who may sign in, and how often: anyone, or who proves to have been let in. The same for all gateways.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;

use serde_json::Value;
use subtle::ConstantTimeEq;

use self::jwt::Verifier;
use self::webhook::Webhook;
use crate::address::Prefix;
use crate::address::Sources;
use crate::clock::Now;
use crate::live::Live;
use crate::rate::PerSource;
use crate::rate::Rate;
use crate::signaling::hub::MAX_BANNED;
use crate::signaling::hub::TooManyBanned;
use crate::signaling::name::Name;

pub mod jwt;
pub mod webhook;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// How often one source may fail; while it has no try left, it isn't let in with the right proof either.
const FAILURES: Rate = Rate { per_second: 1.0, burst: 10.0 };

/// What is asked of who signs in.
#[derive(Default)]
pub enum Proof {
    /// Nothing.
    #[default]
    None,
    /// The token that everybody shares who may.
    Token(String),
    /// A token of one's own, signed.
    Jwt(Verifier),
    /// Whatever a web service wants.
    Webhook(Webhook),
}

/// Asks for it, of each source so often.
pub struct Accounts {
    proof: Live<Proof>,
    failures: Mutex<PerSource>,
    sign_ins: Mutex<PerSource>,
    /// Capped by [`MAX_BANNED`].
    banned: Mutex<HashSet<Name>>,
}

/// What is known of who wants to sign in.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The name that it wants, if it says one.
    pub name: Option<&'a Name>,
    /// What it shows.
    pub token: Option<&'a str>,
    /// Where it comes from.
    pub source: IpAddr,
    /// The host of this server as it reached it.
    pub host: &'a str,
    /// What it signs in to.
    pub gateway: &'static str,
}

/// What somebody has who was let in.
#[derive(Clone, Default, PartialEq)]
pub struct Account {
    /// Whose it is, where accounts have names: whatever it is used for counts for this one.
    pub name: Option<Name>,
    /// ICE servers to have besides ours.
    pub ice_servers: Vec<Value>,
}

impl fmt::Debug for Account {
    /// Without the credentials that may stand in its ICE servers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Account {
    /// The one name that somebody with this account may go by who wants to go by `name`.
    ///
    /// # Errors
    ///
    /// [`Denied::Proof`], when it is somebody else's.
    pub(super) fn bind(&self, name: Option<Name>) -> Result<Option<Name>, Denied> {
        match (&self.name, name) {
            (Some(own), Some(name)) if *own != name => Err(Denied::Proof),
            (own, name) => Ok(own.clone().or(name)),
        }
    }
}

/// Why somebody may not sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// What is asked for is missing or wrong, or somebody else's.
    #[error("not allowed to sign in")]
    Proof,
    /// It was wrong too often.
    #[error("failed too often")]
    Failures,
    /// Too many sign-ins, or what counts as much.
    #[error("too many sign-ins")]
    Rate,
    /// Who would know doesn't say.
    #[error("nobody can be let in just now")]
    Later,
}

impl Accounts {
    /// Asks for `proof`, and lets a source sign in as often as `sign_ins` has it; those in `exempt` may try, and fail, at
    /// will.
    pub fn new(proof: Proof, sign_ins: Rate, exempt: Vec<Prefix>) -> Self {
        let per_source = |rate| Mutex::new(PerSource::new(rate, Sources::new(exempt.clone())));
        let (failures, sign_ins) = (per_source(FAILURES), per_source(sign_ins));
        Self { proof: Live::new(proof), failures, sign_ins, banned: Mutex::default() }
    }

    /// Asks for another proof from now on, and lets others in as often. Whoever is signed in stays so.
    pub fn configure(&self, proof: Proof, sign_ins: Rate, exempt: Vec<Prefix>) {
        for (buckets, rate) in [(&self.failures, FAILURES), (&self.sign_ins, sign_ins)] {
            let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
            buckets.configure(rate, Sources::new(exempt.clone()));
        }
        self.proof.set(proof);
    }

    /// Whether what is shown says whose account it is.
    pub fn have_names(&self) -> bool {
        match *self.proof.get() {
            Proof::None | Proof::Token(_) => false,
            Proof::Jwt(_) | Proof::Webhook(_) => true,
        }
    }

    /// Whether who shows the same token twice is the same member, as far as can be told here.
    pub fn are_tokens_personal(&self) -> bool {
        match *self.proof.get() {
            Proof::None | Proof::Jwt(_) => true,
            Proof::Token(_) | Proof::Webhook(_) => false,
        }
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

    /// Lets somebody in who shows what is asked for, and doesn't knock or fail too often; and when that is known, for who
    /// is asked may take its time.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub async fn admit(&self, asking: &Asking<'_>, now: Now) -> Result<(Account, Now), Denied> {
        self.knock(asking.source, now)?;
        if asking.token.is_some_and(|token| token.len() > MAX_TOKEN) {
            return Err(Denied::Proof);
        }
        if matches!(*self.proof.get(), Proof::None) {
            return Ok((Account::default(), now));
        }
        if !self.failures.lock().unwrap_or_else(PoisonError::into_inner).has_one(asking.source, now.monotonic) {
            return Err(Denied::Failures);
        }
        let (proven, now) = self.prove(asking, now).await;
        // Without a token it is a try, but no guess.
        if proven == Err(Denied::Proof) && asking.token.is_some() {
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).take(asking.source, now.monotonic);
        }
        Ok((proven?, now))
    }

    /// Has [`Accounts::refuses`] refuse `account`.
    ///
    /// # Errors
    ///
    /// [`TooManyBanned`]; nothing has changed then.
    pub fn ban(&self, account: Name) -> Result<(), TooManyBanned> {
        let mut banned = self.banned.lock().unwrap_or_else(PoisonError::into_inner);
        if banned.len() >= MAX_BANNED && !banned.contains(&account) {
            return Err(TooManyBanned);
        }
        banned.insert(account);
        Ok(())
    }

    /// Has it refused no more; whether it was.
    pub fn unban(&self, account: &Name) -> bool {
        self.banned.lock().unwrap_or_else(PoisonError::into_inner).remove(account)
    }

    /// Whether the operator doesn't want whose `account` is.
    pub fn refuses(&self, account: &Account) -> bool {
        let banned = self.banned.lock().unwrap_or_else(PoisonError::into_inner);
        account.name.as_ref().is_some_and(|name| banned.contains(name))
    }

    async fn prove(&self, asking: &Asking<'_>, now: Now) -> (Result<Account, Denied>, Now) {
        let proven = match &*self.proof.get() {
            Proof::None => Ok(Account::default()),
            Proof::Token(right) => {
                let is_right = asking.token.is_some_and(|token| right.as_bytes().ct_eq(token.as_bytes()).into());
                if is_right { Ok(Account::default()) } else { Err(Denied::Proof) }
            }
            Proof::Jwt(verifier) => {
                let name = asking.token.ok_or(Denied::Proof).and_then(|token| {
                    verifier.check(token, now).map_err(|why| {
                        tracing::debug!(%why, "a token is refused");
                        Denied::Proof
                    })
                });
                name.map(|name| Account { name: Some(name), ice_servers: Vec::new() })
            }
            // Every connection would have room for it for life otherwise.
            Proof::Webhook(webhook) => return Box::pin(webhook.ask(asking)).await,
        };
        (proven, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    const RIGHT: &str = "0123456789abcdef";
    const OFTEN: Rate = Rate { per_second: 5.0, burst: 1e9 };

    /// Who shows `token`, from there.
    async fn admit(
        accounts: &Accounts,
        token: Option<&str>,
        source: impl Into<IpAddr>,
        now: Now,
    ) -> Result<Account, Denied> {
        let asking = Asking { name: None, token, source: source.into(), host: "localhost", gateway: "json" };
        accounts.admit(&asking, now).await.map(|(account, _)| account)
    }

    #[tokio::test]
    async fn anyone_is_let_in_unless_a_token_is_asked_for() {
        let (now, source) = (Clock::system().now(), [192, 0, 2, 1]);
        let open = Accounts::new(Proof::None, OFTEN, Vec::new());
        let shared = Accounts::new(Proof::Token(RIGHT.into()), OFTEN, Vec::new());

        for token in [None, Some("x")] {
            assert_eq!(admit(&open, token, source, now).await, Ok(Account::default()));
        }
        assert_eq!(admit(&shared, Some(RIGHT), source, now).await, Ok(Account::default()));
        for wrong in [None, Some(""), Some("0123456789abcdeF"), Some(&RIGHT[1..])] {
            assert_eq!(admit(&shared, wrong, source, now).await, Err(Denied::Proof), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_huge_token_is_not_even_looked_at() {
        let (now, source) = (Clock::system().now(), [192, 0, 2, 1]);
        let huge = "x".repeat(MAX_TOKEN + 1);

        for proof in [Proof::None, Proof::Token(huge[1..].to_owned())] {
            let accounts = Accounts::new(proof, OFTEN, Vec::new());
            assert_eq!(admit(&accounts, Some(&huge), source, now).await, Err(Denied::Proof));
            assert!(admit(&accounts, Some(&huge[1..]), source, now).await.is_ok());
        }
    }

    #[tokio::test]
    async fn who_fails_too_often_waits_even_with_the_right_token_and_others_do_not() {
        let (now, source) = (Clock::system().now(), [192, 0, 2, 1]);
        let shared = Accounts::new(Proof::Token(RIGHT.into()), OFTEN, vec!["127.0.0.0/8".parse().unwrap()]);
        for _ in 0..99 {
            assert_eq!(admit(&shared, None, source, now).await, Err(Denied::Proof), "that is no guess");
        }
        for _ in 0..10 {
            assert_eq!(admit(&shared, Some("x"), source, now).await, Err(Denied::Proof));
        }

        assert_eq!(admit(&shared, Some(RIGHT), source, now).await, Err(Denied::Failures));
        assert!(admit(&shared, Some(RIGHT), [198, 51, 100, 1], now).await.is_ok());
        for _ in 0..99 {
            assert_eq!(admit(&shared, Some("x"), [127, 0, 0, 1], now).await, Err(Denied::Proof));
        }

        assert!(admit(&shared, Some(RIGHT), source, now.after(Duration::from_millis(1001))).await.is_ok());
    }

    #[tokio::test]
    async fn sign_ins_of_a_source_are_limited() {
        let (now, source) = (Clock::system().now(), [192, 0, 2, 1]);
        let few = Rate { per_second: 5.0, burst: 2.0 };
        let open = Accounts::new(Proof::None, few, vec!["127.0.0.0/8".parse().unwrap()]);
        for _ in 0..2 {
            assert!(admit(&open, None, source, now).await.is_ok());
        }

        assert_eq!(admit(&open, None, source, now).await, Err(Denied::Rate));
        assert_eq!(open.knock(source.into(), now), Err(Denied::Rate));
        assert!(admit(&open, None, [198, 51, 100, 1], now).await.is_ok());
        (0..9).for_each(|_| assert_eq!(open.knock([127, 0, 0, 1].into(), now), Ok(())));

        assert!(admit(&open, None, source, now.after(Duration::from_millis(201))).await.is_ok());
        let shared = Accounts::new(Proof::Token(RIGHT.into()), few, Vec::new());
        for _ in 0..2 {
            assert_eq!(admit(&shared, None, source, now).await, Err(Denied::Proof));
        }
        assert_eq!(admit(&shared, None, source, now).await, Err(Denied::Rate), "without a token, too");
    }

    #[test]
    fn so_many_accounts_may_be_banned() {
        let open = Accounts::new(Proof::None, OFTEN, Vec::new());
        let account = |n: usize| Account { name: Name::new(&n.to_string()).ok(), ..Account::default() };
        let ban = |n: usize| open.ban(Name::new(&n.to_string()).unwrap());
        (0..MAX_BANNED).for_each(|n| assert_eq!(ban(n), Ok(())));

        assert_eq!(ban(MAX_BANNED), Err(TooManyBanned));
        assert_eq!(ban(0), Ok(()));
        assert!(open.refuses(&account(0)) && !open.refuses(&account(MAX_BANNED)) && !open.refuses(&Account::default()));
        assert!(open.unban(&Name::new("0").unwrap()) && !open.refuses(&account(0)));
    }

    #[test]
    fn an_accounts_name_is_the_only_one_to_go_by() {
        let named = |name: &str| Name::new(name).unwrap();
        let alice = Account { name: Some(named("alice")), ..Account::default() };

        assert_eq!(alice.bind(None), Ok(Some(named("alice"))));
        assert_eq!(alice.bind(Some(named("alice"))), Ok(Some(named("alice"))));
        assert_eq!(alice.bind(Some(named("bob"))), Err(Denied::Proof));
        assert_eq!(Account::default().bind(Some(named("bob"))), Ok(Some(named("bob"))));
        assert_eq!(Account::default().bind(None), Ok(None));
    }

    #[tokio::test]
    async fn another_proof_is_asked_for_from_then_on_and_as_often_as_by_then() {
        let (now, source) = (Clock::system().now(), [192, 0, 2, 1]);
        let few = Rate { per_second: 0.1, burst: 2.0 };
        let accounts = Accounts::new(Proof::None, OFTEN, Vec::new());
        assert!(admit(&accounts, None, source, now).await.is_ok());
        assert!(accounts.are_tokens_personal());

        accounts.configure(Proof::Token(RIGHT.into()), few, vec!["127.0.0.0/8".parse().unwrap()]);

        assert!(!accounts.are_tokens_personal());
        let tried = [None, Some(RIGHT), Some(RIGHT)].map(|token| admit(&accounts, token, source, now));
        let tried = futures_util::future::join_all(tried).await;
        assert_eq!(tried, [Err(Denied::Proof), Ok(Account::default()), Err(Denied::Rate)]);
        for _ in 0..20 {
            assert_eq!(admit(&accounts, Some("wrong"), [127, 0, 0, 1], now).await, Err(Denied::Proof), "exempt");
        }
    }
}
