//! What is fuzzed: one function a target, by the public API alone. cargo-fuzz and the stable tests both call these.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::SinkExt;
use futures_util::StreamExt;
use ring::hmac;
use stun::attributes::*;
use stun::integrity::MessageIntegrity;
use stun::message::Message;
use stun::message::Setter;
use throughway::address::FiveTuple;
use throughway::address::Sources;
use throughway::address::Transport;
use throughway::clock::Clock;
use throughway::credentials;
use throughway::credentials::Credentials;
use throughway::gateway;
use throughway::gateway::ayame;
use throughway::gateway::json;
use throughway::gateway::json::Dialect;
use throughway::gateway::peerjs;
use throughway::gateway::pubsub;
use throughway::gateway::socketio::engineio;
use throughway::gateway::socketio::engineio::Packets;
use throughway::gateway::socketio::engineio::Revision;
use throughway::metrics::Gateway;
use throughway::metrics::Metrics;
use throughway::net::demux;
use throughway::net::demux::Protocol;
use throughway::net::listen::Arrival;
use throughway::net::proxy;
use throughway::net::proxy::Balancers;
use throughway::net::proxy::Step;
use throughway::places;
use throughway::places::Places;
use throughway::policy;
use throughway::policy::Policy;
use throughway::rate::Rate;
use throughway::relay::command::Command;
use throughway::relay::command::ListenerId;
use throughway::relay::command::Request;
use throughway::relay::command::Via;
use throughway::relay::stream::frames::Frames;
use throughway::signaling::accounts::Accounts;
use throughway::signaling::accounts::Proof;
use throughway::signaling::accounts::jwt::Key;
use throughway::signaling::accounts::jwt::Verifier;
use throughway::signaling::hub;
use throughway::signaling::hub::Hub;
use throughway::signaling::ice::Served;
use throughway::signaling::mailbox::Capacity;
use throughway::signaling::mailbox::Delivery;
use throughway::signaling::mailbox::Vocabulary;
use throughway::signaling::name::Name;
use throughway::signaling::session::Sessions;
use throughway::signaling::session::Visitor;
use throughway::turn::Limits;
use throughway::turn::Pool;
use throughway::turn::Processor;
use throughway::turn::Settings;
use throughway::wire;
use throughway::wire::ChannelData;
use throughway::wire::Class;
use throughway::wire::Stun;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::Role;

#[path = "media.rs"]
mod media;

/// The largest input that is worth a try.
const MOST: usize = 16 * 1024;

/// Any bytes as STUN, as ChannelData and as an address: what is taken tiles the input and reads back.
pub fn decoders(bytes: &[u8]) {
    let _ = wire::xor_address(bytes, *b"transaction!");
    if let Ok(channel) = ChannelData::parse(bytes) {
        assert!(wire::CHANNELS.contains(&channel.number));
        assert!(channel.data.len() + 4 <= bytes.len() && bytes.len() <= channel.data.len() + 7);
    }
    if let Ok(stun) = Stun::parse(bytes) {
        let tiled: usize = stun.attributes().map(|one| 4 + one.value.len().next_multiple_of(4)).sum();
        assert_eq!(tiled + wire::STUN_HEADER, bytes.len());
        for attribute in stun.attributes() {
            let value = stun.first(attribute.kind).unwrap();
            if let Some(addr) = wire::xor_address(value, stun.transaction_id()) {
                let mut written = [0; 24];
                let length = wire::put_xor_address(&mut written, attribute.kind, addr, stun.transaction_id()).unwrap();
                assert_eq!(&written[5..length], &value[1..], "an address reads back as it was written");
            }
        }
    }
}

/// One datagram of a stranger, as it is and with a right header: never more than a short answer.
pub fn stranger(bytes: &[u8]) {
    run(async {
        for message in [bytes.to_vec(), with_header(bytes)] {
            let mut control = Control::new();
            let answer = control.send(message.clone()).await;

            assert_eq!(control.metrics.allocations.get() + control.metrics.reservations.get(), 0);
            if let Some(answer) = answer {
                assert_ne!(Stun::parse(&answer).unwrap().class(), Class::Request);
                // What is shorter doesn't get here: the media thread keeps that part of the budget.
                let length = message.len().max(28);
                assert!(answer.len() * 10 <= length * 23, "{} bytes for {length}", answer.len());
            }
        }
    });
}

/// Several requests, each signed by somebody with a good credential: one answer at most, and all can be given back.
pub fn member(bytes: &[u8]) {
    run(async {
        let mut control = Control::new();
        let nonce = control.nonce().await;
        for unsigned in requests(bytes) {
            let signed = control.signed(unsigned, &nonce);
            let Some(raw) = control.send(signed).await else { continue };
            let mut answer = Message { raw, ..Message::default() };
            answer.decode().unwrap();
            let code = answer.get(ATTR_ERROR_CODE).map_or(0, |code| u16::from(code[2]) * 100 + u16::from(code[3]));
            if answer.typ.method != stun::message::METHOD_BINDING && ![400, 401, 438].contains(&code) {
                key().check(&mut answer).expect("what is answered to a member is signed");
            }
        }
        assert!(control.metrics.allocations.get() <= 1, "one 5-tuple has one allocation");

        let end = [&0x0004_u16.to_be_bytes()[..], &[0; 18], &[0, 0x0D, 0, 4, 0, 0, 0, 0]].concat();
        let end = control.signed(&end, &nonce);
        control.send(end).await.unwrap();
        assert_eq!(control.metrics.allocations.get(), 0);
    });
}

/// The first bytes of a connection: told as the table in design.md has them, and all to be read again.
pub fn first_bytes(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(4096)];
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();

        let cookie = [0x21, 0x12, 0xA4, 0x42];
        let expected = match bytes {
            [] => None,
            [0x16, ..] => Some(Protocol::Tls),
            [b'A'..=b'Z', ..] => Some(Protocol::Http),
            [0 | 1, rest @ ..] => match rest.get(3..7) {
                Some(found) if found == cookie => Some(Protocol::Turn),
                None if rest.get(3..).is_none_or(|begun| cookie.starts_with(begun)) => None,
                Some(_) | None => Some(Protocol::Unknown),
            },
            [..] => Some(Protocol::Unknown),
        };
        let place = Places::new(places::Settings { total: 1, per_source: 1, sources: Sources::default() });
        let arrival = Arrival { stream: accepted, place: place.enter_unknown().unwrap(), announced: false };
        let opened = demux::open(arrival, &Balancers::default(), None).await;
        assert_eq!(opened.as_ref().ok().map(|(opened, _)| opened.protocol), expected, "{bytes:x?}");
        if let Ok((mut opened, _)) = opened {
            let mut read = Vec::new();
            opened.stream.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, bytes);
        }
        // Closed with a reset, it doesn't keep its port: there are many inputs.
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    });
}

/// A load balancer's header: read piece by piece it is what it is as a whole, and never longer than it says.
pub fn proxy(bytes: &[u8]) {
    let mut come = 0;
    let step = loop {
        match proxy::decode(&bytes[..come]) {
            Ok(Step::More(more)) if come < bytes.len() => {
                assert!(more > 0);
                come = bytes.len().min(come + more);
            }
            step => break step,
        }
    };
    assert_eq!(step, proxy::decode(bytes));
    let Ok(Step::Whole(ends)) = step else { return };
    assert_eq!(come, 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]])));
    assert!(come <= proxy::MOST);
    let Some(ends) = ends else { return };
    let (ips, ports) = bytes[16..].split_at(if bytes[13] == 0x11 { 8 } else { 32 });
    for (addr, ip, port) in [(ends.remote, 0, 0), (ends.local, ips.len() / 2, 2)] {
        let ip = &ips[ip..ip + ips.len() / 2];
        let ip = match ip.first_chunk::<16>() {
            Some(v6) => IpAddr::from(*v6),
            None => IpAddr::from(*ip.first_chunk::<4>().unwrap()),
        };
        assert_eq!(addr.ip(), ip.to_canonical());
        assert_eq!(addr.port().to_be_bytes(), ports[port..port + 2]);
    }
}

/// A TURN stream behind the sizes of the parts that it comes in: the messages are those of the whole.
pub fn stream(bytes: &[u8]) {
    let Some((count, rest)) = bytes.split_first() else { return };
    let (parts, stream) = rest.split_at(rest.len().min(usize::from(count % 16)));
    let cut = |parts: &mut dyn Iterator<Item = usize>| {
        let (mut frames, mut messages, mut rest) = (Frames::default(), Vec::new(), stream);
        while !rest.is_empty() {
            let (part, more) = rest.split_at(parts.next().unwrap_or(rest.len()).clamp(1, rest.len()));
            rest = more;
            frames.space().extend_from_slice(part);
            loop {
                match frames.next_message() {
                    Ok(Some(message)) => messages.push(message.to_vec()),
                    Ok(None) => break,
                    Err(malformed) => return (messages, Err(malformed)),
                }
            }
        }
        (messages, Ok(frames.space().len()))
    };

    let whole = cut(&mut std::iter::empty());
    assert_eq!(cut(&mut parts.iter().map(|size| usize::from(*size))), whole);
    assert_eq!(cut(&mut std::iter::repeat(1)), whole, "one byte at a time");
    let (messages, end) = whole;
    assert!(stream.starts_with(&messages.concat()), "in order, and nothing made up");
    if let Ok(kept) = end {
        assert_eq!(messages.concat().len() + kept, stream.len(), "nothing lost");
    }
}

/// A text as a signed token, as keys, and its first two lines as what a token is made of that has a good signature: only
/// such a one is anybody's.
pub fn token(bytes: &[u8]) {
    const SECRET: &[u8] = b"a secret that no input can know..";
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    let (now, verifier) =
        (Clock::system().now(), Verifier::new(vec![Key::secret(SECRET).unwrap()], None, None).unwrap());
    assert!(verifier.check(&text, now).is_err(), "nobody signed it");
    let _ = Key::from_pem(&text);
    if let Ok(keys) = Key::from_jwks(&text) {
        let _ = Verifier::new(keys, None, None).unwrap().check(&text, now);
    }
    let mut lines = text.lines().map(|line| BASE64_URL_SAFE_NO_PAD.encode(line));
    let made = format!("{}.{}", lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), made.as_bytes());
    if let Ok(name) = verifier.check(&format!("{made}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag)), now) {
        assert!(text.contains("HS256") && !name.as_str().is_empty());
    }
}

/// Lines as frames of our JSON protocol, in both dialects and versions: every reply is JSON.
pub fn frames(bytes: &[u8]) {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    let kinds = [(Dialect::Objects, 1), (Dialect::Objects, 2), (Dialect::Strings, 1), (Dialect::Strings, 2)];
    for (dialect, version) in kinds {
        run(async {
            let (server, client) = tokio::io::duplex(1 << 20);
            let login = format!(r#"{{"type":"login","name":"fuzz","v":{version}}}"#);
            let said = std::iter::once(&*login).chain(text.lines());
            tokio::join!(json::serve(context(Gateway::Json), visitor(), dialect, server), talk(client, said, is_value));
        });
    }
}

/// Lines as frames about topics: all that a subscriber hears is JSON.
pub fn pubsub(bytes: &[u8]) {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    run(async {
        let (server, client) = tokio::io::duplex(1 << 20);
        let context = context(Gateway::PubSub);
        let signed_in = context
            .sessions
            .sign_in_unnamed(Name::random(), Delivery::Once, None, &visitor(), context.clock.now())
            .await;
        let member = signed_in.unwrap().0;
        tokio::join!(pubsub::serve(context, member, server), talk(client, text.lines(), is_json));
    });
}

/// Lines as Ayame's frames, of two clients at once: all that either hears is JSON.
pub fn ayame(bytes: &[u8]) {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    run(async {
        let context = context(Gateway::Ayame);
        let (servers, clients): (Vec<_>, Vec<_>) = [(); 2].map(|()| tokio::io::duplex(1 << 20)).into_iter().unzip();
        let serve = |server| ayame::serve(Arc::clone(&context), visitor(), server);
        let served = futures_util::future::join_all(servers.into_iter().map(serve));
        let said =
            futures_util::future::join_all(clients.into_iter().map(|client| talk(client, text.lines(), is_json)));
        tokio::join!(served, said);
    });
}

/// Says all that, and hears the server out: what it says is checked by `check`.
async fn talk<'a>(client: DuplexStream, frames: impl Iterator<Item = &'a str>, check: fn(&str)) {
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    for frame in frames {
        let _ = client.feed(tungstenite::Message::text(frame)).await;
    }
    let _ = client.close(None).await;
    while let Some(Ok(message)) = client.next().await {
        if let tungstenite::Message::Text(reply) = message {
            check(&reply);
        }
    }
}

/// Asserts that it is JSON; numbers pass through that no Rust type holds.
fn is_json(reply: &str) {
    serde_json::from_str::<&serde_json::value::RawValue>(reply).expect("a reply is JSON");
}

/// Asserts that it is JSON that every parser takes.
fn is_value(reply: &str) {
    serde_json::from_str::<serde_json::Value>(reply).expect("a reply is JSON");
}

/// The same, with a type.
fn is_typed(reply: &str) {
    let reply: serde_json::Value = serde_json::from_str(reply).expect("a reply is JSON");
    assert!(reply["type"].is_string(), "{reply}");
}

/// A payload of Engine.IO, in both revisions: it reads as it is written, and every answer is a payload of text packets.
pub fn socketio(bytes: &[u8]) {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    for revision in [Revision::Third, Revision::Fourth] {
        let packets: Result<Vec<_>, _> = Packets::of(text.clone().into_owned(), revision).collect();
        if let Ok(packets) = packets
            && !packets.contains(&String::new())
        {
            let mut payload = engineio::Payload::new(revision);
            packets.iter().for_each(|packet| payload.push(packet));
            let again: Vec<_> = Packets::of(payload.into_text(), revision).flatten().collect();
            assert_eq!(packets, again);
        }
        run(async {
            let engine =
                throughway::gateway::socketio::Engine::<tokio::io::DuplexStream>::new(context(Gateway::SocketIo));
            let (opening, serve) = engine.open(revision, visitor());
            let sid = opening.split_once("\"sid\":\"").unwrap().1.split('"').next().unwrap();
            let says = async {
                let connect = if revision == Revision::Fourth { "40" } else { "2:40" };
                for payload in [connect, &text, if revision == Revision::Fourth { "1" } else { "1:1" }] {
                    let _ = engine.post(sid, payload.into()).await;
                }
            };
            let hears = async {
                while let Some(told) = engine.poll(sid, revision, std::future::pending()).await {
                    for packet in Packets::of(told, revision) {
                        assert!(packet.unwrap().starts_with(['1', '2', '3', '4', '6']));
                    }
                }
            };
            tokio::join!(serve, says, hears);
        });
    }
}

/// A query, and lines as frames of two PeerJS clients, of which one came with it: every reply is JSON, and nothing is left
/// when both are gone and nobody is waited for any more.
pub fn peerjs(bytes: &[u8]) {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    let (query, frames) = text.split_once('\n').unwrap_or((&text, ""));
    run(async {
        let waiting = places();
        let context = context_where(Gateway::PeerJs, Arc::clone(&waiting));
        let client = |query, token: &str| {
            let (server, client) = tokio::io::duplex(1 << 20);
            let visitor = Visitor { token: Some(token.into()), ..visitor() };
            let served = peerjs::serve(Arc::clone(&context), visitor, query, server);
            async move { tokio::join!(served, talk(client, frames.lines(), is_typed)) }
        };
        tokio::join!(client(query, "fuzz"), client("key=peerjs&id=other", "other"));

        context.sessions.tick(context.clock.now().after(hub::waiting::WAIT));
        assert_eq!(context.metrics.members.get(), 0);
        let free: Vec<_> = std::iter::from_fn(|| waiting.enter(visitor().source).ok()).collect();
        assert_eq!(free.len(), WAITING, "nothing waits");
    });
}

/// Any bytes where the WebSocket protocol is expected: the connection ends when they do.
pub fn websocket(bytes: &[u8]) {
    run(async {
        let (server, mut client) = tokio::io::duplex(1 << 20);
        client.write_all(&bytes[..bytes.len().min(MOST)]).await.unwrap();
        client.shutdown().await.unwrap();
        json::serve(context(Gateway::Json), visitor(), Dialect::Objects, server).await;
    });
}

/// Any bytes to a running media thread: as they are, as a Send indication, as ChannelData; it answers Binding after.
pub fn media(bytes: &[u8]) {
    static RIG: OnceLock<Mutex<media::Rig>> = OnceLock::new();
    let rig = RIG.get_or_init(|| Mutex::new(media::Rig::start())).lock().unwrap();
    let bytes = &bytes[..bytes.len().min(MOST)];
    rig.throw(bytes);
    let mut indication = with_header(bytes);
    indication[..2].copy_from_slice(&0x0016_u16.to_be_bytes());
    rig.throw(&indication);
    let length = u16::try_from(bytes.len()).unwrap();
    rig.throw(&[&0x4000_u16.to_be_bytes()[..], &length.to_be_bytes(), bytes].concat());
}

/// For how many pairs of a sender and an absent name something may wait.
const WAITING: usize = 4;

/// A control plane without sockets.
struct Control {
    processor: Processor<()>,
    metrics: Arc<Metrics>,
    clock: Clock,
    client: FiveTuple,
}

impl Control {
    fn new() -> Self {
        let settings = Settings {
            realm: "throughway".into(),
            relay_ip: Vec::new(),
            routed: Vec::new(),
            relay_ports: 50_000..=50_007,
            external_ip: Vec::new(),
            limits: Limits {
                allocations_per_member: 4,
                allocations_per_source: 4,
                permissions: 4,
                channels: 4,
                new_peers: Rate { per_second: 20.0, burst: 200.0 },
                challenges: Rate { per_second: 100.0, burst: 500.0 },
                exempt: Vec::new(),
                volume: Arc::default(),
            },
            draining: tokio_util::sync::CancellationToken::new(),
        };
        let users = HashMap::from([("alice".into(), "wonderland".into())]);
        let credentials = Credentials::new(credentials::Settings {
            secrets: vec!["north".into()],
            users,
            expired_grace: Duration::from_secs(3600),
            ..credentials::Settings::default()
        });
        let metrics = Arc::new(Metrics::default());
        let policy = Arc::new(Policy::new(policy::Settings::default()));
        let bind = Box::new(|_: SocketAddr| Ok(()));
        let processor =
            Processor::new(Arc::new(Pool::new(settings, Arc::new(credentials), policy, Arc::clone(&metrics), bind)));
        let (client, server) = ("198.51.100.1:4000".parse().unwrap(), "192.0.2.9:3478".parse().unwrap());
        Self { processor, metrics, clock: Clock::system(), client: FiveTuple::new(Transport::Udp, client, server) }
    }

    /// The answer, to whoever asked and with the transaction ID of the question.
    async fn send(&mut self, message: Vec<u8>) -> Option<Vec<u8>> {
        let (reached, via) = (self.client.server.ip(), Via::Datagram(ListenerId(0)));
        let request = Request { five_tuple: self.client, reached, via, message };
        self.processor.handle_request(&request, self.clock.now()).await;
        let mut answers = Vec::new();
        while let Some(command) = self.processor.poll_command() {
            if let Command::Answer { five_tuple, message, .. } = command {
                assert_eq!(five_tuple, self.client);
                let answer = Stun::parse(&message).expect("an answer is well-formed");
                assert_eq!(answer.transaction_id(), request.message[8..20]);
                answers.push(message);
            }
        }
        assert!(answers.len() <= 1, "one question, one answer at most");
        answers.pop()
    }

    async fn nonce(&mut self) -> Vec<u8> {
        let bare = [&0x0003_u16.to_be_bytes()[..], &[0; 18], &[0, 0x19, 0, 4, 17, 0, 0, 0]].concat();
        let raw = self.send(with_header(&bare)).await.unwrap();
        let mut challenge = Message { raw, ..Message::default() };
        challenge.decode().unwrap();
        challenge.get(ATTR_NONCE).unwrap()
    }

    /// The same request with a right header and a proof of who asks.
    fn signed(&self, unsigned: &[u8], nonce: &[u8]) -> Vec<u8> {
        let raw = with_header(unsigned);
        let length = u32::try_from(raw.len() - wire::STUN_HEADER).unwrap();
        let mut message = Message { raw, length, ..Message::default() };
        message.add(ATTR_USERNAME, b"alice");
        message.add(ATTR_REALM, b"throughway");
        message.add(ATTR_NONCE, nonce);
        key().add_to(&mut message).unwrap();
        message.raw
    }
}

fn key() -> MessageIntegrity {
    MessageIntegrity::new_long_term_integrity("alice".into(), "throughway".into(), "wonderland".into())
}

/// The input with the magic cookie and a right length, padded to whole words.
fn with_header(bytes: &[u8]) -> Vec<u8> {
    let mut message = bytes[..bytes.len().min(MOST)].to_vec();
    message.resize(message.len().next_multiple_of(4).max(wire::STUN_HEADER), 0);
    let length = u16::try_from(message.len() - wire::STUN_HEADER).unwrap();
    message[0] &= 0x3F;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    message[4..8].copy_from_slice(&wire::MAGIC_COOKIE.to_be_bytes());
    message
}

/// The input as several messages in a row, each as long as its header says.
fn requests(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        let (request, rest) = bytes.split_at(bytes.len().min(wire::STUN_HEADER + length));
        bytes = rest;
        Some(request)
    })
    .take(32)
}

fn context(gateway: Gateway) -> Arc<gateway::Context> {
    context_where(gateway, places())
}

/// For what may wait for who isn't here.
fn places() -> Arc<Places> {
    Places::new(places::Settings { total: WAITING, per_source: WAITING, sources: Sources::default() })
}

/// One where things wait in the places `waiting`.
fn context_where(gateway: Gateway, waiting: Arc<Places>) -> Arc<gateway::Context> {
    let metrics = Arc::new(Metrics::default());
    let credentials = Arc::new(Credentials::new(credentials::Settings::default()));
    let settings = hub::Settings {
        queue: Capacity { messages: 256, bytes: 256 * 1024 },
        silence: Duration::from_secs(5),
        grace: Duration::from_secs(5),
        rooms: 3,
        room_members: 3,
        who: true,
        presence: true,
        sources: Default::default(),
        vocabulary: Vocabulary {
            data: gateway != Gateway::Json,
            presence: gateway == Gateway::Ayame,
            undelivered: gateway == Gateway::PeerJs,
        },
    };
    let hub = Hub::new(settings, Arc::clone(&credentials), Arc::clone(&metrics)).patient(waiting);
    let accounts = Accounts::new(Proof::None, Rate { per_second: 1000.0, burst: 1000.0 }, Vec::new());
    Arc::new(gateway::Context {
        gateway,
        sessions: Arc::new(Sessions::new(hub, Arc::new(accounts), credentials, Served::default())),
        rules: gateway::Limits {
            message_bytes: 64 * 1024,
            messages: Rate { per_second: 50.0, burst: 200.0 },
            bad_frames: 3,
            sign_in_within: Duration::from_secs(5),
            ping_every: Duration::from_secs(5),
            gone_after: Duration::from_secs(5),
        }
        .into(),
        metrics,
        clock: Clock::system(),
        shutdown: tokio_util::sync::CancellationToken::new(),
    })
}

fn visitor() -> Visitor {
    Visitor { host: "localhost".into(), source: "127.0.0.1".parse().unwrap(), token: None }
}

/// Everything ends at once, or it hangs and that is a finding.
fn run(target: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), target).await.expect("it ends");
    });
}
