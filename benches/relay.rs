//! What relaying costs, beside others in the same run: server CPU per datagram, datagrams a second, what is lost, how long
//! it takes, and memory.
//!
//! `cargo bench --bench relay` starts throughway, coturn and webrtc-rs `turn::server` in turn, each pinned to core 0, and
//! loads them from core 1 by real sockets. Rounds alternate between the servers; the first of each is short and dropped;
//! medians are printed, and their ratios to coturn's. `-- NAME...` runs what has a name that begins so.

#[path = "relay/clients.rs"]
mod clients;
#[path = "servers/cores.rs"]
mod cores;
#[path = "relay/datagrams.rs"]
mod datagrams;
#[path = "relay/generator.rs"]
mod generator;
mod servers;
#[path = "relay/streams.rs"]
mod streams;
#[path = "relay/tables.rs"]
mod tables;

use std::collections::BTreeMap;
use std::time::Duration;

use throughway::net::host::raise_file_limit;

use self::generator::Flow;
use self::generator::Load;
use self::generator::Outcome;
use self::generator::Pace;
use self::generator::Shape;
use self::generator::Transport;
use self::servers::Failure;
use self::servers::Kind;
use self::servers::Pair;
use self::servers::Server;
use self::servers::certificate;
use self::servers::is_stock;
use self::servers::pin_to;

const ROUNDS: usize = 6;
/// How long a scenario runs, and in the first round.
const RUN: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(300);

/// What is measured, by name.
struct Scenario {
    name: &'static str,
    shape: Shape,
    pace: Pace,
}

const SCENARIOS: &[Scenario] = &[
    scenario("one flow, 1200 B", Flow::Echo, 1, 1200, Pace::Windows(64)),
    SATURATION,
    scenario("200 flows, 1200 B", Flow::Echo, 200, 1200, Pace::Windows(4)),
    scenario("bursts of 16 to peers", Flow::ToPeers, 200, 1200, BURSTS),
    scenario("bursts of 16 to clients", Flow::ToClients, 200, 1200, BURSTS),
    scenario("relay to relay", Flow::Pairs, 200, 1200, Pace::Windows(4)),
    scenario("Binding", Flow::Binding, 200, 0, Pace::Windows(4)),
    streams("TCP client to UDP peer", Transport::Tcp),
    streams("TLS client to UDP peer", Transport::Tls),
];
const BURSTS: Pace = Pace::Rate { per_second: 200_000.0, burst: 16 };
const SATURATION: Scenario = scenario("200 flows, 160 B", Flow::Echo, 200, 160, Pace::Windows(4));
/// 50 datagrams a second of each allocation. Has a server of its own, whose memory before and after tells what they take.
const CROWD: Scenario =
    scenario("5,000 allocations, 50/s", Flow::BothWays, 5_000, 160, Pace::Rate { per_second: 250_000.0, burst: 1 });

/// As [`SATURATION`], at the same rate for all servers: half of coturn's in this run, or of ours without coturn.
const LATENCY: &str = "latency at half load";
const MEMORY: &str = "memory";
/// The closed loops over UDP again, ours and coturn's, paced evenly at this part of the highest rate that loses nothing so.
/// By name: this one, or this one with a colon and a scenario's.
const NEAR: &str = "at 90 % of saturation";
const NEARLY: f64 = 0.9;

const fn scenario(name: &'static str, flow: Flow, clients: u16, bytes: usize, pace: Pace) -> Scenario {
    Scenario { name, shape: Shape { flow, over: Transport::Udp, clients, bytes }, pace }
}

const fn streams(name: &'static str, over: Transport) -> Scenario {
    Scenario { name, shape: Shape { flow: Flow::Echo, over, clients: 50, bytes: 1200 }, pace: Pace::Windows(4) }
}

/// What one round of one server gave.
#[derive(Debug, Default)]
struct Round {
    outcomes: BTreeMap<&'static str, Outcome>,
    /// Of the same scenarios near saturation, which is told beside it.
    near: BTreeMap<&'static str, (f64, Outcome)>,
    kib_per_allocation: Option<f64>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(());
    }
    raise_file_limit();
    if is_stock(&arguments)? {
        return Ok(());
    }
    pin_to(1)?;
    let mut bench = Bench {
        wanted: arguments.into_iter().filter(|argument| !argument.starts_with("--")).collect(),
        pair: certificate()?,
        half_load: 0.0,
    };
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.is_there()).collect();
    if bench.wants(LATENCY) {
        bench.half_load = bench.saturation(&kinds)? / 2.0;
    }
    let mut measured: Vec<_> = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    for number in 0..ROUNDS {
        for (kind, rounds) in &mut measured {
            let round = bench.round(*kind, number == 0)?;
            if number > 0 {
                rounds.push(round);
            }
        }
    }
    bench.print(&measured);
    Ok(())
}

struct Bench {
    /// Beginnings of names; none means everything.
    wanted: Vec<String>,
    pair: Pair,
    half_load: f64,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| name.starts_with(wanted.as_str()))
    }

    fn wants_near(&self, scenario: &Scenario) -> bool {
        let has_saturation = scenario.shape.over == Transport::Udp && matches!(scenario.pace, Pace::Windows(_));
        has_saturation && self.wants(&format!("{NEAR}: {}", scenario.name))
    }

    /// How much coturn relays a second, or throughway without it.
    fn saturation(&self, kinds: &[Kind]) -> Result<f64, Failure> {
        let kind = if kinds.contains(&Kind::Coturn) { Kind::Coturn } else { Kind::Throughway };
        let server = Server::start(kind, &self.pair)?;
        let mut load = Load::start(&server, &self.pair, SATURATION.shape, 0)?;
        load.run(SATURATION.pace, WARM_UP)?;
        Ok(load.run(SATURATION.pace, RUN)?.per_second)
    }

    fn round(&self, kind: Kind, is_first: bool) -> Result<Round, Failure> {
        let mut round = Round::default();
        let time = if is_first { WARM_UP } else { RUN };
        let half = Pace::Rate { per_second: self.half_load, burst: 1 };
        let latency = Scenario { name: LATENCY, pace: half, ..SATURATION };
        let server = Server::start(kind, &self.pair)?;
        for (number, scenario) in (0..).zip(SCENARIOS.iter().chain([&latency])) {
            let is_near = kind != Kind::Stock && self.wants_near(scenario);
            let can = scenario.shape.over == Transport::Udp || kind.has_streams();
            if can && (is_near || self.wants(scenario.name)) {
                let measured = self.measure(&server, scenario, number, time, is_near && !is_first, &mut round);
                complain(kind, scenario.name, measured);
            }
        }
        drop(server);
        if self.wants(CROWD.name) || self.wants(MEMORY) {
            complain(kind, CROWD.name, self.measure_crowd(&Server::start(kind, &self.pair)?, time, &mut round));
        }
        Ok(round)
    }

    fn measure(
        &self,
        server: &Server,
        scenario: &Scenario,
        number: u8,
        time: Duration,
        is_near: bool,
        round: &mut Round,
    ) -> Result<(), Failure> {
        let mut load = Load::start(server, &self.pair, scenario.shape, number)?;
        let outcome = load.run(scenario.pace, time)?;
        round.outcomes.insert(scenario.name, outcome);
        if is_near {
            let saturation = load.saturation(outcome.per_second)?;
            let pace = Pace::Rate { per_second: saturation * NEARLY, burst: 1 };
            round.near.insert(scenario.name, (saturation, load.run(pace, time)?));
        }
        Ok(())
    }

    fn measure_crowd(&self, server: &Server, time: Duration, round: &mut Round) -> Result<(), Failure> {
        let before = server.resident_kib()?;
        let mut load = Load::start(server, &self.pair, CROWD.shape, 0)?;
        round.kib_per_allocation = Some((server.resident_kib()? - before) / f64::from(CROWD.shape.clients));
        if self.wants(CROWD.name) {
            round.outcomes.insert(CROWD.name, load.run(CROWD.pace, time)?);
        }
        Ok(())
    }

    fn print(&self, measured: &[(Kind, Vec<Round>)]) {
        tables::costs(SCENARIOS.iter().chain([&CROWD]).map(|it| it.name).filter(|name| self.wants(name)), measured);
        if self.wants(LATENCY) {
            tables::delays(LATENCY, self.half_load, measured);
        }
        if self.wants(MEMORY) {
            tables::memory(MEMORY, measured);
        }
        let near = SCENARIOS.iter().filter(|it| self.wants_near(it)).map(|it| it.name);
        tables::near(NEAR, near, measured);
    }
}

/// One server's failure doesn't keep the others from being measured.
fn complain(kind: Kind, name: &str, measured: Result<(), Failure>) {
    if let Err(error) = measured {
        eprintln!("{name}, {}: {error}", kind.name());
    }
}
