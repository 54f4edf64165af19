//! Certificates by ACME, from a real test authority that really looks for its proofs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::Server;
use crate::support::client;
use crate::support::client::Client;
use crate::support::client::shown;
use crate::support::client::shown_other;
use crate::support::pebble::Looks;
use crate::support::pebble::Pebble;

const NAME: &str = "calls.example.org";
/// Where a server listens, on the authority's address.
const HTTPS: u16 = 5001;
const HTTP: u16 = 5002;
/// Where nobody listens.
const NOBODY: u16 = 5009;
const DAY: u64 = 24 * 3600;

/// A server that asks `pebble`, and proves its names by `challenges`.
fn config(pebble: &Pebble, challenges: &[&str]) -> String {
    let (ip, acme) = (pebble.ip, pebble.config());
    format!(
        "[http]\nlisten = [\"{ip}:{HTTPS}\"]\nplain_listen = [\"{ip}:{HTTP}\"]\n\
         [turn]\nlisten_udp = [\"{ip}:0\"]\nlisten_tcp = []\nlisten_tls = []\n\
         {acme}domains = [\"{NAME}\", \"www.example.org\"]\nemail = \"admin@example.org\"\nchallenges = {challenges:?}\n"
    )
}

async fn trusting(pebble: &Pebble) -> TlsConnector {
    client::trusting([pebble.root().await])
}

/// The files below `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn file(home: &Path, name: &str) -> PathBuf {
    files(&home.join("acme")).into_iter().find(|path| path.ends_with(name)).expect(name)
}

/// What it says of `turns` to clients.
async fn turns(server: &Server) -> String {
    let (_, _, body) = server.ask("GET /check/served", "", "").await;
    serde_json::from_str::<serde_json::Value>(&body).unwrap()["turns"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_certificate_comes_by_tls_as_soon_as_the_authority_is_there_and_until_then_a_self_signed_one_serves() {
    let mut pebble = Pebble::new(Looks { tls: HTTPS, http: NOBODY, validity: 90 * DAY }).await;
    let server = Server::start(&config(&pebble, &["tls-alpn-01"]));
    server.logs("cannot reach").await;
    let ours = server.tls();
    assert!(shown(&ours, server.https(), "localhost").await.is_some());
    assert_eq!(turns(&server).await, "self-signed");
    assert!(server.banner().contains("the browser warns until the certificate has come"));

    pebble.start().await;
    let tls = trusting(&pebble).await;
    shown_other(&tls, server.https(), NAME, None).await;

    assert!(shown(&tls, server.https(), "www.example.org").await.is_some());
    assert!(shown(&ours, server.https(), "localhost").await.is_none());
    assert_eq!(turns(&server).await, "served");
    // It is served before it is kept.
    server.logs("got a certificate from").await;
    for name in ["account.json", "certificate.pem"] {
        let file = file(server.home(), name);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700, "{name}");
    }
    assert_eq!(files(&server.home().join("acme")).len(), 2, "nothing else is left behind");
    assert!(shown(&client::offering([pebble.root().await], &["acme-tls/1"]), server.https(), NAME).await.is_none());
}

#[tokio::test]
async fn a_certificate_comes_by_http_in_clear_on_the_port_of_tls_too() {
    let mut pebble = Pebble::new(Looks { tls: NOBODY, http: HTTPS, validity: 90 * DAY }).await;
    pebble.start().await;

    let server = Server::start(&config(&pebble, &["http-01"]));

    shown_other(&trusting(&pebble).await, server.https(), NAME, None).await;
    let (status, ..) = server.ask("GET /.well-known/acme-challenge/anything", "", "").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn where_one_kind_of_proof_fails_the_other_is_tried_and_it_is_said_why() {
    for (looks, challenges, said) in [
        (
            Looks { tls: NOBODY, http: HTTP, validity: 90 * DAY },
            ["tls-alpn-01", "http-01"],
            "proved by http-01 only: by tls-alpn-01: ",
        ),
        (
            Looks { tls: HTTPS, http: NOBODY, validity: 90 * DAY },
            ["http-01", "tls-alpn-01"],
            "proved by tls-alpn-01 only: by http-01: ",
        ),
    ] {
        let mut pebble = Pebble::new(looks).await;
        pebble.start().await;

        let server = Server::start(&config(&pebble, &challenges));

        shown_other(&trusting(&pebble).await, server.https(), NAME, None).await;
        assert!(server.log().contains(said), "{}", server.log());
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_by_the_same_account_and_connections_go_on() {
    let mut pebble = Pebble::new(Looks { tls: HTTPS, http: HTTP, validity: 12 }).await;
    pebble.start().await;
    let server = Server::start(&config(&pebble, &["tls-alpn-01", "http-01"]));
    let tls = trusting(&pebble).await;
    let first = shown_other(&tls, server.https(), NAME, None).await;
    let account = fs::read_to_string(file(server.home(), "account.json")).unwrap();
    let stream = TcpStream::connect(server.https()).await.unwrap();
    let stream = tls.connect(NAME.try_into().unwrap(), stream).await.unwrap();
    let mut member = Client::over(stream, "/ws", &[]).await.unwrap();
    member.log_in("alice").await;

    let second = shown_other(&tls, server.https(), NAME, Some(&first)).await;
    shown_other(&tls, server.https(), NAME, Some(&second)).await;

    member.is_served().await;
    assert_eq!(fs::read_to_string(file(server.home(), "account.json")).unwrap(), account);
    assert!(!server.log().contains("no certificate for"), "{}", server.log());
}

#[tokio::test]
async fn an_authority_that_has_forgotten_the_account_gets_another_one() {
    let mut pebble = Pebble::new(Looks { tls: HTTPS, http: HTTP, validity: 20 }).await;
    pebble.start().await;
    let server = Server::start(&config(&pebble, &["tls-alpn-01"]));
    shown_other(&trusting(&pebble).await, server.https(), NAME, None).await;

    pebble.start().await;

    shown_other(&trusting(&pebble).await, server.https(), NAME, None).await;
    assert!(server.log().contains("making another one"), "{}", server.log());
}

#[tokio::test]
async fn a_restart_serves_the_kept_certificate_and_asks_nobody() {
    let home = tempfile::tempdir().unwrap();
    let mut pebble = Pebble::new(Looks { tls: HTTPS, http: HTTP, validity: 90 * DAY }).await;
    pebble.start().await;
    let tls = trusting(&pebble).await;
    let config = config(&pebble, &["tls-alpn-01"]);
    let server = Server::start_in(home.path(), &config);
    let first = shown_other(&tls, server.https(), NAME, None).await;
    server.terminate();
    let asked = pebble.log();

    let server = Server::start_in(home.path(), &config);

    assert_eq!(shown(&tls, server.https(), NAME).await, Some(first));
    assert!(!server.banner().contains("the browser warns"), "{}", server.banner());
    assert_eq!(turns(&server).await, "served");
    assert_eq!(pebble.log(), asked);
}

#[tokio::test]
async fn a_refusal_is_told_in_the_authoritys_words_with_the_cure_and_a_restart_is_no_way_around_the_pause() {
    let home = tempfile::tempdir().unwrap();
    let mut pebble = Pebble::new(Looks { tls: NOBODY, http: NOBODY, validity: 90 * DAY }).await;
    pebble.start().await;
    let config = config(&pebble, &["tls-alpn-01", "http-01"]);
    let unknown = config.replace(NAME, "calls.example.invalid");
    let orders = |pebble: &Pebble| pebble.log().matches("Added order").count();

    let server = Server::start_in(home.path(), &config);
    server.logs("no certificate for").await;
    let log = server.log();
    let line = log.lines().find(|line| line.contains("no certificate for")).unwrap();
    assert!(line.contains("WARN"), "{line}");
    assert_eq!(line.matches("port 443 of the name's address must come to").count(), 1, "{line}");
    assert!(line.contains("connection refused") && line.contains("port 80 of the name's address must"), "{line}");
    assert!(line.contains("trying again in ") && line.ends_with(" min"), "{line}");
    drop(server);
    let server = Server::start_in(home.path(), &config);
    server.logs("no certificate for").await;
    drop(server);
    assert_eq!(orders(&pebble), 4, "two for each try");

    let server = Server::start_in(home.path(), &config);
    server.logs("the authority has refused").await;
    drop(server);
    assert_eq!(orders(&pebble), 4, "too soon for another");

    let server = Server::start_in(home.path(), &unknown);
    server.logs("no certificate for").await;
    assert!(server.log().contains("calls.example.invalid: "), "{}", server.log());
}
