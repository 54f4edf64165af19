//! The TCP ports: what each speaks, and who takes a connection that speaks it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Once;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Listening;
use super::Serves;
use super::Shared;
use super::StartError;
use super::exempt;
use super::places_for;
use super::prefixes;
use crate::address::Prefix;
use crate::config::Config;
use crate::config::value::Listen;
use crate::live::Live;
use crate::logging::Redacted;
use crate::metrics::PlaceOf;
use crate::net::demux;
use crate::net::demux::Closed;
use crate::net::demux::Protocol;
use crate::net::host;
use crate::net::inherited::Inherited;
use crate::net::listen;
use crate::net::listen::ListenError;
use crate::net::proxy::Balancers;
use crate::net::tls::Certificates;
use crate::places;
use crate::places::Place;
use crate::places::Places;
use crate::relay::stream::Streams;
use crate::web;
use crate::web::forwarded::Proxies;
use crate::web::serve::Service;
use crate::web::status::Overview;

/// Listeners that one key of the configuration names, each with its address.
type Bound = Vec<(TcpListener, SocketAddr)>;

/// Bound listeners of streams, not served yet.
pub(super) struct Listeners {
    https: Bound,
    http: Bound,
    turn_tcp: Bound,
    turn_tls: Bound,
    metrics: Bound,
}

impl Listeners {
    /// Binds all that `config` names, but for what is `inherited`, which it must name, too.
    ///
    /// # Errors
    ///
    /// [`StartError`], for the first address that can't be had.
    pub(super) fn bind(config: &Config, mut inherited: Inherited) -> Result<Self, StartError> {
        let mut bind = |addresses, key| bind(addresses, key, &mut inherited);
        let listeners = Self {
            https: bind(&config.http.listen, "http.listen")?,
            http: bind(&config.http.plain_listen, "http.plain_listen")?,
            metrics: bind(&config.metrics.listen, "metrics.listen")?,
            turn_tcp: bind(&config.turn.listen_tcp, "turn.listen_tcp")?,
            turn_tls: bind(&config.turn.listen_tls, "turn.listen_tls")?,
        };
        inherited.finish()?;
        Ok(listeners)
    }

    /// Every port of theirs.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        let Self { https, http, turn_tcp, turn_tls, metrics } = self;
        [https, http, turn_tcp, turn_tls, metrics].into_iter().flatten().map(|(_, addr)| addr.port())
    }

    /// Where clients are told to find TURN over TCP.
    pub(super) fn turn_port(&self) -> Option<u16> {
        first_port([&self.turn_tcp, &self.https])
    }

    /// Where clients are told to find TURN over TLS.
    pub(super) fn turns_port(&self) -> Option<u16> {
        first_port([&self.https, &self.turn_tls, &self.turn_tcp])
    }

    /// Serves all of them until the end: TLS with `certificates`, and inside it or in clear `web` and `turn`.
    pub(super) fn serve(
        self,
        front: &Front,
        certificates: &Certificates,
        web: Service,
        turn: Arc<Streams>,
        overview: Overview,
    ) -> Vec<Listening> {
        let speaks = |http, turn| Speaks { http, turn };
        let (tls, turn) = (Some(certificates.clone()), Some(turn));
        let challenged = |service| Service::Challenged(certificates.challenges().clone(), Box::new(service));
        let web = challenged(web);
        let secure = Role {
            tls: tls.clone(),
            inside_tls: speaks(Some(web.clone()), turn.clone()),
            clear: speaks(Some(challenged(Service::Redirect)), turn.clone()),
        };
        let plain = Role::clear(speaks(Some(web), turn.clone()));
        let turns = Role { tls, inside_tls: speaks(None, turn.clone()), clear: Speaks::default() };
        let both = Role { clear: speaks(Some(Service::Refuse), turn), ..turns.clone() };
        let scrape = Service::Routes(web::metrics_router(overview), Live::default());
        let scrape = Role::clear(speaks(Some(scrape), None));
        // Whoever scrapes does so directly, from the very machine of a load balancer too.
        let direct = Front { balancers: Live::default(), ..front.clone() };
        let served = [
            (self.https, secure, front, Serves::Https),
            (self.http, plain, front, Serves::Http),
            (self.turn_tcp, both, front, Serves::TurnTcp),
            (self.turn_tls, turns, front, Serves::TurnTls),
            (self.metrics, scrape, &direct, Serves::Metrics),
        ];
        let mut listening = Vec::new();
        for (listeners, role, front, serves) in served {
            for (listener, addr) in listeners {
                listening.push(Listening { transport: "tcp", addr, serves });
                front.clone().serve(listener, role.clone());
            }
        }
        listening
    }
}

/// What every listener of streams needs.
#[derive(Clone)]
pub(super) struct Front {
    half_open: Arc<Places>,
    http: Arc<Places>,
    balancers: Live<Balancers>,
    proxies: Live<Proxies>,
    shared: Shared,
}

impl Front {
    /// With the limits of `config`, and nobody connected.
    pub(super) fn new(config: &Config, shared: &Shared) -> Self {
        Self {
            half_open: Places::new(half_open(config)),
            http: Places::new(http(config)),
            balancers: Live::new(balancers(config)),
            proxies: Live::new(proxies(config)),
            shared: shared.clone(),
        }
    }

    /// The places that connections have.
    pub(super) fn places(&self) -> Vec<(PlaceOf, Arc<Places>)> {
        vec![(PlaceOf::HalfOpen, Arc::clone(&self.half_open)), (PlaceOf::Http, Arc::clone(&self.http))]
    }

    /// Has another configuration hold, for who comes from now on.
    pub(super) fn configure(&self, config: &Config) {
        self.half_open.configure(half_open(config));
        self.http.configure(http(config));
        self.balancers.set(balancers(config));
        self.proxies.set(proxies(config));
    }

    /// HTTP proxies whose word counts for whom a request comes from.
    pub(super) fn proxies(&self) -> Live<Proxies> {
        self.proxies.clone()
    }

    /// Waits until everybody who was let in has said what they want. It looks after a while for the first time: who came
    /// last may be on the way in, and who has asked for a relay is still to be answered.
    pub(super) async fn has_heard_all(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.half_open.taken() == 0 {
                break;
            }
        }
    }

    /// Accepts from `listener` until the end.
    fn serve(self, listener: TcpListener, role: Role) {
        let tasks = self.shared.tasks.clone();
        let (half_open, balancers) = (Arc::clone(&self.half_open), self.balancers.clone());
        tasks.spawn(listen::accept(listener, half_open, balancers, self.shared.farewell.clone(), move |arrival| {
            let (front, role) = (self.clone(), role.clone());
            self.shared.tasks.spawn(async move {
                let stop = &front.shared.stop;
                let opening = async { demux::open(arrival, &front.balancers.get(), role.tls.clone()).await };
                match stop.run_until_cancelled(opening).await {
                    Some(Ok((opened, place))) => role.take(opened, place, front.http, stop).await,
                    Some(Err(closed)) => front.note(&closed),
                    None => (),
                }
            });
        }));
    }

    fn note(&self, closed: &Closed) {
        tracing::debug!(%closed, "a connection ended before it said what it speaks");
        if let Closed::Unannounced(why) = closed {
            self.shared.metrics.unannounced.increment();
            UNANNOUNCED.call_once(|| {
                tracing::warn!("closed a connection from an address in http.proxy_protocol: {why}; said once");
            });
        }
    }
}

/// How often it is looked whether everybody has asked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Only a load balancer's operator can cure it, and a balancer checks often.
static UNANNOUNCED: Once = Once::new();

/// What one listener of streams does with what it finds.
#[derive(Clone)]
struct Role {
    /// None: TLS is not spoken.
    tls: Option<Certificates>,
    inside_tls: Speaks,
    clear: Speaks,
}

/// What is spoken, in clear or inside TLS; what isn't, is closed.
#[derive(Clone, Default)]
struct Speaks {
    http: Option<Service>,
    turn: Option<Arc<Streams>>,
}

impl Role {
    /// Without TLS.
    fn clear(clear: Speaks) -> Self {
        Self { tls: None, inside_tls: Speaks::default(), clear }
    }

    async fn take(self, opened: demux::Opened, half_open: Place, http: Arc<Places>, stop: &CancellationToken) {
        let (remote, protocol, tls) = (Redacted(opened.remote), opened.protocol, opened.tls);
        let speaks = if tls { self.inside_tls } else { self.clear };
        match (protocol, speaks) {
            (Protocol::Http, Speaks { http: Some(service), .. }) => {
                web::serve::serve(opened, service, half_open, http, stop.clone()).await;
            }
            (Protocol::Turn, Speaks { turn: Some(streams), .. }) => match streams.enter(opened.remote.ip()) {
                Ok(place) => {
                    drop(half_open);
                    stop.run_until_cancelled(streams.serve(opened, place)).await;
                }
                Err(refused) => tracing::debug!(%remote, %refused, "closed a TURN stream, see turn.limits"),
            },
            (Protocol::Http | Protocol::Tls | Protocol::Turn | Protocol::Unknown, _) => {
                tracing::debug!(%remote, ?protocol, tls, "closed a connection: not spoken here");
            }
        }
    }
}

fn bind(addresses: &[Listen], key: &'static str, inherited: &mut Inherited) -> Result<Bound, ListenError> {
    let mut bound = Vec::new();
    for Listen(addr) in addresses.iter().copied() {
        bound.extend(listen::tcp(addr, key, inherited)?);
    }
    Ok(bound)
}

fn half_open(config: &Config) -> places::Settings {
    places_for(config.limits.half_open.get(), config.limits.half_open_per_source.get(), uncounted(config))
}

fn http(config: &Config) -> places::Settings {
    places_for(config.limits.http.get(), config.limits.http_per_source.get(), uncounted(config))
}

/// A proxy's connections carry many clients' requests: none of them is one source's.
fn uncounted(config: &Config) -> Vec<Prefix> {
    [exempt(config), prefixes(&config.http.trusted_proxies)].concat()
}

fn proxies(config: &Config) -> Proxies {
    Proxies::new(prefixes(&config.http.trusted_proxies))
}

fn balancers(config: &Config) -> Balancers {
    Balancers { from: prefixes(&config.http.proxy_protocol), host: host::addresses().into_iter().collect() }
}

/// The port of the first listener there is.
fn first_port<const N: usize>(lists: [&Bound; N]) -> Option<u16> {
    lists.into_iter().flatten().next().map(|(_, addr)| addr.port())
}
