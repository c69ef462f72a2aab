//! The daemon: probes from every bound interface, records, and keeps watch.
//!
//! Four threads, one way for data:
//!
//! ```text
//! keeper ──sockets, probers──▶ probe ──reports──▶ recorder ──▶ store
//!   ▲ links, routes, names       (one ring)          ▲ orders
//!   └─────────── configuration ──── control ─────────┘
//! ```

mod alerts;
pub mod config;
mod control;
mod episode;
mod equip;
mod floors;
mod health;
mod household;
mod http;
mod keeper;
pub mod load;
mod names;
mod notify;
pub mod pacing;
mod plan;
mod probe;
mod recorder;
mod scout;
mod service;
pub mod stamp;
mod status;
mod watch;

pub use alerts::AlertsConfig;
pub use service::{Daemon, Signals, StartError};
pub use status::{Happening, Second, SeriesStatus, Status, StoreStatus};
