//! What goes into the journal of who asked for what: requests in TURN's words, told in the journal's.

use crate::credentials::Identity;
use crate::credentials::journal::Carried;
use crate::credentials::journal::Meter;
use crate::credentials::journal::Refusal;
use crate::relay::command::Traffic;
use crate::turn::Rejection;

impl Meter for Traffic {
    fn read(&self) -> Carried {
        let count = self.count();
        Carried {
            packets_sent: count.to_peers.packets,
            sent: count.to_peers.bytes,
            packets_received: count.to_client.packets,
            received: count.to_client.bytes,
            lost: count.lost,
            lost_for: count.lost_for,
        }
    }
}

/// An asker without a session, by the name that stays the same whatever the expiry.
pub(super) fn user(identity: &Identity) -> String {
    match identity {
        Identity::User(name) | Identity::Holder(name) | Identity::Member(name) => name.clone(),
        Identity::Session(session) => session.to_string(),
    }
}

/// What a rejection is in the journal. None for what clients do as a matter of course, or by a fault of their own that no
/// operator can cure.
pub(super) fn refusal(rejection: &Rejection) -> Option<Refusal> {
    match rejection.code {
        401 => Some(Refusal::Proof(EXPIRED)),
        403 if *rejection != Rejection::NOT_SIGNALED => {
            Some(Refusal::Peer { why: rejection.reason, peer: rejection.peer })
        }
        403 | 440 | 443 | 486 | 508 => Some(Refusal::Other(rejection.reason)),
        _ => None,
    }
}

/// Why a proof is good for nothing, or for nothing more.
pub(super) const EXPIRED: &str = "the credential has expired, see turn.credential_life";
/// Why it is none.
pub(super) const WRONG: &str = "wrong secret or password, see turn.secrets";
