//! How well the daemon itself did.

use bufferbane_core::stats::histogram::Histogram;
use bufferbane_store::{Reader, StoreError};

use super::build::SHORTEST_GAP_NS;
use super::model::{Gap, Health, SendLate, Series};
use crate::when::Range;

/// What the daemon recorded about itself in a range, and the gaps that all of `series` share.
pub(super) fn of(reader: &Reader, range: Range, series: &[Series]) -> Result<Health, StoreError> {
    let rows = reader.health(range.from_ns, range.to_ns)?;
    let known = !rows.is_empty();
    let sum = |of: fn(&bufferbane_store::Health) -> u64| {
        known.then(|| rows.iter().map(|(_, h)| of(h)).sum::<u64>())
    };
    let share = |part: Option<u64>| match (part, sum(|h| h.wall_ns)) {
        (Some(part), Some(wall)) if wall > 0 => Some(part as f64 / wall as f64),
        _ => None,
    };
    Ok(Health {
        send_late_ns: send_late(&rows),
        dropped_samples: sum(|h| h.dropped_samples),
        socket_drops: sum(|h| h.socket_drops),
        skipped_slots: sum(|h| h.skipped_slots),
        sent_late: sum(|h| h.sent_late),
        unstamped: sum(|h| h.unstamped),
        cpu_share: share(sum(|h| h.cpu_ns)),
        probe_cpu_share: share(sum(|h| h.probe_cpu_ns)),
        reflector_overload: sum(|h| h.reflector_drops),
        own_trouble: own_trouble(&rows),
        gaps: common_gaps(series),
    })
}

/// The minutes' lateness added up; where they have only figures, the worst of these.
fn send_late(rows: &[(i64, bufferbane_store::Health)]) -> SendLate {
    let mut sum = Histogram::new();
    for h in rows.iter().filter_map(|(_, row)| row.send_late()) {
        sum.merge(&h);
    }
    let figure = |which: usize| rows.iter().map(|(_, h)| h.send_late_ns[which]).max();
    if sum.count() == 0 {
        return SendLate {
            p50: figure(0),
            p99: figure(1),
            max: figure(2),
            ..SendLate::default()
        };
    }
    SendLate {
        p50: sum.quantile(0.5),
        p90: sum.quantile(0.9),
        p99: sum.quantile(0.99),
        p999: sum.quantile(0.999),
        max: sum.max(),
    }
}

/// The minutes in which this host had trouble of its own, neighbours joined.
fn own_trouble(rows: &[(i64, bufferbane_store::Health)]) -> Vec<Gap> {
    let mut all: Vec<Gap> = Vec::new();
    for (end_ns, row) in rows.iter().filter(|(_, row)| row.is_trouble()) {
        let begin_ns = end_ns.saturating_sub_unsigned(row.wall_ns);
        match all.last_mut() {
            // A row is written within a second of its minute's end.
            Some(last) if begin_ns.saturating_sub(last.to.0) < 2_000_000_000 => {
                *last = Gap::new(last.from.0, *end_ns);
            }
            _ => all.push(Gap::new(begin_ns, *end_ns)),
        }
    }
    all
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
