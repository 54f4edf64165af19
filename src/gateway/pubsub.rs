//! Topics, as y-webrtc's signaling server has them and relays for Trystero: whoever subscribes to one is told what
//! anybody publishes to it. The frames tell which of the two a client is.
//!
//! Both make a mesh by themselves; all that they need is that everybody hears everybody, the sender included. y-webrtc
//! gets the frame as it was published, and how many heard it, Trystero what it carries. Neither has an answer to
//! a subscription, and neither minds an error frame.

use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;

use self::frame::Command;
use self::frame::Topic;
use super::Context;
use super::fault::Fault;
use super::link;
use super::link::Price;
use super::link::Protocol;
use super::link::Response;
use super::websocket::Ending;
use super::websocket::Told;
use crate::clock::Now;
use crate::signaling::hub::NotJoined;
use crate::signaling::message::Message;
use crate::signaling::session::Session;

mod frame;

/// Serves one client, who is `member`, until it or we end the connection.
pub async fn serve<S>(context: Arc<Context>, member: Session, io: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let subscriber = Subscriber { context: Arc::clone(&context), member };
    link::serve(&context, subscriber, io).await;
}

/// One client.
struct Subscriber {
    context: Arc<Context>,
    member: Session,
}

impl Protocol for Subscriber {
    async fn hear(&mut self, text: &str, now: Now) -> Response {
        match Command::read(text) {
            Ok(command) => self.carry_out(command, now),
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
            Message::Data { payload, .. } => Told::text(payload.json()),
            Message::Answer(text) | Message::Notice(text) => Told::text(&**text),
            Message::Signal { .. }
            | Message::Leave { .. }
            | Message::Away { .. }
            | Message::Gone { .. }
            | Message::Presence { .. }
            | Message::Missed
            | Message::Undelivered { .. } => Told::default(),
        }
    }

    fn member(&self) -> Option<&Session> {
        Some(&self.member)
    }

    fn into_member(self) -> Option<Session> {
        Some(self.member)
    }
}

impl Subscriber {
    fn carry_out(&self, command: Command<'_>, now: Now) -> Response {
        match command {
            Command::Subscribe(topics) => self.subscribe(&topics, now),
            Command::Unsubscribe(topics) => {
                for topic in &topics {
                    if let Ok(turn) = self.member.turn(None) {
                        // Who isn't there has what it wants.
                        let _ = turn.part(&topic.room(), now);
                    }
                }
                Response::at(Price::ToMembers(topics.len()))
            }
            Command::Publish(topic, publication) => {
                let Ok(turn) = self.member.turn(None) else { return Response::default() };
                let members = turn.publish(&topic.room(), |clients| publication.told(&topic, clients), now);
                Response::at(Price::ToMembers(members))
            }
            Command::Ping => Response::reply(frame::pong()),
        }
    }

    /// Subscribes to as many of the `topics` as may be, and says of the first that it isn't why. Each topic counts, and
    /// everybody who is looked at there.
    fn subscribe(&self, topics: &[Topic<'_>], now: Now) -> Response {
        let (mut looked_at, mut fault) = (topics.len(), None);
        for topic in topics {
            let Ok(turn) = self.member.turn(None) else { break };
            match turn.join(&topic.room(), |others| others.len(), now) {
                Ok(others) => looked_at += others,
                Err(why) => {
                    fault.get_or_insert_with(|| frame::not_subscribed(topic, why));
                    if why == NotJoined::TooManyRooms {
                        break;
                    }
                }
            }
        }
        let response = fault.as_ref().map(Fault::blame).unwrap_or_default();
        Response { price: Price::ToMembers(looked_at), ..response }
    }
}

#[cfg(test)]
mod tests;
