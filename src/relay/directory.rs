//! Which shard has which relayed address: written by the shard that opens or closes an allocation, before its client is told,
//! and read by every shard for a packet. Nobody waits for anybody.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::table::Slot;
use crate::address::PeerAddr;

/// Which of the process's shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardId(pub(super) usize);

/// The allocation that has a relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// Its shard.
    pub(super) shard: ShardId,
    /// Where it stands in that shard's table.
    pub(super) slot: Slot,
}

/// The relayed addresses that live, under every name. Shared by all shards.
#[derive(Debug)]
pub(super) struct Directory {
    key: RandomState,
    /// [`Directory::PLACES`] of them for ever. An address stands in one of the [`Directory::NEAR`] from where its keyed hash
    /// points to, at the first that was free when it came, and stays.
    places: Box<[OnceLock<Address>]>,
}

impl Directory {
    /// How many relay addresses there may be, as bound and as advertised; some fewer, if chance has them stand close.
    const PLACES: usize = 4096;
    /// How many places are looked at for one.
    const NEAR: usize = 32;

    /// Without relayed addresses.
    pub(super) fn new() -> Self {
        Self { key: RandomState::new(), places: std::iter::repeat_with(OnceLock::new).take(Self::PLACES).collect() }
    }

    /// Enters a relayed address. Whose it was before is of no account: its port was given back, so that one is over.
    ///
    /// False when there are too many relay addresses.
    pub(super) fn enter(&self, name: PeerAddr, owner: Owner) -> bool {
        let mut near = self.near(name.ip()).map(|place| place.get_or_init(|| Address::new(name.ip())));
        let Some((address, port)) = near.find(|it| it.ip == name.ip()).and_then(|it| Some((it, it.make(name)?))) else {
            return false;
        };
        if port.swap(owner.packed(), Ordering::AcqRel) == NOBODY {
            address.live.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Strikes off a relayed address, unless it is another's by now.
    pub(super) fn strike(&self, name: PeerAddr, owner: Owner) {
        let Some(address) = self.address(name.ip()) else { return };
        let struck = address
            .port(name)
            .map(|port| port.compare_exchange(owner.packed(), NOBODY, Ordering::AcqRel, Ordering::Relaxed));
        if let Some(Ok(_)) = struck {
            address.live.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whose relayed address that is, if anybody's.
    pub(super) fn owner(&self, name: PeerAddr) -> Option<Owner> {
        Owner::unpacked(self.address(name.ip())?.port(name)?.load(Ordering::Acquire))
    }

    /// Whether anybody relays from `ip`.
    pub(super) fn is_relay_ip(&self, ip: IpAddr) -> bool {
        self.address(ip).is_some_and(|address| address.live.load(Ordering::Relaxed) > 0)
    }

    fn address(&self, ip: IpAddr) -> Option<&Address> {
        self.near(ip).map_while(OnceLock::get).find(|address| address.ip == ip)
    }

    fn near(&self, ip: IpAddr) -> impl Iterator<Item = &OnceLock<Address>> {
        let [a, b, ..] = self.key.hash_one(ip).to_ne_bytes();
        let first = usize::from(u16::from_ne_bytes([a, b]));
        (first..first + Self::NEAR).filter_map(|number| self.places.get(number % Self::PLACES))
    }
}

/// A relay address, as bound or as advertised.
#[derive(Debug)]
struct Address {
    ip: IpAddr,
    /// How many of its ports are somebody's.
    live: AtomicUsize,
    /// By the first byte of the port, then by the second: what was never used costs next to nothing.
    ports: Box<[OnceLock<Box<Ports>>; 256]>,
}

/// Owners, packed.
type Ports = [AtomicUsize; 256];

impl Address {
    fn new(ip: IpAddr) -> Self {
        Self { ip, live: AtomicUsize::new(0), ports: Box::new([const { OnceLock::new() }; 256]) }
    }

    fn port(&self, name: PeerAddr) -> Option<&AtomicUsize> {
        let [page, port] = name.get().port().to_be_bytes();
        self.ports.get(usize::from(page))?.get()?.get(usize::from(port))
    }

    fn make(&self, name: PeerAddr) -> Option<&AtomicUsize> {
        let [page, port] = name.get().port().to_be_bytes();
        let ports =
            self.ports.get(usize::from(page))?.get_or_init(|| Box::new([const { AtomicUsize::new(NOBODY) }; 256]));
        ports.get(usize::from(port))
    }
}

/// No owner.
const NOBODY: usize = 0;
/// As many shards as an owner's packed form has room for, and one more.
const SHARDS: usize = 1 << 8;

impl Owner {
    fn packed(self) -> usize {
        let Self { shard: ShardId(shard), slot: Slot(slot) } = self;
        debug_assert!(shard < SHARDS - 1, "that many shards are never started");
        slot * SHARDS + shard + 1
    }

    fn unpacked(packed: usize) -> Option<Self> {
        let shard = (packed % SHARDS).checked_sub(1)?;
        Some(Self { shard: ShardId(shard), slot: Slot(packed / SHARDS) })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::net::SocketAddr;

    use super::*;

    fn name(ip: u32, port: u16) -> PeerAddr {
        PeerAddr::new(SocketAddr::new(Ipv4Addr::from_bits(ip).into(), port))
    }

    fn owner(shard: usize, slot: usize) -> Owner {
        Owner { shard: ShardId(shard), slot: Slot(slot) }
    }

    #[test]
    fn an_address_is_its_latest_owners_and_nobody_elses_to_strike_off() {
        let directory = Directory::new();

        for (shard, slot) in [(0, 0), (63, 1 << 40), (1, 7)] {
            assert!(directory.enter(name(1, 50_000), owner(shard, slot)));
            assert_eq!(directory.owner(name(1, 50_000)), Some(owner(shard, slot)));
        }
        directory.strike(name(1, 50_000), owner(0, 0));
        directory.strike(name(1, 50_001), owner(1, 7));
        assert_eq!(directory.owner(name(1, 50_000)), Some(owner(1, 7)), "it is another's");
        assert_eq!([name(1, 50_001), name(2, 50_000)].map(|name| directory.owner(name)), [None; 2]);
        assert!(directory.is_relay_ip(name(1, 0).ip()) && !directory.is_relay_ip(name(2, 0).ip()));

        directory.strike(name(1, 50_000), owner(1, 7));
        directory.strike(name(1, 50_000), owner(1, 7));
        assert_eq!(directory.owner(name(1, 50_000)), None);
        assert!(!directory.is_relay_ip(name(1, 0).ip()));
    }

    #[test]
    fn more_relay_addresses_than_there_is_room_for_are_refused_and_the_others_stay_right() {
        let directory = Directory::new();
        let at = |ip: u32| (name(ip, 50_000), owner(0, ip as usize));

        let entered: Vec<u32> = (1..=10_000).filter(|ip| directory.enter(at(*ip).0, at(*ip).1)).collect();

        assert!((1..1000).eq(entered.iter().copied().take(999)), "a quarter of the room is everybody's");
        assert!(entered.len() <= Directory::PLACES);
        for ip in 1..=10_000 {
            let expected = entered.binary_search(&ip).is_ok().then(|| at(ip).1);
            assert_eq!(directory.owner(at(ip).0), expected);
        }
    }
}
