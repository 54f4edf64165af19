//! One WebSocket with small buffers: never waits for a slow reader, and ends politely but soon.

use std::collections::VecDeque;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::signaling::mailbox::Cut;
use crate::signaling::mailbox::Reader;
use crate::signaling::message;

/// Read at a time, and held by every idle connection: most frames are candidates of a few hundred bytes. A longer
/// frame has its buffer made to measure.
const READ_BUFFER: usize = 2 * 1024;
/// What is gathered before it is written; allocated when first needed.
const WRITE_BUFFER: usize = 2 * 1024;
/// Besides the largest relayed message: what was gathered before, and a login reply with a long list of ICE servers.
const WRITE_HEADROOM: usize = WRITE_BUFFER + 64 * 1024;
/// How long an ending connection may take to send what is left and to read our close frame.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client closed it, and may come back.
    Closed,
    /// The client closed it, and left.
    Goodbye,
    /// The stream broke, or nothing came for too long.
    Lost,
    /// The client said `bye`.
    Bye,
    /// The process ends.
    Restart,
    /// The operator wants no clients of its kind any more.
    SwitchedOff,
    /// A frame or message that is too large.
    TooLarge,
    /// Text that isn't UTF-8 (RFC 6455, section 8.1).
    NotUtf8,
    /// Not the WebSocket protocol.
    Protocol,
    /// Nobody signed in in time.
    NoSignIn,
    /// The client was told why it isn't signed in.
    Refused,
    /// The mailbox overflowed.
    TooSlow,
    /// The operator ended it.
    Kicked,
    /// The session goes on over another connection.
    Replaced,
    /// Nothing was heard for so long that somebody else could have the name.
    NameLost,
    /// Too many frames that say nothing.
    BadFrames,
    /// Went on sending far beyond its rate.
    Flood,
}

impl Ending {
    /// That of a client's closing handshake: when it went on purpose or its page is gone, it has left (RFC 6455, section
    /// 7.4.1). With another code it may come back.
    pub(super) fn of_close(frame: Option<&CloseFrame>) -> Self {
        match frame.map(|frame| frame.code) {
            None | Some(CloseCode::Normal | CloseCode::Away | CloseCode::Status) => Self::Goodbye,
            Some(_) => Self::Closed,
        }
    }

    /// Whether a session may outlive it.
    pub(super) const fn may_return(self) -> bool {
        match self {
            Self::Closed
            | Self::Lost
            | Self::TooLarge
            | Self::NotUtf8
            | Self::Protocol
            | Self::BadFrames
            | Self::Flood => true,
            Self::Goodbye
            | Self::Bye
            | Self::Restart
            | Self::SwitchedOff
            | Self::NoSignIn
            | Self::Refused
            | Self::TooSlow
            | Self::Kicked
            | Self::Replaced
            | Self::NameLost => false,
        }
    }

    /// The close code and reason, unless there is nobody to tell (RFC 6455, section 7.4).
    pub(super) const fn close_code(self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Closed | Self::Goodbye | Self::Lost => return None,
            Self::Bye => (1000, ""),
            Self::SwitchedOff => (1001, "clients of this kind are served no more"),
            Self::Protocol => (1002, "not the WebSocket protocol"),
            Self::NotUtf8 => (1007, "text is not UTF-8"),
            Self::TooLarge => (1009, "the message is too large"),
            Self::Restart => (1012, "the server restarts; come back in 5 s"),
            Self::Kicked => (4000, "ended by the operator"),
            Self::NoSignIn => (4001, "no sign-in in time"),
            Self::Refused => (4001, "not signed in"),
            Self::Replaced => (4002, "continued over another connection"),
            Self::TooSlow => (4008, "reads too slowly"),
            Self::NameLost => (4009, "somebody else has the name"),
            Self::BadFrames => (4400, "too many bad frames"),
            Self::Flood => (4400, "too many messages"),
        })
    }
}

impl From<Cut> for Ending {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Overflown => Self::TooSlow,
            Cut::Kicked => Self::Kicked,
            Cut::Replaced => Self::Replaced,
            Cut::Restart => Self::Restart,
        }
    }
}

impl From<Error> for Ending {
    fn from(error: Error) -> Self {
        match error {
            Error::Capacity(_) => Self::TooLarge,
            Error::Utf8(_) => Self::NotUtf8,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Lost,
            Error::Protocol(_) => Self::Protocol,
            Error::ConnectionClosed | Error::AlreadyClosed => Self::Closed,
            Error::Io(_)
            | Error::Tls(_)
            | Error::WriteBufferFull(_)
            | Error::AttackAttempt
            | Error::Url(_)
            | Error::Http(_)
            | Error::HttpFormat(_) => Self::Lost,
        }
    }
}

/// What comes of a message from the mailbox.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What the client is told, if anything.
    pub(super) text: Option<String>,
    /// Why its connection ends then.
    pub(super) ending: Option<Ending>,
}

impl Told {
    /// It is told something.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ending: None }
    }
}

/// What a client's messages come over, and what it is told.
pub(super) trait Transport {
    /// Sends `text` before anything that waits in the mailbox.
    fn reply(&mut self, text: String);

    /// Asks the client for a sign of life, unless it doesn't even read what came before.
    fn ping(&mut self);

    /// The next that comes from the client. Meanwhile sends the replies, and what `mailbox` has, by number, as `render` has
    /// it.
    ///
    /// # Errors
    ///
    /// The [`Ending`] that the stream or the mailbox has come to.
    fn poll_next<R>(
        &mut self,
        cx: &mut Context<'_>,
        mailbox: Option<&Reader>,
        render: &R,
    ) -> Poll<Result<Heard, Ending>>
    where
        R: Fn(Option<u64>, &message::Message) -> Told;

    /// Says goodbye as `ending` has it and lets go of the stream within [`LINGER`].
    async fn close(self, ending: Ending);
}

/// What comes from a client.
pub(super) enum Heard {
    /// A message, or a control frame.
    Message(Message),
    /// A sign of life that says nothing.
    Pulse,
}

/// The server's end of a WebSocket.
pub(super) struct WebSocket<S> {
    stream: WebSocketStream<S>,
    /// Answers to this client. While one is unsent nothing more is read, so there are never more than a few.
    replies: VecDeque<Message>,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport for WebSocket<S> {
    fn reply(&mut self, text: String) {
        self.replies.push_back(Message::text(text));
    }

    fn ping(&mut self) {
        if self.replies.is_empty() {
            self.replies.push_back(Message::Ping(Default::default()));
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
        self.poll_write(cx, mailbox, render)?;
        if !self.replies.is_empty() {
            return Poll::Pending;
        }
        self.stream.poll_next_unpin(cx).map(|next| Ok(Heard::Message(next.ok_or(Ending::Closed)??)))
    }

    async fn close(mut self, ending: Ending) {
        if ending != Ending::Lost {
            let _ = tokio::time::timeout(LINGER, self.shake_hands(ending)).await;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Takes a stream whose upgrade is done; no message from it may be larger than `max_message`.
    pub(super) async fn new(io: S, max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            // A message can double when it is packed into a string.
            .max_write_buffer_size(2 * max_message + WRITE_HEADROOM)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Self { stream, replies: VecDeque::new(), unflushed: false }
    }

    /// Whether the client hasn't even read what was said before.
    pub(super) fn has_unsent(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Writes as much as the stream takes.
    fn poll_write<R>(&mut self, cx: &mut Context<'_>, mailbox: Option<&Reader>, render: R) -> Result<(), Ending>
    where
        R: Fn(Option<u64>, &message::Message) -> Told,
    {
        mailbox.map_or(Ok(()), |mailbox| mailbox.watch(cx.waker()))?;
        while let Poll::Ready(ready) = self.stream.poll_ready_unpin(cx) {
            ready?;
            let (next, ending) = if let Some(reply) = self.replies.pop_front() {
                (Some(reply), None)
            } else {
                let Some((number, message)) = mailbox.and_then(Reader::take) else { break };
                let told = render(number, &message);
                (told.text.map(Message::text), told.ending)
            };
            if let Some(next) = next {
                self.stream.start_send_unpin(next)?;
                self.unflushed = true;
            }
            if let Some(ending) = ending {
                return Err(ending);
            }
        }
        if self.unflushed
            && let Poll::Ready(flushed) = self.stream.poll_flush_unpin(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        Ok(())
    }

    async fn shake_hands(&mut self, ending: Ending) -> Result<(), Error> {
        if let Some((code, reason)) = ending.close_code() {
            // The answer to the last ping would come behind the close frame.
            self.stream.flush().await?;
            for reply in std::mem::take(&mut self.replies) {
                self.stream.feed(reply).await?;
            }
            self.stream.send(Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))).await?;
        }
        while let Some(Ok(_)) = self.stream.next().await {}
        let io = self.stream.get_mut();
        io.shutdown().await?;
        // What is unread when a socket is closed resets the connection, and the client would lose our close frame.
        tokio::io::copy(io, &mut tokio::io::sink()).await?;
        Ok(())
    }
}
