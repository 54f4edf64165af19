//! Allocate: what a client asks for, and what it is granted.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use turn::proto::lifetime::Lifetime;
use turn::proto::relayaddr::RelayedAddress;
use turn::proto::rsrvtoken::ReservationToken;

use super::LONGEST;
use super::Processor;
use super::SHORTEST;
use crate::address::Family;
use crate::address::RelayedAddr;
use crate::clock::Now;
use crate::credentials::journal;
use crate::relay::command::Command;
use crate::relay::command::Request;
use crate::relay::command::Traffic;
use crate::turn::Rejection;
use crate::turn::answer::Answer;
use crate::turn::auth::Asker;
use crate::turn::ledger::Allocation;
use crate::turn::ledger::Channels;
use crate::turn::ledger::Deadlines;
use crate::turn::ledger::Leg;
use crate::turn::ledger::Owner;
use crate::turn::notes;
use crate::turn::pool::Token;
use crate::turn::ports::Bound;
use crate::turn::ports::NoPort;
use crate::turn::request::Asked;

/// One Allocate request, read.
struct Wish<'a> {
    asked: &'a Asked<'a>,
    request: &'a Request,
    asker: &'a Asker,
    /// The families of the relayed addresses asked for, one or both.
    families: &'static [Family],
    /// Whether the port is to be even, and the next one reserved.
    even: Option<bool>,
    token: Option<Token>,
    lifetime: Duration,
    now: Now,
}

impl<'a> Wish<'a> {
    /// Reads a request, in the order of RFC 8656, section 7.2.
    fn of(asked: &'a Asked<'a>, request: &'a Request, asker: &'a Asker, now: Now) -> Result<Self, Rejection> {
        if asked.requested_transport()? != turn::proto::PROTO_UDP.0 {
            return Err(Rejection::NOT_UDP);
        }
        let (family, both) = (asked.requested_family()?, asked.additional_family()?);
        let (even, token) = (asked.even_port()?, asked.reservation_token()?);
        if token.is_some() && (even.is_some() || family.is_some() || both) {
            return Err(Rejection::bad_request("RESERVATION-TOKEN goes with neither EVEN-PORT nor an address family"));
        }
        if both && (family.is_some() || even == Some(true)) {
            return Err(Rejection::bad_request(
                "ADDITIONAL-ADDRESS-FAMILY goes with neither another family nor a reserved port",
            ));
        }
        let families: &[Family] = match (both, family) {
            (true, _) => &Family::ALL,
            (false, Some(Family::V6)) => &[Family::V6],
            (false, Some(Family::V4) | None) => &[Family::V4],
        };
        let lifetime = granted_lifetime(asked.lifetime()?);
        Ok(Self { asked, request, asker, families, even, token, lifetime, now })
    }
}

impl<S> Processor<S> {
    /// Allocate (RFC 8656, section 7.2). Of two relayed addresses asked for one is enough for success.
    pub(super) async fn allocate(
        &mut self,
        asked: &Asked<'_>,
        request: &Request,
        asker: &Asker,
        now: Now,
    ) -> Result<Answer, Rejection> {
        let wish = Wish::of(asked, request, asker, now)?;
        let Grant { legs, owner, token } = self.grant(&wish)?;
        let mut answer = Answer::success(asked.stun());
        let journal = self.pool.credentials.journal();
        let place = journal.place(asker.session, &notes::user(&asker.identity), now);
        let mut refused: Option<Rejection> = None;
        let mut opened = 0;
        for (family, bound) in legs {
            let relayed = match bound {
                Ok(bound) => self.open(bound, family, &wish, owner.clone(), place).await,
                Err(rejection) => Err(rejection),
            };
            match relayed {
                Ok(relayed) => {
                    opened += 1;
                    answer = answer.with(&RelayedAddress { ip: relayed.ip(), port: relayed.port() });
                }
                Err(rejection) => {
                    self.pool.give_quota_back(&owner, 1);
                    answer = answer.address_error(family, &rejection);
                    // Of two reasons the one that may pass is the answer.
                    let passing = refused.filter(|earlier| *earlier != Rejection::FAMILY_NOT_SUPPORTED);
                    refused = Some(passing.unwrap_or(rejection));
                }
            }
        }
        if let (0, Some(rejection)) = (opened, refused) {
            place.into_iter().for_each(|place| self.pool.credentials.journal().leave(place));
            return Err(rejection);
        }
        let answer = answer.mapped(request.five_tuple.client).with(&Lifetime(wish.lifetime));
        Ok(match token {
            Some(token) => answer.with(&ReservationToken(token.to_vec())),
            None => answer,
        })
    }

    /// Begins an allocation on a bound socket; what its client is told as the relayed address.
    async fn open(
        &mut self,
        bound: Bound<S>,
        family: Family,
        wish: &Wish<'_>,
        owner: Owner,
        place: Option<journal::Key>,
    ) -> Result<SocketAddr, Rejection> {
        let Bound { socket, addr, advertised } = bound;
        let (id, via, client) = (self.pool.next_id(), wish.request.via, wish.request.five_tuple);
        let leg = Leg { client, family };
        if let Err(error) = self.backstop.create(leg, id, addr, &wish.asker.username, wish.lifetime).await {
            tracing::warn!(%error, "an allocation could not be entered");
            self.pool.ports.release(advertised);
            return Err(Rejection::NOT_ENTERED);
        }
        let (deadline, traffic) = (wish.now.monotonic + wish.lifetime, Arc::<Traffic>::default());
        let allocation = Allocation {
            id,
            via,
            username: wish.asker.username.clone(),
            owner,
            relayed: addr,
            advertised,
            place,
            traffic: Arc::clone(&traffic),
            deadline,
            allocated_by: wish.asked.stun().transaction_id(),
            answer: Vec::new(),
            permissions: Deadlines::default(),
            channels: Channels::default(),
        };
        self.holdings.enter(allocation.owner.session, id);
        self.pool.enter(&allocation);
        self.ledger.insert(leg, allocation);
        self.pool.metrics.allocations.increment(client.transport);
        self.pool.metrics.allocations_begun.increment(client.transport);
        if let Some(place) = place {
            let meter = Arc::<Traffic>::clone(&traffic);
            self.pool.credentials.journal().opened(place, id.0, client.transport, meter);
        }
        self.commands.push_back(Command::Open {
            id,
            five_tuple: client,
            via,
            relayed: RelayedAddr(addr),
            advertised,
            socket,
            deadline,
            traffic,
        });
        Ok(advertised)
    }

    /// What an Allocate request gets, counted for its owner: a socket for each family, or why there is none.
    fn grant(&self, wish: &Wish<'_>) -> Result<Grant<S>, Rejection> {
        if self.pool.settings.draining.is_cancelled() {
            return Err(Rejection::DRAINING);
        }
        if self.pool.rules.get().limits.volume.spent().is_some() {
            return Err(Rejection::VOLUME);
        }
        if let Some(token) = wish.token {
            let redeemed = self.pool.redeem(token, &wish.asker.username).ok_or(Rejection::NO_RESERVATION)?;
            let (bound, owner) = (redeemed.bound, redeemed.owner);
            return Ok(Grant { legs: vec![(Family::of(bound.addr.ip()), Ok(bound))], owner, token: None });
        }
        let owner = self.pool.owner(wish.request.five_tuple, wish.asker);
        let count = wish.families.len() + usize::from(wish.even == Some(true));
        if !self.pool.take_quota(&owner, count) {
            return Err(Rejection::QUOTA);
        }
        let mut grant = Grant { legs: Vec::new(), owner, token: None };
        for family in wish.families {
            let bound = self.bind(wish.request.reached, *family, wish.even).map(|(bound, next)| {
                let (username, now) = (&wish.asker.username, wish.now.monotonic);
                grant.token = next.map(|next| self.pool.reserve(next, username.clone(), grant.owner.clone(), now));
                bound
            });
            if bound.is_err() && wish.even == Some(true) {
                self.pool.give_quota_back(&grant.owner, 1);
            }
            grant.legs.push((*family, bound));
        }
        Ok(grant)
    }

    /// Binds a relay socket on the first relay address that has a port left, and the next port when that is to be even.
    fn bind(
        &self,
        server: IpAddr,
        family: Family,
        even: Option<bool>,
    ) -> Result<(Bound<S>, Option<Bound<S>>), Rejection> {
        let mut refused = Rejection::FAMILY_NOT_SUPPORTED;
        for ip in self.pool.settings.relay_addresses(server, family) {
            let advertised = self.pool.settings.advertised(ip);
            let bound = match even {
                None => self.pool.ports.any(ip, advertised).map(|bound| (bound, None)),
                Some(false) => self.pool.ports.even(ip, advertised).map(|bound| (bound, None)),
                Some(true) => self.pool.ports.pair(ip, advertised).map(|(bound, next)| (bound, Some(next))),
            };
            match bound {
                Ok(bound) => return Ok(bound),
                Err(error) => refused = no_port(&error),
            }
        }
        Err(refused)
    }
}

/// What an Allocate request was granted.
struct Grant<S> {
    /// A bound socket for each family asked for, or why there is none.
    legs: Vec<(Family, Result<Bound<S>, Rejection>)>,
    owner: Owner,
    /// Names the next port, when that was to be reserved.
    token: Option<Token>,
}

pub(super) fn granted_lifetime(requested: Option<u32>) -> Duration {
    Duration::from_secs(requested.unwrap_or(SHORTEST).clamp(SHORTEST, LONGEST).into())
}

fn no_port(error: &NoPort) -> Rejection {
    tracing::debug!(%error, "no relayed port");
    Rejection::NO_PORT
}
