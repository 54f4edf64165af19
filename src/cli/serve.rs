//! `throughway serve`: runs until it is told to stop.

use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::pin::pin;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::banner;
use super::changes::Changes;
use crate::app;
use crate::app::App;
use crate::app::Control;
use crate::app::StartError;
use crate::config::Config;
use crate::config::value::AccountMode;
use crate::net::notify;

/// How many sockets wake their tasks at a time. A worker's own queue has room for 256 tasks: what is beyond goes to one that
/// is hardly looked at under load, and those members wait a second while others are served at once.
const IO_EVENTS: usize = 32;

pub(super) fn run(file: Option<&Path>) -> Result<(), Failure> {
    let config = Config::load(file, environment()).map_err(|error| Failure::Operator(error.to_string()))?;
    app::log_as(&config);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_io_events_per_tick(IO_EVENTS).build();
    let runtime = runtime.map_err(|error| Failure::Ours(error.to_string()))?;
    let served = runtime.block_on(serve(&config, file));
    // Whatever still runs has had its time.
    runtime.shutdown_background();
    served
}

async fn serve(config: &Config, file: Option<&Path>) -> Result<(), Failure> {
    let ours = |error: io::Error| Failure::Ours(error.to_string());
    let mut stop = Stop::new().map_err(ours)?;
    let (mut changes, requests) = Changes::new(file).map_err(ours)?;
    let state = state_directory(file);
    let control = Control::bind(&config.control.socket).map_err(|error| Failure::Operator(error.to_string()))?;
    let started = tokio::select! {
        started = App::start(config, &state) => started,
        () = stop.asked() => return Ok(()),
    };
    let app = started.map_err(|error| match error {
        StartError::Listen(_)
        | StartError::Inherit(_)
        | StartError::Accounts(_)
        | StartError::RelayIp { .. }
        | StartError::Tls(_) => Failure::Operator(error.to_string()),
        StartError::Relay(_) | StartError::Certificate(_) => Failure::Ours(error.to_string()),
    })?;
    if config.signaling.accounts.mode == AccountMode::Open {
        app::warn_of_open_accounts();
    }
    if let Some(control) = control {
        app.serve_control(control, requests);
    }
    // A closed stdout is no reason to stop serving.
    let _ = io::stdout().write_all(banner::text(config, file, app.listening(), app.certificate().source).as_bytes());
    notify::ready("serving");
    let ended = serve_and_drain(&app, &mut changes, &mut stop).await;
    if ended != Ended::AtOnce {
        tokio::select! {
            () = app.shutdown() => (),
            () = stop.asked() => (),
        }
    }
    match ended {
        Ended::Failed => Err(Failure::Ours("a part that the others need has ended; the log says which".to_owned())),
        Ended::Drained | Ended::AtOnce => Ok(()),
    }
}

/// How serving has ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// As asked for: nobody is left to wait for.
    Drained,
    /// As asked for twice.
    AtOnce,
    /// By itself.
    Failed,
}

/// Serves until it is to end, and drains then. All the while the configuration may change, and until the drain is over half of
/// a change never holds: who is to be cut off doesn't outlive that because of a drain.
async fn serve_and_drain(app: &App, changes: &mut Changes, stop: &mut Stop) -> Ended {
    let ending = CancellationToken::new();
    let mut changing = pin!(changes.apply_to(app, &ending));
    let failed = tokio::select! {
        () = stop.asked() => false,
        () = app.failed() => true,
        never = &mut changing => match never {},
    };
    tracing::info!("stopping; a second signal ends it at once");
    if failed {
        return Ended::Failed;
    }
    ending.cancel();
    tokio::select! {
        () = app.drain() => Ended::Drained,
        () = stop.asked() => Ended::AtOnce,
        never = &mut changing => match never {},
    }
}

/// The two signals that ask for the end.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}

/// Every variable that is text.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Where certificates and what was relayed are kept: `$STATE_DIRECTORY` (systemd may list several), else beside the
/// configuration file, else here.
pub(super) fn state_directory(file: Option<&Path>) -> PathBuf {
    let given = std::env::var_os("STATE_DIRECTORY").and_then(|list| std::env::split_paths(&list).next());
    let given = given.filter(|path| !path.as_os_str().is_empty());
    given.or_else(|| file.and_then(Path::parent).map(Path::to_owned)).unwrap_or_default()
}
