//! How much may be relayed: bytes a second of one allocation and of all, and of all in the long run.

use std::sync::Arc;

use tokio::time::Instant;

use crate::metrics::DropReason;
use crate::rate::Rate;
use crate::rate::SharedBucket;
use crate::volume::Volume;

/// The limits that data is counted against, by its payload. The default has none.
#[derive(Clone, Debug, Default)]
pub struct Allowance {
    /// Bytes of one allocation, what it sends and what it receives together.
    pub per_allocation: Option<Rate>,
    /// Bytes of all, each datagram once. Shared by all shards.
    pub total: Option<Arc<SharedBucket>>,
    /// What was relayed in all. Shared by all shards.
    pub volume: Arc<Volume>,
}

impl Allowance {
    /// Counts so many bytes against the limits of all.
    ///
    /// # Errors
    ///
    /// Which of them is met.
    pub(super) fn take(&self, bytes: usize, now: Instant) -> Result<(), DropReason> {
        let bytes = bytes as u64;
        if self.total.as_ref().is_some_and(|total| !total.take(bytes, now)) {
            return Err(DropReason::Bandwidth);
        }
        if self.volume.take(bytes) { Ok(()) } else { Err(DropReason::Volume) }
    }
}
