//! What is printed.

use super::Alone;
use super::Round;
use crate::crowd::Outcome;
use crate::process::median;
use crate::servers::Kind;

/// What idle members take, for each server, with its ratio to the tutorial's.
pub(crate) fn memory(title: &str, measured: &[(Kind, Vec<Round>)]) {
    println!("\n{title:44} {:>14} {:>11}", "KiB/connection", "to tutorial");
    let of = |rounds: &[Round]| median(rounds.iter().map(|round| round.idle_kib).collect());
    let tutorial = measured.iter().find(|(kind, _)| *kind == Kind::Tutorial).map(|(_, rounds)| of(rounds));
    for (kind, rounds) in measured {
        println!("  {:42} {:>14.2} {:>11.2}", kind.name(), of(rounds), of(rounds) / tutorial.unwrap_or(f64::NAN));
    }
}

/// What runs gave, for each server.
pub(crate) fn runs(title: &str, measured: &[(Kind, Vec<Outcome>)]) {
    println!(
        "\n{title:44} {:>14} {:>11} {:>11} {:>6} {:>8} {:>8} {:>8} {:>6}",
        "CPU us/message", "to tutorial", "messages/s", "busy", "p50 us", "p99", "p99.9", "lost"
    );
    let tutorial = measured.iter().find(|(kind, _)| *kind == Kind::Tutorial).map(|(_, outcomes)| cpu(outcomes));
    for (kind, outcomes) in measured {
        line(kind.name(), outcomes, tutorial.unwrap_or(f64::NAN));
    }
}

/// What has throughway alone.
pub(crate) fn alone(title: &str, lines: &[(&str, Alone)]) {
    println!("\n{title}");
    for (name, alone) in lines {
        match alone {
            Alone::Figures(values, unit) => {
                let most = values.iter().copied().fold(f64::NAN, f64::max);
                let least = values.iter().copied().fold(f64::NAN, f64::min);
                println!("  {name:56} {:>14.2} {unit}, {least:.2} to {most:.2} in all rounds", median(values.clone()));
            }
            Alone::Runs(outcomes) => {
                let of = |value: fn(&Outcome) -> f64| median(outcomes.iter().map(value).collect());
                println!(
                    "  {name:42} {:>13.2} us/message {:>9.0}/s {:>5.0}% busy, p50 {:.0} us, p99 {:.0}, p99.9 {:.0}, {:.2}% lost",
                    of(|it| it.cpu_us),
                    of(|it| it.per_second),
                    of(|it| 100.0 * it.busy),
                    of(|it| it.delays_us[0]),
                    of(|it| it.delays_us[1]),
                    of(|it| it.delays_us[2]),
                    of(lost),
                );
                doubts(outcomes);
            }
        }
    }
}

fn line(name: &str, outcomes: &[Outcome], tutorial: f64) {
    let of = |value: fn(&Outcome) -> f64| median(outcomes.iter().map(value).collect());
    println!(
        "  {name:42} {:>14.2} {:>11.2} {:>11.0} {:>5.0}% {:>8.0} {:>8.0} {:>8.0} {:>5.2}%",
        cpu(outcomes),
        cpu(outcomes) / tutorial,
        of(|it| it.per_second),
        of(|it| 100.0 * it.busy),
        of(|it| it.delays_us[0]),
        of(|it| it.delays_us[1]),
        of(|it| it.delays_us[2]),
        of(lost),
    );
    doubts(outcomes);
}

fn cpu(outcomes: &[Outcome]) -> f64 {
    median(outcomes.iter().map(|it| it.cpu_us).collect())
}

fn lost(outcome: &Outcome) -> f64 {
    100.0 * outcome.sent.saturating_sub(outcome.received) as f64 / outcome.sent.max(1) as f64
}

/// Says what else is in the figures, so that nobody blames the server for it, or praises it.
fn doubts(outcomes: &[Outcome]) {
    let made = outcomes.iter().fold(1.0_f64, |made, outcome| made.min(outcome.made));
    let foreign = outcomes.iter().fold(0.0_f64, |foreign, outcome| foreign.max(outcome.foreign));
    if made < 0.99 {
        println!("    ^ the generator could send {:.1} % of what was to be sent in the worst round", made * 100.0);
    }
    if foreign > 0.03 {
        println!("    ^ others had {:.0} % of the server's core in the worst round", foreign * 100.0);
    }
}
