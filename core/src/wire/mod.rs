//! Packets as bytes: for each message a bounds-checked view of received bytes, and what it says.

pub mod header;
pub mod icmp;
pub mod knock;
pub mod load;
pub mod probe;
pub mod stamp;
pub mod train;
