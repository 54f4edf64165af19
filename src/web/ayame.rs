//! `/signaling`: WebSockets of Ayame's clients.

use std::sync::Arc;

use axum::Router;
use axum::routing::any;

use super::socket;
use super::socket::State;
use crate::gateway::ayame;

/// The path itself, if it is served.
pub(super) fn routes(state: State) -> Router {
    let context = Arc::clone(&state.gateways().ayame);
    let served = Arc::clone(&context);
    let open = async move |request| {
        let context = Arc::clone(&context);
        socket::upgrade(&state, request, move |visitor, io| ayame::serve(context, visitor, io))
    };
    super::while_on(Router::new().route("/signaling", any(open)), move || served.is_on())
}
