//! Listening sockets that systemd has bound and hands over (socket activation): they outlive this process, so that connections
//! wait in them for the next one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use socket2::Socket;
use socket2::Type;

/// Why what was handed over can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The environment says nothing that makes sense.
    #[error("cannot take over the sockets that LISTEN_FDS announces: {0}")]
    Environment(io::Error),
    /// It is something else than what is served.
    #[error("the socket {name} that was handed over (LISTEN_FDS) is no TCP listener: write ListenStream= with a port")]
    NotTcp {
        /// As LISTEN_FDNAMES calls it.
        name: String,
    },
    /// No key of the configuration says what to serve on it.
    #[error(
        "the socket {name} that was handed over (LISTEN_FDS) listens on {addr}, which no key names: add it to http.listen, \
         http.plain_listen, turn.listen_tcp, turn.listen_tls or metrics.listen, or take it out of the socket unit"
    )]
    Unnamed {
        /// As LISTEN_FDNAMES calls it.
        name: String,
        /// Where it listens.
        addr: SocketAddr,
    },
}

/// Those that nobody has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Handed>);

#[derive(Debug)]
struct Handed {
    socket: Socket,
    addr: SocketAddr,
    name: String,
}

impl Inherited {
    /// Takes what is handed over to this process, which can be done once.
    ///
    /// # Errors
    ///
    /// [`InheritError`], when some of it is no TCP listener.
    pub fn take() -> Result<Self, InheritError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Ok(Self::default());
        }
        let handed = sd_notify::listen_fds_with_names().map_err(InheritError::Environment)?;
        handed.map(|(fd, name)| Handed::new(own(fd), name)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the environment says that there are some, so that a process before this one may still be there.
    pub fn are_announced() -> bool {
        std::env::var_os("LISTEN_FDS").is_some()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that stand for `addr`: of `[::]` those of both families on its port, for a unit has either one that takes both
    /// or one of each.
    pub fn claim(&mut self, addr: SocketAddr) -> Vec<Socket> {
        let stands_for = |at: SocketAddr| {
            let is_any = addr.is_ipv6() && addr.ip().is_unspecified();
            at == addr || (is_any && at.ip().is_unspecified() && at.port() == addr.port())
        };
        self.0.extract_if(.., |handed| stands_for(handed.addr)).map(|handed| handed.socket).collect()
    }

    /// All must have been claimed.
    ///
    /// # Errors
    ///
    /// [`InheritError::Unnamed`], for the first that wasn't.
    pub fn finish(self) -> Result<(), InheritError> {
        let first = self.0.into_iter().next();
        first.map_or(Ok(()), |Handed { addr, name, .. }| Err(InheritError::Unnamed { name, addr }))
    }
}

impl Handed {
    fn new(fd: OwnedFd, name: String) -> Result<Self, InheritError> {
        let socket = Socket::from(fd);
        let is_tcp = socket.r#type().is_ok_and(|kind| kind == Type::STREAM) && socket.is_listener().unwrap_or(false);
        let addr = socket.local_addr().ok().and_then(|addr| addr.as_socket()).filter(|_| is_tcp);
        match addr {
            Some(addr) => Ok(Self { socket, addr, name }),
            None => Err(InheritError::NotTcp { name }),
        }
    }
}

#[expect(unsafe_code, reason = "a number in the environment is all that is handed over")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the descriptor is open, or it couldn't have been marked to be closed on exec, and whoever announced it to this
    // very process gave it away; it is taken once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn handed(addr: &str, name: &str) -> Handed {
        Handed::new(TcpListener::bind(addr).unwrap().into(), name.to_owned()).unwrap()
    }

    #[test]
    fn a_wildcard_claims_what_listens_on_its_port_in_either_family_and_an_address_itself_alone() {
        let (any, here) = (handed("0.0.0.0:0", "any"), handed("127.0.0.1:0", "here"));
        let (of_any, of_here) = (any.addr.port(), here.addr);
        let mut inherited = Inherited(vec![any, here]);

        assert!(inherited.claim(SocketAddr::new("127.0.0.1".parse().unwrap(), of_any)).is_empty());
        assert_eq!(inherited.claim(SocketAddr::new("::".parse().unwrap(), of_any)).len(), 1);
        assert!(inherited.claim(SocketAddr::new("::".parse().unwrap(), of_here.port())).is_empty());
        let error = inherited.finish().unwrap_err().to_string();

        assert!(error.contains(&of_here.to_string()) && error.contains("here"), "{error}");
    }

    #[test]
    fn what_does_not_listen_is_no_listener() {
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();

        let error = Handed::new(datagrams.into(), "media".into()).unwrap_err();

        assert!(error.to_string().contains("media"), "{error}");
    }
}
