//! Watching the server: its metrics, what is made of them, and that no secret is ever among what it says.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::client::Client;
use crate::support::footprint::Footprint;
use crate::support::line::Line;

mod secrets;

/// How many scrapes an everyday run makes; the soak makes a million.
const SCRAPES: usize = 20_000;
/// Requests that are sent before the first of their answers is read.
const AHEAD: usize = 16;
/// How many of them one connection carries, which has 120 s for all.
const PER_CONNECTION: usize = 2_000;
/// What memory may rise by, in KiB: the allocator's.
const MARGIN: u64 = 1024;

const LIMITED: &str = "[turn.limits]\nbytes_per_day = \"1GiB\"\nbytes_per_month = \"9GiB\"\n";

/// A server with all that there are metrics for.
fn start() -> Server {
    Server::start(&format!("{PEERS_ON_LOOPBACK}{LIMITED}[admin]\ntoken = \"0123456789abcdef\"\n"))
}

async fn status(server: &Server) -> Value {
    let token = "Authorization: Bearer 0123456789abcdef\r\n";
    let (code, _, body) = server.ask("GET /admin/status", token, "").await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The families of an exposition: the kind of each by its name. Panics at what Prometheus would not take or its
/// conventions forbid.
fn families(text: &str) -> BTreeMap<String, String> {
    let (mut families, mut samples) = (BTreeMap::new(), BTreeSet::new());
    let (mut helped, mut current) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split(' ').next().unwrap().to_owned();
            assert!(help.len() > helped.len() + 1 && help.ends_with('.'), "{line}: no help");
        } else if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert_eq!(name, helped, "HELP comes before TYPE");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert_eq!(families.insert(name.to_owned(), kind.to_owned()), None, "{name} comes twice");
            current = name.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            assert_eq!(name, current, "{line} stands in another family");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(labels.ends_with('}') && samples.insert(sample.to_owned()), "{line}");
            for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
                let (key, value) = label.split_once('=').unwrap();
                assert!(key.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
                assert!(value.len() > 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
        }
    }
    families
}

#[tokio::test]
async fn the_exposition_is_what_prometheus_takes_and_keeps_to_its_conventions() {
    let server = start();

    let text = server.metrics().await;

    let families = families(&text);
    assert!(families.len() > 30, "{families:?}");
    assert!(text.contains(&format!("throughway_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))));
    assert!(families.keys().all(|name| name.starts_with("throughway_") || name.starts_with("process_")));
    assert!(server.metric("process_resident_memory_bytes").await > 1 << 20);
    assert!(server.metric("process_open_fds").await > 5);
}

#[tokio::test]
async fn the_relay_counts_who_asks_what_and_how_it_went() {
    let server = start();
    let request = |method: &str, answer: &str| {
        format!("throughway_turn_requests_total{{method=\"{method}\",answer=\"{answer}\"}}")
    };
    let failures = |kind: &str| format!("throughway_auth_failures_total{{kind=\"{kind}\"}}");
    // The start-up test's own are over.
    server.metric_becomes("throughway_allocations", 0).await;
    let unauthenticated = server.metric(&request("allocate", "401")).await;
    let [ended, begun] = [server.metric("throughway_allocations_ended_total").await, begun(&server, "udp").await];

    let good = Asker::new(server.udp(), "alice", "wonderland").await;
    good.allocate().await;
    let streams = [(server.turn_tcp(), None, "tcp"), (server.turn_tls(), Some(server.tls()), "tls")];
    let mut held = Vec::new();
    for (addr, tls, transport) in streams {
        let asker = Asker::over(Line::stream(addr, tls.as_ref()).await, "bob", "builder").await;
        asker.allocate().await;
        assert_eq!(server.metric(&alive(transport)).await, 1);
        held.push(asker);
    }
    assert_eq!(good.permit("192.168.1.1:9".parse().unwrap()).await, 403);
    assert_eq!(good.refresh(0).await, 0);
    assert_eq!(good.refresh(600).await, 437);
    for (user, password, kind) in [
        ("alice", "wrong", "unknown"),
        ("nobody", "wonderland", "unknown-user"),
        ("1:late", "x", "wrong-password"),
        ("9999999999:late", "x", "wrong-password"),
    ] {
        let kind = if kind == "unknown" { "wrong-password" } else { kind };
        let before = server.metric(&failures(kind)).await;
        assert_eq!(Asker::new(server.udp(), user, password).await.code_of(ALLOCATE, &[UDP]).await, 401, "{user}");
        assert_eq!(server.metric(&failures(kind)).await, before + 1, "{user}");
    }

    assert_eq!(begun + 1, self::begun(&server, "udp").await);
    assert_eq!(server.metric("throughway_allocations_ended_total").await, ended + 1);
    assert_eq!(server.metric("throughway_allocations_ended_total{reason=\"deleted\"}").await, ended + 1);
    assert_eq!(server.metric(&request("create-permission", "403")).await, 1);
    assert_eq!(server.metric(&request("refresh", "437")).await, 1);
    // A challenge for each of the seven, and four refusals.
    assert_eq!(server.metric(&request("allocate", "401")).await, unauthenticated + 11);
    drop(held);
    server.metric_becomes("throughway_allocations", 0).await;
    server.metric_becomes("throughway_allocations_ended_total{reason=\"stream-closed\"}", 2).await;
}

fn alive(transport: &str) -> String {
    format!("throughway_allocations{{transport=\"{transport}\"}}")
}

async fn begun(server: &Server, transport: &str) -> u64 {
    server.metric(&format!("throughway_allocations_begun_total{{transport=\"{transport}\"}}")).await
}

#[tokio::test]
async fn signaling_counts_who_comes_and_what_becomes_of_messages() {
    let server = start();
    let sign_ins = |gateway: &str, outcome: &str| {
        format!("throughway_sign_ins_total{{gateway=\"{gateway}\",outcome=\"{outcome}\"}}")
    };
    let messages = |outcome: &str| format!("throughway_messages_total{{gateway=\"json\",outcome=\"{outcome}\"}}");

    let mut alice = Client::sign_in(server.http(), "/ws", "alice").await;
    let mut second = Client::connect(server.http(), "/ws").await;
    assert_eq!(second.log_in("alice").await["success"], false);
    let mut bob = Client::sign_in(server.http(), "/ws", "bob").await;
    alice.send(&json!({ "type": "offer", "name": "bob", "offer": { "type": "offer", "sdp": "" } })).await;
    assert_eq!(bob.hear().await["type"], "offer");
    alice.send(&json!({ "type": "offer", "name": "nobody", "offer": { "type": "offer", "sdp": "" } })).await;
    alice.hear().await;
    assert_eq!(server.ask("GET /ice", "", "").await.0, 200);

    assert_eq!(server.metric(&sign_ins("json", "ok")).await, 2);
    assert_eq!(server.metric(&sign_ins("json", "name-taken")).await, 1);
    assert_eq!(server.metric("throughway_sign_ins_total").await, 3);
    assert_eq!(server.metric("throughway_members{gateway=\"json\"}").await, 2);
    assert_eq!(server.metric(&messages("queued")).await, 1);
    assert_eq!(server.metric(&messages("unknown-member")).await, 1);
    assert_eq!(server.metric("throughway_ice_requests_total{outcome=\"ok\"}").await, 1);
    assert_eq!(server.metric("throughway_places_taken{of=\"websocket\"}").await, 3);
    assert_eq!(server.metric("throughway_rooms").await, 0);
    let mut carol = Client::connect(server.http(), "/ws").await;
    carol.send(&json!({ "type": "login", "v": 2, "name": "carol", "room": "attic" })).await;
    assert_eq!(carol.hear().await["success"], true);
    assert_eq!(server.metric("throughway_rooms{gateway=\"json\"}").await, 1);
}

#[tokio::test]
async fn the_status_says_what_the_metrics_say_and_for_whom_most_is_relayed() {
    let server = start();
    // The start-up test's own are over.
    server.metric_becomes("throughway_allocations", 0).await;
    let mut carol = Client::connect(server.http(), "/ws").await;
    let reply = carol.log_in("carol").await;
    let text = |key: &str| reply["iceServers"][1][key].as_str().unwrap().to_owned();
    let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for (user, password, bytes) in
        [(text("username"), text("credential"), 900), ("alice".to_owned(), "wonderland".to_owned(), 300)]
    {
        let asker = Asker::new(server.udp(), &user, &password).await;
        asker.allocate().await;
        assert_eq!(asker.bind(0x4000, peer.local_addr().unwrap()).await, 0);
        asker.send(&channel_data(0x4000, &vec![7; bytes])).await;
        peer.recv(&mut [0; 2048]).await.unwrap();
    }
    server.relayed_becomes("to-peers", 2).await;

    let status = status(&server).await;

    assert_eq!((&status["ready"], &status["draining"]), (&json!(true), &json!(false)));
    assert_eq!((&status["connections"], &status["members"]["json"]), (&json!(1), &json!(1)));
    assert_eq!(status["allocations"], json!({ "udp": 2, "tcp": 0, "tls": 0 }));
    assert_eq!(status["relayed"]["toPeers"], json!({ "packets": 2, "bytes": 1200 }));
    assert_eq!(status["relayed"]["limitThisMonth"], json!(9_u64 << 30));
    assert_eq!(status["signIns"], json!({ "ok": 1, "refused": 0 }));
    let talker = |who: &Value, gateway: Value, session: &Value, bytes: u64| json!({ "who": who, "gateway": gateway, "session": session, "allocations": 1, "bytes": bytes, "packets": 1 });
    assert_eq!(
        status["talkers"],
        json!([
            talker(&json!("carol"), json!("json"), &reply["session"], 900),
            talker(&json!("alice"), Value::Null, &Value::Null, 300),
        ])
    );
    assert_eq!(server.ask("GET /admin/status", "", "").await.0, 401);
}

#[tokio::test]
async fn what_grafana_and_the_alerts_look_at_is_exposed() {
    let server = start();
    let exposed = families(&server.metrics().await);
    let dashboard: Value = serde_json::from_str(include_str!("../deploy/grafana.json")).unwrap();
    let queries: Vec<_> = expressions(&dashboard).collect();
    let alerts = include_str!("../deploy/alerts.yml");
    let alerting: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();

    assert!(queries.len() > 15 && alerting.len() >= 5, "{queries:?} {alerting:?}");
    for query in queries.iter().copied().chain(alerting) {
        let words = query.split(|c: char| !c.is_alphanumeric() && c != '_');
        let named: Vec<_> =
            words.filter(|word| word.starts_with("throughway_") || word.starts_with("process_")).collect();
        assert!(!named.is_empty() || query.contains("up{"), "{query}");
        for name in named {
            assert!(exposed.contains_key(name), "{name} in {query}");
        }
    }
}

/// Every `expr` of a dashboard.
fn expressions(dashboard: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match dashboard {
        Value::Array(entries) => Box::new(entries.iter().flat_map(expressions)),
        Value::Object(entries) => {
            let own = entries.get("expr").and_then(Value::as_str);
            Box::new(own.into_iter().chain(entries.values().flat_map(expressions)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Box::new(std::iter::empty()),
    }
}

#[tokio::test]
async fn thousands_of_scrapes_leave_nothing_behind() {
    let server = start();
    scrape(&server, SCRAPES / 4).await;

    Footprint::stays(server.pid(), MARGIN, async || scrape(&server, SCRAPES).await).await;
}

/// Scrapes so many times, over connections that carry many each.
pub(crate) async fn scrape(server: &Server, mut times: usize) {
    while times > 0 {
        let now = times.min(PER_CONNECTION);
        let mut stream = TcpStream::connect(server.metrics_addr()).await.unwrap();
        let (mut sent, mut read, mut buffer) = (0, 0, Vec::new());
        while read < now {
            while sent < now && sent < read + AHEAD {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
                sent += 1;
            }
            assert!(stream.read_buf(&mut buffer).await.unwrap() > 0, "closed after {read} scrapes");
            while let Some(length) = answer(&buffer) {
                buffer.drain(..length);
                read += 1;
            }
        }
        times -= now;
    }
}

/// How long the first answer is, if all of it is there.
fn answer(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).unwrap().to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 200 "), "{text}");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let all = head + length.trim().parse::<usize>().unwrap();
    (buffer.len() >= all).then_some(all)
}
