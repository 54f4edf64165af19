//! Sockets and what stands on them directly; knows nothing of TURN, rooms or pages.

pub mod demux;
pub mod fetch;
pub mod host;
pub mod inherited;
pub mod listen;
pub mod notify;
pub mod post;
pub mod proxy;
pub mod tls;
pub mod udp;
pub mod unix;
