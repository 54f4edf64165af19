//! What a certificate authority asks for while it makes sure that a name is ours: proofs over TLS and texts over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use rustls::sign::SingleCertAndKey;

use super::TlsError;
use super::certificates::ACME_TLS;
use super::provider;

/// How many of either kind there may be at once: as many as an authority's certificate may have names.
const MOST: usize = 100;
/// Where authorities ask for texts (RFC 8555, section 8.3).
const PATH: &str = "/.well-known/acme-challenge/";

/// The proofs and texts that are there to be asked for; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Challenges(Arc<Mutex<Pending>>);

#[derive(Debug, Default)]
struct Pending {
    /// By name, in lower case.
    proofs: BTreeMap<String, Arc<ServerConfig>>,
    /// By token.
    texts: BTreeMap<String, String>,
}

impl Challenges {
    /// Has a proof ready for `name`, made of the digest that the authority expects (TLS-ALPN-01).
    ///
    /// # Errors
    ///
    /// [`TlsError::Make`]: there are too many, or the library refuses.
    pub fn prove(&self, name: &str, digest: &[u8]) -> Result<Offer, TlsError> {
        let (name, proof) = (name.to_ascii_lowercase(), make(name, digest)?);
        offer(&mut self.lock().proofs, &name, proof)?;
        Ok(Offer { challenges: self.clone(), what: What::Proof(name) })
    }

    /// Has a text ready for whoever knows `token` (HTTP-01).
    ///
    /// # Errors
    ///
    /// [`TlsError::Make`]: there are too many.
    pub fn tell(&self, token: &str, text: String) -> Result<Offer, TlsError> {
        offer(&mut self.lock().texts, token, text)?;
        Ok(Offer { challenges: self.clone(), what: What::Text(token.to_owned()) })
    }

    /// The text at a path, if that is exactly one which an authority was told of.
    pub fn text(&self, path: &str) -> Option<String> {
        self.lock().texts.get(path.strip_prefix(PATH)?).cloned()
    }

    /// The settings that prove `name`.
    pub(super) fn proof(&self, name: &str) -> Option<Arc<ServerConfig>> {
        self.lock().proofs.get(&name.to_ascii_lowercase()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proof or text that is there until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Offer {
    challenges: Challenges,
    what: What,
}

#[derive(Debug)]
enum What {
    Proof(String),
    Text(String),
}

impl Drop for Offer {
    fn drop(&mut self) {
        let mut pending = self.challenges.lock();
        match &self.what {
            What::Proof(name) => drop(pending.proofs.remove(name)),
            What::Text(token) => drop(pending.texts.remove(token)),
        }
    }
}

fn offer<T>(pending: &mut BTreeMap<String, T>, key: &str, what: T) -> Result<(), TlsError> {
    if pending.len() >= MOST && !pending.contains_key(key) {
        return Err(TlsError::Make(format!("more than {MOST} challenges at once")));
    }
    pending.insert(key.to_owned(), what);
    Ok(())
}

/// A server that shows `digest` in a certificate for `name`, and speaks nothing (RFC 8737, section 3).
fn make(name: &str, digest: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let refused = |error: rcgen::Error| TlsError::Make(error.to_string());
    let failed = |error: rustls::Error| TlsError::Make(error.to_string());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(refused)?;
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).map_err(refused)?;
    params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).map_err(refused)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = provider();
    let key = provider.key_provider.load_private_key(key).map_err(failed)?;
    // Not as any other pair: what looks into certificates there takes none with this extension, which is critical.
    let pair = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.der().clone()], key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(pair));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_token_is_answered_while_its_offer_lasts() {
        let challenges = Challenges::default();
        let offer = challenges.tell("to-ken", "text".to_owned()).unwrap();

        assert_eq!(challenges.text("/.well-known/acme-challenge/to-ken").as_deref(), Some("text"));
        for path in [
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/to-ke",
            "/.well-known/acme-challenge/to-ken/",
            "/.well-known/acme-challenge/TO-KEN",
            "/.well-known/acme-challenge/%74o-ken",
            "to-ken",
            "",
        ] {
            assert_eq!(challenges.text(path), None, "{path}");
        }
        drop(offer);
        assert_eq!(challenges.text("/.well-known/acme-challenge/to-ken"), None);
    }

    #[test]
    fn a_proof_is_there_for_its_name_in_any_case_while_its_offer_lasts() {
        let challenges = Challenges::default();
        let offer = challenges.prove("a.example.org", &[7; 32]).unwrap();

        assert!(challenges.proof("A.Example.ORG").is_some());
        assert!(challenges.proof("b.example.org").is_none());
        drop(offer);
        assert!(challenges.proof("a.example.org").is_none());
    }

    #[test]
    fn challenges_are_capped_and_their_end_makes_room() {
        let challenges = Challenges::default();
        let mut offers: Vec<_> = (0..MOST).map(|n| challenges.tell(&n.to_string(), String::new()).unwrap()).collect();

        assert!(challenges.tell("one more", String::new()).is_err());
        offers.pop();
        assert!(challenges.tell("one more", String::new()).is_ok());
    }
}
