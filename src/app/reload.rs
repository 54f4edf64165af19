//! Reload: another configuration for the running server, all of it or nothing; what can't change while it runs is named.

use serde::Serialize;
use tokio::sync::oneshot;

use super::App;
use super::Shared;
use super::certificates::Certifier;
use super::certificates::Prepared;
use super::credential_settings;
use super::front::Front;
use super::signaling::Signaling;
use super::signaling::accounts;
use super::signaling::accounts::AccountsError;
use super::turn::Relay;
use crate::config::Config;
use crate::config::value::AccountMode;
use crate::config::value::LogFormat;
use crate::config::value::LogLevel;
use crate::logging;
use crate::net::tls::TlsError;
use crate::signaling::accounts::Proof;

/// What became of another configuration: dotted keys, sorted, and never a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reloaded {
    /// What has changed and holds.
    pub applied: Vec<String>,
    /// What has changed and will hold after a restart.
    pub needs_restart: Vec<String>,
}

/// Why the configuration stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Members can't be told from others.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// The certificate can't be used.
    #[error(transparent)]
    Certificate(#[from] TlsError),
}

/// What a part of the server asks of the process.
#[derive(Debug)]
pub enum Request {
    /// To read the configuration again, and say what became of it.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
}

/// What a reload changes.
pub(super) struct Parts {
    /// The one in force.
    pub(super) config: Config,
    pub(super) shared: Shared,
    pub(super) certifier: Certifier,
    pub(super) relay: Relay,
    pub(super) signaling: Signaling,
    pub(super) front: Front,
}

impl App {
    /// Has another configuration hold, for the living too. When this returns, nobody has what it forbids, but for one thing:
    /// whoever is signed in stays so, even if `signaling.accounts` would not let it in again.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]; nothing has changed then.
    pub async fn reload(&self, config: Config) -> Result<Reloaded, ReloadError> {
        self.parts.lock().await.reload(config).await
    }
}

impl Parts {
    async fn reload(&mut self, mut config: Config) -> Result<Reloaded, ReloadError> {
        let changed = self.config.differences(&config);
        let (needs_restart, applied) = changed.into_iter().partition(|key| needs_restart(key));
        keep(&self.config, &mut config);
        // All that can fail comes first.
        let proof = accounts::proof(&config, self.shared.clock)?;
        let certificate = self.certifier.prepare(&config)?;
        let reloaded = Reloaded { applied, needs_restart };
        self.configure(&config, proof, certificate).await;
        let is_open = config.signaling.accounts.mode == AccountMode::Open;
        if is_open && self.config.signaling.accounts.mode != AccountMode::Open {
            warn_of_open_accounts();
        }
        self.config = config;
        Ok(reloaded)
    }

    async fn configure(&mut self, config: &Config, proof: Proof, certificate: Prepared) {
        let was_trusted = self.certifier.served().is_trusted();
        self.certifier.apply(certificate);
        // Only with a certificate that browsers trust are they told of `turns`.
        let is_trusted = self.certifier.served().is_trusted();
        let stale = has_other_ice_servers(&self.config, config) || was_trusted != is_trusted;
        log_as(config);
        self.shared.credentials.configure(credential_settings(config));
        self.relay.configure(&self.config, config, self.shared.clock).await;
        self.signaling.configure(config, proof, stale);
        self.front.configure(config);
    }
}

/// Says what an operator should know who lets everybody in.
pub(crate) fn warn_of_open_accounts() {
    tracing::warn!("accounts are open: anyone who can reach this server may sign in and relay through it");
}

/// Has the log be as `config` has it, from here on.
pub(crate) fn log_as(config: &Config) {
    let level = match config.log.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    logging::start(level, config.log.format == LogFormat::Json);
}

/// Whether members would get other ICE servers, or others that are good for as long.
fn has_other_ice_servers(earlier: &Config, config: &Config) -> bool {
    let handed_out = |config: &Config| {
        let turn = &config.turn;
        (turn.secrets.first().cloned(), turn.credential_life, turn.ice_servers.clone(), config.public_host.clone())
    };
    handed_out(earlier) != handed_out(config)
}

/// The keys that hold from start to end: their list, and what takes them over from the configuration in force.
macro_rules! until_restart {
    ($($($part:ident).+),* $(,)?) => {
        const UNTIL_RESTART: &[&str] = &[$(stringify!($($part).+)),*];

        fn keep(in_force: &Config, config: &mut Config) {
            $(config.$($part).+.clone_from(&in_force.$($part).+);)*
        }
    };
}

until_restart! {
    http.listen,
    http.plain_listen,
    turn.realm,
    turn.listen_udp,
    turn.shards,
    turn.listen_tcp,
    turn.listen_tls,
    turn.relay_ip,
    turn.relay_ports,
    turn.external_ip,
    turn.gso,
    turn.gro,
    control.socket,
    metrics.listen,
}

fn needs_restart(key: &str) -> bool {
    let is_in = |table: &str| key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    UNTIL_RESTART.iter().any(|table| is_in(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What holds at once, by key or table: each new key is here or above.
    const AT_ONCE: &[&str] = &[
        "public_host",
        "http.allowed_origins",
        "http.require_origin",
        "http.trusted_proxies",
        "http.proxy_protocol",
        "tls",
        "turn.secrets",
        "turn.users",
        "turn.credentials",
        "turn.credential_life",
        "turn.expired_grace",
        "turn.ice_servers",
        "turn.peers",
        "turn.limits",
        "limits",
        "signaling",
        "admin.token",
        "shutdown",
        "log",
    ];

    #[test]
    fn of_every_key_it_is_known_whether_it_needs_a_restart() {
        let all = Config::keys();

        for key in &all {
            let named = AT_ONCE.iter().filter(|name| key == *name || key.starts_with(&format!("{name}."))).count();
            assert_eq!(named, usize::from(!needs_restart(key)), "{key}");
        }
        for name in AT_ONCE.iter().chain(UNTIL_RESTART) {
            assert!(
                all.iter().any(|key| key == name || key.starts_with(&format!("{name}."))),
                "no key is called {name}"
            );
        }
    }

    #[test]
    fn what_needs_a_restart_is_kept_as_it_was_and_stays_different_for_the_next_reload() {
        let in_force = Config::default();
        let mut config = Config::default();
        config.turn.realm = "example.org".into();
        config.turn.gso = false;
        config.signaling.who = true;
        let changed = in_force.differences(&config);

        keep(&in_force, &mut config);

        assert_eq!(changed, ["signaling.who", "turn.gso", "turn.realm"]);
        assert_eq!(in_force.differences(&config), ["signaling.who"]);
    }

    #[test]
    fn members_get_other_ice_servers_when_what_signs_them_has_changed_and_not_for_what_verifies_besides() {
        let with = |secrets: &[&str]| {
            let json = serde_json::json!({ "turn": { "secrets": secrets } });
            serde_json::from_value::<Config>(json).unwrap()
        };

        assert!(has_other_ice_servers(&with(&["north"]), &with(&["west", "north"])));
        assert!(!has_other_ice_servers(&with(&["west", "north"]), &with(&["west"])));
        assert!(has_other_ice_servers(&with(&[]), &with(&["north"])));
    }
}
