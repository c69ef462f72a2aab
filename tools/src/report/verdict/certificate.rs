//! Certificates that nobody accepts: no doing of the line, and so told beside what is said of it.

use jiff::tz::TimeZone;

use super::super::model::{Event, Report, Verdict};
use super::{shortened, told_of};
use crate::show::clean;

/// The cause of such a verdict.
pub(super) const CAUSE: &str = "certificate";
/// A server has shown it.
const CONFIDENCE: f64 = 0.95;

/// One for each that is told, whichever uplinks it is seen through.
pub(super) fn verdicts(report: &Report, zone: &TimeZone) -> Vec<Verdict> {
    let mut all: Vec<(&str, Vec<&Event>)> = Vec::new();
    for e in report.events.iter().filter(|e| e.kind == "certificate_bad") {
        match all.iter_mut().find(|(text, _)| *text == e.text) {
            Some((_, own)) => own.push(e),
            None => all.push((&e.text, vec![e])),
        }
    }
    let verdict = |(text, own): (&str, Vec<&Event>)| {
        let interface = &own[0].interface;
        let is_one = own.iter().all(|e| e.interface == *interface);
        let since = own.iter().filter_map(|e| e.start).min();
        let until = own.iter().map(|e| e.end.unwrap_or(report.to)).max();
        Verdict {
            cause: CAUSE,
            interface: if is_one {
                interface.clone()
            } else {
                String::new()
            },
            direction: None,
            confidence: CONFIDENCE,
            since: since.unwrap_or(report.from),
            until: until.unwrap_or(report.to),
            text: clean(text),
            evidence: shortened(own.iter().map(|e| told_of(e, zone)).collect()),
        }
    };
    all.into_iter().map(verdict).collect()
}
