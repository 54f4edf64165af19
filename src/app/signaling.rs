//! Signaling: a name space for each group of gateways, who may sign in to them, and everything that the web side serves of
//! them.

use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;

use super::Shared;
use super::count;
use super::exempt;
use super::own_addresses;
use super::own_names;
use super::places_for;
use super::rate;
use crate::address::Sources;
use crate::config;
use crate::config::Config;
use crate::gateway;
use crate::live::Live;
use crate::metrics::Gateway;
use crate::metrics::PlaceOf;
use crate::places;
use crate::places::Places;
use crate::signaling::accounts::Accounts;
use crate::signaling::accounts::Proof;
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

/// Signaling, as far as a reload changes it.
pub(super) struct Signaling {
    accounts: Arc<Accounts>,
    served: Live<ice::Served>,
    gateways: Vec<Arc<gateway::Context>>,
    admin: admin::State,
    origins: Live<socket::Origins>,
    connections: Arc<Places>,
    waiting: Arc<Places>,
}

/// Signaling, and everything that the web side serves of it; with what can be told of the server, of signaling as of the
/// `parts` that there are already.
pub(super) fn open(
    config: &Config,
    accounts: Accounts,
    served: ice::Served,
    mut parts: Parts,
    shared: &Shared,
) -> (Router, Overview, Signaling) {
    let (accounts, served) = (Arc::new(accounts), Live::new(served));
    let waiting = Places::new(waiting(config));
    let spaces = Spaces { config, accounts: &accounts, served: &served, waiting: &waiting, shared };
    let all = gateway::Gateways {
        json: spaces.open(Gateway::Json),
        socketio: spaces.open(Gateway::SocketIo),
        peerjs: spaces.open(Gateway::PeerJs),
        pubsub: spaces.open(Gateway::PubSub),
        ayame: spaces.open(Gateway::Ayame),
    };
    let gateways: Vec<_> = all.all().cloned().collect();
    let (origins, connections) = (Live::new(origins(config)), Places::new(connections(config)));
    parts.gateways.clone_from(&gateways);
    parts.places.push((PlaceOf::WebSocket, Arc::clone(&connections)));
    let (status, commanded) = (parts.turn.clone(), gateways.clone());
    let overview = Overview::new(parts);
    let admin = admin::State::new(token(config), exempt(config), commanded, status, overview.clone(), shared.clock);
    let sockets = socket::State::new(origins.clone(), Arc::clone(&connections), all, shared.tasks.clone());
    let router = web::router(sockets, admin.clone());
    (router, overview, Signaling { accounts, served, gateways, admin, origins, connections, waiting })
}

impl Signaling {
    /// Has another configuration hold; `proof` is what it asks of who signs in. Clients that are told so by themselves get
    /// other ICE servers at once, if theirs are `stale`.
    pub(super) fn configure(&self, config: &Config, proof: Proof, stale: bool) {
        self.accounts.configure(proof, accounts::sign_ins(config), exempt(config));
        let public_host = config.public_host.as_str().to_owned();
        let served = ice::Served { public_host, replaced: replaced(config), ..(*self.served.get()).clone() };
        self.served.set(served);
        self.origins.set(origins(config));
        self.connections.configure(connections(config));
        self.waiting.configure(waiting(config));
        self.admin.configure(token(config), exempt(config));
        for context in &self.gateways {
            context.sessions.configure(hub_settings(config, context.gateway));
            // Whom it changes nothing for isn't woken.
            context.rules.send_if_modified(|in_force| {
                let rules = rules(config, context.gateway, in_force.ice + u64::from(stale));
                std::mem::replace(in_force, rules) != rules
            });
        }
    }
}

/// What all name spaces have in common.
struct Spaces<'a> {
    config: &'a Config,
    accounts: &'a Arc<Accounts>,
    served: &'a Live<ice::Served>,
    waiting: &'a Arc<Places>,
    shared: &'a Shared,
}

impl Spaces<'_> {
    /// One more, with nobody in it.
    fn open(&self, gateway: Gateway) -> Arc<gateway::Context> {
        let Self { config, accounts, served, waiting, shared } = *self;
        let hub = Hub::new(hub_settings(config, gateway), Arc::clone(&shared.credentials), Arc::clone(&shared.metrics));
        let hub = match gateway {
            Gateway::PeerJs => hub.patient(Arc::clone(waiting)),
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
            rules: watch::Sender::new(rules(config, gateway, 0)),
            metrics: Arc::clone(&shared.metrics),
            clock: shared.clock,
            shutdown: shared.stop.clone(),
        })
    }
}

/// `turn.ice_servers`, if there are any.
pub(super) fn replaced(config: &Config) -> Option<serde_json::Value> {
    let servers = &config.turn.ice_servers;
    (!servers.is_empty()).then(|| servers.iter().map(|server| server.reveal().clone()).collect())
}

fn token(config: &Config) -> Option<String> {
    config.admin.token.reveal().map(str::to_owned)
}

fn origins(config: &Config) -> socket::Origins {
    socket::Origins {
        names: own_names(config).collect(),
        addresses: own_addresses(config).collect(),
        allowed: config.http.allowed_origins.iter().map(|origin| origin.as_str().to_owned()).collect(),
        required: config.http.require_origin,
    }
}

fn connections(config: &Config) -> places::Settings {
    places_for(MAX_WEBSOCKETS, config.signaling.limits.connections_per_source.get(), exempt(config))
}

fn waiting(config: &Config) -> places::Settings {
    places_for(MAX_WAITING, WAITING_PER_SOURCE, exempt(config))
}

fn rules(config: &Config, gateway: Gateway, ice: u64) -> gateway::Rules {
    let on = &config.signaling.gateways;
    let is_on = match gateway {
        Gateway::Json => true,
        Gateway::SocketIo => on.socketio,
        Gateway::PeerJs => on.peerjs,
        Gateway::PubSub => on.pubsub,
        Gateway::Ayame => on.ayame,
    };
    gateway::Rules { is_on, limits: signaling_limits(&config.signaling, gateway), ice }
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

fn signaling_limits(signaling: &config::Signaling, gateway: Gateway) -> gateway::Limits {
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
