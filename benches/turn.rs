//! What the control plane costs, beside coturn's in the same run: CPU per authenticated request, memory per allocation.
//!
//! `cargo bench --bench turn` starts each server in turn, pinned to core 0, and asks it from core 1 with many clients, one
//! request at a time each. Rounds alternate between the servers; the first of each is dropped; medians are printed.

mod servers;

use std::net::SocketAddr;
use std::time::Duration;

use stun::attributes::*;
use stun::integrity::MessageIntegrity;
use stun::message::Message;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use self::servers::Failure;
use self::servers::Kind;
use self::servers::Pair;
use self::servers::Server;
use self::servers::certificate;
use self::servers::is_stock;
use self::servers::median;
use self::servers::now;
use self::servers::pin_to;
use self::servers::request;
use self::servers::request::ALLOCATE;
use self::servers::request::CHANNEL_BIND;
use self::servers::request::Given;
use self::servers::request::TRANSPORT;
use self::servers::request::message;

const CLIENTS: usize = 200;
/// Times that each client refreshes its allocation and its channel in a round.
const REPEATS: usize = 100;
const ROUNDS: usize = 6;
/// Allocations held to measure memory.
const HELD: usize = 2_000;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") || is_stock(&arguments)? {
        return Ok(());
    }
    pin_to(1)?;
    let pair = certificate()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // webrtc-rs turn::server stops answering for good under refreshes such as these.
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Stock && kind.is_there());
    let mut rows: Vec<_> = kinds.map(|kind| (kind, Vec::new())).collect();
    for round in 0..ROUNDS {
        for (kind, rounds) in &mut rows {
            let measured = runtime.block_on(measure(*kind, &pair))?;
            if round > 0 {
                rounds.push(measured);
            }
        }
    }
    println!("{:12} {:>16} {:>14} {:>18}", "server", "CPU us/request", "requests/s", "KiB/allocation");
    for (kind, rounds) in &rows {
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
        let (cpu, rate, memory) = (of(|it| it.cpu_us), of(|it| it.per_second), of(|it| it.kib_per_allocation));
        println!("{:12} {cpu:>16.1} {rate:>14.0} {memory:>18.1}", kind.name());
    }
    Ok(())
}

struct Round {
    cpu_us: f64,
    per_second: f64,
    kib_per_allocation: f64,
}

async fn measure(kind: Kind, pair: &Pair) -> Result<Round, Failure> {
    let server = Server::start(kind, pair)?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::new(server.addr).await?);
    }
    let (cpu, began) = (server.cpu()?, now());
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(async move {
            client.ask(ALLOCATE, TRANSPORT).await?;
            for _ in 0..REPEATS {
                client.ask(REFRESH, &[(ATTR_LIFETIME, &600_u32.to_be_bytes())]).await?;
                client.bind().await?;
            }
            client.ask(REFRESH, &[(ATTR_LIFETIME, &[0; 4])]).await?;
            Ok::<_, Failure>(client)
        });
    }
    // Kept to the end: coturn remembers their ports for a while, and refuses who comes from one anew.
    let mut held = Vec::new();
    while let Some(done) = tasks.join_next().await {
        held.push(done??);
    }
    let requests = (CLIENTS * (2 * REPEATS + 2)) as f64;
    let (took, used) = (now() - began, server.cpu()? - cpu);
    let before = server.resident_kib()?;
    for _ in 0..HELD {
        let client = Client::new(server.addr).await?;
        client.ask(ALLOCATE, TRANSPORT).await?;
        client.bind().await?;
        held.push(client);
    }
    Ok(Round {
        cpu_us: used.as_secs_f64() * 1e6 / requests,
        per_second: requests / took.as_secs_f64(),
        kib_per_allocation: (server.resident_kib()? - before) / HELD as f64,
    })
}

const REFRESH: u16 = 0x004;

struct Client {
    socket: UdpSocket,
    key: MessageIntegrity,
    nonce: Vec<u8>,
}

impl Client {
    /// A client with a nonce.
    async fn new(server: SocketAddr) -> Result<Self, Failure> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(server).await?;
        let mut client = Self { socket, key: request::key(), nonce: Vec::new() };
        let answer = client.exchange(&message(ALLOCATE, TRANSPORT)).await?;
        client.nonce = answer.get(ATTR_NONCE)?;
        Ok(client)
    }

    /// Binds a channel to a public peer that nothing is ever sent to.
    async fn bind(&self) -> Result<(), Failure> {
        let peer = request::peer(SocketAddr::from(([8, 8, 8, 8], 9)))?;
        self.ask(CHANNEL_BIND, &[(ATTR_CHANNEL_NUMBER, &[0x40, 0, 0, 0]), (ATTR_XOR_PEER_ADDRESS, &peer)]).await
    }

    async fn ask(&self, method: u16, attributes: &Given<'_>) -> Result<(), Failure> {
        let request = request::signed(method, attributes, &self.nonce, &self.key)?;
        request::accepted(method, self.exchange(&request).await?)?;
        Ok(())
    }

    async fn exchange(&self, request: &Message) -> Result<Message, Failure> {
        self.socket.send(&request.raw).await?;
        let mut buffer = vec![0; 1500];
        let length = tokio::time::timeout(Duration::from_secs(2), self.socket.recv(&mut buffer)).await??;
        buffer.truncate(length);
        let mut answer = Message { raw: buffer, ..Message::default() };
        answer.decode()?;
        Ok(answer)
    }
}
