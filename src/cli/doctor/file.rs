//! Whether the certificate and the key that the configuration names can be used.

use std::path::Path;

use super::finding::Finding;
use crate::net::tls::Pair;

/// Looks at both files as the server does.
pub(super) fn pair(certificate: &Path, key: &Path) -> Finding {
    match Pair::from_files(certificate, key) {
        Ok(_) => Finding::ok("tls_files", "the certificate and its key can be read"),
        Err(error) => Finding::fault(
            "tls_files",
            error.to_string(),
            "give files of PEM, one pair, that the server's user may read; with the certificate first in its chain",
        ),
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
