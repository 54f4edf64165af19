//! What members and servers say to each other, and members that wait for each answer.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;
use rustls::pki_types::ServerName;

use crate::process::Failure;
use crate::process::NAME;
use crate::process::Pair;
use crate::servers::Kind;

/// How long a candidate's frame is, as text.
const CANDIDATE: usize = 200;
/// Stands before the time in a candidate, and nowhere else in a frame.
const MARK: u8 = b'@';
/// Digits of the time, in nanoseconds.
const DIGITS: usize = 16;

/// Opcodes (RFC 6455, section 5.2).
pub(crate) const TEXT: u8 = 1;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

impl Kind {
    /// The upgrade of the member with this number.
    pub(crate) fn upgrade(self, member: usize) -> String {
        let path = match self {
            Self::Throughway => "/ws".to_owned(),
            Self::Tutorial => "/".to_owned(),
            Self::PeerServer => format!("/peerjs?key=peerjs&id=m{member}&token=t{member}&version=1.5.5"),
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    }

    /// What it says to sign in, when the upgrade doesn't do it.
    pub(crate) fn login(self, member: usize) -> Option<Vec<u8>> {
        match self {
            Self::Throughway | Self::Tutorial => {
                Some(frame(TEXT, format!(r#"{{"type":"login","name":"m{member}"}}"#).as_bytes()))
            }
            Self::PeerServer => None,
        }
    }

    /// Whether this says that it is signed in.
    pub(crate) fn is_welcome(self, text: &[u8]) -> bool {
        let welcome: &[u8] = match self {
            Self::Throughway | Self::Tutorial => br#""success":true"#,
            Self::PeerServer => br#""OPEN""#,
        };
        text.windows(welcome.len()).any(|window| window == welcome)
    }

    /// The frame with a candidate for a member, and where the time stands in it.
    pub(crate) fn candidate(self, to: usize) -> (Vec<u8>, usize) {
        let text = |payload: &str| match self {
            Self::Throughway | Self::Tutorial => {
                format!(r#"{{"type":"candidate","name":"m{to}","candidate":{{"candidate":"{payload}"}}}}"#)
            }
            Self::PeerServer => {
                format!(r#"{{"type":"CANDIDATE","dst":"m{to}","payload":{{"candidate":"{payload}"}}}}"#)
            }
        };
        let padding = CANDIDATE.saturating_sub(text("").len() + 1 + DIGITS);
        let payload = format!("{}{:0DIGITS$x}{}", char::from(MARK), 0, "x".repeat(padding));
        let frame = frame(TEXT, text(&payload).as_bytes());
        let at = frame.iter().position(|byte| *byte == MARK).map_or(0, |at| at + 1);
        (frame, at)
    }
}

/// Writes the time into a candidate's frame.
pub(crate) fn put_time(frame: &mut [u8], at: usize, nanos: u64) {
    if let Some(place) = frame.get_mut(at..at + DIGITS) {
        let digits = format!("{nanos:0DIGITS$x}");
        place.copy_from_slice(digits.as_bytes());
    }
}

/// The time in a candidate; none in anything else.
pub(crate) fn time(text: &[u8]) -> Option<u64> {
    let at = text.iter().position(|byte| *byte == MARK)? + 1;
    u64::from_str_radix(std::str::from_utf8(text.get(at..at + DIGITS)?).ok()?, 16).ok()
}

/// A client's frame. Its mask changes nothing, which spares the generator work; servers unmask all the same.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(short @ ..126) => frame.push(0x80 | short),
        Ok(_) | Err(_) => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The opcode and the payload of a server's frame that begins `bytes`, if it is there as a whole.
pub(crate) fn first_frame(bytes: &[u8]) -> Option<(u8, Range<usize>)> {
    let [first, second, rest @ ..] = bytes else { return None };
    let (begin, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        short => (2, usize::from(*short)),
    };
    let end = begin + length;
    (bytes.len() >= end).then_some((first & 0x0f, begin..end))
}

/// Where the header of an answer ends, if it is there as a whole.
///
/// # Errors
///
/// When it doesn't say that this is a WebSocket.
pub(crate) fn upgraded(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    if bytes.starts_with(b"HTTP/1.1 101 ") {
        return Ok(Some(end + 4));
    }
    Err(String::from_utf8_lossy(bytes).into_owned().into())
}

/// Signs a member in over a stream that waits.
pub(crate) fn sign_in(io: &mut (impl Read + Write), kind: Kind, member: usize) -> Result<(), Failure> {
    io.write_all(kind.upgrade(member).as_bytes())?;
    let (mut unread, mut is_upgraded) = (Vec::new(), false);
    loop {
        let mut part = [0; 2048];
        let count = io.read(&mut part)?;
        if count == 0 {
            return Err("the server closed a connection that signs in".into());
        }
        unread.extend_from_slice(part.get(..count).unwrap_or_default());
        if !is_upgraded && let Some(end) = upgraded(&unread)? {
            unread.drain(..end);
            is_upgraded = true;
            io.write_all(&kind.login(member).unwrap_or_default())?;
        }
        if is_upgraded && let Some((_, payload)) = first_frame(&unread) {
            let is_welcome = kind.is_welcome(unread.get(payload).unwrap_or_default());
            return if is_welcome { Ok(()) } else { Err(String::from_utf8_lossy(&unread).into_owned().into()) };
        }
    }
}

/// TLS that trusts a server that proves itself by `pair`.
pub(crate) fn trust(pair: &Pair) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone())?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A member inside TLS.
pub(crate) type Secure = StreamOwned<ClientConnection, std::net::TcpStream>;

/// Signs a member in inside TLS.
pub(crate) fn sign_in_securely(tls: &Arc<ClientConfig>, addr: SocketAddr, member: usize) -> Result<Secure, Failure> {
    let stream = std::net::TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let connection = ClientConnection::new(Arc::clone(tls), ServerName::try_from(NAME)?)?;
    let mut stream = StreamOwned::new(connection, stream);
    sign_in(&mut stream, Kind::Throughway, member)?;
    Ok(stream)
}
