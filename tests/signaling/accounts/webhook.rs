//! Accounts by asking a web service, which is played by the test.

use std::net::SocketAddr;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::super::OBJECTS;
use super::super::config;
use crate::support::PATIENCE;
use crate::support::Server;
use crate::support::client::Client;

const SECRET: &str = "0123456789abcdef";

/// A web service: what it was asked, in order.
struct Service {
    addr: SocketAddr,
    asked: mpsc::UnboundedReceiver<Value>,
}

impl Service {
    /// One that gives `answer`, status and body; none: it never answers.
    async fn start(answer: fn(&Value) -> Option<(u16, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (asks, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, asks.clone(), answer));
            }
        });
        Self { addr, asked }
    }

    fn config(&self, more: &str) -> String {
        let webhook = format!("url = \"http://{}/may?x=1\"\nsecret = \"{SECRET}\"", self.addr);
        config(&format!("[signaling.accounts]\nmode = \"webhook\"\n[signaling.accounts.webhook]\n{webhook}\n{more}"))
    }

    async fn next(&mut self) -> Value {
        tokio::time::timeout(PATIENCE, self.asked.recv()).await.expect("it is asked").unwrap()
    }
}

async fn serve(mut stream: TcpStream, asks: mpsc::UnboundedSender<Value>, answer: fn(&Value) -> Option<(u16, Value)>) {
    let mut request = Vec::new();
    let question = loop {
        if stream.read_buf(&mut request).await.unwrap() == 0 {
            return;
        }
        let text = String::from_utf8(request.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let Ok(question) = serde_json::from_str::<Value>(body) else { continue };
        assert!(head.starts_with("POST /may?x=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("authorization: Bearer {SECRET}")), "{head}");
        break question;
    };
    let answer = answer(&question);
    // The test may be over.
    let _ = asks.send(question);
    match answer {
        Some((status, body)) => {
            let body = body.to_string();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
            // Who asks may have given up.
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
        None => std::future::pending().await,
    }
}

/// What the service of these tests has to say to each token.
fn by_token(question: &Value) -> Option<(u16, Value)> {
    Some(match question["token"].as_str() {
        Some("good") => (200, json!({ "allow": true })),
        Some("alice") => (200, json!({ "allow": true, "name": "alice" })),
        Some("more") => {
            (200, json!({ "allow": true, "iceServers": [{ "urls": "turn:elsewhere.example", "username": "u" }] }))
        }
        Some("broken") => (500, json!({ "allow": true })),
        Some("strange") => (200, json!({ "allow": "yes" })),
        Some("stuck") => return None,
        Some(_) | None => (200, json!({ "allow": false, "reason": "who are you?" })),
    })
}

async fn log_in(server: &Server, name: Option<&str>, token: Option<&str>) -> (Client, Value) {
    let mut client = Client::connect(server.http(), OBJECTS).await;
    client.send(&json!({ "type": "login", "v": 2, "name": name, "token": token })).await;
    let reply = client.hear().await;
    (client, reply)
}

#[tokio::test]
async fn a_web_service_lets_in_refuses_and_says_whose_account_it_is() {
    let mut service = Service::start(by_token).await;
    let server = Server::start(&service.config(""));

    for (name, token, outcome) in [
        (Some("bob"), Some("good"), json!({ "success": true, "name": "bob" })),
        (None, Some("alice"), json!({ "success": true, "name": "alice" })),
        (Some("alice"), Some("alice"), json!({ "success": true, "name": "alice" })),
        (Some("bob"), Some("alice"), json!({ "success": false, "reason": "auth" })),
        (None, Some("good"), json!({ "success": false, "reason": "bad-name" })),
        (Some("bob"), None, json!({ "success": false, "reason": "auth" })),
        (Some("bob"), Some("bad"), json!({ "success": false, "reason": "auth" })),
        (Some("bob"), Some("broken"), json!({ "success": false, "reason": "rate" })),
        (Some("bob"), Some("strange"), json!({ "success": false, "reason": "rate" })),
    ] {
        let (mut client, reply) = log_in(&server, name, token).await;
        for (key, value) in outcome.as_object().unwrap() {
            assert_eq!(reply[key], *value, "{name:?} {token:?}: {reply}");
        }
        let expected =
            json!({ "name": name, "token": token, "source": "127.0.0.1", "host": "localhost", "gateway": "json" });
        assert_eq!(service.next().await, expected);
        client.send(&json!({ "type": "bye" })).await;
        client.hear_out().await;
    }
    assert!(server.log().contains("the answer's status is 500"), "{}", server.log());
    assert!(!server.log().contains(SECRET) && !server.log().contains("who are you?"));
}

#[tokio::test]
async fn ice_servers_of_the_web_service_stand_behind_ours_whenever_a_member_gets_some() {
    let mut service = Service::start(by_token).await;
    let server = Server::start(&service.config(""));
    let added = json!({ "urls": "turn:elsewhere.example", "username": "u" });

    let (mut bob, reply) = log_in(&server, Some("bob"), Some("more")).await;
    bob.send(&json!({ "type": "ice", "id": 1 })).await;
    let fresh = bob.hear().await;
    let (status, _, elsewhere) = server.ask("GET /ice?token=more", "", "").await;

    let elsewhere: Value = serde_json::from_str(&elsewhere).unwrap();
    for servers in [&reply["iceServers"], &fresh["iceServers"], &elsewhere] {
        assert_eq!((&servers[2], servers.as_array().unwrap().len()), (&added, 3), "{servers}");
    }
    assert_eq!(status, 200);
    service.next().await;
    assert_eq!(service.next().await["gateway"], "ice");
    assert_eq!(server.ask("GET /ice?token=bad", "", "").await.0, 401);
    assert_eq!(server.ask("GET /ice?token=broken", "", "").await.0, 503);
}

#[tokio::test]
async fn a_stuck_web_service_holds_up_nobody_but_who_asks_for_it() {
    let mut service = Service::start(by_token).await;
    let server = Server::start(&service.config("timeout = \"2s\""));
    let (mut alice, reply) = log_in(&server, Some("alice"), Some("good")).await;
    assert_eq!(reply["success"], true, "{reply}");
    let (mut bob, reply) = log_in(&server, Some("bob"), Some("good")).await;
    assert_eq!(reply["success"], true, "{reply}");
    let mut asking = Vec::new();
    for n in 0..100 {
        let mut client = Client::connect(server.http(), OBJECTS).await;
        client.send(&json!({ "type": "login", "name": format!("n{n}"), "token": "stuck" })).await;
        asking.push(client);
    }
    while service.next().await["token"] != "stuck" {}

    alice.send(&json!({ "type": "offer", "id": 1, "name": "bob", "offer": {} })).await;
    assert_eq!(bob.hear().await["name"], "alice");
    assert_eq!(server.ask("GET /healthz", "", "").await.0, 200);
    for mut client in asking {
        assert_eq!(client.hear().await["reason"], "rate");
    }

    assert_eq!(log_in(&server, Some("carol"), Some("good")).await.1["success"], true, "and it was only that");
}

#[tokio::test]
async fn who_is_refused_too_often_is_asked_about_no_more() {
    let mut service = Service::start(by_token).await;
    let server = Server::start(&service.config("[limits]\nexempt = []\n"));
    let mut reasons = Vec::new();

    while reasons.last() != Some(&json!("rate")) {
        reasons.push(log_in(&server, Some("bob"), Some("bad")).await.1["reason"].clone());
    }

    assert!((11..20).contains(&reasons.len()), "{reasons:?}");
    for _ in 1..reasons.len() {
        service.next().await;
    }
    assert!(service.asked.try_recv().is_err(), "the last was refused unasked");
}
