//! The report as Markdown, for an issue or a ticket.

use jiff::tz::TimeZone;

use super::model::Report;
use super::{cable, cover, hours, paths, text, words};
use crate::show::{clean, count, millis_or_dash, percent, stretch};
use crate::when;

/// Most events that are listed.
const MOST_EVENTS: usize = 200;

/// The report as Markdown.
pub(crate) fn render(report: &Report, zone: &TimeZone) -> String {
    let mut out = format!(
        "# Bufferbane report, {}\n\n{}\n\n",
        escape(&report.host),
        words::range(report, zone)
    );
    let (verdict, reasons) = words::verdict(report);
    out.push_str(&format!("**{}**\n\n", escape(&verdict)));
    for reason in reasons {
        out.push_str(&format!("- {}\n", escape(&reason)));
    }
    out.push('\n');
    for g in &report.grades {
        let (what, why) = words::grade(g);
        out.push_str(&format!(
            "- Grade **{}** for {}: {}\n",
            g.grade,
            escape(&what),
            escape(&why)
        ));
    }
    for fact in words::facts(report, zone) {
        out.push_str(&format!("- {}\n", escape(&fact)));
    }
    out.push_str(
        "\n| over | to | by | sent | lost | up | down | median ms | p95 | p99 | max | jitter | longest run |\n\
         |---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for s in &report.series {
        let direction = |n: Option<u64>| n.map_or_else(|| "–".into(), |n| percent(n, s.sent));
        out.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            escape(&s.interface),
            escape(&s.target),
            s.probing(),
            count(s.sent),
            percent(s.lost, s.sent),
            direction(s.lost_up),
            direction(s.lost_down),
            millis_or_dash(s.rtt_ns.p50),
            millis_or_dash(s.rtt_ns.p95),
            millis_or_dash(s.rtt_ns.p99),
            millis_or_dash(s.rtt_ns.max),
            millis_or_dash(s.jitter_ns.mean),
            s.loss_runs.longest
        ));
    }
    let gaps: Vec<String> = report
        .series
        .iter()
        .flat_map(|s| s.gaps.iter().map(move |g| (s, g)))
        .map(|(s, g)| {
            format!(
                "- {}: {} to {} ({})\n",
                escape(&s.full_name()),
                when::civil(g.from.0, zone),
                when::civil(g.to.0, zone),
                stretch(g.duration_ns)
            )
        })
        .collect();
    if !gaps.is_empty() {
        out.push_str(&format!("\n## Not measured\n\n{}", gaps.concat()));
    }
    let tests = words::load_tests(report, zone);
    if !tests.is_empty() {
        out.push_str("\n## Throughput and latency under load\n\n");
        for line in tests {
            out.push_str(&format!("- {}\n", escape(&line)));
        }
    }
    let hours = hours::lines(report, zone);
    if !hours.is_empty() {
        out.push_str("\n## Capacity by hour of the day\n\n");
        for line in hours {
            out.push_str(&format!("- {}\n", escape(&line)));
        }
    }
    let cable = cable::lines(report);
    if !cable.is_empty() {
        out.push_str("\n## Cable\n\n");
        for line in cable {
            out.push_str(&format!("- {}\n", escape(&line)));
        }
    }
    outages(&mut out, report);
    compared(&mut out, report, zone);
    out.push_str("\n## Events\n\n");
    if report.events.is_empty() {
        out.push_str("None.\n");
    }
    let (events, more) = words::worst(&report.events, MOST_EVENTS);
    for event in events {
        out.push_str(&format!(
            "- {}\n",
            escape(text::event_line(event, zone).trim())
        ));
        for look in paths::looks(event, zone) {
            out.push_str(&format!("  - {}\n", escape(&look)));
        }
    }
    if let Some(more) = more {
        out.push_str(&format!("- {more}\n"));
    }
    let paths = paths::lines(report, zone);
    if !paths.is_empty() {
        out.push_str("\n## Paths\n\n");
        for line in paths {
            out.push_str(&format!("- {}\n", escape(&line)));
        }
    }
    let cover = cover::paragraphs(report, zone);
    if !cover.is_empty() {
        out.push_str("\n## To paste into a complaint\n");
        for paragraph in cover {
            out.push_str(&format!("\n> {}\n", escape(&paragraph)));
        }
    }
    out.push_str("\n## The measurement itself\n\n");
    for line in words::health(report, zone) {
        out.push_str(&format!("- {line}\n"));
    }
    for s in &report.series {
        out.push_str(&format!(
            "- {}: stamped as {}\n",
            escape(&s.full_name()),
            words::stamps_of(s)
        ));
    }
    out.push_str(&format!("\n{}\n", words::HOW_MEASURED));
    out
}

fn outages(out: &mut String, report: &Report) {
    if report.outages.is_empty() {
        return;
    }
    out.push_str(
        "\n## Outages\n\n| over | day | outages | in all | longest |\n|---|---|--:|--:|--:|\n",
    );
    for o in &report.outages {
        for d in &o.days {
            out.push_str(&format!(
                "| {} | {} | {} | {} | {} |\n",
                escape(&o.interface),
                d.date,
                count(d.count),
                stretch(d.total_ns),
                stretch(d.longest_ns)
            ));
        }
    }
}

fn compared(out: &mut String, report: &Report, zone: &TimeZone) {
    for c in &report.compared {
        out.push_str(&format!(
            "\n## Before and after\n\n{}\n\n| over | to | what | before | after | difference, 95 % | p | \
             says |\n|---|---|---|--:|--:|--:|--:|---|\n",
            escape(&words::compared(c, zone))
        ));
        for change in &c.changes {
            let cells: Vec<String> = words::change(change).iter().map(|c| escape(c)).collect();
            out.push_str(&format!(
                "| {} | {} | {} |\n",
                escape(&change.interface),
                escape(&change.target),
                cells.join(" | ")
            ));
        }
        out.push_str(&format!("\nMethod: {}.\n", escape(c.method)));
    }
}

/// Text that Markdown, and HTML within it, makes nothing of.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        if matches!(
            c,
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '&' | '~' | '!'
        ) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
