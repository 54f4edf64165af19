//! What the log says of a session or relay that is over: who, how long, over what, how much, and why nothing came through.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use serde_json::json;
use throughway::clock::Clock;
use throughway::credentials::IceCredential;
use throughway::turn::probe;
use tokio::net::UdpSocket;

use crate::support::DEFAULT_PEERS;
use crate::support::PATIENCE;
use crate::support::PEERS_ON_LOOPBACK;
use crate::support::Server;
use crate::support::asker::*;
use crate::support::client::Client;
use crate::support::line::Line;

/// What no line may have: names, secrets, and an address that is somebody's.
const SECRETS: [&str; 7] = ["alice", "wonderland", "Mallory", "north", "8.8.8.8", "127.0.0.1", "builder"];
/// What every member is called, and a number.
const NAME: &str = "Mallory";
const JSON: &str = "[log]\nformat = \"json\"\n";

/// The line about what is over that has `words`, once it is there.
async fn line(server: &Server, words: &str) -> String {
    let said = async {
        loop {
            let log = server.log();
            if let Some(line) = log.lines().find(|line| line.contains(" over after ") && line.contains(words)) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, said).await {
        Ok(line) => line,
        Err(_) => panic!("no {words:?} in:\n{}", server.log()),
    }
}

/// Somebody signed in, and what it may relay with.
struct Member {
    client: Client,
    session: String,
    user: String,
    password: String,
}

impl Member {
    async fn sign_in(server: &Server) -> Self {
        static LATEST: AtomicU32 = AtomicU32::new(0);
        let name = format!("{NAME} {}", LATEST.fetch_add(1, Ordering::Relaxed));
        let mut client = Client::connect(server.http(), "/ws").await;
        let reply = client.log_in(&name).await;
        let text = |key: &str| reply["iceServers"][1][key].as_str().unwrap().to_owned();
        let session = reply["session"].as_str().unwrap().to_owned();
        Self { client, session, user: text("username"), password: text("credential") }
    }

    async fn asker(&self, server: &Server) -> Asker {
        Asker::new(server.udp(), &self.user, &self.password).await
    }

    /// Signs out; the line that tells of it.
    async fn line(self, server: &Server) -> String {
        drop(self.client);
        line(server, &self.session).await
    }
}

/// A peer, and where it is.
async fn peer() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Two ports, one behind the other, that nobody else can have; the first.
fn two_ports() -> ([std::net::UdpSocket; 2], u16) {
    loop {
        let one = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let first = one.local_addr().unwrap().port();
        if let Some(next) = first.checked_add(1)
            && let Ok(other) = std::net::UdpSocket::bind(("127.0.0.1", next))
        {
            return ([one, other], first);
        }
    }
}

fn assert_discreet(server: &Server) {
    let log = server.log();
    for secret in SECRETS {
        assert!(!log.contains(secret), "{secret} in:\n{log}");
    }
}

#[tokio::test]
async fn a_session_that_relayed_is_told_with_its_time_its_transports_and_its_bytes() {
    let server = Server::start(&format!("{PEERS_ON_LOOPBACK}{JSON}"));
    let member = Member::sign_in(&server).await;
    let udp = member.asker(&server).await;
    let tcp = Asker::over(Line::stream(server.turn_tcp(), None).await, &member.user, &member.password).await;
    for asker in [&udp, &tcp] {
        let ((peer, at_peer), relayed) = (peer().await, asker.allocate().await);
        assert_eq!(asker.bind(0x4000, at_peer).await, 0);
        for size in [100, 400] {
            asker.send(&channel_data(0x4000, &vec![7; size])).await;
            let mut buffer = [0; 1000];
            assert_eq!(peer.recv(&mut buffer).await.unwrap(), size);
        }
        peer.send_to(&[7; 40], relayed).await.unwrap();
        assert_eq!(asker.receive().await.len(), 44);
        assert_eq!(asker.refresh(0).await, 0);
    }

    let session = member.session.clone();
    let line = member.line(&server).await;

    let line: Value = serde_json::from_str(&line).unwrap();
    let fields = &line["fields"];
    assert_eq!(
        (&line["level"], &fields["session"], &fields["gateway"]),
        (&json!("INFO"), &json!(session), &json!("json"))
    );
    assert_eq!((&fields["relays"], &fields["over"], &fields["relayed"]), (&json!(2), &json!("udp,tcp"), &json!(true)));
    assert_eq!((&fields["sent"], &fields["received"]), (&json!(1000), &json!(80)));
    assert_eq!((&fields["packets_sent"], &fields["packets_received"]), (&json!(4), &json!(2)));
    assert!(fields["lasted"].as_u64() < Some(60) && fields["member"].as_str().map(str::len) == Some(16), "{line}");
    let said = fields["message"].as_str().unwrap();
    assert!(
        said.starts_with("session over after ") && said.ends_with("over udp,tcp: 1000 B sent, 80 B received"),
        "{said}"
    );
    let lines: Vec<Value> = server.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["fields"]["message"].is_string()), "{lines:?}");
    assert_discreet(&server);
}

#[tokio::test]
async fn users_without_a_session_are_told_of_by_relay_and_the_test_at_the_start_is_not() {
    let server = Server::start(DEFAULT_PEERS);
    let user = |name: &str, password: &str| IceCredential {
        username: name.into(),
        password: password.into(),
        lifetime: PATIENCE,
    };
    let pair = [user("alice", "wonderland"), user("bob", "builder")];

    probe::round_trip(server.udp(), "throughway", &pair, Clock::system()).await.unwrap();

    let said = line(&server, "relayed over udp").await;
    assert!(said.contains(" INFO ") && said.contains("user=") && said.contains("relays=1"), "{said}");
    let log = async {
        while server.log().matches("relay over after").count() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.log()
    };
    let log = tokio::time::timeout(PATIENCE, log).await.expect("both are told of");
    let mut users: Vec<_> = log.lines().filter_map(|line| line.split("user=").nth(1)?.get(..16)).collect();
    users.sort_unstable();
    users.dedup();
    assert_eq!(users.len(), 2, "each by a tag of its own, and nobody else:\n{log}");
    assert_discreet(&server);
}

#[tokio::test]
async fn who_was_answered_401_is_told_whether_the_password_was_wrong_or_the_credential_expired() {
    let server = Server::start(DEFAULT_PEERS);
    let (wrong, late) = (Member::sign_in(&server).await, Member::sign_in(&server).await);
    let asker = Asker::new(server.udp(), &wrong.user, "guessed").await;
    for _ in 0..3 {
        assert_eq!(asker.code_of(ALLOCATE, &[UDP]).await, 401);
    }
    let (_, holder) = late.user.split_once(':').unwrap();
    let user = format!("1000000000:{holder}");
    let north = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"north");
    let password = BASE64_STANDARD.encode(ring::hmac::sign(&north, user.as_bytes()));
    let asker = Asker::new(server.udp(), &user, &password).await;
    assert_eq!(asker.code_of(ALLOCATE, &[UDP]).await, 401);

    let (wrong, late) = (wrong.line(&server).await, late.line(&server).await);

    let said = "never relayed: answered 401 three times: wrong secret or password, see turn.secrets";
    assert!(wrong.contains(said) && wrong.contains(" INFO ") && wrong.contains("relays=0"), "{wrong}");
    assert!(late.contains("answered 401 once: the credential has expired, see turn.credential_life"), "{late}");
    assert_discreet(&server);
}

#[tokio::test]
async fn a_denied_peer_is_told_by_its_range_and_by_its_address_only_if_that_is_nobodys() {
    let server = Server::start(&format!("{DEFAULT_PEERS}[turn.peers]\ndeny = [\"8.8.8.0/24\"]\n"));
    let (private, public) = (Member::sign_in(&server).await, Member::sign_in(&server).await);
    for (member, peer) in [(&private, "192.168.1.5:9"), (&public, "8.8.8.8:9")] {
        let asker = member.asker(&server).await;
        asker.allocate().await;
        assert_eq!(asker.permit(peer.parse().unwrap()).await, 403);
        assert_eq!(asker.refresh(0).await, 0);
    }

    let (private, public) = (private.line(&server).await, public.line(&server).await);

    let said = "never relayed: peer 192.168.1.5 denied: private range, see turn.peers.allow";
    assert!(private.contains(said) && private.contains("relays=1"), "{private}");
    assert!(public.contains("never relayed: a peer denied: turn.peers.deny, see turn.peers.allow"), "{public}");
    assert_discreet(&server);
}

#[tokio::test]
async fn a_peer_that_never_answered_is_told_with_what_went_out() {
    let server = Server::start(PEERS_ON_LOOPBACK);
    let member = Member::sign_in(&server).await;
    let (silent, at_silent) = peer().await;
    let asker = member.asker(&server).await;
    asker.allocate().await;
    assert_eq!(asker.bind(0x4000, at_silent).await, 0);
    for n in 0..3 {
        asker.send(&channel_data(0x4000, &[n; 10])).await;
    }
    assert_eq!(asker.refresh(0).await, 0);

    let line = member.line(&server).await;

    let said = "no packet ever came from the peer: 3 packets went out, 1 peer permitted";
    assert!(line.contains(said) && line.contains("relayed=false sent=30 received=0"), "{line}");
    drop(silent);
}

#[tokio::test]
async fn a_peer_that_was_not_signaled_is_told() {
    let server = Server::start(&format!("{PEERS_ON_LOOPBACK}mode = \"signaled\"\n"));
    let member = Member::sign_in(&server).await;
    let asker = member.asker(&server).await;
    asker.allocate().await;
    // Where relayed addresses are, anybody may be permitted.
    assert_eq!(asker.permit("127.0.0.9:9".parse().unwrap()).await, 403);
    assert_eq!(asker.refresh(0).await, 0);

    let line = member.line(&server).await;

    let said = "refused once: no candidate of the peer was signaled to this session, see turn.peers.mode";
    assert!(line.contains(said), "{line}");
}

#[tokio::test]
async fn who_found_no_room_is_told_which_limit_it_met() {
    let (_taken, first) = two_ports();
    let taken = DEFAULT_PEERS.replace("20000-29999", &format!("{first}-{}", first + 1));
    let little = format!("{PEERS_ON_LOOPBACK}[turn.limits]\nbytes_per_day = '1KiB'\n");
    let few = format!("{DEFAULT_PEERS}[limits]\nexempt = []\n[turn.limits]\nallocations_per_source = 2\n");
    for (toml, code, words) in [
        (taken, 508, "no relayed port can be had, see turn.relay_ports"),
        (little, 508, "turn.limits.bytes_per_day or bytes_per_month is used up"),
        (few, 486, "allocation quota reached, see turn.limits"),
    ] {
        let server = Server::start(&toml);
        let others = [(), ()].map(|()| Asker::new(server.udp(), "alice", "wonderland"));
        for other in others {
            let (other, (_silent, at_silent)) = (other.await, peer().await);
            if other.code_of(ALLOCATE, &[UDP]).await == 0 && other.bind(0x4000, at_silent).await == 0 {
                other.send(&channel_data(0x4000, &[7; 1200])).await;
                other.hears_nothing().await;
            }
        }
        let member = Member::sign_in(&server).await;
        assert_eq!(member.asker(&server).await.code_of(ALLOCATE, &[UDP]).await, code, "{words}");

        let line = member.line(&server).await;

        assert!(line.contains(&format!("never relayed: refused once: {words}")), "{line}");
    }
}

#[tokio::test]
async fn who_allocated_in_vain_is_told_and_who_asked_for_nothing_only_to_who_debugs() {
    let server = Server::start(&format!("{PEERS_ON_LOOPBACK}[log]\nlevel = \"debug\"\n"));
    let (nothing, nobody) = (Member::sign_in(&server).await, Member::sign_in(&server).await);
    let (never, stray) = (Member::sign_in(&server).await, Member::sign_in(&server).await);
    let asker = nobody.asker(&server).await;
    asker.allocate().await;
    assert_eq!(asker.refresh(0).await, 0);
    let asker = never.asker(&server).await;
    asker.allocate().await;
    assert_eq!(asker.permit(peer().await.1).await, 0);
    assert_eq!(asker.refresh(0).await, 0);

    let asker = stray.asker(&server).await;
    asker.allocate().await;
    asker.indicate(peer().await.1, b"unasked").await;
    assert_eq!(asker.refresh(0).await, 0);

    let stray = stray.line(&server).await;
    let (nothing, nobody, never) = (nothing.line(&server).await, nobody.line(&server).await, never.line(&server).await);

    assert!(nothing.contains("it never asked for a relay: the call went directly or was never tried"), "{nothing}");
    assert!(nothing.contains("DEBUG") && nothing.contains("relays=0"), "{nothing}");
    assert!(nobody.contains(" INFO ") && nobody.contains("the client allocated and never named a peer"), "{nobody}");
    assert!(
        stray.contains("1 packet of the client's went nowhere: to a peer that it had no permission for"),
        "{stray}"
    );
    assert!(never.contains(" INFO ") && never.contains("the client allocated and never sent anything"), "{never}");
}

#[tokio::test]
async fn what_lives_when_the_server_ends_is_told_then() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start_in(home.path(), PEERS_ON_LOOPBACK);
    let member = Member::sign_in(&server).await;
    let asker = member.asker(&server).await;
    let ((peer, at_peer), relayed) = (peer().await, asker.allocate().await);
    assert_eq!(asker.bind(0x4000, at_peer).await, 0);
    asker.send(&channel_data(0x4000, b"12345")).await;
    peer.recv(&mut [0; 16]).await.unwrap();
    peer.send_to(b"123", relayed).await.unwrap();
    asker.receive().await;

    assert!(server.terminate().0.success());

    let log = std::fs::read_to_string(home.path().join("log")).unwrap();
    let told: Vec<_> = log.lines().filter(|line| line.contains(&member.session)).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("relayed over udp: 5 B sent, 3 B received"), "{log}");
}
