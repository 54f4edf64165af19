//! TURN by coturn's clients over IPv6, with relayed addresses of both families, in RTP and RTCP pairs.

use super::*;

/// Everything at `::1`, peers of both families.
const OVER_IPV6: &str = r#"
[http]
listen = ["[::1]:0"]
plain_listen = []
[metrics]
listen = ["127.0.0.1:0"]
[turn]
listen_udp = ["[::1]:0"]
listen_tcp = ["[::1]:0"]
listen_tls = ["[::1]:0"]
relay_ip = ["127.0.0.1", "::1"]
relay_ports = "20000-29999" # apart from the ports that the system chooses for listeners
users = { alice = "wonderland" }
[turn.peers]
allow = ["127.0.0.0/8", "::1/128"]
"#;

/// Clients, and messages of each on each of its allocations.
const CLIENTS: u64 = 2;
const MESSAGES: u64 = 50;

#[tokio::test]
async fn coturns_clients_lose_nothing_over_ipv6_in_pairs_of_either_family() {
    let server = Server::start(OVER_IPV6);
    let (v4, v6) = (CoturnsPeer::start("127.0.0.1").await, CoturnsPeer::start("::1").await);
    // Between two of its own it makes pairs: EVEN-PORT's next port, redeemed by its RESERVATION-TOKEN, carries as much.
    let (pairs, singles) = (2 * CLIENTS * MESSAGES, CLIENTS * MESSAGES);

    for (port, transport) in
        [(server.udp().port(), &[][..]), (server.turn_tcp().port(), &["-t"]), (server.turn_tls().port(), &["-t", "-S"])]
    {
        let ways: [(&[&str], u64); 6] = [
            (&["-y"], pairs),
            (&["-y", "-x", "-s"], pairs),
            (&["-y", "-X", "-c"], singles),
            (&["-e", "127.0.0.1", "-r", &v4.port], singles),
            (&["-x", "-e", "::1", "-r", &v6.port], singles),
            (&["-x", "-s", "-e", "::1", "-r", &v6.port], singles),
        ];
        let load = [&["-n", "50", "-m", "2"][..], transport].concat();
        let runs = ways.map(async |(way, all)| (way, all, uclient_at("::1", port, &[&load[..], way].concat()).await));
        for (way, all, tally) in futures_util::future::join_all(runs).await {
            assert_eq!(tally, Tally { sent: all, received: all }, "{transport:?} {way:?}");
        }
    }
}
