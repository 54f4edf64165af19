//! What all processors of one process grant from: relayed ports, quotas, and ports that wait for their RESERVATION-TOKEN.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::address::FiveTuple;
use crate::address::Sources;
use crate::credentials::Credentials;
use crate::credentials::SessionId;
use crate::credentials::random;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::rate::Buckets;
use crate::rate::PerSource;
use crate::relay::command::AllocationId;
use crate::turn::Limits;
use crate::turn::Settings;
use crate::turn::auth::Asker;
use crate::turn::auth::Authenticator;
use crate::turn::holdings::Holdings;
use crate::turn::ledger::Allocation;
use crate::turn::ledger::Owner;
use crate::turn::ledger::Quotas;
use crate::turn::ports::Bind;
use crate::turn::ports::Bound;
use crate::turn::ports::Ports;

/// How long a reserved port is held (RFC 8656, section 7.2).
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// What the processors of one process share, so that limits hold whichever shard a client's 5-tuple leads it to, and a
/// nonce or RESERVATION-TOKEN is good on each. `S` is the relay socket.
///
/// Every method is short: no processor waits for another's work, let alone for its system calls.
pub struct Pool<S> {
    pub(super) settings: Settings,
    pub(super) authenticator: Authenticator,
    pub(super) credentials: Arc<Credentials>,
    pub(super) rules: Live<Rules>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ports: Ports<S>,
    /// Has every processor look at all that it has again; over once the token of each is dropped.
    rechecks: broadcast::Sender<TaskTrackerToken>,
    last_id: AtomicU64,
    counts: Mutex<Counts>,
    reservations: Mutex<Reservations<S>>,
}

/// What is granted, and to whom; may change while clients hold what they were granted.
pub(super) struct Rules {
    pub(super) limits: Limits,
    pub(super) policy: Arc<Policy>,
    sources: Sources,
}

impl Rules {
    fn new(limits: Limits, policy: Arc<Policy>) -> Self {
        Self { sources: Sources::new(limits.exempt.clone()), limits, policy }
    }
}

/// How many rechecks may be asked for at once: who asks waits for the last to be over.
const RECHECKS: usize = 4;

/// What is counted over all shards.
struct Counts {
    quotas: Quotas,
    challenges: PerSource,
    new_peers: Buckets,
    new_peers_of_source: Buckets,
    /// The relay addresses of live allocations, as bound and as advertised, and how often.
    relay_ips: HashMap<IpAddr, usize>,
}

/// Sockets that wait for their RESERVATION-TOKEN.
struct Reservations<S> {
    /// Capped with the allocations, for each counts as one.
    by_token: HashMap<Token, Reservation<S>>,
    ends: BTreeSet<(Instant, Token)>,
    holdings: Holdings<Token>,
}

/// RESERVATION-TOKEN.
pub(super) type Token = [u8; 8];

/// A bound socket that waits for its RESERVATION-TOKEN.
pub(super) struct Reservation<S> {
    pub(super) bound: Bound<S>,
    pub(super) username: String,
    pub(super) owner: Owner,
    end: Instant,
}

impl<S> Pool<S> {
    /// All ports free, and nobody counted for anything. `bind` makes relay sockets.
    pub fn new(
        settings: Settings,
        credentials: Arc<Credentials>,
        policy: Arc<Policy>,
        metrics: Arc<Metrics>,
        bind: Bind<S>,
    ) -> Self {
        let limits = settings.limits.clone();
        let counts = Counts {
            quotas: Quotas::default(),
            challenges: PerSource::new(limits.challenges, Sources::networks(limits.exempt.clone())),
            new_peers: Buckets::new(limits.new_peers),
            new_peers_of_source: Buckets::new(limits.new_peers_of_source()),
            relay_ips: HashMap::new(),
        };
        let reservations =
            Reservations { by_token: HashMap::new(), ends: BTreeSet::new(), holdings: Holdings::default() };
        Self {
            authenticator: Authenticator::new(settings.realm.clone(), Arc::clone(&credentials), Arc::clone(&metrics)),
            credentials,
            rules: Live::new(Rules::new(limits, policy)),
            metrics,
            ports: Ports::new(settings.relay_ports.clone(), bind),
            rechecks: broadcast::channel(RECHECKS).0,
            last_id: AtomicU64::new(0),
            counts: Mutex::new(counts),
            reservations: Mutex::new(reservations),
            settings,
        }
    }

    /// Has other limits and another policy hold for whatever is asked for from now on, and returns when every processor has
    /// taken away what they, or the credentials, don't let its clients have any more.
    ///
    /// Fewer or less of anything ends nobody: what is beyond it ends by itself.
    pub async fn configure(&self, limits: Limits, policy: Arc<Policy>) {
        {
            let mut counts = self.counts();
            counts.challenges.configure(limits.challenges, Sources::networks(limits.exempt.clone()));
            counts.new_peers.configure(limits.new_peers);
            counts.new_peers_of_source.configure(limits.new_peers_of_source());
        }
        self.rules.set(Rules::new(limits, policy));
        let rechecked = TaskTracker::new();
        rechecked.close();
        // Without processors there is nobody to tell.
        let _ = self.rechecks.send(rechecked.token());
        rechecked.wait().await;
    }

    /// Tells a processor when to look at all that it has again.
    pub(super) fn rechecks(&self) -> broadcast::Receiver<TaskTrackerToken> {
        self.rechecks.subscribe()
    }

    /// The next allocation's name.
    pub(super) fn next_id(&self) -> AllocationId {
        AllocationId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Whom what `asker` opens from there counts for.
    pub(super) fn owner(&self, client: FiveTuple, asker: &Asker) -> Owner {
        let (identity, session) = (asker.identity.clone(), asker.session);
        Owner { identity, session, source: self.rules.get().sources.of(client.client.ip()), mark: asker.mark }
    }

    /// Whether a stranger may have one more answer; takes it.
    pub(super) fn take_challenge(&self, ip: IpAddr, now: Instant) -> bool {
        self.counts().challenges.take(ip, now)
    }

    /// Whether `owner` may have so many more allocations and reservations; counts them.
    pub(super) fn take_quota(&self, owner: &Owner, count: usize) -> bool {
        let Limits { allocations_per_member, allocations_per_source, .. } = self.rules.get().limits;
        self.counts().quotas.take(owner, count, allocations_per_member, allocations_per_source)
    }

    /// Counts so many less for `owner`.
    pub(super) fn give_quota_back(&self, owner: &Owner, count: usize) {
        self.counts().quotas.give_back(owner, count);
    }

    /// Whether `owner` may begin with so many new peers; counts them.
    pub(super) fn take_new_peers(&self, Owner { identity, source, .. }: &Owner, new: u32, now: Instant) -> bool {
        let mut counts = self.counts();
        // Identities cost nothing while accounts are open, addresses do.
        let source_may = source.is_none_or(|source| counts.new_peers_of_source.take(&source, new, now));
        source_may && counts.new_peers.take(identity, new, now)
    }

    /// Notes that an allocation lives.
    pub(super) fn enter(&self, allocation: &Allocation) {
        let mut counts = self.counts();
        for ip in relay_ips(allocation) {
            *counts.relay_ips.entry(ip).or_default() += 1;
        }
    }

    /// Gives back what an allocation had, whose socket is on its way to be closed.
    pub(super) fn leave(&self, allocation: &Allocation) {
        self.ports.release(allocation.advertised);
        let mut counts = self.counts();
        counts.quotas.give_back(&allocation.owner, 1);
        for ip in relay_ips(allocation) {
            Quotas::lower(&mut counts.relay_ips, &ip, 1);
        }
    }

    /// Whether `ip` is the relay address of a live allocation on any shard, as bound or as advertised.
    pub(super) fn is_relay_ip(&self, ip: IpAddr) -> bool {
        self.counts().relay_ips.contains_key(&ip)
    }

    /// Holds a bound socket for who brings the token.
    pub(super) fn reserve(&self, bound: Bound<S>, username: String, owner: Owner, now: Instant) -> Token {
        let (token, end) = (random::<8>(), now + RESERVATION_LIFETIME);
        let mut reservations = self.reservations();
        reservations.holdings.enter(owner.session, token);
        reservations.by_token.insert(token, Reservation { bound, username, owner, end });
        reservations.ends.insert((end, token));
        self.metrics.reservations.increment();
        token
    }

    /// Hands out what was reserved under `token` for `username`: its port and its quota are the taker's.
    pub(super) fn redeem(&self, token: Token, username: &str) -> Option<Reservation<S>> {
        let mut reservations = self.reservations();
        reservations.by_token.get(&token).filter(|reservation| reservation.username == username)?;
        self.take(&mut reservations, token)
    }

    /// When the next reservation ends.
    pub(super) fn first_reservation_end(&self) -> Option<Instant> {
        self.reservations().ends.first().map(|(end, _)| *end)
    }

    /// Ends the reservations whose time has come.
    pub(super) fn end_expired_reservations(&self, now: Instant) {
        let mut expired = Vec::new();
        let mut reservations = self.reservations();
        while let Some((_, token)) = reservations.ends.first().copied().filter(|(end, _)| *end <= now) {
            reservations.ends.pop_first();
            expired.extend(self.take(&mut reservations, token));
        }
        drop(reservations);
        expired.into_iter().for_each(|reservation| self.end(reservation));
    }

    /// Ends what is reserved for a session.
    pub(super) fn end_reservations_of(&self, session: SessionId) {
        let reservations = self.reservations();
        let tokens = reservations.holdings.held_by(session);
        self.end_all(reservations, tokens);
    }

    /// Ends what is reserved by a user name whose proof is good no more.
    pub(super) fn end_unproven_reservations(&self) {
        let reservations = self.reservations();
        let is_unproven = |it: &Reservation<S>| !self.credentials.still_proves(&it.username, it.owner.mark);
        let of_token = reservations.by_token.iter();
        let tokens = of_token.filter(|(_, reservation)| is_unproven(reservation)).map(|(token, _)| *token).collect();
        self.end_all(reservations, tokens);
    }

    fn end_all(&self, mut reservations: MutexGuard<'_, Reservations<S>>, tokens: Vec<Token>) {
        let ended: Vec<_> = tokens.into_iter().filter_map(|token| self.take(&mut reservations, token)).collect();
        drop(reservations);
        ended.into_iter().for_each(|reservation| self.end(reservation));
    }

    /// The sessions that something is reserved for.
    pub(super) fn reserving_sessions(&self) -> Vec<SessionId> {
        self.reservations().holdings.sessions()
    }

    /// Whether nothing is counted and nothing reserved for anyone.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let counts = self.counts();
        counts.quotas.is_empty() && counts.relay_ips.is_empty() && self.reservations().holdings.is_empty()
    }

    fn take(&self, reservations: &mut Reservations<S>, token: Token) -> Option<Reservation<S>> {
        let reservation = reservations.by_token.remove(&token)?;
        reservations.ends.remove(&(reservation.end, token));
        reservations.holdings.strike(reservation.owner.session, token);
        self.metrics.reservations.decrement();
        Some(reservation)
    }

    /// Gives back what a reservation had, once its socket is closed.
    fn end(&self, Reservation { bound, owner, .. }: Reservation<S>) {
        let Bound { socket, advertised, .. } = bound;
        drop(socket);
        self.ports.release(advertised);
        self.give_quota_back(&owner, 1);
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reservations(&self) -> MutexGuard<'_, Reservations<S>> {
        self.reservations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn relay_ips(allocation: &Allocation) -> impl Iterator<Item = IpAddr> + use<> {
    let (local, advertised) = (allocation.relayed.ip(), allocation.advertised.ip());
    std::iter::once(local).chain((advertised != local).then_some(advertised))
}
