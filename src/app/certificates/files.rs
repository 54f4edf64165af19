//! The operator's two files: whether they are others than those that are served, and whether those can be served.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Now;
use crate::net::tls::Pair;
use crate::net::tls::TlsError;

/// How long files may be of no use before it is said: one is written after the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// The two files, and what is known of them.
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// As they were when they were taken last.
    taken: [Option<Stamp>; 2],
    /// As they were at the last look.
    seen: [Option<Stamp>; 2],
    /// Since when they have been others than those taken.
    others_since: Option<Instant>,
    /// What has been said of them.
    said: Option<String>,
}

/// What tells one content of a file from another, behind all symbolic links: the file, its size and when it was written.
type Stamp = (u64, u64, u64, i64, i64);

impl Files {
    /// The pair in the files, and from then on what becomes of them; what is `served` already is followed by no worse.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub(super) fn read(
        certificate: PathBuf,
        key: PathBuf,
        served: Option<&Pair>,
        now: Now,
    ) -> Result<(Self, Pair), TlsError> {
        let none = [None; 2];
        let mut files = Self { certificate, key, taken: none, seen: none, others_since: None, said: None };
        files.taken = files.stamps();
        files.seen = files.taken;
        let pair = files.pair()?;
        if served.is_some_and(|served| !may_follow(&pair, served, now)) {
            return Err(files.not_current());
        }
        Ok((files, pair))
    }

    /// The pair in the files, if they are others and have stood still from one look to the next; or once, after a while, why
    /// it can't be `served`'s successor.
    pub(super) fn look(&mut self, served: &Pair, now: Now) -> Option<Result<Pair, String>> {
        let stamps = self.stamps();
        let stood_still = std::mem::replace(&mut self.seen, stamps) == stamps;
        if stamps == self.taken {
            (self.others_since, self.said) = (None, None);
            return None;
        }
        let since = *self.others_since.get_or_insert(now.monotonic);
        if !stood_still {
            return None;
        }
        let found = self.pair().map_err(|error| error.to_string());
        if self.stamps() != stamps {
            return None;
        }
        let problem = match found {
            Ok(pair) if may_follow(&pair, served, now) => {
                (self.taken, self.others_since, self.said) = (stamps, None, None);
                return Some(Ok(pair));
            }
            Ok(_) => self.not_current().to_string(),
            Err(problem) => problem,
        };
        if now.monotonic - since < PATIENCE || self.said.as_ref() == Some(&problem) {
            return None;
        }
        self.said = Some(problem.clone());
        Some(Err(problem))
    }

    fn pair(&self) -> Result<Pair, TlsError> {
        Pair::from_files(&self.certificate, &self.key)
    }

    fn not_current(&self) -> TlsError {
        let problem = "has expired or is not yet valid".to_owned();
        TlsError::File { key: "tls.certificate", path: self.certificate.clone(), problem }
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        })
    }
}

/// A good certificate is followed by good ones only.
fn may_follow(pair: &Pair, served: &Pair, now: Now) -> bool {
    pair.is_current(now) || !served.is_current(now)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::clock::Clock;

    const CERTIFICATE: &str = "self-signed.pem";
    const KEY: &str = "self-signed.key";

    struct World {
        home: TempDir,
        files: Files,
        served: Pair,
        now: Now,
    }

    impl World {
        fn new() -> Self {
            let (home, now) = (tempfile::tempdir().unwrap(), Clock::system().now());
            make(&home.path().join("live"), "first", now);
            make(&home.path().join("next"), "second", now);
            let live = home.path().join("live");
            let (files, served) = Files::read(live.join(CERTIFICATE), live.join(KEY), None, now).unwrap();
            Self { home, files, served, now }
        }

        /// Moves a file of the next pair to where it is looked for.
        fn take(&self, name: &str) {
            fs::rename(self.home.path().join("next").join(name), self.home.path().join("live").join(name)).unwrap();
        }

        fn look(&mut self) -> Option<Result<Pair, String>> {
            self.now = self.now.after(Duration::from_secs(2));
            self.files.look(&self.served, self.now)
        }

        /// All that is said for a minute.
        fn said(&mut self) -> Vec<String> {
            (0..30).filter_map(|_| self.look()).map(|found| found.err().unwrap()).collect()
        }
    }

    fn make(directory: &Path, name: &str, now: Now) -> Pair {
        Pair::self_signed(directory, &[name.to_owned()], now).unwrap()
    }

    #[test]
    fn another_pair_is_taken_once_it_has_stood_still_for_one_look() {
        let mut world = World::new();
        assert!(world.look().is_none());

        world.take(CERTIFICATE);
        world.take(KEY);

        assert!(world.look().is_none());
        assert!(world.look().unwrap().unwrap().is_for(&["second".to_owned()]));
        assert!(world.look().is_none());
    }

    #[test]
    fn half_a_pair_waits_for_the_other_half_and_is_said_only_once_and_if_it_lasts() {
        let mut world = World::new();
        world.take(CERTIFICATE);
        assert!((0..5).all(|_| world.look().is_none()), "not yet");

        let said = world.said();
        world.take(KEY);
        world.look();
        let taken = world.look();

        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("is not the key of the certificate"), "{said:?}");
        assert!(taken.unwrap().unwrap().is_for(&["second".to_owned()]));
    }

    #[test]
    fn a_file_that_is_gone_or_nonsense_is_said_once_each_and_its_return_is_nothing_new() {
        let mut world = World::new();
        let live = world.home.path().join("live");
        let (key, aside) = (live.join(KEY), live.join("aside"));

        fs::rename(&key, &aside).unwrap();
        let gone = world.said();
        fs::write(&key, "nonsense").unwrap();
        let nonsense = world.said();
        fs::rename(&aside, &key).unwrap();
        let back = world.said();

        assert!(gone.len() == 1 && gone[0].starts_with("tls.key: ") && gone[0].contains("cannot read it"), "{gone:?}");
        assert!(nonsense.len() == 1 && nonsense[0].contains("there is no private key in it"), "{nonsense:?}");
        assert!(back.is_empty(), "{back:?}");
    }

    #[test]
    fn an_expired_certificate_never_follows_a_good_one_but_any_follows_an_expired_one() {
        let mut world = World::new();
        let old = world.home.path().join("old");
        let long_ago = Now { unix: world.now.unix - Duration::from_secs(1000 * 24 * 3600), ..world.now };
        let expired = make(&old, "old", long_ago);
        for name in [CERTIFICATE, KEY] {
            fs::rename(old.join(name), world.home.path().join("live").join(name)).unwrap();
        }

        let said = world.said();
        world.served = expired;
        let taken = world.look();

        assert!(said.len() == 1 && said[0].contains("has expired or is not yet valid"), "{said:?}");
        assert!(taken.unwrap().unwrap().is_for(&["old".to_owned()]));
    }
}
