//! What detectors tell: kinds of events, and how each begins, changes and ends.

use heapless::Vec;

use super::edge::Edge;
use crate::time::Monotonic;

/// What happened. The words are those of the store and of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// RTT far above its baseline, not explained by load.
    LatencySpike,
    /// Delay varies from probe to probe.
    HighJitter,
    /// Scattered loss.
    PacketLoss,
    /// Losses in a row that the scattered loss of the time does not explain.
    LossBurst,
    /// Losses or spikes that come back at a fixed period.
    PeriodicLoss,
    /// No answer from anywhere through an interface, for 200 ms to 10 s.
    MicroOutage,
    /// The same for longer.
    Outage,
    /// Latency that rises with load.
    Bufferbloat,
    /// Some targets are bad and the others well.
    RoutingFault,
    /// One interface is bad and another well at the same moments.
    InterfaceDiffers,
    /// One family (IPv4, IPv6) is bad and the other well.
    FamilyDiffers,
    /// Large packets vanish and small ones pass.
    MtuBlackHole,
    /// Packets take another number of hops than before.
    RouteChange,
    /// The evening is worse than the night, day after day.
    PeakHourCongestion,
    /// The line carries less upward than it did.
    UploadDegraded,
    /// The line carries less downward than it did.
    DownloadDegraded,
    /// A resolver takes long.
    DnsSlow,
    /// A resolver fails.
    DnsFailing,
    /// Connections to a service are refused, lost, or take long to open.
    TcpUnstable,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 19] = [
        Self::LatencySpike,
        Self::HighJitter,
        Self::PacketLoss,
        Self::LossBurst,
        Self::PeriodicLoss,
        Self::MicroOutage,
        Self::Outage,
        Self::Bufferbloat,
        Self::RoutingFault,
        Self::InterfaceDiffers,
        Self::FamilyDiffers,
        Self::MtuBlackHole,
        Self::RouteChange,
        Self::PeakHourCongestion,
        Self::UploadDegraded,
        Self::DownloadDegraded,
        Self::DnsSlow,
        Self::DnsFailing,
        Self::TcpUnstable,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LatencySpike => "latency_spike",
            Self::HighJitter => "high_jitter",
            Self::PacketLoss => "packet_loss",
            Self::LossBurst => "loss_burst",
            Self::PeriodicLoss => "periodic_loss",
            Self::MicroOutage => "micro_outage",
            Self::Outage => "outage",
            Self::Bufferbloat => "bufferbloat",
            Self::RoutingFault => "routing_fault",
            Self::InterfaceDiffers => "interface_differs",
            Self::FamilyDiffers => "family_differs",
            Self::MtuBlackHole => "mtu_black_hole",
            Self::RouteChange => "route_change",
            Self::PeakHourCongestion => "peak_hour_congestion",
            Self::UploadDegraded => "upload_degraded",
            Self::DownloadDegraded => "download_degraded",
            Self::DnsSlow => "dns_slow",
            Self::DnsFailing => "dns_failing",
            Self::TcpUnstable => "tcp_unstable",
        }
    }

    /// Whether it is of a service, and says nothing of the line: see [`super::service`].
    #[must_use]
    pub const fn is_of_service(self) -> bool {
        matches!(self, Self::DnsSlow | Self::DnsFailing | Self::TcpUnstable)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Explains something.
    Info,
    /// Worth a look.
    Warning,
    /// Hurts.
    Critical,
}

/// Which way of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From here to the far end.
    Up,
    /// From the far end to here.
    Down,
    /// Both.
    Both,
}

impl Direction {
    /// The direction in which most of `up` and `down` lies: one way where it has at least four
    /// fifths of the sum; `None` where nothing is known.
    #[must_use]
    pub const fn of_weights(up: u64, down: u64) -> Option<Self> {
        let all = up.saturating_add(down);
        if all == 0 {
            None
        } else if up >= all - all / 5 {
            Some(Self::Up)
        } else if down >= all - all / 5 {
            Some(Self::Down)
        } else {
            Some(Self::Both)
        }
    }
}

/// A figure that an event carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number: a count, nanoseconds, bit/s or bytes, as the name's ending says.
    Number(u64),
    /// A share, 0 to 1, or a ratio.
    Ratio(f64),
    /// A word.
    Word(&'static str),
}

/// Figures by name.
pub type Values = Vec<(&'static str, Value), 12>;

/// The probes that the figures of an event are of.
pub(crate) const PROBES: &str = "probes";
/// The value that says how far back figures reach.
pub(crate) const WITHIN_NS: &str = "within_ns";
/// The value that says how many were lost in a row.
pub(crate) const LOST: &str = "lost";

/// The place of the series that an event's figures are of, where they are of one alone.
pub const MEASURED_BY: &str = "measured_by";

/// The figure of an event that is held against another line: that line's number.
pub const WELL_LINE: &str = "well_line";

/// Sets a figure; one more than there is room for is left out.
pub(crate) fn set(values: &mut Values, name: &'static str, value: Value) {
    match values.iter_mut().find(|(n, _)| *n == name) {
        Some(slot) => slot.1 = value,
        None => drop(values.push((name, value))),
    }
}

/// A set of series, by their place in the watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesSet(u64);

impl SeriesSet {
    /// Whether `series` belongs to it.
    #[must_use]
    pub const fn contains(self, series: u8) -> bool {
        self.0 >> (series & 63) & 1 == 1
    }

    /// Its members.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |n| self.contains(*n))
    }

    /// How many there are.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn one(series: u8) -> Self {
        Self(1 << (series & 63))
    }

    /// Adds one, 0 to 63.
    pub fn insert(&mut self, series: u8) {
        self.0 |= Self::one(series).0;
    }

    pub(crate) fn remove(&mut self, series: u8) {
        self.0 &= !Self::one(series).0;
    }
}

/// How far an event has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is new; where it has an end, it is over already.
    Begin,
    /// More is known of it, or it has come back within the hold-down: then its end is gone again.
    Update,
    /// It is over.
    End,
}

/// An event as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// How bad, at its worst.
    pub severity: Severity,
    /// Which way, where that is known.
    pub direction: Option<Direction>,
    /// The line (interface) it happened on.
    pub line: u8,
    /// The series that showed it.
    pub series: SeriesSet,
    /// When it began.
    pub start: Monotonic,
    /// When it ended; `None` while it lasts.
    pub end: Option<Monotonic>,
    /// Figures.
    pub values: Values,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The event's number, unique while the watch lives.
    pub id: u32,
    /// What is new.
    pub phase: Phase,
    /// The event as it stands now.
    pub event: Event,
}

/// What a detector found.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) severity: Severity,
    pub(crate) direction: Option<Direction>,
    pub(crate) start: Monotonic,
    pub(crate) values: Values,
    /// What speaks for up and for down, where the direction is that of all findings together.
    pub(crate) weights: (u64, u64),
    /// Edges are known no better than this, ns.
    pub(crate) grain_ns: u64,
}

impl Finding {
    pub(crate) fn new(kind: Kind, severity: Severity, start: Monotonic) -> Self {
        Self {
            kind,
            severity,
            direction: None,
            start,
            values: Values::new(),
            weights: (0, 0),
            grain_ns: 0,
        }
    }

    pub(crate) fn weights(mut self, up: u64, down: u64) -> Self {
        self.weights = (up, down);
        self.direction(Direction::of_weights(up, down))
    }

    pub(crate) const fn grain(mut self, ns: u64) -> Self {
        self.grain_ns = ns;
        self
    }

    pub(crate) const fn edge(&self) -> Edge {
        Edge {
            at: self.start,
            grain_ns: self.grain_ns,
        }
    }

    pub(crate) fn direction(mut self, direction: Option<Direction>) -> Self {
        self.direction = direction;
        self
    }

    pub(crate) fn number(mut self, name: &'static str, value: u64) -> Self {
        set(&mut self.values, name, Value::Number(value));
        self
    }

    pub(crate) fn ratio(mut self, name: &'static str, value: f64) -> Self {
        set(&mut self.values, name, Value::Ratio(value));
        self
    }

    pub(crate) fn word(mut self, name: &'static str, value: &'static str) -> Self {
        set(&mut self.values, name, Value::Word(value));
        self
    }
}
