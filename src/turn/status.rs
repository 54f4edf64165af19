//! What an operator may ask the control plane: which allocations there are, a page at a time.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::address::FiveTuple;
use crate::credentials::SessionId;
use crate::relay::command::TrafficCount;

/// Questions that wait for one control task; beyond, who asks waits.
const QUEUED: usize = 4;

/// One allocation, for people to read.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// Its number: a later one has a higher.
    pub id: u64,
    /// Whose it is.
    pub client: FiveTuple,
    /// What its client comes by: udp, tcp or tls.
    pub transport: &'static str,
    /// What clients and peers know it as.
    pub relayed: SocketAddr,
    /// The user name that it was made with.
    pub username: String,
    /// The signaling session that this was minted for, if any.
    pub session: Option<SessionId>,
    /// How long it lives unless it is refreshed.
    pub expires_in: Duration,
    /// What was relayed for it so far.
    pub traffic: TrafficCount,
}

/// A question for one control task.
pub struct Query {
    pub(super) after: u64,
    pub(super) most: usize,
    pub(super) answer: oneshot::Sender<Vec<Allocation>>,
}

/// The way to every control task.
#[derive(Clone, Default)]
pub struct Status(Vec<mpsc::Sender<Query>>);

impl Status {
    /// One more control task is asked; it takes its questions from what this gives.
    pub fn add(&mut self) -> mpsc::Receiver<Query> {
        let (queries, asked) = mpsc::channel(QUEUED);
        self.0.push(queries);
        asked
    }

    /// The way to each control task alone.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.0.iter().map(|queries| Self(vec![queries.clone()]))
    }

    /// The first `most` allocations whose numbers are above `after`, in order. One that is over meanwhile may be among them.
    pub async fn allocations(&self, after: u64, most: usize) -> Vec<Allocation> {
        let mut all = Vec::new();
        for queries in &self.0 {
            let (answer, page) = oneshot::channel();
            // A control task that has ended has none.
            if queries.send(Query { after, most, answer }).await.is_ok() {
                all.extend(page.await.unwrap_or_default());
            }
        }
        all.sort_unstable_by_key(|allocation| allocation.id);
        all.truncate(most);
        all
    }
}
