//! What a client's messages travel by: datagrams, or a stream in clear or inside TLS, where they are cut apart.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadHalf;
use tokio::io::WriteHalf;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::client::Io;

pub(crate) enum Line {
    Datagrams(UdpSocket, SocketAddr),
    Stream(Mutex<ReadHalf<Box<dyn Io>>>, Mutex<WriteHalf<Box<dyn Io>>>, Option<SocketAddr>),
}

impl Line {
    /// Datagrams from a loopback port of its own, in the server's family.
    pub(crate) async fn udp(server: SocketAddr) -> Self {
        Self::udp_from(if server.is_ipv4() { "127.0.0.1" } else { "::1" }, server).await
    }

    /// Datagrams from a port of its own at `ip`.
    pub(crate) async fn udp_from(ip: &str, server: SocketAddr) -> Self {
        Self::Datagrams(UdpSocket::bind((ip, 0)).await.unwrap(), server)
    }

    /// A connection from a loopback port of its own, inside TLS if that is given.
    pub(crate) async fn stream(server: SocketAddr, tls: Option<&TlsConnector>) -> Self {
        let stream = TcpStream::connect(server).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let local = stream.local_addr().unwrap();
        let stream: Box<dyn Io> = match tls {
            Some(tls) => Box::new(tls.connect("localhost".try_into().unwrap(), stream).await.unwrap()),
            None => Box::new(stream),
        };
        match Self::over(stream) {
            Self::Stream(reader, writer, _) => Self::Stream(reader, writer, Some(local)),
            datagrams @ Self::Datagrams(..) => datagrams,
        }
    }

    /// A stream that is there already.
    pub(crate) fn over(stream: Box<dyn Io>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self::Stream(Mutex::new(reader), Mutex::new(writer), None)
    }

    /// Its own address.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Datagrams(socket, _) => socket.local_addr().unwrap(),
            Self::Stream(.., local) => local.expect("who made the stream knows it"),
        }
    }

    /// Sends a whole message, padded as the line wants it.
    pub(crate) async fn send(&self, raw: &[u8]) {
        match self {
            Self::Datagrams(socket, server) => _ = socket.send_to(raw, server).await.unwrap(),
            Self::Stream(..) => {
                let mut padded = raw.to_vec();
                padded.resize(raw.len().next_multiple_of(4), 0xEE);
                self.write(&padded).await;
            }
        }
    }

    /// Writes bytes to a stream, whatever they are.
    pub(crate) async fn write(&self, bytes: &[u8]) {
        let Self::Stream(_, writer, _) = self else { panic!("not a stream") };
        let mut writer = writer.lock().await;
        writer.write_all(bytes).await.unwrap();
        writer.flush().await.unwrap();
    }

    /// The next message, without padding; none at the end of a stream.
    pub(crate) async fn receive(&self) -> Option<Vec<u8>> {
        match self {
            Self::Datagrams(socket, server) => {
                let mut buffer = vec![0; 65_536];
                let (length, source) = socket.recv_from(&mut buffer).await.unwrap();
                assert_eq!(source, *server, "answers come from the address that was asked");
                buffer.truncate(length);
                Some(buffer)
            }
            Self::Stream(reader, ..) => {
                let mut reader = reader.lock().await;
                let mut message = vec![0; 4];
                reader.read_exact(&mut message).await.ok()?;
                let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
                let whole = if message[0] < 0x40 { 20 + length } else { 4 + length };
                message.resize(whole.next_multiple_of(4), 0);
                reader.read_exact(&mut message[4..]).await.ok()?;
                assert!(message[whole..].iter().all(|byte| *byte == 0), "padding is zero");
                message.truncate(whole);
                Some(message)
            }
        }
    }
}
