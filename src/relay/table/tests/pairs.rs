//! What an observer is told, against what the table does with packets at the same time.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::PoisonError;

use super::*;
use crate::relay::pairs::PairEvent;

/// Keeps what it is told.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Vec<PairEvent>>>);

impl Observer for Recorder {
    fn handle_pair(&mut self, event: PairEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Recorder {
    fn take(&self) -> Vec<PairEvent> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who has heard all of it: the pairs that are up, until when.
#[derive(Default)]
struct Replay(HashMap<Pair, Instant>);

impl Replay {
    /// Takes an event, which must fit what came before.
    fn take(&mut self, event: PairEvent, now: Instant) {
        let fits = match event {
            PairEvent::Up { pair, deadline } => deadline > now && self.0.insert(pair, deadline).is_none(),
            PairEvent::Extended { pair, deadline } => {
                self.0.insert(pair, deadline).is_some_and(|before| before > now && before < deadline)
            }
            PairEvent::Down { pair } => self.0.remove(&pair).is_some(),
        };
        assert!(fits, "{event:?}");
    }
}

/// A table that is observed, and what stands beside it.
struct World {
    table: Table<u64>,
    recorder: Recorder,
    replay: Replay,
    now: Instant,
    /// By name: client, port and slot.
    opened: HashMap<u64, (u16, u16, Slot)>,
}

/// Relayed addresses may be left for through the kernel while they are nobody's; one outsider never may be.
fn peers() -> Vec<PeerAddr> {
    let [denied, one, other, .., six] = outsiders();
    vec![denied, one, other, six, relayed(1), advertised(2), relayed(2)]
}

fn allowed() -> Vec<Prefix> {
    ["192.0.2.1", "203.0.113.1"].map(|ip| ip.parse().unwrap()).into()
}

impl World {
    fn new() -> Self {
        let policy = judging(allowed(), false);
        let recorder = Recorder::default();
        let table = Table::new(policy, Arc::new(Directory::new()), ShardId(0), Some(Box::new(recorder.clone())));
        Self { table, recorder, replay: Replay::default(), now: now(), opened: HashMap::new() }
    }

    /// Every pair for which ChannelData reaches the peer through the kernel, and the peer's data comes back as such.
    fn forwarded(&self, at: Instant) -> HashSet<Pair> {
        let mut pairs = HashSet::new();
        for (number, port, slot) in self.opened.values() {
            let client = client(*number);
            for (channel, peer) in (0x4000..0x4004).flat_map(|channel| peers().into_iter().map(move |it| (channel, it)))
            {
                let out = self.table.handle_client_data(&client.five_tuple, Target::Channel(channel), at);
                let back = self.table.handle_peer_data(*slot, peer, at);
                if out == Ok(Forward::ToPeer { from: *slot, to: peer })
                    && back == Ok(Delivery { client, framing: Framing::Channel(channel) })
                {
                    let relayed = RelayedAddr(relayed(*port).get());
                    pairs.insert(Pair { client: client.five_tuple, channel, relayed, peer });
                }
            }
        }
        pairs
    }

    fn carry_out(&mut self, step: &Step) {
        let (now, table) = (self.now, &mut self.table);
        match *step {
            Step::Open { client, port, life } => {
                let id = (0..).find(|id| !self.opened.contains_key(id)).unwrap();
                if let Ok(slot) = table.open(opening(id, client, port, now + secs(life)), now) {
                    self.opened.insert(id, (client, port, slot));
                }
            }
            Step::Extend { id, life } => table.extend(AllocationId(id), now + secs(life), now),
            Step::Permit { id, peer, life } => {
                table.permit(AllocationId(id), peer.ip(), now + secs(life), now).unwrap();
            }
            Step::Bind { id, number, peer, life } => {
                // On a 5-tuple no number is bound in both families: the control plane sees to it.
                let family = self.opened.get(&id).map_or(0, |(_, port, _)| u16::from(*port > 3));
                let _ = table.bind(AllocationId(id), number + 2 * family, peer, now + secs(life), now);
            }
            Step::Forbid { id, peer } => table.forbid(AllocationId(id), peer.ip(), now),
            Step::Judge { strictly } => table.judge_by(judging(allowed(), strictly), now),
            Step::Close { id } => {
                table.close(AllocationId(id), now);
                self.opened.remove(&id);
            }
            Step::Wait(_) | Step::ClientData { .. } | Step::PeerData { .. } => {}
        }
    }

    /// Compares what was told with what is forwarded, and with how long.
    fn check(&mut self) {
        for event in self.recorder.take() {
            self.replay.take(event, self.now);
        }
        assert_eq!(self.replay.0.keys().copied().collect::<HashSet<_>>(), self.forwarded(self.now));
        for (pair, deadline) in &self.replay.0 {
            assert!(self.forwarded(*deadline - Duration::from_nanos(1)).contains(pair));
            assert!(!self.forwarded(*deadline).contains(pair));
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || 0..4_u64;
    let life = || 0..40_u64;
    let peer = || prop::sample::select(peers());
    let step = prop_oneof![
        3 => (1..=2_u16, 1..=5_u16, life()).prop_map(|(client, port, life)| Step::Open { client, port, life }),
        3 => (id(), life()).prop_map(|(id, life)| Step::Extend { id, life }),
        8 => (id(), peer(), life()).prop_map(|(id, peer, life)| Step::Permit { id, peer, life }),
        8 => (id(), 0x4000..0x4002_u16, peer(), life())
            .prop_map(|(id, number, peer, life)| Step::Bind { id, number, peer, life }),
        2 => (id(), peer()).prop_map(|(id, peer)| Step::Forbid { id, peer }),
        1 => any::<bool>().prop_map(|strictly| Step::Judge { strictly }),
        1 => id().prop_map(|id| Step::Close { id }),
        3 => (0..8_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn an_observer_knows_at_all_times_between_whom_the_table_forwards(steps in steps(), punctual: bool) {
        let mut world = World::new();

        for step in &steps {
            let Step::Wait(seconds) = step else {
                world.carry_out(step);
                world.check();
                continue;
            };
            for _ in 0..*seconds {
                world.now += secs(1);
                // Who comes late finds that the next command has told it first.
                if punctual && world.table.poll_timeout().is_some_and(|due| due <= world.now) {
                    world.table.handle_timeout(world.now);
                }
                if punctual {
                    world.check();
                }
            }
        }
        for id in world.opened.clone().into_keys() {
            world.carry_out(&Step::Close { id });
        }

        world.check();
        prop_assert_eq!(world.table.poll_timeout(), None, "nothing is waited for when nothing is open");
    }
}

#[test]
fn refreshing_without_end_keeps_one_entry_for_a_channel() {
    let mut world = World::new();
    let [_, peer, ..] = outsiders();
    world.carry_out(&Step::Open { client: 1, port: 1, life: 600 });

    for _ in 0..10_000 {
        world.now += Duration::from_millis(1);
        world.carry_out(&Step::Permit { id: 0, peer, life: 300 });
        world.carry_out(&Step::Bind { id: 0, number: 0x4000, peer, life: 600 });
    }

    let told = world.recorder.take();
    let extended = told.iter().filter(|event| matches!(event, PairEvent::Extended { .. })).count();
    assert_eq!((told.len(), extended), (10_000, 9_999), "once for each change, not for each command");
    assert_eq!(world.table.pairs.as_ref().map(Pairs::sizes), Some((1, 1)));
}

#[test]
fn nobody_is_waited_for_when_nobody_observes() {
    let mut world = World::new();
    world.table = Table::new(policy(), Arc::new(Directory::new()), ShardId(0), None);
    let [_, peer, ..] = outsiders();

    world.carry_out(&Step::Open { client: 1, port: 1, life: 600 });
    world.carry_out(&Step::Permit { id: 0, peer, life: 300 });
    world.carry_out(&Step::Bind { id: 0, number: 0x4000, peer, life: 600 });

    assert_eq!(world.forwarded(world.now).len(), 1);
    assert_eq!(world.table.poll_timeout(), None);
}
