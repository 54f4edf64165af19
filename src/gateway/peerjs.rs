//! PeerServer's protocol, for PeerJS clients as they are: a client's name is in its URL, its frames are passed on by name.
//!
//! What is sent to a name that nobody has waits five seconds for it ([`crate::signaling::hub::waiting`]). A client comes
//! back by its name and token, at once, whatever has become of its earlier connection. Where else it differs from the
//! original stands in `tests/gateways/peerjs/DIFFERENCES.md`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;

use super::Context;
use super::fault::check_object;
use super::link;
use super::link::Protocol;
use super::link::Response;
use super::websocket::Ending;
use super::websocket::Told;
use crate::clock::Now;
use crate::signaling::hub::Refusal;
use crate::signaling::message;
use crate::signaling::message::Payload;
use crate::signaling::message::Recipient;
use crate::signaling::message::SignalKind;
use crate::signaling::name::Name;
use crate::signaling::session::NotSignedIn;
use crate::signaling::session::Session;
use crate::signaling::session::Visitor;

/// The one key that PeerJS clients have unless told otherwise; it is part of every path and no secret.
pub const KEY: &str = "peerjs";

/// Serves one client until it or we end the connection. It came with `query` in its URL, and with the token there.
pub async fn serve<S>(context: Arc<Context>, visitor: Visitor, query: &str, io: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let parameter =
        |name| form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value);
    let (key, id) = (parameter("key"), parameter("id"));
    let opening = Opening { key: key.unwrap_or_default(), id: id.unwrap_or_default() };
    let connection = Connection { context: Arc::clone(&context), visitor, opening, member: None };
    link::serve(&context, connection, io).await;
}

/// What a client's URL says, besides its token; what is missing is empty.
struct Opening<'a> {
    key: Cow<'a, str>,
    id: Cow<'a, str>,
}

/// What the server knows of one connection.
struct Connection<'a> {
    context: Arc<Context>,
    visitor: Visitor,
    opening: Opening<'a>,
    member: Option<Session>,
}

impl Protocol for Connection<'_> {
    async fn greet(&mut self, now: Now) -> Response {
        match self.sign_in(now).await {
            Ok(me) => {
                self.member = Some(me);
                Response::reply(json!({ "type": "OPEN" }).to_string())
            }
            Err(said) => Response { reply: Some(said), ..Response::end(Ending::Refused) },
        }
    }

    async fn hear(&mut self, text: &str, now: Now) -> Response {
        let Some(command) = Command::read(text) else { return Self::bad() };
        let Some(turn) = self.member.as_ref().and_then(|me| me.turn(None).ok()) else { return Response::default() };
        match command {
            Command::Signal(kind, Target::Name(to), payload) => match turn.signal_or_wait(&to, kind, payload, now) {
                Ok(()) => Response::default(),
                Err(_) => self.expired(to.as_str()),
            },
            Command::Signal(_, Target::Nobody(dst), _) => {
                drop(turn);
                self.expired(&dst)
            }
            // Who isn't there has nothing of either to hear of.
            Command::Leave(Some(Target::Name(to))) => {
                let _ = turn.leave(&to, now);
                Response::default()
            }
            Command::Expire(Target::Name(to), payload) => {
                let _ = turn.send(&to, payload, now);
                Response::default()
            }
            Command::Leave(None) => Response::end(Ending::Bye),
            Command::Leave(Some(Target::Nobody(_))) | Command::Expire(Target::Nobody(_), _) | Command::Nothing => {
                Response::default()
            }
        }
    }

    fn hear_binary(&mut self, _now: Now) -> Response {
        Self::bad()
    }

    fn refuse(&mut self, text: Option<&str>, _now: Now) -> Response {
        match text.and_then(Command::read) {
            Some(Command::Signal(_, Target::Name(to), _)) => self.expired(to.as_str()),
            Some(Command::Signal(_, Target::Nobody(dst), _)) => self.expired(&dst),
            Some(Command::Leave(_) | Command::Expire(..) | Command::Nothing) | None => Response::default(),
        }
    }

    fn last_words(&self, ending: Ending) -> Option<String> {
        let most = self.context.limits().message_bytes;
        (ending == Ending::TooLarge).then(|| error(&format!("A message has at most {most} bytes")))
    }

    fn put(&self, _number: Option<u64>, message: &message::Message) -> Told {
        use message::Message;
        let me = self.name();
        match message {
            Message::Signal { from, kind, payload } => {
                Told::text(told(word(*kind), from.name.as_str(), me, Some(payload)))
            }
            Message::Data { from, payload, .. } => Told::text(told("EXPIRE", from.name.as_str(), me, Some(payload))),
            Message::Leave { from } => Told::text(told("LEAVE", from.as_str(), me, None)),
            Message::Undelivered { to: Recipient::Member(to), .. } => Told::text(told("EXPIRE", to.as_str(), me, None)),
            // What two clients have between them outlives their connections to the server.
            Message::Away { .. }
            | Message::Gone { .. }
            | Message::Presence { .. }
            | Message::Missed
            | Message::Undelivered { to: Recipient::Room(_), .. } => Told::default(),
            Message::Answer(text) | Message::Notice(text) => Told::text(&**text),
        }
    }

    fn member(&self) -> Option<&Session> {
        self.member.as_ref()
    }

    fn into_member(self) -> Option<Session> {
        self.member
    }
}

impl Connection<'_> {
    /// Signs the client in as its URL has it, or says what it is told instead.
    async fn sign_in(&self, now: Now) -> Result<Session, String> {
        let Opening { key, id } = &self.opening;
        let token = self.visitor.token.as_deref().unwrap_or_default();
        if [key, id, token].iter().any(|parameter| parameter.is_empty()) {
            return Err(error("No id, token, or key supplied to websocket server"));
        }
        if key != KEY {
            return Err(error("Invalid key provided"));
        }
        let name = Name::new(id).map_err(|bad| error(&format!("Invalid id provided: {bad}")))?;
        let signed_in = self.context.sessions.sign_in_or_take_over(name, &self.visitor, now).await;
        signed_in.map_err(|why| match why {
            NotSignedIn::Refused(Refusal::NameTaken) => {
                json!({ "type": "ID-TAKEN", "payload": { "msg": "ID is taken" } }).to_string()
            }
            NotSignedIn::Denied(_) | NotSignedIn::Refused(_) | NotSignedIn::NotJoined(_) | NotSignedIn::Nameless => {
                error(&why.to_string())
            }
        })
    }

    /// Says that what was for `dst` isn't delivered.
    fn expired(&self, dst: &str) -> Response {
        Response::reply(told("EXPIRE", dst, self.name(), None))
    }

    fn name(&self) -> &str {
        self.member.as_ref().map_or("", Session::name)
    }

    fn bad() -> Response {
        Response { is_bad: true, ..Response::default() }
    }
}

/// What a client says.
#[derive(Debug)]
enum Command {
    /// Pass a step of a negotiation on.
    Signal(SignalKind, Target, Payload),
    /// Hang up on one, or leave for good.
    Leave(Option<Target>),
    /// Tell somebody that it waited too long.
    Expire(Target, Payload),
    /// It lives, or says what means nothing here.
    Nothing,
}

/// Whom a frame is for.
#[derive(Debug)]
enum Target {
    Name(Name),
    /// What nobody can be called.
    Nobody(String),
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    dst: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl Command {
    /// Reads one frame; none, if it is none.
    fn read(text: &str) -> Option<Self> {
        check_object(text).ok()?;
        let Frame { kind, dst, payload } = serde_json::from_str(text).ok()?;
        let to = dst.filter(|dst| !dst.is_empty()).map(|dst| match Name::new(&dst) {
            Ok(name) => Target::Name(name),
            Err(_) => Target::Nobody(dst.into_owned()),
        });
        let payload = || Payload::verbatim(payload.unwrap_or(RawValue::NULL));
        Some(match (&*kind, to) {
            ("OFFER", Some(to)) => Self::Signal(SignalKind::Offer, to, payload()),
            ("ANSWER", Some(to)) => Self::Signal(SignalKind::Answer, to, payload()),
            ("CANDIDATE", Some(to)) => Self::Signal(SignalKind::Candidate, to, payload()),
            ("EXPIRE", Some(to)) => Self::Expire(to, payload()),
            ("LEAVE", to) => Self::Leave(to),
            (_, _) => Self::Nothing,
        })
    }
}

const fn word(kind: SignalKind) -> &'static str {
    match kind {
        SignalKind::Offer => "OFFER",
        SignalKind::Answer => "ANSWER",
        SignalKind::Candidate => "CANDIDATE",
    }
}

/// A frame from one client to another; a payload that is none is left out.
fn told(kind: &str, src: &str, dst: &str, payload: Option<&Payload>) -> String {
    let [kind, src, dst] = [kind, src, dst].map(Value::from);
    let payload = payload.map(Payload::json).filter(|json| *json != "null");
    let payload = payload.map(|json| format!(r#","payload":{json}"#)).unwrap_or_default();
    format!(r#"{{"type":{kind},"src":{src},"dst":{dst}{payload}}}"#)
}

fn error(msg: &str) -> String {
    json!({ "type": "ERROR", "payload": { "msg": msg } }).to_string()
}

#[cfg(test)]
mod tests;
