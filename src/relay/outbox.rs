//! What waits to be written to one stream: answers always, data only while it is fresh and little.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::DropReason;
use crate::metrics::Metrics;

/// Between the media thread, which fills it, and the task that writes the stream.
///
/// A stream that takes too little costs nobody but its client: of the data that waits, whole frames go, the oldest
/// first. Neither side holds the lock for longer than it takes to copy [`MAX_DATA`].
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Rung when something waits where nothing did.
    bell: Notify,
    /// Rung once its client is given up: more answers wait than anybody leaves unread.
    cut: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// STUN answers, one behind the other: at most [`MAX_ANSWERS`].
    answers: Vec<u8>,
    /// Data frames, one behind the other: at most [`MAX_DATA`].
    data: VecDeque<u8>,
    /// When each of them came, and its length.
    frames: VecDeque<(Instant, usize)>,
    allocated: bool,
}

/// How long data may wait: what is older is of no use to a call.
const FRESH: Duration = Duration::from_millis(200);
/// Bytes of data that may wait: more than any call sends in [`FRESH`].
const MAX_DATA: usize = 256 << 10;
/// Bytes of answers that may wait: hundreds, and who doesn't read that many is not served any longer.
const MAX_ANSWERS: usize = 64 << 10;
/// Bytes of data taken for one write: these can't be taken back when they grow old.
const WRITE: usize = 64 << 10;

impl Outbox {
    /// Empty; drops are counted in `metrics`.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { waiting: Mutex::default(), bell: Notify::new(), cut: Notify::new(), metrics }
    }

    /// Adds a STUN answer, which is never dropped: when there is no room for it, that is the end of the stream.
    pub(super) fn push_answer(&self, message: &[u8]) {
        let mut waiting = self.lock();
        if waiting.answers.len() + message.len() > MAX_ANSWERS {
            return self.cut.notify_one();
        }
        waiting.answers.extend_from_slice(message);
        drop(waiting);
        self.bell.notify_one();
    }

    /// Adds a frame of data; drops older ones for it, or itself.
    pub(super) fn push_data(&self, frame: &[u8], now: Instant) {
        let mut waiting = self.lock();
        let mut dropped = waiting.drop_stale(now);
        while waiting.data.len() + frame.len() > MAX_DATA && waiting.drop_oldest() {
            dropped += 1;
        }
        let first = waiting.frames.is_empty();
        waiting.data.extend(frame);
        waiting.frames.push_back((now, frame.len()));
        drop(waiting);
        self.count(dropped);
        if first {
            self.bell.notify_one();
        }
    }

    /// Moves what is due next behind what is in `buffer`: all answers, and fresh data up to [`WRITE`] bytes.
    pub(super) fn take(&self, buffer: &mut Vec<u8>, now: Instant) {
        let mut waiting = self.lock();
        buffer.append(&mut waiting.answers);
        let dropped = waiting.drop_stale(now);
        let mut bytes = 0;
        while let Some((_, length)) = waiting.frames.pop_front_if(|(_, length)| bytes == 0 || bytes + *length <= WRITE)
        {
            bytes += length;
        }
        // By slices: taken through an iterator, each byte is a call.
        let (front, back) = waiting.data.as_slices();
        let of_front = bytes.min(front.len());
        buffer.extend_from_slice(front.get(..of_front).unwrap_or_default());
        buffer.extend_from_slice(back.get(..bytes.saturating_sub(of_front)).unwrap_or_default());
        let bytes = bytes.min(waiting.data.len());
        waiting.data.drain(..bytes);
        drop(waiting);
        self.count(dropped);
    }

    /// Waits until there may be something to take.
    pub(super) async fn filled(&self) {
        self.bell.notified().await;
    }

    /// Waits until its client is given up, because it asked and asked and read nothing.
    pub(super) async fn cut(&self) {
        self.cut.notified().await;
    }

    /// Notes whether its client has an allocation.
    pub(super) fn set_allocated(&self, allocated: bool) {
        self.lock().allocated = allocated;
    }

    /// Whether its client has an allocation.
    pub(super) fn is_allocated(&self) -> bool {
        self.lock().allocated
    }

    fn count(&self, dropped: u64) {
        self.metrics.dropped_many(DropReason::StreamFull, dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn drop_stale(&mut self, now: Instant) -> u64 {
        let mut dropped = 0;
        while self.frames.front().is_some_and(|(came, _)| *came + FRESH <= now) && self.drop_oldest() {
            dropped += 1;
        }
        dropped
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, length)) = self.frames.pop_front() else { return false };
        self.data.drain(..length.min(self.data.len()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn outbox() -> (Outbox, Arc<Metrics>, Instant) {
        let metrics = Arc::new(Metrics::default());
        (Outbox::new(Arc::clone(&metrics)), metrics, Clock::system().now().monotonic)
    }

    fn taken(outbox: &Outbox, now: Instant) -> Vec<u8> {
        let mut buffer = Vec::new();
        outbox.take(&mut buffer, now);
        buffer
    }

    #[test]
    fn everything_that_waits_is_taken_at_once_answers_first() {
        let (outbox, metrics, now) = outbox();

        outbox.push_data(b"data", now);
        outbox.push_answer(b"answer");
        outbox.push_data(b"more", now + FRESH / 2);

        assert_eq!(taken(&outbox, now + FRESH / 2), b"answerdatamore");
        assert_eq!(taken(&outbox, now), b"");
        assert_eq!(metrics.drops(DropReason::StreamFull), 0);
    }

    #[test]
    fn data_beyond_the_bound_pushes_out_the_oldest_whole_frames() {
        let (outbox, metrics, now) = outbox();

        for number in 0..=255_u8 {
            outbox.push_data(&[number; 2000], now);
        }
        let held = MAX_DATA / 2000;
        let first = taken(&outbox, now);

        assert_eq!(metrics.drops(DropReason::StreamFull), 256 - held as u64);
        assert_eq!(usize::from(first[0]), 256 - held, "the oldest went");
        assert!(first.len() <= WRITE && first.len().is_multiple_of(2000));
        assert!(first.chunks(2000).all(|frame| frame.iter().all(|byte| *byte == frame[0])), "whole frames");
    }

    #[test]
    fn data_that_has_waited_too_long_is_dropped_and_answers_never() {
        let (outbox, metrics, now) = outbox();

        outbox.push_data(b"old", now);
        outbox.push_answer(b"answer");
        outbox.push_data(b"new", now + FRESH - Duration::from_millis(1));

        assert_eq!(taken(&outbox, now + FRESH), b"answernew");
        assert_eq!(metrics.drops(DropReason::StreamFull), 1);
    }

    #[test]
    fn the_largest_frame_there_is_gets_through() {
        let (outbox, _, now) = outbox();

        outbox.push_data(&[1; 65_544], now);
        outbox.push_data(&[2; 65_544], now);

        assert_eq!([taken(&outbox, now), taken(&outbox, now)], [vec![1; 65_544], vec![2; 65_544]]);
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_are_capped() {
        let (outbox, ..) = outbox();

        for _ in 0..1_000_000 {
            outbox.push_answer(&[0; 100]);
        }

        assert!(outbox.lock().answers.len() <= MAX_ANSWERS);
        outbox.cut().await;
    }
}
