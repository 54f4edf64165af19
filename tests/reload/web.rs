//! What a reload means for who is signed in, and for who comes.

use std::fs;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;
use serde_json::json;
use throughway::clock::Clock;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::Running;
use super::config;
use crate::support::PATIENCE;
use crate::support::Server;
use crate::support::client::Client;

const PEERJS: &str = "/peerjs?key=peerjs&id=alice&token=t";
const UPGRADE: &str = "/ws";

/// The status of a WebSocket's upgrade.
async fn upgrades(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> u16 {
    let stream = TcpStream::connect(server.http()).await.unwrap();
    Client::over(stream, path, headers).await.map_or_else(|status| status, |_| 101)
}

async fn gets(server: &Server, path: &str, headers: &str) -> u16 {
    server.ask(&format!("GET {path}"), headers, "").await.0
}

#[tokio::test]
async fn a_gateway_that_is_switched_off_ends_its_clients_and_is_gone_until_it_is_on_again() {
    let off = "[signaling.gateways]\nsocketio = false\npeerjs = false\npubsub = false\nayame = false\n";
    let running = Running::start(&config(&[], ""));
    let server = &running.server;
    let mut ours = Client::sign_in(server.http(), UPGRADE, "alice").await;
    let mut others = Vec::new();
    for path in [PEERJS, "/pubsub", "/signaling", "/socket.io/?EIO=4&transport=websocket"] {
        others.push(Client::connect(server.http(), path).await);
    }
    let opening = server.ask("GET /socket.io/?EIO=4&transport=polling", "", "").await.2;
    let opening: Value = serde_json::from_str(&opening[1..]).unwrap();
    let polling = format!("/socket.io/?EIO=4&transport=polling&sid={}", opening["sid"].as_str().unwrap());
    let names = ["ayame", "peerjs", "pubsub", "socketio"].map(|name| format!("signaling.gateways.{name}")).join(", ");

    running.applies(&config(&[], off), &names).await;

    for client in &mut others {
        let mut code = None;
        while let Some(message) = client.next().await {
            if let Message::Close(Some(close)) = message {
                code = Some(u16::from(close.code));
            }
        }
        assert_eq!(code, Some(1001));
    }
    ours.is_served().await;
    for path in [PEERJS, "/peerjs/id", "/pubsub", "/signaling", "/socket.io/socket.io.js", &polling] {
        assert_eq!(gets(server, path, "").await, 404, "{path}");
    }
    assert_eq!(server.ask("GET /gateways", "", "").await.2, "[]");
    server.metric_becomes("throughway_connections", 1).await;
    server.metric_becomes("throughway_members", 1).await;
    running.applies(&config(&[], ""), &names).await;
    assert_eq!(
        server.ask("GET /gateways", "", "").await.2,
        json!(["socketio", "peerjs", "pubsub", "ayame"]).to_string()
    );
    assert_eq!(upgrades(server, PEERJS, &[]).await, 101, "the name is free");
    assert_eq!(gets(server, &polling, "").await, 400, "that session is over");
    ours.is_served().await;
}

#[tokio::test]
async fn the_operators_token_is_another_one_at_once_or_none() {
    let token = |token| config(&[], &format!("[admin]\ntoken = \"{token}\"\n"));
    let running = Running::start(&config(&[], ""));
    let members = async |token: &str| {
        gets(&running.server, "/admin/members", &format!("Authorization: Bearer {token}\r\n")).await
    };
    let [one, other] = ["0123456789abcdef", "fedcba9876543210"];
    assert_eq!(members(one).await, 404);

    running.applies(&token(one), "admin.token").await;
    assert_eq!([members(one).await, members(other).await], [200, 401]);
    running.applies(&token(other), "admin.token").await;
    assert_eq!([members(one).await, members(other).await], [401, 200]);
    running.applies(&config(&[], ""), "admin.token").await;

    assert_eq!(members(other).await, 404);
    assert!(!running.server.log().contains(one) && !running.server.log().contains(other));
}

#[tokio::test]
async fn other_pages_may_come_and_others_not() {
    let origins = |http: &str| config(&[], "").replace("[http]\n", &format!("[http]\n{http}\n"));
    let running = Running::start(&origins(""));
    let from = async |origin| upgrades(&running.server, UPGRADE, &[("origin", origin)]).await;
    assert_eq!(from("https://a.example.org").await, 403);

    running.applies(&origins("allowed_origins = [\"https://a.example.org\"]"), "http.allowed_origins").await;
    assert_eq!([from("https://a.example.org").await, from("https://b.example.org").await], [101, 403]);
    let called = format!("public_host = \"b.example.org\"\n{}", origins("require_origin = true"));
    running.applies(&called, "http.allowed_origins, http.require_origin, public_host").await;

    assert_eq!([from("https://a.example.org").await, from("https://b.example.org").await], [403, 101]);
    assert_eq!(upgrades(&running.server, UPGRADE, &[]).await, 403);
}

#[tokio::test]
async fn who_comes_next_must_show_what_is_asked_for_by_then_and_who_is_there_stays() {
    let accounts = |accounts: &str| config(&[], &format!("[signaling.accounts]\n{accounts}\n"));
    let running = Running::start(&accounts(""));
    let server = &running.server;
    let mut alice = Client::sign_in(server.http(), UPGRADE, "alice").await;
    let keys = running.home().join("keys.json");
    let jwks = format!("mode = \"jwt\"\n[signaling.accounts.jwt]\njwks = \"{}\"\n", keys.display());
    let put = |key: &str| {
        let set = json!({ "keys": [{ "kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode(key) }] });
        fs::write(&keys, set.to_string()).unwrap();
    };
    let [one, other] = ["a-key-of-at-least-32-characters-1", "a-key-of-at-least-32-characters-2"];
    let with = async |token: &str| gets(server, &format!("/ice?token={token}"), "").await;

    running
        .applies(
            &accounts("mode = \"token\"\ntoken = \"0123456789abcdef\""),
            "signaling.accounts.mode, signaling.accounts.token",
        )
        .await;
    assert_eq!([with("").await, with("0123456789abcdef").await], [401, 200]);
    put(one);
    running.reload(&accounts(&jwks)).await;
    assert_eq!([with(&signed(one)).await, with(&signed(other)).await], [200, 401]);
    put(other);
    running.reload(&accounts(&jwks)).await;
    assert_eq!([with(&signed(one)).await, with(&signed(other)).await], [401, 200], "the file was read again");

    alice.is_served().await;
    let lines = running.reload(&accounts("")).await;
    assert!(lines.iter().any(|line| line.contains("WARN accounts are open")), "{lines:?}");
    assert_eq!(with("").await, 200);
}

/// A token of bob's.
fn signed(key: &str) -> String {
    let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let expiry = Clock::system().now().unix.as_secs() + 600;
    let said = format!("{}.{}", part(&json!({ "alg": "HS256" })), part(&json!({ "sub": "bob", "exp": expiry })));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), said.as_bytes());
    format!("{said}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

#[tokio::test]
async fn other_limits_hold_for_who_is_there_and_fewer_places_put_nobody_out() {
    let limits = |signaling: &str, limits: &str| {
        config(&[], &format!("[limits]\nexempt = []\n[signaling]\n{signaling}\n[signaling.limits]\n{limits}\n"))
    };
    let running = Running::start(&limits("", ""));
    let server = &running.server;
    let mut alice = Client::connect(server.http(), UPGRADE).await;
    alice.send(&json!({ "type": "login", "name": "alice", "v": 2 })).await;
    assert_eq!(alice.hear().await["success"], true);
    let mut bob = Client::sign_in(server.http(), UPGRADE, "bob").await;

    running.applies(&limits("", "connections_per_source = 1"), "signaling.limits.connections_per_source").await;
    assert_eq!(upgrades(server, UPGRADE, &[]).await, 429);
    bob.is_served().await;
    running.applies(&limits("who = true", ""), "signaling.limits.connections_per_source, signaling.who").await;
    alice.send(&json!({ "type": "who" })).await;
    let who = alice.hear().await["members"].as_array().map(Vec::len);
    assert_eq!(who, Some(2), "in no order");
    running.applies(&limits("ping_every = \"1s\"", ""), "signaling.ping_every, signaling.who").await;
    assert!(bob.next().await.unwrap().is_ping(), "sooner than it would have been");
    let slower = limits("", "messages = \"1/m\"\nmessage_burst = 1");
    running.applies(&slower, "signaling.limits.message_burst, signaling.limits.messages, signaling.ping_every").await;
    for _ in 0..2 {
        alice.send(&json!({ "type": "ping" })).await;
    }
    let told = [alice.hear().await, alice.hear().await];
    assert_eq!(told.map(|frame| frame["type"].clone()), ["pong", "error"]);
}

#[tokio::test]
async fn other_proxies_and_balancers_are_believed_and_others_no_more() {
    let http = |http: &str| {
        let admin = "[admin]\ntoken = \"0123456789abcdef\"\n";
        config(&[], admin).replace("[http]\n", &format!("[http]\n{http}\n"))
    };
    let running = Running::start(&http(""));
    let server = &running.server;
    let source = async |name: &str| {
        let stream = TcpStream::connect(server.http()).await.unwrap();
        let mut client = Client::over(stream, UPGRADE, &[("x-forwarded-for", "192.0.2.1")]).await.unwrap();
        client.log_in(name).await;
        let listed = server.ask("GET /admin/members", "Authorization: Bearer 0123456789abcdef\r\n", "").await.2;
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let of_name = listed["members"].as_array().unwrap().iter().find(|member| member["name"] == name);
        of_name.unwrap()["source"].as_str().unwrap().to_owned()
    };
    // What a connection from 127.0.0.2 is told that announces nobody.
    let unannounced = async || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(server.http()).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed");
        answer.ends_with(b"ok\n")
    };
    assert_eq!((source("a").await, unannounced().await), ("127.0.0.1".into(), true));

    let both = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = [\"127.0.0.2\"]";
    running.applies(&http(both), "http.proxy_protocol, http.trusted_proxies").await;
    assert_eq!((source("b").await, unannounced().await), ("192.0.2.1".into(), false));
    running.applies(&http(""), "http.proxy_protocol, http.trusted_proxies").await;

    assert_eq!((source("c").await, unannounced().await), ("127.0.0.1".into(), true));
}
