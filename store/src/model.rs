//! What is kept beside samples: series, events, health, and how far a clock can be trusted.

use std::collections::BTreeMap;

use bufferbane_core::limits::SENT_LATE_NS;
use bufferbane_core::stats::failures::Failures;
use bufferbane_core::stats::histogram::{BUCKETS, Histogram};
use bufferbane_core::time::{Monotonic, StampErrors};
use bufferbane_core::varint;
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
    /// A question to a DNS resolver.
    Dns,
    /// A TCP connection that is made and let go, or used by the following two.
    Tcp,
    /// The TLS handshake of a request.
    Tls,
    /// A request to a server of HTTP.
    Http,
}

impl SeriesKind {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Stamp => "stamp",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http => "http",
        }
    }

    /// Whether the far end tells which way a probe was lost.
    #[must_use]
    pub const fn tells_direction(self) -> bool {
        matches!(self, Self::Udp | Self::Stamp)
    }

    /// Whether a service is asked, which answers when it has the answer: its time is not the line's
    /// alone, and an answer can be a failure.
    #[must_use]
    pub const fn asks_a_service(self) -> bool {
        matches!(self, Self::Dns | Self::Tcp | Self::Tls | Self::Http)
    }
}

/// Counts of failures by their words, for people and programs.
#[must_use]
pub fn by_reason(failures: &Failures) -> BTreeMap<String, u64> {
    let others = (failures.others() > 0).then(|| ("other".to_owned(), failures.others()));
    failures
        .iter()
        .map(|(failure, n)| (failure.to_string(), n))
        .chain(others)
        .collect()
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
    /// The address that is probed, as text; of a service with port and protocol: `9.9.9.9:53/udp`.
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

impl Direction {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
        }
    }
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
    /// Whether that is only where recording ended, and nobody has been told yet that it is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
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
            cut: false,
            values: serde_json::Map::new(),
            text,
        }
    }

    /// Recording ends at an instant of its boot, ns since then, while it lasts.
    pub(crate) fn cut_at(&mut self, at_ns: u64) {
        self.end_ns = Some(at_ns.max(self.start_ns));
        self.cut = true;
    }
}

/// What the daemon measured of itself over one minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Samples lost to this host: the recorder did not take them in time, or could not write them for
    /// too long.
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
    /// The whole of it as [`Histogram::encode`] writes it, in hexadecimal, so that minutes can be
    /// added up; see [`Health::add_send_late_to`]. Empty in rows from before it was kept.
    #[serde(default)]
    pub send_late: String,
    /// Probes that were marked as sent late.
    #[serde(default)]
    pub sent_late: u64,
    /// Datagrams that came without a stamp of the kernel's.
    #[serde(default)]
    pub unstamped: u64,
    /// CPU time of the probe thread alone, ns.
    #[serde(default)]
    pub probe_cpu_ns: u64,
    /// Datagrams that reflectors said they had dropped themselves.
    #[serde(default)]
    pub reflector_drops: u64,
    /// What 99 of 100 stamps of the kernel and of the program stayed within, ns, as measured over
    /// loopback in this minute; `None` where it was not.
    #[serde(default)]
    pub stamp_err_ns: Option<[u64; 2]>,
}

impl Health {
    /// Takes over the send lateness of the minute.
    pub fn set_send_late(&mut self, histogram: &Histogram) {
        let mut bytes = vec![0; 7 * BUCKETS + 64];
        let mut writer = varint::Writer::new(&mut bytes);
        histogram.encode(&mut writer);
        let len = writer.finish().unwrap_or(0);
        self.send_late = bytes[..len].iter().map(|b| format!("{b:02x}")).collect();
        let quantile = |q| histogram.quantile(q).unwrap_or(0);
        self.send_late_ns = [quantile(0.5), quantile(0.99), histogram.max().unwrap_or(0)];
    }

    /// Adds the send lateness of the minute to that of others; `None` in rows from before it was kept.
    #[must_use]
    pub fn add_send_late_to(&self, sum: &mut Histogram) -> Option<()> {
        let digits = self.send_late.as_bytes();
        let digit = |d: u8| char::from(d).to_digit(16);
        let bytes: Vec<u8> = digits
            .chunks_exact(2)
            .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8))
            .collect::<Option<_>>()?;
        sum.merge_encoded(&mut varint::Reader::new(&bytes))
    }

    /// How far stamps were off in this minute; assumed where it was not measured.
    #[must_use]
    pub const fn stamp_errors(&self) -> StampErrors {
        match self.stamp_err_ns {
            Some([kernel_ns, user_ns]) => StampErrors {
                user_ns,
                kernel_ns,
                ..StampErrors::ASSUMED
            },
            None => StampErrors::ASSUMED,
        }
    }

    /// Whether this minute's figures may be ours and not the line's: something was dropped or left
    /// out by this host, or one probe in a hundred left late.
    #[must_use]
    pub const fn is_trouble(&self) -> bool {
        self.dropped_samples + self.socket_drops + self.skipped_slots > 0
            || self.send_late_ns[1] > SENT_LATE_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_of_minutes_can_be_added_up_and_old_rows_have_none() {
        let mut minutes = [Health::default(), Health::default()];
        for (i, minute) in minutes.iter_mut().enumerate() {
            let mut h = Histogram::new();
            (1..=100).for_each(|n| h.add(n * 1000 * (1 + 9 * i as u64)));
            minute.set_send_late(&h);
            let text = serde_json::to_string(minute).unwrap();
            *minute = serde_json::from_str(&text).unwrap();
        }
        let mut sum = Histogram::new();
        for minute in &minutes {
            minute.add_send_late_to(&mut sum).unwrap();
        }
        assert_eq!((sum.count(), sum.max()), (200, Some(1_000_000)));
        assert!(!minutes[0].is_trouble());
        let old = r#"{"dropped_samples":0,"socket_drops":1,"skipped_slots":0,"cpu_ns":5,
            "wall_ns":6,"send_late_ns":[1,2,3]}"#;
        let old: Health = serde_json::from_str(old).unwrap();
        assert!(old.add_send_late_to(&mut sum).is_none() && old.is_trouble());
        assert_eq!(sum.count(), 200);
    }
}
