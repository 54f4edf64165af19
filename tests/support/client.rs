//! A WebSocket client that speaks our JSON protocol, frame by frame.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Response;

use super::PATIENCE;

/// What a WebSocket can run over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A client of our JSON protocol, in either dialect.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<Box<dyn Io>>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr, path: &str) -> Self {
        Self::over(TcpStream::connect(addr).await.unwrap(), path, &[]).await.unwrap()
    }

    /// Upgrades a stream, or says with which status the server refuses.
    pub(crate) async fn over(io: impl Io + 'static, path: &str, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let io: Box<dyn Io> = Box::new(io);
        match tokio_tungstenite::client_async(request, io).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(tungstenite::Error::Http(response)) => Err(Response::status(&response).as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Upgrades a stream that may break meanwhile.
    pub(crate) async fn try_over(io: impl Io + 'static, path: &str) -> Option<Self> {
        let request = format!("ws://localhost{path}").into_client_request().unwrap();
        let io: Box<dyn Io> = Box::new(io);
        tokio_tungstenite::client_async(request, io).await.ok().map(|(socket, _)| Self { socket })
    }

    pub(crate) async fn sign_in(addr: SocketAddr, path: &str, name: &str) -> Self {
        let mut client = Self::connect(addr, path).await;
        let reply = client.log_in(name).await;
        assert_eq!(reply["success"], true, "{reply}");
        client
    }

    pub(crate) async fn log_in(&mut self, name: &str) -> Value {
        self.send(&json!({ "type": "login", "name": name })).await;
        loop {
            let reply = self.hear().await;
            if reply["type"] == "login" {
                return reply;
            }
        }
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.send_raw(Message::text(frame.to_string())).await;
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Option<Message> {
        tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("something comes").and_then(Result::ok)
    }

    /// The next frame, which is JSON.
    pub(crate) async fn hear(&mut self) -> Value {
        loop {
            let message = self.next().await.expect("the connection is open");
            if message.is_text() {
                return serde_json::from_str(message.to_text().unwrap()).unwrap();
            }
            assert!(message.is_ping(), "{message:?}");
        }
    }

    /// Reads to the end: every frame, and the code that closed.
    pub(crate) async fn hear_out(&mut self) -> (Vec<Value>, Option<u16>) {
        let mut frames = Vec::new();
        while let Some(message) = self.next().await {
            if let Message::Close(close) = message {
                return (frames, close.map(|close| close.code.into()));
            }
            if message.is_text() {
                frames.push(serde_json::from_str(message.to_text().unwrap()).unwrap());
            }
        }
        (frames, None)
    }

    /// Whether it is there, and nothing came before its answer.
    pub(crate) async fn is_served(&mut self) {
        self.send(&json!({ "type": "ping" })).await;
        assert_eq!(self.hear().await, json!({ "type": "pong" }));
    }
}

/// TLS that trusts the certificate kept in `home` and no other.
pub(crate) fn tls(home: &Path) -> TlsConnector {
    trusting([CertificateDer::from_pem_file(home.join("certs/self-signed.pem")).unwrap()])
}

/// TLS that trusts these certificates and no other, and begins anew with each connection.
pub(crate) fn trusting(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> TlsConnector {
    offering(certificates, &[])
}

/// The same, with these protocols (ALPN).
pub(crate) fn offering(
    certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    protocols: &[&str],
) -> TlsConnector {
    let mut trusted = RootCertStore::empty();
    for certificate in certificates {
        trusted.add(certificate).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// The first certificate that is shown at `addr` for `name`, if `tls` trusts it.
pub(crate) async fn shown(tls: &TlsConnector, addr: SocketAddr, name: &str) -> Option<CertificateDer<'static>> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let stream = tls.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await.ok()?;
    Some(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
}

/// Waits until another certificate than `before` is shown, and says which.
pub(crate) async fn shown_other(
    tls: &TlsConnector,
    addr: SocketAddr,
    name: &str,
    before: Option<&CertificateDer<'static>>,
) -> CertificateDer<'static> {
    let other = async {
        loop {
            match shown(tls, addr, name).await {
                Some(shown) if Some(&shown) != before => return shown,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, other).await.expect("another certificate is served in time")
}
