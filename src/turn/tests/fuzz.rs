//! Requests made of chance, from somebody with a good credential: nothing that is sent may break anything.

use proptest::prelude::*;

use super::*;

/// Attribute types that mean something, and some that don't.
const KINDS: [u16; 16] = [
    0x0006, 0x0008, 0x000C, 0x000D, 0x0012, 0x0014, 0x0015, 0x0017, 0x0018, 0x0019, 0x001A, 0x0020, 0x0022, 0x8029,
    0x8022, 0x0000,
];

fn attributes() -> impl Strategy<Value = Given> {
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(vec![17, 0, 0, 0]),
        Just(vec![0x40, 0, 0, 0]),
        Just(vec![0x80]),
        Just(peer("8.8.8.8:9").remove(0).1),
    ];
    prop::collection::vec((prop::sample::select(KINDS.to_vec()), value), 0..6)
}

fn method() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => prop::sample::select(vec![BINDING, ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND]),
        1 => any::<u16>().prop_map(|kind| kind & 0x3EEF),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_requests_breaks_the_control_plane(
        requests in prop::collection::vec((method(), attributes(), 0..700_u64, any::<bool>()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(|settings| settings.relay_ports = 50_000..=50_003);
            for (method, attributes, wait, allocate) in requests {
                world.challenged().await;
                if allocate {
                    let _ = world.code_of(ALLOCATE, transport()).await;
                }
                let message = world.signed(method, &attributes);
                if let Some(answer) = world.send(&message.raw).await {
                    assert_eq!(parsed(&answer).transaction_id, message.transaction_id);
                }
                world.pass(Duration::from_secs(wait)).await;
                world.commands.clear();
            }
            world.pass(Duration::from_secs(3601)).await;

            assert_eq!(world.metrics.allocations.get() + world.metrics.reservations.get(), 0);
            assert_eq!(world.processor.idle_ports("192.0.2.9".parse().unwrap()), Some(4), "nothing is left taken");
        });
    }

    #[test]
    fn no_bytes_at_all_break_the_control_plane(raw: Vec<u8>, head: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(|_| ());
            let mut message = world.message(ALLOCATE, &vec![]).raw;
            if head {
                message[2..4].copy_from_slice(&u16::try_from(raw.len() & !3).unwrap().to_be_bytes());
            } else {
                message.clear();
            }
            message.extend(&raw[..raw.len() & !3]);

            world.send(&message).await;

            assert_eq!(world.metrics.allocations.get(), 0);
        });
    }
}
