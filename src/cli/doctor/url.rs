//! Looks at a server from outside, as a client does, by its URL.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::Uri;
use serde_json::Value;

use super::Names;
use super::Report;
use super::finding::Finding;
use super::judge;
use super::judge::Addresses;
use super::relay;
use super::web;
use super::web::Answer;
use super::web::Stream;
use crate::address::Transport;
use crate::address::host_in_url;
use crate::app::offer::is_public;
use crate::cli::Failure;
use crate::clock::Clock;
use crate::credentials::IceCredential;

/// Where a URL leads.
pub(super) struct Site {
    /// Without brackets.
    host: String,
    port: u16,
    is_tls: bool,
    /// Whether whoever answers is on this machine.
    is_here: bool,
}

impl Site {
    /// A listener with TLS that a configuration names.
    pub(super) fn new(host: &str, port: u16, is_here: bool) -> Self {
        Self { host: host.to_owned(), port, is_tls: true, is_here }
    }

    pub(super) fn parse(url: &str) -> Result<(Self, String), Failure> {
        let no_url = || Failure::Operator(format!("{url:?} is no URL: write one such as https://calls.example.org"));
        let uri: Uri = url.parse().map_err(|_| no_url())?;
        let is_tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(no_url()),
        };
        let host = uri.host().ok_or_else(no_url)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok((Self { host, port, is_tls, is_here: false }, uri.path().to_owned()))
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// As the header Host has it.
    fn authority(&self) -> String {
        let host = host_in_url(&self.host);
        if self.port == if self.is_tls { 443 } else { 80 } {
            host.into_owned()
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// Connects to one of its addresses, whatever certificate it shows.
    pub(super) async fn open(&self, ip: IpAddr) -> Result<(Box<dyn Stream>, Option<judge::Shown>), String> {
        let addr = SocketAddr::new(ip, self.port);
        if self.is_tls {
            let opened = web::open_tls(addr, &self.host).await;
            opened.map(|(stream, shown)| (stream, Some(shown))).map_err(|error| error.to_string())
        } else {
            let stream = web::open(addr).await.map_err(|error| error.to_string())?;
            Ok((Box::new(stream), None))
        }
    }

    pub(super) async fn get(&self, ip: IpAddr, path: &str, token: Option<&str>) -> Result<Answer, String> {
        let (stream, _) = self.open(ip).await?;
        web::get(stream, &self.authority(), path, token).await.map_err(|error| error.to_string())
    }

    /// Whether a WebSocket can be had.
    pub(super) async fn upgrade(&self, ip: IpAddr) -> Finding {
        let (page, socket) = if self.is_tls { ("https", "wss") } else { ("http", "ws") };
        let url = format!("{socket}://{}/ws", self.authority());
        let asked = match self.open(ip).await {
            Ok((stream, _)) => web::upgrade(stream, page, &self.authority(), "/ws").await,
            Err(error) => Err(error),
        };
        match asked {
            Ok((status, via)) => judge::upgrade(&url, Ok(status), &via),
            Err(error) => judge::upgrade(&url, Err(error), ""),
        }
    }

    /// Why a secret may not be shown to whoever answered at `ip` with this certificate.
    fn distrust(&self, ip: IpAddr, shown: Option<&judge::Shown>) -> Option<String> {
        if self.is_here || ip.is_loopback() {
            return None;
        }
        match shown {
            None => Some("http: sends it in clear: give an https: URL".to_owned()),
            Some(shown) if !shown.is_for_name => Some(format!("the certificate is not for {}", self.host)),
            Some(shown) => shown.untrusted.as_ref().map(|why| format!("the certificate can't be trusted: {why}")),
        }
    }

    /// The iceServers that it hands out. A token is shown to nobody who may be another.
    pub(super) async fn ice(&self, ip: IpAddr, token: Option<&str>) -> Result<Value, Finding> {
        let skip = |why: String| Finding::skip("relay", format!("no credentials: {why}"));
        let (stream, shown) = self.open(ip).await.map_err(skip)?;
        if let Some(why) = self.distrust(ip, shown.as_ref()).filter(|_| token.is_some()) {
            return Err(skip(format!("--token is kept back, for {why}")));
        }
        let answer = web::get(stream, &self.authority(), "/ice", token).await;
        let answer = answer.map_err(|error| skip(error.to_string()))?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|error| skip(format!("/ice: {error}"))),
            401 | 403 => Err(skip(format!("/ice answers {}: give --token what members show", answer.status))),
            status => Err(skip(format!("/ice answers {status}"))),
        }
    }
}

pub(super) async fn look(url: &str, token: Option<&str>, names: &Names, report: &mut Report) -> Result<(), Failure> {
    let (site, _) = Site::parse(url)?;
    let resolved = names.resolve(&site.host).await;
    if resolved.is_empty() {
        let cure = "give it a DNS record, or check the spelling";
        report.add(Finding::fault("dns", format!("{} has no address", site.host), cure));
        return Ok(());
    }
    let list: Vec<_> = resolved.iter().map(IpAddr::to_string).collect();
    report.add(Finding::ok("dns", format!("{} is {}", site.host, list.join(", "))));
    let Some(reached) = reach(&site, &resolved, report).await else { return Ok(()) };
    let unix = Clock::system().now().unix.as_secs();
    if let Ok((_, Some(shown))) = site.open(reached).await {
        report.add(judge::certificate(&site.host, &shown, None, unix));
    }
    match site.get(reached, "/healthz", None).await {
        Ok(answer) => {
            report.add(server(url, &answer));
            let now = Clock::system().now().unix.as_secs();
            report.add(match answer.date() {
                Some(theirs) => judge::clock(&site.host, now, theirs),
                None => Finding::skip("clock", format!("{} doesn't say what time it is", site.host)),
            });
        }
        Err(why) => report.add(Finding::fault("server", format!("{url}: {why}"), DOWN)),
    }
    report.add(site.upgrade(reached).await);
    match site.ice(reached, token).await {
        Ok(servers) => relays(&servers, names, report).await,
        Err(skipped) => report.add(skipped),
    }
    Ok(())
}

/// What to do about a server that says nothing.
const DOWN: &str = "start it (systemctl start throughway; journalctl -u throughway says why it ended), and open its ports \
                    in the provider's firewall";

fn server(url: &str, answer: &Answer) -> Finding {
    match (answer.status, answer.body.as_slice()) {
        (200, b"ok\n") => Finding::ok("server", format!("{url} is up")),
        (status, _) => Finding::fault(
            "server",
            format!("{url}/healthz answers {status}, and not as Throughway does"),
            "is this its address? Have a proxy in front pass all paths on",
        ),
    }
}

/// The first address that lets us in; a family that doesn't is a fault.
async fn reach(site: &Site, resolved: &[IpAddr], report: &mut Report) -> Option<IpAddr> {
    let mut reached = None;
    for ip in resolved {
        match web::open(SocketAddr::new(*ip, site.port)).await {
            Ok(_) => reached = reached.or(Some(*ip)),
            Err(error) => {
                let found = format!("tcp {}: {error}", SocketAddr::new(*ip, site.port));
                let check = if ip.is_ipv6() { "ipv6" } else { "server" };
                report.add(Finding::fault(check, found, if ip.is_ipv6() { NO_IPV6 } else { DOWN }));
            }
        }
    }
    reached
}

const NO_IPV6: &str = "open the port for IPv6 in the firewalls, listen on \"[::]:PORT\", or remove the AAAA record; if this \
                       machine has no IPv6, ask from one that has";

/// Uses each TURN server of the list.
async fn relays(servers: &Value, names: &Names, report: &mut Report) {
    let mut used = false;
    for (transport, host, port, credential) in ways(servers) {
        used = true;
        let resolved = names.resolve(&host).await;
        let Some(ip) = resolved.first().copied() else {
            report.add(Finding::fault("dns", format!("{host}, of iceServers, has no address"), "set public_host"));
            continue;
        };
        let pair = [credential.clone(), credential];
        let proof = relay::round_trip(transport, SocketAddr::new(ip, port), &host, &pair).await;
        let outcome = proof.as_ref().map(|proof| format!("there and back in {:.1?}", proof.took)).map_err(Clone::clone);
        report.add(judge::relay(&format!("{} {}:{port}", transport.label(), host_in_url(&host)), &outcome));
        if let Ok(proof) = proof
            && transport == Transport::Udp
        {
            let addresses = Addresses {
                resolved: resolved.into_iter().filter(|ip| is_public(*ip)).collect(),
                ..Addresses::default()
            };
            report.add(judge::external_ip(Some(proof.relayed.ip()), &addresses));
        }
    }
    if !used {
        report.add(Finding::warn(
            "relay",
            "iceServers names no TURN server",
            "give turn.listen_udp and turn.listen_tcp ports",
        ));
    }
}

/// Each way to relay that a list of iceServers names.
pub(super) fn ways(servers: &Value) -> Vec<(Transport, String, u16, IceCredential)> {
    let mut ways = Vec::new();
    for server in servers.as_array().into_iter().flatten() {
        let text = |key: &str| server.get(key).and_then(Value::as_str).map(str::to_owned);
        let (Some(username), Some(password)) = (text("username"), text("credential")) else { continue };
        let credential = IceCredential { username, password, lifetime: Duration::ZERO };
        let urls = server.get("urls").map(|urls| urls.as_array().cloned().unwrap_or_else(|| vec![urls.clone()]));
        for url in urls.into_iter().flatten() {
            if let Some((transport, host, port)) = url.as_str().and_then(way).filter(|_| ways.len() < MAX_WAYS) {
                ways.push((transport, host, port, credential.clone()));
            }
        }
    }
    ways
}

/// Each takes a relay, or ten seconds; a server of somebody else's may name as many as it likes.
const MAX_WAYS: usize = 16;

/// A `turn:` or `turns:` URL (RFC 7065).
fn way(url: &str) -> Option<(Transport, String, u16)> {
    let (scheme, rest) = url.split_once(':')?;
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (transport, default) = match (scheme, query) {
        ("turn", "" | "transport=udp") => (Transport::Udp, 3478),
        ("turn", "transport=tcp") => (Transport::Tcp, 3478),
        ("turns", "" | "transport=tcp") => (Transport::Tls, 5349),
        _ => return None,
    };
    let authority: hyper::http::uri::Authority = authority.parse().ok()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((transport, host, authority.port_u16().unwrap_or(default)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_relay_is_read_from_ice_servers() {
        let servers = json!([
            { "urls": ["stun:a:1"] },
            { "urls": ["turn:a:1?transport=udp", "turn:[::1]:2?transport=tcp", "turns:b", "x:y"], "username": "u", "credential": "c" },
            { "urls": "turn:c", "username": "u", "credential": "c" },
            { "urls": "turn:without-a-credential" },
        ]);

        let found: Vec<_> =
            ways(&servers).into_iter().map(|(transport, host, port, _)| (transport, host, port)).collect();

        assert_eq!(
            found,
            [
                (Transport::Udp, "a".to_owned(), 1),
                (Transport::Tcp, "::1".to_owned(), 2),
                (Transport::Tls, "b".to_owned(), 5349),
                (Transport::Udp, "c".to_owned(), 3478),
            ]
        );
    }

    #[test]
    fn a_list_without_end_is_read_to_the_sixteenth() {
        let urls: Vec<_> = (0..100).map(|port| format!("turn:a:{}", port + 1)).collect();

        assert_eq!(ways(&json!([{ "urls": urls, "username": "u", "credential": "c" }])).len(), MAX_WAYS);
    }

    #[test]
    fn a_secret_is_for_a_trusted_certificate_of_the_name_or_for_this_machine() {
        let (far, near) = ("9.9.9.9".parse().unwrap(), "127.0.0.1".parse().unwrap());
        let (site, _) = Site::parse("https://a.org").ok().unwrap();
        let good = judge::Shown { is_for_name: true, ..judge::Shown::default() };
        let untrusted = judge::Shown { untrusted: Some("it expired".to_owned()), ..good.clone() };
        let of_another = judge::Shown { is_for_name: false, ..good.clone() };

        assert_eq!(site.distrust(far, Some(&good)), None);
        for (shown, why) in [
            (Some(&untrusted), "can't be trusted: it expired"),
            (Some(&of_another), "is not for a.org"),
            (None, "in clear"),
        ] {
            assert!(site.distrust(far, shown).unwrap().contains(why), "{why}");
            assert_eq!(site.distrust(near, shown), None);
            assert_eq!(Site::new("a.org", 443, true).distrust(far, shown), None);
            assert!(Site::new("a.org", 443, false).distrust(far, shown).is_some());
        }
    }

    #[test]
    fn a_url_has_a_scheme_that_we_speak_and_a_host() {
        for bad in ["calls.example.org", "ftp://a", "https://"] {
            assert!(Site::parse(bad).is_err(), "{bad}");
        }
        let (site, _) = Site::parse("https://[::1]:8443/x").ok().unwrap();
        assert_eq!((site.authority().as_str(), site.is_tls), ("[::1]:8443", true));
    }
}
