//! What can be told of the running server: numbers for `/metrics`, and one JSON object for people's own tools.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::talkers::Talker;
use crate::address::Transport;
use crate::clock::Clock;
use crate::clock::Now;
use crate::gateway;
use crate::metrics::Answer;
use crate::metrics::Direction;
use crate::metrics::DropReason;
use crate::metrics::Exposition;
use crate::metrics::Key;
use crate::metrics::Metrics;
use crate::metrics::NoPlace;
use crate::metrics::PlaceOf;
use crate::metrics::process::Process;
use crate::net::tls::CertificateInfo;
use crate::net::tls::Certificates;
use crate::places::Places;
use crate::turn::status as turn_status;
use crate::volume::Volume;

mod talkers;

/// The parts of the server that there is something to tell of.
pub struct Parts {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Every gateway that is on.
    pub gateways: Vec<Arc<gateway::Context>>,
    /// The way to every allocation.
    pub turn: turn_status::Status,
    /// What was relayed this day and this month.
    pub volume: Arc<Volume>,
    /// What there are places for.
    pub places: Vec<(PlaceOf, Arc<Places>)>,
    /// Reads time.
    pub clock: Clock,
    /// What TLS is served with.
    pub certificates: Certificates,
    /// Cancelled once the end is near: nobody new is let in.
    pub draining: CancellationToken,
}

/// Everything that can be told; cheap to copy.
#[derive(Clone)]
pub struct Overview(Arc<Inner>);

struct Inner {
    parts: Parts,
    process: Process,
    started: Now,
}

/// The server at one moment. All numbers that could be rates are totals: who asks twice can tell what happened between.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// This program's.
    pub version: &'static str,
    /// In Unix seconds.
    pub started_at: u64,
    /// Whether it takes clients.
    pub ready: bool,
    /// Whether it is about to end.
    pub draining: bool,
    /// Signaling connections open.
    pub connections: u64,
    /// Members signed in, by gateway.
    pub members: BTreeMap<&'static str, u64>,
    /// Rooms that somebody is in, by gateway.
    pub rooms: BTreeMap<&'static str, u64>,
    /// Allocations alive, by how their clients come.
    pub allocations: BTreeMap<&'static str, u64>,
    /// What was relayed.
    pub relayed: Relayed,
    /// What was dropped, by reason; only those of which there was any.
    pub drops: BTreeMap<&'static str, u64>,
    /// What was asked of the relay.
    pub turn: Requests,
    /// Tries to sign in.
    pub sign_ins: SignIns,
    /// What TLS is served with.
    pub certificate: CertificateInfo,
    /// For whom most is relayed, of those who are there.
    pub talkers: Vec<Talker>,
}

/// What was relayed since the start, and by the calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Relayed {
    /// From clients to peers.
    pub to_peers: Flow,
    /// From peers to clients.
    pub to_clients: Flow,
    /// Between two clients inside the process.
    pub hairpin: Flow,
    /// Bytes this day (UTC), over restarts.
    pub today: u64,
    /// What may be relayed in a day, if that is limited.
    pub limit_today: Option<u64>,
    /// Bytes this month, over restarts.
    pub this_month: u64,
    /// What may be relayed in a month, if that is limited.
    pub limit_this_month: Option<u64>,
}

/// One way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Datagrams, and messages of streams.
    pub packets: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
}

/// What was asked of the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Requests that were carried out.
    pub successes: u64,
    /// Requests answered with an error; each client's first one is.
    pub errors: u64,
    /// STUN Binding requests answered.
    pub bindings: u64,
    /// Requests whose user name was not proven, though they tried.
    pub auth_failures: u64,
}

/// Tries to sign in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SignIns {
    /// Those that succeeded.
    pub ok: u64,
    /// The others.
    pub refused: u64,
}

impl Overview {
    /// Of these parts, which have just begun.
    pub fn new(parts: Parts) -> Self {
        let started = parts.clock.now();
        Self(Arc::new(Inner { parts, process: Process::default(), started }))
    }

    /// The server as it is.
    pub async fn status(&self) -> Status {
        let Inner { parts, started, .. } = &*self.0;
        let Parts { metrics, gateways, turn, volume, certificates, draining, .. } = parts;
        let allocations = Transport::ALL.map(|transport| (transport.label(), metrics.allocations.at(transport)));
        let drops = DropReason::ALL.iter().map(|reason| (reason.label(), metrics.drops(*reason)));
        Status {
            version: VERSION,
            started_at: started.unix.as_secs(),
            ready: !draining.is_cancelled(),
            draining: draining.is_cancelled(),
            connections: metrics.connections.get(),
            members: self.by_gateway(|context| metrics.members.at(context.gateway)),
            rooms: self.by_gateway(|context| context.sessions.count_rooms() as u64),
            allocations: allocations.into(),
            relayed: relayed(metrics, volume),
            drops: drops.filter(|(_, count)| *count > 0).collect(),
            turn: Requests {
                successes: metrics.requests.sum(|(_, answer)| answer == Answer::Success),
                errors: metrics.requests.sum(|(_, answer)| answer != Answer::Success),
                bindings: metrics.bindings.get(),
                auth_failures: metrics.auth_failures.sum(|_| true),
            },
            sign_ins: SignIns {
                ok: metrics.sign_ins.sum(|(_, outcome)| outcome.is_good()),
                refused: metrics.sign_ins.sum(|(_, outcome)| !outcome.is_good()),
            },
            certificate: certificates.info(),
            talkers: talkers::most(turn, gateways).await,
        }
    }

    /// All numbers, in Prometheus' text exposition format 0.0.4.
    pub fn exposition(&self) -> String {
        let Inner { parts, process, started } = &*self.0;
        let mut text = Exposition::default();
        text.fact("throughway_build_info", "What this is: always 1.", "version", VERSION);
        let began = started.unix.as_secs_f64();
        text.gauge("process_start_time_seconds", "When the process started, in Unix seconds.", began);
        process.expose(&mut text, parts.clock.now().monotonic);
        parts.metrics.expose(&mut text);
        let rooms = parts.gateways.iter().map(|context| (context.gateway, context.sessions.count_rooms() as u64));
        text.gauges_by("throughway_rooms", "Signaling rooms that somebody is in.", rooms);
        expose_places(&parts.places, &mut text);
        expose_volume(&parts.volume, &mut text);
        text.finish()
    }

    fn by_gateway(&self, count: impl Fn(&gateway::Context) -> u64) -> BTreeMap<&'static str, u64> {
        self.0.parts.gateways.iter().map(|context| (context.gateway.label(), count(context))).collect()
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn relayed(metrics: &Metrics, volume: &Volume) -> Relayed {
    let (used, limits) = (volume.used(), volume.limits());
    let flow = |direction| {
        let all = Transport::ALL.map(|transport| metrics.relayed(transport, direction));
        Flow {
            packets: all.iter().map(|relayed| relayed.packets.get()).sum(),
            bytes: all.iter().map(|relayed| relayed.bytes.get()).sum(),
        }
    };
    Relayed {
        to_peers: flow(Direction::ToPeers),
        to_clients: flow(Direction::ToClients),
        hairpin: flow(Direction::Hairpin),
        today: used.day,
        limit_today: limits.day,
        this_month: used.month,
        limit_this_month: limits.month,
    }
}

fn expose_places(places: &[(PlaceOf, Arc<Places>)], text: &mut Exposition) {
    let taken = places.iter().map(|(of, places)| (*of, places.taken() as u64));
    text.gauges_by("throughway_places_taken", "Places taken, of what there are only so many of at once.", taken);
    let refused = places
        .iter()
        .flat_map(|(of, places)| NoPlace::all().map(move |limit| ((*of, limit), places.refused().at(limit))));
    text.counters_by("throughway_places_refused_total", "Connections turned away for want of a place.", refused);
}

fn expose_volume(volume: &Volume, text: &mut Exposition) {
    let (used, limits) = (volume.used(), volume.limits());
    for (name, period, used, limit) in
        [("day", "this day", used.day, limits.day), ("month", "this month", used.month, limits.month)]
    {
        text.gauge(&format!("throughway_volume_{name}_bytes"), &format!("Bytes relayed {period} (UTC)."), used);
        if let Some(limit) = limit {
            let help = format!("Bytes that may be relayed {period}; missing without a limit.");
            text.gauge(&format!("throughway_volume_{name}_limit_bytes"), &help, limit);
        }
    }
}
