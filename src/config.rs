//! The configuration: one TOML file and the environment, read into types that cannot be wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use config::FileFormat;
use config::Map;
use config::Value;
use config::ValueKind;
use serde::Deserialize;
use serde::Serialize;

use self::value::AccountMode;
use self::value::Challenge;
use self::value::Count;
use self::value::CredentialMode;
use self::value::Domain;
use self::value::Email;
use self::value::ExternalIp;
use self::value::Frequency;
use self::value::HostName;
use self::value::IceServer;
use self::value::Ip;
use self::value::Listen;
use self::value::LogFormat;
use self::value::LogLevel;
use self::value::Network;
use self::value::Origin;
use self::value::PeerMode;
use self::value::PortRange;
use self::value::Secret;
use self::value::Size;
use self::value::Span;
use self::value::Throughput;
use self::value::TlsMode;
use self::value::Token;
use self::value::WebUrl;

mod difference;
mod source;
mod tls;
pub mod value;

/// One table of the file: its keys, their kinds and defaults.
macro_rules! tables {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $key:ident: $kind:ty = $default:expr,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$doc])* pub $key: $kind,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }
    )*};
}

/// Media threads, however many cores there are.
pub const MOST_SHARDS: u32 = 64;
/// The longest realm, in bytes, with which a refusal stays short beside the request that it answers: 2.3 times 28 bytes.
pub const SHORT_REALM: usize = 12;
/// How many of the largest messages may wait for a client, at least: until the first is acknowledged there are more to send.
const QUEUED_MESSAGES: usize = 4;
/// As RFC 7518, section 3.2 has it.
const SHORTEST_JWT_SECRET: usize = 32;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

// Every key, its range and its default. `config/throughway.toml` explains them to operators; a test holds both equal.
tables! {
    /// The whole file.
    Config {
        /// The name in URLs and iceServers; empty: the host that the client used.
        public_host: HostName = HostName::default(),
        /// The web side.
        http: Http = Http::default(),
        /// Certificates.
        tls: Tls = Tls::default(),
        /// STUN and TURN.
        turn: Turn = Turn::default(),
        /// Limits on every listener.
        limits: Limits = Limits::default(),
        /// Who finds whom.
        signaling: Signaling = Signaling::default(),
        /// Commands over the web side.
        admin: Admin = Admin::default(),
        /// The operator's own socket.
        control: Control = Control::default(),
        /// Counters.
        metrics: Metrics = Metrics::default(),
        /// The log.
        log: Log = Log::default(),
        /// The end of the process.
        shutdown: Shutdown = Shutdown::default(),
    }
    /// `[http]`.
    Http {
        /// TLS: https, wss, turns, on one port.
        listen: Vec<Listen> = vec![Listen::everywhere(8443)],
        /// Without TLS.
        plain_listen: Vec<Listen> = vec![Listen::here(8080)],
        /// Origins besides our own whose pages may connect.
        allowed_origins: Vec<Origin> = Vec::new(),
        /// Refuse WebSockets without an Origin header.
        require_origin: bool = false,
        /// Whose X-Forwarded-For is believed.
        trusted_proxies: Vec<Network> = Vec::new(),
        /// From whom a PROXY v2 header is required.
        proxy_protocol: Vec<Network> = Vec::new(),
    }
    /// `[tls]`.
    Tls {
        /// Where the certificate comes from.
        mode: TlsMode = TlsMode::SelfSigned,
        /// PEM file of the certificate chain, for mode "files".
        certificate: PathBuf = PathBuf::new(),
        /// PEM file of the private key, for mode "files".
        key: PathBuf = PathBuf::new(),
        /// For mode "acme".
        acme: Acme = Acme::default(),
    }
    /// `[tls.acme]`.
    Acme {
        /// Names to get a certificate for; empty: `public_host`.
        domains: Vec<Domain> = Vec::new(),
        /// Whom the authority may write to; empty: nobody.
        email: Email = Email::default(),
        /// The authority.
        directory: WebUrl = WebUrl::lets_encrypt(),
        /// How it makes sure that the names are ours, tried in this order.
        challenges: Vec<Challenge> = vec![Challenge::TlsAlpn01, Challenge::Http01],
        /// PEM file of the authorities whose word counts for `directory`'s own certificate; empty: the machine's.
        ca: PathBuf = PathBuf::new(),
    }
    /// `[turn]`.
    Turn {
        /// The realm of long-term credentials.
        realm: String = "throughway".to_owned(),
        /// STUN and TURN over UDP.
        listen_udp: Vec<Listen> = vec![Listen::everywhere(3478), Listen::everywhere(8443)],
        /// Media threads; 0: one for each core, up to [`MOST_SHARDS`].
        shards: Count<0, MOST_SHARDS> = Count::new(0),
        /// TURN over TCP.
        listen_tcp: Vec<Listen> = vec![Listen::everywhere(3478)],
        /// TURN over TLS.
        listen_tls: Vec<Listen> = vec![Listen::everywhere(5349)],
        /// Local addresses to relay from, in this order; empty: the one that the client reached.
        relay_ip: Vec<Ip> = Vec::new(),
        /// Ports of relayed addresses.
        relay_ports: PortRange = PortRange { first: 49160, last: 65535 },
        /// What the world knows our addresses by, behind 1:1 NAT.
        external_ip: Vec<ExternalIp> = Vec::new(),
        /// Secrets of time-limited credentials: the first one signs, all verify; empty: random at each start.
        secrets: Vec<Secret> = Vec::new(),
        /// Static long-term credentials: name to password.
        users: BTreeMap<String, Secret> = BTreeMap::new(),
        /// What the end of a session means for its credentials.
        credentials: CredentialMode = CredentialMode::Ttl,
        /// How long a credential is good for.
        credential_life: Span<{ 60 * SECOND }, { 168 * HOUR }> = Span::milliseconds(HOUR),
        /// How long an allocation outlives its expired credential, without a live session.
        expired_grace: Span<0, { 168 * HOUR }> = Span::milliseconds(12 * HOUR),
        /// Replaces the derived iceServers.
        ice_servers: Vec<IceServer> = Vec::new(),
        /// Whether the kernel cuts apart what leaves as one.
        gso: bool = true,
        /// Whether the kernel joins what it receives together.
        gro: bool = false,
        /// Whom relayed data may go to.
        peers: Peers = Peers::default(),
        /// Limits of the relay.
        limits: TurnLimits = TurnLimits::default(),
    }
    /// `[turn.peers]`.
    Peers {
        /// Whom a session's allocations may reach.
        mode: PeerMode = PeerMode::Any,
        /// Reachable whatever else says no.
        allow: Vec<Network> = Vec::new(),
        /// Unreachable besides the built-in list.
        deny: Vec<Network> = Vec::new(),
    }
    /// `[turn.limits]`.
    TurnLimits {
        /// Allocations of one member or static user.
        allocations_per_member: Count<1, 100_000> = Count::new(100),
        /// Allocations from one source address.
        allocations_per_source: Count<1, 100_000> = Count::new(200),
        /// Connections that speak TURN, over TCP or TLS, from one source address.
        connections_per_source: Count<1, 1_000_000> = Count::new(200),
        /// Peers that one allocation may permit at once.
        permissions_per_allocation: Count<1, 1024> = Count::new(64),
        /// Channels that one allocation may bind at once.
        channels_per_allocation: Count<1, 1024> = Count::new(64),
        /// Peers that one member or static user may begin to exchange data with.
        new_peers: Frequency = Frequency::per_second(20),
        /// How many of them at once.
        new_peer_burst: Count<1, 1_000_000> = Count::new(200),
        /// Unauthenticated answers per network.
        challenges: Frequency = Frequency::per_second(100),
        /// How many of them at once.
        challenge_burst: Count<1, 1_000_000> = Count::new(500),
        /// Binding answers per network.
        bindings: Frequency = Frequency::per_second(1000),
        /// What one allocation sends and receives.
        bandwidth_per_allocation: Throughput = Throughput::per_second(32 << 20),
        /// What is relayed in all.
        bandwidth: Throughput = Throughput::per_second(128 << 20),
        /// The same in a day.
        bytes_per_day: Size<0, { 1 << 60 }> = Size::bytes(2 << 40),
        /// The same in a month.
        bytes_per_month: Size<0, { 1 << 60 }> = Size::bytes(20 << 40),
    }
    /// `[limits]`.
    Limits {
        /// Sources that no per-source limit counts.
        exempt: Vec<Network> = vec![
            Network(crate::address::Prefix::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8)),
            Network(crate::address::Prefix::new(std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 128)),
        ],
        /// Connections that have not asked for anything yet.
        half_open: Count<1, 1_000_000> = Count::new(4096),
        /// The same from one source.
        half_open_per_source: Count<1, 1_000_000> = Count::new(200),
        /// Connections that speak HTTP; WebSockets have a limit of their own.
        http: Count<1, 1_000_000> = Count::new(8192),
        /// The same from one source.
        http_per_source: Count<1, 1_000_000> = Count::new(500),
    }
    /// `[signaling]`.
    Signaling {
        /// The largest message taken.
        message_bytes: Size<1024, { 16 << 20 }> = Size::bytes(64 << 10),
        /// Messages that wait for a slow reader.
        queue_messages: Count<1, 65_536> = Count::new(256),
        /// Bytes that wait for a slow reader.
        queue_bytes: Size<1024, { 64 << 20 }> = Size::bytes(256 << 10),
        /// How long a connection may take to sign in.
        sign_in_within: Span<SECOND, { 10 * 60 * SECOND }> = Span::milliseconds(120 * SECOND),
        /// How often a connection is pinged.
        ping_every: Span<SECOND, HOUR> = Span::milliseconds(20 * SECOND),
        /// Silence after which a connection is gone.
        gone_after: Span<{ 2 * SECOND }, { 2 * HOUR }> = Span::milliseconds(45 * SECOND),
        /// How long a session waits for a client that lost its connection.
        resume_within: Span<SECOND, { 10 * 60 * SECOND }> = Span::milliseconds(30 * SECOND),
        /// Whether members may ask who is there.
        who: bool = false,
        /// Limits per connection and source.
        limits: SignalingLimits = SignalingLimits::default(),
        /// Who may sign in.
        accounts: Accounts = Accounts::default(),
        /// Which clients of others are served, besides our own.
        gateways: Gateways = Gateways::default(),
    }
    /// `[signaling.limits]`.
    SignalingLimits {
        /// Messages of one connection.
        messages: Frequency = Frequency::per_second(50),
        /// How many of them at once.
        message_burst: Count<1, 1_000_000> = Count::new(200),
        /// WebSockets from one source.
        connections_per_source: Count<1, 1_000_000> = Count::new(200),
        /// Sign-ins from one source.
        sign_ins: Frequency = Frequency::per_second(5),
        /// Rooms that one member may be in.
        rooms_per_member: Count<1, 1000> = Count::new(16),
        /// Members that one room may have.
        members_per_room: Count<2, 1000> = Count::new(100),
        /// Frames that make no sense, after which a connection is closed.
        bad_frames: Count<1, 1000> = Count::new(3),
    }
    /// `[signaling.accounts]`.
    Accounts {
        /// How a member proves who it is.
        mode: AccountMode = AccountMode::Open,
        /// What everybody shares who may sign in, in mode "token".
        token: Token = Token::default(),
        /// For mode "jwt".
        jwt: Jwt = Jwt::default(),
        /// For mode "webhook".
        webhook: Webhook = Webhook::default(),
    }
    /// `[signaling.accounts.jwt]`.
    Jwt {
        /// Verifies HS256.
        secret: Token = Token::default(),
        /// PEM file of an Ed25519 public key, which verifies EdDSA.
        public_key: PathBuf = PathBuf::new(),
        /// File with a JWK Set, whose keys verify either.
        jwks: PathBuf = PathBuf::new(),
        /// Whose tokens count; empty: anyone's who has a key.
        issuer: String = String::new(),
        /// For whom tokens must be; empty: for nobody in particular.
        audience: String = String::new(),
    }
    /// `[signaling.accounts.webhook]`.
    Webhook {
        /// Whom to ask.
        url: WebUrl = WebUrl::default(),
        /// What we show there.
        secret: Token = Token::default(),
        /// How long an answer may take.
        timeout: Span<100, { 60 * SECOND }> = Span::milliseconds(3 * SECOND),
    }
    /// `[signaling.gateways]`.
    Gateways {
        /// Socket.IO, at /socket.io/.
        socketio: bool = true,
        /// PeerJS, at /peerjs and /peerjs-server/.
        peerjs: bool = true,
        /// Whether PeerJS clients may list each other.
        peerjs_discovery: bool = false,
        /// y-webrtc and Trystero, at /pubsub.
        pubsub: bool = true,
        /// Ayame, at /signaling.
        ayame: bool = true,
    }
    /// `[admin]`.
    Admin {
        /// Who may command; empty: nobody.
        token: Token = Token::default(),
    }
    /// `[control]`.
    Control {
        /// Path of the unix socket; empty: none.
        socket: PathBuf = PathBuf::new(),
    }
    /// `[metrics]`.
    Metrics {
        /// Where /metrics is served, without TLS.
        listen: Vec<Listen> = Vec::new(),
    }
    /// `[log]`.
    Log {
        /// What is logged.
        level: LogLevel = LogLevel::Info,
        /// How a line looks.
        format: LogFormat = LogFormat::Text,
    }
    /// `[shutdown]`.
    Shutdown {
        /// How long relays are waited for.
        drain: Span<0, DAY> = Span::milliseconds(0),
    }
}

/// Where each key that is set comes from, by its whole path.
pub type Origins = BTreeMap<String, String>;

/// What an operator wrote that cannot be used, in one line: where, which key, what is wrong, and the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    origin: String,
    key: Option<String>,
    problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}: {key}: {}", self.origin, self.problem),
            None => write!(f, "{}: {}", self.origin, self.problem),
        }
    }
}

impl Config {
    /// Reads `file` (none: the defaults) and what `environment` says on top, as `THROUGHWAY__TABLE__KEY`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Self::load_with_origins(file, environment).map(|(config, _)| config)
    }

    /// The same, with where each key that is set comes from: the file's name, or the variable's.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn load_with_origins(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Origins), ConfigError> {
        let origin = file.map_or_else(|| "no configuration file".to_owned(), |file| file.display().to_string());
        let text = match file {
            Some(file) => std::fs::read_to_string(file).map_err(|error| ConfigError {
                origin: origin.clone(),
                key: None,
                problem: format!("cannot read this configuration file: {error}{}", cure_of(&error, file)),
            })?,
            None => String::new(),
        };
        source::read(&text, &origin, environment)
    }

    /// What no single key can tell.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let Self { http, tls, turn, signaling, metrics, .. } = self;
        if !(1..=127).contains(&turn.realm.len()) || turn.realm.contains(|c: char| c.is_control() || c == '"') {
            let why = format!("{:?} is not a realm: write 1 to 127 characters without quotes, such as", turn.realm);
            return Err(("turn.realm", format!("{why} \"example.org\"")));
        }
        tls.check(self)?;
        signaling.check_accounts()?;
        if signaling.queue_bytes.get() / QUEUED_MESSAGES < signaling.message_bytes.get() {
            let why = format!("\"{}\" is room for less than four messages of", signaling.queue_bytes);
            return Err((
                "signaling.queue_bytes",
                format!("{why} signaling.message_bytes (\"{}\"): make it four times as much", signaling.message_bytes),
            ));
        }
        if signaling.gone_after.get() <= signaling.ping_every.get() {
            let why = format!("\"{}\" is not longer than signaling.ping_every", signaling.gone_after);
            return Err((
                "signaling.gone_after",
                format!("{why} (\"{}\"): make it twice as long", signaling.ping_every),
            ));
        }
        if let Some(ip) = turn.relay_ip.iter().find(|ip| ip.0.is_unspecified() || ip.0.is_multicast()) {
            return Err((
                "turn.relay_ip",
                format!("\"{ip}\" is no address to relay from: leave the list empty for all"),
            ));
        }
        if turn.users.keys().any(|name| !(1..=256).contains(&name.len()) || name.contains(char::is_control)) {
            return Err((
                "turn.users",
                "a name is empty or longer than 256 bytes, or has control characters".to_owned(),
            ));
        }
        let tcp = [
            ("http.listen", &http.listen),
            ("http.plain_listen", &http.plain_listen),
            ("turn.listen_tcp", &turn.listen_tcp),
            ("turn.listen_tls", &turn.listen_tls),
            ("metrics.listen", &metrics.listen),
        ];
        one_each(&tcp)?;
        one_each(&[("turn.listen_udp", &turn.listen_udp)])
    }
}

/// What to do about a file that can't be read.
fn cure_of(error: &io::Error, file: &Path) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return format!("; `throughway init --config {}` makes one", file.display());
    }
    String::new()
}

impl Signaling {
    /// A connection must not end before the answer comes that it waits for.
    fn check_accounts(&self) -> Result<(), (&'static str, String)> {
        self.accounts.check()?;
        let asked = self.accounts.webhook.timeout;
        let ends =
            [("signaling.sign_in_within", self.sign_in_within.get()), ("signaling.gone_after", self.gone_after.get())];
        let sooner = ends.into_iter().find(|(_, ends)| asked.get() >= *ends);
        match sooner.filter(|_| self.accounts.mode == AccountMode::Webhook) {
            Some((key, _)) => {
                let why =
                    format!("\"{asked}\" is not shorter than {key}, when a connection ends that waits for the answer");
                Err(("signaling.accounts.webhook.timeout", format!("{why}: make it half as long")))
            }
            None => Ok(()),
        }
    }
}

impl Accounts {
    /// What a mode needs is there, and nothing of another mode's: nobody should think that it is asked for.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let Self { mode, token, jwt, webhook } = self;
        let token = token.reveal().is_some();
        let keys =
            jwt.secret.reveal().is_some() || [&jwt.public_key, &jwt.jwks].iter().any(|p| !p.as_os_str().is_empty());
        let has_jwt = *jwt != Jwt::default();
        let has_webhook = *webhook != Webhook::default();
        let unused = [
            (token, AccountMode::Token, "signaling.accounts.token"),
            (has_jwt, AccountMode::Jwt, "signaling.accounts.jwt"),
            (has_webhook, AccountMode::Webhook, "signaling.accounts.webhook"),
        ];
        if let Some((_, meant, key)) = unused.into_iter().find(|(is_set, of, _)| *is_set && of != mode) {
            let instead =
                format!("while signaling.accounts.mode is \"{mode}\": write mode = \"{meant}\", or leave it out");
            return Err((key, format!("is not asked for {instead}")));
        }
        if jwt.secret.reveal().is_some_and(|secret| secret.len() < SHORTEST_JWT_SECRET) {
            let cure = "write a long random text, such as `openssl rand -hex 32` prints";
            let why = format!("is shorter than the {SHORTEST_JWT_SECRET} characters that HS256 takes: {cure}");
            return Err(("signaling.accounts.jwt.secret", why));
        }
        let (key, needs) = match mode {
            AccountMode::Token if !token => ("signaling.accounts.token", "what members must show here"),
            AccountMode::Jwt if !keys => {
                ("signaling.accounts.jwt", "what tokens are signed with here: secret, public_key or jwks")
            }
            AccountMode::Webhook if webhook.url.as_str().is_empty() => {
                ("signaling.accounts.webhook.url", "the URL to ask here")
            }
            AccountMode::Webhook if webhook.secret.reveal().is_none() => {
                ("signaling.accounts.webhook.secret", "here what the service knows us by")
            }
            AccountMode::Open | AccountMode::Token | AccountMode::Jwt | AccountMode::Webhook => return Ok(()),
        };
        Err((key, format!("is empty: signaling.accounts.mode = \"{mode}\" needs {needs}")))
    }
}

/// No address may stand twice among keys of one transport, unless any free port will do.
fn one_each(keys: &[(&'static str, &Vec<Listen>)]) -> Result<(), (&'static str, String)> {
    let mut seen: Vec<(&str, Listen)> = Vec::new();
    for (key, listen) in keys.iter().flat_map(|(key, list)| list.iter().map(move |listen| (*key, *listen))) {
        if let Some((first, _)) = seen.iter().find(|(_, other)| *other == listen && listen.0.port() != 0) {
            return Err((key, format!("\"{listen}\" already stands in {first}: choose another port")));
        }
        seen.push((key, listen));
    }
    Ok(())
}
