//! The frames of our JSON protocol: what a client's text says, and the text of what it is told.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use super::Dialect;
use crate::gateway::fault::check_object;
use crate::signaling::message::Change;
use crate::signaling::message::Joined;
use crate::signaling::message::Message;
use crate::signaling::message::Payload;
use crate::signaling::message::Recipient;
use crate::signaling::message::SignalKind;
use crate::signaling::name::BadName;
use crate::signaling::name::Name;
use crate::signaling::session::Ice;
use crate::signaling::session::Session;
use crate::signaling::store::Undelivered;

/// The version of the protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// As the tutorials have it.
    First,
    /// With rooms, numbered frames, and sessions that can be taken up again.
    Second,
}

/// One frame of a client.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Its number, by the client's own count; only in the second version.
    pub(super) id: Option<u64>,
    /// What it says.
    pub(super) said: Result<Command, Fault>,
}

/// What a client says.
#[derive(Debug)]
pub(super) enum Command {
    /// Sign in.
    Login(Login),
    /// Pass a step of a negotiation on.
    Signal(SignalKind, Target, Payload),
    /// Hang up on one, or on all.
    Leave(Option<Target>),
    /// Fresh ICE servers, please.
    Ice,
    /// Are you there?
    Ping,
    /// This session ends.
    Bye,
    /// Come into a room.
    Join(Name),
    /// Leave it.
    Part(Name),
    /// Pass on whatever an application has to say to one member.
    Send(Target, Payload),
    /// The same to everybody else in a room.
    SendToRoom(Name, Payload),
    /// Who is in a room, or here at all?
    Who(Option<Name>),
    /// What was told up to this number has arrived.
    Ack(u64),
}

/// What a client wants to be signed in as. Its secrets are never shown.
pub(super) struct Login {
    /// By this name, if it says any; none inside, if it can't be one.
    pub(super) name: Option<Target>,
    pub(super) version: Version,
    /// Taking up the session that this is the secret of, of which everything up to this number has arrived.
    pub(super) resume: Option<(String, u64)>,
    /// Into this room; none inside, if it can't be one.
    pub(super) room: Option<Option<Name>>,
    /// What it shows to be let in.
    pub(super) token: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
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
    #[serde(borrow)]
    v: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow)]
    resume: Option<&'a RawValue>,
    #[serde(borrow)]
    room: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
}

impl Incoming {
    /// Reads one frame of a client that speaks `version`, if it is signed in; fields that the command doesn't have are
    /// ignored.
    pub(super) fn read(text: &str, version: Option<Version>) -> Self {
        let frame = match Frame::read(text) {
            Ok(frame) => frame,
            Err(fault) => return Self { id: None, said: Err(fault) },
        };
        match (version, frame.id) {
            (Some(Version::Second), Some(id)) => match number(id).filter(|id| *id > 0) {
                Some(id) => Self { id: Some(id), said: frame.command(version) },
                None => Self { id: None, said: Err(Fault::bad("the field \"id\" is no number from 1 up")) },
            },
            (None | Some(_), _) => Self { id: None, said: frame.command(version) },
        }
    }
}

/// How much of an unknown command's name is repeated, in characters.
const MAX_ECHO: usize = 64;

impl<'a> Frame<'a> {
    fn read(text: &'a str) -> Result<Self, Fault> {
        check_object(text).map_err(Fault::bad)?;
        serde_json::from_str(text).map_err(|error| Fault::bad(format!("not a JSON object with a type: {error}")))
    }

    fn command(&self, version: Option<Version>) -> Result<Command, Fault> {
        Ok(match &*self.kind {
            "login" => Command::Login(self.login()),
            "offer" => self.signal(SignalKind::Offer, self.offer)?,
            "answer" => self.signal(SignalKind::Answer, self.answer)?,
            // The end of candidates has none.
            "candidate" => self.signal(SignalKind::Candidate, self.candidate.or(Some(RawValue::NULL)))?,
            "leave" => Command::Leave(self.name.map(|_| self.target())),
            "ice" => Command::Ice,
            "ping" => Command::Ping,
            "bye" => Command::Bye,
            second if version != Some(Version::First) => self.second(second)?,
            unknown => return Err(Fault::unknown_command(unknown)),
        })
    }

    /// What only the second version has.
    fn second(&self, kind: &str) -> Result<Command, Fault> {
        Ok(match kind {
            "join" => Command::Join(self.room()?),
            "part" => Command::Part(self.room()?),
            "who" => Command::Who(self.room.map(|_| self.room()).transpose()?),
            "ack" => Command::Ack(self.seq.and_then(number).ok_or_else(|| Fault::missing("seq"))?),
            "send" => {
                let data = Payload::verbatim(self.data.ok_or_else(|| Fault::missing("data"))?);
                match self.room {
                    Some(_) => Command::SendToRoom(self.room()?, data),
                    None => Command::Send(self.target(), data),
                }
            }
            unknown => return Err(Fault::unknown_command(unknown)),
        })
    }

    fn login(&self) -> Login {
        let name = self.name.filter(|name| !matches!(name.get(), "null" | "\"\"")).map(name_in);
        let token = self.token.and_then(text);
        if self.v.and_then(number).is_none_or(|version| version < 2) {
            return Login { name, version: Version::First, resume: None, room: None, token };
        }
        let secret = self.resume.and_then(text);
        let arrived = self.seq.and_then(number).unwrap_or(0);
        let room = self.room.map(name_in);
        let resume = secret.map(|secret| (secret, arrived));
        Login { name, version: Version::Second, resume, room, token }
    }

    fn target(&self) -> Target {
        self.name.and_then(name_in)
    }

    fn room(&self) -> Result<Name, Fault> {
        let room = self.room.ok_or_else(|| Fault::missing("room"))?;
        name_in(room).ok_or_else(|| Fault::new(Code::Forbidden, format!("no room can be called that: {BadName}")))
    }

    fn signal(&self, kind: SignalKind, payload: Option<&RawValue>) -> Result<Command, Fault> {
        let payload = payload.ok_or_else(|| Fault::missing(kind.word()))?;
        Ok(Command::Signal(kind, self.target(), Payload::new(payload)))
    }
}

fn name_in(json: &RawValue) -> Option<Name> {
    Name::new(&text(json)?).ok()
}

fn text(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

fn number(json: &RawValue) -> Option<u64> {
    serde_json::from_str(json.get()).ok()
}

/// What a client did wrong.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: Code,
    message: Cow<'static, str>,
    name: Option<Name>,
    room: Option<Name>,
    id: Option<u64>,
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
    Undelivered,
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
            Self::Undelivered => "undelivered",
        }
    }
}

impl Fault {
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), name: None, room: None, id: None }
    }

    pub(super) fn bad(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadMessage, message)
    }

    pub(super) fn unknown_member(name: Target) -> Self {
        Self { name, ..Self::new(Code::UnknownMember, "nobody is signed in by this name") }
    }

    /// As `version` has it.
    pub(super) fn undelivered(why: Undelivered, to: Name, version: Version) -> Self {
        let fault = match (why, version) {
            (Undelivered::UnknownMember, _) => return Self::unknown_member(Some(to)),
            (Undelivered::Refused(_), Version::First) => {
                Self::new(Code::Rate, "the other isn't reading that fast; this one is dropped")
            }
            (Undelivered::Refused(why), Version::Second) => Self::new(Code::Undelivered, why.to_string()),
        };
        Self { name: Some(to), ..fault }
    }

    /// The same about the frame with this number.
    pub(super) fn about(self, id: Option<u64>) -> Self {
        Self { id, ..self }
    }

    fn missing(field: &str) -> Self {
        Self::bad(format!("the field \"{field}\" is missing, or not what it should be"))
    }

    fn unknown_command(kind: &str) -> Self {
        let kind: String = kind.chars().take(MAX_ECHO).collect();
        Self::new(Code::UnknownCommand, format!("Command not found: {kind}"))
    }

    /// The error frame.
    pub(super) fn encode(&self) -> String {
        let mut frame = json!({ "type": "error", "code": self.code.word(), "message": self.message });
        if let Some(name) = &self.name {
            put(&mut frame, "name", name.as_str().into());
        }
        if let Some(room) = &self.room {
            put(&mut frame, "room", room.as_str().into());
        }
        if let Some(id) = self.id {
            put(&mut frame, "id", id.into());
        }
        frame.to_string()
    }
}

/// What a login has besides the session and its ICE servers.
#[derive(Debug, Default)]
pub(super) struct Welcome {
    /// The last frame that was taken from the client.
    pub(super) last_frame: u64,
    /// Who else is in the room that it came into.
    pub(super) members: Option<Vec<Name>>,
}

/// The reply to a `login` that went well.
pub(super) fn signed_in(session: &Session, ice: Ice, dialect: Dialect, welcome: Welcome) -> String {
    let mut frame = json!({
        "type": "login", "success": true, "name": session.name(), "session": session.id().to_string(),
        "iceServers": ice.servers, "iceTtl": ice.lifetime.as_secs(),
    });
    if dialect == Dialect::Strings {
        put(&mut frame, "myName", session.name().into());
    }
    if let Some(secret) = session.secret() {
        put(&mut frame, "resume", secret.reveal().into());
        put(&mut frame, "id", welcome.last_frame.into());
    }
    if let Some(members) = welcome.members {
        put(&mut frame, "members", names(&members));
    }
    frame.to_string()
}

/// The reply to `join`.
pub(super) fn joined(room: &Name, members: &[Name]) -> String {
    json!({ "type": "join", "room": room.as_str(), "members": names(members) }).to_string()
}

/// The reply to `who`.
pub(super) fn who(room: Option<&Name>, members: &[Name]) -> String {
    let mut frame = json!({ "type": "who", "members": names(members) });
    if let Some(room) = room {
        put(&mut frame, "room", room.as_str().into());
    }
    frame.to_string()
}

fn names(names: &[Name]) -> Value {
    names.iter().map(Name::as_str).collect()
}

/// The reply to `ice`.
pub(super) fn ice(ice: Ice) -> String {
    json!({ "type": "ice", "iceServers": ice.servers, "iceTtl": ice.lifetime.as_secs() }).to_string()
}

/// Why a `login` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Somebody else has the name.
    NameTaken,
    /// Nobody can be called that, or no room.
    BadName,
    /// It may not.
    Auth,
    /// There is nothing to take up: it can sign in.
    NoSession,
    /// The room takes nobody.
    Full,
    /// It tries too often.
    Rate,
}

impl Reason {
    const fn word(self) -> &'static str {
        match self {
            Self::NameTaken => "name-taken",
            Self::BadName => "bad-name",
            Self::Auth | Self::NoSession => "auth",
            Self::Full => "full",
            Self::Rate => "rate",
        }
    }
}

/// The reply to a `login` that failed.
pub(super) fn refused(reason: Reason) -> String {
    let mut frame = json!({ "type": "login", "success": false, "reason": reason.word() });
    if reason == Reason::NoSession {
        put(&mut frame, "resume", false.into());
    }
    frame.to_string()
}

/// The reply to `ping`; in the second version with the last frame that was taken.
pub(super) fn pong(last_frame: Option<u64>) -> String {
    let mut frame = json!({ "type": "pong" });
    if let Some(id) = last_frame {
        put(&mut frame, "id", id.into());
    }
    frame.to_string()
}

/// What the strings dialect is greeted with.
pub(super) fn greeting() -> String {
    json!({ "status": "success" }).to_string()
}

/// What a member is told, as its dialect has it; with a number, if it is to be acknowledged. When it `joined` is for the
/// second version.
pub(super) fn told(number: Option<u64>, message: &Message, dialect: Dialect, joined: Option<Joined>) -> String {
    let text = unnumbered(message, dialect, joined);
    match (number, text.strip_prefix('{')) {
        (Some(number), Some(fields)) => format!(r#"{{"seq":{number},{fields}"#),
        (None, _) | (_, None) => text,
    }
}

fn unnumbered(message: &Message, dialect: Dialect, joined: Option<Joined>) -> String {
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
        Message::Missed => json!({ "type": "presence", "missed": true }).to_string(),
        Message::Undelivered { to, frame } => {
            let fault = Fault::new(Code::Undelivered, "it may not have arrived").about(*frame);
            match to.clone() {
                Recipient::Member(name) => Fault { name: Some(name), ..fault }.encode(),
                Recipient::Room(room) => Fault { room: Some(room), ..fault }.encode(),
            }
        }
        Message::Data { from, room, payload } => {
            let from = Value::from(from.name.as_str());
            let room = room.as_ref().map(|room| format!(r#""room":{},"#, Value::from(room.as_str())));
            format!(r#"{{"type":"send","name":{from},{}"data":{}}}"#, room.unwrap_or_default(), payload.json())
        }
        Message::Signal { from, kind, payload } => {
            let polite = joined.filter(|_| *kind == SignalKind::Offer).map(|joined| joined > from.joined);
            let polite = polite.map(|polite| format!(r#""polite":{polite},"#)).unwrap_or_default();
            let from = Value::from(from.name.as_str());
            let kind = kind.word();
            let payload = match dialect {
                Dialect::Objects => Cow::Borrowed(payload.json()),
                Dialect::Strings => Cow::Owned(Value::from(payload.json()).to_string()),
            };
            format!(r#"{{"type":"{kind}","name":{from},{polite}"{kind}":{payload}}}"#)
        }
    }
}

fn put(frame: &mut Value, key: &str, value: Value) {
    if let Some(fields) = frame.as_object_mut() {
        fields.insert(key.into(), value);
    }
}
