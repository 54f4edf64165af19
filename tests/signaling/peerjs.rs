//! PeerServer's protocol on the real binary: its paths, who may use them, and its limits.

use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;

use super::config;
use crate::support::Server;
use crate::support::client::Client;

const PAGE: &str = "Origin: http://localhost:3000\r\n";
const FOREIGN: &str = "Origin: https://evil.example\r\n";
const SHARED: &str = "0123456789abcdef";

fn url(path: &str, id: &str, token: &str) -> String {
    format!("{path}peerjs?key=peerjs&id={id}&token={token}&version=1.5.5")
}

async fn sign_in(server: &Server, path: &str, id: &str) -> Client {
    let mut client = Client::connect(server.http(), &url(path, id, "mine")).await;
    assert_eq!(client.hear().await, json!({ "type": "OPEN" }), "{path} {id}");
    client
}

fn offer(dst: &str) -> Value {
    json!({ "type": "OFFER", "dst": dst, "payload": { "sdp": "v=0" } })
}

#[tokio::test]
async fn clients_at_either_path_meet_and_members_of_other_protocols_are_elsewhere() {
    let server = Server::start(&config(""));
    let mut alice = sign_in(&server, "/", "alice").await;
    let mut bob = sign_in(&server, "/peerjs-server/", "bob").await;
    let mut other = Client::sign_in(server.http(), "/ws", "carol").await;

    alice.send(&offer("carol")).await;
    alice.send(&offer("bob")).await;

    let passed_on = json!({ "type": "OFFER", "src": "alice", "dst": "bob", "payload": { "sdp": "v=0" } });
    assert_eq!(bob.hear().await, passed_on);
    assert_eq!(alice.hear().await, json!({ "type": "EXPIRE", "src": "carol", "dst": "alice" }));
    other.is_served().await;
    assert_eq!(server.metric("throughway_frames_total{gateway=\"peerjs\"}").await, 2);
}

#[tokio::test]
async fn ids_are_handed_out_to_pages_that_may_sign_in() {
    let server = Server::start(&config(""));
    for path in ["/peerjs/id", "/peerjs-server/peerjs/id?ts=1234&version=1.5.5"] {
        let (status, head, id) = server.ask(&format!("GET {path}"), PAGE, "").await;

        assert_eq!((status, id.len()), (200, 36));
        assert!(head.contains("access-control-allow-origin: http://localhost:3000\r\n"), "{head}");
        assert!(head.contains("cache-control: no-store") && head.contains("vary: origin"), "{head}");
        assert_ne!(server.ask(&format!("GET {path}"), "", "").await.2, id);
        sign_in(&server, "/", &id).await;

        let (status, head, _) = server.ask(&format!("GET {path}"), FOREIGN, "").await;
        assert_eq!((status, head.contains("access-control-allow-origin")), (403, false));
    }
    let foreign = [("Origin", "https://evil.example")];
    let stream = TcpStream::connect(server.http()).await.unwrap();
    assert_eq!(Client::over(stream, &url("/", "alice", "t"), &foreign).await.err(), Some(403));
    for path in ["/other/id", "/peerjs-server/other/id", "/peerjs-server/id"] {
        assert_eq!(server.ask(&format!("GET {path}"), "", "").await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn ids_are_listed_only_where_that_is_on_and_not_without_end() {
    let shy = Server::start(&config(""));
    let open = Server::start(&config("[signaling.gateways]\npeerjs_discovery = true\n"));
    let (status, head, _) = shy.ask("GET /peerjs/peers", PAGE, "").await;
    assert_eq!((status, head.contains("access-control-allow-origin: http://localhost:3000")), (401, true));

    let mut clients = Vec::new();
    for n in 0..2 {
        clients.push(sign_in(&open, "/", &n.to_string()).await);
    }
    let (status, head, list) = open.ask("GET /peerjs-server/peerjs/peers", PAGE, "").await;
    let mut list: Vec<String> = serde_json::from_str(&list).unwrap();
    list.sort();
    assert_eq!((status, list), (200, vec!["0".to_owned(), "1".to_owned()]));
    assert!(head.contains("access-control-allow-origin: http://localhost:3000"), "{head}");
    assert_eq!(open.ask("GET /peerjs/peers", FOREIGN, "").await.0, 403);

    for n in 2..501 {
        clients.push(sign_in(&open, "/", &n.to_string()).await);
    }
    let list: Vec<String> = serde_json::from_str(&open.ask("GET /peerjs/peers", "", "").await.2).unwrap();
    assert_eq!(list.len(), 500);
}

#[tokio::test]
async fn where_a_token_is_asked_for_it_is_the_clients_own_too() {
    let accounts = format!("[signaling.accounts]\nmode = \"token\"\ntoken = \"{SHARED}\"\n");
    let server = Server::start(&config(&format!("[signaling.gateways]\npeerjs_discovery = true\n{accounts}")));

    let mut eve = Client::connect(server.http(), &url("/", "alice", "mine")).await;
    let refused = json!({ "type": "ERROR", "payload": { "msg": "not allowed to sign in" } });
    assert_eq!(eve.hear_out().await, (vec![refused], Some(4001)));
    let mut alice = Client::connect(server.http(), &url("/", "alice", SHARED)).await;
    assert_eq!(alice.hear().await, json!({ "type": "OPEN" }));
    let mut again = Client::connect(server.http(), &url("/", "alice", SHARED)).await;
    assert_eq!(again.hear().await["type"], "ID-TAKEN", "whoever has the token has it");
    assert_eq!(server.ask("GET /peerjs/peers", PAGE, "").await.0, 401);
    assert_eq!(server.ask(&format!("GET /peerjs/peers?token={SHARED}"), PAGE, "").await.0, 200);
    assert!(!server.log().contains(SHARED), "no secret is logged");
}

#[tokio::test]
async fn one_source_has_so_many_absent_names_to_wait_for() {
    let server = Server::start(&config("[limits]\nexempt = []\n"));
    let mut alice = sign_in(&server, "/", "alice").await;

    for n in 0..65 {
        alice.send(&offer(&format!("absent-{n}"))).await;
    }

    let expired = |n: u32| json!({ "type": "EXPIRE", "src": format!("absent-{n}"), "dst": "alice" });
    assert_eq!(alice.hear().await, expired(64), "no room: at once, before those that wait");
    for n in 0..64 {
        assert_eq!(alice.hear().await, expired(n));
    }
}

#[tokio::test]
async fn where_it_is_off_nothing_is_there() {
    let server = Server::start(&config("[signaling.gateways]\npeerjs = false\n"));

    for path in ["/peerjs", "/peerjs/id", "/peerjs/peers", "/peerjs-server/peerjs"] {
        assert_eq!(server.ask(&format!("GET {path}"), "", "").await.0, 404, "{path}");
    }
}
