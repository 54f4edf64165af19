//! What an Engine.IO session goes over: long polling, which may become a WebSocket, or a WebSocket from the beginning.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::Message;

use super::Entry;
use super::engineio;
use super::engineio::Packets;
use super::engineio::Payload;
use super::engineio::Revision;
use crate::gateway::websocket::Ending;
use crate::gateway::websocket::Heard;
use crate::gateway::websocket::LINGER;
use crate::gateway::websocket::Told;
use crate::gateway::websocket::Transport;
use crate::gateway::websocket::WebSocket;
use crate::signaling::mailbox::Reader;
use crate::signaling::message;

/// An HTTP request of a session's client. Whoever waits for the answer and gets none is refused.
pub(super) enum Request<S> {
    /// Wants what there is to be told, once there is something.
    Poll(oneshot::Sender<String>),
    /// Says several packets, and wants to know when they have been heard.
    Post(String, oneshot::Sender<()>),
    /// Says what can't be heard, or breaks off.
    End(Ending),
    /// Has a WebSocket that the session could go over.
    Upgrade(Box<WebSocket<S>>),
}

/// How many requests may wait until the session takes them, which it does at once.
pub(super) const REQUESTS: usize = 4;
/// How long a WebSocket may take to become the session's.
const UPGRADE_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may have nothing here that waits: it asks again as soon as it has its answer, and who is gone doesn't.
pub(super) const ABSENT: Duration = Duration::from_secs(10);

/// The server's end of an Engine.IO session.
pub(super) struct Wire<S> {
    revision: Revision,
    way: Way<S>,
}

enum Way<S> {
    Polling(Box<Polling<S>>),
    Socket(Box<WebSocket<S>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// One that goes by polling; no packet is larger than `most`, and no answer to a poll much larger.
    pub(super) fn polling(
        revision: Revision,
        requests: mpsc::Receiver<Request<S>>,
        entry: Entry<S>,
        most: usize,
    ) -> Self {
        let polling = Polling {
            revision,
            requests,
            _entry: entry,
            most,
            poll: None,
            post: None,
            probe: None,
            replies: VecDeque::new(),
            unsent: None,
            absent: None,
        };
        Self { revision, way: Way::Polling(Box::new(polling)) }
    }

    /// One that goes over a WebSocket from the beginning.
    pub(super) fn socket(revision: Revision, socket: WebSocket<S>) -> Self {
        Self { revision, way: Way::Socket(Box::new(socket)) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport for Wire<S> {
    fn reply(&mut self, text: String) {
        match &mut self.way {
            Way::Polling(polling) => polling.replies.push_back(text),
            Way::Socket(socket) => socket.reply(text),
        }
    }

    /// In revision 3 the client is who asks.
    fn ping(&mut self) {
        let has_unsent = match &self.way {
            Way::Polling(polling) => !polling.replies.is_empty(),
            Way::Socket(socket) => socket.has_unsent(),
        };
        if self.revision == Revision::Fourth && !has_unsent {
            self.reply(engineio::PING.into());
        }
    }

    fn poll_next<R>(
        &mut self,
        cx: &mut Context<'_>,
        mailbox: Option<&Reader>,
        render: &R,
    ) -> Poll<Result<Heard, Ending>>
    where
        R: Fn(Option<u64>, &message::Message) -> Told,
    {
        loop {
            let polling = match &mut self.way {
                Way::Polling(polling) => polling,
                Way::Socket(socket) => return socket.poll_next(cx, mailbox, render),
            };
            match std::task::ready!(polling.poll_next(cx, mailbox, render))? {
                Step::Heard(heard) => return Poll::Ready(Ok(heard)),
                Step::Upgraded(mut socket) => {
                    for reply in polling.leave() {
                        socket.reply(reply);
                    }
                    self.way = Way::Socket(socket);
                }
            }
        }
    }

    async fn close(self, ending: Ending) {
        match self.way {
            Way::Polling(mut polling) => {
                let _ = tokio::time::timeout(LINGER, polling.say_goodbye(ending)).await;
            }
            Way::Socket(socket) => socket.close(ending).await,
        }
    }
}

struct Polling<S> {
    revision: Revision,
    requests: mpsc::Receiver<Request<S>>,
    _entry: Entry<S>,
    most: usize,
    /// The request that waits for something to be told.
    poll: Option<oneshot::Sender<String>>,
    /// The one that is being heard.
    post: Option<Post>,
    probe: Option<Probe<S>>,
    /// Answers to this client. While one is unsent no further post is heard, so there are never more than its packets, of
    /// which a client may send so many a second.
    replies: VecDeque<String>,
    /// What answered a poll that nobody waited for any more.
    unsent: Option<Packets>,
    /// Until when its client has to ask again, while nothing of its waits.
    absent: Option<Pin<Box<Sleep>>>,
}

struct Post {
    packets: Packets,
    has_begun: bool,
    heard: oneshot::Sender<()>,
}

/// A WebSocket that is tried out.
struct Probe<S> {
    socket: Box<WebSocket<S>>,
    /// Whether the client has tried it: it polls no more then, as soon as its poll is answered.
    is_tried: bool,
    deadline: Pin<Box<Sleep>>,
}

enum Step<S> {
    Heard(Heard),
    Upgraded(Box<WebSocket<S>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Polling<S> {
    fn poll_next<R>(
        &mut self,
        cx: &mut Context<'_>,
        mailbox: Option<&Reader>,
        render: &R,
    ) -> Poll<Result<Step<S>, Ending>>
    where
        R: Fn(Option<u64>, &message::Message) -> Told,
    {
        while let Poll::Ready(request) = self.requests.poll_recv(cx) {
            match request.ok_or(Ending::Lost)? {
                Request::Poll(answer) => {
                    // One that waits already is of a connection that broke.
                    self.poll = Some(answer);
                    self.absent = None;
                    return Poll::Ready(Ok(Step::Heard(Heard::Pulse)));
                }
                Request::Post(payload, heard) if self.post.is_none() => {
                    let packets = Packets::of(payload, self.revision);
                    self.post = Some(Post { packets, has_begun: false, heard });
                }
                Request::Upgrade(socket) if self.probe.is_none() => {
                    let deadline = Box::pin(tokio::time::sleep(UPGRADE_WITHIN));
                    self.probe = Some(Probe { socket, is_tried: false, deadline });
                }
                // A client posts when the last post is heard, and tries one WebSocket.
                Request::Post(..) | Request::Upgrade(_) => {}
                Request::End(ending) => return Poll::Ready(Err(ending)),
            }
        }
        self.answer(cx, mailbox, render)?;
        if let Some(packet) = self.next_packet() {
            if packet.len() > self.most {
                return Poll::Ready(Err(Ending::TooLarge));
            }
            return Poll::Ready(Ok(Step::Heard(Heard::Message(Message::text(packet)))));
        }
        if let Poll::Ready(socket) = self.poll_probe(cx) {
            return Poll::Ready(Ok(Step::Upgraded(socket)));
        }
        self.poll_absent(cx).map(|()| Err(Ending::Lost))
    }

    /// Whether the client has stayed away for too long.
    fn poll_absent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll.is_some() || self.probe.is_some() {
            self.absent = None;
            return Poll::Pending;
        }
        self.absent.get_or_insert_with(|| Box::pin(tokio::time::sleep(ABSENT))).as_mut().poll(cx)
    }

    /// Answers the poll that waits, if there is something to tell.
    fn answer<R>(&mut self, cx: &mut Context<'_>, mailbox: Option<&Reader>, render: &R) -> Result<(), Ending>
    where
        R: Fn(Option<u64>, &message::Message) -> Told,
    {
        mailbox.map_or(Ok(()), |mailbox| mailbox.watch(cx.waker()))?;
        let Some(poll) = &mut self.poll else { return Ok(()) };
        if poll.poll_closed(cx).is_ready() {
            self.poll = None;
            return Ok(());
        }
        let from_mailbox = || {
            let mut waiting = std::iter::from_fn(|| mailbox?.take());
            // No message is the last one by this protocol.
            waiting.find_map(|(number, message)| render(number, &message).text)
        };
        let mut payload = Payload::new(self.revision);
        for packet in self.unsent.take().into_iter().flatten().flatten() {
            payload.push(&packet);
        }
        while payload.len() < self.most
            && let Some(packet) = self.replies.pop_front().or_else(from_mailbox)
        {
            payload.push(&packet);
        }
        if payload.is_empty() && self.probe.as_ref().is_some_and(|probe| probe.is_tried) {
            payload.push(engineio::NOOP);
        }
        if !payload.is_empty()
            && let Some(poll) = self.poll.take()
        {
            // A poll that has ended in this moment is followed by another.
            self.unsent = poll.send(payload.into_text()).err().map(|text| Packets::of(text, self.revision));
        }
        Ok(())
    }

    /// The next packet of a post. One that can't be read is no packet either.
    fn next_packet(&mut self) -> Option<String> {
        // Who is about to go over a WebSocket asks for no replies any more, and waits until its last post is heard.
        let is_leaving = self.probe.as_ref().is_some_and(|probe| probe.is_tried);
        let post = self.post.as_mut().filter(|post| post.has_begun || self.replies.is_empty() || is_leaving)?;
        post.has_begun = true;
        if let Some(packet) = post.packets.next() {
            return Some(packet.unwrap_or_default());
        }
        let _ = self.post.take()?.heard.send(());
        None
    }

    /// The WebSocket that the session goes over from here on.
    fn poll_probe(&mut self, cx: &mut Context<'_>) -> Poll<Box<WebSocket<S>>> {
        let Some(probe) = &mut self.probe else { return Poll::Pending };
        let heard = match probe.socket.poll_next(cx, None, &|_, _| Told::default()) {
            Poll::Ready(heard) => heard,
            Poll::Pending if probe.deadline.as_mut().poll(cx).is_pending() => return Poll::Pending,
            Poll::Pending => Err(Ending::Lost),
        };
        let packet = match &heard {
            Ok(Heard::Message(Message::Text(text))) => engineio::Packet::read(text.as_str()).ok(),
            Ok(Heard::Message(_) | Heard::Pulse) | Err(_) => None,
        };
        match packet {
            Some(engineio::Packet::Ping(engineio::PROBE)) if !probe.is_tried => {
                probe.is_tried = true;
                probe.socket.reply(format!("{}{}", engineio::PONG, engineio::PROBE));
                // That is still to be sent, and the poll that waits to be answered.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(engineio::Packet::Upgrade) if probe.is_tried => {
                self.probe.take().map_or(Poll::Pending, |probe| Poll::Ready(probe.socket))
            }
            Some(_) | None => {
                self.probe = None;
                Poll::Pending
            }
        }
    }

    /// Ends polling for good; what was not sent by it.
    fn leave(&mut self) -> Vec<String> {
        if let Some(poll) = self.poll.take() {
            let _ = poll.send(one(engineio::NOOP, self.revision));
        }
        let unsent = self.unsent.take().into_iter().flatten().flatten();
        unsent.chain(std::mem::take(&mut self.replies)).collect()
    }

    /// Tells a client that may still listen.
    async fn say_goodbye(&mut self, ending: Ending) {
        if let Some(post) = self.post.take() {
            let _ = post.heard.send(());
        }
        if ending.close_code().is_none() {
            self.leave();
            return;
        }
        let mut payload = Payload::new(self.revision);
        let unsent = self.unsent.take().into_iter().flatten().flatten();
        for packet in unsent.chain(std::mem::take(&mut self.replies)) {
            payload.push(&packet);
        }
        payload.push(engineio::CLOSE);
        let mut farewell = payload.into_text();
        loop {
            if let Some(poll) = self.poll.take() {
                // One of a connection that broke; its client asks over another one.
                let Err(unsent) = poll.send(farewell) else { return };
                farewell = unsent;
            }
            match self.requests.recv().await {
                Some(Request::Poll(poll)) => self.poll = Some(poll),
                Some(Request::Post(..) | Request::Upgrade(_) | Request::End(_)) => {}
                None => return,
            }
        }
    }
}

/// A payload of one packet.
pub(super) fn one(packet: &str, revision: Revision) -> String {
    let mut payload = Payload::new(revision);
    payload.push(packet);
    payload.into_text()
}
