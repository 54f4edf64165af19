//! A control plane without sockets, and the world around it: clients, users, time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use stun::attributes::*;
use stun::integrity::MessageIntegrity;
use stun::message::*;
use tokio_util::sync::CancellationToken;
use turn::proto::peeraddr::PeerAddress;
use turn::proto::relayaddr::RelayedAddress;

use super::super::*;
use crate::address::FiveTuple;
use crate::address::Transport;
use crate::clock::Clock;
use crate::credentials;
use crate::credentials::Credentials;
use crate::credentials::Endings;
use crate::credentials::IceCredential;
use crate::credentials::SessionId;
use crate::metrics::Metrics;
use crate::policy;
use crate::policy::Policy;
use crate::relay::command::AllocationId;
use crate::relay::command::Command;
use crate::relay::command::ListenerId;
use crate::relay::command::Request;
use crate::relay::command::Via;

pub(super) const BINDING: u16 = 0x001;
pub(super) const ALLOCATE: u16 = 0x003;
pub(super) const REFRESH: u16 = 0x004;
pub(super) const CREATE_PERMISSION: u16 = 0x008;
pub(super) const CHANNEL_BIND: u16 = 0x009;

pub(super) type Given = Vec<(u16, Vec<u8>)>;

/// A control plane and the world around it.
pub(super) struct World {
    pub(super) processor: Processor<()>,
    /// Another shard's, of the same process.
    pub(super) other: Processor<()>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) endings: Endings,
    pub(super) commands: Vec<Command<()>>,
    pub(super) client: FiveTuple,
    pub(super) user: (&'static str, &'static str),
    pub(super) realm: &'static str,
    pub(super) nonce: Vec<u8>,
    pub(super) transactions: u32,
}

impl World {
    pub(super) fn new(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with(credentials::Settings::default(), change)
    }

    /// With credentials that end and reach as `about` has it.
    pub(super) fn with(about: credentials::Settings, change: impl FnOnce(&mut Settings)) -> Self {
        let clock = Clock::anchored(Duration::from_secs(1_700_000_000));
        let mut settings = Settings {
            realm: "throughway".into(),
            relay_ip: Vec::new(),
            routed: Vec::new(),
            relay_ports: 50_000..=50_999,
            external_ip: Vec::new(),
            limits: Limits {
                allocations_per_member: 100,
                allocations_per_source: 200,
                permissions: 64,
                channels: 64,
                new_peers: Rate { per_second: 20.0, burst: 200.0 },
                challenges: Rate { per_second: 100.0, burst: 500.0 },
                exempt: Vec::new(),
                volume: Arc::default(),
            },
            draining: CancellationToken::new(),
        };
        change(&mut settings);
        let users =
            [("alice", "wonderland"), ("bob", "builder")].map(|(name, password)| (name.into(), password.into()));
        let credentials = Arc::new(Credentials::new(credentials::Settings {
            secrets: vec!["north".into()],
            users: HashMap::from(users),
            expired_grace: Duration::from_secs(12 * 3600),
            ..about
        }));
        let metrics = Arc::new(Metrics::default());
        let policy = Arc::new(Policy::new(policy::Settings::default()));
        let bind = Box::new(|_| Ok(()));
        let pool = Arc::new(Pool::new(settings, Arc::clone(&credentials), policy, Arc::clone(&metrics), bind));
        let [processor, other] = [(); 2].map(|()| Processor::new(Arc::clone(&pool)));
        Self {
            endings: processor.endings(),
            processor,
            other,
            credentials,
            clock,
            metrics,
            commands: Vec::new(),
            client: from("198.51.100.1:4000"),
            user: ("alice", "wonderland"),
            realm: "throughway",
            nonce: Vec::new(),
            transactions: 0,
        }
    }

    pub(super) fn message(&mut self, method: u16, attributes: &Given) -> Message {
        self.transactions += 1;
        let mut message = Message::new();
        message.transaction_id.0[..4].copy_from_slice(&self.transactions.to_be_bytes());
        message.typ.read_value(method);
        message.write_header();
        for (kind, value) in attributes {
            let mut value = value.clone();
            if *kind == 0x0012 && value.len() == 20 {
                // `peer` encoded it under a transaction ID of zeros.
                value[8..].iter_mut().zip(message.transaction_id.0).for_each(|(byte, id)| *byte ^= id);
            }
            message.add(AttrType(*kind), &value);
        }
        message
    }

    pub(super) fn signed(&mut self, method: u16, attributes: &Given) -> Message {
        let mut message = self.message(method, attributes);
        message.add(ATTR_USERNAME, self.user.0.as_bytes());
        message.add(ATTR_REALM, self.realm.as_bytes());
        message.add(ATTR_NONCE, &self.nonce);
        self.key().add_to(&mut message).unwrap();
        message
    }

    pub(super) fn key(&self) -> MessageIntegrity {
        let (name, password) = self.user;
        MessageIntegrity::new_long_term_integrity(name.into(), self.realm.into(), password.into())
    }

    /// Sends raw bytes; the answer's bytes, if any.
    pub(super) async fn send(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let (reached, via) = (self.client.server.ip(), Via::Datagram(ListenerId(0)));
        let request = Request { five_tuple: self.client, reached, via, message: message.to_vec() };
        self.processor.handle_request(&request, self.clock.now()).await;
        self.answer()
    }

    pub(super) fn answer(&mut self) -> Option<Vec<u8>> {
        let mut answer = None;
        while let Some(command) = self.processor.poll_command() {
            match command {
                Command::Answer { message, .. } => assert!(answer.replace(message).is_none(), "one answer at most"),
                other @ (Command::Open { .. }
                | Command::Extend { .. }
                | Command::Permit { .. }
                | Command::Bind { .. }
                | Command::Forbid { .. }
                | Command::Configure(_)
                | Command::Close { .. }) => self.commands.push(other),
            }
        }
        answer
    }

    /// Takes a fresh nonce from a challenge.
    pub(super) async fn challenged(&mut self) {
        let message = self.message(ALLOCATE, &transport());
        let answer = parsed(&self.send(&message.raw).await.unwrap());
        assert_eq!(code(&answer), 401);
        self.nonce = answer.get(ATTR_NONCE).unwrap();
    }

    /// Asks with a good proof: the answer, whose signature is right.
    pub(super) async fn ask(&mut self, method: u16, attributes: Given) -> Message {
        if self.nonce.is_empty() {
            self.challenged().await;
        }
        let message = self.signed(method, &attributes);
        let mut answer = parsed(&self.send(&message.raw).await.expect("an answer"));
        if code(&answer) != 401 && code(&answer) != 438 {
            self.key().check(&mut answer).expect("a signed answer");
        }
        answer
    }

    pub(super) async fn code_of(&mut self, method: u16, attributes: Given) -> u16 {
        code(&self.ask(method, attributes).await)
    }

    /// From another address, with another user, with a nonce of its own.
    pub(super) async fn turn_into(&mut self, client: &str, user: (&'static str, &'static str)) {
        (self.client, self.user) = (from(client), user);
        self.challenged().await;
    }

    /// As [`World::turn_into`], with a credential of this session.
    pub(super) async fn turn_into_session(&mut self, client: &str, session: SessionId, member: Option<&str>) {
        let IceCredential { username, password, .. } = self.credentials.mint(session, member, self.clock.now());
        self.turn_into(client, (username.leak(), password.leak())).await;
    }

    /// Has the processor hear of the next session that is over; the allocations that end with it.
    pub(super) async fn hear_of_an_end(&mut self) -> Vec<AllocationId> {
        let ending = self.endings.next().await;
        self.processor.handle_ending(ending, self.clock.now()).await;
        assert!(self.answer().is_none());
        self.closed()
    }

    /// What comes from here on comes to the other shard.
    pub(super) fn change_shard(&mut self) {
        std::mem::swap(&mut self.processor, &mut self.other);
    }

    pub(super) async fn pass(&mut self, time: Duration) {
        tokio::time::advance(time).await;
        self.processor.handle_timeout(self.clock.now()).await;
        assert!(self.answer().is_none());
    }

    pub(super) fn closed(&mut self) -> Vec<AllocationId> {
        self.commands
            .drain(..)
            .filter_map(|command| if let Command::Close { id } = command { Some(id) } else { None })
            .collect()
    }
}

pub(super) fn from(client: &str) -> FiveTuple {
    FiveTuple::new(Transport::Udp, client.parse().unwrap(), "192.0.2.9:3478".parse().unwrap())
}

pub(super) fn parsed(raw: &[u8]) -> Message {
    let mut message = Message { raw: raw.to_vec(), ..Message::default() };
    message.decode().unwrap();
    message
}

/// 0 for success.
pub(super) fn code(answer: &Message) -> u16 {
    answer.get(ATTR_ERROR_CODE).map_or(0, |value| u16::from(value[2]) * 100 + u16::from(value[3]))
}

pub(super) fn seconds(answer: &Message) -> u32 {
    u32::from_be_bytes(answer.get(ATTR_LIFETIME).unwrap().try_into().unwrap())
}

pub(super) fn relayed(answer: &Message) -> SocketAddr {
    let mut relayed = RelayedAddress::default();
    relayed.get_from(answer).unwrap();
    SocketAddr::new(relayed.ip, relayed.port)
}

pub(super) fn transport() -> Given {
    vec![(0x0019, vec![17, 0, 0, 0])]
}

pub(super) fn lifetime(seconds: u32) -> Given {
    vec![(0x000D, seconds.to_be_bytes().to_vec())]
}

pub(super) fn peer(addr: &str) -> Given {
    let addr: SocketAddr = addr.parse().unwrap();
    let mut message = Message::new();
    PeerAddress { ip: addr.ip(), port: addr.port() }.add_to(&mut message).unwrap();
    vec![(0x0012, message.get(ATTR_XOR_PEER_ADDRESS).unwrap())]
}

pub(super) fn channel(number: u16, addr: &str) -> Given {
    let [n0, n1] = number.to_be_bytes();
    and(peer(addr), vec![(0x000C, vec![n0, n1, 0, 0])])
}

pub(super) fn and(mut some: Given, more: Given) -> Given {
    some.extend(more);
    some
}
