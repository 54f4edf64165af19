//! What is said of a session or relay that is over: a sentence for people, and the same in fields for programs.

use std::fmt;
use std::fmt::Write;
use std::time::Duration;

use super::Carried;
use super::Record;
use super::Refusal;
use super::Whose;
use crate::address::Transport;
use crate::clock::Now;
use crate::metrics::DropReason;

/// Different refusals that one sentence tells of.
const MOST_REFUSALS: usize = 3;
/// How much longer than their session relays may live without a word about it.
const WITH_IT: Duration = Duration::from_secs(5);

/// All that is known of what is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whose it was.
    pub whose: Whose,
    /// From signing in to signing out; of a relay without a session, its life.
    pub lasted: Duration,
    /// How much longer the last relay lived.
    pub outlived: Duration,
    /// Allocations.
    pub relays: u32,
    /// What they were reached by.
    pub over: Vec<Transport>,
    /// Peers that were permitted.
    pub peers: u32,
    /// What was relayed.
    pub carried: Carried,
    /// What was not granted, and how often.
    pub refusals: Vec<(Refusal, u32)>,
}

impl Verdict {
    /// Of what was over at that time.
    pub(super) fn of(record: Record, now: Now) -> Self {
        let Record { whose, began, ended, dealings } = record;
        let since = |then: Now| now.monotonic.saturating_duration_since(then.monotonic);
        let (all, outlived) = (since(began), ended.map_or(Duration::ZERO, since));
        let mut dealings = dealings.map(|dealings| *dealings).unwrap_or_default();
        for (_, meter) in std::mem::take(&mut dealings.open) {
            dealings.carried.add(meter.read());
        }
        let (lasted, outlived) = match whose {
            Whose::Member { .. } if dealings.relays > 0 => (all.saturating_sub(outlived), outlived),
            Whose::Member { .. } => (all.saturating_sub(outlived), Duration::ZERO),
            Whose::User(_) => (all, Duration::ZERO),
        };
        let over = Transport::ALL.into_iter().zip(dealings.over).filter(|(_, used)| *used);
        Self {
            whose,
            lasted,
            outlived,
            relays: dealings.relays,
            over: over.map(|(transport, _)| transport).collect(),
            peers: dealings.peers,
            carried: dealings.carried,
            refusals: dealings.refusals,
        }
    }

    /// Whether nothing was asked of TURN: of most sessions there is nothing else to say, and there may be many.
    pub fn is_idle(&self) -> bool {
        self.relays == 0 && self.refusals.is_empty()
    }

    /// Whether data came through: from a peer at least.
    pub fn has_relayed(&self) -> bool {
        self.carried.packets_received > 0
    }

    /// Writes it into the log.
    pub fn log(&self) {
        let Carried { packets_sent, sent, packets_received, received, lost, .. } = self.carried;
        let (relays, lasted, relayed) = (self.relays, self.lasted.as_secs(), self.has_relayed());
        let over = self.over();
        macro_rules! line {
            ($level:ident, $($field:tt)*) => {
                tracing::$level!(
                    $($field)*, lasted, relays, over, relayed, sent, received, packets_sent, packets_received, lost, "{self}"
                )
            };
        }
        match self.whose {
            Whose::Member { session, gateway, name } if self.is_idle() => {
                line!(debug, %session, member = %name, gateway = gateway.label());
            }
            Whose::Member { session, gateway, name } => {
                line!(info, %session, member = %name, gateway = gateway.label());
            }
            Whose::User(name) => line!(info, user = %name),
        }
    }

    fn over(&self) -> String {
        self.over.iter().map(|transport| transport.label()).collect::<Vec<_>>().join(",")
    }

    /// Why no data came through.
    fn reason(&self) -> String {
        let Carried { packets_sent, lost, lost_for, .. } = self.carried;
        let refusals = self.refusals.iter().take(MOST_REFUSALS);
        let mut reasons: Vec<_> = refusals.map(|(refusal, times)| refused(refusal, *times)).collect();
        if packets_sent > 0 {
            let (packets, peers) = (counted(packets_sent, "packet"), counted(self.peers.into(), "peer"));
            let came = format!(
                "no packet ever came from the peer: {packets} went out, {peers} permitted; the peer's firewall dropped them, \
                 or it never got the candidate"
            );
            reasons.insert(0, came);
        } else if let Some(reason) = lost_for {
            let packets = counted(lost, "packet");
            reasons.push(format!("{packets} of the client's went nowhere: {}", lost_to(reason)));
        }
        if !reasons.is_empty() {
            return reasons.join("; ");
        }
        match (self.relays, self.peers) {
            (0, _) => "it never asked for a relay: the call went directly or was never tried",
            (_, 0) => {
                "the client allocated and never named a peer: the call went directly, or the other side's candidates never \
                 came"
            }
            (_, _) => "the client allocated and never sent anything: the call went directly or was given up",
        }
        .to_owned()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.whose {
            Whose::Member { .. } => "session over after ",
            Whose::User(_) => "relay over after ",
        })?;
        time(f, self.lasted)?;
        if self.outlived > WITH_IT {
            f.write_str(", its last relay ")?;
            time(f, self.outlived)?;
            f.write_str(" later")?;
        }
        if !self.has_relayed() {
            return write!(f, ", never relayed: {}", self.reason());
        }
        write!(f, ", relayed over {}: ", self.over())?;
        size(f, self.carried.sent)?;
        f.write_str(" sent, ")?;
        size(f, self.carried.received)?;
        f.write_str(" received")
    }
}

fn refused(refusal: &Refusal, times: u32) -> String {
    match refusal {
        Refusal::Proof(why) => format!("answered 401 {}: {why}", often(times)),
        Refusal::Peer { why, peer } => {
            let mut text = match peer {
                Some(peer) => format!("peer {peer} denied: {why}"),
                None => format!("a peer denied: {why}"),
            };
            if *why != "a listener of this server" {
                text.push_str(", see turn.peers.allow");
            }
            text
        }
        Refusal::Other(why) => format!("refused {}: {why}", often(times)),
    }
}

fn lost_to(reason: DropReason) -> &'static str {
    match reason {
        DropReason::NoPermission => "to a peer that it had no permission for",
        DropReason::NoChannel => "on a channel that it had not bound",
        DropReason::PeerDenied => "to a peer that is denied, see turn.peers.allow",
        DropReason::NotOurs => "to a relayed address that was over",
        DropReason::Bandwidth => "more than turn.limits.bandwidth_per_allocation, or all of turn.limits.bandwidth",
        DropReason::Volume => "turn.limits.bytes_per_day or bytes_per_month is used up",
        DropReason::TooLarge => "too large for the way",
        DropReason::SocketError => "this machine could not send them: it has no route there, or a firewall of its own",
        DropReason::QueueFull | DropReason::SocketFull => "this machine is too busy",
        DropReason::StreamFull | DropReason::StreamClosed => "the other client's stream took too little",
        DropReason::NotTurn
        | DropReason::Malformed
        | DropReason::Unexpected
        | DropReason::NoAllocation
        | DropReason::Icmp
        | DropReason::RateLimited
        | DropReason::TooShort
        | DropReason::Bug => reason.label(),
    }
}

fn often(times: u32) -> String {
    match times {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        3 => "three times".to_owned(),
        _ => format!("{times} times"),
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// In its two largest units.
fn time(f: &mut fmt::Formatter<'_>, time: Duration) -> fmt::Result {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => write!(f, "{seconds} s"),
        (0, minutes, seconds) => write!(f, "{minutes} min {seconds} s"),
        (hours, minutes, _) => write!(f, "{hours} h {minutes} min"),
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// In units of 1024, as the configuration has them.
fn size(f: &mut impl Write, bytes: u64) -> fmt::Result {
    match bytes {
        0..KIB => write!(f, "{bytes} B"),
        KIB..MIB => write!(f, "{:.1} KiB", bytes as f64 / KIB as f64),
        MIB..GIB => write!(f, "{:.1} MiB", bytes as f64 / MIB as f64),
        GIB.. => write!(f, "{:.1} GiB", bytes as f64 / GIB as f64),
    }
}
