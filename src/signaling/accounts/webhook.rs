//! Asking a web service of the operator's who may sign in, whoever carries the question there.

use std::error::Error;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Semaphore;

use super::Account;
use super::Asking;
use super::Denied;
use crate::address::Sources;
use crate::clock::Clock;
use crate::clock::Now;
use crate::metrics::Gateway;
use crate::places;
use crate::places::Places;
use crate::rate::Rate;
use crate::rate::TokenBucket;
use crate::signaling::name::Name;

/// Questions under way at once.
pub const MAX_UNDER_WAY: usize = 64;
/// Those that wait for their turn besides; beyond, nobody is asked.
pub const MAX_WAITING: usize = 1024;
/// Questions of one network, under way or waiting: a slow service must not be all its own.
pub const MAX_PER_SOURCE: usize = 8;
/// ICE servers that one answer may add.
pub const MAX_ICE_SERVERS: usize = 16;
/// How often it is logged that the service is of no use: anybody can have it asked.
const LOG_LINES: Rate = Rate { per_second: 0.1, burst: 3.0 };

/// Carries a question to the service.
#[async_trait]
pub trait Post: Send + Sync {
    /// Sends a JSON text; the body of the answer, if the service could give one, and not too large a one.
    async fn post(&self, question: String) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;
}

/// Asks the service. One that is slow or stuck costs who signs in so much time, and nobody else any.
pub struct Webhook {
    post: Box<dyn Post>,
    within: Duration,
    under_way: Semaphore,
    places: Arc<Places>,
    clock: Clock,
    log_lines: Mutex<TokenBucket>,
}

/// What the service says.
#[derive(Deserialize)]
struct Answer {
    allow: bool,
    name: Option<String>,
    reason: Option<String>,
    #[serde(rename = "iceServers")]
    ice_servers: Option<Vec<Value>>,
}

impl Webhook {
    /// Asks by `post`, and takes no answer for a refusal after so long; only so much at once for each of `sources`.
    pub fn new(post: Box<dyn Post>, within: Duration, sources: Sources, clock: Clock) -> Self {
        let places = places::Settings { total: MAX_UNDER_WAY + MAX_WAITING, per_source: MAX_PER_SOURCE, sources };
        Self {
            post,
            within,
            under_way: Semaphore::new(MAX_UNDER_WAY),
            places: Places::new(places),
            clock,
            log_lines: Mutex::new(TokenBucket::new(LOG_LINES, clock.now().monotonic)),
        }
    }

    /// Whom it lets in; and when it has said so.
    pub(super) async fn ask(&self, asking: &Asking<'_>) -> (Result<Account, Denied>, Now) {
        let account = self.answer(asking).await;
        let now = self.clock.now();
        let account = account.unwrap_or_else(|why| {
            if let Some(why) = why {
                self.log(&why, now);
            }
            Err(Denied::Later)
        });
        (account, now)
    }

    /// The same, or what is wrong with the service, unless it wasn't asked.
    async fn answer(&self, asking: &Asking<'_>) -> Result<Result<Account, Denied>, Option<String>> {
        let _place = self.places.enter(asking.source).map_err(|_| None)?;
        let question = json!({
            "name": asking.name.map(Name::as_str),
            "token": asking.token,
            "source": asking.source,
            "host": asking.host,
            "gateway": asking.gateway,
        });
        let answer = async {
            let _turn = self.under_way.acquire().await?;
            self.post.post(question.to_string()).await
        };
        // Elsewhere the name is a connection's, which its client or this server chose.
        let own = asking.name.filter(|_| asking.gateway == Gateway::Json.label());
        match tokio::time::timeout(self.within, answer).await {
            Ok(Ok(answer)) => read(&answer, own).map_err(Some),
            Ok(Err(error)) => Err(Some(error.to_string())),
            Err(_) => Err(Some(format!("no answer within {:?}", self.within))),
        }
    }

    fn log(&self, why: &str, now: Now) {
        let mut lines = self.log_lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.take(LOG_LINES, now.monotonic) {
            tracing::warn!(why, "nobody can sign in by signaling.accounts.webhook");
        }
    }
}

/// Whether an answer lets somebody in, and for whom, if that is not the account that was asked about; what is wrong with it,
/// if it says neither.
fn read(answer: &[u8], own: Option<&Name>) -> Result<Result<Account, Denied>, String> {
    let Answer { allow, name, reason, ice_servers } =
        serde_json::from_slice(answer).map_err(|error| format!("its answer is not the JSON it should be: {error}"))?;
    if !allow {
        tracing::debug!(reason, "the web service refuses a sign-in");
        return Ok(Err(Denied::Proof));
    }
    let name = name.map(|name| Name::new(&name)).transpose().map_err(|why| format!("its answer's name: {why}"))?;
    let ice_servers = ice_servers.unwrap_or_default();
    if ice_servers.len() > MAX_ICE_SERVERS || !ice_servers.iter().all(|server| server.get("urls").is_some()) {
        return Err(format!("its answer's iceServers are not at most {MAX_ICE_SERVERS} objects with urls"));
    }
    Ok(Ok(Account { name: name.or_else(|| own.cloned()), ice_servers }))
}

#[cfg(test)]
mod tests;
