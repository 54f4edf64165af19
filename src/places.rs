//! Places: how many of something may be open at once, in all and from each source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::address::Sources;
use crate::metrics::Family;
use crate::metrics::NoPlace;

/// How many places there are, and for whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// In all; also caps how many sources are remembered.
    pub total: usize,
    /// For one source.
    pub per_source: usize,
    /// What a source is; exempt ones meet the total only.
    pub sources: Sources,
}

/// Counts the places that are taken.
#[derive(Debug)]
pub struct Places {
    open: Mutex<Open>,
    refused: Family<NoPlace>,
}

#[derive(Debug)]
struct Open {
    settings: Settings,
    total: usize,
    /// Never more entries than `total`, and none that is zero.
    by_source: HashMap<IpAddr, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// All are taken.
    #[error("too many in all")]
    Full,
    /// All of this source's are taken.
    #[error("too many from this source")]
    Source,
}

/// One place; free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    source: Option<IpAddr>,
}

impl Places {
    /// All free.
    pub fn new(settings: Settings) -> Arc<Self> {
        let open = Open { settings, total: 0, by_source: HashMap::new() };
        Arc::new(Self { open: Mutex::new(open), refused: Family::default() })
    }

    /// Has other settings hold. Whoever has a place keeps it, and counts as it did; beyond fewer places nobody gets one.
    pub fn configure(&self, settings: Settings) {
        self.open().settings = settings;
    }

    /// Takes a place for `ip`.
    ///
    /// # Errors
    ///
    /// [`Refused`], by the limit that is met.
    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Result<Place, Refused> {
        let mut place = self.enter_unknown()?;
        place.count_for(ip)?;
        Ok(place)
    }

    /// Takes a place for somebody who isn't known yet: it meets the total only, until [`Place::count_for`].
    ///
    /// # Errors
    ///
    /// [`Refused::Full`].
    pub fn enter_unknown(self: &Arc<Self>) -> Result<Place, Refused> {
        let mut open = self.open();
        if open.total >= open.settings.total {
            self.refused.increment(NoPlace::Total);
            return Err(Refused::Full);
        }
        open.total += 1;
        Ok(Place { places: Arc::clone(self), source: None })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.open().total
    }

    /// How often there was none.
    pub fn refused(&self) -> &Family<NoPlace> {
        &self.refused
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts it for `ip` from now on.
    ///
    /// # Errors
    ///
    /// [`Refused::Source`]; it counts then for whom it did before.
    pub fn count_for(&mut self, ip: IpAddr) -> Result<(), Refused> {
        let mut open = self.places.open();
        let source = open.settings.sources.of(ip);
        if let Some(source) = source {
            let count = open.by_source.get(&source).copied().unwrap_or(0);
            if count >= open.settings.per_source {
                self.places.refused.increment(NoPlace::Source);
                return Err(Refused::Source);
            }
            open.by_source.insert(source, count + 1);
        }
        if let Some(before) = std::mem::replace(&mut self.source, source) {
            open.leave(before);
        }
        Ok(())
    }
}

impl Open {
    fn leave(&mut self, source: IpAddr) {
        match self.by_source.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                self.by_source.remove(&source);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open();
        open.total -= 1;
        if let Some(source) = self.source {
            open.leave(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(total: usize, per_source: usize) -> Arc<Places> {
        Places::new(Settings { total, per_source, sources: Sources::new(vec!["127.0.0.0/8".parse().unwrap()]) })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_meets_its_cap_and_leaves_room_to_others() {
        let places = places(10, 2);

        let first = places.enter(ip("2001:db8::1")).unwrap();
        let _second = places.enter(ip("2001:db8:0:ff::1")).unwrap();
        let _other = places.enter(ip("192.0.2.1")).unwrap();

        assert_eq!(places.enter(ip("2001:db8::2")).err(), Some(Refused::Source), "the whole /56 is one source");
        drop(first);
        assert!(places.enter(ip("2001:db8::2")).is_ok(), "one that ended makes room");
    }

    #[test]
    fn a_place_of_somebody_unknown_meets_the_total_and_counts_once_it_is_known_whose_it_is() {
        let places = places(3, 1);
        let [mut first, mut second, _third] = [(); 3].map(|()| places.enter_unknown().unwrap());

        assert_eq!(places.enter_unknown().err(), Some(Refused::Full));
        assert_eq!(first.count_for(ip("192.0.2.1")), Ok(()));
        assert_eq!(second.count_for(ip("192.0.2.1")), Err(Refused::Source));
        assert_eq!(first.count_for(ip("192.0.2.2")), Ok(()));
        assert_eq!(second.count_for(ip("192.0.2.1")), Ok(()), "the first has left it");
        drop((first, second));

        assert!(places.open().by_source.is_empty());
    }

    #[test]
    fn the_total_holds_for_exempt_sources_too_and_nothing_is_left_behind() {
        let places = places(3, 1);

        let held: Vec<_> = (0..3).map(|_| places.enter(ip("::ffff:127.0.0.1")).unwrap()).collect();
        assert_eq!((places.enter(ip("127.0.0.1")).err(), places.taken()), (Some(Refused::Full), 3));
        drop(held);
        drop(places.enter(ip("192.0.2.1")));

        let open = places.open();
        assert_eq!((open.total, open.by_source.len()), (0, 0));
        assert_eq!([NoPlace::Total, NoPlace::Source].map(|limit| places.refused().at(limit)), [1, 0]);
    }

    #[test]
    fn fewer_places_put_nobody_out_and_refuse_whoever_comes() {
        let places = places(10, 2);
        let configure = |total, per_source, exempt: &str| {
            let sources = Sources::new(vec![exempt.parse().unwrap()]);
            places.configure(Settings { total, per_source, sources });
        };
        let held = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(|source| places.enter(ip(source)).unwrap());

        configure(10, 1, "127.0.0.0/8");
        assert_eq!(places.enter(ip("192.0.2.2")).err(), Some(Refused::Source));
        configure(3, 2, "127.0.0.0/8");
        assert_eq!(places.enter(ip("192.0.2.3")).err(), Some(Refused::Full));
        configure(10, 1, "192.0.2.0/24");
        drop((places.enter(ip("192.0.2.1")).unwrap(), held));

        let open = places.open();
        assert_eq!((open.total, open.by_source.len()), (0, 0));
    }
}
