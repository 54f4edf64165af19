//! What holds for every packet of a shard, and may change while it runs.

use std::sync::Arc;

use super::allowance::Allowance;
use crate::address::Sources;
use crate::policy::Policy;
use crate::rate::Rate;

/// The rules of a shard.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Asked where data may leave to.
    pub policy: Arc<Policy>,
    /// How many Binding requests a source gets answered.
    pub bindings: Rate,
    /// What a source is.
    pub sources: Sources,
    /// How much is relayed.
    pub allowance: Allowance,
}
