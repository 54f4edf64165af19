//! Which signaling sessions live, what each may reach, and which were revoked: kept for TURN to ask.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::random;

/// A signaling session's name: 96 random bits, written in Base64 for URLs. No secret: it stands in TURN user names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 12]);

/// A text that names no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session is named by 16 characters of Base64 for URLs")]
pub struct NotASession;

impl SessionId {
    /// Characters that it is written in.
    pub(super) const CHARS: usize = 16;

    /// One that nobody else has.
    pub fn new() -> Self {
        Self(random())
    }
}

impl Default for SessionId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for SessionId {
    type Err = NotASession;

    fn from_str(text: &str) -> Result<Self, NotASession> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NotASession)?;
        bytes.try_into().map(Self).map_err(|_| NotASession)
    }
}

/// Addresses that one session is known to have been told of; beyond, the earliest of who has told most is forgotten.
pub const MAX_SIGNALED: usize = 256;

/// Revoked sessions that are remembered by name; beyond, see [`Grants::refuses`].
pub(super) const MAX_REVOKED: usize = 1 << 16;

/// What is known of sessions, without clocks and locks.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// Never more than there are signaling connections, which have places ([`crate::places`]), and sessions that wait for
    /// theirs to come back, which are capped, too.
    live: HashMap<SessionId, Signaled>,
    revoked: HashSet<SessionId>,
    /// The revoked ones in order, each with the Unix time by which its last credential has expired.
    expiries: VecDeque<(Duration, SessionId)>,
    /// The latest of those times among revoked sessions that had to be forgotten early.
    forgotten: Duration,
}

/// The peers' IP addresses that one session was told of, and by which other, latest last. Capped by [`MAX_SIGNALED`].
#[derive(Debug, Default)]
struct Signaled(VecDeque<(IpAddr, SessionId)>);

impl Signaled {
    /// Adds what `by` tells, each address once.
    fn add(&mut self, by: SessionId, ips: &[IpAddr]) {
        let again: HashSet<_> = ips.iter().collect();
        self.0.retain(|(ip, teller)| *teller != by || !again.contains(ip));
        self.0.extend(ips.iter().map(|ip| (*ip, by)));
        self.make_room();
    }

    /// Forgets the earliest of whoever has told most, so that nobody's flood pushes out what others tell.
    fn make_room(&mut self) {
        let over = self.0.len().saturating_sub(MAX_SIGNALED);
        if over == 0 {
            return;
        }
        let mut kept: HashMap<SessionId, usize> = HashMap::new();
        for (_, by) in &self.0 {
            *kept.entry(*by).or_default() += 1;
        }
        for _ in 0..over {
            if let Some(most) = kept.values_mut().max() {
                *most -= 1;
            }
        }
        // Latest first, for those are kept.
        for (ip, by) in std::mem::take(&mut self.0).into_iter().rev() {
            if let Some(left) = kept.get_mut(&by).filter(|left| **left > 0) {
                *left -= 1;
                self.0.push_front((ip, by));
            }
        }
    }
}

impl Grants {
    /// Lets `session` live.
    pub(super) fn add(&mut self, session: SessionId) {
        self.live.insert(session, Signaled::default());
    }

    /// Ends `session`; false when it didn't live.
    pub(super) fn end(&mut self, session: SessionId) -> bool {
        self.live.remove(&session).is_some()
    }

    /// Ends `session`, whose credentials have all expired at `expiry`, and refuses them until then.
    pub(super) fn revoke(&mut self, session: SessionId, expiry: Duration, now: Duration) {
        self.live.remove(&session);
        while let Some((_, past)) = self.expiries.pop_front_if(|(expiry, _)| *expiry <= now) {
            self.revoked.remove(&past);
        }
        if !self.revoked.insert(session) {
            return;
        }
        self.expiries.push_back((expiry, session));
        if self.expiries.len() > MAX_REVOKED
            && let Some((expiry, early)) = self.expiries.pop_front()
        {
            self.revoked.remove(&early);
            self.forgotten = self.forgotten.max(expiry);
        }
    }

    /// Adds what `session` is told of by another, if it lives.
    pub(super) fn signaled(&mut self, session: SessionId, by: SessionId, ips: &[IpAddr]) {
        if let Some(known) = self.live.get_mut(&session) {
            known.add(by, ips);
        }
    }

    /// Whether `session` lives and was told of `ip`.
    pub(super) fn knows(&self, session: SessionId, ip: IpAddr) -> bool {
        self.live.get(&session).is_some_and(|Signaled(known)| known.iter().any(|(told, _)| *told == ip))
    }

    /// Whether `session` lives.
    pub(super) fn lives(&self, session: SessionId) -> bool {
        self.live.contains_key(&session)
    }

    /// Whether a credential of `session` that expires at `expiry` was revoked.
    ///
    /// Once more were revoked than can be remembered, that of every session which doesn't live counts as revoked, as
    /// long as one of those forgotten might still be good: rather too many than one too few.
    pub(super) fn refuses(&self, session: SessionId, expiry: Duration) -> bool {
        !self.lives(session) && (self.revoked.contains(&session) || expiry <= self.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_session_is_named_by_sixteen_characters_and_nothing_else() {
        let session = SessionId::new();
        let name = session.to_string();

        assert_eq!((name.len(), name.parse()), (SessionId::CHARS, Ok(session)));
        for bad in ["", "a", &name[1..], &format!("{name}a"), "////////////////", "                "] {
            assert_eq!(bad.parse::<SessionId>(), Err(NotASession), "{bad}");
        }
    }

    #[test]
    fn a_session_is_told_of_so_many_addresses_and_the_earliest_is_forgotten() {
        let mut grants = Grants::default();
        let (session, gone) = (SessionId::new(), SessionId::new());
        let by = SessionId::new();
        let ip = |n: u32| IpAddr::V4((0x0808_0000 + n).into());
        let all: Vec<_> = (0..).map(ip).take(MAX_SIGNALED).collect();
        grants.add(session);

        grants.signaled(session, by, &all);
        grants.signaled(session, by, &[ip(0), ip(1000)]);
        grants.signaled(gone, by, &all);

        assert!(grants.knows(session, ip(0)), "told of again");
        assert!(!grants.knows(session, ip(1)) && grants.knows(session, ip(2)) && grants.knows(session, ip(1000)));
        assert_eq!(grants.live[&session].0.len(), MAX_SIGNALED);
        assert!(!grants.knows(gone, ip(0)) && grants.live.len() == 1, "a session that doesn't live is told nothing");
        assert!(grants.end(session) && !grants.end(session));
        assert!(!grants.knows(session, ip(0)));
    }

    #[test]
    fn who_tells_a_session_of_too_many_addresses_pushes_out_its_own() {
        let mut grants = Grants::default();
        let (session, partner, flooder) = (SessionId::new(), SessionId::new(), SessionId::new());
        let ip = |n: u32| IpAddr::V4((0x0808_0000 + n).into());
        grants.add(session);

        grants.signaled(session, partner, &[ip(0), ip(1)]);
        for n in 0..10 {
            let flood: Vec<_> = (0..256).map(|m| ip(1000 * (n + 1) + m)).collect();
            grants.signaled(session, flooder, &flood);
        }

        assert!(grants.knows(session, ip(0)) && grants.knows(session, ip(1)));
        assert_eq!(grants.live[&session].0.len(), MAX_SIGNALED);
    }

    #[test]
    fn revoked_sessions_are_remembered_until_their_credentials_have_expired() {
        let mut grants = Grants::default();
        let (first, second) = (SessionId::new(), SessionId::new());
        grants.add(first);

        grants.revoke(first, HOUR, Duration::ZERO);
        grants.revoke(first, HOUR, Duration::ZERO);
        assert!(!grants.lives(first) && grants.refuses(first, HOUR) && !grants.refuses(second, HOUR));
        grants.revoke(second, HOUR * 2, HOUR);

        assert_eq!((grants.revoked.len(), grants.expiries.len()), (1, 1));
        assert!(grants.refuses(second, HOUR * 2));
    }

    #[test]
    fn more_revoked_sessions_than_can_be_remembered_are_refused_all_the_same() {
        let mut grants = Grants::default();
        let first = SessionId::new();
        let (live, ended) = (SessionId::new(), SessionId::new());
        grants.add(live);
        grants.revoke(first, HOUR, Duration::ZERO);

        for _ in 0..MAX_REVOKED {
            grants.revoke(SessionId::new(), HOUR * 2, Duration::ZERO);
        }

        assert_eq!((grants.revoked.len(), grants.expiries.len()), (MAX_REVOKED, MAX_REVOKED));
        assert!(grants.refuses(first, HOUR));
        assert!(!grants.refuses(live, HOUR), "who is signed in pays nothing for it");
        assert!(grants.refuses(ended, HOUR) && !grants.refuses(ended, HOUR + Duration::from_secs(1)));
    }
}
