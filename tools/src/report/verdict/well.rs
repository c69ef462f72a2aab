//! "Nothing wrong", where what was measured bears it.

use bufferbane_core::detect::verdict::{Cause, Judgement};
use jiff::tz::TimeZone;

use super::super::model::{Event, Report, Series, Verdict};
use super::{overload, shortened, told_of};
use crate::show::{percent, plural, stretch};

/// Less than this is too short to call a line well, ns.
pub(in super::super) const LEAST_NS: u64 = 600_000_000_000;
/// Nor is one well that lost more than this of its probes, whatever the events say.
const LOSS: f64 = 0.01;
/// Probes over less of the range than this share do not speak for all of it.
const WHOLE: f64 = 0.9;

/// The series that say how the line is: what services answer is their own doing too, and where no detector looked,
/// silence says nothing.
fn of_the_line(report: &Report) -> impl Iterator<Item = &Series> {
    let series = report.series.iter();
    series.filter(|s| !s.of_service && !report.events.iter().any(|e| is_unwatched(s, e)))
}

/// Whether an event says that a series was recorded only, and not watched.
fn is_unwatched(s: &Series, e: &Event) -> bool {
    e.kind == "not_watched"
        && !s.of_service
        && e.interface == s.interface
        && e.target.as_deref() == Some(s.target.as_str())
}

/// How much of a report's time probes speak for, ns.
pub(in super::super) fn watched_ns(report: &Report) -> u64 {
    let longest = of_the_line(report)
        .map(|s| s.sent.saturating_mul(s.interval_ns))
        .max();
    let asked_ns = report.to.0.abs_diff(report.from.0);
    longest.unwrap_or(0).min(asked_ns)
}

/// What may be said where nothing was found: of the time that probes speak for, if that is enough.
pub(super) fn nothing_wrong(watched_ns: u64, asked_ns: u64) -> Option<String> {
    if watched_ns < LEAST_NS {
        return None;
    }
    Some(if (watched_ns as f64) < WHOLE * asked_ns as f64 {
        format!(
            "Nothing wrong was found while probes were sent, which is {} of {}; of the rest nothing \
             is known.",
            stretch(watched_ns),
            stretch(asked_ns)
        )
    } else {
        format!("Nothing wrong was found in {}.", stretch(asked_ns))
    })
}

/// "Nothing wrong", where what was measured bears it, and for no longer than that.
pub(super) fn well(report: &Report, j: &Judgement, zone: &TimeZone) -> Option<Verdict> {
    let asked_ns = report.to.0.abs_diff(report.from.0);
    let lossy = |s: &Series| s.lost as f64 > LOSS * s.sent as f64;
    if report.series.iter().any(|s| !s.of_service && lossy(s)) {
        return None;
    }
    let text = nothing_wrong(watched_ns(report), asked_ns)?;
    let unwatched = report
        .series
        .iter()
        .filter(|s| report.events.iter().any(|e| is_unwatched(s, e)));
    let unharmed = report.events.iter().filter(|e| e.kind == overload::KIND);
    let evidence = unwatched
        .map(|s| format!("{} was not watched: nothing is said of it", s.name()))
        .chain(unharmed.map(|e| told_of(e, zone)))
        .chain(of_the_line(report).map(|s| {
            format!(
                "{}: {} of {} lost",
                s.name(),
                percent(s.lost, s.sent),
                plural(s.sent, "probe", "probes")
            )
        }))
        .collect();
    Some(Verdict {
        cause: Cause::Nothing.as_str(),
        interface: String::new(),
        direction: None,
        confidence: (j.confidence * 100.0).round() / 100.0,
        since: report.from,
        until: report.to,
        text,
        evidence: shortened(evidence),
    })
}
