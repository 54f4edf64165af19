//! Who costs a server something and gives it nothing: a member that doesn't read, and connections that don't sign in.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::process::Failure;
use crate::process::NAME;
use crate::process::now;
use crate::servers::Kind;
use crate::servers::Server;
use crate::wire::TEXT;
use crate::wire::frame;
use crate::wire::sign_in;
use crate::wire::sign_in_securely;

/// What the reader is sent, and how often.
const OFFER: usize = 8 << 10;
const PAUSE: Duration = Duration::from_millis(1);
/// Numbers of members that no crowd has.
const SENDER: usize = 1_000_000;
const READER: usize = 1_000_001;
const NEWCOMER: usize = 2_000_000;

/// One member that keeps sending to another, in a thread of its own, until this is ended.
pub(crate) struct Nuisance {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u32, Failure>>,
}

impl Nuisance {
    /// Begins; the other member reads, or never does.
    pub(crate) fn begin(server: &Server, reads: bool) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut sender = TcpStream::connect(server.plain)?;
        sign_in(&mut sender, Kind::Throughway, SENDER)?;
        let (addr, stopped) = (server.plain, Arc::clone(&stop));
        let mut reader = reader(addr)?;
        let thread = std::thread::spawn(move || {
            let (mut cut, mut unread) = (0, vec![0; 1 << 20]);
            let offer = format!(r#"{{"type":"offer","name":"m{READER}","offer":"{}"}}"#, "x".repeat(OFFER));
            let offer = frame(TEXT, offer.as_bytes());
            while !stopped.load(Ordering::Acquire) {
                sender.set_nonblocking(false)?;
                sender.write_all(&offer)?;
                let said = available(&mut sender, &mut unread)?;
                if contains(said, b"\"leave\"") {
                    // It was cut for not reading: the next one.
                    cut += 1;
                    reader = self::reader(addr)?;
                }
                if reads {
                    available(&mut reader, &mut unread)?;
                }
                std::thread::sleep(PAUSE);
            }
            Ok(cut)
        });
        Ok(Self { stop, thread })
    }

    /// Ends it; how many readers the server has cut.
    pub(crate) fn end(self) -> Result<u32, Failure> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| "the nuisance panicked")?
    }
}

/// Whom the offers are for, with little room for what it doesn't read.
fn reader(addr: std::net::SocketAddr) -> Result<TcpStream, Failure> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(&addr.into())?;
    let mut stream = TcpStream::from(socket);
    sign_in(&mut stream, Kind::Throughway, READER)?;
    Ok(stream)
}

fn available<'a>(stream: &mut TcpStream, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    stream.set_nonblocking(true)?;
    let mut length = 0;
    loop {
        match stream.read(buffer.get_mut(length..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.get(..length).unwrap_or_default())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Opens connections that go no further: a third says nothing, a third half of what begins TLS, a third upgrades and
/// doesn't sign in.
pub(crate) fn half_open(server: &Server, tls: &Arc<ClientConfig>, count: usize) -> Result<Vec<TcpStream>, Failure> {
    let mut hello = Vec::new();
    ClientConnection::new(Arc::clone(tls), ServerName::try_from(NAME)?)?.write_tls(&mut hello)?;
    hello.truncate(hello.len() / 2);
    let upgrade = Kind::Throughway.upgrade(0);
    let connect = |number: usize| {
        let (addr, says) = match number % 3 {
            0 => (server.plain, &[][..]),
            1 => (server.tls, &hello[..]),
            _ => (server.plain, upgrade.as_bytes()),
        };
        let mut stream = TcpStream::connect(addr)?;
        stream.write_all(says)?;
        Ok(stream)
    };
    (0..count).map(connect).collect()
}

/// How long so many new members take to sign in, one by one, in milliseconds: over `ws` and over `wss`.
pub(crate) fn sign_in_times(server: &Server, tls: &Arc<ClientConfig>, count: usize) -> Result<[Vec<f64>; 2], Failure> {
    let mut times = [Vec::new(), Vec::new()];
    for number in 0..count {
        let began = now();
        let mut stream = TcpStream::connect(server.plain)?;
        sign_in(&mut stream, Kind::Throughway, NEWCOMER + 2 * number)?;
        let between = now();
        let _secure = sign_in_securely(tls, server.tls, NEWCOMER + 2 * number + 1)?;
        let took = [between - began, now() - between];
        for (times, took) in times.iter_mut().zip(took) {
            times.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok(times)
}
