//! The facts that a person looks for first.

use jiff::tz::TimeZone;

use super::super::model::{Report, Series};
use super::{MOST_NAMED, more_times, outages};
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
            s.full_name()
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
            named.push(more_times(gaps.len() - MOST_NAMED));
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

/// What services did not answer, which may be their own doing and not the line's. A page that fails does so at one of its
/// steps and as a whole, which is one question.
fn unanswered(series: &[Series]) -> Option<String> {
    let is_step = |s: &Series| {
        let is_page =
            |p: &Series| p.kind == "http" && p.interface == s.interface && p.target == s.target;
        s.kind != "http" && series.iter().any(is_page)
    };
    let (mut sent, mut lost, mut failed) = (0, 0, 0);
    for s in series.iter().filter(|s| s.of_service && !is_step(s)) {
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
    match (lost, sent) {
        (0, 0) => return "No probe could be sent.".into(),
        (0, _) if series.iter().any(|s| s.unsent > 0) => {
            return "Every probe that could be sent was answered.".into();
        }
        (0, _) => return "Every probe was answered.".into(),
        _ => {}
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

#[cfg(test)]
mod tests {
    use super::super::super::testing::series;
    use super::*;

    #[test]
    fn a_page_that_fails_is_one_question() {
        let step = |kind: &'static str, target: &str, failed: u64| {
            let mut s = series(target, 10, 0);
            (s.kind, s.of_service) = (kind, true);
            s.failures.insert("certificate expired".into(), failed);
            s
        };
        let all = [
            step("tcp", "shop", 0),
            step("tls", "shop", 10),
            step("http", "shop", 10),
            step("tcp", "shell", 1),
        ];
        let said = unanswered(&all).unwrap().replace('\u{a0}', " ");
        assert_eq!(
            said,
            "Of 20 questions to services 11 (55.0 %) were answered with a failure."
        );
    }

    #[test]
    fn what_could_not_be_sent_was_not_answered() {
        let said = |sent, unsent| {
            let mut s = series("six", sent, 0);
            s.unsent = unsent;
            losses(&[&s])
        };
        assert_eq!(said(10, 0), "Every probe was answered.");
        assert_eq!(said(10, 5), "Every probe that could be sent was answered.");
        assert_eq!(said(0, 5), "No probe could be sent.");
    }
}
