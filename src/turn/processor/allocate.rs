//! Allocate: what it is granted, and the ports that wait for their RESERVATION-TOKEN.

use std::time::Duration;

use turn::proto::lifetime::Lifetime;
use turn::proto::relayaddr::RelayedAddress;
use turn::proto::rsrvtoken::ReservationToken;

use super::LONGEST;
use super::Processor;
use super::RESERVATION_LIFETIME;
use super::Reservation;
use super::SHORTEST;
use crate::address::FiveTuple;
use crate::address::RelayedAddr;
use crate::clock::Now;
use crate::credentials::random;
use crate::relay::command::AllocationId;
use crate::relay::command::Command;
use crate::relay::command::Request;
use crate::turn::Rejection;
use crate::turn::answer::Answer;
use crate::turn::auth::Asker;
use crate::turn::ledger::Allocation;
use crate::turn::ledger::Channels;
use crate::turn::ledger::Deadlines;
use crate::turn::ledger::Owner;
use crate::turn::ports::Bound;
use crate::turn::ports::NoPort;
use crate::turn::request::Asked;
use crate::turn::request::Family;

impl<S> Processor<S> {
    /// Allocate (RFC 8656, section 7.2).
    pub(super) async fn allocate(
        &mut self,
        asked: &Asked<'_>,
        request: &Request,
        asker: &Asker,
        now: Now,
    ) -> Result<Answer, Rejection> {
        let Grant { bound, owner, token, lifetime } = self.grant(asked, request, asker, now)?;
        self.next_id += 1;
        let (id, client, relayed) = (AllocationId(self.next_id), request.five_tuple, bound.addr);
        if let Err(error) = self.backstop.create(client, id, relayed, &asker.username, lifetime).await {
            tracing::warn!(%error, "an allocation could not be entered");
            self.ports.release(bound.advertised);
            self.quotas.give_back(&owner, 1);
            return Err(Rejection::CAPACITY);
        }
        let advertised = bound.advertised;
        let deadline = now.monotonic + lifetime;
        let allocation = Allocation {
            id,
            via: request.via,
            username: asker.username.clone(),
            owner,
            relayed,
            advertised,
            deadline,
            allocated_by: asked.stun().transaction_id(),
            answer: Vec::new(),
            permissions: Deadlines::default(),
            channels: Channels::default(),
        };
        self.ledger.insert(client, allocation);
        self.metrics.allocations.increment();
        let (via, socket) = (request.via, bound.socket);
        let relayed = RelayedAddr(relayed);
        self.commands.push_back(Command::Open { id, five_tuple: client, via, relayed, advertised, socket, deadline });
        let answer = Answer::success(asked.stun())
            .with(&RelayedAddress { ip: advertised.ip(), port: advertised.port() })
            .mapped(client.client)
            .with(&Lifetime(lifetime));
        Ok(match token {
            Some(token) => answer.with(&ReservationToken(token.to_vec())),
            None => answer,
        })
    }

    /// What an Allocate request gets: everything that can be refused is settled here, and nothing taken if it is.
    fn grant(&mut self, asked: &Asked<'_>, request: &Request, asker: &Asker, now: Now) -> Result<Grant<S>, Rejection> {
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
        let ip = self.settings.relay_address(request.reached).ok_or(Rejection::FAMILY_NOT_SUPPORTED)?;
        let advertised = self.settings.advertised(ip);
        let owner = self.owner(request.five_tuple, asker);
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
        Owner { identity: asker.identity.clone(), source: self.sources.of(client.client.ip()) }
    }

    fn reserve(&mut self, bound: Bound<S>, username: String, owner: Owner, now: Now) -> [u8; 8] {
        let token = random::<8>();
        self.reservations.insert(token, Reservation { bound, username, owner });
        self.metrics.reservations.increment();
        self.reservation_ends.push_back((now.monotonic + RESERVATION_LIFETIME, token));
        token
    }

    fn redeem(&mut self, token: [u8; 8], username: &str) -> Result<Reservation<S>, Rejection> {
        let of_asker = self.reservations.get(&token).is_some_and(|reservation| reservation.username == username);
        if !of_asker {
            return Err(Rejection::CAPACITY);
        }
        self.reservation_ends.retain(|(_, other)| *other != token);
        self.take_reservation(token).ok_or(Rejection::CAPACITY)
    }

    pub(super) fn take_reservation(&mut self, token: [u8; 8]) -> Option<Reservation<S>> {
        let reservation = self.reservations.remove(&token)?;
        self.metrics.reservations.decrement();
        Some(reservation)
    }
}

/// What an Allocate request was granted.
struct Grant<S> {
    bound: Bound<S>,
    owner: Owner,
    token: Option<[u8; 8]>,
    lifetime: Duration,
}

pub(super) fn granted_lifetime(requested: Option<u32>) -> Duration {
    Duration::from_secs(requested.unwrap_or(SHORTEST).clamp(SHORTEST, LONGEST).into())
}

fn no_port(error: &NoPort) -> Rejection {
    tracing::debug!(%error, "no relayed port");
    Rejection::CAPACITY
}
