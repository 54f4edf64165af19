//! The `iceServers` that a session is handed: only what is served, under the name the client reached it by.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;

use crate::address::host_in_url;
use crate::credentials::IceCredential;

/// What this process serves, as far as ICE cares. Credentials may stand in a replaced list: no log shows any of it.
#[derive(Clone, Default)]
pub struct Served {
    /// The host name or address to announce; empty: the one that the client used.
    pub public_host: String,
    /// Where STUN and TURN are served over UDP; clients are handed the first one.
    pub udp_ports: Vec<u16>,
    /// Where TURN is served over TCP.
    pub tcp_port: Option<u16>,
    /// Where TURN is served over TLS.
    pub tls_port: Option<u16>,
    /// Whether browsers accept its certificate at the moment: otherwise clients aren't handed it.
    pub is_trusted: Arc<AtomicBool>,
    /// Replaces the list (`turn.ice_servers`), for port mappings and proxies that this process can't know of.
    pub replaced: Option<Value>,
}

impl Served {
    /// The list for one session, ready for `RTCPeerConnection`; `request_host` is the host as its client reached it.
    ///
    /// In a replaced list, TURN servers without credentials of their own get the session's.
    pub fn ice_servers(&self, request_host: &str, credential: &IceCredential) -> Value {
        if let Some(replaced) = &self.replaced {
            return with_credentials(replaced.clone(), credential);
        }
        let host = if self.public_host.is_empty() { request_host } else { &self.public_host };
        let host = host_in_url(host);
        let udp_port = self.udp_ports.first().copied();
        let tls_port = self.tls_port.filter(|_| self.is_trusted.load(Ordering::Relaxed));
        let stun = udp_port.map(|port| json!({ "urls": [format!("stun:{host}:{port}")] }));
        let ways = [("turn", udp_port, "udp"), ("turn", self.tcp_port, "tcp"), ("turns", tls_port, "tcp")];
        let urls: Vec<_> = ways
            .into_iter()
            .filter_map(|(scheme, port, transport)| Some(format!("{scheme}:{host}:{}?transport={transport}", port?)))
            .collect();
        let turn = (!urls.is_empty())
            .then(|| json!({ "urls": urls, "username": credential.username, "credential": credential.password }));
        stun.into_iter().chain(turn).collect()
    }

    /// What the list leaves out and the network check wants to know: every UDP port, as two of them tell the kind of NAT,
    /// and why there is `turns` or none: "served", "self-signed", "off", or "replaced" with the list, which then says all.
    pub fn particulars(&self) -> Value {
        let turns = match (&self.replaced, self.tls_port, self.is_trusted.load(Ordering::Relaxed)) {
            (Some(_), ..) => return json!({ "udp": [], "turns": "replaced" }),
            (None, None, _) => "off",
            (None, Some(_), false) => "self-signed",
            (None, Some(_), true) => "served",
        };
        json!({ "udp": self.udp_ports, "turns": turns })
    }
}

fn with_credentials(mut servers: Value, credential: &IceCredential) -> Value {
    for server in servers.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        let is_turn = |url: &Value| url.as_str().is_some_and(|url| url.starts_with("turn"));
        let turn = match server.get("urls") {
            Some(Value::Array(urls)) => urls.iter().any(is_turn),
            Some(url) => is_turn(url),
            None => false,
        };
        if turn && !server.contains_key("username") {
            server.insert("username".into(), credential.username.as_str().into());
            server.insert("credential".into(), credential.password.as_str().into());
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn trusted() -> Arc<AtomicBool> {
        Arc::new(AtomicBool::new(true))
    }

    fn credential() -> IceCredential {
        IceCredential { username: "1:s".into(), password: "p".into(), lifetime: Duration::from_secs(1) }
    }

    #[test]
    fn the_list_names_the_host_as_reached_and_the_credential() {
        let served = Served { udp_ports: vec![3478, 8443], ..Served::default() };

        assert_eq!(
            served.ice_servers("2001:db8::1", &credential()),
            json!([
                { "urls": ["stun:[2001:db8::1]:3478"] },
                { "urls": ["turn:[2001:db8::1]:3478?transport=udp"], "username": "1:s", "credential": "p" },
            ])
        );
    }

    #[test]
    fn the_public_host_comes_first_and_nothing_served_is_nothing_listed() {
        let served = Served { public_host: "example.org".into(), udp_ports: vec![1], ..Served::default() };

        assert_eq!(served.ice_servers("10.0.0.1", &credential())[0]["urls"][0], "stun:example.org:1");
        assert_eq!(Served::default().ice_servers("localhost", &credential()), json!([]));
    }

    #[test]
    fn streams_follow_datagrams_and_only_what_is_served_is_listed() {
        let all = Served {
            udp_ports: vec![1],
            tcp_port: Some(2),
            tls_port: Some(3),
            is_trusted: trusted(),
            ..Served::default()
        };
        let untrusted = Served { is_trusted: Arc::default(), ..all.clone() };
        let tcp_only = Served { tcp_port: Some(2), ..Served::default() };

        assert_eq!(
            all.ice_servers("a", &credential())[1]["urls"],
            json!(["turn:a:1?transport=udp", "turn:a:2?transport=tcp", "turns:a:3?transport=tcp"])
        );
        assert_eq!(
            untrusted.ice_servers("a", &credential())[1]["urls"],
            json!(["turn:a:1?transport=udp", "turn:a:2?transport=tcp"])
        );
        assert_eq!(
            tcp_only.ice_servers("a", &credential()),
            json!([{ "urls": ["turn:a:2?transport=tcp"], "username": "1:s", "credential": "p" }])
        );
    }

    #[test]
    fn the_particulars_say_every_udp_port_and_why_there_is_turns_or_none() {
        let off = Served { udp_ports: vec![1, 2], ..Served::default() };
        let self_signed = Served { tls_port: Some(3), ..off.clone() };
        let served = Served { is_trusted: trusted(), ..self_signed.clone() };
        let replaced = Served { replaced: Some(json!([])), ..served.clone() };

        assert_eq!(off.particulars(), json!({ "udp": [1, 2], "turns": "off" }));
        assert_eq!(self_signed.particulars()["turns"], "self-signed");
        assert_eq!(served.particulars()["turns"], "served");
        assert_eq!(replaced.particulars(), json!({ "udp": [], "turns": "replaced" }));
    }

    #[test]
    fn a_replaced_list_keeps_its_own_credentials_and_gets_ours_where_it_has_none() {
        let replaced = json!([
            { "urls": "stun:a" },
            { "urls": "turn:b" },
            { "urls": ["turns:c"], "username": "u", "credential": "c" },
        ]);
        let served = Served { replaced: Some(replaced), ..Served::default() };

        assert_eq!(
            served.ice_servers("ignored", &credential()),
            json!([
                { "urls": "stun:a" },
                { "urls": "turn:b", "username": "1:s", "credential": "p" },
                { "urls": ["turns:c"], "username": "u", "credential": "c" },
            ])
        );
    }
}
