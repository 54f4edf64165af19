//! Token buckets, alone and per source, with `now` as an argument.

use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::address::Sources;

/// So many a second, with bursts of so many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens that come back in a second.
    pub per_second: f64,
    /// Tokens a bucket holds; below 1 it counts as 1, or nobody would ever get one.
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
        Self { tokens: rate.burst.max(1.0), filled: now }
    }

    /// Takes one token; false when none is left.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.take_many(1.0, rate, now)
    }

    /// Takes so many tokens, or none; false when so many aren't left.
    pub fn take_many(&mut self, tokens: f64, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        let taken = self.tokens >= tokens;
        if taken {
            self.tokens -= tokens;
        }
        taken
    }

    /// Takes so many tokens, even those that it doesn't have yet; fewer than none are given back, as far as they fit.
    pub fn charge(&mut self, tokens: f64, rate: Rate) {
        self.tokens = (self.tokens - tokens).min(rate.burst.max(1.0));
    }

    /// Whether a token is left.
    pub fn has_one(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.tokens >= 1.0
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * rate.per_second).min(rate.burst.max(1.0));
        self.filled = now;
    }
}

/// One bucket for several threads, full at first. It is kept as the moment when it will be full again: one number, which
/// needs no lock.
#[derive(Debug)]
pub struct SharedBucket {
    per_second: u64,
    /// Nanoseconds that it takes to fill.
    depth: u64,
    start: Instant,
    /// Nanoseconds after `start`.
    full_at: AtomicU64,
}

impl SharedBucket {
    /// A full bucket, of at least one token a second.
    pub fn new(per_second: u64, burst: u64, now: Instant) -> Self {
        let per_second = per_second.max(1);
        Self { per_second, depth: duration_of(burst, per_second), start: now, full_at: AtomicU64::new(0) }
    }

    /// Takes so many tokens, or none; false when so many aren't left.
    pub fn take(&self, tokens: u64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.start).as_nanos();
        let now = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let wanted = duration_of(tokens, self.per_second);
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(wanted);
            (full_at - now <= self.depth).then_some(full_at)
        });
        taken.is_ok()
    }
}

/// The nanoseconds in which so many tokens come back.
fn duration_of(tokens: u64, per_second: u64) -> u64 {
    tokens.saturating_mul(1_000_000_000) / per_second
}

/// Token buckets for everybody: a fixed number of them, each one's chosen by a keyed hash of who it is.
///
/// Those who share a bucket share its rate, and nobody can choose with whom. A flood from forged sources thins out over
/// all buckets, so that it costs neither memory nor others their turn until it alone spends what all buckets give
/// together.
#[derive(Debug)]
pub struct Buckets {
    rate: Rate,
    key: RandomState,
    /// [`Buckets::COUNT`] of them for ever, 1.5 MiB; None is full.
    buckets: Box<[Option<TokenBucket>]>,
}

impl Buckets {
    /// How many buckets there are: one for each `u16`.
    const COUNT: usize = 1 << 16;

    /// All buckets full.
    pub fn new(rate: Rate) -> Self {
        Self { rate, key: RandomState::new(), buckets: vec![None; Self::COUNT].into() }
    }

    /// Has them fill at another rate; what was taken stays so.
    pub fn configure(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// Takes `count` tokens of `who`, or none if there are fewer; false then.
    pub fn take(&mut self, who: &impl Hash, count: u32, now: Instant) -> bool {
        let rate = self.rate;
        self.of(who, now).is_some_and(|bucket| bucket.take_many(f64::from(count), rate, now))
    }

    /// Whether `who` has a token left.
    pub fn has_one(&mut self, who: &impl Hash, now: Instant) -> bool {
        let rate = self.rate;
        self.of(who, now).is_some_and(|bucket| bucket.has_one(rate, now))
    }

    fn of(&mut self, who: &impl Hash, now: Instant) -> Option<&mut TokenBucket> {
        let [a, b, ..] = self.key.hash_one(who).to_ne_bytes();
        let bucket = self.buckets.get_mut(usize::from(u16::from_ne_bytes([a, b])))?;
        Some(bucket.get_or_insert_with(|| TokenBucket::new(self.rate, now)))
    }
}

/// [`Buckets`] of sources ([`Sources`]).
#[derive(Debug)]
pub struct PerSource {
    sources: Sources,
    buckets: Buckets,
}

impl PerSource {
    /// All buckets full; what `sources` exempts is never limited.
    pub fn new(rate: Rate, sources: Sources) -> Self {
        Self { sources, buckets: Buckets::new(rate) }
    }

    /// Has another rate hold, and for others; what was taken stays so.
    pub fn configure(&mut self, rate: Rate, sources: Sources) {
        self.buckets.configure(rate);
        self.sources = sources;
    }

    /// Takes one token of the source of `ip`; false when none is left.
    pub fn take(&mut self, ip: IpAddr, now: Instant) -> bool {
        self.sources.of(ip).is_none_or(|source| self.buckets.take(&source, 1, now))
    }

    /// Whether the source of `ip` has a token left.
    pub fn has_one(&mut self, ip: IpAddr, now: Instant) -> bool {
        self.sources.of(ip).is_none_or(|source| self.buckets.has_one(&source, now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn what_is_owed_must_come_back_first_and_what_is_given_back_counts_up_to_the_burst() {
        let now = Clock::system().now().monotonic;
        let mut bucket = TokenBucket::new(RATE, now);

        bucket.charge(3.0, RATE);
        assert!(!bucket.take(RATE, now + Duration::from_millis(199)), "one is owed, and one is wanted");
        assert!(bucket.take(RATE, now + Duration::from_millis(201)));
        bucket.charge(-9.0, RATE);

        let taken = (0..9).filter(|_| bucket.take(RATE, now + Duration::from_millis(201))).count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn a_shared_bucket_gives_its_burst_and_then_its_rate_whoever_takes() {
        let now = Clock::system().now().monotonic;
        let bucket = SharedBucket::new(1000, 500, now);

        assert_eq!([bucket.take(300, now), bucket.take(300, now), bucket.take(200, now)], [true, false, true]);
        let later = now + Duration::from_millis(100);
        let taken: usize = std::thread::scope(|scope| {
            let taker = || scope.spawn(|| (0..1000).filter(|_| bucket.take(1, later)).count());
            [taker(), taker(), taker()].map(|it| it.join().unwrap()).into_iter().sum()
        });
        assert_eq!(taken, 100);
        assert!(!bucket.take(501, later + Duration::from_secs(60)), "never more than it holds");
        assert!(bucket.take(500, later + Duration::from_secs(60)));
    }

    #[test]
    fn a_burst_below_one_counts_as_one() {
        let now = Clock::system().now().monotonic;
        let slow = Rate { per_second: 0.5, burst: 0.5 };
        let mut bucket = TokenBucket::new(slow, now);

        assert_eq!([bucket.take(slow, now), bucket.take(slow, now)], [true, false]);
        assert!(bucket.take(slow, now + Duration::from_secs(2)));
    }

    #[test]
    fn each_source_is_limited_and_exempt_ones_never() {
        let now = Clock::system().now().monotonic;
        let mut limit = PerSource::new(RATE, Sources::new(vec!["127.0.0.0/8".parse().unwrap()]));
        let let_in = |ip: &str, limit: &mut PerSource| (0..9).filter(|_| limit.take(ip.parse().unwrap(), now)).count();

        assert!((0..9).all(|_| limit.has_one("192.0.2.1".parse().unwrap(), now)), "looking takes nothing");
        assert_eq!(let_in("192.0.2.1", &mut limit), 2);
        assert!(!limit.has_one("192.0.2.1".parse().unwrap(), now));
        assert_eq!(let_in("::ffff:192.0.2.1", &mut limit), 0, "the same source");
        assert_eq!(let_in("127.0.0.1", &mut limit), 9);
    }

    #[test]
    fn a_flood_of_sources_shuts_out_neither_known_nor_new_ones_and_costs_no_memory() {
        let start = Clock::system().now().monotonic;
        let mut limit = PerSource::new(Rate { per_second: 100.0, burst: 500.0 }, Sources::default());
        let forged = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());
        let known: IpAddr = "192.0.2.1".parse().unwrap();
        let (mut answered_new, mut answered_known) = (0, 0);

        for n in 0..100_000 {
            let now = start + Duration::from_micros(100) * n;
            limit.take(forged(n), now);
            if n % 1_000 == 999 {
                answered_new += u32::from(limit.take(IpAddr::V4((0xc633_6400 + n / 1_000).into()), now));
                answered_known += u32::from(limit.take(known, now));
            }
        }

        assert!(answered_new >= 95 && answered_known >= 95, "{answered_new} and {answered_known} of 100");
        assert_eq!(size_of_val(&*limit.buckets.buckets), 3 << 19);
    }

    #[test]
    fn another_rate_holds_at_once_for_what_is_left_and_for_what_comes_back() {
        let now = Clock::system().now().monotonic;
        let (one, exempt) = ("192.0.2.1".parse().unwrap(), "198.51.100.1".parse().unwrap());
        let mut buckets = PerSource::new(Rate { per_second: 1.0, burst: 100.0 }, Sources::default());
        assert!(buckets.take(one, now) && buckets.take(exempt, now));

        buckets.configure(RATE, Sources::new(vec!["198.51.100.0/24".parse().unwrap()]));
        let mut taken = |source, at| (0..50).filter(|_| buckets.take(source, at)).count();

        assert_eq!([taken(one, now), taken(exempt, now)], [2, 50]);
        assert_eq!(taken(one, now + Duration::from_millis(101)), 1);
    }
}
