//! `pebble`, Debian's test server of ACME, with addresses of its own: names lead to the same address as its server's, so that
//! whoever is to prove them listens there.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;

use super::PATIENCE;
use super::client;

/// Where it looks for proofs, on the address that all names have.
#[derive(Clone, Copy)]
pub(crate) struct Looks {
    pub(crate) tls: u16,
    pub(crate) http: u16,
    /// How many seconds its certificates are good for.
    pub(crate) validity: u64,
}

/// The authority, running or not. It ends when this is dropped.
pub(crate) struct Pebble {
    pub(crate) ip: Ipv4Addr,
    home: TempDir,
    server: Option<Child>,
}

/// How many there have been in this process: each has an address of its own.
static COUNT: AtomicU8 = AtomicU8::new(1);

impl Pebble {
    /// Everything but the server. Its names are found in `.org` only.
    pub(crate) async fn new(looks: Looks) -> Self {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, 64 | high >> 2, low, COUNT.fetch_add(1, Ordering::Relaxed));
        let home = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new([ip.to_string()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(home.path().join("certificate.pem"), certificate.pem()).unwrap();
        std::fs::write(home.path().join("key.pem"), key.serialize_pem()).unwrap();
        let config = json!({ "pebble": {
            "listenAddress": format!("{ip}:{DIRECTORY}"),
            "managementListenAddress": format!("{ip}:{MANAGEMENT}"),
            "certificate": "certificate.pem",
            "privateKey": "key.pem",
            "httpPort": looks.http,
            "tlsPort": looks.tls,
            "certificateValidityPeriod": looks.validity,
        } });
        std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
        let names = UdpSocket::bind((ip, DNS)).await.unwrap();
        tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, from) = names.recv_from(&mut query).await.unwrap();
                names.send_to(&answer(&query[..length], ip), from).await.unwrap();
            }
        });
        Self { ip, home, server: None }
    }

    /// The lines of a configuration that asks it; more keys of `[tls.acme]` may follow.
    pub(crate) fn config(&self) -> String {
        format!(
            "[tls]\nmode = \"acme\"\n[tls.acme]\ndirectory = \"https://{}:{DIRECTORY}/dir\"\nca = {:?}\n",
            self.ip,
            self.certificate()
        )
    }

    /// Starts the server, which knows nothing of any before. When this returns, it answers.
    pub(crate) async fn start(&mut self) {
        self.stop();
        let log = File::options().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let server = Command::new("pebble")
            .args(["-config", "config.json", "-dnsserver", &format!("{}:{DNS}", self.ip)])
            .current_dir(self.home.path())
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env_remove("PEBBLE_VA_ALWAYS_VALID")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("pebble runs");
        self.server = Some(server);
        let answers = async {
            while TcpStream::connect((self.ip, DIRECTORY)).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.expect("pebble answers");
    }

    /// Ends the server.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    /// By which its certificates are trusted.
    pub(crate) async fn root(&self) -> CertificateDer<'static> {
        let tls = client::trusting([CertificateDer::from_pem_file(self.certificate()).unwrap()]);
        let stream = TcpStream::connect((self.ip, MANAGEMENT)).await.unwrap();
        let mut stream = tls.connect(self.ip.to_string().try_into().unwrap(), stream).await.unwrap();
        let request = format!("GET /roots/0 HTTP/1.0\r\nHost: {}\r\n\r\n", self.ip);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        CertificateDer::from_pem_slice(&answer).unwrap()
    }

    fn certificate(&self) -> PathBuf {
        self.home.path().join("certificate.pem")
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

const DIRECTORY: u16 = 14000;
const MANAGEMENT: u16 = 15000;
const DNS: u16 = 8053;

/// What a name server says that knows one address, which every name in `.org` has (RFC 1035, section 4.1).
fn answer(query: &[u8], ip: Ipv4Addr) -> Vec<u8> {
    let mut end = 12;
    let mut last: &[u8] = &[];
    while query[end] != 0 {
        let next = end + 1 + usize::from(query[end]);
        last = &query[end + 1..next];
        end = next;
    }
    let is_known = last.eq_ignore_ascii_case(b"org");
    let has_address = is_known && query[end + 1..end + 3] == [0, 1];
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
    answer.extend(&query[12..end + 5]);
    if has_address {
        answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ip.octets());
    }
    answer
}
