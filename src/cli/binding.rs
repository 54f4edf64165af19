//! Asks a STUN server for our address as it sees it, over UDP.

use std::io;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::time::Duration;

use stun::agent::TransactionId;
use stun::message::BINDING_REQUEST;
use stun::message::Getter;
use stun::message::Message;

use stun::xoraddr::XorMappedAddress;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How often it is asked, and how long each time may take: datagrams get lost.
const TRIES: u32 = 3;
const EACH: Duration = Duration::from_millis(700);
/// The largest answer that is read.
const MAX_ANSWER: usize = 1500;

/// Our address as the server at `server` sees it.
///
/// # Errors
///
/// `TimedOut` when nothing comes, else what the system or the answer says.
pub(super) async fn ask(server: SocketAddr) -> io::Result<SocketAddr> {
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // A closed port tells itself by ICMP only to who is connected.
    socket.connect(server).await?;
    let request = request()?;
    let mut answer = [0; MAX_ANSWER];
    for _ in 0..TRIES {
        socket.send(&request.raw).await?;
        match timeout(EACH, socket.recv(&mut answer)).await {
            Ok(length) => return mapped(answer.get(..length?).unwrap_or_default(), &request),
            Err(_) => continue,
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
}

/// A Binding request with a transaction of its own.
///
/// # Errors
///
/// Never, by what it is made of.
pub(super) fn request() -> io::Result<Message> {
    let mut request = Message::new();
    request.build(&[Box::new(TransactionId::new()), Box::new(BINDING_REQUEST)]).map_err(io::Error::other)?;
    Ok(request)
}

/// The address in the answer to `request`.
///
/// # Errors
///
/// `InvalidData` for what is no answer to it.
pub(super) fn mapped(bytes: &[u8], request: &Message) -> io::Result<SocketAddr> {
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "what came is no answer of a STUN server");
    let mut answer = Message { raw: bytes.to_vec(), ..Message::default() };
    answer.decode().map_err(|_| nonsense())?;
    let mut address = XorMappedAddress::default();
    if answer.transaction_id != request.transaction_id || address.get_from(&answer).is_err() {
        return Err(nonsense());
    }
    Ok(SocketAddr::new(address.ip.to_canonical(), address.port))
}
