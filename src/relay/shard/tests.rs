//! Shards without threads, which a test lets run as it wants.

mod memory;
mod neighbours;
