//! Keeps what was relayed this day and this month: over midnight, and over a restart.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::clock::Now;
use crate::volume::Limits;
use crate::volume::Spent;
use crate::volume::Usage;
use crate::volume::Volume;

/// In the directory of state.
const FILE: &str = "relayed.json";
/// How often the calendar and the limits are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the file is written at most, but for the end.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The day that it counts, in UTC, such as `2026-11-20`.
    date: String,
    /// Bytes of that day.
    day: u64,
    /// Bytes of its month.
    month: u64,
}

/// The only one who knows the calendar, and the file.
#[derive(Debug)]
pub(super) struct Keeper {
    volume: Arc<Volume>,
    path: PathBuf,
    date: String,
    written: Record,
    write_next: Instant,
    warned: Option<Spent>,
    /// Whether the file couldn't be written the last time.
    failing: bool,
}

impl Keeper {
    /// Goes on from what the file under `state` says of this day and month. A file that is missing says nothing, a
    /// broken one is warned of.
    pub(super) fn load(state: &Path, limits: Limits, now: Now) -> Self {
        let (path, date) = (state.join(FILE), date(now));
        let written = read(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot tell what was relayed before: counting from zero");
            Record::default()
        });
        let used = Usage {
            day: if written.date == date { written.day } else { 0 },
            month: if month(&written.date) == month(&date) { written.month } else { 0 },
        };
        let volume = Arc::new(Volume::new(limits, used));
        Self { volume, path, date, written, write_next: now.monotonic, warned: None, failing: false }
    }

    /// What it keeps.
    pub(super) fn volume(&self) -> Arc<Volume> {
        Arc::clone(&self.volume)
    }

    /// Keeps it until the end.
    pub(super) async fn run(mut self, clock: Clock, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.look(clock.now());
        }
        self.write();
    }

    fn look(&mut self, now: Now) {
        let today = date(now);
        if today != self.date {
            self.volume.begin_day();
            if month(&today) != month(&self.date) {
                self.volume.begin_month();
            }
            self.date = today;
        }
        let spent = self.volume.spent();
        if spent != std::mem::replace(&mut self.warned, spent) {
            match spent {
                Some(Spent::Day) => tracing::warn!("turn.limits.bytes_per_day is used up: no relaying before tomorrow"),
                Some(Spent::Month) => {
                    tracing::warn!("turn.limits.bytes_per_month is used up: no relaying before the next month");
                }
                None => tracing::info!("relaying again: a day or month of turn.limits has begun, or has more"),
            }
        }
        if now.monotonic >= self.write_next {
            self.write_next = now.monotonic + WRITE_EVERY;
            self.write();
        }
    }

    /// Writes the file whole or not at all, if it would say anything else.
    fn write(&mut self) {
        let Usage { day, month } = self.volume.used();
        let record = Record { date: self.date.clone(), day, month };
        if record == self.written {
            return;
        }
        let new = self.path.with_extension("new");
        let text = serde_json::to_string(&record).map_err(io::Error::other);
        let written = text.and_then(|text| fs::write(&new, text + "\n")).and_then(|()| fs::rename(&new, &self.path));
        match &written {
            Ok(()) => self.written = record,
            Err(error) if !self.failing => {
                tracing::warn!(path = %self.path.display(), %error, "cannot keep what was relayed: a restart forgets it");
            }
            Err(_) => (),
        }
        self.failing = written.is_err();
    }
}

fn read(path: &Path) -> io::Result<Record> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
        Err(error) => Err(error),
    }
}

/// The day in UTC, such as `2026-11-20`.
fn date(now: Now) -> String {
    let seconds = i64::try_from(now.unix.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH).date().to_string()
}

/// The month of a date: all but its day.
fn month(date: &str) -> Option<&str> {
    date.rsplit_once('-').map(|(month, _)| month)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { day: Some(100), month: Some(1000) };
    const DAY: Duration = Duration::from_secs(86_400);

    /// 2026-11-29, at noon.
    fn noon() -> Now {
        Now { monotonic: Clock::system().now().monotonic, unix: DAY * 20_786 + DAY / 2 }
    }

    #[test]
    fn the_day_ends_at_midnight_and_the_month_with_its_last_day() {
        let home = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::load(home.path(), LIMITS, noon());
        let volume = keeper.volume();

        volume.take(100);
        keeper.look(noon().after(DAY / 2 - Duration::from_secs(1)));
        assert_eq!((volume.spent(), keeper.date.as_str()), (Some(Spent::Day), "2026-11-29"));
        keeper.look(noon().after(DAY / 2));
        assert_eq!((volume.used(), keeper.date.as_str()), (Usage { day: 0, month: 100 }, "2026-11-30"));
        volume.take(50);
        keeper.look(noon().after(DAY * 3 / 2));
        assert_eq!((volume.used(), keeper.date.as_str()), (Usage::default(), "2026-12-01"));
    }

    #[test]
    fn a_restart_goes_on_from_the_file_as_far_as_it_is_of_this_day_and_month() {
        let home = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::load(home.path(), LIMITS, noon());
        keeper.volume().take(70);
        keeper.write();
        let used_at = |now| Keeper::load(home.path(), LIMITS, now).volume().used();

        assert_eq!(used_at(noon().after(DAY / 3)), Usage { day: 70, month: 70 });
        assert_eq!(used_at(noon().after(DAY)), Usage { day: 0, month: 70 });
        assert_eq!(used_at(noon().after(DAY * 2)), Usage::default());
    }

    #[test]
    fn the_file_is_written_once_a_minute_at_most_and_only_with_news() {
        let home = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::load(home.path(), LIMITS, noon());
        let volume = keeper.volume();
        let mut kept_after = |seconds, bytes| {
            volume.take(bytes);
            keeper.look(noon().after(Duration::from_secs(seconds)));
            read(&home.path().join(FILE)).unwrap().day
        };

        assert_eq!([kept_after(0, 1), kept_after(1, 2), kept_after(59, 3), kept_after(60, 4)], [1, 1, 1, 10]);
        fs::remove_file(home.path().join(FILE)).unwrap();
        assert_eq!([kept_after(120, 0), kept_after(180, 5)], [0, 15], "written with news alone");
    }

    #[test]
    fn a_broken_file_or_none_counts_from_zero_and_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        for broken in ["", "nonsense", r#"{"date":7}"#, r#"{"date":"2026-11-29","day":-1,"month":1}"#] {
            fs::write(home.path().join(FILE), broken).unwrap();
            let mut keeper = Keeper::load(home.path(), LIMITS, noon());
            assert_eq!(keeper.volume().used(), Usage::default(), "{broken:?}");
            keeper.volume().take(9);
            keeper.write();
            assert_eq!(read(&home.path().join(FILE)).unwrap().day, 9);
        }
        fs::remove_file(home.path().join(FILE)).unwrap();
        fs::create_dir(home.path().join(FILE)).unwrap();
        let mut keeper = Keeper::load(home.path(), LIMITS, noon());
        keeper.volume().take(9);
        keeper.write();
        assert_eq!(keeper.written, Record::default(), "what can't be written isn't taken for written");
    }
}
