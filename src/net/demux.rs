//! Tells by a connection's first bytes what it speaks, so that one port serves TLS, HTTP and TURN.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use crate::wire::MAGIC_COOKIE;

/// How long a connection may take to show what it speaks, and again to finish its TLS handshake.
pub const DECIDE_WITHIN: Duration = Duration::from_secs(10);

/// What first bytes announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A TLS handshake record.
    Tls,
    /// A method of HTTP/1.
    Http,
    /// A STUN message in a clear stream: the magic cookie stands where it belongs (RFC 8489, section 5).
    Turn,
    /// None of these.
    Unknown,
}

/// A connection whose protocol is known; its first bytes are still to be read from `stream`.
pub struct Opened {
    /// What it speaks, inside TLS if there is TLS.
    pub protocol: Protocol,
    /// Whether TLS protects it.
    pub tls: bool,
    /// The client.
    pub remote: SocketAddr,
    /// The address of this server that the client reached.
    pub local: SocketAddr,
    /// The bytes.
    pub stream: Box<dyn Stream>,
}

/// A byte stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Finds out what a connection speaks, and takes the TLS off when `tls` is given (without it, TLS is not spoken).
///
/// # Errors
///
/// When the client ends it, takes longer than [`DECIDE_WITHIN`] for a step, or fails the handshake.
pub async fn open(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Opened> {
    let (remote, local) = (stream.peer_addr()?, stream.local_addr()?);
    let (protocol, stream) = look(stream).await?;
    let (Protocol::Tls, Some(tls)) = (protocol, tls) else {
        return Ok(Opened { protocol, tls: false, remote, local, stream: Box::new(stream) });
    };
    let stream = within(async {
        let handshake = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        handshake.into_stream(tls).await
    })
    .await?;
    let (protocol, stream) = look(stream).await?;
    Ok(Opened { protocol, tls: true, remote, local, stream: Box::new(stream) })
}

/// Reads until the first bytes say what they are. They are read, not peeked: peeking spins on a message that comes in
/// parts.
async fn look<S: Stream>(mut stream: S) -> io::Result<(Protocol, Replayed<S>)> {
    let mut first = [0; LOOK];
    let mut filled = 0;
    let protocol = within(async {
        loop {
            if let Some(protocol) = classify(first.get(..filled).unwrap_or_default()) {
                return Ok(protocol);
            }
            let count = stream.read(first.get_mut(filled..).unwrap_or_default()).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += count;
        }
    })
    .await?;
    Ok((protocol, Replayed { first, filled, replayed: 0, stream }))
}

/// How many bytes it takes at most: a STUN message's first two words.
const LOOK: usize = 8;

/// What the first bytes announce; nothing when more are needed.
fn classify(first: &[u8]) -> Option<Protocol> {
    match first {
        [] => None,
        [0x16, ..] => Some(Protocol::Tls),
        [b'A'..=b'Z', ..] => Some(Protocol::Http),
        [0x00 | 0x01, _, _, _, cookie @ ..] if COOKIE.starts_with(cookie) => {
            (cookie.len() == COOKIE.len()).then_some(Protocol::Turn)
        }
        [0x00 | 0x01] | [0x00 | 0x01, _] | [0x00 | 0x01, _, _] => None,
        [..] => Some(Protocol::Unknown),
    }
}

/// The magic cookie of STUN (RFC 8489, section 5).
const COOKIE: [u8; 4] = MAGIC_COOKIE.to_be_bytes();

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(DECIDE_WITHIN, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A stream that gives the bytes already read from it once more.
struct Replayed<S> {
    first: [u8; LOOK],
    filled: usize,
    replayed: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.first.get(this.replayed..this.filled) {
            Some(rest) if !rest.is_empty() => {
                let count = rest.len().min(buf.remaining());
                buf.put_slice(rest.get(..count).unwrap_or_default());
                this.replayed += count;
                Poll::Ready(Ok(()))
            }
            Some(_) | None => Pin::new(&mut this.stream).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const BINDING: &[u8] = b"\x00\x01\x00\x00\x21\x12\xA4\x42";

    #[test]
    fn first_bytes_tell_the_protocol_as_soon_as_they_can() {
        for (first, protocol) in [
            (&b""[..], None),
            (b"\x16", Some(Protocol::Tls)),
            (b"G", Some(Protocol::Http)),
            (b"g", Some(Protocol::Unknown)),
            (b"\x00", None),
            (b"\x00\x03\x00", None),
            (b"\x01\x01\x00\x00\x21\x12\xA4", None),
            (b"\x00\x03\x00\x00\x21\x13", Some(Protocol::Unknown)),
            (BINDING, Some(Protocol::Turn)),
            (b"\x40\x00\x00\x00\x21\x12\xA4\x42", Some(Protocol::Unknown)),
            (b"\xff", Some(Protocol::Unknown)),
        ] {
            assert_eq!(classify(first), protocol, "{first:x?}");
        }
    }

    #[tokio::test]
    async fn the_bytes_looked_at_are_read_again_whole_whatever_the_parts_they_came_in() {
        let (mut client, server) = tokio::io::duplex(64);
        let text = [BINDING, b"and the rest"].concat();
        let sent = text.clone();
        let sender = tokio::spawn(async move {
            for byte in sent {
                client.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });

        let (protocol, mut stream) = look(server).await.unwrap();
        let mut read = Vec::new();
        let mut small = [0; 3];
        while read.len() < text.len() {
            let count = stream.read(&mut small).await.unwrap();
            read.extend_from_slice(&small[..count]);
        }

        assert_eq!(protocol, Protocol::Turn);
        assert_eq!(read, text);
        sender.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_says_what_it_speaks_is_given_up() {
        let (_client, server) = tokio::io::duplex(64);

        let error = look(server).await.err().unwrap();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
