//! What is kept of an authority: the account, the certificate, and how often it has said no; each file whole, and nobody
//! else's to read.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use instant_acme::AccountCredentials;
use ring::digest;
use serde::Deserialize;
use serde::Serialize;

use super::COUNTS_FOR;
use super::REFUSALS;
use crate::net::tls;
use crate::net::tls::Pair;
use crate::net::tls::TlsError;

/// In the directory of state.
const DIRECTORY: &str = "acme";
const ACCOUNT: &str = "account.json";
/// Key and chain in one file: it is always one pair.
const CERTIFICATE: &str = "certificate.pem";
const REFUSED: &str = "refused.json";

/// A directory for an authority, and in it one for a set of names.
pub(super) struct Store {
    authority: PathBuf,
    names: PathBuf,
    /// An account that couldn't be written down: with each try there would be another one at the authority otherwise.
    unwritten: Mutex<Option<String>>,
}

/// An account, and whom the authority may write to about it.
#[derive(Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) email: String,
    pub(super) credentials: AccountCredentials,
}

impl Store {
    /// Makes the directories.
    ///
    /// # Errors
    ///
    /// [`TlsError::State`].
    pub(super) fn new(state: &Path, directory: &str, names: &[String]) -> Result<Self, TlsError> {
        let root = state.join(DIRECTORY);
        let host = directory.strip_prefix("https://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let authority = root.join(folder(host, directory));
        let first = names.first().map_or("", String::as_str);
        let names = authority.join(folder(first, &names.join(" ")));
        let store = Self { names, authority, unwritten: Mutex::default() };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&store.names);
        made.and_then(|()| fs::set_permissions(&root, fs::Permissions::from_mode(0o700)))
            .map_err(|error| TlsError::State { path: store.names.clone(), error })?;
        Ok(store)
    }

    /// The account kept; one that can't be read is none.
    pub(super) fn account(&self) -> Option<Account> {
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(text) = unwritten.take() else {
            return serde_json::from_slice(&fs::read(self.authority.join(ACCOUNT)).ok()?).ok();
        };
        let account = serde_json::from_str(&text).ok();
        // There may be room by now.
        *unwritten = self.write_account(&text).is_err().then_some(text);
        account
    }

    /// Keeps the account, as long as this store is there at least.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: it isn't for longer than that.
    pub(super) fn keep_account(&self, account: &Account) -> Result<(), TlsError> {
        let text = serde_json::to_string(account).map_err(|error| TlsError::Make(error.to_string()))?;
        let written = self.write_account(&text);
        *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner) = written.is_err().then_some(text);
        written
    }

    fn write_account(&self, text: &str) -> Result<(), TlsError> {
        tls::write(&self.authority.join(ACCOUNT), &format!("{text}\n"), 0o600)
    }

    /// Forgets an account that the authority doesn't know.
    pub(super) fn forget_account(&self) {
        *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // If it stays, the authority says the same again.
        let _ = fs::remove_file(self.authority.join(ACCOUNT));
    }

    /// The certificate kept.
    pub(super) fn pair(&self) -> Option<Pair> {
        let text = fs::read(self.names.join(CERTIFICATE)).ok()?;
        Pair::from_pem(&text, &text)
    }

    /// Keeps a certificate.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub(super) fn keep_pair(&self, chain: &str, key: &str) -> Result<(), TlsError> {
        tls::write(&self.names.join(CERTIFICATE), &format!("{key}{chain}"), 0o600)
    }

    /// Counts a refusal at `now`, in Unix time.
    pub(super) fn refused(&self, now: Duration) {
        let mut refusals = self.refusals(now);
        refusals.push(now.as_secs());
        let kept = serde_json::to_string(&refusals).map_err(|error| TlsError::Make(error.to_string()));
        if let Err(error) = kept.and_then(|text| tls::write(&self.names.join(REFUSED), &text, 0o600)) {
            tracing::warn!("a restart will ask the authority again at once: {error}");
        }
    }

    /// When there is room for one more refusal, in Unix time.
    pub(super) fn free_at(&self, now: Duration) -> Duration {
        let refusals = self.refusals(now);
        let oldest = refusals.len().checked_sub(REFUSALS).and_then(|excess| refusals.get(excess));
        oldest.map_or(Duration::ZERO, |oldest| Duration::from_secs(oldest + COUNTS_FOR))
    }

    /// When the authority said no within the last hour, the oldest first.
    fn refusals(&self, now: Duration) -> Vec<u64> {
        let kept = fs::read(self.names.join(REFUSED)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut refusals: Vec<u64> = kept.unwrap_or_default();
        // What a clock ran ahead to is no refusal of the last hour.
        refusals.retain(|at| (at.saturating_add(1)..=at.saturating_add(COUNTS_FOR)).contains(&(now.as_secs() + 1)));
        refusals
    }
}

/// A directory's name: for people, and for one `whole` only.
fn folder(name: &str, whole: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let hash = digest::digest(&digest::SHA256, whole.as_bytes());
    let hash: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{hash}", name.trim_start_matches('.').chars().take(100).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const DIRECTORY_URL: &str = "https://ca.example.org:14000/dir";

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_third_refusal_waits_until_the_first_is_an_hour_old_even_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let now = Clock::system().now().unix;
        let open = || Store::new(home.path(), DIRECTORY_URL, &names(&["a.org"])).unwrap();
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);

        open().refused(now);
        let after_one = open().free_at(now + minutes(20));
        open().refused(now + minutes(20));
        let after_two = open().free_at(now + minutes(20));
        let later = open().free_at(now + minutes(61));

        assert_eq!(after_one, Duration::ZERO);
        assert_eq!(after_two.as_secs(), (now + minutes(60)).as_secs());
        assert_eq!(later, Duration::ZERO);
    }

    #[test]
    fn each_authority_and_each_set_of_names_has_its_own_place_that_is_nobody_elses_to_read() {
        let home = tempfile::tempdir().unwrap();
        let open = |url, names: &[String]| Store::new(home.path(), url, names).unwrap();

        let one = open(DIRECTORY_URL, &names(&["a.org"]));
        let more = open(DIRECTORY_URL, &names(&["a.org", "b.org"]));
        let elsewhere = open("https://ca.example.org:14000/other", &names(&["a.org"]));

        assert_eq!(one.authority, more.authority);
        assert_ne!(one.names, more.names);
        assert_ne!(one.authority, elsewhere.authority);
        for path in [home.path().join(DIRECTORY), one.authority, one.names] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn an_account_that_cannot_be_written_down_is_kept_all_the_same_and_written_when_it_can_be() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path(), DIRECTORY_URL, &names(&["a.org"])).unwrap();
        let credentials = r#"{ "id": "https://ca.example.org/1", "key_pkcs8": "bm90aGluZw", "directory": null }"#;
        let credentials = serde_json::from_str(credentials).unwrap();
        let path = store.authority.join(ACCOUNT);
        fs::create_dir(&path).unwrap();

        let kept = store.keep_account(&Account { email: "a@a.org".to_owned(), credentials });
        let first = store.account().map(|account| account.email);
        fs::remove_dir(&path).unwrap();
        let second = store.account().map(|account| account.email);

        assert!(kept.is_err());
        assert_eq!((first.as_deref(), second.as_deref()), (Some("a@a.org"), Some("a@a.org")));
        assert!(fs::read_to_string(&path).unwrap().contains("a@a.org"));
        store.forget_account();
        assert!(store.account().is_none());
    }

    #[test]
    fn a_file_that_makes_no_sense_is_as_none() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path(), DIRECTORY_URL, &names(&["../../a"])).unwrap();
        for file in [store.authority.join(ACCOUNT), store.names.join(CERTIFICATE), store.names.join(REFUSED)] {
            fs::write(file, "nonsense").unwrap();
        }

        assert!(store.account().is_none() && store.pair().is_none());
        assert_eq!(store.free_at(Clock::system().now().unix), Duration::ZERO);
    }
}
