//! What relaying costs, beside others in the same run: server CPU per datagram, datagrams a second, and what is lost.
//!
//! `cargo bench --bench relay` starts throughway, coturn and webrtc-rs `turn::server` in turn, each pinned to core 0, and
//! loads them from core 1 by real sockets. Rounds alternate between the servers; the first of each is dropped; medians
//! are printed, and their ratios to coturn's. `-- NAME` runs the scenarios whose names begin so.

#[path = "relay/generator.rs"]
mod generator;
mod servers;

use self::generator::Load;
use self::generator::Outcome;
use self::generator::Shape;
use self::servers::Failure;
use self::servers::Kind;
use self::servers::Server;
use self::servers::is_stock;
use self::servers::median;
use self::servers::pin_to;

const ROUNDS: usize = 6;

/// What is measured, by name.
const SCENARIOS: &[(&str, Shape)] = &[
    ("one flow, 1200 B", Shape::Echo { clients: 1, bytes: 1200, window: 64 }),
    ("200 flows, 160 B", Shape::Echo { clients: 200, bytes: 160, window: 4 }),
    ("200 flows, 1200 B", Shape::Echo { clients: 200, bytes: 1200, window: 4 }),
    ("bursts of 16 to peers", Shape::Bursts { clients: 200, bytes: 1200, from_clients: true }),
    ("bursts of 16 to clients", Shape::Bursts { clients: 200, bytes: 1200, from_clients: false }),
    ("relay to relay", Shape::Pairs { clients: 200, bytes: 1200, window: 4 }),
    ("Binding", Shape::Binding { clients: 200, window: 4 }),
];

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(());
    }
    if is_stock(&arguments)? {
        return Ok(());
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with("--"));
    let scenarios: Vec<_> =
        SCENARIOS.iter().filter(|(name, _)| wanted.is_none_or(|wanted| name.starts_with(wanted.as_str()))).collect();
    pin_to(1)?;
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.is_there()).collect();
    let mut measured: Vec<Vec<Vec<Outcome>>> = vec![vec![Vec::new(); kinds.len()]; scenarios.len()];
    for round in 0..ROUNDS {
        for (kind, of_kind) in kinds.iter().zip(0..) {
            let server = Server::start(*kind)?;
            for ((number, (_, shape)), of_scenario) in (0..).zip(&scenarios).zip(&mut measured) {
                let outcome = Load::start(&server, *shape, number)?.run()?;
                if round > 0
                    && let Some(outcomes) = of_scenario.get_mut::<usize>(of_kind)
                {
                    outcomes.push(outcome);
                }
            }
        }
    }
    print(&kinds, &scenarios, &measured);
    Ok(())
}

fn print(kinds: &[Kind], scenarios: &[&(&str, Shape)], measured: &[Vec<Vec<Outcome>>]) {
    println!(
        "{:24} {:14} {:>16} {:>14} {:>8} {:>10}",
        "scenario", "server", "CPU us/datagram", "datagrams/s", "lost", "to coturn"
    );
    for ((name, _), of_scenario) in scenarios.iter().zip(measured) {
        let cpu = |outcomes: &[Outcome]| median(outcomes.iter().map(|it| it.cpu_us).collect());
        let coturn = kinds.iter().zip(of_scenario).find(|(kind, _)| **kind == Kind::Coturn);
        let coturn = coturn.map_or(f64::NAN, |(_, outcomes)| cpu(outcomes));
        for (kind, outcomes) in kinds.iter().zip(of_scenario) {
            let rate = median(outcomes.iter().map(|it| it.per_second).collect());
            let lost = median(outcomes.iter().map(|it| it.lost).collect());
            println!(
                "{name:24} {:14} {:>16.2} {rate:>14.0} {:>7.1}% {:>10.2}",
                kind.name(),
                cpu(outcomes),
                lost * 100.0,
                cpu(outcomes) / coturn
            );
        }
    }
}
