//! Proves a TURN server by using it: two clients of webrtc-rs `turn` allocate, permit each other and make a round trip.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use turn::client::Client;
use turn::client::ClientConfig;
use webrtc_util::Conn;

use crate::clock::Clock;
use crate::credentials::IceCredential;

/// How long each step may take. Steps that get no answer end the probe, so that it takes little longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// What Alice says before Bob may hear her.
const FIRST_WORD: &[u8] = b"hello";

/// What failed, and of what step.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Nothing came.
    #[error("{step}: no answer from {server} within 5 s; does a local firewall drop UDP on this port?")]
    Silence {
        /// What was being done.
        step: &'static str,
        /// Whom it was asked of.
        server: SocketAddr,
    },
    /// The server or the network refused.
    #[error("{step}: {reason}{}", cure(reason))]
    Refused {
        /// What was being done.
        step: &'static str,
        /// What was said.
        reason: String,
    },
}

/// Relays one datagram there and back between two clients of the server at `server`, each with a credential of its own;
/// the time that took, from the moment when both had allocated.
///
/// # Errors
///
/// [`Failed`], with the step that failed.
pub async fn round_trip(
    server: SocketAddr,
    realm: &str,
    pair: &[IceCredential; 2],
    clock: Clock,
) -> Result<Duration, Failed> {
    let probe = Probe { server, realm };
    let conns = [probe.datagrams().await?, probe.datagrams().await?];
    round_trip_over(conns, server, realm, pair, clock).await.map(|proof| proof.took)
}

/// That a relay works.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    /// From the moment when both had allocated.
    pub took: Duration,
    /// Where the first client's peers would send to.
    pub relayed: SocketAddr,
}

/// The same over connections to the server that are there already, of whichever transport.
///
/// # Errors
///
/// [`Failed`], with the step that failed.
pub async fn round_trip_over(
    [alice_conn, bob_conn]: [Arc<dyn Conn + Send + Sync>; 2],
    server: SocketAddr,
    realm: &str,
    [alice, bob]: &[IceCredential; 2],
    clock: Clock,
) -> Result<Proof, Failed> {
    let probe = Probe { server, realm };
    let (alice, bob) = (probe.client(alice, alice_conn).await?, probe.client(bob, bob_conn).await?);
    let alice_relay = probe.step("allocate", alice.allocate()).await?;
    let bob_relay = probe.step("allocate", bob.allocate()).await?;
    let started = clock.now().monotonic;
    let relayed = probe.step("read the relayed address", async { alice_relay.local_addr() }).await;
    let outcome = probe.exchange(&alice_relay, &bob_relay).await;
    let took = clock.now().monotonic - started;
    for relay in [&alice_relay as &(dyn Conn + Send + Sync), &bob_relay] {
        let _ = relay.close().await;
    }
    for client in [alice, bob] {
        let _ = client.close().await;
    }
    outcome?;
    Ok(Proof { took, relayed: relayed? })
}

/// What the operator can do about an error response, by its code as webrtc-rs prints it.
fn cure(reason: &str) -> &'static str {
    let cures = [
        ("error 401", "; turn.limits.challenges may be too low"),
        ("error 440", "; the server has no IPv4 address to relay from: set turn.relay_ip"),
        ("error 486", "; turn.limits.allocations_per_source may be too low"),
        ("error 508", "; no relayed port could be bound: check turn.relay_ports, and the limit of open files"),
    ];
    cures.iter().find(|(code, _)| reason.contains(code)).map_or("", |(_, cure)| cure)
}

struct Probe<'a> {
    server: SocketAddr,
    realm: &'a str,
}

impl Probe<'_> {
    async fn datagrams(&self) -> Result<Arc<dyn Conn + Send + Sync>, Failed> {
        let any = if self.server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Ok(Arc::new(self.step("bind a socket", UdpSocket::bind(SocketAddr::new(any, 0))).await?))
    }

    async fn client(&self, credential: &IceCredential, conn: Arc<dyn Conn + Send + Sync>) -> Result<Client, Failed> {
        let config = ClientConfig {
            stun_serv_addr: self.server.to_string(),
            turn_serv_addr: self.server.to_string(),
            username: credential.username.clone(),
            password: credential.password.clone(),
            realm: self.realm.to_owned(),
            software: String::new(),
            rto_in_ms: 0,
            conn,
            vnet: None,
        };
        let client = self.step("start a client", Client::new(config)).await?;
        self.step("start a client", client.listen()).await?;
        Ok(client)
    }

    /// Alice's first word only opens her permission for Bob (he has none for her yet, unless it was long on its way to
    /// another shard); his reaches her, hers him.
    async fn exchange(&self, alice: &impl Conn, bob: &impl Conn) -> Result<(), Failed> {
        let alice_addr = self.step("read the relayed address", async { alice.local_addr() }).await?;
        let bob_addr = self.step("read the relayed address", async { bob.local_addr() }).await?;
        self.step("create a permission", alice.send_to(FIRST_WORD, bob_addr)).await?;
        self.step("create a permission", bob.send_to(b"ping", alice_addr)).await?;
        self.expect(alice, b"ping", bob_addr).await?;
        self.step("send", alice.send_to(b"pong", bob_addr)).await?;
        self.expect(bob, b"pong", alice_addr).await
    }

    async fn expect(&self, conn: &impl Conn, wanted: &[u8], from: SocketAddr) -> Result<(), Failed> {
        let step = "receive through the relay";
        let mut buffer = [0; 64];
        loop {
            let (length, source) = self.step(step, conn.recv_from(&mut buffer)).await?;
            match buffer.get(..length).filter(|_| source == from) {
                Some(FIRST_WORD) => {}
                Some(came) if came == wanted => return Ok(()),
                Some(_) | None => {
                    return Err(Failed::Refused { step, reason: "what came is not what was sent".into() });
                }
            }
        }
    }

    async fn step<T, E: std::fmt::Display>(
        &self,
        step: &'static str,
        doing: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failed> {
        match tokio::time::timeout(PATIENCE, doing).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Failed::Refused { step, reason: error.to_string() }),
            Err(_) => Err(Failed::Silence { step, server: self.server }),
        }
    }
}
