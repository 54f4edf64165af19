//! Whether this machine's firewall lets a port in, from what nftables lists as JSON.

use serde_json::Value;

use super::finding::Finding;

/// A packet from outside: nothing is known of it but this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    /// `udp` or `tcp`.
    pub(super) protocol: &'static str,
    /// Where it goes to.
    pub(super) port: u16,
}

/// What a firewall does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// In.
    Accepted,
    /// Away.
    Dropped,
    /// It depends on what isn't known here, such as where it comes from.
    Unsure,
}

/// How deep chains may call each other.
const MAX_DEPTH: usize = 16;

/// What is said of `what`, such as "udp 49160-65535", that stands for these packets.
pub(super) fn judge(rules: &Value, what: &str, packets: &[Packet]) -> Finding {
    let verdicts: Vec<_> = packets.iter().map(|packet| verdict(rules, *packet)).collect();
    let cure = format!("let {what} in; for nftables: nft add rule inet filter input {} accept", as_rule(what));
    if verdicts.contains(&Verdict::Dropped) {
        return Finding::fault("firewall", format!("this machine's firewall drops {what}"), cure);
    }
    if verdicts.contains(&Verdict::Unsure) {
        return Finding::warn("firewall", format!("this machine's firewall drops {what}, or some of it"), cure);
    }
    Finding::ok("firewall", format!("this machine's own lets {what} in"))
}

/// "udp 5-9" as a rule writes it.
fn as_rule(what: &str) -> String {
    what.replacen(' ', " dport ", 1)
}

/// What the rules do with one packet: each chain that hooks into the input has to let it in.
pub(super) fn verdict(rules: &Value, packet: Packet) -> Verdict {
    let rules = Rules(rules.get("nftables").and_then(Value::as_array).map_or(&[], Vec::as_slice));
    let hooked = rules.of("chain").filter(|chain| {
        text(chain, "hook") == "input"
            && text(chain, "type") == "filter"
            && matches!(text(chain, "family"), "ip" | "inet")
    });
    let verdicts: Vec<_> = hooked
        .map(|chain| match rules.walk(chain, text(chain, "name"), packet, 0) {
            Some(verdict) => verdict,
            None if text(chain, "policy") == "drop" => Verdict::Dropped,
            None => Verdict::Accepted,
        })
        .collect();
    let worst = [Verdict::Dropped, Verdict::Unsure].into_iter().find(|verdict| verdicts.contains(verdict));
    worst.unwrap_or(Verdict::Accepted)
}

struct Rules<'a>(&'a [Value]);

impl<'a> Rules<'a> {
    fn of(&self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter_map(move |entry| entry.get(kind))
    }

    /// What the chain called `name`, in the table of `like`, does; none: it returns.
    fn walk(&self, like: &Value, name: &str, packet: Packet, depth: usize) -> Option<Verdict> {
        if depth > MAX_DEPTH {
            return Some(Verdict::Unsure);
        }
        let is_here = |rule: &&Value| {
            text(rule, "chain") == name && ["family", "table"].iter().all(|key| rule.get(*key) == like.get(*key))
        };
        let mut may_be_accepted = false;
        for rule in self.of("rule").filter(is_here) {
            let expressions = rule.get("expr").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
            let matches = matches(expressions, packet);
            if matches == Some(false) {
                continue;
            }
            let called = expressions.iter().find_map(|one| {
                let target = one.get("jump").or_else(|| one.get("goto"))?;
                Some(self.walk(like, text(target, "target"), packet, depth + 1))
            });
            let has = |name: &str| expressions.iter().any(|one| one.get(name).is_some());
            let own = match (has("accept"), has("drop") || has("reject"), has("vmap")) {
                (true, ..) => Some(Verdict::Accepted),
                (_, true, _) => Some(Verdict::Dropped),
                (.., true) => Some(Verdict::Unsure),
                (false, false, false) => None,
            };
            match (called.flatten().or(own), matches) {
                (Some(Verdict::Accepted), None) | (Some(Verdict::Unsure), _) => may_be_accepted = true,
                // Some packets are turned away, as by a rate or a list: not all.
                (Some(Verdict::Dropped), None) | (None, _) => {}
                (Some(Verdict::Dropped), Some(_)) if may_be_accepted => return Some(Verdict::Unsure),
                (Some(verdict), Some(_)) => return Some(verdict),
            }
            if has("return") && matches == Some(true) {
                break;
            }
        }
        may_be_accepted.then_some(Verdict::Unsure)
    }
}

/// Whether a rule is about the packet; none: it may be.
fn matches(expressions: &[Value], packet: Packet) -> Option<bool> {
    let mut all = Some(true);
    for one in expressions.iter().filter_map(|expression| expression.get("match")) {
        match holds(one, packet) {
            Some(false) => return Some(false),
            None => all = None,
            Some(true) => {}
        }
    }
    // What iptables left for another library to judge.
    if expressions.iter().any(|one| one.get("xt").is_some()) { None } else { all }
}

fn holds(one: &Value, packet: Packet) -> Option<bool> {
    let (left, right) = (one.get("left")?, one.get("right")?);
    let is_negated = text(one, "op") == "!=";
    let found = if let Some(payload) = left.get("payload") {
        match (text(payload, "protocol"), text(payload, "field")) {
            (protocol @ ("udp" | "tcp"), _) if protocol != packet.protocol => return Some(false),
            ("udp" | "tcp" | "th", "dport") => port_in(right, packet.port),
            ("ip", "protocol") => word_in(right, packet.protocol),
            (_, _) => None,
        }
    } else if let Some(meta) = left.get("meta") {
        match text(meta, "key") {
            "l4proto" => word_in(right, packet.protocol),
            "iifname" | "iif" => word_in(right, "lo").filter(|is_lo| *is_lo).map(|_| false),
            "nfproto" => word_in(right, "ipv4"),
            _ => None,
        }
    } else if left.get("ct").is_some_and(|ct| text(ct, "key") == "state") {
        word_in(right, "new")
    } else {
        None
    };
    found.map(|found| found != is_negated)
}

fn port_in(right: &Value, port: u16) -> Option<bool> {
    let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
    if let Some(one) = number(right) {
        return Some(one == port);
    }
    if let Some([first, last]) = right.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return Some((number(first)?..=number(last)?).contains(&port));
    }
    let set = right.get("set").and_then(Value::as_array)?;
    let each: Vec<_> = set.iter().map(|one| port_in(one, port)).collect();
    if each.contains(&Some(true)) { Some(true) } else { each.into_iter().collect::<Option<Vec<_>>>().map(|_| false) }
}

fn word_in(right: &Value, word: &str) -> Option<bool> {
    match right {
        Value::String(one) if one.starts_with('@') => None,
        Value::String(one) => Some(one == word),
        Value::Array(list) => Some(list.iter().any(|one| one == word)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            right.get("set").and_then(|set| word_in(set, word))
        }
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Level;
    use super::*;

    fn ruleset(policy: &str, rules: &[Value]) -> Value {
        let chain = json!({ "chain": {
            "family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "policy": policy,
        } });
        let rule = |chain: &str, expr: &Value| json!({ "rule": { "family": "inet", "table": "filter", "chain": chain, "expr": expr } });
        let mut all = vec![chain];
        all.extend(rules.iter().map(|expr| rule("input", expr)));
        all.push(rule("web", &json!([dport("tcp", json!(443)), { "accept": null }])));
        json!({ "nftables": all })
    }

    fn dport(protocol: &str, right: Value) -> Value {
        json!({ "match": { "op": "==", "left": { "payload": { "protocol": protocol, "field": "dport" } }, "right": right } })
    }

    fn of(rules: &Value, protocol: &'static str, port: u16) -> Verdict {
        verdict(rules, Packet { protocol, port })
    }

    #[test]
    fn without_rules_all_is_let_in_and_by_policy_nothing_is() {
        assert_eq!(of(&json!({ "nftables": [] }), "udp", 1), Verdict::Accepted);
        assert_eq!(of(&ruleset("accept", &[]), "udp", 1), Verdict::Accepted);
        assert_eq!(of(&ruleset("drop", &[]), "udp", 1), Verdict::Dropped);
    }

    #[test]
    fn ports_ranges_sets_states_and_chains_are_understood() {
        let established = json!([
            { "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": ["established", "related"] } },
            { "accept": null },
        ]);
        let loopback = json!([
            { "match": { "op": "==", "left": { "meta": { "key": "iifname" } }, "right": "lo" } }, { "accept": null },
        ]);
        let rules = ruleset(
            "drop",
            &[
                established,
                loopback,
                json!([dport("udp", json!({ "range": [49160, 65535] })), { "accept": null }]),
                json!([dport("udp", json!({ "set": [3478, { "range": [5000, 5001] }] })), { "accept": null }]),
                json!([{ "jump": { "target": "web" } }]),
            ],
        );

        for (protocol, port, wanted) in [
            ("udp", 50_000, Verdict::Accepted),
            ("udp", 3478, Verdict::Accepted),
            ("udp", 5001, Verdict::Accepted),
            ("udp", 5002, Verdict::Dropped),
            ("tcp", 3478, Verdict::Dropped),
            ("tcp", 443, Verdict::Accepted),
            ("udp", 443, Verdict::Dropped),
        ] {
            assert_eq!(of(&rules, protocol, port), wanted, "{protocol} {port}");
        }
    }

    #[test]
    fn what_depends_on_the_source_is_unsure_and_an_explicit_drop_is_seen() {
        let from = json!({ "match": { "op": "==", "left": { "payload": { "protocol": "ip", "field": "saddr" } }, "right": "10.0.0.1" } });
        let some = ruleset("drop", &[json!([from, { "accept": null }])]);
        let dropped = ruleset("accept", &[json!([dport("udp", json!({ "range": [49160, 65535] })), { "drop": null }])]);

        assert_eq!(of(&some, "udp", 1), Verdict::Unsure);
        assert_eq!(of(&dropped, "udp", 50_000), Verdict::Dropped);
        assert_eq!(of(&dropped, "udp", 3478), Verdict::Accepted);
    }

    #[test]
    fn a_drop_is_a_fault_with_the_rule_to_add() {
        let packets = [Packet { protocol: "udp", port: 50_000 }];

        let fault = judge(&ruleset("drop", &[]), "udp 49160-65535", &packets);
        let fine = judge(&ruleset("accept", &[]), "udp 49160-65535", &packets);

        assert_eq!((fault.level, fine.level), (Level::Fault, Level::Ok));
        assert!(fault.cure.ends_with("nft add rule inet filter input udp dport 49160-65535 accept"), "{}", fault.cure);
    }
}
