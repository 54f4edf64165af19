//! Accounts by signed tokens: of each algorithm, from each kind of key.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair;
use serde_json::Value;
use serde_json::json;
use throughway::clock::Clock;

use super::super::OBJECTS;
use super::super::config;
use crate::ground::refusal;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::client::Client;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// How a token is signed.
enum Signer {
    Secret,
    Pair(Ed25519KeyPair),
}

impl Signer {
    fn pair() -> Self {
        Self::Pair(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap())
    }

    /// A token for `sub` that expires in so many seconds.
    fn token(&self, sub: &str, expires_in: i64) -> String {
        let now = i64::try_from(Clock::system().now().unix.as_secs()).unwrap();
        let alg = if matches!(self, Self::Secret) { "HS256" } else { "EdDSA" };
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({ "alg": alg, "kid": "one" }));
        let text = format!("{header}.{}", part(json!({ "sub": sub, "exp": now + expires_in })));
        let signature = match self {
            Self::Secret => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
                BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()))
            }
            Self::Pair(pair) => BASE64_URL_SAFE_NO_PAD.encode(pair.sign(text.as_bytes())),
        };
        format!("{text}.{signature}")
    }

    fn public(&self) -> Vec<u8> {
        let Self::Pair(pair) = self else { panic!("a secret has none") };
        pair.public_key().as_ref().to_owned()
    }
}

fn signed(keys: &str, more: &str) -> String {
    config(&format!("[signaling.accounts]\nmode = \"jwt\"\n[signaling.accounts.jwt]\n{keys}\n{more}"))
}

fn by_secret(more: &str) -> String {
    signed(&format!("secret = \"{SECRET}\""), more)
}

async fn log_in(server: &Server, login: Value) -> (Client, Value) {
    let mut client = Client::connect(server.http(), OBJECTS).await;
    client.send(&login).await;
    let reply = client.hear().await;
    (client, reply)
}

#[tokio::test]
async fn who_has_a_token_signs_in_by_its_subject_and_by_no_other_name() {
    let home = tempfile::tempdir().unwrap();
    let (pem, jwks) = (home.path().join("key.pem"), home.path().join("keys.json"));
    let public = Signer::pair().public();
    let der = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], &*public].concat();
    let der = BASE64_STANDARD.encode(der);
    std::fs::write(&pem, format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")).unwrap();
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "one", "x": BASE64_URL_SAFE_NO_PAD.encode(&public) });
    std::fs::write(&jwks, json!({ "keys": [{ "kty": "RSA" }, key] }).to_string()).unwrap();

    for (toml, signer) in [
        (by_secret(""), Signer::Secret),
        (signed(&format!("public_key = \"{}\"", pem.display()), ""), Signer::pair()),
        (signed(&format!("jwks = \"{}\"", jwks.display()), ""), Signer::pair()),
    ] {
        let server = Server::start(&toml);
        let token = signer.token("Zo\u{eb}", 600);
        let refused = json!({ "type": "login", "success": false, "reason": "auth" });
        for login in [
            json!({ "type": "login", "name": "Zo\u{eb}" }),
            json!({ "type": "login", "name": "bob", "token": token }),
            json!({ "type": "login", "name": "bob", "token": token, "v": 2 }),
            json!({ "type": "login", "token": signer.token("Zo\u{eb}", -61) }),
            json!({ "type": "login", "token": format!("{token}A") }),
            json!({ "type": "login", "token": SECRET }),
        ] {
            assert_eq!(log_in(&server, login.clone()).await.1, refused, "{login}");
        }
        let bad = json!({ "type": "login", "name": "a\u{200b}", "token": token });
        assert_eq!(log_in(&server, bad).await.1["reason"], "bad-name");
        for login in [
            json!({ "type": "login", "token": token }),
            json!({ "type": "login", "name": "", "token": token }),
            json!({ "type": "login", "name": "Zoe\u{308}", "token": token, "v": 2 }),
        ] {
            let (mut client, reply) = log_in(&server, login.clone()).await;
            assert_eq!((&reply["success"], &reply["name"]), (&json!(true), &json!("Zo\u{eb}")), "{login}");
            client.send(&json!({ "type": "bye" })).await;
            client.hear_out().await;
        }
        let mut by_url = Client::connect(server.http(), &format!("/ws?token={token}")).await;
        assert_eq!(by_url.log_in("Zo\u{eb}").await["success"], true);
        assert!(!server.log().contains(&token), "no token is logged");
    }
}

#[tokio::test]
async fn without_an_account_of_ones_own_a_login_needs_a_name() {
    let server = Server::start(&config(""));

    for login in [json!({ "type": "login" }), json!({ "type": "login", "name": "" })] {
        assert_eq!(log_in(&server, login).await.1["reason"], "bad-name");
    }
}

#[tokio::test]
async fn an_account_has_one_quota_for_its_session_and_what_it_gets_from_ice() {
    let server = Server::start(&by_secret("[turn.limits]\nallocations_per_member = 1\n"));
    let ice = async |sub: &str| {
        let header = format!("Authorization: Bearer {}\r\n", Signer::Secret.token(sub, 600));
        let (status, _, body) = server.ask("GET /ice", &header, "").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let allocates = async |servers: &Value| {
        let text = |key: &str| servers[1][key].as_str().unwrap().to_owned();
        let asker = Asker::new(server.udp(), &text("username"), &text("credential")).await;
        code(&asker.ask(ALLOCATE, &[UDP]).await)
    };
    let (_alice, reply) =
        log_in(&server, json!({ "type": "login", "token": Signer::Secret.token("alice", 600) })).await;

    assert_eq!(allocates(&reply["iceServers"]).await, 0);
    assert_eq!(allocates(&ice("alice").await).await, 486);
    assert_eq!(allocates(&ice("bob").await).await, 0);
    assert_eq!(allocates(&ice("bob").await).await, 486);
    assert_eq!(server.ask("GET /ice", "", "").await.0, 401);
}

#[tokio::test]
async fn a_session_goes_on_when_the_token_it_began_with_expires() {
    let server = Server::start(&by_secret(""));
    // Within the leeway, a token that has expired already begins one.
    let token = Signer::Secret.token("alice", -30);

    let (mut alice, reply) = log_in(&server, json!({ "type": "login", "v": 2, "token": token })).await;
    assert_eq!(reply["success"], true, "{reply}");
    alice.send(&json!({ "type": "ice", "id": 1 })).await;

    assert_eq!(alice.hear().await["iceTtl"], 3600);
}

#[test]
fn keys_that_can_not_be_used_stop_the_start_in_one_line_that_names_key_file_and_cure() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("keys");
    let huge = format!("{{\"keys\":[]{}}}", " ".repeat(300_000));

    for (key, text, line) in [
        (
            "secret",
            "0123456789abcdef",
            "signaling.accounts.jwt.secret: is shorter than the 32 characters that HS256 takes: write",
        ),
        ("public_key", "PEM", "is no Ed25519 public key in PEM: write"),
        ("jwks", "{", "is no JWK Set: write"),
        ("jwks", "{\"keys\":[]}", "has no key for signatures of kty \"oct\""),
        ("jwks", &*huge, "is larger than 262144 bytes: leave out"),
    ] {
        std::fs::write(&file, text).unwrap();
        let value = if key == "secret" { text.to_owned() } else { file.display().to_string() };
        let refused = refusal(&signed(&format!("{key} = \"{value}\""), ""));

        assert!(refused.contains(line), "{refused}");
        if key != "secret" {
            let place = format!("signaling.accounts.jwt.{key}: {}: ", file.display());
            assert!(refused.contains(&place), "{refused}");
        }
    }
    let missing = refusal(&signed("jwks = \"/nonexistent/keys.json\"", ""));
    assert!(missing.contains("/nonexistent/keys.json: cannot be read: No such file"), "{missing}");
}
