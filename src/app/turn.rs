//! Starts STUN and TURN: the UDP sockets, media threads with a control task each, what serves streams, and the proof
//! that together they relay.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Listening;
use super::Serves;
use super::Shared;
use super::StartError;
use super::count;
use super::exempt;
use super::own_addresses;
use super::places_for;
use super::prefixes;
use super::rate;
use super::volume_limits;
use crate::address::Sources;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::MOST_SHARDS;
use crate::config::value::Listen;
use crate::credentials::Credentials;
use crate::net::host;
use crate::net::listen;
use crate::net::notify;
use crate::net::udp::Offload;
use crate::net::udp::Socket;
use crate::places;
use crate::places::Places;
use crate::policy;
use crate::policy::Policy;
use crate::rate::PerSource;
use crate::rate::Rate;
use crate::rate::SharedBucket;
use crate::relay::allowance::Allowance;
use crate::relay::rules::Rules;
use crate::relay::shard;
use crate::relay::shard::Command;
use crate::relay::shard::CommandSender;
use crate::relay::shard::Pulse;
use crate::relay::stream::Home;
use crate::relay::stream::Streams;
use crate::turn;
use crate::turn::Pool;
use crate::turn::Processor;
use crate::turn::probe;
use crate::turn::status::Status;
use crate::volume::Volume;

/// Streams that speak TURN, in all.
const MAX_STREAMS: u32 = 16_384;
/// Requests that wait for the control plane; beyond, the shard drops and counts them.
const REQUESTS_QUEUED: usize = 1024;
/// Requests of streams that wait for it; beyond, the streams wait.
const ASKS_QUEUED: usize = 256;
/// How many bursts of data make a second's worth of bandwidth.
const BURSTS: u64 = 4;
/// A burst at least, in bytes: the largest datagram there is gets through.
const SMALLEST_BURST: u64 = 64 << 10;
/// Whom the start-up test counts for.
const SELF_TEST: [&str; 2] = ["self-test-1", "self-test-2"];

/// Bound listeners of STUN and TURN over UDP, not served yet: those of each shard, in the same order.
pub(super) struct Bound(Vec<Vec<Socket>>);

/// Binds as [`bind_now`] does. While another process still has a port, it waits if this one `takes_over` from it: both would
/// get some of each other's clients. The other may drain for as long as this one would, and some.
///
/// # Errors
///
/// [`StartError`], for the first address that can't be had.
pub(super) async fn bind(config: &Config, takes_over: bool, clock: Clock) -> Result<Bound, StartError> {
    let until = clock.now().monotonic + config.shutdown.drain.get() + SPARE;
    let mut waits = false;
    loop {
        match bind_now(config) {
            Err(StartError::Listen(taken))
                if takes_over && taken.error.kind() == ErrorKind::AddrInUse && clock.now().monotonic < until =>
            {
                if !std::mem::replace(&mut waits, true) {
                    tracing::info!("waits until udp {} is free: the process before this one has it", taken.addr);
                    notify::status("waiting for the UDP ports of the process before this one");
                }
                notify::extend(SPARE);
                tokio::time::sleep(TRY_EVERY).await;
            }
            bound => return bound,
        }
    }
}

/// How much longer than it would drain itself a process waits for the one before it.
const SPARE: Duration = Duration::from_secs(30);
/// How often it tries.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Binds `turn.listen_udp`, and makes sure that `turn.relay_ip` names addresses of this machine, before a client has to
/// find out.
///
/// # Errors
///
/// [`StartError`], for the first address that can't be had.
fn bind_now(config: &Config) -> Result<Bound, StartError> {
    for ip in config.turn.relay_ip.iter().map(|ip| ip.0) {
        UdpSocket::bind((ip, 0)).map_err(|error| StartError::RelayIp { ip, error })?;
    }
    let mut shards: Vec<_> = std::iter::repeat_with(Vec::new).take(shards(config)).collect();
    for Listen(addr) in config.turn.listen_udp.iter().copied() {
        for sockets in listen::udp(addr, "turn.listen_udp", shards.len())? {
            shards.iter_mut().zip(sockets).for_each(|(shard, socket)| shard.push(socket));
        }
    }
    Ok(Bound(shards))
}

/// How many media threads there are.
fn shards(config: &Config) -> usize {
    match count(config.turn.shards.get()) {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get).min(count(MOST_SHARDS)),
        shards => shards,
    }
}

impl Bound {
    /// The first listener: the start-up test asks it.
    pub(super) fn first(&self) -> Option<SocketAddr> {
        self.sockets().next().map(Socket::local_addr)
    }

    /// The ports that whoever reaches the first listener reaches too, each once, in the order of `turn.listen_udp`:
    /// `iceServers` names the first one. What listens on another address is nobody's business.
    pub(super) fn ports(&self) -> Vec<u16> {
        let first = self.first().map(|addr| addr.ip());
        let mut ports = Vec::new();
        for addr in self.sockets().map(Socket::local_addr) {
            let is_reached_alike = addr.ip().is_unspecified() || Some(addr.ip()) == first;
            if is_reached_alike && !ports.contains(&addr.port()) {
                ports.push(addr.port());
            }
        }
        ports
    }

    /// Every one of them, for people to read.
    pub(super) fn listening(&self) -> impl Iterator<Item = Listening> {
        self.sockets().map(|socket| Listening { transport: "udp", addr: socket.local_addr(), serves: Serves::Turn })
    }

    /// Serves them until the end. `tcp_ports` are those that this process listens on besides.
    ///
    /// # Errors
    ///
    /// The system's, for lack of threads or descriptors.
    pub(super) fn serve(
        self,
        config: &Config,
        shared: &Shared,
        volume: Arc<Volume>,
        tcp_ports: impl Iterator<Item = u16>,
    ) -> std::io::Result<Relay> {
        let Shared { credentials, metrics, clock, draining, stop, tasks, .. } = shared.clone();
        let ports: HashSet<_> = self.sockets().map(|socket| socket.local_addr().port()).chain(tcp_ports).collect();
        let policy = Arc::new(Policy::new(policy_settings(config, ports.clone())));
        let allowance = allowance(config, Arc::clone(&volume), clock);
        let of_turn = turn_settings(config, Arc::clone(&volume), draining);
        let (bind, counts) = (Box::new(Socket::bind), Arc::clone(&metrics));
        let pool = Arc::new(Pool::new(of_turn, credentials, Arc::clone(&policy), counts, bind));
        let offload = offload(config)?;
        let settings = |listeners| {
            let (events, asked) = mpsc::channel(REQUESTS_QUEUED);
            let (policy, metrics, allowance) = (Arc::clone(&policy), Arc::clone(&metrics), allowance.clone());
            let bindings = PerSource::new(bindings(config), Sources::networks(exempt(config)));
            let observer = None;
            let of_shard =
                shard::Settings { listeners, policy, metrics, clock, bindings, allowance, offload, observer, events };
            (of_shard, asked)
        };
        let (settings, asked): (Vec<_>, Vec<_>) = self.0.into_iter().map(settings).unzip();
        let (mut homes, mut pulses, mut shards, mut status) = (Vec::new(), Vec::new(), Vec::new(), Status::default());
        for (shard, asked) in shard::spawn(settings)?.into_iter().zip(asked) {
            let (control, asked_by_streams) = mpsc::channel(ASKS_QUEUED);
            pulses.push(shard.pulse());
            homes.push(Home { shard: shard.streams(), control });
            shards.push(shard.commands());
            let (processor, queries, stop) = (Processor::new(Arc::clone(&pool)), status.add(), stop.clone());
            tasks.spawn(async move {
                // Without its relay the process must not go on: whichever plane ends first, even by a panic, ends it all.
                let _all = stop.clone().drop_guard();
                let commands = shard.commands();
                let send = |command| commands.send(command);
                turn::run(processor, asked, asked_by_streams, queries, send, clock, stop.clone()).await;
                if !stop.is_cancelled() {
                    tracing::error!("a media thread has ended: stopping");
                }
                shard.stop();
            });
        }
        let places = Places::new(stream_places(config));
        let streams = Arc::new(Streams::new(homes, Arc::clone(&places), metrics, clock));
        Ok(Relay { streams, status, pulses, pool, shards, places, policy, allowance, volume, ports })
    }

    /// One of each address.
    fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.0.iter().take(1).flatten()
    }
}

/// STUN and TURN, served.
pub(super) struct Relay {
    /// Serves TURN on streams.
    pub(super) streams: Arc<Streams>,
    /// The way to ask what there is.
    pub(super) status: Status,
    /// What tells of each media thread whether it turns.
    pub(super) pulses: Vec<Pulse>,
    pool: Arc<Pool<Socket>>,
    shards: Vec<CommandSender>,
    places: Arc<Places>,
    policy: Arc<Policy>,
    allowance: Allowance,
    volume: Arc<Volume>,
    /// Those that this process listens on.
    ports: HashSet<u16>,
}

impl Relay {
    /// Has `config` hold instead of `earlier`, for what is open already too: when this returns, nobody has what it forbids.
    pub(super) async fn configure(&mut self, earlier: &Config, config: &Config, clock: Clock) {
        self.places.configure(stream_places(config));
        self.volume.configure(volume_limits(config));
        let bandwidth = |config: &Config| (config.turn.limits.bandwidth, config.turn.limits.bandwidth_per_allocation);
        // Another bucket of all would be a full one.
        if bandwidth(earlier) != bandwidth(config) {
            self.allowance = allowance(config, Arc::clone(&self.volume), clock);
        }
        let policy = policy_settings(config, self.ports.clone());
        if policy != *self.policy.settings() {
            self.policy = Arc::new(Policy::new(policy));
        }
        for shard in &self.shards {
            let rules = Rules {
                policy: Arc::clone(&self.policy),
                bindings: bindings(config),
                sources: Sources::networks(exempt(config)),
                allowance: self.allowance.clone(),
            };
            // One that has ended ends the process.
            let _ = shard.send(Command::Configure(Box::new(rules))).await;
        }
        self.pool.configure(turn_limits(config, Arc::clone(&self.volume)), Arc::clone(&self.policy)).await;
    }
}

fn stream_places(config: &Config) -> places::Settings {
    places_for(MAX_STREAMS, config.turn.limits.connections_per_source.get(), exempt(config))
}

/// Relays through ourselves, as two clients would, and says how it went.
pub(super) async fn self_test(listener: SocketAddr, realm: &str, credentials: &Credentials, clock: Clock) {
    let server = match listener.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listener.port()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), listener.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => listener,
    };
    let now = clock.now();
    let pair = SELF_TEST.map(|name| credentials.mint_for(name, now));
    match probe::round_trip(server, realm, &pair, clock).await {
        Ok(took) => tracing::info!(round_trip = ?took, "the relay works: tested with two clients of our own"),
        Err(failed) => tracing::warn!("the relay does not work: {failed}"),
    }
}

fn bindings(config: &Config) -> Rate {
    let bindings = config.turn.limits.bindings.get();
    Rate { per_second: bindings, burst: bindings }
}

/// What the kernel is to do for runs of datagrams, and can; says once if it can't.
fn offload(config: &Config) -> std::io::Result<Offload> {
    let (Offload { gso, gro }, turn) = (Offload::of_this_kernel()?, &config.turn);
    if (turn.gso && !gso) || (turn.gro && !gro) {
        tracing::info!(
            gso,
            gro,
            "this kernel can't join or cut runs of datagrams (Linux 5.0 can): relaying takes more CPU"
        );
    }
    Ok(Offload { gso: gso && turn.gso, gro: gro && turn.gro })
}

fn allowance(config: &Config, volume: Arc<Volume>, clock: Clock) -> Allowance {
    let limits = &config.turn.limits;
    let burst = |per_second: u64| (per_second / BURSTS).max(SMALLEST_BURST);
    let rate = |per_second: u64| Rate { per_second: per_second as f64, burst: burst(per_second) as f64 };
    let total = |per_second| Arc::new(SharedBucket::new(per_second, burst(per_second), clock.now().monotonic));
    Allowance {
        per_allocation: limits.bandwidth_per_allocation.get().map(rate),
        total: limits.bandwidth.get().map(total),
        volume,
    }
}

fn policy_settings(config: &Config, listening_ports: HashSet<u16>) -> policy::Settings {
    policy::Settings {
        allow: prefixes(&config.turn.peers.allow),
        deny: prefixes(&config.turn.peers.deny),
        host: own_addresses(config).collect(),
        listening_ports,
    }
}

fn turn_limits(config: &Config, volume: Arc<Volume>) -> turn::Limits {
    let limits = &config.turn.limits;
    turn::Limits {
        allocations_per_member: count(limits.allocations_per_member.get()),
        allocations_per_source: count(limits.allocations_per_source.get()),
        permissions: count(limits.permissions_per_allocation.get()),
        channels: count(limits.channels_per_allocation.get()),
        new_peers: rate(limits.new_peers.get(), limits.new_peer_burst.get()),
        challenges: rate(limits.challenges.get(), limits.challenge_burst.get()),
        exempt: exempt(config),
        volume,
    }
}

fn turn_settings(config: &Config, volume: Arc<Volume>, draining: CancellationToken) -> turn::Settings {
    turn::Settings {
        realm: config.turn.realm.clone(),
        relay_ip: config.turn.relay_ip.iter().map(|ip| ip.0).collect(),
        routed: host::routed_addresses(),
        relay_ports: config.turn.relay_ports.first..=config.turn.relay_ports.last,
        external_ip: config
            .turn
            .external_ip
            .iter()
            .map(|entry| turn::ExternalIp { external: entry.external, local: entry.local })
            .collect(),
        limits: turn_limits(config, volume),
        draining,
    }
}
