//! The certificate that is served: made here, read from files that are watched, or got from an authority; and what it takes
//! to have one that is good for years, without a restart and without closing a connection.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Shared;
use super::names;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::value::TlsMode;
use crate::metrics::Metrics;
use crate::net::tls::Certificates;
use crate::net::tls::Pair;
use crate::net::tls::Source;
use crate::net::tls::TlsError;

use self::acme::Acme;
use self::expiry::Expiry;
use self::files::Files;

mod acme;
mod expiry;
mod files;

/// How often files, and what time does to a certificate, are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keeps a certificate served that is good, whatever the configuration says it is.
pub(super) struct Certifier {
    tending: Tending,
    state: PathBuf,
    tasks: TaskTracker,
    tended: Mutex<Option<Tended>>,
}

/// What is being looked after, and how to end that.
struct Tended {
    settings: Settings,
    end: CancellationToken,
}

/// What the configuration says of certificates.
#[derive(Clone, PartialEq, Eq)]
enum Settings {
    SelfSigned { names: Vec<String> },
    Files { certificate: PathBuf, key: PathBuf },
    Acme { names: Vec<String>, acme: acme::Settings },
}

/// A change that can't fail any more; none when there is nothing to do.
pub(super) struct Prepared(Option<Change>);

struct Change {
    settings: Settings,
    /// What to serve from then on; none: what is served already.
    serve: Option<(Pair, Source)>,
    keeping: Keeping,
}

/// What to look after.
enum Keeping {
    SelfSigned { directory: PathBuf, names: Vec<String> },
    Files(Box<Files>),
    Acme(Box<Acme>),
}

impl Certifier {
    /// Has the certificate ready that `config` asks for; with what to [`apply`](Self::apply) once it is served.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub(super) fn new(config: &Config, state: &Path, shared: &Shared) -> Result<(Self, Prepared), TlsError> {
        let change = Change::of(Settings::of(config), state, None, shared.clock)?;
        let (pair, source) = match &change.serve {
            Some((pair, source)) => (pair.clone(), *source),
            None => (self_signed(state, &names(config), shared.clock)?, Source::SelfSigned),
        };
        let served = Certificates::new(pair, source)?;
        let certifier = Self {
            tending: Tending {
                served,
                metrics: Arc::clone(&shared.metrics),
                clock: shared.clock,
                swapping: Arc::default(),
                end: shared.stop.clone(),
            },
            state: state.to_owned(),
            tasks: shared.tasks.clone(),
            tended: Mutex::default(),
        };
        Ok((certifier, Prepared(Some(change))))
    }

    /// What TLS listeners serve.
    pub(super) fn served(&self) -> &Certificates {
        &self.tending.served
    }

    /// Does all that can fail of what `config` asks for. An authority that is asked already isn't asked anew.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub(super) fn prepare(&self, config: &Config) -> Result<Prepared, TlsError> {
        let settings = Settings::of(config);
        let tended = self.tended.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = tended.as_ref().is_some_and(|tended| tended.settings == settings);
        if is_same && !matches!(settings, Settings::Files { .. }) {
            return Ok(Prepared(None));
        }
        let change = Change::of(settings, &self.state, Some(&self.tending.served), self.tending.clock)?;
        Ok(Prepared(Some(change)))
    }

    /// Serves what was prepared, and looks after it until the end or the next change.
    pub(super) fn apply(&self, prepared: Prepared) {
        let Prepared(Some(Change { settings, serve, keeping })) = prepared else { return };
        let end = self.tending.end.child_token();
        let tended = Tended { settings, end: end.clone() };
        let before = self.tended.lock().unwrap_or_else(PoisonError::into_inner).replace(tended);
        if let Some(before) = before {
            before.end.cancel();
        }
        let tending = Tending { end, ..self.tending.clone() };
        if let Some((pair, source)) = serve {
            tending.serve(pair, source);
        }
        self.tasks.spawn(tending.run(keeping));
    }
}

impl Settings {
    fn of(config: &Config) -> Self {
        let tls = &config.tls;
        match tls.mode {
            TlsMode::SelfSigned => Self::SelfSigned { names: names(config) },
            TlsMode::Files => Self::Files { certificate: tls.certificate.clone(), key: tls.key.clone() },
            TlsMode::Acme => Self::Acme { names: names(config), acme: acme::Settings::of(config) },
        }
    }
}

impl Change {
    fn of(settings: Settings, state: &Path, served: Option<&Certificates>, clock: Clock) -> Result<Self, TlsError> {
        let (serve, keeping) = match &settings {
            Settings::SelfSigned { names } => {
                let keeping = Keeping::SelfSigned { directory: directory(state), names: names.clone() };
                (Some((self_signed(state, names, clock)?, Source::SelfSigned)), keeping)
            }
            Settings::Files { certificate, key } => {
                let served = served.map(Certificates::pair);
                let (files, pair) = Files::read(certificate.clone(), key.clone(), served.as_ref(), clock.now())?;
                (Some((pair, Source::Files)), Keeping::Files(Box::new(files)))
            }
            Settings::Acme { names, acme } => {
                let acme = Acme::new(acme.clone(), state)?;
                let kept = acme.kept(clock.now()).map(|pair| (pair, Source::Acme));
                let serve = match (kept, served) {
                    (Some(kept), _) => Some(kept),
                    // One that browsers trust is better than ours, until there is another.
                    (None, Some(served)) if served.is_trusted() => None,
                    (None, _) => Some((self_signed(state, names, clock)?, Source::SelfSigned)),
                };
                (serve, Keeping::Acme(Box::new(acme)))
            }
        };
        Ok(Self { settings, serve, keeping })
    }
}

fn directory(state: &Path) -> PathBuf {
    state.join("certs")
}

fn self_signed(state: &Path, names: &[String], clock: Clock) -> Result<Pair, TlsError> {
    Pair::self_signed(&directory(state), names, clock.now())
}

/// What it takes to look after the certificate that is served.
#[derive(Clone)]
struct Tending {
    served: Certificates,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// Held by whoever swaps.
    swapping: Arc<Mutex<()>>,
    end: CancellationToken,
}

impl Tending {
    /// Serves `pair` from the next handshake on, and says whether it does: who has been told to end, but comes from where it
    /// can't be stopped, doesn't undo what was put in its place.
    fn serve(&self, pair: Pair, source: Source) -> bool {
        let _alone = self.swapping.lock().unwrap_or_else(PoisonError::into_inner);
        if self.end.is_cancelled() {
            return false;
        }
        self.served.swap(pair, source);
        self.metrics.certificate_expiry.set(self.served.info().not_after);
        true
    }

    async fn run(self, keeping: Keeping) {
        let tended = async {
            match keeping {
                Keeping::SelfSigned { directory, names } => self.look(|| self.renew(&directory, &names)).await,
                Keeping::Files(mut files) => self.look(|| self.reread(&mut files)).await,
                Keeping::Acme(acme) => tokio::join!(self.look(|| ()), acme.run(&self)).0,
            }
        };
        self.end.run_until_cancelled(tended).await;
    }

    /// Looks again and again.
    async fn look(&self, mut look: impl FnMut()) {
        let mut expiry = Expiry::default();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            look();
            expiry.look(&self.served.info(), self.clock.now());
        }
    }

    /// Makes another one when the end of ours is near.
    fn renew(&self, directory: &Path, names: &[String]) {
        let served = self.served.pair();
        if served.needs_renewal(self.clock.now()) {
            match Pair::self_signed(directory, names, self.clock.now()) {
                Ok(pair) if !pair.is_same(&served) => drop(self.serve(pair, Source::SelfSigned)),
                Ok(_) => (),
                // The same at each look: it is said by what looks at the end of a certificate.
                Err(error) => tracing::debug!(%error, "cannot renew the self-signed certificate"),
            }
        }
    }

    /// Serves what is in the files, if it is another one and good.
    fn reread(&self, files: &mut Files) {
        let served = self.served.pair();
        let pair = match files.look(&served, self.clock.now()) {
            Some(Ok(pair)) if pair.is_same(&served) => {
                return tracing::debug!("the certificate's files are the same inside");
            }
            Some(Ok(pair)) => pair,
            Some(Err(problem)) => return tracing::warn!("the certificate stays as it was: {problem}"),
            None => return,
        };
        if self.serve(pair, Source::Files) {
            let names = self.served.info().names;
            tracing::info!(?names, "serving the other certificate that is in tls.certificate");
        }
    }
}

/// Whether the files that `config` names can be used, and somebody is trusted.
///
/// # Errors
///
/// [`TlsError`].
pub(super) fn check(config: &Config) -> Result<(), TlsError> {
    let tls = &config.tls;
    match tls.mode {
        TlsMode::SelfSigned => Ok(()),
        TlsMode::Files => Pair::from_files(&tls.certificate, &tls.key).map(drop),
        TlsMode::Acme => acme::roots(&tls.acme.ca).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_told_to_end_serves_nothing_in_the_place_of_what_came_after_it() {
        let (home, clock) = (tempfile::tempdir().unwrap(), Clock::system());
        let pair = |name: &str| self_signed(&home.path().join(name), &[name.to_owned()], clock).unwrap();
        let served = Certificates::new(pair("first"), Source::SelfSigned).unwrap();
        let (metrics, swapping, end) = (Arc::default(), Arc::default(), CancellationToken::new());
        let one = Tending { served, metrics, clock, swapping, end };
        let next = Tending { end: CancellationToken::new(), ..one.clone() };

        one.end.cancel();
        let outcomes = [next.serve(pair("second"), Source::SelfSigned), one.serve(pair("third"), Source::SelfSigned)];

        assert_eq!(outcomes, [true, false]);
        assert!(one.served.pair().is_for(&["second".to_owned()]));
    }
}
