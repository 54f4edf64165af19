//! `/admin`: what an operator can see, and have done to members and sessions, by who has the token.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::Router;
use axum::body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;
use subtle::ConstantTimeEq;

use super::connection::Connection;
use super::status::Overview;
use crate::address::Prefix;
use crate::address::Sources;
use crate::clock::Clock;
use crate::credentials::SessionId;
use crate::gateway;
use crate::live::Live;
use crate::metrics::Gateway;
use crate::rate::PerSource;
use crate::rate::Rate;
use crate::signaling::name::Name;
use crate::signaling::session::Banned;
use crate::signaling::session::Sessions;
use crate::turn::status::Status;

mod lists;

/// How often one source may come with a wrong token; while it has no try left, it isn't let in with the right one either.
const WRONG_TOKENS: Rate = Rate { per_second: 1.0, burst: 10.0 };
/// The longest request.
const MAX_BODY: usize = 4096;

/// What commands need; cheap to copy.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    token: Live<Option<String>>,
    wrong: Mutex<PerSource>,
    /// Our own protocol's first.
    gateways: Vec<Arc<gateway::Context>>,
    status: Status,
    overview: Overview,
    clock: Clock,
}

impl State {
    /// Whoever has `token` may command `gateways`, and see them, `status` and `overview`; sources outside `exempt` have so
    /// many tries. Without a token there is nothing of this.
    pub fn new(
        token: Option<String>,
        exempt: Vec<Prefix>,
        gateways: Vec<Arc<gateway::Context>>,
        status: Status,
        overview: Overview,
        clock: Clock,
    ) -> Self {
        let wrong = Mutex::new(PerSource::new(WRONG_TOKENS, Sources::new(exempt)));
        let token = Live::new(token);
        Self(Arc::new(Inner { token, wrong, gateways, status, overview, clock }))
    }

    /// Has another token, or none, be the right one.
    pub fn configure(&self, token: Option<String>, exempt: Vec<Prefix>) {
        let mut wrong = self.0.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.configure(WRONG_TOKENS, Sources::new(exempt));
        self.0.token.set(token);
    }
}

/// All commands.
pub(super) fn routes(state: State) -> Router {
    let routes = Router::new()
        .route("/admin/kick", command(&state, Inner::kick))
        .route("/admin/ban", command(&state, Inner::ban))
        .route("/admin/unban", command(&state, Inner::unban))
        .route("/admin/revoke", command(&state, Inner::revoke))
        .merge(lists::routes(&state));
    super::while_on(routes, move || state.0.token.get().is_some())
}

/// Whom a command is for.
#[derive(Deserialize)]
struct Member {
    name: String,
    gateway: Option<String>,
}

/// What a command is for.
#[derive(Deserialize)]
struct Session {
    session: String,
}

/// What was done, or why not.
type Outcome = Result<Value, Refusal>;

/// Why a command isn't carried out, in words for who sent it.
type Refusal = (StatusCode, &'static str);

fn command<T>(state: &State, carry_out: fn(&Inner, T) -> Outcome) -> axum::routing::MethodRouter
where
    T: DeserializeOwned + Send + 'static,
{
    let state = state.clone();
    post(move |request: Request| async move {
        let done = match state.0.admit(&request) {
            Ok(()) => read(request).await.and_then(|asked| carry_out(&state.0, asked)),
            Err(refused) => Err(refused),
        };
        answer(done)
    })
}

async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let body = body::to_bytes(request.into_body(), MAX_BODY).await;
    let body = body.map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "the request is too long"))?;
    serde_json::from_slice(&body).map_err(|_| (StatusCode::BAD_REQUEST, "not the JSON object that this command takes"))
}

fn answer(outcome: Outcome) -> Response {
    let (status, json) = match outcome {
        Ok(done) => (StatusCode::OK, done),
        Err((status, why)) => (status, json!({ "error": why })),
    };
    let challenge = (status == StatusCode::UNAUTHORIZED).then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
    (status, challenge, [(header::CACHE_CONTROL, "no-store")], super::json(&json)).into_response()
}

impl Inner {
    /// Lets in who has the token.
    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        let connection = Connection::of(request).ok_or((StatusCode::INTERNAL_SERVER_ERROR, Connection::NOWHERE))?;
        let (source, now) = (connection.remote.ip(), self.clock.now().monotonic);
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if !wrong.has_one(source, now) {
            return Err((StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address"));
        }
        if self.is_token(request.headers()) {
            return Ok(());
        }
        wrong.take(source, now);
        Err((StatusCode::UNAUTHORIZED, "this needs the header \"Authorization: Bearer\" with admin.token"))
    }

    fn is_token(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
        let token = value.and_then(|value| value.split_first_chunk()).filter(|(scheme, _)| *scheme == b"Bearer ");
        match (token, &*self.token.get()) {
            (Some((_, token)), Some(right)) => right.as_bytes().ct_eq(token).into(),
            (None, _) | (_, None) => false,
        }
    }

    fn kick(&self, member: Member) -> Outcome {
        let (name, sessions) = (read_name(&member.name)?, self.sessions(&member)?);
        if !sessions.kick(&name, self.clock.now()) {
            return Err((StatusCode::NOT_FOUND, "nobody is signed in by this name"));
        }
        tracing::info!("a member was kicked");
        Ok(json!({ "kicked": true }))
    }

    fn ban(&self, member: Member) -> Outcome {
        let (name, sessions, now) = (read_name(&member.name)?, self.sessions(&member)?, self.clock.now());
        let banned = sessions.ban(name.clone(), now);
        let Banned { kicked, account } =
            banned.map_err(|_| (StatusCode::CONFLICT, "too many names are banned already"))?;
        let elsewhere =
            |account| self.gateways.iter().filter(|context| context.sessions.kick_account(account, now)).count();
        let kicked = account.as_ref().map_or(0, elsewhere) > 0 || kicked;
        tracing::info!(kicked, "a name was banned");
        Ok(match account.filter(|account| *account != name) {
            Some(account) => json!({ "banned": true, "kicked": kicked, "account": account.as_str() }),
            None => json!({ "banned": true, "kicked": kicked }),
        })
    }

    fn unban(&self, member: Member) -> Outcome {
        if !self.sessions(&member)?.unban(&read_name(&member.name)?) {
            return Err((StatusCode::NOT_FOUND, "this name isn't banned"));
        }
        tracing::info!("a name was unbanned");
        Ok(json!({ "unbanned": true }))
    }

    fn revoke(&self, Session { session }: Session) -> Outcome {
        let session: SessionId =
            session.parse().map_err(|_| (StatusCode::BAD_REQUEST, "no session can be called that"))?;
        let theirs = self.gateways.iter().find(|context| context.sessions.has(session));
        // One that nobody is signed in by may have left allocations behind.
        let anywhere = theirs.or(self.gateways.first());
        let kicked = anywhere.is_some_and(|context| context.sessions.revoke(session, self.clock.now()));
        tracing::info!(kicked, "a session was revoked");
        Ok(json!({ "revoked": true, "kicked": kicked }))
    }

    /// Where a member is meant: by our own protocol, if no other is named.
    fn sessions(&self, member: &Member) -> Result<&Sessions, Refusal> {
        let gateway = member.gateway.as_deref().map_or(Ok(Gateway::Json), read_gateway)?;
        let context = self.gateways.iter().find(|context| context.gateway == gateway && context.is_on());
        Ok(&context.ok_or((StatusCode::NOT_FOUND, "this gateway is off"))?.sessions)
    }
}

fn read_name(name: &str) -> Result<Name, Refusal> {
    Name::new(name).map_err(|_| (StatusCode::BAD_REQUEST, "no member can be called that"))
}

fn read_gateway(label: &str) -> Result<Gateway, Refusal> {
    let found = Gateway::ALL.iter().copied().find(|gateway| gateway.label() == label);
    found.ok_or((StatusCode::BAD_REQUEST, "a gateway is one of json, socketio, peerjs, pubsub, ayame"))
}
