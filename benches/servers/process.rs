//! A server's process, and the figures that the kernel keeps of it.

use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// A certificate with its key.
pub(crate) type Pair = rcgen::CertifiedKey<rcgen::KeyPair>;

/// Whom the servers' certificate names, and the files it stands in, with its key.
pub(crate) const NAME: &str = "localhost";
pub(crate) const CERTIFICATE: &str = "certificate.pem";
pub(crate) const KEY: &str = "key.pem";

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One process. It ends when this is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its user and system time.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Its memory that is in RAM, in KiB.
    pub(crate) fn resident_kib(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A self-signed certificate for all servers.
pub(crate) fn certificate() -> Result<Pair, Failure> {
    Ok(rcgen::generate_simple_self_signed([NAME.to_owned()])?)
}

/// A port that is free over UDP and TCP.
pub(crate) fn free_port() -> Result<u16, Failure> {
    for _ in 0..100 {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0")?;
        if std::net::TcpListener::bind(udp.local_addr()?).is_ok() {
            return Ok(udp.local_addr()?.port());
        }
    }
    Err("no port is free over UDP and TCP".into())
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
