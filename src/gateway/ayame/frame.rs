//! Ayame's frames: what a client's text says, and the text of what it is told.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::gateway::fault::BAD;
use crate::gateway::fault::Fault;
use crate::gateway::fault::check_object;
use crate::signaling::message::Payload;
use crate::signaling::message::SignalKind;
use crate::signaling::name::Name;

/// The longest `roomId`, in bytes: applications make them of what they like.
pub(super) const MAX_ROOM_BYTES: usize = 512;

/// What a client says.
#[derive(Debug)]
pub(super) enum Command {
    /// Let me in.
    Register(Register),
    /// Pass a step of the negotiation on, the whole frame.
    Signal(SignalKind, Payload),
    /// Yes, I am here.
    Pong,
    /// We are connected, and I am done here.
    Connected,
    /// I leave.
    Bye,
}

/// How a client wants to be let in. Its key is never shown.
pub(super) struct Register {
    /// Where to; none, if that can't be a room.
    pub(super) room: Option<Name>,
    /// What it shows to be let in.
    pub(super) key: Option<String>,
    /// Whether it leaves once it is connected to the other.
    pub(super) standalone: bool,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

/// Its `clientId` says nothing that matters: a connection is told from others by what it is called here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    room_id: Cow<'a, str>,
    key: Option<String>,
    signaling_key: Option<String>,
    standalone: Option<bool>,
}

impl Command {
    /// Reads one frame of a client; fields that mean nothing here are ignored.
    pub(super) fn read(text: &str) -> Result<Self, Fault> {
        check_object(text).map_err(|why| Fault::new(BAD, why))?;
        let not_a_frame = |error| Fault::new(BAD, format!("not a frame: {error}"));
        let frame: Frame<'_> = serde_json::from_str(text).map_err(not_a_frame)?;
        match &*frame.kind {
            "register" => Ok(Self::Register(serde_json::from_str::<Request<'_>>(text).map_err(not_a_frame)?.into())),
            "offer" => Self::signal(SignalKind::Offer, text),
            "answer" => Self::signal(SignalKind::Answer, text),
            "candidate" => Self::signal(SignalKind::Candidate, text),
            "pong" => Ok(Self::Pong),
            "connected" => Ok(Self::Connected),
            "bye" => Ok(Self::Bye),
            _ => Err(Fault::new(
                "unknown-command",
                "there is register, offer, answer, candidate, pong, connected and bye",
            )),
        }
    }

    fn signal(kind: SignalKind, text: &str) -> Result<Self, Fault> {
        let payload = Payload::made(text.to_owned()).ok_or_else(|| Fault::new(BAD, "not a frame"))?;
        Ok(Self::Signal(kind, payload))
    }
}

impl From<Request<'_>> for Register {
    fn from(request: Request<'_>) -> Self {
        let Request { room_id, key, signaling_key, standalone } = request;
        let room = (1..=MAX_ROOM_BYTES).contains(&room_id.len()).then(|| Name::of_any(&room_id));
        Self { room, key: signaling_key.or(key), standalone: standalone.unwrap_or_default() }
    }
}

impl std::fmt::Debug for Register {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Register").field("room", &self.room).finish_non_exhaustive()
    }
}

/// That a client is let in, under the name `connection`. `is_second` has it make the offer.
pub(super) fn accept(connection: &str, is_second: bool, ice_servers: Value) -> String {
    let frame = json!({
        "type": "accept",
        "connectionId": connection,
        "isExistClient": is_second,
        "isExistUser": is_second,
        "iceServers": ice_servers,
    });
    frame.to_string()
}

/// That it isn't, in a word.
pub(super) fn reject(reason: &str) -> String {
    json!({ "type": "reject", "reason": reason }).to_string()
}

/// Whether the client is there.
pub(super) fn ping() -> String {
    json!({ "type": "ping" }).to_string()
}

/// That the other is gone.
pub(super) fn bye() -> String {
    json!({ "type": "bye" }).to_string()
}
