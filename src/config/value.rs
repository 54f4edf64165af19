//! The kinds of value a key may have: each reads itself from text and says in words what it wants instead.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::str::FromStr;

use hyper::Uri;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de;
use serde_json::Value;

use crate::address::Prefix;
use crate::address::is_host_name;

pub use self::amount::Count;
pub use self::amount::Frequency;
pub use self::amount::Size;
pub use self::amount::Span;
pub use self::amount::Throughput;
pub use self::name::Domain;
pub use self::name::Email;

/// Reads and writes a type as its text.
macro_rules! as_text {
    ($($name:ty $([$($bound:ident),*])?),* $(,)?) => {$(
        impl<'de $($(, const $bound: u64)*)?> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl $(<$(const $bound: u64),*>)? Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

mod amount;
mod name;

/// A key with a few words to choose from.
macro_rules! choice {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $word:literal),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    other => Err(format!("{other:?} is none of {}", [$(concat!("\"", $word, "\"")),*].join(", "))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),* })
            }
        }

        as_text!($name);
    )*};
}

choice! {
    /// Where the certificate comes from.
    TlsMode {
        /// Made on first start.
        SelfSigned => "self-signed",
        /// PEM files.
        Files => "files",
        /// From a certificate authority, by itself.
        Acme => "acme",
    }
    /// How a certificate authority makes sure that a name is ours.
    Challenge {
        /// A handshake on port 443.
        TlsAlpn01 => "tls-alpn-01",
        /// A request on port 80.
        Http01 => "http-01",
    }
    /// What the end of a signaling session means for its TURN credentials.
    CredentialMode {
        /// They are good until their time is up.
        Ttl => "ttl",
        /// They end with it.
        Session => "session",
    }
    /// Which peers a signaling session may reach.
    PeerMode {
        /// All that the lists let it.
        Any => "any",
        /// Of those, only the ones whose candidates were signaled to it.
        Signaled => "signaled",
    }
    /// Who may sign in.
    AccountMode {
        /// Anyone.
        Open => "open",
        /// Whoever has the shared token.
        Token => "token",
        /// Whoever has a signed token.
        Jwt => "jwt",
        /// Whomever a web service lets in.
        Webhook => "webhook",
    }
    /// What is logged.
    LogLevel {
        /// What stops us.
        Error => "error",
        /// What may wake someone.
        Warn => "warn",
        /// Events in the life of the process.
        Info => "info",
        /// Decisions, with addresses.
        Debug => "debug",
        /// Packets.
        Trace => "trace",
    }
    /// The shape of a log line.
    LogFormat {
        /// For people.
        Text => "text",
        /// For programs.
        Json => "json",
    }
}

/// An address and port to listen on; port 0 is any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl Listen {
    /// Every address of this host.
    pub(super) const fn everywhere(port: u16) -> Self {
        Self(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
    }

    /// This machine only.
    pub(super) const fn here(port: u16) -> Self {
        Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!(
                "{text:?} is not an IP address and port: write \"[::]:8443\" for every address of this host, or one \
                 such as \"127.0.0.1:8443\" or \"[::1]:8443\"; ports go from 0 (any free one) to 65535"
            )
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip(pub IpAddr);

impl FromStr for Ip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ip: IpAddr = text.parse().map_err(|_| {
            format!(
                "{text:?} is not an IP address: write one such as \"203.0.113.5\" or \"2001:db8::5\", without a port"
            )
        })?;
        Ok(Self(ip.to_canonical()))
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub Prefix);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("{text:?} is {error}"))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address that the world knows a local one by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalIp {
    /// As the world sees it.
    pub external: IpAddr,
    /// The local address it stands for; none: every one of its family.
    pub local: Option<IpAddr>,
}

impl FromStr for ExternalIp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ip = |text: &str| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        let (external, local) = match text.split_once('/') {
            Some((external, local)) => (ip(external), Some(ip(local))),
            None => (ip(text), None),
        };
        match (external, local) {
            (Some(external), None) => Ok(Self { external, local: None }),
            (Some(external), Some(Some(local))) if external.is_ipv4() == local.is_ipv4() => {
                Ok(Self { external, local: Some(local) })
            }
            (_, _) => Err(format!(
                "{text:?} is not an external address: write \"203.0.113.5\", or \"203.0.113.5/10.0.0.4\" with the local \
                 address of the same family that it stands for"
            )),
        }
    }
}

impl fmt::Display for ExternalIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local {
            Some(local) => write!(f, "{}/{local}", self.external),
            None => self.external.fmt(f),
        }
    }
}

/// Ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest; at least 1.
    pub first: u16,
    /// The highest; above the lowest.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = text.split_once('-').and_then(|(first, last)| {
            Some(Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? })
        });
        range.filter(|range| range.first >= 1 && range.first < range.last).ok_or_else(|| {
            format!(
                "{text:?} is not a port range: write two ports from 1 to 65535, the lower one first, such as \
                 \"49160-65535\""
            )
        })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A host name or canonical IP address without scheme and port, lower case; or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    /// The name; empty when none is set.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self(ip.to_canonical().to_string()));
        }
        if text.is_empty() || is_host_name(text) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(format!(
            "{text:?} is not a host name: write one such as \"calls.example.org\" or an IP address, without \"https://\", \
             port and brackets"
        ))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A web origin, or `*` for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Scheme, host and port as a browser sends them, or `*`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_origin = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ', '*']));
        if text == "*" || is_origin {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(format!(
            "{text:?} is not an origin: write one such as \"https://app.example.org\", without a path, or \"*\" for any"
        ))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a web service is, `http` or `https`; or empty. What stands in it may be a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WebUrl(String);

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

impl WebUrl {
    /// The certificate authority that needs no agreement first.
    pub(super) fn lets_encrypt() -> Self {
        Self("https://acme-v02.api.letsencrypt.org/directory".to_owned())
    }

    /// The URL; empty when none is set.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is reached over TLS.
    pub fn is_tls(&self) -> bool {
        self.0.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"))
    }
}

impl FromStr for WebUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri = text.parse::<Uri>().ok();
        let is_url = |uri: Uri| {
            let host = uri.host().map(|host| host.trim_start_matches('[').trim_end_matches(']'));
            let is_host = host.is_some_and(|host| is_host_name(host) || host.parse::<IpAddr>().is_ok());
            let bare = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            is_host && bare && matches!(uri.scheme_str(), Some("http" | "https"))
        };
        if text.is_empty() || (!text.contains('#') && uri.is_some_and(is_url)) {
            return Ok(Self(text.to_owned()));
        }
        // Whoever wrote a password into it doesn't want to read it in a log.
        Err("is not a URL: write one such as \"https://app.example.org/sign-in\", without a password in it".to_owned())
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What nobody may read in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| de::Error::custom("is not a text in quotes"))?;
        if text.is_empty() {
            return Err(de::Error::custom("is empty: write a long random text, such as `openssl rand -hex 32` prints"));
        }
        Ok(Self(text))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str("(hidden)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A secret that opens something, or empty: then nothing does.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Fewer characters could be guessed.
    const SHORTEST: usize = 16;

    /// The token itself, if there is one.
    pub fn reveal(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&*self.0)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| de::Error::custom("is not a text in quotes"))?;
        let is_long = text.len() >= Self::SHORTEST && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_long && !text.is_empty() {
            let cure = "write at least 16 letters and digits, such as `openssl rand -hex 32` prints, or \"\" for none";
            return Err(de::Error::custom(format_args!("is too short or has spaces: {cure}")));
        }
        Ok(Self(text))
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(if self.0.is_empty() { "" } else { "(hidden)" })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

/// One of `iceServers`, as browsers take it; its credential is shown nowhere.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct IceServer(Value);

impl IceServer {
    /// All of it.
    pub fn reveal(&self) -> &Value {
        &self.0
    }

    fn hidden(&self) -> Value {
        let mut shown = self.0.clone();
        if let Some(credential) = shown.get_mut("credential") {
            *credential = "(hidden)".into();
        }
        shown
    }
}

impl Serialize for IceServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.hidden().serialize(serializer)
    }
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.hidden())
    }
}

as_text!(Listen, Ip, Network, ExternalIp, PortRange, HostName, Origin, WebUrl, Domain, Email);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_and_sizes_read_and_write_themselves() {
        for (text, milliseconds) in [("10m", 600_000), ("1500ms", 1500), ("90 s", 90_000), ("1d", 86_400_000)] {
            assert_eq!(
                text.parse::<Span<1, 86_400_000>>().unwrap().get(),
                Duration::from_millis(milliseconds),
                "{text}"
            );
        }
        assert_eq!(Span::<0, 1>::milliseconds(600_000).to_string(), "10m");
        assert_eq!(Span::<0, 1>::milliseconds(0).to_string(), "0s");
        assert_eq!("64KiB".parse::<Size<1, 1_000_000>>().unwrap().get(), 65536);
        assert_eq!(Size::<0, 1>::bytes(1 << 20).to_string(), "1MiB");
        for bad in ["", "10", "m", "-1s", "1.5s", "10 minutes", "99999999999999999999d", "2d"] {
            bad.parse::<Span<1, 86_400_000>>().unwrap_err();
        }
    }

    #[test]
    fn rates_ports_and_external_addresses_refuse_what_they_are_not() {
        assert!(("30/m".parse::<Frequency>().unwrap().get() - 0.5).abs() < f64::EPSILON);
        for bad in ["", "50", "0/s", "50/d", "1000001/s", "-1/s", "/s"] {
            bad.parse::<Frequency>().unwrap_err();
        }
        for bad in ["", "5", "0-5", "6-5", "5-5", "1-65536", "a-b"] {
            bad.parse::<PortRange>().unwrap_err();
        }
        for bad in ["", "a", "1.2.3.4/", "1.2.3.4/::1", "1.2.3.4/24"] {
            bad.parse::<ExternalIp>().unwrap_err();
        }
        assert_eq!("2001:DB8:0::1".parse::<HostName>().unwrap().as_str(), "2001:db8::1");
        let mapped: ExternalIp = "::ffff:203.0.113.5/::ffff:10.0.0.4".parse().unwrap();
        assert_eq!(mapped, "203.0.113.5/10.0.0.4".parse().unwrap());
        for bad in ["https://a", "a:1", "[::1]", "a b", "a..b", "a/"] {
            bad.parse::<HostName>().unwrap_err();
        }
        for bad in ["a", "https://", "https://a/", "ftp://a", "https://*.a"] {
            bad.parse::<Origin>().unwrap_err();
        }
    }

    #[test]
    fn a_url_is_of_http_in_any_case_and_one_with_a_password_is_refused_unquoted() {
        for (good, is_tls) in [("https://a.org/x?y", true), ("HTTPS://a.org", true), ("Http://[::1]:8080/", false)] {
            assert_eq!(good.parse::<WebUrl>().unwrap().is_tls(), is_tls, "{good}");
        }
        for bad in ["https://user:hunter2@a.org", "a.org/x?hunter2", "ftp://hunter2.org", "https://a.org#hunter2"] {
            assert!(!bad.parse::<WebUrl>().unwrap_err().contains("hunter2"), "{bad}");
        }
    }
}
