//! What one client, one user, one source may have, and how little a stranger gets.

use super::*;

/// shared/turn.md, "Limits": 32 bytes for 20, and less than 2.3 times what was asked of any other kind.
#[tokio::test]
async fn no_question_of_a_stranger_gets_an_answer_beyond_the_budget() {
    let scene = Scene::closed();
    let asker = scene.alice().await;
    let peer = xor(addr("198.51.100.1:9"));
    let mut forged = scene.alice().await;
    (forged.password, forged.nonce) = ("wrong".into(), b"AAAAAAAAAAAAAAAA".to_vec());
    let questions = [
        message(ALLOCATE, &[UDP]).raw,
        message(BINDING, &[]).raw,
        message(REFRESH, &[(LIFETIME, &[0; 4])]).raw,
        message(CREATE_PERMISSION, &[(PEER, &peer)]).raw,
        message(CHANNEL_BIND, &[(NUMBER, &[0x40, 0, 0, 0]), (PEER, &peer)]).raw,
        message(BINDING, &[(0x0003, &[0, 0, 0, 6])]).raw,
        message(BINDING, &[(0x0027, &[0, 0, 0, 0])]).raw,
        message(BINDING, &[(0x7FFF, &[])]).raw,
        message(BINDING, &[(0x7FFF, &[]), (0x7FFE, &[]), (0x7FFD, &[]), (0x7FFC, &[]), (0x7FFB, &[])]).raw,
        message(ALLOCATE, &[UDP, (0x7FFF, &[])]).raw,
        message(ALLOCATE, &[(0x0008, &[0; 20])]).raw,
        forged.signed(ALLOCATE, &[UDP]),
    ];

    for question in &questions {
        let answer = asker.exchange(question).await.raw;
        assert!(answer.len() * 10 <= question.len() * 23, "{} bytes for {question:x?}", answer.len());
    }

    assert_eq!((questions[0].len(), questions[1].len()), (28, 20), "the smallest of their kind");
    assert_eq!(asker.exchange(&questions[1]).await.raw.len(), 32);
}

/// shared/turn.md, "Limits".
#[tokio::test]
async fn a_request_of_less_than_28_bytes_other_than_binding_gets_nothing() {
    let scene = Scene::closed();

    for over in Over::ALL {
        let asker = scene.alice_over(over).await;
        for method in [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
            let short = [message(method, &[]).raw, message(method, &[(0x8022, b"")]).raw];
            scene.drops_each(&asker, "too-short", short).await;
        }
    }
}

/// shared/turn.md, "Limits".
#[tokio::test]
async fn challenges_and_other_answers_to_strangers_are_so_many_and_then_silence() {
    let limits = "[turn.limits]\nchallenges = \"1/h\"\nchallenge_burst = 5\n[limits]\nexempt = []\n";
    let scene = Scene::with(limits);
    // Its nonce takes the first. The start-up test has asked from 127.0.0.1.
    let asker = Asker::over(scene.line_from("127.0.8.1").await, "alice", "wonderland").await;
    let questions = [
        message(ALLOCATE, &[UDP]),
        message(ALLOCATE, &[(0x0008, &[0; 20])]),
        message(BINDING, &[(0x7FFF, b"")]),
        message(REFRESH, &[UDP]),
    ];

    for question in &questions {
        assert!(code(&asker.exchange(&question.raw).await) >= 400);
    }
    for question in &questions {
        asker.send(&question.raw).await;
    }
    assert_eq!(asker.code_of(ALLOCATE, &[UDP]).await, 0, "who proves who it is, is answered as ever");
    assert_eq!(scene.drops("rate-limited").await, 4);
    Asker::over(scene.line_from("127.0.9.1").await, "bob", "builder").await.allocate().await;
}

/// shared/turn.md, "Limits".
#[tokio::test]
async fn binding_answers_to_a_source_are_so_many_and_then_silence() {
    // A rate is its own burst, and of one at least.
    let scene = Scene::with("[turn.limits]\nbindings = \"3/h\"\n[limits]\nexempt = []\n");
    let asker = Asker::over(scene.line_from("127.0.8.1").await, "alice", "wonderland").await;

    assert_eq!(asker.exchange(&message(BINDING, &[]).raw).await.typ.value(), 0x0101);
    for _ in 0..9 {
        asker.send(&message(BINDING, &[]).raw).await;
    }
    assert_eq!(asker.refresh(0).await, 437, "the next to arrive");
    assert_eq!(scene.drops("rate-limited").await, 9);
}

/// RFC 8656, section 7.2, and shared/turn.md, "Limits": by user, not by name of a credential; what ends makes room.
#[tokio::test]
async fn allocations_beyond_what_a_user_may_have_are_answered_486() {
    let scene = Scene::with("[turn.limits]\nallocations_per_member = 2\n");
    let [first, second, third] = [scene.alice().await, scene.alice_over(Over::Tcp).await, scene.alice().await];
    first.allocate().await;
    assert_eq!(second.code_of(ALLOCATE, &[UDP, BOTH]).await, 486, "two more would be three");
    assert_eq!(second.code_of(ALLOCATE, &[UDP, (EVEN_PORT, &[0x80])]).await, 486, "a reservation counts");
    second.allocate().await;

    assert_eq!(third.code_of(ALLOCATE, &[UDP]).await, 486);
    scene.bob().await.allocate().await;
    assert_eq!(first.refresh(0).await, 0);
    third.allocate().await;
}

/// shared/turn.md, "Limits".
#[tokio::test]
async fn allocations_beyond_what_a_source_may_have_are_answered_486() {
    let scene = Scene::with("[turn.limits]\nallocations_per_source = 2\n[limits]\nexempt = []\n");
    let (alice, bob) = (scene.alice().await, scene.bob_over(Over::Tcp).await);
    alice.allocate().await;
    bob.allocate().await;

    assert_eq!(scene.bob().await.code_of(ALLOCATE, &[UDP]).await, 486, "whoever asks");

    Asker::over(scene.line_from("127.0.9.1").await, "bob", "builder").await.allocate().await;
}

/// shared/turn.md, "Limits": nobody scans others through us.
#[tokio::test]
async fn new_peers_beyond_what_a_user_may_begin_with_are_answered_508() {
    let scene = Scene::with("[turn.limits]\nnew_peers = \"1/h\"\nnew_peer_burst = 3\n");
    let ((asker, _), second, bob) = (scene.allocated().await, scene.alice().await, scene.bob().await);
    let [one, two, three, four] = [1, 2, 3, 4].map(|n| addr(&format!("127.0.0.{n}:9")));
    second.allocate().await;
    bob.allocate().await;

    assert_eq!((asker.permit(one).await, asker.bind(0x4000, two).await), (0, 0));
    assert_eq!((asker.permit(one).await, asker.bind(0x4000, two).await), (0, 0), "these are known");
    let both = [xor(three), xor(four)];
    assert_eq!(asker.code_of(CREATE_PERMISSION, &[(PEER, &both[0]), (PEER, &both[1])]).await, 508);
    assert_eq!(second.permit(three).await, 0, "the last");
    assert_eq!((asker.permit(four).await, second.bind(0x4000, four).await), (508, 508), "by whatever allocation");
    assert_eq!(bob.permit(four).await, 0, "somebody else has a share of his own");
}

/// shared/turn.md: a relay of thousands of sockets.
#[tokio::test]
async fn the_number_of_open_files_is_raised_as_far_as_it_goes() {
    let scene = Scene::closed();

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", scene.server.pid())).unwrap();

    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let numbers: Vec<_> = line.split_whitespace().collect();
    assert_eq!(numbers[0], numbers[1], "the soft limit is the hard one: {line}");
}
