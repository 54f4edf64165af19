//! What members send each other by way of the hub, typed; descriptions and candidates pass through as they came.

use serde_json::value::RawValue;

use crate::signaling::name::Name;

/// One thing for one member to be told.
#[derive(Clone, Debug)]
pub enum Message {
    /// `from` sends a step of a negotiation.
    Signal {
        /// Who sends it: stamped by the hub.
        from: Name,
        /// Which step.
        kind: SignalKind,
        /// What it carries.
        payload: Payload,
    },
    /// `from` hung up or is gone.
    Leave {
        /// Who left.
        from: Name,
    },
}

impl Message {
    /// What it counts for in a mailbox, in bytes.
    pub fn cost(&self) -> usize {
        let payload = match self {
            Self::Signal { payload, .. } => payload.json().len(),
            Self::Leave { .. } => 0,
        };
        size_of::<Self>() + payload
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

/// A JSON value that this server carries without looking inside.
#[derive(Clone, Debug)]
pub struct Payload(Box<RawValue>);

impl Payload {
    /// Takes a value as a client sent it. An object that was packed into a JSON string is unpacked, because some clients
    /// `JSON.stringify` what others expect as an object; how it is packed for the recipient is its gateway's business.
    pub fn new(raw: &RawValue) -> Self {
        Self(unpacked(raw).unwrap_or_else(|| raw.to_owned()))
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
