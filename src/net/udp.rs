//! UDP sockets with batched receive: each datagram whole, with where it came from, which local address it was for, ECN.

use std::io;
use std::io::IoSliceMut;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use mio::Interest;
use mio::Registry;
use mio::Token;
use mio::event::Source;
use nix::libc;
pub use quinn_udp::EcnCodepoint as Ecn;
use quinn_udp::RecvMeta;
use quinn_udp::Transmit;
use quinn_udp::UdpSockRef;
use quinn_udp::UdpSocketState;
pub use quinn_udp::is_msg_size_err as is_too_large;
use socket2::Domain;
use socket2::Protocol;
use socket2::SockRef;
use socket2::Type;

mod report;
mod train;

pub use self::report::Icmp;
pub use self::report::Report;
pub use self::train::Train;
pub use self::train::Way;

/// The largest payload of a UDP datagram over IPv4; nothing larger is sent in either family.
pub const MAX_PAYLOAD: usize = 65_507;

/// A bound, non-blocking UDP socket. Its port is its own, or shared by what [`Socket::bind_shared`] bound together.
///
/// It sends datagrams of every size: what a link doesn't take whole is fragmented, unless that is forbidden.
#[derive(Debug)]
pub struct Socket {
    io: mio::net::UdpSocket,
    state: UdpSocketState,
    /// What trains have taught quinn-udp. It takes a kernel that refuses one for a kernel without ECN: datagrams that leave
    /// alone must not pay for that.
    trains: UdpSocketState,
    local: SocketAddr,
}

impl Socket {
    /// Kernel buffers asked for, each way; the kernel gives what its limits allow.
    const BUFFERS: usize = 256 << 10;

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
        let [state, trains] =
            [UdpSocketState::new(UdpSockRef::from(&io))?, UdpSocketState::new(UdpSockRef::from(&io))?];
        undo_quic(&io)?;
        allow_fragments(&io, addr.is_ipv4())?;
        let io = std::net::UdpSocket::from(io);
        let local = io.local_addr()?;
        let socket = Self { io: mio::net::UdpSocket::from_std(io), state, trains, local };
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
        let _ = self.state.set_recv_buffer_size(UdpSockRef::from(&self.io), bytes);
        let _ = self.state.set_send_buffer_size(UdpSockRef::from(&self.io), bytes);
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
        if to.port() == 0 {
            // The kernel's EINVAL would teach quinn-udp that this socket can't do ECN.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let transmit = Transmit { destination: to, ecn, contents: data, segment_size: None, src_ip: source };
        match self.state.try_send(UdpSockRef::from(&self.io), &transmit) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.state.try_send(UdpSockRef::from(&self.io), &transmit)
            }
            sent => sent,
        }
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

/// One datagram as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its whole payload.
    pub data: &'a [u8],
    /// Who sent it.
    pub source: SocketAddr,
    /// The local address it was sent to.
    pub local_ip: Option<IpAddr>,
    /// Its ECN bits, to be carried on.
    pub ecn: Option<Ecn>,
}

/// Buffers that one system call fills. Made once, used for every socket of a thread.
#[derive(Debug)]
pub struct Batch {
    buffers: Vec<u8>,
    meta: [RecvMeta; Self::SIZE],
    filled: usize,
}

impl Batch {
    /// How many buffers one call fills; with GRO each may hold a run of datagrams.
    pub const SIZE: usize = quinn_udp::BATCH_SIZE;
    /// No datagram and no GRO run is longer, so none is ever cut.
    const BUFFER: usize = 65_535;

    /// Empty buffers.
    pub fn new() -> Self {
        Self { buffers: vec![0; Self::SIZE * Self::BUFFER], meta: [RecvMeta::default(); Self::SIZE], filled: 0 }
    }

    /// Replaces what it holds with what waits at `socket`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing waits; others concern this call only, and the socket lives on.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        self.filled = 0;
        let mut buffers = self.buffers.chunks_exact_mut(Self::BUFFER);
        let mut slices: [_; Self::SIZE] = std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        self.filled = socket.state.recv(UdpSockRef::from(&socket.io), &mut slices, &mut self.meta)?;
        Ok(())
    }

    /// Whether every buffer was filled, so that more may wait.
    pub fn is_full(&self) -> bool {
        self.filled == Self::SIZE
    }

    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let filled = self.meta.iter().zip(self.buffers.chunks_exact(Self::BUFFER)).take(self.filled);
        filled.flat_map(|(meta, buffer)| {
            let run = buffer.get(..meta.len).unwrap_or_default();
            let alone = run.is_empty().then_some(run);
            alone.into_iter().chain(run.chunks(meta.stride.max(1))).map(|data| Datagram {
                data,
                source: meta.addr,
                local_ip: meta.dst_ip,
                ecn: meta.ecn,
            })
        })
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes back the time stamps that quinn-udp asks for for QUIC's sake.
fn undo_quic(io: &impl AsRawFd) -> io::Result<()> {
    set_option(io, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)
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
    fn a_run_that_the_kernel_joined_is_parted_again() {
        let (a, b) = pair("127.0.0.1");
        let transmit = Transmit {
            destination: b.local_addr(),
            ecn: None,
            contents: &[[1; 100], [2; 100], [3; 100]].concat()[..250],
            segment_size: Some(100),
            src_ip: None,
        };

        a.state.try_send(UdpSockRef::from(&a.io), &transmit).unwrap();

        let lengths: Vec<_> = received(&b).iter().map(|(data, ..)| (data[0], data.len())).collect();
        assert_eq!(lengths, [(1, 100), (2, 100), (3, 50)]);
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
    fn a_shared_port_is_shared_out_by_who_sends_and_nobody_can_join_it() {
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
