//! The facts that a person looks for first.

use jiff::tz::TimeZone;

use super::super::model::{Report, Series};
use super::{MOST_NAMED, outages};
use crate::show::{count, percent, plural, stretch};
use crate::when;

/// What was measured, a sentence each: the facts that a person looks for first.
pub(crate) fn facts(report: &Report, zone: &TimeZone) -> Vec<String> {
    let series = &report.series;
    let mut facts = vec![measured(report)];
    for o in &report.outages {
        facts.push(outages(o, zone));
    }
    let of_line = || series.iter().filter(|s| !s.of_service);
    if of_line().next().is_some() {
        facts.push(losses(&of_line().collect::<Vec<_>>()));
    }
    facts.extend(unanswered(series));
    if let Some(s) = of_line()
        .filter(|s| s.loss_runs.longest > 1)
        .max_by_key(|s| s.loss_runs.longest_ns)
    {
        facts.push(format!(
            "Longest run of losses: {} in a row within {}, {}.",
            plural(s.loss_runs.longest, "probe", "probes"),
            stretch(s.loss_runs.longest_ns),
            s.name()
        ));
    }
    let unsent: u64 = series.iter().map(|s| s.unsent).sum();
    if unsent > 0 {
        facts.push(format!(
            "{} could not be sent at all.",
            plural(unsent, "probe", "probes")
        ));
    }
    let gaps = &report.health.gaps;
    if !gaps.is_empty() {
        let total: u64 = gaps.iter().map(|g| g.duration_ns).sum();
        let mut named: Vec<String> = gaps
            .iter()
            .take(MOST_NAMED)
            .map(|g| format!("from {}", when::range_label(g.from.0, g.to.0, zone)))
            .collect();
        if gaps.len() > MOST_NAMED {
            named.push(format!("and {} more times", gaps.len() - MOST_NAMED));
        }
        facts.push(format!(
            "Nothing was recorded for {} in all: {}.",
            stretch(total),
            named.join(", ")
        ));
    }
    facts
}

fn measured(report: &Report) -> String {
    let distinct = |of: fn(&Series) -> &str| {
        let mut names: Vec<&str> = report.series.iter().map(of).collect();
        names.sort_unstable();
        names.dedup();
        names.len() as u64
    };
    let sent: u64 = report.series.iter().map(|s| s.sent).sum();
    format!(
        "{} sent over {} to {}.",
        plural(sent, "probe", "probes"),
        plural(distinct(|s| &s.interface), "interface", "interfaces"),
        plural(distinct(|s| &s.target), "target", "targets")
    )
}

/// What services did not answer, which may be their own doing and not the line's.
fn unanswered(series: &[Series]) -> Option<String> {
    let (mut sent, mut lost, mut failed) = (0, 0, 0);
    for s in series.iter().filter(|s| s.of_service) {
        sent += s.sent;
        lost += s.lost;
        failed += s.failures.values().sum::<u64>();
    }
    if sent == 0 {
        return None;
    }
    if lost + failed == 0 {
        return Some(format!(
            "Services answered all of {} questions.",
            count(sent)
        ));
    }
    let mut bad = Vec::new();
    if lost > 0 {
        bad.push(format!(
            "{} ({}) found no answer",
            count(lost),
            percent(lost, sent)
        ));
    }
    if failed > 0 {
        bad.push(format!(
            "{} ({}) were answered with a failure",
            count(failed),
            percent(failed, sent)
        ));
    }
    Some(format!(
        "Of {} questions to services {}.",
        count(sent),
        bad.join(", and ")
    ))
}

fn losses(series: &[&Series]) -> String {
    let (sent, lost) = series
        .iter()
        .fold((0, 0), |(s, l), x| (s + x.sent, l + x.lost));
    if lost == 0 {
        return "Every probe was answered.".into();
    }
    let mut text = format!(
        "{} lost ({}).",
        plural(lost, "probe was", "probes were"),
        percent(lost, sent)
    );
    let directed: Vec<&&Series> = series.iter().filter(|s| s.lost_up.is_some()).collect();
    let (up, down, of) = directed.iter().fold((0, 0, 0), |(u, d, n), s| {
        (
            u + s.lost_up.unwrap_or(0),
            d + s.lost_down.unwrap_or(0),
            n + s.lost,
        )
    });
    if of > 0 {
        let unknown = of.saturating_sub(up + down);
        text.push_str(&format!(
            " Where the direction can be told: {} up, {} down",
            count(up),
            count(down)
        ));
        if unknown > 0 {
            text.push_str(&format!(", {} still unknown", count(unknown)));
        }
        text.push('.');
    }
    text
}
