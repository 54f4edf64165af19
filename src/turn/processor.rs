//! The request processor: checks a STUN request in the order of the RFCs, does what it asks, and answers it.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use stun::message::Setter;
use tokio::time::Instant;
use turn::proto::lifetime::Lifetime;
use turn::proto::relayaddr::RelayedAddress;
use turn::proto::rsrvtoken::ReservationToken;

use crate::address::FiveTuple;
use crate::address::PeerAddr;
use crate::address::RelayedAddr;
use crate::address::source_of;
use crate::clock::Now;
use crate::credentials::Credentials;
use crate::credentials::random;
use crate::metrics::DropReason;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::policy::Reach;
use crate::rate::PerSource;
use crate::relay::command::AllocationId;
use crate::relay::command::Command;
use crate::relay::command::Request;
use crate::turn::Rejection;
use crate::turn::Settings;
use crate::turn::answer::Answer;
use crate::turn::auth::Asker;
use crate::turn::auth::Authenticator;
use crate::turn::backstop::Backstop;
use crate::turn::ledger::Allocation;
use crate::turn::ledger::Channels;
use crate::turn::ledger::Deadlines;
use crate::turn::ledger::Ledger;
use crate::turn::ledger::Owner;
use crate::turn::ledger::Quotas;
use crate::turn::ports::Bind;
use crate::turn::ports::Bound;
use crate::turn::ports::NoPort;
use crate::turn::ports::Ports;
use crate::turn::request::Asked;
use crate::turn::request::Family;
use crate::turn::request::Method;
use crate::wire::Stun;

/// An allocation's life unless the client asks for longer, and at least (RFC 8656, section 7.2).
const SHORTEST: u32 = 600;
/// An allocation's life at most.
const LONGEST: u32 = 3600;
/// A permission's life (RFC 8656, section 9).
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// A channel's life (RFC 8656, section 12).
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// How long a reserved port is held (RFC 8656, section 7.2).
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// The control plane of one shard, without sockets, threads or clocks of its own: `S` is the relay socket it hands on.
///
/// Drive it so: [`Processor::handle_request`] for each request, one after the other; [`Processor::handle_timeout`] when
/// [`Processor::poll_timeout`] has come; after each, carry out what [`Processor::poll_command`] gives until it gives
/// nothing. It must run on a tokio runtime, for the crate's backstop timers.
pub struct Processor<S> {
    settings: Settings,
    authenticator: Authenticator,
    policy: Arc<Policy>,
    metrics: Arc<Metrics>,
    ports: Ports<S>,
    challenges: PerSource,
    backstop: Backstop,
    ledger: Ledger,
    quotas: Quotas,
    // Capped with the allocations, for each counts as one.
    reservations: HashMap<[u8; 8], Reservation<S>>,
    reservation_ends: VecDeque<(Instant, [u8; 8])>,
    next_id: u64,
    commands: VecDeque<Command<S>>,
}

/// A bound socket that waits for its RESERVATION-TOKEN.
struct Reservation<S> {
    bound: Bound<S>,
    username: String,
    owner: Owner,
}

/// A success: attributes for the answer.
type Success = Vec<Box<dyn Setter>>;

impl<S> Processor<S> {
    /// A control plane without allocations. `bind` makes relay sockets.
    pub fn new(
        settings: Settings,
        credentials: Arc<Credentials>,
        policy: Arc<Policy>,
        metrics: Arc<Metrics>,
        bind: Bind<S>,
    ) -> Self {
        Self {
            authenticator: Authenticator::new(settings.realm.clone(), credentials),
            policy,
            metrics,
            ports: Ports::new(settings.relay_ports.clone(), bind),
            challenges: PerSource::new(settings.limits.challenges, settings.limits.exempt.clone()),
            backstop: Backstop::default(),
            ledger: Ledger::default(),
            quotas: Quotas::default(),
            reservations: HashMap::new(),
            reservation_ends: VecDeque::new(),
            next_id: 0,
            commands: VecDeque::new(),
            settings,
        }
    }

    /// Answers one request, if it deserves an answer.
    pub async fn handle_request(&mut self, request: &Request, now: Now) {
        let Ok(stun) = Stun::parse(&request.message) else {
            return self.metrics.dropped(DropReason::Malformed);
        };
        let Some(method) = Method::of(stun.method()) else {
            return self.metrics.dropped(DropReason::Unexpected);
        };
        let answer = self.answer(&Asked::new(stun), method, request, now).await;
        self.settle_ended();
        if let Some(message) = answer {
            self.commands.push_back(Command::Answer {
                five_tuple: request.five_tuple,
                listener: request.listener,
                message,
            });
        }
    }

    /// Ends what has expired.
    pub async fn handle_timeout(&mut self, now: Now) {
        while let Some(client) = self.ledger.poll_expired(now.monotonic) {
            self.backstop.delete(client).await;
            self.settle_ended();
            // Had the crate forgotten it, it would never be told as ended.
            if let Some(allocation) = self.ledger.get(&client).filter(|found| found.deadline <= now.monotonic) {
                self.settle(allocation.id);
            }
        }
        while let Some((_, token)) = self.reservation_ends.pop_front_if(|(end, _)| *end <= now.monotonic) {
            if let Some(Reservation { bound, owner, .. }) = self.reservations.remove(&token) {
                self.ports.release(bound.advertised);
                self.quotas.give_back(&owner, 1);
            }
        }
        self.count();
    }

    /// Ends an allocation that the data plane refused.
    pub async fn end(&mut self, id: AllocationId) {
        if let Some(client) = self.ledger.client_of(id) {
            self.backstop.delete(client).await;
            self.settle(id);
        }
    }

    /// Waits until the crate has ended an allocation by itself, and settles it.
    pub async fn ended(&mut self) {
        let id = self.backstop.ended().await;
        self.settle(id);
    }

    /// When [`Processor::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let reservation = self.reservation_ends.front().map(|(end, _)| *end);
        self.ledger.poll_timeout().into_iter().chain(reservation).min()
    }

    /// What the data plane is to do next.
    pub fn poll_command(&mut self) -> Option<Command<S>> {
        self.commands.pop_front()
    }

    /// How many ports of `ip` are free, when nobody is counted for anything.
    #[cfg(test)]
    pub(super) fn idle_ports(&mut self, ip: IpAddr) -> Option<usize> {
        self.quotas.is_empty().then(|| self.ports.available(ip))
    }

    async fn answer(&mut self, asked: &Asked<'_>, method: Method, request: &Request, now: Now) -> Option<Vec<u8>> {
        let client = request.five_tuple;
        if method == Method::Binding {
            return self.answer_binding(asked, client, now);
        }
        let asker = match self.authenticator.check(asked, client, now) {
            Ok(asker) => asker,
            Err(rejection) => return self.answer_stranger(asked, client, &rejection, now),
        };
        let retransmitted = self.ledger.get(&client).filter(|allocation| {
            method == Method::Allocate
                && allocation.allocated_by == asked.stun().transaction_id()
                && allocation.username == asker.username
        });
        if let Some(allocation) = retransmitted {
            return Some(allocation.answer.clone());
        }
        let result = match self.admit(asked, method, client, &asker) {
            Err(rejection) => Err(rejection),
            Ok(()) => match method {
                Method::Allocate => return self.allocate(asked, request, asker, now).await,
                Method::Refresh => self.refresh(asked, client, now).await,
                Method::CreatePermission => self.create_permission(asked, client, now).await,
                Method::ChannelBind => self.channel_bind(asked, client, now).await,
                Method::Binding => Ok(Vec::new()),
            },
        };
        match result {
            Ok(attributes) => self.answer_success(asked, &attributes, &asker),
            Err(rejection) if rejection == Rejection::UNAUTHENTICATED => {
                self.answer_stranger(asked, client, &rejection, now)
            }
            Err(rejection) => self.answer_error(asked, &rejection, &asker),
        }
    }

    /// What all methods but Binding ask for after the proof: 420, then an expired credential, then 437 and 441.
    fn admit(&self, asked: &Asked<'_>, method: Method, client: FiveTuple, asker: &Asker) -> Result<(), Rejection> {
        let unknown = asked.unknown();
        if !unknown.is_empty() {
            return Err(Rejection { unknown, ..Rejection::new(420, "unknown attributes") });
        }
        let allocation = self.ledger.get(&client);
        match (method == Method::Allocate, allocation) {
            // An allocation lives on with the credential it began with; a new one needs a good one.
            (true, None) if asker.expired => Err(Rejection::UNAUTHENTICATED),
            (true, None) => Ok(()),
            (true, Some(_)) => Err(Rejection::ALLOCATED_ALREADY),
            (false, None) => Err(Rejection::NO_ALLOCATION),
            (false, Some(allocation)) if allocation.username != asker.username => Err(Rejection::WRONG_CREDENTIALS),
            (false, Some(_)) => Ok(()),
        }
    }

    fn answer_binding(&mut self, asked: &Asked<'_>, client: FiveTuple, now: Now) -> Option<Vec<u8>> {
        if !self.challenges.take(client.client.ip(), now.monotonic) {
            self.metrics.dropped(DropReason::RateLimited);
            return None;
        }
        let unknown = asked.unknown();
        if unknown.is_empty() {
            self.metrics.bindings.increment();
            return Answer::success(asked.stun()).mapped(client.client).finish(None);
        }
        let rejection = Rejection { unknown, ..Rejection::new(420, "unknown attributes") };
        Answer::error(asked.stun(), &rejection).finish(None)
    }

    /// An unsigned error, for somebody who has proven nothing: rarely, and short.
    fn answer_stranger(
        &mut self,
        asked: &Asked<'_>,
        client: FiveTuple,
        rejection: &Rejection,
        now: Now,
    ) -> Option<Vec<u8>> {
        if !self.challenges.take(client.client.ip(), now.monotonic) {
            self.metrics.dropped(DropReason::RateLimited);
            return None;
        }
        self.metrics.turn_errors.increment();
        let answer = Answer::error(asked.stun(), rejection);
        if rejection.code == 400 {
            return answer.finish(None);
        }
        let (realm, nonce) = self.authenticator.challenge(client, now);
        answer.challenge(realm, &nonce).finish(None)
    }

    fn answer_error(&self, asked: &Asked<'_>, rejection: &Rejection, asker: &Asker) -> Option<Vec<u8>> {
        tracing::debug!(code = rejection.code, reason = rejection.reason, "refused");
        self.metrics.turn_errors.increment();
        Answer::error(asked.stun(), rejection).finish(Some(&asker.key))
    }

    fn answer_success(&self, asked: &Asked<'_>, attributes: &Success, asker: &Asker) -> Option<Vec<u8>> {
        self.metrics.turn_successes.increment();
        let answer = attributes.iter().fold(Answer::success(asked.stun()), |answer, one| answer.with(one.as_ref()));
        answer.finish(Some(&asker.key))
    }

    /// Allocate (RFC 8656, section 7.2).
    async fn allocate(&mut self, asked: &Asked<'_>, request: &Request, asker: Asker, now: Now) -> Option<Vec<u8>> {
        let granted = match self.grant(asked, request.five_tuple, &asker, now) {
            Ok(granted) => granted,
            Err(rejection) => return self.answer_error(asked, &rejection, &asker),
        };
        let Grant { bound, owner, token, lifetime } = granted;
        self.next_id += 1;
        let (id, client, relayed) = (AllocationId(self.next_id), request.five_tuple, bound.addr);
        if let Err(error) = self.backstop.create(client, id, relayed, &asker.username, lifetime).await {
            tracing::warn!(%error, "an allocation could not be entered");
            self.ports.release(bound.advertised);
            self.quotas.give_back(&owner, 1);
            return self.answer_error(asked, &Rejection::CAPACITY, &asker);
        }
        let advertised = bound.advertised;
        let message = self.answer_success(asked, &allocated(advertised, lifetime, token, client), &asker)?;
        let deadline = now.monotonic + lifetime;
        let allocation = Allocation {
            id,
            username: asker.username,
            owner,
            relayed,
            advertised,
            deadline,
            allocated_by: asked.stun().transaction_id(),
            answer: message.clone(),
            permissions: Deadlines::default(),
            channels: Channels::default(),
        };
        self.ledger.insert(client, allocation);
        self.count();
        let (listener, relayed, socket) = (request.listener, RelayedAddr(relayed), bound.socket);
        self.commands.push_back(Command::Open {
            id,
            five_tuple: client,
            listener,
            relayed,
            advertised,
            socket,
            deadline,
        });
        Some(message)
    }

    /// What an Allocate request gets: everything that can be refused is settled here, and nothing taken if it is.
    fn grant(&mut self, asked: &Asked<'_>, client: FiveTuple, asker: &Asker, now: Now) -> Result<Grant<S>, Rejection> {
        if asked.requested_transport()? != turn::proto::PROTO_UDP.0 {
            return Err(Rejection::NOT_UDP);
        }
        let (even, token, family) = (asked.even_port()?, asked.reservation_token()?, asked.requested_family()?);
        let lifetime = granted_lifetime(asked.lifetime()?);
        if token.is_some() && (even.is_some() || family.is_some()) {
            return Err(Rejection::bad_request("RESERVATION-TOKEN goes with neither EVEN-PORT nor an address family"));
        }
        if let Some(token) = token {
            return self.redeem(token, &asker.username).map(|reservation| {
                let Reservation { bound, owner, .. } = reservation;
                Grant { bound, owner, token: None, lifetime }
            });
        }
        if family == Some(Family::V6) {
            return Err(Rejection::FAMILY_NOT_SUPPORTED);
        }
        let ip = self.settings.relay_address(client.server.ip()).ok_or(Rejection::FAMILY_NOT_SUPPORTED)?;
        let advertised = self.settings.advertised(ip);
        let owner = self.owner(client, asker);
        let count = if even == Some(true) { 2 } else { 1 };
        let limits = &self.settings.limits;
        if !self.quotas.take(&owner, count, limits.allocations_per_member, limits.allocations_per_source) {
            return Err(Rejection::QUOTA);
        }
        let bound = match even {
            None => self.ports.any(ip, advertised).map(|bound| (bound, None)),
            Some(false) => self.ports.even(ip, advertised).map(|bound| (bound, None)),
            Some(true) => self.ports.pair(ip, advertised).map(|(bound, next)| (bound, Some(next))),
        };
        let (bound, reserved) = bound.map_err(|error| {
            self.quotas.give_back(&owner, count);
            no_port(&error)
        })?;
        let token = reserved.map(|bound| self.reserve(bound, asker.username.clone(), owner.clone(), now));
        Ok(Grant { bound, owner, token, lifetime })
    }

    fn owner(&self, client: FiveTuple, asker: &Asker) -> Owner {
        let ip = client.client.ip();
        let exempt = self.settings.limits.exempt.iter().any(|prefix| prefix.contains(ip));
        Owner { identity: asker.identity.clone(), source: (!exempt).then(|| source_of(ip)) }
    }

    fn reserve(&mut self, bound: Bound<S>, username: String, owner: Owner, now: Now) -> [u8; 8] {
        let token = random::<8>();
        self.reservations.insert(token, Reservation { bound, username, owner });
        self.reservation_ends.push_back((now.monotonic + RESERVATION_LIFETIME, token));
        token
    }

    fn redeem(&mut self, token: [u8; 8], username: &str) -> Result<Reservation<S>, Rejection> {
        let of_asker = self.reservations.get(&token).is_some_and(|reservation| reservation.username == username);
        if !of_asker {
            return Err(Rejection::CAPACITY);
        }
        self.reservation_ends.retain(|(_, other)| *other != token);
        self.reservations.remove(&token).ok_or(Rejection::CAPACITY)
    }

    /// Refresh (RFC 8656, section 7.3).
    async fn refresh(&mut self, asked: &Asked<'_>, client: FiveTuple, now: Now) -> Result<Success, Rejection> {
        let allocation = self.ledger.get(&client).ok_or(Rejection::NO_ALLOCATION)?;
        let (family, lifetime) = (asked.requested_family()?, asked.lifetime()?);
        if family.is_some_and(|family| family != Family::of(allocation.relayed.ip())) {
            return Err(Rejection::PEER_FAMILY);
        }
        if lifetime == Some(0) {
            self.backstop.delete(client).await;
            return Ok(vec![Box::new(Lifetime(Duration::ZERO))]);
        }
        let (id, lifetime) = (allocation.id, granted_lifetime(lifetime));
        let deadline = now.monotonic + lifetime;
        self.backstop.refresh(client, lifetime).await;
        self.ledger.extend(client, deadline);
        self.commands.push_back(Command::Extend { id, deadline });
        Ok(vec![Box::new(Lifetime(lifetime))])
    }

    /// CreatePermission (RFC 8656, section 10.2): all peers or none.
    async fn create_permission(
        &mut self,
        asked: &Asked<'_>,
        client: FiveTuple,
        now: Now,
    ) -> Result<Success, Rejection> {
        let allocation = self.ledger.get(&client).ok_or(Rejection::NO_ALLOCATION)?;
        let (id, relayed) = (allocation.id, allocation.relayed);
        let peers: Vec<PeerAddr> = asked.peers()?.into_iter().map(any_port).collect();
        for peer in &peers {
            self.may_reach(*peer, relayed.ip())?;
        }
        let (cap, deadline) = (self.settings.limits.permissions, now.monotonic + PERMISSION_LIFETIME);
        let allocation = self.ledger.get_mut(&client).ok_or(Rejection::NO_ALLOCATION)?;
        if !allocation.permissions.have_room_for(peers.iter().map(|peer| peer.ip()), cap, now.monotonic) {
            return Err(Rejection::CAPACITY);
        }
        for peer in peers {
            allocation.permissions.set(peer.ip(), deadline);
            self.backstop.permit(client, peer).await;
            self.commands.push_back(Command::Permit { id, peer: peer.ip(), deadline });
        }
        Ok(Vec::new())
    }

    /// ChannelBind (RFC 8656, section 12.2), which gives or refreshes the peer's permission too.
    async fn channel_bind(&mut self, asked: &Asked<'_>, client: FiveTuple, now: Now) -> Result<Success, Rejection> {
        let allocation = self.ledger.get(&client).ok_or(Rejection::NO_ALLOCATION)?;
        let (id, relayed) = (allocation.id, allocation.relayed);
        let (channel, peers) = (asked.channel_number()?, asked.peers()?);
        let [peer] = peers.as_slice() else {
            return Err(Rejection::bad_request("ChannelBind takes one XOR-PEER-ADDRESS"));
        };
        let (peer, limits) = (*peer, &self.settings.limits);
        if !allocation.channels.may_bind(channel, peer, now.monotonic) {
            return Err(Rejection::bad_request("the channel or the peer is bound otherwise"));
        }
        self.may_reach(peer, relayed.ip())?;
        let allocation = self.ledger.get_mut(&client).ok_or(Rejection::NO_ALLOCATION)?;
        if !allocation.permissions.have_room_for([peer.ip()], limits.permissions, now.monotonic)
            || !allocation.channels.have_room_for(channel, limits.channels, now.monotonic)
        {
            return Err(Rejection::CAPACITY);
        }
        if let Err(error) = self.backstop.bind(client, channel, peer).await {
            tracing::warn!(%error, "a channel could not be entered");
            return Err(Rejection::CAPACITY);
        }
        let deadline = now.monotonic + PERMISSION_LIFETIME;
        allocation.permissions.set(peer.ip(), deadline);
        self.commands.push_back(Command::Permit { id, peer: peer.ip(), deadline });
        let deadline = now.monotonic + CHANNEL_LIFETIME;
        allocation.channels.bind(channel, peer, deadline);
        self.commands.push_back(Command::Bind { id, channel, peer, deadline });
        Ok(Vec::new())
    }

    /// Family and policy. Where our relayed addresses are is always granted: the data plane delivers what is sent there
    /// inside the process, to a live relayed port, or drops it.
    fn may_reach(&self, peer: PeerAddr, relay: IpAddr) -> Result<(), Rejection> {
        if Family::of(peer.ip()) != Family::of(relay) {
            return Err(Rejection::PEER_FAMILY);
        }
        match self.policy.reach(peer) {
            Reach::Kernel => Ok(()),
            Reach::Denied(_) if self.may_be_ours(peer) => Ok(()),
            Reach::Denied(why) => {
                tracing::debug!(why, "peer denied, see turn.peers.allow");
                Err(Rejection::FORBIDDEN)
            }
        }
    }

    fn may_be_ours(&self, peer: PeerAddr) -> bool {
        let port = peer.get().port();
        self.ledger.is_relay_ip(peer.ip()) && (port == 0 || self.settings.relay_ports.contains(&port))
    }

    fn settle_ended(&mut self) {
        while let Some(id) = self.backstop.poll_ended() {
            self.settle(id);
        }
    }

    /// Clears up behind an allocation that is over, once.
    fn settle(&mut self, id: AllocationId) {
        if let Some(allocation) = self.ledger.remove(id) {
            self.ports.release(allocation.advertised);
            self.quotas.give_back(&allocation.owner, 1);
            self.commands.push_back(Command::Close { id });
            self.count();
        }
    }

    fn count(&self) {
        self.metrics.allocations.set(self.ledger.len() as u64);
        self.metrics.reservations.set(self.reservations.len() as u64);
    }
}

/// What an Allocate request was granted.
struct Grant<S> {
    bound: Bound<S>,
    owner: Owner,
    token: Option<[u8; 8]>,
    lifetime: Duration,
}

fn allocated(advertised: SocketAddr, lifetime: Duration, token: Option<[u8; 8]>, client: FiveTuple) -> Success {
    let mut attributes: Success = vec![
        Box::new(RelayedAddress { ip: advertised.ip(), port: advertised.port() }),
        Box::new(stun::xoraddr::XorMappedAddress { ip: client.client.ip(), port: client.client.port() }),
        Box::new(Lifetime(lifetime)),
    ];
    if let Some(token) = token {
        attributes.push(Box::new(ReservationToken(token.to_vec())));
    }
    attributes
}

fn granted_lifetime(requested: Option<u32>) -> Duration {
    Duration::from_secs(requested.unwrap_or(SHORTEST).clamp(SHORTEST, LONGEST).into())
}

fn any_port(peer: PeerAddr) -> PeerAddr {
    PeerAddr::new(SocketAddr::new(peer.ip(), 0))
}

fn no_port(error: &NoPort) -> Rejection {
    tracing::debug!(%error, "no relayed port");
    Rejection::CAPACITY
}
