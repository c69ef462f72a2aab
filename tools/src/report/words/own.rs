//! What is to be known of the measuring itself.

use jiff::tz::TimeZone;

use super::super::model::Report;
use super::{MOST_NAMED, more_times};
use crate::show::{delay, plural, stretch};
use crate::when;

/// What is to be known about the daemon itself.
pub(crate) fn health(report: &Report, zone: &TimeZone) -> Vec<String> {
    let h = &report.health;
    let mut lines = Vec::new();
    if let (Some(p50), Some(p99), Some(max)) =
        (h.send_late_ns.p50, h.send_late_ns.p99, h.send_late_ns.max)
    {
        lines.push(format!(
            "Probes left {} after their time in the middle, {} at the 99th percentile, {} at worst.",
            delay(p50),
            delay(p99),
            delay(max)
        ));
    }
    if let (Some(dropped), Some(drops), Some(skipped)) =
        (h.dropped_samples, h.socket_drops, h.skipped_slots)
    {
        lines.push(if dropped + drops + skipped == 0 {
            "Nothing was lost to the measuring host itself.".into()
        } else {
            format!(
                "Lost to the measuring host itself: {}, {}, {}.",
                plural(dropped, "sample", "samples"),
                plural(drops, "datagram", "datagrams"),
                plural(skipped, "slot without a probe", "slots without a probe")
            )
        });
    }
    if !h.own_trouble.is_empty() {
        let total: u64 = h.own_trouble.iter().map(|t| t.duration_ns).sum();
        let mut named: Vec<String> = h
            .own_trouble
            .iter()
            .take(MOST_NAMED)
            .map(|t| format!("from {}", when::range_label(t.from.0, t.to.0, zone)))
            .collect();
        if h.own_trouble.len() > MOST_NAMED {
            named.push(more_times(h.own_trouble.len() - MOST_NAMED));
        }
        lines.push(format!(
            "For {} this host itself dropped packets or sent probes late, {}: a loss or a gap then \
             may be its own doing and not the line's.",
            stretch(total),
            named.join(", ")
        ));
    }
    if let Some(dropped) = h.reflector_overload.filter(|n| *n > 0) {
        lines.push(format!(
            "Reflectors dropped {} themselves; losses at those times have no direction.",
            plural(dropped, "packet", "packets")
        ));
    }
    if let Some(share) = h.cpu_share {
        let probing = h.probe_cpu_share.filter(|s| *s > 0.0);
        let probing = probing.map_or(String::new(), |s| {
            format!(", {:.2}\u{a0}% of it to send and receive probes", s * 100.0)
        });
        lines.push(format!(
            "The daemon used {:.2}\u{a0}% of one processor core{probing}.",
            share * 100.0
        ));
    }
    if lines.is_empty() {
        lines.push("The daemon recorded nothing about itself in this time.".into());
    }
    lines
}

/// How to read the figures.
pub(crate) const HOW_MEASURED: &str = "Round-trip times do not include the time that a reflector \
held the packet, wherever both of its stamps are known. Percentiles are within 1 % (nearest rank), \
minimum and maximum exact. Jitter is the smoothed one of RFC 3550 (J += (|D| - J) / 16, D from one \
answered probe's round-trip time to the next), the mean of its values. A probe counts as lost when no answer came before the time-out and none \
came later; loss has a direction only where the far end counts what it receives.";
