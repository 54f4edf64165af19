//! The data plane: forwards by a table, fast and blindly.

pub mod command;
mod forwarder;
mod framing;
pub mod shard;
mod table;
