//! What goes from shard to shard: data of one's clients for another's, through a ring of fixed size from each to each.
//! Nobody waits: what doesn't fit is dropped.

use std::sync::Arc;

use rtrb::Consumer;
use rtrb::Producer;
use rtrb::RingBuffer;

use super::directory::ShardId;
use super::shard::Bell;
use super::table::Names;
use crate::address::PeerAddr;
use crate::metrics::DropReason;
use crate::net::udp::Ecn;

/// Datagrams that wait from one shard for another at most.
pub(super) const LETTERS: usize = 4096;
/// Bytes of data in them at most. (Of two shards that nothing goes between, neither ring costs memory.)
const BYTES: usize = 1 << 20;

/// Data from a client for another's relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    /// The relayed address of the one that sends.
    pub(super) from: Names,
    /// The relayed address that it is for.
    pub(super) to: PeerAddr,
    /// What it is to be sent on with.
    pub(super) ecn: Option<Ecn>,
}

/// All other shards, as one of them sees them.
#[derive(Debug)]
pub(super) struct Neighbours {
    shard: ShardId,
    /// By [`ShardId`]; none for the one itself.
    to: Vec<Option<Outgoing>>,
    /// The same.
    from: Vec<Option<Incoming>>,
}

#[derive(Debug)]
struct Outgoing {
    /// Each with the length of its data, which is in the other ring before it is in this one.
    letters: Producer<(Letter, usize)>,
    data: Producer<u8>,
    bell: Arc<Bell>,
    /// Whether something was sent since the bell was rung.
    unannounced: bool,
}

#[derive(Debug)]
struct Incoming {
    letters: Consumer<(Letter, usize)>,
    data: Consumer<u8>,
}

impl Neighbours {
    /// Joins as many shards as there are bells, each of which wakes one.
    pub(super) fn join(bells: &[Arc<Bell>]) -> Vec<Self> {
        let of = |number| Self { shard: ShardId(number), to: Vec::new(), from: Vec::new() };
        let mut all: Vec<_> = (0..bells.len()).map(of).collect();
        for from in 0..bells.len() {
            for (to, bell) in bells.iter().enumerate() {
                let (outgoing, incoming) = if from == to { (None, None) } else { way(Arc::clone(bell)) };
                if let Some(it) = all.get_mut(from) {
                    it.to.push(outgoing);
                }
                if let Some(it) = all.get_mut(to) {
                    it.from.push(incoming);
                }
            }
        }
        all
    }

    /// Which one this is.
    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }

    /// Every other one.
    pub(super) fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let own = self.shard;
        (0..self.to.len()).map(ShardId).filter(move |shard| *shard != own)
    }

    /// Whether there is room for so many bytes of data for a client of `shard`'s.
    pub(super) fn has_room(&self, shard: ShardId, length: usize) -> bool {
        let outgoing = self.to.get(shard.0).and_then(Option::as_ref);
        outgoing.is_some_and(|it| it.letters.slots() > 0 && it.data.slots() >= length)
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    ///
    /// [`DropReason::QueueFull`], when there is none.
    pub(super) fn send(&mut self, shard: ShardId, letter: Letter, data: &[u8]) -> Result<(), DropReason> {
        if !self.has_room(shard, data.len()) {
            return Err(DropReason::QueueFull);
        }
        let outgoing = self.to.get_mut(shard.0).and_then(Option::as_mut).ok_or(DropReason::Bug)?;
        outgoing.data.push_entire_slice(data).map_err(|_| DropReason::Bug)?;
        outgoing.letters.push((letter, data.len())).map_err(|_| DropReason::Bug)?;
        outgoing.unannounced = true;
        Ok(())
    }

    /// Wakes those that something was sent to: once a round.
    pub(super) fn announce(&mut self) {
        for outgoing in self.to.iter_mut().flatten() {
            if std::mem::take(&mut outgoing.unannounced) {
                outgoing.bell.ring();
            }
        }
    }

    /// The next that another shard has sent, and its data, copied into `buffer`; that has room for the longest.
    pub(super) fn receive<'a>(&mut self, shard: ShardId, buffer: &'a mut [u8]) -> Option<(Letter, &'a [u8])> {
        let incoming = self.from.get_mut(shard.0)?.as_mut()?;
        let (letter, length) = incoming.letters.pop().ok()?;
        let data = buffer.get_mut(..length)?;
        incoming.data.pop_entire_slice(data).ok()?;
        Some((letter, data))
    }
}

/// The two ends of the way to the shard that `bell` wakes.
fn way(bell: Arc<Bell>) -> (Option<Outgoing>, Option<Incoming>) {
    let (letters_in, letters_out) = RingBuffer::new(LETTERS);
    let (data_in, data_out) = RingBuffer::new(BYTES);
    let outgoing = Outgoing { letters: letters_in, data: data_in, bell, unannounced: false };
    (Some(outgoing), Some(Incoming { letters: letters_out, data: data_out }))
}
