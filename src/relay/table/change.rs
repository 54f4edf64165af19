//! What becomes of entries when the rules are other ones.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::Table;
use crate::policy::Policy;
use crate::relay::command::AllocationId;

impl<S> Table<S> {
    /// Has another policy judge, and what it says of every bound peer be remembered.
    pub(in crate::relay) fn judge_by(&mut self, policy: Arc<Policy>, now: Instant) {
        if Arc::ptr_eq(&self.policy, &policy) {
            return;
        }
        for (_, allocation) in &mut self.allocations {
            for channel in allocation.channels.values_mut() {
                channel.reach = policy.reach(channel.peer);
            }
        }
        self.policy = policy;
        if self.pairs.is_some() {
            for id in self.by_id.keys().copied().collect::<Vec<_>>() {
                self.tell_of(id, |_| true, now);
            }
        }
    }

    /// Takes a permission back, and the channels that are bound to the peer.
    pub(in crate::relay) fn forbid(&mut self, id: AllocationId, peer: IpAddr, now: Instant) {
        self.handle_timeout(now);
        let Some(allocation) = self.by_id(id) else { return };
        allocation.permissions.remove(&peer);
        let bound: Vec<_> = allocation.numbers.extract_if(|bound, _| bound.ip() == peer).collect();
        for (_, number) in &bound {
            allocation.channels.remove(number);
        }
        for (peer, _) in bound {
            self.tell(id, peer, now);
        }
    }
}
