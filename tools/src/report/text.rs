//! The report for a terminal, at most 100 columns wide.

use jiff::tz::TimeZone;

use super::model::{Event, Report, Series};
use super::{cable, cover, hours, paths, plug, words};
use crate::show::{clean, count, cut, cut_interface, millis_or_dash, percent, stretch, table};
use crate::when;

/// Widest line.
const WIDTH: usize = 98;
/// Most gaps of one series that are listed.
const MOST_GAPS: usize = 5;
/// Most events that are listed.
const MOST_EVENTS: usize = 100;

/// The report as text.
pub(crate) fn render(report: &Report, zone: &TimeZone) -> String {
    let mut out = format!(
        "Bufferbane report, {}\n{}\n\n",
        clean(&report.host),
        words::range(report, zone)
    );
    let (verdict, reasons) = words::verdict(report);
    out.push_str(&wrap(&verdict, 0));
    for line in reasons {
        out.push_str(&wrap(&format!("  {line}"), 4));
    }
    out.push('\n');
    for line in words::facts(report, zone) {
        out.push_str(&wrap(&clean(&line), 0));
    }
    out.push('\n');
    for g in &report.grades {
        let (what, why) = words::grade(g);
        out.push_str(&wrap(
            &clean(&format!("Grade {} for {what}: {why}", g.grade)),
            2,
        ));
    }
    out.push('\n');
    out.push_str(&summary(report));
    out.push_str(&series_details(report, zone));
    out.push_str(&outages(report));
    out.push_str(&compared(report, zone));
    let tests = words::load_tests(report, zone);
    if !tests.is_empty() {
        out.push_str("\nThroughput and latency under load\n");
        for line in tests {
            out.push_str(&wrap(&format!("  {line}"), 4));
        }
    }
    let hours = hours::lines(report, zone);
    if !hours.is_empty() {
        out.push_str("\nCapacity by hour of the day\n");
        for line in hours {
            out.push_str(&wrap(&format!("  {line}"), 4));
        }
    }
    let cable = cable::lines(report);
    if !cable.is_empty() {
        out.push_str("\nCable\n");
        for line in cable {
            out.push_str(&wrap(&format!("  {}", clean(&line)), 4));
        }
    }
    out.push_str("\nEvents\n");
    if report.events.is_empty() {
        out.push_str("  none\n");
    }
    let (events, more) = words::worst(&report.events, MOST_EVENTS);
    for event in events {
        out.push_str(&wrap(&event_line(event, zone), 2));
        for look in paths::looks(event, zone) {
            out.push_str(&wrap(&format!("    {look}"), 6));
        }
    }
    if let Some(more) = more {
        out.push_str(&format!("  {more}: bbtool events lists them\n"));
    }
    let paths = paths::lines(report, zone);
    if !paths.is_empty() {
        out.push_str("\nPaths\n");
        for line in paths {
            out.push_str(&wrap(&format!("  {line}"), 4));
        }
    }
    let cover = cover::paragraphs(report, zone);
    if !cover.is_empty() {
        out.push_str("\nTo paste into a complaint\n");
        for paragraph in cover {
            out.push_str(&wrap(&clean(&format!("  {paragraph}")), 2));
        }
    }
    out.push_str("\nThe measurement itself\n");
    for line in words::health(report, zone) {
        out.push_str(&wrap(&format!("  {line}"), 2));
    }
    for series in &report.series {
        let line = format!(
            "  {}, {}: stamped as {}",
            series.name(),
            series.probing(),
            words::stamps_of(series)
        );
        out.push_str(&wrap(&line, 4));
    }
    out.push_str(&wrap(&format!("  {}", words::HOW_MEASURED), 2));
    // What keeps numbers and units together on a page only gets in the way of grep.
    out.replace('\u{a0}', " ")
}

fn summary(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .series
        .iter()
        .map(|s| {
            let direction = |n: Option<u64>| n.map_or_else(|| "–".into(), |n| percent(n, s.sent));
            vec![
                cut_interface(&clean(&s.interface), 12),
                cut(&clean(&s.target), 14),
                format!("{}{}", s.kind, s.family),
                count(s.sent),
                percent(s.lost, s.sent),
                direction(s.lost_up),
                direction(s.lost_down),
                millis_or_dash(s.rtt_ns.p50),
                millis_or_dash(s.rtt_ns.p95),
                millis_or_dash(s.rtt_ns.p99),
                millis_or_dash(s.rtt_ns.max),
                millis_or_dash(s.jitter_ns.mean),
            ]
        })
        .collect();
    let headings = [
        "over",
        "to",
        "by",
        "sent",
        "lost",
        "up",
        "down",
        "median",
        "p95",
        "p99",
        "max",
        "jitter ms",
    ];
    table(&headings, &rows, 3)
}

/// Outages by day.
fn outages(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .outages
        .iter()
        .flat_map(|o| o.days.iter().map(move |d| (o, d)))
        .map(|(o, d)| {
            vec![
                cut_interface(&clean(&o.interface), 24),
                d.date.clone(),
                count(d.count),
                stretch(d.total_ns),
                stretch(d.longest_ns),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let headings = ["over", "day", "outages", "in all", "longest"];
    format!("\nOutages\n{}", table(&headings, &rows, 2))
}

/// Before and after.
fn compared(report: &Report, zone: &TimeZone) -> String {
    let mut out = String::new();
    for c in &report.compared {
        out.push_str("\nBefore and after\n");
        out.push_str(&wrap(&format!("  {}", words::compared(c, zone)), 2));
        let rows: Vec<Vec<String>> = c
            .changes
            .iter()
            .map(|change| {
                let mut row = vec![
                    cut_interface(&clean(&change.interface), 16),
                    cut(&clean(&change.target), 14),
                ];
                row.extend(words::change(change));
                row
            })
            .collect();
        let headings = [
            "over",
            "to",
            "what",
            "before",
            "after",
            "difference, 95 %",
            "p",
            "says",
        ];
        out.push_str(&table(&headings, &rows, 3));
        out.push_str(&wrap(&format!("  Method: {}.", c.method), 2));
    }
    out
}

/// What does not fit into the table: runs, gaps and oddities.
fn series_details(report: &Report, zone: &TimeZone) -> String {
    let mut out = String::new();
    for s in &report.series {
        let details = details(s, zone);
        if !details.is_empty() {
            out.push_str(&wrap(
                &format!("{}: {}", s.full_name(), details.join("; ")),
                2,
            ));
        }
    }
    if out.is_empty() {
        out
    } else {
        format!("\n{out}")
    }
}

fn details(s: &Series, zone: &TimeZone) -> Vec<String> {
    let mut details = Vec::new();
    if s.lost > 0 {
        details.push(format!("lost {}", words::loss_of(s)));
        if s.loss_runs.longest > 1 {
            details.push(format!(
                "longest run {} within {}",
                count(s.loss_runs.longest),
                stretch(s.loss_runs.longest_ns)
            ));
        }
    }
    details.extend(words::oddities(s));
    for gap in s.gaps.iter().take(MOST_GAPS) {
        details.push(format!(
            "not measured {} to {} ({})",
            when::civil(gap.from.0, zone),
            when::civil(gap.to.0, zone),
            stretch(gap.duration_ns)
        ));
    }
    if s.gaps.len() > MOST_GAPS {
        details.push(format!("and {} gaps more", s.gaps.len() - MOST_GAPS));
    }
    details
}

/// An event on one line.
pub(crate) fn event_line(event: &Event, zone: &TimeZone) -> String {
    let time = |t: Option<super::model::Time>| t.map(|t| when::civil(t.0, zone));
    let start = time(event.start).unwrap_or_else(|| "at an unknown time".into());
    let length = match (plug::lasted(event), event.end) {
        (Some(lasted), _) => format!(", {lasted}"),
        (None, None) => ", still going on".into(),
        (None, Some(_)) => String::new(),
    };
    let place = [Some(event.interface.as_str()), event.target.as_deref()];
    let place: Vec<&str> = place
        .into_iter()
        .flatten()
        .filter(|p| !p.is_empty())
        .collect();
    let place = if place.is_empty() {
        String::new()
    } else {
        format!(" {}", clean(&place.join(" → ")))
    };
    format!(
        "  {start}{length}  {:?} {}{place}: {}",
        event.severity,
        clean(&event.kind),
        clean(&event.text)
    )
}

/// Lines no longer than [`WIDTH`], the further ones indented.
fn wrap(text: &str, indent: usize) -> String {
    let words = text.trim_start();
    let mut line = " ".repeat(text.len() - words.len());
    let (mut out, mut is_first) = (String::new(), true);
    for word in words.split(' ') {
        if !is_first && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = " ".repeat(indent);
            is_first = true;
        }
        if !is_first {
            line.push(' ');
        }
        line.push_str(word);
        is_first = false;
    }
    out.push_str(&line);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_and_keep_their_indent() {
        let text = wrap(&format!("  {}", "word ".repeat(40).trim()), 4);
        for (i, line) in text.lines().enumerate() {
            assert!(line.chars().count() <= WIDTH);
            let indent = if i == 0 { "  word" } else { "    word" };
            assert!(line.starts_with(indent), "{line:?}");
        }
        assert_eq!(wrap("short", 2), "short\n");
    }
}
