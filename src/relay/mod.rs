//! The data plane: forwards by a table, fast and blindly.

pub mod allowance;
pub mod command;
mod departures;
mod forwarder;
mod framing;
mod outbox;
pub mod pairs;
pub mod shard;
pub mod stream;
mod table;
