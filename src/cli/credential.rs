//! `throughway credential`: `iceServers` with a fresh credential, signed as a back end would.

use std::path::Path;

use super::Failure;
use super::Loaded;
use crate::app::offer;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::value::Span;
use crate::credentials::Credentials;
use crate::credentials::Settings;
use crate::net::host;

/// From a second to a year.
type Life = Span<1000, { 365 * 24 * 3600 * 1000 }>;

/// `throughway credential`.
#[derive(clap::Args)]
#[command(after_help = "\
It is signed with the first of turn.secrets, as a back end would do it: no running server is asked,
and any server with that secret takes it until its time is up.")]
pub(super) struct Arguments {
    /// Whom it is for: limits of the relay count by this name
    name: String,
    /// How long it is good for, such as 90s, 1h or 7d
    #[arg(long, default_value = "1h")]
    life: Life,
    /// Print the JSON alone, in one line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(file: Option<&Path>, asked: &Arguments) -> Result<(), Failure> {
    let Loaded { config, .. } = Loaded::read(file)?;
    let servers = ice_servers(&config, asked)?;
    if asked.json {
        return super::print(&format!("{servers}\n"));
    }
    let pretty = serde_json::to_string_pretty(&servers).map_err(|error| Failure::Ours(error.to_string()))?;
    eprintln!("iceServers for {:?}, good for {} from now:", asked.name, asked.life);
    super::print(&format!("{pretty}\n"))
}

fn ice_servers(config: &Config, asked: &Arguments) -> Result<serde_json::Value, Failure> {
    let operator = |message: String| Err(Failure::Operator(message));
    let name = asked.name.as_str();
    if !(1..=MAX_NAME).contains(&name.len()) || name.starts_with('~') || name.contains(char::is_control) {
        return operator(format!(
            "{name:?} is no name for a credential: write 1 to {MAX_NAME} bytes that don't begin with ~"
        ));
    }
    if config.turn.secrets.is_empty() {
        return operator(
            "turn.secrets is empty, so that the server signs with a secret that it makes at each start and tells nobody: \
             put a long random text there, such as `openssl rand -hex 32` prints, and restart it or `throughway reload`"
                .to_owned(),
        );
    }
    let secrets = config.turn.secrets.iter().map(|secret| secret.reveal().to_owned()).collect();
    let credentials = Credentials::new(Settings { secrets, life: asked.life.get(), ..Settings::default() });
    let credential = credentials.mint_for(name, Clock::system().now());
    let here = host::main_address().map_or_else(|| "localhost".to_owned(), |ip| ip.to_string());
    let servers = offer::ice_servers(config, &here, &credential);
    if servers.as_array().is_none_or(Vec::is_empty) {
        return operator(
            "the configuration serves no TURN on a fixed port: give turn.listen_udp or turn.listen_tcp one".to_owned(),
        );
    }
    Ok(servers)
}

/// In bytes: with the expiry before it, it fits into the user name of every request.
const MAX_NAME: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> Arguments {
        Arguments { name: name.to_owned(), life: "2h".parse().unwrap(), json: true }
    }

    fn config(toml: &str) -> Config {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("t.toml");
        std::fs::write(&file, toml).unwrap();
        Config::load(Some(&file), std::iter::empty()).unwrap()
    }

    fn refusal(toml: &str, name: &str) -> String {
        match ice_servers(&config(toml), &asked(name)) {
            Err(Failure::Operator(message)) => message,
            other => panic!("{:?}", other.ok()),
        }
    }

    #[test]
    fn a_credential_is_what_the_server_with_the_same_secret_checks() {
        let config = config("public_host = 'calls.example.org'\n[turn]\nsecrets = ['north']");

        let servers = ice_servers(&config, &asked("alice")).ok().unwrap();

        let turn = &servers[1];
        assert_eq!(turn["urls"][0], "turn:calls.example.org:3478?transport=udp");
        let settings = Settings { secrets: vec!["north".to_owned()], ..Settings::default() };
        let username = turn["username"].as_str().unwrap();
        let claim = Credentials::new(settings).claim(username, Clock::system().now());
        let passwords: Vec<_> = claim.proofs.iter().map(|proof| proof.password.as_str()).collect();
        assert_eq!(passwords, [turn["credential"].as_str().unwrap()]);
        assert!(username.ends_with(":alice"), "{username}");
    }

    #[test]
    fn without_a_secret_or_a_port_or_a_name_there_is_nothing_to_sign() {
        assert!(refusal("", "alice").starts_with("turn.secrets is empty"));
        let nothing = "[http]\nlisten = []\nplain_listen = []\n[turn]\nsecrets = ['n']\nlisten_udp = ['[::]:0']\n\
                       listen_tcp = []\nlisten_tls = []";
        assert!(refusal(nothing, "alice").contains("no TURN on a fixed port"));
        for name in ["", "~~x", "a\nb", &"x".repeat(201)] {
            assert!(refusal("[turn]\nsecrets = ['n']", name).contains("is no name for a credential"), "{name}");
        }
    }
}
