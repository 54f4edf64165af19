//! What tells whether a media thread turns.

use super::*;

#[tokio::test]
async fn a_pulse_beats_when_the_thread_has_done_a_round_and_never_while_it_hangs() {
    let (settings, _asked) = Settings::plain(Vec::new(), &Arc::default());
    let (mut media, shard) = Media::of_all(vec![settings]).unwrap().remove(0);
    let pulse = shard.pulse();
    let (mut batch, mut events) = (Batch::new(), Events::with_capacity(1));

    let hung = tokio::time::timeout(BEAT * 4, pulse.beat()).await;
    let beating = tokio::spawn(async move { pulse.beat().await });
    tokio::task::yield_now().await;
    // It was rung for, or this would wait for ever.
    media.round(&mut batch, &mut events).unwrap();

    assert!(hung.is_err());
    beating.await.unwrap();
}
