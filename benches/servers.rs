//! The servers that are measured: each started on core 0 for a round, and ended with it.

pub(crate) mod request;
mod stock;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

const USER: &str = "alice";
const PASSWORD: &str = "wonderland";
const REALM: &str = "throughway";

/// The argument by which a benchmark starts itself as [`Kind::Stock`].
const STOCK: &str = "--stock";

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Throughway,
    Coturn,
    /// webrtc-rs `turn::server`, by itself.
    Stock,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Throughway, Self::Coturn, Self::Stock];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Throughway => "throughway",
            Self::Coturn => "coturn",
            Self::Stock => "turn::server",
        }
    }

    /// Whether it can be started here; says so if not.
    pub(crate) fn is_there(self) -> bool {
        if self != Self::Coturn {
            return true;
        }
        match Command::new("turnserver").arg("--version").output() {
            Ok(output) => {
                println!("coturn {}", String::from_utf8_lossy(&output.stdout).trim());
                true
            }
            Err(_) => {
                println!("coturn is not installed: left out (apt-get install coturn)");
                false
            }
        }
    }

    fn start(self, home: &Path, port: u16) -> Result<Child, Failure> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).stdout(Stdio::null()).stderr(Stdio::null());
        match self {
            Self::Throughway => {
                let file = home.join("throughway.toml");
                std::fs::write(&file, configuration(port))?;
                command.arg(env!("CARGO_BIN_EXE_throughway")).arg("--config").arg(file);
            }
            Self::Coturn => {
                let (port, user) = (port.to_string(), format!("{USER}:{PASSWORD}"));
                command.args(["turnserver", "-n", "-a", "-r", REALM, "-u", &user, "-p", &port, "-m", "1"]);
                command.args(["-L", "127.0.0.1", "-E", "127.0.0.1", "--no-tcp", "--no-tls", "--no-dtls", "--no-cli"]);
                command.args(["--allow-loopback-peers", "--no-stdout-log", "--log-file", "/dev/null"]);
                command.args(["--stale-nonce=600", "--userdb"]).arg(home.join("turndb"));
                command.arg("--pidfile").arg(home.join("turnserver.pid"));
            }
            Self::Stock => {
                command.arg(std::env::current_exe()?).arg(STOCK).arg(port.to_string());
            }
        }
        Ok(command.spawn()?)
    }
}

/// Nothing but the relay, and none of the limits that one machine as all clients would meet.
fn configuration(port: u16) -> String {
    format!(
        "[http]\nlisten = []\nplain_listen = []\n\
         [turn]\nlisten_udp = ['127.0.0.1:{port}']\nlisten_tcp = []\nlisten_tls = []\nusers = {{ {USER} = '{PASSWORD}' }}\n\
         [turn.peers]\nallow = ['127.0.0.0/8', '8.8.8.8']\n\
         [turn.limits]\nallocations_per_member = 100000\nnew_peers = '1000000/s'\n\
         bandwidth = '0B/s'\nbandwidth_per_allocation = '0B/s'\nbytes_per_day = '0B'\nbytes_per_month = '0B'\n"
    )
}

/// One server, started for a round and ended with it.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
    _home: tempfile::TempDir,
}

impl Server {
    /// Starts one, and waits until it answers Binding requests.
    pub(crate) fn start(kind: Kind) -> Result<Self, Failure> {
        let home = tempfile::tempdir()?;
        let port = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = kind.start(home.path(), port)?;
        let server = Self { child, addr: SocketAddr::from(([127, 0, 0, 1], port)), _home: home };
        let asker = std::net::UdpSocket::bind("127.0.0.1:0")?;
        asker.set_read_timeout(Some(Duration::from_millis(50)))?;
        let began = now();
        loop {
            asker.send_to(b"\x00\x01\x00\x00\x21\x12\xA4\x42transaction!", server.addr)?;
            if asker.recv(&mut [0; 100]).is_ok() {
                return Ok(server);
            }
            if now() - began > Duration::from_secs(20) {
                return Err(format!("{} does not answer", kind.name()).into());
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// User and system time of the process.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves as [`Kind::Stock`] if the command line says so; whether it did.
pub(crate) fn is_stock(arguments: &[String]) -> Result<bool, Failure> {
    match arguments {
        [first, port] if first == STOCK => stock::serve(port.parse()?).map(|()| true),
        _ => Ok(false),
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Keeps this process off the server's core.
pub(crate) fn pin_to(core: usize) -> Result<(), Failure> {
    let pid = std::process::id().to_string();
    let done = Command::new("taskset").args(["-cp", &core.to_string(), &pid]).stdout(Stdio::null()).status()?;
    if done.success() { Ok(()) } else { Err("taskset failed: two cores are needed".into()) }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
