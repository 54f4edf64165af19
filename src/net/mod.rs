//! Sockets only: knows nothing of TURN or rooms.

pub mod udp;
