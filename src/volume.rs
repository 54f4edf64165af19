//! Volume: how many bytes were relayed this day and this month, and whether that was all that may be.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// How many bytes may be relayed; None: as many as come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In a day.
    pub day: Option<u64>,
    /// In a month.
    pub month: Option<u64>,
}

/// How many bytes were relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// This day.
    pub day: u64,
    /// This month.
    pub month: u64,
}

/// The limit that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The day's.
    Day,
    /// The month's.
    Month,
}

/// Counts what is relayed, shared by who relays it, who grants allocations, and who knows the calendar.
///
/// No lock: what is relayed at the same time may go over a limit, by one datagram for each thread.
#[derive(Debug)]
pub struct Volume {
    /// The most for a day and for a month; [`NO_LIMIT`] stands for none.
    limits: [AtomicU64; 2],
    day: AtomicU64,
    month: AtomicU64,
}

/// More than is ever relayed.
const NO_LIMIT: u64 = u64::MAX;

impl Default for Volume {
    fn default() -> Self {
        Self::new(Limits::default(), Usage::default())
    }
}

impl Volume {
    /// With what was relayed before.
    pub fn new(limits: Limits, used: Usage) -> Self {
        let volume = Self { limits: Default::default(), day: used.day.into(), month: used.month.into() };
        volume.configure(limits);
        volume
    }

    /// Has other limits hold, for what was relayed already too.
    pub fn configure(&self, Limits { day, month }: Limits) {
        for (limit, most) in self.limits.iter().zip([day, month]) {
            limit.store(most.unwrap_or(NO_LIMIT), Ordering::Relaxed);
        }
    }

    /// Counts so many bytes; false, and they don't count, when a limit is used up.
    pub fn take(&self, bytes: u64) -> bool {
        let free = self.spent().is_none();
        if free {
            self.day.fetch_add(bytes, Ordering::Relaxed);
            self.month.fetch_add(bytes, Ordering::Relaxed);
        }
        free
    }

    /// The limit that is used up, if one is: the month's before the day's.
    pub fn spent(&self) -> Option<Spent> {
        let Usage { day, month } = self.used();
        let [of_day, of_month] = &self.limits;
        let is_met = |used, limit: &AtomicU64| used >= limit.load(Ordering::Relaxed);
        let by_month = is_met(month, of_month).then_some(Spent::Month);
        by_month.or_else(|| is_met(day, of_day).then_some(Spent::Day))
    }

    /// What may be relayed.
    pub fn limits(&self) -> Limits {
        let [day, month] = self.limits.each_ref().map(|limit| Some(limit.load(Ordering::Relaxed)));
        Limits { day: day.filter(|most| *most != NO_LIMIT), month: month.filter(|most| *most != NO_LIMIT) }
    }

    /// What was relayed.
    pub fn used(&self) -> Usage {
        Usage { day: self.day.load(Ordering::Relaxed), month: self.month.load(Ordering::Relaxed) }
    }

    /// Begins a day.
    pub fn begin_day(&self) {
        self.day.store(0, Ordering::Relaxed);
    }

    /// Begins a month.
    pub fn begin_month(&self) {
        self.month.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_once_a_limit_is_met_is_refused_until_its_period_is_over() {
        let limits = Limits { day: Some(100), month: Some(250) };
        let volume = Volume::new(limits, Usage { day: 0, month: 100 });

        assert_eq!([volume.take(60), volume.take(60), volume.take(1)], [true, true, false]);
        assert_eq!((volume.spent(), volume.used()), (Some(Spent::Day), Usage { day: 120, month: 220 }));
        volume.begin_day();
        assert_eq!([volume.take(60), volume.take(1)], [true, false]);
        volume.begin_day();
        assert_eq!((volume.spent(), volume.take(1)), (Some(Spent::Month), false));
        volume.begin_month();
        assert!(volume.take(1));
    }

    #[test]
    fn without_limits_everything_is_counted_and_nothing_refused() {
        let volume = Volume::default();

        assert!(volume.take(1 << 60) && volume.take(1 << 60));
        assert_eq!((volume.spent(), volume.used()), (None, Usage { day: 1 << 61, month: 1 << 61 }));
    }

    #[test]
    fn other_limits_hold_for_what_was_relayed_before() {
        let volume = Volume::default();
        volume.take(100);

        volume.configure(Limits { day: Some(100), month: None });
        assert_eq!((volume.take(1), volume.spent()), (false, Some(Spent::Day)));
        volume.configure(Limits { day: Some(101), month: Some(100) });
        assert_eq!(volume.spent(), Some(Spent::Month));
        volume.configure(Limits::default());

        assert!(volume.take(1));
    }
}
