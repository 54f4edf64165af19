//! Socket.IO as most tutorials' servers speak it: an event goes to everybody else in the sender's rooms, or in the
//! namespace, if it is in none.
//!
//! # Events
//!
//! A member is in the lobby, with all that are in no room, until it comes into one; or with nobody, while the lobby is full. What it emits goes to those it is with
//! as it came, but for these: `join` and `leave` (a room; to leave without one is to leave all); `create or join` (a room of
//! two; answered with `created`, `joined` or `full`, and the others hear `join` and `ready`); `message` with
//! `{channel, message}`, whose message goes to the room `channel`. An acknowledgement that is asked for is empty and says
//! that the server has the event. What went wrong is told as the event `exception`, or as a failed connection; who may try
//! again later has its transport closed, which is what clients come back from.
//!
//! There is one namespace. Bytes aren't carried: signaling is text.
//!
//! # Why this is our own
//!
//! The crate socketioxide (0.18, on engineioxide 0.17) speaks all this, but can't be held to the limits that every client
//! of this server has. Any GET of a stranger makes a session: a map entry, a task, three channels and a copy of the
//! request's header, which nothing counts, in all or for a source. Each session has a queue of its own, bounded in packets
//! and not in bytes, behind which our mailbox would never look full; and the task that empties it waits for a slow reader
//! without end. A WebSocket of its own ends without a close code: no 1012, no 4008. When sessions, queues and sockets are
//! ours, what is left is two text formats.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use self::connection::Connection;
use self::engineio::Revision;
use self::wire::Request;
use self::wire::Wire;
use super::Context;
use super::link;
use super::websocket::Ending;
use super::websocket::Transport;
use super::websocket::WebSocket;
use crate::signaling::name::Name;
use crate::signaling::session::Visitor;

mod connection;
pub mod engineio;
mod packet;
mod wire;

/// How many packets of the largest size fit into one post.
const PACKETS_OF_MOST: usize = 4;

/// Why a post isn't heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// It is larger than one may be.
    TooLarge,
    /// It is bytes.
    NotText,
    /// It broke off.
    Broken,
}

impl From<Unheard> for Ending {
    fn from(why: Unheard) -> Self {
        match why {
            Unheard::TooLarge => Self::TooLarge,
            Unheard::NotText => Self::NotUtf8,
            Unheard::Broken => Self::Lost,
        }
    }
}

/// The Engine.IO sessions that polling requests and upgrades find by their number, over streams `S`.
pub struct Engine<S> {
    context: Arc<Context>,
    /// Those that haven't got a WebSocket. Each is in a place that its caller has taken, so that there are never more.
    polling: Mutex<HashMap<Name, mpsc::Sender<Request<S>>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Engine<S> {
    /// One without sessions, whose members meet in `context`.
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self { context, polling: Mutex::default() })
    }

    /// Begins a session by polling: what its client is told first, and the task that serves it until it is over, to be run
    /// in a place of the client's.
    pub fn open(
        self: &Arc<Self>,
        revision: Revision,
        visitor: Visitor,
    ) -> (String, impl Future<Output = ()> + Send + use<S>) {
        let sid = Name::random();
        let (sender, requests) = mpsc::channel(wire::REQUESTS);
        self.polling().insert(sid.clone(), sender);
        let entry = Entry { engine: Arc::clone(self), sid: sid.clone() };
        let opening = wire::one(&engineio::open(&sid, false, &self.context.limits()), revision);
        let wire = Wire::polling(revision, requests, entry, self.context.limits().message_bytes);
        let context = Arc::clone(&self.context);
        let serve = async move {
            let connection = Connection::new(Arc::clone(&context), visitor, revision, sid);
            link::serve_over(&context, connection, wire).await;
        };
        (opening, serve)
    }

    /// What there is to be told to the client of the session `sid`, once there is something, or nothing after `patience`;
    /// none, if there is no such session or another poll has taken this one's place.
    pub async fn poll(&self, sid: &str, revision: Revision, patience: impl Future<Output = ()>) -> Option<String> {
        let session = self.session(sid)?;
        let (sender, mut answer) = oneshot::channel();
        session.send(Request::Poll(sender)).await.ok()?;
        tokio::select! {
            biased;
            told = &mut answer => told.ok(),
            () = patience => {
                // What is told from here on waits for the next poll.
                answer.close();
                Some(answer.try_recv().unwrap_or_else(|_| wire::one(engineio::NOOP, revision)))
            }
        }
    }

    /// Has the session `sid` hear a payload; none, if there is no such session or it hears another one.
    pub async fn post(&self, sid: &str, payload: String) -> Option<()> {
        let session = self.session(sid)?;
        let (sender, heard) = oneshot::channel();
        session.send(Request::Post(payload, sender)).await.ok()?;
        heard.await.ok()
    }

    /// Ends the session `sid`, whose client posts what can't be heard.
    pub async fn end(&self, sid: &str, why: Unheard) {
        if let Some(session) = self.session(sid) {
            let _ = session.send(Request::End(why.into())).await;
        }
    }

    /// Gives the session `sid` a WebSocket to go over from here on.
    pub async fn upgrade(&self, sid: &str, io: S) {
        if let Some(session) = self.session(sid) {
            let socket = WebSocket::new(io, self.context.limits().message_bytes).await;
            // A session takes what comes at once: where sockets pile up they aren't its client's own.
            let _ = session.try_send(Request::Upgrade(Box::new(socket)));
        }
    }

    /// Serves a session that goes over a WebSocket from the beginning.
    pub async fn serve(self: Arc<Self>, revision: Revision, visitor: Visitor, io: S) {
        let (sid, context) = (Name::random(), &self.context);
        let mut socket = WebSocket::new(io, context.limits().message_bytes).await;
        socket.reply(engineio::open(&sid, true, &context.limits()));
        let connection = Connection::new(Arc::clone(context), visitor, revision, sid);
        link::serve_over(context, connection, Wire::socket(revision, socket)).await;
    }

    /// Whether there is a session `sid` that polls.
    pub fn knows(&self, sid: &str) -> bool {
        self.polling().contains_key(sid)
    }

    /// The largest post that a session hears, in bytes; a packet in it has at most `message_bytes`, as everywhere. Clients
    /// before Socket.IO 4.5 send all that they have in one, whatever they are told.
    pub fn most(&self) -> usize {
        self.context.limits().message_bytes.saturating_mul(PACKETS_OF_MOST)
    }

    fn session(&self, sid: &str) -> Option<mpsc::Sender<Request<S>>> {
        self.polling().get(sid).cloned()
    }

    fn polling(&self) -> MutexGuard<'_, HashMap<Name, mpsc::Sender<Request<S>>>> {
        self.polling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session is found by its number for as long as it has this.
struct Entry<S> {
    engine: Arc<Engine<S>>,
    sid: Name,
}

impl<S> Drop for Entry<S> {
    fn drop(&mut self) {
        self.engine.polling.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.sid);
    }
}

#[cfg(test)]
mod tests;
