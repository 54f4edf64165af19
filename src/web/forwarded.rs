//! Whom an HTTP proxy asks for: its X-Forwarded-For, believed where the configuration says.
//!
//! No other header of a proxy's is: the host comes from Host, and a page's origin is compared with what the configuration
//! calls this server.

use std::net::IpAddr;
use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::http::HeaderName;

use crate::address::Prefix;

/// Proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<Prefix>);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Proxies {
    /// Those in `trusted`.
    pub fn new(trusted: Vec<Prefix>) -> Self {
        Self(trusted)
    }

    /// The client whose request with these headers came from `remote`: the last address in X-Forwarded-For that isn't a
    /// trusted proxy's, with port 0; `remote` where it isn't trusted, or names nobody in an address's form.
    ///
    /// Each proxy adds behind what it got, so that what a client wrote itself stands in front and is never read.
    pub(super) fn client(&self, remote: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if !self.trust(remote.ip()) {
            return remote;
        }
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let entries = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        for entry in entries {
            match address(entry.trim()) {
                Some(ip) if self.trust(ip) => (),
                Some(ip) => return SocketAddr::new(ip, 0),
                None => return remote,
            }
        }
        remote
    }

    fn trust(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|prefix| prefix.contains(ip.to_canonical()))
    }
}

/// An address, canonical; some proxies write the port behind it.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().ok().map(|addr: SocketAddr| addr.ip());
    text.parse().ok().or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who asks, by these lines of X-Forwarded-For from `remote`.
    fn client(remote: &str, lines: &[&str]) -> String {
        let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        proxies.client(SocketAddr::new(remote.parse().unwrap(), 9), &headers).ip().to_string()
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxys_counts() {
        for (lines, expected) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["198.51.100.7, 192.0.2.1"], "192.0.2.1"),
            (&["<script>, 192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, 10.0.0.2,10.0.0.3"], "192.0.2.1"),
            (&["198.51.100.7", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            (&["192.0.2.1:4000"], "192.0.2.1"),
            (&["::ffff:192.0.2.1, ::ffff:10.0.0.2"], "192.0.2.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]:4000"], "2001:db8::1"),
        ] {
            assert_eq!(client("10.0.0.1", lines), expected, "{lines:?}");
            assert_eq!(client("::1", lines), expected, "{lines:?}");
            assert_eq!(client("::ffff:10.0.0.1", lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_header_that_names_nobody_leaves_the_connections_own_address() {
        for lines in [
            &[][..],
            &[""],
            &["unknown"],
            &["192.0.2.1, "],
            &["192.0.2.1, 300.0.0.1"],
            &["192.0.2.1, _hidden, 10.0.0.2"],
            &["192.0.2.1", "\u{e9}"],
            &["10.0.0.2, 10.0.0.3"],
        ] {
            assert_eq!(client("10.0.0.1", lines), "10.0.0.1", "{lines:?}");
        }
    }

    #[test]
    fn nobody_else_is_believed() {
        assert_eq!(client("192.0.2.9", &["198.51.100.7"]), "192.0.2.9");
        assert_eq!(client("2001:db8::9", &["10.0.0.2"]), "2001:db8::9");
    }
}
