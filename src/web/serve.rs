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
    /// 400 and the end: this port is for other things.
    Refuse,
}

/// How long a request's header may take; also how long an idle connection is kept.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may speak HTTP: one that asks for much and reads nothing holds a file no longer than this.
const HTTP_WITHIN: Duration = Duration::from_secs(120);
/// How long an answer may still take at the end.
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
        () = stop.cancelled() => (),
        () = tokio::time::sleep(HTTP_WITHIN) => (),
    }
    serving.as_mut().graceful_shutdown();
    // What the client did wrong, or that it left, is its own affair; so is an answer it doesn't read now.
    let _ = tokio::time::timeout(FINISH_WITHIN, serving).await;
}

impl Service {
    async fn answer(self, request: Request<Incoming>, connection: Connection) -> Response {
        let authority = Authority::of(&request);
        match self {
            Self::Redirect => to_https(&request, authority, connection),
            Self::Refuse => {
                (StatusCode::BAD_REQUEST, [(header::CONNECTION, "close")], "This port speaks TURN, not HTTP\n")
                    .into_response()
            }
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::io::DuplexStream;

    use super::*;
    use crate::clock::Clock;
    use crate::net::demux::Protocol;
    use crate::net::gate;
    use crate::net::gate::Gate;

    /// A connection being served, seen from its client.
    fn connect(gate: &std::sync::Arc<Gate>, stop: &CancellationToken) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let (client, server) = tokio::io::duplex(1024);
        let addr = "127.0.0.1:1".parse().unwrap();
        let opened =
            Opened { protocol: Protocol::Http, tls: false, remote: addr, local: addr, stream: Box::new(server) };
        let routes = Router::new().route("/", get(async || "x".repeat(5000)));
        let permit = gate.enter(addr.ip()).unwrap();
        (client, tokio::spawn(serve(opened, Service::Routes(routes), permit, stop.clone())))
    }

    fn gate() -> std::sync::Arc<Gate> {
        Gate::new(gate::Settings { total: 1, per_source: 1, exempt: Vec::new() })
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_let_go_of() {
        let (mut client, serving) = connect(&gate(), &CancellationToken::new());
        let began = Clock::system().now().monotonic;

        client.write_all(&REQUEST.repeat(3)).await.unwrap();
        serving.await.unwrap();

        let took = Clock::system().now().monotonic - began;
        assert!((HTTP_WITHIN..HTTP_WITHIN * 2).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn a_connection_is_half_open_until_its_first_request_and_ends_with_the_process() {
        let (gate, stop) = (gate(), CancellationToken::new());
        let (mut client, serving) = connect(&gate, &stop);
        assert!(gate.enter("192.0.2.1".parse().unwrap()).is_none());

        client.write_all(REQUEST).await.unwrap();
        client.read_exact(&mut [0; 100]).await.unwrap();

        assert!(gate.enter("192.0.2.1".parse().unwrap()).is_some());
        drop(client);
        stop.cancel();
        serving.await.unwrap();
    }
}
