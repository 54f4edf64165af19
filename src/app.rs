//! Starts the parts in order, and stops them.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::Once;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::Prefix;
use crate::address::Sources;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::Signaling;
use crate::config::value::CredentialMode;
use crate::config::value::Listen;
use crate::config::value::PeerMode;
use crate::config::value::TlsMode;
use crate::credentials;
use crate::credentials::Credentials;
use crate::gateway;
use crate::logging::Redacted;
use crate::metrics::Metrics;
use crate::net::demux;
use crate::net::demux::Closed;
use crate::net::demux::Protocol;
use crate::net::host;
use crate::net::listen;
use crate::net::listen::ListenError;
use crate::net::proxy::Balancers;
use crate::net::tls;
use crate::net::tls::TlsError;
use crate::places;
use crate::places::Place;
use crate::places::Places;
use crate::rate::Rate;
use crate::relay::stream::Streams;
use crate::signaling::hub::Hub;
use crate::signaling::ice;
use crate::signaling::mailbox::Capacity;
use crate::signaling::session::Sessions;
use crate::volume;
use crate::web;
use crate::web::admin;
use crate::web::forwarded::Proxies;
use crate::web::serve::Service;
use crate::web::socket;

use self::usage::Keeper;

mod turn;
mod usage;

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on: the operator can cure it.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate can't be used: the operator can cure it.
    #[error(transparent)]
    Tls(TlsError),
    /// No certificate can be made: a failure of ours.
    #[error(transparent)]
    Certificate(TlsError),
    /// There is no media thread: a failure of ours.
    #[error("cannot start relaying: {0}")]
    Relay(std::io::Error),
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        if matches!(error, TlsError::Make(_)) { Self::Certificate(error) } else { Self::Tls(error) }
    }
}

/// What a socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// The web side over TLS, and TURN.
    Https,
    /// The same without TLS.
    Http,
    /// Counters.
    Metrics,
    /// STUN and TURN over UDP.
    Turn,
    /// TURN over TCP and TLS.
    TurnTcp,
    /// TURN over TLS.
    TurnTls,
}

impl fmt::Display for Serves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Https => "https, wss, turns, turn",
            Self::Http => "http, ws, turn",
            Self::Metrics => "metrics",
            Self::Turn => "stun, turn",
            Self::TurnTcp => "turn, turns",
            Self::TurnTls => "turns",
        })
    }
}

/// One socket that is served, for people to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// Its address, with the real port.
    pub addr: SocketAddr,
    /// What it serves.
    pub serves: Serves,
}

/// The running server.
pub struct App {
    listening: Vec<Listening>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What every listener of streams needs.
#[derive(Clone)]
struct Front {
    half_open: Arc<Places>,
    http: Arc<Places>,
    balancers: Arc<Balancers>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: TaskTracker,
    clock: Clock,
}

/// What one listener of streams does with what it finds.
#[derive(Clone)]
struct Role {
    /// None: TLS is not spoken.
    tls: Option<Arc<ServerConfig>>,
    inside_tls: Speaks,
    clear: Speaks,
}

/// What is spoken, in clear or inside TLS; what isn't, is closed.
#[derive(Clone, Default)]
struct Speaks {
    http: Option<Service>,
    turn: Option<Arc<Streams>>,
}

/// How long the parts may take to end.
const END_WITHIN: Duration = Duration::from_millis(1500);

/// How many seconds' worth of sign-ins a source may have at once: behind one address, an office reconnects together.
const SIGN_IN_BURST: f64 = 4.0;
/// How many WebSockets may be open at once: what a small host can carry.
const MAX_WEBSOCKETS: u32 = 50_000;
/// The longest realm with which a refusal stays short beside the request that it answers: 2.3 times 28 bytes.
const SHORT_REALM: usize = 12;

impl App {
    /// Starts everything that `config` asks for; certificates and what was relayed are kept under `state`.
    ///
    /// # Errors
    ///
    /// [`StartError`], for the first thing that stands in the way. Nothing is left running then.
    pub async fn start(config: &Config, state: &Path) -> Result<Self, StartError> {
        let clock = Clock::system();
        if let Some(files) = host::raise_file_limit() {
            tracing::debug!(files, "raised the limit of open files");
        }
        let certificate = certificate(config, state, clock)?;
        let https = bind_tcp(&config.http.listen, "http.listen")?;
        let http = bind_tcp(&config.http.plain_listen, "http.plain_listen")?;
        let scraped = bind_tcp(&config.metrics.listen, "metrics.listen")?;
        let turn_tcp = bind_tcp(&config.turn.listen_tcp, "turn.listen_tcp")?;
        let turn_tls = bind_tcp(&config.turn.listen_tls, "turn.listen_tls")?;
        relay_addresses_are_ours(config)?;
        let udp = turn::bind(config)?;
        if config.turn.realm.len() > SHORT_REALM {
            tracing::warn!("turn.realm has more than {SHORT_REALM} bytes: strangers can have more sent than they send");
        }

        let metrics = Arc::new(Metrics::default());
        let credentials = Arc::new(Credentials::new(credential_settings(config)));
        let limits = &config.limits;
        let proxies = trusted_proxies(config);
        // A proxy's connections carry many clients' requests: none of them is one source's.
        let uncounted = [exempt(config), proxies.clone()].concat();
        let front = Front {
            half_open: places(limits.half_open.get(), limits.half_open_per_source.get(), uncounted.clone()),
            http: places(limits.http.get(), limits.http_per_source.get(), uncounted),
            balancers: Arc::new(balancers(config)),
            metrics: Arc::clone(&metrics),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            clock,
        };
        let mut app = Self { listening: Vec::new(), stop: front.stop.clone(), tasks: front.tasks.clone() };

        app.listening.extend(udp.listening());
        let served = ice::Served {
            public_host: config.public_host.as_str().to_owned(),
            udp_port: udp.first().map(|addr| addr.port()),
            tcp_port: first_port([&turn_tcp, &https]),
            // Browsers take no `turns` with a certificate that they can't verify.
            tls_port: first_port([&https, &turn_tls, &turn_tcp]).filter(|_| config.tls.mode == TlsMode::Files),
            replaced: (!config.turn.ice_servers.is_empty()).then(|| config.turn.ice_servers.clone().into()),
        };
        let tcp_ports =
            [&https, &http, &turn_tcp, &turn_tls, &scraped].into_iter().flatten().map(|(_, addr)| addr.port());
        let first = udp.first();
        let keeper = Keeper::load(state, volume_limits(config), clock.now());
        let volume = keeper.volume();
        front.tasks.spawn(keeper.run(clock, front.stop.clone()));
        let streams = udp
            .serve(config, Arc::clone(&credentials), Arc::clone(&metrics), volume, tcp_ports, &front)
            .map_err(StartError::Relay)?;

        let routes = routes(config, served, Arc::clone(&credentials), &metrics, &front);

        let routes = Service::Routes(routes, Arc::new(Proxies::new(proxies)));
        let speaks = |http, turn| Speaks { http, turn };
        let (tls, turn) = (Some(certificate), Some(streams));
        let secure = Role {
            tls: tls.clone(),
            inside_tls: speaks(Some(routes.clone()), turn.clone()),
            clear: speaks(Some(Service::Redirect), turn.clone()),
        };
        let plain = Role::clear(speaks(Some(routes), turn.clone()));
        let turns = Role { tls: tls.clone(), inside_tls: speaks(None, turn.clone()), clear: Speaks::default() };
        let both = Role { clear: speaks(Some(Service::Refuse), turn), ..turns.clone() };
        let scrape = Service::Routes(web::metrics_router(metrics), Arc::default());
        let scrape = Role::clear(speaks(Some(scrape), None));
        let served = [
            (https, secure, Serves::Https),
            (http, plain, Serves::Http),
            (turn_tcp, both, Serves::TurnTcp),
            (turn_tls, turns, Serves::TurnTls),
            (scraped, scrape, Serves::Metrics),
        ];
        for (listeners, role, serves) in served {
            for (listener, addr) in listeners {
                app.listening.push(Listening { transport: "tcp", addr, serves });
                let mut front = front.clone();
                if serves == Serves::Metrics {
                    // Whoever scrapes does so directly, from the very machine of a load balancer too.
                    front.balancers = Arc::default();
                }
                front.serve(listener, role.clone());
            }
        }
        if let Some(listener) = first {
            turn::self_test(listener, &config.turn.realm, &credentials, clock).await;
        }
        Ok(app)
    }

    /// Stops taking connections, lets what runs finish, and returns within two seconds whatever happens.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(END_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::info!(tasks = self.tasks.len(), "left running at the end");
        }
    }

    /// Waits until a part has ended that the others can't do without.
    pub async fn failed(&self) {
        self.stop.cancelled().await;
    }

    /// Every socket served.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }
}

impl Front {
    /// Accepts from `listener` until the end.
    fn serve(self, listener: TcpListener, role: Role) {
        let (front, half_open) = (self.clone(), Arc::clone(&self.half_open));
        let accepting = listen::accept(listener, half_open, Arc::clone(&self.balancers), self.stop.clone(), {
            move |arrival| {
                let (front, role) = (front.clone(), role.clone());
                front.tasks.clone().spawn(async move {
                    let opening = demux::open(arrival, &front.balancers, role.tls.clone());
                    match front.stop.run_until_cancelled(opening).await {
                        Some(Ok((opened, place))) => role.take(opened, place, front.http, &front.stop).await,
                        Some(Err(closed)) => front.note(&closed),
                        None => (),
                    }
                });
            }
        });
        self.tasks.spawn(accepting);
    }

    fn note(&self, closed: &Closed) {
        tracing::debug!(%closed, "a connection ended before it said what it speaks");
        if let Closed::Unannounced(why) = closed {
            self.metrics.unannounced.increment();
            UNANNOUNCED.call_once(|| {
                tracing::warn!("closed a connection from an address in http.proxy_protocol: {why}; said once");
            });
        }
    }
}

/// Only a load balancer's operator can cure it, and a balancer checks often.
static UNANNOUNCED: Once = Once::new();

impl Role {
    /// Without TLS.
    fn clear(clear: Speaks) -> Self {
        Self { tls: None, inside_tls: Speaks::default(), clear }
    }

    async fn take(self, opened: demux::Opened, half_open: Place, http: Arc<Places>, stop: &CancellationToken) {
        let (remote, protocol, tls) = (Redacted(opened.remote), opened.protocol, opened.tls);
        let speaks = if tls { self.inside_tls } else { self.clear };
        match (protocol, speaks) {
            (Protocol::Http, Speaks { http: Some(service), .. }) => {
                web::serve::serve(opened, service, half_open, http, stop.clone()).await;
            }
            (Protocol::Turn, Speaks { turn: Some(streams), .. }) => match streams.enter(opened.remote.ip()) {
                Ok(place) => {
                    drop(half_open);
                    stop.run_until_cancelled(streams.serve(opened, place)).await;
                }
                Err(refused) => tracing::debug!(%remote, %refused, "closed a TURN stream, see turn.limits"),
            },
            (Protocol::Http | Protocol::Tls | Protocol::Turn | Protocol::Unknown, _) => {
                tracing::debug!(%remote, ?protocol, tls, "closed a connection: not spoken here");
            }
        }
    }
}

/// Signaling, and everything that the web side serves of it.
fn routes(
    config: &Config,
    served: ice::Served,
    credentials: Arc<Credentials>,
    metrics: &Arc<Metrics>,
    front: &Front,
) -> Router {
    let limits = &config.signaling.limits;
    let sign_ins = limits.sign_ins.get();
    let sign_ins = Rate { per_second: sign_ins, burst: sign_ins * SIGN_IN_BURST };
    let hub = Hub::new(sign_ins, exempt(config), Arc::clone(metrics));
    let sessions = Arc::new(Sessions::new(hub, credentials, served));
    let token = config.admin.token.reveal().map(str::to_owned);
    let admin = token.map(|token| admin::State::new(token, exempt(config), Arc::clone(&sessions), front.clock));
    let gateway = gateway::Context {
        sessions,
        limits: signaling_limits(&config.signaling),
        metrics: Arc::clone(metrics),
        clock: front.clock,
        shutdown: front.stop.clone(),
    };
    let origins = socket::Origins {
        names: own_names(config).collect(),
        addresses: own_addresses(config).collect(),
        allowed: config.http.allowed_origins.iter().map(|origin| origin.as_str().to_owned()).collect(),
        required: config.http.require_origin,
    };
    let connections = places(MAX_WEBSOCKETS, limits.connections_per_source.get(), exempt(config));
    web::router(socket::State::new(origins, connections, Arc::new(gateway), front.tasks.clone()), admin)
}

fn signaling_limits(signaling: &Signaling) -> gateway::Limits {
    gateway::Limits {
        message_bytes: signaling.message_bytes.get(),
        messages: Rate {
            per_second: signaling.limits.messages.get(),
            burst: f64::from(signaling.limits.message_burst.get()),
        },
        bad_frames: signaling.limits.bad_frames.get(),
        queue: Capacity { messages: count(signaling.queue_messages.get()), bytes: signaling.queue_bytes.get() },
        sign_in_within: signaling.sign_in_within.get(),
        ping_every: signaling.ping_every.get(),
        gone_after: signaling.gone_after.get(),
    }
}

fn certificate(config: &Config, state: &Path, clock: Clock) -> Result<Arc<ServerConfig>, TlsError> {
    let pair = match config.tls.mode {
        TlsMode::Files => tls::Pair::from_files(&config.tls.certificate, &config.tls.key)?,
        TlsMode::SelfSigned | TlsMode::Acme => {
            tls::Pair::self_signed(&state.join("certs"), &names(config), clock.now())?
        }
    };
    if !pair.is_current(clock.now()) {
        tracing::warn!("the certificate has expired or is not yet valid: browsers will refuse it");
    }
    pair.into_server_config()
}

/// Every name and address that a browser may reach this machine by.
fn names(config: &Config) -> Vec<String> {
    let addresses = own_addresses(config).filter(|ip| !host::is_link_local(*ip));
    let mut names: Vec<_> = own_names(config).chain(addresses.map(|ip| ip.to_string())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What this machine is called, in lower case.
fn own_names(config: &Config) -> impl Iterator<Item = String> {
    let machine = host::name().map(|name| name.to_ascii_lowercase());
    let public = config.public_host.as_str().to_owned();
    ["localhost".to_owned(), public].into_iter().chain(machine).filter(|name| !name.is_empty() && name.is_ascii())
}

fn balancers(config: &Config) -> Balancers {
    Balancers {
        from: config.http.proxy_protocol.iter().map(|network| network.0).collect(),
        host: host::addresses().into_iter().map(|ip| ip.to_canonical()).collect(),
    }
}

/// The addresses of this machine, and those that the world knows it by; canonical.
fn own_addresses(config: &Config) -> impl Iterator<Item = IpAddr> {
    let external = config.turn.external_ip.iter().map(|external| external.external);
    host::addresses().into_iter().map(|ip| ip.to_canonical()).chain(external)
}

/// Makes sure that `turn.relay_ip` names addresses of this machine, before a client has to find out.
fn relay_addresses_are_ours(config: &Config) -> Result<(), ListenError> {
    for addr in config.turn.relay_ip.iter().map(|ip| SocketAddr::new(ip.0, 0)) {
        let key = "turn.relay_ip";
        UdpSocket::bind(addr).map_err(|error| ListenError { transport: "udp", addr, key, error })?;
    }
    Ok(())
}

fn bind_tcp(addresses: &[Listen], key: &'static str) -> Result<Vec<(TcpListener, SocketAddr)>, ListenError> {
    let mut bound = Vec::new();
    for Listen(addr) in addresses.iter().copied() {
        bound.extend(listen::tcp(addr, key)?);
    }
    Ok(bound)
}

/// The port of the first listener there is.
fn first_port<const N: usize>(lists: [&Vec<(TcpListener, SocketAddr)>; N]) -> Option<u16> {
    lists.into_iter().flatten().next().map(|(_, addr)| addr.port())
}

fn volume_limits(config: &Config) -> volume::Limits {
    let limit = |bytes: usize| (bytes > 0).then_some(bytes as u64);
    let limits = &config.turn.limits;
    volume::Limits { day: limit(limits.bytes_per_day.get()), month: limit(limits.bytes_per_month.get()) }
}

fn credential_settings(config: &Config) -> credentials::Settings {
    credentials::Settings {
        secrets: config.turn.secrets.iter().map(|secret| secret.reveal().to_owned()).collect(),
        users: config.turn.users.iter().map(|(name, password)| (name.clone(), password.reveal().to_owned())).collect(),
        mode: match config.turn.credentials {
            CredentialMode::Ttl => credentials::Mode::Ttl,
            CredentialMode::Session => credentials::Mode::Session,
        },
        expired_grace: config.turn.expired_grace.get(),
        signaled_peers: match config.turn.peers.mode {
            PeerMode::Any => false,
            PeerMode::Signaled => true,
        },
    }
}

fn places(total: u32, per_source: u32, exempt: Vec<Prefix>) -> Arc<Places> {
    let sources = Sources::new(exempt);
    Places::new(places::Settings { total: count(total), per_source: count(per_source), sources })
}

fn count(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// HTTP proxies whose word counts for whom a request comes from.
fn trusted_proxies(config: &Config) -> Vec<Prefix> {
    config.http.trusted_proxies.iter().map(|network| network.0).collect()
}

/// Sources that no per-source limit counts.
fn exempt(config: &Config) -> Vec<Prefix> {
    config.limits.exempt.iter().map(|network| network.0).collect()
}
