//! Ayame's protocol: rooms of two, in which the second makes an offer to the first.
//!
//! A room ends with the first of the two that goes: the other is told `bye` and its connection ends, too. A standalone
//! client goes by `connected`, when the two have each other; it is told no `bye`, for to a client that would be the end of
//! the call.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use self::frame::Command;
use self::frame::Register;
use super::Context;
use super::fault::Fault;
use super::link;
use super::link::Protocol;
use super::link::Response;
use super::websocket::Ending;
use super::websocket::Told;
use crate::clock::Now;
use crate::signaling::accounts::Denied;
use crate::signaling::hub::NotJoined;
use crate::signaling::mailbox::Delivery;
use crate::signaling::message::Change;
use crate::signaling::message::Message;
use crate::signaling::message::Payload;
use crate::signaling::message::SignalKind;
use crate::signaling::name::Name;
use crate::signaling::session::NotSignedIn;
use crate::signaling::session::Session;
use crate::signaling::session::Visitor;
use crate::signaling::store::NoEntry;
use crate::signaling::store::Undelivered;

mod frame;

/// How often a client is asked whether it is there, in its own words.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Serves one client until it or we end the connection.
pub async fn serve<S>(context: Arc<Context>, visitor: Visitor, io: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ping_at = context.clock.now().monotonic + PING_EVERY;
    let connection = Connection { context: Arc::clone(&context), visitor, ping_at, member: None };
    link::serve(&context, connection, io).await;
}

/// One client.
struct Connection {
    context: Arc<Context>,
    visitor: Visitor,
    ping_at: Instant,
    member: Option<Member>,
}

/// One that was let in.
struct Member {
    session: Session,
    room: Name,
    standalone: bool,
}

impl Protocol for Connection {
    async fn hear(&mut self, text: &str, now: Now) -> Response {
        match Command::read(text) {
            Ok(Command::Register(_)) if self.member.is_some() => {
                Fault::new("forbidden", "registered already; a connection has one room").blame()
            }
            Ok(Command::Register(register)) => match self.register(register, now).await {
                Ok(accept) => Response::reply(accept),
                Err(reason) => Response { ending: Some(Ending::Bye), ..Response::reply(frame::reject(reason)) },
            },
            Ok(Command::Signal(kind, payload)) => match self.signal(kind, payload, now) {
                Ok(()) => Response::default(),
                Err(fault) => fault.blame(),
            },
            Ok(Command::Bye) => Response::end(Ending::Bye),
            Ok(Command::Connected) if self.is_standalone() => Response::end(Ending::Bye),
            Ok(Command::Connected | Command::Pong) => Response::default(),
            Err(fault) => fault.blame(),
        }
    }

    fn hear_binary(&mut self, _now: Now) -> Response {
        Fault::binary().blame()
    }

    fn refuse(&mut self, _text: Option<&str>, _now: Now) -> Response {
        Fault::rate().blame()
    }

    fn last_words(&self, ending: Ending) -> Option<String> {
        (ending == Ending::TooLarge).then(|| Fault::too_large(self.context.limits().message_bytes).encode())
    }

    fn put(&self, _number: Option<u64>, message: &Message) -> Told {
        match message {
            Message::Signal { payload, .. } => Told::text(payload.json()),
            // In a room of two nothing else can be missed.
            Message::Presence { change: Change::Left, .. } | Message::Missed => {
                Told { text: (!self.is_standalone()).then(frame::bye), ending: Some(Ending::Bye) }
            }
            Message::Answer(text) | Message::Notice(text) => Told::text(&**text),
            // Whoever hangs up leaves the room, too.
            Message::Presence { change: Change::Joined, .. }
            | Message::Data { .. }
            | Message::Leave { .. }
            | Message::Away { .. }
            | Message::Gone { .. }
            | Message::Undelivered { .. } => Told::default(),
        }
    }

    fn due(&self) -> Option<Instant> {
        Some(self.ping_at)
    }

    fn act(&mut self, now: Now) -> Response {
        if self.ping_at > now.monotonic {
            return Response::default();
        }
        self.ping_at = now.monotonic + PING_EVERY;
        Response::reply(frame::ping())
    }

    fn member(&self) -> Option<&Session> {
        self.member.as_ref().map(|member| &member.session)
    }

    fn into_member(self) -> Option<Session> {
        self.member.map(|member| member.session)
    }
}

impl Connection {
    /// What a client is told that is let in, or the reason why it isn't.
    async fn register(&mut self, register: Register, now: Now) -> Result<String, &'static str> {
        let Register { room, key, standalone } = register;
        let room = room.ok_or("bad-room")?;
        // Applications have keys of their own for other servers: the one in the URL is meant for this one.
        self.visitor.token = self.visitor.token.take().or(key);
        let sessions = &self.context.sessions;
        let signed_in = sessions.sign_in_unnamed(Name::random(), Delivery::Once, Some(&room), &self.visitor, now).await;
        let (session, others) = signed_in.map_err(reason)?;
        let accept = frame::accept(session.name(), !others.is_empty(), session.ice(now).servers);
        self.member = Some(Member { session, room, standalone });
        Ok(accept)
    }

    /// Whether it goes when it is connected.
    fn is_standalone(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.standalone)
    }

    /// Passes a step on to the other, if there is one.
    fn signal(&self, kind: SignalKind, payload: Payload, now: Now) -> Result<(), Fault> {
        let me = self.member.as_ref().ok_or_else(|| Fault::new("not-signed-in", "register first"))?;
        let addresses = me.session.addresses(&payload);
        let Ok(turn) = me.session.turn(None) else { return Ok(()) };
        let Some(other) = turn.others(&me.room, now).pop() else { return Ok(()) };
        match turn.signal(&other, kind, payload, &addresses, now) {
            Ok(()) | Err(Undelivered::UnknownMember) => Ok(()),
            Err(Undelivered::Refused(why)) => Err(Fault::new("rate", why.to_string())),
        }
    }
}

const fn reason(why: NotSignedIn) -> &'static str {
    match why {
        NotSignedIn::Denied(Denied::Proof) => "auth",
        NotSignedIn::Denied(Denied::Failures | Denied::Rate | Denied::Later) => "rate",
        NotSignedIn::NotJoined(NotJoined::NoEntry(NoEntry::Full)) => "full",
        NotSignedIn::NotJoined(
            NotJoined::TooManyRooms | NotJoined::TooMuchUnread | NotJoined::NoEntry(NoEntry::Lost(_)),
        )
        | NotSignedIn::Refused(_)
        | NotSignedIn::Nameless => "unavailable",
    }
}

#[cfg(test)]
mod tests;
