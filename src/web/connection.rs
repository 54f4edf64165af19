//! What every handler may know of the connection a request came by, as request extensions.

use std::net::SocketAddr;

use axum::extract::Request;
use tokio_util::sync::CancellationToken;

/// The connection, set by the listener on every request (`Extension<Connection>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The client, canonical; behind a trusted proxy the address that it forwards, with port 0.
    pub remote: SocketAddr,
    /// The address of this server that the client reached.
    pub local: SocketAddr,
}

impl Connection {
    /// What to tell the client of a request that has none.
    pub(super) const NOWHERE: &str = "this connection came from nowhere";

    /// That of a request; none is a bug of ours.
    pub(super) fn of(request: &Request) -> Option<&Self> {
        let connection = request.extensions().get();
        debug_assert!(connection.is_some(), "the listener says of every request where it came from");
        connection
    }
}

/// The host name or IP address that the client used, set on every request (`Extension<RequestHost>`).
///
/// Taken from the Host header only when it is a well-formed name or address; without port, lower case, IPv6 without
/// brackets. Falls back to the address of this server that the client reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHost(pub String);

/// Cancelled when the connection has had its time, set on every request (`Extension<Closing>`): an answer that waits for
/// something to happen should wait no longer.
#[derive(Clone, Debug, Default)]
pub struct Closing(pub CancellationToken);
