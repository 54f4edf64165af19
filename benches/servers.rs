//! The servers that are measured: each started on core 0 for a round, and ended with it.

pub(crate) mod process;
pub(crate) mod request;
mod stock;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use self::process::CERTIFICATE;
pub(crate) use self::process::Failure;
use self::process::KEY;
pub(crate) use self::process::Pair;
use self::process::Process;
pub(crate) use self::process::certificate;
use self::process::free_port;
pub(crate) use self::process::median;
pub(crate) use self::process::now;
pub(crate) use self::process::pin_to;

const USER: &str = "alice";
const PASSWORD: &str = "wonderland";
const REALM: &str = "throughway";

/// The argument by which a benchmark starts itself as [`Kind::Stock`].
const STOCK: &str = "--stock";

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

    /// Whether it takes TURN over TCP and TLS.
    pub(crate) fn has_streams(self) -> bool {
        self != Self::Stock
    }

    fn start(self, home: &Path, port: u16, tls_port: u16) -> Result<Process, Failure> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).stdout(Stdio::null()).stderr(Stdio::null());
        match self {
            Self::Throughway => {
                let file = home.join("throughway.toml");
                std::fs::write(&file, configuration(home, port, tls_port))?;
                command.arg(env!("CARGO_BIN_EXE_throughway")).arg("--config").arg(file);
            }
            Self::Coturn => {
                let user = format!("{USER}:{PASSWORD}");
                command.args(["turnserver", "-n", "-a", "-r", REALM, "-u", &user, "-m", "1", "--no-dtls", "--no-cli"]);
                command.args(["-p", &port.to_string(), "--tls-listening-port", &tls_port.to_string()]);
                command.args(["-L", "127.0.0.1", "-E", "127.0.0.1"]);
                command.arg("--cert").arg(home.join(CERTIFICATE)).arg("--pkey").arg(home.join(KEY));
                command.args(["--allow-loopback-peers", "--no-stdout-log", "--log-file", "/dev/null"]);
                command.args(["--stale-nonce=600", "--userdb"]).arg(home.join("turndb"));
                command.arg("--pidfile").arg(home.join("turnserver.pid"));
            }
            Self::Stock => {
                command.arg(std::env::current_exe()?).arg(STOCK).arg(port.to_string());
            }
        }
        Ok(Process(command.spawn()?))
    }
}

/// Nothing but the relay, and none of the limits that one machine as all clients would meet.
fn configuration(home: &Path, port: u16, tls_port: u16) -> String {
    let (certificate, key) = (home.join(CERTIFICATE), home.join(KEY));
    format!(
        "[http]\nlisten = []\nplain_listen = []\n\
         [tls]\nmode = 'files'\ncertificate = '{}'\nkey = '{}'\n\
         [turn]\nlisten_udp = ['127.0.0.1:{port}']\nlisten_tcp = ['127.0.0.1:{port}']\n\
         listen_tls = ['127.0.0.1:{tls_port}']\nusers = {{ {USER} = '{PASSWORD}' }}\n\
         [turn.peers]\nallow = ['127.0.0.0/8', '8.8.8.8']\n\
         [turn.limits]\nallocations_per_member = 100000\nnew_peers = '1000000/s'\n\
         bandwidth = '0B/s'\nbandwidth_per_allocation = '0B/s'\nbytes_per_day = '0B'\nbytes_per_month = '0B'\n",
        certificate.display(),
        key.display()
    )
}

/// One server, started for a round and ended with it.
pub(crate) struct Server {
    process: Process,
    /// Where it takes UDP and TCP.
    pub(crate) addr: SocketAddr,
    /// Where it takes TLS.
    pub(crate) tls: SocketAddr,
    _home: tempfile::TempDir,
}

impl Server {
    /// Starts one that proves itself by `pair`, and waits until it answers Binding requests and takes connections.
    pub(crate) fn start(kind: Kind, pair: &Pair) -> Result<Self, Failure> {
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join(CERTIFICATE), pair.cert.pem())?;
        std::fs::write(home.path().join(KEY), pair.signing_key.serialize_pem())?;
        let (port, tls_port) = (free_port()?, free_port()?);
        let process = kind.start(home.path(), port, tls_port)?;
        let [addr, tls] = [port, tls_port].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let server = Self { process, addr, tls, _home: home };
        let asker = std::net::UdpSocket::bind("127.0.0.1:0")?;
        asker.set_read_timeout(Some(Duration::from_millis(50)))?;
        let began = now();
        loop {
            asker.send_to(b"\x00\x01\x00\x00\x21\x12\xA4\x42transaction!", server.addr)?;
            let takes = |addr| !kind.has_streams() || std::net::TcpStream::connect(addr).is_ok();
            if asker.recv(&mut [0; 100]).is_ok() && takes(server.addr) && takes(server.tls) {
                return Ok(server);
            }
            if now() - began > Duration::from_secs(20) {
                return Err(format!("{} does not answer", kind.name()).into());
            }
        }
    }

    /// User and system time of the process.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        self.process.cpu()
    }

    /// Its memory that is in RAM, in KiB.
    pub(crate) fn resident_kib(&self) -> Result<f64, Failure> {
        self.process.resident_kib()
    }
}

/// Serves as [`Kind::Stock`] if the command line says so; whether it did.
pub(crate) fn is_stock(arguments: &[String]) -> Result<bool, Failure> {
    match arguments {
        [first, port] if first == STOCK => stock::serve(port.parse()?).map(|()| true),
        _ => Ok(false),
    }
}
