//! The text that a scrape gets: Prometheus' exposition format 0.0.4.

use std::fmt::Display;
use std::fmt::Write;

use super::count::Counter;
use super::count::Family;
use super::count::Gauge;
use super::count::Key;

/// How much there is to say, about.
const LENGTH: usize = 32 << 10;

/// The text so far.
#[derive(Debug)]
pub struct Exposition(String);

impl Default for Exposition {
    fn default() -> Self {
        Self(String::with_capacity(LENGTH))
    }
}

impl Exposition {
    /// Adds a number that only rises; its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head("counter", name, help);
        self.sample(name, |_| (), value);
    }

    /// Adds a number that rises and falls.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head("gauge", name, help);
        self.sample(name, |_| (), value);
    }

    /// Adds numbers that only rise.
    pub fn counters<K: Key>(&mut self, name: &str, help: &str, family: &Family<K, Counter>) {
        self.counters_by(name, help, K::all().map(|key| (key, family.at(key))));
    }

    /// Adds numbers that rise and fall.
    pub fn gauges<K: Key>(&mut self, name: &str, help: &str, family: &Family<K, Gauge>) {
        self.gauges_by(name, help, K::all().map(|key| (key, family.at(key))));
    }

    /// Adds numbers that only rise, as they are read.
    pub fn counters_by<K: Key>(&mut self, name: &str, help: &str, values: impl Iterator<Item = (K, u64)>) {
        self.head("counter", name, help);
        values.for_each(|(key, value)| self.sample(name, |text| key.put(text), value));
    }

    /// Adds numbers that rise and fall, as they are read.
    pub fn gauges_by<K: Key>(&mut self, name: &str, help: &str, values: impl Iterator<Item = (K, u64)>) {
        self.head("gauge", name, help);
        values.for_each(|(key, value)| self.sample(name, |text| key.put(text), value));
    }

    /// Adds a fact that stands in a label.
    pub fn fact(&mut self, name: &str, help: &str, label: &str, value: &str) {
        self.head("gauge", name, help);
        self.sample(name, |text| text.extend([label, "=\"", value, "\""]), 1);
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.0
    }

    fn head(&mut self, kind: &str, name: &str, help: &str) {
        self.0.extend(["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
    }

    fn sample(&mut self, name: &str, labels: impl FnOnce(&mut String), value: impl Display) {
        self.0.push_str(name);
        let bare = self.0.len();
        self.0.push('{');
        labels(&mut self.0);
        if self.0.len() == bare + 1 {
            self.0.truncate(bare);
        } else {
            self.0.push('}');
        }
        // Writing to a String never fails.
        let _ = writeln!(self.0, " {value}");
    }
}
