//! Gateways: one file per client protocol, each a translation to and from the hub, over streams that `web` hands in.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::rate::Rate;
use crate::signaling::session::Sessions;

pub mod json;
mod websocket;

/// What every gateway works with.
pub struct Context {
    /// Signs members in.
    pub sessions: Arc<Sessions>,
    /// What a connection may do, and how long it may take.
    pub limits: Limits,
    /// Where frames are counted.
    pub metrics: Arc<Metrics>,
    /// Reads time.
    pub clock: Clock,
    /// Cancelled when the process ends: every connection is closed then.
    pub shutdown: CancellationToken,
}

/// What a connection may do, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest frame, and the largest message, in bytes.
    pub message_bytes: usize,
    /// How many messages it may send.
    pub messages: Rate,
    /// At so many frames that say nothing it is closed.
    pub bad_frames: u32,
    /// How long it may take to sign in, from the upgrade on.
    pub sign_in_within: Duration,
    /// How often it is pinged.
    pub ping_every: Duration,
    /// How long nothing may come from it before it counts as gone.
    pub gone_after: Duration,
}

/// Ends sessions when it is time, until the process ends.
pub async fn tend(sessions: Arc<Sessions>, clock: Clock, stop: CancellationToken) {
    loop {
        let next = sessions.tick(clock.now());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
    }
}
