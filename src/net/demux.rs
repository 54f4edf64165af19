//! Tells by a connection's first bytes whose it is and what it speaks, so that one port serves TLS, HTTP and TURN.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadBuf;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use super::listen::Arrival;
use super::proxy;
use super::proxy::Balancers;
use super::proxy::Ends;
use super::proxy::Malformed;
use super::proxy::Step;
use super::tls::Certificates;
use crate::address::canonical;
use crate::places::Place;
use crate::places::Refused;
use crate::wire::MAGIC_COOKIE;

/// How long a connection may take to show what it speaks, a load balancer's header included; again to finish its TLS
/// handshake; and again to show what it speaks inside.
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
    /// The server's address that the client reached: this host's, or the load balancer's that announced the client.
    pub local: SocketAddr,
    /// The address of this host that it came to: that of `local` if this host has it.
    pub reached: IpAddr,
    /// The bytes.
    pub stream: Box<dyn Stream>,
}

/// Why a connection was closed before it was known what it speaks.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// It comes from a load balancer, and doesn't begin as those have to.
    #[error(transparent)]
    Unannounced(#[from] Malformed),
    /// The client that a load balancer announced has too many such connections already.
    #[error(transparent)]
    Crowded(#[from] Refused),
    /// It was a certificate authority's, which has got its proof (RFC 8737, section 3).
    #[error("a certificate authority has been shown that the name is ours")]
    Proved,
    /// The client ended it, took too long, or failed the handshake.
    #[error(transparent)]
    Stream(#[from] io::Error),
}

/// A byte stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Finds out whose a connection is and what it speaks, and takes the TLS off when `tls` is given (without it, TLS is not
/// spoken); with its place among those that have asked for nothing yet.
///
/// # Errors
///
/// [`Closed`], within [`DECIDE_WITHIN`] for each step.
pub async fn open(
    arrival: Arrival,
    balancers: &Balancers,
    tls: Option<Certificates>,
) -> Result<(Opened, Place), Closed> {
    let Arrival { mut stream, mut place, announced } = arrival;
    let arrived = Ends { remote: canonical(stream.peer_addr()?), local: canonical(stream.local_addr()?) };
    let mut ends = arrived;
    let (protocol, stream) = within(async {
        if announced {
            ends = read_header(&mut stream).await?.unwrap_or(arrived);
            place.count_for(ends.remote.ip())?;
        }
        Ok::<_, Closed>(look(stream).await?)
    })
    .await?;
    let Ends { remote, local } = ends;
    let reached = if balancers.host.contains(&local.ip()) { local.ip() } else { arrived.local.ip() };
    let (Protocol::Tls, Some(tls)) = (protocol, tls) else {
        return Ok((Opened { protocol, tls: false, remote, local, reached, stream: Box::new(stream) }, place));
    };
    let stream = within(async {
        let handshake = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let Some(proof) = tls.proof(&handshake.client_hello()) else {
            return Ok(handshake.into_stream(tls.server_config()).await?);
        };
        // What it came for was in the handshake.
        handshake.into_stream(proof).await?.shutdown().await?;
        Err(Closed::Proved)
    })
    .await?;
    let (protocol, stream) = within(look(stream)).await?;
    Ok((Opened { protocol, tls: true, remote, local, reached, stream: Box::new(stream) }, place))
}

/// Reads a load balancer's header, and no byte behind it.
async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Ends>, Closed> {
    let mut header = Vec::new();
    loop {
        match proxy::decode(&header)? {
            Step::Whole(ends) => return Ok(ends),
            Step::More(count) => {
                let more = u64::try_from(count).unwrap_or(u64::MAX);
                if (&mut *stream).take(more).read_buf(&mut header).await? == 0 {
                    return Err(Closed::Stream(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }
}

/// Reads until the first bytes say what they are. They are read, not peeked: peeking spins on a message that comes in
/// parts.
async fn look<S: Stream>(mut stream: S) -> io::Result<(Protocol, Replayed<S>)> {
    let mut first = [0; LOOK];
    let mut filled = 0;
    loop {
        if let Some(protocol) = classify(first.get(..filled).unwrap_or_default()) {
            return Ok((protocol, Replayed { first, filled, replayed: 0, stream }));
        }
        let count = stream.read(first.get_mut(filled..).unwrap_or_default()).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
    }
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

async fn within<T, E: From<io::Error>>(step: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    timeout(DECIDE_WITHIN, step).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
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

    #[tokio::test]
    async fn a_balancers_header_is_read_to_its_last_byte_and_no_further_whatever_the_parts_it_comes_in() {
        let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0F\xC0\0\x02\x01\xCB\0\x71\x09\x0F\xA0\x01\xBB\x04\0\0GET";

        for part in 1..=header.len() {
            let (mut client, mut server) = tokio::io::duplex(part);
            let sender = tokio::spawn(async move { client.write_all(header).await });
            let ends = read_header(&mut server).await.unwrap().unwrap();
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.unwrap();

            assert_eq!(ends.remote, "192.0.2.1:4000".parse().unwrap());
            assert_eq!(rest, b"GET");
            sender.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_says_what_it_speaks_is_given_up() {
        let (_client, server) = tokio::io::duplex(64);

        let error = within(look(server)).await.err().unwrap();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
