//! How datagrams are told to the kernel, and by it: their addresses and their control messages, as the ABI has them.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV4;
use std::net::SocketAddrV6;

use nix::libc;

use super::Ecn;

#[expect(
    clippy::cast_possible_truncation,
    reason = "small numbers, of another type in libc than in its own structures"
)]
const V4: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "as above")]
const V6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;

#[expect(clippy::cast_possible_truncation, reason = "structures of a few bytes")]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// An address of either family, as the kernel reads and writes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for the control messages of one datagram, aligned as they must be: pktinfo, traffic class, length in a run.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control([u8; 96]);

/// What the control messages of a datagram, or of a run, say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Sent: the address it leaves from. Received: the one it was sent to.
    pub(super) local_ip: Option<IpAddr>,
    /// Its ECN bits.
    pub(super) ecn: Option<Ecn>,
    /// The length of each datagram of a run but the last.
    pub(super) length: Option<u16>,
}

/// A message without anything in it.
#[expect(unsafe_code, reason = "libc gives no other way")]
pub(super) fn empty() -> libc::msghdr {
    // SAFETY: of numbers and pointers all zero bytes are a value: zeroes and null.
    unsafe { std::mem::zeroed() }
}

impl Name {
    /// No address.
    #[expect(unsafe_code, reason = "libc gives no other way")]
    pub(super) fn unspecified() -> Self {
        // SAFETY: of numbers all zero bytes are a value.
        unsafe { std::mem::zeroed() }
    }

    /// An address, as `header` is to send to it.
    pub(super) fn set(&mut self, to: SocketAddr, header: &mut libc::msghdr) {
        let length = match to {
            SocketAddr::V4(to) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: V4,
                    sin_port: to.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
                    sin_zero: [0; 8],
                };
                length_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(to) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: V6,
                    sin6_port: to.port().to_be(),
                    sin6_flowinfo: to.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: to.ip().octets() },
                    sin6_scope_id: to.scope_id(),
                };
                length_of::<libc::sockaddr_in6>()
            }
        };
        header.msg_name = (&raw mut *self).cast();
        header.msg_namelen = length;
    }

    /// Has `header` receive an address into it.
    pub(super) fn await_one(&mut self, header: &mut libc::msghdr) {
        header.msg_name = (&raw mut *self).cast();
        header.msg_namelen = length_of::<Self>();
    }

    /// The address that was received into it.
    #[expect(unsafe_code, reason = "which member of a union was written only its family tells")]
    pub(super) fn get(&self) -> Option<SocketAddr> {
        // SAFETY: both members begin with the family and are plain numbers, for which all bytes are values; both were
        // initialised, by zeroes at first. The family tells which of them the kernel wrote.
        unsafe {
            match libc::c_int::from(self.v4.sin_family) {
                libc::AF_INET => {
                    let ip = Ipv4Addr::from(self.v4.sin_addr.s_addr.to_ne_bytes());
                    Some(SocketAddrV4::new(ip, u16::from_be(self.v4.sin_port)).into())
                }
                libc::AF_INET6 => {
                    let v6 = self.v6;
                    let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
                    Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
                }
                _ => None,
            }
        }
    }
}

impl Control {
    /// Nothing.
    pub(super) const EMPTY: Self = Self([0; 96]);

    /// Has `header` receive control messages into it.
    pub(super) fn await_some(&mut self, header: &mut libc::msghdr) {
        header.msg_control = self.0.as_mut_ptr().cast();
        header.msg_controllen = self.0.len() as _;
    }

    /// Has `header` send what is told, in the family of `ipv4`. What would say nothing is left out: the kernel reads each.
    pub(super) fn set(&mut self, told: Told, ipv4: bool, header: &mut libc::msghdr) {
        // What stands there from before would be taken for lengths by the macros.
        *self = Self::EMPTY;
        self.await_some(header);
        let mut writer = Writer::new(header);
        match told.ecn {
            Some(ecn) if ipv4 => writer.push(libc::IPPROTO_IP, libc::IP_TOS, libc::c_int::from(ecn.bits())),
            Some(ecn) => writer.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::c_int::from(ecn.bits())),
            None => {}
        }
        match told.local_ip {
            Some(IpAddr::V4(ip)) => {
                let ipi_spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: libc::in_addr { s_addr: 0 } };
                writer.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            Some(IpAddr::V6(ip)) => {
                let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                writer.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
            None => {}
        }
        if let Some(length) = told.length {
            writer.push(libc::SOL_UDP, libc::UDP_SEGMENT, length);
        }
        let used = writer.used;
        header.msg_controllen = used as _;
    }
}

/// Writes one control message behind the other.
struct Writer<'a> {
    header: &'a libc::msghdr,
    next: *mut libc::cmsghdr,
    used: usize,
}

impl<'a> Writer<'a> {
    #[expect(unsafe_code, reason = "libc's macros")]
    fn new(header: &'a libc::msghdr) -> Self {
        // SAFETY: `header` points at a whole, aligned `Control`.
        Self { header, next: unsafe { libc::CMSG_FIRSTHDR(header) }, used: 0 }
    }

    #[expect(unsafe_code, reason = "libc's macros")]
    fn push<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        let size = length_of::<T>();
        // SAFETY: `next` is null or inside the `Control`, with room for a header; the room for all that is ever pushed
        // (24 + 40 + 24 bytes) is less than what a `Control` has. The macro reads the length of what follows, which is zero.
        unsafe {
            let Some(head) = self.next.as_mut() else { return };
            (head.cmsg_level, head.cmsg_type) = (level, kind);
            head.cmsg_len = libc::CMSG_LEN(size) as _;
            libc::CMSG_DATA(self.next).cast::<T>().write_unaligned(value);
            self.used += libc::CMSG_SPACE(size) as usize;
            self.next = libc::CMSG_NXTHDR(self.header, self.next);
        }
    }
}

/// What the control messages say that were received with `header`.
#[expect(unsafe_code, reason = "libc's macros")]
pub(super) fn told(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: the kernel has filled what `header` points at, a `Control` that is still there, as far as it says; the macros
    // stay within that. Each value has the type that its level and kind have in the kernel's interface.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = next.as_ref() {
            let data = libc::CMSG_DATA(next);
            match (head.cmsg_level, head.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    told.local_ip = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    told.local_ip = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => told.ecn = Ecn::of(data.read()),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let [low, ..] = data.cast::<libc::c_int>().read_unaligned().to_le_bytes();
                    told.ecn = Ecn::of(low);
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    told.length = u16::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(header, next);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_read_as_they_were_written() {
        for addr in ["192.0.2.1:1", "[2001:db8::1]:65535", "[fe80::1%7]:9"] {
            let addr: SocketAddr = addr.parse().unwrap();
            let (mut name, mut header) = (Name::unspecified(), empty());

            name.set(addr, &mut header);

            assert_eq!(name.get(), Some(addr));
        }
        assert_eq!(Name::unspecified().get(), None);
    }

    #[test]
    fn all_that_is_ever_told_of_a_datagram_has_room() {
        let [v4, v6]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        for (ip, ipv4, bytes) in [(v4, true, 24 + 32 + 24), (v6, false, 24 + 40 + 24)] {
            let (mut control, mut header) = (Control::EMPTY, empty());

            control.set(Told { local_ip: Some(ip), ecn: Some(Ecn::Ce), length: Some(1200) }, ipv4, &mut header);

            assert_eq!(header.msg_controllen, bytes);
        }
    }

    #[test]
    fn nothing_to_tell_takes_no_control_message() {
        let (mut control, mut header) = (Control::EMPTY, empty());

        control.set(Told::default(), true, &mut header);

        assert_eq!(header.msg_controllen, 0);
    }
}
