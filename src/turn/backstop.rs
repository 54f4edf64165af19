//! webrtc-rs `turn`'s allocation manager, driven so that none of its traps can spring.
//!
//! The manager holds every allocation, permission and channel with timers of its own. Ours end first, always, so its
//! timers are the backstop: what we should ever forget, it ends, and says so by closing the relay [`Conn`]. How each of
//! the crate's traps is kept shut:
//!
//! - Refreshing a permission or channel in the second it expires deadlocks the crate (it waits, under the lock that the
//!   expiring timer wants, for that timer). Its refresh paths are never taken: an entry is removed, then added anew.
//! - Its client-side and relay-side `Conn`s are called under its map lock: ours never block, and never call back.
//! - Data doesn't go through it: the relay `Conn` never receives, and the shard forwards by its own table.
//! - Its relay address generator is told neither client nor user: the socket is bound first and handed in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use turn::allocation::Allocation;
use turn::allocation::allocation_manager::Manager;
use turn::allocation::allocation_manager::ManagerConfig;
use turn::allocation::channel_bind::ChannelBind;
use turn::allocation::five_tuple;
use turn::allocation::permission::Permission;
use turn::proto;
use turn::proto::channum::ChannelNumber;
use turn::relay::RelayAddressGenerator;
use webrtc_util::Conn;

use crate::address::FiveTuple;
use crate::address::PeerAddr;
use crate::address::Transport;
use crate::relay::command::AllocationId;

/// How much later than ours the crate's deadlines are.
const GRACE: Duration = Duration::from_secs(2);
/// A channel's life (RFC 8656, section 12).
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// The crate's manager, and the word of each allocation that it has ended.
pub(super) struct Backstop {
    manager: Manager,
    next: Arc<Mutex<Option<Arc<RelayConn>>>>,
    // Unbounded, for it is written to under the crate's lock; at most one message for each allocation alive.
    ended_in: mpsc::UnboundedSender<AllocationId>,
    ended: mpsc::UnboundedReceiver<AllocationId>,
}

/// The crate refused.
#[derive(Debug, thiserror::Error)]
#[error("allocation manager: {0}")]
pub(super) struct Refused(#[from] turn::Error);

impl Default for Backstop {
    fn default() -> Self {
        let next = Arc::new(Mutex::new(None));
        let generator = Generator { next: Arc::clone(&next) };
        let manager =
            Manager::new(ManagerConfig { relay_addr_generator: Box::new(generator), alloc_close_notify: None });
        let (ended_in, ended) = mpsc::unbounded_channel();
        Self { manager, next, ended_in, ended }
    }
}

impl Backstop {
    /// Enters an allocation whose relay socket is bound to `relayed`.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing is entered then, and no end will be told.
    pub(super) async fn create(
        &mut self,
        client: FiveTuple,
        id: AllocationId,
        relayed: SocketAddr,
        username: &str,
        lifetime: Duration,
    ) -> Result<(), Refused> {
        let conn = Arc::new(RelayConn { id, relayed, over: AtomicBool::new(false), ended: self.ended_in.clone() });
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&conn));
        let username = stun::textattrs::Username::new(stun::attributes::ATTR_USERNAME, username.to_owned());
        let created = self
            .manager
            .create_allocation(
                key(client),
                Arc::new(ClientConn),
                relayed.port(),
                lifetime + GRACE,
                username,
                relayed.is_ipv4(),
            )
            .await;
        if created.is_err() {
            conn.over.store(true, Ordering::Release);
        }
        created?;
        Ok(())
    }

    /// Ends an allocation; its end is told by [`Backstop::poll_ended`] before this returns.
    pub(super) async fn delete(&self, client: FiveTuple) {
        self.manager.delete_allocation(&key(client)).await;
    }

    /// Lets an allocation live for `lifetime` from now.
    pub(super) async fn refresh(&self, client: FiveTuple, lifetime: Duration) {
        if let Some(allocation) = self.get(client).await {
            allocation.refresh(lifetime + GRACE).await;
        }
    }

    /// Gives a peer's IP address a new permission.
    pub(super) async fn permit(&self, client: FiveTuple, peer: PeerAddr) {
        if let Some(allocation) = self.get(client).await {
            allocation.remove_permission(&peer.get()).await;
            allocation.add_permission(Permission::new(peer.get())).await;
        }
    }

    /// Binds a channel anew, and gives its peer a new permission.
    ///
    /// # Errors
    ///
    /// [`Refused`], when the number or the peer is bound otherwise.
    pub(super) async fn bind(&self, client: FiveTuple, number: u16, peer: PeerAddr) -> Result<(), Refused> {
        if let Some(allocation) = self.get(client).await {
            let number = ChannelNumber(number);
            allocation.remove_permission(&peer.get()).await;
            allocation.remove_channel_bind(number).await;
            // Expired by our deadline, not yet by the crate's.
            if let Some(earlier) = allocation.get_channel_number(&peer.get()).await {
                allocation.remove_channel_bind(earlier).await;
            }
            let bind = ChannelBind::new(number, peer.get());
            allocation.add_channel_bind(bind, CHANNEL_LIFETIME + GRACE).await?;
        }
        Ok(())
    }

    /// The next allocation that has ended, by whatever cause.
    pub(super) fn poll_ended(&mut self) -> Option<AllocationId> {
        self.ended.try_recv().ok()
    }

    /// Waits for an allocation's end.
    pub(super) async fn ended(&mut self) -> AllocationId {
        match self.ended.recv().await {
            Some(id) => id,
            None => std::future::pending().await,
        }
    }

    async fn get(&self, client: FiveTuple) -> Option<Arc<Allocation>> {
        self.manager.get_allocation(&key(client)).await
    }
}

/// The crate's 5-tuple. Its protocol must tell TCP from TLS, or both on one address pair would be one.
fn key(client: FiveTuple) -> five_tuple::FiveTuple {
    let protocol = match client.transport {
        Transport::Udp => proto::PROTO_UDP,
        Transport::Tcp => proto::PROTO_TCP,
        Transport::Tls => proto::Protocol(u8::MAX),
    };
    five_tuple::FiveTuple { protocol, src_addr: client.client, dst_addr: client.server }
}

/// Hands the crate the relay `Conn` that was made for the allocation it is about to enter.
struct Generator {
    next: Arc<Mutex<Option<Arc<RelayConn>>>>,
}

#[async_trait]
impl RelayAddressGenerator for Generator {
    fn validate(&self) -> Result<(), turn::Error> {
        Ok(())
    }

    async fn allocate_conn(
        &self,
        _use_ipv4: bool,
        requested_port: u16,
    ) -> Result<(Arc<dyn Conn + Send + Sync>, SocketAddr), turn::Error> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        match next {
            Some(conn) if conn.relayed.port() == requested_port => {
                let relayed = conn.relayed;
                Ok((conn, relayed))
            }
            Some(_) | None => Err(turn::Error::ErrNilConn),
        }
    }
}

/// Stands for a relay socket inside the crate. Its one duty is to say, once, that the allocation is over.
struct RelayConn {
    id: AllocationId,
    relayed: SocketAddr,
    over: AtomicBool,
    ended: mpsc::UnboundedSender<AllocationId>,
}

impl RelayConn {
    fn end(&self) {
        if !self.over.swap(true, Ordering::AcqRel) {
            let _ = self.ended.send(self.id);
        }
    }
}

impl Drop for RelayConn {
    fn drop(&mut self) {
        self.end();
    }
}

/// Stands for the client's side inside the crate, which only ever closes it: that must not close the listener.
struct ClientConn;

type Refusal<T> = Result<T, webrtc_util::Error>;

fn unused<T>() -> Refusal<T> {
    Err(webrtc_util::Error::Other("the data plane forwards, not this".into()))
}

#[async_trait]
impl Conn for RelayConn {
    async fn connect(&self, _: SocketAddr) -> Refusal<()> {
        unused()
    }
    async fn recv(&self, _: &mut [u8]) -> Refusal<usize> {
        std::future::pending().await
    }
    async fn recv_from(&self, _: &mut [u8]) -> Refusal<(usize, SocketAddr)> {
        std::future::pending().await
    }
    async fn send(&self, _: &[u8]) -> Refusal<usize> {
        unused()
    }
    async fn send_to(&self, _: &[u8], _: SocketAddr) -> Refusal<usize> {
        unused()
    }
    fn local_addr(&self) -> Refusal<SocketAddr> {
        Ok(self.relayed)
    }
    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }
    async fn close(&self) -> Refusal<()> {
        self.end();
        Ok(())
    }
    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

#[async_trait]
impl Conn for ClientConn {
    async fn connect(&self, _: SocketAddr) -> Refusal<()> {
        unused()
    }
    async fn recv(&self, _: &mut [u8]) -> Refusal<usize> {
        unused()
    }
    async fn recv_from(&self, _: &mut [u8]) -> Refusal<(usize, SocketAddr)> {
        unused()
    }
    async fn send(&self, _: &[u8]) -> Refusal<usize> {
        unused()
    }
    async fn send_to(&self, _: &[u8], _: SocketAddr) -> Refusal<usize> {
        unused()
    }
    fn local_addr(&self) -> Refusal<SocketAddr> {
        unused()
    }
    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }
    async fn close(&self) -> Refusal<()> {
        Ok(())
    }
    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}
