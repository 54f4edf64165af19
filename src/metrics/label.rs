//! The labels that numbers are told apart by; their values never come from a client.

use super::count::Key;
use crate::address::Transport;

macro_rules! labels {
    ($(#[$meta:meta])* $name:ident: $label_name:literal {
        $($(#[$doc:meta])* $variant:ident => $label:literal),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            /// Every one of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its label in the exposition.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),* }
            }
        }

        impl Key for $name {
            const COUNT: usize = Self::ALL.len();

            fn index(self) -> usize {
                self as usize
            }

            fn all() -> impl Iterator<Item = Self> {
                Self::ALL.iter().copied()
            }

            fn put(self, text: &mut String) {
                put(text, $label_name, self.label());
            }
        }
    };
}

fn put(text: &mut String, name: &str, value: &str) {
    text.extend([name, "=\"", value, "\""]);
}

labels! {
    /// Why a datagram went no further. One counter each, never a log line.
    DropReason: "reason" {
        /// Not STUN, not ChannelData.
        NotTurn => "not-turn",
        /// Announces itself as STUN or ChannelData and isn't well-formed.
        Malformed => "malformed",
        /// A STUN class or method that no client sends to a server, or an unknown required attribute in an indication.
        Unexpected => "unexpected",
        /// Data from a client that has no allocation on this 5-tuple.
        NoAllocation => "no-allocation",
        /// Data for a channel that isn't bound.
        NoChannel => "no-channel",
        /// Data to or from a peer without permission, or an ICMP error about one.
        NoPermission => "no-permission",
        /// A peer that the policy denies.
        PeerDenied => "peer-denied",
        /// A relayed address of ours that no live allocation owns.
        NotOurs => "no-such-relayed-address",
        /// An ICMP error, or one of this host's, that clients aren't told of.
        Icmp => "icmp",
        /// The control plane's queue is full, or the ring to another shard.
        QueueFull => "queue-full",
        /// The source asks more often than its limit, or ICMP errors come more often than a client is told of.
        RateLimited => "rate-limited",
        /// An unauthenticated request too short to answer.
        TooShort => "too-short",
        /// More bytes a second than an allocation, or all, may have.
        Bandwidth => "bandwidth",
        /// More bytes than may be relayed in a day or month.
        Volume => "volume",
        /// Wouldn't fit one datagram, or is larger than what a socket can take.
        TooLarge => "too-large",
        /// The socket refused it for now.
        SocketFull => "socket-full",
        /// The client's stream takes too little: data that waited too long, or too much of it.
        StreamFull => "stream-full",
        /// The client's stream has ended.
        StreamClosed => "stream-closed",
        /// The socket reported an error.
        SocketError => "socket-error",
        /// Should not happen; worth a report.
        Bug => "bug",
    }
}

labels! {
    /// Client protocols of signaling: each has a name space of its own.
    Gateway: "gateway" {
        /// Our own protocol, in both of its dialects.
        Json => "json",
        /// Socket.IO.
        SocketIo => "socketio",
        /// PeerServer's.
        PeerJs => "peerjs",
        /// What y-webrtc and Trystero speak.
        PubSub => "pubsub",
        /// Ayame.
        Ayame => "ayame",
    }
}

labels! {
    /// Between whom data is relayed.
    Direction: "direction" {
        /// From a client to a peer, through the kernel.
        ToPeers => "to-peers",
        /// From a peer to a client, through the kernel.
        ToClients => "to-clients",
        /// From one client to another inside the process.
        Hairpin => "hairpin",
    }
}

labels! {
    /// What clients request of the relay.
    Request: "method" {
        /// What address it is seen at; of those that shards answer themselves there is a count of its own.
        Binding => "binding",
        /// An allocation.
        Allocate => "allocate",
        /// That it lives on, or ends.
        Refresh => "refresh",
        /// That a peer may send.
        CreatePermission => "create-permission",
        /// A short header for a peer.
        ChannelBind => "channel-bind",
    }
}

labels! {
    /// How a request was answered.
    Answer: "answer" {
        /// It was done.
        Success => "success",
        /// It makes no sense.
        BadRequest => "400",
        /// It proves nothing. A client's first one does so too: this alone is no failure.
        Unauthenticated => "401",
        /// The peer is denied.
        Forbidden => "403",
        /// It has attributes that are unknown here.
        UnknownAttributes => "420",
        /// There is no allocation, or there is one already.
        Mismatch => "437",
        /// Its nonce is too old.
        StaleNonce => "438",
        /// No relayed address of this family is to be had.
        FamilyNotSupported => "440",
        /// The allocation is another user's.
        WrongCredentials => "441",
        /// Only UDP is relayed.
        NotUdp => "442",
        /// The peer is of another family.
        PeerFamily => "443",
        /// Its quota is reached.
        Quota => "486",
        /// There is no port left, or too much of something.
        Capacity => "508",
        /// Any other error.
        Other => "other",
    }
}

impl Answer {
    /// An error's, by its code.
    pub fn error(code: u16) -> Self {
        let is_it = |answer: &&Self| answer.label().parse() == Ok(code);
        Self::ALL.iter().find(is_it).copied().unwrap_or(Self::Other)
    }
}

labels! {
    /// What was wrong with what should have proven a TURN user name.
    AuthFailure: "kind" {
        /// Nobody has this name.
        UnknownUser => "unknown-user",
        /// The password isn't the name's.
        WrongPassword => "wrong-password",
        /// It was good once: its time is over, or its session is.
        Expired => "expired",
        /// The nonce was issued to this client, too long ago. Clients ask again by themselves.
        StaleNonce => "stale-nonce",
        /// The nonce wasn't issued to this client.
        ForeignNonce => "foreign-nonce",
    }
}

labels! {
    /// What became of somebody who wanted to sign in, or to have ICE servers.
    SignIn: "outcome" {
        /// It is signed in.
        Ok => "ok",
        /// It has taken up its session again.
        Resumed => "resumed",
        /// What it shows is missing, wrong, or somebody else's.
        WrongProof => "wrong-proof",
        /// It failed too often.
        TooManyFailures => "too-many-failures",
        /// It comes too often.
        RateLimited => "rate-limited",
        /// Who would know doesn't say.
        Unavailable => "unavailable",
        /// Somebody is signed in by this name.
        NameTaken => "name-taken",
        /// The operator doesn't want it.
        Banned => "banned",
        /// There is no session that it could take up.
        NoSession => "no-session",
        /// It doesn't get into the room.
        NotJoined => "not-joined",
        /// It has no name.
        Nameless => "nameless",
        /// It must signal here to be relayed.
        SignaledPeersOnly => "signaled-peers-only",
    }
}

impl SignIn {
    /// Whether it got what it wanted.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Ok | Self::Resumed)
    }
}

labels! {
    /// What became of a message to one member.
    Delivery: "outcome" {
        /// It waits for its recipient, or was of no interest to it.
        Queued => "queued",
        /// Nobody is signed in by this name.
        UnknownMember => "unknown-member",
        /// The recipient's mailbox is full.
        Overflow => "overflow",
        /// The recipient's client knows no such messages.
        NotUnderstood => "not-understood",
    }
}

labels! {
    /// Why an allocation ended.
    AllocationEnd: "reason" {
        /// Its client asked for that.
        Deleted => "deleted",
        /// Nobody refreshed it.
        Expired => "expired",
        /// The stream that it was made over is over.
        StreamClosed => "stream-closed",
        /// Its session is over, or was revoked.
        SessionOver => "session-over",
        /// It could not begin.
        Refused => "refused",
        /// What proved its user name holds no longer, by a reload.
        Revoked => "revoked",
    }
}

labels! {
    /// What there are places for.
    PlaceOf: "of" {
        /// A connection that has asked for nothing yet.
        HalfOpen => "half-open",
        /// A connection that speaks HTTP.
        Http => "http",
        /// A WebSocket, or what stands for one.
        WebSocket => "websocket",
        /// A stream that speaks TURN.
        TurnStream => "turn-stream",
    }
}

labels! {
    /// Why there was no place.
    NoPlace: "limit" {
        /// All were taken.
        Total => "total",
        /// All of its source's were.
        Source => "source",
    }
}

impl Key for Transport {
    const COUNT: usize = Self::ALL.len();

    fn index(self) -> usize {
        self as usize
    }

    fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    fn put(self, text: &mut String) {
        put(text, "transport", self.label());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_code_is_counted_as_itself_and_an_unknown_one_as_other() {
        assert_eq!(Answer::error(401), Answer::Unauthenticated);
        assert_eq!(Answer::error(508), Answer::Capacity);
        assert_eq!([Answer::error(0), Answer::error(499)], [Answer::Other; 2]);
    }
}
