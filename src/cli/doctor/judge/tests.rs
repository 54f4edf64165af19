use super::super::finding::Level;
use super::*;

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn addresses(resolved: &[&str], local: &[&str], external: &[&str]) -> Addresses {
    let external = external.iter().map(|entry| entry.parse().unwrap()).collect();
    Addresses { resolved: ips(resolved), local: ips(local), external }
}

/// Level, a part of what was found, and a part of the cure.
fn is(finding: &Finding, level: Level, found: &str, cure: &str) {
    assert_eq!(finding.level, level, "{finding:?}");
    assert!(finding.found.contains(found) && finding.cure.contains(cure), "{finding:?}");
}

#[test]
fn a_name_leads_here_or_the_finding_says_which_record_to_change() {
    let find =
        |resolved: &[&str], local: &[&str], external: &[&str]| dns("a.org", &addresses(resolved, local, external));

    is(&find(&["9.9.9.9"], &["9.9.9.9"], &[]), Level::Ok, "leads here", "");
    is(&find(&["9.9.9.9"], &["10.0.0.4"], &["9.9.9.9"]), Level::Ok, "leads here", "");
    is(&find(&[], &["9.9.9.9"], &[]), Level::Fault, "has no address", "names 9.9.9.9");
    is(&find(&["8.8.8.8"], &["9.9.9.9"], &[]), Level::Fault, "leads to 8.8.8.8", "record name 9.9.9.9");
    is(&find(&["9.9.9.9", "8.8.8.8"], &["9.9.9.9"], &[]), Level::Fault, "leads to 8.8.8.8", "");
    is(&find(&["8.8.8.8"], &["10.0.0.4"], &[]), Level::Fault, "8.8.8.8", "turn.external_ip = [\"8.8.8.8\"]");
    is(&find(&["127.0.1.1"], &["127.0.0.1", "9.9.9.9"], &[]), Level::Warn, "/etc/hosts", "others need 9.9.9.9");
}

#[test]
fn an_external_address_is_the_one_that_the_name_leads_to() {
    let find = |relayed: &str, resolved: &[&str], external: &[&str]| {
        external_ip(relayed.parse().ok(), &addresses(resolved, &["10.0.0.4"], external))
    };

    is(&find("9.9.9.9", &["9.9.9.9"], &["9.9.9.9"]), Level::Ok, "9.9.9.9", "");
    is(
        &find("8.8.8.8", &["9.9.9.9"], &["8.8.8.8"]),
        Level::Fault,
        "as 8.8.8.8, and public_host leads to 9.9.9.9",
        "turn.external_ip",
    );
    is(&find("8.8.8.8", &["127.0.0.1"], &["8.8.8.8"]), Level::Fault, "leads to 127.0.0.1", "");
    is(&find("10.0.0.4", &["9.9.9.9"], &[]), Level::Fault, "nobody on the Internet", "[\"9.9.9.9/10.0.0.4\"]");
    is(&find("10.0.0.4", &[], &[]), Level::Warn, "good for this network", "");
    is(&find("9.9.9.9", &[], &["9.9.9.9/10.0.0.5"]), Level::Fault, "10.0.0.5", "10.0.0.4");
    is(&find("", &[], &[]), Level::Skip, "no relay was granted", "");
}

#[test]
fn half_of_ipv6_is_worse_than_none() {
    let six = addresses(&["9.9.9.9", "2620:fe::fe"], &["9.9.9.9", "2620:fe::fe"], &[]);
    let four = addresses(&["9.9.9.9"], &["9.9.9.9", "2620:fe::fe"], &[]);
    let none = addresses(&["9.9.9.9"], &["9.9.9.9"], &[]);

    is(&ipv6("a.org", &six, true, Some(true)), Level::Ok, "served over IPv6", "");
    is(&ipv6("a.org", &six, false, None), Level::Fault, "no listener is bound to IPv6", "AAAA");
    is(&ipv6("a.org", &six, true, Some(false)), Level::Fault, "nothing answers", "firewall");
    is(&ipv6("a.org", &four, true, None), Level::Warn, "has no IPv6 address", "AAAA");
    is(&ipv6("a.org", &none, true, None), Level::Ok, "not used", "");
}

#[test]
fn a_certificate_is_judged_as_a_browser_does_and_each_fault_has_its_cure() {
    const DAY: u64 = 86_400;
    let now = 1000 * DAY;
    let good = Shown {
        names: vec!["a.org".into()],
        not_before: now - DAY,
        not_after: now + 60 * DAY,
        is_for_name: true,
        ..Shown::default()
    };
    let find = |shown: Shown, mode| certificate("a.org", &shown, mode, now);
    let files = Some(TlsMode::Files);

    is(&find(good.clone(), files), Level::Ok, "for a.org, trusted, good for 60 days", "");
    is(
        &find(Shown { not_after: now - 3 * DAY, ..good.clone() }, files),
        Level::Fault,
        "expired 3 days ago",
        "tls.certificate",
    );
    is(&find(Shown { not_after: now - DAY, ..good.clone() }, Some(TlsMode::Acme)), Level::Fault, "expired", "log");
    is(&find(Shown { not_after: now + 3 * DAY, ..good.clone() }, files), Level::Warn, "expires in 3 days", "renewed");
    is(&find(Shown { not_before: now + DAY, ..good.clone() }, files), Level::Fault, "isn't good for another", "clock");
    is(
        &find(Shown { is_for_name: false, ..good.clone() }, files),
        Level::Fault,
        "for a.org, not for a.org",
        "get one for",
    );
    is(&find(Shown { is_self_signed: true, ..good.clone() }, None), Level::Warn, "self-signed", "acme");
    is(&find(Shown { untrusted: Some("who?".into()), ..good }, files), Level::Fault, "who?", "whole chain");
}

#[test]
fn clocks_may_be_seconds_apart_and_no_more() {
    is(&clock("x", 1000, 1003), Level::Ok, "agrees", "");
    is(&clock("x", 1000, 1030), Level::Warn, "30 s behind", "NTP");
    is(&clock("x", 10_000, 1000), Level::Fault, "2 h ahead of", "NTP");
}

#[test]
fn buffers_and_files_are_enough_or_the_cure_has_the_numbers() {
    let asked = 1 << 20;

    is(&buffers(Some(asked), Some(4 << 20), asked), Level::Ok, "1024 KiB", "");
    is(&buffers(Some(212_992), Some(asked), asked), Level::Warn, "208 KiB to receive", "rmem_max=1048576");
    is(&buffers(Some(8192), Some(asked), asked), Level::Fault, "8 KiB to receive", "sysctl");
    is(&buffers(None, Some(1), asked), Level::Skip, "", "");
    is(&files(Some(256), "the server"), Level::Fault, "256 files", "LimitNOFILE");
    is(&files(Some(1024), "the server"), Level::Warn, "1024", "LimitNOFILE");
    is(&files(Some(1 << 20), "the server"), Level::Ok, "", "");
    is(&files(None, "the server"), Level::Skip, "", "");
}

#[test]
fn a_proxy_that_drops_upgrades_is_told_from_a_server_that_refuses() {
    is(&upgrade("wss://a/ws", Ok(101), ""), Level::Ok, "upgrades", "");
    is(&upgrade("wss://a/ws", Ok(400), "nginx"), Level::Fault, "nginx answered", "proxy_set_header Upgrade");
    is(&upgrade("wss://a/ws", Ok(403), ""), Level::Warn, "refuses", "public_host");
    is(&upgrade("wss://a/ws", Err("refused".into()), ""), Level::Fault, "refused", "listener");
}

#[test]
fn what_fails_is_a_fault_with_a_cure_and_what_works_needs_none() {
    let failed = Err("allocate: error 401: Unauthorized".to_owned());

    is(&relay("udp", &failed), Level::Fault, "401", "throughway reload");
    is(&relay("udp", &Err("no answer from x".into())), Level::Fault, "", "listener");
    is(&relay("udp", &Err("error 508".into())), Level::Fault, "", "turn.relay_ports");
    is(&relay("udp", &Ok("1 ms".into())), Level::Ok, "over udp: 1 ms", "");
    is(&listener("udp 1", "turn.listen_udp", &Err("no answer".into())), Level::Fault, "turn.listen_udp", "firewall");
    is(&state("/x", &Err("no".into())), Level::Fault, "/x", "STATE_DIRECTORY");
    is(&relay_ports("2-3", &Err("lost".into())), Level::Fault, "lost", "open udp 2-3");
}
