//! Speaks HTTP on one connection, until it ends or the process does.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::connection::Connection;
use super::host::Authority;
use super::host::request_host;
use crate::net::demux::Opened;
use crate::net::gate::Permit;

/// What a connection gets.
#[derive(Clone)]
pub enum Service {
    /// The routes.
    Routes(Router),
    /// The same address over TLS, whatever is asked for.
    Redirect,
}

/// How long a request's header may take; also how long an idle connection is kept.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer may still take when the process ends.
const FINISH_WITHIN: Duration = Duration::from_secs(1);
/// The longest request header taken.
const MAX_HEADER: usize = 16 * 1024;

/// Serves the connection. `permit` is given back when the first request is understood: until then it is half-open.
pub async fn serve(opened: Opened, service: Service, permit: Permit, stop: CancellationToken) {
    let connection = Connection { remote: opened.remote, local: opened.local, tls: opened.tls };
    let permit = Mutex::new(Some(permit));
    let answer = service_fn(move |request: Request<Incoming>| {
        permit.lock().unwrap_or_else(PoisonError::into_inner).take();
        let service = service.clone();
        async move { Ok::<_, std::convert::Infallible>(service.answer(request, connection).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(opened.stream), answer)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    // What the client did wrong, or that it left, is its own affair; so is an answer it doesn't read now.
    let _ = tokio::time::timeout(FINISH_WITHIN, serving).await;
}

impl Service {
    async fn answer(self, request: Request<Incoming>, connection: Connection) -> Response {
        let authority = Authority::of(&request);
        match self {
            Self::Redirect => to_https(&request, authority, connection),
            Self::Routes(router) => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(request_host(authority.as_ref(), connection.local.ip()));
                request.extensions_mut().insert(connection);
                match router.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        }
    }
}

/// Sends the client to the same host and port over TLS: one port speaks both.
fn to_https(request: &Request<Incoming>, authority: Option<Authority>, connection: Connection) -> Response {
    let host = match authority {
        Some(authority) => Authority::with_port(&authority.host, authority.port.unwrap_or(80)),
        None => connection.local.to_string(),
    };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    let location = format!("https://{host}{path}");
    (
        StatusCode::PERMANENT_REDIRECT,
        [(header::LOCATION, location), (header::CONNECTION, "close".to_owned())],
        "Use https\n",
    )
        .into_response()
}
