//! What each signaling session holds here, so that its end costs as much as it has and no more.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::credentials::SessionId;
use crate::relay::command::AllocationId;

/// Something that ends with its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holding {
    /// An allocation.
    Allocation(AllocationId),
    /// A relayed port that waits for this RESERVATION-TOKEN.
    Reservation([u8; 8]),
}

/// All sessions that hold something. Capped with the allocations and reservations.
#[derive(Debug, Default)]
pub(super) struct Holdings(HashMap<SessionId, HashSet<Holding>>);

impl Holdings {
    /// Enters what a session has been given; without one, nothing.
    pub(super) fn enter(&mut self, session: Option<SessionId>, holding: Holding) {
        if let Some(session) = session {
            self.0.entry(session).or_default().insert(holding);
        }
    }

    /// Strikes off what is over.
    pub(super) fn strike(&mut self, session: Option<SessionId>, holding: Holding) {
        let Some(session) = session else { return };
        if let Some(held) = self.0.get_mut(&session) {
            held.remove(&holding);
            if held.is_empty() {
                self.0.remove(&session);
            }
        }
    }

    /// What `session` holds.
    pub(super) fn held_by(&self, session: SessionId) -> Vec<Holding> {
        self.0.get(&session).into_iter().flatten().copied().collect()
    }

    /// The sessions that hold something and are `wanted`.
    pub(super) fn all(&self, wanted: impl Fn(SessionId) -> bool) -> Vec<SessionId> {
        self.0.keys().copied().filter(|session| wanted(*session)).collect()
    }

    /// Whether nobody holds anything.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
