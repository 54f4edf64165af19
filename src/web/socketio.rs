//! Socket.IO's HTTP side: the library, polling, and WebSockets, alone or in place of polling.

use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::any;
use axum::routing::get;
use http_body_util::LengthLimitError;
use serde_json::json;

use super::connection::Closing;
use super::pages;
use super::socket;
use super::socket::State;
use super::socket::Upgrade;
use crate::gateway::socketio;
use crate::gateway::socketio::Unheard;
use crate::gateway::socketio::engineio::Revision;
use crate::signaling::session::Visitor;

type Engine = socketio::Engine<Upgrade>;

/// Its paths, while it is on.
pub(super) fn routes(state: State) -> Router {
    let context = &state.gateways().socketio;
    let served = Arc::clone(context);
    let engine = Engine::new(Arc::clone(context));
    let library = get({
        let library = pages::socketio();
        async move |headers: HeaderMap| library(&headers)
    });
    let answer = move |request: Request| {
        let (state, engine) = (state.clone(), Arc::clone(&engine));
        async move { answer(&state, &engine, request).await }
    };
    let routes = Router::new()
        .route("/socket.io", any(answer.clone()))
        .route("/socket.io/", any(answer))
        .route("/socket.io/socket.io.js", library.clone())
        .route("/socket.io/socket.io.min.js", library);
    super::while_on(routes, move || served.is_on())
}

/// An answer that the page that asked may read, if it may ask at all.
async fn answer(state: &State, engine: &Arc<Engine>, request: Request) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let visitor = match state.visitor(&request) {
        Ok(visitor) => visitor,
        Err(refusal) => return refusal.into_response(),
    };
    let mut response = if request.method() == Method::OPTIONS {
        preflight(request.headers())
    } else {
        carry_out(state, engine, visitor, request).await.unwrap_or_else(Fault::into_response)
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        // Old clients ask so by default; there are no cookies to see.
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    response
}

/// Says that whatever the page wants to send may be sent.
fn preflight(asked: &HeaderMap) -> Response {
    let methods = [(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST")];
    let mut response = (StatusCode::NO_CONTENT, methods).into_response();
    if let Some(headers) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
    }
    response
}

async fn carry_out(state: &State, engine: &Arc<Engine>, visitor: Visitor, request: Request) -> Result<Response, Fault> {
    let query = Query::of(&request);
    let revision = Revision::named(&query.revision).ok_or(Fault::REVISION)?;
    if query.is_jsonp {
        return Err(Fault::JSONP);
    }
    match (query.transport.as_str(), request.method(), query.sid) {
        ("websocket", &Method::GET, None) => {
            let engine = Arc::clone(engine);
            Ok(socket::upgrade(state, request, move |visitor, io| engine.serve(revision, visitor, io)))
        }
        ("websocket", &Method::GET, Some(sid)) if engine.knows(&sid) => {
            let engine = Arc::clone(engine);
            Ok(socket::upgrade_placed(state, request, move |io| async move { engine.upgrade(&sid, io).await }))
        }
        ("polling", &Method::GET, None) => {
            // Clients of the later revision must post before they hear anything, and browsers name the origin then.
            let checked = if revision == Revision::Third { state.check_host(&request) } else { Ok(()) };
            let place = match checked.and_then(|()| state.enter(visitor.source)) {
                Ok(place) => place,
                Err(refusal) => return Ok(refusal.into_response()),
            };
            let (opening, serve) = engine.open(revision, visitor);
            state.spawn(place, serve);
            Ok(text(opening))
        }
        ("polling", &Method::GET, Some(sid)) => {
            let closing = request.extensions().get::<Closing>().cloned().unwrap_or_default();
            // The connection's end is nothing to the session: its client asks over another one.
            let told = engine.poll(&sid, revision, closing.0.cancelled()).await.ok_or(Fault::SESSION)?;
            Ok(text(told))
        }
        ("polling", &Method::POST, Some(sid)) => post(engine, &sid, request).await,
        ("websocket", &Method::GET, Some(_)) => Err(Fault::SESSION),
        ("websocket" | "polling", _, _) => Err(Fault::METHOD),
        (_, _, _) => Err(Fault::TRANSPORT),
    }
}

async fn post(engine: &Arc<Engine>, sid: &str, request: Request) -> Result<Response, Fault> {
    if !engine.knows(sid) {
        return Err(Fault::SESSION);
    }
    let is_bytes = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/octet-stream");
    let payload = if request.headers().get(header::CONTENT_TYPE).is_some_and(is_bytes) {
        Err(Unheard::NotText)
    } else {
        read(request.into_body(), engine.most()).await
    };
    match payload {
        Ok(payload) => {
            engine.post(sid, payload).await.ok_or(Fault::SESSION)?;
            Ok(text("ok".into()))
        }
        Err(why) => {
            engine.end(sid, why).await;
            Err(match why {
                Unheard::TooLarge => Fault::TOO_LARGE,
                Unheard::NotText => Fault::BYTES,
                Unheard::Broken => Fault::BROKEN,
            })
        }
    }
}

async fn read(body: Body, most: usize) -> Result<String, Unheard> {
    let body = to_bytes(body, most).await.map_err(|error| {
        let is_too_large = error.source().is_some_and(|source| source.is::<LengthLimitError>());
        if is_too_large { Unheard::TooLarge } else { Unheard::Broken }
    })?;
    String::from_utf8(body.into()).map_err(|_| Unheard::NotText)
}

fn text(body: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], body).into_response()
}

/// What a client says in a URL.
#[derive(Default)]
struct Query {
    revision: String,
    transport: String,
    sid: Option<String>,
    is_jsonp: bool,
}

impl Query {
    fn of(request: &Request) -> Self {
        let mut query = Self::default();
        let text = request.uri().query().unwrap_or_default();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            match key.as_ref() {
                "EIO" => query.revision = value.into_owned(),
                "transport" => query.transport = value.into_owned(),
                "sid" => query.sid = Some(value.into_owned()),
                "j" => query.is_jsonp = true,
                _ => {}
            }
        }
        query
    }
}

/// Why a request isn't carried out, by the numbers that the protocol's own server has for it.
#[derive(Clone, Copy)]
struct Fault {
    status: StatusCode,
    code: u8,
    why: &'static str,
}

impl Fault {
    const TRANSPORT: Self = Self::new(0, "Transport unknown");
    const SESSION: Self = Self::new(1, "Session ID unknown");
    const METHOD: Self = Self::new(2, "Bad handshake method");
    const JSONP: Self = Self::new(3, "JSONP isn't spoken here");
    const BYTES: Self = Self::new(3, "bytes aren't carried here; send text");
    const TOO_LARGE: Self =
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, code: 3, why: "more than four signaling.message_bytes at once" };
    const BROKEN: Self = Self::new(3, "the body broke off");
    const REVISION: Self = Self::new(5, "Unsupported protocol version");

    const fn new(code: u8, why: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, why }
    }

    fn into_response(self) -> Response {
        let Self { status, code, why } = self;
        (status, super::json(&json!({ "code": code, "message": why }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_library_that_is_served_is_the_one_that_its_readme_names() {
        let readme = include_str!("../../static/vendor/socket.io/README.md");
        let named = readme.lines().find_map(|line| line.strip_prefix("SHA-256: ")).unwrap();

        let served = pages::socketio()(&HeaderMap::new()).into_body();

        let body = to_bytes(served, usize::MAX).await.unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, &body);
        assert_eq!(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>(), named);
    }
}
