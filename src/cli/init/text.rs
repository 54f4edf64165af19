//! What `init` writes, and what it says afterwards.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use super::Facts;
use super::Plan;
use crate::address::host_in_url;
use crate::config::Config;
use crate::config::value::TlsMode;
use crate::credentials::random;

/// The configuration: what differs from the defaults, each with a line that says why, and fresh secrets.
pub(super) fn configuration(plan: &Plan) -> String {
    let Plan { domain, email, mode, token, pair, https_port, http_port, external_ip, socket } = plan;
    let mut text = HEADER.to_owned();
    let mut add = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    if !domain.is_empty() {
        add("\n# The name that clients reach this server by.");
        add(&format!("public_host = {}", quoted(domain)));
    }
    add("\n[http]");
    match http_port {
        Some(port) => {
            add(
                "# Pages, signaling and turns; the second port leads browsers to https, and proves the domain to the authority.",
            );
            add(&format!("listen = [\"[::]:{https_port}\", \"[::]:{port}\"]"));
        }
        None => {
            add("# Pages, signaling and turns, on one port.");
            add(&format!("listen = [\"[::]:{https_port}\"]"));
        }
    }
    if !domain.is_empty() {
        add("# Nobody signs in without TLS.");
        add("plain_listen = []");
    }
    add("\n[tls]");
    match (mode, pair) {
        (TlsMode::Acme, _) => {
            add("# Got from the certificate authority (Let's Encrypt), and renewed by itself.");
            add("mode = \"acme\"");
            let email = email.as_str();
            if !email.is_empty() {
                add("\n[tls.acme]");
                add("# Where the authority may write to.");
                add(&format!("email = {}", quoted(email)));
            }
        }
        (TlsMode::Files, Some((certificate, key))) => {
            add("# Yours.");
            add("mode = \"files\"");
            add(&format!("certificate = {}", quoted(&certificate.display().to_string())));
            add(&format!("key = {}", quoted(&key.display().to_string())));
        }
        (TlsMode::Files | TlsMode::SelfSigned, _) => {
            add("# Made here: browsers warn of it once. With a domain, \"acme\" gets one that they trust.");
            add("mode = \"self-signed\"");
        }
    }
    add("\n[turn]");
    add("# The second shares the web port's number, for firewalls that let one number through.");
    add(&format!("listen_udp = [\"[::]:3478\", \"[::]:{https_port}\"]"));
    if !external_ip.is_empty() {
        let entries: Vec<_> = external_ip.iter().map(|entry| quoted(&entry.to_string())).collect();
        add("# The public address, and the local one that it stands for (1:1 NAT).");
        add(&format!("external_ip = [{}]", entries.join(", ")));
    }
    add(
        "# Signs credentials; share it with a back end that hands them out. It is fresh, so keep it: a new one ends them all.",
    );
    add(&format!("secrets = [\"{}\"]", fresh::<32>()));
    if let Some(token) = token {
        add("\n[signaling.accounts]");
        add(
            "# Who shows it may sign in and relay: ?token= in a page's address, \"token\" in a login. \"open\" lets in anyone.",
        );
        add("mode = \"token\"");
        add(&format!("token = {}", quoted(token)));
    }
    add("\n[admin]");
    add("# Who sends it may see and command the server at /admin. Empty: nobody.");
    add(&format!("token = \"{}\"", fresh::<32>()));
    add("\n[control]");
    add("# For `throughway status`, `reload` and `doctor`.");
    add(&format!("socket = {}", quoted(&socket.display().to_string())));
    add("\n[metrics]");
    add("# For Prometheus on this machine.");
    add("listen = [\"127.0.0.1:9464\"]");
    text
}

const HEADER: &str = "\
# Throughway's configuration, written by `throughway init`: what differs from the defaults, and why.
#
# Every key with its default is explained in /usr/share/doc/throughway/throughway.toml (config/throughway.toml in the
# sources). After a change: `throughway check` tells whether it is good, `throughway reload` puts it to work.
";

/// `N` random bytes, as letters and digits.
pub(super) fn fresh<const N: usize>() -> String {
    random::<N>().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// As TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// What is left to do, in plain words.
pub(super) fn next_steps(file: &Path, plan: &Plan, facts: &Facts, is_installed: bool) -> String {
    let mut steps = Vec::new();
    if !plan.domain.is_empty() {
        steps.push(domain(plan, facts));
    } else if plan.external_ip.is_empty() && facts.public().is_empty() {
        steps.push(
            "This machine has no public address of its own. For clients from the Internet, set external_ip in [turn].\n"
                .to_owned(),
        );
    }
    steps.push(ports(plan));
    steps.push(if is_installed {
        "Start it, now and at each boot:\n         systemctl enable --now throughway\n".to_owned()
    } else {
        format!("Start it:\n         throughway --config {}\n", file.display())
    });
    let config = if is_installed { String::new() } else { format!(" --config {}", file.display()) };
    steps.push(format!("See whether all is well:\n         throughway doctor{config}\n"));
    let mut text = format!("Wrote {}, with fresh secrets.\n\nNext\n", file.display());
    for (number, step) in steps.iter().enumerate() {
        let _ = write!(text, "    {}. {step}", number + 1);
    }
    match &plan.token {
        Some(token) => {
            let port = if plan.https_port == 443 { String::new() } else { format!(":{}", plan.https_port) };
            let host = host_in_url(&plan.domain);
            let _ = write!(
                text,
                "\nWho has this address may sign in and relay; [signaling.accounts] is about that:\n\n    "
            );
            let _ = writeln!(text, "https://{host}{port}/call?token={token}");
        }
        None => {
            text.push_str(
                "\nAnyone who reaches the server may sign in and relay: [signaling.accounts] is about that.\n",
            );
        }
    }
    text
}

fn domain(plan: &Plan, facts: &Facts) -> String {
    let (name, elsewhere) = (&plan.domain, facts.elsewhere(&plan.external_ip));
    let external: Vec<_> = plan.external_ip.iter().map(|entry| entry.external).collect();
    let wanted = if external.is_empty() { facts.public() } else { external };
    let wanted = if wanted.is_empty() { "this machine's public address".to_owned() } else { list(&wanted) };
    if facts.resolved.is_empty() {
        format!("Give {name} an address: its DNS record must name {wanted}.\n")
    } else if elsewhere.is_empty() {
        format!("{name} leads here already: {}.\n", list(&facts.resolved))
    } else {
        format!("{name} leads to {}: its DNS record must name {wanted}.\n", list(&elsewhere))
    }
}

fn list(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn ports(plan: &Plan) -> String {
    let relay = Config::default().turn.relay_ports;
    let https = plan.https_port;
    let http = plan.http_port.map(|port| format!("{port}, ")).unwrap_or_default();
    format!(
        "Open these ports, in your provider's firewall too:\n         tcp {http}{https}, 3478, 5349\n         \
         udp {https}, 3478, {relay}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::config::value::AccountMode;

    use super::*;

    fn plan() -> Plan {
        Plan {
            domain: "calls.example.org".to_owned(),
            email: "admin@example.org".parse().unwrap(),
            mode: TlsMode::Acme,
            token: Some("0123456789abcdef".to_owned()),
            pair: None,
            https_port: 443,
            http_port: Some(80),
            external_ip: vec!["9.9.9.9/10.0.0.4".parse().unwrap()],
            socket: PathBuf::from("/run/throughway/control.sock"),
        }
    }

    fn read(text: &str) -> Config {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("t.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), std::iter::empty()).unwrap()
    }

    #[test]
    fn every_plan_makes_a_configuration_that_says_what_was_planned() {
        let files = Some((PathBuf::from("/a \"b\".pem"), PathBuf::from("/k.pem")));
        let plans = [
            plan(),
            Plan { mode: TlsMode::Files, pair: files, ..plan() },
            Plan {
                domain: String::new(),
                mode: TlsMode::SelfSigned,
                token: None,
                http_port: None,
                https_port: 8443,
                ..plan()
            },
        ];

        for plan in plans {
            let config = read(&configuration(&plan));

            assert_eq!(config.public_host.as_str(), plan.domain);
            assert_eq!(config.tls.mode, plan.mode);
            assert_eq!(config.turn.external_ip, plan.external_ip);
            assert_eq!(config.http.listen.first().unwrap().0.port(), plan.https_port);
            let email = if plan.mode == TlsMode::Acme { plan.email.as_str() } else { "" };
            assert_eq!(config.tls.acme.email.as_str(), email);
            assert_eq!(config.signaling.accounts.token.reveal(), plan.token.as_deref());
            assert_eq!(config.signaling.accounts.mode == AccountMode::Open, plan.token.is_none());
        }
    }

    #[test]
    fn secrets_are_long_and_never_the_same() {
        let (one, other) = (read(&configuration(&plan())), read(&configuration(&plan())));

        let secret = |config: &Config| config.turn.secrets[0].reveal().to_owned();
        let token = |config: &Config| config.admin.token.reveal().unwrap().to_owned();
        assert_eq!(secret(&one).len(), 64);
        for (a, b) in [(secret(&one), secret(&other)), (token(&one), token(&other)), (secret(&one), token(&one))] {
            assert_ne!(a, b);
        }
    }

    #[test]
    fn every_key_that_is_written_has_a_line_that_says_why() {
        let text = configuration(&plan());

        let mut explained = false;
        for line in text.lines() {
            assert!(line.len() <= 120, "{line}");
            match line.chars().next() {
                Some('#') => explained = true,
                Some('[') | None => explained = false,
                Some(_) => assert!(explained, "nothing explains {line:?}"),
            }
        }
    }

    #[test]
    fn the_next_steps_name_the_record_the_ports_and_the_commands() {
        let facts = |resolved: &[&str]| Facts {
            local: vec!["10.0.0.4".parse().unwrap()],
            routed: vec!["10.0.0.4".parse().unwrap()],
            resolved: resolved.iter().map(|ip| ip.parse().unwrap()).collect(),
            seen: None,
        };
        let steps = |resolved: &[&str], is_installed| {
            next_steps(Path::new("/x/t.toml"), &plan(), &facts(resolved), is_installed)
        };

        assert!(steps(&[], true).contains("calls.example.org an address: its DNS record must name 9.9.9.9."));
        assert!(steps(&["9.9.9.9"], true).contains("leads here already"));
        assert!(steps(&["8.8.8.8"], true).contains("leads to 8.8.8.8: its DNS record must name 9.9.9.9."));
        assert!(steps(&[], true).contains("https://calls.example.org/call?token=0123456789abcdef\n"));
        let by_hand = steps(&[], false);
        for text in ["tcp 80, 443, 3478, 5349", "udp 443, 3478, 49160-65535", "throughway doctor --config /x/t.toml"] {
            assert!(by_hand.contains(text), "{text} is missing in {by_hand}");
        }
        assert!(steps(&[], true).contains("systemctl enable --now throughway"));
    }
}
