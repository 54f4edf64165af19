use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;

/// Counts as many packets of 100 bytes each way as its client has sent and got.
#[derive(Default)]
struct Count {
    sent: AtomicU64,
    received: AtomicU64,
    /// Why five more went nowhere.
    lost_for: Option<DropReason>,
}

impl Meter for Count {
    fn read(&self) -> Carried {
        let [packets_sent, packets_received] = [&self.sent, &self.received].map(|it| it.load(Ordering::Relaxed));
        let (sent, received) = (packets_sent * 100, packets_received * 100);
        let lost_for = self.lost_for;
        Carried { packets_sent, sent, packets_received, received, lost: lost_for.map_or(0, |_| 5), lost_for }
    }
}

fn count(sent: u64, received: u64) -> Arc<Count> {
    Arc::new(Count { sent: sent.into(), received: received.into(), lost_for: None })
}

struct Scene {
    journal: Journal,
    now: Now,
}

impl Scene {
    fn new() -> Self {
        let (journal, now) = (Journal::new(b"north"), Clock::system().now());
        journal.open(now);
        Self { journal, now }
    }

    fn sign_in(&self, name: &str) -> (SessionId, Key) {
        let session = SessionId::new();
        self.journal.signed_in(session, Gateway::Json, name, self.now);
        (session, self.journal.of_session(Some(session)).unwrap())
    }

    /// Lets time pass, and a tick come at its end.
    fn pass(&mut self, time: Duration) -> Vec<Verdict> {
        self.now = self.now.after(time);
        self.journal.tick(self.now).verdicts
    }

    /// What is over once the data plane has counted its last packets.
    fn told(&mut self) -> Vec<Verdict> {
        (0..LAST_PACKETS).flat_map(|_| self.pass(Duration::ZERO)).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_session_is_told_of_once_when_it_and_its_last_relay_are_over() {
    let mut scene = Scene::new();
    let (session, key) = scene.sign_in("alice");
    scene.journal.opened(key, 1, Transport::Udp, count(10, 20));
    scene.journal.opened(key, 2, Transport::Tls, count(1, 2));
    assert_eq!(scene.pass(SECOND * 60), []);

    scene.journal.closed(key, 1);
    scene.journal.signed_out(session);
    assert_eq!(scene.told(), [], "one relay is left");
    assert_eq!(scene.pass(SECOND * 30), []);
    scene.journal.closed(key, 2);
    let told = scene.told();

    let [verdict] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((verdict.lasted, verdict.outlived, verdict.relays), (SECOND * 60, SECOND * 30, 2));
    assert_eq!((verdict.carried.sent, verdict.carried.received), (1100, 2200));
    let said =
        "session over after 1 min 0 s, its last relay 30 s later, relayed over udp,tls: 1.1 KiB sent, 2.1 KiB received";
    assert_eq!(verdict.to_string(), said);
    assert_eq!((scene.told(), scene.journal.size()), (vec![], (0, 0, 0)));
}

#[test]
fn packets_that_are_counted_just_after_the_end_are_told_too() {
    let mut scene = Scene::new();
    let key = scene.journal.place(None, "camera", scene.now).unwrap();
    let meter = count(0, 0);
    scene.journal.opened(key, 7, Transport::Udp, meter.clone());

    scene.journal.closed(key, 7);
    assert_eq!(scene.pass(TICK), []);
    meter.sent.store(3, Ordering::Relaxed);
    meter.received.store(2, Ordering::Relaxed);

    let told = scene.pass(TICK);
    assert_eq!((told[0].whose, told[0].carried), (Whose::User(scene.journal.tag("camera")), meter.read()));
}

#[test]
fn what_ends_with_the_server_is_told_with_what_it_has_carried() {
    let mut scene = Scene::new();
    let (_, key) = scene.sign_in("alice");
    scene.journal.opened(key, 1, Transport::Udp, count(1, 1));
    scene.sign_in("bob");

    let mut told = scene.journal.end(scene.now.after(SECOND)).verdicts;

    told.sort_by_key(|verdict| verdict.relays);
    assert_eq!(
        told.iter().map(|verdict| (verdict.carried.sent, verdict.is_idle())).collect::<Vec<_>>(),
        [(0, true), (100, false)]
    );
    assert_eq!(scene.told(), []);
    scene.journal.signed_in(SessionId::new(), Gateway::Json, "late", scene.now);
    assert_eq!(scene.journal.size(), (0, 0, 0));
}

#[test]
fn each_reason_is_told_in_plain_words_with_its_cure() {
    let refused = |refusals: &[(Refusal, u32)]| Told { refusals: refusals.to_vec(), ..Told::default() };
    let ip = |ip: &str| Some(ip.parse().unwrap());
    let private = Refusal::Peer { why: "private range", peer: ip("192.168.1.5") };
    let out = "the peer's firewall dropped them, or it never got the candidate";
    let cases = [
        (Told::default(), "it never asked for a relay: the call went directly or was never tried".to_owned()),
        (
            refused(&[(Refusal::Proof("wrong secret or password, see turn.secrets"), 3)]),
            "answered 401 three times: wrong secret or password, see turn.secrets".to_owned(),
        ),
        (
            refused(&[(Refusal::Proof("the credential has expired, see turn.credential_life"), 1)]),
            "answered 401 once: the credential has expired, see turn.credential_life".to_owned(),
        ),
        (
            refused(&[(Refusal::Other("allocation quota reached, see turn.limits"), 12)]),
            "refused 12 times: allocation quota reached, see turn.limits".to_owned(),
        ),
        (
            Told { relays: 1, ..refused(&[(private, 4)]) },
            "peer 192.168.1.5 denied: private range, see turn.peers.allow".to_owned(),
        ),
        (
            Told { relays: 1, ..refused(&[(Refusal::Peer { why: "turn.peers.deny", peer: None }, 4)]) },
            "a peer denied: turn.peers.deny, see turn.peers.allow".to_owned(),
        ),
        (
            Told { relays: 1, ..refused(&[(Refusal::Peer { why: "a listener of this server", peer: None }, 1)]) },
            "a peer denied: a listener of this server".to_owned(),
        ),
        (
            Told { relays: 2, ..Told::default() },
            "the client allocated and never named a peer: the call went directly, or the other side's candidates never came"
                .to_owned(),
        ),
        (
            Told { relays: 1, peers: 2, ..Told::default() },
            "the client allocated and never sent anything: the call went directly or was given up".to_owned(),
        ),
        (
            Told { relays: 1, peers: 1, lost_for: Some(DropReason::Volume), ..Told::default() },
            "5 packets of the client's went nowhere: turn.limits.bytes_per_day or bytes_per_month is used up".to_owned(),
        ),
        (
            Told { relays: 1, peers: 1, sent: 50, ..Told::default() },
            format!("no packet ever came from the peer: 50 packets went out, 1 peer permitted; {out}"),
        ),
        (
            Told { relays: 1, peers: 2, sent: 1, ..refused(&[(private, 1)]) },
            format!(
                "no packet ever came from the peer: 1 packet went out, 2 peers permitted; {out}; \
                 peer 192.168.1.5 denied: private range, see turn.peers.allow"
            ),
        ),
    ];

    for (Told { relays, peers, sent, lost_for, refusals }, words) in cases {
        let mut scene = Scene::new();
        let (session, key) = scene.sign_in("alice");
        for relay in 0..relays {
            let meter = Count { sent: sent.into(), lost_for, ..Count::default() };
            scene.journal.opened(key, relay, Transport::Tcp, Arc::new(meter));
            scene.journal.closed(key, relay);
        }
        if peers > 0 {
            scene.journal.met(key, peers);
        }
        for (refusal, times) in refusals {
            (0..times).for_each(|_| scene.journal.refused(key, refusal));
        }
        scene.pass(SECOND * 5);
        scene.journal.signed_out(session);

        let verdict = scene.told().pop().unwrap();

        assert_eq!(verdict.to_string(), format!("session over after 5 s, never relayed: {words}"));
    }
}

#[derive(Default)]
struct Told {
    relays: u64,
    peers: u32,
    sent: u64,
    lost_for: Option<DropReason>,
    refusals: Vec<(Refusal, u32)>,
}

#[test]
fn a_name_is_told_as_the_same_tag_by_every_process_that_has_the_secret_and_no_other() {
    let [ours, after_restart, theirs] = [b"north", b"north", b"south"].map(|secret| Journal::new(secret));

    let tag = ours.tag("alice").to_string();

    assert_eq!((tag.len(), after_restart.tag("alice").to_string()), (16, tag.clone()));
    assert_ne!(theirs.tag("alice").to_string(), tag);
    assert_ne!(ours.tag("alicf").to_string(), tag);
}

#[test]
fn credentials_that_no_session_here_has_are_counted_and_have_no_place() {
    let scene = Scene::new();

    for _ in 0..1000 {
        assert_eq!(scene.journal.of_session(Some(SessionId::new())), None);
        scene.journal.refused_stranger(false);
        scene.journal.refused_stranger(true);
    }

    assert_eq!(scene.journal.size(), (0, 0, 0));
    assert_eq!(scene.journal.tick(scene.now).strangers, Strangers { wrong: 1000, expired: 1000 });
}

#[test]
fn before_it_is_kept_nothing_is_entered() {
    let (journal, now) = (Journal::new(b"north"), Clock::system().now());

    journal.signed_in(SessionId::new(), Gateway::Json, "early", now);

    assert_eq!((journal.place(None, "self-test", now), journal.size()), (None, (0, 0, 0)));
}

#[test]
fn more_endings_than_anybody_reads_are_only_counted() {
    let mut scene = Scene::new();

    for id in 0..(MAX_CLOSING + MAX_OVER + 500) as u64 {
        let key = scene.journal.place(None, "camera", scene.now).unwrap();
        scene.journal.opened(key, id, Transport::Udp, count(1, 1));
        scene.journal.closed(key, id);
    }

    let (records, closing, over) = scene.journal.size();
    assert_eq!((records, closing, over), (MAX_CLOSING, MAX_CLOSING, MAX_OVER));
    let mut untold = 0;
    for _ in 0..LAST_PACKETS {
        scene.now = scene.now.after(TICK);
        untold += scene.journal.tick(scene.now).untold;
    }
    assert_eq!((untold, scene.journal.size()), ((500 + MAX_CLOSING - MAX_OVER) as u64, (0, 0, 0)));
}

const WHYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

proptest! {
    /// Whatever comes in whatever order: records of nothing but what lives or closes, and each told once.
    #[test]
    fn it_holds_what_lives_and_no_more_and_tells_of_each_once(steps in prop::collection::vec((0..8_u8, 0..6_usize), 0..300)) {
        let mut scene = Scene::new();
        let sessions: Vec<_> = (0..6).map(|_| SessionId::new()).collect();
        let mut signed_in = [false; 6];
        let mut open: Vec<(Key, u64)> = Vec::new();
        let (mut began, mut told, mut id) = (0, 0, 0);

        for (step, who) in steps {
            let session = sessions[who];
            match step {
                0 => {
                    began += usize::from(scene.journal.of_session(Some(session)).is_none());
                    scene.journal.signed_in(session, Gateway::Json, "alice", scene.now);
                    signed_in[who] = true;
                }
                1 => {
                    scene.journal.signed_out(session);
                    signed_in[who] = false;
                }
                2 | 3 => {
                    let known = scene.journal.of_session(Some(session));
                    let asked = (step == 2).then_some(session);
                    let key = scene.journal.place(asked, "camera", scene.now).unwrap();
                    began += usize::from(asked.and(known).is_none());
                    id += 1;
                    scene.journal.opened(key, id, Transport::Udp, count(1, 0));
                    open.push((key, id));
                }
                4 => {
                    if let Some((key, id)) = open.pop() {
                        scene.journal.closed(key, id);
                        scene.journal.closed(key, id);
                    }
                }
                5 => {
                    if let Some(key) = scene.journal.of_session(Some(session)) {
                        WHYS.iter().for_each(|why| scene.journal.refused(key, Refusal::Other(why)));
                    }
                }
                6 => told += scene.pass(TICK).len(),
                _ => {
                    let key = scene.journal.place(None, "refused", scene.now).unwrap();
                    scene.journal.leave(key);
                }
            }
            let pages = scene.journal.pages();
            prop_assert!(pages.records.len() <= 6 + open.len() + pages.closing.len() + 6);
            let most = pages.records.values().filter_map(|it| it.dealings.as_ref()).map(|it| it.refusals.len()).max();
            prop_assert!(most.unwrap_or(0) <= MAX_REFUSALS);
        }
        sessions.iter().for_each(|session| scene.journal.signed_out(*session));
        open.iter().for_each(|(key, id)| scene.journal.closed(*key, *id));
        told += scene.told().len();

        prop_assert_eq!((told, scene.journal.size()), (began, (0, 0, 0)));
    }
}
