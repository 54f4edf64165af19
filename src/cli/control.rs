//! The other end of the control socket: what `status`, `reload` and `doctor` ask a running server.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper::Method;
use hyper::Request;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::Failure;
use crate::config::Config;

/// The longest that a server may take: a reload reads files.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest answer that is read.
const MAX_ANSWER: usize = 4 << 20;

/// Asks the server with this configuration: the status of its answer, and the answer.
pub(super) async fn ask(config: &Config, method: Method, path: &str) -> Result<(StatusCode, Value), Failure> {
    let socket = config.control.socket.as_path();
    if socket.as_os_str().is_empty() {
        return Err(Failure::Operator(format!("{NO_SOCKET}{}", if path == RELOAD { BY_SIGNAL } else { "" })));
    }
    let silent = |error: &dyn std::fmt::Display| {
        Failure::NoServer(format!("no server answers at {}: {error}{}", socket.display(), CURE))
    };
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Failure::Operator(format!("{}: {error}: be the server's user, or root", socket.display()));
        }
        silent(&error)
    })?;
    match tokio::time::timeout(PATIENCE, converse(stream, method, path)).await {
        Ok(answer) => answer.map_err(|error| silent(&error)),
        Err(elapsed) => Err(silent(&elapsed)),
    }
}

/// Where a reload is asked for.
pub(super) const RELOAD: &str = "/reload";

const NO_SOCKET: &str =
    "control.socket is empty: name a path there, such as \"/run/throughway/control.sock\", and restart the server";
const BY_SIGNAL: &str = "; or reload it without: send its process SIGHUP, and its log says what became of it";

const CURE: &str = "; is it running, and with this configuration?";

/// The process at the other end, if the system tells.
///
/// # Errors
///
/// The system's, when the socket can't be reached.
pub(super) async fn server_process(socket: &Path) -> io::Result<Option<i32>> {
    Ok(UnixStream::connect(socket).await?.peer_cred()?.pid())
}

async fn converse(
    stream: UnixStream,
    method: Method,
    path: &str,
) -> Result<(StatusCode, Value), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    let request = request.header(header::CONNECTION, "close").body(Empty::<Bytes>::new())?;
    let answer = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body)?))
    };
    // The one is driven by the other, and ends with it.
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}
