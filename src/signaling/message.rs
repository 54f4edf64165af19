//! What members send each other by way of the hub, typed; descriptions and candidates pass through as they came.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::credentials::SessionId;
use crate::signaling::name::Name;

/// One thing for one member to be told.
#[derive(Clone, Debug)]
pub enum Message {
    /// A step of a negotiation.
    Signal {
        /// Who sends it.
        from: Sender,
        /// Which step.
        kind: SignalKind,
        /// What it carries.
        payload: Payload,
    },
    /// Whatever else an application wants to say.
    Data {
        /// Who sends it.
        from: Sender,
        /// The room that it was sent to; none, if to this member alone.
        room: Option<Name>,
        /// What it carries.
        payload: Payload,
    },
    /// `from` hung up.
    Leave {
        /// Who hung up.
        from: Name,
    },
    /// `from` lost its connection, and may come back to its session.
    Away {
        /// Whose partner to tell.
        from: Name,
    },
    /// `from` hung up on everybody, or its session is over.
    Gone {
        /// Whose partner to tell.
        from: Name,
    },
    /// Somebody came into a room that the member is in, or left it.
    Presence {
        /// The room.
        room: Name,
        /// Who.
        name: Name,
        /// Which of the two.
        change: Change,
    },
    /// So much happened in rooms that the member isn't told of all of it: who wants to know who is there asks.
    Missed,
    /// What the member sent did not get there, as far as can be told; once for each of its frames.
    Undelivered {
        /// Whom it was for.
        to: Recipient,
        /// Which frame it was, by the member's own count.
        frame: Option<u64>,
    },
    /// What the member's gateway has to say to it, as text.
    Answer(Text),
    /// The same, which must be told however much waits.
    Notice(Text),
}

/// A text for one member alone: credentials may stand in it, so that no log shows it.
#[derive(Clone)]
pub struct Text(Arc<str>);

impl<T: Into<Arc<str>>> From<T> for Text {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.len())
    }
}

/// Who sends something: stamped by the hub.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The member's name.
    pub name: Name,
    /// Its session, which is told if what it sends can't be delivered.
    pub session: SessionId,
    /// Its place in the order of joining.
    pub joined: Joined,
    /// Which of its frames it is, by its own count.
    pub frame: Option<u64>,
    /// Whether it has been told that not everybody got it.
    pub told: Told,
}

/// A session's place in the order of joining, earlier ones first: the same to whoever compares two of them, and for as long
/// as the session lasts, whatever connections it goes on over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Joined {
    /// In Unix time.
    since: Duration,
    /// Decides between those of one moment.
    session: SessionId,
}

impl Joined {
    /// The place of a session that began at `since`, in Unix time.
    pub fn new(since: Duration, session: SessionId) -> Self {
        Self { since, session }
    }
}

/// Whether something has been told: the same for all copies of a message.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<AtomicBool>);

impl Told {
    /// Whether this is the first time.
    fn is_first(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// One member.
    Member(Name),
    /// Everybody else in a room.
    Room(Name),
}

/// What happened in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody came.
    Joined,
    /// Somebody left.
    Left,
}

impl Message {
    /// What it counts for in a mailbox, in bytes: as much as it carries.
    pub fn cost(&self) -> usize {
        match self {
            Self::Signal { payload, .. } | Self::Data { payload, .. } => payload.json().len(),
            Self::Answer(text) | Self::Notice(text) => text.len(),
            Self::Leave { .. }
            | Self::Away { .. }
            | Self::Gone { .. }
            | Self::Presence { .. }
            | Self::Missed
            | Self::Undelivered { .. } => 0,
        }
    }

    /// Whether nobody can be asked to send it again later: it is told however much waits.
    pub fn is_notice(&self) -> bool {
        match self {
            Self::Signal { .. } | Self::Data { .. } | Self::Leave { .. } | Self::Answer(_) => false,
            Self::Away { .. }
            | Self::Gone { .. }
            | Self::Presence { .. }
            | Self::Missed
            | Self::Undelivered { .. }
            | Self::Notice(_) => true,
        }
    }

    /// What its sender's session is told when it didn't get to the member `to`, if it hasn't been told so of this frame.
    pub fn undelivered(self, to: &Name) -> Option<(SessionId, Self)> {
        let (from, to) = match self {
            Self::Signal { from, .. } | Self::Data { from, room: None, .. } => (from, Recipient::Member(to.clone())),
            Self::Data { from, room: Some(room), .. } => (from, Recipient::Room(room)),
            Self::Leave { .. }
            | Self::Away { .. }
            | Self::Gone { .. }
            | Self::Presence { .. }
            | Self::Missed
            | Self::Undelivered { .. }
            | Self::Answer(_)
            | Self::Notice(_) => return None,
        };
        from.told.is_first().then_some((from.session, Self::Undelivered { to, frame: from.frame }))
    }
}

/// The steps of a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// A session description that wants an answer.
    Offer,
    /// The answer.
    Answer,
    /// An ICE candidate.
    Candidate,
}

impl SignalKind {
    /// The frame's type, and the name of the field with its payload.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::Candidate => "candidate",
        }
    }
}

/// A JSON value that this server carries without looking inside; cheap to copy.
#[derive(Clone, Debug)]
pub struct Payload(Arc<RawValue>);

impl Payload {
    /// Takes a value as a client sent it. An object that was packed into a JSON string is unpacked, because some clients
    /// `JSON.stringify` what others expect as an object; how it is packed for the recipient is its gateway's business.
    pub fn new(raw: &RawValue) -> Self {
        Self(unpacked(raw).unwrap_or_else(|| raw.to_owned()).into())
    }

    /// Takes a value as a client sent it and leaves it so.
    pub fn verbatim(raw: &RawValue) -> Self {
        Self(raw.to_owned().into())
    }

    /// Takes a text that a gateway has made; none, if it isn't JSON.
    pub fn made(json: String) -> Option<Self> {
        Some(Self(RawValue::from_string(json).ok()?.into()))
    }

    /// The value as JSON text.
    pub fn json(&self) -> &str {
        self.0.get()
    }
}

fn unpacked(raw: &RawValue) -> Option<Box<RawValue>> {
    if !raw.get().starts_with('"') {
        return None;
    }
    let text: String = serde_json::from_str(raw.get()).ok()?;
    if !text.trim_start().starts_with('{') || nests_too_deep(&text) {
        return None;
    }
    RawValue::from_string(text).ok()
}

/// How deep arrays and objects may nest; WebRTC's own need three levels.
pub const MAX_NESTING: usize = 32;

/// Whether arrays and objects nest deeper in `json` than [`MAX_NESTING`]: asked before parsing, because values that pass
/// through unread are parsed without a limit, and the recipients' parsers may have none.
pub fn nests_too_deep(json: &str) -> bool {
    let mut depth = 0_usize;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' if depth == MAX_NESTING => return true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    false
}

fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(json: &str) -> String {
        Payload::new(serde_json::from_str(json).unwrap()).json().to_owned()
    }

    #[test]
    fn an_object_packed_into_a_string_is_unpacked_and_nothing_else_is_touched() {
        assert_eq!(payload(r#""{\"sdp\":\"v=0\\r\\n\"}""#), r#"{"sdp":"v=0\r\n"}"#);
        for same in [r#"{"sdp": "v=0"}"#, "1", "null", r#""text""#, r#""{not json""#, r#""[1]""#, r#""\ud800""#] {
            assert_eq!(payload(same), same);
        }
    }

    #[test]
    fn nesting_is_counted_outside_strings_only() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);

        assert!(!nests_too_deep(&nested(MAX_NESTING)));
        assert!(nests_too_deep(&nested(MAX_NESTING + 1)));
        assert!(!nests_too_deep(&format!(r#"{{"a":"{}\"{}"}}"#, "[".repeat(99), "{".repeat(99))));
        assert!(!nests_too_deep(&"[]".repeat(99)));
        assert_eq!(payload(&format!("{:?}", nested(40))), format!("{:?}", nested(40)), "deep ones stay packed");
    }
}
