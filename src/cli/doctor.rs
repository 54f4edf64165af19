//! `throughway doctor`: looks at a running server as its clients and its machine see it, and names the cure of each fault.

use std::io;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use serde_json::json;
use tokio::net::lookup_host;

use self::finding::Finding;
use self::finding::Level;
use super::Failure;
use super::Loaded;

mod file;
mod finding;
mod firewall;
mod judge;
mod machine;
mod relay;
mod server;
mod url;
mod web;

/// `throughway doctor`.
#[derive(clap::Args)]
#[command(after_help = "\
Without a URL it looks at the server of the configuration, on this machine: run it there, as root
if it is to see the firewall and the server's limits. With a URL it looks as a client does, from
wherever it runs: that alone tells whether a provider's firewall lets clients in.

Each line is ok, warn, fault or skip, and each fault has its cure. Exit code 3: there is a fault.")]
pub(super) struct Arguments {
    /// A server to look at from outside, such as https://calls.example.org
    url: Option<String>,
    /// What members show to sign in, for credentials from /ice
    #[arg(long)]
    token: Option<String>,
    /// Take this address for a name instead of asking DNS; may be repeated
    #[arg(long, value_name = "NAME=IP")]
    resolve: Vec<Override>,
    /// Print {"findings", "faults", "warnings"} as JSON
    #[arg(long)]
    json: bool,
}

/// One of `--resolve`.
#[derive(Clone)]
struct Override {
    name: String,
    ip: IpAddr,
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(name, ip)| Some((name, ip.parse().ok()?)));
        let (name, ip) =
            parts.ok_or_else(|| format!("{text:?} is not NAME=IP: write calls.example.org=203.0.113.5"))?;
        Ok(Self { name: name.to_ascii_lowercase(), ip })
    }
}

pub(super) fn run(file: Option<&Path>, asked: &Arguments) -> Result<(), Failure> {
    let names = Names(asked.resolve.clone());
    let mut report = Report::new(asked.json);
    match &asked.url {
        Some(url) => super::block_on(url::look(url, asked.token.as_deref(), &names, &mut report))??,
        None => {
            let loaded = Loaded::read(file)?;
            super::block_on(server::look(&loaded, asked.token.as_deref(), &names, &mut report))?;
        }
    }
    report.finish()
}

/// Names and their addresses.
struct Names(Vec<Override>);

impl Names {
    /// The addresses of `host`, each once, IPv4 first; none for a name that isn't known.
    async fn resolve(&self, host: &str) -> Vec<IpAddr> {
        if let Ok(ip) = host.parse() {
            return vec![ip];
        }
        let mut found: Vec<_> =
            self.0.iter().filter(|one| one.name == host.to_ascii_lowercase()).map(|one| one.ip).collect();
        if found.is_empty() {
            found = lookup_host((host, 0)).await.map(|all| all.map(|addr| addr.ip()).collect()).unwrap_or_default();
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The findings so far; for people each is printed as it is made.
struct Report {
    findings: Vec<Finding>,
    is_json: bool,
    has_colours: bool,
}

impl Report {
    fn new(is_json: bool) -> Self {
        let has_colours =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { findings: Vec::new(), is_json, has_colours }
    }

    fn add(&mut self, finding: Finding) {
        if !self.is_json {
            // Whoever reads no further still gets the exit code.
            let _ = super::print(&finding.in_words(self.has_colours));
        }
        self.findings.push(finding);
    }

    fn finish(self) -> Result<(), Failure> {
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let (faults, warnings) = (count(Level::Fault), count(Level::Warn));
        if self.is_json {
            let all = json!({ "findings": self.findings, "faults": faults, "warnings": warnings });
            super::print(&format!("{all}\n"))?;
        } else {
            super::print(&format!("\n{}\n", in_all(faults, warnings)))?;
        }
        if faults > 0 { Err(Failure::Faults) } else { Ok(()) }
    }
}

fn in_all(faults: usize, warnings: usize) -> String {
    let some = |count, what| match count {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        more => format!("{more} {what}s"),
    };
    format!("{}, {}", some(faults, "fault"), some(warnings, "warning"))
}
