//! The report as data: the JSON contract `bufferbane.report/1`.
//!
//! Every key is there always; `null` or an empty list says that it is not known or was not measured,
//! never that it is zero. Times are RFC 3339 in UTC with nanoseconds, `_ns` are integers.

use std::collections::BTreeMap;

use bufferbane_store::SeriesKind;
use serde::Serialize;
use serde_json::{Map, Value};

use super::cable::Cable;
use super::compare::Change;
use super::echoes::CloseLook;
use super::outages::Outages;
use super::paths::{KnownWay, Seen};
use super::sizes::PathMtu;
use super::trains::Train;
use crate::loads::{Bufferbloat, Throughput};

/// The name of this format.
pub(crate) const SCHEMA: &str = "bufferbane.report/1";

/// One report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// [`SCHEMA`].
    pub(crate) schema: &'static str,
    /// When it was made.
    pub(crate) generated: Time,
    /// What it covers.
    pub(crate) from: Time,
    /// Its end, exclusive.
    pub(crate) to: Time,
    /// The host that measured.
    pub(crate) host: String,
    /// What is judged of it.
    pub(crate) verdicts: Vec<Verdict>,
    /// Each series with data in the range.
    pub(crate) series: Vec<Series>,
    /// Throughput tests.
    pub(crate) throughput: Vec<Throughput>,
    /// Tests of latency under load.
    pub(crate) bufferbloat: Vec<Bufferbloat>,
    /// How well the daemon itself did.
    pub(crate) health: Health,
    /// Reflectors' clocks.
    pub(crate) clock: Vec<Clock>,
    /// Load of interfaces.
    pub(crate) load: Vec<Value>,
    /// Capacity of the line.
    pub(crate) capacity: Vec<Value>,
    /// What is known of a cable line.
    pub(crate) cable: Option<Cable>,
    /// What load, or the worst of the time, does to latency, by interface and direction.
    pub(crate) grades: Vec<Grade>,
    /// When nothing answered, by interface and day.
    pub(crate) outages: Vec<Outages>,
    /// What changed from one range to another, where that was asked for.
    pub(crate) compared: Vec<Compared>,
    /// The ways to targets, hop by hop.
    pub(crate) paths: Vec<KnownWay>,
    /// The largest packets that pass on them.
    pub(crate) path_mtu: Vec<PathMtu>,
    /// What happened.
    pub(crate) events: Vec<Event>,
}

/// What is at fault.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// One of the documented words, such as `access_loss`.
    pub(crate) cause: &'static str,
    /// The interface it was seen through; empty where it is none in particular.
    pub(crate) interface: String,
    /// Which way.
    pub(crate) direction: Option<bufferbane_store::Direction>,
    /// How sure, 0 to 1.
    pub(crate) confidence: f64,
    /// When the first of the events began that speak for it.
    pub(crate) since: Time,
    /// When the last of them ended.
    pub(crate) until: Time,
    /// A sentence for people.
    pub(crate) text: String,
    /// What speaks for it.
    pub(crate) evidence: Vec<String>,
}

/// A grade of one direction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Grade {
    /// The interface.
    pub(crate) interface: String,
    /// `up`, `down` or `both`.
    pub(crate) direction: &'static str,
    /// A+ to F.
    pub(crate) grade: &'static str,
    /// The delay that it is for.
    pub(crate) increase_ns: u64,
    /// Where that is from: `test` under load, `queue` of ordinary probes, `round_trip` of these.
    pub(crate) method: &'static str,
}

/// Two ranges against each other.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    /// Begin and end of the first.
    pub(crate) before: [Time; 2],
    /// Of the second.
    pub(crate) after: [Time; 2],
    /// Length of the blocks that were compared.
    pub(crate) block_ns: u64,
    /// How.
    pub(crate) method: &'static str,
    /// What came out.
    pub(crate) changes: Vec<Change>,
}

/// A time; written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) i64);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&crate::when::rfc3339(self.0))
    }
}

/// One series over the range.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    /// The interface it left through.
    pub(crate) interface: String,
    /// `wired`, `wifi`, and so on.
    pub(crate) interface_kind: String,
    /// The target's or reflector's name.
    pub(crate) target: String,
    /// How it was probed.
    pub(crate) kind: &'static str,
    /// Whether a service was asked: its time and its failures are not the line's alone. `kind` says it
    /// too.
    #[serde(skip)]
    pub(crate) of_service: bool,
    /// Length of a slot.
    pub(crate) interval_ns: u64,
    /// Probes sent.
    pub(crate) sent: u64,
    /// Of these answered, late ones included.
    pub(crate) received: u64,
    /// Of the answered, those whose answer is a failure, by reason; only services that are asked have
    /// such.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Of these lost.
    pub(crate) lost: u64,
    /// Of the lost, those lost on the way there; `None` where this kind of probe cannot tell.
    pub(crate) lost_up: Option<u64>,
    /// Of the lost, those lost on the way back; likewise.
    pub(crate) lost_down: Option<u64>,
    /// Of the answered, those after the time-out.
    pub(crate) late: u64,
    /// Further copies of replies.
    pub(crate) duplicated: u64,
    /// Of the answered, those overtaken by a later probe's reply.
    pub(crate) reordered: u64,
    /// Of these, those overtaken on the way up; `None` where this kind of probe cannot tell.
    pub(crate) reordered_up: Option<u64>,
    /// Probes that could not be sent; not in `sent`.
    pub(crate) unsent: u64,
    /// 4 or 6.
    pub(crate) family: u8,
    /// DSCP of the probes.
    pub(crate) dscp: u8,
    /// Bytes of payload; 0 where sizes are mixed.
    pub(crate) size: u16,
    /// Round-trip times.
    pub(crate) rtt_ns: Spread,
    /// Absolute IPDV of neighbouring round-trip times.
    pub(crate) ipdv_ns: Spread,
    /// Smoothed jitter of round-trip times (RFC 3550).
    pub(crate) jitter_ns: Jitter,
    /// Queueing delay upward.
    pub(crate) queue_up_ns: Option<Spread>,
    /// Queueing delay downward.
    pub(crate) queue_down_ns: Option<Spread>,
    /// DSCP of the probes as the far end received them last; `None` where it does not tell.
    pub(crate) dscp_seen: Option<u8>,
    /// ECN field likewise.
    pub(crate) ecn_seen: Option<u8>,
    /// How often DSCP or ECN arrived otherwise than in the probe before.
    pub(crate) dscp_changes: u64,
    /// TTL or hop limit of the probes as the far end received them last.
    pub(crate) ttl_up: Option<u8>,
    /// TTL or hop limit of its replies as they arrived last.
    pub(crate) ttl_down: Option<u8>,
    /// How often either was another than in the probe before: the packets took another way.
    pub(crate) ttl_changes: u64,
    /// Who took the time stamps.
    pub(crate) timestamps: Timestamps,
    /// Losses in a row.
    pub(crate) loss_runs: LossRuns,
    /// Stretches without any sample.
    pub(crate) gaps: Vec<Gap>,
}

impl Series {
    /// What it is called where only the direction of its traffic tells it apart: `eth0 → vienna`.
    pub(crate) fn name(&self) -> String {
        crate::show::clean(&format!("{} → {}", self.interface, self.target))
    }

    /// The same where a target is probed in more than one way: `eth0 → vienna (udp4)`.
    pub(crate) fn full_name(&self) -> String {
        format!("{} ({}{})", self.name(), self.kind, self.family)
    }

    /// How it was probed: `udp4, 128 B every 50 ms`.
    pub(crate) fn probing(&self) -> String {
        let size = match self.size {
            0 if self.kind == SeriesKind::Tcp.as_str() => "a connection".to_owned(),
            0 if self.kind == SeriesKind::Tls.as_str() => "a handshake".to_owned(),
            0 => "mixed sizes".to_owned(),
            n => crate::show::bytes(u64::from(n)),
        };
        let dscp = match self.dscp {
            0 => String::new(),
            d => format!(", DSCP {d}"),
        };
        format!(
            "{}{}, {size} every {}{dscp}",
            self.kind,
            self.family,
            crate::show::stretch(self.interval_ns)
        )
    }
}

/// A distribution, ns; exact at its ends, within 1 % between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Spread {
    /// The smallest.
    pub(crate) min: Option<u64>,
    /// The median.
    pub(crate) p50: Option<u64>,
    /// 90 % are at most this.
    pub(crate) p90: Option<u64>,
    /// 95 %.
    pub(crate) p95: Option<u64>,
    /// 99 %.
    pub(crate) p99: Option<u64>,
    /// 99.9 %.
    pub(crate) p999: Option<u64>,
    /// The largest.
    pub(crate) max: Option<u64>,
    /// The mean.
    pub(crate) mean: Option<u64>,
    /// The standard deviation.
    pub(crate) stddev: Option<u64>,
}

/// Smoothed jitter, ns: see docs/store.md. `None` where no two probes were answered, and in ranges
/// that were recorded before there was any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Jitter {
    /// The mean of its values after each answer.
    pub(crate) mean: Option<u64>,
    /// Its value after the last answer.
    pub(crate) last: Option<u64>,
}

/// A far end's clock against ours. Queueing delay needs neither of the two to be right.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Clock {
    /// The interface it is probed through.
    pub(crate) interface: String,
    /// Its name.
    pub(crate) reflector: String,
    /// How fast it gains on ours, in the end.
    pub(crate) skew_ppm: f64,
    /// How well the floors of both directions are known, 0 to 1: see docs/store.md.
    pub(crate) quality: f64,
    /// How far they may be off.
    pub(crate) err_ns: u64,
    /// When it was set, or restarted.
    pub(crate) steps: Vec<Time>,
}

/// How often whose clock took a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Timestamps {
    /// Of requests as they left.
    pub(crate) tx: Stamps,
    /// Of replies as they came.
    pub(crate) rx: Stamps,
    /// Of requests at the far end.
    pub(crate) remote_rx: Stamps,
    /// Of replies at the far end.
    pub(crate) remote_tx: Stamps,
}

/// Counts by clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Stamps {
    /// The network card's.
    pub(crate) nic: u64,
    /// The kernel's.
    pub(crate) kernel: u64,
    /// The program's own.
    pub(crate) user: u64,
    /// No stamp.
    pub(crate) none: u64,
}

/// Losses in a row.
#[derive(Debug, Serialize)]
pub(crate) struct LossRuns {
    /// How many runs.
    pub(crate) count: u64,
    /// Probes in the longest.
    pub(crate) longest: u64,
    /// From the first to the last lost probe of the longest.
    pub(crate) longest_ns: u64,
    /// Runs by length.
    pub(crate) histogram: Vec<RunClass>,
}

/// Runs of some lengths.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RunClass {
    /// From this many losses in a row.
    pub(crate) from: u64,
    /// To this many; `None` where there is no end.
    pub(crate) to: Option<u64>,
    /// How many runs.
    pub(crate) count: u64,
}

/// A stretch without samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Gap {
    /// From the last sample before it, or the report's begin.
    pub(crate) from: Time,
    /// To the first sample after it, or the report's end.
    pub(crate) to: Time,
    /// Its length.
    pub(crate) duration_ns: u64,
}

impl Gap {
    /// The gap between two times.
    pub(crate) const fn new(from_ns: i64, to_ns: i64) -> Self {
        Self {
            from: Time(from_ns),
            to: Time(to_ns),
            duration_ns: to_ns.saturating_sub(from_ns).unsigned_abs(),
        }
    }
}

/// How well the daemon itself did.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    /// How late probes left, over minutes.
    pub(crate) send_late_ns: SendLate,
    /// Samples lost to ourselves; `None` where nothing was recorded about it.
    pub(crate) dropped_samples: Option<u64>,
    /// Datagrams that our sockets dropped.
    pub(crate) socket_drops: Option<u64>,
    /// Slots that passed without a probe because the daemon did not run.
    pub(crate) skipped_slots: Option<u64>,
    /// Probes that were marked as sent late.
    pub(crate) sent_late: Option<u64>,
    /// Datagrams that came without a stamp of the kernel's.
    pub(crate) unstamped: Option<u64>,
    /// CPU time over time, of one core.
    pub(crate) cpu_share: Option<f64>,
    /// Of that, the probe thread's.
    pub(crate) probe_cpu_share: Option<f64>,
    /// Datagrams that reflectors said they had dropped themselves; losses then have no direction.
    pub(crate) reflector_overload: Option<u64>,
    /// Minutes in which this host itself dropped or delayed something: what looks bad there may be
    /// its own doing.
    pub(crate) own_trouble: Vec<Gap>,
    /// Stretches through which nothing at all was recorded.
    pub(crate) gaps: Vec<Gap>,
}

/// How late probes left, by the kernel's transmit stamp.
#[derive(Debug, Default, Serialize)]
pub(crate) struct SendLate {
    /// The median.
    pub(crate) p50: Option<u64>,
    /// The 90th percentile.
    pub(crate) p90: Option<u64>,
    /// The 99th percentile.
    pub(crate) p99: Option<u64>,
    /// The 99.9th percentile.
    pub(crate) p999: Option<u64>,
    /// The worst of all.
    pub(crate) max: Option<u64>,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Event {
    /// Its number in the store.
    pub(crate) id: u64,
    /// Its kind, as documented.
    pub(crate) kind: String,
    /// `info`, `warning` or `critical`.
    pub(crate) severity: bufferbane_store::Severity,
    /// The interface concerned; empty where it is the host.
    pub(crate) interface: String,
    /// The target concerned.
    pub(crate) target: Option<String>,
    /// The direction.
    pub(crate) direction: Option<bufferbane_store::Direction>,
    /// When it began; `None` where that boot's clock was never known.
    pub(crate) start: Option<Time>,
    /// When it ended; `None` while it lasts.
    pub(crate) end: Option<Time>,
    /// Further figures.
    pub(crate) values: Map<String, Value>,
    /// A sentence for people.
    pub(crate) text: String,
    /// What was seen of the way to a target because of it.
    pub(crate) seen: Vec<Seen>,
    /// What packet trains said that were sent because of it.
    pub(crate) trains: Vec<Train>,
    /// What quick echoes found that were sent because of it.
    pub(crate) close_looks: Vec<CloseLook>,
}

impl Event {
    /// How long it lasted; `None` while it lasts, and where its end is not known to be after its begin.
    pub(crate) fn duration_ns(&self) -> Option<u64> {
        let (start, end) = (self.start?, self.end?);
        (end > start).then(|| start.0.abs_diff(end.0))
    }

    /// What makes one event weigh more than another: its severity, then how long it lasted.
    pub(crate) fn weight(&self) -> (bufferbane_store::Severity, u64) {
        let lasted_ns = match self.end {
            None => u64::MAX,
            Some(_) => self.duration_ns().unwrap_or(0),
        };
        (self.severity, lasted_ns)
    }
}
