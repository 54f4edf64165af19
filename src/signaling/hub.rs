//! Who is signed in under which name, and who is in a call with whom.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::Prefix;
use crate::address::Sources;
use crate::clock::Now;
use crate::credentials::SessionId;
use crate::metrics::Metrics;
use crate::rate::PerSource;
use crate::rate::Rate;
use crate::signaling::mailbox::Full;
use crate::signaling::mailbox::Mailbox;
use crate::signaling::message::Message;
use crate::signaling::message::Payload;
use crate::signaling::message::SignalKind;
use crate::signaling::name::Name;

/// How many partners a member is known to have; beyond, the earliest is forgotten and won't be told that it left.
///
/// More than the connections that one source may have by default, so that no single stranger can push out the others.
pub const MAX_PARTNERS: usize = 256;

/// How many names may be banned.
pub const MAX_BANNED: usize = 10_000;

/// The members. There are never more of them than open connections, which have places ([`crate::places`]).
#[derive(Debug)]
pub struct Hub {
    members: HashMap<Name, Member>,
    /// Capped by [`MAX_BANNED`].
    banned: HashSet<Name>,
    sign_ins: PerSource,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Member {
    session: SessionId,
    mailbox: Arc<Mailbox>,
    partners: Vec<Name>,
}

/// Why nobody may sign in by this name, or from here, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody is signed in by it.
    #[error("the name is taken")]
    NameTaken,
    /// The operator doesn't want it.
    #[error("the name is banned")]
    Banned,
    /// The source signs in too often.
    #[error("too many sign-ins")]
    Rate,
}

/// No more names can be banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_BANNED} names are banned already")]
pub struct TooManyBanned;

/// Why a member isn't told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// Nobody is signed in by this name.
    #[error("nobody is signed in by this name")]
    UnknownMember,
    /// The member isn't reading that fast.
    #[error("the member isn't reading that fast")]
    Full,
}

impl From<Full> for Undelivered {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

impl Hub {
    /// Nobody signed in; each source outside `exempt` may try to sign in at the rate `sign_ins`.
    pub fn new(sign_ins: Rate, exempt: Vec<Prefix>, metrics: Arc<Metrics>) -> Self {
        Self {
            members: HashMap::new(),
            banned: HashSet::new(),
            sign_ins: PerSource::new(sign_ins, Sources::new(exempt)),
            metrics,
        }
    }

    /// Lets somebody from `source` try to sign in, or do what counts as much.
    ///
    /// # Errors
    ///
    /// [`Refusal::Rate`], when it tries too often.
    pub fn knock(&mut self, source: IpAddr, now: Now) -> Result<(), Refusal> {
        if self.sign_ins.take(source, now.monotonic) { Ok(()) } else { Err(Refusal::Rate) }
    }

    /// Signs `name` in: what is for it goes to `mailbox` until it is signed out.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nothing has changed then, but the try has counted.
    pub fn sign_in(
        &mut self,
        name: Name,
        session: SessionId,
        mailbox: Arc<Mailbox>,
        source: IpAddr,
        now: Now,
    ) -> Result<(), Refusal> {
        self.knock(source, now)?;
        if self.banned.contains(&name) {
            return Err(Refusal::Banned);
        }
        if self.members.contains_key(&name) {
            return Err(Refusal::NameTaken);
        }
        self.members.insert(name, Member { session, mailbox, partners: Vec::new() });
        self.metrics.members.increment();
        Ok(())
    }

    /// Signs `name` out and tells its partners that it left.
    pub fn sign_out(&mut self, name: &Name) {
        self.leave_all(name);
        if self.members.remove(name).is_some() {
            self.metrics.members.decrement();
        }
    }

    /// Has the connection of `name` end; its session, if somebody is signed in by it. It is signed out when it has ended.
    pub fn kick(&mut self, name: &Name) -> Option<SessionId> {
        let member = self.members.get(name)?;
        member.mailbox.kick();
        Some(member.session)
    }

    /// Refuses `name` from now on; who is signed in by it stays so.
    ///
    /// # Errors
    ///
    /// [`TooManyBanned`]; nothing has changed then.
    pub fn ban(&mut self, name: Name) -> Result<(), TooManyBanned> {
        if self.banned.len() >= MAX_BANNED && !self.banned.contains(&name) {
            return Err(TooManyBanned);
        }
        self.banned.insert(name);
        Ok(())
    }

    /// Refuses `name` no more; whether it was.
    pub fn unban(&mut self, name: &Name) -> bool {
        self.banned.remove(name)
    }

    /// The session of `name`.
    pub fn session_of(&self, name: &Name) -> Option<SessionId> {
        self.members.get(name).map(|member| member.session)
    }

    /// Who is signed in by `session`; looks through all members.
    pub fn member_of(&self, session: SessionId) -> Option<Name> {
        self.members.iter().find(|(_, member)| member.session == session).map(|(name, _)| name.clone())
    }

    /// Passes a step of a negotiation on. From then on the two are partners.
    ///
    /// # Errors
    ///
    /// [`Undelivered`]; nothing has changed then.
    pub fn signal(
        &mut self,
        from: &Name,
        to: &Name,
        kind: SignalKind,
        payload: Payload,
        now: Now,
    ) -> Result<(), Undelivered> {
        let recipient = self.members.get(to).ok_or(Undelivered::UnknownMember)?;
        recipient.mailbox.put(Message::Signal { from: from.clone(), kind, payload }, now.monotonic)?;
        if from != to {
            self.add_partner(from, to);
            self.add_partner(to, from);
        }
        Ok(())
    }

    /// Tells `to` that `from` left; the two are partners no more.
    ///
    /// # Errors
    ///
    /// [`Undelivered`]; nothing has changed then.
    pub fn leave(&mut self, from: &Name, to: &Name, now: Now) -> Result<(), Undelivered> {
        let recipient = self.members.get(to).ok_or(Undelivered::UnknownMember)?;
        recipient.mailbox.put(Message::Leave { from: from.clone() }, now.monotonic)?;
        self.forget_partner(from, to);
        self.forget_partner(to, from);
        Ok(())
    }

    /// Tells every partner that `from` left.
    pub fn leave_all(&mut self, from: &Name) {
        let Some(member) = self.members.get_mut(from) else { return };
        for partner in std::mem::take(&mut member.partners) {
            if let Some(recipient) = self.members.get(&partner) {
                recipient.mailbox.notify(Message::Leave { from: from.clone() });
            }
            self.forget_partner(&partner, from);
        }
    }

    fn add_partner(&mut self, of: &Name, partner: &Name) {
        let Some(member) = self.members.get_mut(of) else { return };
        if member.partners.contains(partner) {
            return;
        }
        let forgotten = if member.partners.len() >= MAX_PARTNERS { Some(member.partners.remove(0)) } else { None };
        member.partners.push(partner.clone());
        if let Some(forgotten) = forgotten {
            self.forget_partner(&forgotten, of);
        }
    }

    fn forget_partner(&mut self, of: &Name, partner: &Name) {
        if let Some(member) = self.members.get_mut(of) {
            member.partners.retain(|known| known != partner);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::signaling::mailbox::Capacity;
    use crate::signaling::mailbox::Cut;

    const OFTEN: Rate = Rate { per_second: 5.0, burst: 1000.0 };

    struct Scene {
        hub: Hub,
        metrics: Arc<Metrics>,
        now: Now,
    }

    impl Scene {
        fn new(sign_ins: Rate) -> Self {
            let metrics = Arc::new(Metrics::default());
            let hub = Hub::new(sign_ins, Vec::new(), Arc::clone(&metrics));
            Self { hub, metrics, now: Clock::system().now() }
        }

        fn sign_in(&mut self, name: &str) -> Result<Arc<Mailbox>, Refusal> {
            let mailbox = Arc::new(Mailbox::new(Capacity { messages: 256, bytes: 256 * 1024 }));
            let session = SessionId::new();
            let source = [192, 0, 2, 1].into();
            self.hub.sign_in(named(name), session, Arc::clone(&mailbox), source, self.now).map(|()| mailbox)
        }

        fn offer(&mut self, from: &str, to: &str) -> Result<(), Undelivered> {
            let payload = Payload::new(serde_json::from_str("{}").unwrap());
            self.hub.signal(&named(from), &named(to), SignalKind::Offer, payload, self.now)
        }
    }

    fn named(name: &str) -> Name {
        Name::new(name).unwrap()
    }

    fn leaver(mailbox: &Mailbox) -> Option<String> {
        match mailbox.take()? {
            Message::Leave { from } => Some(from.as_str().to_owned()),
            Message::Signal { .. } => None,
        }
    }

    #[test]
    fn a_name_has_one_member_until_it_signs_out() {
        let mut scene = Scene::new(OFTEN);

        scene.sign_in("alice").unwrap();
        assert_eq!(scene.sign_in("alice").err(), Some(Refusal::NameTaken));
        assert_eq!(scene.metrics.members.get(), 1);
        scene.hub.sign_out(&named("alice"));

        assert!(scene.sign_in("alice").is_ok());
        assert_eq!(scene.metrics.members.get(), 1);
    }

    #[test]
    fn sign_ins_of_a_source_are_limited() {
        let mut scene = Scene::new(Rate { per_second: 5.0, burst: 2.0 });
        scene.sign_in("a").unwrap();
        assert_eq!(scene.sign_in("a").err(), Some(Refusal::NameTaken), "failures count too");

        assert_eq!(scene.sign_in("b").err(), Some(Refusal::Rate));

        scene.now = scene.now.after(std::time::Duration::from_millis(201));
        assert!(scene.sign_in("b").is_ok());
    }

    #[test]
    fn a_kicked_member_is_cut_and_a_banned_name_is_refused_until_it_is_not() {
        let mut scene = Scene::new(OFTEN);
        let alice = scene.sign_in("alice").unwrap();
        let session = scene.hub.session_of(&named("alice")).unwrap();

        assert_eq!(scene.hub.kick(&named("nobody")), None);
        assert_eq!(scene.hub.member_of(session), Some(named("alice")));
        assert_eq!(scene.hub.kick(&named("alice")), Some(session));
        assert_eq!(alice.watch(std::task::Waker::noop()), Err(Cut::Kicked));
        scene.hub.sign_out(&named("alice"));
        scene.hub.ban(named("alice")).unwrap();
        assert_eq!(scene.sign_in("alice").err(), Some(Refusal::Banned));

        assert!(scene.hub.unban(&named("alice")) && !scene.hub.unban(&named("alice")));
        assert!(scene.sign_in("alice").is_ok());
    }

    #[test]
    fn so_many_names_may_be_banned_and_no_more() {
        let mut scene = Scene::new(OFTEN);
        (0..MAX_BANNED).for_each(|n| scene.hub.ban(named(&n.to_string())).unwrap());

        assert_eq!(scene.hub.ban(named("one more")), Err(TooManyBanned));
        assert_eq!(scene.hub.ban(named("0")), Ok(()), "it is banned already");
        scene.hub.unban(&named("0"));

        assert_eq!(scene.hub.ban(named("one more")), Ok(()));
        assert_eq!(scene.hub.banned.len(), MAX_BANNED);
    }

    #[test]
    fn partners_are_told_once_when_a_member_goes_and_others_never() {
        let mut scene = Scene::new(OFTEN);
        let alice = scene.sign_in("alice").unwrap();
        let carol = scene.sign_in("carol").unwrap();
        scene.sign_in("bob").unwrap();
        for _ in 0..3 {
            scene.offer("bob", "alice").unwrap();
        }
        while alice.take().is_some() {}

        scene.hub.sign_out(&named("bob"));

        assert_eq!(leaver(&alice).as_deref(), Some("bob"));
        assert!(alice.take().is_none() && carol.take().is_none());
        assert_eq!(scene.offer("alice", "bob"), Err(Undelivered::UnknownMember));
    }

    #[test]
    fn after_leave_two_are_partners_no_more() {
        let mut scene = Scene::new(OFTEN);
        let alice = scene.sign_in("alice").unwrap();
        let bob = scene.sign_in("bob").unwrap();
        scene.offer("bob", "alice").unwrap();
        alice.take();

        scene.hub.leave(&named("alice"), &named("bob"), scene.now).unwrap();
        scene.hub.sign_out(&named("bob"));
        scene.hub.leave_all(&named("alice"));

        assert_eq!(leaver(&bob).as_deref(), Some("alice"));
        assert!(bob.take().is_none() && alice.take().is_none());
        let left = scene.hub.leave(&named("alice"), &named("bob"), scene.now);
        assert_eq!(left, Err(Undelivered::UnknownMember));
    }

    #[test]
    fn a_full_mailbox_refuses_what_members_send_but_not_that_a_partner_is_gone() {
        let mut scene = Scene::new(OFTEN);
        let alice = scene.sign_in("alice").unwrap();
        scene.sign_in("bob").unwrap();
        scene.sign_in("carol").unwrap();
        for _ in 0..256 {
            scene.offer("bob", "alice").unwrap();
        }

        assert_eq!(scene.offer("carol", "alice"), Err(Undelivered::Full));
        assert_eq!(scene.hub.leave(&named("bob"), &named("alice"), scene.now), Err(Undelivered::Full));
        scene.hub.sign_out(&named("carol"));
        scene.hub.sign_out(&named("bob"));

        let leavers: Vec<_> = std::iter::from_fn(|| Some(leaver(&alice))).take(257).flatten().collect();
        assert_eq!(leavers, ["bob"]);
    }

    #[test]
    fn a_member_may_call_itself_and_is_not_its_own_partner() {
        let mut scene = Scene::new(OFTEN);
        let alice = scene.sign_in("alice").unwrap();

        scene.offer("alice", "alice").unwrap();
        alice.take();
        scene.hub.leave_all(&named("alice"));

        assert!(alice.take().is_none());
    }

    proptest! {
        #[test]
        fn partners_are_members_and_each_others_whatever_happens(steps in prop::collection::vec((0..5_u8, 0..8_u8, 0..8_u8), 0..200)) {
            let mut scene = Scene::new(OFTEN);

            for (step, from, to) in steps {
                let (from, to) = (from.to_string(), to.to_string());
                if step != 0 && !scene.hub.members.contains_key(from.as_str()) {
                    continue;
                }
                match step {
                    0 => drop(scene.sign_in(&from)),
                    1 => scene.hub.sign_out(&named(&from)),
                    2 => drop(scene.hub.leave(&named(&from), &named(&to), scene.now)),
                    3 => scene.hub.leave_all(&named(&from)),
                    _ => drop(scene.offer(&from, &to)),
                }
                let members = &scene.hub.members;
                prop_assert_eq!(scene.metrics.members.get(), members.len() as u64);
                for (name, member) in members {
                    for partner in &member.partners {
                        prop_assert!(partner != name && members[partner].partners.contains(name));
                    }
                }
            }
        }
    }

    #[test]
    fn partners_are_capped_on_both_sides() {
        let mut scene = Scene::new(OFTEN);
        let all: Vec<_> = (0..=MAX_PARTNERS).map(|n| scene.sign_in(&n.to_string()).unwrap()).collect();
        scene.sign_in("bot").unwrap();
        for n in 0..=MAX_PARTNERS {
            scene.offer("bot", &n.to_string()).unwrap();
        }
        all.iter().for_each(|mailbox| drop(mailbox.take()));

        assert_eq!(scene.hub.members["bot"].partners.len(), MAX_PARTNERS);
        scene.hub.sign_out(&named("bot"));

        assert_eq!(leaver(&all[0]), None, "the earliest is forgotten");
        assert!(all[1..].iter().all(|mailbox| leaver(mailbox).as_deref() == Some("bot")));
        assert!(scene.hub.members.values().all(|member| member.partners.is_empty()));
    }
}
