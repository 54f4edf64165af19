//! The servers that are measured: each started on core 0 for a round, and ended with it.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use crate::process::CERTIFICATE;
use crate::process::Failure;
use crate::process::KEY;
use crate::process::Pair;
use crate::process::Process;
use crate::process::free_port;
use crate::process::now;

/// How long a server may take to come to rest, before its memory is read.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Throughway,
    /// As the tutorials have it, on Node.
    Tutorial,
    /// npm `peer`.
    PeerServer,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Throughway => "throughway",
            Self::Tutorial => "tutorial",
            Self::PeerServer => "PeerServer",
        }
    }

    /// Those that can be started here; says why others can't.
    pub(crate) fn found() -> Vec<Self> {
        match install() {
            Ok(version) => {
                println!("node {version}, ws and peer as in benches/signaling/tutorial/package-lock.json");
                vec![Self::Throughway, Self::Tutorial, Self::PeerServer]
            }
            Err(error) => {
                println!("the tutorial's server and PeerServer are left out: {error}");
                vec![Self::Throughway]
            }
        }
    }

    fn start(self, home: &Path, port: u16, tls_port: u16) -> Result<Process, Failure> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).stdout(Stdio::null());
        let port_number = port.to_string();
        match self {
            Self::Throughway => {
                let file = home.join("throughway.toml");
                std::fs::write(&file, configuration(home, port, tls_port))?;
                command.arg(env!("CARGO_BIN_EXE_throughway")).arg("--config").arg(file);
            }
            Self::Tutorial => {
                command.arg("node").arg(packages().join("server.js")).arg(port_number);
            }
            Self::PeerServer => {
                command.arg("node").arg(packages().join("node_modules/peer/dist/bin/peerjs.js"));
                // Members are idle here for longer than it would have them silent.
                command.args(["--port", &port_number, "--host", "127.0.0.1", "--alive_timeout", "600000"]);
            }
        }
        Ok(Process(command.env("NODE_ENV", "production").spawn()?))
    }
}

/// Signaling alone, and no limit on how much one member may send: it isn't what is measured.
fn configuration(home: &Path, port: u16, tls_port: u16) -> String {
    let (certificate, key) = (home.join(CERTIFICATE), home.join(KEY));
    format!(
        "[http]\nlisten = ['127.0.0.1:{tls_port}']\nplain_listen = ['127.0.0.1:{port}']\n\
         [tls]\nmode = 'files'\ncertificate = '{}'\nkey = '{}'\n\
         [turn]\nlisten_udp = []\nlisten_tcp = []\nlisten_tls = []\n\
         [signaling.limits]\nmessages = '1000000/s'\nmessage_burst = 1000000\n\
         [log]\nlevel = 'error'\n",
        certificate.display(),
        key.display()
    )
}

/// One server, started for a round and ended with it.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) process: Process,
    /// Where it takes `ws`.
    pub(crate) plain: SocketAddr,
    /// Where throughway takes `wss`.
    pub(crate) tls: SocketAddr,
    _home: tempfile::TempDir,
}

impl Server {
    /// Starts one that proves itself by `pair`, and waits until it takes connections.
    pub(crate) fn start(kind: Kind, pair: &Pair) -> Result<Self, Failure> {
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join(CERTIFICATE), pair.cert.pem())?;
        std::fs::write(home.path().join(KEY), pair.signing_key.serialize_pem())?;
        let (port, tls_port) = (free_port()?, free_port()?);
        let process = kind.start(home.path(), port, tls_port)?;
        let [plain, tls] = [port, tls_port].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let server = Self { kind, process, plain, tls, _home: home };
        let began = now();
        while TcpStream::connect(server.plain).is_err() {
            if now() - began > PATIENCE {
                return Err(format!("{} does not answer", kind.name()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Starting goes on for a while, and takes memory.
        std::thread::sleep(SETTLE);
        Ok(server)
    }
}

/// Where the others' packages are.
fn packages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/signaling/tutorial")
}

/// Has npm install what isn't there as the lock has it; the version of Node.
fn install() -> Result<String, Failure> {
    let node = Command::new("node").arg("--version").output().map_err(|_| "node is not installed")?;
    // The copy says what is installed, as `packages` in tests/run has it.
    let (lock, installed) = (packages().join("package-lock.json"), packages().join("node_modules/.installed"));
    let wanted = std::fs::read(&lock)?;
    if !std::fs::read(&installed).is_ok_and(|found| found == wanted) {
        let npm = Command::new("npm").args(["ci", "--silent"]).current_dir(packages()).status();
        if !npm.map_err(|_| "npm is not installed")?.success() {
            return Err("npm ci failed in benches/signaling/tutorial".into());
        }
        std::fs::write(&installed, &wanted)?;
    }
    Ok(String::from_utf8_lossy(&node.stdout).trim().to_owned())
}
