//! The frames of topics: what a client's text says, and the text of what it is told.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use crate::gateway::fault::BAD;
use crate::gateway::fault::Fault;
use crate::gateway::fault::check_object;
use crate::signaling::message::Payload;
use crate::signaling::name::Name;

/// How many topics one frame may name: all that a client has, when it connects.
pub(super) const MAX_TOPICS: usize = 1000;
/// The longest topic, in bytes: applications make them of what they like.
pub(super) const MAX_TOPIC_BYTES: usize = 512;

/// What a client says.
#[derive(Debug)]
pub(super) enum Command<'a> {
    /// Tell me what is published to these.
    Subscribe(Vec<Topic<'a>>),
    /// No more of these.
    Unsubscribe(Vec<Topic<'a>>),
    /// Tell everybody.
    Publish(Topic<'a>, Publication<'a>),
    /// Are you there?
    Ping,
}

/// What messages are about.
#[derive(Clone, Debug)]
pub(super) struct Topic<'a>(Cow<'a, str>);

/// What is published, in the dialect that it came in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Publication<'a> {
    /// The whole frame, for y-webrtc.
    Frame(&'a str),
    /// What it carries, for Trystero.
    Payload(&'a RawValue),
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    topics: Topics<'a>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// A list that is refused before it has grown longer than [`MAX_TOPICS`].
#[derive(Default)]
struct Topics<'a>(Vec<Cow<'a, str>>);

impl<'a> Command<'a> {
    /// Reads one frame of a client, in either dialect.
    pub(super) fn read(text: &'a str) -> Result<Self, Fault> {
        check_object(text).map_err(|why| Fault::new(BAD, why))?;
        let frame: Frame<'a> =
            serde_json::from_str(text).map_err(|error| Fault::new(BAD, format!("not a frame: {error}")))?;
        match &*frame.kind {
            "subscribe" => Ok(Self::Subscribe(frame.topics()?)),
            "unsubscribe" => Ok(Self::Unsubscribe(frame.topics()?)),
            "publish" => {
                let publication = frame.payload.map_or(Publication::Frame(text), Publication::Payload);
                let topic = frame.topic.ok_or_else(|| Fault::new(BAD, "published to no topic"))?;
                Ok(Self::Publish(Topic::new(topic)?, publication))
            }
            "ping" => Ok(Self::Ping),
            _ => Err(Fault::new("unknown-command", "there is subscribe, unsubscribe, publish and ping")),
        }
    }
}

impl<'a> Frame<'a> {
    /// One, or a list: y-webrtc and Trystero differ in that. Each of them once.
    fn topics(self) -> Result<Vec<Topic<'a>>, Fault> {
        let mut seen = HashSet::new();
        let topics = self.topics.0.into_iter().chain(self.topic);
        topics.filter(|text| seen.insert(text.clone())).map(Topic::new).collect()
    }
}

impl<'a> Topic<'a> {
    fn new(text: Cow<'a, str>) -> Result<Self, Fault> {
        if text.len() > MAX_TOPIC_BYTES {
            return Err(Fault::new("bad-topic", format!("a topic has at most {MAX_TOPIC_BYTES} bytes")));
        }
        Ok(Self(text))
    }

    /// Where its subscribers are.
    pub(super) fn room(&self) -> Name {
        Name::of_any(&self.0)
    }
}

impl Publication<'_> {
    /// What each of so many subscribers of `topic` is told; nothing, if that can't be put in JSON.
    pub(super) fn told(self, topic: &Topic<'_>, clients: usize) -> Option<Payload> {
        Payload::made(match self {
            // Whatever else is in it stays as it came; of fields that stand twice, the last one counts.
            Self::Frame(frame) => format!("{},\"clients\":{clients}}}", frame.trim_end().strip_suffix('}')?),
            Self::Payload(payload) => {
                format!("{{\"topic\":{},\"payload\":{}}}", Value::from(&*topic.0), payload.get())
            }
        })
    }
}

/// That somebody isn't let in. What it is about stands in no field `topic`: clients would take it for something published.
pub(super) fn not_subscribed(topic: &Topic<'_>, why: impl fmt::Display) -> Fault {
    Fault::new("forbidden", format!("not subscribed: {why}")).about(&topic.0)
}

/// The answer to `ping`.
pub(super) fn pong() -> String {
    json!({ "type": "pong" }).to_string()
}

impl<'de: 'a, 'a> Deserialize<'de> for Topics<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Topics<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX_TOPICS} topics")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut topics = Vec::new();
        while let Some(topic) = list.next_element()? {
            if topics.len() == MAX_TOPICS {
                return Err(A::Error::invalid_length(MAX_TOPICS + 1, &self));
            }
            topics.push(topic);
        }
        Ok(Topics(topics))
    }
}
