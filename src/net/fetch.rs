//! Asks HTTPS servers that the operator chose, over a connection of its own each time: no redirect, no proxy, no clear text,
//! no large answer.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::Request;
use hyper::Response;
use hyper::Uri;
use hyper::body::Body;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header;
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::post::MAX_ANSWER;
use super::post::connect;
use super::post::look_up;

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(30);
/// How much of that each step of getting through may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Whom it trusts; cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    tls: TlsConnector,
    lookups: Arc<Semaphore>,
}

/// Why an answer didn't come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It would go in clear text, or nowhere.
    #[error("{0} is no https URL")]
    Url(Uri),
    /// No connection, or none that is trusted.
    #[error("cannot reach {host}: {error}")]
    Unreachable {
        /// Whom.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// No HTTP.
    #[error("HTTP failed: {0}")]
    Http(#[from] hyper::Error),
    /// It broke off, or is larger than [`MAX_ANSWER`].
    #[error("the answer can't be read: {0}")]
    Answer(Box<dyn Error + Send + Sync>),
}

impl Fetcher {
    /// Trusts `roots` and no others.
    ///
    /// # Errors
    ///
    /// The library refuses.
    pub fn new(roots: RootCertStore) -> Result<Self, rustls::Error> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // One asks after the other.
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), lookups: Arc::new(Semaphore::new(1)) })
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    ///
    /// [`FetchError`], after half a minute at most.
    pub async fn fetch<B>(&self, request: Request<B>) -> Result<Response<Full<Bytes>>, FetchError>
    where
        B: Body + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let uri = request.uri().clone();
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(FetchError::Url(uri)) };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let unreachable = |error| FetchError::Unreachable { host: host.clone(), error };
        let asked = async {
            let name = ServerName::try_from(host.clone()).map_err(|error| unreachable(io::Error::other(error)))?;
            let addresses = look_up(&host, uri.port_u16().unwrap_or(443), &self.lookups).await.map_err(unreachable)?;
            let stream = connect(&addresses, CONNECT_WITHIN).await.map_err(unreachable)?;
            let stream = self.tls.connect(name, stream).await.map_err(unreachable)?;
            exchange(stream, request).await
        };
        tokio::time::timeout(WITHIN, asked).await.unwrap_or_else(|elapsed| Err(unreachable(elapsed.into())))
    }
}

async fn exchange<S, B>(stream: S, mut request: Request<B>) -> Result<Response<Full<Bytes>>, FetchError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let uri = std::mem::take(request.uri_mut());
    let host = uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let (Some(host), Some(path)) = (host, uri.path_and_query()) {
        *request.uri_mut() = path.clone().into();
        request.headers_mut().insert(header::HOST, host);
    }
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    let answer = async move {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(FetchError::Answer)?;
        Ok(Response::from_parts(parts, Full::new(body.to_bytes())))
    };
    // The one is driven by the other, and ends with it.
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A server for one request, which answers a header and then `body` again and again until nobody reads; its certificate.
    async fn serve(body: &'static [u8]) -> (String, CertificateDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/dir?a=b", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            let stream = listener.accept().await.unwrap().0;
            let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).await.unwrap();
            assert!(request[..count].starts_with(b"GET /dir?a=b HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await.unwrap();
            while !body.is_empty() && stream.write_all(body).await.is_ok() {}
            stream.shutdown().await.unwrap();
        });
        (url, certificate.der().clone())
    }

    async fn fetch(url: &str, trusted: Option<CertificateDer<'static>>) -> Result<Bytes, FetchError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted);
        let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
        let answer = Fetcher::new(roots).unwrap().fetch(request).await?;
        Ok(answer.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn an_answer_is_read_whole_from_who_is_trusted_and_from_nobody_else() {
        let (url, certificate) = serve(b"").await;
        assert_eq!(fetch(&url, Some(certificate)).await.unwrap(), "");

        let (url, _) = serve(b"").await;
        assert!(matches!(fetch(&url, None).await, Err(FetchError::Unreachable { .. })));
    }

    #[tokio::test]
    async fn an_answer_without_end_and_a_url_in_clear_are_errors() {
        let (url, certificate) = serve(&[b'x'; 1024]).await;

        assert!(matches!(fetch(&url, Some(certificate)).await, Err(FetchError::Answer(_))));
        assert!(matches!(fetch(&url.replace("https", "http"), None).await, Err(FetchError::Url(_))));
    }
}
