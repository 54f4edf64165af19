//! The request processor: checks a STUN request in the order of the RFCs, does what it asks, and answers it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use turn::proto::lifetime::Lifetime;

use self::allocate::granted_lifetime;
use crate::address::FiveTuple;
use crate::clock::Now;
use crate::credentials::Ending;
use crate::credentials::Endings;
use crate::metrics;
use crate::metrics::AllocationEnd;
use crate::metrics::DropReason;
use crate::relay::command::AllocationId;
use crate::relay::command::Command;
use crate::relay::command::Request;
use crate::relay::command::StreamId;
use crate::relay::command::Via;
use crate::turn::Rejection;
use crate::turn::answer::Answer;
use crate::turn::auth::Asker;
use crate::turn::backstop::Backstop;
use crate::turn::holdings::Holdings;
use crate::turn::ledger::Ledger;
use crate::turn::notes;
use crate::turn::pool::Pool;
use crate::turn::request::Asked;
use crate::turn::request::Method;
use crate::turn::status;
use crate::turn::status::Query;
use crate::wire::Stun;
use crate::wire::method;

mod allocate;
mod peers;
mod recheck;

/// An allocation's life unless the client asks for longer, and at least (RFC 8656, section 7.2).
const SHORTEST: u32 = 600;
/// An allocation's life at most.
const LONGEST: u32 = 3600;
/// A permission's life (RFC 8656, section 9).
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// A channel's life (RFC 8656, section 12).
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// The control plane of one shard, without sockets, threads or clocks of its own: `S` is the relay socket it hands on.
///
/// Drive it so: [`Processor::handle_request`] for each request, one after the other; [`Processor::handle_timeout`] when
/// [`Processor::poll_timeout`] has come; after each, carry out what [`Processor::poll_command`] gives until it gives
/// nothing. It must run on a tokio runtime, for the crate's backstop timers.
pub struct Processor<S> {
    pool: Arc<Pool<S>>,
    backstop: Backstop,
    ledger: Ledger,
    holdings: Holdings<AllocationId>,
    commands: VecDeque<Command<S>>,
}

impl<S> Processor<S> {
    /// A control plane without allocations, which grants from `pool`.
    pub fn new(pool: Arc<Pool<S>>) -> Self {
        let (backstop, ledger, holdings) = (Backstop::default(), Ledger::default(), Holdings::default());
        Self { pool, backstop, ledger, holdings, commands: VecDeque::new() }
    }

    /// Answers one request, if it deserves an answer.
    pub async fn handle_request(&mut self, request: &Request, now: Now) {
        let Ok(stun) = Stun::parse(&request.message) else {
            return self.pool.metrics.dropped(DropReason::Malformed);
        };
        let (asked, client) = (Asked::new(stun), request.five_tuple);
        let answer = match Method::of(stun.method()) {
            Some(method) => self.answer(&asked, method, request, now).await,
            None if stun.method() == method::BINDING => self.answer_binding(&asked, client, now),
            None => return self.pool.metrics.dropped(DropReason::Unexpected),
        };
        self.settle_ended();
        if let Some(message) = answer {
            self.commands.push_back(Command::Answer { five_tuple: client, via: request.via, message });
        }
    }

    /// Ends what was allocated by a stream which is over.
    pub async fn handle_stream_closed(&mut self, client: FiveTuple, stream: StreamId) {
        let by_it = self.ledger.on(client).filter(|(_, allocation)| allocation.via == Via::Stream(stream));
        let ids: Vec<_> = by_it.map(|(_, allocation)| allocation.id).collect();
        for id in ids {
            self.end(id, AllocationEnd::StreamClosed).await;
        }
    }

    /// Ends an allocation that the data plane refused to begin.
    pub async fn handle_refused(&mut self, id: AllocationId) {
        self.end(id, AllocationEnd::Refused).await;
    }

    /// Ends what has expired.
    pub async fn handle_timeout(&mut self, now: Now) {
        while let Some(id) = self.ledger.poll_expired(now.monotonic) {
            self.end(id, AllocationEnd::Expired).await;
        }
        self.pool.end_expired_reservations(now.monotonic);
    }

    /// Ends all that was opened by sessions that are over. Of what is reserved, whichever processor hears of it first ends
    /// it all, and the others what was reserved since.
    pub async fn handle_ending(&mut self, ending: Ending, now: Now) {
        let over = match ending {
            Ending::One(session) => vec![session],
            Ending::Many => {
                let mut all: Vec<_> = [self.holdings.sessions(), self.pool.reserving_sessions()].concat();
                all.retain(|session| self.pool.credentials.is_over(*session, now));
                all
            }
        };
        for session in over {
            for id in self.holdings.held_by(session) {
                self.end(id, AllocationEnd::SessionOver).await;
            }
            self.pool.end_reservations_of(session);
        }
    }

    /// Tells an operator what there is.
    pub fn answer_query(&self, Query { after, most, answer }: Query, now: Now) {
        let page = self.ledger.after(AllocationId(after), most);
        let page = page.into_iter().map(|(leg, allocation)| status::Allocation {
            id: allocation.id.0,
            client: leg.client,
            transport: leg.client.transport.label(),
            relayed: allocation.advertised,
            username: allocation.username.clone(),
            session: allocation.owner.session,
            expires_in: allocation.deadline.saturating_duration_since(now.monotonic),
            traffic: allocation.traffic.count(),
        });
        // Who asked may have gone.
        let _ = answer.send(page.collect());
    }

    /// Waits until the crate has ended an allocation by itself, and settles it.
    pub async fn ended(&mut self) {
        let id = self.backstop.ended().await;
        self.settle(id, AllocationEnd::Expired);
    }

    /// Tells when [`Processor::handle_ending`] is due, and for what.
    pub fn endings(&self) -> Endings {
        self.pool.credentials.endings()
    }

    /// When [`Processor::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ledger.poll_timeout().into_iter().chain(self.pool.first_reservation_end()).min()
    }

    /// What the data plane is to do next.
    pub fn poll_command(&mut self) -> Option<Command<S>> {
        self.commands.pop_front()
    }

    /// What it grants from.
    #[cfg(test)]
    pub(super) fn pool(&self) -> &Arc<Pool<S>> {
        &self.pool
    }

    /// How many ports of `ip` are free, when nobody is counted for anything.
    #[cfg(test)]
    pub(super) fn idle_ports(&self, ip: std::net::IpAddr) -> Option<usize> {
        (self.pool.is_idle() && self.holdings.is_empty()).then(|| self.pool.ports.available(ip))
    }

    async fn answer(&mut self, asked: &Asked<'_>, method: Method, request: &Request, now: Now) -> Option<Vec<u8>> {
        let client = request.five_tuple;
        let asker = match self.pool.authenticator.check(asked, client, now) {
            Ok(asker) => asker,
            Err(rejection) => return self.answer_stranger(asked, method.into(), client, &rejection, now),
        };
        if let Some(answer) = self.answer_again(asked, method, client, &asker) {
            return Some(answer);
        }
        match self.carry_out(asked, method, request, &asker, now).await {
            Ok(answer) => {
                self.pool.metrics.requests.increment((method.into(), metrics::Answer::Success));
                let message = answer.finish(Some(&asker.key))?;
                if method == Method::Allocate {
                    self.ledger.note_answer(client, &message);
                }
                Some(message)
            }
            Err(rejection @ Rejection { code: 401, .. }) => {
                self.note(client, &asker, &rejection);
                self.answer_stranger(asked, method.into(), client, &Rejection::UNAUTHENTICATED, now)
            }
            Err(rejection) => {
                tracing::debug!(code = rejection.code, reason = rejection.reason, "refused");
                self.note(client, &asker, &rejection);
                self.count_error(method.into(), &rejection);
                Answer::error(asked.stun(), &rejection).finish(Some(&asker.key))
            }
        }
    }

    /// Has the journal know what wasn't granted: of the allocation that it was asked for, or else of the asker's session.
    fn note(&self, client: FiveTuple, asker: &Asker, rejection: &Rejection) {
        let Some(refusal) = notes::refusal(rejection) else { return };
        let journal = self.pool.credentials.journal();
        let own = self.ledger.on(client).next().filter(|(_, allocation)| allocation.username == asker.username);
        let place = own.and_then(|(_, allocation)| allocation.place).or_else(|| journal.of_session(asker.session));
        place.into_iter().for_each(|place| journal.refused(place, refusal));
    }

    /// The answer to an Allocate request that comes once more.
    fn answer_again(&self, asked: &Asked<'_>, method: Method, client: FiveTuple, asker: &Asker) -> Option<Vec<u8>> {
        let (_, allocation) = self.ledger.on(client).next().filter(|_| method == Method::Allocate)?;
        let same = allocation.allocated_by == asked.stun().transaction_id() && allocation.username == asker.username;
        same.then(|| allocation.answer.clone())
    }

    /// Does what somebody who has proven a user name asks for: 420 first, then 437 and 441, then the method's own.
    async fn carry_out(
        &mut self,
        asked: &Asked<'_>,
        method: Method,
        request: &Request,
        asker: &Asker,
        now: Now,
    ) -> Result<Answer, Rejection> {
        asked.all_known()?;
        let client = request.five_tuple;
        let Some((_, allocation)) = self.ledger.on(client).next() else {
            return match (method, asker.expired) {
                (Method::Allocate, false) => self.allocate(asked, request, asker, now).await,
                (Method::Allocate, true) => Err(Rejection::UNAUTHENTICATED),
                (Method::Refresh | Method::CreatePermission | Method::ChannelBind, _) => Err(Rejection::NO_ALLOCATION),
            };
        };
        let theirs = allocation.username == asker.username;
        // A browser keeps using the credential that a call began with: the allocation outlives it.
        match method {
            Method::Allocate => Err(Rejection::ALLOCATED_ALREADY),
            Method::Refresh | Method::CreatePermission | Method::ChannelBind if !theirs => {
                Err(Rejection::WRONG_CREDENTIALS)
            }
            Method::Refresh => self.refresh(asked, client, now).await,
            Method::CreatePermission => self.create_permission(asked, client, now).await,
            Method::ChannelBind => self.channel_bind(asked, client, now).await,
        }
    }

    fn answer_binding(&mut self, asked: &Asked<'_>, client: FiveTuple, now: Now) -> Option<Vec<u8>> {
        if !self.pool.take_challenge(client.client.ip(), now.monotonic) {
            self.pool.metrics.dropped(DropReason::RateLimited);
            return None;
        }
        match asked.all_known() {
            Ok(()) => {
                self.pool.metrics.bindings.increment();
                Answer::success(asked.stun()).mapped(client.client).finish(None)
            }
            Err(rejection) => {
                self.count_error(metrics::Request::Binding, &rejection);
                Answer::error(asked.stun(), &rejection).finish(None)
            }
        }
    }

    /// An unsigned error, for somebody who has proven nothing: rarely, and short. An old nonce of its own proves at least
    /// its address, so that it gets a new one always.
    fn answer_stranger(
        &mut self,
        asked: &Asked<'_>,
        method: metrics::Request,
        client: FiveTuple,
        rejection: &Rejection,
        now: Now,
    ) -> Option<Vec<u8>> {
        let receives_there = *rejection == Rejection::STALE_NONCE;
        if !receives_there && !self.pool.take_challenge(client.client.ip(), now.monotonic) {
            self.pool.metrics.dropped(DropReason::RateLimited);
            return None;
        }
        self.count_error(method, rejection);
        let answer = Answer::error(asked.stun(), rejection);
        if rejection.code == 400 {
            return answer.finish(None);
        }
        answer.challenge(&self.pool.authenticator.challenge(client, now)).finish(None)
    }

    /// Refresh (RFC 8656, section 8.2): of every leg, or of the one of the family that the client names.
    async fn refresh(&mut self, asked: &Asked<'_>, client: FiveTuple, now: Now) -> Result<Answer, Rejection> {
        let family = match asked.requested_family() {
            // No allocation is of a family that nobody knows.
            Err(rejection) if rejection == Rejection::FAMILY_NOT_SUPPORTED => return Err(Rejection::PEER_FAMILY),
            family => family?,
        };
        let requested = asked.lifetime()?;
        let named = self.ledger.on(client).filter(|(leg, _)| family.is_none_or(|family| family == leg.family));
        let legs: Vec<_> = named.map(|(leg, allocation)| (leg, allocation.id)).collect();
        if legs.is_empty() {
            return Err(Rejection::PEER_FAMILY);
        }
        let lifetime = if requested == Some(0) { Duration::ZERO } else { granted_lifetime(requested) };
        for (leg, id) in legs {
            if lifetime.is_zero() {
                self.end(id, AllocationEnd::Deleted).await;
                continue;
            }
            let deadline = now.monotonic + lifetime;
            self.backstop.refresh(leg, lifetime).await;
            self.ledger.extend(leg, deadline);
            self.commands.push_back(Command::Extend { id, deadline });
        }
        Ok(Answer::success(asked.stun()).with(&Lifetime(lifetime)))
    }

    /// Ends an allocation, at once in the crate too.
    async fn end(&mut self, id: AllocationId, why: AllocationEnd) {
        if let Some(leg) = self.ledger.leg_of(id) {
            self.backstop.delete(leg).await;
            // Had the crate forgotten it, it would never be told as ended.
            self.settle(id, why);
        }
    }

    fn settle_ended(&mut self) {
        while let Some(id) = self.backstop.poll_ended() {
            self.settle(id, AllocationEnd::Expired);
        }
    }

    /// Clears up behind an allocation that is over, once.
    fn settle(&mut self, id: AllocationId, why: AllocationEnd) {
        let leg = self.ledger.leg_of(id);
        if let (Some(leg), Some(allocation)) = (leg, self.ledger.remove(id)) {
            self.pool.leave(&allocation);
            self.holdings.strike(allocation.owner.session, id);
            if let Some(place) = allocation.place {
                self.pool.credentials.journal().closed(place, id.0);
            }
            self.commands.push_back(Command::Close { id });
            self.pool.metrics.allocations.decrement(leg.client.transport);
            self.pool.metrics.allocations_ended.increment(why);
        }
    }

    fn count_error(&self, method: metrics::Request, rejection: &Rejection) {
        self.pool.metrics.requests.increment((method, metrics::Answer::error(rejection.code)));
    }
}
