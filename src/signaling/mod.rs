//! Members, names, rooms and mailboxes: the hub that every client protocol talks to. No socket; only
//! signing in awaits, with nothing locked.

pub mod accounts;
pub mod candidates;
pub mod hub;
pub mod ice;
pub mod mailbox;
pub mod message;
pub mod name;
pub mod secret;
pub mod session;
pub mod store;
