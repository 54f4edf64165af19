//! From texts to [`Config`]: the file, the environment on top, and errors in the operator's words.

use config::ConfigBuilder;
use config::File;
use config::Source;
use config::builder::DefaultState;

use super::*;

/// Reads `text`, called `origin` in errors, and `environment` on top.
pub(super) fn read(
    text: &str,
    origin: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let in_file = |key: Option<&str>, problem: String| ConfigError {
        origin: origin.to_owned(),
        key: key.map(str::to_owned),
        problem,
    };
    let environment = Environment(environment.filter_map(key_of).collect());
    let merged = ConfigBuilder::<DefaultState>::default()
        .add_source(File::from_str(text, FileFormat::Toml))
        .add_source(environment.clone())
        .build()
        .map_err(|error| in_words(error, origin))?;
    let tree: serde_json::Value = merged.clone().try_deserialize().map_err(|error| in_words(error, origin))?;
    let known = serde_json::to_value(Config::default()).map_err(|error| in_file(None, error.to_string()))?;
    if let Some((key, problem)) = unknown_key(&tree, &known, "") {
        let origin = environment.name_of(&key).unwrap_or(origin).to_owned();
        return Err(ConfigError { origin, key: Some(key), problem });
    }
    let config: Config = merged.try_deserialize().map_err(|error| in_words(error, origin))?;
    config.check().map_err(|(key, problem)| {
        let origin = environment.name_of(key).unwrap_or(origin).to_owned();
        ConfigError { origin, key: Some(key.to_owned()), problem }
    })?;
    Ok(config)
}

/// Variables that are ours: the key, and what stands in the variable.
#[derive(Clone, Debug)]
struct Environment(Vec<Variable>);

#[derive(Clone, Debug)]
struct Variable {
    name: String,
    key: String,
    text: String,
}

impl Environment {
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

/// The crate's error in one line of ours.
fn in_words(error: config::ConfigError, origin: &str) -> ConfigError {
    let ours = |origin: Option<String>, found: &str, key: Option<String>, problem| ConfigError {
        origin: origin.unwrap_or_else(|| found.to_owned()),
        key,
        problem,
    };
    match error {
        config::ConfigError::Type { origin: place, unexpected, expected, key } => {
            ours(place, origin, key, format!("{} is not {}", found(&unexpected.to_string()), wanted(expected)))
        }
        config::ConfigError::At { error, origin: place, key } => {
            let inner = in_words(*error, place.as_deref().unwrap_or(origin));
            ConfigError { key: key.or(inner.key), ..inner }
        }
        config::ConfigError::FileParse { cause, .. } => {
            let text = cause.to_string();
            let mut lines = text.lines();
            let first = lines.next().unwrap_or_default();
            let problem = match lines.next_back() {
                Some(last) => format!("{first}: {last}"),
                None => first.to_owned(),
            };
            ours(None, origin, None, problem)
        }
        other => ours(None, origin, None, other.to_string()),
    }
}

/// What stands there instead, from the crate's "string \"x\"" or "64-bit integer `5`".
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

fn wanted(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        "an array" => "a list: put it in square brackets",
        "a map" => "a table",
        other => other,
    }
}
