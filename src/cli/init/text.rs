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
    let tables = [name(plan), http(plan), tls(plan), turn(plan), accounts(plan), operators(plan)];
    format!("{HEADER}{}", tables.concat())
}

fn name(Plan { domain, .. }: &Plan) -> String {
    if domain.is_empty() {
        return String::new();
    }
    format!("\n# The name that clients reach this server by.\npublic_host = {}\n", quoted(domain))
}

fn http(Plan { domain, mode, https_port, http_port, .. }: &Plan) -> String {
    let mut text = "\n[http]\n".to_owned();
    // Writing to a String never fails.
    let _ = match http_port {
        Some(port) => {
            let proof = if *mode == TlsMode::Acme { ", and proves the domain to the authority" } else { "" };
            writeln!(
                text,
                "# Pages, signaling and turns; the second port leads browsers to https{proof}.\n\
                 listen = [\"[::]:{https_port}\", \"[::]:{port}\"]"
            )
        }
        None => writeln!(text, "# Pages, signaling and turns, on one port.\nlisten = [\"[::]:{https_port}\"]"),
    };
    if !domain.is_empty() {
        text.push_str("# Nobody signs in without TLS.\nplain_listen = []\n");
    }
    text
}

fn tls(Plan { mode, pair, email, .. }: &Plan) -> String {
    match (mode, pair) {
        (TlsMode::Acme, _) => {
            let mut text =
                "\n[tls]\n# Got from the certificate authority (Let's Encrypt), and renewed by itself.\nmode = \"acme\"\n"
                    .to_owned();
            let email = email.as_str();
            if !email.is_empty() {
                let _ = write!(text, "\n[tls.acme]\n# Where the authority may write to.\nemail = {}\n", quoted(email));
            }
            text
        }
        (TlsMode::Files, Some((certificate, key))) => format!(
            "\n[tls]\n# Yours.\nmode = \"files\"\ncertificate = {}\nkey = {}\n",
            quoted(&certificate.display().to_string()),
            quoted(&key.display().to_string())
        ),
        (TlsMode::Files | TlsMode::SelfSigned, _) => "\n[tls]\n\
            # Made here: browsers warn of it once. With a domain, \"acme\" gets one that they trust.\n\
            mode = \"self-signed\"\n"
            .to_owned(),
    }
}

fn turn(Plan { https_port, external_ip, .. }: &Plan) -> String {
    let mut text = format!(
        "\n[turn]\n\
         # The second shares the web port's number, for firewalls that let one number through.\n\
         listen_udp = [\"[::]:3478\", \"[::]:{https_port}\"]\n"
    );
    if !external_ip.is_empty() {
        let entries: Vec<_> = external_ip.iter().map(|entry| quoted(&entry.to_string())).collect();
        let _ = write!(
            text,
            "# The public address, and the local one that it stands for (1:1 NAT).\nexternal_ip = [{}]\n",
            entries.join(", ")
        );
    }
    let _ = write!(
        text,
        "# Signs credentials; share it with a back end that hands them out. It is fresh, so keep it: a new one ends them all.\n\
         secrets = [\"{}\"]\n",
        fresh::<32>()
    );
    text
}

fn accounts(Plan { token, .. }: &Plan) -> String {
    let Some(token) = token else { return String::new() };
    format!(
        "\n[signaling.accounts]\n\
         # Who shows it may sign in and relay: ?token= in a page's address, \"token\" in a login. \"open\" lets in anyone.\n\
         mode = \"token\"\ntoken = {}\n",
        quoted(token)
    )
}

/// What the operator alone uses.
fn operators(Plan { socket, .. }: &Plan) -> String {
    format!(
        "\n[admin]\n\
         # Who sends it may see and command the server at /admin. Empty: nobody.\n\
         token = \"{}\"\n\
         \n[control]\n\
         # For `throughway status`, `reload` and `doctor`.\n\
         socket = {}\n\
         \n[metrics]\n\
         # For Prometheus on this machine.\n\
         listen = [\"127.0.0.1:9464\"]\n",
        fresh::<32>(),
        quoted(&socket.display().to_string())
    )
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
    steps.extend(proof(plan));
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

/// How the authority gets to a server that listens on neither of the ports that it knows (RFC 8555, section 8.3; RFC 8737).
fn proof(plan: &Plan) -> Option<String> {
    let Plan { domain, mode, https_port, http_port, .. } = plan;
    if *mode != TlsMode::Acme || *https_port == 443 || *http_port == Some(80) {
        return None;
    }
    let http = http_port.unwrap_or(*https_port);
    Some(format!(
        "There is no certificate until the authority gets in by {domain}: have the world's port\n         \
         443 lead to {https_port} here (tls-alpn-01), or 80 to {http} (http-01)\n"
    ))
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
    fn the_second_port_proves_the_domain_to_an_authority_only_if_there_is_one() {
        let proves = |mode| configuration(&Plan { mode, ..plan() }).contains("proves the domain to the authority");

        assert!(proves(TlsMode::Acme));
        assert!(!proves(TlsMode::SelfSigned));
    }

    #[test]
    fn an_authority_that_finds_neither_of_its_ports_is_told_of() {
        let other = Plan { https_port: 8443, http_port: None, ..plan() };

        let told = proof(&other).unwrap();
        assert!(told.contains("443 lead to 8443 here (tls-alpn-01), or 80 to 8443 (http-01)"), "{told}");
        assert!(proof(&Plan { http_port: Some(8080), ..other }).unwrap().contains("or 80 to 8080 (http-01)"));
        for fine in [
            plan(),
            Plan { http_port: None, ..plan() },
            Plan { https_port: 8443, ..plan() },
            Plan { mode: TlsMode::SelfSigned, https_port: 8443, http_port: None, ..plan() },
        ] {
            assert_eq!(proof(&fine), None);
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
