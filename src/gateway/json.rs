//! Our JSON protocol over WebSocket, in both dialects of the classic tutorials and in two versions.
//!
//! In the second version (`"v":2` in the login) everything that a member is told has a number, `seq`, until it says by
//! `ack` that it has arrived. What is about its connection alone has none: the reply to a login, `pong`, and what comes
//! before. A member's own frames have a number, `id`, each above the last; the reply to a login and `pong` say up to which
//! they were taken. A session ends with `bye`, or with a closing handshake without code or with 1000 or 1001.

use std::pin::pin;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use self::frame::Code;
use self::frame::Command;
use self::frame::Fault;
use self::frame::Incoming;
use self::frame::Login;
use self::frame::Target;
use self::frame::Version;
use self::frame::Welcome;
use super::Context;
use super::Limits;
use super::websocket::Ending;
use super::websocket::WebSocket;
use crate::clock::Now;
use crate::rate::TokenBucket;
use crate::signaling::accounts::Denied;
use crate::signaling::hub::NotJoined;
use crate::signaling::hub::NotThere;
use crate::signaling::hub::Refusal;
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
    let now = context.clock.now();
    let mut socket = WebSocket::new(io, context.limits.message_bytes).await;
    let mut link = Link::new(context, visitor, dialect, now);
    if dialect == Dialect::Strings {
        socket.reply(frame::greeting());
    }
    let ending = converse(&mut link, &mut socket, now).await;
    if ending == Ending::TooLarge {
        let most = link.context.limits.message_bytes;
        socket.reply(Fault::new(Code::TooLarge, format!("a message has at most {most} bytes")).encode());
    }
    // Partners learn that it is over before the client takes its time to close.
    link.end(ending);
    socket.close(ending).await;
}

async fn converse<S>(link: &mut Link, socket: &mut WebSocket<S>, now: Now) -> Ending
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let context = Arc::clone(&link.context);
    let dialect = link.dialect;
    let mut stop = pin!(context.shutdown.cancelled());
    let mut pulse = Pulse::new(context.limits, now.monotonic);
    loop {
        let mailbox = link.member.as_ref().map(|me| Arc::clone(me.reader()));
        let due = pulse.due(link.is_member());
        let message = tokio::select! {
            biased;
            () = &mut stop => return Ending::Restart,
            () = tokio::time::sleep_until(link.fresh_ice_at.map_or(due, |at| at.min(due))) => {
                let now = context.clock.now();
                link.push_ice(now);
                if now.monotonic >= due {
                    if let Some(ending) = pulse.beat(link.is_member(), now.monotonic) {
                        return ending;
                    }
                    if !link.lives(now) {
                        return Ending::NameLost;
                    }
                    socket.ping();
                }
                continue;
            }
            message = socket.next(mailbox.as_deref(), |seq, message| frame::told(seq, message, dialect)) => message,
        };
        let now = context.clock.now();
        pulse.heard = now.monotonic;
        let turn = match message {
            Ok(message) => link.hear(&message, now),
            Err(ending) => return ending,
        };
        if let Some(reply) = turn.reply {
            socket.reply(reply);
        }
        if let Some(ending) = turn.ending {
            return ending;
        }
    }
}

/// When something is due on a connection that is silent.
struct Pulse {
    limits: Limits,
    sign_in_by: Instant,
    ping_at: Instant,
    heard: Instant,
}

impl Pulse {
    fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, sign_in_by: now + limits.sign_in_within, ping_at: now + limits.ping_every, heard: now }
    }

    /// Ends the connection when it is time; without an ending, it is time to ping.
    fn beat(&mut self, is_member: bool, now: Instant) -> Option<Ending> {
        if now >= self.heard + self.limits.gone_after {
            return Some(Ending::Lost);
        }
        if !is_member && now >= self.sign_in_by {
            return Some(Ending::NoSignIn);
        }
        self.ping_at = now + self.limits.ping_every;
        None
    }

    fn due(&self, is_member: bool) -> Instant {
        let silent = self.ping_at.min(self.heard + self.limits.gone_after);
        if is_member { silent } else { silent.min(self.sign_in_by) }
    }
}

/// What the server knows of one connection.
struct Link {
    context: Arc<Context>,
    visitor: Visitor,
    dialect: Dialect,
    member: Option<Session>,
    /// When its ICE servers are replaced by fresh ones unasked; only in the second version.
    fresh_ice_at: Option<Instant>,
    allowance: TokenBucket,
    /// How often the client is told that it sends too much, before it is closed for it.
    warnings: TokenBucket,
    bad_frames: u32,
}

/// What a client gets for one message.
#[derive(Debug, Default)]
struct Response {
    reply: Option<String>,
    ending: Option<Ending>,
}

impl Response {
    fn reply(reply: String) -> Self {
        Self { reply: Some(reply), ending: None }
    }

    fn end(ending: Ending) -> Self {
        Self { reply: None, ending: Some(ending) }
    }
}

impl Link {
    fn new(context: Arc<Context>, visitor: Visitor, dialect: Dialect, now: Now) -> Self {
        let full = TokenBucket::new(context.limits.messages, now.monotonic);
        Self {
            context,
            visitor,
            dialect,
            member: None,
            fresh_ice_at: None,
            allowance: full,
            warnings: full,
            bad_frames: 0,
        }
    }

    /// Takes one WebSocket message, whatever is in it.
    fn hear(&mut self, message: &Message, now: Now) -> Response {
        if !self.allowance.take(self.context.limits.messages, now.monotonic) {
            return self.warn(message, now);
        }
        match message {
            Message::Text(text) => {
                self.context.metrics.frames.increment();
                self.obey(text, now)
            }
            Message::Binary(_) => {
                self.context.metrics.frames.increment();
                self.blame(&Fault::bad("binary messages mean nothing here"), now)
            }
            Message::Close(frame) => Response::end(Ending::of_close(frame.as_ref())),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Response::default(),
        }
    }

    fn warn(&mut self, message: &Message, now: Now) -> Response {
        if !self.warnings.take(self.context.limits.messages, now.monotonic) {
            return Response::end(Ending::Flood);
        }
        let id = match message {
            Message::Close(frame) => return Response::end(Ending::of_close(frame.as_ref())),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Response::default(),
            Message::Text(text) => Incoming::read(text, self.version()).id,
            Message::Binary(_) => None,
        };
        if self.is_stale(id) {
            return Response::default();
        }
        self.tell(Fault::new(Code::Rate, "too many messages; this one is dropped").about(id).encode(), now)
    }

    fn obey(&mut self, text: &str, now: Now) -> Response {
        let Incoming { id, said } = Incoming::read(text, self.version());
        let outcome = match said {
            Ok(Command::Login(login)) => self.login(login, now),
            Ok(Command::Bye) => return Response::end(Ending::Bye),
            Ok(command) => self.carry_out(id, command, now),
            Err(_) if self.is_stale(id) => return Response::default(),
            Err(fault) => Err(fault),
        };
        outcome.unwrap_or_else(|fault| self.blame(&fault.about(id), now))
    }

    /// What only members may ask for.
    fn carry_out(&self, id: Option<u64>, command: Command, now: Now) -> Result<Response, Fault> {
        let me = self.member.as_ref().ok_or_else(|| Fault::new(Code::NotSignedIn, "sign in first"))?;
        let version = version_of(me);
        let addresses = if let Command::Signal(_, _, payload) = &command { me.addresses(payload) } else { Vec::new() };
        let Ok(turn) = me.turn(id) else { return Ok(Response::default()) };
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
            Command::SendToRoom(room, data) => turn.send_to_room(&room, &data, now)?,
            Command::Leave(None) => turn.leave_all(now),
            Command::Leave(Some(target)) => {
                let to = known(target)?;
                turn.leave(&to, now).map_err(|why| Fault::undelivered(why, to, version))?;
            }
            Command::Join(room) => {
                let answer = |members: Vec<Name>| self.answer(me, frame::joined(&room, &members), now);
                return turn.join(&room, answer, now)?;
            }
            Command::Part(room) => turn.part(&room, now)?,
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
                me.reader().acknowledge(arrived).map_err(|_| Fault::bad("nothing was sent by this number"))?;
            }
            Command::Login(_) | Command::Bye => {}
        }
        Ok(Response::default())
    }

    fn login(&mut self, login: Login, now: Now) -> Result<Response, Fault> {
        if self.is_member() {
            return Err(Fault::new(Code::Forbidden, "signed in already; a connection has one name"));
        }
        Ok(Response::reply(self.sign_in(login, now).unwrap_or_else(frame::refused)))
    }

    /// The reply to a `login` that went well, or the reason why it didn't.
    fn sign_in(&mut self, login: Login, now: Now) -> Result<String, &'static str> {
        let Login { name, version, resume, room, token } = login;
        if token.is_some() {
            self.visitor.token = token;
        }
        let name = name.ok_or("bad-name")?;
        let sessions = &self.context.sessions;
        let (me, welcome) = if let Some((secret, arrived)) = resume {
            let resumed = sessions.resume(name, &secret, arrived, &self.visitor, now);
            let (me, last_frame) = resumed.map_err(|why| reason(why.into()))?;
            (me, Welcome { last_frame, members: None })
        } else {
            let room = room.map(|room| room.ok_or("bad-name")).transpose()?;
            let delivery = match version {
                Version::First => Delivery::Once,
                Version::Second => Delivery::Acknowledged,
            };
            let signed_in = sessions.sign_in(name, delivery, room.as_ref(), &self.visitor, now);
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
        Ok(reply)
    }

    /// Hands out fresh ICE servers, if it is time.
    fn push_ice(&mut self, now: Now) {
        if let (Some(me), Some(at)) = (&self.member, self.fresh_ice_at)
            && at <= now.monotonic
        {
            let ice = me.ice(now);
            self.fresh_ice_at = Some(fresh_ice_at(&ice, now));
            // Refused only when the connection is about to end.
            let _ = me.reader().put(signaling::Message::Notice(frame::ice(ice).into()), now.monotonic);
        }
    }

    /// Whether the name is the member's yet; it is for a while longer then.
    fn lives(&self, now: Now) -> bool {
        self.member.as_ref().is_none_or(|me| me.renew(now).is_ok())
    }

    /// The connection has ended.
    fn end(self, ending: Ending) {
        let now = self.context.clock.now();
        if let Some(me) = self.member {
            me.disconnect(ending.may_return(), now);
        }
    }

    fn blame(&mut self, fault: &Fault, now: Now) -> Response {
        if fault.code == Code::BadMessage {
            self.bad_frames += 1;
        }
        let ending = (self.bad_frames >= self.context.limits.bad_frames).then_some(Ending::BadFrames);
        Response { ending, ..self.tell(fault.encode(), now) }
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

    /// Whether a frame is nothing to act upon; else it has been taken, by its number.
    fn is_stale(&self, id: Option<u64>) -> bool {
        self.member.as_ref().is_some_and(|me| me.turn(id).is_err())
    }

    fn version(&self) -> Option<Version> {
        self.member.as_ref().map(version_of)
    }

    fn is_member(&self) -> bool {
        self.member.is_some()
    }
}

fn version_of(member: &Session) -> Version {
    if member.secret().is_some() { Version::Second } else { Version::First }
}

/// At 70 % of their life.
fn fresh_ice_at(ice: &Ice, now: Now) -> Instant {
    now.monotonic + ice.lifetime * 7 / 10
}

/// What a login that failed says of it.
const fn reason(why: NotSignedIn) -> &'static str {
    match why {
        NotSignedIn::Refused(Refusal::NameTaken) => "name-taken",
        NotSignedIn::Denied(Denied::Proof) | NotSignedIn::Refused(Refusal::Banned | Refusal::NoSession) => "auth",
        NotSignedIn::Denied(Denied::Rate) | NotSignedIn::Refused(Refusal::Rate) => "rate",
        NotSignedIn::NotJoined(_) => "full",
    }
}

impl From<NotThere> for Fault {
    fn from(why: NotThere) -> Self {
        Self::new(Code::Forbidden, why.to_string())
    }
}

impl From<NotJoined> for Fault {
    fn from(why: NotJoined) -> Self {
        Self::new(Code::Forbidden, why.to_string())
    }
}

#[cfg(test)]
mod tests;
