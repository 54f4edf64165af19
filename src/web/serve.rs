//! Speaks HTTP on one connection, until it ends or the process does.

use std::sync::Arc;
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

use super::connection::Closing;
use super::connection::Connection;
use super::forwarded::Proxies;
use super::host::Authority;
use super::host::request_host;
use crate::address::host_in_url;
use crate::live::Live;
use crate::net::demux::Opened;
use crate::net::tls::Challenges;
use crate::places::Place;
use crate::places::Places;
use crate::places::Refused;

/// What a connection gets.
#[derive(Clone)]
pub enum Service {
    /// What certificate authorities ask for, and for all else another service.
    Challenged(Challenges, Box<Self>),
    /// The routes, and whose word counts for whom a request comes from.
    Routes(Router, Live<Proxies>),
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

/// Serves the connection. It is `half_open` until its first request is understood, and has one of `places` from then on,
/// until it ends or becomes a WebSocket.
pub async fn serve(opened: Opened, service: Service, half_open: Place, places: Arc<Places>, stop: CancellationToken) {
    let connection = Connection { remote: opened.remote, local: opened.local };
    // The place that the connection holds, and whether that is one to be served in.
    let held = Mutex::new((half_open, false));
    let closing = Closing::default();
    let close = closing.0.clone();
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let admitted = admit(&mut held.lock().unwrap_or_else(PoisonError::into_inner), &places, connection);
        request.extensions_mut().insert(closing.clone());
        let service = service.clone();
        async move {
            Ok::<_, std::convert::Infallible>(match admitted {
                Ok(()) => service.answer(request, connection).await,
                Err(refused) => turned_away(refused),
            })
        }
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
    close.cancel();
    serving.as_mut().graceful_shutdown();
    // What the client did wrong, or that it left, is its own affair; so is an answer it doesn't read now.
    let _ = tokio::time::timeout(FINISH_WITHIN, serving).await;
}

fn admit(held: &mut (Place, bool), places: &Arc<Places>, connection: Connection) -> Result<(), Refused> {
    if !held.1 {
        *held = (places.enter(connection.remote.ip())?, true);
    }
    Ok(())
}

fn turned_away(refused: Refused) -> Response {
    let (status, why) = match refused {
        Refused::Source => (StatusCode::TOO_MANY_REQUESTS, "too many connections from this address\n"),
        Refused::Full => (StatusCode::SERVICE_UNAVAILABLE, "too many connections\n"),
    };
    (status, [(header::CONNECTION, "close")], why).into_response()
}

impl Service {
    async fn answer(self, request: Request<Incoming>, connection: Connection) -> Response {
        let authority = Authority::of(&request);
        match self {
            Self::Challenged(challenges, service) => match challenges.text(request.uri().path()) {
                Some(text) => ([(header::CONTENT_TYPE, "application/octet-stream")], text).into_response(),
                None => Box::pin(service.answer(request, connection)).await,
            },
            Self::Redirect => to_https(&request, authority, connection),
            Self::Refuse => {
                (StatusCode::BAD_REQUEST, [(header::CONNECTION, "close")], "This port speaks TURN, not HTTP\n")
                    .into_response()
            }
            Self::Routes(router, proxies) => {
                let mut request = request.map(Body::new);
                let remote = proxies.get().client(connection.remote, request.headers());
                request.extensions_mut().insert(request_host(authority.as_ref(), connection.local.ip()));
                request.extensions_mut().insert(Connection { remote, ..connection });
                match router.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        }
    }
}

/// Sends the client to the same host and port over TLS, for one port speaks both; who wrote none, and so came by 80, to the
/// one that https has then.
fn to_https(request: &Request<Incoming>, authority: Option<Authority>, connection: Connection) -> Response {
    let host = match authority {
        Some(Authority { host, port: Some(port) }) => Authority::with_port(&host, port),
        Some(Authority { host, port: None }) => host_in_url(&host).into_owned(),
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
    use crate::places;

    /// A connection being served, seen from its client.
    fn connect(places: &[Arc<Places>; 2], stop: &CancellationToken) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        connect_to(Router::new().route("/", get(async || "x".repeat(5000))), places, stop)
    }

    fn connect_to(
        routes: Router,
        places: &[Arc<Places>; 2],
        stop: &CancellationToken,
    ) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let (client, server) = tokio::io::duplex(1024);
        let addr = "127.0.0.1:1".parse().unwrap();
        let (protocol, stream) = (Protocol::Http, Box::new(server));
        let opened = Opened { protocol, tls: false, remote: addr, local: addr, reached: addr.ip(), stream };
        let [half_open, served] = places;
        let place = half_open.enter(addr.ip()).unwrap();
        let serving = serve(opened, Service::Routes(routes, Live::default()), place, Arc::clone(served), stop.clone());
        (client, tokio::spawn(serving))
    }

    /// Room for one that is half-open and one that is served.
    fn room() -> [Arc<Places>; 2] {
        [(); 2].map(|()| Places::new(places::Settings { total: 1, per_source: 1, sources: Default::default() }))
    }

    fn is_free(places: &Arc<Places>) -> bool {
        places.enter([192, 0, 2, 1].into()).is_ok()
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_let_go_of() {
        let (mut client, serving) = connect(&room(), &CancellationToken::new());
        let began = Clock::system().now().monotonic;

        client.write_all(&REQUEST.repeat(3)).await.unwrap();
        serving.await.unwrap();

        let took = Clock::system().now().monotonic - began;
        assert!((HTTP_WITHIN..HTTP_WITHIN * 2).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_waits_hears_that_the_connection_has_had_its_time() {
        let waits = async |request: Request<Body>| {
            request.extensions().get::<Closing>().unwrap().0.cancelled().await;
            "nothing happened"
        };
        let routes = Router::new().route("/", get(waits));
        let (mut client, serving) = connect_to(routes, &room(), &CancellationToken::new());

        client.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();

        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("nothing happened"), "{answer}");
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_is_half_open_until_its_first_request_and_has_a_place_to_its_end() {
        let (room, stop) = (room(), CancellationToken::new());
        let [half_open, served] = &room;
        let (mut client, serving) = connect(&room, &stop);
        assert!(!is_free(half_open) && is_free(served));

        client.write_all(REQUEST).await.unwrap();
        client.read_exact(&mut [0; 100]).await.unwrap();
        assert!(is_free(half_open) && !is_free(served));
        let (mut second, _turned_away) = connect(&room, &stop);
        second.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        second.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");

        drop(client);
        stop.cancel();
        serving.await.unwrap();
        assert!(is_free(served));
    }
}
