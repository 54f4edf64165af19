//! Whether the certificate and the key that the configuration names can be used.

use std::path::Path;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use super::finding::Finding;

/// Looks at both files.
pub(super) fn pair(certificate: &Path, key: &Path) -> Finding {
    let fault = |name: &str, path: &Path, why: String| {
        let cure =
            "give files of PEM, one pair, that the server's user may read; with the certificate first in its chain";
        Finding::fault("tls_files", format!("{name}: {}: {why}", path.display()), cure)
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => return fault("tls.certificate", certificate, "there is no certificate in it".to_owned()),
        Err(error) => return fault("tls.certificate", certificate, error.to_string()),
    };
    let private = match PrivateKeyDer::from_pem_file(key) {
        Ok(private) => private,
        Err(error) => return fault("tls.key", key, error.to_string()),
    };
    match CertifiedKey::from_der(chain, private, &ring::default_provider()) {
        Ok(_) => Finding::ok("tls_files", "the certificate and its key can be read"),
        Err(error) => fault("tls.key", key, format!("is not the key of the certificate: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_pair_is_good_and_anything_else_is_named() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let made = rcgen::generate_simple_self_signed(["a.org".to_owned()]).unwrap();
            let (certificate, key) = (home.path().join(format!("{name}.pem")), home.path().join(format!("{name}.key")));
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            (certificate, key)
        };
        let (one, other) = (write("one"), write("other"));

        assert_eq!(pair(&one.0, &one.1).level, Level::Ok);
        assert!(pair(&one.0, &other.1).found.contains("is not the key of the certificate"));
        assert!(pair(&one.1, &one.0).found.contains("there is no certificate in it"));
        assert!(pair(&one.0, &home.path().join("nowhere")).found.starts_with("tls.key: "));
    }
}
