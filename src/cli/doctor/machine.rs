//! What this machine tells of itself: kernel limits, files, ports, and its firewall's rules.

use std::fs;
use std::io;
use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::config::value::PortRange;
use crate::credentials::random;
use crate::net::host;

/// A number that the kernel tells below /proc/sys.
pub(super) fn setting(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).ok()?.trim().parse().ok()
}

/// How many files a process may open; none: this one, as far as it may raise it.
pub(super) fn file_limit(process: Option<i32>) -> Option<u64> {
    let Some(process) = process else { return host::raise_file_limit() };
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The state directory that a process was started with, if it may be looked at.
pub(super) fn state_of(process: i32) -> Option<std::path::PathBuf> {
    let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
    let value = environment.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(b"STATE_DIRECTORY="))?;
    let first = value.split(|byte| *byte == b':').next()?;
    let path = String::from_utf8(first.to_vec()).ok()?;
    (!path.is_empty()).then(|| path.into())
}

/// Whether a file can be made in `directory`, and be written to.
pub(super) fn writable(directory: &Path) -> Result<(), String> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let path = directory.join(format!(".doctor-{}", std::process::id()));
    let attempt = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(&[0; 4096])?;
        file.sync_all()
    };
    let tried = attempt().map_err(|error: io::Error| error.to_string());
    // What was never made can't be removed.
    let _ = fs::remove_file(&path);
    tried
}

/// Why a listener could not be bound here, while no server runs.
pub(super) fn bindable(is_udp: bool, addr: SocketAddr) -> io::Result<()> {
    if is_udp { UdpSocket::bind(addr).map(drop) } else { TcpListener::bind(addr).map(drop) }
}

/// Binds ports of `range` at `ip`, as the relay does, and sends to one of them.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
pub(super) fn relay_port(range: PortRange, ip: IpAddr) -> Result<(), String> {
    let (first, count) = (u32::from(range.first), u32::from(range.last - range.first) + 1);
    let start = u32::from_ne_bytes(random::<4>());
    let mut last = "every port that was tried is taken".to_owned();
    for step in 0..TRIES.min(count) {
        let port = u16::try_from(first + start.wrapping_add(step) % count).unwrap_or(range.first);
        match UdpSocket::bind((ip, port)) {
            Ok(socket) => {
                return arrives(&socket, ip).map_err(|error| match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "data sent there doesn't arrive".to_owned(),
                    _ => format!("data can't be sent there: {error}"),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => (),
            Err(error) => last = format!("cannot bind port {port} of {ip}: {error}"),
        }
    }
    Err(last)
}

/// Busy ports that are passed over.
const TRIES: u32 = 32;

fn arrives(socket: &UdpSocket, ip: IpAddr) -> io::Result<()> {
    let other = UdpSocket::bind((ip, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let to = socket.local_addr()?;
    let word: [u8; 8] = random();
    other.send_to(&word, to)?;
    let mut buffer = [0; 16];
    loop {
        let (length, _) = socket.recv_from(&mut buffer)?;
        // A stranger may send here, too.
        if buffer.get(..length) == Some(&word) {
            return Ok(());
        }
    }
}

/// The firewall's rules as nftables tells them, or why not.
pub(super) async fn firewall() -> Result<Value, String> {
    let listed =
        tokio::process::Command::new("nft").args(["-j", "list", "ruleset"]).stdin(Stdio::null()).output().await;
    let listed = match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err("nft is not installed".to_owned()),
        listed => listed.map_err(|error| format!("nft can't be run: {error}"))?,
    };
    if !listed.status.success() {
        return Err("only root may list its rules".to_owned());
    }
    serde_json::from_slice(&listed.stdout).map_err(|error| format!("nft said what can't be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_none() {
        assert!(setting("net.core.rmem_max").is_some_and(|bytes| bytes > 0));
        assert_eq!(setting("net.core.nothing"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(file_limit(Some(own)).is_some_and(|files| files > 0));
        assert_eq!(file_limit(Some(-1)), None);
    }

    #[test]
    fn a_directory_is_writable_and_a_file_or_nothing_is_not() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();

        assert_eq!(writable(home.path()), Ok(()));
        assert!(writable(&file).is_err() && writable(&home.path().join("nowhere")).is_err());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn relay_ports_are_tried_at_an_address_of_this_machine() {
        let range = PortRange { first: 20_000, last: 29_999 };

        assert_eq!(relay_port(range, "127.0.0.1".parse().unwrap()), Ok(()));
        let elsewhere = relay_port(range, "203.0.113.77".parse().unwrap()).unwrap_err();
        assert!(elsewhere.starts_with("cannot bind port "), "{elsewhere}");
    }
}
