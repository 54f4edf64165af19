//! Starts the parts in order, and stops them.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::Prefix;
use crate::address::Sources;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::value::CredentialMode;
use crate::config::value::Network;
use crate::config::value::PeerMode;
use crate::config::value::TlsMode;
use crate::credentials;
use crate::credentials::Credentials;
use crate::metrics::Metrics;
use crate::net::host;
use crate::net::listen::ListenError;
use crate::net::tls::CertificateInfo;
use crate::net::tls::TlsError;
use crate::places;
use crate::places::Places;
use crate::rate::Rate;
use crate::signaling::ice;
use crate::volume;
use crate::web::forwarded::Proxies;
use crate::web::serve::Service;

use self::certificates::Certifier;
use self::front::Front;
use self::front::Listeners;
use self::signaling::accounts::AccountsError;
use self::usage::Keeper;

mod certificates;
mod front;
mod signaling;
mod turn;
mod usage;

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on: the operator can cure it.
    #[error(transparent)]
    Listen(#[from] ListenError),
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
    certifier: Certifier,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What all parts share.
#[derive(Clone)]
struct Shared {
    credentials: Arc<Credentials>,
    metrics: Arc<Metrics>,
    clock: Clock,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How long the parts may take to end.
const END_WITHIN: Duration = Duration::from_millis(1500);

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
        let shared = Shared {
            credentials: Arc::new(Credentials::new(credential_settings(config))),
            metrics: Arc::default(),
            clock,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let (certifier, certificate) = Certifier::new(config, state, &shared)?;
        let accounts = signaling::accounts::accounts(config, clock)?;
        let tcp = Listeners::bind(config)?;
        let udp = turn::bind(config)?;
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
            replaced: (!config.turn.ice_servers.is_empty()).then(|| config.turn.ice_servers.clone().into()),
        };
        let mut listening: Vec<_> = udp.listening().collect();
        let keeper = Keeper::load(state, volume_limits(config), clock.now());
        let (streams, status) = udp.serve(config, &shared, keeper.volume(), tcp.ports()).map_err(StartError::Relay)?;
        shared.tasks.spawn(keeper.run(clock, shared.stop.clone()));
        let proxies = Arc::new(Proxies::new(trusted_proxies(config)));
        let web = Service::Routes(signaling::routes(config, Arc::new(accounts), served, status, &shared), proxies);
        listening.extend(tcp.serve(&Front::new(config, &shared), certifier.served(), web, streams));
        certifier.apply(certificate);
        if let Some(listener) = first {
            turn::self_test(listener, &config.turn.realm, &shared.credentials, clock).await;
        }
        Ok(Self { listening, certifier, stop: shared.stop, tasks: shared.tasks })
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

    /// The certificate that is served.
    pub fn certificate(&self) -> CertificateInfo {
        self.certifier.served().info()
    }

    /// Every socket served.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }
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

fn places(total: u32, per_source: u32, exempt: Vec<Prefix>) -> Arc<Places> {
    let sources = Sources::new(exempt);
    Places::new(places::Settings { total: count(total), per_source: count(per_source), sources })
}

fn rate(per_second: f64, burst: u32) -> Rate {
    Rate { per_second, burst: f64::from(burst) }
}

fn count(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// HTTP proxies whose word counts for whom a request comes from.
fn trusted_proxies(config: &Config) -> Vec<Prefix> {
    prefixes(&config.http.trusted_proxies)
}

/// Sources that no per-source limit counts.
fn exempt(config: &Config) -> Vec<Prefix> {
    prefixes(&config.limits.exempt)
}

fn prefixes(networks: &[Network]) -> Vec<Prefix> {
    networks.iter().map(|network| network.0).collect()
}
