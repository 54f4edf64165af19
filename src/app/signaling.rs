//! Signaling: a name space for each group of gateways, who may sign in to them, and everything that the web side serves of
//! them.

use std::sync::Arc;

use axum::Router;

use self::accounts::AccountsError;
use super::Shared;
use super::count;
use super::exempt;
use super::own_addresses;
use super::own_names;
use super::places;
use super::rate;
use crate::address::Sources;
use crate::config::Config;
use crate::config::Signaling;
use crate::gateway;
use crate::metrics::Gateway;
use crate::signaling::accounts::Accounts;
use crate::signaling::hub;
use crate::signaling::hub::Hub;
use crate::signaling::ice;
use crate::signaling::mailbox::Capacity;
use crate::signaling::session::Sessions;
use crate::web;
use crate::web::admin;
use crate::web::socket;

pub(super) mod accounts;

/// How many WebSockets may be open at once: what a small host can carry.
const MAX_WEBSOCKETS: u32 = 50_000;
/// For how many pairs of a sender and an absent name something may wait at once: 64 MiB of it.
const MAX_WAITING: u32 = 1024;
/// For how many whose sender is at one source.
const WAITING_PER_SOURCE: u32 = 64;

/// Signaling, and everything that the web side serves of it.
///
/// # Errors
///
/// [`AccountsError`], when what the configuration names to tell members by can't be used.
pub(super) fn routes(config: &Config, served: ice::Served, shared: &Shared) -> Result<Router, AccountsError> {
    let limits = &config.signaling.limits;
    let accounts = Arc::new(accounts::accounts(config, shared.clock)?);
    let spaces = Spaces { config, accounts, served, shared };
    let on = &config.signaling.gateways;
    let gateways = gateway::Gateways {
        json: spaces.open(Gateway::Json),
        socketio: on.socketio.then(|| spaces.open(Gateway::SocketIo)),
        peerjs: on.peerjs.then(|| spaces.open(Gateway::PeerJs)),
        pubsub: on.pubsub.then(|| spaces.open(Gateway::PubSub)),
        ayame: on.ayame.then(|| spaces.open(Gateway::Ayame)),
    };
    let token = config.admin.token.reveal().map(str::to_owned);
    let sessions = Arc::clone(&gateways.json.sessions);
    let admin = token.map(|token| admin::State::new(token, exempt(config), sessions, shared.clock));
    let origins = socket::Origins {
        names: own_names(config).collect(),
        addresses: own_addresses(config).collect(),
        allowed: config.http.allowed_origins.iter().map(|origin| origin.as_str().to_owned()).collect(),
        required: config.http.require_origin,
    };
    let connections = places(MAX_WEBSOCKETS, limits.connections_per_source.get(), exempt(config));
    Ok(web::router(socket::State::new(origins, connections, gateways, shared.tasks.clone()), admin))
}

/// What all name spaces have in common.
struct Spaces<'a> {
    config: &'a Config,
    accounts: Arc<Accounts>,
    served: ice::Served,
    shared: &'a Shared,
}

impl Spaces<'_> {
    /// One more, with nobody in it.
    fn open(&self, gateway: Gateway) -> Arc<gateway::Context> {
        let Self { config, accounts, served, shared } = self;
        let hub = Hub::new(hub_settings(config, gateway), Arc::clone(&shared.credentials), Arc::clone(&shared.metrics));
        let hub = match gateway {
            Gateway::PeerJs => hub.patient(places(MAX_WAITING, WAITING_PER_SOURCE, exempt(config))),
            Gateway::Json | Gateway::SocketIo | Gateway::PubSub | Gateway::Ayame => hub,
        };
        let sessions = Sessions::new(hub, Arc::clone(accounts), Arc::clone(&shared.credentials), served.clone());
        let sessions = Arc::new(sessions.by(gateway));
        shared.tasks.spawn(gateway::tend(Arc::clone(&sessions), shared.clock, shared.stop.clone()));
        Arc::new(gateway::Context {
            gateway,
            sessions,
            limits: signaling_limits(&config.signaling),
            metrics: Arc::clone(&shared.metrics),
            clock: shared.clock,
            shutdown: shared.stop.clone(),
        })
    }
}

fn hub_settings(config: &Config, gateway: Gateway) -> hub::Settings {
    let signaling = &config.signaling;
    hub::Settings {
        queue: Capacity { messages: count(signaling.queue_messages.get()), bytes: signaling.queue_bytes.get() },
        silence: signaling.gone_after.get(),
        grace: signaling.resume_within.get(),
        rooms: count(signaling.limits.rooms_per_member.get()),
        room_members: count(signaling.limits.members_per_room.get()),
        who: if gateway == Gateway::PeerJs { signaling.gateways.peerjs_discovery } else { signaling.who },
        presence: gateway == Gateway::Json,
        first_version: gateway == Gateway::Json,
        sources: Sources::networks(exempt(config)),
    }
}

fn signaling_limits(signaling: &Signaling) -> gateway::Limits {
    gateway::Limits {
        message_bytes: signaling.message_bytes.get(),
        messages: rate(signaling.limits.messages.get(), signaling.limits.message_burst.get()),
        bad_frames: signaling.limits.bad_frames.get(),
        sign_in_within: signaling.sign_in_within.get(),
        ping_every: signaling.ping_every.get(),
        gone_after: signaling.gone_after.get(),
    }
}
