//! The real binary, started on free ports with a configuration of its own, and stopped when the test is over.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

pub(crate) mod asker;
pub(crate) mod client;
pub(crate) mod footprint;
pub(crate) mod line;
pub(crate) mod load;
pub(crate) mod pebble;
pub(crate) mod planes;

/// Every listener on a port of its own, two users, relayed addresses in both families.
macro_rules! local {
    () => {
        r#"
[http]
listen = ["127.0.0.1:0"]
plain_listen = ["127.0.0.1:0"]
[metrics]
listen = ["127.0.0.1:0"]
[turn]
listen_udp = ["127.0.0.1:0"]
listen_tcp = ["127.0.0.1:0"]
listen_tls = ["127.0.0.1:0"]
relay_ip = ["127.0.0.1", "::1"]
relay_ports = "20000-29999" # apart from the ports that the system chooses for listeners
users = { alice = "wonderland", bob = "builder" }
secrets = ["north"]
"#
    };
}

/// The deny list as it comes.
pub(crate) const DEFAULT_PEERS: &str = local!();

/// Peers on loopback are allowed here, which lets tests play the peer.
pub(crate) const PEERS_ON_LOOPBACK: &str = concat!(local!(), "[turn.peers]\nallow = [\"127.0.0.0/8\", \"::1\"]\n");

/// A running server. It ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    banner: String,
    home: Option<TempDir>,
    log: PathBuf,
}

impl Server {
    /// Starts the binary with `toml` as its whole configuration, in a new directory.
    pub(crate) fn start(toml: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut server = Self::start_in(home.path(), toml);
        server.home = Some(home);
        server
    }

    /// Starts it with its configuration and state in `home`.
    pub(crate) fn start_in(home: &Path, toml: &str) -> Self {
        let mut command = program();
        command.stderr(std::fs::File::create(home.join("log")).unwrap());
        Self::start_by(command, home, toml)
    }

    /// Starts it by a command that runs what its arguments are and writes to `home/log`.
    pub(crate) fn start_by(command: Command, home: &Path, toml: &str) -> Self {
        Self::launch(command, home, toml).ready()
    }

    /// Waits until what was launched serves.
    pub(crate) fn ready(mut self) -> Self {
        self.banner = read_banner(self.child.stdout.take().unwrap());
        assert!(self.banner.contains("\nReady"), "it did not start: {}{}", self.banner, self.log());
        self
    }

    /// The same, without waiting until it serves.
    pub(crate) fn launch(mut command: Command, home: &Path, toml: &str) -> Self {
        let file = home.join("throughway.toml");
        std::fs::write(&file, toml).unwrap();
        let child = command.arg("--config").arg(&file).stdout(Stdio::piped()).spawn().unwrap();
        Self { child, banner: String::new(), home: None, log: home.join("log") }
    }

    /// Waits until its log has `text`.
    pub(crate) async fn logs(&self, text: &str) {
        self.logs_times(text, 1).await;
    }

    /// Waits until its log has `text` so many `times`.
    pub(crate) async fn logs_times(&self, text: &str, times: usize) {
        let logged = async {
            // The file may not be there yet.
            while !std::fs::read_to_string(&self.log).is_ok_and(|log| log.matches(text).count() >= times) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, logged).await.is_err() {
            panic!("no {text:?} in:\n{}", self.log());
        }
    }

    /// What it said on stdout, up to `Ready`.
    pub(crate) fn banner(&self) -> &str {
        &self.banner
    }

    /// Where its configuration and its state are.
    pub(crate) fn home(&self) -> &Path {
        self.log.parent().unwrap()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The first address that serves `https, wss`.
    pub(crate) fn https(&self) -> SocketAddr {
        self.listener("tcp", "https")
    }

    /// The first address that serves `http, ws`.
    pub(crate) fn http(&self) -> SocketAddr {
        self.listener("tcp", "http,")
    }

    /// The first address that serves `stun, turn` over UDP.
    pub(crate) fn udp(&self) -> SocketAddr {
        self.listener("udp", "stun")
    }

    /// Every address that serves `stun, turn` over UDP, in order.
    pub(crate) fn all_udp(&self) -> Vec<SocketAddr> {
        self.listeners("udp", "stun").collect()
    }

    /// The first address that serves `turn, turns`.
    pub(crate) fn turn_tcp(&self) -> SocketAddr {
        self.listener("tcp", "turn,")
    }

    /// The first address that serves `turns` alone.
    pub(crate) fn turn_tls(&self) -> SocketAddr {
        self.listener("tcp", "turns")
    }

    /// TLS that trusts its self-signed certificate.
    pub(crate) fn tls(&self) -> tokio_rustls::TlsConnector {
        client::tls(self.home())
    }

    /// The address that serves `metrics`.
    pub(crate) fn metrics_addr(&self) -> SocketAddr {
        self.listener("tcp", "metrics")
    }

    /// Its counters, as scraped.
    pub(crate) async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.metrics_addr()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Asks its web side without TLS for `request` (method and path), with these header lines and this body: the status, the
    /// header and the body of the answer.
    pub(crate) async fn ask(&self, request: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.http()).await.unwrap();
        let length = body.len();
        let head =
            format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
        stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    /// One of its counters, by name and labels; by its name alone, all that bear it together.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let all = self.metrics().await;
        let values = all.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<u64>().unwrap())
        });
        values.reduce(|a, b| a + b).unwrap_or_else(|| panic!("no {name} in:\n{all}"))
    }

    /// How many datagrams it has dropped for `reason`.
    pub(crate) async fn drops(&self, reason: &str) -> u64 {
        self.metric(&dropped(reason)).await
    }

    /// Waits until it has dropped so many for `reason`.
    pub(crate) async fn drops_become(&self, reason: &str, count: u64) {
        self.metric_becomes(&dropped(reason), count).await;
    }

    /// How many packets it has relayed in one direction, by whatever transport.
    pub(crate) async fn relayed(&self, direction: &str) -> u64 {
        let all = self.metrics().await;
        let of_direction = format!("direction=\"{direction}\"}} ");
        let counts = all.lines().filter(|line| line.starts_with("throughway_relayed_packets_total{"));
        let counts: Vec<u64> = counts.filter_map(|line| line.split_once(&of_direction)?.1.parse().ok()).collect();
        assert_eq!(counts.len(), 3, "{direction} in:\n{all}");
        counts.iter().sum()
    }

    /// Waits until it has relayed so many.
    pub(crate) async fn relayed_becomes(&self, direction: &str, count: u64) {
        let became = async {
            while self.relayed(direction).await != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, became).await.expect("so many are relayed");
    }

    /// Waits until a counter stands at `value`.
    pub(crate) async fn metric_becomes(&self, name: &str, value: u64) {
        let became = async {
            while self.metric(name).await != value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, became).await.is_err() {
            panic!("{name} stays at {} instead of {value}", self.metric(name).await);
        }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Asks it to end (SIGTERM); how it ended, and how long that took.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Duration) {
        let began = now();
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let status = self.child.wait().unwrap();
        (status, now() - began)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    /// Waits until it has ended by itself; how.
    pub(crate) async fn ends(mut self) -> ExitStatus {
        let ended = async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("it ends")
    }

    /// Asks it to end; all that it has logged then.
    pub(crate) fn end(mut self) -> String {
        nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
        self.log()
    }

    fn listener(&self, transport: &str, serves: &str) -> SocketAddr {
        let found = self.listeners(transport, serves).next();
        found.unwrap_or_else(|| panic!("nothing serves {serves} over {transport}:\n{}", self.banner))
    }

    fn listeners(&self, transport: &str, serves: &str) -> impl Iterator<Item = SocketAddr> {
        self.banner.lines().filter_map(move |line| {
            let (first, rest) = line.trim_start().split_once(' ')?;
            let (addr, served) = rest.trim_start().split_once(' ')?;
            (first == transport && served.trim_start().starts_with(serves)).then(|| addr.parse().unwrap())
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary, with nothing of this process's environment that would change what it does.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throughway"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("THROUGHWAY__") || name == "STATE_DIRECTORY") {
            command.env_remove(name);
        }
    }
    command
}

/// Everything up to the line that begins with `Ready`, or to the end of a process that doesn't get there.
fn read_banner(mut stdout: ChildStdout) -> String {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut part = [0; 1024];
        while let Ok(count @ 1..) = stdout.read(&mut part) {
            text.extend_from_slice(&part[..count]);
            if text.windows(6).any(|window| window == b"\nReady") && text.ends_with(b"\n") {
                break;
            }
        }
        // The test may have given up.
        let _ = sender.send(String::from_utf8(text).unwrap());
    });
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| "it said nothing in time".to_owned())
}

/// Longer than anything may take that a working server does, however loaded the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "a test measures how long the real process takes")]
fn now() -> Instant {
    Instant::now()
}

fn dropped(reason: &str) -> String {
    format!("throughway_dropped_total{{reason=\"{reason}\"}}")
}
