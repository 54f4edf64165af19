//! The certificate from files: other files are served while connections go on, bad ones are not; and who only asks for proof
//! of a name gets nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal::SIGHUP;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use throughway::clock::Clock;
use throughway::clock::Now;
use throughway::net::tls::Pair;
use tokio::net::TcpStream;

use crate::support::DEFAULT_PEERS;
use crate::support::Server;
use crate::support::client;
use crate::support::client::Client;
use crate::support::client::shown;
use crate::support::client::shown_other;
use crate::support::load::Load;
use crate::support::load::Size;

const CERTIFICATE: &str = "self-signed.pem";
const KEY: &str = "self-signed.key";

/// Makes a pair of files for `localhost`, and says which certificate it is.
fn make(directory: &Path) -> CertificateDer<'static> {
    Pair::self_signed(directory, &["localhost".to_owned()], Clock::system().now()).unwrap();
    CertificateDer::from_pem_file(directory.join(CERTIFICATE)).unwrap()
}

/// A server whose files stand in `live` of its directory.
fn config(home: &Path) -> String {
    let live = home.join("live");
    let (certificate, key) = (live.join(CERTIFICATE), live.join(KEY));
    format!("{DEFAULT_PEERS}[tls]\nmode = \"files\"\ncertificate = {certificate:?}\nkey = {key:?}\n")
}

/// Puts the files of `from` where those of `to` are, the certificate first.
fn replace(from: &Path, to: &Path) {
    for name in [CERTIFICATE, KEY] {
        fs::rename(from.join(name), to.join(name)).unwrap();
    }
}

#[tokio::test]
async fn swapped_files_and_swapped_links_are_served_from_the_next_handshake_on_and_connections_go_on() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let [first, second, third] = ["first", "second", "third"].map(|name| make(&at(name)));
    symlink("first", at("live")).unwrap();
    let server = Server::start_in(home.path(), &config(home.path()));
    let tls = client::trusting([first.clone(), second.clone(), third.clone()]);
    let stream = TcpStream::connect(server.https()).await.unwrap();
    let stream = tls.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let mut member = Client::over(stream, "/ws", &[]).await.unwrap();
    member.log_in("alice").await;
    assert_eq!(shown(&tls, server.https(), "localhost").await, Some(first.clone()));

    replace(&at("second"), &at("first"));
    assert_eq!(shown_other(&tls, server.https(), "localhost", Some(&first)).await, second);
    symlink("third", at("next")).unwrap();
    fs::rename(at("next"), at("live")).unwrap();
    assert_eq!(shown_other(&tls, server.turn_tls(), "localhost", Some(&second)).await, third);

    member.is_served().await;
    assert_eq!(server.log().matches("serving the other certificate").count(), 2);
    let (_, rest) = x509_parser::parse_x509_certificate(&third).unwrap();
    let ends = u64::try_from(rest.validity().not_after.timestamp()).unwrap();
    assert_eq!(server.metric("throughway_certificate_expiry_seconds").await, ends);
}

#[tokio::test]
async fn bad_files_leave_the_certificate_as_it_was_and_are_said_once() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let [live, next] = ["live", "next"].map(|name| make(&at(name)));
    let server = Server::start_in(home.path(), &config(home.path()));
    let tls = client::trusting([live.clone(), next.clone()]);

    fs::write(at("live").join(KEY), "nonsense").unwrap();
    server.logs("the certificate stays as it was: tls.key: ").await;
    fs::rename(at("next").join(KEY), at("live").join(KEY)).unwrap();
    server.logs("is not the key of the certificate").await;
    assert_eq!(shown(&tls, server.https(), "localhost").await, Some(live.clone()));
    fs::rename(at("next").join(CERTIFICATE), at("live").join(CERTIFICATE)).unwrap();

    assert_eq!(shown_other(&tls, server.https(), "localhost", Some(&live)).await, next);
    let log = server.log();
    assert_eq!(log.matches("there is no private key in it").count(), 1, "{log}");
    assert_eq!(log.matches("stays as it was").count(), 2, "{log}");
}

#[tokio::test]
async fn an_expired_certificate_follows_a_good_one_by_a_reload_no_more_than_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let (live, now) = (make(&at("live")), Clock::system().now());
    let server = Server::start_in(home.path(), &config(home.path()));
    let tls = client::trusting([live.clone()]);
    let long_ago = Now { unix: now.unix - Duration::from_secs(1000 * 24 * 3600), ..now };
    Pair::self_signed(&at("old"), &["localhost".to_owned()], long_ago).unwrap();
    replace(&at("old"), &at("live"));

    server.signal(SIGHUP);

    server.logs("the configuration stays as it was: tls.certificate: ").await;
    assert!(server.log().contains("has expired or is not yet valid"), "{}", server.log());
    assert_eq!(shown(&tls, server.https(), "localhost").await, Some(live));
}

#[tokio::test]
async fn a_swap_under_load_loses_nothing_and_closes_nobody() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let certificates = ["live", "one", "two"].map(|name| make(&at(name)));
    let server = Server::start_in(home.path(), &config(home.path()));
    let tls = client::trusting(certificates.clone());
    let size = Size { streams: 8, seconds: 12, sockets: 1000, tls: Some(tls.clone()) };

    let load = Load::start(&server, size).await;
    for (name, before) in ["one", "two"].iter().zip(&certificates) {
        replace(&at(name), &at("live"));
        shown_other(&tls, server.https(), "localhost", Some(before)).await;
    }
    let outcome = load.finish().await;

    assert_eq!(shown(&tls, server.https(), "localhost").await.as_ref(), certificates.last());
    assert_eq!((outcome.relay_lost, outcome.messages_lost, outcome.messages_refused), (0, 0, 0), "{outcome:?}");
    assert!(outcome.sockets_closed.is_empty() && outcome.connections_refused == 0, "{outcome:?}");
    assert!(outcome.relay_sent > 1000 && outcome.messages_sent > 1000 && outcome.members == 1000, "{outcome:?}");
}

#[tokio::test]
async fn who_asks_for_proof_of_a_name_that_nobody_wants_proved_gets_no_handshake_and_no_text() {
    let server = Server::start(DEFAULT_PEERS);
    let ours = CertificateDer::from_pem_file(server.home().join("certs/self-signed.pem")).unwrap();
    let asks = |protocols: &[&str]| client::offering([ours.clone()], protocols);

    for addr in [server.https(), server.turn_tcp(), server.turn_tls()] {
        assert_eq!(shown(&asks(&["acme-tls/1"]), addr, "localhost").await, None);
        assert!(shown(&asks(&["acme-tls/1", "http/1.1"]), addr, "localhost").await.is_some());
    }
    let (status, ..) = server.ask("GET /.well-known/acme-challenge/anything", "", "").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn files_of_no_use_at_the_start_are_the_operators_to_correct() {
    let home = tempfile::tempdir().unwrap();
    make(&home.path().join("live"));
    fs::remove_file(home.path().join("live").join(KEY)).unwrap();
    fs::write(home.path().join("throughway.toml"), config(home.path())).unwrap();

    let output = crate::support::program().arg("--config").arg(home.path().join("throughway.toml")).output().unwrap();

    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("tls.key: ") && said.contains("cannot read it"), "{said}");
}
