//! STAMP (RFC 8762): probing a reflector that others run, and answering others' probes.

mod prober;
mod responder;

pub use prober::{Counting, StampConfig, StampProber};
pub use responder::{Peer, StampClock, StampResponder, Subnet};

#[cfg(test)]
mod tests;
