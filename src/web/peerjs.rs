//! What a PeerJS client asks for, below each path that it may be told as its server's.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::any;
use axum::routing::get;

use super::shared;
use super::socket;
use super::socket::Refusal;
use super::socket::State;
use crate::gateway::Context;
use crate::gateway::peerjs;
use crate::signaling::name::Name;
use crate::signaling::session::NotTold;

/// The client's own default, and the one that most guides to PeerServer have.
const PATHS: [&str; 2] = ["/", "/peerjs-server/"];

/// The WebSocket, a fresh id, and the list of all ids, while the gateway is on.
pub(super) fn routes(state: &State) -> Router {
    let context = &state.gateways().peerjs;
    let served = Arc::clone(context);
    let routes = PATHS.iter().fold(Router::new(), |router, path| {
        let (sockets, ids, peers) = (state.clone(), state.clone(), state.clone());
        let (client, lister) = (Arc::clone(context), Arc::clone(context));
        let key = peerjs::KEY;
        router
            .route(&format!("{path}peerjs"), any(async move |request| upgrade(&sockets, client, request)))
            .route(&format!("{path}{key}/id"), get(async move |request: Request| id(&ids, &request)))
            .route(
                &format!("{path}{key}/peers"),
                get(async move |request: Request| list(&peers, &lister, request).await),
            )
    });
    super::while_on(routes, move || served.is_on())
}

fn upgrade(state: &State, context: Arc<Context>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    socket::upgrade(state, request, async move |visitor, io| peerjs::serve(context, visitor, &query, io).await)
}

/// An id that nobody has.
fn id(state: &State, request: &Request) -> Response {
    if let Err(refusal) = state.visitor(request) {
        return refusal.into_response();
    }
    let text = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    shared(request.headers().get(header::ORIGIN).cloned(), (text, Name::random().as_str().to_owned()))
}

/// The ids of who is signed in, if they may be told, to whoever may sign in.
async fn list(state: &State, context: &Context, request: Request) -> Response {
    let visitor = match state.visitor(&request) {
        Ok(visitor) => visitor,
        Err(refusal) => return refusal.into_response(),
    };
    if let Err(refusal) = state.check_host(&request) {
        return refusal.into_response();
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    // Its body is nobody's while an answer is waited for.
    drop(request);
    let answer = match context.sessions.who(&visitor, context.clock.now()).await {
        Ok(names) => super::json(&names.iter().map(Name::as_str).collect()).into_response(),
        Err(NotTold::Nobody) => {
            let why = "nobody is told who is here, see signaling.gateways.peerjs_discovery";
            Refusal::new(StatusCode::UNAUTHORIZED, why).into_response()
        }
        Err(NotTold::Denied(denied)) => Refusal::from(denied).into_response(),
    };
    shared(origin, answer)
}
