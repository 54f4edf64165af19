//! Ayame on the real binary: calls of two, who is let in, and what that is worth.

use serde_json::Value;
use serde_json::json;

use super::config;
use crate::support::Server;
use crate::support::client::Client;

const PATH: &str = "/signaling";

async fn registering(server: &Server, path: &str, more: Value) -> (Client, Value) {
    let mut client = Client::connect(server.http(), path).await;
    let mut frame = json!({ "type": "register", "roomId": "room", "clientId": "client" });
    frame.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.send(&frame).await;
    let reply = client.hear().await;
    (client, reply)
}

#[tokio::test]
async fn two_negotiate_a_third_is_rejected_and_bye_ends_the_room() {
    let server = Server::start(&config(""));
    let (mut alice, first) = registering(&server, PATH, json!({})).await;
    let (mut bob, second) = registering(&server, PATH, json!({})).await;
    let (mut carol, third) = registering(&server, PATH, json!({})).await;

    assert_eq!((&first["isExistUser"], &second["isExistUser"]), (&json!(false), &json!(true)));
    assert!(second["iceServers"].to_string().contains("turn:"), "{second}");
    assert_eq!(third, json!({ "type": "reject", "reason": "full" }));
    assert_eq!(carol.hear_out().await.1, Some(1000));

    let offer = json!({ "type": "offer", "sdp": "v=0\r\n" });
    bob.send(&offer).await;
    assert_eq!(alice.hear().await, offer);
    let candidate = json!({ "type": "candidate", "ice": { "candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host" } });
    alice.send(&candidate).await;
    assert_eq!(bob.hear().await, candidate);
    drop(alice);
    assert_eq!(bob.hear_out().await, (vec![json!({ "type": "bye" })], Some(1000)));
    assert_eq!(registering(&server, PATH, json!({})).await.1["isExistUser"], false);
}

#[tokio::test]
async fn with_accounts_the_signaling_key_is_the_token_unless_the_url_has_one() {
    let token = "0123456789abcdef";
    let server = Server::start(&config(&format!("[signaling.accounts]\nmode = \"token\"\ntoken = \"{token}\"\n")));
    let by_url = format!("{PATH}?token={token}");

    for (path, more, accepted) in [
        (PATH, json!({}), false),
        (PATH, json!({ "key": "0123456789abcdeF" }), false),
        (PATH, json!({ "key": token }), true),
        (PATH, json!({ "signalingKey": token }), true),
        (&by_url, json!({}), true),
        (&by_url, json!({ "key": "of another server" }), true),
    ] {
        let (client, reply) = registering(&server, path, more.clone()).await;
        let expected = if accepted { "accept" } else { "reject" };
        assert_eq!(reply["type"], expected, "{path} {more}");
        assert!(accepted || reply == json!({ "type": "reject", "reason": "auth" }), "no ICE servers either");
        drop(client);
        server.metric_becomes("throughway_members", 0).await;
    }
    assert!(!server.log().contains(token), "no secret is logged");
}
