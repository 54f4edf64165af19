//! Sessions over a network that cuts and stalls connections, and brings what one carried behind what its successor did: each
//! message arrives once and in order, or its sender is told.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::SinkExt;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::OBJECTS;
use super::config;
use crate::support::PATIENCE;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::client::Client;

const LIMITS: &str = "[signaling.limits]\nmessages = \"100000/s\"\nmessage_burst = 1000000\n";
/// So many of the frames that were taken are sent again after a break.
const AGAIN: u64 = 5;
/// Pairs of members at work at once.
const PAIRS: u64 = 4;

#[tokio::test]
async fn numbered_messages_arrive_once_and_in_order_however_connections_break() {
    let (heard, resumed) = exchange(Duration::from_secs(20), 1).await;

    assert!(heard > 1000 && resumed > 100, "{heard} messages over {resumed} connections are no proof");
}

#[tokio::test]
async fn who_never_comes_back_costs_its_senders_an_error_each() {
    let server = Server::start(&config("[signaling]\nresume_within = \"1s\""));
    let mut alice = Client::connect(server.http(), OBJECTS).await;
    let mut bob = Client::connect(server.http(), OBJECTS).await;
    for (client, name) in [(&mut alice, "alice"), (&mut bob, "bob")] {
        client.send(&json!({ "type": "login", "v": 2, "name": name, "room": "r" })).await;
        assert_eq!(client.hear().await["success"], true);
    }
    assert_eq!(alice.hear().await["joined"], "bob");
    drop(bob);

    for (id, frame) in [
        (1, json!({ "type": "offer", "name": "bob", "offer": {} })),
        (2, json!({ "type": "send", "name": "bob", "data": 1 })),
        (3, json!({ "type": "send", "room": "r", "data": 1 })),
    ] {
        let mut frame = frame;
        frame["id"] = json!(id);
        alice.send(&frame).await;
    }

    assert_eq!(alice.hear().await, json!({ "type": "leave", "name": "bob", "seq": 2 }));
    assert_eq!(alice.hear().await, json!({ "type": "presence", "room": "r", "left": "bob", "seq": 3 }));
    for (id, key, to) in [(1, "name", "bob"), (2, "name", "bob"), (3, "room", "r")] {
        let error = alice.hear().await;
        assert_eq!((&error["code"], &error[key], &error["id"]), (&json!("undelivered"), &json!(to), &json!(id)));
    }
    server.metric_becomes("throughway_members", 1).await;
}

#[tokio::test]
async fn relays_outlive_a_broken_connection_and_end_with_the_session() {
    let session_mode = PEERS_ON_LOOPBACK.replace("relay_ports", "credentials = \"session\"\nrelay_ports");
    let server = Server::start(&format!("{session_mode}[signaling]\nresume_within = \"5s\"\n"));
    let mut alice = Client::connect(server.http(), OBJECTS).await;
    alice.send(&json!({ "type": "login", "v": 2, "name": "alice" })).await;
    let reply = alice.hear().await;
    let text = |key| reply["iceServers"][1][key].as_str().unwrap();
    let asker = Asker::new(server.udp(), text("username"), text("credential")).await;
    asker.allocate().await;

    drop(alice);
    server.metric_becomes("throughway_connections", 0).await;
    assert_eq!(code(&asker.ask(REFRESH, &[]).await), 0, "nobody is signed out yet");
    let mut back = Client::connect(server.http(), OBJECTS).await;
    back.send(&json!({ "type": "login", "v": 2, "name": "alice", "resume": reply["resume"], "seq": 0 })).await;
    assert_eq!(back.hear().await["session"], reply["session"]);
    assert_eq!(code(&asker.ask(REFRESH, &[]).await), 0);
    drop(back);

    server.metric_becomes("throughway_members", 0).await;
    server.metric_becomes("throughway_allocations", 0).await;
    assert_eq!(code(&asker.ask(REFRESH, &[]).await), 401);
}

/// Has pairs exchange messages for so long; how many were heard, and over how many connections.
pub(crate) async fn exchange(time: Duration, seed: u64) -> (u64, u64) {
    let server = Server::start(&config(LIMITS));
    let network = Network::start(server.http(), seed).await;
    let mut members = Vec::new();
    for pair in 0..PAIRS {
        let ways = [Arc::new(Way::default()), Arc::new(Way::default())];
        let names = [format!("left{pair}"), format!("right{pair}")];
        for side in [0, 1] {
            let (out, back) = (Arc::clone(&ways[side]), Arc::clone(&ways[1 - side]));
            members.push(Member::sign_in(&server, &names[side], &names[1 - side], out, back).await);
        }
    }

    let calm = Arc::clone(&network.calm);
    let through = network.addr;
    let live = members.into_iter().map(|member| tokio::spawn(member.live(through, Arc::clone(&calm))));
    let live: Vec<_> = live.collect();
    tokio::time::sleep(time).await;
    calm.store(true, Ordering::Relaxed);
    let settled = tokio::time::timeout(PATIENCE, futures_util::future::try_join_all(live)).await;
    let members = settled.expect("all is settled once it is calm").unwrap();
    server.metric_becomes("throughway_members", 0).await;
    let overtaken = network.overtaken.load(Ordering::Relaxed);
    assert!(overtaken > 10, "{overtaken} connections that others overtook are no proof");
    for pair in members.chunks(2) {
        pair[0].check(&pair[1]);
        pair[1].check(&pair[0]);
    }
    let count = |of: fn(&Member) -> u64| members.iter().map(of).sum();
    (count(|member| member.heard.len() as u64), count(|member| member.resumed))
}

/// Messages from one member to another.
#[derive(Default)]
struct Way {
    sent: AtomicU64,
    /// Heard, or told that they were not delivered.
    settled: AtomicU64,
}

impl Way {
    fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed) == self.sent.load(Ordering::Relaxed)
    }
}

/// A client of the second version, as a page would have it.
struct Member {
    name: String,
    partner: String,
    secret: Value,
    /// The last number of what it was told.
    seq: u64,
    acknowledged: u64,
    /// The last number of its own, which is also what it tells.
    id: u64,
    /// What it sent and the server may not have got.
    unsure: VecDeque<(u64, String)>,
    heard: Vec<u64>,
    undelivered: HashSet<u64>,
    resumed: u64,
    is_leaving: bool,
    is_over: bool,
    out: Arc<Way>,
    back: Arc<Way>,
}

impl Member {
    /// By a direct way: who doesn't hear the secret can't come back.
    async fn sign_in(server: &Server, name: &str, partner: &str, out: Arc<Way>, back: Arc<Way>) -> Self {
        let mut client = Client::connect(server.http(), OBJECTS).await;
        client.send(&json!({ "type": "login", "v": 2, "name": name })).await;
        let reply = client.hear().await;
        assert_eq!(reply["success"], true, "{reply}");
        Self {
            name: name.to_owned(),
            partner: partner.to_owned(),
            secret: reply["resume"].clone(),
            seq: 0,
            acknowledged: 0,
            id: 0,
            unsure: VecDeque::new(),
            heard: Vec::new(),
            undelivered: HashSet::new(),
            resumed: 0,
            is_leaving: false,
            is_over: false,
            out,
            back,
        }
    }

    /// Until everything is settled in a calm network, and both have been told.
    async fn live(mut self, through: SocketAddr, calm: Arc<AtomicBool>) -> Self {
        loop {
            let Ok(stream) = TcpStream::connect(through).await else { continue };
            let Some(mut client) = Client::try_over(stream, OBJECTS).await else { continue };
            let done = self.talk(&mut client, &calm).await;
            if self.is_over || (done.is_some() && self.leave(&mut client).await.is_some()) {
                return self;
            }
        }
    }

    /// Says goodbye, and that all has arrived; none, if it doesn't hear that this was heard.
    async fn leave(&mut self, client: &mut Client) -> Option<()> {
        self.is_leaving = true;
        for frame in [json!({ "type": "ack", "seq": self.seq }), json!({ "type": "bye" })] {
            client.socket.send(Message::text(frame.to_string())).await.ok()?;
        }
        client.hear_out().await.1.map(|code| assert_eq!(code, 1000))
    }

    /// Over one connection, until that breaks or all is done.
    async fn talk(&mut self, client: &mut Client, calm: &AtomicBool) -> Option<()> {
        let login =
            json!({ "type": "login", "v": 2, "name": self.name, "resume": self.secret, "seq": self.seq }).to_string();
        client.socket.send(Message::text(login)).await.ok()?;
        let reply = next(client).await?;
        if self.is_leaving && reply["success"] == false {
            self.is_over = true;
            return None;
        }
        assert_eq!(reply["success"], true, "{reply}");
        self.resumed += 1;
        let known = reply["id"].as_u64().unwrap();
        assert!(known <= self.id, "it knows of frames that were never sent");
        // A careless client: it sends some again that the server says it has.
        self.unsure.retain(|(id, _)| *id + AGAIN > known);
        for (_, frame) in &self.unsure {
            client.socket.feed(Message::text(frame)).await.ok()?;
        }
        client.socket.flush().await.ok()?;
        let mut pace = tokio::time::interval(Duration::from_millis(3));
        loop {
            tokio::select! {
                frame = next(client) => self.hear(frame?, client).await?,
                _ = pace.tick() => {
                    if !calm.load(Ordering::Relaxed) {
                        self.say(client).await?;
                    } else if self.out.is_settled() && self.back.is_settled() {
                        return Some(());
                    }
                }
            }
        }
    }

    async fn say(&mut self, client: &mut Client) -> Option<()> {
        self.id += 1;
        self.out.sent.fetch_add(1, Ordering::Relaxed);
        // Of different lengths, so that cuts fall everywhere.
        let padding = "x".repeat(usize::try_from(self.id % 301).unwrap());
        let data = json!({ "n": self.id, "padding": padding });
        let frame = json!({ "type": "send", "name": self.partner, "data": data, "id": self.id }).to_string();
        self.unsure.push_back((self.id, frame.clone()));
        client.socket.send(Message::text(frame)).await.ok()
    }

    async fn hear(&mut self, frame: Value, client: &mut Client) -> Option<()> {
        self.seq += 1;
        assert_eq!(frame["seq"], self.seq, "{}: {frame}", self.name);
        if frame["type"] == "send" {
            assert_eq!(frame["name"], self.partner);
            self.heard.push(frame["data"]["n"].as_u64().unwrap());
            self.back.settled.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!((&frame["code"], &frame["name"]), (&json!("undelivered"), &json!(self.partner)), "{frame}");
            assert!(self.undelivered.insert(frame["id"].as_u64().unwrap()), "told twice: {frame}");
            self.out.settled.fetch_add(1, Ordering::Relaxed);
        }
        if self.seq >= self.acknowledged + 16 {
            self.acknowledged = self.seq;
            client.socket.send(Message::text(json!({ "type": "ack", "seq": self.seq }).to_string())).await.ok()?;
        }
        Some(())
    }

    /// Each of its messages was heard once and in order, or it was told.
    fn check(&self, partner: &Self) {
        assert!(partner.heard.is_sorted_by(|a, b| a < b), "{} heard {:?}", partner.name, partner.heard);
        let heard: HashSet<_> = partner.heard.iter().copied().collect();
        for id in 1..=self.id {
            assert!(heard.contains(&id) != self.undelivered.contains(&id), "{id} of {}", self.name);
        }
    }
}

/// The next frame; none, once the connection is broken.
async fn next(client: &mut Client) -> Option<Value> {
    loop {
        match client.next().await? {
            Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
            Message::Close(_) => return None,
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

/// A way to the server that breaks: the same way for the same seed, as far as the kernel plays along.
struct Network {
    addr: SocketAddr,
    /// Once it's calm, nothing breaks any more.
    calm: Arc<AtomicBool>,
    /// How many connections had something for the server that came only after their clients were gone.
    overtaken: Arc<AtomicU64>,
}

impl Network {
    async fn start(server: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let calm = Arc::new(AtomicBool::new(false));
        let overtaken = Arc::new(AtomicU64::new(0));
        let network = Self { addr, calm: Arc::clone(&calm), overtaken: Arc::clone(&overtaken) };
        let left_open = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(async move {
            let mut dice = Dice(seed);
            while let Ok((client, _)) = listener.accept().await {
                let dice = Dice(dice.roll() | 1);
                let (calm, overtaken, left_open) = (Arc::clone(&calm), Arc::clone(&overtaken), Arc::clone(&left_open));
                tokio::spawn(async move {
                    if let Some((upstream, had_more)) = carry(client, server, dice, &calm).await {
                        overtaken.fetch_add(u64::from(had_more), Ordering::Relaxed);
                        left_open.lock().unwrap().push(upstream);
                    }
                });
            }
        });
        network
    }
}

/// Carries one connection for a while, and then cuts it, or leaves the server's end of it open, and whether what it had for
/// the server came late there: behind what the client said over its next connection.
async fn carry(
    mut client: TcpStream,
    server: SocketAddr,
    mut dice: Dice,
    calm: &AtomicBool,
) -> Option<(TcpStream, bool)> {
    let (mut late, mut lost) = (Vec::new(), Vec::new());
    let mut upstream = TcpStream::connect(server).await.unwrap();
    let life = dice.milliseconds(600);
    let cut = async {
        tokio::time::sleep(life).await;
        if calm.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = upstream.split();
        let (up, down) = (Dice(dice.roll() | 1), Dice(dice.roll() | 1));
        tokio::select! {
            () = pump(&mut from_client, &mut to_server, &mut late, up, calm) => {}
            () = pump(&mut from_server, &mut to_client, &mut lost, down, calm) => {}
            () = cut => {}
        }
    }
    match dice.roll() % 4 {
        // Reset: what is on the way is lost.
        0 => {
            for end in [&client, &upstream] {
                socket2::SockRef::from(end).set_linger(Some(Duration::ZERO)).unwrap();
            }
            None
        }
        1 => {
            let _ = client.try_read_buf(&mut late);
            drop(client);
            tokio::time::sleep(dice.milliseconds(100)).await;
            let is_there = upstream.write_all(&late).await.is_ok();
            Some((upstream, is_there && !late.is_empty()))
        }
        _ => None,
    }
}

/// Passes on what comes, a piece at a time, which is in `held` meanwhile.
async fn pump<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    from: &mut R,
    to: &mut W,
    held: &mut Vec<u8>,
    mut dice: Dice,
    calm: &AtomicBool,
) {
    let mut buffer = [0; 700];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        held.extend_from_slice(&buffer[..length]);
        let delay = match dice.roll() % 50 {
            _ if calm.load(Ordering::Relaxed) => Duration::ZERO,
            0 => dice.milliseconds(300),
            1..10 => dice.milliseconds(8),
            _ => Duration::ZERO,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(held).await.is_err() {
            return;
        }
        held.clear();
    }
}

/// xorshift64: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn milliseconds(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.roll() % most)
    }
}
