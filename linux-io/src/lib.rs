//! The ring, timestamped sockets, clocks, netlink and counters: the only home of `unsafe`.
//!
//! [`Engine`] is the whole input and output of a prober or a reflector: one io_uring with multishot
//! receives into a ring of buffers, batched sends, kernel stamps in both directions and waits until
//! absolute deadlines. Kernel stamps arrive already on the monotonic line ([`timeline`]).

mod buffers;
mod bulk;
mod card;
mod cmsg;
mod complete;
mod engine;
mod errqueue;
mod event;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod hops;
mod icmp_filter;
mod options;
mod outbox;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod ring;
mod slots;
mod sockaddr;
mod socket;
mod sockets;
mod sockopt;
mod stampkeys;
mod stampmeter;
mod sys;
mod tag;
mod usual;
mod waker;

pub mod admission;
pub mod clock;
pub mod counters;
pub mod host;
pub mod mtu;
pub mod netlink;
pub mod stamping;
pub mod support;
pub mod tcp;
pub mod timeline;

pub use bulk::{Bulk, BulkEvent, Role, StreamId};
pub use engine::Engine;
pub use event::{EngineCounters, ErrorOrigin, Event, SocketId};
pub use hops::{Heard, HopSocket, Word};
pub use options::{EngineOptions, StartError};
pub use outbox::{Outbox, Queued, SendError, Transmit};
pub use ring::EngineError;
pub use slots::MAX_PAYLOAD;
pub use socket::{Family, ProbeSocket, SocketBuilder, SocketKind};
pub use sockopt::SocketError;
pub use stampmeter::{Readings, StampMeter};
pub use waker::Waker;
