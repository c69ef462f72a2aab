//! The daemon: probes from every bound interface, records, and keeps watch.
//!
//! Five threads, one way for data:
//!
//! ```text
//! keeper ──sockets, probers──▶ probe ──reports──▶ recorder ──▶ store
//!   │ links, routes, names       (one ring)          ▲ orders
//!   └───────────────────────▶ ask ──samples──────────┤
//! keeper ◀─────── configuration ──── control ────────┘
//! ```

mod alerts;
pub mod ask;
mod asked;
pub mod config;
mod control;
mod episode;
mod equip;
mod errands;
mod floors;
mod health;
mod held;
mod household;
mod http;
mod keeper;
pub mod load;
mod metrics;
mod names;
mod notify;
mod numbers;
pub mod pacing;
mod plan;
mod probe;
mod radio;
mod recorder;
mod reload;
mod remote;
mod scout;
mod service;
mod signals;
mod sizes;
pub mod stamp;
mod status;
mod tls;
pub mod train;
mod url;
mod walk;
mod watch;

pub use alerts::{AlertsConfig, CRITICAL};
pub use radio::Radio;
pub use remote::RemoteConfig;
pub use service::{Daemon, StartError};
pub use signals::Signals;
pub use status::{
    Happening, RemoteStatus, RemoteTally, ScheduledTests, Second, SeriesStatus, Status, StoreStatus,
};
pub use tls::Roots;
pub use url::Url;
pub use watch::events_of;
