//! UDP sockets that receive and send many datagrams by one system call: each whole, with where it came from, which local
//! address it was for, and its ECN bits.
//!
//! Not quinn-udp's: that asks the kernel for more than is wanted here, sends one run a call, and takes a refused run for a
//! kernel without ECN.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use mio::Interest;
use mio::Registry;
use mio::Token;
use mio::event::Source;
use nix::libc;
use socket2::Domain;
use socket2::Protocol;
use socket2::SockRef;
use socket2::Type;

mod message;
mod receive;
mod report;
mod runs;

use self::message::Control;
use self::message::Name;
use self::message::Told;
pub use self::receive::Batch;
pub use self::receive::Datagram;
pub use self::report::Icmp;
pub use self::report::Report;
pub use self::runs::Fate;
pub use self::runs::RunId;
pub use self::runs::Runs;
pub use self::runs::Way;

/// The largest payload of a UDP datagram over IPv4; nothing larger is sent in either family.
pub const MAX_PAYLOAD: usize = 65_507;

/// The two bits of Explicit Congestion Notification (RFC 3168, section 5) that are not both zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    /// ECN-capable: ECT(1).
    Ect1 = 1,
    /// ECN-capable: ECT(0).
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// Those of a traffic class; none for those that say nothing.
    pub fn of(traffic_class: u8) -> Option<Self> {
        match traffic_class & 3 {
            1 => Some(Self::Ect1),
            2 => Some(Self::Ect0),
            3 => Some(Self::Ce),
            _ => None,
        }
    }

    fn bits(self) -> u8 {
        self as u8
    }
}

/// What a kernel does for runs of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// It cuts apart what is sent as one (UDP_SEGMENT, since Linux 4.18).
    pub gso: bool,
    /// It joins what is received (UDP_GRO, since Linux 5.0).
    pub gro: bool,
}

impl Offload {
    /// All of it.
    pub const ALL: Self = Self { gso: true, gro: true };
    /// Nothing, as before Linux 4.18.
    pub const NONE: Self = Self { gso: false, gro: false };

    /// Asks this one.
    ///
    /// # Errors
    ///
    /// The system's, for lack of descriptors.
    pub fn of_this_kernel() -> io::Result<Self> {
        let io = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        let takes = |option| set_option(&io, libc::SOL_UDP, option, 0).is_ok();
        Ok(Self { gso: takes(libc::UDP_SEGMENT), gro: takes(libc::UDP_GRO) })
    }
}

/// A bound, non-blocking UDP socket. Its port is its own, or shared by what [`Socket::bind_shared`] bound together.
///
/// It sends datagrams of every size: what a link doesn't take whole is fragmented, unless that is forbidden.
#[derive(Debug)]
pub struct Socket {
    io: mio::net::UdpSocket,
    local: SocketAddr,
}

impl Socket {
    /// Bytes of kernel buffers asked for, each way; the kernel gives what its limits allow.
    ///
    /// What one flow brings while a shard sends a round has to find room: with a quarter, a flow near saturation lost some.
    /// Only what waits takes memory, and `net.ipv4.udp_mem` caps that of all sockets together, whatever each may hold.
    pub const BUFFERS: usize = 1 << 20;

    /// Binds, without sharing the port with anyone; IPv6 sockets take no IPv4.
    ///
    /// # Errors
    ///
    /// The kernel's: most often that the port is taken or the address isn't this host's.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        Self::bind_with(addr, false)
    }

    fn bind_with(addr: SocketAddr, shared: bool) -> io::Result<Self> {
        let io = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            io.set_only_v6(true)?;
        }
        if shared {
            io.set_reuse_port(true)?;
        }
        io.bind(&addr.into())?;
        io.set_nonblocking(true)?;
        ask_for_details(&io, addr)?;
        allow_fragments(&io, addr.is_ipv4())?;
        let io = std::net::UdpSocket::from(io);
        let local = io.local_addr()?;
        let socket = Self { io: mio::net::UdpSocket::from_std(io), local };
        socket.ask_for_buffers(Self::BUFFERS);
        Ok(socket)
    }

    /// Binds `count` sockets to one port, which the kernel shares out between them by who sends and where to: what has the
    /// same two addresses comes to the same socket for as long as all of them live.
    ///
    /// The first one is bound as [`Socket::bind`] does, and only then shares: whoever has the port already, even another
    /// instance of this program, makes it fail.
    ///
    /// # Errors
    ///
    /// As [`Socket::bind`].
    pub fn bind_shared(addr: SocketAddr, count: usize) -> io::Result<Vec<Self>> {
        let mut sockets = vec![Self::bind(addr)?];
        while let Some(first) = sockets.first()
            && sockets.len() < count
        {
            SockRef::from(&first.io).set_reuse_port(true)?;
            sockets.push(Self::bind_with(first.local, true)?);
        }
        Ok(sockets)
    }

    /// Where it is bound, with the port that the kernel chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Asks for kernel buffers of `bytes` each way; less is no error.
    pub fn ask_for_buffers(&self, bytes: usize) {
        let Ok(bytes) = libc::c_int::try_from(bytes) else { return };
        for (forced, asked) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            // Beyond the host's limit only who may administer it gets them.
            let done = set_option(&self.io, libc::SOL_SOCKET, forced, bytes);
            let _ = done.or_else(|_| set_option(&self.io, libc::SOL_SOCKET, asked, bytes));
        }
    }

    /// Has the kernel join datagrams of one flow that it receives together, which [`Batch::datagrams`] parts again, or not
    /// (the default).
    ///
    /// # Errors
    ///
    /// The kernel's, when it is too old.
    pub fn join_received(&self, joined: bool) -> io::Result<()> {
        set_option(&self.io, libc::SOL_UDP, libc::UDP_GRO, joined.into())
    }

    /// Sends one datagram, from `source` where the socket is bound to a wildcard.
    ///
    /// What comes back about an earlier datagram makes the kernel fail the next call without doing anything: therefore,
    /// what fails is tried once more.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the socket is full, `EMSGSIZE` when the datagram is too large, else what the kernel says.
    pub fn send(&self, data: &[u8], to: SocketAddr, source: Option<IpAddr>, ecn: Option<Ecn>) -> io::Result<()> {
        let send = || self.send_once(data, to, source, ecn);
        send().or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Err(error) } else { send() })
    }

    /// Sends one datagram that nobody may fragment, at the cost of some more system calls.
    ///
    /// # Errors
    ///
    /// As [`Socket::send`]; after `EMSGSIZE`, [`Socket::take_report`] tells the first link's MTU.
    pub fn send_unfragmented(&self, data: &[u8], to: SocketAddr, ecn: Option<Ecn>) -> io::Result<()> {
        forbid_fragments(&self.io, self.local.is_ipv4())?;
        let sent = self.send(data, to, None, ecn);
        allow_fragments(&self.io, self.local.is_ipv4())?;
        sent
    }

    #[expect(unsafe_code, reason = "the same messages as those of runs")]
    fn send_once(&self, data: &[u8], to: SocketAddr, source: Option<IpAddr>, ecn: Option<Ecn>) -> io::Result<()> {
        let (mut name, mut control, mut header) = (Name::unspecified(), Control::EMPTY, message::empty());
        name.set(to, &mut header);
        control.set(Told { local_ip: self.source(source), ecn, length: None }, self.is_ipv4(), &mut header);
        let mut slice = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        (header.msg_iov, header.msg_iovlen) = (&raw mut slice, 1);
        // SAFETY: the descriptor is open while `self` is borrowed. The kernel only reads what the header points at: name,
        // control messages, slice and data, all there until the call is over, each as long as the header says.
        let sent = unsafe { libc::sendmsg(self.io.as_raw_fd(), &raw const header, 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn is_ipv4(&self) -> bool {
        self.local.is_ipv4()
    }

    /// The one address it is bound to; none for a wildcard.
    fn bound_ip(&self) -> Option<IpAddr> {
        Some(self.local.ip()).filter(|ip| !ip.is_unspecified())
    }

    /// What the kernel has to be told of the address that a datagram leaves from.
    fn source(&self, source: Option<IpAddr>) -> Option<IpAddr> {
        source.filter(|ip| self.local.ip().is_unspecified() && ip.is_ipv4() == self.is_ipv4())
    }
}

/// Whether a datagram couldn't be sent because it is too large.
pub fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

impl Source for Socket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.io.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.io.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.io.deregister(registry)
    }
}

/// Asks for what is told of each datagram: its traffic class, and where it was sent to unless that is known.
fn ask_for_details(io: &impl AsRawFd, bound: SocketAddr) -> io::Result<()> {
    let (level, traffic_class, destination) = match bound {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVTOS, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, libc::IPV6_RECVPKTINFO),
    };
    set_option(io, level, traffic_class, 1)?;
    if bound.ip().is_unspecified() { set_option(io, level, destination, 1) } else { Ok(()) }
}

/// Sends datagrams with DF clear over IPv4, fragmented by the first link's MTU and by routers, not by what ICMP errors
/// make the kernel believe: those may be forged. Over IPv6, where only the sender fragments, by the path's.
fn allow_fragments(io: &impl AsRawFd, ipv4: bool) -> io::Result<()> {
    if ipv4 {
        // Not IP_PMTUDISC_DONT, under which errors about datagrams that had DF set would be kept from us.
        return set_option(io, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT);
    }
    set_option(io, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT)?;
    set_option(io, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)
}

/// Sends datagrams with DF set over IPv4, and in no fragments over IPv6, up to the first link's MTU, whatever the kernel
/// believes of the path's: so each that is too large draws its own error.
fn forbid_fragments(io: &impl AsRawFd, ipv4: bool) -> io::Result<()> {
    if ipv4 {
        return set_option(io, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
    }
    set_option(io, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
    set_option(io, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)
}

#[expect(unsafe_code, reason = "socket2 knows none of these options")]
fn set_option(io: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while `io` is borrowed; the kernel reads `length` bytes of `value`, which outlives
    // the call, and keeps no pointer.
    let done = unsafe { libc::setsockopt(io.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn pair(ip: &str) -> (Socket, Socket) {
        let bind = || Socket::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
        (bind(), bind())
    }

    /// Loopback delivers before `send` returns: nothing is waited for.
    fn received(socket: &Socket) -> Vec<(Vec<u8>, SocketAddr, Option<Ecn>)> {
        let mut batch = Batch::new();
        batch.receive(socket).unwrap();
        batch.datagrams().map(|it| (it.data.to_vec(), it.source, it.ecn)).collect()
    }

    #[test]
    fn datagrams_of_every_size_arrive_whole_with_their_ecn_bits() {
        for ip in ["127.0.0.1", "::1"] {
            let (a, b) = pair(ip);
            let sizes = [0, 1, 1_200, 9_000, 65_000, MAX_PAYLOAD];

            for size in sizes {
                a.send(&vec![7; size], b.local_addr(), None, Some(Ecn::Ect0)).unwrap();
            }

            let expected = sizes.map(|size| (vec![7; size], a.local_addr(), Some(Ecn::Ect0)));
            assert_eq!(received(&b), expected, "{ip}");
        }
    }

    #[test]
    fn what_one_flow_brings_while_a_round_is_sent_waits_whole() {
        let (a, b) = pair("127.0.0.1");

        for _ in 0..700 {
            a.send(&[7; 1_200], b.local_addr(), None, None).unwrap();
        }
        let mut batch = Batch::new();
        let mut came = 0;
        while batch.receive(&b).is_ok() {
            came += batch.datagrams().count();
        }

        assert_eq!(came, 700);
    }

    #[test]
    fn a_bound_port_is_shared_with_nobody_and_ipv6_takes_no_ipv4() {
        let (a, _) = pair("127.0.0.1");
        let any = Socket::bind(SocketAddr::new("::".parse().unwrap(), a.local_addr().port()));

        let again = Socket::bind(a.local_addr());

        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(any.is_ok());
    }

    #[test]
    fn a_shared_port_is_shared_out_by_who_sends_and_a_second_instance_cannot_join_it() {
        let shared = Socket::bind_shared("127.0.0.1:0".parse().unwrap(), 4).unwrap();
        let port = shared[0].local_addr();
        let clients: Vec<_> = (0..200).map(|_| pair("127.0.0.1").0).collect();

        for client in [&clients, &clients].into_iter().flatten() {
            client.send(b"hello", port, None, None).unwrap();
        }
        let mut counts = HashMap::new();
        for socket in &shared {
            let mut batch = Batch::new();
            let mut came = HashMap::new();
            while batch.receive(socket).is_ok() {
                batch.datagrams().for_each(|it| *came.entry(it.source).or_insert(0) += 1);
            }
            assert!(came.len() > 20, "{} of 200 clients", came.len());
            counts.extend(came);
        }

        assert!(shared.iter().all(|socket| socket.local_addr() == port));
        assert_eq!(counts.len(), 200);
        assert!(counts.values().all(|count| *count == 2), "each client comes to one socket");
        for count in [1, 4] {
            assert_eq!(Socket::bind_shared(port, count).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn a_wildcard_socket_knows_and_chooses_the_local_address() {
        let (a, _) = pair("127.0.0.1");
        let any = Socket::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let to = SocketAddr::new("127.0.0.5".parse().unwrap(), any.local_addr().port());
        let mut batch = Batch::new();

        a.send(b"question", to, None, None).unwrap();
        batch.receive(&any).unwrap();
        let asked = batch.datagrams().next().unwrap().local_ip;
        any.send(b"answer", a.local_addr(), asked, None).unwrap();

        assert_eq!(asked, Some(to.ip()));
        assert_eq!(received(&a), [(b"answer".to_vec(), to, None)]);
    }
}
