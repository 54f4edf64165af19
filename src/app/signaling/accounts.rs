//! Who may sign in, made from the configuration and the files that it names.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use async_trait::async_trait;
use rustls::RootCertStore;

use crate::address::Sources;
use crate::app::exempt;
use crate::clock::Clock;
use crate::config;
use crate::config::Config;
use crate::config::value::AccountMode;
use crate::net::post;
use crate::net::post::BadTarget;
use crate::net::post::Target;
use crate::rate::Rate;
use crate::signaling::accounts::Accounts;
use crate::signaling::accounts::Proof;
use crate::signaling::accounts::jwt::BadKey;
use crate::signaling::accounts::jwt::Key;
use crate::signaling::accounts::jwt::MAX_KEY_FILE;
use crate::signaling::accounts::jwt::Verifier;
use crate::signaling::accounts::webhook::Post;
use crate::signaling::accounts::webhook::Webhook;

/// How many seconds' worth of sign-ins a source may have at once: behind one address, an office reconnects together.
const SIGN_IN_BURST: f64 = 4.0;

/// Why nobody could be told from others, and the cure.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// A file can't be read.
    #[error("{key}: {}: {problem}", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A secret is none.
    #[error("signaling.accounts.jwt.secret: {0}")]
    Secret(BadKey),
    /// The keys are no keys together.
    #[error("signaling.accounts.jwt: {0}")]
    Keys(BadKey),
    /// Nobody can be asked.
    #[error("signaling.accounts.webhook: {0}")]
    Webhook(#[from] BadTarget),
}

/// Who may sign in, and how often, by what [`proof`] gives.
pub(in crate::app) fn accounts(config: &Config, proof: Proof) -> Accounts {
    Accounts::new(proof, sign_ins(config), exempt(config))
}

/// How often one source may sign in.
pub(super) fn sign_ins(config: &Config) -> Rate {
    let sign_ins = config.signaling.limits.sign_ins.get();
    Rate { per_second: sign_ins, burst: sign_ins * SIGN_IN_BURST }
}

/// What is asked of who signs in; the files named are read.
///
/// # Errors
///
/// [`AccountsError`], for the first thing named that can't be used.
pub(in crate::app) fn proof(config: &Config, clock: Clock) -> Result<Proof, AccountsError> {
    let config::Accounts { mode, token, jwt, webhook } = &config.signaling.accounts;
    Ok(match mode {
        AccountMode::Open => Proof::None,
        AccountMode::Token => Proof::Token(token.reveal().unwrap_or_default().to_owned()),
        AccountMode::Jwt => Proof::Jwt(verifier(jwt)?),
        AccountMode::Webhook => {
            let (service, sources) = (Service(target(webhook)?), Sources::networks(exempt(config)));
            Proof::Webhook(Webhook::new(Box::new(service), webhook.timeout.get(), sources, clock))
        }
    })
}

fn verifier(jwt: &config::Jwt) -> Result<Verifier, AccountsError> {
    let config::Jwt { secret, public_key, jwks, issuer, audience } = jwt;
    let mut keys = Vec::new();
    if let Some(secret) = secret.reveal() {
        keys.push(Key::secret(secret.as_bytes()).map_err(AccountsError::Secret)?);
    }
    let of_pem = |pem: &str| Key::from_pem(pem).map(|key| vec![key]);
    keys.extend(read("signaling.accounts.jwt.public_key", public_key, of_pem)?);
    keys.extend(read("signaling.accounts.jwt.jwks", jwks, Key::from_jwks)?);
    let named = |text: &String| (!text.is_empty()).then(|| text.clone());
    Verifier::new(keys, named(issuer), named(audience)).map_err(AccountsError::Keys)
}

/// The keys in the file that `key` names, if it names one.
fn read(
    key: &'static str,
    path: &Path,
    keys: impl FnOnce(&str) -> Result<Vec<Key>, BadKey>,
) -> Result<Vec<Key>, AccountsError> {
    if path.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let fault = |problem: String| AccountsError::File { key, path: path.to_owned(), problem };
    let mut text = String::new();
    let most = u64::try_from(MAX_KEY_FILE).unwrap_or(u64::MAX);
    let file = File::open(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    file.take(most + 1).read_to_string(&mut text).map_err(|error| fault(format!("cannot be read: {error}")))?;
    if text.len() > MAX_KEY_FILE {
        return Err(fault(format!("is larger than {MAX_KEY_FILE} bytes: leave out what isn't needed")));
    }
    keys(&text).map_err(|bad| fault(bad.to_string()))
}

fn target(webhook: &config::Webhook) -> Result<Target, BadTarget> {
    let config::Webhook { url, secret, timeout } = webhook;
    let roots = if url.is_tls() { post::native_roots() } else { RootCertStore::empty() };
    Target::new(url.as_str(), secret.reveal().unwrap_or_default(), roots, timeout.get())
}

/// The web service that knows who may sign in.
struct Service(Target);

#[async_trait]
impl Post for Service {
    async fn post(&self, question: String) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        Ok(self.0.post(question).await?)
    }
}
