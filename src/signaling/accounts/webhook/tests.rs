use std::sync::Arc;

use super::*;
use crate::clock::Clock;

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
    Webhook::new(Box::new(Service(answer)), Duration::from_secs(3), Clock::system().now())
}

async fn ask(webhook: &Webhook, name: Option<&Name>) -> Result<Account, Denied> {
    let asking = Asking { name, token: Some("t"), source: [192, 0, 2, 1].into(), host: "localhost", gateway: "json" };
    webhook.ask(&asking, Clock::system().now()).await
}

#[tokio::test]
async fn an_answer_lets_in_or_refuses_and_anything_else_is_no_answer() {
    let alice = Name::new("alice").unwrap();
    let account = |name: &Name, ice_servers| Ok(Account { name: Some(name.clone()), ice_servers });

    for (answer, outcome) in [
        (r#"{"allow":true}"#, account(&alice, vec![])),
        (r#"{"allow":true,"name":null,"more":1}"#, account(&alice, vec![])),
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
    let stuck = Arc::new(webhook(None));
    let asked: Vec<_> = (0..MAX_UNDER_WAY + MAX_WAITING)
        .map(|_| {
            let stuck = Arc::clone(&stuck);
            tokio::spawn(async move { ask(&stuck, None).await })
        })
        .collect();
    while stuck.places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }

    let began = Clock::system().now().monotonic;
    assert_eq!(stuck.under_way.available_permits(), 0);
    assert_eq!(ask(&stuck, None).await, Err(Denied::Later));
    assert_eq!(Clock::system().now().monotonic, began, "one more isn't kept waiting");
    for asked in asked {
        assert_eq!(asked.await.unwrap(), Err(Denied::Later));
    }
    assert_eq!(Clock::system().now().monotonic - began, Duration::from_secs(3));
    assert_eq!(stuck.under_way.available_permits(), MAX_UNDER_WAY, "nothing is held for ever");
}
