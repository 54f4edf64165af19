//! The table against a naive model, and what the model can't reach: the caps.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::address::Prefix;
use crate::address::Transport;
use crate::clock::Clock;
use crate::policy;
use crate::relay::command::ListenerId;
use crate::relay::command::MAX_CHANNELS;
use crate::relay::command::MAX_PERMISSIONS;
use crate::relay::departures::Departures;
use crate::relay::forwarder::Watched;

mod pairs;

type Secs = u64;

/// The allocations of the model relay at 192.0.2.1, ports 1 to 3, known as 203.0.113.1, and at 2001:db8::1, ports 4 and 5,
/// known as 2001:db8::f.
fn relayed(n: u16) -> PeerAddr {
    let ip = if n <= 3 { "192.0.2.1" } else { "2001:db8::1" };
    PeerAddr::new(SocketAddr::new(ip.parse().unwrap(), n))
}

fn advertised(n: u16) -> PeerAddr {
    let ip = if n <= 3 { "203.0.113.1" } else { "2001:db8::f" };
    PeerAddr::new(SocketAddr::new(ip.parse().unwrap(), n))
}

fn client(n: u16) -> Client {
    let five_tuple = FiveTuple::new(
        Transport::Udp,
        SocketAddr::from(([198, 51, 100, 1], n)),
        SocketAddr::from(([192, 0, 2, 9], 3478)),
    );
    Client { five_tuple, via: Via::Datagram(ListenerId(n.into())) }
}

/// Denied, reachable, and denied but allowed.
fn outsiders() -> [PeerAddr; 5] {
    ["10.0.0.1:1", "8.8.8.8:1", "8.8.8.8:2", "10.1.0.1:1", "[2606:4700::1]:1"]
        .map(|addr| PeerAddr::new(addr.parse().unwrap()))
}

fn policy() -> Arc<Policy> {
    let allow: Vec<Prefix> = vec!["10.1.0.0/16".parse().unwrap()];
    judging(allow, false)
}

/// A policy that allows those, and may deny one outsider that another lets in.
fn judging(allow: Vec<Prefix>, strictly: bool) -> Arc<Policy> {
    let deny = if strictly { vec!["8.8.8.0/24".parse().unwrap()] } else { Vec::new() };
    Arc::new(Policy::new(policy::Settings { allow, deny, ..policy::Settings::default() }))
}

fn table() -> Table<u64> {
    Table::new(policy(), Arc::new(Directory::new()), ShardId(0), None)
}

fn now() -> Instant {
    Clock::system().now().monotonic
}

fn secs(n: Secs) -> Duration {
    Duration::from_secs(n)
}

fn opening(id: u64, client_number: u16, port: u16, deadline: Instant) -> Opening<u64> {
    Opening {
        id: AllocationId(id),
        client: client(client_number),
        relayed: RelayedAddr(relayed(port).get()),
        advertised: advertised(port),
        socket: id,
        deadline,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open { client: u16, port: u16, life: Secs },
    Extend { id: u64, life: Secs },
    Permit { id: u64, peer: PeerAddr, life: Secs },
    Bind { id: u64, number: u16, peer: PeerAddr, life: Secs },
    Forbid { id: u64, peer: PeerAddr },
    Judge { strictly: bool },
    Close { id: u64 },
    Wait(Secs),
    ClientData { client: u16, target: Target },
    PeerData { id: u64, peer: PeerAddr },
}

/// Everything the table knows, as plain lists; every question is answered by looking at all of it.
#[derive(Default)]
struct Model {
    now: Secs,
    allocations: Vec<Modeled>,
    is_strict: bool,
}

struct Modeled {
    id: u64,
    client: u16,
    port: u16,
    deadline: Secs,
    permissions: Vec<(IpAddr, Secs)>,
    channels: Vec<(u16, PeerAddr, Secs)>,
}

impl Modeled {
    fn is_ipv4(&self) -> bool {
        self.port <= 3
    }

    fn permits(&self, peer: PeerAddr, now: Secs) -> bool {
        self.permissions.iter().any(|(ip, deadline)| *ip == peer.ip() && *deadline > now)
    }

    fn framing(&self, named: &[PeerAddr], now: Secs) -> Framing {
        let bound = |name: &PeerAddr| self.channels.iter().find(|(_, peer, end)| peer == name && *end > now);
        let usable = named.iter().filter(|name| self.permits(**name, now));
        usable.filter_map(bound).next().map_or(Framing::Data(named[0]), |(number, ..)| Framing::Channel(*number))
    }
}

impl Model {
    fn get(&mut self, id: u64) -> Option<&mut Modeled> {
        self.allocations.iter_mut().find(|it| it.id == id)
    }

    fn open(&mut self, id: u64, client: u16, port: u16, life: Secs) -> bool {
        let free =
            !self.allocations.iter().any(|it| it.port == port || (it.client == client && it.is_ipv4() == (port <= 3)));
        if free {
            let deadline = self.now + life;
            self.allocations.push(Modeled { id, client, port, deadline, permissions: vec![], channels: vec![] });
        }
        free
    }

    fn bind(&mut self, id: u64, number: u16, peer: PeerAddr, life: Secs) -> bool {
        let now = self.now;
        let Some(allocation) = self.get(id) else { return true };
        let clash = |n: u16, p: PeerAddr| (n == number) != (p == peer);
        if allocation.channels.iter().any(|(n, p, end)| clash(*n, *p) && *end > now) {
            return false;
        }
        allocation.channels.retain(|(n, p, _)| *n != number && *p != peer);
        allocation.channels.push((number, peer, now + life));
        true
    }

    fn client_data(&mut self, client: u16, target: Target) -> Result<Expected, DropReason> {
        let now = self.now;
        let of_client = self.allocations.iter().filter(|it| it.client == client && it.deadline > now);
        let mut legs: Vec<_> = of_client.collect();
        legs.sort_by_key(|it| it.port);
        legs.first().ok_or(DropReason::NoAllocation)?;
        let (sender, peer) = match target {
            Target::Peer(peer) => {
                let leg = legs.iter().find(|it| it.is_ipv4() == peer.ip().is_ipv4());
                (*leg.ok_or(DropReason::NoPermission)?, peer)
            }
            Target::Channel(number) => {
                let bound =
                    |it: &Modeled| it.channels.iter().find(|(n, _, end)| *n == number && *end > now).map(|it| it.1);
                let sending = legs.iter().find_map(|it| Some((*it, bound(it)?)));
                sending.ok_or(DropReason::NoChannel)?
            }
        };
        if !sender.permits(peer, now) {
            return Err(DropReason::NoPermission);
        }
        let (id, names) = (sender.id, [advertised(sender.port), relayed(sender.port)]);
        let receiver = self.allocations.iter().find(|it| advertised(it.port) == peer || relayed(it.port) == peer);
        let outcome = match receiver {
            Some(receiver) if receiver.deadline <= now => return Err(DropReason::NotOurs),
            Some(receiver) if !names.iter().any(|name| receiver.permits(*name, now)) => {
                return Err(DropReason::NoPermission);
            }
            Some(receiver) => Expected::Hairpin(id, receiver.id, receiver.framing(&names, now)),
            None if outsiders()[if self.is_strict { 3 } else { 1 }..].contains(&peer) => Expected::Out(id, peer),
            None if self
                .allocations
                .iter()
                .any(|it| [relayed(it.port), advertised(it.port)].map(PeerAddr::ip).contains(&peer.ip())) =>
            {
                return Err(DropReason::NotOurs);
            }
            None => return Err(DropReason::PeerDenied),
        };
        Ok(outcome)
    }

    fn peer_data(&mut self, id: u64, peer: PeerAddr) -> Result<Framing, DropReason> {
        let now = self.now;
        let receiver = self.get(id).filter(|it| it.deadline > now).ok_or(DropReason::NotOurs)?;
        if !receiver.permits(peer, now) {
            return Err(DropReason::NoPermission);
        }
        Ok(receiver.framing(&[peer], now))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Out(u64, PeerAddr),
    Hairpin(u64, u64, Framing),
}

fn peers() -> impl Strategy<Value = PeerAddr> {
    let ours = (1..=5).flat_map(|n| [relayed(n), advertised(n)]);
    prop::sample::select(ours.chain(outsiders()).collect::<Vec<_>>())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || 0..6_u64;
    let life = || 0..40_u64;
    let number = || 0x4000..0x4004_u16;
    let step = prop_oneof![
        3 => (1..=3_u16, 1..=5_u16, life()).prop_map(|(client, port, life)| Step::Open { client, port, life }),
        1 => (id(), life()).prop_map(|(id, life)| Step::Extend { id, life }),
        6 => (id(), peers(), life()).prop_map(|(id, peer, life)| Step::Permit { id, peer, life }),
        4 => (id(), number(), peers(), life()).prop_map(|(id, number, peer, life)| Step::Bind { id, number, peer, life }),
        2 => (id(), peers()).prop_map(|(id, peer)| Step::Forbid { id, peer }),
        1 => any::<bool>().prop_map(|strictly| Step::Judge { strictly }),
        1 => id().prop_map(|id| Step::Close { id }),
        2 => (0..8_u64).prop_map(Step::Wait),
        5 => (1..=3_u16, number()).prop_map(|(client, n)| Step::ClientData { client, target: Target::Channel(n) }),
        5 => (1..=3_u16, peers()).prop_map(|(client, peer)| Step::ClientData { client, target: Target::Peer(peer) }),
        4 => (id(), peers()).prop_map(|(id, peer)| Step::PeerData { id, peer }),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn the_table_decides_as_a_naive_model_does(steps in steps(), shards in 1..=3_usize) {
        let start = now();
        let directory = Arc::new(Directory::new());
        let table = |shard| Table::new(policy(), Arc::clone(&directory), ShardId(shard), None);
        let mut tables: Vec<_> = (0..shards).map(table).collect();
        let shard_of = |client: u16| usize::from(client) % shards;
        let mut model = Model::default();
        let mut slots = HashMap::new();
        let mut opened = 0;
        // By name of the allocation, opened or not.
        let mut home = HashMap::new();

        for step in steps {
            let at = start + secs(model.now);
            match step {
                Step::Open { client, port, life } => {
                    let shard = shard_of(client);
                    if model.allocations.iter().any(|it| it.port == port && shard_of(it.client) != shard) {
                        // The pool of ports sees to it.
                        continue;
                    }
                    let slot = tables[shard].open(opening(opened, client, port, at + secs(life)), at);
                    prop_assert_eq!(slot.is_ok(), model.open(opened, client, port, life));
                    slots.extend(slot.map(|slot| (opened, slot)));
                    home.insert(opened, shard);
                    opened += 1;
                }
                Step::Extend { id, life } => {
                    let Some(shard) = home.get(&id) else { continue };
                    tables[*shard].extend(AllocationId(id), at + secs(life), at);
                    let deadline = model.now + life;
                    if let Some(allocation) = model.get(id) {
                        allocation.deadline = deadline;
                    }
                }
                Step::Permit { id, peer, life } => {
                    let Some(shard) = home.get(&id) else { continue };
                    let done = tables[*shard].permit(AllocationId(id), peer.ip(), at + secs(life), at);
                    prop_assert_eq!(done, Ok(()));
                    let deadline = model.now + life;
                    if let Some(allocation) = model.get(id) {
                        allocation.permissions.retain(|(ip, _)| *ip != peer.ip());
                        allocation.permissions.push((peer.ip(), deadline));
                    }
                }
                Step::Bind { id, number, peer, life } => {
                    let Some(shard) = home.get(&id) else { continue };
                    let done = tables[*shard].bind(AllocationId(id), number, peer, at + secs(life), at);
                    prop_assert_eq!(done.is_ok(), model.bind(id, number, peer, life));
                }
                Step::Forbid { id, peer } => {
                    let Some(shard) = home.get(&id) else { continue };
                    tables[*shard].forbid(AllocationId(id), peer.ip(), at);
                    if let Some(allocation) = model.get(id) {
                        allocation.permissions.retain(|(ip, _)| *ip != peer.ip());
                        allocation.channels.retain(|(_, bound, _)| bound.ip() != peer.ip());
                    }
                }
                Step::Judge { strictly } => {
                    let policy = judging(policy().settings().allow.clone(), strictly);
                    tables.iter_mut().for_each(|table| table.judge_by(Arc::clone(&policy), at));
                    model.is_strict = strictly;
                }
                Step::Close { id } => {
                    let Some(shard) = home.get(&id) else { continue };
                    let closed = tables[*shard].close(AllocationId(id), at);
                    let expected = model.get(id).map(|_| id);
                    model.allocations.retain(|it| it.id != id);
                    prop_assert_eq!(closed.map(|opening| opening.socket), expected);
                    slots.remove(&id);
                }
                Step::Wait(seconds) => model.now += seconds,
                Step::ClientData { client: number, target } => {
                    let from = shard_of(number);
                    let decided = tables[from].handle_client_data(&client(number).five_tuple, target, at);
                    let expected = model.client_data(number, target).map(|it| match it {
                        Expected::Out(id, to) => (Forward::ToPeer { from: slots[&id], to }, from),
                        Expected::Hairpin(from, to, framing) => {
                            let delivery = Delivery { client: client(model.get(to).unwrap().client), framing };
                            (Forward::Hairpin { from: slots[&from], to: slots[&to], delivery }, home[&to])
                        }
                    });
                    let arrived = decided.and_then(|forward| match forward {
                        Forward::Elsewhere { from, names, to, shard: ShardId(shard) } => {
                            let (to, delivery) = tables[shard].handle_neighbours_data(names, to, at)?;
                            Ok((Forward::Hairpin { from, to, delivery }, shard))
                        }
                        here @ (Forward::ToPeer { .. } | Forward::Hairpin { .. }) => Ok((here, from)),
                    });
                    prop_assert_eq!(arrived, expected);
                }
                Step::PeerData { id, peer } => {
                    let Some(slot) = slots.get(&id) else { continue };
                    let decided = tables[home[&id]].handle_peer_data(*slot, peer, at);
                    let expected = model.peer_data(id, peer).map(|framing| {
                        Delivery { client: client(model.get(id).unwrap().client), framing }
                    });
                    prop_assert_eq!(decided, expected);
                }
            }
        }
        for (id, shard) in home {
            tables[shard].close(AllocationId(id), start);
        }
        let is_empty = |it: &Table<u64>| it.by_id.is_empty() && it.by_client.is_empty() && it.allocations.is_empty();
        prop_assert!(tables.iter().all(is_empty), "closing leaves nothing behind");
        let names = (1..=5).flat_map(|n| [relayed(n), advertised(n)]);
        let is_left = |it: PeerAddr| directory.owner(it).is_some() || directory.is_relay_ip(it.ip());
        prop_assert!(!names.into_iter().any(is_left));
    }
}

#[test]
fn permissions_are_capped_and_expired_ones_make_room() {
    let start = now();
    let mut table = table();
    table.open(opening(1, 1, 1, start + secs(600)), start).unwrap();
    let mut permit = |n: usize, at: Secs| {
        let ip = std::net::Ipv4Addr::from_bits(0x0808_0000 + u32::try_from(n).unwrap()).into();
        table.permit(AllocationId(1), ip, start + secs(at + 300), start + secs(at))
    };

    assert!((0..MAX_PERMISSIONS).all(|n| permit(n, 0).is_ok()));
    assert_eq!(permit(MAX_PERMISSIONS, 299), Err(Refused));
    assert_eq!(permit(0, 299), Ok(()), "a renewal needs no room");
    assert_eq!(permit(MAX_PERMISSIONS, 300), Ok(()));
    assert_eq!(table.allocations[0].permissions.len(), 2);
}

#[test]
fn channels_are_capped_and_expired_ones_make_room() {
    let start = now();
    let mut table = table();
    table.open(opening(1, 1, 1, start + secs(600)), start).unwrap();
    let mut bind = |n: usize, at: Secs| {
        let n = u16::try_from(n).unwrap();
        let peer = PeerAddr::new(SocketAddr::from(([8, 8, 8, 8], n)));
        table.bind(AllocationId(1), 0x4000 + n, peer, start + secs(at + 600), start + secs(at))
    };

    assert!((0..MAX_CHANNELS).all(|n| bind(n, 0).is_ok()));
    assert_eq!(bind(MAX_CHANNELS, 599), Err(Refused));
    assert_eq!(bind(0, 599), Ok(()), "a renewal needs no room");
    assert_eq!(bind(MAX_CHANNELS, 600), Ok(()));
    assert_eq!((table.allocations[0].channels.len(), table.allocations[0].numbers.len()), (2, 2));
}

#[test]
fn two_clients_reach_each_other_by_advertised_addresses_that_the_policy_denies() {
    let start = now();
    let mut table = table();
    let [from, to] = [1, 2].map(|n| {
        let slot = table.open(opening(n.into(), n, n, start + secs(600)), start).unwrap();
        let id = AllocationId(n.into());
        table.permit(id, advertised(1).ip(), start + secs(300), start).unwrap();
        table.bind(id, 0x4000 + n, advertised(3 - n), start + secs(600), start).unwrap();
        slot
    });

    let sent = table.handle_client_data(&client(1).five_tuple, Target::Channel(0x4001), start);

    let delivery = Delivery { client: client(2), framing: Framing::Channel(0x4002) };
    assert_eq!(sent, Ok(Forward::Hairpin { from, to, delivery }));
}

#[test]
fn icmp_errors_are_told_to_who_permits_their_peer_and_rarely() {
    let start = now();
    let mut table = table();
    let slot = table.open(opening(1, 1, 1, start + secs(600)), start).unwrap();
    table.permit(AllocationId(1), outsiders()[1].ip(), start + secs(300), start).unwrap();
    let mut told = |peer: PeerAddr, at: Secs| table.handle_icmp_error(slot, peer, start + secs(at));

    assert_eq!(told(outsiders()[0], 0), Err(DropReason::NoPermission));
    let at_once = (0..1000).filter(|_| told(outsiders()[2], 0) == Ok(client(1))).count();
    assert_eq!(at_once, 20, "whichever port, and what isn't permitted costs nothing");
    assert_eq!(told(outsiders()[1], 0), Err(DropReason::RateLimited));
    assert_eq!((0..1000).filter(|_| told(outsiders()[1], 1).is_ok()).count(), 10);
    assert_eq!(told(outsiders()[1], 300), Err(DropReason::NoPermission), "the permission has expired");
    assert_eq!(told(outsiders()[1], 600), Err(DropReason::NotOurs), "the allocation has expired");
}

#[test]
fn each_allocation_has_a_bandwidth_of_its_own_that_begins_anew_with_it() {
    let start = now();
    let mut table = table();
    let rate = Rate { per_second: 1000.0, burst: 2000.0 };
    let [one, other] = [1, 2].map(|n| table.open(opening(n.into(), n, n, start + secs(600)), start).unwrap());
    let after = |milliseconds| start + Duration::from_millis(milliseconds);

    let taken = [1500, 600, 500, 1].map(|bytes| table.take_bandwidth(one, bytes, rate, start));
    assert_eq!(taken, [true, false, true, false], "what is refused costs nothing");
    assert!(table.take_bandwidth(one, 0, rate, start));
    assert!(table.take_bandwidth(other, 2000, rate, start));
    let taken = [(99, 100), (100, 100), (100, 1)].map(|(at, bytes)| table.take_bandwidth(one, bytes, rate, after(at)));
    assert_eq!(taken, [false, true, false]);
    assert!(!table.take_bandwidth(one, 2001, rate, after(60_000)), "never more than a burst");

    table.close(AllocationId(1), start);
    assert!(!table.take_bandwidth(one, 1, rate, start), "nobody's");
    let again = table.open(opening(3, 1, 1, start + secs(600)), start).unwrap();
    assert!(again == one && table.take_bandwidth(again, 2000, rate, start));
}

/// Two tables of one process, with an allocation of client 1 in the first and of client 2 in the other, which permit each
/// other's advertised addresses.
fn two_shards(start: Instant) -> [Table<u64>; 2] {
    let directory = Arc::new(Directory::new());
    [1, 2].map(|n| {
        let mut table = Table::new(policy(), Arc::clone(&directory), ShardId(n.into()), None);
        table.open(opening(n.into(), n, n, start + secs(600)), start).unwrap();
        table.permit(AllocationId(n.into()), advertised(1).ip(), start + secs(300), start).unwrap();
        table
    })
}

#[test]
fn clients_of_two_shards_reach_each_other_as_those_of_one_do() {
    let start = now();
    let [mut one, mut other] = two_shards(start);
    let names = Names { advertised: advertised(1), local: relayed(1) };
    let send = |table: &Table<u64>, to| table.handle_client_data(&client(1).five_tuple, Target::Peer(to), start);

    let to = advertised(2);
    assert_eq!(send(&one, to), Ok(Forward::Elsewhere { from: Slot(0), names, to, shard: ShardId(2) }));
    assert_eq!(send(&one, relayed(2)), Err(DropReason::NoPermission), "permitted by another name");
    let delivery = Delivery { client: client(2), framing: Framing::Data(advertised(1)) };
    assert_eq!(other.handle_neighbours_data(names, to, start), Ok((Slot(0), delivery)));
    other.bind(AllocationId(2), 0x4000, relayed(1), start + secs(600), start).unwrap();
    assert_eq!(
        other.handle_neighbours_data(names, to, start),
        Ok((Slot(0), delivery)),
        "bound to a name without permission"
    );
    other.permit(AllocationId(2), relayed(1).ip(), start + secs(300), start).unwrap();
    let bound = Delivery { framing: Framing::Channel(0x4000), ..delivery };
    assert_eq!(other.handle_neighbours_data(names, to, start), Ok((Slot(0), bound)));
    let at = |seconds| other.handle_neighbours_data(names, to, start + secs(seconds));
    assert_eq!([at(300), at(600)], [Err(DropReason::NoPermission), Err(DropReason::NotOurs)]);
    assert_eq!(other.handle_neighbours_data(names, advertised(1), start), Err(DropReason::NotOurs), "another shard's");

    other.close(AllocationId(2), start);
    assert_eq!(send(&one, to), Err(DropReason::NotOurs));
    assert_eq!(other.handle_neighbours_data(names, to, start), Err(DropReason::NotOurs));
    one.close(AllocationId(1), start);
    assert!([1, 2].into_iter().all(|n| !one.directory.is_relay_ip(advertised(n).ip())), "nothing is left behind");
}

#[test]
fn a_relayed_address_that_another_shard_has_by_now_is_not_struck_off_with_its_old_allocation() {
    let start = now();
    let [mut one, mut other] = two_shards(start);
    other.close(AllocationId(2), start);
    other.open(opening(3, 2, 1, start + secs(600)), start).unwrap();

    one.close(AllocationId(1), start);

    one.open(opening(4, 1, 3, start + secs(600)), start).unwrap();
    one.permit(AllocationId(4), advertised(1).ip(), start + secs(300), start).unwrap();
    let sent = one.handle_client_data(&client(1).five_tuple, Target::Peer(advertised(1)), start);
    assert!(matches!(sent, Ok(Forward::Elsewhere { shard: ShardId(2), .. })), "{sent:?}");
}

/// The socket's own memory is the kernel's.
#[test]
fn an_allocation_with_a_channel_takes_less_than_a_kib_and_a_half_of_its_shard() {
    const COUNT: u16 = 5000;
    type Socket = [u8; size_of::<Watched>()];
    let (start, directory) = (now(), Arc::new(Directory::new()));
    let mut table = Table::<Socket>::new(policy(), directory, ShardId(0), None);
    let mut departures = Departures::new(true);
    let mut allocate = |numbers: std::ops::Range<u16>| {
        for n in numbers {
            let Opening { id, client, relayed, advertised, deadline, .. } = opening(n.into(), n, n, start + secs(600));
            let socket = [0; size_of::<Watched>()];
            let slot = table.open(Opening { id, client, relayed, advertised, socket, deadline }, start).unwrap();
            departures.open(slot, Transport::Udp, Arc::default());
            table.permit(id, outsiders()[1].ip(), start + secs(300), start).unwrap();
            table.bind(id, 0x4000, outsiders()[1], start + secs(600), start).unwrap();
        }
    };
    // The directory's table of ports, once for each address.
    allocate(1..10);

    let taken = allocation_counter::measure(|| allocate(10..10 + COUNT)).bytes_current;

    let each = taken / i64::from(COUNT);
    assert!((200..1536).contains(&each), "{each} bytes");
}
