//! Our JSON protocol over WebSocket, in both dialects of the classic tutorials.

use std::pin::pin;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use self::frame::Code;
use self::frame::Command;
use self::frame::Fault;
use super::Context;
use super::Limits;
use super::websocket::Ending;
use super::websocket::WebSocket;
use crate::clock::Now;
use crate::rate::TokenBucket;
use crate::signaling::hub::Refusal;
use crate::signaling::mailbox::Delivery;
use crate::signaling::name::Name;
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
    link.end();
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
        let message = tokio::select! {
            biased;
            () = &mut stop => return Ending::Restart,
            () = tokio::time::sleep_until(pulse.due(link.is_member())) => {
                match pulse.beat(link.is_member(), context.clock.now().monotonic) {
                    Some(ending) => return ending,
                    None => socket.ping(),
                }
                if !link.is_alive() {
                    return Ending::NameLost;
                }
                continue;
            }
            message = socket.next(mailbox.as_deref(), |_, message| frame::relayed(message, dialect)) => message,
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
        Self { context, visitor, dialect, member: None, allowance: full, warnings: full, bad_frames: 0 }
    }

    /// Takes one WebSocket message, whatever is in it.
    fn hear(&mut self, message: &Message, now: Now) -> Response {
        if !self.allowance.take(self.context.limits.messages, now.monotonic) {
            return self.warn(message, now);
        }
        match message {
            Message::Text(text) => {
                self.context.metrics.frames.increment();
                self.obey(text, now).unwrap_or_else(|fault| self.blame(&fault))
            }
            Message::Binary(_) => {
                self.context.metrics.frames.increment();
                self.blame(&Fault::bad("binary messages mean nothing here"))
            }
            Message::Close(_) => Response::end(Ending::Closed),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Response::default(),
        }
    }

    fn warn(&mut self, message: &Message, now: Now) -> Response {
        if !self.warnings.take(self.context.limits.messages, now.monotonic) {
            return Response::end(Ending::Flood);
        }
        match message {
            Message::Close(_) => Response::end(Ending::Closed),
            Message::Text(_) | Message::Binary(_) => {
                Response::reply(Fault::new(Code::Rate, "too many messages; this one is dropped").encode())
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Response::default(),
        }
    }

    fn obey(&mut self, text: &str, now: Now) -> Result<Response, Fault> {
        match Command::decode(text)? {
            Command::Login(name) => return self.login(name, now),
            Command::Bye => return Ok(Response::end(Ending::Bye)),
            Command::Signal(kind, target, payload) => {
                let me = self.signed_in()?;
                let to = target.ok_or_else(|| Fault::unknown_member(None))?;
                let addresses = me.addresses(&payload);
                let Ok(turn) = me.turn(None) else { return Ok(Response::default()) };
                let passed = turn.signal(&to, kind, payload, &addresses, now);
                passed.map_err(|why| Fault::undelivered(why, to))?;
            }
            Command::Leave(None) => {
                let me = self.signed_in()?;
                if let Ok(turn) = me.turn(None) {
                    turn.leave_all(now);
                }
            }
            Command::Leave(Some(target)) => {
                let me = self.signed_in()?;
                let to = target.ok_or_else(|| Fault::unknown_member(None))?;
                let Ok(turn) = me.turn(None) else { return Ok(Response::default()) };
                let passed = turn.leave(&to, now);
                passed.map_err(|why| Fault::undelivered(why, to))?;
            }
            Command::Ice => {
                let me = self.signed_in()?;
                let ice = me.ice(now);
                return Ok(Response::reply(frame::ice(ice)));
            }
            Command::Ping => {
                self.signed_in()?;
                return Ok(Response::reply(frame::pong()));
            }
        }
        Ok(Response::default())
    }

    fn login(&mut self, name: Option<Name>, now: Now) -> Result<Response, Fault> {
        if self.is_member() {
            return Err(Fault::new(Code::Forbidden, "signed in already; a connection has one name"));
        }
        Ok(Response::reply(self.sign_in(name, now).unwrap_or_else(frame::refused)))
    }

    /// The reply to a `login` that went well, or the reason why it didn't.
    fn sign_in(&mut self, name: Option<Name>, now: Now) -> Result<String, &'static str> {
        let name = name.ok_or("bad-name")?;
        let signed_in = self.context.sessions.sign_in(name, Delivery::Once, None, &self.visitor, now);
        let (me, _) = signed_in.map_err(|refusal| match refusal {
            NotSignedIn::Refused(Refusal::NameTaken) => "name-taken",
            NotSignedIn::Refused(Refusal::Banned | Refusal::NoSession) => "auth",
            NotSignedIn::Refused(Refusal::Rate) => "rate",
            NotSignedIn::NotJoined(_) => "full",
        })?;
        let reply = frame::signed_in(&me, me.ice(now), self.dialect);
        self.member = Some(me);
        Ok(reply)
    }

    /// Whether the name is the member's yet.
    fn is_alive(&self) -> bool {
        let now = self.context.clock.now();
        self.member.as_ref().is_none_or(|me| me.renew(now).is_ok())
    }

    /// The connection has ended.
    fn end(self) {
        let now = self.context.clock.now();
        if let Some(me) = self.member {
            me.disconnect(false, now);
        }
    }

    fn blame(&mut self, fault: &Fault) -> Response {
        if fault.code == Code::BadMessage {
            self.bad_frames += 1;
        }
        let ending = (self.bad_frames >= self.context.limits.bad_frames).then_some(Ending::BadFrames);
        Response { reply: Some(fault.encode()), ending }
    }

    fn signed_in(&self) -> Result<&Session, Fault> {
        self.member.as_ref().ok_or_else(|| Fault::new(Code::NotSignedIn, "sign in first"))
    }

    fn is_member(&self) -> bool {
        self.member.is_some()
    }
}

#[cfg(test)]
mod tests;
