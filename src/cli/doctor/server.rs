//! Looks at the server of a configuration, on the machine that it runs on.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;

use super::Names;
use super::Report;
use super::file;
use super::finding::Finding;
use super::firewall;
use super::firewall::Packet;
use super::judge;
use super::judge::Addresses;
use super::machine;
use super::relay;
use super::url;
use super::url::Site;
use crate::address::Transport;
use crate::app::offer::is_public;
use crate::cli::Loaded;
use crate::cli::check;
use crate::cli::control;
use crate::cli::serve;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::value::TlsMode;
use crate::credentials::Credentials;
use crate::credentials::IceCredential;
use crate::credentials::Settings;
use crate::net::host;
use crate::net::udp::Offload;
use crate::net::udp::Socket;

/// A listener, as it can be reached from here.
struct Listener {
    key: &'static str,
    transport: Transport,
    /// Where it is bound.
    bound: SocketAddr,
    /// Where to ask it.
    addr: SocketAddr,
}

impl Listener {
    fn is_udp(&self) -> bool {
        self.transport == Transport::Udp
    }

    fn what(&self) -> String {
        format!("{} {}", self.transport.label(), self.addr)
    }
}

pub(super) async fn look(loaded: &Loaded, token: Option<&str>, names: &Names, report: &mut Report) {
    let config = &loaded.config;
    configuration(loaded, report);
    machine_here(loaded, report).await;
    let local = host::addresses();
    let listeners = open_listeners(config, &local, report);
    if !answer(loaded, &listeners, report).await {
        return firewall(config, &listeners, report).await;
    }
    let name = config.public_host.as_str();
    let mut addresses = Addresses { resolved: Vec::new(), local, external: config.turn.external_ip.clone() };
    if !name.is_empty() {
        addresses.resolved = names.resolve(name).await;
        public_name(name, &addresses, &listeners, report).await;
    }
    let site = web_side(config, &listeners, &addresses.local, report).await;
    let relayed = match credentials(config, site.as_ref(), token).await {
        Ok(pair) => relays(&listeners, name, &pair, report).await,
        Err(skipped) => {
            report.add(skipped);
            None
        }
    };
    report.add(judge::external_ip(relayed, &addresses));
    let range = config.turn.relay_ports;
    report.add(judge::relay_ports(&range.to_string(), &machine::relay_port(range, relay_ip(config, &listeners))));
    firewall(config, &listeners, report).await;
    clock(config, names, report).await;
}

/// What the machine has for the server: limits, and files.
async fn machine_here(loaded: &Loaded, report: &mut Report) {
    let config = &loaded.config;
    let process = control_socket(config, report).await;
    machine_limits(process, report);
    let state = process.and_then(machine::state_of).unwrap_or_else(|| serve::state_directory(loaded.file.as_deref()));
    report.add(judge::state(&shown(&state), &machine::writable(&state)));
    if config.tls.mode == TlsMode::Files {
        report.add(file::pair(&config.tls.certificate, &config.tls.key));
    }
}

/// The listeners that take what comes from here.
fn open_listeners(config: &Config, local: &[IpAddr], report: &mut Report) -> Vec<Listener> {
    let mut listeners = listeners(config, local);
    let is_announced = |one: &Listener| {
        !one.is_udp() && config.http.proxy_protocol.iter().any(|network| network.0.contains(one.addr.ip()))
    };
    if listeners.iter().any(is_announced) {
        report.add(Finding::skip(
            "listener",
            "http.proxy_protocol wants a header from here: TCP and TLS aren't looked at",
        ));
        listeners.retain(|one| !is_announced(one));
    }
    listeners
}

/// Asks each listener; whether the server is up.
async fn answer(loaded: &Loaded, listeners: &[Listener], report: &mut Report) -> bool {
    if listeners.is_empty() {
        report.add(Finding::skip(
            "listener",
            "every port is 0: a free one is chosen at each start, and the start says which",
        ));
        return true;
    }
    let name = loaded.config.public_host.as_str();
    let answers = join_all(listeners.iter().map(|one| relay_ask(one, name))).await;
    if answers.iter().all(Result::is_err) {
        down(loaded, listeners, report);
        return false;
    }
    for (one, answer) in listeners.iter().zip(&answers) {
        report.add(judge::listener(&one.what(), one.key, answer));
    }
    true
}

/// Looks at the certificate and the WebSockets of the web side, and tells where it is.
async fn web_side(
    config: &Config,
    listeners: &[Listener],
    local: &[IpAddr],
    report: &mut Report,
) -> Option<(Site, IpAddr)> {
    let name = config.public_host.as_str();
    let front = listeners.iter().find(|one| one.key == "http.listen")?;
    let ip = front.addr.ip();
    let site = Site::new(if name.is_empty() { "localhost" } else { name }, front.addr.port(), local.contains(&ip));
    if let Ok((_, Some(certificate))) = site.open(ip).await {
        let unix = Clock::system().now().unix.as_secs();
        report.add(judge::certificate(name, &certificate, Some(config.tls.mode), unix));
    }
    report.add(site.upgrade(ip).await);
    Some((site, ip))
}

fn shown(path: &Path) -> String {
    if path.as_os_str().is_empty() { "the working directory".to_owned() } else { path.display().to_string() }
}

fn configuration(loaded: &Loaded, report: &mut Report) {
    let warnings = check::warnings(loaded);
    if warnings.is_empty() {
        report.add(Finding::ok("configuration", "nothing in it is doubtful"));
    }
    for warning in warnings {
        report.add(Finding::warn("configuration", warning, ""));
    }
}

/// The server's process, if its socket answers.
async fn control_socket(config: &Config, report: &mut Report) -> Option<i32> {
    let socket = config.control.socket.as_path();
    if socket.as_os_str().is_empty() {
        let cure = "name a path there, such as \"/run/throughway/control.sock\"";
        report.add(Finding::warn("control", "control.socket is empty: status and reload have no way in", cure));
        return None;
    }
    match control::server_process(socket).await {
        Ok(process) => {
            report.add(Finding::ok("control", format!("the server answers at {}", socket.display())));
            process
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let cure = "run doctor as the server's user, or as root";
            report.add(Finding::warn("control", format!("{}: {error}", socket.display()), cure));
            None
        }
        Err(error) => {
            let cure = "start the server, or restart it if control.socket was changed";
            report.add(Finding::fault("control", format!("nobody answers at {}: {error}", socket.display()), cure));
            None
        }
    }
}

fn machine_limits(process: Option<i32>, report: &mut Report) {
    let (receive, send) = (machine::setting("net.core.rmem_max"), machine::setting("net.core.wmem_max"));
    report.add(judge::buffers(receive, send, Socket::BUFFERS as u64));
    let whose = if process.is_some() { "the server" } else { "this process" };
    report.add(judge::files(machine::file_limit(process), whose));
    report.add(match Offload::of_this_kernel() {
        Ok(Offload { gso: true, .. }) => Finding::ok("gso", "the kernel cuts runs of datagrams apart"),
        Ok(_) | Err(_) => Finding::warn(
            "gso",
            "the kernel can't cut runs of datagrams apart: relaying takes more CPU",
            "use Linux 5.0 or later",
        ),
    });
}

/// Every listener with a port of its own, once in each family that can be reached here.
fn listeners(config: &Config, local: &[IpAddr]) -> Vec<Listener> {
    let (http, turn) = (&config.http, &config.turn);
    let keys = [
        ("http.listen", Transport::Tls, &http.listen),
        ("http.plain_listen", Transport::Tcp, &http.plain_listen),
        ("turn.listen_udp", Transport::Udp, &turn.listen_udp),
        ("turn.listen_tcp", Transport::Tcp, &turn.listen_tcp),
        ("turn.listen_tls", Transport::Tls, &turn.listen_tls),
    ];
    let four = outward(local, IpAddr::is_ipv4).unwrap_or(Ipv4Addr::LOCALHOST.into());
    let six = outward(local, IpAddr::is_ipv6)
        .or_else(|| local.contains(&Ipv6Addr::LOCALHOST.into()).then_some(Ipv6Addr::LOCALHOST.into()));
    let mut listeners = Vec::new();
    for (key, transport, listen) in keys {
        for bound in listen.iter().map(|listen| listen.0).filter(|bound| bound.port() != 0) {
            let reached: Vec<IpAddr> = match bound.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => vec![four],
                IpAddr::V6(ip) if ip.is_unspecified() => std::iter::once(four).chain(six).collect(),
                ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => vec![ip],
            };
            let at = |ip| Listener { key, transport, bound, addr: SocketAddr::new(ip, bound.port()) };
            listeners.extend(reached.into_iter().map(at));
        }
    }
    listeners
}

/// The address of a family that clients from outside would reach, as far as this machine has one: relays are given out by it.
fn outward(local: &[IpAddr], is_of_family: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let is_usable = |ip: &IpAddr| is_of_family(ip) && !ip.is_loopback() && !host::is_link_local(*ip);
    let routed = host::routed_addresses().into_iter().find(is_usable);
    let public = local.iter().copied().find(|ip| is_usable(ip) && is_public(*ip));
    public.or(routed).or_else(|| local.iter().copied().find(is_usable))
}

async fn relay_ask(one: &Listener, name: &str) -> Result<String, String> {
    relay::ask(one.transport, one.addr, name).await.map(|_| String::new())
}

/// What keeps a server from starting: the ports that it can't have.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn down(loaded: &Loaded, listeners: &[Listener], report: &mut Report) {
    let start = match &loaded.file {
        Some(file) => format!("start it: systemctl start throughway, or throughway --config {}", file.display()),
        None => "start it: throughway, or name its configuration by --config".to_owned(),
    };
    let found = "nothing answers on any port of the configuration: the server is down, or runs with another one";
    report.add(Finding::fault("server", found, format!("{start}; its log says why it ended")));
    let mut tried = BTreeSet::new();
    for one in listeners.iter().filter(|one| tried.insert((one.is_udp(), one.bound))) {
        let Err(error) = machine::bindable(one.is_udp(), one.bound) else { continue };
        let cure = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE: the unit grants it; or setcap cap_net_bind_service+ep on the program"
            }
            io::ErrorKind::AddrInUse => {
                "another program has it (ss -tulpn shows which): stop it or choose another port"
            }
            _ => "listen on an address of this machine, or on [::] for all",
        };
        let found = format!("{} {} ({}) can't be had: {error}", one.transport.label(), one.bound, one.key);
        report.add(Finding::fault("listener", found, cure));
    }
}

/// Where the public name leads, and whether that is served.
async fn public_name(name: &str, addresses: &Addresses, listeners: &[Listener], report: &mut Report) {
    if name.parse::<IpAddr>().is_err() {
        report.add(judge::dns(name, addresses));
    }
    let listens = listeners.iter().any(|one| one.bound.is_ipv6());
    let udp = listeners.iter().find(|one| one.is_udp()).map(|one| one.addr.port());
    let mut six = None;
    for ip in &addresses.resolved {
        let Some(port) = udp else { continue };
        let addr = SocketAddr::new(*ip, port);
        let answer = relay::ask(Transport::Udp, addr, name).await;
        if ip.is_ipv6() {
            six = Some(answer.is_ok());
        }
        report.add(match answer {
            Ok(_) => Finding::ok("public", format!("udp {addr}, where {name} leads, answers")),
            Err(why) => Finding::warn(
                "public",
                format!("udp {addr}, where {name} leads, can't be reached from here: {why}"),
                format!(
                    "NAT may not lead back in; run `throughway doctor https://{name}` on another machine to be sure"
                ),
            ),
        });
    }
    report.add(judge::ipv6(name, addresses, listens, six));
}

/// Two credentials that the running server takes, if it runs with this configuration.
async fn credentials(
    config: &Config,
    site: Option<&(Site, IpAddr)>,
    token: Option<&str>,
) -> Result<[IceCredential; 2], Finding> {
    if !config.turn.secrets.is_empty() {
        let secrets = config.turn.secrets.iter().map(|secret| secret.reveal().to_owned()).collect();
        let credentials = Credentials::new(Settings { secrets, life: LIFE, ..Settings::default() });
        let now = Clock::system().now();
        return Ok(["doctor-1", "doctor-2"].map(|holder| credentials.mint_for(holder, now)));
    }
    if let Some((name, password)) = config.turn.users.iter().next() {
        let (username, password) = (name.clone(), password.reveal().to_owned());
        let credential = IceCredential { username, password, lifetime: LIFE };
        return Ok([credential.clone(), credential]);
    }
    let Some((site, ip)) = site else {
        return Err(Finding::skip("relay", "no credentials: turn.secrets is empty, and http.listen, too"));
    };
    let servers = site.ice(*ip, token).await?;
    let first = url::ways(&servers).into_iter().next().map(|(.., credential)| credential);
    let credential = first.ok_or_else(|| Finding::skip("relay", "no credentials: /ice names no TURN server"))?;
    Ok([credential.clone(), credential])
}

/// How long the look may take, and some.
const LIFE: Duration = Duration::from_secs(300);

/// Relays over each transport that there is; the relayed address.
async fn relays(listeners: &[Listener], name: &str, pair: &[IceCredential; 2], report: &mut Report) -> Option<IpAddr> {
    let mut relayed = None;
    for (transport, keys) in [
        (Transport::Udp, ["turn.listen_udp", ""]),
        (Transport::Tcp, ["turn.listen_tcp", "http.plain_listen"]),
        (Transport::Tls, ["http.listen", "turn.listen_tls"]),
    ] {
        let is_it = |one: &&Listener, key: &str| one.key == key && one.transport == transport;
        let Some(one) = keys.iter().find_map(|key| listeners.iter().find(|one| is_it(one, key))) else { continue };
        let proof = relay::round_trip(transport, one.addr, name, pair).await;
        relayed = relayed.or(proof.as_ref().ok().map(|proof| proof.relayed.ip()));
        let outcome = proof.map(|proof| format!("there and back in {:.1?}", proof.took));
        report.add(judge::relay(&one.what(), &outcome));
    }
    relayed
}

/// Where relay sockets are bound, for clients that come from outside.
fn relay_ip(config: &Config, listeners: &[Listener]) -> IpAddr {
    let named = config.turn.relay_ip.first().map(|ip| ip.0);
    let listener = listeners.iter().find(|one| one.is_udp()).map(|one| one.bound.ip());
    let bound = listener.filter(|ip| !ip.is_unspecified());
    let outward = || outward(&host::addresses(), IpAddr::is_ipv4);
    named.or(bound).or_else(outward).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// What this machine's own firewall does to clients from outside.
async fn firewall(config: &Config, listeners: &[Listener], report: &mut Report) {
    let rules = match machine::firewall().await {
        Ok(rules) => rules,
        Err(why) => {
            return report.add(Finding::skip("firewall", format!("this machine's own can't be looked at: {why}")));
        }
    };
    let range = config.turn.relay_ports;
    let udp = |port| Packet { protocol: "udp", port };
    let ports = [range.first, range.first + (range.last - range.first) / 2, range.last].map(udp);
    report.add(firewall::judge(&rules, &format!("udp {range}"), &ports));
    let outward = listeners.iter().filter(|one| !one.bound.ip().is_loopback());
    let listeners: BTreeSet<_> =
        outward.map(|one| (if one.is_udp() { "udp" } else { "tcp" }, one.bound.port())).collect();
    for (protocol, port) in listeners {
        report.add(firewall::judge(&rules, &format!("{protocol} {port}"), &[Packet { protocol, port }]));
    }
}

/// Our clock against the certificate authority's, which is the only other one that the configuration names.
async fn clock(config: &Config, names: &Names, report: &mut Report) {
    if config.tls.mode != TlsMode::Acme {
        return report
            .add(Finding::skip("clock", "nobody to compare it with: doctor with a URL, elsewhere, compares clocks"));
    }
    let directory = config.tls.acme.directory.as_str();
    let Ok((site, path)) = Site::parse(directory) else {
        return report.add(Finding::fault(
            "clock",
            format!("tls.acme.directory: {directory} is no URL"),
            "write the authority's",
        ));
    };
    let answer = match names.resolve(site.host()).await.first() {
        Some(ip) => site.get(*ip, &path, None).await,
        None => Err("it has no address".to_owned()),
    };
    let now = Clock::system().now().unix.as_secs();
    report.add(match answer.map(|answer| answer.date()) {
        Ok(Some(theirs)) => judge::clock(directory, now, theirs),
        Ok(None) => Finding::skip("clock", format!("{directory} doesn't say what time it is")),
        Err(why) => Finding::warn(
            "clock",
            format!("the certificate authority can't be reached: {directory}: {why}"),
            "without it no certificate is renewed: let this machine out to it",
        ),
    });
}
