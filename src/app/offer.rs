//! What a configuration alone tells: the `iceServers` that it leads to, and which addresses the Internet reaches.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::Value;

use crate::address::PeerAddr;
use crate::config::Config;
use crate::config::value::Listen;
use crate::config::value::TlsMode;
use crate::credentials::IceCredential;
use crate::policy;
use crate::policy::Policy;
use crate::policy::Reach;
use crate::signaling::ice::Served;

/// The `iceServers` of a server with this configuration, for `host` unless `public_host` is set. Ports that are chosen at
/// each start (port 0) are left out.
pub fn ice_servers(config: &Config, host: &str, credential: &IceCredential) -> Value {
    let first =
        |lists: &[&[Listen]]| lists.iter().copied().flatten().map(|listen| listen.0.port()).find(|port| *port != 0);
    let (http, turn) = (&config.http, &config.turn);
    let served = Served {
        public_host: config.public_host.as_str().to_owned(),
        udp_ports: first(&[&turn.listen_udp]).into_iter().collect(),
        tcp_port: first(&[&turn.listen_tcp, &http.listen]),
        tls_port: first(&[&http.listen, &turn.listen_tls, &turn.listen_tcp]),
        is_trusted: Arc::new(AtomicBool::new(config.tls.mode != TlsMode::SelfSigned)),
        replaced: super::signaling::replaced(config),
    };
    served.ice_servers(host, credential)
}

/// Whether an address is one of the Internet's, and of no special range.
pub fn is_public(ip: IpAddr) -> bool {
    let everyone = Policy::new(policy::Settings::default());
    everyone.reach(PeerAddr::new(SocketAddr::new(ip, 9))) == Reach::Kernel
}
