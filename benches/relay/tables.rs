//! What is printed.

use super::Round;
use crate::generator::KEPT_UP;
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

/// What was lost near saturation, and where.
pub(crate) fn near(title: &str, names: impl Iterator<Item = &'static str>, measured: &Measured) {
    let mut is_headed = false;
    for name in names {
        if !std::mem::replace(&mut is_headed, true) {
            println!("\n{title}: paced evenly; datagrams lost in all rounds, and where sockets were too full for them");
            println!(
                "{:24} {:12} {:>12} {:>12} {:>12} {:>6} {:>9} {:>9} {:>9} {:>9} {:>11}",
                "",
                "server",
                "saturation/s",
                "sent/s",
                "sent in all",
                "busy",
                "lost",
                "listener",
                "relayed",
                "elsewhere",
                "worst round"
            );
        }
        for (kind, rounds) in measured {
            let outcomes = || rounds.iter().filter_map(|round| round.near.get(name));
            if outcomes().next().is_none() {
                continue;
            }
            let of = |value: fn(&(f64, Outcome)) -> f64| median(outcomes().map(value).collect());
            let all = |value: fn(&Outcome) -> u64| outcomes().map(|(_, it)| value(it)).sum::<u64>();
            let (lost, listener, relayed) = (all(|it| it.lost), all(|it| it.lost_at[0]), all(|it| it.lost_at[1]));
            println!(
                "{name:24} {:12} {:>12.0} {:>12.0} {:>12} {:>5.0}% {lost:>9} {listener:>9} {relayed:>9} {:>9} {:>11}",
                kind.name(),
                of(|(saturation, _)| *saturation),
                of(|(_, it)| it.per_second),
                all(|it| it.sent),
                of(|(_, it)| 100.0 * it.busy),
                lost.saturating_sub(listener + relayed),
                outcomes().map(|(_, it)| it.lost).max().unwrap_or_default(),
            );
            doubts(outcomes().map(|(_, outcome)| outcome));
        }
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
    if made < KEPT_UP {
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
