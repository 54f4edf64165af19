//! The one integration-test binary: each module is a behaviour, on real parts.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected fails there and then"
)]

mod ground;
mod relay;
mod signaling;
mod support;
mod turn;
