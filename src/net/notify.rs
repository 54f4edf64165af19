//! What systemd is told of the life of this process (`sd_notify`), if it is its service manager and wants to know.

use std::time::Duration;

use sd_notify::NotifyState;

/// It serves, as `status` says in words; also the end of what [`reloading`] began.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reads its configuration again. [`ready`] must follow, however that goes.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration again")]),
        Err(error) => tracing::debug!(%error, "cannot read the monotonic clock"),
    }
}

/// It is about to end.
pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// What it does, in words.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Starting or ending takes so much longer, from here on: without such word it would be killed after its timeout.
pub fn extend(by: Duration) {
    let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// It lives.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// After how long without [`alive`] it would be killed; none if nobody watches.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
