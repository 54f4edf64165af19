//! What each signaling session holds here, so that its end costs as much as it has and no more.

use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::Hash;

use crate::credentials::SessionId;

/// All sessions that hold something, `T` being its name. Capped with what they hold.
#[derive(Debug)]
pub(super) struct Holdings<T>(HashMap<SessionId, HashSet<T>>);

impl<T> Default for Holdings<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Copy + Eq + Hash> Holdings<T> {
    /// Enters what a session has been given; without one, nothing.
    pub(super) fn enter(&mut self, session: Option<SessionId>, holding: T) {
        if let Some(session) = session {
            self.0.entry(session).or_default().insert(holding);
        }
    }

    /// Strikes off what is over.
    pub(super) fn strike(&mut self, session: Option<SessionId>, holding: T) {
        let Some(session) = session else { return };
        if let Some(held) = self.0.get_mut(&session) {
            held.remove(&holding);
            if held.is_empty() {
                self.0.remove(&session);
            }
        }
    }

    /// What `session` holds.
    pub(super) fn held_by(&self, session: SessionId) -> Vec<T> {
        self.0.get(&session).into_iter().flatten().copied().collect()
    }

    /// The sessions that hold something.
    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.0.keys().copied().collect()
    }

    /// Whether nobody holds anything.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
