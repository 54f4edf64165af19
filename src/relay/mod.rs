//! The data plane: forwards by a table, fast and blindly.

pub mod command;
