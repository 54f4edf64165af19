//! The one integration-test binary: each module is a behaviour, on real parts.

mod ground;
mod signaling;
mod support;
