//! `throughway init`: asks what only the operator knows, finds out the rest, and writes a configuration.

use std::io;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use tokio::net::lookup_host;

use self::facts::Facts;
use super::Failure;
use super::INSTALLED;
use super::binding;
use crate::config::Config;
use crate::config::value::Email;
use crate::config::value::ExternalIp;
use crate::config::value::HostName;
use crate::config::value::TlsMode;
use crate::net::host;

mod facts;
mod file;
mod text;

/// `throughway init`.
#[derive(clap::Args)]
#[command(after_help = "\
It asks on a terminal for what no flag says. With a domain, the certificate comes by ACME. What
exists is never overwritten. Nobody is asked for this machine's public address unless --stun names a
server: behind 1:1 NAT, the DNS of the domain tells it.")]
pub(super) struct Arguments {
    /// The name that clients reach this server by; "" for none
    #[arg(long, value_name = "NAME")]
    domain: Option<HostName>,
    /// Where the certificate authority may write to
    #[arg(long, value_name = "MAIL")]
    email: Option<Email>,
    /// Where the certificate comes from: acme, files or self-signed
    #[arg(long, value_name = "MODE")]
    tls: Option<TlsMode>,
    /// With --tls files: the certificate chain (PEM)
    #[arg(long, value_name = "PEM", requires = "key")]
    certificate: Option<PathBuf>,
    /// With --tls files: its private key (PEM)
    #[arg(long, value_name = "PEM", requires = "certificate")]
    key: Option<PathBuf>,
    /// Port of https, wss and turns: 443 with a domain, else 8443
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    https_port: Option<u16>,
    /// Port that leads to https and proves the domain: 80 with one; 0 for none
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Public address behind 1:1 NAT, as IP or IP/LOCAL; may be repeated
    #[arg(long, value_name = "IP")]
    external_ip: Vec<ExternalIp>,
    /// A STUN server to ask for the public address
    #[arg(long, value_name = "HOST:PORT")]
    stun: Option<String>,
    /// Let anyone in: else a server with a domain asks for a token
    #[arg(long)]
    open: bool,
    /// Ask nothing: take what no flag says as it is proposed
    #[arg(long)]
    yes: bool,
}

/// What is to be written.
struct Plan {
    domain: String,
    email: Email,
    mode: TlsMode,
    /// What lets members in; none: whoever comes.
    token: Option<String>,
    /// The certificate and its key, in mode "files".
    pair: Option<(PathBuf, PathBuf)>,
    https_port: u16,
    http_port: Option<u16>,
    external_ip: Vec<ExternalIp>,
    socket: PathBuf,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
pub(super) fn run(file: Option<&Path>, asked: Arguments) -> Result<(), Failure> {
    let file = std::path::absolute(file.unwrap_or(Path::new("throughway.toml")))?;
    if file.symlink_metadata().is_ok() {
        return Err(exists(&file));
    }
    let mut questions = Questions { are_asked: io::stdin().is_terminal() && !asked.yes };
    let (facts, plan) = super::block_on(plan(&file, asked, &mut questions))??;
    let text = text::configuration(&plan);
    file::write_new(&file, &text, |written| {
        Config::load(Some(written), std::iter::empty()).map(drop).map_err(|error| io::Error::other(error.to_string()))
    })
    .map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(&file),
        io::ErrorKind::Other => Failure::Operator(format!("these answers make no configuration: {error}")),
        _ => Failure::Operator(format!("cannot write {}: {error}", file.display())),
    })?;
    super::print(&text::next_steps(&file, &plan, &facts, file == Path::new(INSTALLED)))
}

fn exists(file: &Path) -> Failure {
    let file = file.display();
    Failure::Operator(format!(
        "{file} exists and is left as it is: give another --config, or move it away; `throughway check` tells whether it is good"
    ))
}

/// What the machine and the operator say, put together.
async fn plan(file: &Path, asked: Arguments, questions: &mut Questions) -> Result<(Facts, Plan), Failure> {
    let Arguments { domain, email, tls, certificate, key, https_port, http_port, external_ip, stun, open, yes: _ } =
        asked;
    let domain = match domain {
        Some(domain) => domain,
        None => questions.ask("Domain name of this server, such as calls.example.org (empty: none)", "")?,
    };
    let has_domain = !domain.as_str().is_empty();
    let is_name = has_domain && domain.as_str().parse::<IpAddr>().is_err();
    let pair = certificate.zip(key);
    let mode = tls.unwrap_or(match (&pair, is_name) {
        (Some(_), _) => TlsMode::Files,
        (None, true) => TlsMode::Acme,
        (None, false) => TlsMode::SelfSigned,
    });
    match (mode, is_name, &pair) {
        (TlsMode::Acme, false, _) => {
            return Err(Failure::Operator(
                "--tls acme needs --domain with a name: certificates are for names".to_owned(),
            ));
        }
        (TlsMode::Files, _, None) => {
            return Err(Failure::Operator("--tls files needs --certificate and --key with PEM files".to_owned()));
        }
        (TlsMode::Acme | TlsMode::SelfSigned, _, Some(_)) => {
            return Err(Failure::Operator(format!(
                "--certificate and --key are not used with --tls {mode}: leave one out"
            )));
        }
        (TlsMode::Acme, true, None) | (TlsMode::Files, _, Some(_)) | (TlsMode::SelfSigned, _, None) => (),
    }
    let email = match (email, mode) {
        (Some(email), _) => email,
        (None, TlsMode::Acme) => questions.ask("E-mail address for the certificate authority (empty: none)", "")?,
        (None, TlsMode::Files | TlsMode::SelfSigned) => Email::default(),
    };
    let facts = gather(domain.as_str(), stun.as_deref()).await?;
    let external_ip = match (external_ip.is_empty(), facts.external_ip()) {
        (true, Some(proposed)) => questions.ask::<Several>(PUBLIC_ADDRESS, &proposed.to_string())?.0,
        (_, _) => external_ip,
    };
    let (https_proposed, http_proposed) = if has_domain { (443, 80) } else { (8443, 0) };
    let socket = if file.starts_with("/etc") {
        PathBuf::from("/run/throughway/control.sock")
    } else {
        file.with_file_name("control.sock")
    };
    let http_port = Some(http_port.unwrap_or(http_proposed)).filter(|port| *port != 0);
    let https_port = https_port.unwrap_or(https_proposed);
    let token = (has_domain && !open).then(text::fresh::<16>);
    let domain = domain.as_str().to_owned();
    Ok((facts, Plan { domain, email, mode, token, pair, https_port, http_port, external_ip, socket }))
}

const PUBLIC_ADDRESS: &str = "This machine is behind NAT. Its public address, and the local one (empty: neither)";

/// None or one.
struct Several(Vec<ExternalIp>);

impl std::str::FromStr for Several {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(Self(Vec::new())) } else { Ok(Self(vec![text.parse()?])) }
    }
}

async fn gather(domain: &str, stun: Option<&str>) -> Result<Facts, Failure> {
    let resolved = match domain {
        "" => Vec::new(),
        // A name that isn't known yet is no reason to stop: the next steps say so.
        name => lookup_host((name, 0)).await.map(|found| found.map(|addr| addr.ip()).collect()).unwrap_or_default(),
    };
    let seen = match stun {
        Some(server) => Some(ask_stun(server).await?.ip()),
        None => None,
    };
    Ok(Facts { local: host::addresses(), routed: host::routed_addresses(), resolved, seen })
}

async fn ask_stun(server: &str) -> Result<SocketAddr, Failure> {
    let failed = |error: io::Error| {
        Failure::Operator(format!("--stun {server}: {error}: give HOST:PORT of a STUN server, or leave it out"))
    };
    let mut found: Vec<_> = lookup_host(server).await.map_err(failed)?.collect();
    // NAT is IPv4's.
    found.sort_by_key(SocketAddr::is_ipv6);
    let first = found.first().copied().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    binding::ask(first).await.map_err(failed)
}

/// What is asked on a terminal, and taken as proposed elsewhere.
struct Questions {
    are_asked: bool,
}

impl Questions {
    /// Asks until the answer can be used.
    fn ask<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        question: &str,
        proposed: &str,
    ) -> Result<T, Failure> {
        loop {
            let mut answer = String::new();
            if self.are_asked {
                let bracket = if proposed.is_empty() { String::new() } else { format!(" [{proposed}]") };
                eprint!("{question}{bracket}: ");
                if io::stdin().read_line(&mut answer)? == 0 {
                    return Err(Failure::Operator(
                        "the answers ended before the questions: nothing is written".to_owned(),
                    ));
                }
            }
            let answer = if answer.trim().is_empty() { proposed } else { answer.trim() };
            match answer.parse() {
                Ok(value) => return Ok(value),
                Err(error) if self.are_asked => eprintln!("{error}"),
                Err(error) => return Err(Failure::Operator(error.to_string())),
            }
        }
    }
}
