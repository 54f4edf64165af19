//! The operator's own socket: `GET /status` and `POST /reload` in HTTP, for who may open it.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use futures_util::future::BoxFuture;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use serde_json::Value;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::App;
use super::Request;
use crate::net::inherited::Inherited;
use crate::net::unix::Listener;
use crate::net::unix::UnixError;

/// Tells how the server is, whenever asked.
type Status = Arc<dyn Fn() -> BoxFuture<'static, Value> + Send + Sync>;

/// Connections at once; further ones wait in the kernel.
const MAX_CONNECTIONS: usize = 16;
/// How long a request's header may take.
const HEADER_WITHIN: Duration = Duration::from_secs(5);
/// How long one may last: a reload reads files, and waits for every shard.
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);
/// How long to wait when the system has no room for another connection.
const BREATH: Duration = Duration::from_millis(50);
/// How often it is looked whether the process before this one still answers.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Where the operator asks. While the process that this one takes over from still answers there, that is the one that an
/// operator may want to ask, and this one waits for the place.
pub struct Control {
    path: PathBuf,
    bound: Option<Listener>,
}

impl Control {
    /// Listens at `path`; with an empty one there is no such socket.
    ///
    /// # Errors
    ///
    /// [`UnixError`].
    pub fn bind(path: &Path) -> Result<Option<Self>, UnixError> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let bound = match Listener::bind(path) {
            Err(UnixError::Answered(_)) if Inherited::are_announced() => None,
            bound => Some(bound?),
        };
        Ok(Some(Self { path: path.to_owned(), bound }))
    }

    /// The listener, as soon as the place is free. Of what the operator asked for, only the other process knows by then, so
    /// the configuration is read again.
    async fn listener(self, requests: &mpsc::Sender<Request>) -> Listener {
        let Self { path, bound } = self;
        if let Some(listener) = bound {
            return listener;
        }
        tracing::info!("control.socket is this process's once the one before it has ended");
        let mut has_said = false;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match Listener::bind(&path) {
                Ok(listener) => {
                    tracing::info!("control.socket is this process's");
                    // The answer is in the log.
                    let (answer, _) = oneshot::channel();
                    let _ = requests.send(Request::Reload(answer)).await;
                    return listener;
                }
                Err(UnixError::Answered(_)) => (),
                Err(error) if !has_said => {
                    tracing::error!("nobody can reach this process by its own socket yet: {error}");
                    has_said = true;
                }
                Err(_) => (),
            }
        }
    }
}

impl App {
    /// Serves the operator at `control` until the end.
    pub fn serve_control(&self, control: Control, requests: mpsc::Sender<Request>) {
        let overview = self.overview.clone();
        let status: Status = Arc::new(move || {
            let overview = overview.clone();
            Box::pin(async move { json!(overview.status().await) })
        });
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            if let Some(listener) = stop.run_until_cancelled(control.listener(&requests)).await {
                serve(listener, router(status, requests), stop).await;
            }
        });
    }
}

/// What can be asked.
fn router(status: Status, requests: mpsc::Sender<Request>) -> Router {
    let told = move || {
        let status = status();
        async move { json_answer(StatusCode::OK, &status.await) }
    };
    let reloaded = move || reload(requests.clone());
    Router::new()
        .route("/status", get(told))
        .route("/reload", post(reloaded))
        .fallback(async || (StatusCode::NOT_FOUND, "GET /status and POST /reload are all there is\n"))
}

async fn reload(requests: mpsc::Sender<Request>) -> Response {
    let (answer, answered) = oneshot::channel();
    let refused = |error: String| json_answer(StatusCode::CONFLICT, &json!({ "error": error }));
    // Whoever takes requests ends with the server.
    let _ = requests.send(Request::Reload(answer)).await;
    match answered.await {
        Ok(Ok(reloaded)) => json_answer(StatusCode::OK, &json!(reloaded)),
        Ok(Err(error)) => refused(error),
        Err(_) => refused("the server is stopping".to_owned()),
    }
}

fn json_answer(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

async fn serve(listener: Listener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        // Never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok(stream) => {
                    let serving = stop.clone().run_until_cancelled_owned(converse(stream, router.clone()));
                    tokio::spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await;
}

async fn converse(stream: UnixStream, router: Router) {
    let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .serve_connection(TokioIo::new(stream), answer);
    // However it ends is the other end's affair.
    let _ = tokio::time::timeout(CONNECTION_WITHIN, serving).await;
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    use super::super::Reloaded;
    use super::*;

    struct Served {
        home: TempDir,
        stop: CancellationToken,
        serving: tokio::task::JoinHandle<()>,
        requests: mpsc::Receiver<Request>,
    }

    fn serve_here() -> Served {
        let home = tempfile::tempdir().unwrap();
        let (sender, requests) = mpsc::channel(1);
        let status: Status = Arc::new(|| Box::pin(async { json!({ "connections": 4 }) }));
        let listener = Listener::bind(&home.path().join("c")).unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router(status, sender), stop.clone()));
        Served { home, stop, serving, requests }
    }

    impl Served {
        fn path(&self) -> PathBuf {
            self.home.path().join("c")
        }
    }

    async fn ask(path: &Path, request: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_tells_the_status_and_nothing_that_is_not_there() {
        let served = serve_here();

        let status = ask(&served.path(), "GET /status").await;
        let nothing = ask(&served.path(), "GET /reload").await;

        assert!(status.starts_with("HTTP/1.1 200 ") && status.ends_with("{\"connections\":4}\n"), "{status}");
        assert!(nothing.starts_with("HTTP/1.1 405 "), "{nothing}");
        assert!(ask(&served.path(), "GET /x").await.starts_with("HTTP/1.1 404 "));
    }

    #[tokio::test]
    async fn a_reload_is_answered_with_what_became_of_it() {
        let mut served = serve_here();
        let path = served.path();
        let answers = [
            Ok(Reloaded { applied: vec!["turn.secrets".into()], needs_restart: vec!["turn.realm".into()] }),
            Err("t.toml: turn.realmm: no such key".to_owned()),
        ];
        let asking = tokio::spawn(async move { [ask(&path, "POST /reload").await, ask(&path, "POST /reload").await] });

        for answer in answers {
            let Some(Request::Reload(sender)) = served.requests.recv().await else { panic!("no request") };
            sender.send(answer).unwrap();
        }

        let [good, bad] = asking.await.unwrap();
        assert!(good.starts_with("HTTP/1.1 200 "), "{good}");
        assert!(good.ends_with("{\"applied\":[\"turn.secrets\"],\"needsRestart\":[\"turn.realm\"]}\n"), "{good}");
        assert!(bad.starts_with("HTTP/1.1 409 "), "{bad}");
        assert!(bad.ends_with("{\"error\":\"t.toml: turn.realmm: no such key\"}\n"), "{bad}");
    }

    #[tokio::test]
    async fn more_connections_than_there_are_places_wait_and_are_served() {
        let served = serve_here();
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(UnixStream::connect(served.path()).await.unwrap());
        }

        let path = served.path();
        let waiting = tokio::spawn(async move { ask(&path, "GET /status").await });
        drop(idle);

        assert!(waiting.await.unwrap().starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn at_the_end_its_name_is_gone() {
        let served = serve_here();
        ask(&served.path(), "GET /status").await;

        served.stop.cancel();
        let path = served.path();
        served.serving.await.unwrap();

        assert!(!path.exists());
    }
}
