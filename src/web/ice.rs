//! `GET /ice`: ICE servers with fresh credentials, for applications that signal elsewhere; and what the network check asks.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::Response;
use axum::routing::get;

use super::socket::Refusal;
use super::socket::State;
use crate::signaling::session::NoIce;

/// The path itself, and `/check/served`, which tells nothing that trying the ports wouldn't.
pub(super) fn routes(state: State) -> Router {
    let json = Arc::clone(&state.gateways().json);
    let particulars = move || {
        let particulars = json.sessions.served().particulars();
        async move { super::shared(None, super::json(&particulars)) }
    };
    let ice = move |request: Request| {
        let state = state.clone();
        async move { answer(&state, request).await }
    };
    Router::new().route("/ice", get(ice)).route("/check/served", get(particulars))
}

/// The list for `RTCPeerConnection`, readable by the page that asked, when pages of its origin may sign in here.
async fn answer(state: &State, request: Request) -> Response {
    servers(state, request).await.unwrap_or_else(|refusal| super::shared(None, refusal))
}

async fn servers(state: &State, request: Request) -> Result<Response, Refusal> {
    state.check_open()?;
    let mut visitor = state.visitor(&request)?;
    state.check_host(&request)?;
    if let Some(token) = bearer(request.headers()) {
        visitor.token = Some(token.to_owned());
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    // Its body is nobody's while an answer is waited for.
    drop(request);
    let gateway = &state.gateways().json;
    let ice = gateway.sessions.ice_elsewhere(&visitor, gateway.clock.now()).await.map_err(|why| match why {
        NoIce::Denied(denied) => denied.into(),
        NoIce::SignaledPeersOnly => {
            Refusal::new(StatusCode::FORBIDDEN, "turn.peers.mode is \"signaled\": sign in and signal here")
        }
    })?;
    Ok(super::shared(origin, super::json(&ice.servers)))
}

/// The token in the header that a back end would send it in.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
