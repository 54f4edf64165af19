//! The one integration-test binary: each module is a behaviour, on real parts.

#[cfg(test)]
mod ground;
#[cfg(test)]
mod signaling;
#[cfg(test)]
mod support;
