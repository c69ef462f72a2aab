//! How well the daemon itself did.

use bufferbane_core::stats::histogram::Histogram;
use bufferbane_store::{Health as Row, Reader, StoreError};

use super::build::SHORTEST_GAP_NS;
use super::model::{Gap, Health, SendLate, Series};
use crate::when::Range;

/// What the daemon recorded about itself in a range, and the gaps that all of `series` share.
pub(super) fn of(reader: &Reader, range: Range, series: &[Series]) -> Result<Health, StoreError> {
    // Row by row: those of a month with all that they say are tens of megabytes.
    let mut sum: Option<Sum> = None;
    reader.each_health(range.from_ns, range.to_ns, |end_ns, row| {
        sum.get_or_insert_default().add(end_ns, &row);
    })?;
    let total = |of: fn(&Row) -> u64| sum.as_ref().map(|s| of(&s.total));
    let share = |part: Option<u64>| match (part, total(|t| t.wall_ns)) {
        (Some(part), Some(wall)) if wall > 0 => Some(part as f64 / wall as f64),
        _ => None,
    };
    Ok(Health {
        send_late_ns: sum.as_ref().map_or_else(SendLate::default, Sum::send_late),
        dropped_samples: total(|t| t.dropped_samples),
        socket_drops: total(|t| t.socket_drops),
        skipped_slots: total(|t| t.skipped_slots),
        sent_late: total(|t| t.sent_late),
        unstamped: total(|t| t.unstamped),
        cpu_share: share(total(|t| t.cpu_ns)),
        probe_cpu_share: share(total(|t| t.probe_cpu_ns)),
        reflector_overload: total(|t| t.reflector_drops),
        own_trouble: sum.map_or_else(Vec::new, |s| s.trouble),
        gaps: common_gaps(series),
    })
}

/// Minutes added up.
#[derive(Default)]
struct Sum {
    /// Counts; of `send_late_ns` the largest of each.
    total: Row,
    send_late: Histogram,
    /// The minutes in which this host had trouble of its own, neighbours joined.
    trouble: Vec<Gap>,
}

impl Sum {
    fn add(&mut self, end_ns: i64, row: &Row) {
        let t = &mut self.total;
        for (sum, of) in [
            (&mut t.dropped_samples, row.dropped_samples),
            (&mut t.socket_drops, row.socket_drops),
            (&mut t.skipped_slots, row.skipped_slots),
            (&mut t.sent_late, row.sent_late),
            (&mut t.unstamped, row.unstamped),
            (&mut t.cpu_ns, row.cpu_ns),
            (&mut t.probe_cpu_ns, row.probe_cpu_ns),
            (&mut t.reflector_drops, row.reflector_drops),
            (&mut t.wall_ns, row.wall_ns),
        ] {
            *sum = sum.saturating_add(of);
        }
        for (worst, of) in t.send_late_ns.iter_mut().zip(row.send_late_ns) {
            *worst = of.max(*worst);
        }
        // Rows from before it was kept have their three figures only.
        let _ = row.add_send_late_to(&mut self.send_late);
        if row.is_trouble() {
            self.trouble(end_ns.saturating_sub_unsigned(row.wall_ns), end_ns);
        }
    }

    fn trouble(&mut self, begin_ns: i64, end_ns: i64) {
        match self.trouble.last_mut() {
            // A row is written within a second of its minute's end.
            Some(last) if begin_ns.saturating_sub(last.to.0) < 2_000_000_000 => {
                *last = Gap::new(last.from.0, end_ns);
            }
            _ => self.trouble.push(Gap::new(begin_ns, end_ns)),
        }
    }

    /// The lateness of all minutes; where they have only figures, the worst of these.
    fn send_late(&self) -> SendLate {
        let all = &self.send_late;
        if all.count() == 0 {
            let [p50, p99, max] = self.total.send_late_ns.map(Some);
            return SendLate {
                p50,
                p99,
                max,
                ..SendLate::default()
            };
        }
        SendLate {
            p50: all.quantile(0.5),
            p90: all.quantile(0.9),
            p99: all.quantile(0.99),
            p999: all.quantile(0.999),
            max: all.max(),
        }
    }
}

/// The stretches that lie in a gap of every series.
fn common_gaps(series: &[Series]) -> Vec<Gap> {
    let mut common = match series.first() {
        Some(s) => s.gaps.clone(),
        None => return Vec::new(),
    };
    for s in &series[1..] {
        let mut both = Vec::new();
        for a in &common {
            for b in &s.gaps {
                let (from, to) = (a.from.max(b.from), a.to.min(b.to));
                if to.0.saturating_sub(from.0) >= SHORTEST_GAP_NS.cast_signed() {
                    both.push(Gap::new(from.0, to.0));
                }
            }
        }
        common = both;
    }
    common
}
