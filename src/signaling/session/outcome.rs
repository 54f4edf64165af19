//! How tries to sign in are counted.

use super::NoIce;
use super::NotSignedIn;
use crate::metrics::SignIn;
use crate::signaling::accounts::Denied;
use crate::signaling::hub::Refusal;

impl From<NotSignedIn> for SignIn {
    fn from(why: NotSignedIn) -> Self {
        match why {
            NotSignedIn::Denied(denied) => denied.into(),
            NotSignedIn::Refused(Refusal::NameTaken) => Self::NameTaken,
            NotSignedIn::Refused(Refusal::Banned) => Self::Banned,
            NotSignedIn::Refused(Refusal::NoSession) => Self::NoSession,
            NotSignedIn::NotJoined(_) => Self::NotJoined,
            NotSignedIn::Nameless => Self::Nameless,
        }
    }
}

impl From<NoIce> for SignIn {
    fn from(why: NoIce) -> Self {
        match why {
            NoIce::Denied(denied) => denied.into(),
            NoIce::SignaledPeersOnly => Self::SignaledPeersOnly,
        }
    }
}

impl From<Denied> for SignIn {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Proof => Self::WrongProof,
            Denied::Failures => Self::TooManyFailures,
            Denied::Rate => Self::RateLimited,
            Denied::Later => Self::Unavailable,
        }
    }
}
