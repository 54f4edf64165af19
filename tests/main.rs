//! The one integration-test binary: each module is a behaviour, on real parts.
//!
//! `cfg(test)` is always true here; clippy takes it as the sign that unwrapping is fine, in helpers too.

#[cfg(test)]
mod acme;
#[cfg(test)]
mod admin;
#[cfg(test)]
mod balancers;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod layering;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod shards;
#[cfg(test)]
mod signaling;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod support;
#[cfg(test)]
mod turn;
#[cfg(test)]
mod verdict;
#[cfg(test)]
mod watching;
