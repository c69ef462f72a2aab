//! A seeded world that drives both ends of the protocol and knows the truth.
//!
//! Two hosts whose clocks drift and are set, a link for each direction with delay, jitter, a rate, a
//! drop-tail buffer, loss, bursts, outages, reordering and duplication, and transmit stamps that come
//! late, twice or never. The link writes down what became of every packet; [`check`] compares every
//! sample with that.

pub mod check;
pub mod clock;
pub mod held;
pub mod link;
pub mod scenario;
pub mod services;
pub mod world;

pub use check::{QueueVerdict, Verdict};
pub use world::{Plan, World};

/// A millisecond, ns.
pub const MS: u64 = 1_000_000;
/// A second, ns.
pub const S: u64 = 1_000_000_000;
