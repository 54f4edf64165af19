//! The data plane: forwards by a table, fast and blindly.

pub mod allowance;
pub mod command;
mod departures;
mod directory;
mod forwarder;
mod framing;
mod neighbours;
mod outbox;
pub mod pairs;
pub mod rules;
pub mod shard;
pub mod stream;
mod table;
