//! The HTTP side: pages, WebSocket upgrade, health and metrics, on connections that `net` accepted.

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware::Next;
use axum::middleware::from_fn;
use axum::middleware::map_response;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;

use self::status::Overview;
use crate::gateway::json::Dialect;

pub mod admin;
mod ayame;
pub mod connection;
pub mod forwarded;
mod gateways;
pub mod host;
mod ice;
pub mod pages;
mod peerjs;
mod pubsub;
pub mod serve;
pub mod socket;
mod socketio;
pub mod status;

/// Everything served to browsers: the pages, `/healthz`, `/readyz`, `/ice`, WebSockets (`/` is one for those who ask for it) and what
/// else clients of other protocols ask for, as far as these are on. And to operators, if they may command: `/admin`.
pub fn router(sockets: socket::State, admin: admin::State) -> Router {
    let more = socket::routes(sockets.clone())
        .merge(ice::routes(sockets.clone()))
        .merge(socketio::routes(sockets.clone()))
        .merge(peerjs::routes(&sockets))
        .merge(pubsub::routes(sockets.clone()))
        .merge(ayame::routes(sockets.clone()))
        .merge(gateways::routes(sockets.clone()))
        .merge(admin::routes(admin));
    let (page, ready) = (pages::front(), sockets.clone());
    let front = move |request: Request| async move {
        if socket::is_upgrade(request.headers()) {
            socket::json(&sockets, Dialect::Objects, request)
        } else {
            page(request.headers())
        }
    };
    let router = Router::new()
        .route("/", get(front))
        .route("/healthz", get(healthz))
        .route("/readyz", get(async move || readyz(&ready)))
        .merge(pages::routes())
        .merge(more);
    finish(router)
}

/// Serves nothing but `/metrics`, for a listener of its own.
pub fn metrics_router(overview: Overview) -> Router {
    let exposition = move || async move {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], overview.exposition())
    };
    finish(Router::new().route("/metrics", get(exposition)))
}

/// Plain answers to what isn't there, and the headers that every answer has.
fn finish(router: Router) -> Router {
    router
        .fallback(async || NOT_FOUND)
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed\n"))
        .layer(map_response(guard))
}

/// What is said of what isn't there.
const NOT_FOUND: (StatusCode, &str) = (StatusCode::NOT_FOUND, "Not found\n");

/// The same paths, which aren't there while `is_on` says no.
fn while_on(routes: Router, is_on: impl Fn() -> bool + Clone + Send + Sync + 'static) -> Router {
    routes.route_layer(from_fn(move |request: Request, next: Next| {
        let is_on = is_on();
        async move { if is_on { next.run(request).await } else { NOT_FOUND.into_response() } }
    }))
}

/// An answer that the page that asked may read, whose `origin` was let in, and that nothing keeps.
fn shared(origin: Option<HeaderValue>, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

/// A JSON text as an answer.
fn json(value: &serde_json::Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}

async fn healthz() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n")
}

/// Whether whoever is new is let in: load balancers ask, and move on.
fn readyz(sockets: &socket::State) -> impl IntoResponse + use<> {
    let (status, text) = if sockets.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    };
    (status, [(header::CACHE_CONTROL, "no-store")], text)
}

async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Scripts and styles from here only and none inline. `ws:` and `wss:` are named because to older browsers `'self'` is no
/// WebSocket.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; \
                                       object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
