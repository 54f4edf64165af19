//! The HTTP side: pages, WebSocket upgrade, health and metrics, on connections that `net` accepted.

pub mod connection;
pub mod socket;
