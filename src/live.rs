//! Values that a reload changes while others read them.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// A value in force: its copies are one and the same, so that what one of them sets all of them get from then on. No reader
/// waits for a writer, nor the other way round.
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    /// `value` is in force.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// What is in force. Whoever keeps it keeps it as it is.
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Puts `value` in force.
    pub fn set(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for Live<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Live<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_by_one_all_get_and_who_read_before_keeps_what_it_has() {
        let live = Live::new(1);
        let (copy, kept) = (live.clone(), live.get());

        copy.set(2);

        assert_eq!((*live.get(), *kept), (2, 1));
    }
}
