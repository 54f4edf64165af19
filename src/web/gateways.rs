//! `GET /gateways`: which clients of others are served here, so that the front page shows no other.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use super::socket::State;

/// The path itself: an array of the names that `signaling.gateways` has for those that are on.
pub(super) fn routes(state: &State) -> Router {
    let on = state.gateways();
    let names = [
        ("socketio", on.socketio.is_some()),
        ("peerjs", on.peerjs.is_some()),
        ("pubsub", on.pubsub.is_some()),
        ("ayame", on.ayame.is_some()),
    ];
    let names: serde_json::Value = names.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    let answer = move || async move { ([(header::CACHE_CONTROL, "no-cache")], super::json(&names)).into_response() };
    Router::new().route("/gateways", get(answer))
}
