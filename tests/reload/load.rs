//! Reloads while the server is at work.

use super::Running;
use super::config;
use crate::support::load::Load;
use crate::support::load::Size;

/// As the must-show has it.
const SOCKETS: usize = 1000;
const RELOADS: u16 = 12;

#[tokio::test]
async fn reloads_in_a_row_under_load_lose_nothing() {
    let with = |turn: &[(&str, &str)], n: u16| {
        // Something of everything, each time, but what the load itself is made of.
        let limits = format!("[turn.limits]\nbandwidth = \"{}MiB/s\"\n", 100 + n);
        let peers = format!("[turn.peers]\ndeny = [\"8.8.{n}.0/24\"]\n");
        let gateways = format!("[signaling.gateways]\npeerjs = {}\n", n.is_multiple_of(2));
        let signaling = format!("[signaling]\nping_every = \"{}s\"\nqueue_messages = {}\n", 1 + n % 2, 200 + n);
        config(turn, &format!("{limits}{peers}{signaling}{gateways}[admin]\ntoken = \"0123456789abcdef{n}\"\n"))
    };
    let running = Running::start(&with(&[], 0));
    let size = Size { streams: 8, seconds: 10, sockets: SOCKETS, tls: None };
    let load = Load::start(&running.server, size).await;

    for n in 1..=RELOADS {
        let secrets = format!("[\"secret {n}\", \"north\"]");
        let users = format!("{{ alice = \"wonderland\", bob = \"builder\", passer-by = \"{n}\" }}");
        let lines = running.reload(&with(&[("secrets", &secrets), ("users", &users)], n)).await;
        assert!(lines.last().unwrap().contains("turn.secrets, turn.users"), "{lines:?}");
    }
    let outcome = load.finish().await;

    assert_eq!((outcome.relay_lost, outcome.messages_lost, outcome.messages_refused), (0, 0, 0), "{outcome:?}");
    assert_eq!((outcome.sockets_closed.len(), outcome.connections_refused), (0, 0), "{outcome:?}");
    assert_eq!((outcome.members, outcome.relay_sent), (SOCKETS, 8 * 10 * 20), "{outcome:?}");
    assert!(outcome.messages_sent > SOCKETS as u64, "{outcome:?}");
}
