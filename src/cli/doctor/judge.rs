//! From facts to findings: pure functions, one for each thing that is looked at.

use std::net::IpAddr;

use super::finding::Finding;
use crate::app::offer::is_public;
use crate::config::value::ExternalIp;
use crate::config::value::TlsMode;

/// Addresses, as they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    /// Of `public_host`.
    pub(super) resolved: Vec<IpAddr>,
    /// Of this machine.
    pub(super) local: Vec<IpAddr>,
    /// `turn.external_ip`.
    pub(super) external: Vec<ExternalIp>,
}

impl Addresses {
    fn is_ours(&self, ip: &IpAddr) -> bool {
        self.local.contains(ip) || ip.is_loopback() || self.external.iter().any(|entry| entry.external == *ip)
    }
}

/// Whether the name leads to this machine.
pub(super) fn dns(name: &str, addresses: &Addresses) -> Finding {
    let Addresses { resolved, local, external } = addresses;
    let outside = external.iter().map(|entry| entry.external);
    let should: Vec<_> = outside.chain(local.iter().copied().filter(|ip| is_public(*ip))).collect();
    let should = if should.is_empty() { "this machine's public address".to_owned() } else { list(&should) };
    let elsewhere: Vec<_> = resolved.iter().copied().filter(|ip| !addresses.is_ours(ip)).collect();
    if resolved.is_empty() {
        return Finding::fault(
            "dns",
            format!("{name} has no address"),
            format!("give it a DNS record that names {should}"),
        );
    }
    if !elsewhere.is_empty() {
        return Finding::fault(
            "dns",
            format!("{name} leads to {}, and this machine is {}", list(&elsewhere), list(&own(addresses))),
            format!(
                "if that is another machine, have its DNS record name {should}; if it is this one behind 1:1 NAT, set \
                 turn.external_ip = [\"{}\"]",
                list(elsewhere.get(..1).unwrap_or_default())
            ),
        );
    }
    if resolved.iter().all(IpAddr::is_loopback) && local.iter().any(|ip| !ip.is_loopback()) {
        return Finding::warn(
            "dns",
            format!("{name} leads to {}, by this machine's own /etc/hosts perhaps", list(resolved)),
            format!("look it up elsewhere: others need {should}"),
        );
    }
    Finding::ok("dns", format!("{name} leads here: {}", list(resolved)))
}

/// Whether what relayed addresses are advertised as can be reached. `relayed` is what an allocation got.
pub(super) fn external_ip(relayed: Option<IpAddr>, addresses: &Addresses) -> Finding {
    let Addresses { resolved, local, external } = addresses;
    let unknown = external.iter().filter_map(|entry| entry.local).find(|ip| !local.contains(ip));
    if let Some(ip) = unknown {
        return Finding::fault(
            "external_ip",
            format!("{ip}, behind the slash in turn.external_ip, is no address of this machine"),
            format!("write one of {}", list(&own(addresses))),
        );
    }
    let global: Vec<_> = resolved.iter().copied().filter(|ip| !ip.is_loopback()).collect();
    let same_family =
        |ip: &IpAddr| global.iter().copied().filter(|other| other.is_ipv4() == ip.is_ipv4()).collect::<Vec<_>>();
    for entry in external.iter().map(|entry| entry.external) {
        if resolved.is_empty() || resolved.contains(&entry) {
            continue;
        }
        let others = same_family(&entry);
        let named = if others.is_empty() { resolved.clone() } else { others };
        return Finding::fault(
            "external_ip",
            format!("relayed addresses are advertised as {entry}, and public_host leads to {}", list(&named)),
            format!("write this machine's public address into turn.external_ip, or have the DNS record name {entry}"),
        );
    }
    let Some(relayed) = relayed else {
        return Finding::skip("external_ip", "no relay was granted, so there is no relayed address to look at");
    };
    let public = same_family(&relayed).into_iter().find(|ip| is_public(*ip));
    match public {
        Some(public) if !is_public(relayed) => Finding::fault(
            "external_ip",
            format!("relayed addresses are advertised as {relayed}, which nobody on the Internet reaches"),
            format!("set turn.external_ip = [\"{public}/{relayed}\"]"),
        ),
        None if !is_public(relayed) => Finding::warn(
            "external_ip",
            format!("relayed addresses are advertised as {relayed}: good for this network, not for the Internet"),
            "behind 1:1 NAT set turn.external_ip to the public address",
        ),
        Some(_) | None => Finding::ok("external_ip", format!("relayed addresses are advertised as {relayed}")),
    }
}

/// Whether a name that has IPv6 is served there, and the other way round. `listens` tells whether anything is bound to IPv6.
pub(super) fn ipv6(name: &str, addresses: &Addresses, listens: bool, answers: Option<bool>) -> Finding {
    let has_record = addresses.resolved.iter().any(IpAddr::is_ipv6);
    let has_address = addresses.local.iter().any(|ip| ip.is_ipv6() && is_public(*ip));
    match (has_record, listens, answers) {
        (true, false, _) => Finding::fault(
            "ipv6",
            format!("{name} has an IPv6 address, and no listener is bound to IPv6"),
            "listen on \"[::]:PORT\", or remove the AAAA record",
        ),
        (true, true, Some(false)) => Finding::fault(
            "ipv6",
            format!("{name} has an IPv6 address, and nothing answers there"),
            "open the ports for IPv6 in the firewall, give this machine that address, or remove the AAAA record",
        ),
        (true, true, _) => Finding::ok("ipv6", format!("{name} is served over IPv6")),
        (false, true, _) if has_address => Finding::warn(
            "ipv6",
            format!("this machine has IPv6, and {name} has no IPv6 address"),
            "add an AAAA record: some mobile networks have IPv6 alone",
        ),
        (false, _, _) => Finding::ok("ipv6", "not used"),
    }
}

/// A certificate as it was shown in a handshake.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Names and addresses in it.
    pub(super) names: Vec<String>,
    /// Unix seconds.
    pub(super) not_before: u64,
    /// Unix seconds.
    pub(super) not_after: u64,
    /// Whether it signs itself.
    pub(super) is_self_signed: bool,
    /// Whether it is for the name that was asked for.
    pub(super) is_for_name: bool,
    /// Why no authority that this machine trusts vouches for it.
    pub(super) untrusted: Option<String>,
}

/// What browsers will say of a certificate for `name`; an empty one is any.
pub(super) fn certificate(name: &str, shown: &Shown, mode: Option<TlsMode>, unix: u64) -> Finding {
    let renew = match mode {
        Some(TlsMode::Files) => "put a renewed one into tls.certificate and tls.key, then `throughway reload`",
        Some(TlsMode::Acme) => "it should have been renewed: the server's log says why not",
        Some(TlsMode::SelfSigned) => "restart the server: it makes a new one",
        None => "have the server's operator renew it",
    };
    if shown.not_after < unix {
        return Finding::fault("certificate", format!("it expired {} ago", days(unix - shown.not_after)), renew);
    }
    if shown.not_before > unix {
        let cure =
            "if this machine's clock is right, wait or get another one; else set the clock: timedatectl set-ntp true";
        return Finding::fault(
            "certificate",
            format!("it isn't good for another {}", days(shown.not_before - unix)),
            cure,
        );
    }
    if !name.is_empty() && !shown.is_for_name {
        return Finding::fault(
            "certificate",
            format!("it is for {}, not for {name}", shown.names.join(", ")),
            format!("get one for {name}, or set public_host to a name that it is for"),
        );
    }
    let left = days(shown.not_after - unix);
    if shown.is_self_signed {
        return Finding::warn(
            "certificate",
            "it is self-signed: browsers warn of it, and take no turns",
            "with a domain, tls.mode = \"acme\" gets one that they trust",
        );
    }
    if let Some(why) = &shown.untrusted {
        return Finding::fault(
            "certificate",
            format!("no authority that this machine trusts vouches for it: {why}"),
            "tls.certificate needs the whole chain, the certificate first and those of its authorities after it",
        );
    }
    if shown.not_after - unix < SOON {
        return Finding::warn("certificate", format!("it expires in {left}"), renew);
    }
    Finding::ok("certificate", format!("for {}, trusted, good for {left}", shown.names.join(", ")))
}

/// When a certificate should have been renewed by: two weeks before its end.
const SOON: u64 = 14 * 86_400;

/// Whether our clock and that of `whose` agree, both in Unix seconds.
pub(super) fn clock(whose: &str, ours: u64, theirs: u64) -> Finding {
    let apart = ours.abs_diff(theirs);
    let which = if ours < theirs { "behind" } else { "ahead of" };
    if apart <= CLOCK_MAY_BE_OFF {
        return Finding::ok("clock", format!("agrees with {whose}"));
    }
    let found = format!("this machine's clock is {} {which} that of {whose}", span(apart));
    let cure =
        "set the clock of the wrong one by NTP: timedatectl set-ntp true; credentials and certificates count by it";
    if apart > CLOCK_IS_WRONG { Finding::fault("clock", found, cure) } else { Finding::warn("clock", found, cure) }
}

/// In seconds: an answer's Date has whole ones, and takes a while.
const CLOCK_MAY_BE_OFF: u64 = 5;
/// In seconds.
const CLOCK_IS_WRONG: u64 = 60;

/// Whether the kernel gives sockets the buffers that we ask for: `net.core.rmem_max` and `wmem_max`, in bytes.
pub(super) fn buffers(receive: Option<u64>, send: Option<u64>, asked: u64) -> Finding {
    let (Some(receive), Some(send)) = (receive, send) else {
        return Finding::skip("buffers", "the kernel doesn't tell net.core.rmem_max and wmem_max here");
    };
    if receive >= asked && send >= asked {
        return Finding::ok("buffers", format!("sockets may have {} KiB each way", asked >> 10));
    }
    let found = format!(
        "sockets get {} KiB to receive and {} KiB to send, not {} KiB: bursts are lost under load",
        receive.min(asked) >> 10,
        send.min(asked) >> 10,
        asked >> 10
    );
    let cure = format!(
        "sysctl -w net.core.rmem_max={asked} net.core.wmem_max={asked}, and the same in /etc/sysctl.d/ for the next boot"
    );
    if receive.min(send) < asked / 8 {
        Finding::fault("buffers", found, cure)
    } else {
        Finding::warn("buffers", found, cure)
    }
}

/// Whether the server may open as many files as it has sockets.
pub(super) fn files(limit: Option<u64>, whose: &str) -> Finding {
    let cure = "LimitNOFILE=1048576 in the unit, or `ulimit -n` where it is started, then restart it";
    match limit {
        None => Finding::skip("files", "the limit of open files can't be read"),
        Some(limit) if limit < FEW_FILES => {
            Finding::fault("files", format!("{whose} may open {limit} files: each client takes one to three"), cure)
        }
        Some(limit) if limit < SOME_FILES => {
            Finding::warn("files", format!("{whose} may open {limit} files: enough for a few hundred clients"), cure)
        }
        Some(limit) => Finding::ok("files", format!("{whose} may open {limit}")),
    }
}

const FEW_FILES: u64 = 1024;
const SOME_FILES: u64 = 16_384;

/// How a listener answered.
pub(super) fn listener(what: &str, key: &str, answer: &Result<String, String>) -> Finding {
    match answer {
        Ok(how) => Finding::ok("listener", format!("{what} answers{how}")),
        Err(why) => Finding::fault(
            "listener",
            format!("{what} ({key}): {why}"),
            "is it the server's configuration in force (restart it after a change of ports), and does a firewall of this \
             machine close the port? `nft list ruleset` shows",
        ),
    }
}

/// What became of a WebSocket upgrade: the status, and what stands in `Server` and `Via`.
pub(super) fn upgrade(url: &str, status: Result<u16, String>, via: &str) -> Finding {
    let between = if via.is_empty() { String::new() } else { format!(" ({via} answered)") };
    match status {
        Ok(101) => Finding::ok("websocket", format!("{url} upgrades")),
        Ok(401 | 403) => Finding::warn(
            "websocket",
            format!("{url} refuses a page of its own{between}"),
            "set public_host, or have the proxy pass Host on",
        ),
        Ok(429 | 503) => Finding::warn("websocket", format!("{url} has no room{between}"), "ask again later"),
        Ok(status) => Finding::fault(
            "websocket",
            format!("{url} answers {status} to an upgrade{between}: a proxy in between drops it"),
            "have the proxy speak HTTP/1.1 and pass Upgrade and Connection on; nginx: proxy_http_version 1.1; \
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"",
        ),
        Err(why) => Finding::fault("websocket", format!("{url}: {why}"), "see the line of its listener"),
    }
}

/// How a relay's round trip over `transport` went.
pub(super) fn relay(transport: &str, outcome: &Result<String, String>) -> Finding {
    match outcome {
        Ok(how) => Finding::ok("relay", format!("over {transport}: {how}")),
        Err(why) => {
            let cure = if why.contains("401") || why.contains("Unauthorized") {
                "the running server has other secrets than turn.secrets and turn.users here: `throughway reload`, or \
                 give doctor the configuration that it runs with"
            } else if why.contains("no answer") {
                "see the listener's line, and the firewall's"
            } else if why.contains("508") {
                "check turn.relay_ports and turn.relay_ip"
            } else {
                "the server's log says more with log.level = \"debug\""
            };
            Finding::fault("relay", format!("over {transport}: {why}"), cure)
        }
    }
}

/// How a port in the relay range fared that was bound here and sent to, over the relay address.
pub(super) fn relay_ports(range: &str, tried: &Result<(), String>) -> Finding {
    match tried {
        Ok(()) => Finding::ok("relay_ports", format!("udp {range} can be bound, and data arrives")),
        Err(why) => Finding::fault(
            "relay_ports",
            format!("udp {range}: {why}"),
            format!("open udp {range} in this machine's firewall, and set turn.relay_ip to an address of this machine"),
        ),
    }
}

/// Whether what must be writable is.
pub(super) fn state(directory: &str, tried: &Result<(), String>) -> Finding {
    match tried {
        Ok(()) => Finding::ok("state", format!("{directory} can be written to")),
        Err(why) => Finding::fault(
            "state",
            format!("certificates and volumes can't be kept in {directory}: {why}"),
            "make it a directory that the server may write to, or set STATE_DIRECTORY to one; mind a full disk",
        ),
    }
}

fn own(addresses: &Addresses) -> Vec<IpAddr> {
    let external = addresses.external.iter().map(|entry| entry.external);
    addresses.local.iter().copied().filter(|ip| !ip.is_loopback()).chain(external).collect()
}

fn list(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn days(seconds: u64) -> String {
    if seconds < 2 * 86_400 { span(seconds) } else { format!("{} days", seconds / 86_400) }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests;
