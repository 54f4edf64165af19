//! One client's connection, whatever protocol it speaks: what it may send, its pulse, and its end.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::Context;
use super::Limits;
use super::websocket::Ending;
use super::websocket::Heard;
use super::websocket::Told;
use super::websocket::Transport;
use super::websocket::WebSocket;
use crate::clock::Now;
use crate::rate::Rate;
use crate::rate::TokenBucket;
use crate::signaling::message;
use crate::signaling::session::Session;

/// What a client says, and how what it is told is put: one client's end of a protocol over WebSocket.
pub(super) trait Protocol {
    /// What is said before the client has said anything.
    async fn greet(&mut self, _now: Now) -> Response {
        Response::default()
    }

    /// Takes one text message.
    async fn hear(&mut self, text: &str, now: Now) -> Response;

    /// Takes a binary message; most protocols have none.
    fn hear_binary(&mut self, now: Now) -> Response;

    /// Says that a message beyond the rate is dropped; none of its text, if it is binary.
    fn refuse(&mut self, text: Option<&str>, now: Now) -> Response;

    /// What is said before the end.
    fn last_words(&self, _ending: Ending) -> Option<String> {
        None
    }

    /// How a message from the mailbox is put, with its number if it has one.
    fn put(&self, number: Option<u64>, message: &message::Message) -> Told;

    /// When it has something to do by itself.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Gives the client other ICE servers, because those that it has may be good no more.
    fn replace_ice(&mut self, _now: Now) -> Response {
        Response::default()
    }

    /// Does it, if it is time.
    fn act(&mut self, _now: Now) -> Response {
        Response::default()
    }

    /// The client's session, once it is signed in.
    fn member(&self) -> Option<&Session>;

    /// The same, at the end.
    fn into_member(self) -> Option<Session>;
}

/// What a client gets for one message.
#[derive(Debug, Default)]
pub(super) struct Response {
    /// What it is told at once, ahead of its mailbox.
    pub(super) reply: Option<String>,
    /// Whether the message said nothing that makes sense.
    pub(super) is_bad: bool,
    /// Why its connection ends.
    pub(super) ending: Option<Ending>,
    /// What the message counts for.
    pub(super) price: Price,
}

/// What a message counts for against its client's rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Price {
    /// As one.
    #[default]
    One,
    /// As none: something else bounds how many of them there can be.
    Free,
    /// As none, so often: it was taken before, over a connection that broke.
    Again,
    /// As more than one, because it is told to so many members.
    ToMembers(usize),
}

impl Response {
    /// It is told something.
    pub(super) fn reply(reply: String) -> Self {
        Self { reply: Some(reply), ..Self::default() }
    }

    /// It isn't told anything at once.
    pub(super) fn at(price: Price) -> Self {
        Self { price, ..Self::default() }
    }

    /// Its connection ends.
    pub(super) fn end(ending: Ending) -> Self {
        Self { ending: Some(ending), ..Self::default() }
    }
}

/// Serves one client over a WebSocket until it or we end the connection.
pub(super) async fn serve<P, S>(context: &Context, protocol: P, io: S)
where
    P: Protocol,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let socket = WebSocket::new(io, context.limits().message_bytes).await;
    serve_over(context, protocol, socket).await;
}

/// The same over any transport.
pub(super) async fn serve_over<P, T>(context: &Context, mut protocol: P, mut socket: T)
where
    P: Protocol,
    T: Transport,
{
    let ending = converse(context, &mut protocol, &mut socket).await;
    if let Some(text) = protocol.last_words(ending) {
        socket.reply(text);
    }
    // Others learn that it is over before the client takes its time to close.
    if let Some(member) = protocol.into_member() {
        if ending == Ending::Restart {
            member.leave_behind();
        } else {
            member.disconnect(ending.may_return(), context.clock.now());
        }
    }
    socket.close(ending).await;
}

async fn converse<P, T>(context: &Context, protocol: &mut P, socket: &mut T) -> Ending
where
    P: Protocol,
    T: Transport,
{
    let now = context.clock.now();
    let mut stop = pin!(context.shutdown.cancelled());
    let mut watched = context.rules.subscribe();
    let mut rules = *watched.borrow_and_update();
    if !rules.is_on {
        return Ending::SwitchedOff;
    }
    let mut pulse = Pulse::new(rules.limits, now.monotonic);
    let mut allowance = Allowance::new(rules.limits.messages, now.monotonic);
    let mut bad_frames = 0;
    let mut response = tokio::select! {
        biased;
        () = &mut stop => return Ending::Restart,
        response = protocol.greet(now) => response,
    };
    loop {
        if let Some(reply) = response.reply {
            socket.reply(reply);
        }
        bad_frames += u32::from(response.is_bad);
        if response.ending.is_some() || bad_frames >= rules.limits.bad_frames {
            return response.ending.unwrap_or(Ending::BadFrames);
        }
        let mailbox = protocol.member().map(|me| Arc::clone(me.reader()));
        let due = pulse.due(protocol.member().is_some());
        let render = |number: Option<u64>, message: &message::Message| protocol.put(number, message);
        let heard = tokio::select! {
            biased;
            () = &mut stop => return Ending::Restart,
            Ok(()) = watched.changed() => {
                let earlier = std::mem::replace(&mut rules, *watched.borrow_and_update());
                if !rules.is_on {
                    return Ending::SwitchedOff;
                }
                let now = context.clock.now();
                pulse.configure(rules.limits, now.monotonic);
                allowance.rate = rules.limits.messages;
                response = if rules.ice == earlier.ice { Response::default() } else { protocol.replace_ice(now) };
                continue;
            }
            () = tokio::time::sleep_until(protocol.due().map_or(due, |at| at.min(due))) => None,
            heard = poll_fn(|cx| socket.poll_next(cx, mailbox.as_deref(), &render)) => Some(heard),
        };
        let now = context.clock.now();
        response = match heard {
            Some(Ok(Heard::Pulse)) => {
                pulse.heard = now.monotonic;
                Response::default()
            }
            Some(Ok(Heard::Message(message))) => {
                pulse.heard = now.monotonic;
                tokio::select! {
                    biased;
                    () = &mut stop => return Ending::Restart,
                    response = hear(context, protocol, &mut allowance, &message, now) => response,
                }
            }
            Some(Err(ending)) => return ending,
            None => {
                if now.monotonic >= due {
                    if let Some(ending) = pulse.beat(protocol.member(), now) {
                        return ending;
                    }
                    socket.ping();
                }
                protocol.act(now)
            }
        };
    }
}

/// Takes one WebSocket message, whatever is in it.
async fn hear<P: Protocol>(
    context: &Context,
    protocol: &mut P,
    allowance: &mut Allowance,
    message: &Message,
    now: Now,
) -> Response {
    let verdict = allowance.take(now.monotonic);
    let response = hear_within(context, protocol, verdict, message, now).await;
    allowance.settle(verdict, response.price);
    response
}

/// The same, as far as its rate goes.
async fn hear_within<P: Protocol>(
    context: &Context,
    protocol: &mut P,
    verdict: Verdict,
    message: &Message,
    now: Now,
) -> Response {
    let text = match message {
        Message::Close(frame) => return Response::end(Ending::of_close(frame.as_ref())),
        _ if verdict == Verdict::End => return Response::end(Ending::Flood),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Response::default(),
        Message::Text(text) => Some(text.as_str()),
        Message::Binary(_) => None,
    };
    match (verdict, text) {
        (Verdict::Warn | Verdict::End, text) => protocol.refuse(text, now),
        (Verdict::Pass, Some(text)) => {
            context.metrics.frame(context.gateway);
            protocol.hear(text, now).await
        }
        (Verdict::Pass, None) => {
            context.metrics.frame(context.gateway);
            protocol.hear_binary(now)
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
    fn beat(&mut self, member: Option<&Session>, now: Now) -> Option<Ending> {
        if now.monotonic >= self.heard + self.limits.gone_after {
            return Some(Ending::Lost);
        }
        if member.is_none() && now.monotonic >= self.sign_in_by {
            return Some(Ending::NoSignIn);
        }
        if member.is_some_and(|me| me.renew(now).is_err()) {
            return Some(Ending::NameLost);
        }
        self.ping_at = now.monotonic + self.limits.ping_every;
        None
    }

    /// Has other limits hold. The next ping comes within them; who may be silent for less long than before may be so from
    /// now on, or it would be gone before it could have known. How long the sign-in may take stays as it was.
    fn configure(&mut self, limits: Limits, now: Instant) {
        self.ping_at = self.ping_at.min(now + limits.ping_every);
        if limits.gone_after < self.limits.gone_after {
            self.heard = now;
        }
        self.limits = limits;
    }

    fn due(&self, is_member: bool) -> Instant {
        let silent = self.ping_at.min(self.heard + self.limits.gone_after);
        if is_member { silent } else { silent.min(self.sign_in_by) }
    }
}

/// How many members are told for one token.
const MEMBERS_PER_TOKEN: usize = 16;
/// How many messages that were taken before cost nothing over one connection: as many as may wait for a member by default.
const MAX_AGAIN: u32 = 256;

/// How much a client may send, and how often it is told that it sends too much before it is closed for it.
struct Allowance {
    rate: Rate,
    messages: TokenBucket,
    warnings: TokenBucket,
    /// How many messages more that were taken before cost nothing.
    again: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Warn,
    End,
}

impl Allowance {
    fn new(rate: Rate, now: Instant) -> Self {
        let full = TokenBucket::new(rate, now);
        Self { rate, messages: full, warnings: full, again: MAX_AGAIN }
    }

    fn take(&mut self, now: Instant) -> Verdict {
        if self.messages.take(self.rate, now) {
            Verdict::Pass
        } else if self.warnings.take(self.rate, now) {
            Verdict::Warn
        } else {
            Verdict::End
        }
    }

    /// Takes or gives back what a message turned out to count for besides; what is not there yet is owed.
    fn settle(&mut self, verdict: Verdict, price: Price) {
        let rest = match price {
            Price::Again if self.again > 0 => {
                self.again -= 1;
                -1.0
            }
            Price::One | Price::Again => 0.0,
            Price::Free => -1.0,
            Price::ToMembers(members) => u32::try_from(members / MEMBERS_PER_TOKEN).map_or(f64::MAX, f64::from),
        };
        match verdict {
            Verdict::Pass => self.messages.charge(rest, self.rate),
            Verdict::Warn => self.warnings.charge(rest, self.rate),
            Verdict::End => {}
        }
    }
}
