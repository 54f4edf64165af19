//! A media thread on loopback with one client, one peer, a permission and a channel between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use throughway::address::PeerAddr;
use throughway::address::RelayedAddr;
use throughway::address::Sources;
use throughway::net::udp;
use throughway::rate::PerSource;
use throughway::relay::allowance::Allowance;
use throughway::relay::command::AllocationId;
use throughway::relay::command::Event;
use throughway::relay::shard;
use throughway::relay::shard::Shard;
use tokio::sync::mpsc;

use super::*;

/// A running shard and the sockets around it.
pub struct Rig {
    client: UdpSocket,
    peer: UdpSocket,
    listener: SocketAddr,
    _shard: Shard,
    _events: mpsc::Receiver<Event>,
}

impl Rig {
    /// No peer but one can be reached: what is fuzzed must not reach out of this test.
    pub fn start() -> Self {
        let clock = Clock::system();
        let socket = udp::Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.local_addr();
        let peer = UdpSocket::bind("127.9.9.9:0").unwrap();
        peer.set_nonblocking(true).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (sender, events) = mpsc::channel(1);
        let (allow, deny) = (vec!["127.9.9.9".parse().unwrap()], vec!["0.0.0.0/0".parse().unwrap()]);
        let settings = shard::Settings {
            listeners: vec![socket],
            policy: Arc::new(Policy::new(policy::Settings { allow, deny, ..policy::Settings::default() })),
            metrics: Arc::new(Metrics::default()),
            clock,
            bindings: PerSource::new(
                Rate { per_second: 1.0, burst: 1.0 },
                Sources::new(vec!["127.0.0.1".parse().unwrap()]),
            ),
            allowance: Allowance::default(),
            offload: udp::Offload::ALL,
            observer: None,
            events: sender,
        };
        let shard = shard::spawn(vec![settings]).unwrap().remove(0);
        let relay = udp::Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (id, at) = (AllocationId(1), relay.local_addr());
        let deadline = clock.now().monotonic + Duration::from_secs(3600);
        let five_tuple = FiveTuple::new(Transport::Udp, client.local_addr().unwrap(), listener);
        let peer_addr = peer.local_addr().unwrap();
        let open = Command::Open {
            id,
            five_tuple,
            via: Via::Datagram(ListenerId(0)),
            relayed: RelayedAddr(at),
            advertised: at,
            socket: relay,
            deadline,
            traffic: Arc::default(),
        };
        let permit = Command::Permit { id, peer: peer_addr.ip(), deadline };
        let bind = Command::Bind { id, channel: 0x4000, peer: PeerAddr::new(peer_addr), deadline };
        run(async {
            for command in [open, permit, bind] {
                shard.commands().send(command).await.unwrap();
            }
        });
        Self { client, peer, listener, _shard: shard, _events: events }
    }

    /// Sends one datagram, and waits until the thread has answered what comes behind it.
    pub fn throw(&self, datagram: &[u8]) {
        let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], b"still there?"].concat();
        self.client.send_to(datagram, self.listener).unwrap();
        self.client.send_to(&binding, self.listener).unwrap();
        let mut buffer = [0; 2048];
        loop {
            let length = match self.client.recv(&mut buffer) {
                // libFuzzer's clock.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                received => received.expect("the media thread lives"),
            };
            if buffer[..length].starts_with(&[1, 1]) && &buffer[8..20] == b"still there?" {
                break;
            }
        }
        while self.peer.recv(&mut buffer).is_ok() {}
    }
}
