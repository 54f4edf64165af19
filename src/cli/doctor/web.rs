//! Connections as clients make them: TLS that looks at the certificate and goes on, HTTP, and WebSocket upgrades.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper::HeaderMap;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::server::ParsedCertificate;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

use super::judge::Shown;

/// How long each step may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const MAX_ANSWER: usize = 256 << 10;

/// What a client can talk over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects in clear.
pub(super) async fn open(addr: SocketAddr) -> io::Result<TcpStream> {
    match timeout(PATIENCE, TcpStream::connect(addr)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
    }
}

/// Connects over TLS, whatever certificate is shown, and tells which; `name` is what a client would ask for.
pub(super) async fn open_tls(addr: SocketAddr, name: &str) -> io::Result<(Box<dyn Stream>, Shown)> {
    let provider = Arc::new(ring::default_provider());
    let roots = crate::net::post::native_roots();
    let look = Arc::new(Look::new(roots, Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&look) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap_or_else(|_| ServerName::from(addr.ip()));
    let stream = open(addr).await?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream =
        timeout(PATIENCE, handshake).await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS"))??;
    let shown = look.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((Box::new(stream), shown))
}

/// Takes every certificate and notes what is to be said of it.
#[derive(Debug)]
struct Look {
    /// None: this machine trusts no authority at all.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    shown: Mutex<Shown>,
}

impl Look {
    fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Self {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        Self { verifier: verifier.build().ok(), provider, shown: Mutex::default() }
    }
}

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trusted = match &self.verifier {
            Some(verifier) => verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now).map(drop),
            None => Err(Error::General("it trusts nobody: install ca-certificates".to_owned())),
        };
        let mut shown = read(end_entity);
        let parsed = ParsedCertificate::try_from(end_entity);
        shown.is_for_name = parsed.is_ok_and(|parsed| verify_server_name(&parsed, server_name).is_ok());
        let is_unknown = |error: &Error| matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let in_words =
            |error: Error| if is_unknown(&error) { "its issuer isn't known".to_owned() } else { error.to_string() };
        shown.untrusted = trusted.err().map(in_words);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What stands in a certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn read(der: &CertificateDer<'_>) -> Shown {
    let Ok((_, parsed)) = X509Certificate::from_der(der) else { return Shown::default() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from).ok();
            Some(v4.or_else(|| <[u8; 16]>::try_from(*bytes).map(IpAddr::from).ok())?.to_string())
        }
        _ => None,
    };
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let unix = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or_default();
    Shown {
        names: alternative.map(|of| of.value.general_names.iter().filter_map(name).collect()).unwrap_or_default(),
        not_before: unix(parsed.validity().not_before),
        not_after: unix(parsed.validity().not_after),
        is_self_signed: parsed.subject() == parsed.issuer(),
        is_for_name: false,
        untrusted: None,
    }
}

/// An answer over HTTP.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The clock of whoever answered, in Unix seconds.
    pub(super) fn date(&self) -> Option<u64> {
        let date = self.headers.get(header::DATE)?.to_str().ok()?;
        let since = httpdate::parse_http_date(date).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    }
}

/// Gets `path` of `host`, with a bearer token if there is one.
pub(super) async fn get(
    stream: impl Stream + 'static,
    host: &str,
    path: &str,
    token: Option<&str>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let asking = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer.
        tokio::spawn(connection);
        let mut request = Request::get(path).header(header::HOST, host).header(header::CONNECTION, "close");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes().to_vec();
        Ok(Answer { status, headers, body })
    };
    timeout(PATIENCE, asking).await.map_err(|_| "no answer in 5 s")?
}

/// Asks for a WebSocket as a page of this host would: the status, and who says that it answered.
pub(super) async fn upgrade(
    stream: impl Stream + 'static,
    scheme: &str,
    host: &str,
    path: &str,
) -> Result<(u16, String), String> {
    let mut request = format!("ws://{host}{path}").into_client_request().map_err(|error| error.to_string())?;
    let origin = HeaderValue::from_str(&format!("{scheme}://{host}")).map_err(|error| error.to_string())?;
    request.headers_mut().insert("origin", origin);
    let asking = tokio_tungstenite::client_async(request, stream);
    match timeout(PATIENCE, asking).await.map_err(|_| "no answer in 5 s".to_owned())? {
        Ok(_) => Ok((101, String::new())),
        Err(tungstenite::Error::Http(answer)) => {
            let named =
                |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok((answer.status().as_u16(), named("server").or_else(|| named("via")).unwrap_or_default()))
        }
        Err(error) => Err(error.to_string()),
    }
}
