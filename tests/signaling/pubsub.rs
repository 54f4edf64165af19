//! Topics on the real binary: both dialects, how much one client may have, and who is let in.

use serde_json::json;
use tokio::net::TcpStream;

use super::config;
use crate::support::Server;
use crate::support::client::Client;

const PATH: &str = "/pubsub";

async fn subscriber(server: &Server, topic: &str) -> Client {
    let mut client = Client::connect(server.http(), PATH).await;
    client.send(&json!({ "type": "subscribe", "topics": [topic] })).await;
    client.is_served().await;
    client
}

async fn refused(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> Option<u16> {
    let stream = TcpStream::connect(server.http()).await.unwrap();
    Client::over(stream, path, headers).await.err()
}

#[tokio::test]
async fn what_is_published_to_a_topic_comes_to_its_subscribers_in_either_dialect() {
    let server = Server::start(&config(""));
    let topic = "a document\u{200b}, ".repeat(20);
    let (mut alice, mut bob) = (subscriber(&server, &topic).await, subscriber(&server, &topic).await);
    let mut elsewhere = subscriber(&server, "another").await;

    alice.send(&json!({ "type": "publish", "topic": topic, "data": { "type": "announce" } })).await;
    elsewhere.send(&json!({ "type": "publish", "topic": topic, "payload": "text" })).await;

    let echo = json!({ "type": "publish", "topic": topic, "data": { "type": "announce" }, "clients": 2 });
    let told = json!({ "topic": topic, "payload": "text" });
    for client in [&mut alice, &mut bob] {
        let mut heard = [client.hear().await, client.hear().await];
        heard.sort_by_key(|frame| frame["data"].is_null());
        assert_eq!(heard, [echo.clone(), told.clone()]);
    }
    elsewhere.is_served().await;
}

#[tokio::test]
async fn topics_and_subscribers_of_one_have_a_number_and_beyond_it_a_client_is_told() {
    let few = "[signaling.limits]\nrooms_per_member = 2\nmembers_per_room = 2\n";
    let server = Server::start(&config(few));
    let mut client = Client::connect(server.http(), PATH).await;
    let topics: Vec<_> = (0..17).map(|n| n.to_string()).collect();

    client.send(&json!({ "type": "subscribe", "topics": topics })).await;
    let error = client.hear().await;
    assert_eq!((&error["code"], &error["name"]), (&json!("forbidden"), &json!("16")), "eight times as many as rooms");

    let _second = subscriber(&server, "0").await;
    let mut third = Client::connect(server.http(), PATH).await;
    third.send(&json!({ "type": "subscribe", "topic": "0" })).await;
    let error = third.hear().await;
    assert_eq!((&error["code"], &error["name"]), (&json!("forbidden"), &json!("0")));
}

#[tokio::test]
async fn publishers_beyond_their_rate_are_told_and_then_closed_and_no_subscriber_hears_it() {
    let server = Server::start(&config("[signaling.limits]\nmessages = \"1/h\"\nmessage_burst = 5\n"));
    let mut subscriber = subscriber(&server, "topic").await;
    let mut flood = Client::connect(server.http(), PATH).await;

    for _ in 0..41 {
        flood.send(&json!({ "type": "publish", "topic": "topic", "payload": 1 })).await;
    }
    let (told, code) = flood.hear_out().await;

    assert_eq!(code, Some(4400));
    assert!(told.iter().all(|frame| frame["code"] == "rate"), "{told:?}");
    for _ in 0..20 {
        assert_eq!(subscriber.hear().await, json!({ "topic": "topic", "payload": 1 }), "four bursts' worth");
    }
    subscriber.is_served().await;
}

#[tokio::test]
async fn who_may_not_sign_in_gets_no_web_socket_so_that_its_client_backs_off() {
    let token = "0123456789abcdef";
    let server = Server::start(&config(&format!("[signaling.accounts]\nmode = \"token\"\ntoken = \"{token}\"\n")));

    assert_eq!(refused(&server, PATH, &[]).await, Some(401));
    assert_eq!(refused(&server, "/pubsub?token=0123456789abcdeF", &[]).await, Some(401));
    assert_eq!(
        refused(&server, &format!("/pubsub?token={token}"), &[("origin", "https://evil.example")]).await,
        Some(403)
    );
    Client::connect(server.http(), &format!("/pubsub?token={token}")).await.is_served().await;
}

#[tokio::test]
async fn clients_that_come_too_often_get_no_web_socket() {
    let server = Server::start(&config("[limits]\nexempt = []\n[signaling.limits]\nsign_ins = \"1/s\"\n"));
    let mut clients = Vec::new();

    let status = loop {
        let stream = TcpStream::connect(server.http()).await.unwrap();
        match Client::over(stream, PATH, &[]).await {
            Ok(client) => clients.push(client),
            Err(status) => break status,
        }
        assert!(clients.len() < 100, "nobody is refused");
    };

    assert_eq!(status, 429);
}

#[tokio::test]
async fn what_is_switched_off_is_not_there() {
    let server = Server::start(&config("[signaling.gateways]\npubsub = false\nayame = false\n"));

    for path in [PATH, "/signaling"] {
        assert_eq!(refused(&server, path, &[]).await, Some(404), "{path}");
    }
}
