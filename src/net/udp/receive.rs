//! What came in: many datagrams by one system call, each whole.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::libc;

use super::Ecn;
use super::Socket;
use super::message;
use super::message::Control;
use super::message::Name;

/// One datagram as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its whole payload.
    pub data: &'a [u8],
    /// Who sent it.
    pub source: SocketAddr,
    /// The local address it was sent to.
    pub local_ip: Option<IpAddr>,
    /// Its ECN bits, to be carried on.
    pub ecn: Option<Ecn>,
}

/// Buffers that one system call fills. Made once, used for every socket of a thread.
pub struct Batch {
    bytes: Box<[u8]>,
    places: Box<[Place; Batch::SIZE]>,
    headers: Box<[libc::mmsghdr; Batch::SIZE]>,
    filled: usize,
    /// The local address of a socket that is bound to one.
    bound: Option<IpAddr>,
}

/// Where one datagram, or a run of them, is told about.
struct Place {
    name: Name,
    control: Control,
    bytes: libc::iovec,
}

impl Batch {
    /// How many buffers one call fills; with GRO each may hold a run of datagrams.
    pub const SIZE: usize = Self::COUNT as usize;
    const COUNT: libc::c_uint = 32;
    /// No datagram and no run that the kernel joins is longer, so none is ever cut.
    const BUFFER: usize = 65_535;
    /// From one buffer to the next: not a power of two, by which all of them would fall into the same few lines of a cache.
    const STRIDE: usize = Self::BUFFER + 1 + 21 * 64;

    /// Empty buffers.
    pub fn new() -> Self {
        let place = |_| Place { name: Name::unspecified(), control: Control::EMPTY, bytes: empty_slice() };
        let header = |_| libc::mmsghdr { msg_hdr: message::empty(), msg_len: 0 };
        Self {
            bytes: vec![0; Self::SIZE * Self::STRIDE].into_boxed_slice(),
            places: Box::new(std::array::from_fn(place)),
            headers: Box::new(std::array::from_fn(header)),
            filled: 0,
            bound: None,
        }
    }

    /// Replaces what it holds with what waits at `socket`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing waits; others concern this call only, and the socket lives on.
    #[expect(unsafe_code, reason = "no crate fills buffers that are kept from call to call")]
    pub fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        let buffers = self.bytes.chunks_exact_mut(Self::STRIDE);
        for ((header, place), buffer) in self.headers.iter_mut().zip(self.places.iter_mut()).zip(buffers) {
            let header = &mut header.msg_hdr;
            place.bytes = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: Self::BUFFER };
            (header.msg_iov, header.msg_iovlen) = (&raw mut place.bytes, 1);
            place.name.await_one(header);
            place.control.await_some(header);
        }
        self.filled = 0;
        self.bound = socket.bound_ip();
        let (descriptor, headers) = (socket.io.as_raw_fd(), self.headers.as_mut_ptr());
        // SAFETY: the descriptor is open while `socket` is borrowed. The kernel writes to the headers, and to what they point
        // at: names, control messages and bytes, borrowed from `self` for as long as the call takes, and each as long as its
        // header says.
        let count = unsafe { libc::recvmmsg(descriptor, headers, Self::COUNT, 0, std::ptr::null_mut()) };
        self.filled = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        Ok(())
    }

    /// Whether every buffer was filled, so that more may wait.
    pub fn is_full(&self) -> bool {
        self.filled == Self::SIZE
    }

    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let buffers = self.bytes.chunks_exact(Self::STRIDE);
        let filled = self.headers.iter().zip(self.places.iter()).zip(buffers).take(self.filled);
        filled.filter_map(|((header, place), buffer)| self.run(header, place, buffer)).flatten()
    }

    /// The datagrams of one buffer.
    fn run<'a>(
        &'a self,
        header: &libc::mmsghdr,
        place: &Place,
        buffer: &'a [u8],
    ) -> Option<impl Iterator<Item = Datagram<'a>>> {
        let source = place.name.get()?;
        let told = message::told(&header.msg_hdr);
        let run = buffer.get(..header.msg_len as usize)?;
        let local_ip = self.bound.or(told.local_ip);
        let alone = run.is_empty().then_some(run);
        let length = told.length.map_or(run.len(), usize::from).max(1);
        let datagrams = alone.into_iter().chain(run.chunks(length));
        Some(datagrams.map(move |data| Datagram { data, source, local_ip, ecn: told.ecn }))
    }
}

// SAFETY: the pointers that it holds point into boxes of its own, which move with it, and nobody else follows them.
#[expect(unsafe_code, reason = "pointers keep a type from being sent by themselves")]
unsafe impl Send for Batch {}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("filled", &self.filled).finish_non_exhaustive()
    }
}

fn empty_slice() -> libc::iovec {
    libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }
}
