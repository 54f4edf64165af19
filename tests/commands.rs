//! The commands beside `serve`, as an operator types them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use crate::support::Server;
use crate::support::program;

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn init(file: &Path, more: &[&str]) -> Output {
    run(&[&["init", "--config", file.to_str().unwrap(), "--yes"], more].concat())
}

#[test]
fn what_init_writes_passes_check_starts_and_is_never_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("throughway.toml");

    let written = init(&file, &["--domain", "localhost", "--tls", "self-signed"]);
    let again = init(&file, &["--domain", "localhost"]);
    let checked = run(&["check", "--config", file.to_str().unwrap()]);

    assert!(written.status.success(), "{}", text(&written.stderr));
    assert!(text(&written.stdout).contains("throughway doctor --config "), "{}", text(&written.stdout));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("exists and is left as it is"), "{}", text(&again.stderr));
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let toml = std::fs::read_to_string(&file).unwrap();
    let secret = toml.lines().find_map(|line| line.strip_prefix("secrets = [\"")?.strip_suffix("\"]")).unwrap();
    assert!(!text(&checked.stdout).contains(secret), "{}", text(&checked.stdout));
    // Other ports than the well-known ones, which a test can't count on.
    let moved = toml
        .replace("[::]:443", "127.0.0.1:0")
        .replace("[::]:80", "127.0.0.1:0")
        .replace("[::]:3478", "127.0.0.1:0")
        .replace("127.0.0.1:9464", "127.0.0.1:0")
        .replace("[turn]\n", "[turn]\nlisten_tcp = []\nlisten_tls = []\n");
    let server = Server::start_in(home.path(), &moved);
    assert_eq!(server.all_udp().len(), 2, "{}", server.banner());
}

#[test]
fn init_refuses_what_makes_no_configuration_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("throughway.toml");

    for (flags, why) in [
        (["--tls", "acme"].as_slice(), "--tls acme needs --domain"),
        (&["--tls", "files", "--domain", "a.org"], "--tls files needs --certificate and --key"),
        (&["--domain", "https://a.org"], "is not a host name"),
        (&["--https-port", "3478"], "already stands in"),
        (&["--external-ip", "a"], "is not an external address"),
        (&["--stun", "127.0.0.1:1"], "--stun 127.0.0.1:1: "),
        (&["--certificate", "c.pem"], "--key"),
    ] {
        let refused = init(&file, flags);

        assert_eq!(refused.status.code(), Some(2), "{flags:?}");
        assert!(text(&refused.stderr).contains(why), "{flags:?}: {}", text(&refused.stderr));
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

#[test]
fn init_asks_a_stun_server_only_when_told_to_and_takes_its_word_for_the_address() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(crate::support::DEFAULT_PEERS);
    let file = home.path().join("throughway.toml");

    let written = init(&file, &["--stun", &server.udp().to_string()]);

    assert!(written.status.success(), "{}", text(&written.stderr));
    // It sees this machine at an address of its own: nothing to translate.
    assert!(!std::fs::read_to_string(&file).unwrap().contains("external_ip"));
}

#[test]
fn check_says_what_is_in_force_and_where_from_for_people_and_programs() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("t.toml");
    std::fs::write(&file, "[turn]\nrealm = 'file'\n[log]\nlevel = 'debug'\n").unwrap();
    let check = |more: &[&str]| {
        program()
            .arg("check")
            .arg("--config")
            .arg(&file)
            .args(more)
            .env("THROUGHWAY__TURN__REALM", "b")
            .output()
            .unwrap()
    };

    let people = check(&[]);
    let programs: Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();

    let shown = text(&people.stdout);
    assert!(shown.contains("realm = \"b\" # THROUGHWAY__TURN__REALM\n"), "{shown}");
    assert!(shown.contains(&format!("level = \"debug\" # {}\n", file.display())), "{shown}");
    assert!(text(&people.stderr).contains("warning: signaling.accounts.mode: \"open\""), "{}", text(&people.stderr));
    assert_eq!(programs["configuration"]["turn"]["realm"], "b");
    assert_eq!(programs["origins"]["turn.realm"], "THROUGHWAY__TURN__REALM");
    assert!(!programs["warnings"].as_array().unwrap().is_empty());
    std::fs::write(&file, "[turn]\nrealmm = 'a'\n").unwrap();
    let bad = check(&[]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad.stderr).contains("turn.realmm: no such key"), "{}", text(&bad.stderr));
}

#[test]
fn check_refuses_the_files_that_no_server_starts_with() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("t.toml");
    let made = rcgen::generate_simple_self_signed(["a.org".to_owned()]).unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::write(at("c.pem"), made.cert.pem()).unwrap();
    std::fs::write(at("k.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(at("bad.json"), "{}").unwrap();
    let check = |toml: &str| {
        std::fs::write(&file, toml).unwrap();
        run(&["check", "--config", file.to_str().unwrap()])
    };
    let tls = |certificate: &str, key: &str| {
        check(&format!("[tls]\nmode = 'files'\ncertificate = {:?}\nkey = {:?}", at(certificate), at(key)))
    };
    let acme = |ca: &str| {
        check(&format!(
            "public_host = 'a.org'\n[tls]\nmode = 'acme'\nacme = {{ directory = 'https://b.org/d', ca = {:?} }}",
            at(ca)
        ))
    };
    let jwks = |name: &str| check(&format!("[signaling.accounts]\nmode = 'jwt'\njwt = {{ jwks = {:?} }}", at(name)));

    let good = tls("c.pem", "k.pem");
    let refused = [
        (tls("nowhere", "k.pem"), "tls.certificate: "),
        (tls("c.pem", "nowhere"), "tls.key: "),
        (tls("c.pem", "c.pem"), "there is no private key in it"),
        (acme("nowhere"), "tls.acme.ca: "),
        (acme("bad.json"), "tls.acme.ca: "),
        (jwks("nowhere"), "signaling.accounts.jwt.jwks: "),
        (jwks("bad.json"), "signaling.accounts.jwt.jwks: "),
    ];

    assert!(good.status.success(), "{}", text(&good.stderr));
    for (output, why) in refused {
        assert_eq!(output.status.code(), Some(2), "{why}");
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    }
}

#[test]
fn completions_and_the_man_page_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(&["completions", shell]).stdout);
        assert!(script.contains("throughway") && script.contains("credential"), "{shell}: {script}");
    }
    let page = text(&run(&["man"]).stdout);
    assert!(page.contains(".TH throughway 1") && page.contains("Exit codes"), "{page}");
}

#[test]
fn status_and_reload_end_with_4_without_a_server_and_with_2_without_a_socket() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("t.toml");
    let asked = |command: &str| run(&[command, "--config", file.to_str().unwrap()]);

    for (command, by_signal) in [("status", false), ("reload", true)] {
        std::fs::write(&file, "").unwrap();
        let none = asked(command);
        std::fs::write(&file, format!("[control]\nsocket = {:?}", home.path().join("c.sock"))).unwrap();
        let silent = asked(command);

        assert_eq!((none.status.code(), silent.status.code()), (Some(2), Some(4)), "{command}");
        assert!(text(&none.stderr).contains("control.socket is empty: name a path"), "{}", text(&none.stderr));
        assert_eq!(text(&none.stderr).contains("send its process SIGHUP"), by_signal, "{}", text(&none.stderr));
        assert!(text(&silent.stderr).contains("no server answers at "), "{}", text(&silent.stderr));
    }
}

#[test]
fn status_asks_the_running_server_and_its_socket_goes_with_it() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("c.sock");
    let server =
        Server::start_in(home.path(), &format!("{}[control]\nsocket = {socket:?}\n", crate::support::DEFAULT_PEERS));
    let file = home.path().join("throughway.toml");
    let asked = |more: &[&str]| run(&[&["status", "--config", file.to_str().unwrap()], more].concat());

    let people = text(&asked(&[]).stdout);
    let programs: Value = serde_json::from_slice(&asked(&["--json"]).stdout).unwrap();

    assert!(people.starts_with(&format!("server       {}, ready", env!("CARGO_PKG_VERSION"))), "{people}");
    assert_eq!(programs["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(server.terminate().0.success());
    assert!(!socket.exists());
}
