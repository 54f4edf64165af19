//! The `throughway` program.

fn main() {}
