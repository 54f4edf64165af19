//! From texts to [`Config`]: the file, the environment on top, and errors in the operator's words.

use std::fmt;

use config::ConfigBuilder;
use config::File;
use config::Source;
use config::builder::DefaultState;

use super::*;

/// Reads `text`, called `origin` in errors, and `environment` on top; with where each key that is set comes from.
pub(super) fn read(
    text: &str,
    origin: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(Config, Origins), ConfigError> {
    let environment = Environment(environment.filter_map(key_of).collect());
    environment.check()?;
    let refused = |key: Option<String>, problem: String| {
        let name = key.as_deref().and_then(|key| environment.name_of(key));
        ConfigError { origin: name.unwrap_or(origin).to_owned(), key, problem }
    };
    let in_words = |error| {
        let (key, problem) = in_words(error);
        let is_secret = key.as_deref().is_some_and(|key| SECRET.iter().any(|secret| key.starts_with(secret)));
        match problem.split_once(" is not ") {
            Some((_, wanted)) if is_secret => refused(key, format!("is not {wanted}")),
            Some(_) | None => refused(key, problem),
        }
    };
    let merged = ConfigBuilder::<DefaultState>::default()
        .add_source(File::from_str(text, FileFormat::Toml))
        .add_source(environment.clone())
        .build()
        .map_err(in_words)?;
    let tree: serde_json::Value = merged.clone().try_deserialize().map_err(in_words)?;
    let known = serde_json::to_value(Config::default()).map_err(|error| refused(None, error.to_string()))?;
    if let Some((key, problem)) = unknown_key(&tree, &known, "") {
        return Err(refused(Some(key), problem));
    }
    let config: Config = merged.try_deserialize().map_err(in_words)?;
    config.check().map_err(|(key, problem)| refused(Some(key.to_owned()), problem))?;
    let mut origins = Origins::new();
    note_origins(&tree, &known, String::new(), &mut |key| {
        let name = environment.name_of(&key).unwrap_or(origin).to_owned();
        origins.insert(key, name);
    });
    Ok((config, origins))
}

/// Tells of every key that `tree` sets, by its whole path; tables that `known` knows no keys of are one.
fn note_origins(tree: &serde_json::Value, known: &serde_json::Value, path: String, note: &mut impl FnMut(String)) {
    let (Some(table), Some(known)) = (tree.as_object(), known.as_object()) else { return note(path) };
    if known.is_empty() && !path.is_empty() {
        return note(path);
    }
    for (name, value) in table {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        note_origins(value, known.get(name).unwrap_or(&serde_json::Value::Null), key, note);
    }
}

/// Keys whose values no error may repeat.
pub(super) const SECRET: &[&str] = &[
    "turn.secrets",
    "turn.users",
    "turn.ice_servers",
    "signaling.accounts.token",
    "signaling.accounts.jwt.secret",
    "signaling.accounts.webhook.secret",
    "signaling.accounts.webhook.url",
    "admin.token",
];

/// Variables that are ours: the key, and what stands in the variable.
#[derive(Clone, Debug)]
struct Environment(Vec<Variable>);

#[derive(Clone)]
struct Variable {
    name: String,
    key: String,
    text: String,
}

impl fmt::Debug for Variable {
    /// What stands in it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Environment {
    /// Only what can be a key may stand in a name, and a list or table must be one.
    fn check(&self) -> Result<(), ConfigError> {
        let is_broken =
            |variable: &&Variable| variable.text.starts_with(['[', '{']) && toml_value(&variable.text).is_none();
        if let Some(bad) = self.0.iter().find(is_broken) {
            let problem = "begins like a list or table and is none: write [\"...\"] or { name = \"value\" }, and a text that \
                           begins so in quotes";
            return Err(ConfigError { origin: bad.name.clone(), key: Some(bad.key.clone()), problem: problem.into() });
        }
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match self.0.iter().find(|variable| !variable.key.split('.').all(is_part)) {
            Some(bad) => {
                let problem = "names no key; write it like THROUGHWAY__TURN__REALM for turn.realm".to_owned();
                Err(ConfigError { origin: bad.name.clone(), key: None, problem })
            }
            None => Ok(()),
        }
    }

    fn name_of(&self, key: &str) -> Option<&str> {
        let holds = |variable: &&Variable| {
            key == variable.key || key.strip_prefix(&variable.key).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        self.0.iter().find(holds).map(|variable| variable.name.as_str())
    }
}

impl Source for Environment {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let value = |variable: &Variable| {
            let kind = toml_value(&variable.text).unwrap_or_else(|| ValueKind::String(variable.text.clone()));
            (variable.key.clone(), Value::new(Some(&variable.name), kind))
        };
        Ok(self.0.iter().map(value).collect())
    }
}

/// `THROUGHWAY__TURN__REALM` stands for `turn.realm`.
fn key_of((name, text): (String, String)) -> Option<Variable> {
    let key = name.strip_prefix("THROUGHWAY__")?.to_ascii_lowercase().replace("__", ".");
    Some(Variable { name, key, text })
}

fn toml_value(text: &str) -> Option<ValueKind> {
    let source = File::from_str(&format!("value = {text}"), FileFormat::Toml);
    let mut table = source.collect().ok()?;
    let value = table.remove("value")?;
    table.is_empty().then_some(value.kind)
}

/// The first key of `tree` that `known` doesn't have, by its whole path, and what may have been meant.
fn unknown_key(tree: &serde_json::Value, known: &serde_json::Value, path: &str) -> Option<(String, String)> {
    let (Some(tree), Some(known)) = (tree.as_object(), known.as_object()) else { return None };
    if path == "turn.users" {
        return None;
    }
    tree.iter().find_map(|(name, value)| {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match known.get(name) {
            Some(known) => unknown_key(value, known, &key),
            None => Some((key, instead_of(name, known, path))),
        }
    })
}

fn instead_of(name: &str, known: &serde_json::Map<String, serde_json::Value>, path: &str) -> String {
    let whole = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let nearest = known
        .keys()
        .map(|key| (strsim::jaro_winkler(name, key), key))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, key)) => format!("no such key; did you mean {}?", whole(key)),
        None => {
            let table = if path.is_empty() { "at the top".to_owned() } else { format!("in [{path}]") };
            let keys: Vec<_> = known.keys().map(String::as_str).collect();
            format!("no such key; {table} there are {}", keys.join(", "))
        }
    }
}

/// The crate's error as a key, where it knows one, and a line of ours.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn in_words(error: config::ConfigError) -> (Option<String>, String) {
    match error {
        config::ConfigError::Type { unexpected, expected, key, .. } => {
            (key, format!("{} is not {}", found(&unexpected.to_string()), wanted(expected)))
        }
        config::ConfigError::At { error, key, .. } => {
            let (inner, problem) = in_words(*error);
            (key.or(inner), problem)
        }
        config::ConfigError::FileParse { cause, .. } => {
            // Where it is stands in the first line, what it is in the last; the lines between draw an arrow.
            let text = cause.to_string();
            let lines: Vec<_> = text.lines().collect();
            let (first, last) = (lines.first().copied().unwrap_or_default(), lines.get(1..).and_then(<[_]>::last));
            (None, last.map_or_else(|| first.to_owned(), |last| format!("{first}: {last}")))
        }
        other => {
            let text = other.to_string();
            let kinds = text.strip_prefix("invalid type: ").and_then(|kinds| kinds.split_once(", expected "));
            (None, kinds.map_or(text.clone(), |(is, should)| format!("{} is not {}", found(is), wanted(should))))
        }
    }
}

/// What stands there, from the crate's "string \"x\"" or "64-bit integer `5`".
fn found(unexpected: &str) -> &str {
    match unexpected {
        "sequence" => "a list",
        "map" => "a table",
        "unit value" => "nothing",
        other => match other.split_once('`') {
            Some((_, value)) => value.trim_end_matches('`'),
            None => other.strip_prefix("string ").unwrap_or(other),
        },
    }
}

/// What should stand there, from the crate's words.
fn wanted(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        "an array" | "a sequence" => "a list: put it in square brackets, such as [\"...\"]",
        "a map" => "a table: write { name = \"value\" } or a line [table] with its keys below",
        other if other.starts_with("struct ") => "a table: write a line [table] with its keys below",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_both(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        read(text, "t.toml", environment).map(|(config, _)| config).map_err(|error| error.to_string())
    }

    #[test]
    fn the_manual_shows_every_key_with_its_default_and_no_other() {
        let manual = include_str!("../../config/throughway.toml");
        let tree =
            ConfigBuilder::<DefaultState>::default().add_source(File::from_str(manual, FileFormat::Toml)).build();

        let shown: serde_json::Value = tree.unwrap().try_deserialize().unwrap();

        assert_eq!(shown, serde_json::to_value(Config::default()).unwrap());
        assert_eq!(read_both(manual, &[]), Ok(Config::default()));
        assert_eq!(read_both("", &[]), Ok(Config::default()));
    }

    #[test]
    fn bad_values_are_refused_in_one_line_that_names_key_fault_and_cure() {
        for (text, line) in [
            ("[http]\nlistn = []", "http.listn: no such key; did you mean http.listen?"),
            ("[htpp]\nlisten = []", "htpp: no such key; did you mean http?"),
            ("[log]\nx = 1", "log.x: no such key; in [log] there are format, level"),
            ("turn = 5", "turn: 5 is not a table"),
            ("[http]\nlisten = '[::]:1'", "http.listen: \"[::]:1\" is not a list: put it in square brackets"),
            ("[http]\nlisten = ['[::]:1', '8443']", "http.listen[1]: \"8443\" is not an IP address and port"),
            ("[http]\nplain_listen = ['[::]:8443']", "http.plain_listen: \"[::]:8443\" already stands in http.listen"),
            ("[http]\nallowed_origins = ['a']", "http.allowed_origins[0]: \"a\" is not an origin"),
            ("[http]\nrequire_origin = 'maybe'", "http.require_origin: \"maybe\" is not true or false"),
            ("[tls]\nmode = 'file'", "tls.mode: \"file\" is none of \"self-signed\", \"files\", \"acme\""),
            ("[tls]\nmode = 'files'", "tls.certificate: is empty"),
            (
                "[tls]\nmode = 'acme'",
                "tls.acme.domains: is empty, and so is public_host: tls.mode = \"acme\" needs the names",
            ),
            (
                "public_host = '192.0.2.1'\n[tls]\nmode = 'acme'",
                "tls.acme.domains: is empty, and public_host is the address \"192.0.2.1\": authorities certify names",
            ),
            (
                "[tls.acme]\ndomains = ['*.a.org']",
                "tls.acme.domains[0]: \"*.a.org\" is a wildcard, which takes a proof by DNS (DNS-01)",
            ),
            ("[tls.acme]\ndomains = ['::1']", "tls.acme.domains[0]: \"::1\" is an address: authorities certify names"),
            ("[tls.acme]\ndomains = ['']", "tls.acme.domains[0]: \"\" is not a host name"),
            ("[tls.acme]\nemail = 'admin'", "tls.acme.email: \"admin\" is not an e-mail address: write one such as"),
            (
                "[tls.acme]\ndirectory = 'http://a.org/d'",
                "tls.acme.directory: \"http://a.org/d\" is not https: write the URL of the authority's directory",
            ),
            ("[tls.acme]\ndirectory = ''", "tls.acme.directory: \"\" is not https"),
            (
                "[tls.acme]\nchallenges = ['dns-01']",
                "tls.acme.challenges[0]: \"dns-01\" is none of \"tls-alpn-01\", \"http-01\"",
            ),
            ("[tls.acme]\nchallenges = []", "tls.acme.challenges: is empty: write \"tls-alpn-01\""),
            ("[tls.acme]\nchallenges = ['http-01', 'http-01']", "tls.acme.challenges: \"http-01\" stands there twice"),
            ("[turn]\nrealm = ''", "turn.realm: \"\" is not a realm: write 1 to 127 characters"),
            ("[turn]\nrelay_ports = '9-8'", "turn.relay_ports: \"9-8\" is not a port range: write two ports"),
            ("[turn]\nrelay_ip = ['a']", "turn.relay_ip[0]: \"a\" is not an IP address"),
            ("[turn]\nrelay_ip = ['::']", "turn.relay_ip: \"::\" is no address to relay from"),
            ("[turn]\nexternal_ip = ['::1/1.2.3.4']", "turn.external_ip[0]: \"::1/1.2.3.4\" is not an external"),
            ("[turn]\nsecrets = ['']", "turn.secrets[0]: is empty"),
            ("[turn.users]\na = []", "turn.users.a: is not a text in quotes"),
            (
                "[turn]\ncredential_life = '59s'",
                "turn.credential_life: \"59s\" is out of range: write one from \"1m\" to \"7d\"",
            ),
            (
                "[turn]\nexpired_grace = '8d'",
                "turn.expired_grace: \"8d\" is out of range: write one from \"0s\" to \"7d\"",
            ),
            ("[admin]\ntoken = 'short'", "admin.token: is too short or has spaces: write at least 16"),
            ("[turn.peers]\nmode = 'none'", "turn.peers.mode: \"none\" is none of \"any\", \"signaled\""),
            ("[turn.peers]\ndeny = ['10/8']", "turn.peers.deny[0]: \"10/8\" is not an address or prefix"),
            (
                "[turn.limits]\nallocations_per_member = -1",
                "turn.limits.allocations_per_member: -1 is not a whole number from 1 to 100000",
            ),
            ("[turn.limits]\nchallenges = '5'", "turn.limits.challenges: \"5\" is not a rate: write a number from 1"),
            (
                "[turn.limits]\nbandwidth = '32MiB'",
                "turn.limits.bandwidth: \"32MiB\" is not a throughput: write a number and one of B/s, KiB/s",
            ),
            (
                "[turn.limits]\nbandwidth_per_allocation = '2TiB/s'",
                "turn.limits.bandwidth_per_allocation: \"2TiB/s\" is out of range: write one from \"0B/s\" (no limit) to",
            ),
            (
                "[turn.limits]\nbytes_per_day = 'none'",
                "turn.limits.bytes_per_day: \"none\" is not a size: write a number",
            ),
            ("[signaling]\nmessage_bytes = '1GiB'", "signaling.message_bytes: \"1GiB\" is out of range"),
            (
                "[signaling]\nmessage_bytes = '65KiB'",
                "signaling.queue_bytes: \"256KiB\" is room for less than four messages of signaling.message_bytes",
            ),
            (
                "[signaling.limits]\nmembers_per_room = 1001",
                "signaling.limits.members_per_room: 1001 is not a whole number from 2 to 1000",
            ),
            (
                "[signaling]\ngone_after = '10s'",
                "signaling.gone_after: \"10s\" is not longer than signaling.ping_every",
            ),
            ("[signaling.accounts]\nmode = 'token'", "signaling.accounts.token: is empty"),
            ("[signaling.accounts]\nmode = 'token'\ntoken = 'short'", "signaling.accounts.token: is too short"),
            (
                "[signaling.accounts]\ntoken = 'sixteenletters16'",
                "signaling.accounts.token: is not asked for while signaling.accounts.mode is \"open\": write mode = \"token\"",
            ),
            (
                "[signaling.accounts]\nmode = 'jwt'",
                "signaling.accounts.jwt: is empty: signaling.accounts.mode = \"jwt\" needs",
            ),
            (
                "[signaling.accounts.jwt]\njwks = '/keys.json'",
                "signaling.accounts.jwt: is not asked for while signaling.accounts.mode is \"open\": write mode = \"jwt\"",
            ),
            ("[signaling.accounts]\nmode = 'webhook'", "signaling.accounts.webhook.url: is empty"),
            (
                "[signaling.accounts.webhook]\nurl = 'a.org/x'",
                "signaling.accounts.webhook.url: is not a URL: write one such as",
            ),
            (
                "[signaling.accounts.jwt]\nsecret = 'thirtyone characters and no more'",
                "signaling.accounts.jwt.secret: is too short or has spaces",
            ),
            (
                "[signaling.accounts]\nmode = 'jwt'\n[signaling.accounts.jwt]\nsecret = 'thirty-one_characters_no_moreee'",
                "signaling.accounts.jwt.secret: is shorter than the 32 characters that HS256 takes: write a long",
            ),
            (
                "[signaling]\nsign_in_within = '3s'\n[signaling.accounts]\nmode = 'webhook'\n\
                 [signaling.accounts.webhook]\nurl = 'HTTPS://a.org'\nsecret = '0123456789abcdef'",
                "signaling.accounts.webhook.timeout: \"3s\" is not shorter than signaling.sign_in_within",
            ),
            (
                "[signaling]\nping_every = '1s'\ngone_after = '2s'\n[signaling.accounts]\nmode = 'webhook'\n\
                 [signaling.accounts.webhook]\nurl = 'https://a.org'\nsecret = '0123456789abcdef'",
                "signaling.accounts.webhook.timeout: \"3s\" is not shorter than signaling.gone_after",
            ),
            (
                "[signaling.accounts]\nmode = 'webhook'\n[signaling.accounts.webhook]\nurl = 'https://a.org/x?y'",
                "signaling.accounts.webhook.secret: is empty",
            ),
            (
                "[signaling.accounts.webhook]\ntimeout = '2m'",
                "signaling.accounts.webhook.timeout: \"2m\" is out of range: write one from \"100ms\" to \"1m\"",
            ),
            ("public_host = 'https://a'", "public_host: \"https://a\" is not a host name"),
            ("a = \nb", "TOML parse error at line 2, column 2: key with no value"),
        ] {
            let error = read_both(text, &[]).unwrap_err();

            assert!(error.starts_with(&format!("t.toml: {line}")), "{text}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn the_environment_goes_above_the_file_and_takes_toml_where_it_can() {
        let config = read_both(
            "[turn]\nrealm = 'file'\nrelay_ports = '2000-3000'",
            &[
                ("THROUGHWAY__TURN__REALM", "example.org"),
                ("THROUGHWAY__HTTP__LISTEN", "['[::]:443']"),
                ("THROUGHWAY__TURN__LIMITS__CHALLENGE_BURST", "7"),
                ("THROUGHWAY__SIGNALING__WHO", "true"),
                ("THROUGHWAY__TURN__USERS", "{ Camera = 'hunter2' }"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();

        assert_eq!((config.turn.realm.as_str(), config.turn.relay_ports.first), ("example.org", 2000));
        assert_eq!(config.http.listen, [Listen::everywhere(443)]);
        assert_eq!(config.turn.limits.challenge_burst.get(), 7);
        assert!(config.signaling.who);
        assert_eq!(config.turn.users["Camera"].reveal(), "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"), "no secret is ever shown");
    }

    #[test]
    fn each_key_that_is_set_is_told_with_where_it_comes_from() {
        let text =
            "public_host = 'a.org'\n[turn]\nrealm = 'file'\nusers = { a = 'x' }\n[turn.limits]\nbandwidth = '1MiB/s'";
        let environment = [("THROUGHWAY__TURN__REALM".to_owned(), "b".to_owned())];

        let (_, origins) = read(text, "t.toml", environment.into_iter()).unwrap();

        let told: Vec<_> = origins.iter().map(|(key, origin)| (key.as_str(), origin.as_str())).collect();
        assert_eq!(
            told,
            [
                ("public_host", "t.toml"),
                ("turn.limits.bandwidth", "t.toml"),
                ("turn.realm", "THROUGHWAY__TURN__REALM"),
                ("turn.users", "t.toml"),
            ]
        );
    }

    #[test]
    fn errors_of_the_environment_name_the_variable() {
        for (name, value, line) in [
            ("THROUGHWAY__TURN__REALMM", "x", "turn.realmm: no such key; did you mean turn.realm?"),
            ("THROUGHWAY__HTTP__LISTEN", "x", "http.listen: \"x\" is not a list"),
            ("THROUGHWAY__HTTP__LISTEN", "['x']", "http.listen[0]: \"x\" is not an IP address and port"),
            ("THROUGHWAY__TURN__SECRETS", "hunter2", "turn.secrets: is not a list"),
            ("THROUGHWAY__TURN__SECRETS", "[\"hunter2\"", "turn.secrets: begins like a list or table and is none"),
            ("THROUGHWAY__LOG__LEVEL", "x", "log.level: \"x\" is none of"),
            ("THROUGHWAY__TURN__REALM", "''", "turn.realm: \"\" is not a realm"),
            ("THROUGHWAY__", "x", "names no key"),
            ("THROUGHWAY__A-B", "x", "names no key"),
        ] {
            let error = read_both("", &[(name, value)]).unwrap_err();

            assert!(error.starts_with(&format!("{name}: {line}")), "{error}");
        }
    }
}
