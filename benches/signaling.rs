//! What signaling costs, beside others in the same run: server CPU per message, how long messages take, and memory for each
//! connection.
//!
//! `cargo bench --bench signaling` starts throughway, the tutorials' server on Node and PeerServer (npm `peer`) in turn, each
//! pinned to core 0, and loads them from core 1 by real sockets. Rounds alternate between the servers; the first of each is
//! dropped; medians are printed, and their ratios to the tutorial's server. Members come in pairs; a message is a candidate
//! of 200 bytes. Half of a rate is half of what a short warm-up had, or, of 10,000 members, the run before.
//!
//! `-- NAME...` runs what has a name that begins so: `cost`, `latency`, `tls`, `many`, `stalled`, `half-open`.
//!
//! Throughway runs with its defaults but for `signaling.limits.messages`, which is raised: what one member may send isn't
//! what is measured. It relays nothing.

#[path = "servers/cores.rs"]
mod cores;
#[path = "signaling/crowd.rs"]
mod crowd;
#[path = "servers/process.rs"]
mod process;
#[path = "signaling/servers.rs"]
mod servers;
#[path = "signaling/strangers.rs"]
mod strangers;
#[path = "signaling/tables.rs"]
mod tables;
#[path = "signaling/wire.rs"]
mod wire;

use std::time::Duration;

use throughway::net::host::raise_file_limit;

use self::crowd::Crowd;
use self::crowd::Outcome;
use self::crowd::Pace;
use self::process::Failure;
use self::process::Pair;
use self::process::certificate;
use self::process::now;
use self::process::pin_to;
use self::servers::Kind;
use self::servers::SETTLE;
use self::servers::Server;
use self::strangers::Nuisance;
use self::strangers::half_open;
use self::strangers::sign_in_times;

const ROUNDS: usize = 6;
/// How long a run takes: most of them; where there are many; and where it is to tell the rate alone.
const RUN: Duration = Duration::from_millis(1500);
const SHORT_RUN: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(400);

const MEMBERS: usize = 2_000;
const MANY: usize = 10_000;
const STALLED_AMONG: usize = 1_000;
const HALF_OPEN: usize = 1_000;
/// New members of which each is timed.
const NEWCOMERS: usize = 50;

/// What one round of one server gave.
struct Round {
    /// For each connection.
    idle_kib: f64,
    full: Outcome,
}

/// What throughway gave by itself.
enum Alone {
    Figures(Vec<f64>, &'static str),
    Runs(Vec<Outcome>),
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(());
    }
    raise_file_limit();
    pin_to(1)?;
    let pair = certificate()?;
    let wanted: Vec<_> = arguments.into_iter().filter(|argument| !argument.starts_with("--")).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted.as_str()));
    for (name, measure) in [
        ("cost", cost as fn(&Pair) -> Result<(), Failure>),
        ("latency", latency),
        ("tls", tls),
        ("many", many),
        ("stalled", stalled),
        ("half-open", half_opened),
    ] {
        // One failure doesn't keep the others from being measured.
        if wants(name)
            && let Err(error) = measure(&pair)
        {
            eprintln!("{name}: {error}");
        }
    }
    Ok(())
}

/// All servers: memory for each member, and CPU for each message.
fn cost(pair: &Pair) -> Result<(), Failure> {
    let mut measured: Vec<_> = Kind::found().into_iter().map(|kind| (kind, Vec::new())).collect();
    for number in 0..ROUNDS {
        for (kind, rounds) in &mut measured {
            let server = Server::start(*kind, pair)?;
            let before = server.process.resident_kib()?;
            let mut crowd = Crowd::gather(&server, MEMBERS)?;
            std::thread::sleep(SETTLE);
            let idle_kib = (server.process.resident_kib()? - before) / MEMBERS as f64;
            let full = crowd.run(Pace::PingPong, RUN)?;
            if number > 0 {
                rounds.push(Round { idle_kib, full });
            }
        }
    }
    tables::memory("idle, 2,000 members signed in", &measured);
    tables::runs("2,000 members, ping-pong", &runs(&measured, |round| round.full));
    Ok(())
}

/// All servers: how long messages take at half of the rate that each has just had in a short warm-up, and at half of what
/// the slowest did in the warm-up of its first round.
fn latency(pair: &Pair) -> Result<(), Failure> {
    let mut measured: Vec<_> = Kind::found().into_iter().map(|kind| (kind, Vec::new())).collect();
    let mut slowest = f64::INFINITY;
    for number in 0..ROUNDS {
        for (kind, rounds) in &mut measured {
            let server = Server::start(*kind, pair)?;
            let mut crowd = Crowd::gather(&server, MEMBERS)?;
            let full = crowd.run(Pace::PingPong, WARM_UP)?.per_second;
            if number == 0 {
                slowest = slowest.min(full);
            } else {
                let own = crowd.run(Pace::Rate(full / 2.0), SHORT_RUN)?;
                let even = crowd.run(Pace::Rate(slowest / 2.0), SHORT_RUN)?;
                rounds.push([own, even]);
            }
        }
    }
    tables::runs("2,000 members at half its warm-up's rate", &runs(&measured, |[own, _]| *own));
    tables::runs("at half the slowest one's warm-up's", &runs(&measured, |[_, even]| *even));
    Ok(())
}

/// One outcome of each round.
fn runs<R>(measured: &[(Kind, Vec<R>)], outcome: impl Fn(&R) -> Outcome) -> Vec<(Kind, Vec<Outcome>)> {
    measured.iter().map(|(kind, rounds)| (*kind, rounds.iter().map(&outcome).collect())).collect()
}

/// Memory of members inside TLS.
fn tls(pair: &Pair) -> Result<(), Failure> {
    let tls = wire::trust(pair)?;
    let mut kib = Vec::new();
    for number in 0..ROUNDS {
        let server = Server::start(Kind::Throughway, pair)?;
        let before = server.process.resident_kib()?;
        let connect = |member| wire::sign_in_securely(&tls, server.tls, member);
        let _members = (0..MEMBERS).map(connect).collect::<Result<Vec<_>, _>>()?;
        std::thread::sleep(SETTLE);
        if number > 0 {
            kib.push((server.process.resident_kib()? - before) / MEMBERS as f64);
        }
    }
    let figures = Alone::Figures(kib, "KiB/connection");
    tables::alone("throughway inside TLS", &[("idle, 2,000 members signed in", figures)]);
    Ok(())
}

/// Ten thousand members at once.
fn many(pair: &Pair) -> Result<(), Failure> {
    let (mut per_second, mut kib, mut full, mut half) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..ROUNDS {
        let server = Server::start(Kind::Throughway, pair)?;
        let (before, began) = (server.process.resident_kib()?, now());
        let mut crowd = Crowd::gather(&server, MANY)?;
        let took = now() - began;
        std::thread::sleep(SETTLE);
        let after = server.process.resident_kib()?;
        let ran = crowd.run(Pace::PingPong, if number > 0 { RUN } else { WARM_UP })?;
        if number > 0 {
            per_second.push(MANY as f64 / took.as_secs_f64());
            kib.push((after - before) / MANY as f64);
            half.push(crowd.run(Pace::Rate(ran.per_second / 2.0), RUN)?);
            full.push(ran);
        }
    }
    let lines = [
        ("connected and signed in", Alone::Figures(per_second, "/s")),
        ("idle", Alone::Figures(kib, "KiB/connection")),
        ("ping-pong", Alone::Runs(full)),
        ("at half of that rate", Alone::Runs(half)),
    ];
    tables::alone("throughway with 10,000 members", &lines);
    Ok(())
}

/// A thousand members at half load, beside one that is sent 8 KiB a thousand times a second, and reads or doesn't.
fn stalled(pair: &Pair) -> Result<(), Failure> {
    let (mut runs, mut cut) = ([Vec::new(), Vec::new()], Vec::new());
    for number in 0..ROUNDS {
        for (reads, runs) in [true, false].into_iter().zip(&mut runs) {
            let server = Server::start(Kind::Throughway, pair)?;
            let mut crowd = Crowd::gather(&server, STALLED_AMONG)?;
            let rate = crowd.run(Pace::PingPong, WARM_UP)?.per_second / 2.0;
            let nuisance = Nuisance::begin(&server, reads)?;
            let outcome = crowd.run(Pace::Rate(rate), 2 * RUN)?;
            let ended = nuisance.end()?;
            if number > 0 {
                runs.push(outcome);
                cut.extend((!reads).then_some(f64::from(ended)));
            }
        }
    }
    let [with, without] = runs;
    let lines = [
        ("beside one that reads", Alone::Runs(with)),
        ("beside one that does not", Alone::Runs(without)),
        ("readers cut meanwhile, and followed by another", Alone::Figures(cut, "")),
    ];
    tables::alone("throughway, 1,000 members at half load", &lines);
    Ok(())
}

/// How long signing in takes beside connections that go no further.
fn half_opened(pair: &Pair) -> Result<(), Failure> {
    let tls = wire::trust(pair)?;
    let mut times = [(); 2].map(|()| [Vec::new(), Vec::new()]);
    for number in 0..ROUNDS {
        for (count, times) in [0, HALF_OPEN].into_iter().zip(&mut times) {
            let server = Server::start(Kind::Throughway, pair)?;
            let _idlers = half_open(&server, &tls, count)?;
            let took = sign_in_times(&server, &tls, NEWCOMERS)?;
            if number > 0 {
                for (times, mut took) in times.iter_mut().zip(took) {
                    took.sort_by(f64::total_cmp);
                    times.extend(took);
                }
            }
        }
    }
    let [[plain, secure], [plain_beside, secure_beside]] = times;
    let ms = |times| Alone::Figures(times, "ms");
    let lines = [
        ("ws, alone", ms(plain)),
        ("ws, beside 1,000 half-open connections", ms(plain_beside)),
        ("wss, alone", ms(secure)),
        ("wss, beside 1,000 half-open connections", ms(secure_beside)),
    ];
    tables::alone("throughway, until a new member is signed in", &lines);
    Ok(())
}
