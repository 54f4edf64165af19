//! webrtc-rs `turn::server` as it comes, to be measured.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use turn::auth::AuthHandler;
use turn::auth::generate_auth_key;
use turn::relay::relay_static::RelayAddressGeneratorStatic;
use turn::server::Server;
use turn::server::config::ConnConfig;
use turn::server::config::ServerConfig;
use webrtc_util::vnet::net::Net;

use super::Failure;
use super::PASSWORD;
use super::REALM;

/// Serves until the process is killed.
pub(crate) fn serve(port: u16) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let conn = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let relay = RelayAddressGeneratorStatic {
            relay_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            address: "127.0.0.1".to_owned(),
            net: Arc::new(Net::new(None)),
        };
        let _server = Server::new(ServerConfig {
            conn_configs: vec![ConnConfig { conn: Arc::new(conn), relay_addr_generator: Box::new(relay) }],
            realm: REALM.to_owned(),
            auth_handler: Arc::new(OneUser),
            channel_bind_timeout: Duration::ZERO,
            alloc_close_notify: None,
        })
        .await?;
        std::future::pending().await
    })
}

struct OneUser;

impl AuthHandler for OneUser {
    fn auth_handle(&self, user: &str, realm: &str, _: SocketAddr) -> Result<Vec<u8>, turn::Error> {
        Ok(generate_auth_key(user, realm, PASSWORD))
    }
}
