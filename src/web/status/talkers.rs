//! For whom most is relayed.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::credentials::SessionId;
use crate::gateway;
use crate::metrics::Gateway;
use crate::turn::status::Allocation;
use crate::turn::status::Status;

/// How many are told of.
const MOST: usize = 10;
/// How many allocations are asked for at once: the control plane does nothing else meanwhile.
const PAGE: usize = 1000;

/// Somebody for whom data is relayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Talker {
    /// The member's name, or the TURN user name of somebody who isn't signed in.
    pub who: String,
    /// Where it is signed in, if it is.
    pub gateway: Option<&'static str>,
    /// The session that its credentials were minted for, if any.
    pub session: Option<String>,
    /// How many allocations it has.
    pub allocations: usize,
    /// Bytes of payload relayed by those, both ways.
    pub bytes: u64,
    /// The same in packets.
    pub packets: u64,
}

/// Whose allocations are summed up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Who {
    Session(SessionId),
    User(String),
}

/// What is relayed for one of them.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    allocations: usize,
    bytes: u64,
    packets: u64,
}

fn add(sums: &mut HashMap<Who, Sum>, allocation: &Allocation) {
    let who = match allocation.session {
        Some(session) => Who::Session(session),
        None => Who::User(allocation.username.clone()),
    };
    let sum = sums.entry(who).or_default();
    sum.allocations += 1;
    for flow in [allocation.traffic.to_peers, allocation.traffic.to_client] {
        sum.bytes += flow.bytes;
        sum.packets += flow.packets;
    }
}

/// Those for whom most is relayed, most first.
pub(super) async fn most(turn: &Status, gateways: &[Arc<gateway::Context>]) -> Vec<Talker> {
    let mut sums = HashMap::<Who, Sum>::new();
    let mut after = 0;
    loop {
        let page = turn.allocations(after, PAGE).await;
        for allocation in &page {
            add(&mut sums, allocation);
        }
        match page.last().filter(|_| page.len() == PAGE) {
            Some(last) => after = last.id,
            None => break,
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    // Of those for whom as much is relayed, the same ones are told of each time.
    sums.sort_unstable_by(|(a, x), (b, y)| (Reverse(x.bytes), a).cmp(&(Reverse(y.bytes), b)));
    sums.truncate(MOST);
    sums.into_iter().map(|(who, sum)| talker(who, sum, gateways)).collect()
}

fn talker(who: Who, Sum { allocations, bytes, packets }: Sum, gateways: &[Arc<gateway::Context>]) -> Talker {
    let (who, gateway, session) = match who {
        Who::User(name) => (name, None, None),
        Who::Session(session) => {
            let (gateway, name) = member(session, gateways).unzip();
            (name.unwrap_or_else(|| session.to_string()), gateway, Some(session.to_string()))
        }
    };
    Talker { who, gateway: gateway.map(Gateway::label), session, allocations, bytes, packets }
}

/// Where a session is signed in, and by which name.
fn member(session: SessionId, gateways: &[Arc<gateway::Context>]) -> Option<(Gateway, String)> {
    gateways.iter().find_map(|context| {
        let name = context.sessions.name_of(session)?;
        Some((context.gateway, name.as_str().to_owned()))
    })
}
