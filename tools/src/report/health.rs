//! How well the daemon itself did.

use bufferbane_store::{Health as Row, HealthSum, Reader, StoreError};

use super::build::SHORTEST_GAP_NS;
use super::model::{Gap, Health, SendLate, Series};
use crate::when::Range;

/// What the daemon recorded about itself in a range, and the gaps that all of `series` share.
pub(super) fn of(reader: &Reader, range: Range, series: &[Series]) -> Result<Health, StoreError> {
    let sum = reader.health_sum(range.from_ns, range.to_ns)?;
    let total = |of: fn(&Row) -> u64| sum.as_ref().map(|s| of(&s.total));
    let share = |part: Option<u64>| match (part, total(|t| t.wall_ns)) {
        (Some(part), Some(wall)) if wall > 0 => Some(part as f64 / wall as f64),
        _ => None,
    };
    Ok(Health {
        send_late_ns: sum.as_ref().map_or_else(SendLate::default, send_late),
        dropped_samples: total(|t| t.dropped_samples),
        socket_drops: total(|t| t.socket_drops),
        skipped_slots: total(|t| t.skipped_slots),
        sent_late: total(|t| t.sent_late),
        unstamped: total(|t| t.unstamped),
        cpu_share: share(total(|t| t.cpu_ns)),
        probe_cpu_share: share(total(|t| t.probe_cpu_ns)),
        reflector_overload: total(|t| t.reflector_drops),
        own_trouble: sum
            .iter()
            .flat_map(|s| &s.trouble)
            .map(|(from, to)| Gap::new(*from, *to))
            .collect(),
        gaps: common_gaps(series),
    })
}

/// The lateness of all minutes; where they have only figures, the worst of these.
fn send_late(sum: &HealthSum) -> SendLate {
    let all = &sum.send_late;
    if all.count() == 0 {
        let [p50, p99, max] = sum.total.send_late_ns.map(Some);
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
