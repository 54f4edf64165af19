//! Names that a certificate authority is told of.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::address::is_host_name;

/// A host name that a certificate authority can certify, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain(String);

impl Domain {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('*') {
            return Err(format!(
                "{text:?} is a wildcard, which takes a proof by DNS (DNS-01) that is not built in: write each name itself"
            ));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(format!(
                "{text:?} is an address: authorities certify names; write one such as \"calls.example.org\""
            ));
        }
        if !is_host_name(text) {
            return Err(format!("{text:?} is not a host name: write one such as \"calls.example.org\""));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An e-mail address, or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// The longest there is (RFC 5321, section 4.5.3.1.3).
    const LONGEST: usize = 254;

    /// The address; empty when none is set.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // What has meaning in a URL would be taken for something else behind "mailto:" (RFC 8555, section 7.3).
        let is_user = |user: &str| {
            !user.is_empty() && user.bytes().all(|b| b.is_ascii_graphic() && !b"?,:;%\"<>()[]\\@".contains(&b))
        };
        let is_email = text.len() <= Self::LONGEST
            && text.split_once('@').is_some_and(|(user, host)| is_user(user) && is_host_name(host));
        if is_email || text.is_empty() {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("{text:?} is not an e-mail address: write one such as \"admin@example.org\", or \"\" for none"))
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_certified_and_written_to_is_taken() {
        for name in ["calls.example.org", "Xn--bcher-kva.example", "intranet"] {
            assert_eq!(name.parse::<Domain>().unwrap().as_str(), name.to_ascii_lowercase());
        }
        for name in ["", "*.example.org", "192.0.2.1", "::1", "https://a.org", "a..b", "a b"] {
            assert!(name.parse::<Domain>().is_err(), "{name}");
        }
        for email in ["", "admin@example.org", "a.b+c@d"] {
            assert_eq!(email.parse::<Email>().unwrap().as_str(), email);
        }
        for email in ["admin", "@a.org", "a@", "a@b@c", "a b@c.org", "a,b@c.org", "a@b?cc=x", "a\n@b.org"] {
            assert!(email.parse::<Email>().is_err(), "{email}");
        }
    }
}
