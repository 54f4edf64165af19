//! Where the hub keeps what several servers could share: who holds which name and is in which room, and the way to them.

use std::sync::Arc;

use tokio::time::Instant;

use crate::credentials::SessionId;
use crate::signaling::mailbox::Mailbox;
use crate::signaling::mailbox::Refused;
use crate::signaling::message::Message;
use crate::signaling::name::Name;

pub mod memory;

/// Who holds which name and is in which room. Each answer holds at that moment for everybody who asks.
///
/// A holder has one name, and everything it holds until one deadline, which it moves on while it lives: what nobody moves
/// on any more is free again at the deadline, by itself.
pub trait Registry: Send {
    /// Gives `name` to `holder`, who holds nothing yet, until `deadline`.
    ///
    /// # Errors
    ///
    /// [`Taken`]; nothing has changed then.
    fn claim(&mut self, name: &Name, holder: SessionId, deadline: Instant, now: Instant) -> Result<(), Taken>;

    /// Moves the deadline of all that `holder` holds, there and back.
    ///
    /// # Errors
    ///
    /// [`Lost`], when it holds nothing any more.
    fn renew(&mut self, holder: SessionId, deadline: Instant, now: Instant) -> Result<(), Lost>;

    /// Frees all that `holder` holds.
    fn release(&mut self, holder: SessionId);

    /// Lets `holder` into `room`, unless `most` are there; who else is, in the order they came in. Who is in it stays where
    /// it was.
    ///
    /// # Errors
    ///
    /// [`NoEntry`]; nothing has changed then.
    fn enter(&mut self, room: &Name, holder: SessionId, most: usize, now: Instant) -> Result<Vec<Holder>, NoEntry>;

    /// Takes `holder` out of `room`; false when it wasn't there.
    fn leave(&mut self, room: &Name, holder: SessionId) -> bool;

    /// Who holds `name`.
    fn holder_of(&self, name: &Name, now: Instant) -> Option<SessionId>;

    /// Who is in `room`, in the order they came in.
    fn in_room(&self, room: &Name, now: Instant) -> Vec<Holder>;

    /// How many rooms somebody is in.
    fn rooms(&self) -> usize;

    /// Names that are held, in no order, `most` of them.
    fn names(&self, most: usize, now: Instant) -> Vec<Name>;
}

/// The way to whoever is here, or elsewhere.
pub trait Bus: Send {
    /// Has what is for `holder` go to `mailbox`.
    fn open(&mut self, holder: SessionId, mailbox: Arc<Mailbox>);

    /// Ends that.
    fn close(&mut self, holder: SessionId);

    /// Brings `message` to `holder`.
    ///
    /// # Errors
    ///
    /// [`Undelivered`], when that is known at once. What only turns out later is told as [`Message::Undelivered`].
    fn deliver(&self, holder: SessionId, message: Message, now: Instant) -> Result<(), Undelivered>;
}

/// Who holds something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// By which name it is known.
    pub name: Name,
    /// The session that does.
    pub session: SessionId,
}

/// Somebody else holds the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name is taken")]
pub struct Taken;

/// The holder's deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name was held no longer")]
pub struct Lost;

/// Why somebody doesn't get into a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEntry {
    /// Too many are there.
    #[error("the room is full")]
    Full,
    /// Who asks holds no name.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why a member isn't told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// Nobody is there.
    #[error("nobody is signed in by this name")]
    UnknownMember,
    /// Its mailbox doesn't take it.
    #[error(transparent)]
    Refused(#[from] Refused),
}

#[cfg(test)]
mod tests;
