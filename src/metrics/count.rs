//! What counts: single numbers, and families of them with one number for each label.

use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes it `value`.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the members of a family differ by: a label, or a pair of such. There are a few, all known beforehand, so that
/// nothing a stranger does makes a family grow.
pub trait Key: Copy {
    /// How many there are.
    const COUNT: usize;

    /// Its place among them.
    fn index(self) -> usize;

    /// Every one of them, in order.
    fn all() -> impl Iterator<Item = Self>;

    /// The labels' names and values, as they stand between braces.
    fn put(self, text: &mut String);
}

impl<A: Key, B: Key> Key for (A, B) {
    const COUNT: usize = A::COUNT * B::COUNT;

    fn index(self) -> usize {
        self.0.index() * B::COUNT + self.1.index()
    }

    fn all() -> impl Iterator<Item = Self> {
        A::all().flat_map(|a| B::all().map(move |b| (a, b)))
    }

    fn put(self, text: &mut String) {
        self.0.put(text);
        text.push(',');
        self.1.put(text);
    }
}

/// A number for each key.
#[derive(Debug)]
pub struct Family<K, T = Counter> {
    cells: Box<[T]>,
    keys: PhantomData<fn(K)>,
}

impl<K: Key, T: Default> Default for Family<K, T> {
    fn default() -> Self {
        Self { cells: std::iter::repeat_with(T::default).take(K::COUNT).collect(), keys: PhantomData }
    }
}

impl<K: Key> Family<K> {
    /// Adds one to the number of `key`.
    pub fn increment(&self, key: K) {
        self.add(key, 1);
    }

    /// Adds `n` to it.
    pub fn add(&self, key: K, n: u64) {
        if let Some(counter) = self.cells.get(key.index()) {
            counter.add(n);
        }
    }

    /// What it stands at.
    pub fn at(&self, key: K) -> u64 {
        self.cells.get(key.index()).map_or(0, Counter::get)
    }

    /// What those stand at together that `which` picks.
    pub fn sum(&self, which: impl Fn(K) -> bool) -> u64 {
        K::all().filter(|key| which(*key)).map(|key| self.at(key)).sum()
    }
}

impl<K: Key> Family<K, Gauge> {
    /// Adds one to the number of `key`.
    pub fn increment(&self, key: K) {
        if let Some(gauge) = self.cells.get(key.index()) {
            gauge.increment();
        }
    }

    /// Takes one away from it.
    pub fn decrement(&self, key: K) {
        if let Some(gauge) = self.cells.get(key.index()) {
            gauge.decrement();
        }
    }

    /// What it stands at.
    pub fn at(&self, key: K) -> u64 {
        self.cells.get(key.index()).map_or(0, Gauge::get)
    }

    /// What all stand at together.
    pub fn get(&self) -> u64 {
        self.cells.iter().map(Gauge::get).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::AuthFailure;
    use crate::metrics::Gateway;

    #[test]
    fn every_pair_of_labels_has_a_number_of_its_own() {
        let family = Family::<(Gateway, AuthFailure)>::default();
        for (n, key) in <(Gateway, AuthFailure)>::all().enumerate() {
            family.add(key, n as u64 + 1);
        }

        let all: Vec<_> = <(Gateway, AuthFailure)>::all().map(|key| family.at(key)).collect();

        assert_eq!(all, (1..=Gateway::COUNT as u64 * AuthFailure::COUNT as u64).collect::<Vec<_>>());
        assert_eq!(family.sum(|(gateway, _)| gateway == Gateway::Json), (1..=AuthFailure::COUNT as u64).sum::<u64>());
    }
}
