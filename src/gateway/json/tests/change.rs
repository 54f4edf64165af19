//! Other rules while a client is connected.

use super::second::Member;
use super::*;
use crate::signaling::hub;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(start_paused = true)]
async fn a_client_is_pinged_by_other_limits_at_once_and_has_their_whole_time_to_show_that_it_lives() {
    let context = context(99.0);
    let alice = Member::named(&context, "alice").await;
    tokio::time::sleep(seconds(19)).await;

    context.rules.send_modify(|rules| (rules.limits.ping_every, rules.limits.gone_after) = (seconds(2), seconds(5)));

    tokio::time::sleep(seconds(4)).await;
    assert!(!alice.client.served.is_finished(), "though it was silent for longer than five seconds before");
    tokio::time::sleep(seconds(2)).await;
    assert!(alice.client.served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn who_is_not_signed_in_yet_hears_that_there_is_nothing_to_sign_in_to() {
    let context = context(99.0);
    let mut client = Client::connect(&context, Dialect::Objects).await;
    let off = |is_on| context.rules.send_modify(|rules| rules.is_on = is_on);

    off(false);
    assert_eq!(client.hear_out().await, (0, Some(1001)));
    let mut late = Client::connect(&context, Dialect::Objects).await;
    assert_eq!(late.hear_out().await, (0, Some(1001)));
    off(true);

    Member::named(&context, "alice").await;
}

#[tokio::test(start_paused = true)]
async fn ice_servers_are_replaced_at_once_for_who_is_told_so_by_itself_and_again_in_time() {
    let context = context(99.0);
    let (mut alice, mut bob) =
        (Member::named(&context, "alice").await, Client::connect(&context, Dialect::Objects).await);
    bob.send(&json!({ "type": "login", "name": "bob" })).await;
    assert_eq!(bob.hear().await["success"], true);

    context.rules.send_modify(|rules| rules.ice += 1);

    let told = alice.client.hear().await;
    assert_eq!((&told["type"], &told["seq"]), (&json!("ice"), &json!(1)));
    context.rules.send_modify(|rules| rules.limits.bad_frames += 1);
    for client in [&mut alice.client, &mut bob] {
        client.send(&json!({ "type": "ping" })).await;
        assert_eq!(client.hear().await["type"], "pong", "nothing else came before");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_no_longer_than_it_is_told_to_wait_by_then() {
    let context = context(99.0);
    let alice = Member::named(&context, "alice").await;

    context.sessions.configure(hub::Settings { grace: seconds(1), ..settings() });
    alice.breaks().await;
    tokio::time::sleep(seconds(2)).await;

    assert_eq!(context.metrics.members.get(), 0);
}
