//! `throughway doctor` against real servers: faults that are planted, each in a network namespace of its own, and none.
//!
//! There the well-known ports are free, and an address of the Internet's is this machine's; nothing leaves it.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sched::CloneFlags;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::Server;
use crate::support::program;

/// What stands for this machine's public address, and what for another's.
const HERE: &str = "9.9.9.9";
const ELSEWHERE: &str = "8.8.8.8";
const HERE_IN_IPV6: &str = "2620:fe::fe";

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A server as `init` would have it, with a certificate that an authority of the test's vouches for.
struct Stage {
    home: TempDir,
    toml: String,
}

impl Stage {
    /// Runs `test` where it is alone; without the right to, it is skipped.
    fn alone(test: impl FnOnce(Self) + Send + 'static) {
        let thread = std::thread::spawn(move || {
            if let Err(error) = nix::sched::unshare(CloneFlags::CLONE_NEWNET) {
                return eprintln!("skipped, it takes CAP_SYS_ADMIN to make a network of one's own: {error}");
            }
            for link in [
                vec!["link", "set", "lo", "up"],
                vec!["address", "add", HERE, "dev", "lo"],
                vec!["address", "add", HERE_IN_IPV6, "dev", "lo", "nodad"],
            ] {
                assert!(Command::new("ip").args(&link).status().unwrap().success(), "{link:?}");
            }
            test(Self::new());
        });
        thread.join().unwrap();
    }

    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("state")).unwrap();
        let at = |name: &str| home.path().join(name);
        let toml = format!(
            "public_host = 'calls.test'\n\
             [http]\nlisten = ['0.0.0.0:8443']\nplain_listen = ['127.0.0.1:8080']\n\
             [tls]\nmode = 'files'\ncertificate = {:?}\nkey = {:?}\n\
             [turn]\nlisten_udp = ['0.0.0.0:3478']\nlisten_tcp = ['0.0.0.0:3478']\nlisten_tls = ['0.0.0.0:5349']\n\
             relay_ports = '20000-29999'\nsecrets = ['{SECRET}']\n\
             [signaling.accounts]\nmode = 'token'\ntoken = '{SECRET}'\n\
             [control]\nsocket = {:?}\n",
            at("certificate.pem"),
            at("key.pem"),
            at("control.sock"),
        );
        let stage = Self { home, toml };
        stage.certify("calls.test", 0..90);
        stage
    }

    /// Makes a certificate that is good for these days from now.
    fn certify(&self, name: &str, days: std::ops::Range<i64>) {
        let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "the test's authority");
        let root = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let now = rcgen::date_time_ymd(1970, 1, 1) + throughway::clock::Clock::system().now().unix;
        let day = Duration::from_secs(86_400);
        let at = |days: i64| match u32::try_from(days) {
            Ok(ahead) => now + day * ahead,
            Err(_) => now - day * u32::try_from(-days).unwrap(),
        };
        (params.not_before, params.not_after) = (at(days.start), at(days.end));
        let certificate = params.signed_by(&key, &issuer).unwrap();
        for (file, pem) in
            [("authority.pem", root.pem()), ("certificate.pem", certificate.pem()), ("key.pem", key.serialize_pem())]
        {
            std::fs::write(self.home.path().join(file), pem).unwrap();
        }
    }

    fn start(&self) -> Server {
        Server::start_in(self.home.path(), &self.toml)
    }

    /// `doctor` as a command that knows where the name leads and whom to trust, before anything else.
    fn doctor(&self, more: &[&str]) -> Command {
        let mut command = program();
        command.arg("doctor").arg("--json").args(more).env("SSL_CERT_FILE", self.home.path().join("authority.pem"));
        command.arg("--config").arg(self.home.path().join("throughway.toml"));
        if !more.contains(&"--resolve") {
            command.args(["--resolve", "calls.test=9.9.9.9"]);
        }
        command
    }

    /// What it finds with the configuration as it stands, and the exit code.
    fn findings(&self, more: &[&str]) -> Findings {
        Findings::of(self.doctor(more))
    }
}

struct Findings {
    all: Value,
    code: Option<i32>,
}

impl Findings {
    fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let all = serde_json::from_str(&text);
        let all = all.unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        Self { all, code: output.status.code() }
    }

    fn list(&self) -> impl Iterator<Item = &Value> {
        self.all["findings"].as_array().unwrap().iter()
    }

    /// There is this fault, with this in what was found and in the cure, and the exit code says so.
    fn have(&self, check: &str, found: &str, cure: &str) {
        let has = |finding: &&Value, key: &str, text: &str| finding[key].as_str().unwrap().contains(text);
        let mut faults = self.list().filter(|finding| finding["level"] == "fault" && finding["check"] == check);
        assert!(
            faults.any(|fault| has(&fault, "found", found) && has(&fault, "cure", cure)),
            "no {check} with {found:?} and {cure:?} in {:#}",
            self.all
        );
        assert_eq!(self.code, Some(3));
    }

    /// This could not be looked at, and it is said why.
    fn leave_out(&self, check: &str, why: &str) {
        let mut skipped = self.list().filter(|one| one["level"] == "skip" && one["check"] == check);
        assert!(
            skipped.any(|one| one["found"].as_str().unwrap().contains(why)),
            "{why:?} is missing in {:#}",
            self.all
        );
    }

    /// No other check than these has a fault.
    fn blame_only(&self, checks: &[&str]) {
        let others: Vec<_> = self
            .list()
            .filter(|one| one["level"] == "fault" && !checks.contains(&one["check"].as_str().unwrap()))
            .collect();
        assert!(others.is_empty(), "{others:#?}");
    }
}

fn nft(rules: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{rules}");
}

#[test]
fn a_healthy_server_passes_from_its_machine_and_from_outside() {
    Stage::alone(|stage| {
        let _server = stage.start();

        let inside = stage.findings(&[]);
        let outside = stage.findings(&["https://calls.test:8443", "--token", SECRET]);

        for (findings, checks) in [
            (
                &inside,
                [
                    "control",
                    "listener",
                    "dns",
                    "certificate",
                    "websocket",
                    "relay",
                    "external_ip",
                    "relay_ports",
                    "files",
                ]
                .as_slice(),
            ),
            (&outside, &["dns", "certificate", "server", "clock", "websocket", "relay", "external_ip"]),
        ] {
            assert_eq!(findings.code, Some(0), "{:#}", findings.all);
            for check in checks {
                let mut levels =
                    findings.list().filter(|one| one["check"] == *check).map(|one| &one["level"]).peekable();
                assert!(levels.peek().is_some() && levels.all(|level| level == "ok"), "{check}: {:#}", findings.all);
            }
        }
        let over: Vec<_> = inside
            .list()
            .filter(|one| one["check"] == "relay")
            .map(|one| one["found"].as_str().unwrap()[5..8].to_owned())
            .collect();
        assert_eq!(over, ["udp", "tcp", "tls"]);
    });
}

#[test]
fn a_wrong_external_address_is_found() {
    Stage::alone(|mut stage| {
        stage.toml = stage.toml.replace("[turn]\n", &format!("[turn]\nexternal_ip = ['{ELSEWHERE}']\n"));
        let _server = stage.start();

        let findings = stage.findings(&[]);

        findings.have("external_ip", "advertised as 8.8.8.8, and public_host leads to 9.9.9.9", "turn.external_ip");
        findings.blame_only(&["external_ip"]);
    });
}

#[test]
fn a_name_that_leads_elsewhere_is_found() {
    Stage::alone(|stage| {
        let _server = stage.start();

        let findings = stage.findings(&["--resolve", "calls.test=8.8.8.8"]);

        findings.have("dns", "leads to 8.8.8.8", "DNS record name 9.9.9.9");
        findings.blame_only(&["dns"]);
    });
}

#[test]
fn ports_that_a_firewall_closes_are_found() {
    Stage::alone(|stage| {
        let _server = stage.start();
        nft("table inet t { chain input { type filter hook input priority 0; \
             tcp dport 5349 reject with tcp reset; udp dport 20000-29999 drop; }\n}\n");

        let findings = stage.findings(&[]);

        findings.have("listener", "tls 9.9.9.9:5349 (turn.listen_tls): Connection refused", "firewall");
        findings.have("firewall", "drops tcp 5349", "tcp dport 5349 accept");
        findings.have("firewall", "drops udp 20000-29999", "udp dport 20000-29999 accept");
        findings.have("relay_ports", "data sent there doesn't arrive", "open udp 20000-29999");
        findings.blame_only(&["listener", "firewall", "relay_ports"]);
    });
}

#[test]
fn an_expired_certificate_and_one_for_another_name_are_found() {
    Stage::alone(|stage| {
        stage.certify("calls.test", -30..-3);
        let server = stage.start();
        let expired = stage.findings(&[]);
        drop(server);
        stage.certify("other.test", 0..90);
        let _server = stage.start();

        let other = stage.findings(&[]);

        expired.have("certificate", "it expired 3 days ago", "tls.certificate");
        expired.blame_only(&["certificate"]);
        other.have("certificate", "it is for other.test, not for calls.test", "get one for calls.test");
        other.blame_only(&["certificate"]);
    });
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_found() {
    Stage::alone(|stage| {
        let _server = stage.start();
        let other = Stage::new();
        let mut doctor = stage.doctor(&["https://calls.test:8443", "--token", SECRET]);

        doctor.env("SSL_CERT_FILE", other.home.path().join("authority.pem"));
        let findings = Findings::of(doctor);

        findings.have("certificate", "no authority that this machine trusts", "whole chain");
        findings.leave_out("relay", "--token is kept back, for the certificate can't be trusted");
    });
}

#[test]
fn another_secret_than_the_running_servers_is_found() {
    Stage::alone(|stage| {
        let _server = stage.start();
        let mut doctor = stage.doctor(&[]);

        doctor.env("THROUGHWAY__TURN__SECRETS", "['fedcba9876543210fedcba9876543210']");
        let findings = Findings::of(doctor);

        findings.have("relay", "over udp", "throughway reload");
        findings.blame_only(&["relay"]);
    });
}

#[test]
fn half_of_ipv6_is_found() {
    Stage::alone(|stage| {
        let _server = stage.start();

        let findings = stage.findings(&["--resolve", "calls.test=9.9.9.9", "--resolve", "calls.test=2620:fe::fe"]);

        findings.have("ipv6", "no listener is bound to IPv6", "AAAA");
        findings.blame_only(&["ipv6"]);
    });
}

#[test]
fn small_buffers_are_found() {
    Stage::alone(|stage| {
        let _server = stage.start();
        let small = stage.home.path().join("rmem_max");
        std::fs::write(&small, "16384\n").unwrap();
        let inner = stage.doctor(&[]);

        // The kernel's own limit is the whole machine's: another stands over it, for doctor alone.
        let mut outer = Command::new("unshare");
        outer.args(["-m", "sh", "-c", "mount --bind \"$0\" /proc/sys/net/core/rmem_max && exec \"$@\""]).arg(&small);
        outer.arg(inner.get_program()).args(inner.get_args());
        outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let findings = Findings::of(outer);

        findings.have("buffers", "sockets get 16 KiB to receive", "net.core.rmem_max=1048576");
        findings.blame_only(&["buffers"]);
    });
}

#[test]
fn a_low_limit_of_open_files_is_found_in_the_running_server() {
    Stage::alone(|stage| {
        let server = stage.start();
        let pid = server.pid().to_string();
        assert!(Command::new("prlimit").args(["--pid", &pid, "--nofile=256:256"]).status().unwrap().success());

        let findings = stage.findings(&[]);

        findings.have("files", "the server may open 256 files", "LimitNOFILE");
        findings.blame_only(&["files"]);
    });
}

#[test]
fn a_state_directory_that_is_none_is_found() {
    Stage::alone(|stage| {
        let _server = stage.start();
        let mut doctor = stage.doctor(&[]);

        doctor.env("STATE_DIRECTORY", stage.home.path().join("nowhere"));
        let findings = Findings::of(doctor);

        findings.have("state", "nowhere: No such file", "STATE_DIRECTORY");
        findings.blame_only(&["state"]);
    });
}

#[test]
fn a_key_that_cannot_be_used_and_a_server_that_is_down_are_found() {
    Stage::alone(|stage| {
        std::fs::write(stage.home.path().join("throughway.toml"), &stage.toml).unwrap();
        std::fs::write(stage.home.path().join("key.pem"), "nonsense").unwrap();

        let findings = stage.findings(&[]);

        findings.have("tls_files", "tls.key: ", "PEM");
        findings.have("server", "nothing answers on any port", "systemctl start throughway");
        findings.have("control", "nobody answers at", "start the server");
        let outside = stage.findings(&["https://calls.test:8443"]);
        outside.have("server", "Connection refused", "systemctl start throughway");
    });
}

#[test]
fn a_proxy_that_drops_upgrades_is_found() {
    Stage::alone(|stage| {
        let _server = stage.start();
        let proxy = TcpListener::bind("9.9.9.9:80").unwrap();
        std::thread::spawn(move || {
            for client in proxy.incoming() {
                std::thread::spawn(move || drop_upgrade(client.unwrap()));
            }
        });

        let findings = stage.findings(&["http://calls.test", "--token", SECRET]);

        findings.have("websocket", "a proxy in between drops it", "proxy_set_header Upgrade");
        findings.leave_out("relay", "--token is kept back, for http: sends it in clear");
        findings.blame_only(&["websocket"]);
    });
}

/// Passes one request on to the server, but for what asks for an upgrade, as a proxy does that wasn't told otherwise.
fn drop_upgrade(mut client: TcpStream) {
    let mut request = Vec::new();
    let mut byte = [0; 1];
    while !request.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap() == 0 {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let is_hop =
        |line: &&str| ["upgrade:", "connection:"].iter().any(|name| line.to_ascii_lowercase().starts_with(name));
    let passed: String =
        request.trim_end().lines().filter(|line| !is_hop(line)).map(|line| format!("{line}\r\n")).collect();
    let mut server = TcpStream::connect("127.0.0.1:8080").unwrap();
    server.write_all(format!("{passed}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).unwrap();
    // Who asked may have gone.
    let _ = client.write_all(&answer);
}

#[test]
fn a_wrong_clock_is_found() {
    Stage::alone(|stage| {
        std::fs::write(stage.home.path().join("throughway.toml"), &stage.toml).unwrap();
        let wrong = TcpListener::bind("9.9.9.9:80").unwrap();
        std::thread::spawn(move || {
            for client in wrong.incoming() {
                let mut client = client.unwrap();
                let mut request = [0; 1024];
                let _ = client.read(&mut request);
                let _ = client.write_all(
                    b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n",
                );
            }
        });

        let findings = stage.findings(&["http://calls.test"]);

        findings.have("clock", "ahead of that of calls.test", "timedatectl set-ntp true");
    });
}

#[test]
fn people_get_a_line_each_without_colours_in_a_file_and_a_count() {
    Stage::alone(|stage| {
        let _server = stage.start();
        let mut doctor = program();
        doctor.arg("doctor").arg("--config").arg(stage.home.path().join("throughway.toml"));
        doctor.args(["--resolve", "calls.test=8.8.8.8"]).env("SSL_CERT_FILE", stage.home.path().join("authority.pem"));

        let output = doctor.output().unwrap();

        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.lines().any(|line| line.starts_with("fault dns ")), "{text}");
        assert!(text.lines().any(|line| line.trim_start().starts_with("cure: ")), "{text}");
        assert!(!text.contains('\x1b') && text.contains("1 fault, "), "{text}");
        assert!(Path::new(&stage.home.path().join("control.sock")).exists());
    });
}
