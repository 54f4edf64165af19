//! Who may sign in, and have `/ice`, when a token is asked for.

use serde_json::json;

mod jwt;
mod webhook;

use super::OBJECTS;
use super::config;
use crate::support::PATIENCE;
use crate::support::Server;
use crate::support::client::Client;

const RIGHT: &str = "0123456789abcdef+%/?";

fn shared(more: &str) -> String {
    config(&format!("[signaling.accounts]\nmode = \"token\"\ntoken = \"{RIGHT}\"\n{more}"))
}

#[tokio::test]
async fn with_a_shared_token_only_who_has_it_signs_in_in_either_version() {
    let server = Server::start(&shared(""));
    let refused = json!({ "type": "login", "success": false, "reason": "auth" });

    for (n, path) in [OBJECTS, "/", super::STRINGS].into_iter().enumerate() {
        for version in [1, 2] {
            let name = format!("{n}{version}");
            let mut client = Client::connect(server.http(), path).await;
            assert_eq!(client.log_in(&name).await, refused, "without");
            for (token, success) in [("0123456789abcdeF+%/?", false), (RIGHT, true)] {
                let login = json!({ "type": "login", "name": name, "v": version, "token": token });
                client.send(&login).await;
                assert_eq!(client.hear().await["success"], success, "{token}");
            }
        }
    }
    let mut client = Client::connect(server.http(), "/ws?x=1&token=0123456789abcdef%2B%25%2F%3F").await;
    assert_eq!(client.log_in("by-url").await["success"], true);
    assert!(!server.log().contains("0123456789abcdef"), "no secret is logged");
    assert!(!server.log().contains("accounts are open"));
}

#[tokio::test]
async fn ice_servers_for_elsewhere_take_the_same_token() {
    let server = Server::start(&shared(""));

    for (request, header, status) in [
        ("GET /ice", String::new(), 401),
        ("GET /ice?token=0123456789abcdef", String::new(), 401),
        ("GET /ice?token=0123456789abcdef%2B%25%2F%3F", String::new(), 200),
        ("GET /ice", format!("Authorization: Bearer {RIGHT}\r\n"), 200),
        ("GET /ice", "Authorization: Bearer 0123456789abcdef\r\n".to_owned(), 401),
    ] {
        let (got, _, body) = server.ask(request, &header, "").await;
        assert_eq!((got, body.contains("turn:")), (status, status == 200), "{request} {header}");
    }
}

#[tokio::test]
async fn who_fails_to_sign_in_too_often_waits() {
    let often = "[limits]\nexempt = []\n[signaling.limits]\nmessages = \"100000/s\"\nmessage_burst = 1000000\n";
    let server = Server::start(&shared(often));
    let mut client = Client::connect(server.http(), OBJECTS).await;
    let mut reasons = Vec::new();

    while reasons.last() != Some(&json!("rate")) {
        client.send(&json!({ "type": "login", "name": "guest", "token": "0123456789abcdef" })).await;
        reasons.push(client.hear().await["reason"].clone());
    }

    assert!((11..20).contains(&reasons.len()), "{reasons:?}");
    let right = json!({ "type": "login", "name": "guest", "token": RIGHT });
    let let_in = async {
        loop {
            client.send(&right).await;
            if client.hear().await["success"] == true {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, let_in).await.expect("but not for ever");
}
