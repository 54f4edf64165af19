//! Which keys two configurations differ in, without saying how.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Config;
use super::source::SECRET;

impl Config {
    /// The keys whose values differ, dotted and sorted.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut keys = BTreeSet::new();
        compare("", &tree(self), &tree(other), &mut keys);
        // As texts all secrets are alike.
        let differ = self.secrets().zip(other.secrets()).filter(|((_, own), (_, others))| own != others);
        keys.extend(differ.map(|((key, _), _)| key.to_owned()));
        keys.into_iter().collect()
    }

    /// Every key there is, dotted and sorted.
    #[cfg(test)]
    pub(crate) fn keys() -> Vec<String> {
        let mut keys = BTreeSet::new();
        compare("", &tree(&Self::default()), &Value::Null, &mut keys);
        keys.into_iter().collect()
    }

    /// The values of [`SECRET`] keys, as what can only be compared.
    fn secrets(&self) -> impl Iterator<Item = (&'static str, impl PartialEq)> {
        let Self { turn, signaling, admin, .. } = self;
        let accounts = &signaling.accounts;
        let hidden = |token: &super::Token| token.reveal().map(str::to_owned).into_iter().collect::<Vec<_>>();
        SECRET.iter().map(move |key| {
            let values = match *key {
                "turn.secrets" => turn.secrets.iter().map(|secret| secret.reveal().to_owned()).collect(),
                "turn.ice_servers" => turn.ice_servers.iter().map(|server| server.reveal().to_string()).collect(),
                "turn.users" => turn
                    .users
                    .iter()
                    .flat_map(|(name, password)| [name.clone(), password.reveal().to_owned()])
                    .collect(),
                "signaling.accounts.token" => hidden(&accounts.token),
                "signaling.accounts.jwt.secret" => hidden(&accounts.jwt.secret),
                "signaling.accounts.webhook.secret" => hidden(&accounts.webhook.secret),
                "signaling.accounts.webhook.url" => vec![accounts.webhook.url.as_str().to_owned()],
                "admin.token" => hidden(&admin.token),
                _ => Vec::new(),
            };
            (*key, values)
        })
    }
}

fn tree(config: &Config) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// Adds the keys below `path` that one value has otherwise than the other.
fn compare(path: &str, one: &Value, other: &Value, keys: &mut BTreeSet<String>) {
    // The keys of one table are names of people.
    if let Some(table) = one.as_object().filter(|_| path != "turn.users") {
        for (name, value) in table {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            compare(&key, value, other.get(name).unwrap_or(&Value::Null), keys);
        }
    } else if one != other {
        keys.insert(path.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(json: Value) -> Config {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn every_secret_is_noticed_when_it_changes_and_none_is_said() {
        for key in SECRET {
            let with = |text: &str| {
                let value = match *key {
                    "turn.secrets" => json!([text]),
                    "turn.users" => json!({ "alice": text }),
                    "turn.ice_servers" => json!([{ "urls": "turn:a", "username": "b", "credential": text }]),
                    "signaling.accounts.webhook.url" => json!(format!("https://{text}")),
                    _ => json!(text),
                };
                config(key.rsplit('.').fold(value, |inner, name| json!({ name: inner })))
            };
            let (one, other) = (with("a-secret-of-at-least-32-characters"), with("another-one-of-at-least-32-chars"));

            assert_eq!(one.differences(&other), [*key]);
            assert_eq!(one.differences(&one.clone()), [""; 0]);
        }
    }

    #[test]
    fn lists_and_users_are_keys_and_tables_are_not() {
        let one = config(json!({ "turn": { "users": { "alice": "a" } } }));
        let other = config(json!({
            "turn": { "users": { "bob": "a" }, "ice_servers": [{ "urls": "stun:a" }], "peers": { "deny": ["8.8.8.8"] } },
            "signaling": { "limits": { "messages": "7/s" } },
        }));

        assert_eq!(
            one.differences(&other),
            ["signaling.limits.messages", "turn.ice_servers", "turn.peers.deny", "turn.users"]
        );
    }
}
