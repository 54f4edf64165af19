//! Our JSON protocol over WebSocket, in both dialects of the classic tutorials and in two versions.
//!
//! In the second version (`"v":2` in the login) everything that a member is told has a number, `seq`, until it says by
//! `ack` that it has arrived. What is about its connection alone has none: the reply to a login, `pong`, and what comes
//! before. A client acknowledges every 16 messages, every 64 KiB of them, and 5 s after the first that it hasn't yet:
//! by default 256 messages or 256 KiB may wait for that, and what is more is refused, its sender told `undelivered`, and
//! what the client itself asks for answered with `rate`. An `ack` of something new doesn't count against its rate.
//!
//! A member's own frames have a number, `id`, each above the last; the reply to a login and `pong` say up to which they
//! were taken, and after a break it sends the rest again, at its rate. Those that were taken before count for nothing.
//! What can't be delivered, or was not acknowledged when its recipient's session ended, comes back as `undelivered`, once
//! for each frame: with the recipient as `name`, or with the `room` that not everybody in has got it.
//!
//! An `offer` says whether its recipient is to be `polite`, which is who joined later of the two: when both offer at once,
//! one of them must give way, and the order of joining outlives their connections.
//!
//! Whatever goes to a room counts as one message, and one more for each 16 members told: what is sent there, `join` and
//! `part`. When more members come and go than a client reads of, `presence` says that it has `missed` some: `join` says
//! again who is there.
//!
//! A session ends with `bye`, with a closing handshake without code or with 1000 or 1001, and when its client tries to
//! take it up by a `seq` that can't be. A `login` refused with `"resume":false` has no session to take up, and signs in.

use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use self::frame::Code;
use self::frame::Command;
use self::frame::Fault;
use self::frame::Incoming;
use self::frame::Login;
use self::frame::Reason;
use self::frame::Target;
use self::frame::Version;
use self::frame::Welcome;
use super::Context;
use super::link;
use super::link::Price;
use super::link::Protocol;
use super::link::Response;
use super::websocket::Ending;
use super::websocket::Told;
use crate::clock::Now;
use crate::signaling::accounts::Denied;
use crate::signaling::hub::NotJoined;
use crate::signaling::hub::NotThere;
use crate::signaling::hub::Refusal;
use crate::signaling::hub::Stale;
use crate::signaling::mailbox::Delivery;
use crate::signaling::message as signaling;
use crate::signaling::name::Name;
use crate::signaling::session::Ice;
use crate::signaling::session::NotSignedIn;
use crate::signaling::session::Session;
use crate::signaling::session::Visitor;

mod frame;

/// How the server hands out descriptions and candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// As objects: the text-chat and 1:1 video tutorials.
    Objects,
    /// As JSON packed into strings, which the client parses: the tutorial at `/websocketRTC`.
    Strings,
}

/// Serves one client until it or we end the connection.
pub async fn serve<S>(context: Arc<Context>, visitor: Visitor, dialect: Dialect, io: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connection = Connection::new(Arc::clone(&context), visitor, dialect);
    link::serve(&context, connection, io).await;
}

/// What the server knows of one connection.
struct Connection {
    context: Arc<Context>,
    visitor: Visitor,
    dialect: Dialect,
    member: Option<Session>,
    /// When its ICE servers are replaced by fresh ones unasked; only in the second version.
    fresh_ice_at: Option<Instant>,
}

impl Protocol for Connection {
    async fn greet(&mut self, _now: Now) -> Response {
        match self.dialect {
            Dialect::Objects => Response::default(),
            Dialect::Strings => Response::reply(frame::greeting()),
        }
    }

    async fn hear(&mut self, text: &str, now: Now) -> Response {
        let Incoming { id, said } = Incoming::read(text, self.version());
        let outcome = match said {
            // Once a connection, and large: every one would have room for it for life.
            Ok(Command::Login(login)) => Box::pin(self.login(login, now)).await,
            Ok(Command::Bye) => return Response::end(Ending::Bye),
            Ok(command) => self.carry_out(id, command, now),
            Err(fault) => match self.stale(id) {
                Some(why) => Ok(ignored(why)),
                None => Err(fault),
            },
        };
        outcome.unwrap_or_else(|fault| self.blame(&fault.about(id), now))
    }

    fn hear_binary(&mut self, now: Now) -> Response {
        self.blame(&Fault::bad("binary messages mean nothing here"), now)
    }

    fn refuse(&mut self, text: Option<&str>, now: Now) -> Response {
        let incoming = text.map(|text| Incoming::read(text, self.version()));
        let id = incoming.as_ref().and_then(|incoming| incoming.id);
        if let Some(Incoming { said: Ok(command @ Command::Ack(_)), .. }) = incoming {
            // Others make it say so much.
            return self.carry_out(id, command, now).unwrap_or_else(|fault| self.blame(&fault.about(id), now));
        }
        if let Some(why) = self.stale(id) {
            return ignored(why);
        }
        self.tell(Fault::new(Code::Rate, "too many messages; this one is dropped").about(id).encode(), now)
    }

    fn last_words(&self, ending: Ending) -> Option<String> {
        let most = self.context.limits().message_bytes;
        (ending == Ending::TooLarge)
            .then(|| Fault::new(Code::TooLarge, format!("a message has at most {most} bytes")).encode())
    }

    fn put(&self, number: Option<u64>, message: &signaling::Message) -> Told {
        let joined = self.member.as_ref().filter(|me| version_of(me) == Version::Second).map(Session::joined);
        Told::text(frame::told(number, message, self.dialect, joined))
    }

    fn due(&self) -> Option<Instant> {
        self.fresh_ice_at
    }

    /// Hands out fresh ICE servers.
    fn act(&mut self, now: Now) -> Response {
        if let (Some(me), Some(at)) = (&self.member, self.fresh_ice_at)
            && at <= now.monotonic
        {
            let ice = me.ice(now);
            self.fresh_ice_at = Some(fresh_ice_at(&ice, now));
            // Refused only when the connection is about to end.
            let _ = me.reader().put(signaling::Message::Notice(frame::ice(ice).into()), now.monotonic);
        }
        Response::default()
    }

    fn replace_ice(&mut self, now: Now) -> Response {
        self.fresh_ice_at = self.fresh_ice_at.map(|_| now.monotonic);
        self.act(now)
    }

    fn member(&self) -> Option<&Session> {
        self.member.as_ref()
    }

    fn into_member(self) -> Option<Session> {
        self.member
    }
}

impl Connection {
    fn new(context: Arc<Context>, visitor: Visitor, dialect: Dialect) -> Self {
        Self { context, visitor, dialect, member: None, fresh_ice_at: None }
    }

    /// What only members may ask for.
    fn carry_out(&self, id: Option<u64>, command: Command, now: Now) -> Result<Response, Fault> {
        let me = self.member.as_ref().ok_or_else(|| Fault::new(Code::NotSignedIn, "sign in first"))?;
        let version = version_of(me);
        let addresses = if let Command::Signal(_, _, payload) = &command { me.addresses(payload) } else { Vec::new() };
        let turn = match me.turn(id) {
            Ok(turn) => turn,
            Err(why) => return Ok(ignored(why)),
        };
        let known = |target: Target| target.ok_or_else(|| Fault::unknown_member(None));
        match command {
            Command::Signal(kind, target, payload) => {
                let to = known(target)?;
                let passed = turn.signal(&to, kind, payload, &addresses, now);
                passed.map_err(|why| Fault::undelivered(why, to, version))?;
            }
            Command::Send(target, data) => {
                let to = known(target)?;
                turn.send(&to, data, now).map_err(|why| Fault::undelivered(why, to, version))?;
            }
            Command::SendToRoom(room, data) => {
                return Ok(Response::at(Price::ToMembers(turn.send_to_room(&room, &data, now)?)));
            }
            Command::Leave(None) => turn.leave_all(now),
            Command::Leave(Some(target)) => {
                let to = known(target)?;
                turn.leave(&to, now).map_err(|why| Fault::undelivered(why, to, version))?;
            }
            Command::Join(room) => {
                let answer = |members: Vec<Name>| {
                    let answered = self.answer(me, frame::joined(&room, &members), now)?;
                    Ok(Response { price: Price::ToMembers(members.len()), ..answered })
                };
                return turn.join(&room, answer, now)?;
            }
            Command::Part(room) => return Ok(Response::at(Price::ToMembers(turn.part(&room, now)?))),
            Command::Who(room) => {
                let members = turn.who(room.as_ref(), now);
                let members = members.ok_or_else(|| Fault::new(Code::Forbidden, "nobody is told who is here"))?;
                return self.answer(me, frame::who(room.as_ref(), &members), now);
            }
            Command::Ice => {
                drop(turn);
                return self.answer(me, frame::ice(me.ice(now)), now);
            }
            Command::Ping => {
                let last_frame = (version == Version::Second).then(|| turn.last_frame());
                return Ok(Response::reply(frame::pong(last_frame)));
            }
            Command::Ack(arrived) => {
                let more = me.reader().acknowledge(arrived);
                let more = more.map_err(|_| Fault::bad("nothing was sent by this number"))?;
                // There can't be more of these than of what it was told.
                return Ok(Response::at(if more > 0 { Price::Free } else { Price::One }));
            }
            Command::Login(_) | Command::Bye => {}
        }
        Ok(Response::default())
    }

    async fn login(&mut self, login: Login, now: Now) -> Result<Response, Fault> {
        if self.is_member() {
            return Err(Fault::new(Code::Forbidden, "signed in already; a connection has one name"));
        }
        Ok(Response::reply(self.sign_in(login, now).await.unwrap_or_else(frame::refused)))
    }

    /// The reply to a `login` that went well, or the reason why it didn't.
    async fn sign_in(&mut self, login: Login, now: Now) -> Result<String, Reason> {
        let Login { name, version, resume, room, token } = login;
        if token.is_some() {
            self.visitor.token = token;
        }
        let name = name.map(|name| name.ok_or(Reason::BadName)).transpose()?;
        let sessions = &self.context.sessions;
        let (me, welcome) = if let Some((secret, arrived)) = resume {
            let resumed = sessions.resume(name.ok_or(Reason::BadName)?, &secret, arrived, &self.visitor, now);
            let (me, last_frame) = resumed.map_err(reason)?;
            (me, Welcome { last_frame, members: None })
        } else {
            let room = room.map(|room| room.ok_or(Reason::BadName)).transpose()?;
            let delivery = match version {
                Version::First => Delivery::Once,
                Version::Second => Delivery::Acknowledged,
            };
            let signed_in = sessions.sign_in(name, delivery, room.as_ref(), &self.visitor, now).await;
            let (me, members) = signed_in.map_err(reason)?;
            (me, Welcome { last_frame: 0, members: room.map(|_| members) })
        };
        let ice = me.ice(now);
        self.fresh_ice_at = match version {
            Version::First => None,
            Version::Second => Some(fresh_ice_at(&ice, now)),
        };
        let reply = frame::signed_in(&me, ice, self.dialect, welcome);
        self.member = Some(me);
        self.visitor.token = None;
        Ok(reply)
    }

    fn blame(&self, fault: &Fault, now: Now) -> Response {
        Response { is_bad: fault.code == Code::BadMessage, ..self.tell(fault.encode(), now) }
    }

    /// Says something that must arrive.
    fn tell(&self, text: String, now: Now) -> Response {
        match &self.member {
            Some(me) if version_of(me) == Version::Second => {
                // Refused only when the connection is about to end.
                let _ = me.reader().put(signaling::Message::Notice(text.into()), now.monotonic);
                Response::default()
            }
            Some(_) | None => Response::reply(text),
        }
    }

    /// Says what was asked for, if there is room for it.
    fn answer(&self, me: &Session, text: String, now: Now) -> Result<Response, Fault> {
        if version_of(me) == Version::First {
            return Ok(Response::reply(text));
        }
        let put = me.reader().put(signaling::Message::Answer(text.into()), now.monotonic);
        put.map_err(|_| Fault::new(Code::Rate, "too much waits to be acknowledged; this is dropped"))?;
        Ok(Response::default())
    }

    /// Why a frame is nothing to act upon; else it has been taken, by its number.
    fn stale(&self, id: Option<u64>) -> Option<Stale> {
        self.member.as_ref()?.turn(id).err()
    }

    fn version(&self) -> Option<Version> {
        self.member.as_ref().map(version_of)
    }

    fn is_member(&self) -> bool {
        self.member.is_some()
    }
}

/// What comes of a frame that isn't acted upon.
fn ignored(why: Stale) -> Response {
    Response::at(match why {
        Stale::Frame => Price::Again,
        Stale::Connection => Price::One,
    })
}

fn version_of(member: &Session) -> Version {
    if member.secret().is_some() { Version::Second } else { Version::First }
}

/// At 70 % of their life.
fn fresh_ice_at(ice: &Ice, now: Now) -> Instant {
    now.monotonic + ice.lifetime * 7 / 10
}

/// What a login that failed says of it.
const fn reason(why: NotSignedIn) -> Reason {
    match why {
        NotSignedIn::Refused(Refusal::NameTaken) => Reason::NameTaken,
        NotSignedIn::Refused(Refusal::NoSession) => Reason::NoSession,
        NotSignedIn::Denied(Denied::Proof) | NotSignedIn::Refused(Refusal::Banned) => Reason::Auth,
        NotSignedIn::Denied(Denied::Failures | Denied::Rate | Denied::Later) => Reason::Rate,
        NotSignedIn::Nameless => Reason::BadName,
        NotSignedIn::NotJoined(_) => Reason::Full,
    }
}

impl From<NotThere> for Fault {
    fn from(why: NotThere) -> Self {
        Self::new(Code::Forbidden, why.to_string())
    }
}

impl From<NotJoined> for Fault {
    fn from(why: NotJoined) -> Self {
        let code = match why {
            NotJoined::TooMuchUnread => Code::Rate,
            NotJoined::TooManyRooms | NotJoined::NoEntry(_) => Code::Forbidden,
        };
        Self::new(code, why.to_string())
    }
}

#[cfg(test)]
mod tests;
