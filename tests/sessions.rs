//! What signaling sessions mean for the relay: kicks and bans, the end of a session, peers signaled, and `/ice`.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::net::UdpSocket;

use crate::support::PATIENCE;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::client::Client;
use crate::support::line::Line;

const TOKEN: &str = "0123456789abcdef";
const ADMIN: &str = "[admin]\ntoken = \"0123456789abcdef\"\n";
const ALLOCATIONS: &str = "throughway_allocations";

/// With `more` keys of `[turn]`, and `tables` behind `[turn.peers]`.
fn config(more: &str, tables: &str) -> String {
    format!("{}{tables}", PEERS_ON_LOOPBACK.replace("relay_ports", &format!("{more}\nrelay_ports")))
}

/// A signed-in member, and what it may relay with.
struct Member {
    client: Client,
    session: String,
    credential: (String, String),
}

impl Member {
    async fn sign_in(server: &Server, name: &str) -> Self {
        let mut client = Client::connect(server.http(), "/ws").await;
        let reply = client.log_in(name).await;
        assert_eq!(reply["success"], true, "{reply}");
        let session = reply["session"].as_str().unwrap().to_owned();
        Self { client, session, credential: credential(&reply["iceServers"]) }
    }

    async fn over(&self, line: Line) -> Asker {
        Asker::over(line, &self.credential.0, &self.credential.1).await
    }

    async fn over_udp(&self, server: &Server) -> Asker {
        self.over(Line::udp(server.udp()).await).await
    }
}

fn credential(ice_servers: &Value) -> (String, String) {
    let text = |key| ice_servers[1][key].as_str().unwrap().to_owned();
    (text("username"), text("credential"))
}

/// The answer to an operator's command.
async fn command(server: &Server, command: &str, asked: &Value) -> (u16, Value) {
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let (status, head, body) = server.ask(&format!("POST /admin/{command}"), &token, &asked.to_string()).await;
    assert!(head.contains("cache-control: no-store") && head.contains("content-type: application/json"), "{head}");
    (status, serde_json::from_str(&body).unwrap())
}

/// The code that an Allocate request gets.
async fn allocates(asker: &Asker) -> u16 {
    code(&asker.ask(ALLOCATE, &[UDP]).await)
}

/// Waits for so many allocations, for no longer than an operator would.
async fn leaves_within_a_second(server: &Server, allocations: u64) {
    let became = server.metric_becomes(ALLOCATIONS, allocations);
    tokio::time::timeout(Duration::from_secs(1), became).await.expect("within a second");
}

#[tokio::test]
async fn a_kicked_member_is_closed_and_loses_its_relays_over_udp_and_tcp_within_a_second() {
    let server = Server::start(&config("", ADMIN));
    let (mut alice, bob) = (Member::sign_in(&server, "alice").await, Member::sign_in(&server, "bob").await);
    let (udp, tcp) = (alice.over_udp(&server).await, alice.over(Line::stream(server.turn_tcp(), None).await).await);
    let others = bob.over_udp(&server).await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for asker in [&udp, &tcp, &others] {
        asker.allocate().await;
        assert_eq!(asker.bind(0x4000, peer.local_addr().unwrap()).await, 0);
        asker.send(&channel_data(0x4000, b"it relays")).await;
        let mut buffer = [0; 16];
        let (length, _) = tokio::time::timeout(PATIENCE, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer[..length], b"it relays");
    }

    assert_eq!(command(&server, "kick", &json!({ "name": "alice" })).await, (200, json!({ "kicked": true })));

    leaves_within_a_second(&server, 1).await;
    assert_eq!(alice.client.hear_out().await.1, Some(4000));
    for asker in [&udp, &tcp, &alice.over_udp(&server).await] {
        for method in [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
            assert_eq!(code(&asker.ask(method, &[UDP]).await), 401, "{method}");
        }
    }
    assert_eq!(code(&others.ask(REFRESH, &[]).await), 0, "nobody else is touched");
    let again = Member::sign_in(&server, "alice").await;
    assert_eq!(allocates(&again.over_udp(&server).await).await, 0, "a kick is no ban");
}

#[tokio::test]
async fn a_banned_name_is_kicked_and_refused_until_it_is_unbanned() {
    let server = Server::start(&config("", ADMIN));
    let mut alice = Member::sign_in(&server, "Zo\u{eb}").await;
    alice.over_udp(&server).await.allocate().await;
    let name = json!({ "name": "Zoe\u{308}" });

    let banned = json!({ "banned": true, "kicked": true });
    assert_eq!(command(&server, "ban", &name).await, (200, banned), "however it is written");

    leaves_within_a_second(&server, 0).await;
    assert_eq!(alice.client.hear_out().await.1, Some(4000));
    let mut client = Client::connect(server.http(), "/ws").await;
    let refused = json!({ "type": "login", "success": false, "reason": "auth" });
    assert_eq!(client.log_in("Zo\u{eb}").await, refused);
    assert_eq!(command(&server, "unban", &name).await, (200, json!({ "unbanned": true })));
    assert_eq!(command(&server, "unban", &name).await.0, 404);
    assert_eq!(client.log_in("Zo\u{eb}").await["success"], true);
}

#[tokio::test]
async fn commands_need_the_token_and_are_told_what_is_wrong_with_them() {
    let server = Server::start(&config("", ADMIN));
    let off = Server::start(&config("", ""));
    let right = format!("Authorization: Bearer {TOKEN}\r\n");

    for wrong in ["", "Authorization: Bearer 0123456789abcdeF\r\n", "Authorization: Basic 0123456789abcdef\r\n"] {
        let (status, head, _) = server.ask("POST /admin/kick", wrong, "{\"name\":\"x\"}").await;
        assert_eq!((status, head.contains("www-authenticate: bearer")), (401, true), "{wrong}");
    }
    assert_eq!(off.ask("POST /admin/kick", &right, "{\"name\":\"x\"}").await.0, 404);
    assert_eq!(off.ask("POST /admin/kick", "Authorization: Bearer \r\n", "{\"name\":\"x\"}").await.0, 404);
    assert_eq!(server.ask("GET /admin/kick", &right, "").await.0, 405);
    for (name, asked, status) in [
        ("kick", json!({ "name": "nobody" }), 404),
        ("kick", json!({ "name": "\u{202e}" }), 400),
        ("kick", json!({ "name": 7 }), 400),
        ("kick", json!([]), 400),
        ("ban", json!({}), 400),
        ("revoke", json!({ "session": "short" }), 400),
        ("ban", json!({ "name": "x".repeat(5000) }), 413),
    ] {
        let (got, json) = command(&server, name, &asked).await;
        assert_eq!((got, json["error"].is_string()), (status, true), "{name} {asked}");
    }
    assert!(!server.log().contains(TOKEN));
}

#[tokio::test]
async fn a_source_may_be_wrong_about_the_token_so_often() {
    let server = Server::start(&config("", &format!("{ADMIN}[limits]\nexempt = []\n")));
    let status = async |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        server.ask("POST /admin/unban", &header, "{\"name\":\"x\"}").await.0
    };

    let mut wrong = Vec::new();
    while wrong.last() != Some(&429) {
        wrong.push(status("guess").await);
    }

    assert!(
        (11..20).contains(&wrong.len()) && wrong[..wrong.len() - 1].iter().all(|status| *status == 401),
        "{wrong:?}"
    );
    let let_in = async { while status(TOKEN).await == 429 {} };
    tokio::time::timeout(PATIENCE, let_in).await.expect("but not for ever");
}

#[tokio::test]
async fn a_relayed_call_outlives_a_dropped_websocket_and_can_be_revoked_all_the_same() {
    let server = Server::start(&config("credentials = \"ttl\"", ADMIN));
    let Member { client, session, credential } = Member::sign_in(&server, "alice").await;
    let asker = Asker::new(server.udp(), &credential.0, &credential.1).await;
    asker.allocate().await;

    drop(client);
    server.metric_becomes("throughway_members", 0).await;

    assert_eq!(code(&asker.ask(REFRESH, &[]).await), 0);
    let later = Asker::new(server.udp(), &credential.0, &credential.1).await;
    assert_eq!(allocates(&later).await, 0, "the credential is good for its hour");
    let revoked = command(&server, "revoke", &json!({ "session": session })).await;
    assert_eq!(revoked, (200, json!({ "revoked": true, "kicked": false })));
    leaves_within_a_second(&server, 0).await;
    assert_eq!((allocates(&later).await, code(&asker.ask(REFRESH, &[]).await)), (401, 401));
}

#[tokio::test]
async fn in_session_mode_a_members_relays_end_with_its_session_and_its_credential_is_of_no_use_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let toml = config("credentials = \"session\"", "");
    let server = Server::start_in(home.path(), &toml);
    let Member { client, credential, .. } = Member::sign_in(&server, "alice").await;
    let asker = Asker::new(server.udp(), &credential.0, &credential.1).await;
    asker.allocate().await;
    let fixed = Asker::new(server.udp(), "alice", "wonderland").await;
    fixed.allocate().await;

    drop(client);

    leaves_within_a_second(&server, 1).await;
    assert_eq!((allocates(&asker).await, code(&asker.ask(REFRESH, &[]).await)), (401, 401));
    assert_eq!(code(&fixed.ask(REFRESH, &[]).await), 0);
    let bob = Member::sign_in(&server, "bob").await;
    drop(server);
    let server = Server::start_in(home.path(), &toml);
    assert_eq!(allocates(&bob.over_udp(&server).await).await, 401, "the secrets are the same, the session isn't");
}

#[tokio::test]
async fn where_peers_must_be_signaled_only_candidates_sent_to_a_member_open_them_to_it() {
    let server = Server::start(&config("", "mode = \"signaled\"\n"));
    let (mut alice, mut bob) = (Member::sign_in(&server, "alice").await, Member::sign_in(&server, "bob").await);
    let (at_alice, at_bob) = (alice.over_udp(&server).await, bob.over_udp(&server).await);
    let relays = [at_alice.allocate().await, at_bob.allocate().await];
    let peer = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let peer_addr = peer.local_addr().unwrap();
    assert_eq!(at_bob.permit(peer_addr).await, 403);

    let line = format!("candidate:1 1 udp 2122260223 127.0.0.2 {} typ host generation 0", peer_addr.port());
    let candidate = json!({ "candidate": line, "sdpMid": "0", "sdpMLineIndex": 0 });
    alice.client.send(&json!({ "type": "candidate", "name": "bob", "candidate": candidate })).await;
    assert_eq!(bob.client.hear().await["candidate"], candidate);
    let offer = json!({ "type": "offer", "sdp": "v=0\r\nc=IN IP4 127.0.0.3\r\n" });
    alice.client.send(&json!({ "type": "offer", "name": "bob", "offer": offer })).await;
    bob.client.hear().await;

    assert_eq!((at_bob.permit(peer_addr).await, at_bob.bind(0x4000, peer_addr).await), (0, 0));
    assert_eq!(at_bob.permit("127.0.0.3:9".parse().unwrap()).await, 0, "by a description");
    assert_eq!(
        (at_alice.permit(peer_addr).await, at_alice.bind(0x4000, peer_addr).await),
        (403, 403),
        "it was not told"
    );
    assert_eq!(at_bob.permit("127.0.0.4:9".parse().unwrap()).await, 403);
    at_bob.send(&channel_data(0x4000, b"hello")).await;
    let mut buffer = [0; 16];
    let (length, from) = tokio::time::timeout(PATIENCE, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!((&buffer[..length], from), (&b"hello"[..], relays[1]));
    assert_eq!(
        (at_alice.bind(0x4001, relays[1]).await, at_bob.bind(0x4001, relays[0]).await),
        (0, 0),
        "both relay here"
    );
    drop(alice.client);
    bob.client.hear().await;
    assert_eq!(at_bob.bind(0x4000, peer_addr).await, 0);
    let fixed = Asker::new(server.udp(), "alice", "wonderland").await;
    fixed.allocate().await;
    assert_eq!(fixed.permit("127.0.0.4:9".parse().unwrap()).await, 0, "who never signals here isn't bound by it");
    assert_eq!(server.ask("GET /ice", "", "").await.0, 403, "which must be no way around it");
}

#[tokio::test]
async fn ice_servers_for_applications_that_signal_elsewhere_relay_in_either_mode() {
    for mode in ["ttl", "session"] {
        let origin = "plain_listen = [\"127.0.0.1:0\"]\nallowed_origins = [\"https://app.example.org\"]";
        let toml = config(&format!("credentials = \"{mode}\""), "");
        let server = Server::start(&toml.replace("plain_listen = [\"127.0.0.1:0\"]", origin));

        let (status, head, body) = server.ask("GET /ice", "Origin: https://app.example.org\r\n", "").await;
        let servers: Value = serde_json::from_str(&body).unwrap();

        assert_eq!(status, 200);
        for line in ["access-control-allow-origin: https://app.example.org", "cache-control: no-store", "vary: origin"]
        {
            assert!(head.contains(line), "{line} in {head}");
        }
        let port = server.udp().port();
        assert_eq!(servers[0], json!({ "urls": [format!("stun:localhost:{port}")] }));
        assert_eq!(servers[1]["urls"][0], format!("turn:localhost:{port}?transport=udp"));
        let (username, password) = credential(&servers);
        let asker = Asker::new(server.udp(), &username, &password).await;
        asker.allocate().await;
        let other: Value = serde_json::from_str(&server.ask("GET /ice", "", "").await.2).unwrap();
        assert_ne!(credential(&other), (username, password), "each counts for itself");
        let (status, head, body) = server.ask("GET /ice", "Origin: https://evil.example\r\n", "").await;
        assert_eq!((status, head.contains("access-control"), body.contains("turn:")), (403, false, false));
    }
}

#[tokio::test]
async fn a_page_that_has_its_own_name_lead_here_gets_no_ice_servers() {
    let server = Server::start(&config("", ""));

    // Browsers send no Origin to where a page comes from, whatever address its name leads to.
    for (request, header) in [
        ("GET http://evil.example/ice", ""),
        ("GET /ice?token=x", "Host: evil.example\r\n"),
        ("GET http://a~b.evil.example/ice", "Authorization: Bearer x\r\n"),
        ("GET /ice", "Sec-Fetch-Site: cross-site\r\n"),
    ] {
        let (status, head, body) = server.ask(request, header, "").await;
        assert_eq!((status, body.contains("turn:")), (403, false), "{request} {header}: {head}");
    }

    let (status, _, _) = server.ask("GET /ice", "Sec-Fetch-Site: same-origin\r\n", "").await;
    assert_eq!(status, 200);
    assert!(server.log().contains("http.allowed_origins"), "{}", server.log());
}

#[tokio::test]
async fn asking_for_ice_servers_counts_as_a_sign_in() {
    let limits = "[signaling.limits]\nsign_ins = \"6/m\"\n[limits]\nexempt = []\n";
    let server = Server::start(&config("", limits));
    let mut statuses = Vec::new();

    while statuses.last() != Some(&429) {
        statuses.push(server.ask("GET /ice", "", "").await.0);
    }

    assert_eq!(statuses, [200, 429]);
    let mut client = Client::connect(server.http(), "/ws").await;
    assert_eq!(client.log_in("alice").await["reason"], "rate");
}
