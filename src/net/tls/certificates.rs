//! What TLS listeners serve: one certificate, which can be another from one handshake to the next, and while an authority
//! asks for it, proof of a name.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use serde::Serialize;

use super::Challenges;
use super::Pair;
use super::TlsError;
use super::provider;

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Made here: no browser trusts it.
    SelfSigned,
    /// From files of the operator's.
    Files,
    /// From a certificate authority, by itself.
    Acme,
}

/// What there is to know of the certificate that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateInfo {
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// Its first second, in Unix time.
    pub not_before: u64,
    /// Its last second, in Unix time.
    pub not_after: u64,
    /// Where it comes from.
    pub source: Source,
}

/// The certificate of all TLS listeners; cheap to clone.
#[derive(Clone, Debug)]
pub struct Certificates {
    config: Arc<ServerConfig>,
    served: Arc<Served>,
    challenges: Challenges,
    trusted: Arc<AtomicBool>,
}

impl Certificates {
    /// Serves `pair`.
    ///
    /// # Errors
    ///
    /// [`TlsError::Make`], when the library refuses the settings.
    pub fn new(pair: Pair, source: Source) -> Result<Self, TlsError> {
        let served = Arc::new(Served(ArcSwap::from_pointee((pair, source))));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Make(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Served>::clone(&served));
        // No h2: WebSockets over it are rare, and the same look at the first bytes must fit every client.
        // `stun.turn` is for clients of TURN over TLS (RFC 7443, section 3).
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"stun.turn".to_vec()];
        let trusted = Arc::new(AtomicBool::new(is_trusted(source)));
        Ok(Self { config: Arc::new(config), served, challenges: Challenges::default(), trusted })
    }

    /// Serves `pair` from the next handshake on. Connections that there are go on.
    pub fn swap(&self, pair: Pair, source: Source) {
        self.served.0.store(Arc::new((pair, source)));
        self.trusted.store(is_trusted(source), Ordering::Relaxed);
    }

    /// The settings of a TLS server, for all handshakes but an authority's.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The settings that prove a name, if this is an authority that asks for a proof that we have: its handshake offers the
    /// one protocol that there is for it and no other (RFC 8737, section 3).
    pub fn proof(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut offered = hello.alpn()?;
        let is_asked = offered.next() == Some(ACME_TLS) && offered.next().is_none();
        is_asked.then(|| self.challenges.proof(hello.server_name()?)).flatten()
    }

    /// What authorities ask for.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// What is served.
    pub fn info(&self) -> CertificateInfo {
        let served = self.served.0.load();
        let (pair, source) = &**served;
        let Pair { names, not_before, not_after, .. } = pair.clone();
        CertificateInfo { names, not_before, not_after, source: *source }
    }

    /// The pair that is served.
    pub fn pair(&self) -> Pair {
        self.served.0.load().0.clone()
    }

    /// Whether browsers accept what is served.
    pub fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed)
    }

    /// The same, for who must not know of certificates.
    pub fn trusted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.trusted)
    }
}

/// The protocol of the TLS-ALPN-01 challenge (RFC 8737, section 6.2).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

fn is_trusted(source: Source) -> bool {
    match source {
        Source::SelfSigned => false,
        Source::Files | Source::Acme => true,
    }
}

/// What the library asks at each handshake.
#[derive(Debug)]
struct Served(ArcSwap<(Pair, Source)>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().0.key))
    }
}
