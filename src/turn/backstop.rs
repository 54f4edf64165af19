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

use crate::address::Family;
use crate::address::PeerAddr;
use crate::address::Transport;
use crate::relay::command::AllocationId;
use crate::turn::ledger::Leg;

/// How much later than ours the crate's deadlines are. (Its permissions live 300 s whatever one asks for, from a moment
/// after ours began.)
const GRACE: Duration = Duration::from_secs(2);

/// The crate's manager, and the word of each allocation that it has ended.
pub(super) struct Backstop {
    manager: Manager,
    next: Arc<Mutex<Option<Arc<Stub>>>>,
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
        leg: Leg,
        id: AllocationId,
        relayed: SocketAddr,
        username: &str,
        lifetime: Duration,
    ) -> Result<(), Refused> {
        let conn = Arc::new(Stub::relay(id, relayed, self.ended_in.clone()));
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&conn));
        let username = stun::textattrs::Username::new(stun::attributes::ATTR_USERNAME, username.to_owned());
        let created = self
            .manager
            .create_allocation(
                key(leg),
                Arc::new(Stub::client(leg.client.server)),
                relayed.port(),
                lifetime + GRACE,
                username,
                relayed.is_ipv4(),
            )
            .await;
        if created.is_err() {
            conn.disarm();
        }
        created?;
        Ok(())
    }

    /// Ends an allocation; its end is told by [`Backstop::poll_ended`] before this returns.
    pub(super) async fn delete(&self, leg: Leg) {
        self.manager.delete_allocation(&key(leg)).await;
    }

    /// Lets an allocation live for `lifetime` from now.
    pub(super) async fn refresh(&self, leg: Leg, lifetime: Duration) {
        if let Some(allocation) = self.get(leg).await {
            allocation.refresh(lifetime + GRACE).await;
        }
    }

    /// Gives a peer's IP address a new permission.
    pub(super) async fn permit(&self, leg: Leg, peer: PeerAddr) {
        if let Some(allocation) = self.get(leg).await {
            allocation.remove_permission(&peer.get()).await;
            allocation.add_permission(Permission::new(peer.get())).await;
        }
    }

    /// Binds a channel anew, and gives its peer a new permission.
    ///
    /// # Errors
    ///
    /// [`Refused`], when the number or the peer is bound otherwise.
    pub(super) async fn bind(&self, leg: Leg, number: u16, peer: PeerAddr, lifetime: Duration) -> Result<(), Refused> {
        if let Some(allocation) = self.get(leg).await {
            let number = ChannelNumber(number);
            allocation.remove_permission(&peer.get()).await;
            allocation.remove_channel_bind(number).await;
            // Expired by our deadline, not yet by the crate's.
            if let Some(earlier) = allocation.get_channel_number(&peer.get()).await {
                allocation.remove_channel_bind(earlier).await;
            }
            let bind = ChannelBind::new(number, peer.get());
            allocation.add_channel_bind(bind, lifetime + GRACE).await?;
        }
        Ok(())
    }

    /// Takes a peer's permission away, and the channels that are bound to it.
    pub(super) async fn forbid(&self, leg: Leg, peer: PeerAddr, channels: &[u16]) {
        if let Some(allocation) = self.get(leg).await {
            allocation.remove_permission(&peer.get()).await;
            for number in channels {
                allocation.remove_channel_bind(ChannelNumber(*number)).await;
            }
        }
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

    async fn get(&self, leg: Leg) -> Option<Arc<Allocation>> {
        self.manager.get_allocation(&key(leg)).await
    }
}

/// The crate's 5-tuple. Its protocol, which is read by nobody, must tell TCP from TLS and one family of a dual allocation
/// from the other, or two of ours would be one of its.
fn key(Leg { client, family }: Leg) -> five_tuple::FiveTuple {
    let protocol = match (client.transport, family) {
        (Transport::Udp, Family::V4) => proto::PROTO_UDP,
        (Transport::Tcp, Family::V4) => proto::PROTO_TCP,
        (Transport::Tls, Family::V4) => proto::Protocol(250),
        (Transport::Udp, Family::V6) => proto::Protocol(251),
        (Transport::Tcp, Family::V6) => proto::Protocol(252),
        (Transport::Tls, Family::V6) => proto::Protocol(253),
    };
    five_tuple::FiveTuple { protocol, src_addr: client.client, dst_addr: client.server }
}

/// Hands the crate the relay `Conn` that was made for the allocation it is about to enter.
struct Generator {
    next: Arc<Mutex<Option<Arc<Stub>>>>,
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
            Some(conn) if conn.addr.port() == requested_port => {
                let relayed = conn.addr;
                Ok((conn, relayed))
            }
            Some(_) | None => Err(turn::Error::ErrNilConn),
        }
    }
}

/// Stands for a socket inside the crate, which never sends or receives by it.
///
/// Of a relay socket its one duty is to say, once, that the allocation is over; of the client's side to do nothing when
/// it is closed, for that must not close the listener.
struct Stub {
    addr: SocketAddr,
    end: Option<End>,
}

/// What is to be said when an allocation is over.
struct End {
    id: AllocationId,
    said: AtomicBool,
    ended: mpsc::UnboundedSender<AllocationId>,
}

impl Stub {
    fn relay(id: AllocationId, addr: SocketAddr, ended: mpsc::UnboundedSender<AllocationId>) -> Self {
        Self { addr, end: Some(End { id, said: AtomicBool::new(false), ended }) }
    }

    fn client(addr: SocketAddr) -> Self {
        Self { addr, end: None }
    }

    /// Leaves the end unsaid: the allocation never began.
    fn disarm(&self) {
        if let Some(end) = &self.end {
            end.said.store(true, Ordering::Release);
        }
    }

    fn say_end(&self) {
        if let Some(End { id, said, ended }) = &self.end
            && !said.swap(true, Ordering::AcqRel)
        {
            let _ = ended.send(*id);
        }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.say_end();
    }
}

fn unused<T>() -> Result<T, webrtc_util::Error> {
    Err(webrtc_util::Error::Other("the data plane forwards, not this".into()))
}

#[async_trait]
impl Conn for Stub {
    async fn connect(&self, _: SocketAddr) -> Result<(), webrtc_util::Error> {
        unused()
    }
    async fn recv(&self, _: &mut [u8]) -> Result<usize, webrtc_util::Error> {
        std::future::pending().await
    }
    async fn recv_from(&self, _: &mut [u8]) -> Result<(usize, SocketAddr), webrtc_util::Error> {
        std::future::pending().await
    }
    async fn send(&self, _: &[u8]) -> Result<usize, webrtc_util::Error> {
        unused()
    }
    async fn send_to(&self, _: &[u8], _: SocketAddr) -> Result<usize, webrtc_util::Error> {
        unused()
    }
    fn local_addr(&self) -> Result<SocketAddr, webrtc_util::Error> {
        Ok(self.addr)
    }
    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }
    async fn close(&self) -> Result<(), webrtc_util::Error> {
        self.say_end();
        Ok(())
    }
    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}
