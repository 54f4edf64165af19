//! How the process ends, and how the next one takes over: on the real binary.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::Signal::SIGHUP;
use nix::sys::signal::Signal::SIGINT;
use nix::sys::signal::Signal::SIGTERM;
use serde_json::json;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use tokio::net::UnixDatagram;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::PATIENCE;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::client::Client;
use crate::support::load::Load;
use crate::support::load::Size;
use crate::support::program;

const DRAIN: &str = "[shutdown]\ndrain = \"10m\"\n";

/// With more time to drain than a test takes.
fn start() -> Server {
    Server::start(&format!("{PEERS_ON_LOOPBACK}{DRAIN}"))
}

async fn alice(server: &Server) -> Asker {
    Asker::new(server.udp(), "alice", "wonderland").await
}

#[tokio::test]
async fn a_drain_lets_in_nobody_new_lets_calls_go_on_and_ends_with_the_last_relay() {
    let server = start();
    let (peer, second) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (talker, newcomer) = (alice(&server).await, alice(&server).await);
    let relayed = talker.allocate().await;
    assert_eq!(talker.bind(0x4000, peer.local_addr().unwrap()).await, 0);
    let mut member = Client::sign_in(server.http(), "/ws", "member").await;
    let mut stranger = Client::connect(server.http(), "/ws").await;
    assert_eq!(server.ask("GET /readyz", "", "").await.0, 200);

    server.signal(SIGTERM);
    server.logs("draining: 1 relay left, 10m at most").await;

    assert_eq!(newcomer.code_of(ALLOCATE, &[UDP]).await, 508);
    for request in ["GET /ice", "GET /socket.io/?EIO=4&transport=polling"] {
        let (status, head, _) = server.ask(request, "", "").await;
        assert!(status == 503 && head.contains("retry-after: 10"), "{request}: {head}");
    }
    for path in ["/ws", "/websocketRTC", "/pubsub", "/peerjs?key=peerjs&id=a&token=b", "/signaling"] {
        let stream = TcpStream::connect(server.http()).await.unwrap();
        assert_eq!(Client::over(stream, path, &[]).await.err(), Some(503), "{path}");
    }
    assert_eq!(server.ask("GET /readyz", "", "").await.0, 503);
    assert_eq!(server.ask("GET /healthz", "", "").await.0, 200);
    assert_eq!(stranger.log_in("stranger").await["success"], false);
    member.is_served().await;
    assert_eq!(talker.refresh(600).await, 0);
    assert_eq!(talker.bind(0x4001, second.local_addr().unwrap()).await, 0);
    for (channel, peer) in [(0x4000, &peer), (0x4001, &second)] {
        talker.send(&channel_data(channel, b"there")).await;
        let mut buffer = [0; 16];
        assert_eq!(peer.recv(&mut buffer).await.unwrap(), 5);
        peer.send_to(b"back", relayed).await.unwrap();
        assert_eq!(talker.receive().await[..8], channel_data(channel, b"back"));
    }

    assert_eq!(talker.refresh(0).await, 0);

    assert_eq!(farewell(&mut member).await, (1012, "the server restarts; come back in 5 s".to_owned()));
    let log = server.log();
    assert!(server.ends().await.success(), "{log}");
}

#[tokio::test]
async fn who_is_signed_in_comes_back_while_others_are_let_in_no_more() {
    let server = start();
    alice(&server).await.allocate().await;
    let mut member = Client::connect(server.http(), "/ws").await;
    member.send(&json!({ "type": "login", "v": 2, "name": "member" })).await;
    let reply = member.hear().await;

    server.signal(SIGTERM);
    server.logs("draining: ").await;
    drop(member);
    server.metric_becomes("throughway_connections", 0).await;
    let mut back = Client::connect(server.http(), "/ws").await;
    back.send(&json!({ "type": "login", "v": 2, "name": "member", "resume": reply["resume"], "seq": 0 })).await;

    assert_eq!(back.hear().await["session"], reply["session"]);
}

#[tokio::test]
async fn while_it_drains_another_configuration_holds_and_cuts_off_who_is_denied() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("control.sock");
    let toml = format!("{PEERS_ON_LOOPBACK}{DRAIN}[control]\nsocket = {socket:?}\n");
    let server = Server::start_in(home.path(), &toml);
    let peer = UdpSocket::bind("127.0.0.3:0").await.unwrap();
    let talker = alice(&server).await;
    talker.allocate().await;
    assert_eq!(talker.bind(0x4000, peer.local_addr().unwrap()).await, 0);
    server.signal(SIGTERM);
    server.logs("draining: ").await;

    std::fs::write(home.path().join("throughway.toml"), toml.replace("\"127.0.0.0/8\", ", "")).unwrap();
    server.signal(SIGHUP);
    server.logs("in force now: applied=\"turn.peers.allow\"").await;

    talker.send(&channel_data(0x4000, b"nothing")).await;
    server.drops_become("no-channel", 1).await;
    assert_eq!(talker.bind(0x4000, peer.local_addr().unwrap()).await, 403);
    assert_eq!(reload(home.path()).await, "No setting has changed.\n");

    std::fs::write(home.path().join("throughway.toml"), toml.replace("10m", "1ms")).unwrap();
    server.signal(SIGHUP);
    assert!(server.ends().await.success(), "its time is over by the other configuration");
}

/// What `throughway reload` says.
async fn reload(home: &Path) -> String {
    let mut command = program();
    command.arg("--config").arg(home.join("throughway.toml")).arg("reload");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[tokio::test]
async fn the_next_process_serves_while_the_last_one_has_the_control_socket_and_takes_it_over() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let inherited = [listener("127.0.0.1:0", false)];
    let addr = SocketAddr::from(([127, 0, 0, 1], port_of(&inherited[0])));
    let control = format!("{DRAIN}[control]\nsocket = {:?}\n", homes[0].path().join("control.sock"));
    let toml = inheriting(&addr.to_string(), 0, &control);
    let old = Server::start_by(inheriting_by(homes[0].path(), &inherited), homes[0].path(), &toml);
    let talker = alice(&old).await;
    talker.allocate().await;
    old.signal(SIGTERM);
    old.logs("draining: ").await;

    let next = Server::start_by(inheriting_by(homes[1].path(), &inherited), homes[1].path(), &toml);
    next.logs("control.socket is this process's once").await;
    std::fs::write(homes[1].path().join("throughway.toml"), toml.clone() + "[signaling]\nwho = true\n").unwrap();
    assert_eq!(talker.refresh(0).await, 0);
    assert!(old.ends().await.success());
    next.logs("control.socket is this process's\n").await;

    next.logs("in force now: applied=\"signaling.who\"").await;
    assert_eq!(reload(homes[1].path()).await, "No setting has changed.\n");
    next.logs("read again: no setting has changed").await;
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once() {
    for second in [SIGTERM, SIGINT] {
        let server = start();
        alice(&server).await.allocate().await;

        server.signal(SIGTERM);
        server.logs("draining: ").await;
        server.signal(second);

        assert!(server.ends().await.success());
    }
}

#[tokio::test]
async fn a_drain_has_its_time_and_no_more() {
    let server = Server::start(&format!("{PEERS_ON_LOOPBACK}[shutdown]\ndrain = \"300ms\"\n"));
    alice(&server).await.allocate().await;

    server.signal(SIGTERM);

    server.logs("the time to drain is over: 1 relay cut off").await;
    assert!(server.ends().await.success());
}

#[tokio::test]
async fn the_service_manager_is_told_of_each_state_in_order_and_that_all_is_well() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut command = logging(home.path());
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let launched = Server::launch(command, home.path(), &format!("{PEERS_ON_LOOPBACK}{DRAIN}"));
    let hears = async |wanted: &str| {
        let mut buffer = [0; 4096];
        let heard = async {
            loop {
                let length = manager.recv(&mut buffer).await.unwrap();
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                if text.contains(wanted) {
                    return text.to_owned();
                }
                assert!(!text.contains("STOPPING=1"), "{wanted} before it stops");
                assert!(!text.contains("READY=1"), "{wanted} before it is ready again");
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("{wanted} is never said"))
    };

    assert_eq!(hears("READY=1").await, "READY=1\nSTATUS=serving\n");
    for _ in 0..3 {
        assert_eq!(hears("WATCHDOG=1").await, "WATCHDOG=1\n");
    }
    let server = launched.ready();
    let talker = alice(&server).await;
    talker.allocate().await;
    server.signal(SIGTERM);
    assert_eq!(hears("STOPPING=1").await, "STOPPING=1\nSTATUS=ending\n");
    assert_eq!(hears("draining").await, "STATUS=draining: 1 relay left, 10m at most\n");
    hears("EXTEND_TIMEOUT_USEC=30000000").await;
    hears("WATCHDOG=1").await;
    server.signal(SIGHUP);
    server.logs("the configuration was read again").await;
    assert_eq!(talker.refresh(0).await, 0);
    hears("telling members").await;
    assert!(server.ends().await.success());
}

#[tokio::test]
async fn sockets_of_one_family_or_both_are_inherited_and_clients_keep_their_addresses() {
    let of = |addr: &str, dual| vec![listener(addr, dual)];
    let pair = |socket: Socket| {
        let v4 = listener(&format!("0.0.0.0:{}", port_of(&socket)), false);
        vec![socket, v4]
    };
    for (inherited, listening) in [
        (of("[::]:0", true), 1),
        (pair(listener("[::]:0", false)), 2),
        // What is left out is bound.
        (of("[::]:0", false), 2),
        (of("0.0.0.0:0", false), 2),
    ] {
        let (home, udp, port) = (tempfile::tempdir().unwrap(), free_udp_port().await, port_of(&inherited[0]));
        let toml = inheriting(&format!("[::]:{port}"), udp, "[admin]\ntoken = \"0123456789abcdef\"\n");

        let server = Server::start_by(inheriting_by(home.path(), &inherited), home.path(), &toml);

        for (n, from) in ["127.0.0.1", "::1"].iter().enumerate() {
            let to = SocketAddr::new(from.parse().unwrap(), port);
            let _member = Client::sign_in(to, "/ws", &format!("member{n}")).await;
            let answer = get(to, "/admin/members", "Authorization: Bearer 0123456789abcdef\r\n").await.unwrap();
            assert!(answer.contains(&format!("\"source\":\"{from}\"")), "{answer}");
        }
        assert_eq!(server.banner().matches("http, ws").count(), listening, "{}", server.banner());
    }
}

#[tokio::test]
async fn what_is_inherited_and_means_nothing_here_is_refused_by_name() {
    let (home, udp) = (tempfile::tempdir().unwrap(), free_udp_port().await);
    let (named, other) = (listener("127.0.0.1:0", false), listener("127.0.0.1:0", false));
    let toml = inheriting(&format!("127.0.0.1:{}", port_of(&named)), udp, "");
    let datagrams = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();

    for (second, complaint) in [
        (
            &other,
            format!("the socket second that was handed over (LISTEN_FDS) listens on 127.0.0.1:{}", port_of(&other)),
        ),
        (&datagrams, "the socket second that was handed over (LISTEN_FDS) is no TCP listener".to_owned()),
    ] {
        let sockets = [named.try_clone().unwrap(), second.try_clone().unwrap()];
        let server = Server::launch(inheriting_by(home.path(), &sockets), home.path(), &toml);
        server.logs(&complaint).await;
        assert_eq!(server.ends().await.code(), Some(2));
    }
}

#[tokio::test]
async fn while_it_waits_for_ports_of_the_process_before_a_signal_ends_it() {
    let (home, taken) = (tempfile::tempdir().unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let inherited = [listener("127.0.0.1:0", false)];
    let listen = format!("127.0.0.1:{}", port_of(&inherited[0]));
    let toml = inheriting(&listen, taken.local_addr().unwrap().port(), "");

    let server = Server::launch(inheriting_by(home.path(), &inherited), home.path(), &toml);
    server.logs("waits until udp").await;
    server.signal(SIGTERM);

    assert!(server.ends().await.success());
}

/// The test plays systemd: it holds the listening socket, and starts the next process while the last one drains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_refuses_no_connection_and_everybody_is_back() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let inherited = [listener("127.0.0.1:0", false)];
    let addr = SocketAddr::from(([127, 0, 0, 1], port_of(&inherited[0])));
    let toml = inheriting(&addr.to_string(), free_udp_port().await, "[shutdown]\ndrain = \"8s\"\n");
    let old = Server::start_by(inheriting_by(homes[0].path(), &inherited), homes[0].path(), &toml);
    let size = Size { streams: 4, seconds: 5, sockets: SOCKETS, tls: None };
    let load = Load::start(&old, size).await;
    let (visitors, stop) = (Visitors::default(), CancellationToken::new());
    let visiting = tokio::spawn(visitors.clone().visit(addr, stop.clone()));

    old.signal(SIGTERM);
    old.logs("draining: ").await;
    let next = Server::launch(inheriting_by(homes[1].path(), &inherited), homes[1].path(), &toml);
    next.logs("waits until udp").await;
    assert!(old.ends().await.success());
    let next = tokio::task::spawn_blocking(|| next.ready()).await.unwrap();
    next.metric_becomes("throughway_members", SOCKETS as u64).await;
    let outcome = load.finish().await;
    stop.cancel();
    visiting.await.unwrap();

    visitors.all_were_answered(20);
    assert_eq!((outcome.relay_lost, outcome.messages_lost, outcome.connections_refused), (0, 0, 0), "{outcome:?}");
    assert_eq!((outcome.sockets_closed.len(), outcome.members), (SOCKETS, SOCKETS));
    assert!(outcome.sockets_closed.iter().all(|code| *code == 1012));
}

/// The test plays systemd again, which starts the next process when the last one has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_a_drain_refuses_no_connection_either() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let inherited = [listener("127.0.0.1:0", false)];
    let addr = SocketAddr::from(([127, 0, 0, 1], port_of(&inherited[0])));
    let toml = inheriting(&addr.to_string(), free_udp_port().await, "");
    let old = Server::start_by(inheriting_by(homes[0].path(), &inherited), homes[0].path(), &toml);
    let load = Load::start(&old, Size { sockets: 100, ..Size::default() }).await;
    let (visitors, stop) = (Visitors::default(), CancellationToken::new());
    let visiting: JoinSet<_> = (0..4).map(|_| visitors.clone().visit(addr, stop.clone())).collect();

    old.signal(SIGTERM);
    assert!(old.ends().await.success());
    let next = Server::launch(inheriting_by(homes[1].path(), &inherited), homes[1].path(), &toml);
    let next = tokio::task::spawn_blocking(|| next.ready()).await.unwrap();
    next.metric_becomes("throughway_members", 100).await;
    let outcome = load.finish().await;
    stop.cancel();
    visiting.join_all().await;

    visitors.all_were_answered(20);
    assert_eq!((outcome.messages_lost, outcome.connections_refused, outcome.members), (0, 0, 100), "{outcome:?}");
    assert!(outcome.sockets_closed.len() == 100 && outcome.sockets_closed.iter().all(|code| *code == 1012));
}

/// Such as a browser behind a bad network, whose handshake takes its time.
#[tokio::test]
async fn who_was_let_in_before_the_end_is_answered_after_it_has_begun() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let mut slow = TcpStream::connect(server.http()).await.unwrap();
    server.metric_becomes("throughway_places_taken{of=\"half-open\"}", 1).await;

    server.signal(SIGTERM);
    server.logs("stopping").await;
    // It's the client who takes this long: there is nothing to be waited for.
    tokio::time::sleep(Duration::from_millis(300)).await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(server.ends().await.success());
}

const SOCKETS: usize = 1000;

/// Who connects all the time and asks for a page.
#[derive(Clone, Default)]
struct Visitors {
    answered: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Visitors {
    async fn visit(self, addr: SocketAddr, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let is_answered = get(addr, "/chat", "").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "));
            (if is_answered { &self.answered } else { &self.refused }).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nobody was turned away, and so many at least were there.
    fn all_were_answered(&self, at_least: u64) {
        let [answered, refused] = [&self.answered, &self.refused].map(|count| count.load(Ordering::Relaxed));
        assert!(refused == 0 && answered >= at_least, "{refused} were refused, {answered} answered");
    }
}

async fn get(addr: SocketAddr, path: &str, headers: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A listener as systemd makes them; of both families if `dual`.
fn listener(addr: &str, dual: bool) -> Socket {
    let addr: SocketAddr = addr.parse().unwrap();
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    if addr.is_ipv6() {
        socket.set_only_v6(!dual).unwrap();
    }
    socket.set_reuse_address(true).unwrap();
    socket.bind(&addr.into()).unwrap();
    socket.listen(4096).unwrap();
    socket
}

fn port_of(socket: &Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

async fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// A configuration whose clear web side is at `addr`, and TURN at the port `udp`.
fn inheriting(addr: &str, udp: u16, more: &str) -> String {
    let toml = PEERS_ON_LOOPBACK.replace("plain_listen = [\"127.0.0.1:0\"]", &format!("plain_listen = [\"{addr}\"]"));
    let toml = toml.replace("listen_udp = [\"127.0.0.1:0\"]", &format!("listen_udp = [\"127.0.0.1:{udp}\"]"));
    assert!(toml.contains(addr) && toml.contains(&udp.to_string()));
    toml + more
}

/// The binary, logging into `home`.
fn logging(home: &Path) -> Command {
    let mut command = program();
    command.stderr(std::fs::File::create(home.join("log")).unwrap());
    command
}

/// The same, with up to two sockets handed over as `first` and `second`: a shell knows the process number, and puts them where
/// they belong.
fn inheriting_by(home: &Path, sockets: &[Socket]) -> Command {
    let handed = |socket: Option<&Socket>| match socket {
        Some(socket) => Stdio::from(OwnedFd::from(socket.try_clone().unwrap())),
        None => Stdio::null(),
    };
    let binary = program();
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 3<&0 4<&2 0</dev/null 2>\"$LOG\"; export LISTEN_PID=$$; exec \"$@\"", "sh"])
        .arg(binary.get_program())
        .env("LOG", home.join("log"))
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", ["first", "second"][..sockets.len()].join(":"))
        .stdin(handed(sockets.first()))
        .stderr(handed(sockets.get(1)));
    for (name, value) in binary.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// How a connection is closed.
async fn farewell(member: &mut Client) -> (u16, String) {
    loop {
        if let Message::Close(Some(close)) = member.next().await.expect("it is told") {
            return (close.code.into(), close.reason.to_string());
        }
    }
}
