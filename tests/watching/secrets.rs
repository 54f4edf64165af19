//! Secrets: the real binary at its most talkative, and none of them in anything it says.

use std::fmt::Debug;
use std::fmt::Write;
use std::process::Output;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nix::sys::signal::Signal;
use ring::hmac;
use serde_json::Value;
use serde_json::json;
use throughway::clock::Clock;
use throughway::config::Config;
use throughway::credentials;
use throughway::gateway::json::Dialect;
use throughway::signaling::accounts;
use throughway::signaling::ice;
use throughway::signaling::message;
use throughway::signaling::secret;
use throughway::signaling::session;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::UnixStream;

use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::client::Client;
use crate::support::line::Line;
use crate::support::program;

const SHARED: &str = "hush-shared-north-2fd1";
const OLDER: &str = "hush-shared-older-9c41";
const PASSWORD: &str = "hush-password-of-alice";
const ADMIN: &str = "hush-admin-token-77aa01";
const TOKEN: &str = "hush-sign-in-token-55bb";
const JWT: &str = "hush-jwt-secret-0123456789abcdef0123456789";
const WEBHOOK: &str = "hush-webhook-bearer-31cc";
const PATH: &str = "hush-webhook-path-8e2a";
const ELSEWHERE: &str = "hush-credential-elsewhere";
/// What a client says that has no right to anything.
const WRONG: &str = "hush-a-wrong-token-0007";

/// All that starts with this is a secret, so that no part of one is overlooked either.
const MARK: &str = "hush-";

/// How who signs in proves that it may.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Token,
    Jwt,
    Webhook,
}

impl Mode {
    /// A configuration with a secret in every key that takes one.
    fn config(self, webhook: std::net::SocketAddr) -> String {
        let mode = match self {
            Self::Token => "token",
            Self::Jwt => "jwt",
            Self::Webhook => "webhook",
        };
        let own = PEERS_ON_LOOPBACK
            .replace("wonderland", PASSWORD)
            .replace("[\"north\"]", &format!("[\"{SHARED}\", \"{OLDER}\"]"));
        let (accounts, of_mode) = match self {
            Self::Token => (format!("token = \"{TOKEN}\"\n"), String::new()),
            Self::Jwt => (String::new(), format!("[signaling.accounts.jwt]\nsecret = \"{JWT}\"\n")),
            Self::Webhook => {
                let url = format!("url = \"http://{webhook}/{PATH}\"");
                (String::new(), format!("[signaling.accounts.webhook]\n{url}\nsecret = \"{WEBHOOK}\"\n"))
            }
        };
        format!(
            "{own}[signaling.accounts]\nmode = \"{mode}\"\n{accounts}{of_mode}\
             [admin]\ntoken = \"{ADMIN}\"\n[log]\nlevel = \"trace\"\n"
        )
    }

    /// What a client shows who may sign in.
    fn proof(self) -> String {
        match self {
            Self::Token => TOKEN.to_owned(),
            Self::Jwt => signed("alice"),
            Self::Webhook => "hush-webhook-visitor".to_owned(),
        }
    }
}

/// A token of an hour for `sub`.
fn signed(sub: &str) -> String {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let expiry = Clock::system().now().unix.as_secs() + 3600;
    let text = format!("{}.{}", part(json!({ "alg": "HS256" })), part(json!({ "sub": sub, "exp": expiry })));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, JWT.as_bytes()), text.as_bytes());
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

/// A web service that lets in whoever doesn't come with the wrong token, and hands out a credential of its own.
async fn service() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"}") && stream.read_buf(&mut request).await.unwrap() > 0 {}
            let allow = !String::from_utf8_lossy(&request).contains(WRONG);
            let server = json!({ "urls": "turn:elsewhere.example", "username": "u", "credential": ELSEWHERE });
            let body = json!({ "allow": allow, "name": "alice", "iceServers": [server] }).to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    addr
}

/// Does what clients and operators do with secrets; with those that came about by it.
async fn use_all(server: &Server, mode: Mode) -> Vec<String> {
    let mut secrets = vec![mode.proof()];
    let path = |token: &str| format!("/ws?token={token}");
    let mut client = Client::connect(server.http(), &path(&mode.proof())).await;
    client.send(&json!({ "type": "login", "v": 2, "name": "alice" })).await;
    let reply = client.hear().await;
    assert_eq!(reply["success"], true, "{reply}");
    let resume = reply["resume"].as_str().unwrap().to_owned();
    let mut wrong = Client::connect(server.http(), &path(WRONG)).await;
    assert_eq!(wrong.log_in("mallory").await["success"], false);
    drop(client);
    let mut back = Client::connect(server.http(), &path(&mode.proof())).await;
    back.send(&json!({ "type": "login", "v": 2, "name": "alice", "resume": resume, "seq": 0 })).await;
    let resumed = back.hear().await;
    let bearer = format!("Authorization: Bearer {}\r\n", mode.proof());
    let (code, _, body) = server.ask("GET /ice", &bearer, "").await;
    assert_eq!(code, 200, "{body}");
    assert_ne!(server.ask(&format!("GET /ice?token={WRONG}"), "", "").await.0, 200);
    let elsewhere: Value = serde_json::from_str(&body).unwrap();
    for servers in [&reply["iceServers"], &resumed["iceServers"], &elsewhere] {
        for server in servers.as_array().into_iter().flatten() {
            secrets.extend(server["credential"].as_str().map(str::to_owned));
        }
    }
    secrets.push(resume);
    assert!(secrets.len() > 3, "{secrets:?}");
    let minted = &reply["iceServers"][1];
    relay(server, minted["username"].as_str().unwrap(), minted["credential"].as_str().unwrap()).await;
    secrets.extend(relay(server, "alice", PASSWORD).await);
    command(server).await;
    secrets
}

/// Allocates by every transport, and fails to with a wrong password; the keys that prove the right one.
async fn relay(server: &Server, user: &str, password: &str) -> Vec<String> {
    let lines = [
        Line::udp(server.udp()).await,
        Line::stream(server.turn_tcp(), None).await,
        Line::stream(server.turn_tls(), Some(&server.tls())).await,
    ];
    let mut keys = Vec::new();
    for line in lines {
        let asker = Asker::over(line, user, password).await;
        let key = asker.key().0;
        let hex = key.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        // As bytes are put in Rust's own way, too.
        keys.extend([hex, BASE64_STANDARD.encode(&key), format!("{key:?}")]);
        asker.allocate().await;
        assert_eq!(asker.refresh(0).await, 0);
    }
    let wrong = Asker::new(server.udp(), user, "hush-not-the-password").await;
    assert_eq!(wrong.code_of(ALLOCATE, &[UDP]).await, 401);
    keys
}

/// Commands of an operator, with the right token and a wrong one.
async fn command(server: &Server) {
    for (token, code) in [(ADMIN, 200), (WRONG, 401)] {
        let token = format!("Authorization: Bearer {token}\r\n");
        for list in ["members", "rooms", "allocations", "status"] {
            assert_eq!(server.ask(&format!("GET /admin/{list}"), &token, "").await.0, code, "{list}");
        }
    }
}

/// What an operator does at the machine itself, with a file that is broken, with one that has another secret and when that
/// is in force: has it read again by the signal and through the control socket, and runs each command that reads it. All
/// that is answered, with what it answers.
async fn operate(server: &Server) -> Vec<(String, String)> {
    let file = server.home().join("throughway.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let mut said = Vec::new();
    for (toml, logged) in [
        (format!("{good}[turn.peers]\n[nowhere]\nsecret = [\"hush-broken-6e1d\""), "the configuration stays as it was"),
        (good.replace(OLDER, "hush-newer-5b70"), "the configuration was read again"),
    ] {
        std::fs::write(&file, toml).unwrap();
        server.signal(Signal::SIGHUP);
        server.logs(logged).await;
        for request in ["GET /status", "POST /reload"] {
            said.push((request.to_owned(), ask_control(server, request).await));
        }
        for command in ["check", "doctor", "status", "reload"] {
            for more in [&[][..], &["--json"]] {
                let mut process = program();
                process.arg(command).args(more).arg("--config").arg(&file);
                // What it asks may ask the web service of this test.
                let output = tokio::task::spawn_blocking(move || process.output().unwrap()).await.unwrap();
                let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
                assert!(!text.is_empty(), "{command} says nothing");
                said.push((format!("{command} {more:?}"), text));
            }
        }
    }
    said
}

/// Asks through the control socket, as `curl --unix-socket` does.
async fn ask_control(server: &Server, request: &str) -> String {
    let mut stream = UnixStream::connect(server.home().join("control.sock")).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 409 "), "{answer}");
    answer
}

#[tokio::test]
async fn no_secret_is_in_the_log_on_stdout_or_in_anything_that_is_served() {
    let webhook = service().await;
    for mode in [Mode::Token, Mode::Jwt, Mode::Webhook] {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("control.sock");
        let control = format!("[control]\nsocket = {socket:?}\n");
        let server = Server::start_in(home.path(), &format!("{}{control}", mode.config(webhook)));
        let secrets = use_all(&server, mode).await;
        let said = operate(&server).await;

        let metrics = server.metrics().await;
        let (_, head, health) = server.ask("GET /healthz", "", "").await;
        let (banner, log) = (server.banner().to_owned(), server.end());

        assert!(log.contains("TRACE") && log.contains("DEBUG"), "the log tells nothing");
        let said = said.iter().map(|(name, said)| (name.as_str(), said));
        let served = [("/metrics", &metrics), ("/healthz", &health), ("its header", &head)];
        for (name, said) in said.chain(served).chain([("log", &log), ("stdout", &banner)]) {
            let found = secrets.iter().map(String::as_str).chain([MARK]).find(|secret| said.contains(secret));
            let line = found.and_then(|secret| said.lines().find(|line| line.contains(secret)));
            assert_eq!(line, None, "{mode:?}: {name} has {found:?}");
        }
    }
}

/// Where nothing can listen: a configuration that is taken after all doesn't have it run for ever.
const NOWHERE: (&str, &str) = ("THROUGHWAY__HTTP__LISTEN", "['192.0.2.1:1']");

/// Runs the program to its end, with what it is told besides in its environment.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let environment = environment.iter().copied().chain([NOWHERE]);
    program().args(arguments).envs(environment).output().unwrap()
}

#[test]
fn no_secret_is_in_help_or_in_an_error_of_the_configuration() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("throughway.toml");
    let file = file.to_str().unwrap();
    let variables = [("THROUGHWAY__ADMIN__TOKEN", ADMIN), ("THROUGHWAY__TURN__SECRETS", "hush-not-a-list")];
    let help = run(&["--help"], &variables);
    assert!(help.status.success());
    let mut said = vec![("--help".to_owned(), help)];

    for (toml, variables) in [
        ("", &variables[..]),
        ("[turn]\nsecrets = \"hush-no-list\"", &[]),
        ("[turn]\nsecrets = [[\"hush-a\"]]", &[]),
        ("[turn]\nsecrets = [\"hush-a\"\nusers = 5", &[]),
        ("[turn]\nusers = [\"hush-a\"]", &[]),
        ("[turn]\nusers = { alice = [\"hush-a\"] }", &[]),
        ("[turn]\nusers = { \"\" = \"hush-a\" }\nrealmm = \"x\"", &[]),
        ("[turn]\nice_servers = \"hush-a\"", &[]),
        ("[turn]\nice_servers = [{ urls = 7, credential = \"hush-a\" }]\nrealmm = \"x\"", &[]),
        ("[admin]\ntoken = \"hush with spaces\"", &[]),
        ("[admin]\ntoken = [\"hush-a\"]", &[]),
        ("[signaling.accounts]\nmode = \"token\"\ntoken = \"hush-short\"", &[]),
        ("[signaling.accounts.jwt]\nsecret = \"hush-short\"", &[]),
        ("[signaling.accounts]\nmode = \"jwt\"\n[signaling.accounts.jwt]\nsecret = \"hush-is-a-bit-too-short\"", &[]),
        ("[signaling.accounts.webhook]\nurl = \"ftp://hush-a\"\nsecret = \"hush-0123456789ab\"", &[]),
        ("[signaling.accounts.webhook]\nsecret = \"hush-0123456789\" x", &[]),
    ] {
        std::fs::write(file, toml).unwrap();
        let output = run(&["--config", file], variables);
        assert_eq!(output.status.code(), Some(2), "{toml}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("192.0.2.1"), "taken: {toml}");
        said.push((toml.to_owned(), output));
    }

    for (what, output) in said {
        let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!all.contains("hush"), "{what}:\n{all}");
    }
}

/// Fails to compile for a type that `{:?}` takes: a panic message shows what `expect` is called on, and a log line what it
/// is given.
macro_rules! shows_nothing {
    ($($secret:ty),* $(,)?) => {
        trait Ambiguous<Because> {
            fn shows_nothing() {}
        }
        impl<T: ?Sized> Ambiguous<()> for T {}
        impl<T: ?Sized + Debug> Ambiguous<((), ())> for T {}
        $(<$secret as Ambiguous<_>>::shows_nothing();)*
    };
}

#[test]
fn what_holds_a_secret_cannot_be_shown_or_hides_it() {
    shows_nothing!(
        credentials::Credentials,
        credentials::Settings,
        credentials::IceCredential,
        credentials::Claim,
        session::Sessions,
        session::Session,
        session::Visitor,
        session::Ice,
        ice::Served,
        accounts::Accounts,
        accounts::Proof,
        accounts::Asking<'static>,
        accounts::jwt::Verifier,
        accounts::webhook::Webhook,
        throughway::web::admin::State,
    );
    let of_mode = [
        format!("[signaling.accounts]\nmode = \"token\"\ntoken = \"{TOKEN}\"\n"),
        format!("[signaling.accounts]\nmode = \"jwt\"\n[signaling.accounts.jwt]\nsecret = \"{JWT}\"\n"),
        format!(
            "[signaling.accounts]\nmode = \"webhook\"\n[signaling.accounts.webhook]\n\
             url = \"https://a.example/{PATH}\"\nsecret = \"{WEBHOOK}\"\n"
        ),
    ];
    let configs = of_mode.map(|accounts| read(&accounts));
    let ice_servers = vec![json!({ "urls": "turn:a.example", "credential": ELSEWHERE })];
    let account = accounts::Account { name: None, ice_servers };
    let (secret, token) = (secret::Secret::new(), secret::Token::of(TOKEN));

    let shown = [
        format!("{configs:?}"),
        format!("{account:?}"),
        format!("{:?}", message::Message::Answer(format!("the answer is {ELSEWHERE}").into())),
        format!("{:?}", message::Message::Notice(secret.reveal().into())),
        format!("{secret:?} {token:?}"),
    ];

    assert!(shown[0].contains("turn:a.example"), "{}", shown[0]);
    for shown in shown {
        assert!(!shown.contains(MARK) && !shown.contains(&secret.reveal()), "{shown}");
    }
    let written = serde_json::to_string(&configs).unwrap();
    assert!(!written.replace(PATH, "").contains(MARK), "{written}");
    // Of a dialect nothing is hidden: what shows everything is found out.
    assert_eq!(format!("{:?}", Dialect::Objects), "Objects");
}

/// A configuration with secrets, and with these of its accounts.
fn read(accounts: &str) -> Config {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("throughway.toml");
    let turn = format!(
        "[turn]\nsecrets = [\"{SHARED}\"]\nusers = {{ alice = \"{PASSWORD}\" }}\n\
         ice_servers = [{{ urls = \"turn:a.example\", username = \"u\", credential = \"{ELSEWHERE}\" }}]\n"
    );
    std::fs::write(&file, format!("{turn}[admin]\ntoken = \"{ADMIN}\"\n{accounts}")).unwrap();
    Config::load(Some(&file), std::iter::empty()).unwrap()
}
