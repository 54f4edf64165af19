//! Another configuration for the running server: read again on SIGHUP, and when a part of the server asks for it.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::serve::environment;
use crate::app::App;
use crate::app::Reloaded;
use crate::app::Request;
use crate::config::Config;
use crate::net::notify;

/// Requests that wait; beyond, who asks waits.
const QUEUED: usize = 4;

/// What asks for another configuration.
pub(super) struct Changes {
    file: Option<PathBuf>,
    hangups: Signal,
    requests: mpsc::Receiver<Request>,
}

impl Changes {
    /// Listens from now on for SIGHUP, which would end the process otherwise, and for requests; `file` is to be read again.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(super) fn new(file: Option<&Path>) -> io::Result<(Self, mpsc::Sender<Request>)> {
        let (sender, requests) = mpsc::channel(QUEUED);
        let changes = Self { file: file.map(Path::to_owned), hangups: signal(SignalKind::hangup())?, requests };
        Ok((changes, sender))
    }

    /// Has `app` do what is asked for, for ever; the service manager, which waits for the end by then, hears nothing of it
    /// from `ending` on.
    pub(super) async fn apply_to(&mut self, app: &App, ending: &CancellationToken) -> Infallible {
        loop {
            tokio::select! {
                Some(()) = self.hangups.recv() => {
                    // It has been logged.
                    let _ = self.reload(app, ending).await;
                }
                Some(Request::Reload(answer)) = self.requests.recv() => {
                    // Who asked may have gone.
                    let _ = answer.send(self.reload(app, ending).await);
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Reads the configuration again; what has become of it is logged, too.
    async fn reload(&self, app: &App, ending: &CancellationToken) -> Result<Reloaded, String> {
        if !ending.is_cancelled() {
            notify::reloading();
        }
        let reloaded = match Config::load(self.file.as_deref(), environment()) {
            Ok(config) => app.reload(config).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match &reloaded {
            Ok(reloaded) => log(reloaded),
            Err(error) => tracing::warn!("the configuration stays as it was: {error}"),
        }
        if !ending.is_cancelled() {
            notify::ready("serving");
        }
        reloaded
    }
}

/// In the words of `throughway reload`.
fn log(Reloaded { applied, needs_restart }: &Reloaded) {
    match (&applied[..], &needs_restart[..]) {
        ([], []) => tracing::info!("the configuration was read again: no setting has changed"),
        ([], _) => tracing::info!("the configuration was read again"),
        (applied, _) => tracing::info!(applied = applied.join(", "), "the configuration was read again; in force now:"),
    }
    if !needs_restart.is_empty() {
        tracing::warn!("changed, but only a restart puts it to work: {}", needs_restart.join(", "));
    }
}
