//! What the control socket asks of the process.

use serde::Serialize;
use tokio::sync::oneshot;

/// What became of another configuration: dotted keys, sorted, and never a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reloaded {
    /// What has changed and holds.
    pub applied: Vec<String>,
    /// What has changed and will hold after a restart.
    pub needs_restart: Vec<String>,
}

/// What a part of the server asks of the process.
#[derive(Debug)]
pub enum Request {
    /// To read the configuration again, and say what became of it.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
}
