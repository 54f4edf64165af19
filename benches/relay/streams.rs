//! Clients over TCP or TLS: a connection each, and messages that follow each other in it.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::Events;
use mio::Interest;
use mio::Poll;
use mio::Token;
use mio::net::TcpStream;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;

use crate::servers::Failure;
use crate::servers::Pair;
use crate::servers::process::NAME;

/// How much one read takes.
const READ: usize = 64 << 10;

pub(crate) struct Streams {
    poll: Poll,
    events: Events,
    streams: Vec<Stream>,
    buffer: Vec<u8>,
}

struct Stream {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
    /// What came, from the beginning of a message that isn't whole.
    incoming: Vec<u8>,
    /// What the kernel hasn't taken.
    outgoing: Vec<u8>,
}

impl Streams {
    /// Connects `count` clients over TCP.
    pub(crate) fn tcp(server: SocketAddr, count: u16) -> Result<Self, Failure> {
        Self::connect(server, count, || Ok(None))
    }

    /// Connects `count` clients over TLS, to a server that proves itself by `pair`.
    pub(crate) fn tls(server: SocketAddr, count: u16, pair: &Pair) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(pair.cert.der().clone())?;
        // One suite for all servers, or the figures would tell what each prefers; Debian's coturn knows no TLS 1.3.
        let suites = vec![ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
        let provider = CryptoProvider { cipher_suites: suites, ..ring::default_provider() };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        Self::connect(server, count, || {
            Ok(Some(ClientConnection::new(Arc::clone(&config), ServerName::try_from(NAME)?)?))
        })
    }

    fn connect(
        server: SocketAddr,
        count: u16,
        tls: impl Fn() -> Result<Option<ClientConnection>, Failure>,
    ) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let mut streams = Vec::new();
        for token in 0..usize::from(count) {
            let mut tcp = std::net::TcpStream::connect(server)?;
            tcp.set_nodelay(true)?;
            let mut tls = tls()?;
            while let Some(handshake) = tls.as_mut().filter(|tls| tls.is_handshaking()) {
                handshake.complete_io(&mut tcp)?;
            }
            tcp.set_nonblocking(true)?;
            let mut tcp = TcpStream::from_std(tcp);
            poll.registry().register(&mut tcp, Token(token), Interest::READABLE | Interest::WRITABLE)?;
            streams.push(Stream { tcp, tls, incoming: Vec::new(), outgoing: Vec::new() });
        }
        Ok(Self { poll, events: Events::with_capacity(count.into()), streams, buffer: vec![0; READ] })
    }

    pub(crate) fn count(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn send(&mut self, client: usize, message: &[u8]) -> Result<bool, Failure> {
        self.streams.get_mut(client).ok_or("no client")?.send(message)?;
        Ok(true)
    }

    pub(crate) fn receive(&mut self, mut each: impl FnMut(usize, &[u8])) -> Result<(), Failure> {
        self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
        for event in &self.events {
            let Token(client) = event.token();
            let stream = self.streams.get_mut(client).ok_or("no client")?;
            if event.is_writable() {
                stream.flush()?;
            }
            if event.is_readable() {
                stream.read(&mut self.buffer)?;
                stream.take_messages(|message| each(client, message))?;
            }
        }
        Ok(())
    }
}

impl Stream {
    /// Sends one message, as a client does that has no other yet: by itself.
    fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        // ChannelData is padded here (RFC 8656, section 12.5); requests are long enough by themselves.
        let padding = [0; 4].get(..message.len().next_multiple_of(4) - message.len()).unwrap_or_default();
        match &mut self.tls {
            None => self.outgoing.extend([message, padding].concat()),
            Some(tls) => {
                tls.writer().write_all(&[message, padding].concat())?;
                while tls.wants_write() {
                    tls.write_tls(&mut self.outgoing)?;
                }
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        while !self.outgoing.is_empty() {
            match self.tcp.write(&self.outgoing) {
                Ok(length) => drop(self.outgoing.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes everything that waits, as edge-triggered polling asks for.
    fn read(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        loop {
            let length = match self.tcp.read(buffer) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let mut came = buffer.get(..length).unwrap_or_default();
            match &mut self.tls {
                None => self.incoming.extend_from_slice(came),
                Some(tls) => {
                    while !came.is_empty() {
                        tls.read_tls(&mut came)?;
                        let plain = tls.process_new_packets()?.plaintext_bytes_to_read();
                        let end = self.incoming.len();
                        self.incoming.resize(end + plain, 0);
                        tls.reader().read_exact(self.incoming.get_mut(end..).unwrap_or_default())?;
                    }
                }
            }
            if length < buffer.len() {
                return Ok(());
            }
        }
    }

    fn take_messages(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), Failure> {
        let mut rest = &self.incoming[..];
        while let [first, _, l0, l1, ..] = *rest {
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let (whole, padded) = match first >> 6 {
                0 => (20 + length, 20 + length),
                1 => (4 + length, 4 + length.next_multiple_of(4)),
                _ => return Err("neither STUN nor ChannelData came".into()),
            };
            let Some((message, behind)) = rest.split_at_checked(padded) else { break };
            each(message.get(..whole).unwrap_or_default());
            rest = behind;
        }
        let taken = self.incoming.len() - rest.len();
        self.incoming.drain(..taken);
        Ok(())
    }
}
