//! Amounts with units: lengths of time, sizes, rates, and plain counts.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de;

/// A length of time in whole milliseconds from `MIN` to `MAX`, written `"10m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    pub(in crate::config) const fn milliseconds(count: u64) -> Self {
        Self(count)
    }

    /// The length.
    pub fn get(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Span<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("from \"{}\" to \"{}\"", Self(MIN), Self(MAX));
        let Some(count) = read_units(text, TIMES) else {
            return Err(format!(
                "{text:?} is not a duration: write a number and one of ms, s, m, h, d, such as \"10m\", {}",
                wanted()
            ));
        };
        if (MIN..=MAX).contains(&count) { Ok(Self(count)) } else { Err(out_of_range(text, &wanted())) }
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Span<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No time at all is so many of any unit: people write this one.
        if self.0 == 0 { f.write_str("0s") } else { f.write_str(&in_units(self.0, TIMES)) }
    }
}

/// A number of bytes from `MIN` to `MAX`, written `"64KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    pub(in crate::config) const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// The number of bytes.
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Size<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("from {:?} to {:?}", in_units(MIN, SIZES), in_units(MAX, SIZES));
        let Some(count) = read_units(text, SIZES) else {
            return Err(format!(
                "{text:?} is not a size: write a number and one of B, KiB, MiB, GiB, TiB, such as \"64KiB\", {}",
                wanted()
            ));
        };
        if (MIN..=MAX).contains(&count) { Ok(Self(count)) } else { Err(out_of_range(text, &wanted())) }
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Size<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_units(self.0, SIZES))
    }
}

/// So many a second, from 1 to a million, written `"50/s"` (or `"30/m"`, `"10/h"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    count: u32,
    unit: char,
}

impl Frequency {
    pub(in crate::config) const fn per_second(count: u32) -> Self {
        Self { count, unit: 's' }
    }

    /// How many a second.
    pub fn get(self) -> f64 {
        let seconds = match self.unit {
            'm' => 60.0,
            'h' => 3600.0,
            _ => 1.0,
        };
        f64::from(self.count) / seconds
    }
}

impl FromStr for Frequency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (count, unit) = text.split_once('/')?;
            let unit = unit.trim().parse().ok().filter(|unit| matches!(unit, 's' | 'm' | 'h'))?;
            let count = count.trim().parse().ok().filter(|count| (1..=1_000_000).contains(count))?;
            Some(Self { count, unit })
        };
        read().ok_or_else(|| {
            format!("{text:?} is not a rate: write a number from 1 to 1000000 and one of /s, /m, /h, such as \"50/s\"")
        })
    }
}

impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.unit)
    }
}

/// So many bytes a second, up to a terabyte, written `"32MiB/s"`; none at all is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throughput(u64);

impl Throughput {
    /// The most that can be written.
    const MOST: u64 = 1 << 40;

    pub(in crate::config) const fn per_second(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes a second; none without a limit.
    pub fn get(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

impl FromStr for Throughput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("from \"0B/s\" (no limit) to \"{}\"", Self(Self::MOST));
        let Some(bytes) = text.strip_suffix("/s").and_then(|size| read_units(size, SIZES)) else {
            return Err(format!(
                "{text:?} is not a throughput: write a number and one of B/s, KiB/s, MiB/s, GiB/s, TiB/s, such as \
                 \"32MiB/s\", {}",
                wanted()
            ));
        };
        if bytes <= Self::MOST { Ok(Self(bytes)) } else { Err(out_of_range(text, &wanted())) }
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", in_units(self.0, SIZES))
    }
}

as_text!(Frequency, Throughput, Span < MIN, MAX > [MIN, MAX], Size < MIN, MAX > [MIN, MAX]);

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    pub(in crate::config) const fn new(count: u32) -> Self {
        Self(count)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor(PhantomData))
    }
}

impl<const MIN: u32, const MAX: u32> Serialize for Count<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

struct CountVisitor<const MIN: u32, const MAX: u32>(PhantomData<Count<MIN, MAX>>);

impl<const MIN: u32, const MAX: u32> CountVisitor<MIN, MAX> {
    fn refuse<E: de::Error>(found: impl fmt::Debug) -> E {
        E::custom(format_args!("{found:?} is not a whole number from {MIN} to {MAX}"))
    }
}

impl<const MIN: u32, const MAX: u32> de::Visitor<'_> for CountVisitor<MIN, MAX> {
    type Value = Count<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_i64<E: de::Error>(self, found: i64) -> Result<Self::Value, E> {
        let count = u32::try_from(found).ok().filter(|count| (MIN..=MAX).contains(count));
        count.map(Count).ok_or_else(|| Self::refuse(found))
    }

    fn visit_u64<E: de::Error>(self, found: u64) -> Result<Self::Value, E> {
        i64::try_from(found).map_err(|_| Self::refuse(found)).and_then(|found| self.visit_i64(found))
    }

    fn visit_f64<E: de::Error>(self, found: f64) -> Result<Self::Value, E> {
        Err(Self::refuse(found))
    }

    fn visit_str<E: de::Error>(self, found: &str) -> Result<Self::Value, E> {
        Err(Self::refuse(found))
    }
}

const TIMES: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZES: &[(&str, u64)] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn read_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    count.parse::<u64>().ok()?.checked_mul(*factor)
}

/// In the largest unit that needs no fraction.
fn in_units(count: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().find(|(_, factor)| count >= *factor && count.is_multiple_of(*factor));
    let (name, factor) = fits.or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{name}", count / factor)
}

fn out_of_range(text: &str, wanted: &str) -> String {
    format!("{text:?} is out of range: write one {wanted}")
}
