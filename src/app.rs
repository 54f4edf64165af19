//! Starts the parts in order, and stops them.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::Prefix;
use crate::address::Sources;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::SHORT_REALM;
use crate::config::value::CredentialMode;
use crate::config::value::Network;
use crate::config::value::PeerMode;
use crate::config::value::TlsMode;
use crate::credentials;
use crate::credentials::Credentials;
use crate::metrics::Metrics;
use crate::metrics::PlaceOf;
use crate::net::host;
use crate::net::inherited::InheritError;
use crate::net::inherited::Inherited;
use crate::net::listen::ListenError;
use crate::net::notify;
use crate::net::tls::CertificateInfo;
use crate::net::tls::Certificates;
use crate::net::tls::TlsError;
use crate::places;
use crate::rate::Rate;
use crate::relay::shard::Pulse;
use crate::signaling::ice;
use crate::turn::status::Status;
use crate::volume;
use crate::web::serve::Service;
use crate::web::status;
use crate::web::status::Overview;

use self::certificates::Certifier;
use self::front::Front;
use self::front::Listeners;
use self::reload::Parts;
use self::scribe::Scribe;
use self::signaling::accounts::AccountsError;
use self::usage::Keeper;

mod certificates;
pub mod control;
mod drain;
mod front;
pub mod offer;
mod reload;
mod scribe;
mod signaling;
mod turn;
mod usage;
mod watchdog;

pub use self::control::Control;
pub use self::reload::ReloadError;
pub use self::reload::Reloaded;
pub use self::reload::Request;
pub(crate) use self::reload::log_as;
pub(crate) use self::reload::warn_of_open_accounts;

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on: the operator can cure it.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What systemd has handed over can't be used: the operator can cure it.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// Relay sockets can't be bound where the configuration says: the operator can cure it.
    #[error("cannot relay from {ip} (turn.relay_ip): {error}; write addresses of this machine, or [] to take its own")]
    RelayIp {
        /// Where.
        ip: IpAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The certificate can't be used: the operator can cure it.
    #[error(transparent)]
    Tls(TlsError),
    /// No certificate can be made: a failure of ours.
    #[error(transparent)]
    Certificate(TlsError),
    /// Members can't be told from others: the operator can cure it.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
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
    metrics: Arc<Metrics>,
    clock: Clock,
    certificates: Certificates,
    parts: Mutex<Parts>,
    overview: Overview,
    draining: CancellationToken,
    farewell: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
    scribe: Scribe,
}

/// What all parts share.
#[derive(Clone)]
struct Shared {
    credentials: Arc<Credentials>,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// Cancelled first: who is new isn't let in any more.
    draining: CancellationToken,
    /// Cancelled next: nobody listens any more, and members are told.
    farewell: CancellationToken,
    /// Cancelled last: everything ends.
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How long what was accepted last has to ask.
const LAST_QUESTIONS: Duration = Duration::from_millis(600);
/// How long the end may take with it; what is left is more than a last answer or a WebSocket's close may take.
const END_WITHIN: Duration = Duration::from_millis(1700);

/// Whether there is what `config` wants TLS to be served with, or asked for with; the files that it names are read.
///
/// # Errors
///
/// [`TlsError`].
///
/// [`TlsError`]: crate::net::tls::TlsError
pub fn check_tls(config: &Config) -> Result<(), crate::net::tls::TlsError> {
    certificates::check(config)
}

/// Whether whoever signs in can be asked for what `config` says; the files that it names are read.
///
/// # Errors
///
/// [`AccountsError`], for the first thing named that can't be used.
///
/// [`AccountsError`]: signaling::accounts::AccountsError
pub fn check_accounts(config: &Config) -> Result<(), signaling::accounts::AccountsError> {
    signaling::accounts::proof(config, Clock::system()).map(drop)
}

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
        let shared = Shared {
            credentials: Arc::new(Credentials::new(credential_settings(config))),
            metrics: Arc::default(),
            clock,
            draining: CancellationToken::new(),
            farewell: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let (certifier, certificate) = Certifier::new(config, state, &shared)?;
        let accounts = signaling::accounts::accounts(config, signaling::accounts::proof(config, clock)?);
        let inherited = Inherited::take()?;
        let has_inherited = !inherited.is_empty();
        let tcp = Listeners::bind(config, inherited)?;
        let udp = turn::bind(config, has_inherited, clock).await?;
        if config.turn.realm.len() > SHORT_REALM {
            tracing::warn!("turn.realm has more than {SHORT_REALM} bytes: strangers can have more sent than they send");
        }

        let first = udp.first();
        let served = ice::Served {
            public_host: config.public_host.as_str().to_owned(),
            udp_ports: udp.ports(),
            tcp_port: tcp.turn_port(),
            tls_port: tcp.turns_port(),
            // Browsers take no `turns` with a certificate that they can't verify.
            is_trusted: certifier.served().trusted(),
            replaced: signaling::replaced(config),
        };
        let mut listening: Vec<_> = udp.listening().collect();
        let keeper = Keeper::load(state, volume_limits(config), clock.now());
        let relay = udp.serve(config, &shared, keeper.volume(), tcp.ports()).map_err(StartError::Relay)?;
        if let Some(timeout) = notify::watchdog() {
            let parts = vital(&relay.status, relay.pulses.clone());
            shared.tasks.spawn(watchdog::run(parts, timeout, notify::alive, shared.stop.clone()));
        }
        let front = Front::new(config, &shared);
        let told = status::Parts {
            metrics: Arc::clone(&shared.metrics),
            gateways: Vec::new(),
            turn: relay.status.clone(),
            volume: keeper.volume(),
            places: [front.places(), vec![(PlaceOf::TurnStream, Arc::clone(relay.streams.places()))]].concat(),
            clock,
            certificates: certifier.served().clone(),
            draining: shared.draining.clone(),
        };
        shared.tasks.spawn(keeper.run(clock, shared.stop.clone()));
        // Who connects before it has ended waits: nobody is let in by what doesn't work.
        if let Some(listener) = first {
            turn::self_test(listener, &config.turn.realm, &shared.credentials, clock).await;
        }
        let (routes, overview, signaling) = signaling::open(config, accounts, served, told, &shared);
        let web = Service::Routes(routes, front.proxies());
        let certificates = certifier.served().clone();
        listening.extend(tcp.serve(&front, &certificates, web, Arc::clone(&relay.streams), overview.clone()));
        certifier.apply(certificate);
        let scribe = Scribe::start(Arc::clone(&shared.credentials), clock);
        let Shared { metrics, clock, draining, farewell, stop, tasks, .. } = shared.clone();
        let parts = Mutex::new(Parts { config: config.clone(), shared, certifier, relay, signaling, front });
        Ok(Self { listening, metrics, clock, certificates, parts, overview, draining, farewell, stop, tasks, scribe })
    }

    /// Stops taking connections, lets what runs finish, and returns within two seconds whatever happens.
    pub async fn shutdown(self) {
        let now = self.clock.now().monotonic;
        self.farewell.cancel();
        // Who was let in last gets an answer, for there may be nobody to ask again.
        let asked = async { self.parts.lock().await.front.has_heard_all().await };
        let asked = tokio::time::timeout_at(now + LAST_QUESTIONS, asked);
        let _ = self.stop.run_until_cancelled(asked).await;
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout_at(now + END_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::info!(tasks = self.tasks.len(), "left running at the end");
        }
        self.scribe.finish().await;
    }

    /// Waits until a part has ended that the others can't do without.
    pub async fn failed(&self) {
        self.stop.cancelled().await;
    }

    /// The certificate that is served.
    pub fn certificate(&self) -> CertificateInfo {
        self.certificates.info()
    }

    /// Every socket served.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }
}

/// What the process can't do without.
fn vital(status: &Status, pulses: Vec<Pulse>) -> Vec<watchdog::Part> {
    let control: Vec<_> = status.each().map(control_task).collect();
    let media = pulses.into_iter().map(|pulse| {
        watchdog::Part::new("media thread", move || {
            let pulse = pulse.clone();
            async move { pulse.beat().await }
        })
    });
    control.into_iter().chain(media).collect()
}

fn control_task(status: Status) -> watchdog::Part {
    watchdog::Part::new("control task", move || {
        let status = status.clone();
        async move { drop(status.allocations(u64::MAX, 0).await) }
    })
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
    let certified = if config.tls.mode == TlsMode::Acme { config.acme_names() } else { Vec::new() };
    ["localhost".to_owned(), public]
        .into_iter()
        .chain(certified)
        .chain(machine)
        .filter(|name| !name.is_empty() && name.is_ascii())
}

/// The addresses of this machine, and those that the world knows it by; canonical.
fn own_addresses(config: &Config) -> impl Iterator<Item = IpAddr> {
    let external = config.turn.external_ip.iter().map(|external| external.external);
    host::addresses().into_iter().chain(external)
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
        life: config.turn.credential_life.get(),
        expired_grace: config.turn.expired_grace.get(),
        signaled_peers: match config.turn.peers.mode {
            PeerMode::Any => false,
            PeerMode::Signaled => true,
        },
    }
}

fn places_for(total: u32, per_source: u32, exempt: Vec<Prefix>) -> places::Settings {
    places::Settings { total: count(total), per_source: count(per_source), sources: Sources::new(exempt) }
}

fn rate(per_second: f64, burst: u32) -> Rate {
    Rate { per_second, burst: f64::from(burst) }
}

fn count(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Sources that no per-source limit counts.
fn exempt(config: &Config) -> Vec<Prefix> {
    prefixes(&config.limits.exempt)
}

fn prefixes(networks: &[Network]) -> Vec<Prefix> {
    networks.iter().map(|network| network.0).collect()
}
