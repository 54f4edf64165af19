//! What becomes of what clients hold when the rules are other ones: a denied peer loses its permissions, and what was opened
//! with a credential that is good no more is over.

use std::net::IpAddr;

use tokio::sync::broadcast;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Processor;
use super::peers::any_port;
use crate::clock::Now;
use crate::metrics::AllocationEnd;
use crate::policy::Policy;
use crate::policy::Reach;
use crate::relay::command::Command;
use crate::turn::ledger::Allocation;
use crate::turn::ledger::Leg;

impl<S> Processor<S> {
    /// Tells when [`Processor::handle_recheck`] is due. The token is to be kept until its commands are on their way.
    pub fn rechecks(&self) -> broadcast::Receiver<TaskTrackerToken> {
        self.pool.rechecks()
    }

    /// Ends what nobody could allocate any more, and takes from the rest whom it couldn't be permitted.
    pub async fn handle_recheck(&mut self, now: Now) {
        let unproven = self.ledger.all().filter(|(_, allocation)| !self.is_proven(allocation, now));
        for id in unproven.map(|(_, allocation)| allocation.id).collect::<Vec<_>>() {
            self.end(id, AllocationEnd::Revoked).await;
        }
        self.pool.end_unproven_reservations();
        let rules = self.pool.rules.get();
        for (leg, peer) in self.denied(&rules.policy) {
            self.forbid(leg, peer).await;
        }
    }

    /// Whether the user name that it was made with is still proven by what proved it, and its session not over.
    fn is_proven(&self, Allocation { username, owner, .. }: &Allocation, now: Now) -> bool {
        let credentials = &self.pool.credentials;
        credentials.still_proves(username, owner.mark)
            && owner.session.is_none_or(|session| !credentials.is_over(session, now))
    }

    /// Whom `policy` denies of those that are permitted. What was signaled isn't asked for: nobody knows what was before
    /// that mattered.
    fn denied(&self, policy: &Policy) -> Vec<(Leg, IpAddr)> {
        let permitted = self.ledger.all().flat_map(|(leg, it)| it.permissions.keys().map(move |peer| (leg, peer)));
        let is_denied = |peer| !self.may_be_ours(peer) && matches!(policy.reach(peer), Reach::Denied(_));
        permitted.filter(|(_, peer)| is_denied(any_port(*peer))).collect()
    }

    async fn forbid(&mut self, leg: Leg, peer: IpAddr) {
        let Some(allocation) = self.ledger.get_mut(leg) else { return };
        let id = allocation.id;
        allocation.permissions.remove(&peer);
        let channels = allocation.channels.forbid(peer);
        self.backstop.forbid(leg, any_port(peer), &channels).await;
        self.commands.push_back(Command::Forbid { id, peer });
    }
}
