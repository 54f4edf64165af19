//! Throughway gets WebRTC calls through: signaling, STUN/TURN and the pages to use and check both, in one process.

pub mod address;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod gateway;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod policy;
pub mod rate;
pub mod relay;
pub mod signaling;
pub mod web;
pub mod wire;
