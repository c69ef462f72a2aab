//! What is kept beside samples: series, events, health, and how far a clock can be trusted.

use bufferbane_core::time::Monotonic;
use serde::{Deserialize, Serialize};

/// A series in the store, for as long as the file lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeriesId(pub u32);

/// How a series is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeriesKind {
    /// Our own protocol, with a reflector.
    Udp,
    /// ICMP or ICMPv6 echo.
    Icmp,
    /// STAMP (RFC 8762), with a reflector of others.
    Stamp,
}

impl SeriesKind {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Stamp => "stamp",
        }
    }
}

/// What a series is: two series with the same of these are one and the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SeriesInfo {
    /// The interface it leaves through.
    pub interface: String,
    /// `wired`, `wifi`, `cellular`, `ppp`, `tunnel`, `loopback` or `unknown`.
    pub interface_kind: String,
    /// The target's or reflector's name in the configuration.
    pub target: String,
    /// How it is probed.
    pub kind: SeriesKind,
    /// 4 or 6.
    pub family: u8,
    /// DSCP of the probes, 0 to 63.
    pub dscp: u8,
    /// Bytes of payload of each probe; 0 where sizes are mixed.
    pub size: u16,
    /// Length of a slot, ns.
    pub interval_ns: u64,
    /// The address that is probed, as text.
    pub address: String,
}

impl SeriesInfo {
    /// A short name that tells it from the others: `eth0 quad9 icmp4`.
    #[must_use]
    pub fn label(&self) -> String {
        format!(
            "{} {} {}{}",
            self.interface,
            self.target,
            self.kind.as_str(),
            self.family
        )
    }
}

/// How far the wall clock can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Trust {
    /// It shows a time before this program was built: a router that has just booted.
    None = 0,
    /// It shows a time that can be, but nobody disciplines it.
    Plausible = 1,
    /// The kernel says that it is synchronised.
    Disciplined = 2,
}

impl Trust {
    pub(crate) fn from_u8(value: u8) -> Self {
        match value {
            2 => Self::Disciplined,
            1 => Self::Plausible,
            _ => Self::None,
        }
    }
}

/// An event in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub u64);

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Explains something.
    Info,
    /// Worth a look.
    Warning,
    /// Hurts.
    Critical,
}

/// Which way of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From here to the far end.
    Up,
    /// From the far end to here.
    Down,
    /// Both.
    Both,
}

/// Something that happened, with a start and, once it is over, an end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What kind: one of the names of the documentation, such as `link_down`.
    pub kind: String,
    /// How bad.
    pub severity: Severity,
    /// The interface concerned; empty where it is the host.
    pub interface: String,
    /// The target concerned, if it is one.
    pub target: Option<String>,
    /// The direction, where there is one.
    pub direction: Option<Direction>,
    /// Boot and instant of the start, ns since boot.
    pub boot: u32,
    /// See `boot`.
    pub start_ns: u64,
    /// Instant of the end in the same boot; `None` while it lasts.
    pub end_ns: Option<u64>,
    /// Further values by name.
    #[serde(default)]
    pub values: serde_json::Map<String, serde_json::Value>,
    /// One sentence for people.
    pub text: String,
}

impl Event {
    /// An event that begins at `start` in `boot` and has not ended.
    #[must_use]
    pub fn new(kind: &str, severity: Severity, boot: u32, start: Monotonic, text: String) -> Self {
        Self {
            kind: kind.to_owned(),
            severity,
            interface: String::new(),
            target: None,
            direction: None,
            boot,
            start_ns: start.as_nanos(),
            end_ns: None,
            values: serde_json::Map::new(),
            text,
        }
    }
}

/// What the daemon measured of itself over one minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Samples that the recorder could not take in time.
    pub dropped_samples: u64,
    /// Datagrams that our sockets dropped.
    pub socket_drops: u64,
    /// Slots that passed without a probe because the probe thread did not run.
    pub skipped_slots: u64,
    /// CPU time of the daemon, ns.
    pub cpu_ns: u64,
    /// Over how long, ns.
    pub wall_ns: u64,
    /// Send lateness of probes, ns: median, 99th percentile, largest.
    pub send_late_ns: [u64; 3],
}
