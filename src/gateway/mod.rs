//! Gateways: one file per client protocol, each a translation to and from the hub, over streams that `web` hands in.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::metrics::Metrics;
use crate::rate::Rate;
use crate::signaling::hub::Hub;
use crate::signaling::ice::Served;

pub mod json;
mod websocket;

/// What every gateway works with.
pub struct Context {
    /// The members.
    pub hub: Mutex<Hub>,
    /// Mints what sessions are handed for TURN.
    pub credentials: Arc<Credentials>,
    /// What `iceServers` may list.
    pub served: Served,
    /// How many messages a connection may send.
    pub messages: Rate,
    /// Where frames are counted.
    pub metrics: Arc<Metrics>,
    /// Reads time.
    pub clock: Clock,
    /// Cancelled when the process ends: every connection is closed then.
    pub shutdown: CancellationToken,
}

impl Context {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
