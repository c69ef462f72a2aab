//! Receiver-timed packet trains: what a line can carry, from a few dozen datagrams.
//!
//! ```text
//! pacer ─ plan ─▶ exchange ─ datagrams, asks ─▶   ◀─ reports ─ host   :reflector
//!   ▲                │ arrivals                      (arrivals of trains up, trains down)
//!   └──── estimate ◀─┘
//! ```
//!
//! A train is sent as fast as the host can. It waits before the bottleneck of the line, which lets it
//! pass at the line's rate; the receiver's kernel stamps say which rate that was ([`estimate`]). How
//! long trains are and how often they are sent follows from a share of the line ([`pacer`]).
//!
//! Rates are of frames as the sending interface counts them, like those of [`crate::household`]. All
//! of it is sans-IO and integer.

pub mod estimate;
pub mod exchange;
pub mod host;
pub mod pacer;

#[cfg(test)]
mod tests;

/// A train has to keep the line busy for this long to be believed, ns: on a line with request and
/// grant the batches of less say little.
pub const SPAN_NS: u64 = 50_000_000;
/// An estimate that is less sure than this is worth recording, but nothing is concluded from it, ‰.
pub const SURE_PERMILLE: u16 = 500;
