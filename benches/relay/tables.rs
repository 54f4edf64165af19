//! What is printed.

use super::Round;
use crate::generator::Outcome;
use crate::servers::Kind;
use crate::servers::median;

type Measured = [(Kind, Vec<Round>)];

/// CPU per datagram and what belongs to it.
pub(crate) fn costs(names: impl Iterator<Item = &'static str>, measured: &Measured) {
    let mut is_headed = false;
    for name in names {
        if !std::mem::replace(&mut is_headed, true) {
            println!(
                "\n{:24} {:12} {:>15} {:>12} {:>7} {:>6} {:>9}",
                "scenario", "server", "CPU us/datagram", "datagrams/s", "lost", "busy", "to coturn"
            );
        }
        let coturn = measured.iter().find(|(kind, _)| *kind == Kind::Coturn).and_then(|(_, rounds)| cpu(rounds, name));
        for (kind, rounds) in measured {
            let Some(cpu) = cpu(rounds, name) else {
                println!("{name:24} {:12} {:>15}", kind.name(), "-");
                continue;
            };
            let of = |value: fn(&Outcome) -> f64| median(outcomes(rounds, name).map(value).collect());
            println!(
                "{name:24} {:12} {cpu:>15.2} {:>12.0} {:>6.2}% {:>5.0}% {:>9.2}",
                kind.name(),
                of(|it| it.per_second),
                of(|it| 100.0 * it.lost as f64 / it.sent.max(1) as f64),
                of(|it| 100.0 * it.busy),
                cpu / coturn.unwrap_or(f64::NAN),
            );
            doubts(outcomes(rounds, name));
        }
    }
}

/// The round trip of a client's datagrams.
pub(crate) fn delays(title: &str, per_second: f64, measured: &Measured) {
    println!("\n{title}: round trips by a peer in us, {per_second:.0} datagrams/s relayed");
    println!("{:24} {:12} {:>8} {:>8} {:>8} {:>7} {:>6}", "", "server", "p50", "p99", "p99.9", "lost", "busy");
    for (kind, rounds) in measured {
        let of = |value: fn(&Outcome) -> f64| median(outcomes(rounds, title).map(value).collect());
        println!(
            "{:24} {:12} {:>8.0} {:>8.0} {:>8.0} {:>6.2}% {:>5.0}%",
            "",
            kind.name(),
            of(|it| it.delays_us[0]),
            of(|it| it.delays_us[1]),
            of(|it| it.delays_us[2]),
            of(|it| 100.0 * it.lost as f64 / it.sent.max(1) as f64),
            of(|it| 100.0 * it.busy),
        );
        doubts(outcomes(rounds, title));
    }
}

pub(crate) fn memory(title: &str, measured: &Measured) {
    println!("\n{title}: resident, for each of 5,000 allocations with a channel");
    for (kind, rounds) in measured {
        let kib = median(rounds.iter().filter_map(|round| round.kib_per_allocation).collect());
        println!("{:24} {:12} {kib:>8.1} KiB", "", kind.name());
    }
}

/// What throughway lost near saturation.
pub(crate) fn near(title: &str, names: impl Iterator<Item = &'static str>, measured: &Measured) {
    println!("\n{title}, throughway:");
    println!(
        "{:24} {:>12} {:>12} {:>12} {:>12} {:>6}",
        "", "datagrams/s", "sent in all", "lost in all", "worst round", "busy"
    );
    let Some((_, rounds)) = measured.iter().find(|(kind, _)| *kind == Kind::Throughway) else { return };
    for name in names {
        let outcomes = || rounds.iter().filter_map(|round| round.near.get(name));
        println!(
            "{name:24} {:>12.0} {:>12} {:>12} {:>12} {:>5.0}%",
            median(outcomes().map(|it| it.per_second).collect()),
            outcomes().map(|it| it.sent).sum::<u64>(),
            outcomes().map(|it| it.lost).sum::<u64>(),
            outcomes().map(|it| it.lost).max().unwrap_or_default(),
            median(outcomes().map(|it| 100.0 * it.busy).collect()),
        );
        doubts(outcomes());
    }
}

fn cpu(rounds: &[Round], name: &str) -> Option<f64> {
    outcomes(rounds, name).next()?;
    Some(median(outcomes(rounds, name).map(|it| it.cpu_us).collect()))
}

fn outcomes<'a>(rounds: &'a [Round], name: &'a str) -> impl Iterator<Item = &'a Outcome> {
    rounds.iter().filter_map(move |round| round.outcomes.get(name))
}

/// Says what else is in the figures, so that nobody blames the server for it, or praises it.
fn doubts<'a>(outcomes: impl Iterator<Item = &'a Outcome>) {
    let (mut made, mut foreign, mut unread) = (1.0_f64, 0.0_f64, 0);
    for outcome in outcomes {
        made = made.min(outcome.made);
        foreign = foreign.max(outcome.foreign);
        unread += outcome.unread;
    }
    if made < 0.99 {
        println!(
            "{:24} ^ the generator could send {:.1} % of what was to be sent in the worst round",
            "",
            made * 100.0
        );
    }
    if foreign > 0.03 {
        println!("{:24} ^ others had {:.0} % of the server's core in the worst round", "", foreign * 100.0);
    }
    if unread > 0 {
        println!("{:24} ^ {unread} more came through, and the generator's own sockets were full", "");
    }
}
