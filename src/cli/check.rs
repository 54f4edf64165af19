//! `throughway check`: whether the configuration is good, what is in force, and what may be meant otherwise.

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hyper::Uri;
use serde_json::Value;
use serde_json::json;

use super::Failure;
use super::Loaded;
use crate::app;
use crate::app::offer;
use crate::config::Config;
use crate::config::Origins;
use crate::config::SHORT_REALM;
use crate::config::value::AccountMode;
use crate::config::value::TlsMode;

/// `throughway check`.
#[derive(clap::Args)]
#[command(after_help = "\
What is in force is printed as TOML: what differs from the defaults says where it comes from, and
secrets are hidden. Warnings go to stderr and change nothing of the exit code, which is 2 for a
configuration that no server starts with; files that it names are read, if this user may.")]
pub(super) struct Arguments {
    /// Print {"file", "configuration", "origins", "warnings"} as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(file: Option<&Path>, asked: &Arguments) -> Result<(), Failure> {
    let loaded = Loaded::read(file)?;
    usable(&loaded.config).map_err(Failure::Operator)?;
    let ours = |error: &dyn std::error::Error| Failure::Ours(error.to_string());
    let effective = shown(&loaded.config).map_err(|error| ours(&error))?;
    let warnings = warnings(&loaded);
    if asked.json {
        let all = json!({
            "file": loaded.file, "configuration": effective, "origins": loaded.origins, "warnings": warnings,
        });
        return super::print(&format!("{all}\n"));
    }
    let defaults = shown(&Config::default()).map_err(|error| ours(&error))?;
    super::print(&as_toml(&effective, &defaults, &loaded.origins).map_err(|error| ours(&error))?)?;
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let origin = loaded.file.map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
    eprintln!("{origin}: good{}", if warnings.is_empty() { "" } else { ", but read the warnings" });
    Ok(())
}

/// Every key with its value; what nobody may read is hidden, in `ice_servers` and behind the webhook's host too.
fn shown(config: &Config) -> serde_json::Result<Value> {
    let mut all = serde_json::to_value(config)?;
    for server in all.pointer_mut("/turn/ice_servers").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(credential) = server.get_mut("credential") {
            *credential = "(hidden)".into();
        }
    }
    if let Some(Value::String(url)) = all.pointer_mut("/signaling/accounts/webhook/url") {
        *url = bare(url);
    }
    Ok(all)
}

/// A URL's scheme and authority: services hand out addresses whose path is the secret.
fn bare(url: &str) -> String {
    let site = url.parse::<Uri>().ok().and_then(|uri| {
        let site = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
        Some(if uri.path_and_query().is_none_or(|rest| rest == "/") { site } else { format!("{site}/(hidden)") })
    });
    site.unwrap_or_default()
}

/// All of it in the order of the manual, without the manual's words.
fn as_toml(effective: &Value, defaults: &Value, origins: &Origins) -> Result<String, toml::ser::Error> {
    let (mut text, mut table) = (String::new(), String::new());
    for line in MANUAL.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut table);
            // Writing to a String never fails.
            let _ = write!(text, "\n[{table}]\n");
            continue;
        }
        let Some((name, _)) = line.split_once(" = ") else { continue };
        let key = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
        let at = format!("/{}", key.replace('.', "/"));
        let Some(value) = effective.pointer(&at) else { continue };
        let written = toml::Value::try_from(value)?;
        let origin = origins.get(&key).filter(|_| defaults.pointer(&at) != Some(value));
        let _ = match origin {
            Some(origin) => writeln!(text, "{name} = {written} # {origin}"),
            None => writeln!(text, "{name} = {written}"),
        };
    }
    Ok(text)
}

/// Every key, once, in the order in which it is explained.
const MANUAL: &str = include_str!("../../config/throughway.toml");

/// What is allowed and yet seldom meant, each with its cure.
pub(super) fn warnings(Loaded { file, config, origins }: &Loaded) -> Vec<String> {
    let mut warnings = of_files(config);
    let has_secret = |key: &str| origins.contains_key(key);
    let secrets = ["turn.secrets", "turn.users", "admin.token", "signaling.accounts.token"];
    if let Some(file) = file
        && fs::metadata(file).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
        && secrets.iter().any(|key| has_secret(key))
    {
        warnings.push(format!("{0}: anyone on this machine can read its secrets: chmod 640 {0}", file.display()));
    }
    warnings.extend(of_keys(config));
    warnings
}

/// What a configuration alone tells.
fn of_keys(config: &Config) -> Vec<String> {
    let Config { public_host, http, tls, turn, signaling, admin, metrics, .. } = config;
    let short = |text: &str| text.len() < SHORT_SECRET;
    let cure = "write a long random text, such as `openssl rand -hex 32` prints";
    let mut warnings = Vec::new();
    let mut warn = |is: bool, text: String| {
        if is {
            warnings.push(text);
        }
    };
    warn(
        signaling.accounts.mode == AccountMode::Open,
        "signaling.accounts.mode: \"open\" lets anyone who reaches this server sign in and relay through it: see \"token\", \
         \"jwt\" and \"webhook\""
            .to_owned(),
    );
    warn(
        tls.mode == TlsMode::SelfSigned && !public_host.as_str().is_empty(),
        "tls.mode: \"self-signed\" makes browsers warn of public_host, and they take no turns: see \"acme\" and \"files\""
            .to_owned(),
    );
    warn(
        turn.realm.len() > SHORT_REALM,
        format!(
            "turn.realm: with more than {SHORT_REALM} bytes strangers can have more sent than they send: shorten it"
        ),
    );
    for (key, is_short) in [
        ("turn.secrets", turn.secrets.iter().any(|secret| short(secret.reveal()))),
        ("admin.token", admin.token.reveal().is_some_and(short)),
        ("signaling.accounts.token", signaling.accounts.token.reveal().is_some_and(short)),
    ] {
        warn(is_short, format!("{key}: has less than {SHORT_SECRET} characters: {cure}"));
    }
    if let Some((name, _)) = turn.users.iter().find(|(_, password)| password.reveal().len() < SHORT_PASSWORD) {
        warn(true, format!("turn.users: the password of {name:?} has less than {SHORT_PASSWORD} characters: {cure}"));
    }
    warn(
        turn.secrets.is_empty(),
        "turn.secrets: empty, so that each restart ends all credentials: put one there".to_owned(),
    );
    warn(
        http.allowed_origins.iter().any(|origin| origin.as_str() == "*"),
        "http.allowed_origins: \"*\" lets every web page sign its visitors in here: name the origins".to_owned(),
    );
    let beyond = |listen: &&crate::config::value::Listen| !listen.0.ip().is_loopback();
    if let Some(listen) = http.plain_listen.iter().find(beyond).filter(|_| http.trusted_proxies.is_empty()) {
        warn(true, format!("http.plain_listen: \"{listen}\" takes sign-ins without TLS from anywhere: use 127.0.0.1"));
    }
    if let Some(listen) = metrics.listen.iter().find(beyond) {
        warn(true, format!("metrics.listen: \"{listen}\" tells everyone who reaches it: use 127.0.0.1"));
    }
    if let Some(network) = turn.peers.allow.iter().find(|network| is_inside(network)) {
        warn(true, format!("turn.peers.allow: \"{network}\" lets clients reach this machine or its network"));
    }
    warnings
}

/// Fewer could be guessed by who has a credential to try on.
const SHORT_SECRET: usize = 24;
/// The same of a static user's password, which is tried against the server.
const SHORT_PASSWORD: usize = 8;

fn is_inside(network: &crate::config::value::Network) -> bool {
    let text = network.to_string();
    let ip = text.split('/').next().and_then(|ip| ip.parse().ok());
    ip.is_some_and(|ip| !offer::is_public(ip))
}

/// Whether a server starts with the files that are named. Those that this user may not read, the server's may.
fn usable(config: &Config) -> Result<(), String> {
    let may_read = |table: &str| {
        let is_denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        !files(config).any(|(key, path)| key.starts_with(table) && fs::File::open(path).is_err_and(is_denied))
    };
    if may_read("tls.") {
        app::check_tls(config).map_err(|error| error.to_string())?;
    }
    if may_read("signaling.") {
        app::check_accounts(config).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Files that the configuration names and that can't be read here.
fn of_files(config: &Config) -> Vec<String> {
    let unreadable = |(key, path): (&str, &Path)| {
        let error = fs::File::open(path).err()?;
        Some(format!("{key}: {}: cannot read it as this user: {error}", path.display()))
    };
    files(config).filter_map(unreadable).collect()
}

/// The files that are named, each by its key.
fn files(config: &Config) -> impl Iterator<Item = (&'static str, &Path)> {
    let (tls, jwt) = (&config.tls, &config.signaling.accounts.jwt);
    let named = [
        ("tls.certificate", tls.certificate.as_path()),
        ("tls.key", &tls.key),
        ("tls.acme.ca", &tls.acme.ca),
        ("signaling.accounts.jwt.public_key", &jwt.public_key),
        ("signaling.accounts.jwt.jwks", &jwt.jwks),
    ];
    named.into_iter().filter(|(_, path)| !path.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(toml: &str) -> (tempfile::TempDir, Loaded) {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("t.toml");
        fs::write(&file, toml).unwrap();
        let (config, origins) = Config::load_with_origins(Some(&file), std::iter::empty()).unwrap();
        (home, Loaded { file: Some(file), config, origins })
    }

    fn printed(toml: &str) -> (String, Config) {
        let (_home, loaded) = loaded(toml);
        let shown_all = shown(&loaded.config).unwrap();
        let defaults = shown(&Config::default()).unwrap();
        (as_toml(&shown_all, &defaults, &loaded.origins).unwrap(), loaded.config)
    }

    #[test]
    fn what_is_printed_is_a_configuration_with_every_key_that_means_the_same() {
        let toml = "public_host = 'a.org'\n[turn]\nrelay_ports = '2000-3000'\nexternal_ip = ['203.0.113.5']\n\
                    ice_servers = [{ urls = ['stun:a'], n = 5 }]\n[signaling]\nwho = true";

        let (text, config) = printed(toml);

        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("again.toml");
        fs::write(&file, &text).unwrap();
        assert_eq!(Config::load(Some(&file), std::iter::empty()), Ok(config), "{text}");
        let keys = |text: &str| text.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
        assert_eq!(keys(&text), keys(MANUAL));
    }

    #[test]
    fn what_differs_says_where_from_and_what_is_secret_is_hidden() {
        let toml = "[turn]\nrealm = 'a'\nshards = 0\nsecrets = ['hunter2']\nusers = { camera = 'hunter2' }\n\
                    ice_servers = [{ urls = 'turn:a', username = 'u', credential = 'hunter2' }]\n\
                    [admin]\ntoken = 'hunter2hunter2hunter2'\n[signaling.accounts]\nmode = 'webhook'\n\
                    webhook = { url = 'https://app.example.org:8443/hunter2?key=hunter2', secret = 'hunter2hunter2hunter2' }";

        let (text, _) = printed(toml);

        assert!(text.lines().any(|line| line.starts_with("realm = \"a\" # ") && line.ends_with("t.toml")), "{text}");
        assert!(text.lines().any(|line| line == "shards = 0"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("url = \"https://app.example.org:8443/(hidden)\""), "{text}");
        assert_eq!(text.matches("(hidden)").count(), 6, "{text}");
    }

    #[test]
    fn each_doubtful_key_has_its_warning_and_a_careful_configuration_has_none() {
        let careful = "public_host = 'a.org'\n[tls]\nmode = 'acme'\n[turn]\nsecrets = ['0123456789abcdef0123456789abcdef']\n\
                       [signaling.accounts]\nmode = 'token'\ntoken = '0123456789abcdef0123456789abcdef'\n";
        let doubts = [
            ("mode = 'token'\ntoken = '0123456789abcdef0123456789abcdef'", "", "signaling.accounts.mode: \"open\""),
            ("mode = 'acme'", "", "tls.mode: \"self-signed\""),
            ("[turn]\n", "[turn]\nrealm = 'thirteen.long'\n", "turn.realm: with more than 12 bytes"),
            ("secrets = ['0123456789abcdef0123456789abcdef']", "secrets = ['short']", "turn.secrets: has less"),
            ("secrets = ['0123456789abcdef0123456789abcdef']", "", "turn.secrets: empty"),
            ("[turn]\n", "[turn]\nusers = { camera = 'x' }\n", "turn.users: the password of \"camera\""),
            ("[turn]\n", "[admin]\ntoken = '0123456789abcdef'\n[turn]\n", "admin.token: has less than 24"),
            ("[turn]\n", "[metrics]\nlisten = ['[::]:9464']\n[turn]\n", "metrics.listen: \"[::]:9464\" tells"),
            ("[turn]\n", "[http]\nplain_listen = ['[::]:80']\n[turn]\n", "http.plain_listen: \"[::]:80\" takes"),
            ("[turn]\n", "[http]\nallowed_origins = ['*']\n[turn]\n", "http.allowed_origins: \"*\" lets"),
            ("[turn]\n", "[turn.peers]\nallow = ['10.0.0.0/8']\n[turn]\n", "turn.peers.allow: \"10.0.0.0/8\""),
            (
                "mode = 'acme'",
                "mode = 'acme'\ncertificate = '/nowhere/x.pem'",
                "tls.certificate: /nowhere/x.pem: cannot",
            ),
        ];
        let warned = |toml: &str| {
            let (home, loaded) = loaded(toml);
            fs::set_permissions(loaded.file.as_deref().unwrap(), fs::Permissions::from_mode(0o640)).unwrap();
            (warnings(&loaded), home)
        };

        assert_eq!(warned(careful).0, [""; 0]);
        for (from, to, warning) in doubts {
            let toml = careful.replacen(from, to, 1);
            let (found, _home) = warned(&toml);
            assert!(found.len() == 1 && found[0].starts_with(warning), "{toml}: {found:?}");
        }
    }

    #[test]
    fn secrets_that_anyone_on_the_machine_can_read_are_warned_of() {
        let (_home, loaded) = loaded("[turn]\nsecrets = ['0123456789abcdef0123456789abcdef']");
        fs::set_permissions(loaded.file.as_deref().unwrap(), fs::Permissions::from_mode(0o644)).unwrap();

        let found = warnings(&loaded);

        assert!(found[0].contains("anyone on this machine can read its secrets: chmod 640"), "{found:?}");
    }
}
