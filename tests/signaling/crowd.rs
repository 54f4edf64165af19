//! What a thousand members, or a thousand who don't become any, leave of the service for others.

use std::net::Ipv4Addr;
use std::net::SocketAddr;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::OBJECTS;
use super::config;
use crate::support::Server;
use crate::support::client::Client;

const MEMBERS: usize = 1_000;
/// Times that each pair sends a candidate there and back.
const ROUNDS: usize = 5;
/// Sources of half-open connections, and how many each has.
const SOURCES: u8 = 10;
const PER_SOURCE: usize = 100;

#[tokio::test]
async fn a_stalled_reader_among_a_thousand_costs_the_others_nothing() {
    // Its mailbox has room for more than the kernel takes for it, so that its socket is full, too, when it is full.
    let server = Server::start(&config(
        "[signaling]\nqueue_messages = 10000\nqueue_bytes = \"12MiB\"\ngone_after = \"10m\"\n\
         [signaling.limits]\nmessages = \"100000/s\"\nmessage_burst = 1000000\n",
    ));
    let mut pairs = Vec::new();
    for pair in 0..MEMBERS / 2 {
        let left = Client::sign_in(server.http(), OBJECTS, &format!("left{pair}")).await;
        let right = Client::sign_in(server.http(), OBJECTS, &format!("right{pair}")).await;
        pairs.push((pair, left, right));
    }
    let _stalled = stalled(&server).await;
    let mut sender = Client::sign_in(server.http(), OBJECTS, "sender").await;
    while !is_refused(&mut sender).await {}
    let (stop, mut stopped) = oneshot::channel::<()>();
    let nuisance = tokio::spawn(async move {
        let mut refusals = 0;
        while stopped.try_recv().is_err() {
            assert!(is_refused(&mut sender).await, "it was told that its partner does not read, and went on");
            refusals += 1;
        }
        refusals
    });

    let mut exchanges: JoinSet<()> = pairs.into_iter().map(|(pair, left, right)| exchange(pair, left, right)).collect();
    while let Some(exchanged) = exchanges.join_next().await {
        exchanged.expect("each candidate arrives, in order, and nothing else");
    }

    stop.send(()).unwrap();
    assert!(nuisance.await.unwrap() > 0, "the reader was stalled all the time");
}

#[tokio::test]
async fn a_thousand_half_open_connections_do_not_keep_a_new_member_from_signing_in() {
    let server = Server::start(&config("[limits]\nexempt = []\n"));
    let hello = half_a_hello();
    let mut idlers = Vec::new();
    for source in 1..=SOURCES {
        for number in 0..PER_SOURCE {
            let idler = match number % 3 {
                0 => connect(source, server.http(), b"").await,
                1 => connect(source, server.https(), &hello).await,
                _ => upgraded(source, server.http()).await,
            };
            idlers.push(idler);
        }
    }
    let upgrades = u64::from(SOURCES) * (2..PER_SOURCE).step_by(3).count() as u64;
    server.metric_becomes("throughway_connections", upgrades).await;

    let mut clear = Client::sign_in(server.http(), OBJECTS, "clear").await;
    let stream = TcpStream::connect(server.https()).await.unwrap();
    let stream = server.tls().connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let mut secure = Client::over(stream, OBJECTS, &[]).await.unwrap();
    assert_eq!(secure.log_in("secure").await["success"], true);

    clear.send(&json!({ "type": "offer", "name": "secure", "offer": {} })).await;
    assert_eq!(secure.hear().await["name"], "clear");
    server.metric_becomes("throughway_connections", upgrades + 2).await;
    drop(idlers);
}

/// A member that is sent what it doesn't read, and isn't closed for it, because it may take its session up again.
async fn stalled(server: &Server) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(server.http()).await.unwrap();
    let mut stalled = Client::over(stream, OBJECTS, &[]).await.unwrap();
    stalled.send(&json!({ "type": "login", "name": "stalled", "v": 2 })).await;
    assert_eq!(stalled.hear().await["success"], true);
    stalled
}

/// Sends it one more offer, and hears whether it was refused.
async fn is_refused(sender: &mut Client) -> bool {
    sender.send(&json!({ "type": "offer", "name": "stalled", "offer": "x".repeat(60_000) })).await;
    sender.send(&json!({ "type": "ping" })).await;
    let answer = sender.hear().await;
    if answer["type"] == "pong" {
        return false;
    }
    assert_eq!((&answer["code"], &answer["name"]), (&json!("rate"), &json!("stalled")));
    assert_eq!(sender.hear().await["type"], "pong");
    true
}

async fn exchange(pair: usize, mut left: Client, mut right: Client) {
    let names = [format!("left{pair}"), format!("right{pair}")];
    for round in 0..ROUNDS {
        pass(&mut left, &mut right, &names[0], &names[1], round).await;
        pass(&mut right, &mut left, &names[1], &names[0], round).await;
    }
}

async fn pass(from: &mut Client, to: &mut Client, from_name: &str, to_name: &str, round: usize) {
    from.send(&json!({ "type": "candidate", "name": to_name, "candidate": round })).await;
    assert_eq!(to.hear().await, json!({ "type": "candidate", "name": from_name, "candidate": round }));
}

async fn connect(source: u8, addr: SocketAddr, says: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, source, 1), 0))).unwrap();
    let mut stream = socket.connect(addr).await.unwrap();
    stream.write_all(says).await.unwrap();
    stream
}

async fn upgraded(source: u8, addr: SocketAddr) -> TcpStream {
    let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stream = connect(source, addr, request.as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    stream
}

/// The beginning of what begins TLS.
fn half_a_hello() -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello.truncate(hello.len() / 2);
    hello
}
