//! The frames of our JSON protocol: what a client's text says, and the text of what it is told.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use super::Dialect;
use crate::signaling::message::Change;
use crate::signaling::message::Message;
use crate::signaling::message::Payload;
use crate::signaling::message::SignalKind;
use crate::signaling::message::nests_too_deep;
use crate::signaling::name::Name;
use crate::signaling::session::Ice;
use crate::signaling::session::Session;
use crate::signaling::store::Undelivered;

/// What a client says.
#[derive(Debug)]
pub(super) enum Command {
    /// Sign in by this name; none, if it can't be one.
    Login(Option<Name>),
    /// Pass a step of a negotiation on.
    Signal(SignalKind, Target, Payload),
    /// Hang up on one, or on all.
    Leave(Option<Target>),
    /// Fresh ICE servers, please.
    Ice,
    /// Are you there?
    Ping,
    /// This connection ends.
    Bye,
}

/// Whom a frame is for; none, when nobody can have the name that it says.
pub(super) type Target = Option<Name>;

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    offer: Option<&'a RawValue>,
    #[serde(borrow)]
    answer: Option<&'a RawValue>,
    #[serde(borrow)]
    candidate: Option<&'a RawValue>,
}

impl Command {
    /// Reads one frame; fields that the command doesn't have are ignored.
    ///
    /// # Errors
    ///
    /// A [`Fault`] that says what isn't right about it.
    pub(super) fn decode(text: &str) -> Result<Self, Fault> {
        if nests_too_deep(text) {
            return Err(Fault::bad("nested too deep"));
        }
        // The parser would take an array for an object with its fields in order.
        if !text.trim_start().starts_with('{') {
            return Err(Fault::bad("not a JSON object"));
        }
        let frame: Frame<'_> = serde_json::from_str(text)
            .map_err(|error| Fault::bad(format!("not a JSON object with a type: {error}")))?;
        Ok(match &*frame.kind {
            "login" => Self::Login(frame.target()),
            "offer" => frame.signal(SignalKind::Offer, frame.offer)?,
            "answer" => frame.signal(SignalKind::Answer, frame.answer)?,
            // The end of candidates has none.
            "candidate" => frame.signal(SignalKind::Candidate, frame.candidate.or(Some(RawValue::NULL)))?,
            "leave" => Self::Leave(frame.name.map(|_| frame.target())),
            "ice" => Self::Ice,
            "ping" => Self::Ping,
            "bye" => Self::Bye,
            unknown => {
                let unknown: String = unknown.chars().take(MAX_ECHO).collect();
                return Err(Fault::new(Code::UnknownCommand, format!("Command not found: {unknown}")));
            }
        })
    }
}

/// How much of an unknown command's name is repeated, in characters.
const MAX_ECHO: usize = 64;

impl Frame<'_> {
    fn target(&self) -> Target {
        let name: String = serde_json::from_str(self.name?.get()).ok()?;
        Name::new(&name).ok()
    }

    fn signal(&self, kind: SignalKind, payload: Option<&RawValue>) -> Result<Command, Fault> {
        let Some(payload) = payload else {
            let word = kind.word();
            return Err(Fault::bad(format!("the field \"{word}\" is missing")));
        };
        Ok(Command::Signal(kind, self.target(), Payload::new(payload)))
    }
}

/// What a client did wrong.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: Code,
    message: Cow<'static, str>,
    name: Option<Name>,
}

/// The codes of error frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    UnknownMember,
    NotSignedIn,
    BadMessage,
    UnknownCommand,
    TooLarge,
    Rate,
    Forbidden,
}

impl Code {
    const fn word(self) -> &'static str {
        match self {
            Self::UnknownMember => "unknown-member",
            Self::NotSignedIn => "not-signed-in",
            Self::BadMessage => "bad-message",
            Self::UnknownCommand => "unknown-command",
            Self::TooLarge => "too-large",
            Self::Rate => "rate",
            Self::Forbidden => "forbidden",
        }
    }
}

impl Fault {
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), name: None }
    }

    pub(super) fn bad(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadMessage, message)
    }

    pub(super) fn unknown_member(name: Target) -> Self {
        Self { code: Code::UnknownMember, message: "nobody is signed in by this name".into(), name }
    }

    pub(super) fn undelivered(why: Undelivered, to: Name) -> Self {
        match why {
            Undelivered::UnknownMember => Self::unknown_member(Some(to)),
            Undelivered::Refused(_) => Self {
                code: Code::Rate,
                message: "the other isn't reading that fast; this one is dropped".into(),
                name: Some(to),
            },
        }
    }

    /// The error frame.
    pub(super) fn encode(&self) -> String {
        let mut frame = json!({ "type": "error", "code": self.code.word(), "message": self.message });
        if let Some(name) = &self.name {
            put(&mut frame, "name", name.as_str().into());
        }
        frame.to_string()
    }
}

/// The reply to a `login` that went well.
pub(super) fn signed_in(session: &Session, ice: Ice, dialect: Dialect) -> String {
    let mut frame = json!({
        "type": "login", "success": true, "name": session.name(), "session": session.id().to_string(),
        "iceServers": ice.servers, "iceTtl": ice.lifetime.as_secs(),
    });
    if dialect == Dialect::Strings {
        put(&mut frame, "myName", session.name().into());
    }
    frame.to_string()
}

/// The reply to `ice`.
pub(super) fn ice(ice: Ice) -> String {
    json!({ "type": "ice", "iceServers": ice.servers, "iceTtl": ice.lifetime.as_secs() }).to_string()
}

/// The reply to a `login` that failed.
pub(super) fn refused(reason: &'static str) -> String {
    json!({ "type": "login", "success": false, "reason": reason }).to_string()
}

/// The reply to `ping`.
pub(super) fn pong() -> String {
    json!({ "type": "pong" }).to_string()
}

/// What the strings dialect is greeted with.
pub(super) fn greeting() -> String {
    json!({ "status": "success" }).to_string()
}

/// A message from another member, as the recipient's dialect has it.
pub(super) fn relayed(message: &Message, dialect: Dialect) -> String {
    match message {
        Message::Leave { from } | Message::Away { from } | Message::Gone { from } => {
            json!({ "type": "leave", "name": from.as_str() }).to_string()
        }
        Message::Answer(text) | Message::Notice(text) => text.to_string(),
        Message::Presence { room, name, change } => {
            let change = match change {
                Change::Joined => "joined",
                Change::Left => "left",
            };
            json!({ "type": "presence", "room": room.as_str(), change: name.as_str() }).to_string()
        }
        Message::Undelivered { to, frame } => {
            let mut error = json!({
                "type": "error", "code": "undelivered", "message": UNDELIVERED, "name": to.as_str(),
            });
            if let Some(frame) = frame {
                put(&mut error, "id", (*frame).into());
            }
            error.to_string()
        }
        Message::Data { from, room, payload } => {
            let from = Value::from(from.name.as_str());
            let room = room.as_ref().map(|room| format!(r#""room":{},"#, Value::from(room.as_str())));
            format!(r#"{{"type":"send","name":{from},{}"data":{}}}"#, room.unwrap_or_default(), payload.json())
        }
        Message::Signal { from, kind, payload } => {
            let from = Value::from(from.name.as_str());
            let kind = kind.word();
            let payload = match dialect {
                Dialect::Objects => Cow::Borrowed(payload.json()),
                Dialect::Strings => Cow::Owned(Value::from(payload.json()).to_string()),
            };
            format!(r#"{{"type":"{kind}","name":{from},"{kind}":{payload}}}"#)
        }
    }
}

const UNDELIVERED: &str = "it may not have been delivered";

fn put(frame: &mut Value, key: &str, value: Value) {
    if let Some(fields) = frame.as_object_mut() {
        fields.insert(key.into(), value);
    }
}
