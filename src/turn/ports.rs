//! The pool of relayed ports: which are free, on each relay address, and how a socket gets one.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::credentials::random;

/// Binds a relay socket to exactly this address, or says why not.
pub type Bind<S> = Box<dyn Fn(SocketAddr) -> io::Result<S> + Send + Sync>;

/// A relay socket and the address it is bound to.
#[derive(Debug)]
pub(super) struct Bound<S> {
    /// The socket.
    pub(super) socket: S,
    /// Its address.
    pub(super) addr: SocketAddr,
    /// What clients and peers are told instead: its port is taken under this address.
    pub(super) advertised: SocketAddr,
}

impl<S> Bound<S> {
    fn new(socket: S, local: IpAddr, advertised: IpAddr, port: u16) -> Self {
        Self { socket, addr: SocketAddr::new(local, port), advertised: SocketAddr::new(advertised, port) }
    }
}

/// No port could be bound.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPort {
    /// Every port of the range is taken.
    #[error("all relayed ports are in use: widen turn.relay_ports")]
    Exhausted,
    /// The operating system refused.
    #[error("cannot bind a relay socket: {0}")]
    Os(#[from] io::Error),
}

/// Relayed ports, free and taken, by the address they are advertised under: several local addresses may share one, and
/// no relayed address may be advertised twice. A taken port comes back by [`Ports::release`] only, whichever shard took it.
pub(super) struct Ports<S> {
    bind: Bind<S>,
    range: RangeInclusive<u16>,
    /// By advertised address. Capped by the addresses of this host, each 8 KiB. Never held while a socket is bound.
    free: Mutex<HashMap<IpAddr, FreePorts>>,
}

/// How many ports that another program holds are passed over before giving up.
const TRIES: usize = 128;

impl<S> Ports<S> {
    /// All ports of `range` free, on every address.
    pub(super) fn new(range: RangeInclusive<u16>, bind: Bind<S>) -> Self {
        Self { bind, range, free: Mutex::default() }
    }

    /// Binds a socket to a random free port of `local`, which is advertised as `advertised`.
    ///
    /// # Errors
    ///
    /// [`NoPort`].
    pub(super) fn any(&self, local: IpAddr, advertised: IpAddr) -> Result<Bound<S>, NoPort> {
        self.one(local, advertised, Wanted::Any)
    }

    /// Binds a socket to a random free even port (RFC 8656, section 18.5).
    ///
    /// # Errors
    ///
    /// [`NoPort`].
    pub(super) fn even(&self, local: IpAddr, advertised: IpAddr) -> Result<Bound<S>, NoPort> {
        self.one(local, advertised, Wanted::Even)
    }

    /// Binds two sockets, to a random free even port and to the one after it: the second is to be reserved.
    ///
    /// # Errors
    ///
    /// [`NoPort`].
    pub(super) fn pair(&self, local: IpAddr, advertised: IpAddr) -> Result<(Bound<S>, Bound<S>), NoPort> {
        let (port, (first, second)) = self.bind_where(advertised, Wanted::Pair, |bind, port| {
            Ok((bind(SocketAddr::new(local, port))?, bind(SocketAddr::new(local, port | 1))?))
        })?;
        Ok((Bound::new(first, local, advertised, port), Bound::new(second, local, advertised, port | 1)))
    }

    /// Gives a port back by its advertised address, once its socket is on its way to be closed.
    pub(super) fn release(&self, advertised: SocketAddr) {
        self.of(advertised.ip(), |free| free.give(advertised.port()));
    }

    /// How many ports are free under an advertised address.
    #[cfg(test)]
    pub(super) fn available(&self, advertised: IpAddr) -> usize {
        self.of(advertised, |free| free.count())
    }

    fn one(&self, local: IpAddr, advertised: IpAddr, wanted: Wanted) -> Result<Bound<S>, NoPort> {
        let bound = self.bind_where(advertised, wanted, |bind, port| bind(SocketAddr::new(local, port)));
        bound.map(|(port, socket)| Bound::new(socket, local, advertised, port))
    }

    fn bind_where<T>(
        &self,
        advertised: IpAddr,
        wanted: Wanted,
        bind: impl Fn(&Bind<S>, u16) -> io::Result<T>,
    ) -> Result<(u16, T), NoPort> {
        let mut start = self.by_chance();
        for _ in 0..TRIES {
            let port = self.of(advertised, |free| free.take_next(start, wanted)).ok_or(NoPort::Exhausted)?;
            let error = match bind(&self.bind, port) {
                Ok(bound) => return Ok((port, bound)),
                Err(error) => error,
            };
            self.of(advertised, |free| wanted.ports(port).for_each(|port| free.give(port)));
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(error.into());
            }
            start = port.wrapping_add(2);
        }
        Err(NoPort::Exhausted)
    }

    /// A port of the range: who knows one must not guess the next (RFC 6056, section 3.3.1).
    fn by_chance(&self) -> u16 {
        let ports = u32::from(self.range.end().saturating_sub(*self.range.start())) + 1;
        let [o0, o1, ..] = (u32::from_ne_bytes(random()) % ports).to_le_bytes();
        self.range.start().saturating_add(u16::from_le_bytes([o0, o1]))
    }

    fn of<T>(&self, advertised: IpAddr, change: impl FnOnce(&mut FreePorts) -> T) -> T {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        change(free.entry(advertised).or_insert_with(|| FreePorts::new(self.range.clone())))
    }
}

/// One bit a port, set while free: a search looks at 64 ports at a time, 1,024 words at most.
struct FreePorts(Box<[u64; 1024]>);

/// Which ports will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Any,
    Even,
    /// An even one and the one after it.
    Pair,
}

impl Wanted {
    /// Of a word's free ports those that will do.
    fn among(self, word: u64) -> u64 {
        const EVENS: u64 = 0x5555_5555_5555_5555;
        match self {
            Self::Any => word,
            Self::Even => word & EVENS,
            Self::Pair => word & (word >> 1) & EVENS,
        }
    }

    /// The ports that are taken with `port`, itself among them.
    fn ports(self, port: u16) -> impl Iterator<Item = u16> {
        std::iter::once(port).chain((self == Self::Pair).then_some(port | 1))
    }
}

impl FreePorts {
    fn new(range: RangeInclusive<u16>) -> Self {
        let mut free = Self(Box::new([0; 1024]));
        range.filter(|port| *port != 0).for_each(|port| free.give(port));
        free
    }

    /// Takes the first from `start` on that will do.
    fn take_next(&mut self, start: u16, wanted: Wanted) -> Option<u16> {
        let port = self.next(start, wanted)?;
        wanted.ports(port).for_each(|port| self.take(port));
        Some(port)
    }

    fn next(&self, start: u16, wanted: Wanted) -> Option<u16> {
        let (first, bit) = (start / 64, start % 64);
        let word_at = |index: u16| self.0.get(usize::from(index)).map_or(0, |word| wanted.among(*word));
        // The first word is looked at twice: its ports from `start` on first, the rest of it last.
        let later = word_at(first) & (u64::MAX << bit);
        let wrapped = std::iter::once((first, later))
            .chain((1..=1024).map(|step| (first + step) % 1024).map(|index| (index, word_at(index))));
        wrapped
            .filter(|(_, word)| *word != 0)
            .map(|(index, word)| index * 64 + (word.trailing_zeros() & 63) as u16)
            .next()
    }

    fn take(&mut self, port: u16) {
        self.word(port, |word, bit| word & !bit);
    }

    fn give(&mut self, port: u16) {
        self.word(port, |word, bit| word | bit);
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn word(&mut self, port: u16, change: impl Fn(u64, u64) -> u64) {
        if let Some(word) = self.0.get_mut(usize::from(port / 64)) {
            *word = change(*word, 1 << (port % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn ports(range: RangeInclusive<u16>, busy: &'static [u16]) -> Ports<()> {
        let bind = move |addr: SocketAddr| match busy.contains(&addr.port()) {
            true => Err(io::ErrorKind::AddrInUse.into()),
            false => Ok(()),
        };
        Ports::new(range, Box::new(bind))
    }

    #[test]
    fn every_port_is_given_once_and_then_none() {
        let ports = ports(65_000..=65_535, &[]);

        let given: HashSet<u16> = (0..536).map(|_| ports.any(IP, IP).unwrap().addr.port()).collect();

        assert_eq!(given.len(), 536);
        assert!(given.iter().all(|port| *port >= 65_000));
        assert!(matches!(ports.any(IP, IP), Err(NoPort::Exhausted)));
        ports.release(SocketAddr::new(IP, 65_010));
        assert_eq!(ports.any(IP, IP).unwrap().addr.port(), 65_010);
    }

    #[test]
    fn nobody_can_guess_the_next_port() {
        let ports = ports(49_160..=65_535, &[]);

        let given: HashSet<u16> = (0..1_000)
            .map(|_| {
                let bound = ports.any(IP, IP).unwrap();
                ports.release(bound.advertised);
                bound.addr.port()
            })
            .collect();

        assert!(given.len() > 900, "{} different ones of 1,000", given.len());
    }

    #[test]
    fn local_addresses_that_are_advertised_as_one_share_its_ports() {
        let ports = ports(102..=109, &[]);
        let locals = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap());

        let pairs = locals.map(|local| ports.pair(local, IP).unwrap());
        let mut given: Vec<Bound<()>> = pairs.into_iter().flat_map(|(first, second)| [first, second]).collect();
        given.extend([0, 1, 0, 1].map(|n| ports.any(locals[n], IP).unwrap()));

        let advertised: HashSet<SocketAddr> = given.iter().map(|bound| bound.advertised).collect();
        assert_eq!(advertised.len(), 8, "none twice");
        assert!(given.iter().all(|bound| bound.advertised == SocketAddr::new(IP, bound.addr.port())));
        assert_eq!(given.iter().filter(|bound| bound.addr.ip() == locals[1]).count(), 4);
        assert!(matches!(ports.any(locals[0], IP), Err(NoPort::Exhausted)));
        ports.release(given[5].advertised);
        assert_eq!(ports.any(locals[0], IP).unwrap().advertised, given[5].advertised);
    }

    #[test]
    fn pairs_begin_even_and_take_both_ports() {
        let ports = ports(101..=106, &[]);

        let (first, second) = ports.pair(IP, IP).unwrap();
        let (third, _) = ports.pair(IP, IP).unwrap();

        assert_eq!(first.addr.port() % 2, 0);
        assert_eq!(second.addr.port(), first.addr.port() + 1);
        assert_eq!(HashSet::from([first.addr.port(), third.addr.port()]), HashSet::from([102, 104]));
        assert!(matches!(ports.pair(IP, IP), Err(NoPort::Exhausted)), "106 has no port after it");
        assert_eq!(ports.even(IP, IP).unwrap().addr.port(), 106);
        assert!(matches!(ports.even(IP, IP), Err(NoPort::Exhausted)), "101 is odd");
        assert_eq!(ports.any(IP, IP).unwrap().addr.port(), 101);
    }

    #[test]
    fn a_port_that_another_program_holds_is_passed_over() {
        for _ in 0..50 {
            assert_eq!(ports(200..=203, &[200, 201, 203]).any(IP, IP).unwrap().addr.port(), 202);
            assert_eq!(ports(200..=203, &[201]).pair(IP, IP).unwrap().0.addr.port(), 202);
        }
        assert!(ports(200..=201, &[200, 201]).any(IP, IP).is_err());
    }

    #[test]
    fn other_errors_give_up_at_once() {
        let ports: Ports<()> = Ports::new(1..=9, Box::new(|_| Err(io::ErrorKind::PermissionDenied.into())));

        assert!(matches!(ports.any(IP, IP), Err(NoPort::Os(_))));
        assert_eq!(ports.available(IP), 9);
    }
}
