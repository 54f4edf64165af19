//! Which host the client used, by its request: taken only when well-formed.

use std::net::IpAddr;

use axum::http::Request;
use axum::http::header;

use super::connection::RequestHost;
use crate::address::host_in_url;
use crate::address::is_host_name;

/// A well-formed host and the port written with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// Lower case; IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Authority {
    /// The one that `request` names, by its target or its one Host header.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        if let Some(authority) = request.uri().authority() {
            return Self::parse(authority.as_str());
        }
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
        Self::parse(host.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (ip, rest) = rest.split_once(']')?;
            let ip: std::net::Ipv6Addr = ip.parse().ok()?;
            return Some(Self { host: ip.to_string(), port: port(rest)? });
        }
        let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
        let name = name.strip_suffix('.').unwrap_or(name);
        is_host_name(name).then_some(())?;
        Some(Self { host: name.to_ascii_lowercase(), port: port(rest)? })
    }

    /// As it stands in a URL.
    pub(super) fn with_port(host: &str, port: u16) -> String {
        format!("{}:{port}", host_in_url(host))
    }
}

/// The host for handlers: what the client wrote, else the address it reached.
pub(super) fn request_host(authority: Option<&Authority>, local: IpAddr) -> RequestHost {
    RequestHost(authority.map_or_else(|| local.to_canonical().to_string(), |authority| authority.host.clone()))
}

/// Nothing, or a colon and a port; the inner none stands for no port.
#[expect(clippy::option_option, reason = "no port is not the same as a bad one")]
fn port(rest: &str) -> Option<Option<u16>> {
    if rest.is_empty() {
        return Some(None);
    }
    let digits = rest.strip_prefix(':').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|port| *port != 0).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_hosts_are_taken() {
        let parsed = |text: &str| Authority::parse(text).map(|authority| (authority.host, authority.port));

        assert_eq!(parsed("Example.ORG."), Some(("example.org".into(), None)));
        assert_eq!(parsed("localhost:8443"), Some(("localhost".into(), Some(8443))));
        assert_eq!(parsed("[2001:DB8::1]:443"), Some(("2001:db8::1".into(), Some(443))));
        assert_eq!(parsed("192.0.2.1"), Some(("192.0.2.1".into(), None)));
        for bad in [
            "", ":80", "a b", "a/b", "a@b", "a:", "a:0", "a:65536", "a:+1", "[::1", "[::1]x", "[a]", "..", "a..b",
            "%41", "é",
        ] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn two_host_headers_count_as_none() {
        let request = Request::get("/").header("host", "a").header("host", "b").body(()).unwrap();

        assert_eq!(Authority::of(&request), None);
        assert_eq!(request_host(None, "::ffff:192.0.2.1".parse().unwrap()).0, "192.0.2.1");
    }
}
