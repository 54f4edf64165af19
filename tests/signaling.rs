//! Our JSON protocol in both dialects, on the real binary: calls, bad input, limits, origins, endings.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::SinkExt;
use ring::hmac;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::PATIENCE;
use crate::support::Server;
use crate::support::client;
use crate::support::client::Client;

mod accounts;
mod ayame;
mod crowd;
mod peerjs;
mod pubsub;
pub(crate) mod resume;
mod socketio;
mod websocket;

const OBJECTS: &str = "/ws";
const STRINGS: &str = "/websocketRTC";

/// The configuration of these tests, with `more` tables and keys.
fn config(more: &str) -> String {
    let base = r#"
        http = { listen = ["127.0.0.1:0"], plain_listen = ["127.0.0.1:0"] }
        metrics = { listen = ["127.0.0.1:0"] }
        [turn]
        listen_udp = ["127.0.0.1:0"]
        listen_tcp = []
        listen_tls = []
        secrets = ["north", "south"]
    "#;
    format!("{base}\n{more}")
}

/// What a recipient at `path` gets for `payload`.
fn packed(payload: &Value, path: &str) -> Value {
    if path == STRINGS { Value::from(payload.to_string()) } else { payload.clone() }
}

/// Payloads are compared as values: how their text is spaced is nobody's business.
fn unpacked(frame: &Value, field: &str, path: &str) -> Value {
    if path == STRINGS { serde_json::from_str(frame[field].as_str().unwrap()).unwrap() } else { frame[field].clone() }
}

#[tokio::test]
async fn each_dialect_calls_each_other_with_everything_a_call_needs() {
    let server = Server::start(&config(""));
    for (n, (from, to)) in [("/", OBJECTS), (OBJECTS, STRINGS), (STRINGS, "/"), (STRINGS, STRINGS)].iter().enumerate() {
        let (alice, bob) = (format!("alice{n}"), format!("bob{n}"));
        let mut caller = Client::sign_in(server.http(), from, &alice).await;
        let mut callee = Client::sign_in(server.http(), to, &bob).await;

        for round in 0..4 {
            let offer = json!({ "type": "offer", "sdp": format!("v=0\r\no=- {round} \"quoted\" \\ \u{e9}\r\n") });
            caller.send(&json!({ "type": "offer", "name": bob, "offer": offer, "myName": "eve", "from": "eve" })).await;
            let heard = callee.hear().await;
            assert_eq!(unpacked(&heard, "offer", to), offer);
            assert_eq!((&heard["type"], &heard["name"]), (&json!("offer"), &json!(alice)), "stamped with the sender");
            assert_eq!(heard.get("myName"), None);

            let answer = json!({ "type": "answer", "sdp": format!("v=0 {round}") });
            callee.send(&json!({ "type": "answer", "name": alice, "answer": answer })).await;
            let heard = caller.hear().await;
            assert_eq!(unpacked(&heard, "answer", from), answer);
            assert_eq!((&heard["type"], &heard["name"]), (&json!("answer"), &json!(bob)));

            let candidate = json!({ "candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMLineIndex": 0 });
            caller.send(&json!({ "type": "candidate", "name": bob, "candidate": candidate })).await;
            callee.send(&json!({ "type": "candidate", "name": alice, "candidate": candidate })).await;
            assert_eq!(unpacked(&callee.hear().await, "candidate", to), candidate);
            assert_eq!(unpacked(&caller.hear().await, "candidate", from), candidate);
        }

        callee.send(&json!({ "type": "leave", "name": alice })).await;
        assert_eq!(caller.hear().await, json!({ "type": "leave", "name": bob }));
        caller.send(&json!({ "type": "offer", "name": bob, "offer": {} })).await;
        assert_eq!(callee.hear().await["offer"], packed(&json!({}), to));
        caller.send(&json!({ "type": "leave" })).await;
        assert_eq!(callee.hear().await, json!({ "type": "leave", "name": alice }));
        caller.send(&json!({ "type": "offer", "name": bob, "offer": {} })).await;
        callee.hear().await;
        drop(caller);
        assert_eq!(callee.hear().await, json!({ "type": "leave", "name": alice }), "the connection broke");
    }
}

#[tokio::test]
async fn frames_that_end_the_tutorials_server_get_an_error_and_this_one_lives() {
    let server = Server::start(&config(""));
    let deep = "[".repeat(50_000);
    let crash_frames = [
        (Message::text(r#"{"type":"leave"}"#), "not-signed-in", None),
        (Message::text(r#"{"type":"leave","name":"ghost"}"#), "not-signed-in", Some("unknown-member")),
        (Message::text(r#"{"type":"offer","name":"constructor","offer":1}"#), "not-signed-in", Some("unknown-member")),
        (
            Message::text(r#"{"type":"candidate","name":"__proto__","candidate":1}"#),
            "not-signed-in",
            Some("unknown-member"),
        ),
        (Message::text("null"), "bad-message", Some("bad-message")),
        (Message::text("[]"), "bad-message", Some("bad-message")),
        (Message::text("42"), "bad-message", Some("bad-message")),
        (Message::text("not json"), "bad-message", Some("bad-message")),
        (Message::text(""), "bad-message", Some("bad-message")),
        (Message::text(r#"{"type":7}"#), "bad-message", Some("bad-message")),
        (Message::text("x".repeat(1 << 20)), "too-large", Some("too-large")),
        (Message::binary(vec![0, 159, 146, 150]), "bad-message", Some("bad-message")),
        (Message::text(&deep), "bad-message", Some("bad-message")),
        (Message::text(format!(r#"{{"type":"offer","name":"x","offer":{deep}"#)), "bad-message", Some("bad-message")),
        (Message::text(r#"{"type":"constructor"}"#), "unknown-command", Some("unknown-command")),
        (Message::text(r#"{"type":"join","room":"r"}"#), "not-signed-in", Some("unknown-command")),
    ];
    for path in [OBJECTS, STRINGS] {
        for (n, (frame, before, after)) in crash_frames.iter().enumerate() {
            let mut stranger = Client::connect(server.http(), path).await;
            stranger.send_raw(frame.clone()).await;
            let error = stranger.hear().await;
            let error = if error["status"] == "success" { stranger.hear().await } else { error };
            assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(before)), "{n}");
            assert!(error["message"].is_string());

            let mut member = Client::sign_in(server.http(), path, "member").await;
            member.send_raw(frame.clone()).await;
            if let Some(after) = after {
                let error = member.hear().await;
                assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(after)), "{n}");
            }
            if *before == "too-large" {
                assert_eq!(member.hear_out().await.1, Some(1009));
                assert_eq!(stranger.hear_out().await.1, Some(1009));
            } else {
                member.is_served().await;
                assert_eq!(stranger.log_in(&format!("new{n}")).await["success"], true);
            }
            drop((stranger, member));
            server.metric_becomes("throughway_members", 0).await;
        }
    }
    let error = {
        let mut client = Client::connect(server.http(), OBJECTS).await;
        client.send(&json!({ "type": "dance" })).await;
        client.hear().await
    };
    assert_eq!(error["message"], "Command not found: dance");
}

#[tokio::test]
async fn bytes_that_are_no_websocket_end_one_connection_only() {
    let server = Server::start(&config(""));
    for seed in 0..50_u64 {
        let mut client = Client::connect(server.http(), OBJECTS).await;
        let mut state = seed + 1;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            // xorshift64: the same noise every time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(2000)
        .collect();
        // The server may close before it has read all.
        let _ = client.socket.get_mut().write_all(&noise).await;
    }

    Client::sign_in(server.http(), OBJECTS, "alice").await.is_served().await;
}

#[tokio::test]
async fn a_name_is_taken_until_its_connection_ends() {
    let server = Server::start(&config(""));
    let alice = Client::sign_in(server.http(), OBJECTS, "Zo\u{eb}").await;
    let mut other = Client::connect(server.http(), STRINGS).await;

    assert_eq!(other.log_in("Zoe\u{308}").await, json!({ "type": "login", "success": false, "reason": "name-taken" }));
    assert_eq!(other.log_in("a\u{200b}").await["reason"], "bad-name");
    assert_eq!(other.log_in("Zo\u{eb} ").await["reason"], "bad-name");
    drop(alice);
    server.metric_becomes("throughway_members", 0).await;

    assert_eq!(other.log_in("Zoe\u{308}").await["name"], "Zo\u{eb}");
    other.send(&json!({ "type": "login", "name": "again" })).await;
    assert_eq!(other.hear().await["code"], "forbidden");
}

#[tokio::test]
async fn the_login_reply_has_ice_servers_of_this_host_and_a_credential_that_verifies() {
    let own = r#"ice_servers = [{ urls = ["turn:relay.example:3478"] }]"#;
    for (more, path) in [("", OBJECTS), (own, STRINGS)] {
        let server = Server::start(&config(more));
        let mut client = Client::connect(server.http(), path).await;

        let reply = client.log_in("alice").await;
        client.send(&json!({ "type": "ice" })).await;
        let fresh = client.hear().await;

        let urls: Vec<_> = reply["iceServers"].as_array().unwrap().iter().map(|server| &server["urls"][0]).collect();
        let port = server.udp().port();
        let derived = [json!(format!("stun:localhost:{port}")), json!(format!("turn:localhost:{port}?transport=udp"))];
        if more.is_empty() {
            assert_eq!(urls, [&derived[0], &derived[1]]);
        } else {
            assert_eq!(urls, [&json!("turn:relay.example:3478")]);
        }
        if let Some(turn) = reply["iceServers"].as_array().unwrap().last() {
            let username = turn["username"].as_str().unwrap();
            let password = BASE64_STANDARD.decode(turn["credential"].as_str().unwrap()).unwrap();
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"north");
            hmac::verify(&key, username.as_bytes(), &password).expect("the first secret signs");
            let session = reply["session"].as_str().unwrap();
            assert_eq!(username.split_once(':').unwrap().1, format!("~{session}"));
        }
        assert_eq!((&reply["iceTtl"], &reply["myName"] == "alice"), (&json!(3600), path == STRINGS));
        assert_eq!((&fresh["type"], &fresh["iceTtl"]), (&json!("ice"), &json!(3600)));
    }
}

#[tokio::test]
async fn only_what_is_served_is_listed() {
    let no_udp = config("").replace("listen_udp = [\"127.0.0.1:0\"]", "listen_udp = []");
    let nothing = no_udp.replace("listen = [\"127.0.0.1:0\"], plain", "listen = [], plain");

    let server = Server::start(&no_udp);
    let reply = Client::connect(server.http(), OBJECTS).await.log_in("alice").await;
    let shared = server.https().port();
    assert_eq!(reply["iceServers"][0]["urls"], json!([format!("turn:localhost:{shared}?transport=tcp")]));
    assert_eq!(reply["iceServers"].as_array().unwrap().len(), 1);

    let server = Server::start(&nothing);
    let reply = Client::connect(server.http(), OBJECTS).await.log_in("alice").await;
    assert_eq!(reply["iceServers"], json!([]), "what is served on this machine alone is not listed");
}

#[tokio::test]
async fn a_member_that_reads_is_not_closed_by_who_sends_faster_than_it_reads() {
    let server = Server::start(&config(""));
    let mut reader = Client::sign_in(server.http(), OBJECTS, "reader").await;
    let mut sender = Client::sign_in(server.http(), OBJECTS, "sender").await;
    let candidate = json!({ "type": "candidate", "name": "reader", "candidate": "x".repeat(60_000) });

    let reads = tokio::spawn(async move {
        let mut count = 0;
        while reader.hear().await["type"] != "leave" {
            count += 1;
        }
        (reader, count)
    });
    for _ in 0..10 {
        sender.send(&candidate).await;
    }
    sender.send(&json!({ "type": "ping" })).await;
    let mut refused = 0;
    loop {
        let answer = sender.hear().await;
        if answer["type"] == "pong" {
            break;
        }
        assert_eq!((&answer["code"], &answer["name"]), (&json!("rate"), &json!("reader")));
        refused += 1;
    }
    drop(sender);

    let (mut reader, heard) = reads.await.unwrap();
    assert_eq!(heard + refused, 10, "each is heard, or its sender knows better");
    reader.is_served().await;
}

#[tokio::test]
async fn a_rate_below_one_in_its_burst_still_lets_one_in() {
    let server = Server::start(&config("[signaling.limits]\nsign_ins = \"10/m\"\n[limits]\nexempt = []"));

    Client::sign_in(server.http(), OBJECTS, "alice").await.is_served().await;
}

#[tokio::test]
async fn messages_of_64_kib_pass_and_larger_ones_close_with_1009() {
    let server = Server::start(&config(""));
    let mut alice = Client::sign_in(server.http(), OBJECTS, "alice").await;
    let mut bob = Client::sign_in(server.http(), STRINGS, "bob").await;
    let frame = |payload: usize| json!({ "type": "offer", "name": "bob", "offer": "\"".repeat(payload / 2) });
    let envelope = frame(0).to_string().len();

    alice.send(&frame(65536 - envelope)).await;
    assert_eq!(unpacked(&bob.hear().await, "offer", STRINGS).as_str().unwrap().len(), (65536 - envelope) / 2);
    alice.send(&frame(65538 - envelope)).await;

    let (frames, code) = alice.hear_out().await;
    assert_eq!((&frames[0]["code"], code), (&json!("too-large"), Some(1009)));
    assert_eq!(bob.hear().await, json!({ "type": "leave", "name": "alice" }));
}

#[tokio::test]
async fn a_stalled_reader_is_closed_with_4008_and_its_sender_goes_on() {
    let server = Server::start(&config("[signaling.limits]\nmessages = \"100000/s\"\nmessage_burst = 1000000"));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(server.http()).await.unwrap();
    let mut stalled = Client::over(stream, OBJECTS, &[]).await.unwrap();
    assert_eq!(stalled.log_in("stalled").await["success"], true);
    let mut sender = Client::sign_in(server.http(), OBJECTS, "sender").await;
    let offer = json!({ "type": "offer", "name": "stalled", "offer": "x".repeat(30_000) });

    let until_it_leaves = async {
        loop {
            sender.send(&offer).await;
            sender.send(&json!({ "type": "ping" })).await;
            loop {
                let answer = sender.hear().await;
                match answer["type"].as_str() {
                    Some("pong") => break,
                    Some("leave") => return answer["name"].clone(),
                    _ => assert_eq!(answer["code"], "rate"),
                }
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, until_it_leaves).await.unwrap(), "stalled");
    assert_eq!(stalled.hear_out().await.1, Some(4008));
}

#[tokio::test]
async fn messages_beyond_the_rate_get_an_error_and_are_dropped_and_a_flood_is_closed() {
    let server = Server::start(&config("[signaling.limits]\nmessages = \"1/s\"\nmessage_burst = 5"));
    let mut client = Client::sign_in(server.http(), OBJECTS, "flood").await;

    for _ in 0..20 {
        // It may be closed already.
        let _ = client.socket.send(Message::text(r#"{"type":"ping"}"#)).await;
    }

    let (frames, code) = client.hear_out().await;
    assert_eq!(frames[0], json!({ "type": "pong" }));
    assert!(frames.iter().filter(|frame| frame["code"] == "rate").count() >= 5, "{frames:?}");
    assert_eq!(code, Some(4400));
}

#[tokio::test]
async fn three_bad_frames_close_with_4400() {
    let server = Server::start(&config(""));
    let mut client = Client::connect(server.http(), OBJECTS).await;

    for bad in [Message::text("nonsense"), Message::binary(vec![1]), Message::text("{}")] {
        client.send_raw(bad).await;
    }

    let (frames, code) = client.hear_out().await;
    assert_eq!((frames.len(), code), (3, Some(4400)));
    assert!(frames.iter().all(|frame| frame["code"] == "bad-message"));
}

#[tokio::test]
async fn who_does_not_sign_in_or_does_not_answer_pings_is_closed() {
    let timing = "[signaling]\nsign_in_within = \"1s\"\nping_every = \"1s\"\ngone_after = \"2s\"";
    let server = Server::start(&config(timing));
    let mut stranger = Client::connect(server.http(), OBJECTS).await;
    let mut member = Client::sign_in(server.http(), OBJECTS, "member").await;
    let mut alive = Client::sign_in(server.http(), OBJECTS, "alive").await;
    member.send(&json!({ "type": "offer", "name": "alive", "offer": {} })).await;
    alive.hear().await;

    assert_eq!(stranger.hear_out().await.1, Some(4001));
    let left = alive.hear().await;

    assert_eq!(left, json!({ "type": "leave", "name": "member" }), "who reads nothing answers no pings");
    alive.is_served().await;
}

#[tokio::test]
async fn connections_and_sign_ins_of_a_source_are_limited() {
    let limits = "[signaling.limits]\nconnections_per_source = 3\nsign_ins = \"1/s\"\n[limits]\nexempt = []";
    let server = Server::start(&config(limits));
    let connect = async || {
        let stream = TcpStream::connect(server.http()).await.unwrap();
        Client::over(stream, OBJECTS, &[]).await
    };
    let mut first = connect().await.unwrap();
    let _second = connect().await.unwrap();
    let third = connect().await.unwrap();

    assert_eq!(connect().await.err(), Some(429));
    drop(third);
    server.metric_becomes("throughway_connections", 2).await;
    assert!(connect().await.is_ok());

    assert_eq!(first.log_in("alice").await["success"], true);
    let mut second = connect().await.unwrap();
    let mut reasons = HashMap::new();
    for _ in 0..10 {
        let reply = second.log_in("alice").await;
        *reasons.entry(reply["reason"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert!(reasons["name-taken"] >= 3 && reasons["rate"] >= 4, "{reasons:?}");
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_with_a_log_line_that_names_the_key() {
    let server = Server::start(&config("").replace(
        "plain_listen = [\"127.0.0.1:0\"]",
        "plain_listen = [\"127.0.0.1:0\"], allowed_origins = [\"https://app.example.org\"]",
    ));
    let connect = async |origin| {
        let stream = TcpStream::connect(server.http()).await.unwrap();
        Client::over(stream, "/", &[("origin", origin), ("host", "evil.example")]).await.map(drop)
    };

    for good in ["http://localhost:3000", "https://127.0.0.1", "https://[::1]:8443", "https://app.example.org"] {
        assert_eq!(connect(good).await, Ok(()), "{good}");
    }
    for bad in ["https://evil.example", "null", "http://app.example.org", "https://localhost.evil.example"] {
        assert_eq!(connect(bad).await, Err(403), "{bad}");
    }
    assert!(server.log().contains("http.allowed_origins"), "{}", server.log());
    assert!(server.log().contains("https://evil.example"));
}

#[tokio::test]
async fn an_origin_can_be_required_and_our_public_host_is_one() {
    let server = Server::start(
        &format!("public_host = \"call.example.org\"\n{}", config(""))
            .replace("plain_listen = [\"127.0.0.1:0\"]", "plain_listen = [\"127.0.0.1:0\"], require_origin = true"),
    );
    let stream = || TcpStream::connect(server.http());

    let without = Client::over(stream().await.unwrap(), OBJECTS, &[]).await;
    let with = Client::over(stream().await.unwrap(), OBJECTS, &[("origin", "https://call.example.org")]).await;

    assert_eq!(without.err(), Some(403));
    assert!(with.is_ok());
}

#[tokio::test]
async fn handshakes_are_strict_and_plain_requests_are_told_what_this_is() {
    let server = Server::start(&config(""));
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    for (request, status) in [
        (format!("GET /ws HTTP/1.1\r\n{upgrade}{version}{key}"), 101),
        (format!("GET /ws HTTP/1.1\r\n{upgrade}{version}{key}Sec-WebSocket-Protocol: x\r\n"), 101),
        (format!("GET / HTTP/1.1\r\n{upgrade}{version}{key}"), 101),
        ("GET / HTTP/1.1\r\n".to_owned(), 200),
        ("GET /ws HTTP/1.1\r\n".to_owned(), 426),
        (format!("GET /ws HTTP/1.1\r\n{upgrade}Sec-WebSocket-Version: 8\r\n{key}"), 426),
        (format!("GET /ws HTTP/1.1\r\n{upgrade}{key}"), 426),
        (format!("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n{version}{key}"), 426),
        (format!("GET /ws HTTP/1.1\r\n{upgrade}{version}"), 400),
        (format!("GET /ws HTTP/1.1\r\n{upgrade}{version}Sec-WebSocket-Key: short\r\n"), 400),
        (format!("GET /ws HTTP/1.1\r\n{upgrade}{version}{key}{key}"), 400),
        (format!("POST /ws HTTP/1.1\r\n{upgrade}{version}{key}"), 400),
        (format!("GET /ws HTTP/1.0\r\n{upgrade}{version}{key}"), 400),
        (format!("GET /nowhere HTTP/1.1\r\n{upgrade}{version}{key}"), 404),
    ] {
        let mut stream = TcpStream::connect(server.http()).await.unwrap();
        stream.write_all(format!("{request}Host: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = vec![0; 2048];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();

        assert_eq!(answer.split(' ').nth(1), Some(status.to_string().as_str()), "{request}\n{answer}");
        // The example of RFC 6455, section 1.3.
        assert_eq!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), status == 101);
    }
}

#[tokio::test]
async fn secure_websockets_are_served_as_well() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start_in(home.path(), &config(""));
    let connect = async || {
        let stream = TcpStream::connect(server.https()).await.unwrap();
        client::tls(home.path()).connect("localhost".try_into().unwrap(), stream).await.unwrap()
    };
    let mut secure = Client::over(connect().await, STRINGS, &[]).await.unwrap();
    let mut clear = Client::sign_in(server.http(), OBJECTS, "clear").await;

    assert_eq!(secure.log_in("secure").await["success"], true);
    secure.send(&json!({ "type": "offer", "name": "clear", "offer": { "sdp": "v=0" } })).await;

    assert_eq!(clear.hear().await, json!({ "type": "offer", "name": "secure", "offer": { "sdp": "v=0" } }));
    secure.send_raw(Message::text("x".repeat(1 << 20))).await;
    let (frames, code) = secure.hear_out().await;
    assert_eq!((&frames[0]["code"], code), (&json!("too-large"), Some(1009)));
}

#[tokio::test]
async fn sigterm_closes_every_socket_with_1012_within_2_s() {
    let server = Server::start(&config(""));
    let mut member = Client::sign_in(server.http(), OBJECTS, "member").await;
    let mut stranger = Client::connect(server.http(), STRINGS).await;
    let mut silent = TcpStream::connect(server.http()).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    silent.write_all(request.as_bytes()).await.unwrap();
    server.metric_becomes("throughway_connections", 3).await;

    let ended = tokio::task::spawn_blocking(move || server.terminate());

    assert_eq!(member.hear_out().await.1, Some(1012));
    assert_eq!(stranger.hear_out().await.1, Some(1012));
    let (status, took) = ended.await.unwrap();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn gauges_fall_on_every_way_out() {
    let server = Server::start(&config(""));
    let mut bye = Client::sign_in(server.http(), OBJECTS, "bye").await;
    let mut closes = Client::sign_in(server.http(), OBJECTS, "closes").await;
    let breaks = Client::sign_in(server.http(), OBJECTS, "breaks").await;
    let mut bad = Client::sign_in(server.http(), OBJECTS, "bad").await;
    server.metric_becomes("throughway_members", 4).await;
    server.metric_becomes("throughway_connections", 4).await;

    bye.send(&json!({ "type": "bye" })).await;
    assert_eq!(bye.hear_out().await.1, Some(1000));
    closes.socket.close(None).await.unwrap();
    drop(breaks);
    bad.send_raw(Message::text("x".repeat(70_000))).await;

    server.metric_becomes("throughway_members", 0).await;
    server.metric_becomes("throughway_frames_total{gateway=\"json\"}", 5).await;
    drop((bye, closes, bad));
    server.metric_becomes("throughway_connections", 0).await;
}
