//! A load that runs while something is done to the server: relayed streams and members that exchange messages. At the end it
//! says what was lost.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde_json::Value;
use serde_json::json;
use throughway::net::host::raise_file_limit;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::DEFAULT_PEERS;
use super::PATIENCE;
use super::Server;
use super::client::Client;

/// How much of what.
#[derive(Default)]
pub(crate) struct Size {
    /// Clients of `turnutils_uclient` (an even number) that relay to each other through the server, for [`Size::seconds`].
    /// They sign in as alice of [`super::DEFAULT_PEERS`].
    pub(crate) streams: usize,
    /// How long the streams go on, about: each sends 20 messages a second.
    pub(crate) seconds: usize,
    /// WebSockets (an even number), each signed in. They exchange messages in pairs until [`Load::finish`].
    pub(crate) sockets: usize,
    /// With this, WebSockets are `wss` on the port for https, and streams are `turns` on it. Else they are `ws` and UDP.
    pub(crate) tls: Option<TlsConnector>,
}

/// What has become of it all.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Datagrams that the streams sent, or would have sent if their client hadn't given up.
    pub(crate) relay_sent: u64,
    /// How many of those never arrived.
    pub(crate) relay_lost: u64,
    /// Messages of members, each of which has its receiver answer.
    pub(crate) messages_sent: u64,
    /// How many never had their answer. A message is sent again only when its sender's connection broke, or when the server
    /// said that it can't be delivered.
    pub(crate) messages_lost: u64,
    /// Errors that members heard instead of an answer, each of which had them send again.
    pub(crate) messages_refused: u64,
    /// Why WebSockets ended, by their close code: 1006 for those that just broke (RFC 6455, section 7.4.1). Their members come
    /// back, and go on.
    pub(crate) sockets_closed: Vec<u16>,
    /// Connections that were refused or broke before anybody could sign in.
    pub(crate) connections_refused: u64,
    /// Members that are signed in at the end.
    pub(crate) members: usize,
}

/// A load that runs.
pub(crate) struct Load {
    streams: Option<Streams>,
    askers: JoinSet<Member>,
    answerers: JoinSet<Member>,
    /// Ends who asks, once its last message is answered or lost; and then who answers.
    ends: [CancellationToken; 2],
    outcome: Arc<Mutex<Outcome>>,
}

impl Load {
    /// Starts it. When this returns, all members are signed in and the streams flow.
    pub(crate) async fn start(server: &Server, size: Size) -> Self {
        raise_file_limit();
        let (addr, port) = match size.tls {
            Some(_) => (server.https(), server.https().port()),
            None => (server.http(), server.udp().port()),
        };
        let outcome = Arc::<Mutex<Outcome>>::default();
        let road = Arc::new(Road { addr, tls: size.tls, outcome: Arc::clone(&outcome) });
        let (mut askers, mut answerers, ends) = (JoinSet::new(), JoinSet::new(), <[CancellationToken; 2]>::default());
        for pair in 0..size.sockets / 2 {
            let [mut asker, mut answerer] = ["asks", "answers"].map(|role| Member::new(&road, role, pair));
            for member in [&mut asker, &mut answerer] {
                tokio::time::timeout(PATIENCE, member.come()).await.expect("it signs in");
            }
            let [stop, end] = ends.clone();
            answerers.spawn(async move {
                end.run_until_cancelled(answerer.answer()).await;
                answerer
            });
            askers.spawn(async move {
                asker.ask(&stop).await;
                asker
            });
        }
        let mut streams = None;
        if size.streams > 0 {
            streams = Some(Streams::start(port, road.tls.is_some(), size.streams, size.seconds).await);
        }
        Self { streams, askers, answerers, ends, outcome }
    }

    /// Waits for the end of the streams, ends the rest, and says how it went.
    pub(crate) async fn finish(self) -> Outcome {
        let (relay_sent, arrived) = match self.streams {
            Some(streams) => streams.finish().await,
            None => (0, 0),
        };
        let mut members = 0;
        for (end, tasks) in self.ends.into_iter().zip([self.askers, self.answerers]) {
            end.cancel();
            members += tasks.join_all().await.iter().filter(|member| member.client.is_some()).count();
        }
        let outcome = std::mem::take(&mut *self.outcome.lock().unwrap());
        Outcome { relay_sent, relay_lost: relay_sent.saturating_sub(arrived), members, ..outcome }
    }
}

/// A `turnutils_uclient` at work.
struct Streams {
    planned: u64,
    /// Datagrams that arrived, as it says every second and at its end.
    arrived: watch::Receiver<u64>,
    ended: JoinHandle<()>,
}

impl Streams {
    async fn start(port: u16, tls: bool, clients: usize, seconds: usize) -> Self {
        let each = MESSAGES_A_SECOND * seconds;
        let mut process = Command::new("turnutils_uclient")
            .args(["-u", "alice", "-w", "wonderland", "-y", "-c", "-l", "170", "-z", "20"])
            .args(["-p", &port.to_string(), "-m", &clients.to_string(), "-n", &each.to_string()])
            .args(if tls { &["-t", "-S"][..] } else { &[] })
            .arg("127.0.0.1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("uclient runs");
        let (tell, mut arrived) = watch::channel(0);
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ended = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, rest)) = line.split_once("tot_recv_msgs=") {
                    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    tell.send_replace(digits.parse().unwrap());
                }
            }
            process.wait().await.unwrap();
        });
        let flows = tokio::time::timeout(PATIENCE, arrived.wait_for(|arrived| *arrived > 0)).await;
        flows.expect("streams flow").expect("uclient goes on");
        Self { planned: (clients * each) as u64, arrived, ended }
    }

    /// How many datagrams were to be sent, and how many arrived.
    async fn finish(self) -> (u64, u64) {
        self.ended.await.unwrap();
        (self.planned, *self.arrived.borrow())
    }
}

/// How members get to the server.
struct Road {
    addr: SocketAddr,
    tls: Option<TlsConnector>,
    outcome: Arc<Mutex<Outcome>>,
}

impl Road {
    /// Somebody new over it, if it leads there and the server takes the name.
    async fn sign_in(&self, name: String) -> Option<Client> {
        let stream = TcpStream::connect(self.addr).await.ok()?;
        let mut client = match &self.tls {
            Some(tls) => Client::try_over(tls.connect("localhost".try_into().unwrap(), stream).await.ok()?, PATH).await,
            None => Client::try_over(stream, PATH).await,
        }?;
        let login = json!({ "type": "login", "name": name });
        client.socket.send(Message::text(login.to_string())).await.ok()?;
        while let Some(Ok(message)) = client.socket.next().await {
            if let Message::Text(text) = message {
                let reply: Value = serde_json::from_str(&text).unwrap();
                return (reply["success"] == true).then_some(client);
            }
        }
        None
    }
}

/// One half of a pair that exchanges messages. It comes back when its connection ends, as any good client does.
struct Member {
    road: Arc<Road>,
    role: &'static str,
    pair: usize,
    client: Option<Client>,
}

impl Member {
    fn new(road: &Arc<Road>, role: &'static str, pair: usize) -> Self {
        Self { road: Arc::clone(road), role, pair, client: None }
    }

    /// Sends messages by number, and waits for the answer to each, until `stop`.
    async fn ask(&mut self, stop: &CancellationToken) {
        let mut number = 0;
        while !stop.is_cancelled() {
            number += 1;
            self.note(|outcome| outcome.messages_sent += 1);
            if tokio::time::timeout(ANSWERED_WITHIN, self.exchange(number)).await.is_err() {
                self.note(|outcome| outcome.messages_lost += 1);
            }
            // Pings have to be answered meanwhile, and what has ended is made again by what comes next.
            let _ = tokio::time::timeout(PAUSE, stop.run_until_cancelled(self.idle())).await;
        }
    }

    /// Answers messages.
    async fn answer(&mut self) {
        loop {
            self.come().await;
            while let Some(frame) = self.hear().await {
                if frame["type"] == "candidate" {
                    self.send("asks", &frame["candidate"]).await;
                }
            }
        }
    }

    /// Sends a message until it is answered.
    async fn exchange(&mut self, number: u64) {
        loop {
            self.come().await;
            self.send("answers", &json!(number)).await;
            while let Some(frame) = self.hear().await {
                if frame["type"] == "candidate" && frame["candidate"] == number {
                    return;
                }
                if frame["type"] == "error" {
                    self.note(|outcome| outcome.messages_refused += 1);
                    tokio::time::sleep(AGAIN).await;
                    break;
                }
            }
        }
    }

    /// Is there and says nothing, for as long as its connection lasts.
    async fn idle(&mut self) {
        while self.hear().await.is_some() {}
    }

    /// Signs in, unless it is; as often as that takes.
    async fn come(&mut self) {
        while self.client.is_none() {
            match self.road.sign_in(format!("{}{}", self.role, self.pair)).await {
                Some(client) => self.client = Some(client),
                None => {
                    self.note(|outcome| outcome.connections_refused += 1);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Sends a message to the other half. That its connection is gone, it hears when it listens.
    async fn send(&mut self, to: &str, data: &Value) {
        let frame = json!({ "type": "candidate", "name": format!("{to}{}", self.pair), "candidate": data });
        if let Some(client) = &mut self.client {
            let _ = client.socket.send(Message::text(frame.to_string())).await;
        }
    }

    /// The next frame; none when the connection has ended. May be given up at any time.
    async fn hear(&mut self) -> Option<Value> {
        let code = loop {
            match self.client.as_mut()?.socket.next().await {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(close))) => break close.map_or(NO_CODE, |close| close.code.into()),
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => (),
                Some(Err(_)) | None => break BROKEN,
            }
        };
        self.note(|outcome| outcome.sockets_closed.push(code));
        // The close frame is answered by what comes before the end.
        let mut client = self.client.take()?;
        tokio::spawn(async move { while let Some(Ok(_)) = client.socket.next().await {} });
        None
    }

    fn note(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.road.outcome.lock().unwrap());
    }
}

const PATH: &str = "/ws";
/// What `turnutils_uclient -z 20` sends for each client, measured.
const MESSAGES_A_SECOND: usize = 20;
/// Between an answer and the next message.
const PAUSE: Duration = Duration::from_millis(500);
/// Before something is tried again.
const AGAIN: Duration = Duration::from_millis(300);
/// A message counts as lost when nothing has come of it for so long, all that is tried again included.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// Close codes of connections that end without one (RFC 6455, section 7.4.1).
const NO_CODE: u16 = 1005;
const BROKEN: u16 = 1006;

#[tokio::test]
async fn a_load_says_what_was_lost_and_of_a_server_that_goes_on_that_nothing_was() {
    let sizes = |streams, sockets| Size { streams, sockets, seconds: 3, tls: None };
    let server = Server::start(DEFAULT_PEERS);

    let whole = Load::start(&server, sizes(4, 20)).await.finish().await;
    let broken = Load::start(&server, sizes(4, 20)).await;
    drop(server);
    let broken = broken.finish().await;

    assert_eq!((whole.relay_sent, whole.relay_lost), (4 * 3 * 20, 0), "{whole:?}");
    assert!(whole.messages_sent >= 20 && whole.sockets_closed.is_empty() && whole.members == 20, "{whole:?}");
    assert_eq!((whole.messages_lost, whole.messages_refused, whole.connections_refused), (0, 0, 0));
    assert!(broken.relay_lost > 0 && broken.relay_sent > broken.relay_lost, "{broken:?}");
    assert!(broken.messages_lost >= 10 && broken.messages_sent > broken.messages_lost, "{broken:?}");
    assert_eq!(broken.sockets_closed, [BROKEN; 20]);
    assert!(broken.connections_refused > 0 && broken.members == 0, "{broken:?}");
}
