//! What tests of gateways share: everything behind a gateway, and clients over in-memory streams.

use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::Limits;
use super::tend;
use crate::address::Sources;
use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::metrics::Gateway;
use crate::metrics::Metrics;
use crate::places;
use crate::places::Places;
use crate::rate::Rate;
use crate::signaling::accounts::Accounts;
use crate::signaling::accounts::Proof;
use crate::signaling::hub;
use crate::signaling::hub::Hub;
use crate::signaling::ice::Served;
use crate::signaling::mailbox::Capacity;
use crate::signaling::session::Sessions;
use crate::signaling::session::Visitor;

pub(super) const GRACE: Duration = Duration::from_secs(30);
pub(super) const LIMITS: Limits = Limits {
    message_bytes: 64 * 1024,
    messages: Rate { per_second: 50.0, burst: 200.0 },
    bad_frames: 3,
    sign_in_within: Duration::from_secs(120),
    ping_every: Duration::from_secs(20),
    gone_after: Duration::from_secs(45),
};

pub(super) fn context(sign_ins: f64) -> Arc<Context> {
    context_with(sign_ins, Arc::new(Credentials::new(Default::default())))
}

pub(super) fn context_with(sign_ins: f64, credentials: Arc<Credentials>) -> Arc<Context> {
    behind(Gateway::Json, Proof::None, sign_ins, credentials, |_| {})
}

/// That of another gateway, with a hub of other settings.
pub(super) fn context_of(gateway: Gateway, change: impl FnOnce(&mut hub::Settings)) -> Arc<Context> {
    context_for(gateway, Proof::None, 1e9, change)
}

pub(super) fn context_where(
    sign_ins: f64,
    credentials: Arc<Credentials>,
    change: impl FnOnce(&mut hub::Settings),
) -> Arc<Context> {
    behind(Gateway::Json, Proof::None, sign_ins, credentials, change)
}

/// That of `gateway`, for who shows `proof`.
pub(super) fn context_for(
    gateway: Gateway,
    proof: Proof,
    sign_ins: f64,
    change: impl FnOnce(&mut hub::Settings),
) -> Arc<Context> {
    behind(gateway, proof, sign_ins, Arc::new(Credentials::new(Default::default())), change)
}

fn behind(
    gateway: Gateway,
    proof: Proof,
    sign_ins: f64,
    credentials: Arc<Credentials>,
    change: impl FnOnce(&mut hub::Settings),
) -> Arc<Context> {
    let metrics = Arc::new(Metrics::default());
    let sign_ins = Rate { per_second: sign_ins, burst: sign_ins };
    let mut settings = settings();
    change(&mut settings);
    let mut hub = Hub::new(settings, Arc::clone(&credentials), Arc::clone(&metrics));
    if gateway == Gateway::PeerJs {
        hub = hub.patient(Places::new(places::Settings { total: 9, per_source: 3, sources: Sources::default() }));
    }
    let served = Served { udp_ports: vec![3478], ..Served::default() };
    let accounts = Arc::new(Accounts::new(proof, sign_ins, Vec::new()));
    let sessions = Arc::new(Sessions::new(hub, accounts, credentials, served));
    let (clock, shutdown) = (Clock::anchored(Duration::from_secs(1 << 30)), CancellationToken::new());
    if tokio::runtime::Handle::try_current().is_ok() {
        tokio::spawn(tend(Arc::clone(&sessions), clock, shutdown.clone()));
    }
    Arc::new(Context { gateway, sessions, rules: LIMITS.into(), metrics, clock, shutdown })
}

/// What the hub is made of, unless that is changed.
pub(super) fn settings() -> hub::Settings {
    hub::Settings {
        queue: Capacity { messages: 256, bytes: 256 * 1024 },
        silence: LIMITS.gone_after,
        grace: GRACE,
        rooms: 3,
        room_members: 3,
        who: false,
        presence: true,
        sources: Default::default(),
        vocabulary: Default::default(),
    }
}

pub(super) fn visitor() -> Visitor {
    Visitor { host: "localhost".into(), source: [192, 0, 2, 1].into(), token: None }
}

/// A client, and the task that serves it.
pub(super) struct Client {
    pub(super) socket: WebSocketStream<DuplexStream>,
    pub(super) served: JoinHandle<()>,
}

impl Client {
    /// One that `serve` serves.
    pub(super) async fn over<F>(serve: impl FnOnce(DuplexStream) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (near, far) = tokio::io::duplex(4096);
        let served = tokio::spawn(serve(far));
        let socket = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        Self { socket, served }
    }

    pub(super) async fn send(&mut self, frame: &Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame, which is JSON.
    pub(super) async fn hear(&mut self) -> Value {
        loop {
            let message = self.socket.next().await.unwrap().unwrap();
            if !message.is_ping() {
                return serde_json::from_str(message.to_text().unwrap()).unwrap();
            }
        }
    }

    /// Reads to the end: how many frames came, and the code that closed.
    pub(super) async fn hear_out(&mut self) -> (usize, Option<u16>) {
        let mut frames = 0;
        while let Some(Ok(message)) = self.socket.next().await {
            frames += usize::from(message.is_text());
            if let Message::Close(close) = message {
                return (frames, close.map(|close| close.code.into()));
            }
        }
        (frames, None)
    }
}
