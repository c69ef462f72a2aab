//! The store of Bufferbane: one redb file that a daemon writes and any number of tools read beside
//! it. docs/store.md draws what is in it.
//!
//! [`Writer`] takes samples and events, packs them and commits in batches; [`Reader`] answers
//! questions. Both go through the same tables and the same map from monotonic to wall time, so the
//! figures are the same whether a daemon runs or not.

mod buffer;
mod cable;
mod capacity;
mod check;
mod codec;
// Tests in here make and read what those beside do, whose word for this crate it is, too.
#[cfg(test)]
extern crate self as bufferbane_store;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
mod copy;
mod echoes;
mod error;
mod events;
mod file;
mod floors;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod hours;
mod load;
mod loadtest;
mod model;
mod paths;
mod query;
mod reader;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod retention;
mod samples;
mod sizes;
mod tables;
mod tail;
mod tentative;
mod timemap;
mod usage;
mod waiting;
mod writer;

pub use cable::CableReading;
pub use capacity::{Capacity, Method};
pub use check::CheckReport;
pub use echoes::{Echoes, KnownEchoes};
pub use error::{OpenError, StoreError};
pub use file::compact;
pub use health::HealthSum;
pub use load::StoredLoad;
pub use loadtest::{
    Datagrams, Instead, LoadTest, LoadedDelay, Percentiles, ProbeBin, Protocol, TestId, TestWay,
};
pub use model::{
    Direction, Event, EventId, Health, SeriesId, SeriesInfo, SeriesKind, Severity, Trust, by_reason,
};
pub use paths::{Escalation, KnownPath, Look, Path, PathEnd, PathHop};
pub use query::{Bucket, Gap, Overview, Window};
pub use reader::{Reader, recover};
pub use retention::{Retention, RetentionReport};
pub use samples::{Filter, Row};
pub use sizes::{KnownSize, Larger, PathSize};
pub use timemap::{Anchor, Segment, TimeMap};
pub use usage::Usage;
pub use writer::{CommitReport, Writer, WriterOptions};
