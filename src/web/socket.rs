//! WebSocket upgrades: who may have one, the handshake, and the hand-over to the gateway. Also who may have `/ice`.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::http::Version;
use axum::http::header;
use axum::response::AppendHeaders;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::any;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::FutureExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;

use crate::address::host_in_url;
use crate::gateway::Gateways;
use crate::gateway::json;
use crate::gateway::json::Dialect;
use crate::live::Live;
use crate::places::Place;
use crate::places::Places;
use crate::places::Refused;
use crate::rate::Rate;
use crate::rate::TokenBucket;
use crate::signaling::accounts::Denied;
use crate::signaling::session::Visitor;
use crate::web::connection::Connection;
use crate::web::connection::RequestHost;
use crate::web::host::Authority;

/// From where a page may open a WebSocket here.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// What this machine is called, in lower case.
    pub names: Vec<String>,
    /// The addresses of this machine, and those it is reached by.
    pub addresses: HashSet<IpAddr>,
    /// Further origins such as `https://example.org`, in lower case; `*` for any.
    pub allowed: Vec<String>,
    /// Whether clients that are no browsers, and so say no origin, are refused.
    pub required: bool,
}

/// What upgrades and `/ice` need; cheap to copy.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    origins: Live<Origins>,
    connections: Arc<Places>,
    gateways: Gateways,
    tasks: TaskTracker,
    log_lines: Mutex<TokenBucket>,
}

/// Where the page is from that a browser asks for.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// How often a refused origin is logged: anybody can have one refused.
const LOG_LINES: Rate = Rate { per_second: 0.1, burst: 3.0 };
/// How much of a refused origin is logged.
const LOGGED_CHARS: usize = 100;

impl State {
    /// Upgrades are for `origins`, counted in `connections`, served by `gateways` in a task of `tasks` each.
    pub fn new(origins: Live<Origins>, connections: Arc<Places>, gateways: Gateways, tasks: TaskTracker) -> Self {
        let log_lines = Mutex::new(TokenBucket::new(LOG_LINES, gateways.json.clock.now().monotonic));
        Self(Arc::new(Inner { origins, connections, gateways, tasks, log_lines }))
    }

    /// All of them, on or off.
    pub(super) fn gateways(&self) -> &Gateways {
        &self.0.gateways
    }

    /// Who asks, when the page that asks may; with the token in its URL, for browsers send no header with a WebSocket.
    pub(super) fn visitor(&self, request: &Request) -> Result<Visitor, Refusal> {
        let (Some(connection), Some(RequestHost(host))) = (Connection::of(request), request.extensions().get()) else {
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Connection::NOWHERE));
        };
        if let Err(origin) = self.0.origins.get().check(request.headers(), host, connection.local.ip()) {
            self.0.log_refused(&origin);
            return Err(Refusal::new(StatusCode::FORBIDDEN, "this origin isn't among http.allowed_origins"));
        }
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let token = form_urlencoded::parse(query).find(|(key, _)| key == "token").map(|(_, token)| token.into_owned());
        Ok(Visitor { host: host.clone(), source: connection.remote.ip(), token })
    }

    /// Refuses a request that names no origin, when a page of the host that it was sent to might not ask: browsers leave it
    /// out where a page gets something from its own host, which may be a foreign page's name for us (DNS rebinding).
    pub(super) fn check_host(&self, request: &Request) -> Result<(), Refusal> {
        let (Some(connection), Some(RequestHost(host))) = (Connection::of(request), request.extensions().get()) else {
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Connection::NOWHERE));
        };
        // What no host is called isn't ours, though the connection's own address stands in for it elsewhere.
        let is_host = Authority::of(request).is_some() || !request.headers().contains_key(header::HOST);
        let is_known = is_host && self.0.origins.get().knows(host, connection.local.ip());
        if request.headers().contains_key(header::ORIGIN) || is_known {
            return Ok(());
        }
        self.0.log_refused(&format!("http://{}", host_in_url(host)));
        Err(Refusal::new(StatusCode::FORBIDDEN, "this host isn't among http.allowed_origins"))
    }

    /// Refuses what is new when the process is about to end.
    pub(super) fn check_open(&self) -> Result<(), Refusal> {
        if self.is_draining() { Err(Refusal::DRAINING) } else { Ok(()) }
    }

    /// Whether nobody is let in any more.
    pub(super) fn is_draining(&self) -> bool {
        self.gateways().json.sessions.is_draining()
    }

    /// A place for one more connection.
    pub(super) fn enter(&self, source: IpAddr) -> Result<Place, Refusal> {
        // Whoever is let in for who is waited for, is told at its sign-in.
        if !self.gateways().json.sessions.awaits_somebody() {
            self.check_open()?;
        }
        self.0.connections.enter(source).map_err(|refused| match refused {
            Refused::Source => Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address"),
            Refused::Full => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections"),
        })
    }

    /// Serves a connection in its place.
    pub(super) fn spawn(&self, place: Place, serve: impl Future<Output = ()> + Send + 'static) {
        let metrics = Arc::clone(&self.gateways().json.metrics);
        metrics.connections.increment();
        // An async block around it would have room for it twice, for life.
        self.0.tasks.spawn(serve.map(move |()| {
            drop(place);
            metrics.connections.decrement();
        }));
    }
}

/// The stream that a WebSocket is made of.
pub(super) type Upgrade = TokioIo<Upgraded>;

/// The paths that are WebSockets only.
pub fn routes(state: State) -> Router {
    let strings = state.clone();
    Router::new()
        .route("/ws", any(async move |request| json(&state, Dialect::Objects, request)))
        .route("/websocketRTC", any(async move |request| json(&strings, Dialect::Strings, request)))
}

/// Our own protocol.
pub(super) fn json(state: &State, dialect: Dialect, request: Request) -> Response {
    let context = Arc::clone(&state.gateways().json);
    upgrade(state, request, move |visitor, io| json::serve(context, visitor, dialect, io))
}

/// Whether a request asks for a WebSocket.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &header::UPGRADE, "websocket")
}

/// Makes a WebSocket of a request that `serve` serves, or says why not.
pub(super) fn upgrade<F>(
    state: &State,
    request: Request,
    serve: impl FnOnce(Visitor, Upgrade) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    match Arrival::of(state, &request) {
        Ok(arrival) => {
            let visitor = arrival.visitor.clone();
            arrival.upgrade(state, request, move |io| serve(visitor, io))
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// A request that a WebSocket may be made of.
pub(super) struct Arrival {
    /// Who asks.
    pub(super) visitor: Visitor,
    accept: String,
    place: Place,
}

impl Arrival {
    /// One that asks as it should, for a page that may, and has a place.
    pub(super) fn of(state: &State, request: &Request) -> Result<Self, Refusal> {
        let accept = handshake(request)?;
        let visitor = state.visitor(request)?;
        let place = state.enter(visitor.source)?;
        Ok(Self { visitor, accept, place })
    }

    /// Makes a WebSocket of it that `serve` serves.
    pub(super) fn upgrade<F>(
        self,
        state: &State,
        mut request: Request,
        serve: impl FnOnce(Upgrade) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        state.spawn(self.place, upgraded(&mut request, serve));
        switching(&self.accept)
    }
}

/// Makes one for who has a place already, and has been looked at.
pub(super) fn upgrade_placed<F>(
    state: &State,
    mut request: Request,
    serve: impl FnOnce(Upgrade) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let accept = match handshake(&request) {
        Ok(accept) => accept,
        Err(refusal) => return refusal.into_response(),
    };
    state.0.tasks.spawn(upgraded(&mut request, serve));
    switching(&accept)
}

/// Serves the stream of `request`, once it is one.
fn upgraded<S, F>(request: &mut Request, serve: S) -> impl Future<Output = ()> + Send + use<S, F>
where
    S: FnOnce(Upgrade) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let upgraded = hyper::upgrade::on(request);
    async move {
        if let Ok(upgraded) = upgraded.await {
            serve(TokioIo::new(upgraded)).await;
        }
    }
}

fn switching(accept: &str) -> Response {
    let headers =
        [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket"), (header::SEC_WEBSOCKET_ACCEPT, accept)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The answer to the client's key, when it asked as it should (RFC 6455, section 4.2.1).
fn handshake(request: &Request) -> Result<String, Refusal> {
    let headers = request.headers();
    if !is_upgrade(headers) || !has_token(headers, &header::CONNECTION, "upgrade") {
        let header = Some((header::UPGRADE, "websocket"));
        return Err(Refusal { status: StatusCode::UPGRADE_REQUIRED, header, why: "this is a WebSocket" });
    }
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "a WebSocket begins with an HTTP/1.1 GET"));
    }
    if only(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
        let header = Some((header::SEC_WEBSOCKET_VERSION, "13"));
        return Err(Refusal { status: StatusCode::UPGRADE_REQUIRED, header, why: "version 13 is spoken here" });
    }
    match only(headers, &header::SEC_WEBSOCKET_KEY) {
        Some(key) if BASE64_STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) => {
            Ok(derive_accept_key(key.as_bytes()))
        }
        Some(_) | None => Err(Refusal::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in Base64")),
    }
}

/// Why there is no WebSocket, or no answer.
pub(super) struct Refusal {
    status: StatusCode,
    header: Option<(HeaderName, &'static str)>,
    why: &'static str,
}

impl Refusal {
    const DRAINING: Self = Self {
        status: StatusCode::SERVICE_UNAVAILABLE,
        header: Some((header::RETRY_AFTER, "10")),
        why: "the server is about to restart",
    };

    pub(super) fn new(status: StatusCode, why: &'static str) -> Self {
        Self { status, header: None, why }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Proof => Self::new(StatusCode::UNAUTHORIZED, "this needs ?token= as signaling.accounts has it"),
            Denied::Later => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "who would know doesn't say, see signaling.accounts.webhook")
            }
            Denied::Failures => Self::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address"),
            Denied::Rate => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too many sign-ins, see signaling.limits.sign_ins")
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
        (self.status, AppendHeaders(self.header.into_iter().chain([text])), self.why).into_response()
    }
}

impl Origins {
    /// Whether the page that asks may, on a connection to our address `local`; the origin, if not.
    ///
    /// Never compared with the Host header: a page that has its own name resolve to our address (DNS rebinding) sends
    /// its name there, too.
    fn check(&self, headers: &HeaderMap, host: &str, local: IpAddr) -> Result<(), String> {
        let any = self.allowed.iter().any(|allowed| allowed == "*");
        let Some(value) = headers.get(header::ORIGIN) else {
            // A page says no origin when it gets something from where it comes from itself, or an image from elsewhere;
            // which of them no page can say of its own accord (Fetch Metadata).
            return match only(headers, &SEC_FETCH_SITE) {
                Some("cross-site" | "same-site") if !any => Err("another site's, as an image or the like".into()),
                Some("same-origin") if self.knows(host, local) => Ok(()),
                Some(_) | None if self.required => Err("none".into()),
                Some(_) | None => Ok(()),
            };
        };
        let origin = only(headers, &header::ORIGIN).map(str::to_ascii_lowercase);
        if any || origin.is_some_and(|origin| self.is_allowed(&origin, local)) {
            return Ok(());
        }
        Err(value.as_bytes().escape_ascii().to_string().chars().take(LOGGED_CHARS).collect())
    }

    /// Whether pages of `host` may ask, whatever their port.
    fn knows(&self, host: &str, local: IpAddr) -> bool {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let names_it = |allowed: &String| {
            allowed == "*" || allowed.parse::<Uri>().is_ok_and(|origin| origin.host() == Some(host.as_str()))
        };
        self.allowed.iter().any(names_it) || self.is_allowed(&format!("http://{host}"), local)
    }

    fn is_allowed(&self, origin: &str, local: IpAddr) -> bool {
        let Ok(uri) = origin.parse::<Uri>() else { return false };
        // `null` has no scheme.
        let (Some(_), Some(host)) = (uri.scheme(), uri.host()) else { return false };
        if self.allowed.iter().any(|allowed| allowed == origin) {
            return true;
        }
        let is_ours = |host: &str| self.names.iter().any(|name| name == host);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip) => ip.is_loopback() || ip == local || self.addresses.contains(&ip) || is_ours(&ip.to_string()),
            Err(_) => host == "localhost" || is_ours(host),
        }
    }
}

impl Inner {
    fn log_refused(&self, origin: &str) {
        let now = self.gateways.json.clock.now().monotonic;
        let mut lines = self.log_lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.take(LOG_LINES, now) {
            tracing::warn!(origin, "a page was refused: add the page's origin to http.allowed_origins to let it in");
        }
    }
}

/// The value of a header that may stand once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() { None } else { Some(value.trim()) }
}

/// Whether a header that is a list has `token`, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origins: &Origins, origin: &str) -> bool {
        let headers = HeaderMap::from_iter([(header::ORIGIN, origin.parse().unwrap())]);
        origins.check(&headers, "10.0.0.7", [10, 0, 0, 7].into()).is_ok()
    }

    #[test]
    fn pages_of_this_host_are_let_in_on_any_port_and_others_are_not() {
        let origins = Origins {
            names: vec!["call.example.org".into(), "box".into(), "192.0.2.9".into()],
            addresses: HashSet::from(["198.51.100.2".parse().unwrap(), "2001:db8::2".parse().unwrap()]),
            ..Origins::default()
        };

        for good in [
            "https://call.example.org",
            "https://CALL.example.org:8443",
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[::1]:8443",
            "https://10.0.0.7:8443",
            "https://198.51.100.2",
            "https://192.0.2.9:8443",
            "https://box:8443",
            "https://[2001:db8::2]",
        ] {
            assert!(check(&origins, good), "{good}");
        }
        for bad in [
            "null",
            "",
            "https://example.org",
            "https://call.example.org.evil.com",
            "https://evil.com/?call.example.org",
            "https://localhost.evil.com",
            "https://10.0.0.8",
            "https://[2001:db8::3]",
            "localhost:",
            "https://",
            "file://",
        ] {
            assert!(!check(&origins, bad), "{bad}");
        }
    }

    #[test]
    fn further_origins_are_let_in_and_a_star_lets_in_all() {
        let allowed =
            |list: &[&str]| Origins { allowed: list.iter().map(ToString::to_string).collect(), ..Origins::default() };

        assert!(check(&allowed(&["https://a.org"]), "https://A.org"));
        assert!(!check(&allowed(&["https://a.org"]), "http://a.org"));
        assert!(check(&allowed(&["*"]), "null"));
    }

    #[test]
    fn no_origin_is_fine_unless_one_is_required() {
        let required = Origins { required: true, ..Origins::default() };
        let check = |origins: &Origins, headers, host| origins.check(&headers, host, [10, 0, 0, 7].into()).is_ok();

        assert!(check(&Origins::default(), HeaderMap::new(), "10.0.0.7"));
        assert!(!check(&required, HeaderMap::new(), "10.0.0.7"));
        let fetch = |site: &str| HeaderMap::from_iter([(SEC_FETCH_SITE, site.parse().unwrap())]);
        assert!(check(&required, fetch("same-origin"), "10.0.0.7"));
        assert!(!check(&required, fetch("same-origin"), "evil.example"), "whose own page it is, it is not ours");
        for site in ["cross-site", "same-site"] {
            assert!(!check(&Origins::default(), fetch(site), "10.0.0.7"), "an image of {site}");
        }
    }

    #[test]
    fn hosts_are_known_whose_pages_may_ask() {
        let allowed = vec!["https://app.example.org:8443".to_owned()];
        let origins = Origins { names: vec!["box".into()], allowed, ..Origins::default() };
        let local = [10, 0, 0, 7].into();

        for known in ["localhost", "127.0.0.1", "::1", "10.0.0.7", "box", "app.example.org"] {
            assert!(origins.knows(known, local), "{known}");
        }
        for foreign in ["evil.example", "example.org", "10.0.0.8", "2001:db8::1"] {
            assert!(!origins.knows(foreign, local), "{foreign}");
        }
        assert!(Origins { allowed: vec!["*".into()], ..Origins::default() }.knows("evil.example", local));
    }
}
