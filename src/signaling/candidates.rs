//! Which addresses a step of a negotiation tells its recipient of: read from candidates and descriptions, strictly.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use serde_json::Value;

use crate::credentials::MAX_SIGNALED;
use crate::signaling::message::Payload;

/// The IP addresses of peers in `payload`, canonical, no more than a session remembers.
///
/// However a client packs them: every text in the JSON counts, line by line. Names (mDNS) and TCP candidates are no
/// address that a relay could reach.
pub fn addresses(payload: &Payload) -> Vec<IpAddr> {
    let mut found = Vec::new();
    if let Ok(json) = serde_json::from_str(payload.json()) {
        collect(&json, &mut found);
    }
    found
}

fn collect(json: &Value, found: &mut Vec<IpAddr>) {
    match json {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => {
            for ip in text.lines().filter_map(address).map(|ip| ip.to_canonical()) {
                if found.len() < MAX_SIGNALED && !found.contains(&ip) {
                    found.push(ip);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
    }
}

/// The address that one line of a description gives, or one candidate by itself.
fn address(line: &str) -> Option<IpAddr> {
    if let Some(connection) = line.strip_prefix("c=IN ") {
        return connection_address(connection);
    }
    candidate_address(line.strip_prefix("a=").unwrap_or(line).strip_prefix("candidate:")?)
}

/// Of a connection line (RFC 8866, section 5.7), unicast only.
fn connection_address(connection: &str) -> Option<IpAddr> {
    match connection.split_once(' ')? {
        ("IP4", ip) => ip.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        ("IP6", ip) => ip.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}

/// Of a candidate over UDP (RFC 8839, section 5.1).
fn candidate_address(candidate: &str) -> Option<IpAddr> {
    let mut fields = candidate.split(' ');
    let mut next = || fields.next();
    let (foundation, component, transport, priority) = (next()?, next()?, next()?, next()?);
    let (ip, port, typ, kind) = (next()?, next()?, next()?, next()?);
    let is_ice = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_right = (1..=32).contains(&foundation.len())
        && foundation.bytes().all(is_ice)
        && is_number(component)
        && component.parse::<u16>().is_ok_and(|component| (1..=256).contains(&component))
        && transport.eq_ignore_ascii_case("udp")
        && is_number(priority)
        && priority.parse::<u32>().is_ok()
        && is_number(port)
        && port.parse::<u16>().is_ok()
        && typ == "typ"
        && !kind.is_empty();
    if is_right { ip.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn in_json(json: &Value) -> Vec<String> {
        let payload = Payload::new(serde_json::from_str(&json.to_string()).unwrap());
        addresses(&payload).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn candidates_are_read_however_they_are_packed() {
        let line =
            "candidate:842163049 1 udp 1677729535 203.0.113.7 40678 typ srflx raddr 10.0.0.9 rport 40678 generation 0";
        let candidate = json!({ "candidate": line, "sdpMid": "0", "sdpMLineIndex": 0 });

        for packed in [
            candidate.clone(),
            json!(candidate.to_string()),
            json!(line),
            json!(format!("a={line}\r\n")),
            json!({ "type": "candidate", "payload": { "candidate": candidate } }),
        ] {
            assert_eq!(in_json(&packed), ["203.0.113.7"], "{packed}: without the related address");
        }
    }

    #[test]
    fn a_description_gives_its_candidates_and_connections_once_each() {
        let sdp = "v=0\r\no=- 1 2 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 192.0.2.3\r\nt=0 0\r\n\
                   m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP6 2001:db8::3\r\n\
                   a=candidate:1 1 UDP 2130706431 ::ffff:192.0.2.4 5000 typ host\r\n\
                   a=candidate:2 1 udp 2130706431 0a1b2c3d-0000-4000-8000-000000000000.local 5000 typ host\r\n\
                   a=candidate:3 1 tcp 1518280447 192.0.2.5 9 typ host tcptype active\r\n\
                   a=candidate:4 1 udp 41885439 192.0.2.4 5001 typ relay\n";

        assert_eq!(in_json(&json!({ "type": "offer", "sdp": sdp })), ["192.0.2.3", "2001:db8::3", "192.0.2.4"]);
    }

    #[test]
    fn what_is_no_candidate_gives_nothing() {
        for bad in [
            "candidate:1 1 udp 1 192.0.2.1 9",
            "candidate:1 1 udp 1 192.0.2.1 9 type host",
            "candidate:1 1 udp 1 192.0.2.1 65536 typ host",
            "candidate:1 1 udp 1 192.0.2.1 +9 typ host",
            "candidate:1 0 udp 1 192.0.2.1 9 typ host",
            "candidate:1 257 udp 1 192.0.2.1 9 typ host",
            "candidate:1 1 udp 4294967296 192.0.2.1 9 typ host",
            "candidate:1 1 sctp 1 192.0.2.1 9 typ host",
            "candidate: 1 udp 1 192.0.2.1 9 typ host",
            "candidate:1  1 udp 1 192.0.2.1 9 typ host",
            "candidate:1 1 udp 1 192.0.2 9 typ host",
            "candidate:1 1 udp 1 0xc0000201 9 typ host",
            " candidate:1 1 udp 1 192.0.2.1 9 typ host",
            "x=candidate:1 1 udp 1 192.0.2.1 9 typ host",
            "c=IN IP4 192.0.2.1/127",
            "c=IN IP4 2001:db8::1",
            "c=IN IP6 192.0.2.1",
            "c=IN IP4 example.org",
            "192.0.2.1",
            "",
        ] {
            assert_eq!(in_json(&json!(bad)), [""; 0], "{bad}");
        }
        assert_eq!(in_json(&json!(null)), [""; 0]);
    }

    #[test]
    fn no_more_are_read_than_a_session_remembers() {
        let many = |n: usize| format!("a=candidate:1 1 udp 1 10.0.{}.{} 9 typ host\n", n / 256, n % 256);

        assert_eq!(in_json(&json!((0..1000).map(many).collect::<String>())).len(), MAX_SIGNALED);
    }

    proptest! {
        #[test]
        fn no_text_brings_it_down(text in ".*", line in "(a=)?candidate:[ -~]{0,80}", connection in "c=IN [ -~]{0,40}") {
            in_json(&json!([text, line, connection]));
        }
    }
}
