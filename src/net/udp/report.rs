//! What came back about datagrams that a socket has sent: the kernel's queue of errors.

use std::io;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockaddrStorage;
use nix::sys::socket::recvmsg;

use super::Socket;
use super::set_option;

/// What became of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// An ICMP error came back, in ICMPv6 for an IPv6 socket.
    Icmp {
        /// Where the datagram was sent to; not whoever sent the error.
        to: SocketAddr,
        /// What the error says.
        error: Icmp,
    },
    /// It never left: it was not to be fragmented, and the first link takes no more than `mtu` bytes with all headers.
    TooLarge {
        /// In bytes.
        mtu: u32,
    },
    /// Anything else.
    Other,
}

/// An ICMP error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The next link's MTU in bytes, if the error is about that; else it means nothing.
    pub mtu: u32,
}

impl Socket {
    /// Keeps reports for [`Socket::take_report`] from here on. Each also fails a receive, once.
    ///
    /// They lie in the receive buffer: who asks for them has to take them.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn keep_reports(&self) -> io::Result<()> {
        if self.local.is_ipv4() {
            set_option(&self.io, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
        } else {
            set_option(&self.io, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
        }
    }

    /// Takes the oldest report.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none.
    pub fn take_report(&self) -> io::Result<Report> {
        let (mut control, mut quoted) = (Control([0; CONTROL]), [0; 1]);
        let mut quoted = [IoSliceMut::new(&mut quoted)];
        let flags = MsgFlags::MSG_ERRQUEUE;
        let message = recvmsg::<SockaddrStorage>(self.io.as_raw_fd(), &mut quoted, Some(&mut control.0), flags)?;
        let to = message.address.as_ref().and_then(socket_addr);
        let Ok(mut parts) = message.cmsgs() else { return Ok(Report::Other) };
        Ok(parts.find_map(|part| read(&part, to)).unwrap_or(Report::Other))
    }
}

/// Aligned as control messages must be.
#[repr(align(8))]
struct Control([u8; CONTROL]);

/// An error with its sender, and what else a socket has asked for with each datagram: pktinfo and traffic class.
const CONTROL: usize = 256;

fn read(part: &ControlMessageOwned, to: Option<SocketAddr>) -> Option<Report> {
    let (ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _)) = part else {
        return None;
    };
    let icmp = Icmp { kind: error.ee_type, code: error.ee_code, mtu: error.ee_info };
    Some(match (error.ee_origin, to) {
        (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, Some(to)) => Report::Icmp { to, error: icmp },
        (libc::SO_EE_ORIGIN_LOCAL, _) if error.ee_errno == libc::EMSGSIZE.unsigned_abs() => {
            Report::TooLarge { mtu: error.ee_info }
        }
        (_, _) => Report::Other,
    })
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address that nobody listens on.
    fn closed(ip: &str) -> SocketAddr {
        Socket::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap().local_addr()
    }

    #[test]
    fn a_closed_port_is_reported_with_the_address_that_was_sent_to() {
        for (here, there, kind, code) in [("127.0.0.1", "127.0.0.77", 3, 3), ("::1", "::1", 1, 4)] {
            let socket = Socket::bind(SocketAddr::new(here.parse().unwrap(), 0)).unwrap();
            socket.keep_reports().unwrap();
            let to = closed(there);

            socket.send(b"to nobody", to, None, None).unwrap();

            let error = Icmp { kind, code, mtu: 0 };
            assert_eq!(socket.take_report().unwrap(), Report::Icmp { to, error }, "{here}");
            assert_eq!(socket.take_report().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_report_that_waits_stops_neither_a_send_nor_what_was_received() {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let other = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.keep_reports().unwrap();

        for _ in 0..3 {
            socket.send(b"to nobody", closed("127.0.0.77"), None, None).unwrap();
            socket.send(b"to somebody", other.local_addr(), None, None).unwrap();
        }

        let mut batch = super::super::Batch::new();
        batch.receive(&other).unwrap();
        assert_eq!(batch.datagrams().filter(|it| it.data == b"to somebody").count(), 3);
        let reports = std::iter::from_fn(|| socket.take_report().ok());
        assert_eq!(reports.filter(|it| matches!(it, Report::Icmp { .. })).count(), 3);
    }
}
