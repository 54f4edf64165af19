//! Posts JSON to one URL of the operator's, over a connection of its own each time: no redirect, no proxy, no large answer.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::Request;
use hyper::StatusCode;
use hyper::Uri;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header;
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

/// The largest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;
/// Names that are looked up at once: each takes a thread until it is done, whoever still waits for it.
const MAX_LOOKUPS: usize = 4;

/// Where to post, and as whom.
pub struct Target {
    uri: Uri,
    host: String,
    port: u16,
    within: Duration,
    lookups: Arc<Semaphore>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    authorization: HeaderValue,
}

/// Why nothing can ever be posted.
#[derive(Debug, thiserror::Error)]
pub enum BadTarget {
    /// It names nowhere.
    #[error("is no URL to post to")]
    Url,
    /// The secret can't stand in a header.
    #[error("the secret can't stand in a header: write letters and digits")]
    Secret,
    /// There is nobody to trust over TLS.
    #[error(
        "no certificate authority of this machine can be read: install Debian's ca-certificates, or set SSL_CERT_FILE"
    )]
    NoRoots,
    /// The library refuses.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Why an answer didn't come.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// No HTTP.
    #[error("HTTP failed: {0}")]
    Http(#[from] hyper::Error),
    /// Not the request that it should be.
    #[error("cannot ask: {0}")]
    Request(#[from] hyper::http::Error),
    /// Another status than 200.
    #[error("the answer's status is {0}, not 200")]
    Status(StatusCode),
    /// The answer broke off, or is larger than [`MAX_ANSWER`].
    #[error("the answer can't be read: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
}

impl Target {
    /// Posts to `url`, `http` or `https`, with `secret` as bearer token, and trusts `roots`. Who asks waits for so long: each
    /// address of the name has its share of that to let us in.
    ///
    /// # Errors
    ///
    /// [`BadTarget`].
    pub fn new(url: &str, secret: &str, roots: RootCertStore, within: Duration) -> Result<Self, BadTarget> {
        let uri: Uri = url.parse().map_err(|_| BadTarget::Url)?;
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or(BadTarget::Url)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let mut authorization = HeaderValue::from_str(&format!("Bearer {secret}")).map_err(|_| BadTarget::Secret)?;
        authorization.set_sensitive(true);
        let tls = is_tls.then(|| {
            if roots.is_empty() {
                return Err(BadTarget::NoRoots);
            }
            let name = ServerName::try_from(host.clone()).map_err(|_| BadTarget::Url)?;
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Ok((TlsConnector::from(Arc::new(config)), name))
        });
        let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
        Ok(Self { uri, host, port, within, lookups, tls: tls.transpose()?, authorization })
    }

    /// Posts a JSON text; the body of the answer. Takes as long as the other end does: dropped, it lets go of everything.
    ///
    /// # Errors
    ///
    /// [`PostError`].
    pub async fn post(&self, json: String) -> Result<Vec<u8>, PostError> {
        let addresses = look_up(&self.host, self.port, &self.lookups).await?;
        let stream = connect(&addresses, self.within).await?;
        match &self.tls {
            Some((tls, name)) => self.exchange(tls.connect(name.clone(), stream).await?, json).await,
            None => self.exchange(stream, json).await,
        }
    }

    async fn exchange<S>(&self, stream: S, json: String) -> Result<Vec<u8>, PostError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONNECTION, "close")
            .body(Full::<Bytes>::from(json))?;
        let answer = async move {
            let answer = sender.send_request(request).await?;
            if answer.status() != StatusCode::OK {
                return Err(PostError::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(PostError::Answer)?;
            Ok(body.to_bytes().to_vec())
        };
        // The one is driven by the other, and ends with it.
        tokio::pin!(answer, connection);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    }
}

/// Where `host` is, an address or a name that takes its turn among `lookups`.
pub(super) async fn look_up(host: &str, port: u16, lookups: &Arc<Semaphore>) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let turn = Arc::clone(lookups).acquire_owned().await.map_err(io::Error::other)?;
    let host = host.to_owned();
    let found = tokio::spawn(async move {
        let _turn = turn;
        lookup_host((host, port)).await.map(Iterator::collect)
    });
    found.await.map_err(io::Error::other)?
}

/// Connects to the first of `addresses` that lets us in, each in its share of the time.
pub(super) async fn connect(addresses: &[SocketAddr], within: Duration) -> io::Result<TcpStream> {
    let share = within / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        last = match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
    }
    Err(last)
}

/// The certificate authorities that this machine trusts, or those of `SSL_CERT_FILE`.
pub fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

#[cfg(test)]
mod tests;
