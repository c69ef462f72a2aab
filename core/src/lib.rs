//! The measuring core of Bufferbane: codecs, sealing, timing, statistics and detection.
//!
//! `no_std`, allocates nothing, forbids unsafe code, and does no I/O: bytes and time stamps go in,
//! bytes, samples and deadlines come out, so the same code runs under io_uring in the daemon and
//! under a seeded simulation in the tests.
//!
//! ```text
//! socket ─ packet ─▶ decode ─▶ match ─▶ Sample ─▶ windows, histograms ─▶ events
//!                   (wire,    (flight)  (sample)  (clock, stats, record)
//!                    seal,
//!                    session)
//! ```
//!
//! `now` and randomness are arguments of every entry point that needs them.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod aead;

pub mod awaited;
pub mod clock;
pub mod detect;
pub mod drop_reason;
pub mod failure;
pub mod flight;
pub mod held;
pub mod household;
pub mod icmp;
pub mod limits;
pub mod load;
pub mod look;
pub mod mtu;
mod own_tests;
pub mod packet;
pub mod path;
pub mod record;
pub mod sample;
pub mod schedule;
pub mod seal;
pub mod session;
pub mod stamp;
pub mod stats;
pub mod time;
pub mod trace;
pub mod train;
pub mod varint;
pub mod wire;
