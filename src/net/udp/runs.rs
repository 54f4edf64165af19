//! Datagrams that wait to leave by many sockets: those that go the same way as a run, which the kernel cuts apart (UDP GSO),
//! and many runs of one socket by one system call.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::libc;

use super::Ecn;
use super::Socket;
use super::message;
use super::message::Control;
use super::message::Name;
use super::message::Told;

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

/// Names one run until all of them are cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(u32);

/// What became of datagrams of a run.
#[derive(Debug)]
pub enum Fate {
    /// They left.
    Sent {
        /// How many.
        datagrams: u32,
        /// Their payloads together, in bytes.
        payload: u64,
    },
    /// They did not; errors are as those of [`Socket::send`].
    Failed {
        /// How many.
        datagrams: u32,
        /// Why.
        error: io::Error,
    },
    /// They left alone, because the kernel would not cut the run: on this way it never will.
    Uncut,
}

/// All that waits, in the order of its coming; `T` says what a run is. It never grows.
pub struct Runs<T> {
    /// The datagrams, one behind the other.
    bytes: Box<[u8]>,
    used: usize,
    datagrams: Vec<Piece>,
    runs: Vec<Run<T>>,
    calls: Calls,
}

/// How many runs may find no room in a socket's buffer before all that wait for it are given up.
const PATIENCE: u32 = 8;

/// One datagram.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u32,
    length: u32,
    payload: u32,
    /// The one behind it in its run.
    next: u32,
}

#[derive(Debug)]
struct Run<T> {
    tag: T,
    way: Way,
    /// The length of each datagram but the last.
    length: usize,
    count: u32,
    payload: u64,
    first: u32,
    last: u32,
    /// Whether the last one was shorter, so that none can follow.
    closed: bool,
    number: u32,
}

impl<T: Copy + PartialEq> Runs<T> {
    /// Bytes that may wait: what a shard takes in a round, in datagrams of common size.
    const BYTES: usize = 1 << 20;
    /// Datagrams that may wait.
    const DATAGRAMS: usize = 2048;

    /// None.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; Self::BYTES].into_boxed_slice(),
            used: 0,
            datagrams: Vec::with_capacity(Self::DATAGRAMS),
            runs: Vec::with_capacity(Self::DATAGRAMS),
            calls: Calls::new(),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether there is room for a datagram so long; always, for one of at most 64 KiB and some, when nothing waits.
    pub fn has_room(&self, length: usize) -> bool {
        self.used + length <= self.bytes.len() && self.datagrams.len() < Self::DATAGRAMS
    }

    /// Where the next datagram is to be written, at the front of all the room there is.
    pub fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.used..).unwrap_or_default()
    }

    /// Adds the datagram of `length` that was written to [`Runs::room`], with `payload` bytes of data in it: to `run`, if
    /// that is the same and can take it, or else to one that begins with it. The name of its run; none when there is no
    /// room.
    pub fn push(&mut self, run: Option<RunId>, tag: T, way: Way, length: usize, payload: usize) -> Option<RunId> {
        if !self.has_room(length) {
            return None;
        }
        let number = u32::try_from(self.datagrams.len()).ok()?;
        let [start, size, payload] = [self.used, length, payload].map(|it| u32::try_from(it).unwrap_or(u32::MAX));
        self.datagrams.push(Piece { start, length: size, payload, next: number });
        self.used += length;
        let joined = run.filter(|run| self.get(*run).is_some_and(|run| run.tag == tag && run.takes(way, length)));
        if let Some(id) = joined {
            let run = self.runs.get_mut(id.0 as usize)?;
            if let Some(last) = self.datagrams.get_mut(run.last as usize) {
                last.next = number;
            }
            (run.last, run.count, run.closed) = (number, run.count + 1, length < run.length);
            run.payload += u64::from(payload);
            return Some(id);
        }
        let id = RunId(u32::try_from(self.runs.len()).ok()?);
        let (count, payload, first, last) = (1, payload.into(), number, number);
        self.runs.push(Run { tag, way, length, count, payload, first, last, closed: false, number: id.0 });
        Some(id)
    }

    /// Puts those first whose key is the least, and leaves runs of one key in the order in which they began. Their names are
    /// good for nothing from here on.
    pub fn sort_by_key<K: Ord>(&mut self, key: impl Fn(&T) -> K) {
        self.runs.sort_unstable_by_key(|run| (key(&run.tag), run.number));
    }

    /// What the run at a place in that order is.
    pub fn tag(&self, place: usize) -> Option<T> {
        self.runs.get(place).map(|run| run.tag)
    }

    /// What the runs from a place in that order on are.
    pub fn tags(&self, start: usize) -> impl Iterator<Item = T> {
        self.runs.iter().skip(start).map(|run| run.tag)
    }

    /// Sends some of the runs by `socket`, and tells what became of each datagram; then they are still there.
    pub fn send(&mut self, socket: &Socket, range: Range<usize>, mut told: impl FnMut(&T, Fate)) {
        let Some(mut rest) = self.runs.get(range) else { return };
        let (mut again, mut full) = (false, 0);
        while let Some(run) = rest.first() {
            match self.calls.send(socket, rest, &self.datagrams, &self.bytes) {
                Ok(count) => {
                    let sent;
                    (sent, rest) = rest.split_at(count.clamp(1, rest.len()));
                    for run in sent {
                        told(&run.tag, Fate::Sent { datagrams: run.count, payload: run.payload });
                    }
                    again = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The buffer drains meanwhile; but what comes behind many that it had no room for would meet the same.
                    full += 1;
                    let failed;
                    (failed, rest) = rest.split_at(if full < PATIENCE { 1 } else { rest.len() });
                    for run in failed {
                        told(&run.tag, Fate::Failed { datagrams: run.count, error: error.kind().into() });
                    }
                }
                // What came back about an earlier datagram fails the next call, once.
                Err(_) if !again => again = true,
                Err(error) => {
                    if run.count > 1 {
                        self.send_apart(socket, run, is_uncut(&error), &mut told);
                    } else {
                        told(&run.tag, Fate::Failed { datagrams: run.count, error });
                    }
                    rest = rest.get(1..).unwrap_or_default();
                    again = false;
                }
            }
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.used = 0;
        self.datagrams.clear();
        self.runs.clear();
    }

    /// Sends each datagram of a run alone; if that does it, tells that they were `uncut`.
    fn send_apart(&self, socket: &Socket, run: &Run<T>, uncut: bool, told: &mut impl FnMut(&T, Fate)) {
        let mut any = false;
        for piece in pieces(run, &self.datagrams) {
            let sent = socket.send(piece.of(&self.bytes), run.way.to, run.way.source, run.way.ecn);
            any |= sent.is_ok();
            told(
                &run.tag,
                match sent {
                    Ok(()) => Fate::Sent { datagrams: 1, payload: piece.payload.into() },
                    Err(error) => Fate::Failed { datagrams: 1, error },
                },
            );
        }
        if any && uncut {
            told(&run.tag, Fate::Uncut);
        }
    }

    fn get(&self, run: RunId) -> Option<&Run<T>> {
        self.runs.get(run.0 as usize)
    }
}

impl<T> Run<T> {
    /// Datagrams in one at most: half of what any kernel cuts apart, for what polices or drops a run does so at once.
    const MOST: u32 = 32;
    /// The longest datagram that others follow: any link carries it whole, even in a tunnel (RFC 8200, section 5). The
    /// kernel refuses to cut what would be fragmented.
    const LONGEST: usize = 1280 - 48;

    /// Whether a datagram so long may follow what is in it.
    fn takes(&self, way: Way, length: usize) -> bool {
        let follows = self.way == way && !self.closed && (1..=self.length).contains(&length);
        follows && self.count < Self::MOST && self.length <= Self::LONGEST
    }
}

impl Piece {
    fn of(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        bytes.get(start..start + self.length as usize).unwrap_or_default()
    }
}

fn pieces<T>(run: &Run<T>, datagrams: &[Piece]) -> impl Iterator<Item = Piece> {
    let mut next = run.first as usize;
    (0..run.count).map_while(move |_| {
        let piece = *datagrams.get(next)?;
        next = piece.next as usize;
        Some(piece)
    })
}

/// Whether the kernel, or the link, won't cut a run: it is too old, the device has no checksums, a datagram exceeds the MTU.
fn is_uncut(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE))
}

impl<T: Copy + PartialEq> Default for Runs<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> std::fmt::Debug for Runs<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs").field("bytes", &self.used).field("runs", &self.runs.len()).finish_non_exhaustive()
    }
}

/// What one system call is told.
struct Calls {
    headers: Vec<libc::mmsghdr>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    slices: Vec<libc::iovec>,
}

impl Calls {
    /// Runs in one call.
    const RUNS: usize = 64;
    /// Slices in one call, each of a run's datagrams that lie one behind the other.
    const SLICES: usize = 512;

    fn new() -> Self {
        Self {
            headers: Vec::with_capacity(Self::RUNS),
            names: vec![Name::unspecified(); Self::RUNS].into_boxed_slice(),
            controls: vec![Control::EMPTY; Self::RUNS].into_boxed_slice(),
            slices: Vec::with_capacity(Self::SLICES),
        }
    }

    /// Sends as many of the runs as go into one call: how many left.
    #[expect(unsafe_code, reason = "no crate sends messages with control messages of their own by one call")]
    fn send<T>(&mut self, socket: &Socket, runs: &[Run<T>], datagrams: &[Piece], bytes: &[u8]) -> io::Result<usize> {
        self.headers.clear();
        self.slices.clear();
        for ((run, name), control) in runs.iter().zip(&mut self.names).zip(&mut self.controls) {
            if run.way.to.port() == 0 {
                // The kernel's own error for it, EINVAL, would be taken for its refusal to cut a run.
                if self.headers.is_empty() {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                break;
            }
            if self.slices.len() + run.count as usize > Self::SLICES {
                break;
            }
            let count = gather(&mut self.slices, pieces(run, datagrams), bytes);
            let mut header = message::empty();
            name.set(run.way.to, &mut header);
            let length = if run.count > 1 { u16::try_from(run.length).ok() } else { None };
            control.set(
                Told { local_ip: socket.source(run.way.source), ecn: run.way.ecn, length },
                socket.is_ipv4(),
                &mut header,
            );
            header.msg_iovlen = count as _;
            self.headers.push(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
        }
        let mut slices = self.slices.as_mut_ptr();
        for header in &mut self.headers {
            header.msg_hdr.msg_iov = slices;
            slices = slices.wrapping_add(header.msg_hdr.msg_iovlen);
        }
        let (descriptor, count) = (socket.io.as_raw_fd(), libc::c_uint::try_from(self.headers.len()).unwrap_or(0));
        // SAFETY: the descriptor is open while `socket` is borrowed. The kernel reads `count` headers and what they point at:
        // names, control messages, slices and the bytes of those, all borrowed for as long as the call takes, each as long as
        // its header says; it writes to the headers only.
        let sent = unsafe { libc::sendmmsg(descriptor, self.headers.as_mut_ptr(), count, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Adds the slices of a run's datagrams, one for those that lie one behind the other; how many.
fn gather(slices: &mut Vec<libc::iovec>, pieces: impl Iterator<Item = Piece>, bytes: &[u8]) -> usize {
    let first = slices.len();
    let mut end = None;
    for piece in pieces {
        match slices.last_mut().filter(|_| end == Some(piece.start)) {
            Some(slice) => slice.iov_len += piece.length as usize,
            None => {
                // Of all bytes, not of the piece alone: those that follow it may be of the same slice.
                let start = bytes.as_ptr().wrapping_add(piece.start as usize);
                slices.push(libc::iovec { iov_base: start.cast_mut().cast(), iov_len: piece.of(bytes).len() });
            }
        }
        end = Some(piece.start + piece.length);
    }
    slices.len() - first
}

// SAFETY: the pointers that it holds are set anew before each call that follows them.
#[expect(unsafe_code, reason = "pointers keep a type from being sent by themselves")]
unsafe impl Send for Calls {}

#[cfg(test)]
mod tests {
    use super::super::Batch;
    use super::*;

    fn way(to: SocketAddr) -> Way {
        Way { to, source: None, ecn: Some(Ecn::Ect0) }
    }

    fn pair(ip: &str) -> [Socket; 2] {
        let bind = || Socket::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
        let [a, b] = [bind(), bind()];
        b.ask_for_buffers(4 << 20);
        [a, b]
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

    /// Adds a datagram, each of its bytes `number`.
    fn push<T: Copy + PartialEq>(
        runs: &mut Runs<T>,
        run: Option<RunId>,
        tag: T,
        way: Way,
        length: usize,
        number: u8,
    ) -> RunId {
        runs.room()[..length].fill(number);
        runs.push(run, tag, way, length, length).unwrap()
    }

    /// How many runs datagrams of these lengths make that all go the same way.
    fn runs_of(lengths: &[usize]) -> usize {
        let (mut runs, mut last) = (Runs::new(), None);
        for length in lengths {
            last = Some(push(&mut runs, last, (), way("192.0.2.1:1".parse().unwrap()), *length, 0));
        }
        runs.tags(0).count()
    }

    /// Sends datagrams of these lengths by `from`, in one run as far as they make one: what was told of them.
    fn send(from: &Socket, to: SocketAddr, lengths: &[usize]) -> (u32, u32, bool) {
        let (mut runs, mut last) = (Runs::new(), None);
        for (number, length) in (0..).zip(lengths) {
            last = Some(push(&mut runs, last, (), way(to), *length, number));
        }
        send_all(&mut runs, from)
    }

    fn send_all<T: Copy + PartialEq>(runs: &mut Runs<T>, from: &Socket) -> (u32, u32, bool) {
        let (mut sent, mut failed, mut uncut) = (0, 0, false);
        let count = runs.tags(0).count();
        runs.send(from, 0..count, |_, fate| match fate {
            Fate::Sent { datagrams, .. } => sent += datagrams,
            Fate::Failed { datagrams, .. } => failed += datagrams,
            Fate::Uncut => uncut = true,
        });
        (sent, failed, uncut)
    }

    #[test]
    fn a_run_is_of_one_length_but_for_its_last_and_not_too_long() {
        let most = Run::<()>::MOST as usize;
        for (lengths, expected) in [
            (vec![100, 100, 100], 1),
            (vec![100, 100, 99], 1),
            (vec![100, 99, 99], 2),
            (vec![100, 101], 2),
            (vec![100, 0], 2),
            (vec![0, 0], 2),
            (vec![1232; most], 1),
            (vec![9; most + 1], 2),
            (vec![1233, 1233], 2),
            (vec![1233, 1], 2),
        ] {
            assert_eq!(runs_of(&lengths), expected, "{lengths:?}");
        }
    }

    #[test]
    fn only_what_goes_the_same_way_and_is_the_same_joins_a_run() {
        let [here, there] = ["192.0.2.1:1", "192.0.2.1:2"].map(|addr| addr.parse().unwrap());
        let joins = |tag, other| {
            let mut runs = Runs::new();
            let first = push(&mut runs, None, "data", way(here), 100, 0);
            push(&mut runs, Some(first), tag, other, 100, 0) == first
        };

        assert!(joins("data", way(here)));
        assert!(!joins("data", way(there)));
        assert!(!joins("data", Way { ecn: None, ..way(here) }));
        assert!(!joins("data", Way { source: Some(here.ip()), ..way(here) }));
        assert!(!joins("other", way(here)));
    }

    #[test]
    fn all_of_a_run_arrives_in_order_whether_the_receiver_has_it_joined_or_not() {
        for (ip, joined) in [("127.0.0.1", true), ("127.0.0.1", false), ("::1", true), ("::1", false)] {
            let [a, b] = pair(ip);
            b.join_received(joined).unwrap();
            for lengths in [vec![1200; 30], vec![7; 32], vec![1000, 1000, 1], vec![0], vec![9000, 9000]] {
                let told = send(&a, b.local_addr(), &lengths);

                assert_eq!(told, (u32::try_from(lengths.len()).unwrap(), 0, false));
                let expected: Vec<_> =
                    (0..).zip(lengths).map(|(number, length)| (length, if length > 0 { number } else { 0 })).collect();
                assert_eq!(received(&b), expected, "{ip}");
            }
        }
    }

    #[test]
    fn flows_that_come_mixed_leave_in_their_own_order_by_the_sockets_they_are_for() {
        let ([a, b], [c, d]) = (pair("127.0.0.1"), pair("127.0.0.1"));
        let mut runs = Runs::new();
        let (mut to_b, mut to_d) = (None, None);

        for number in 0..40 {
            to_d = Some(push(&mut runs, to_d, 'c', way(d.local_addr()), 300, number));
            to_b = Some(push(&mut runs, to_b, 'a', way(b.local_addr()), 200, number));
        }
        runs.sort_by_key(|tag| *tag);
        let tags: Vec<_> = runs.tags(0).collect();
        runs.send(&a, 0..2, |_, _| ());
        runs.send(&c, 2..4, |_, _| ());

        assert_eq!(tags, ['a', 'a', 'c', 'c']);
        assert_eq!(received(&b), (0..40).map(|number| (200, number)).collect::<Vec<_>>());
        assert_eq!(received(&d), (0..40).map(|number| (300, number)).collect::<Vec<_>>());
    }

    #[test]
    fn more_runs_than_go_into_one_call_leave_all_the_same() {
        let [a, b] = pair("127.0.0.1");
        let mut runs = Runs::new();

        for number in 0..200 {
            push(&mut runs, None, (), way(b.local_addr()), 50, number);
        }

        assert_eq!(send_all(&mut runs, &a), (200, 0, false));
        assert_eq!(received(&b), (0..200).map(|number| (50, number)).collect::<Vec<_>>());
    }

    #[test]
    fn there_is_room_for_so_much_and_again_when_it_has_left() {
        let mut runs = Runs::new();
        let to = way("192.0.2.1:1".parse().unwrap());

        while runs.has_room(60_000) {
            push(&mut runs, None, (), to, 60_000, 0);
        }
        assert!(runs.push(None, (), to, 60_000, 0).is_none());
        runs.clear();
        while runs.has_room(1) {
            push(&mut runs, None, (), to, 1, 0);
        }
        assert!(runs.push(None, (), to, 1, 0).is_none());
        assert_eq!(runs.tags(0).count(), Runs::<()>::DATAGRAMS);
    }

    #[test]
    fn a_run_that_the_kernel_will_not_cut_leaves_datagram_by_datagram_and_that_is_told() {
        let [a, b] = pair("127.0.0.1");
        // With checksums off for a socket, it refuses to cut.
        super::super::set_option(&a.io, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();

        let told = send(&a, b.local_addr(), &[100; 8]);

        assert_eq!(told, (8, 0, true));
        assert_eq!(received(&b), (0..8).map(|number| (100, number)).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_sent_is_told_of_each_and_holds_up_nothing() {
        let [a, b] = pair("127.0.0.1");
        let mut runs = Runs::new();
        let nowhere: [SocketAddr; 2] = ["127.0.0.1:0".parse().unwrap(), "[::1]:9".parse().unwrap()];

        for to in [nowhere[0], b.local_addr(), nowhere[1], b.local_addr()] {
            let run = push(&mut runs, None, (), way(to), 9, 1);
            push(&mut runs, Some(run), (), way(to), 9, 2);
        }

        assert_eq!(send_all(&mut runs, &a), (4, 4, false));
        assert_eq!(received(&b), [(9, 1), (9, 2), (9, 1), (9, 2)]);
    }

    #[test]
    fn an_error_that_came_back_about_an_earlier_datagram_costs_no_later_one() {
        let [a, b] = pair("127.0.0.1");
        a.keep_reports().unwrap();
        let closed = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap().local_addr();

        for _ in 0..3 {
            a.send(b"to nobody", closed, None, None).unwrap();
            assert_eq!(send(&a, b.local_addr(), &[100; 4]), (4, 0, false));
        }

        assert_eq!(received(&b).len(), 12);
    }
}
