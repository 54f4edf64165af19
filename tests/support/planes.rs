//! Both planes of the relay inside the test, for what can't be seen or done from outside the binary.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Poll;

use throughway::address::Sources;
use throughway::clock::Clock;
use throughway::credentials;
use throughway::credentials::Credentials;
use throughway::metrics::Metrics;
use throughway::net::udp;
use throughway::policy;
use throughway::policy::Policy;
use throughway::rate::PerSource;
use throughway::rate::Rate;
use throughway::relay::allowance::Allowance;
use throughway::relay::pairs::Observer;
use throughway::relay::shard;
use throughway::relay::shard::Shard;
use throughway::turn;
use throughway::turn::Pool;
use throughway::turn::Processor;
use throughway::turn::status::Status;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A media thread and a control task. Alice and peers on loopback are let in; nothing is limited by source.
pub(crate) struct Planes {
    /// Where clients reach it.
    pub(crate) udp: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    stopped: Arc<AtomicBool>,
    control: JoinHandle<()>,
    _shard: Shard,
}

impl Planes {
    pub(crate) fn start(observer: Option<Box<dyn Observer>>) -> Self {
        let (clock, metrics) = (Clock::system(), Arc::new(Metrics::default()));
        let listener = udp::Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let udp = listener.local_addr();
        let loopback = vec!["127.0.0.0/8".parse().unwrap()];
        let policy = Arc::new(Policy::new(policy::Settings { allow: loopback.clone(), ..Default::default() }));
        let plenty = Rate { per_second: 1e9, burst: 1e9 };
        let (requests, asked) = mpsc::channel(64);
        let settings = shard::Settings {
            listeners: vec![listener],
            policy: Arc::clone(&policy),
            metrics: Arc::clone(&metrics),
            clock,
            bindings: PerSource::new(plenty, Sources::new(loopback.clone())),
            allowance: Allowance::default(),
            offload: udp::Offload::ALL,
            observer,
            events: requests,
        };
        let shard = shard::spawn(vec![settings]).unwrap().remove(0);
        let credentials = Credentials::new(credentials::Settings {
            users: [("alice".into(), "wonderland".into())].into(),
            ..Default::default()
        });
        let settings = turn::Settings {
            realm: "throughway".into(),
            relay_ip: Vec::new(),
            routed: Vec::new(),
            relay_ports: 20_000..=29_999,
            external_ip: Vec::new(),
            limits: turn::Limits {
                allocations_per_member: 1000,
                allocations_per_source: 1000,
                permissions: 64,
                channels: 64,
                new_peers: plenty,
                challenges: plenty,
                exempt: loopback,
                volume: Arc::default(),
            },
            draining: CancellationToken::new(),
        };
        let bind = Box::new(udp::Socket::bind);
        let pool = Pool::new(settings, Arc::new(credentials), policy, Arc::clone(&metrics), bind);
        let processor = Processor::new(Arc::new(pool));
        let (commands, stopped) = (shard.commands(), Arc::new(AtomicBool::new(false)));
        let halt = Arc::clone(&stopped);
        let control = tokio::spawn(async move {
            let (_asks, asked_by_streams) = mpsc::channel(1);
            let send = |command| commands.send(command);
            let running = turn::run(
                processor,
                asked,
                asked_by_streams,
                Status::default().add(),
                send,
                clock,
                CancellationToken::new(),
            );
            let mut running = pin!(running);
            poll_fn(|cx| if halt.load(Ordering::Acquire) { Poll::Pending } else { running.as_mut().poll(cx) }).await;
        });
        Self { udp, metrics, stopped, control, _shard: shard }
    }

    /// From here on the control task does nothing, and reads nothing that it is asked: as if it hung.
    pub(crate) fn halt_control(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}

impl Drop for Planes {
    fn drop(&mut self) {
        self.control.abort();
    }
}
