//! Datagrams of one flow that leave together: by one system call, where the kernel cuts them apart (UDP GSO).

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;

use quinn_udp::Transmit;
use quinn_udp::UdpSockRef;

use super::Ecn;
use super::MAX_PAYLOAD;
use super::Socket;

/// Where datagrams go, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// To whom.
    pub to: SocketAddr,
    /// From which address, where the socket is bound to a wildcard.
    pub source: Option<IpAddr>,
    /// With which ECN bits.
    pub ecn: Option<Ecn>,
}

/// Datagrams that go the same way, all of one length but the last, which may be shorter.
#[derive(Debug)]
pub struct Train {
    way: Option<Way>,
    /// One behind the other.
    bytes: Vec<u8>,
    /// The length of each but the last.
    length: usize,
    count: usize,
    /// Whether the last one was shorter, so that none can follow.
    closed: bool,
}

impl Train {
    /// Datagrams in one at most: half of what the kernel cuts apart, for what polices or drops a train does so at once.
    pub const MOST: usize = 32;
    /// The longest datagram that others follow: any link carries it whole, even in a tunnel (RFC 8200, section 5). The
    /// kernel refuses to cut what would be fragmented.
    const LONGEST: usize = 1280 - 48;

    /// An empty one.
    pub fn new() -> Self {
        Self { way: None, bytes: Vec::with_capacity(MAX_PAYLOAD), length: 0, count: 0, closed: false }
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a datagram so long may follow what is in it.
    pub fn takes(&self, way: Way, length: usize) -> bool {
        let follows = self.way == Some(way) && !self.closed && (1..=self.length).contains(&length);
        self.is_empty() || (follows && self.count < Self::MOST && self.length <= Self::LONGEST)
    }

    /// Adds a datagram that it takes.
    pub fn push(&mut self, way: Way, datagram: &[u8]) {
        if self.is_empty() {
            self.way = Some(way);
            self.length = datagram.len();
        }
        self.closed = datagram.len() < self.length;
        self.bytes.extend_from_slice(datagram);
        self.count += 1;
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.way = None;
        self.bytes.clear();
        self.count = 0;
        self.closed = false;
    }

    fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let empty = (self.bytes.is_empty() && !self.is_empty()).then_some(&[][..]);
        empty.into_iter().chain(self.bytes.chunks(self.length.max(1)))
    }
}

impl Default for Train {
    fn default() -> Self {
        Self::new()
    }
}

impl Socket {
    /// Sends every datagram of `train`, and tells of each in order how that went; errors are as those of [`Socket::send`].
    ///
    /// Where the kernel won't cut it, one leaves after the other.
    pub fn send_train(&self, train: &Train, mut each: impl FnMut(io::Result<()>)) {
        let Some(way) = train.way else { return };
        if train.count > 1 && way.to.port() != 0 && self.trains.max_gso_segments() >= Train::MOST {
            let transmit = Transmit {
                destination: way.to,
                ecn: way.ecn,
                contents: &train.bytes,
                segment_size: Some(train.length),
                src_ip: way.source,
            };
            let send = || self.trains.try_send(UdpSockRef::from(&self.io), &transmit);
            // As for one datagram, an earlier one's error may be told first.
            let sent = send().or_else(|error| if is_full(&error) { Err(error) } else { send() });
            match sent {
                Ok(()) => return (0..train.count).for_each(|_| each(Ok(()))),
                Err(error) if is_full(&error) => return (0..train.count).for_each(|_| each(Err(error.kind().into()))),
                Err(_) => {}
            }
        }
        for datagram in train.datagrams() {
            each(self.send(datagram, way.to, way.source, way.ecn));
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::super::Batch;
    use super::*;

    fn way(to: SocketAddr) -> Way {
        Way { to, source: None, ecn: Some(Ecn::Ect0) }
    }

    fn pair(ip: &str) -> (Socket, Socket) {
        let bind = || Socket::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
        (bind(), bind())
    }

    /// Everything that waits, by length and first byte, with the same ECN bits.
    fn received(socket: &Socket) -> Vec<(usize, u8)> {
        let mut batch = Batch::new();
        let mut all = Vec::new();
        while batch.receive(socket).is_ok() {
            assert!(batch.datagrams().all(|datagram| datagram.ecn == Some(Ecn::Ect0)));
            all.extend(batch.datagrams().map(|it| (it.data.len(), it.data.first().copied().unwrap_or_default())));
        }
        all
    }

    fn filled(way: Way, lengths: impl IntoIterator<Item = usize>) -> Train {
        let mut train = Train::new();
        for (number, length) in (0..).zip(lengths) {
            assert!(train.takes(way, length), "{number}: {length}");
            train.push(way, &vec![number; length]);
        }
        train
    }

    #[test]
    fn a_train_takes_what_goes_the_same_way_and_is_no_longer() {
        let (here, there) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.1:2".parse().unwrap());
        let train = filled(way(here), [100, 100]);

        assert!(train.takes(way(here), 100) && train.takes(way(here), 1));
        assert!(!train.takes(way(there), 100) && !train.takes(way(here), 101) && !train.takes(way(here), 0));
        assert!(!train.takes(Way { ecn: None, ..way(here) }, 100));
        assert!(!filled(way(here), [100, 99]).takes(way(here), 99), "a shorter one is the last");
        assert!(!filled(way(here), [0]).takes(way(here), 0));
        assert!(!filled(way(here), [Train::LONGEST + 1]).takes(way(here), 1));
        assert!(!filled(way(here), vec![9; Train::MOST]).takes(way(here), 9));
        assert!(!filled(way(here), vec![1232; Train::MOST]).takes(way(here), 1232));
        assert!(Train::new().takes(way(here), MAX_PAYLOAD));
    }

    #[test]
    fn all_of_it_arrives_in_order_with_the_kernels_help_or_without() {
        for (ip, helped) in [("127.0.0.1", true), ("127.0.0.1", false), ("::1", true), ("::1", false)] {
            let (a, b) = pair(ip);
            b.ask_for_buffers(4 << 20);
            for lengths in [vec![1200; 30], vec![7; Train::MOST], vec![1000, 1000, 1], vec![0], vec![9000]] {
                let train = filled(way(b.local_addr()), lengths.clone());
                let mut told = 0;

                match helped {
                    true => a.send_train(&train, |sent| told += usize::from(sent.is_ok())),
                    false => train.datagrams().for_each(|datagram| {
                        a.send(datagram, b.local_addr(), None, Some(Ecn::Ect0)).unwrap();
                        told += 1;
                    }),
                }

                assert_eq!(told, lengths.len());
                let expected: Vec<_> =
                    (0..).zip(lengths).map(|(number, length)| (length, if length > 0 { number } else { 0 })).collect();
                assert_eq!(received(&b), expected, "{ip}");
            }
        }
    }

    #[test]
    fn a_kernel_that_refuses_trains_gets_datagrams_and_ecn_is_kept() {
        let (a, b) = pair("127.0.0.1");
        let train = filled(way(b.local_addr()), [100; 8]);
        // More segments than any kernel cuts: it refuses, and quinn-udp makes of that what it makes of every refusal.
        let refused = Transmit {
            destination: b.local_addr(),
            ecn: Some(Ecn::Ect0),
            contents: &[0; 1000],
            segment_size: Some(1),
            src_ip: None,
        };
        assert!(a.trains.try_send(UdpSockRef::from(&a.io), &refused).is_err());
        assert_eq!(a.trains.max_gso_segments(), 1);
        let mut told = 0;

        a.send_train(&train, |sent| told += usize::from(sent.is_ok()));

        assert_eq!(told, 8);
        assert_eq!(received(&b), (0..8).map(|number| (100, number)).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_sent_is_told_of_each() {
        let (a, _) = pair("127.0.0.1");
        let mut errors = 0;

        a.send_train(&filled(way("127.0.0.1:0".parse().unwrap()), [9, 9, 9]), |sent| {
            errors += usize::from(sent.is_err());
        });
        a.send_train(&filled(way("[::1]:9".parse().unwrap()), [9, 9]), |sent| errors += usize::from(sent.is_err()));

        assert_eq!(errors, 5);
    }
}
