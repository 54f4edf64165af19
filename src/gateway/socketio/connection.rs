//! One client: how it comes into the namespace, and what becomes of what it emits.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::engineio;
use super::engineio::Revision;
use super::packet;
use super::packet::Event;
use super::packet::Kind;
use super::packet::Packet;
use crate::clock::Now;
use crate::gateway::Context;
use crate::gateway::link::Price;
use crate::gateway::link::Protocol;
use crate::gateway::link::Response;
use crate::gateway::websocket::Ending;
use crate::gateway::websocket::Told;
use crate::signaling::accounts::Denied;
use crate::signaling::hub::NotJoined;
use crate::signaling::hub::Refusal;
use crate::signaling::mailbox::Delivery;
use crate::signaling::message;
use crate::signaling::message::Payload;
use crate::signaling::name::Name;
use crate::signaling::session::NotSignedIn;
use crate::signaling::session::Session;
use crate::signaling::session::Visitor;
use crate::signaling::store::NoEntry;

/// How many a room of `create or join` holds: a call of that tutorial has two ends.
const PAIR: usize = 2;
/// How long a room's name may be, in bytes: it comes back in answers, which wait for who reads slowly.
const MAX_ROOM: usize = 256;

/// What the server knows of one client.
pub(super) struct Connection {
    context: Arc<Context>,
    visitor: Visitor,
    revision: Revision,
    /// What its member is called.
    name: Name,
    /// What the client itself is told that it is called: those of revision 3 take the session's number for it.
    called: Name,
    member: Option<Session>,
    lobby: Name,
    /// Where what it emits goes: the lobby, or rooms, of which the hub lets it have so many.
    rooms: Vec<Name>,
    /// How many parts in bytes are still to come.
    attachments: u32,
}

impl Protocol for Connection {
    /// Clients of revision 3 are in the namespace without asking.
    async fn greet(&mut self, now: Now) -> Response {
        match self.revision {
            Revision::Third => self.connect(now).await,
            Revision::Fourth => Response::default(),
        }
    }

    async fn hear(&mut self, text: &str, now: Now) -> Response {
        let Ok(packet) = engineio::Packet::read(text) else { return bad("this is not Engine.IO") };
        match (packet, self.revision) {
            (engineio::Packet::Message(text), _) => match Packet::read(text) {
                Ok(packet) => self.hear_packet(packet, now).await,
                Err(packet::Malformed) => bad("this is not Socket.IO"),
            },
            (engineio::Packet::Ping("" | engineio::PROBE), Revision::Third) => {
                Response::reply(text.replacen(engineio::PING, engineio::PONG, 1))
            }
            (engineio::Packet::Pong | engineio::Packet::Noop, _) => Response::default(),
            (engineio::Packet::Close, _) => Response::end(Ending::Goodbye),
            (engineio::Packet::Binary, _) => self.hear_binary(now),
            (engineio::Packet::Ping(_) | engineio::Packet::Upgrade, _) => bad("this means nothing here"),
        }
    }

    /// A part of an event that has been refused.
    fn hear_binary(&mut self, _now: Now) -> Response {
        match self.attachments.checked_sub(1) {
            Some(left) => {
                self.attachments = left;
                Response::default()
            }
            None => bad("binary messages mean nothing here"),
        }
    }

    /// What it announces in bytes comes all the same.
    fn refuse(&mut self, text: Option<&str>, _now: Now) -> Response {
        match text.map_or(Ok(engineio::Packet::Binary), engineio::Packet::read) {
            Ok(engineio::Packet::Binary) => self.attachments = self.attachments.saturating_sub(1),
            Ok(engineio::Packet::Message(text)) => {
                let announced = packet::announced(text).unwrap_or(0);
                self.attachments = self.attachments.saturating_add(announced);
            }
            Ok(_) | Err(engineio::Malformed) => {}
        }
        Response::reply(packet::exception("too many messages; this one is dropped"))
    }

    fn last_words(&self, ending: Ending) -> Option<String> {
        match ending {
            Ending::TooLarge => {
                let most = self.context.limits().message_bytes;
                Some(packet::exception(&format!("a message has at most {most} bytes")))
            }
            // Its client would be back at once.
            Ending::Kicked => Some(packet::DISCONNECT.into()),
            Ending::Closed
            | Ending::Goodbye
            | Ending::Lost
            | Ending::Bye
            | Ending::Restart
            | Ending::SwitchedOff
            | Ending::NotUtf8
            | Ending::Protocol
            | Ending::Refused
            | Ending::NoSignIn
            | Ending::TooSlow
            | Ending::Replaced
            | Ending::NameLost
            | Ending::BadFrames
            | Ending::Flood => None,
        }
    }

    fn put(&self, _number: Option<u64>, message: &message::Message) -> Told {
        match message {
            message::Message::Data { payload, .. } => Told::text(packet::event(payload.json())),
            message::Message::Answer(text) | message::Message::Notice(text) => Told::text(&**text),
            message::Message::Signal { .. }
            | message::Message::Leave { .. }
            | message::Message::Away { .. }
            | message::Message::Gone { .. }
            | message::Message::Presence { .. }
            | message::Message::Missed
            | message::Message::Undelivered { .. } => Told::default(),
        }
    }

    fn member(&self) -> Option<&Session> {
        self.member.as_ref()
    }

    fn into_member(self) -> Option<Session> {
        self.member
    }
}

impl Connection {
    pub(super) fn new(context: Arc<Context>, visitor: Visitor, revision: Revision, sid: Name) -> Self {
        // Who knows the number of a session that polls can speak for it; names are shown around.
        let name = Name::random();
        let called = match revision {
            Revision::Third => sid,
            Revision::Fourth => name.clone(),
        };
        let lobby = Name::of_any(LOBBY);
        Self { context, visitor, revision, name, called, member: None, lobby, rooms: Vec::new(), attachments: 0 }
    }

    async fn hear_packet(&mut self, packet: Packet<'_>, now: Now) -> Response {
        let Packet { namespace, kind } = packet;
        if namespace != packet::ROOT {
            return match kind {
                Kind::Connect(_) => Response::reply(packet::refused(namespace, "Invalid namespace", self.revision)),
                Kind::Disconnect | Kind::Event(_) | Kind::Ack | Kind::Binary(_) => bad("there is one namespace"),
            };
        }
        match (kind, self.is_member()) {
            (Kind::Connect(_), true) => Response::default(),
            (Kind::Connect(token), false) => {
                self.visitor.token = token.or(self.visitor.token.take());
                self.connect(now).await
            }
            (Kind::Disconnect, _) => Response::end(Ending::Bye),
            (Kind::Event(_) | Kind::Ack | Kind::Binary(_), false) => bad("connect first"),
            (Kind::Event(event), true) => self.hear_event(&event, now),
            (Kind::Ack, true) => Response::default(),
            (Kind::Binary(attachments), true) => {
                self.attachments = self.attachments.saturating_add(attachments);
                Response::reply(packet::exception("bytes aren't carried here; send text"))
            }
        }
    }

    /// Comes into the namespace. Who isn't let in for good hears why; where trying again may help, the transport ends
    /// instead: clients come back to that by themselves after a while, and never to a namespace that has refused them.
    async fn connect(&mut self, now: Now) -> Response {
        let sessions = &self.context.sessions;
        match sessions.sign_in_unnamed(self.name.clone(), Delivery::Once, None, &self.visitor, now).await {
            Ok((member, _)) => {
                self.member = Some(member);
                let others = self.back_to_lobby(now);
                let reply = Some(packet::connected(self.called.as_str(), self.revision));
                Response { reply, ..Response::at(Price::ToMembers(others)) }
            }
            Err(NotSignedIn::Denied(Denied::Rate | Denied::Later | Denied::Failures)) => Response::end(Ending::Refused),
            Err(why) => Response::reply(packet::refused(packet::ROOT, reason(why), self.revision)),
        }
    }

    fn hear_event(&mut self, event: &Event<'_>, now: Now) -> Response {
        if packet::is_reserved(&event.name) {
            return Response::reply(packet::exception("this name means something to the clients themselves"));
        }
        let room = || event.arguments.first().and_then(|argument| Room::of(argument)).ok_or(BAD_ROOM);
        let outcome = match (event.name.as_str(), &event.arguments[..]) {
            ("join", _) => room().and_then(|room| self.join(&room, now)),
            ("create or join", _) => room().and_then(|room| self.create_or_join(&room, now)),
            ("leave", []) => Ok(self.leave_all(now)),
            ("leave", _) => room().and_then(|room| self.leave(&room.name, now)),
            ("message", [argument]) => match packet::object::<Channelled<'_>>(argument.get()) {
                Some(Channelled { channel, message }) => Room::of(channel)
                    .ok_or(BAD_ROOM)
                    .map(|room| self.emit(&[room.name], format!("[\"message\",{message}]"), now)),
                None => Ok(self.pass_on(event, now)),
            },
            _ => Ok(self.pass_on(event, now)),
        };
        match outcome {
            Ok(members) => Response { reply: event.ack.map(packet::ack), ..Response::at(Price::ToMembers(members)) },
            Err(why) => Response::reply(packet::exception(why)),
        }
    }

    /// Tells those it is with what it emits; how many members were looked at for it. Who found the lobby full has another
    /// try.
    fn pass_on(&mut self, event: &Event<'_>, now: Now) -> usize {
        if self.rooms.is_empty() {
            self.back_to_lobby(now);
        }
        self.send(&self.rooms, &Payload::verbatim(event.json), now)
    }

    /// How many others are there.
    fn join(&mut self, room: &Room, now: Now) -> Result<usize, &'static str> {
        match self.enter(&room.name, now) {
            Ok(others) => Ok(others),
            Err(NotJoined::NoEntry(NoEntry::Full)) => {
                self.tell(&json!(["full", room.text]), now);
                Ok(0)
            }
            Err(why) => Err(not_joined(why)),
        }
    }

    /// What the tutorial of that name does, of which both ends run the same code; how many others are there.
    fn create_or_join(&mut self, room: &Room, now: Now) -> Result<usize, &'static str> {
        let others = match self.enter(&room.name, now) {
            Ok(others) => others,
            Err(NotJoined::NoEntry(NoEntry::Full)) => PAIR,
            Err(why) => return Err(not_joined(why)),
        };
        let me = self.called.as_str();
        match others {
            0 => self.tell(&json!(["created", room.text, me]), now),
            _ if others < PAIR => {
                let there = std::slice::from_ref(&room.name);
                self.emit(there, json!(["join", room.text]).to_string(), now);
                self.emit(there, json!(["ready"]).to_string(), now);
                self.tell(&json!(["joined", room.text, me]), now);
                self.tell(&json!(["ready"]), now);
            }
            _ => {
                // Not there, if the room is full by its own limit.
                let _ = self.leave(&room.name, now);
                self.tell(&json!(["full", room.text]), now);
            }
        }
        Ok(others)
    }

    /// Comes into a room and leaves the lobby for it; how many others are there.
    fn enter(&mut self, room: &Name, now: Now) -> Result<usize, NotJoined> {
        let was_in_lobby = self.rooms.contains(&self.lobby);
        if was_in_lobby {
            self.part(&self.lobby.clone(), now);
        }
        let joined = self.come_into(room, now);
        if joined.is_err() && was_in_lobby {
            self.back_to_lobby(now);
        }
        joined
    }

    /// How many members hear or see of it.
    fn leave(&mut self, room: &Name, now: Now) -> Result<usize, &'static str> {
        if !self.rooms.contains(room) {
            return Err("not in this room");
        }
        let left = self.part(room, now);
        Ok(left + if self.rooms.is_empty() { self.back_to_lobby(now) } else { 0 })
    }

    fn leave_all(&mut self, now: Now) -> usize {
        let rooms = std::mem::take(&mut self.rooms);
        let left: usize = rooms.iter().map(|room| self.part(room, now)).sum();
        left + self.back_to_lobby(now)
    }

    /// How many others are there. Who finds it full is with nobody, and may come into a room.
    fn back_to_lobby(&mut self, now: Now) -> usize {
        self.come_into(&self.lobby.clone(), now).unwrap_or_else(|_| {
            self.tell(&json!(["exception", { "status": "error", "message": LOBBY_FULL }]), now);
            0
        })
    }

    fn come_into(&mut self, room: &Name, now: Now) -> Result<usize, NotJoined> {
        let turn = self.member.as_ref().and_then(|me| me.turn(None).ok());
        let others = turn.map_or(Ok(0), |turn| turn.join(room, |others| others.len(), now))?;
        if !self.rooms.contains(room) {
            self.rooms.push(room.clone());
        }
        Ok(others)
    }

    /// How many are told.
    fn part(&mut self, room: &Name, now: Now) -> usize {
        self.rooms.retain(|known| known != room);
        let turn = self.member.as_ref().and_then(|me| me.turn(None).ok());
        // It is where it has been told that it is.
        turn.and_then(|turn| turn.part(room, now).ok()).unwrap_or(0)
    }

    /// Tells everybody else in `rooms` what we make of it.
    fn emit(&self, rooms: &[Name], event: String, now: Now) -> usize {
        Payload::made(event).map_or(0, |payload| self.send(rooms, &payload, now))
    }

    /// Tells everybody else in `rooms`; how many members were looked at for it.
    fn send(&self, rooms: &[Name], payload: &Payload, now: Now) -> usize {
        let turn = self.member.as_ref().and_then(|me| me.turn(None).ok());
        turn.map_or(0, |turn| turn.send_to_rooms(rooms, payload, now))
    }

    /// Tells the client itself, behind what it has been told, however much that is.
    fn tell(&self, event: &serde_json::Value, now: Now) {
        if let Some(me) = &self.member {
            // Refused only to who has long stopped reading.
            let _ = me.reader().put(message::Message::Notice(packet::event(&event.to_string()).into()), now.monotonic);
        }
    }

    fn is_member(&self) -> bool {
        self.member.is_some()
    }
}

/// A room as a client calls it.
struct Room {
    text: String,
    name: Name,
}

impl Room {
    /// Named by a text or a number, or by an object's `room`.
    fn of(raw: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Within<'a> {
            #[serde(borrow)]
            room: &'a RawValue,
        }
        let raw = packet::object::<Within<'_>>(raw.get()).map_or(raw, |within| within.room);
        let text = packet::word(raw).filter(|text| text.len() <= MAX_ROOM)?;
        let name = Name::of_any(&format!("room {text}"));
        Some(Self { text, name })
    }
}

/// What goes to one room, of those who needn't be in it.
#[derive(Deserialize)]
struct Channelled<'a> {
    #[serde(borrow)]
    channel: &'a RawValue,
    #[serde(borrow)]
    message: &'a RawValue,
}

/// Where those are who are in no room. No room is called so: theirs begin otherwise.
const LOBBY: &str = "lobby";
const BAD_ROOM: &str = "which room? name it by a text of at most 256 bytes";
const LOBBY_FULL: &str = "too many are connected without a room, see signaling.limits.members_per_room";

/// Why somebody isn't let in.
const fn reason(why: NotSignedIn) -> &'static str {
    match why {
        NotSignedIn::Denied(Denied::Proof) => "this needs auth.token, or ?token= in the URL",
        NotSignedIn::Denied(Denied::Later) => "who would know doesn't say, try again later",
        NotSignedIn::Denied(Denied::Failures | Denied::Rate) => "too many come from this address, try again later",
        NotSignedIn::Refused(Refusal::NameTaken | Refusal::Banned | Refusal::NoSession)
        | NotSignedIn::NotJoined(_)
        | NotSignedIn::Nameless => "not welcome",
    }
}

/// Why somebody isn't let into a room, other than that it is full.
const fn not_joined(why: NotJoined) -> &'static str {
    match why {
        NotJoined::TooMuchUnread => "too much is unread",
        NotJoined::TooManyRooms | NotJoined::NoEntry(NoEntry::Full | NoEntry::Lost(_)) => "in too many rooms already",
    }
}

/// Says what is wrong with what makes no sense.
fn bad(why: &str) -> Response {
    Response { is_bad: true, ..Response::reply(packet::exception(why)) }
}
