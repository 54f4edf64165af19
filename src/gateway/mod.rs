//! Gateways: one file per client protocol, each a translation to and from the hub, over streams that `web` hands in.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::metrics::Gateway;
use crate::metrics::Metrics;
use crate::rate::Rate;
use crate::signaling::session::Sessions;

pub mod ayame;
mod fault;
pub mod json;
mod link;
pub mod peerjs;
pub mod pubsub;
pub mod socketio;
mod websocket;

/// The gateways, each with the name space that its members meet in.
pub struct Gateways {
    /// Our own protocol, in both dialects. It is always on.
    pub json: Arc<Context>,
    /// Socket.IO.
    pub socketio: Arc<Context>,
    /// PeerServer's.
    pub peerjs: Arc<Context>,
    /// What y-webrtc and Trystero speak.
    pub pubsub: Arc<Context>,
    /// Ayame.
    pub ayame: Arc<Context>,
}

impl Gateways {
    /// Every one, on or off.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Context>> {
        let Self { json, socketio, peerjs, pubsub, ayame } = self;
        [json, socketio, peerjs, pubsub, ayame].into_iter()
    }
}

/// What every gateway works with.
pub struct Context {
    /// Which it is.
    pub gateway: Gateway,
    /// Signs members in.
    pub sessions: Arc<Sessions>,
    /// What holds for its connections.
    pub rules: watch::Sender<Rules>,
    /// Where frames are counted.
    pub metrics: Arc<Metrics>,
    /// Reads time.
    pub clock: Clock,
    /// Cancelled when the process ends: every connection is closed then.
    pub shutdown: CancellationToken,
}

impl Context {
    /// What a connection may do, and how long it may take.
    pub fn limits(&self) -> Limits {
        self.rules.borrow().limits
    }

    /// Whether its clients are served.
    pub fn is_on(&self) -> bool {
        self.rules.borrow().is_on
    }
}

/// What holds for every connection of a gateway, and may change while it lives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Whether there are any: those of a gateway that is switched off end.
    pub is_on: bool,
    /// What each may do.
    pub limits: Limits,
    /// Counts how often ICE servers have become others: clients that are told so by themselves get them at once.
    pub ice: u64,
}

impl From<Limits> for watch::Sender<Rules> {
    fn from(limits: Limits) -> Self {
        Self::new(Rules { is_on: true, limits, ice: 0 })
    }
}

/// What a connection may do, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq)]
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
            () = sessions.reticked() => {}
        }
    }
}

/// Once it is time for `farewell`, has every member's connection closed with word of when to come back: one after the other,
/// lest all come back in one moment.
pub async fn dismiss(sessions: Arc<Sessions>, farewell: CancellationToken, stop: CancellationToken) {
    let closing = async {
        farewell.cancelled().await;
        let mailboxes = sessions.mailboxes();
        let pauses = (FAREWELL.as_millis() / PAUSE.as_millis()).max(1);
        let at_a_time = mailboxes.len().div_ceil(usize::try_from(pauses).unwrap_or(usize::MAX)).max(AT_ONCE);
        for some in mailboxes.chunks(at_a_time) {
            some.iter().for_each(|mailbox| mailbox.dismiss());
            tokio::time::sleep(PAUSE).await;
        }
    };
    stop.run_until_cancelled(closing).await;
}

/// Over how long the connections of many members are closed. They are told to come back in five seconds: by then the last of
/// them is closed, and the next process has had its time to start.
pub const FAREWELL: Duration = Duration::from_secs(3);
/// Between some that are closed and the next.
const PAUSE: Duration = Duration::from_millis(20);
/// How many are closed in one moment, if there aren't more to be closed in all.
const AT_ONCE: usize = 5;

#[cfg(test)]
mod tests;
