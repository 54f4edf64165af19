//! Signaling: a name space for each group of gateways, who may sign in to them, and everything that the web side serves of
//! them.

use std::sync::Arc;

use axum::Router;

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
use crate::metrics::PlaceOf;
use crate::signaling::accounts::Accounts;
use crate::signaling::hub;
use crate::signaling::hub::Hub;
use crate::signaling::ice;
use crate::signaling::mailbox::Capacity;
use crate::signaling::mailbox::Vocabulary;
use crate::signaling::session::Sessions;
use crate::web;
use crate::web::admin;
use crate::web::socket;
use crate::web::status::Overview;
use crate::web::status::Parts;

pub(super) mod accounts;

/// How many times `rooms_per_member` topics a client may subscribe to: it has one for each document, or two for each room.
const TOPICS: usize = 8;
/// How many times `message_burst` a client may send at once where it answers everybody who comes, and who is there when it
/// comes itself, in a message for each candidate.
const MESH_BURST: u32 = 4;
/// How many members an Ayame room has.
const PAIR: usize = 2;
/// How many WebSockets may be open at once: what a small host can carry.
const MAX_WEBSOCKETS: u32 = 50_000;
/// For how many pairs of a sender and an absent name something may wait at once: 64 MiB of it.
const MAX_WAITING: u32 = 1024;
/// For how many whose sender is at one source.
const WAITING_PER_SOURCE: u32 = 64;

/// Signaling, and everything that the web side serves of it; with what can be told of the server, of signaling as of the
/// `parts` that there are already.
pub(super) fn routes(
    config: &Config,
    accounts: Arc<Accounts>,
    served: ice::Served,
    mut parts: Parts,
    shared: &Shared,
) -> (Router, Overview) {
    let limits = &config.signaling.limits;
    let spaces = Spaces { config, accounts, served, shared };
    let on = &config.signaling.gateways;
    let gateways = gateway::Gateways {
        json: spaces.open(Gateway::Json),
        socketio: on.socketio.then(|| spaces.open(Gateway::SocketIo)),
        peerjs: on.peerjs.then(|| spaces.open(Gateway::PeerJs)),
        pubsub: on.pubsub.then(|| spaces.open(Gateway::PubSub)),
        ayame: on.ayame.then(|| spaces.open(Gateway::Ayame)),
    };
    let connections = places(MAX_WEBSOCKETS, limits.connections_per_source.get(), exempt(config));
    let commanded: Vec<_> = gateways.all().cloned().collect();
    parts.gateways.clone_from(&commanded);
    parts.places.push((PlaceOf::WebSocket, Arc::clone(&connections)));
    let status = parts.turn.clone();
    let overview = Overview::new(parts);
    let token = config.admin.token.reveal().map(str::to_owned);
    let (told, clock) = (overview.clone(), shared.clock);
    let admin = token.map(|token| admin::State::new(token, exempt(config), commanded, status, told, clock));
    let origins = socket::Origins {
        names: own_names(config).collect(),
        addresses: own_addresses(config).collect(),
        allowed: config.http.allowed_origins.iter().map(|origin| origin.as_str().to_owned()).collect(),
        required: config.http.require_origin,
    };
    (web::router(socket::State::new(origins, connections, gateways, shared.tasks.clone()), admin), overview)
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
        let sessions = Arc::new(sessions.by(gateway).until(shared.draining.clone()));
        shared.tasks.spawn(gateway::tend(Arc::clone(&sessions), shared.clock, shared.stop.clone()));
        let (farewell, stop) = (shared.farewell.clone(), shared.stop.clone());
        shared.tasks.spawn(gateway::dismiss(Arc::clone(&sessions), farewell, stop));
        Arc::new(gateway::Context {
            gateway,
            sessions,
            limits: signaling_limits(&config.signaling, gateway),
            metrics: Arc::clone(&shared.metrics),
            clock: shared.clock,
            shutdown: shared.stop.clone(),
        })
    }
}

fn hub_settings(config: &Config, gateway: Gateway) -> hub::Settings {
    let signaling = &config.signaling;
    let (most_rooms, most_members) =
        (count(signaling.limits.rooms_per_member.get()), count(signaling.limits.members_per_room.get()));
    let (rooms, room_members) = match gateway {
        Gateway::Json | Gateway::SocketIo | Gateway::PeerJs => (most_rooms, most_members),
        Gateway::PubSub => (most_rooms * TOPICS, most_members),
        Gateway::Ayame => (1, PAIR),
    };
    hub::Settings {
        queue: Capacity { messages: count(signaling.queue_messages.get()), bytes: signaling.queue_bytes.get() },
        silence: signaling.gone_after.get(),
        grace: signaling.resume_within.get(),
        rooms,
        room_members,
        who: if gateway == Gateway::PeerJs { signaling.gateways.peerjs_discovery } else { signaling.who },
        presence: matches!(gateway, Gateway::Json | Gateway::Ayame),
        sources: Sources::networks(exempt(config)),
        vocabulary: vocabulary(gateway),
    }
}

fn signaling_limits(signaling: &Signaling, gateway: Gateway) -> gateway::Limits {
    let bursts = match gateway {
        Gateway::PeerJs | Gateway::PubSub => MESH_BURST,
        Gateway::Json | Gateway::SocketIo | Gateway::Ayame => 1,
    };
    gateway::Limits {
        message_bytes: signaling.message_bytes.get(),
        messages: rate(signaling.limits.messages.get(), signaling.limits.message_burst.get() * bursts),
        bad_frames: signaling.limits.bad_frames.get(),
        sign_in_within: signaling.sign_in_within.get(),
        ping_every: signaling.ping_every.get(),
        gone_after: signaling.gone_after.get(),
    }
}

/// What a gateway has words for, besides signals and that somebody leaves.
const fn vocabulary(gateway: Gateway) -> Vocabulary {
    let calls = Vocabulary { data: false, presence: false, undelivered: false };
    match gateway {
        Gateway::Json => calls,
        Gateway::SocketIo | Gateway::PubSub => Vocabulary { data: true, ..calls },
        Gateway::PeerJs => Vocabulary { data: true, undelivered: true, ..calls },
        Gateway::Ayame => Vocabulary { presence: true, ..calls },
    }
}
