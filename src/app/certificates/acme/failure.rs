//! Why there is no certificate, in the authority's words and the operator's.

use std::fmt;

use instant_acme::Error;
use instant_acme::Problem;

use crate::config::value::Challenge;
use crate::net::tls::TlsError;

/// The longest text of an authority's that is logged, in characters.
const LONGEST: usize = 600;

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failure {
    text: String,
    /// Whether the authority counts it, and doesn't want to be asked again soon.
    pub(super) is_refusal: bool,
}

impl Failure {
    /// The authority said no, or nothing of use.
    pub(super) fn refused(text: String) -> Self {
        Self { text, is_refusal: true }
    }

    /// The authority could not be asked.
    pub(super) fn unreachable(text: String) -> Self {
        Self { text, is_refusal: false }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::refused(format!("{}: {}", in_words(&problem), cure(&problem, None))),
            // Whatever the client of ours met with.
            Error::Other(error) => Self::unreachable(clean(&error.to_string())),
            Error::Timeout(_) => Self::refused("it has not made up its mind in time".to_owned()),
            other => Self::refused(format!("it answers what makes no sense: {}", clean(&other.to_string()))),
        }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::refused(error.to_string())
    }
}

/// The authority's own words, and what kind of problem it calls that.
pub(super) fn in_words(problem: &Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_else(|| "it gives no reason".to_owned());
    for part in &problem.subproblems {
        text = format!("{text}; {part}");
    }
    clean(&format!("{} ({})", clean(&text), kind(problem)))
}

/// What the operator can do about it; met with in `challenge`, if in one.
pub(super) fn cure(problem: &Problem, challenge: Option<Challenge>) -> &'static str {
    match (kind(problem), challenge) {
        ("connection" | "tls" | "unauthorized" | "incorrectResponse", Some(Challenge::TlsAlpn01)) => {
            "port 443 of the name's address must come to http.listen or turn.listen_tls, with nothing before it that takes \
             off TLS: look at firewalls and at the name's A and AAAA records"
        }
        ("connection" | "tls" | "unauthorized" | "incorrectResponse", Some(Challenge::Http01)) => {
            "port 80 of the name's address must come to http.plain_listen or http.listen, and what stands before it must \
             pass /.well-known/acme-challenge/ on: look at firewalls and at the name's A and AAAA records"
        }
        ("connection" | "dns", _) => "the name needs A or AAAA records with the public addresses of this host",
        ("caa", _) => "the CAA records of the domain must name this authority",
        ("rateLimited", _) => "it has been asked too often, by whomever: wait",
        ("rejectedIdentifier" | "unsupportedIdentifier", _) => "correct tls.acme.domains, or ask another authority",
        ("invalidContact" | "unsupportedContact", _) => "correct tls.acme.email",
        ("externalAccountRequired", _) => "it takes only accounts made elsewhere before: choose another authority",
        ("userActionRequired", _) => "it wants something done by you, see its words",
        ("serverInternal", _) => "the trouble is its own",
        (_, _) => "see its words",
    }
}

fn kind(problem: &Problem) -> &str {
    problem.r#type.as_deref().map_or("", |kind| kind.strip_prefix(KIND).unwrap_or(kind))
}

/// What the kinds of problems begin with (RFC 8555, section 6.7).
const KIND: &str = "urn:ietf:params:acme:error:";

/// A text of others, fit for a line of a log.
fn clean(text: &str) -> String {
    text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, detail: &str) -> Problem {
        let problem = serde_json::json!({ "type": format!("{KIND}{kind}"), "detail": detail });
        serde_json::from_value(problem).unwrap()
    }

    #[test]
    fn a_problem_is_told_in_the_authoritys_words_with_its_kind_and_the_cure() {
        let refused = problem("connection", "Connection refused");
        let caa = Failure::from(Error::Api(problem("caa", "CAA record prevents issuance")));

        assert_eq!(in_words(&refused), "Connection refused (connection)");
        assert!(cure(&refused, Some(Challenge::TlsAlpn01)).starts_with("port 443 of the name's address must come to"));
        assert!(cure(&refused, Some(Challenge::Http01)).starts_with("port 80 of the name's address must come to"));
        assert!(caa.to_string().ends_with("(caa): the CAA records of the domain must name this authority"), "{caa}");
        assert!(caa.is_refusal);
    }

    #[test]
    fn what_a_stranger_has_the_authority_say_forges_no_line_and_fills_no_disk() {
        let forged = format!("got \"\r\nERROR all is lost\x1b[2J\u{85}\"{}", "x".repeat(10_000));

        let text = in_words(&problem("unauthorized", &forged));

        assert!(!text.contains(char::is_control), "{text}");
        assert!(text.len() < 1000, "{}", text.len());
    }
}
