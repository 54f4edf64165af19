//! STUN and TURN as clients use them: a Binding over each transport, and a relay that data goes through and back.

use std::io;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadHalf;
use tokio::io::WriteHalf;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::time::timeout;
use webrtc_util::Conn;

use super::super::binding;
use super::web;
use super::web::PATIENCE;
use super::web::Stream;
use crate::address::Transport;
use crate::clock::Clock;
use crate::credentials::IceCredential;
use crate::turn::probe;
use crate::turn::probe::Proof;

/// Asks for our address: what the server sees, or why it says nothing.
pub(super) async fn ask(transport: Transport, addr: SocketAddr, name: &str) -> Result<SocketAddr, String> {
    let asked = match transport {
        Transport::Udp => binding::ask(addr).await,
        Transport::Tcp => over_stream(web::open(addr).await, addr).await,
        Transport::Tls => over_stream(web::open_tls(addr, name).await.map(|(stream, _)| stream), addr).await,
    };
    asked.map_err(|error| error.to_string())
}

async fn over_stream(stream: io::Result<impl Stream + 'static>, addr: SocketAddr) -> io::Result<SocketAddr> {
    let stream = Framed::new(Box::new(stream?), addr);
    let request = binding::request()?;
    stream.put(&request.raw).await?;
    let mut answer = [0; MAX_FRAME];
    let length = timeout(PATIENCE, stream.take(&mut answer)).await;
    let length = length.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))??;
    binding::mapped(answer.get(..length).unwrap_or_default(), &request)
}

/// Relays there and back between two clients: how long that took, and what the first one's relayed address is.
pub(super) async fn round_trip(
    transport: Transport,
    addr: SocketAddr,
    name: &str,
    credentials: &[IceCredential; 2],
) -> Result<Proof, String> {
    let (one, other) = (connect(transport, addr, name).await, connect(transport, addr, name).await);
    let conns = [one.map_err(|error| error.to_string())?, other.map_err(|error| error.to_string())?];
    let proof = probe::round_trip_over(conns, addr, "", credentials, Clock::system()).await;
    proof.map_err(|failed| failed.to_string())
}

async fn connect(transport: Transport, addr: SocketAddr, name: &str) -> io::Result<Arc<dyn Conn + Send + Sync>> {
    Ok(match transport {
        Transport::Udp => {
            let any = if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            Arc::new(UdpSocket::bind(SocketAddr::new(any, 0)).await?)
        }
        Transport::Tcp => Arc::new(Framed::new(Box::new(web::open(addr).await?), addr)),
        Transport::Tls => Arc::new(Framed::new(web::open_tls(addr, name).await?.0, addr)),
    })
}

/// The largest message: a header and 64 KiB.
const MAX_FRAME: usize = 20 + (1 << 16);

/// STUN and ChannelData on a stream, message by message (RFC 8656, section 12.5).
struct Framed {
    read: Mutex<ReadHalf<Box<dyn Stream>>>,
    write: Mutex<WriteHalf<Box<dyn Stream>>>,
    remote: SocketAddr,
}

impl Framed {
    fn new(stream: Box<dyn Stream>, remote: SocketAddr) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self { read: Mutex::new(read), write: Mutex::new(write), remote }
    }

    /// Writes one message, padded to four bytes.
    async fn put(&self, message: &[u8]) -> io::Result<()> {
        let mut padded = message.to_vec();
        padded.resize(message.len().next_multiple_of(4), 0);
        let mut write = self.write.lock().await;
        write.write_all(&padded).await?;
        write.flush().await
    }

    /// Reads one message into `buffer`: its length without padding.
    async fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidData, "a message larger than any");
        let mut read = self.read.lock().await;
        let mut head = [0; 4];
        read.read_exact(&mut head).await?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        // ChannelData begins with 01, STUN with 00 (RFC 8656, section 12).
        let (whole, on_the_wire) = match head[0] >> 6 {
            1 => (4 + length, (4 + length).next_multiple_of(4)),
            _ => (20 + length, 20 + length),
        };
        let into = buffer.get_mut(..on_the_wire).ok_or_else(too_large)?;
        let (first, rest) = into.split_at_mut_checked(4).ok_or_else(too_large)?;
        first.copy_from_slice(&head);
        read.read_exact(rest).await?;
        Ok(whole)
    }
}

#[async_trait]
impl Conn for Framed {
    async fn connect(&self, _: SocketAddr) -> webrtc_util::Result<()> {
        Ok(())
    }

    async fn recv(&self, buffer: &mut [u8]) -> webrtc_util::Result<usize> {
        Ok(self.take(buffer).await?)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> webrtc_util::Result<(usize, SocketAddr)> {
        Ok((self.take(buffer).await?, self.remote))
    }

    async fn send(&self, message: &[u8]) -> webrtc_util::Result<usize> {
        self.put(message).await?;
        Ok(message.len())
    }

    async fn send_to(&self, message: &[u8], _: SocketAddr) -> webrtc_util::Result<usize> {
        self.send(message).await
    }

    /// Its family is all that anybody asks for.
    fn local_addr(&self) -> webrtc_util::Result<SocketAddr> {
        Ok(self.remote)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.remote)
    }

    async fn close(&self) -> webrtc_util::Result<()> {
        Ok(self.write.lock().await.shutdown().await?)
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}
