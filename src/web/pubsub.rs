//! `/pubsub`: WebSockets of y-webrtc and Trystero.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::any;

use super::socket::Arrival;
use super::socket::Refusal;
use super::socket::State;
use crate::gateway::Context;
use crate::gateway::pubsub;
use crate::signaling::mailbox::Delivery;
use crate::signaling::name::Name;
use crate::signaling::session::NotSignedIn;

/// The path itself, if it is served.
pub(super) fn routes(state: State) -> Router {
    let context = Arc::clone(&state.gateways().pubsub);
    let served = Arc::clone(&context);
    let open = any(async move |request| open(&state, context, request).await.into_response());
    super::while_on(Router::new().route("/pubsub", open), move || served.is_on())
}

/// Signs in before the upgrade: y-webrtc comes back without a pause when a WebSocket opens and then closes, and backs
/// off when it doesn't open.
async fn open(state: &State, context: Arc<Context>, request: Request) -> Result<Response, Refusal> {
    let arrival = Arrival::of(state, &request)?;
    let now = context.clock.now();
    let signed_in = context.sessions.sign_in_unnamed(Name::random(), Delivery::Once, None, &arrival.visitor, now).await;
    let (member, _) = signed_in.map_err(refusal)?;
    Ok(arrival.upgrade(state, request, |io| pubsub::serve(context, member, io)))
}

fn refusal(why: NotSignedIn) -> Refusal {
    match why {
        NotSignedIn::Denied(denied) => denied.into(),
        NotSignedIn::Refused(_) | NotSignedIn::NotJoined(_) | NotSignedIn::Nameless => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "nobody can be signed in")
        }
    }
}
