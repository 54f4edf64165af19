//! Binds what the configuration names, says in words why it can't, and accepts connections for as long as we live.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Once;
use std::time::Duration;

use socket2::Domain;
use socket2::Protocol;
use socket2::SockRef;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inherited::Inherited;
use super::proxy::Balancers;
use super::udp;
use crate::clock::Clock;
use crate::live::Live;
use crate::places::Place;
use crate::places::Places;

/// An address that cannot be listened on, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub struct ListenError {
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// The address.
    pub addr: SocketAddr,
    /// The configuration key that names it.
    pub key: &'static str,
    /// What the system says.
    #[source]
    pub error: io::Error,
}

impl fmt::Display for ListenError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {} {} ({}): ", self.transport, self.addr, self.key)?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                f.write_str("address in use; another program has it: stop it or choose another port")
            }
            io::ErrorKind::PermissionDenied => write!(
                f,
                "not permitted; ports below 1024 need the capability CAP_NET_BIND_SERVICE: grant it or choose a port \
                 from 1024 up"
            ),
            io::ErrorKind::AddrNotAvailable => {
                f.write_str("this machine has no such address; use one of its own, or [::] for all of them")
            }
            _ => write!(f, "{}", self.error),
        }
    }
}

/// Listens on `addr`, which `key` names; `[::]` gives two sockets, one per family, on the same port; each with its address,
/// which has the real port. What is `inherited` for it listens already, and may be one socket for both families.
///
/// # Errors
///
/// [`ListenError`], when an address can't be had. A host without IPv6 gets `[::]` as IPv4 only.
pub fn tcp(
    addr: SocketAddr,
    key: &'static str,
    inherited: &mut Inherited,
) -> Result<Vec<(TcpListener, SocketAddr)>, ListenError> {
    let handed = inherited.claim(addr);
    let bound = if handed.is_empty() { bind_families(addr, tcp_socket, local_addr) } else { completed(addr, handed) };
    let listening = bound.and_then(|sockets| {
        sockets
            .into_iter()
            .map(|socket| {
                if !socket.is_listener()? {
                    socket.listen(BACKLOG)?;
                }
                socket.set_nonblocking(true)?;
                let local = local_addr(&socket)?;
                Ok((TcpListener::from_std(socket.into())?, local))
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| (addr, error))
    });
    listening.map_err(|(addr, error)| ListenError { transport: "tcp", addr, key, error })
}

/// Binds `addr`, which `key` names, for datagrams: of each family `count` sockets that share its port. Families and errors
/// as [`tcp`].
///
/// # Errors
///
/// [`ListenError`].
pub fn udp(addr: SocketAddr, key: &'static str, count: usize) -> Result<Vec<Vec<udp::Socket>>, ListenError> {
    let local = |sockets: &Vec<udp::Socket>| {
        sockets.first().map(udp::Socket::local_addr).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    };
    let bound = bind_families(addr, |addr| udp::Socket::bind_shared(addr, count), local);
    bound.map_err(|(addr, error)| ListenError { transport: "udp", addr, key, error })
}

/// A connection of which nothing is known yet but where it comes from.
#[derive(Debug)]
pub struct Arrival {
    /// The bytes.
    pub stream: TcpStream,
    /// Its place among those that have asked for nothing; when it is `announced`, it isn't known yet for whom.
    pub place: Place,
    /// Whether a load balancer brings it, and begins it with a header.
    pub announced: bool,
}

/// Accepts until `stop`, and gives each connection that has a place in `half_open` to `each`. No error ends it.
pub async fn accept(
    listener: TcpListener,
    half_open: Arc<Places>,
    balancers: Live<Balancers>,
    stop: CancellationToken,
    mut each: impl FnMut(Arrival),
) {
    let (mut crowded, mut starved) = (Seldom::default(), Seldom::default());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, remote)) => {
                // A socket of both families may have been inherited.
                let remote = remote.ip().to_canonical();
                let announced = balancers.get().announce(remote);
                let place = if announced { half_open.enter_unknown() } else { half_open.enter(remote) };
                let Ok(place) = place else {
                    if crowded.is_due() {
                        tracing::warn!(
                            "closed a connection at once: too many have asked for nothing yet; if they are no attack, \
                             raise limits.half_open_per_source or limits.half_open"
                        );
                    }
                    continue;
                };
                // Small answers leave at once; a socket that refuses the option is as good.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
                each(Arrival { stream, place, announced });
            }
            Err(error) if is_of_connection(&error) => (),
            Err(error) => {
                // Out of files or memory: the next accept would fail the same way at once.
                if starved.is_due() {
                    tracing::warn!(%error, "cannot accept connections; raise the limit of open files (ulimit -n)");
                }
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// Bytes that the kernel holds of what isn't even sent yet: more would only wait there, out of our reach.
const UNSENT: u32 = 64 << 10;
/// How many connections the kernel holds for us.
const BACKLOG: i32 = 1024;
/// How long to wait when the system has no room for another connection.
const BREATH: Duration = Duration::from_millis(50);

/// What is worth a line once a minute at most, because strangers can bring it about.
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    const EVERY: Duration = Duration::from_secs(60);

    fn is_due(&mut self) -> bool {
        let now = Clock::system().now().monotonic;
        let due = self.0.is_none_or(|last| now.saturating_duration_since(last) >= Self::EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// Whether an accept failed because of the one connection it would have given.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::TimedOut
    )
}

/// Binds by `bind`: once, or for `[::]` once in each family, on the same port; `local` tells which.
fn bind_families<T>(
    addr: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
    local: impl Fn(&T) -> io::Result<SocketAddr>,
) -> Result<Vec<T>, (SocketAddr, io::Error)> {
    let one = |addr| bind(addr).map_err(|error| (addr, error));
    let both_families = addr.is_ipv6() && addr.ip().is_unspecified();
    if !both_families {
        return one(addr).map(|socket| vec![socket]);
    }
    let mut tries = if addr.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let v4 = one(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port()))?;
        let port = local(&v4).map_err(|error| (addr, error))?.port();
        match one(SocketAddr::new(addr.ip(), port)) {
            Ok(v6) => return Ok(vec![v4, v6]),
            Err((_, error)) if has_no_ipv6(&error) => {
                NO_IPV6.call_once(|| tracing::info!("this host has no IPv6: [::] stands for IPv4 only"));
                return Ok(vec![v4]);
            }
            Err((_, error)) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => (),
            Err(failed) => return Err(failed),
        }
    }
}

/// Binds besides `sockets`, which stand for `addr`, the family of `[::]` that they leave out.
fn completed(addr: SocketAddr, mut sockets: Vec<Socket>) -> Result<Vec<Socket>, (SocketAddr, io::Error)> {
    let is_v4 = |socket: &Socket| local_addr(socket).is_ok_and(|local| local.is_ipv4());
    let takes_v4 = |socket: &Socket| is_v4(socket) || !socket.only_v6().unwrap_or(true);
    let both_families = addr.is_ipv6() && addr.ip().is_unspecified();
    if both_families && !sockets.iter().any(takes_v4) {
        let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port());
        sockets.push(tcp_socket(v4).map_err(|error| (v4, error))?);
    }
    if both_families && sockets.iter().all(is_v4) {
        match tcp_socket(addr) {
            Ok(v6) => sockets.push(v6),
            Err(error) if has_no_ipv6(&error) => (),
            Err(error) => return Err((addr, error)),
        }
    }
    Ok(sockets)
}

/// Said once, however many listeners it is true of.
static NO_IPV6: Once = Once::new();

/// How often a free port is looked for that both families have.
const PORT_TRIES: u32 = 16;

fn tcp_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A port whose connections of the last run still linger is free; one that somebody listens on is not.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}
