//! Certificates: made here and kept, or read from files; what of them is served stands in [`Certificates`].

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::ASN1Time;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

use crate::clock::Now;

pub use self::certificates::CertificateInfo;
pub use self::certificates::Certificates;
pub use self::certificates::Source;
pub use self::challenges::Challenges;
pub use self::challenges::Offer;

mod certificates;
mod challenges;

/// Why there is no certificate to serve, and the cure.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the operator's can't be used.
    #[error("{key}: {}: {problem}", path.display())]
    File {
        /// The configuration key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate and the key are fine, but not each other's.
    #[error("tls.key: {}: is not the key of the certificate in {}: give both files of one pair", key.display(), certificate.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate made here can't be kept.
    #[error(
        "cannot write {}: {error}; make the directory writable, or set STATE_DIRECTORY to one that is",
        path.display()
    )]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// There is nobody by whom an authority's own certificate could be trusted.
    #[error(
        "tls.acme: no certificate authority of this machine can be read: install Debian's ca-certificates, or set \
         tls.acme.ca"
    )]
    NoRoots,
    /// The libraries refuse what we made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

/// A certificate chain and its key, which belong to each other; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pair {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: u64,
    not_after: u64,
}

/// How long a certificate made here is good: what browsers take at most from anyone.
const VALIDITY: Duration = Duration::from_secs(397 * 24 * 3600);
/// What may be left of it before it is made anew.
const MARGIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far a client's clock may be behind.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

impl Pair {
    /// Reads PEM files that the operator named by `tls.certificate` and `tls.key`.
    ///
    /// # Errors
    ///
    /// [`TlsError::File`] or [`TlsError::Pair`].
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let of_key = |problem| TlsError::File { key: "tls.key", path: key.to_owned(), problem };
        let chain = read_chain(certificate, "tls.certificate")?;
        Self::new(chain, read_key(key, "tls.key")?).map_err(|fault| match fault {
            Fault::Unreadable => TlsError::File {
                key: "tls.certificate",
                path: certificate.to_owned(),
                problem: "holds a certificate that can't be read: give one in X.509".to_owned(),
            },
            Fault::NotOfOnePair => TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned() },
            Fault::Key(error) => of_key(format!("cannot be used ({error}): give an RSA, ECDSA or Ed25519 key in PEM")),
        })
    }

    /// Reads a certificate chain and its key from one PEM text; nothing if they aren't there or don't fit.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Option<Self> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().ok()?;
        Self::new(chain, PrivateKeyDer::from_pem_slice(key).ok()?).ok()
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, Fault> {
        let (names, not_before, not_after) = chain.first().and_then(particulars).ok_or(Fault::Unreadable)?;
        match CertifiedKey::from_der(chain, key, &provider()) {
            Ok(key) => Ok(Self { key: Arc::new(key), names, not_before, not_after }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(Fault::NotOfOnePair),
            Err(error) => Err(Fault::Key(error)),
        }
    }

    /// The self-signed certificate kept in `directory`, made anew unless it is for exactly `names` and good for a while.
    ///
    /// # Errors
    ///
    /// [`TlsError::State`], when it can't be kept.
    pub fn self_signed(directory: &Path, names: &[String], now: Now) -> Result<Self, TlsError> {
        let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
        if let Ok(kept) = Self::from_files(&certificate, &key)
            && kept.is_for(names)
            && !kept.needs_renewal(now)
        {
            return Ok(kept);
        }
        let (certificate_pem, key_pem) = make(names, now)?;
        fs::create_dir_all(directory).map_err(|error| TlsError::State { path: directory.to_owned(), error })?;
        write(&key, &key_pem, 0o600)?;
        write(&certificate, &certificate_pem, 0o644)?;
        tracing::info!(directory = %directory.display(), "made a self-signed certificate");
        Self::from_files(&certificate, &key)
    }

    /// Whether its time has begun and isn't over.
    pub fn is_current(&self, now: Now) -> bool {
        self.is_good_at(now.unix, now.unix)
    }

    /// Whether one made here isn't good for long.
    pub fn needs_renewal(&self, now: Now) -> bool {
        !self.is_good_at(now.unix, now.unix + MARGIN)
    }

    /// Its first and its last second, in Unix time.
    pub fn validity(&self) -> (u64, u64) {
        (self.not_before, self.not_after)
    }

    /// Whether the first certificate is for exactly these names and addresses.
    pub fn is_for(&self, names: &[String]) -> bool {
        let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        sorted(&self.names) == sorted(names)
    }

    /// Whether it is the very same chain.
    pub fn is_same(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }

    /// Whether the first certificate's time has begun and isn't over before `until`.
    fn is_good_at(&self, from: Duration, until: Duration) -> bool {
        self.not_before <= from.as_secs() && self.not_after >= until.as_secs()
    }
}

/// What is wrong with a pair.
enum Fault {
    /// The first certificate isn't there, or is none.
    Unreadable,
    /// The key is another certificate's.
    NotOfOnePair,
    /// The library doesn't take the key.
    Key(rustls::Error),
}

const CERTIFICATE: &str = "self-signed.pem";
const KEY: &str = "self-signed.key";

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read_chain(path: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unusable(path, key, pem::Error::NoItemsFound, "certificate")),
        Err(error) => Err(unusable(path, key, error, "certificate")),
    }
}

fn read_key(path: &Path, key: &'static str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable(path, key, error, "private key"))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn unusable(path: &Path, key: &'static str, error: pem::Error, what: &str) -> TlsError {
    let problem = match error {
        pem::Error::Io(error) => format!("cannot read it: {error}"),
        pem::Error::NoItemsFound => format!("there is no {what} in it: give a PEM file that holds one"),
        other => format!("is not a PEM file ({other:?}): give one with a {what}"),
    };
    TlsError::File { key, path: path.to_owned(), problem }
}

/// A new certificate for `names` and its key, as PEM.
fn make(names: &[String], now: Now) -> Result<(String, String), TlsError> {
    let refused = |error: rcgen::Error| TlsError::Make(error.to_string());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(refused)?;
    let mut params = rcgen::CertificateParams::new(names).map_err(refused)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.unix.saturating_sub(BACKDATED);
    params.not_after = epoch + now.unix + VALIDITY - BACKDATED;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Throughway, self-signed");
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(refused)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Writes a file whole or not at all, with this mode.
///
/// # Errors
///
/// [`TlsError::State`].
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let failed = |error| TlsError::State { path: path.to_owned(), error };
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let attempt = || {
        // A file left over from a crash would keep its own mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => (),
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    attempt().map_err(failed)
}

/// The names and addresses in a certificate, and its first and last second in Unix time.
fn particulars(der: &CertificateDer<'_>) -> Option<(Vec<String>, u64, u64)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name_of).collect(),
        Ok(None) | Err(_) => Vec::new(),
    };
    let seconds = |time: ASN1Time| u64::try_from(time.timestamp()).unwrap_or_default();
    let validity = certificate.validity();
    Some((names, seconds(validity.not_before), seconds(validity.not_after)))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from).ok();
            Some(v4.or_else(|| <[u8; 16]>::try_from(*bytes).map(IpAddr::from).ok())?.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::Clock;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_certificate_is_kept_until_names_change_or_its_end_is_near() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("certs");
        let now = Clock::system().now();
        let ours = names(&["localhost", "127.0.0.1", "::1"]);
        let get = |names: &[String], now| Pair::self_signed(&directory, names, now).unwrap().key.cert.clone();

        let first = get(&ours, now);
        let again = get(&ours, now);
        let later = get(&ours, now.after(VALIDITY - BACKDATED - MARGIN + Duration::from_secs(60)));
        let renamed = get(&names(&["localhost", "example.org"]), now);

        assert_eq!(first, again);
        assert_ne!(again, later, "its end is near");
        assert_ne!(later, renamed);
        let mode = fs::metadata(directory.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "nothing else is left behind");
    }

    #[test]
    fn a_damaged_kept_certificate_is_made_anew() {
        let home = tempfile::tempdir().unwrap();
        let now = Clock::system().now();
        let ours = names(&["localhost"]);
        Pair::self_signed(home.path(), &ours, now).unwrap();
        fs::write(home.path().join(KEY), "nonsense").unwrap();

        let pair = Pair::self_signed(home.path(), &ours, now).unwrap();

        assert!(pair.is_for(&ours) && pair.is_current(now));
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_key() {
        let home = tempfile::tempdir().unwrap();
        let (one, other) = (home.path().join("one"), home.path().join("other"));
        let now = Clock::system().now();
        Pair::self_signed(&one, &names(&["one"]), now).unwrap();
        Pair::self_signed(&other, &names(&["other"]), now).unwrap();
        let error = |certificate: &Path, key: &Path| Pair::from_files(certificate, key).err().unwrap().to_string();

        let missing = error(&one.join("nothing"), &one.join(KEY));
        let swapped = error(&one.join(KEY), &one.join(CERTIFICATE));
        let mixed = error(&one.join(CERTIFICATE), &other.join(KEY));

        assert!(missing.starts_with("tls.certificate: ") && missing.contains("cannot read it"), "{missing}");
        assert!(swapped.contains("there is no certificate in it"), "{swapped}");
        assert!(mixed.contains("is not the key of the certificate"), "{mixed}");
    }
}
