use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde_json::json;

use super::*;
use crate::address::Sources;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::rate::Rate;
use crate::signaling::accounts::Proof;
use crate::signaling::accounts::jwt::Key;
use crate::signaling::accounts::jwt::Verifier;
use crate::signaling::accounts::webhook::Post;
use crate::signaling::accounts::webhook::Webhook;
use crate::signaling::hub;
use crate::signaling::hub::MAX_BANNED;
use crate::signaling::hub::TooManyBanned;
use crate::signaling::mailbox::Capacity;

/// Lets everybody in as who the token says.
struct ByToken;

#[async_trait::async_trait]
impl Post for ByToken {
    async fn post(&self, question: String) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let question: Value = serde_json::from_str(&question)?;
        Ok(json!({ "allow": true, "name": question["token"] }).to_string().into_bytes())
    }
}

/// Two gateways with the same accounts, which the web service knows.
fn gateways() -> [Arc<Sessions>; 2] {
    gateways_for(Proof::Webhook(asking(Box::new(ByToken), Clock::system())))
}

fn asking(post: Box<dyn Post>, clock: Clock) -> Webhook {
    Webhook::new(post, Duration::from_secs(3), Sources::default(), clock)
}

/// Two gateways with the same accounts, and members that may be listed.
fn gateways_for(proof: Proof) -> [Arc<Sessions>; 2] {
    let credentials = Arc::new(Credentials::new(Default::default()));
    let often = Rate { per_second: 1e6, burst: 1e6 };
    let accounts = Arc::new(Accounts::new(proof, often, Vec::new()));
    [Gateway::Json, Gateway::PeerJs].map(|gateway| {
        let settings = hub::Settings {
            queue: Capacity { messages: 256, bytes: 256 * 1024 },
            silence: Duration::from_secs(45),
            grace: Duration::from_secs(30),
            rooms: 3,
            room_members: 3,
            who: true,
            presence: true,
            sources: Sources::default(),
            vocabulary: Default::default(),
        };
        let hub = Hub::new(settings, Arc::clone(&credentials), Arc::new(Metrics::default()));
        let sessions = Sessions::new(hub, Arc::clone(&accounts), Arc::clone(&credentials), Served::default());
        Arc::new(sessions.by(gateway))
    })
}

fn visitor(token: &str) -> Visitor {
    Visitor { host: "localhost".into(), source: [192, 0, 2, 1].into(), token: Some(token.into()) }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[tokio::test]
async fn elsewhere_members_are_called_as_they_like_and_count_for_their_account() {
    let now = Clock::system().now();
    let [json, peerjs] = gateways();
    let alice = visitor("alice");

    let wrong = json.sign_in(name("x"), Delivery::Once, None, &alice, now).await;
    let x = peerjs.sign_in(name("x"), Delivery::Once, None, &alice, now).await.unwrap().0;
    let unnamed = peerjs.sign_in_unnamed(Name::random(), Delivery::Once, None, &alice, now).await.unwrap().0;
    let own = json.sign_in(None, Delivery::Once, None, &alice, now).await.unwrap().0;

    assert_eq!(wrong.err(), Some(NotSignedIn::Denied(Denied::Proof)));
    assert_eq!((x.name(), own.name(), unnamed.name().len()), ("x", "alice", 36));
    for session in [&x, &unnamed, &own] {
        assert_eq!(session.account.name, Some(name("alice")));
    }
}

#[tokio::test]
async fn who_is_banned_comes_back_under_no_other_name_by_no_other_way() {
    let now = Clock::system().now();
    let [json, peerjs] = gateways();
    let (alice, bob) = (visitor("alice"), visitor("bob"));
    let x = peerjs.sign_in(name("x"), Delivery::Once, None, &alice, now).await.unwrap().0;
    let _own = json.sign_in(None, Delivery::Once, None, &alice, now).await.unwrap().0;

    let banned = peerjs.ban(name("x"), now).unwrap();

    assert_eq!(banned, Banned { kicked: true, account: Some(name("alice")) });
    assert!(json.kick_account(&name("alice"), now), "where it is signed in, too");
    let refused = Some(NotSignedIn::Refused(Refusal::Banned));
    assert_eq!(peerjs.sign_in(name("y"), Delivery::Once, None, &alice, now).await.err(), refused);
    assert_eq!(peerjs.sign_in(name("x"), Delivery::Once, None, &bob, now).await.err(), refused);
    assert_eq!(peerjs.sign_in_or_take_over(name("y"), &alice, now).await.err(), refused);
    assert_eq!(json.sign_in(None, Delivery::Once, None, &alice, now).await.err(), refused);
    assert_eq!(peerjs.who(&alice, now).await, Err(NotTold::Denied(Denied::Proof)));
    assert!(peerjs.who(&bob, now).await.is_ok());
    assert_eq!(json.ice_elsewhere(&alice, now).await.err(), Some(NoIce::Denied(Denied::Proof)));
    assert!(json.ice_elsewhere(&bob, now).await.is_ok());

    drop(x);
    assert!(json.unban(&name("alice")) && peerjs.unban(&name("x")));
    assert!(peerjs.sign_in(name("x"), Delivery::Once, None, &alice, now).await.is_ok());
}

#[tokio::test]
async fn a_ban_of_a_name_in_our_protocol_is_one_of_the_account_that_is_called_so() {
    let now = Clock::system().now();
    let [json, peerjs] = gateways();

    assert_eq!(json.ban(name("alice"), now), Ok(Banned { kicked: false, account: Some(name("alice")) }));

    let refused = peerjs.sign_in(name("y"), Delivery::Once, None, &visitor("alice"), now).await;
    assert_eq!(refused.err(), Some(NotSignedIn::Refused(Refusal::Banned)));
    assert!(json.unban(&name("alice")) && !json.unban(&name("alice")));
}

#[tokio::test]
async fn who_is_banned_takes_nothing_over_with_a_token_of_its_own() {
    let now = Clock::system().now();
    let secret = [7; 32];
    let [_, peerjs] = gateways_for(Proof::Jwt(Verifier::new(vec![Key::secret(&secret).unwrap()], None, None).unwrap()));
    let claims = json!({ "sub": "alice", "exp": now.unix.as_secs() + 60 });
    let [header, claims] = [json!({ "alg": "HS256" }), claims].map(|part| BASE64.encode(part.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), format!("{header}.{claims}").as_bytes());
    let alice = visitor(&format!("{header}.{claims}.{}", BASE64.encode(tag)));
    let _x = peerjs.sign_in_or_take_over(name("x"), &alice, now).await.unwrap();
    let _again = peerjs.sign_in_or_take_over(name("x"), &alice, now).await.unwrap();

    assert_eq!(peerjs.ban(name("x"), now).map(|banned| banned.account), Ok(Some(name("alice"))));

    for by in ["x", "y"] {
        let refused = peerjs.sign_in_or_take_over(name(by), &alice, now).await.err();
        assert_eq!(refused, Some(NotSignedIn::Refused(Refusal::Banned)), "{by}");
    }
}

#[tokio::test]
async fn a_ban_that_finds_no_room_leaves_an_earlier_one_as_it_was() {
    let now = Clock::system().now();
    let [json, _] = gateways();
    json.ban(name("alice"), now).unwrap();
    json.accounts.unban(&name("alice"));
    (0..MAX_BANNED).for_each(|n| json.accounts.ban(name(&n.to_string())).unwrap());

    assert_eq!(json.ban(name("alice"), now), Err(TooManyBanned));
    assert_eq!(json.ban(name("bob"), now), Err(TooManyBanned));

    let refused = json.sign_in(None, Delivery::Once, None, &visitor("alice"), now).await.err();
    assert_eq!(refused, Some(NotSignedIn::Refused(Refusal::Banned)));
    assert!(json.sign_in(None, Delivery::Once, None, &visitor("bob"), now).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_happens_when_the_web_service_has_answered() {
    /// Takes a second.
    struct Slow;

    #[async_trait::async_trait]
    impl Post for Slow {
        async fn post(&self, question: String) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ByToken.post(question).await
        }
    }
    let clock = Clock::anchored(Duration::from_secs(1000));
    let [json, _] = gateways_for(Proof::Webhook(asking(Box::new(Slow), clock)));

    let alice = json.sign_in(None, Delivery::Once, None, &visitor("alice"), clock.now()).await.unwrap().0;

    assert_eq!(alice.since.unix, Duration::from_secs(1001));
    assert_eq!(json.members(None, 1).first().map(|member| member.since), Some(Duration::from_secs(1001)));
}
