//! Binding: what is my address?

use stun::attributes::*;

use super::*;

/// RFC 8489, sections 6.3.1.1 and 14.2; with nothing else in it: 32 bytes for a question of 20.
#[tokio::test]
async fn a_binding_request_is_answered_with_the_clients_address_and_nothing_else() {
    let scene = Scene::open();

    for over in Over::ALL {
        let line = scene.line(over).await;
        let client = line.local_addr();
        let asker = Asker::over(line, "alice", "wonderland").await;
        let answer = asker.exchange(&message(BINDING, &[]).raw).await;
        assert_eq!((answer.typ.value(), answer.raw.len()), (0x0101, 32), "{over:?}");
        assert_eq!(addresses(&answer, ATTR_XORMAPPED_ADDRESS), [client], "{over:?}");
    }
}

/// RFC 8489, section 14.2.
#[tokio::test]
async fn a_client_over_ipv6_is_told_its_ipv6_address() {
    let server =
        Server::start(&PEERS_ON_LOOPBACK.replace("listen_udp = [\"127.0.0.1:0\"]", "listen_udp = [\"[::1]:0\"]"));
    let asker = Asker::new(server.udp(), "alice", "wonderland").await;

    let answer = asker.exchange(&message(BINDING, &[]).raw).await;

    assert_eq!(answer.raw.len(), 44);
    assert_eq!(addresses(&answer, ATTR_XORMAPPED_ADDRESS), [asker.line.local_addr()]);
    assert!(asker.allocate().await.is_ipv4(), "IPv4 is what a client gets that names no family");
}

/// RFC 8489, section 13: without authentication, so that a proof is neither wanted nor looked at.
#[tokio::test]
async fn a_binding_request_needs_no_proof_and_a_wrong_one_does_no_harm() {
    let scene = Scene::open();
    let mut asker = scene.alice().await;
    asker.password = "wrong".into();

    let answer = asker.exchange(&asker.signed(BINDING, &[])).await;

    assert_eq!(answer.typ.value(), 0x0101);
    assert_eq!(kinds(&answer), [ATTR_XORMAPPED_ADDRESS.0], "and isn't answered by one");
}

/// RFC 8489, section 6.3.2: it keeps a binding of NATs alive, and no more.
#[tokio::test]
async fn a_binding_indication_gets_no_answer() {
    let scene = Scene::open();
    let asker = scene.alice().await;

    scene.drops_each(&asker, "unexpected", [message(0x0011, &[]).raw]).await;
}

/// RFC 8489, section 6.3.1.
#[tokio::test]
async fn a_binding_request_with_required_attributes_that_nobody_knows_is_answered_420_with_their_list() {
    let scene = Scene::open();
    let given: [(u16, &[u8]); 4] = [(0x0003, &[0, 0, 0, 6]), (0x8099, b"optional"), (0x7FFF, b""), (0x0003, &[0; 4])];

    for over in Over::ALL {
        let answer = scene.alice_over(over).await.exchange(&message(BINDING, &given).raw).await;
        assert_eq!(code(&answer), 420, "{over:?}");
        assert_eq!(answer.get(ATTR_UNKNOWN_ATTRIBUTES).unwrap(), [0x00, 0x03, 0x7F, 0xFF], "{over:?}");
    }
}

/// RFC 8489, section 14.
#[tokio::test]
async fn optional_attributes_that_nobody_knows_are_passed_over() {
    let scene = Scene::open();
    let asker = scene.alice().await;

    let answer = asker.exchange(&message(BINDING, &[(0x8022, b"a client"), (0x8099, b"?"), (0xFFFF, b"")]).raw).await;

    assert_eq!(answer.typ.value(), 0x0101);
}

/// RFC 8489, section 6.3.1.
#[tokio::test]
async fn a_retransmitted_binding_request_gets_the_same_answer() {
    let scene = Scene::open();
    let (asker, question) = (scene.alice().await, message(BINDING, &[]).raw);

    assert_eq!(asker.exchange(&question).await.raw, asker.exchange(&question).await.raw);
}
