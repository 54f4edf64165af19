//! Configuration, certificates, listeners and pages, on the real binary.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use throughway::clock::Clock;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::support::PATIENCE;
use crate::support::Server;
use crate::support::client::tls;
use crate::support::program;

/// Free ports only, nothing outside this machine.
const LOCAL: &str = "
[http]
listen = ['127.0.0.1:0']
plain_listen = ['127.0.0.1:0']
[turn]
listen_udp = ['127.0.0.1:0']
listen_tcp = []
listen_tls = []
";

#[tokio::test]
async fn pages_are_served_over_https_with_a_certificate_made_on_first_start() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start_in(home.path(), LOCAL);

    let answer = over_tls(home.path(), server.https(), &get("/chat")).await;

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let expected = [
        "content-type: text/html; charset=utf-8\r\n",
        "content-security-policy: default-src 'self'; connect-src 'self' ws: wss:;",
        "x-content-type-options: nosniff\r\n",
        "referrer-policy: no-referrer\r\n",
        "etag: \"",
        "<!doctype html>",
    ];
    assert!(expected.iter().all(|text| answer.contains(text)), "{answer}");
    let key = std::fs::metadata(home.path().join("certs/self-signed.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn every_page_has_its_content_type_and_isnt_sent_twice_unchanged() {
    let server = Server::start(LOCAL);

    for (path, kind) in [
        ("/", "text/html"),
        ("/chat", "text/html"),
        ("/call", "text/html"),
        ("/room", "text/html"),
        ("/check", "text/html"),
        ("/chat.js", "text/javascript"),
        ("/throughway.js", "text/javascript"),
        ("/style.css", "text/css"),
    ] {
        let first = clear(server.http(), &get(path)).await;
        assert!(first.starts_with("HTTP/1.1 200 ") && first.contains(&format!("content-type: {kind}")), "{first}");
        let tag = first.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();

        let request = get(path).replace("\r\n\r\n", &format!("\r\nIf-None-Match: \"x\", {tag}\r\n\r\n"));
        let second = clear(server.http(), &request).await;

        assert!(second.starts_with("HTTP/1.1 304 "), "{second}");
    }
    assert!(clear(server.http(), &get("/healthz")).await.ends_with("\r\n\r\nok\n"));
    assert!(clear(server.http(), &get("/metrics")).await.starts_with("HTTP/1.1 404 "), "not for the public");
    assert!(clear(server.http(), &get("/nothing")).await.ends_with("\r\n\r\nNot found\n"));
    let posted = clear(server.http(), &get("/chat").replace("GET", "POST")).await;
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
}

#[tokio::test]
async fn the_network_check_learns_of_the_udp_ports_that_its_page_can_reach_and_of_no_others() {
    let three = "listen_udp = ['127.0.0.1:0', '127.0.0.2:0', '127.0.0.1:0']";
    let server = Server::start(&LOCAL.replace("listen_udp = ['127.0.0.1:0']", three));

    let answer = clear(server.http(), &get("/check/served")).await;

    let ports: Vec<_> = server.all_udp().iter().map(|addr| (addr.ip().to_string(), addr.port())).collect();
    let [(_, first), (other, _), (_, second)] = ports.as_slice() else { panic!("{ports:?}") };
    assert_eq!(other, "127.0.0.2");
    assert!(answer.ends_with(&format!(r#"{{"turns":"self-signed","udp":[{first},{second}]}}"#)), "{answer}");
}

#[tokio::test]
async fn clear_http_on_the_tls_port_is_sent_to_https_on_the_same_host_and_port() {
    let server = Server::start(LOCAL);
    let addr = server.https();
    let redirected = async |request: &str| {
        let answer = clear(addr, request).await;
        assert!(answer.contains(" 308 Permanent Redirect\r\n"), "{answer}");
        answer.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().to_owned()
    };

    let named = redirected("GET /chat?a=b HTTP/1.1\r\nHost: Example.org:4443\r\n\r\n").await;
    let portless = redirected("POST / HTTP/1.1\r\nHost: [::1]\r\n\r\n").await;
    let forged = redirected("GET / HTTP/1.1\r\nHost: evil.example/x@y\r\n\r\n").await;
    let old = redirected("GET /chat HTTP/1.0\r\n\r\n").await;

    assert_eq!(named, "https://example.org:4443/chat?a=b");
    assert_eq!(portless, "https://[::1]/");
    assert_eq!(forged, format!("https://{addr}/"));
    assert_eq!(old, format!("https://{addr}/chat"));
}

#[tokio::test]
async fn counters_are_served_where_the_configuration_says_only() {
    let server = Server::start(&format!("{LOCAL}\n[metrics]\nlisten = ['127.0.0.1:0']"));

    let metrics = server.metrics().await;

    assert!(metrics.contains("# TYPE throughway_allocations gauge\n"), "{metrics}");
    assert!(clear(server.metrics_addr(), &get("/chat")).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_client_hello_in_parts_of_one_byte_is_understood() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start_in(home.path(), LOCAL);
    let stream = TcpStream::connect(server.https()).await.unwrap();
    stream.set_nodelay(true).unwrap();

    let mut stream = handshake(home.path(), Dribble(stream)).await.unwrap();
    stream.write_all(get("/healthz").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();

    assert!(read_all(&mut stream).await.ends_with("ok\n"));
}

#[tokio::test]
async fn what_is_not_spoken_on_a_port_is_closed_and_the_next_client_is_served() {
    let server = Server::start(LOCAL);
    const NOT_TLS: &[u8] = b"\x16\x03\x01\xff\xffnot a client hello";

    for (addr, bytes) in [
        (server.https(), NOT_TLS),
        (server.https(), b"\x00\x03\x00\x00\x00"),
        (server.https(), b"\xde\xad\xbe\xef"),
        (server.https(), b"get / http/1.1\r\n\r\n"),
        (server.http(), NOT_TLS),
        (server.http(), b"\xff"),
    ] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{bytes:x?} got {answer}");
    }
    for bad in
        ["G\0T / HTTP/1.1\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000))]
    {
        let answer = clear(server.http(), bad).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }

    assert!(clear(server.http(), &get("/healthz")).await.ends_with("ok\n"));
    assert!(!server.log().contains("panic"), "{}", server.log());
}

#[tokio::test]
async fn clients_that_dawdle_are_closed_after_ten_seconds_wherever_they_stop() {
    let server = Server::start(LOCAL);
    let stops = async |addr: SocketAddr, bytes: &[u8]| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let began = Clock::system().now().monotonic;
        stream.write_all(bytes).await.unwrap();
        let answer = read_all(&mut stream).await;
        let took = Clock::system().now().monotonic - began;
        assert!(took >= Duration::from_secs(9), "{took:?}");
        answer
    };

    let dawdlers = async {
        tokio::join!(
            stops(server.https(), b""),
            stops(server.https(), b"\x16\x03\x01\x02\x00\x01"),
            stops(server.https(), b"\x00\x01"),
            stops(server.http(), b"GET / HTTP/1.1\r\nHost: a\r\n"),
            stops(server.http(), b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"),
        )
    };
    let (.., kept_alive) = timeout(PATIENCE, dawdlers).await.unwrap();

    assert!(kept_alive.ends_with("ok\n"), "{kept_alive}");
}

#[tokio::test]
async fn half_open_connections_from_one_source_are_capped_and_room_comes_back() {
    let limits = "[limits]\nexempt = []\nhalf_open_per_source = 3\nhttp_per_source = 8\n";
    let server = Server::start(&format!("{LOCAL}{limits}"));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(server.https()).await.unwrap());
    }

    let mut fourth = TcpStream::connect(server.http()).await.unwrap();
    assert_eq!(read_all(&mut fourth).await, "", "closed at once, on every port");
    assert!(server.log().contains("limits.half_open"), "{}", server.log());
    drop(held);

    let answered = async {
        loop {
            let mut stream = TcpStream::connect(server.http()).await.unwrap();
            let sent = stream.write_all(get("/healthz").as_bytes()).await;
            if sent.is_ok() && read_all(&mut stream).await.ends_with("ok\n") {
                break;
            }
        }
    };
    timeout(PATIENCE, answered).await.unwrap();

    // A connection with a request is half-open no more: it meets another cap.
    let mut served = Vec::new();
    let refused = loop {
        let mut stream = TcpStream::connect(server.http()).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        if first != *b"HTTP/1.1 200" {
            break first;
        }
        served.push(stream);
    };
    assert_eq!(refused, *b"HTTP/1.1 429");
    assert!((7..=8).contains(&served.len()), "the one before may not have gone yet: {}", served.len());
}

#[test]
fn the_certificate_is_kept_over_a_restart_and_remade_when_names_change() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("certs/self-signed.pem");
    let after_start = |toml: &str| {
        drop(Server::start_in(home.path(), toml));
        std::fs::read(&file).unwrap()
    };

    let first = after_start(LOCAL);
    let again = after_start(LOCAL);
    let renamed = after_start(&format!("public_host = 'calls.example.org'\n{LOCAL}"));
    let spelled = format!("public_host = '2001:DB8:0::5'\n{LOCAL}");

    assert_eq!(first, again);
    assert_ne!(again, renamed);
    assert_eq!(after_start(&spelled), after_start(&spelled), "however an address is written");
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_served() {
    let other = tempfile::tempdir().unwrap();
    drop(Server::start_in(other.path(), LOCAL));
    let (certificate, key) = (other.path().join("certs/self-signed.pem"), other.path().join("certs/self-signed.key"));
    let toml = format!("{LOCAL}[tls]\nmode = 'files'\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let home = tempfile::tempdir().unwrap();

    let server = Server::start_in(home.path(), &toml);

    assert!(over_tls(other.path(), server.https(), &get("/healthz")).await.ends_with("ok\n"));
    assert!(!home.path().join("certs").exists(), "none is made then");
    let bad = toml.replace("self-signed.key", "nothing.key");
    let line = refusal(&bad);
    assert!(line.contains("tls.key: ") && line.contains("nothing.key: cannot read it"), "{line}");
}

#[test]
fn a_port_in_use_is_named_with_its_key_and_the_exit_code_is_2() {
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (tcp_addr, udp_addr) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    let with = |key: &str, addr: SocketAddr| {
        LOCAL.replace(&format!("{key} = ['127.0.0.1:0']"), &format!("{key} = ['{addr}']"))
    };

    let plain = refusal(&with("plain_listen", tcp_addr));
    let turn = refusal(&with("listen_udp", udp_addr));

    let cure = "address in use; another program has it: stop it or choose another port";
    assert_eq!(plain, format!("throughway: cannot listen on tcp {tcp_addr} (http.plain_listen): {cure}"));
    assert_eq!(turn, format!("throughway: cannot listen on udp {udp_addr} (turn.listen_udp): {cure}"));
}

#[test]
fn a_second_instance_is_refused() {
    let first = Server::start(LOCAL);

    let line = refusal(&LOCAL.replacen("127.0.0.1:0", &first.https().to_string(), 1));

    assert!(line.contains("(http.listen): address in use"), "{line}");
    // A shard's sockets may be shared by the kernel's rules; by ours a second instance may not take part.
    let line = refusal(&LOCAL.replace("listen_udp = ['127.0.0.1:0']", &format!("listen_udp = ['{}']", first.udp())));
    assert!(line.contains("(turn.listen_udp): address in use"), "{line}");
}

#[test]
fn bad_configurations_end_with_one_line_and_exit_code_2() {
    for (toml, line) in [
        ("[http]\nlistn = []", "http.listn: no such key; did you mean http.listen?"),
        ("[http]\nlisten = ['203.0.113.77:0']", "this machine has no such address"),
        ("= 1", "TOML parse error at line 1"),
    ] {
        let refused = refusal(toml);

        assert!(refused.contains(line), "{refused}");
    }
    let missing = program().args(["--config", "/nonexistent/x.toml"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("/nonexistent/x.toml: cannot read"));
    let elsewhere = refusal(&format!("{LOCAL}relay_ip = ['203.0.113.77']"));
    assert!(elsewhere.contains("cannot relay from 203.0.113.77 (turn.relay_ip)"), "{elsewhere}");
    let overridden = program().env("THROUGHWAY__LOG__LEVEL", "loud").output().unwrap();
    assert_eq!(overridden.status.code(), Some(2));
    assert!(String::from_utf8(overridden.stderr).unwrap().contains("THROUGHWAY__LOG__LEVEL: log.level: \"loud\""));
}

#[tokio::test]
async fn sigterm_ends_it_within_two_seconds_whatever_clients_do() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start_in(home.path(), LOCAL);
    let mut idle = TcpStream::connect(server.http()).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 12]).await.unwrap();
    let _silent = TcpStream::connect(server.https()).await.unwrap();
    let _half = handshake(home.path(), TcpStream::connect(server.https()).await.unwrap()).await.unwrap();

    let (status, took) = server.terminate();

    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn the_banner_says_where_to_go_and_the_log_that_anyone_may_relay() {
    let server = Server::start(LOCAL);

    let (http, https) = (server.http(), server.https());
    for text in [
        "Open in a browser\n",
        &format!("    http://localhost:{}/chat", http.port()),
        &format!("    https://localhost:{}/chat", https.port()),
        "the browser warns once about the self-signed certificate\n",
        &format!("    tcp {http}"),
        "Next\n",
    ] {
        assert!(server.banner().contains(text), "{text:?} is missing:\n{}", server.banner());
    }
    assert!(server.banner().lines().last().unwrap().starts_with("Ready"));
    assert!(server.log().contains("anyone who can reach this server may sign in and relay"), "{}", server.log());
}

#[test]
fn help_fits_a_screen_and_names_what_can_be_done() {
    let help = String::from_utf8(program().arg("--help").output().unwrap().stdout).unwrap();

    for text in ["serve", "--config <FILE>", "THROUGHWAY__", "config/throughway.toml", "Exit codes"] {
        assert!(help.contains(text), "{text} is missing:\n{help}");
    }
    assert!(help.lines().count() <= 40 && help.lines().all(|line| line.len() <= 100), "{help}");
}

/// The one line with which it refuses to start.
pub(crate) fn refusal(toml: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("t.toml");
    std::fs::write(&file, toml).unwrap();
    let refused = program().arg("serve").arg("--config").arg(&file).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stdout.is_empty(), "no banner before a refusal");
    let text = String::from_utf8(refused.stderr).unwrap();
    text.lines().last().unwrap().to_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

async fn clear(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The server may close while a request it refuses is still being written.
    let _ = stream.write_all(request.as_bytes()).await;
    read_all(&mut stream).await
}

async fn over_tls(home: &Path, addr: SocketAddr, request: &str) -> String {
    let mut stream = handshake(home, TcpStream::connect(addr).await.unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read_all(&mut stream).await
}

/// TLS to `localhost`, trusting the certificate kept in `home` and no other.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(home: &Path, stream: S) -> io::Result<TlsStream<S>> {
    tls(home).connect("localhost".try_into().unwrap(), stream).await
}

/// Everything until the server closes, by whatever means.
async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server keeps the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends each byte by itself.
struct Dribble(TcpStream);

impl AsyncRead for Dribble {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf.get(..1).unwrap_or_default())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
