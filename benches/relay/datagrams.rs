//! Sockets that many share: all clients over UDP, told apart by their loopback addresses, and all peers.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use throughway::net::udp::Batch;
use throughway::net::udp::Datagram;
use throughway::net::udp::Offload;
use throughway::net::udp::Socket;

use crate::servers::Failure;

/// Bytes for the kernel to hold: everything that is under way.
const BUFFERS: usize = 8 << 20;

/// Clients over UDP on one socket: client n sends from its own address, 127.x.0.1 + n.
pub(crate) struct Datagrams {
    port: Port,
    server: SocketAddr,
    count: usize,
    net: u8,
}

impl Datagrams {
    /// Clients in 127.`net`.0.0/16.
    pub(crate) fn new(server: SocketAddr, count: u16, net: u8) -> Result<Self, Failure> {
        Ok(Self { port: Port::bind(Ipv4Addr::UNSPECIFIED)?, server, count: count.into(), net })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn number(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn send(&self, client: usize, message: &[u8]) -> Result<bool, Failure> {
        let [high, low] = u16::try_from(client + 1)?.to_be_bytes();
        let ip = Ipv4Addr::new(127, self.net, high, low);
        left(self.port.socket.send(message, self.server, Some(ip.into()), None))
    }

    pub(crate) fn receive(&mut self, mut each: impl FnMut(usize, &[u8])) -> Result<(), Failure> {
        self.port.receive(|datagram, _| {
            let Some(IpAddr::V4(ip)) = datagram.local_ip else { return Ok(()) };
            let [_, _, high, low] = ip.octets();
            if let Some(client) = usize::from(u16::from_be_bytes([high, low])).checked_sub(1) {
                each(client, datagram.data);
            }
            Ok(())
        })
    }
}

/// All peers, on one socket.
pub(crate) struct Peers {
    port: Port,
}

/// How many datagrams were sent, and have come in where they were for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Peers {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self { port: Port::bind(Ipv4Addr::LOCALHOST)? })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.port.socket.local_addr()
    }

    pub(crate) fn number(&self) -> u16 {
        self.port.number()
    }

    /// Sends one datagram; whether it left.
    pub(crate) fn send(&self, to: SocketAddr, data: &[u8]) -> Result<bool, Failure> {
        left(self.port.socket.send(data, to, None, None))
    }

    /// Takes and counts what has come in, and sends it back if told to.
    pub(crate) fn receive(&mut self, is_echo: bool, counts: &mut Counts) -> Result<(), Failure> {
        self.port.receive(|datagram, socket| {
            counts.received += 1;
            if is_echo {
                counts.sent += u64::from(left(socket.send(datagram.data, datagram.source, None, None))?);
            }
            Ok(())
        })
    }
}

struct Port {
    socket: Socket,
    batch: Batch,
}

impl Port {
    fn bind(ip: Ipv4Addr) -> Result<Self, Failure> {
        let socket = Socket::bind(SocketAddr::from((ip, 0)))?;
        socket.ask_for_buffers(BUFFERS);
        // As with a network card that cuts runs itself: otherwise it is the sender who pays for that on loopback.
        socket.join_received(Offload::of_this_kernel()?.gro)?;
        Ok(Self { socket, batch: Batch::new() })
    }

    fn number(&self) -> u16 {
        self.socket.local_addr().port()
    }

    fn receive(&mut self, mut each: impl FnMut(Datagram<'_>, &Socket) -> Result<(), Failure>) -> Result<(), Failure> {
        match self.batch.receive(&self.socket) {
            Ok(()) => self.batch.datagrams().try_for_each(|datagram| each(datagram, &self.socket)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// How many datagrams the kernel dropped at these ports, because nobody took them in time (proc(5)).
pub(crate) fn unread(ports: impl IntoIterator<Item = u16>) -> Result<u64, Failure> {
    let ports: HashSet<u16> = ports.into_iter().collect();
    let table = std::fs::read_to_string("/proc/net/udp")?;
    let dropped = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (_, port) = fields.nth(1)?.split_once(':')?;
        let is_asked = ports.contains(&u16::from_str_radix(port, 16).ok()?);
        fields.last().filter(|_| is_asked)?.parse::<u64>().ok()
    });
    Ok(dropped.sum())
}

/// A full socket loses the datagram, as any would.
fn left(result: io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}
