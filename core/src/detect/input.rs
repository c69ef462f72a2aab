//! What detectors are fed with.

use super::event::Direction;
use crate::sample::{Sample, Status};
use crate::time::Monotonic;

/// What a series stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The interface's own gateway. It is *near* only with a private address and a floor below 2 ms;
    /// otherwise it is the far end of the access line.
    Gateway {
        /// RFC 1918, unique local or link-local; not 100.64.0.0/10, not the peer of a PPP link.
        private: bool,
    },
    /// The modem itself.
    Modem,
    /// Another host in the house, where its floor is below 2 ms: what it does is no word of the line, nor of the gateway.
    House,
    /// A host beyond the access line.
    Far,
}

/// What is known of a series when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesFacts {
    /// The line (interface) it leaves through, from 0.
    pub line: u8,
    /// The same number for all series to one target or reflector, whatever family, size or DSCP.
    pub target: u16,
    /// What it stands for.
    pub role: Role,
    /// 4 or 6.
    pub family: u8,
    /// Bytes of payload; 0 where probes of several sizes take turns.
    pub size: u16,
    /// Length of a slot, ns.
    pub interval_ns: u64,
    /// When an unanswered probe is given up, ns.
    pub timeout_ns: u64,
}

/// What became of one probe, as detectors need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// When it was sent, or was to be.
    pub sent: Monotonic,
    /// How it ended.
    pub status: Status,
    /// Its payload in units of eight bytes, see [`Probe::eighths_of`].
    pub eighths: u8,
    /// Whether it fell into a load test or train of our own: counts for bufferbloat only.
    pub in_test: bool,
    /// Whether it is lost and one of both ends may have dropped it itself: it counts for nothing.
    pub dropped: bool,
    /// TTL or hop limit of the request at the far end.
    pub ttl_up: Option<u8>,
    /// TTL or hop limit of the reply here.
    pub ttl_down: Option<u8>,
    /// Round-trip time, ns, at most 4.2 s.
    pub rtt_ns: Option<u32>,
    /// Delay above the floor upward, ns, at most 4.2 s.
    pub queue_up_ns: Option<u32>,
    /// Likewise downward.
    pub queue_down_ns: Option<u32>,
    /// See [`Sample::raw_up_ns`].
    pub raw_up_ns: Option<i64>,
    /// See [`Sample::raw_down_ns`].
    pub raw_down_ns: Option<i64>,
}

impl Probe {
    /// What `sample` says; queueing delays and tests are known elsewhere.
    #[must_use]
    pub fn of(sample: &Sample) -> Self {
        Self {
            sent: sample.sent,
            status: sample.status,
            eighths: Self::eighths_of(sample.size),
            in_test: false,
            dropped: sample.may_be_dropped(),
            ttl_up: sample.ttl_up,
            ttl_down: sample.ttl_down,
            rtt_ns: sample.rtt_ns.map(clipped),
            queue_up_ns: None,
            queue_down_ns: None,
            raw_up_ns: sample.raw_up_ns,
            raw_down_ns: sample.raw_down_ns,
        }
    }

    /// Bytes as `eighths` holds them: in units of eight, rounded up, 255 at most.
    #[must_use]
    pub const fn eighths_of(bytes: u16) -> u8 {
        let eighths = bytes.div_ceil(8);
        if eighths > 255 { 255 } else { eighths as u8 }
    }

    /// Bytes of its payload, rounded up to eight.
    pub(crate) const fn size(&self) -> u16 {
        8 * self.eighths as u16
    }

    /// The way that it waited, where that is known.
    pub(crate) fn way(&self) -> Option<Direction> {
        let (up, down) = self.queue_up_ns.zip(self.queue_down_ns)?;
        Direction::of_weights(up.into(), down.into())
    }

    pub(crate) const fn answered(&self) -> bool {
        self.status.is_answered()
    }
}

/// A duration that fits 32 bits of nanoseconds, or the largest.
#[must_use]
pub fn clipped(ns: u64) -> u32 {
    u32::try_from(ns).unwrap_or(u32::MAX)
}

/// What an hour before this run was like while nothing loaded the line, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastHour {
    /// Hours since a local midnight, of the clock that [`super::Watch::handle_local_time`] tells of.
    pub local_hour: u64,
    /// Round-trip time of most probes, ns.
    pub rtt_ns: u32,
    /// Delay above the floor upward and downward, ns; 0 where it is not known.
    pub queues_ns: (u32, u32),
    /// Whether it is known that the line was idle.
    pub idle: bool,
    /// How many were answered.
    pub probes: u32,
}

/// What an interface carried over the second before, bit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Upward.
    pub up_bps: u64,
    /// Downward.
    pub down_bps: u64,
}

/// Which ways of a line carry much for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadedWays {
    /// Upward.
    pub up: bool,
    /// Downward.
    pub down: bool,
}

impl LoadedWays {
    /// Whether either does.
    #[must_use]
    pub const fn any(self) -> bool {
        self.up || self.down
    }

    /// Whether load may be why something happens in a direction: what one way carries says nothing of the queue before
    /// the other. Where the direction is not known, or is both, either may be.
    #[must_use]
    pub const fn explain(self, direction: Option<Direction>) -> bool {
        match direction {
            Some(Direction::Up) => self.up,
            Some(Direction::Down) => self.down,
            Some(Direction::Both) | None => self.any(),
        }
    }
}

/// How much a line was found to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// When.
    pub at: Monotonic,
    /// Whether upward.
    pub up: bool,
    /// Bit/s: of a packet train its burst rate, else the sustained rate.
    pub rate_bps: u64,
    /// Whether a packet train says so. What trains say is held against trains only: behind a token
    /// bucket they are faster than what the line carries in the long run.
    pub by_train: bool,
    /// What others carried the same way meanwhile, bit/s; 0 where there was nothing, or nobody knows. Where more than
    /// an eighth of `rate_bps` was theirs, it says that the line carries less only if both together are low.
    pub others_bps: u64,
    /// Where it says that the line carries less, that holds for so long unless another one says
    /// otherwise, ns.
    pub speaks_for_ns: u64,
}

impl Capacity {
    /// What traffic or a packet train shows speaks for so long: where nothing has shown it again for a
    /// quarter of an hour, nobody knows whether the line still carries less. ns.
    pub const MOMENT_NS: u64 = 900_000_000_000;
}

/// From where on something is told. The defaults are those of the documentation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// `latency_spike`: RTT above this times its baseline.
    pub spike_factor: f64,
    /// And this much above it, ns.
    pub spike_ns: u64,
    /// For this long, ns.
    pub spike_for_ns: u64,
    /// `high_jitter` (warning): 95th percentile of IPDV, ns.
    pub jitter_ns: u64,
    /// The same for critical.
    pub jitter_critical_ns: u64,
    /// Over this long, ns: what lasts shorter has to be as much of all of it.
    pub jitter_over_ns: u64,
    /// `packet_loss` (warning): share.
    pub loss: f64,
    /// The same for critical.
    pub loss_critical: f64,
    /// Over this long, ns, likewise.
    pub loss_over_ns: u64,
    /// `loss_burst` (warning): losses in a row.
    pub burst: u32,
    /// The same for critical.
    pub burst_critical: u32,
    /// `micro_outage`: at least this long, ns.
    pub micro_outage_ns: u64,
    /// `outage`: at least this long, ns.
    pub outage_ns: u64,
    /// `bufferbloat` (warning): above the idle RTT, ns.
    pub bloat_ns: u64,
    /// The same for critical.
    pub bloat_critical_ns: u64,
    /// Two series must differ for this long, ns.
    pub differ_for_ns: u64,
    /// Capacity below this share of its baseline (warning).
    pub capacity: f64,
    /// The same for critical.
    pub capacity_critical: f64,
    /// Capacity must be low for this long, ns.
    pub capacity_for_ns: u64,
    /// Below this share of its baseline, a shorter time is enough.
    pub capacity_deep: f64,
    /// Capacity must be that low for this long, ns.
    pub capacity_deep_for_ns: u64,
    /// `peak_hour_congestion`: days in a row.
    pub peak_days: u8,
    /// The local hours that may be busy: the first, after the night's, and the one after the last, at most 24.
    pub peak_hours: (u8, u8),
    /// The same trouble within this is the same event, ns.
    pub hold_down_ns: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        const MS: u64 = 1_000_000;
        const S: u64 = 1000 * MS;
        Self {
            spike_factor: 3.0,
            spike_ns: 20 * MS,
            spike_for_ns: 5 * S,
            jitter_ns: 10 * MS,
            jitter_critical_ns: 30 * MS,
            jitter_over_ns: 10 * S,
            loss: 0.01,
            loss_critical: 0.02,
            loss_over_ns: 60 * S,
            burst: 3,
            burst_critical: 5,
            micro_outage_ns: 200 * MS,
            outage_ns: 10 * S,
            bloat_ns: 100 * MS,
            bloat_critical_ns: 500 * MS,
            differ_for_ns: 60 * S,
            capacity: 0.8,
            capacity_critical: 0.5,
            capacity_for_ns: 30 * S,
            capacity_deep: 0.65,
            capacity_deep_for_ns: 6 * S,
            peak_days: 3,
            peak_hours: (17, 24),
            hold_down_ns: 300 * S,
        }
    }
}
