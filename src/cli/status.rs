//! `throughway status`: who is there and what is relayed, from the running server.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use hyper::Method;
use hyper::StatusCode;
use serde_json::Value;
use serde_json::json;

use super::Failure;
use super::Loaded;
use super::control;
use crate::clock::Clock;
use crate::config::Config;

/// `throughway status`.
#[derive(clap::Args)]
#[command(after_help = "\
Rates are made from two answers, one second apart.")]
pub(super) struct Arguments {
    /// Print the server's own answer as JSON: totals, no rates
    #[arg(long)]
    json: bool,
    /// Again each second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// How far two answers are apart that make a rate.
const APART: Duration = Duration::from_secs(1);
/// How many names of a certificate there is room for in a line.
const MAX_NAMES: usize = 2;
/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) fn run(file: Option<&Path>, asked: &Arguments) -> Result<(), Failure> {
    let Loaded { config, .. } = Loaded::read(file)?;
    super::block_on(tell(&config, asked))?
}

async fn tell(config: &Config, asked: &Arguments) -> Result<(), Failure> {
    let clock = Clock::system();
    let mut last = (clock.now(), answer(config).await?);
    if asked.json && !asked.watch {
        return super::print(&format!("{}\n", last.1));
    }
    let is_drawn = asked.watch && !asked.json && std::io::stdout().is_terminal();
    loop {
        tokio::time::sleep(APART).await;
        let next = (clock.now(), answer(config).await?);
        let seconds = (next.0.monotonic - last.0.monotonic).as_secs_f64();
        let text = match asked.json {
            true => format!("{}\n", next.1),
            false => table(&last.1, &next.1, seconds, next.0.unix.as_secs()),
        };
        super::print(&format!("{}{text}", if is_drawn { CLEAR } else { "" }))?;
        if !asked.watch {
            return Ok(());
        }
        last = next;
    }
}

async fn answer(config: &Config) -> Result<Value, Failure> {
    match control::ask(config, Method::GET, "/status").await? {
        (StatusCode::OK, status) => Ok(status),
        (status, _) => Err(Failure::Ours(format!("the server answers {status}"))),
    }
}

/// What people read of `now`, with rates since `before`, `seconds` earlier; `unix` is the time now.
fn table(before: &Value, now: &Value, seconds: f64, unix: u64) -> String {
    let number = |status: &Value, at: &str| status.pointer(at).and_then(Value::as_u64).unwrap_or_default();
    let count = |at: &str| number(now, at);
    let rate = |at: &str| (number(now, at).saturating_sub(number(before, at))) as f64 / seconds.max(0.001);
    let mut rows = Vec::new();
    let version = now.get("version").and_then(Value::as_str).unwrap_or("?");
    let is = |at: &str| now.get(at).and_then(Value::as_bool).unwrap_or_default();
    let state = match (is("draining"), is("ready")) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let age = unix.saturating_sub(count("/startedAt"));
    rows.push(("server", format!("{version}, {state}, for {}", span(age))));
    rows.push(("members", listed(now.get("members"))));
    rows.push(("rooms", listed(now.get("rooms"))));
    rows.push(("connections", count("/connections").to_string()));
    rows.push(("relays", listed(now.get("allocations"))));
    for (row, at) in [("to peers", "toPeers"), ("to clients", "toClients"), ("inside", "hairpin")] {
        let (bytes, packets) = (format!("/relayed/{at}/bytes"), format!("/relayed/{at}/packets"));
        let (each, total) = (size(rate(&bytes)), size(count(&bytes) as f64));
        rows.push((row, format!("{each:>10}/s {:>7.0} packets/s {total:>12} in all", rate(&packets))));
    }
    let volume = |at: &str, limit: &str| {
        let limit = now.pointer(limit).and_then(Value::as_u64).map(|limit| format!(" of {}", size(limit as f64)));
        format!("{}{}", size(count(at) as f64), limit.unwrap_or_default())
    };
    let today = volume("/relayed/today", "/relayed/limitToday");
    let month = volume("/relayed/thisMonth", "/relayed/limitThisMonth");
    rows.push(("volume", format!("{today} today, {month} this month")));
    rows.push(("dropped", listed(now.get("drops"))));
    let [done, errors, wrong] = ["successes", "errors", "authFailures"].map(|what| count(&format!("/turn/{what}")));
    rows.push(("requests", format!("{done} done, {errors} answered with an error, {wrong} wrong credentials")));
    rows.push(("addresses", format!("{} told by STUN", count("/turn/bindings"))));
    rows.push(("sign-ins", format!("{} let in, {} refused", count("/signIns/ok"), count("/signIns/refused"))));
    rows.push(("certificate", certificate(now.get("certificate"), unix)));
    let mut text = String::new();
    // Writing to a String never fails.
    for (name, value) in rows {
        let _ = writeln!(text, "{name:12} {value}");
    }
    talkers(before, now, seconds, &mut text);
    text
}

/// Who has the most relayed, with what goes on since the last answer.
fn talkers(before: &Value, now: &Value, seconds: f64, text: &mut String) {
    let list = |status: &Value| status.get("talkers").and_then(Value::as_array).cloned().unwrap_or_default();
    // Whoever is of no gateway isn't signed in, and relays all the same.
    let word = |talker: &Value, key: &str| talker.get(key).and_then(Value::as_str).unwrap_or("TURN user").to_owned();
    let bytes = |talker: &Value| talker.get("bytes").and_then(Value::as_u64).unwrap_or_default();
    let earlier = list(before);
    let (all, none) = (list(now), json!(null));
    if all.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{:24} {:10} {:>6} {:>12} {:>12}", "top talkers", "kind", "relays", "in all", "a second");
    for talker in &all {
        let is_same = |other: &&Value| ["who", "session"].iter().all(|key| other.get(*key) == talker.get(*key));
        let since = bytes(talker).saturating_sub(bytes(earlier.iter().find(is_same).unwrap_or(&none)));
        let relays = talker.get("allocations").and_then(Value::as_u64).unwrap_or_default();
        let (total, each) = (size(bytes(talker) as f64), size(since as f64 / seconds.max(0.001)));
        let (who, over) = (printable(&word(talker, "who")), printable(&word(talker, "gateway")));
        let _ = writeln!(text, "{who:24} {over:10} {relays:>6} {total:>12} {each:>12}");
    }
}

/// A name as it can stand on a terminal: names are chosen by strangers.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).take(24).collect()
}

/// `{"udp": 2, "tcp": 0}` as `2: udp 2`; what is zero is left out.
fn listed(of: Option<&Value>) -> String {
    let counts: Vec<_> = of
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name, value.as_u64()?)))
        .collect();
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let parts: Vec<_> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    if parts.is_empty() { "0".to_owned() } else { format!("{total}: {}", parts.join(", ")) }
}

fn certificate(of: Option<&Value>, unix: u64) -> String {
    let Some(not_after) = of.and_then(|of| of.get("notAfter")).and_then(Value::as_u64) else {
        return "none".to_owned();
    };
    let source = of.and_then(|of| of.get("source")).and_then(Value::as_str).unwrap_or("?");
    let names = of.and_then(|of| of.get("names")).and_then(Value::as_array).into_iter().flatten();
    let names: Vec<_> = names.filter_map(Value::as_str).collect();
    let shown: Vec<_> = names.iter().take(MAX_NAMES).copied().map(printable).collect();
    let for_whom = match names.len().saturating_sub(MAX_NAMES) {
        0 if shown.is_empty() => String::new(),
        0 => format!(" for {}", shown.join(", ")),
        more => format!(" for {} and {more} more", shown.join(", ")),
    };
    match not_after.checked_sub(unix) {
        Some(left) => format!("{source}{for_whom}, good for {}", span(left)),
        None => format!("{source}{for_whom}, EXPIRED {} ago", span(unix - not_after)),
    }
}

fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes, 0);
    while amount >= 1024.0 && unit + 1 < units.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{amount:.0} {name}") } else { format!("{amount:.1} {name}") }
}

fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(to_peers: u64, talker: u64) -> Value {
        json!({
            "version": "0.1.0", "startedAt": 1000, "ready": true, "draining": false, "connections": 4,
            "members": { "json": 3, "socketio": 0 }, "rooms": { "json": 1 },
            "allocations": { "udp": 2, "tcp": 0, "tls": 0 },
            "relayed": {
                "toPeers": { "packets": to_peers / 100, "bytes": to_peers }, "toClients": { "packets": 0, "bytes": 0 },
                "hairpin": { "packets": 0, "bytes": 0 }, "today": 2048, "limitToday": null,
                "thisMonth": 1_u64 << 40, "limitThisMonth": 2_u64 << 40,
            },
            "drops": { "no-permission": 3 },
            "turn": { "successes": 5, "errors": 2, "bindings": 0, "authFailures": 1 },
            "signIns": { "ok": 3, "refused": 4 },
            "certificate": { "names": ["a.org"], "notAfter": 1000 + 90 * 86_400, "source": "files" },
            "talkers": [{ "who": "ali\x1bce", "gateway": "json", "session": "s", "allocations": 2, "bytes": talker, "packets": 1 }],
        })
    }

    #[test]
    fn the_table_has_totals_rates_and_talkers() {
        let text = table(&status(0, 0), &status(4096, 2048), 2.0, 1000 + 3700);

        for line in [
            "server       0.1.0, ready, for 1 h 1 min",
            "members      3: json 3",
            "relays       2: udp 2",
            "to peers        2.0 KiB/s      20 packets/s      4.0 KiB in all",
            "inside              0 B/s       0 packets/s          0 B in all",
            "volume       2.0 KiB today, 1.0 TiB of 2.0 TiB this month",
            "dropped      3: no-permission 3",
            "requests     5 done, 2 answered with an error, 1 wrong credentials",
            "sign-ins     3 let in, 4 refused",
            "certificate  files for a.org, good for 89 d 22 h",
            "ali?ce                   json            2      2.0 KiB      1.0 KiB",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is missing in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn what_an_older_or_newer_server_leaves_out_is_no_reason_to_fail() {
        let text = table(&json!({}), &json!({ "certificate": null, "talkers": "?" }), 0.0, 5);

        assert!(text.contains("certificate  none"), "{text}");
    }

    #[test]
    fn an_expired_certificate_stands_out() {
        let expired = json!({ "names": ["a.org", "b.org", "c.org"], "notAfter": 10, "source": "acme" });

        assert_eq!(certificate(Some(&expired), 100), "acme for a.org, b.org and 1 more, EXPIRED 1 min ago");
    }
}
