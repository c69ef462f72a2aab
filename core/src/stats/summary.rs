//! Everything that is said of one series over one stretch of time. A rollup row is one of these.

use crate::clock::Queueing;
use crate::sample::{Flags, Sample, Status};
use crate::stats::failures::Failures;
use crate::stats::histogram::Histogram;
use crate::stats::jitter::{Rfc3550, ipdv_ns};
use crate::stats::loss_runs::LossRuns;
use crate::stats::moments::Moments;
use crate::time::{ClockSource, Monotonic};
use crate::varint::{Reader, Writer};

/// Version of the bytes that [`Summary::encode`] writes. Version 1 ends before the queueing
/// delays, version 2 before the reordered on the way up, version 3 before the smoothed jitter, version
/// 4 before the failures.
const FORMAT: u8 = 5;

/// Largest size of an encoded [`Summary`], bytes: four histograms with every bucket in use.
pub const MAX_ENCODED: usize = 4 * crate::stats::histogram::BUCKETS * 7 + 1280;

/// How often each clock took a stamp, by [`ClockSource`] number; 0 is "no stamp".
pub type ClockCounts = [u64; 4];

/// An answered probe at the edge of a stretch, so that IPDV can be taken across the border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    seq: u64,
    rtt_ns: u64,
}

/// A field of headers as it arrived: the first and the last value of a stretch, and how often it was
/// another than in the probe before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The first value.
    pub first: Option<u8>,
    /// The last one.
    pub last: Option<u8>,
    /// Changes between neighbouring answers that have a value.
    pub changes: u64,
}

impl Seen {
    const NOTHING: Self = Self {
        first: None,
        last: None,
        changes: 0,
    };

    fn add(&mut self, value: Option<u8>) {
        self.merge(&Self {
            first: value,
            last: value,
            changes: 0,
        });
    }

    fn merge(&mut self, later: &Self) {
        if let (Some(a), Some(b)) = (self.last, later.first) {
            self.changes = self.changes.saturating_add(u64::from(a != b));
        }
        self.changes = self.changes.saturating_add(later.changes);
        self.first = self.first.or(later.first);
        self.last = later.last.or(self.last);
    }

    fn encode(&self, w: &mut Writer<'_>) {
        for value in [self.first, self.last] {
            w.unsigned(value.map_or(0, |v| u64::from(v) + 1));
        }
        w.unsigned(self.changes);
    }

    fn decode(r: &mut Reader<'_>) -> Option<Self> {
        let mut value = || match r.unsigned()? {
            0 => Some(None),
            v => u8::try_from(v - 1).ok().map(Some),
        };
        Some(Self {
            first: value()?,
            last: value()?,
            changes: r.unsigned()?,
        })
    }
}

/// Counts, distributions and runs of one series. Fields are public to read; [`Summary::add`] and
/// [`Summary::merge`] keep them consistent.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Probes that were sent: answered, late or lost.
    pub sent: u64,
    /// Of these, answered, late ones included.
    pub received: u64,
    /// Of these, lost in whichever direction.
    pub lost: u64,
    /// Of the lost, those the far end never received.
    pub lost_up: u64,
    /// Of the lost, those the far end received.
    pub lost_down: u64,
    /// Of the answered, those after the time-out.
    pub late: u64,
    /// Further copies of replies.
    pub duplicated: u64,
    /// Of the answered, those overtaken by the reply to a later probe.
    pub reordered: u64,
    /// Of these, those overtaken on the way up.
    pub reordered_up: u64,
    /// Probes that were never sent; not in `sent`.
    pub unsent: u64,
    /// Of the answered, those whose answer is a failure, by reason.
    pub failures: Failures,
    /// Of the sent, those that left after their slot.
    pub sent_late: u64,
    /// When the first probe of the stretch was sent or should have been.
    pub first: Option<Monotonic>,
    /// When the last one was.
    pub last: Option<Monotonic>,
    /// Round-trip times of answered probes, ns.
    pub rtt: Histogram,
    /// Their mean and variance.
    pub rtt_moments: Moments,
    /// Absolute IPDV (RFC 3393) of round-trip times of neighbouring answered probes, ns.
    pub ipdv: Histogram,
    /// Smoothed jitter (RFC 3550) of the round-trip times of each answered probe and the answered one
    /// before it, over losses too, as the RFC has it. `None` in what was written before there was any.
    pub jitter: Option<Rfc3550>,
    /// Queueing delay upward of the answered probes of which it is known, ns: see
    /// [`Summary::add_queueing`].
    pub queue_up: Histogram,
    /// Likewise downward.
    pub queue_down: Histogram,
    /// TOS or traffic class of requests as the far end received them.
    pub tos_seen: Seen,
    /// TTL or hop limit of requests as the far end received them.
    pub ttl_up: Seen,
    /// TTL or hop limit of replies as we received them.
    pub ttl_down: Seen,
    /// Smallest difference of clocks upward, ns.
    pub raw_up_min_ns: Option<i64>,
    /// Smallest difference of clocks downward, ns.
    pub raw_down_min_ns: Option<i64>,
    /// Runs of losses.
    pub runs: LossRuns,
    /// Who stamped requests as they left.
    pub tx_clocks: ClockCounts,
    /// Who stamped replies as they came.
    pub rx_clocks: ClockCounts,
    /// Who stamped requests at the far end.
    pub remote_rx_clocks: ClockCounts,
    /// Who stamped replies at the far end.
    pub remote_tx_clocks: ClockCounts,
    head: Option<Edge>,
    tail: Option<Edge>,
}

impl Default for Summary {
    fn default() -> Self {
        Self::new()
    }
}

impl Summary {
    /// Nothing at all.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sent: 0,
            received: 0,
            lost: 0,
            lost_up: 0,
            lost_down: 0,
            late: 0,
            duplicated: 0,
            reordered: 0,
            reordered_up: 0,
            unsent: 0,
            failures: Failures::new(),
            sent_late: 0,
            first: None,
            last: None,
            rtt: Histogram::new(),
            rtt_moments: Moments::new(),
            ipdv: Histogram::new(),
            jitter: Some(Rfc3550::new()),
            queue_up: Histogram::new(),
            queue_down: Histogram::new(),
            tos_seen: Seen::NOTHING,
            ttl_up: Seen::NOTHING,
            ttl_down: Seen::NOTHING,
            raw_up_min_ns: None,
            raw_down_min_ns: None,
            runs: LossRuns::new(),
            tx_clocks: [0; 4],
            rx_clocks: [0; 4],
            remote_rx_clocks: [0; 4],
            remote_tx_clocks: [0; 4],
            head: None,
            tail: None,
        }
    }

    /// Whether there is nothing in it: no probe was even tried.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sent == 0 && self.unsent == 0 && self.duplicated == 0
    }

    /// The next sample of the series. Samples come in the order of their numbers; duplicates anywhere.
    pub fn add(&mut self, sample: &Sample) {
        if sample.status == Status::Duplicate {
            self.duplicated += 1;
            return;
        }
        self.first = Some(self.first.map_or(sample.sent, |f| f.min(sample.sent)));
        self.last = Some(self.last.map_or(sample.sent, |l| l.max(sample.sent)));
        if sample.status == Status::Unsent {
            self.unsent += 1;
            return;
        }
        self.sent += 1;
        self.sent_late += u64::from(sample.flags.contains(Flags::SENT_LATE));
        self.tx_clocks[sample.tx_clock as usize] += 1;
        if sample.status.is_lost() {
            self.lost += 1;
            self.lost_up += u64::from(sample.status == Status::LostUp);
            self.lost_down += u64::from(sample.status == Status::LostDown);
            self.runs.lost(sample.sent);
            return;
        }
        self.received += 1;
        self.late += u64::from(sample.status == Status::Late);
        if let Some(failure) = sample.failure() {
            self.failures.add(failure, 1);
        }
        self.reordered += u64::from(sample.flags.contains(Flags::REORDERED));
        self.reordered_up += u64::from(sample.flags.contains(Flags::REORDERED_UP));
        self.runs.answered();
        self.rx_clocks[sample.rx_clock as usize] += 1;
        self.remote_rx_clocks[sample.remote_rx_clock as usize] += 1;
        self.remote_tx_clocks[sample.remote_tx_clock as usize] += 1;
        self.tos_seen.add(sample.tos_seen);
        self.ttl_up.add(sample.ttl_up);
        self.ttl_down.add(sample.ttl_down);
        self.raw_up_min_ns = min_of(self.raw_up_min_ns, sample.raw_up_ns);
        self.raw_down_min_ns = min_of(self.raw_down_min_ns, sample.raw_down_ns);
        let Some(rtt_ns) = sample.rtt_ns else { return };
        self.rtt.add(rtt_ns);
        self.rtt_moments.add(rtt_ns as f64);
        let edge = Edge {
            seq: sample.seq,
            rtt_ns,
        };
        if let Some(tail) = self.tail {
            self.follow(tail, edge);
        }
        self.jitter.get_or_insert_default();
        self.head = self.head.or(Some(edge));
        self.tail = Some(edge);
    }

    /// Queueing delay of a sample that was added; duplicates have none of their own. Short delays are
    /// rounded, so that rows stay short: to 16 µs, from 128 µs on to a sixteenth of an octave (3 %);
    /// from 8 ms on not beyond what the histogram does.
    pub fn add_queueing(&mut self, sample: &Sample, queueing: &Queueing) {
        if matches!(sample.status, Status::Ok | Status::Late) {
            self.queue_up.add(coarse_ns(queueing.up_ns));
            self.queue_down.add(coarse_ns(queueing.down_ns));
        }
    }

    /// A loss that was added became known to be `status`, lost in one direction.
    pub fn revise_direction(&mut self, status: Status) {
        match status {
            Status::LostUp => self.lost_up += 1,
            Status::LostDown => self.lost_down += 1,
            _ => {}
        }
    }

    /// Appends a stretch of the same series that follows this one.
    pub fn merge(&mut self, later: &Self) {
        // Rows that are damaged may say any number.
        for (a, b) in [
            (&mut self.sent, later.sent),
            (&mut self.received, later.received),
            (&mut self.lost, later.lost),
            (&mut self.lost_up, later.lost_up),
            (&mut self.lost_down, later.lost_down),
            (&mut self.late, later.late),
            (&mut self.duplicated, later.duplicated),
            (&mut self.reordered, later.reordered),
            (&mut self.reordered_up, later.reordered_up),
            (&mut self.unsent, later.unsent),
            (&mut self.sent_late, later.sent_late),
        ] {
            *a = a.saturating_add(b);
        }
        self.failures.merge(&later.failures);
        self.first = match (self.first, later.first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.last = self.last.max(later.last);
        self.rtt.merge(&later.rtt);
        self.rtt_moments.merge(&later.rtt_moments);
        self.ipdv.merge(&later.ipdv);
        self.queue_up.merge(&later.queue_up);
        self.queue_down.merge(&later.queue_down);
        self.tos_seen.merge(&later.tos_seen);
        self.ttl_up.merge(&later.ttl_up);
        self.ttl_down.merge(&later.ttl_down);
        self.raw_up_min_ns = min_of(self.raw_up_min_ns, later.raw_up_min_ns);
        self.raw_down_min_ns = min_of(self.raw_down_min_ns, later.raw_down_min_ns);
        self.runs.merge(&later.runs);
        for (a, b) in [
            (&mut self.tx_clocks, &later.tx_clocks),
            (&mut self.rx_clocks, &later.rx_clocks),
            (&mut self.remote_rx_clocks, &later.remote_rx_clocks),
            (&mut self.remote_tx_clocks, &later.remote_tx_clocks),
        ] {
            a.iter_mut()
                .zip(b)
                .for_each(|(a, b)| *a = a.saturating_add(*b));
        }
        if let Some(head) = later.head {
            if let Some(tail) = self.tail {
                self.follow(tail, head);
            }
            // What does not know its jitter is old, and so comes first: it is left out.
            match (&mut self.jitter, &later.jitter) {
                (Some(all), Some(part)) => all.merge(part),
                (Some(_), None) if self.head.is_some() => {}
                (all, part) => *all = *part,
            }
        }
        self.head = self.head.or(later.head);
        self.tail = later.tail.or(self.tail);
    }

    /// An answered probe and the answered one before it. IPDV is only defined between a probe and
    /// the very next one.
    fn follow(&mut self, before: Edge, this: Edge) {
        let ipdv_ns = ipdv_ns(before.rtt_ns, this.rtt_ns);
        if before.seq.checked_add(1) == Some(this.seq) {
            self.ipdv.add(ipdv_ns.unsigned_abs());
        }
        if let Some(jitter) = &mut self.jitter {
            jitter.add(ipdv_ns);
        }
    }

    /// Writes it into `out`, which [`MAX_ENCODED`] bytes always suffice for. Gives its length;
    /// `None` where `out` is too small.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        w.u8(FORMAT);
        for n in [
            self.sent,
            self.received,
            self.lost,
            self.lost_up,
            self.lost_down,
            self.late,
            self.duplicated,
            self.reordered,
            self.unsent,
            self.sent_late,
        ] {
            w.unsigned(n);
        }
        for clocks in [
            &self.tx_clocks,
            &self.rx_clocks,
            &self.remote_rx_clocks,
            &self.remote_tx_clocks,
        ] {
            clocks.iter().for_each(|n| w.unsigned(*n));
        }
        // Each optional group announces itself by one bit.
        let present = u8::from(self.first.is_some())
            | u8::from(self.raw_up_min_ns.is_some()) << 1
            | u8::from(self.raw_down_min_ns.is_some()) << 2
            | u8::from(self.head.is_some()) << 3
            | u8::from(self.jitter.is_some()) << 4;
        w.u8(present);
        if let (Some(first), Some(last)) = (self.first, self.last) {
            w.unsigned(first.as_nanos());
            w.unsigned(last.saturating_since(first));
        }
        if let Some(ns) = self.raw_up_min_ns {
            w.signed(ns);
        }
        if let Some(ns) = self.raw_down_min_ns {
            w.signed(ns);
        }
        if let (Some(head), Some(tail)) = (self.head, self.tail) {
            for edge in [head, tail] {
                w.unsigned(edge.seq);
                w.unsigned(edge.rtt_ns);
            }
        }
        self.runs.encode(&mut w);
        self.rtt_moments.encode(&mut w);
        self.rtt.encode(&mut w);
        self.ipdv.encode(&mut w);
        self.queue_up.encode(&mut w);
        self.queue_down.encode(&mut w);
        for seen in [&self.tos_seen, &self.ttl_up, &self.ttl_down] {
            seen.encode(&mut w);
        }
        w.unsigned(self.reordered_up);
        if let Some(jitter) = &self.jitter {
            jitter.encode(&mut w);
        }
        self.failures.encode(&mut w);
        w.finish()
    }

    /// Reads what [`Summary::encode`] wrote, in this or an earlier version; `None` where the bytes
    /// are not such a thing.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let format = r.u8()?;
        if !(1..=FORMAT).contains(&format) {
            return None;
        }
        let mut s = Self::new();
        for n in [
            &mut s.sent,
            &mut s.received,
            &mut s.lost,
            &mut s.lost_up,
            &mut s.lost_down,
            &mut s.late,
            &mut s.duplicated,
            &mut s.reordered,
            &mut s.unsent,
            &mut s.sent_late,
        ] {
            *n = r.unsigned()?;
        }
        for clocks in [
            &mut s.tx_clocks,
            &mut s.rx_clocks,
            &mut s.remote_rx_clocks,
            &mut s.remote_tx_clocks,
        ] {
            for n in clocks {
                *n = r.unsigned()?;
            }
        }
        let present = r.u8()?;
        if present & 1 != 0 {
            let first = Monotonic::from_nanos(r.unsigned()?);
            s.first = Some(first);
            s.last = Some(first.saturating_add(r.unsigned()?));
        }
        if present & 2 != 0 {
            s.raw_up_min_ns = Some(r.signed()?);
        }
        if present & 4 != 0 {
            s.raw_down_min_ns = Some(r.signed()?);
        }
        if present & 8 != 0 {
            let mut edge = || {
                Some(Edge {
                    seq: r.unsigned()?,
                    rtt_ns: r.unsigned()?,
                })
            };
            s.head = Some(edge()?);
            s.tail = Some(edge()?);
        }
        s.runs = LossRuns::decode(&mut r)?;
        s.rtt_moments = Moments::decode(&mut r)?;
        s.rtt = Histogram::decode(&mut r)?;
        s.ipdv = Histogram::decode(&mut r)?;
        if format >= 2 {
            s.queue_up = Histogram::decode(&mut r)?;
            s.queue_down = Histogram::decode(&mut r)?;
            for seen in [&mut s.tos_seen, &mut s.ttl_up, &mut s.ttl_down] {
                *seen = Seen::decode(&mut r)?;
            }
        }
        if format >= 3 {
            s.reordered_up = r.unsigned()?;
        }
        if format >= 4 && present & 16 != 0 {
            s.jitter = Some(Rfc3550::decode(&mut r)?);
        } else if s.head.is_some() {
            s.jitter = None;
        }
        if format >= 5 {
            s.failures = Failures::decode(&mut r)?;
        }
        r.rest().is_empty().then_some(s)
    }

    /// The share of stamps in `counts` that the kernel or the NIC took, 0 to 1.
    #[must_use]
    pub fn kernel_share(counts: &ClockCounts) -> Option<f64> {
        let all: u64 = counts.iter().sum();
        let good = counts[ClockSource::Kernel as usize] + counts[ClockSource::Nic as usize];
        (all > 0).then(|| good as f64 / all as f64)
    }
}

/// See [`Summary::add_queueing`].
const fn coarse_ns(ns: u64) -> u64 {
    const STEP_LOG2: u32 = 14;
    const FINE_FROM_LOG2: u32 = 23;
    if ns >> FINE_FROM_LOG2 > 0 {
        return ns;
    }
    let octave = 63 - (ns | 1).leading_zeros();
    let step_log2 = if octave < STEP_LOG2 + 3 {
        STEP_LOG2
    } else {
        octave - 4
    };
    (ns + (1 << step_log2 >> 1)) >> step_log2 << step_log2
}

fn min_of(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
