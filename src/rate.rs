//! Token buckets, alone and per source, with `now` as an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::address::Prefix;
use crate::address::source_of;

/// So many a second, with bursts of so many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens that come back in a second.
    pub per_second: f64,
    /// Tokens a bucket holds.
    pub burst: f64,
}

/// One bucket of tokens, full at first.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, filled: now }
    }

    /// Takes one token; false when none is left.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * rate.per_second).min(rate.burst);
        self.filled = now;
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}

/// A bucket for every source ([`source_of`]), for at most [`PerSource::MAX_SOURCES`] of them.
///
/// Beyond the cap all strangers share one bucket, so that a flood of sources costs neither memory
/// nor the sources already known; buckets that have been full for a while are forgotten.
#[derive(Debug)]
pub struct PerSource {
    rate: Rate,
    exempt: Vec<Prefix>,
    buckets: HashMap<IpAddr, TokenBucket>,
    strangers: Option<TokenBucket>,
    swept: Option<Instant>,
}

impl PerSource {
    /// How many sources have a bucket of their own.
    pub const MAX_SOURCES: usize = 16_384;
    /// How often full buckets are forgotten, at most.
    const SWEEP: Duration = Duration::from_secs(10);

    /// No source known yet; those in `exempt` are never limited.
    pub fn new(rate: Rate, exempt: Vec<Prefix>) -> Self {
        Self { rate, exempt, buckets: HashMap::new(), strangers: None, swept: None }
    }

    /// Takes one token of the source of `ip`; false when none is left.
    pub fn take(&mut self, ip: IpAddr, now: Instant) -> bool {
        let ip = ip.to_canonical();
        if self.exempt.iter().any(|prefix| prefix.contains(ip)) {
            return true;
        }
        let source = source_of(ip);
        let rate = self.rate;
        if let Some(bucket) = self.buckets.get_mut(&source) {
            return bucket.take(rate, now);
        }
        if self.buckets.len() >= Self::MAX_SOURCES {
            self.sweep(now);
        }
        if self.buckets.len() >= Self::MAX_SOURCES {
            return self.strangers.get_or_insert_with(|| TokenBucket::new(rate, now)).take(rate, now);
        }
        self.buckets.entry(source).or_insert_with(|| TokenBucket::new(rate, now)).take(rate, now)
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < Self::SWEEP) {
            return;
        }
        self.swept = Some(now);
        let rate = self.rate;
        self.buckets.retain(|_, bucket| {
            let elapsed = now.saturating_duration_since(bucket.filled);
            bucket.tokens + elapsed.as_secs_f64() * rate.per_second < rate.burst
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const RATE: Rate = Rate { per_second: 10.0, burst: 2.0 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let now = Clock::system().now().monotonic;
        let mut bucket = TokenBucket::new(RATE, now);

        let taken = [bucket.take(RATE, now), bucket.take(RATE, now), bucket.take(RATE, now)];

        assert_eq!(taken, [true, true, false]);
        assert!(bucket.take(RATE, now + Duration::from_millis(101)));
        assert!(!bucket.take(RATE, now + Duration::from_millis(102)));
    }

    #[test]
    fn the_number_of_sources_is_capped_and_full_buckets_make_room() {
        let now = Clock::system().now().monotonic;
        let mut limit = PerSource::new(RATE, vec!["127.0.0.0/8".parse().unwrap()]);
        let stranger = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());

        let let_in = (0..40_000).filter(|n| limit.take(stranger(*n), now)).count();

        assert_eq!(limit.buckets.len(), PerSource::MAX_SOURCES);
        assert_eq!(let_in, PerSource::MAX_SOURCES + 2, "beyond the cap, strangers share one bucket");
        assert!((0..100).all(|_| limit.take("127.0.0.1".parse().unwrap(), now)), "exempt sources are never limited");

        limit.take(stranger(50_000), now + Duration::from_secs(11));

        assert_eq!(limit.buckets.len(), 1);
    }
}
