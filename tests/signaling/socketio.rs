//! Socket.IO's HTTP side on the real binary: who may ask, what is refused and how, and how many sessions there may be.

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::config;
use crate::support::Server;
use crate::support::client::Client;

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// Begins a session by polling; its number.
async fn open(server: &Server, query: &str) -> String {
    let (status, _, body) = server.ask(&format!("GET {POLLING}{query}"), "", "").await;
    assert_eq!(status, 200, "{body}");
    let handshake: Value = serde_json::from_str(body.strip_prefix('0').unwrap()).unwrap();
    handshake["sid"].as_str().unwrap().to_owned()
}

async fn post(server: &Server, sid: &str, body: &str) -> u16 {
    server.ask(&format!("POST {POLLING}&sid={sid}"), "", body).await.0
}

async fn poll(server: &Server, sid: &str) -> (u16, String) {
    let (status, _, body) = server.ask(&format!("GET {POLLING}&sid={sid}"), "", "").await;
    (status, body)
}

#[tokio::test]
async fn the_handshake_says_what_the_configuration_has() {
    let server =
        Server::start(&config("[signaling]\nping_every = \"7s\"\ngone_after = \"20s\"\nmessage_bytes = \"4KiB\""));

    let (status, head, body) = server.ask("GET /socket.io?EIO=3&transport=polling", "", "").await;

    let (length, packet) = body.split_once(':').unwrap();
    let handshake: Value = serde_json::from_str(packet.strip_prefix('0').unwrap()).unwrap();
    assert_eq!((status, length.parse()), (200, Ok(packet.len())));
    assert!(head.contains("cache-control: no-store"));
    assert_eq!(handshake["upgrades"], json!(["websocket"]));
    assert_eq!((&handshake["pingInterval"], &handshake["pingTimeout"]), (&json!(7_000), &json!(13_000)));
    assert_eq!(handshake["maxPayload"], 4096);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_number() {
    let server = Server::start(&config(""));
    let sid = open(&server, "").await;

    for (request, code) in [
        ("GET /socket.io/?EIO=4&transport=carrier-pigeon", 0),
        ("GET /socket.io/?EIO=4&transport=polling&sid=nobody", 1),
        ("POST /socket.io/?EIO=4&transport=polling&sid=nobody", 1),
        ("GET /socket.io/?EIO=4&transport=websocket&sid=nobody", 1),
        ("POST /socket.io/?EIO=4&transport=polling", 2),
        ("DELETE /socket.io/?EIO=4&transport=polling", 2),
        ("GET /socket.io/?EIO=3&transport=polling&j=0", 3),
        ("GET /socket.io/?EIO=2&transport=polling", 5),
        ("GET /socket.io/?transport=polling", 5),
    ] {
        let (status, _, body) = server.ask(request, "", "").await;
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &answer["code"]), (400, &json!(code)), "{request}");
    }
    let bytes = "Content-Type: application/octet-stream\r\n";
    let (status, _, body) = server.ask(&format!("POST {POLLING}&sid={sid}"), bytes, "40").await;
    assert!(status == 400 && body.contains("send text"), "{body}");
    assert_eq!(poll(&server, &sid).await, (200, "1".into()), "its session is over");
    server.metric_becomes("throughway_connections", 0).await;
    let (status, _, _) = server.ask("GET /socket.io/?EIO=4&transport=websocket", "", "").await;
    assert_eq!(status, 426);
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_the_answers_and_others_get_none() {
    let allowed = "plain_listen = [\"127.0.0.1:0\"], allowed_origins = [\"https://app.example.org\"]";
    let server = Server::start(&config("").replace("plain_listen = [\"127.0.0.1:0\"]", allowed));
    let origin = |name| format!("Origin: {name}\r\nAccess-Control-Request-Headers: x-mine\r\n");

    for request in [format!("GET {POLLING}"), format!("OPTIONS {POLLING}"), format!("POST {POLLING}")] {
        let (status, head, _) = server.ask(&request, &origin("https://app.example.org"), "").await;
        assert!(status < 403, "{request}");
        assert!(head.contains("access-control-allow-origin: https://app.example.org"), "{head}");
        assert!(head.contains("access-control-allow-credentials: true"), "{head}");
        assert_eq!(head.contains("access-control-allow-headers: x-mine"), request.starts_with("OPTIONS"));

        let (status, head, _) = server.ask(&request, &origin("https://evil.example"), "").await;
        assert_eq!((status, head.contains("access-control")), (403, false), "{request}");
    }
    let stream = TcpStream::connect(server.http()).await.unwrap();
    let path = "/socket.io/?EIO=4&transport=websocket";
    let refused = Client::over(stream, path, &[("origin", "https://evil.example")]).await;
    assert_eq!(refused.err(), Some(403));
    assert_eq!(server.metric("throughway_members").await, 0);
}

#[tokio::test]
async fn a_page_that_has_its_own_name_lead_here_hears_nothing_of_others() {
    let server = Server::start(&config(""));
    let ask = async |host: &str, revision: u8| {
        let mut stream = TcpStream::connect(server.http()).await.unwrap();
        let request = format!("GET /socket.io/?EIO={revision}&transport=polling HTTP/1.1\r\nHost: {host}\r\n");
        stream.write_all(format!("{request}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };

    assert_eq!(ask("evil.example:8080", 3).await, "403", "who is told all without a word");
    assert_eq!([ask("localhost:8080", 3).await, ask("127.0.0.1", 3).await], ["200", "200"]);
    assert_eq!(ask("evil.example", 4).await, "200", "who must post first, and name its origin");
    assert!(server.log().contains("http.allowed_origins"), "{}", server.log());
}

#[tokio::test]
async fn a_thousand_sessions_of_one_source_are_as_many_as_its_connections_may_be_and_soon_over() {
    let limits =
        "[limits]\nexempt = []\n[signaling]\nsign_in_within = \"1s\"\n[signaling.limits]\nconnections_per_source = 20";
    let server = Server::start(&config(limits));
    let mut statuses = Vec::new();

    for _ in 0..1000 {
        let (status, _, _) = server.ask(&format!("GET {POLLING}"), "", "").await;
        statuses.push(status);
        if statuses.len() == 30 {
            assert_eq!(server.metric("throughway_connections").await, 20);
        }
    }

    assert_eq!(statuses[..30].iter().filter(|status| **status == 200).count(), 20);
    assert!(statuses.contains(&429));
    server.metric_becomes("throughway_connections", 0).await;
    open(&server, "").await;
}

#[tokio::test]
async fn a_post_that_is_too_large_ends_its_session_and_no_other() {
    let server = Server::start(&config(""));
    let [wordy, other] = [open(&server, "").await, open(&server, "").await];
    for sid in [&wordy, &other] {
        assert_eq!(post(&server, sid, "40").await, 200);
        assert!(poll(&server, sid).await.1.starts_with("40{"));
    }

    assert_eq!(post(&server, &wordy, &"4".repeat(4 * 64 * 1024 + 1)).await, 413);

    assert!(poll(&server, &wordy).await.1.ends_with("\u{1e}1"));
    server.metric_becomes("throughway_members", 1).await;
    assert_eq!(post(&server, &wordy, "40").await, 400);
    assert_eq!(post(&server, &other, "421[\"join\",1]").await, 200);
    assert_eq!(poll(&server, &other).await, (200, "431[]".into()));
    assert_eq!(server.metric("throughway_frames_total{gateway=\"socketio\"}").await, 3);
}

#[tokio::test]
async fn with_a_shared_token_only_who_shows_it_comes_in() {
    let token = "0123456789abcdef";
    let server = Server::start(&config(&format!("[signaling.accounts]\nmode = \"token\"\ntoken = \"{token}\"")));
    let in_url = format!("&token={token}");
    let in_packet = format!("40{{\"token\":\"{token}\"}}");

    for (query, packet, is_let_in) in
        [("", "40", false), ("", "40{\"token\":\"x\"}", false), ("", &*in_packet, true), (&*in_url, "40", true)]
    {
        let sid = open(&server, query).await;
        assert_eq!(post(&server, &sid, packet).await, 200);
        let told = poll(&server, &sid).await.1;
        assert_eq!(told.starts_with("40{"), is_let_in, "{told}");
        assert_eq!(told.contains("auth.token"), !is_let_in, "{told}");
    }
    for (query, expected) in [("", "44\""), (&*in_url, "40")] {
        let mut old = Client::connect(server.http(), &format!("/socket.io/?EIO=3&transport=websocket{query}")).await;
        old.next().await.unwrap();
        let Some(Message::Text(told)) = old.next().await else { panic!("nothing is told") };
        assert!(told.starts_with(expected), "{told}");
    }
}

#[tokio::test]
async fn switched_off_it_has_no_paths() {
    let server = Server::start(&config("[signaling.gateways]\nsocketio = false"));

    for path in ["/socket.io/socket.io.js", POLLING] {
        assert_eq!(server.ask(&format!("GET {path}"), "", "").await.0, 404);
    }
}
