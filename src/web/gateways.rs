//! `GET /gateways`: which clients of others are served here, so that the front page shows no other.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use super::socket::State;
use crate::gateway::Gateways;

/// The path itself: an array of the names that `signaling.gateways` has for those that are on.
pub(super) fn routes(state: State) -> Router {
    let answer = move || {
        let names = names(state.gateways());
        async move { ([(header::CACHE_CONTROL, "no-cache")], super::json(&names)).into_response() }
    };
    Router::new().route("/gateways", get(answer))
}

fn names(Gateways { json: _, socketio, peerjs, pubsub, ayame }: &Gateways) -> serde_json::Value {
    let others = [socketio, peerjs, pubsub, ayame];
    others.into_iter().filter(|context| context.is_on()).map(|context| context.gateway.label()).collect()
}
