//! What this machine is called and which addresses it has.

use std::net::IpAddr;
use std::net::UdpSocket;

use nix::sys::socket::SockaddrStorage;

/// The machine's own name, when it has one that is text.
pub fn name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok().filter(|name| !name.is_empty())
}

/// Every address of every interface, canonical, sorted, each once.
pub fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let mut addresses: Vec<_> =
        interfaces.filter_map(|interface| Some(ip_of(&interface.address?)?.to_canonical())).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The address that others on the network most likely reach this machine by.
///
/// It is the one that the kernel would send from to a far address.
pub fn main_address() -> Option<IpAddr> {
    routed_addresses().first().copied().or_else(|| addresses().into_iter().find(is_usable))
}

/// The addresses that the kernel would send from to far ones: at most one of each family, IPv4 first.
///
/// Nothing is sent to find out.
pub fn routed_addresses() -> Vec<IpAddr> {
    let routed =
        [("0.0.0.0:0", "203.0.113.1:9"), ("[::]:0", "[2001:db8::1]:9")].into_iter().filter_map(|(any, far)| {
            let socket = UdpSocket::bind(any).ok()?;
            socket.connect(far).ok()?;
            Some(socket.local_addr().ok()?.ip())
        });
    routed.filter(is_usable).collect()
}

fn is_usable(ip: &IpAddr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified() && !is_link_local(*ip)
}

/// Whether an address only means something together with an interface.
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Lets this process open as many files as the system allows; the number it may have now.
pub fn raise_file_limit() -> Option<u64> {
    use nix::sys::resource::Resource;
    let (soft, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    match nix::sys::resource::setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Some(hard),
        Err(_) => Some(soft),
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}
