//! What a host that had no time for all that came in explains of what probes show.
//!
//! Answers are dropped as all that comes in. A probe is not dropped more often than other packets, which come in most when
//! there is no time for them: what seems lost is the host's where so much of it was dropped, and what was late where it
//! dropped something for as long.

use bufferbane_core::detect::Kind;
use bufferbane_core::detect::verdict::{Cause, Judgement};
use bufferbane_store::Direction as Way;
use serde_json::Value;

use super::super::model::{Event, Report};
use super::blame::{GRAIN_NS, end_of, is_of_loss};
use super::{is_outage, kind_of};

/// The kind of its event.
pub(super) const KIND: &str = "host_overloaded";
/// By chance, probes show so many times as much.
const BY_CHANCE: f64 = 2.0;

/// Whether what an event shows may be this host's own doing, as it dropped so much of what came in meanwhile.
pub(super) fn is_its(report: &Report, e: &Event) -> bool {
    report.events.iter().any(|d| explains(report, d, e))
}

/// The events of such drops that explain one of `events`, which were judged to be this host's.
pub(super) fn behind<'a>(report: &'a Report, j: &Judgement, events: &[&Event]) -> Vec<&'a Event> {
    let all = report.events.iter();
    all.filter(|d| j.cause == Cause::ThisHost && events.iter().any(|e| explains(report, d, e)))
        .collect()
}

/// Whether an event says that packets were late, rather than lost.
pub(super) fn is_late(e: &Event) -> bool {
    matches!(kind_of(e), Some(Kind::LatencySpike | Kind::HighJitter))
}

fn explains(report: &Report, d: &Event, e: &Event) -> bool {
    let (Some(from), Some(start)) = (d.start, e.start) else {
        return false;
    };
    let to = end_of(d, report).saturating_add(GRAIN_NS);
    // What comes in is answers: the far end has counted what it got.
    d.kind == KIND
        && e.direction.is_none_or(|way| way == Way::Down)
        && (from.0.saturating_sub(GRAIN_NS)..=to).contains(&start.0)
        && end_of(e, report) <= to
        && is_enough(report, d, e)
}

/// Whether it dropped so much, or for so long, as an event shows.
fn is_enough(report: &Report, d: &Event, e: &Event) -> bool {
    let looked_ns = figure(d, "looked_ns").unwrap_or(0.0);
    let lasted_ns = end_of(e, report).abs_diff(e.start.map_or(0, |t| t.0)) as f64;
    if is_late(e) {
        return lasted_ns <= BY_CHANCE * looked_ns;
    }
    let [dropped, taken] = ["packets", "taken"].map(|n| figure(d, n).unwrap_or(0.0));
    let share = dropped / (dropped + taken).max(1.0);
    is_of_loss(e) && lost_ns(e, lasted_ns) <= BY_CHANCE * share * looked_ns
}

/// For how long as much as an event says was lost would be all that was sent, ns.
fn lost_ns(e: &Event, lasted_ns: f64) -> f64 {
    if is_outage(e) {
        return lasted_ns;
    }
    // Of a burst, the longest run's.
    if let Some(run_ns) = figure(e, "duration_ns") {
        return run_ns;
    }
    let share = figure(e, "at_least").or_else(|| figure(e, "loss"));
    share.unwrap_or(1.0) * figure(e, "within_ns").unwrap_or(lasted_ns)
}

fn figure(e: &Event, name: &str) -> Option<f64> {
    e.values.get(name).and_then(Value::as_f64)
}
