use std::net::IpAddr;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::future::join_all;

use super::*;

/// A service that answers what it is told to, or never.
struct Service(Option<&'static str>);

#[async_trait]
impl Post for Service {
    async fn post(&self, _: String) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        match self.0 {
            Some(answer) => Ok(answer.as_bytes().to_vec()),
            None => std::future::pending().await,
        }
    }
}

fn webhook(answer: Option<&'static str>) -> Webhook {
    Webhook::new(Box::new(Service(answer)), Duration::from_secs(3), Sources::default(), Clock::system())
}

async fn ask(webhook: &Webhook, name: Option<&Name>) -> Result<Account, Denied> {
    ask_for(webhook, name, "json").await
}

async fn ask_for(webhook: &Webhook, name: Option<&Name>, gateway: &'static str) -> Result<Account, Denied> {
    let asking = Asking { name, token: Some("t"), source: source(0), host: "localhost", gateway };
    webhook.ask(&asking).await.0
}

async fn ask_from(webhook: &Webhook, source: IpAddr) -> Result<Account, Denied> {
    webhook.ask(&Asking { name: None, token: None, source, host: "localhost", gateway: "json" }).await.0
}

/// An address of network `n`.
fn source(n: usize) -> IpAddr {
    [10, u8::try_from(n / 256).unwrap(), u8::try_from(n % 256).unwrap(), 1].into()
}

/// Has `webhook` asked from each of `sources`, who all wait for the service or their turn.
fn asked_from(webhook: &Webhook, sources: impl Iterator<Item = IpAddr>) -> Vec<BoxFuture<'_, Result<Account, Denied>>> {
    let ask = |source| {
        let mut asked = ask_from(webhook, source).boxed();
        assert_eq!((&mut asked).now_or_never(), None);
        asked
    };
    sources.map(ask).collect()
}

#[tokio::test]
async fn an_answer_lets_in_or_refuses_and_anything_else_is_no_answer() {
    let alice = Name::new("alice").unwrap();
    let account = |name: &Name, ice_servers| Ok(Account { name: Some(name.clone()), ice_servers });

    for (answer, outcome) in [
        (r#"{"allow":true}"#, account(&alice, vec![])),
        (r#"{"allow":true,"name":null,"more":1}"#, account(&alice, vec![])),
        (r#"{"allow":true,"iceServers":null}"#, account(&alice, vec![])),
        (r#"{"allow":true,"name":"bob"}"#, account(&Name::new("bob").unwrap(), vec![])),
        (r#"{"allow":true,"iceServers":[{"urls":"stun:a"}]}"#, account(&alice, vec![json!({ "urls": "stun:a" })])),
        (r#"{"allow":false}"#, Err(Denied::Proof)),
        (r#"{"allow":false,"reason":"no such token"}"#, Err(Denied::Proof)),
        ("", Err(Denied::Later)),
        ("true", Err(Denied::Later)),
        ("{}", Err(Denied::Later)),
        (r#"{"allow":"true"}"#, Err(Denied::Later)),
        (r#"{"allow":1}"#, Err(Denied::Later)),
        (r#"{"allow":true,"allow":true}"#, Err(Denied::Later)),
        (r#"{"allow":true,"name":"a\u200b"}"#, Err(Denied::Later)),
        (r#"{"allow":true,"iceServers":[{}]}"#, Err(Denied::Later)),
        (r#"{"allow":true,"iceServers":["stun:a"]}"#, Err(Denied::Later)),
    ] {
        assert_eq!(ask(&webhook(Some(answer)), Some(&alice)).await, outcome, "{answer}");
    }
    assert_eq!(ask(&webhook(Some(r#"{"allow":true}"#)), None).await, Ok(Account::default()));
}

#[test]
fn so_many_ice_servers_may_be_added() {
    let answer = |servers: usize| json!({ "allow": true, "iceServers": vec![json!({ "urls": "stun:a" }); servers] });
    let read = |servers| read(answer(servers).to_string().as_bytes(), None);

    assert!(read(MAX_ICE_SERVERS).is_ok());
    assert!(read(MAX_ICE_SERVERS + 1).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stuck_service_costs_each_so_much_time_and_only_so_many_wait_for_it() {
    let stuck = webhook(None);
    let asked = asked_from(&stuck, (0..MAX_UNDER_WAY + MAX_WAITING).map(source));

    let began = Clock::system().now().monotonic;
    assert_eq!(stuck.under_way.available_permits(), 0);
    assert_eq!(ask_from(&stuck, source(MAX_UNDER_WAY + MAX_WAITING)).await, Err(Denied::Later));
    assert_eq!(Clock::system().now().monotonic, began, "one more isn't kept waiting");
    for outcome in join_all(asked).await {
        assert_eq!(outcome, Err(Denied::Later));
    }
    assert_eq!(Clock::system().now().monotonic - began, Duration::from_secs(3));
    assert_eq!(stuck.under_way.available_permits(), MAX_UNDER_WAY, "nothing is held for ever");
}

#[tokio::test]
async fn an_answer_without_a_name_makes_an_account_of_no_name_that_a_client_chose_for_its_connection() {
    let alice = Name::new("alice").unwrap();
    let named = Account { name: Name::new("bob").ok(), ..Account::default() };

    for gateway in ["socketio", "peerjs", "pubsub", "ayame", "ice"] {
        assert_eq!(ask_for(&webhook(Some(r#"{"allow":true}"#)), Some(&alice), gateway).await, Ok(Account::default()));
        let bob = webhook(Some(r#"{"allow":true,"name":"bob"}"#));
        assert_eq!(ask_for(&bob, Some(&alice), gateway).await, Ok(named.clone()), "{gateway}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_network_that_has_the_service_asked_without_end_leaves_it_to_others() {
    let stuck =
        Webhook::new(Box::new(Service(None)), Duration::from_secs(3), Sources::networks(Vec::new()), Clock::system());
    let _asked = asked_from(&stuck, (1..).map(|n| [10, 0, 0, n].into()).take(MAX_PER_SOURCE));

    let began = Clock::system().now().monotonic;
    assert_eq!(ask_from(&stuck, [10, 0, 0, 99].into()).await, Err(Denied::Later));
    assert_eq!(Clock::system().now().monotonic, began, "one more isn't asked about");
    assert_eq!(ask_from(&stuck, [10, 0, 1, 1].into()).await, Err(Denied::Later));
    assert_eq!(Clock::system().now().monotonic - began, Duration::from_secs(3), "but another is");
}
