//! What a credential is good for, and for how long, under a clock that the test moves.

use super::*;
use crate::clock::Clock;

const SECOND: Duration = Duration::from_secs(1);
const LIFE: Duration = Duration::from_secs(90);
const GRACE: Duration = Duration::from_secs(12 * 3600);

/// A whole second, for user names tell nothing finer.
fn now() -> Now {
    Now { unix: Duration::from_secs(1_800_000_000), ..Clock::system().now() }
}

fn credentials(mode: Mode) -> Credentials {
    Credentials::new(settings(mode))
}

fn settings(mode: Mode) -> Settings {
    Settings {
        secrets: ["north", "south"].map(str::to_owned).into(),
        users: HashMap::from([("alice".into(), "wonderland".into())]),
        mode,
        life: LIFE,
        expired_grace: GRACE,
        signaled_peers: false,
    }
}

fn standing(credentials: &Credentials, username: &str, now: Now) -> Standing {
    credentials.claim(username, now).standing
}

#[test]
fn a_minted_credential_is_good_for_its_life_and_names_its_session() {
    let credentials = credentials(Mode::Ttl);
    let (session, now) = (SessionId::new(), now());
    credentials.begin(session);

    let minted = credentials.mint(session, None, now);
    let claim = credentials.claim(&minted.username, now);
    let late = now.after(LIFE);

    assert_eq!((claim.session, claim.identity), (Some(session), Identity::Session(session)));
    assert_eq!(claim.standing, Standing::Good);
    assert_eq!(claim.proofs.first().map(|proof| &proof.password), Some(&minted.password));
    assert_eq!(standing(&credentials, &minted.username, late), Standing::Kept);
    assert_eq!(minted.lifetime, LIFE);
}

#[test]
fn a_member_counts_as_one_in_all_its_sessions_and_its_name_stays_unsaid() {
    let credentials = credentials(Mode::Ttl);
    let (one, other, now) = (SessionId::new(), SessionId::new(), now());
    let of = |session, member| credentials.claim(&credentials.mint(session, member, now).username, now);

    let (first, second) = (of(one, Some("alice")), of(other, Some("alice")));

    assert_eq!(first.identity, second.identity);
    assert_eq!((first.session, second.session), (Some(one), Some(other)));
    assert_ne!(first.identity, of(one, Some("bob")).identity);
    assert_ne!(of(one, None).identity, of(other, None).identity, "without a member each session counts for itself");
    assert!(!credentials.mint(one, Some("alice"), now).username.contains("alice"));
    assert_ne!(first.identity, Identity::User("alice".into()));
}

#[test]
fn who_signals_elsewhere_counts_for_its_account_or_for_itself() {
    let credentials = credentials(Mode::Session);
    let (session, now) = (SessionId::new(), now());
    credentials.begin(session);
    let elsewhere = |member| credentials.claim(&credentials.mint_elsewhere(member, now).username, now);
    let here = credentials.claim(&credentials.mint(session, Some("alice"), now).username, now);

    let alice = elsewhere(Some("alice"));

    assert_eq!((alice.session, alice.standing), (None, Standing::Good));
    assert_eq!(alice.identity, here.identity);
    assert_ne!(elsewhere(Some("bob")).identity, alice.identity);
    assert_ne!(elsewhere(None).identity, elsewhere(None).identity);
    assert!(!credentials.mint_elsewhere(Some("alice"), now).username.contains("alice"));
}

#[test]
fn the_password_is_the_one_that_coturn_computes() {
    let credentials = credentials(Mode::Session);

    let claim = credentials.claim("1700000000:carol", now());

    // printf 1700000000:carol | openssl dgst -sha1 -hmac north -binary | base64
    assert_eq!(claim.proofs[0].password, "+7vnw9QGdV9hTZ/4Cg+GqOxH//Q=");
    assert_eq!(claim.proofs.len(), 2, "every secret verifies");
    assert_eq!(claim.identity, Identity::Holder("carol".into()));
}

#[test]
fn names_that_nobody_has_are_refused_at_the_same_work() {
    let credentials = credentials(Mode::Ttl);
    let now = now();

    for name in ["", "mallory", "+5:x", "-1:x", "99999999999999999999:x", ":x", "\u{0}"] {
        let claim = credentials.claim(name, now);

        assert_eq!(claim.standing, Standing::Refused, "{name}");
        assert_eq!(claim.proofs.len(), 1);
    }
    assert_eq!(credentials.claim("1700000000", now).identity, Identity::Holder("1700000000".into()));
    assert_eq!(credentials.claim("alice", now).identity, Identity::User("alice".into()));
}

#[test]
fn what_back_ends_sign_has_no_session_whatever_it_looks_like() {
    let credentials = credentials(Mode::Session);
    let now = now();

    for holder in
        ["carol", "", "~", "~carol", "~AAAAAAAAAAAAAAAAA", "~AAAAAAAAAAAAAAA", "~AAAAAAAAAAAAAAA\u{e9}", "a~b"]
    {
        let claim = credentials.claim(&credentials.mint_for(holder, now).username, now);

        assert_eq!((claim.session, claim.standing), (None, Standing::Good), "{holder}");
        assert_eq!(claim.identity, Identity::Holder(holder.into()));
    }
}

#[test]
fn an_expired_credential_keeps_what_it_opened_while_its_session_lives_and_then_for_the_grace() {
    let credentials = credentials(Mode::Ttl);
    let (session, now) = (SessionId::new(), now());
    credentials.begin(session);
    let minted = credentials.mint(session, None, now);
    let foreign = credentials.mint_for("carol", now);
    let (last, beyond) = (now.after(LIFE + GRACE), now.after(LIFE + GRACE + SECOND));

    assert_eq!(standing(&credentials, &minted.username, beyond), Standing::Kept, "its session lives");
    assert_eq!(standing(&credentials, &foreign.username, last), Standing::Kept);
    assert_eq!(standing(&credentials, &foreign.username, beyond), Standing::Refused);
    credentials.end(session);

    assert_eq!(standing(&credentials, &minted.username, now), Standing::Good, "a relayed call outlives its session");
    assert_eq!(standing(&credentials, &minted.username, last), Standing::Kept);
    assert_eq!(standing(&credentials, &minted.username, beyond), Standing::Refused);
}

#[tokio::test(start_paused = true)]
async fn in_session_mode_everything_ends_with_the_session_and_foreign_credentials_go_on() {
    let credentials = credentials(Mode::Session);
    let (session, now) = (SessionId::new(), now());
    let mut endings = credentials.endings();
    credentials.begin(session);
    let minted = credentials.mint(session, None, now);
    assert_eq!(standing(&credentials, &minted.username, now.after(GRACE * 2)), Standing::Kept);

    credentials.end(session);
    credentials.end(session);
    let after_restart = Credentials::new(settings(Mode::Session));

    assert_eq!(standing(&credentials, &minted.username, now), Standing::Refused);
    assert_eq!(standing(&after_restart, &minted.username, now), Standing::Refused);
    assert_eq!(standing(&credentials, &credentials.mint_for("carol", now).username, now), Standing::Good);
    assert_eq!(endings.next().await, Ending::One(session));
    assert!(tokio::time::timeout(SECOND, endings.next()).await.is_err(), "it ended once");
}

#[tokio::test(start_paused = true)]
async fn a_revoked_session_is_announced_and_its_credentials_are_refused_in_either_mode() {
    for mode in [Mode::Ttl, Mode::Session] {
        let credentials = credentials(mode);
        let (session, other, now) = (SessionId::new(), SessionId::new(), now());
        let mut endings = credentials.endings();
        credentials.begin(session);
        credentials.begin(other);
        let (minted, kept) = (credentials.mint(session, None, now), credentials.mint(other, None, now));

        credentials.revoke(session, now);
        // Its connection may ask once more before it is closed.
        let late = credentials.mint(session, None, now.after(SECOND));
        credentials.end(session);

        assert_eq!(endings.next().await, Ending::One(session));
        assert!(tokio::time::timeout(SECOND, endings.next()).await.is_err(), "told once");
        for (username, at) in [(&minted.username, Duration::ZERO), (&late.username, LIFE)] {
            assert_eq!(standing(&credentials, username, now.after(at)), Standing::Refused, "{mode:?}");
        }
        assert_eq!(standing(&credentials, &kept.username, now), Standing::Good);
        assert!(credentials.is_over(session, now) && !credentials.is_over(other, now));
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_too_many_endings_is_told_to_look_at_all() {
    let credentials = credentials(Mode::Ttl);
    let now = now();
    let mut endings = credentials.endings();

    for _ in 0..=MAX_ENDINGS {
        credentials.revoke(SessionId::new(), now);
    }

    assert_eq!(endings.next().await, Ending::Many);
}

#[test]
fn a_session_reaches_only_who_was_signaled_to_it_where_that_is_wanted() {
    let (session, stranger, teller) = (SessionId::new(), SessionId::new(), SessionId::new());
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let free = credentials(Mode::Ttl);
    let bound = Credentials::new(Settings { signaled_peers: true, ..settings(Mode::Ttl) });
    bound.begin(session);

    bound.signaled(session, teller, &[ip("8.8.8.8")]);
    bound.signaled(stranger, teller, &[ip("8.8.8.8")]);

    assert!(free.may_reach(session, ip("8.8.8.9")));
    assert!(bound.may_reach(session, ip("8.8.8.8")) && !bound.may_reach(session, ip("8.8.8.9")));
    assert!(!bound.may_reach(stranger, ip("8.8.8.8")), "whose session doesn't live");
    bound.end(session);
    assert!(!bound.may_reach(session, ip("8.8.8.8")));
}

/// Whether a credential would be taken, and what it opened with it be kept.
fn stands(
    credentials: &Credentials,
    IceCredential { username, password, .. }: &IceCredential,
    mark: Mark,
) -> [bool; 2] {
    let proofs = credentials.claim(username, now()).proofs;
    [proofs.iter().any(|proof| proof.password == *password), credentials.still_proves(username, mark)]
}

#[test]
fn what_a_secret_signed_is_good_as_long_as_that_is_among_the_others() {
    let credentials = credentials(Mode::Ttl);
    let old = credentials.mint_for("carol", now());
    let mark = credentials.claim(&old.username, now()).proofs[0].mark;
    let configure = |secrets: &[&str]| {
        let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        credentials.configure(Settings { secrets, ..settings(Mode::Ttl) });
    };

    configure(&["west", "north"]);
    let new = credentials.mint_for("carol", now());
    assert_eq!((stands(&credentials, &old, mark), new.password == old.password), ([true; 2], false));
    configure(&["west"]);
    assert_eq!(stands(&credentials, &old, mark), [false; 2]);
    configure(&["west", "north"]);

    assert_eq!(stands(&credentials, &old, mark), [true; 2], "the same secret is the same");
}

#[test]
fn without_secrets_a_reload_keeps_the_random_one_and_others_leave_what_it_signed_good() {
    let without = || Settings { secrets: Vec::new(), ..settings(Mode::Ttl) };
    let credentials = Credentials::new(without());
    let old = credentials.mint_for("carol", now());
    let mark = credentials.claim(&old.username, now()).proofs[0].mark;

    credentials.configure(without());
    assert_eq!(stands(&credentials, &old, mark), [true; 2]);
    credentials.configure(settings(Mode::Ttl));
    let signed = credentials.mint_for("carol", now());

    assert_eq!(stands(&credentials, &old, mark), [true; 2]);
    assert_ne!(signed.password, old.password, "it signs no more");
    let given = Credentials::new(settings(Mode::Ttl));
    assert_eq!(given.claim(&signed.username, now()).proofs.len(), 2, "where it never signed it proves nothing");
}

#[test]
fn a_user_who_is_gone_or_has_another_password_is_no_more_who_it_was() {
    let credentials = credentials(Mode::Ttl);
    let mark = credentials.claim("alice", now()).proofs[0].mark;
    let configure = |users: &[(&str, &str)]| {
        let users = users.iter().map(|(name, password)| ((*name).to_owned(), (*password).to_owned())).collect();
        credentials.configure(Settings { users, ..settings(Mode::Ttl) });
        credentials.still_proves("alice", mark)
    };

    assert!(configure(&[("alice", "wonderland"), ("bob", "builder")]));
    assert!(!configure(&[("alice", "mirror")]));
    assert!(!configure(&[("bob", "builder")]));
    assert_eq!(standing(&credentials, "alice", now()), Standing::Refused);
}

#[test]
fn a_session_that_is_revoked_is_refused_as_long_as_what_it_got_before_the_life_was_shortened() {
    let credentials = credentials(Mode::Ttl);
    let (session, now) = (SessionId::new(), now());
    credentials.begin(session);
    let minted = credentials.mint(session, None, now);

    credentials.configure(Settings { life: SECOND, ..settings(Mode::Ttl) });
    credentials.revoke(session, now);
    // What has expired is forgotten when another is revoked.
    credentials.revoke(SessionId::new(), now.after(CLOSING + SECOND * 2));

    assert_eq!(standing(&credentials, &minted.username, now.after(CLOSING + SECOND * 2)), Standing::Refused);
}
