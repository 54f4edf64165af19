//! Another configuration for the running server: read again on SIGHUP, and when a part of the server asks for it.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::mpsc;

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

    /// Has `app` do what is asked for, for ever.
    pub(super) async fn apply_to(&mut self, app: &App) -> Infallible {
        loop {
            tokio::select! {
                Some(()) = self.hangups.recv() => {
                    // It has been logged.
                    let _ = self.reload(app).await;
                }
                Some(Request::Reload(answer)) = self.requests.recv() => {
                    // Who asked may have gone.
                    let _ = answer.send(self.reload(app).await);
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Reads the configuration again; what has become of it is logged, too.
    async fn reload(&self, app: &App) -> Result<Reloaded, String> {
        notify::reloading();
        let reloaded = match Config::load(self.file.as_deref(), environment()) {
            Ok(config) => app.reload(config).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match &reloaded {
            Ok(Reloaded { applied, needs_restart }) => {
                if !needs_restart.is_empty() {
                    tracing::warn!("changed, but holds only after a restart: {}", needs_restart.join(", "));
                }
                tracing::info!(applied = applied.join(", "), "the configuration was read again");
            }
            Err(error) => tracing::warn!("the configuration stays as it was: {error}"),
        }
        notify::ready("serving");
        reloaded
    }
}
