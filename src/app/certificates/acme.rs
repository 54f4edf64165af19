//! Certificates from an authority, by ACME (RFC 8555): got, kept on disk, and renewed when two thirds of their life are over.
//!
//! The protocol is `instant-acme`'s, which Debian's `pebble` and Let's Encrypt are its maintainers' own tests for, with `ring`
//! and without its HTTP client: that would bring a second TLS library, HTTP/2 and a pool of connections for a dozen requests
//! every two months. [`Fetcher`] asks instead. What keeps a failing server from asking too often is ours: a pause that grows,
//! with some chance in it, and a count of refusals on disk, so that a restart is no way around it. Renewal information
//! (RFC 9773) isn't asked for.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Tending;
use crate::clock::Clock;
use crate::clock::Now;
use crate::config::Config;
use crate::config::value::Challenge;
use crate::credentials;
use crate::net::fetch::Fetcher;
use crate::net::post;
use crate::net::tls::Challenges;
use crate::net::tls::Pair;
use crate::net::tls::Source;
use crate::net::tls::TlsError;

use self::failure::Failure;
use self::store::Store;

mod failure;
mod order;
mod store;

/// The pause after an authority could not be asked, which doubles each time.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(5);
/// The longest of them.
const UNREACHABLE_MOST: Duration = Duration::from_secs(3600);
/// The pause after an authority said no. Let's Encrypt takes five failed proofs of a name an hour, and each try may cost one
/// for each kind of challenge.
const REFUSED_PAUSE: Duration = Duration::from_secs(15 * 60);
/// The longest of them.
const REFUSED_MOST: Duration = Duration::from_secs(12 * 3600);
/// How many refusals there may be in an hour, restarts or not.
const REFUSALS: usize = 2;
/// How long one counts, in seconds.
const COUNTS_FOR: u64 = 3600;
/// The longest wait in one: Unix time may be set, and a machine may sleep.
const WAIT_AT_MOST: Duration = Duration::from_secs(600);

/// What the configuration says of the authority and its certificate.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Settings {
    directory: String,
    email: String,
    names: Vec<String>,
    challenges: Vec<Challenge>,
    ca: PathBuf,
}

impl Settings {
    pub(super) fn of(config: &Config) -> Self {
        let acme = &config.tls.acme;
        Self {
            directory: acme.directory.as_str().to_owned(),
            email: acme.email.as_str().to_owned(),
            names: config.acme_names(),
            challenges: acme.challenges.clone(),
            ca: acme.ca.clone(),
        }
    }
}

/// One authority, one account there, and one certificate.
pub(super) struct Acme {
    settings: Settings,
    store: Store,
    fetcher: Fetcher,
}

impl Acme {
    /// Has everything ready to ask; account and certificate are kept under `state`.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: there is nobody to trust, or nowhere to write.
    pub(super) fn new(settings: Settings, state: &Path) -> Result<Self, TlsError> {
        let roots = roots(&settings.ca)?;
        let store = Store::new(state, &settings.directory, &settings.names)?;
        let fetcher = Fetcher::new(roots).map_err(|error| TlsError::Make(error.to_string()))?;
        Ok(Self { settings, store, fetcher })
    }

    /// The certificate kept from before, if it is still good.
    pub(super) fn kept(&self, now: Now) -> Option<Pair> {
        self.store.pair().filter(|pair| pair.is_for(&self.settings.names) && pair.is_current(now))
    }

    /// Gets a certificate if there is none, and another one in time, again and again.
    pub(super) async fn run(self, tending: &Tending) {
        let (clock, challenges) = (tending.clock, tending.served.challenges());
        let kept = self.kept(clock.now());
        let mut due = kept.as_ref().map_or(Duration::ZERO, renewal);
        // The task before this one may have got it after this one was prepared.
        if let Some(pair) = kept.filter(|pair| !pair.is_same(&tending.served.pair())) {
            tending.serve(pair, Source::Acme);
        }
        let mut failures = Failures::default();
        loop {
            self.wait(due, clock).await;
            due = match self.obtain(challenges, clock).await {
                Ok(pair) => {
                    failures = Failures::default();
                    let due = renewal(&pair);
                    if tending.serve(pair, Source::Acme) {
                        tracing::info!(names = ?self.settings.names, "got a certificate from {}", self.settings.directory);
                    }
                    due
                }
                Err(failure) => {
                    let pause = failures.pause(&failure);
                    self.note(&failure, pause, clock.now());
                    clock.now().unix + pause
                }
            };
        }
    }

    /// Waits until it is time, and until there haven't been too many refusals within the last hour.
    async fn wait(&self, due: Duration, clock: Clock) {
        let free = self.store.free_at(clock.now().unix);
        if free > due {
            let minutes = free.saturating_sub(clock.now().unix).as_secs().div_ceil(60);
            tracing::info!("the authority has refused {REFUSALS} times within an hour: asking again in {minutes} min");
        }
        loop {
            let left = due.max(free).saturating_sub(clock.now().unix);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(WAIT_AT_MOST)).await;
        }
    }

    /// Asks for a certificate, and keeps it.
    async fn obtain(&self, challenges: &Challenges, clock: Clock) -> Result<Pair, Failure> {
        let issued = order::issue(&self.settings, &self.store, &self.fetcher, challenges).await?;
        let pair = Pair::from_pem(issued.chain.as_bytes(), issued.key.as_bytes());
        // That it has begun, a clock that is behind the authority's doesn't know.
        let is_ours = |pair: &Pair| pair.is_for(&self.settings.names) && pair.validity().1 > clock.now().unix.as_secs();
        let Some(pair) = pair.filter(is_ours) else {
            return Err(Failure::refused("it sent another certificate than the one that it was asked for".to_owned()));
        };
        if let Err(error) = self.store.keep_pair(&issued.chain, &issued.key) {
            tracing::warn!("cannot keep the certificate, a restart will ask for another one: {error}");
        }
        Ok(pair)
    }

    fn note(&self, failure: &Failure, pause: Duration, now: Now) {
        if failure.is_refusal {
            self.store.refused(now.unix);
        }
        let (names, directory) = (self.settings.names.join(", "), &self.settings.directory);
        let again = match pause.as_secs() {
            seconds @ 0..120 => format!("{seconds} s"),
            seconds => format!("{} min", seconds / 60),
        };
        tracing::warn!("no certificate for {names} from {directory}: {failure}; trying again in {again}");
    }
}

/// When two thirds of a certificate's life are over, in Unix time.
fn renewal(pair: &Pair) -> Duration {
    let (from, until) = pair.validity();
    Duration::from_secs(from + until.saturating_sub(from) / 3 * 2)
}

/// How many failures of one kind there have been in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    are_refusals: bool,
}

impl Failures {
    /// Counts one more. How long to wait after it: up to half as long again as it must be, so that not all the world asks at
    /// once.
    fn pause(&mut self, failure: &Failure) -> Duration {
        if self.are_refusals != failure.is_refusal {
            *self = Self { count: 0, are_refusals: failure.is_refusal };
        }
        let (first, most) =
            if failure.is_refusal { (REFUSED_PAUSE, REFUSED_MOST) } else { (UNREACHABLE_PAUSE, UNREACHABLE_MOST) };
        let pause = first.saturating_mul(2_u32.saturating_pow(self.count)).min(most);
        self.count = self.count.saturating_add(1);
        pause + pause / 2 * u32::from(u8::from_be_bytes(credentials::random())) / 255
    }
}

/// Whom to trust: who is in a file of the operator's, or without one whom this machine does.
///
/// # Errors
///
/// [`TlsError`]: that is nobody.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    if path.as_os_str().is_empty() {
        return Some(post::native_roots()).filter(|roots| !roots.is_empty()).ok_or(TlsError::NoRoots);
    }
    let fault = |problem: String| TlsError::File { key: "tls.acme.ca", path: path.to_owned(), problem };
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| fault(format!("cannot be read as a PEM file: {error}")))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found);
    match added {
        0 => Err(fault("there is no certificate in it: give a PEM file with the authority's".to_owned())),
        _ => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_each_kind_of_failure_begins_anew() {
        let mut failures = Failures::default();
        let mut pauses = |failure: fn(String) -> Failure, count: usize| -> Vec<u64> {
            (0..count).map(|_| failures.pause(&failure(String::new())).as_secs()).collect()
        };
        let are_about = |pauses: &[u64], seconds: &[u64]| {
            pauses.iter().zip(seconds).all(|(pause, seconds)| (*seconds..=seconds * 3 / 2).contains(pause))
        };

        let unreachable = pauses(Failure::unreachable, 50);
        let refused = pauses(Failure::refused, 50);
        let again = pauses(Failure::unreachable, 1);

        assert!(are_about(&unreachable, &[5, 10, 20, 40, 80]) && are_about(&unreachable[40..], &[3600; 10]));
        assert!(are_about(&refused, &[900, 1800, 3600, 7200]) && are_about(&refused[40..], &[43_200; 10]));
        assert!(are_about(&again, &[5]));
    }

    #[test]
    fn a_certificate_is_due_when_two_thirds_of_its_life_are_over() {
        let home = tempfile::tempdir().unwrap();
        let pair = Pair::self_signed(home.path(), &["a".to_owned()], Clock::system().now()).unwrap();
        let (from, until) = pair.validity();

        let due = renewal(&pair).as_secs();

        assert_eq!((due - from) * 3, (until - from) * 2);
    }
}
