//! The admin API: what its page says, and its lists.

use serde_json::Value;
use serde_json::json;

use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::Asker;
use crate::support::asker::channel_data;
use crate::support::client::Client;
use crate::support::line::Line;

const TOKEN: &str = "Authorization: Bearer 0123456789abcdef\r\n";

fn start() -> Server {
    Server::start(&format!("{PEERS_ON_LOOPBACK}[admin]\ntoken = \"0123456789abcdef\"\n"))
}

async fn ask(server: &Server, request: &str, body: &str) -> (u16, Value) {
    let (status, _, answer) = server.ask(request, TOKEN, body).await;
    (status, serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{request}: {answer}")))
}

/// Somebody in a room; with the ICE servers that it gets.
async fn enter(server: &Server, name: &str, room: &str) -> (Client, Value) {
    let mut client = Client::connect(server.http(), "/ws").await;
    client.send(&json!({ "type": "login", "v": 2, "name": name, "room": room })).await;
    let reply = client.hear().await;
    assert_eq!(reply["success"], true, "{reply}");
    (client, reply)
}

/// Requests of the page, each with its body and the answer behind it.
fn examples() -> Vec<(String, String, Value)> {
    let page = include_str!("../deploy/admin.md");
    let mut blocks = page.split("```").skip(1).step_by(2);
    let mut found = Vec::new();
    while let Some(request) = blocks.next() {
        let request = request.strip_prefix("http\n").expect("a request comes first").trim_end();
        let (line, body) = request.split_once("\n\n").unwrap_or((request, ""));
        let answer = blocks.next().and_then(|block| block.strip_prefix("json\n")).expect("and its answer behind it");
        found.push((line.to_owned(), body.to_owned(), serde_json::from_str(answer).unwrap()));
    }
    found
}

/// Whether two JSON values have the same fields of the same kinds; of lists, each entry the first one's. What is true or
/// false is so in both.
fn same_shape(ours: &Value, shown: &Value) -> bool {
    match (ours, shown) {
        (Value::Object(ours), Value::Object(shown)) => {
            ours.len() == shown.len()
                && ours.iter().all(|(key, value)| shown.get(key).is_some_and(|shown| same_shape(value, shown)))
        }
        (Value::Array(ours), Value::Array(shown)) => {
            ours.is_empty() == shown.is_empty() && ours.iter().all(|value| same_shape(value, &shown[0]))
        }
        (Value::Bool(ours), Value::Bool(shown)) => ours == shown,
        (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)) | (Value::Null, Value::Null) => {
            true
        }
        (_, _) => false,
    }
}

#[tokio::test]
async fn every_example_of_the_page_does_what_the_page_says() {
    let server = start();
    // The start-up test's own are over.
    server.metric_becomes("throughway_allocations", 0).await;
    let (_alice, reply) = enter(&server, "alice", "lobby").await;
    let _bob = enter(&server, "bob", "lobby").await;
    let text = |key: &str| reply["iceServers"][1][key].as_str().unwrap().to_owned();
    let asker = Asker::new(server.udp(), &text("username"), &text("credential")).await;
    asker.allocate().await;
    let examples = examples();
    let mut calls: Vec<_> = examples.iter().map(|(line, ..)| line.split('?').next().unwrap()).collect();
    calls.sort_unstable();
    assert_eq!(
        calls,
        [
            "GET /admin/allocations",
            "GET /admin/members",
            "GET /admin/rooms",
            "GET /admin/status",
            "POST /admin/ban",
            "POST /admin/kick",
            "POST /admin/revoke",
            "POST /admin/unban"
        ]
    );

    for (line, body, shown) in examples {
        let (status, mut answer) = ask(&server, &line, &body).await;

        assert_eq!(status, 200, "{line} {body}: {answer}");
        if let Some(drops) = answer.get_mut("drops") {
            // Of whatever reason there was any.
            *drops = shown["drops"].clone();
        }
        assert!(same_shape(&answer, &shown), "{line}: {answer}\ninstead of {shown}");
    }
}

#[tokio::test]
async fn lists_say_who_is_where_and_what_is_relayed_for_whom() {
    let server = start();
    let (mut alice, reply) = enter(&server, "Zo\u{eb}/x", "lobby").await;
    alice.send(&json!({ "type": "join", "id": 1, "room": "attic" })).await;
    alice.hear().await;
    let text = |key: &str| reply["iceServers"][1][key].as_str().unwrap().to_owned();
    let session = &reply["session"];
    let theirs = Asker::new(server.udp(), &text("username"), &text("credential")).await;
    let relayed = theirs.allocate().await;
    let camera = Asker::over(Line::stream(server.turn_tcp(), None).await, "alice", "wonderland").await;
    let at_camera = camera.allocate().await;
    assert_eq!([theirs.bind(0x4000, at_camera).await, camera.bind(0x4001, relayed).await], [0, 0]);
    theirs.send(&channel_data(0x4000, b"hello")).await;
    assert_eq!(camera.receive().await[..9], channel_data(0x4001, b"hello"));
    let joined = |unit| format!("throughway_relayed_{unit}_total{{transport=\"tcp\",direction=\"hairpin\"}}");
    server.metric_becomes(&joined("packets"), 1).await;

    let members = ask(&server, "GET /admin/members", "").await.1;
    let rooms = ask(&server, "GET /admin/rooms?gateway=json", "").await.1;
    let allocations = ask(&server, "GET /admin/allocations", "").await.1;

    let member = &members["members"][0];
    assert_eq!((&member["name"], &member["session"]), (&json!("Zo\u{eb}/x"), session));
    assert_eq!((&member["source"], &member["rooms"]), (&json!("127.0.0.1"), &json!(["lobby", "attic"])));
    assert_eq!(
        rooms["rooms"],
        json!([
            { "name": "attic", "gateway": "json", "members": 1 },
            { "name": "lobby", "gateway": "json", "members": 1 },
        ])
    );
    let [first, second] = [&allocations["allocations"][0], &allocations["allocations"][1]];
    assert_eq!((&first["session"], &first["relayed"]), (session, &json!(relayed)));
    assert_eq!((&first["username"], &first["server"]), (&json!(text("username")), &json!(server.udp())));
    assert_eq!((&second["session"], &second["username"]), (&Value::Null, &json!("alice")));
    assert!(first["id"].as_u64() < second["id"].as_u64());
    let (one, none) = (json!({ "packets": 1, "bytes": 5 }), json!({ "packets": 0, "bytes": 0 }));
    assert_eq!((&first["transport"], &first["toPeers"], &first["toClient"]), (&json!("udp"), &one, &none));
    assert_eq!((&second["transport"], &second["toPeers"], &second["toClient"]), (&json!("tcp"), &none, &one));
    assert_eq!(server.metric(&joined("bytes")).await, 5, "where it is received");
    assert_eq!(ask(&server, "GET /admin/members?gateway=peerjs", "").await.1["members"], json!([]));
    drop(alice);
}

#[tokio::test]
async fn lists_come_a_page_at_a_time_and_miss_nobody() {
    let server = start();
    let mut there = Vec::new();
    for n in 0..7 {
        there.push(enter(&server, &format!("m {n}"), &format!("r&{n}")).await);
        Asker::new(server.udp(), "alice", "wonderland").await.allocate().await;
    }

    for (list, key) in [("members", "name"), ("rooms", "name"), ("allocations", "id")] {
        let (mut seen, mut pages, mut after) = (Vec::new(), 0, String::new());
        loop {
            let (status, page) = ask(&server, &format!("GET /admin/{list}?limit=3{after}"), "").await;
            assert_eq!(status, 200, "{page}");
            let entries = page[list].as_array().unwrap();
            assert!(entries.len() <= 3);
            seen.extend(entries.iter().map(|entry| entry[key].clone()));
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
            after = format!("&after={next}");
        }
        assert_eq!((seen.len(), pages), (7, 3), "{list}: {seen:?}");
        let mut sorted = seen.clone();
        sorted.sort_by_key(|entry| (entry.as_u64(), entry.to_string()));
        sorted.dedup();
        assert_eq!(seen, sorted, "{list}");
    }
}

#[tokio::test]
async fn lists_and_commands_say_what_is_wrong_with_a_request() {
    let server = start();

    for (request, body, status) in [
        ("GET /admin/members?limit=0", "", 400),
        ("GET /admin/members?limit=1001", "", 400),
        ("GET /admin/members?limit=-1", "", 400),
        ("GET /admin/members?gateway=irc", "", 400),
        ("GET /admin/members?after=alice", "", 400),
        ("GET /admin/members?after=irc/alice", "", 400),
        ("GET /admin/members?gateway=json&after=peerjs/alice", "", 400),
        ("GET /admin/members?name=alice", "", 400),
        ("GET /admin/rooms?after=json/", "", 400),
        ("GET /admin/allocations?after=x", "", 400),
        ("GET /admin/allocations?gateway=json", "", 400),
        ("POST /admin/kick", r#"{"name":"x","gateway":"irc"}"#, 400),
        ("POST /admin/kick", r#"{"name":"x","gateway":"peerjs"}"#, 404),
    ] {
        let (got, answer) = ask(&server, request, body).await;

        assert_eq!((got, answer["error"].is_string()), (status, true), "{request}: {answer}");
    }
    for list in ["members", "rooms", "allocations"] {
        assert_eq!(server.ask(&format!("GET /admin/{list}"), "", "").await.0, 401);
        assert_eq!(server.ask(&format!("POST /admin/{list}"), TOKEN, "").await.0, 405);
    }
}
