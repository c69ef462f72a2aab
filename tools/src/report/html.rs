//! The report as one page that needs nothing beside itself, and can be mailed, read on a phone and
//! printed.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::model::{Event, Report, Series};
use super::{cable, cover, explore, hours, paths, plug, verdict, words};
use crate::chart::{self, Kind, Look, Material, Theme};
use crate::fail::Fail;
use crate::show::{clean, count, millis_or_dash, percent, stretch};
use crate::when;

/// Width of the charts on a large screen and on paper, pixels.
pub(crate) const WIDE: f64 = 960.0;
/// On a phone.
const NARROW: f64 = 362.0;

/// Most events that are listed.
const MOST_EVENTS: usize = 300;
/// Most days with outages that are listed for an interface: the newest.
const MOST_DAYS: usize = 62;
/// Most gaps that are listed for a series.
const MOST_GAPS: usize = 40;

const STYLE: &str = include_str!("style.css");

/// Text that HTML makes nothing of, wherever it stands.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The page, its charts drawn of `material`, and on a phone of the coarser `phone`.
pub(crate) fn render(
    report: &Report,
    material: &Material,
    phone: &Material,
    zone: &TimeZone,
) -> Result<String, Fail> {
    let mut page = String::with_capacity(1 << 20);
    let title = format!("Bufferbane report, {}", report.host);
    push(
        &mut page,
        format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
             style-src 'unsafe-inline'; script-src {2}\">\n<title>{0}</title>\n<style>\n{STYLE}\
             @media screen and (prefers-color-scheme: dark) {{\n{3}}}\n</style>\n\
             </head>\n<body>\n<main>\n<h1>{0}</h1>\n<p class=\"range\">{1}</p>\n",
            escape(&title),
            escape(&words::range(report, zone)),
            explore::policy(),
            Theme::dark_rules()
        ),
    );
    facts(&mut page, report, zone);
    grades(&mut page, report);
    summary(&mut page, report);
    load_tests(&mut page, report, zone);
    capacity_by_hour(&mut page, report, zone);
    cable_line(&mut page, report);
    compared(&mut page, report, zone);
    outages(&mut page, report);
    page.push_str("<h2>Charts</h2>\n");
    page.push_str(&explore::section(material, zone));
    charts(&mut page, [material, phone], zone)?;
    events(&mut page, report, zone);
    ways(&mut page, report, zone);
    gaps(&mut page, report, zone);
    complaint(&mut page, report, zone);
    measurement(&mut page, report, zone);
    push(
        &mut page,
        format_args!(
            "<footer>Made by bbtool {} at {}, times in {}.</footer>\n</main>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION"),
            when::civil(report.generated.0, zone),
            when::zone_label(report.generated.0, zone)
        ),
    );
    Ok(page)
}

/// Writing to a string cannot fail.
fn push(page: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(what);
}

fn facts(page: &mut String, report: &Report, zone: &TimeZone) {
    let (verdict, reasons) = words::verdict(report);
    push(
        page,
        format_args!(
            "<section class=\"facts\">\n<strong>{}</strong>\n<ul>\n",
            escape(&verdict)
        ),
    );
    // What speaks for the first verdict stands below it, and the others for themselves, as it does. The figures are
    // apart from both: they speak for none.
    let of_line = verdict::of_line(report).0;
    let (evidence, others) = reasons.split_at(of_line.first().map_or(0, |v| v.evidence.len()));
    for reason in evidence {
        push(page, format_args!("<li>{}</li>\n", escape(reason)));
    }
    page.push_str("</ul>\n");
    for other in others {
        push(page, format_args!("<strong>{}</strong>\n", escape(other)));
    }
    page.push_str("<p class=\"note\">What was measured:</p>\n<ul>\n");
    for fact in words::facts(report, zone) {
        push(page, format_args!("<li>{}</li>\n", escape(&fact)));
    }
    page.push_str("</ul>\n</section>\n");
}

fn capacity_by_hour(page: &mut String, report: &Report, zone: &TimeZone) {
    let lines = hours::lines(report, zone);
    if lines.is_empty() {
        return;
    }
    page.push_str("<h2>Capacity by hour of the day</h2>\n<ul class=\"plain\">\n");
    for line in lines {
        push(page, format_args!("<li>{}</li>\n", escape(&line)));
    }
    page.push_str("</ul>\n");
}

/// What is known of a cable line.
fn cable_line(page: &mut String, report: &Report) {
    let lines = cable::lines(report);
    if lines.is_empty() {
        return;
    }
    page.push_str("<h2>Cable</h2>\n<ul>\n");
    for line in lines {
        push(page, format_args!("<li>{}</li>\n", escape(&line)));
    }
    page.push_str("</ul>\n");
}

/// Grades as tiles: what people look for first.
fn grades(page: &mut String, report: &Report) {
    if report.grades.is_empty() {
        return;
    }
    page.push_str("<section class=\"tiles\">\n");
    for g in &report.grades {
        let (what, why) = words::grade(g);
        push(
            page,
            format_args!(
                "<div class=\"tile g{}\"><b>{}</b><span>{}<small>{}</small></span></div>\n",
                g.grade.trim_end_matches('+'),
                g.grade,
                escape(&what),
                escape(&why)
            ),
        );
    }
    page.push_str("</section>\n");
}

fn outages(page: &mut String, report: &Report) {
    page.push_str("<h2>Outages</h2>\n");
    if report.outages.is_empty() {
        page.push_str("<p>None was recorded.</p>\n");
        return;
    }
    page.push_str("<div class=\"abreast\">\n");
    for o in &report.outages {
        let place = match o.interface.as_str() {
            "" => "this host".to_owned(),
            name => escape(name),
        };
        let headings = [place.as_str(), "Outages", "In all", "Longest"];
        let mut table = Table::begin(page, "small", &headings);
        for d in o.days.iter().rev().take(MOST_DAYS) {
            table.row(
                "",
                &[
                    d.date.to_string(),
                    count(d.count),
                    stretch(d.total_ns),
                    stretch(d.longest_ns),
                ],
            );
        }
        table.end();
    }
    page.push_str("</div>\n");
}

fn compared(page: &mut String, report: &Report, zone: &TimeZone) {
    let headings = [
        "Series",
        "What",
        "Before",
        "After",
        "Difference, 95 %",
        "p",
        "Says",
    ];
    for c in &report.compared {
        push(
            page,
            format_args!(
                "<h2>Before and after</h2>\n<p>{}</p>\n",
                escape(&words::compared(c, zone))
            ),
        );
        let mut table = Table::begin(page, "", &headings);
        for change in &c.changes {
            let mut cells = vec![escape(&format!("{} → {}", change.interface, change.target))];
            cells.extend(words::change(change).iter().map(|c| escape(c)));
            table.row("", &cells);
        }
        table.end();
        push(
            page,
            format_args!("<p class=\"note\">Method: {}.</p>\n", escape(c.method)),
        );
    }
}

fn complaint(page: &mut String, report: &Report, zone: &TimeZone) {
    let paragraphs = cover::paragraphs(report, zone);
    if paragraphs.is_empty() {
        return;
    }
    page.push_str("<h2>To paste into a complaint</h2>\n");
    for p in paragraphs {
        push(
            page,
            format_args!("<blockquote>{}</blockquote>\n", escape(&p)),
        );
    }
}

/// A table whose cells say on a phone what their column is.
struct Table<'a> {
    page: &'a mut String,
    headings: &'a [&'a str],
}

impl<'a> Table<'a> {
    fn begin(page: &'a mut String, class: &str, headings: &'a [&'a str]) -> Self {
        push(page, format_args!("<table class=\"{class}\">\n<thead><tr>"));
        for h in headings {
            push(page, format_args!("<th>{h}</th>"));
        }
        page.push_str("</tr></thead>\n<tbody>\n");
        Self { page, headings }
    }

    /// A row of cells that are HTML already.
    fn row(&mut self, class: &str, cells: &[String]) {
        push(self.page, format_args!("<tr class=\"{class}\">"));
        for (cell, heading) in cells.iter().zip(self.headings) {
            push(
                self.page,
                format_args!("<td data-label=\"{heading}\">{cell}</td>"),
            );
        }
        self.page.push_str("</tr>\n");
    }

    fn end(self) {
        self.page.push_str("</tbody>\n</table>\n");
    }
}

fn summary(page: &mut String, report: &Report) {
    page.push_str("<h2>Summary</h2>\n");
    let headings = [
        "Series",
        "Sent",
        "Received",
        "Lost",
        "Lost up",
        "Lost down",
        "Longest run",
        "RTT median",
        "p95",
        "p99",
        "max",
        "Jitter ms",
    ];
    let mut table = Table::begin(page, "figures", &headings);
    for s in &report.series {
        table.row("", &cells(s));
    }
    table.end();
    page.push_str(
        "<p class=\"note\">RTT and jitter in milliseconds. A dash says that it is not known: only probes to a \
         reflector tell which way a packet was lost.</p>\n",
    );
}

fn cells(s: &Series) -> Vec<String> {
    let direction = |n: Option<u64>| n.map_or_else(|| "–".into(), |n| percent(n, s.sent));
    let longest = match s.loss_runs.longest {
        0 => "–".into(),
        1 => "1".into(),
        n => format!(
            "{}<small>{}</small>",
            count(n),
            stretch(s.loss_runs.longest_ns)
        ),
    };
    let odd = words::oddities(s);
    let odd = if odd.is_empty() {
        String::new()
    } else {
        format!("<small>{}</small>", odd.join(", "))
    };
    vec![
        format!(
            "{}<small>{}</small>{odd}",
            escape(&s.name()),
            escape(&s.probing())
        ),
        count(s.sent),
        count(s.received),
        format!(
            "{}<small>{}</small>",
            percent(s.lost, s.sent),
            count(s.lost)
        ),
        direction(s.lost_up),
        direction(s.lost_down),
        longest,
        millis_or_dash(s.rtt_ns.p50),
        millis_or_dash(s.rtt_ns.p95),
        millis_or_dash(s.rtt_ns.p99),
        millis_or_dash(s.rtt_ns.max),
        millis_or_dash(s.jitter_ns.mean),
    ]
}

fn charts(page: &mut String, materials: [&Material; 2], zone: &TimeZone) -> Result<(), Fail> {
    for kind in Kind::ALL {
        let begun = page.len();
        push(page, format_args!("<figure id=\"{}\">\n", kind.name()));
        let mut drawn = false;
        for ((class, width), material) in [("wide", WIDE), ("narrow", NARROW)]
            .into_iter()
            .zip(materials)
        {
            let look = Look {
                width,
                height: None,
                theme: Theme::LIGHT,
                zone: zone.clone(),
            };
            let Some(scene) = kind.draw(material, &look)? else {
                continue;
            };
            let svg = chart::svg(&scene, None);
            push(page, format_args!("<div class=\"{class}\">\n{svg}</div>\n"));
            drawn = true;
        }
        if !drawn {
            // Three charts are of throughput tests: that there was none is said once.
            if matches!(kind, Kind::Bufferbloat | Kind::Test) {
                page.truncate(begun);
                continue;
            }
            push(
                page,
                format_args!(
                    "<p class=\"note\">{}: {}.</p>\n",
                    kind.title(),
                    kind.absence()
                ),
            );
        }
        page.push_str("</figure>\n");
    }
    Ok(())
}

fn gaps(page: &mut String, report: &Report, zone: &TimeZone) {
    if report.series.iter().all(|s| s.gaps.is_empty()) {
        return;
    }
    page.push_str("<h2>Not measured</h2>\n");
    let mut table = Table::begin(page, "", &["Series", "From", "To", "For"]);
    for s in &report.series {
        for g in s.gaps.iter().take(MOST_GAPS) {
            table.row(
                "",
                &[
                    escape(&s.full_name()),
                    when::civil(g.from.0, zone),
                    when::civil(g.to.0, zone),
                    stretch(g.duration_ns),
                ],
            );
        }
    }
    table.end();
}

fn events(page: &mut String, report: &Report, zone: &TimeZone) {
    page.push_str("<h2>Events</h2>\n");
    if report.events.is_empty() {
        page.push_str("<p>None.</p>\n");
        return;
    }
    let mut table = Table::begin(
        page,
        "words events",
        &["Begin", "Kind", "For", "Where", "What happened"],
    );
    let (events, more) = words::worst(&report.events, MOST_EVENTS);
    for e in events {
        let severity = format!("{:?}", e.severity).to_lowercase();
        table.row(&severity, &event(e, zone));
    }
    table.end();
    if let Some(more) = more {
        push(
            page,
            format_args!("<p class=\"note\">{more}: the chart above has them all.</p>\n"),
        );
    }
}

/// The ways to targets.
fn ways(page: &mut String, report: &Report, zone: &TimeZone) {
    let lines = paths::lines(report, zone);
    if lines.is_empty() {
        return;
    }
    page.push_str("<h2>Paths</h2>\n<ul class=\"plain\">\n");
    for line in lines {
        push(page, format_args!("<li>{}</li>\n", escape(&line)));
    }
    page.push_str("</ul>\n");
}

fn load_tests(page: &mut String, report: &Report, zone: &TimeZone) {
    let lines = words::load_tests(report, zone);
    if lines.is_empty() {
        return;
    }
    page.push_str("<h2>Throughput and latency under load</h2>\n<ul class=\"plain\">\n");
    for line in lines {
        push(page, format_args!("<li>{}</li>\n", escape(&line)));
    }
    page.push_str("</ul>\n");
}

fn event(e: &Event, zone: &TimeZone) -> Vec<String> {
    let begin = e
        .start
        .map_or_else(|| "unknown".into(), |t| when::civil(t.0, zone));
    let length = match (plug::lasted(e), e.end) {
        (Some(lasted), _) => lasted,
        (None, None) => "still going on".into(),
        (None, Some(_)) => "–".into(),
    };
    let place: Vec<&str> = [Some(e.interface.as_str()), e.target.as_deref()]
        .into_iter()
        .flatten()
        .filter(|p| !p.is_empty())
        .collect();
    vec![
        begin,
        escape(&e.kind),
        length,
        escape(if place.is_empty() { "this host" } else { "" }) + &escape(&place.join(" → ")),
        paths::looks(e, zone)
            .iter()
            .fold(escape(&e.text), |text, look| {
                text + "<small>" + &escape(look) + "</small>"
            }),
    ]
}

fn measurement(page: &mut String, report: &Report, zone: &TimeZone) {
    page.push_str("<h2>How it was measured</h2>\n<ul class=\"plain\">\n");
    for line in words::health(report, zone) {
        push(page, format_args!("<li>{}</li>\n", escape(&line)));
    }
    page.push_str("</ul>\n");
    push(
        page,
        format_args!("<p class=\"note\">{}</p>\n", words::HOW_MEASURED),
    );
    let mut table = Table::begin(page, "words", &["Series", "Probes", "Time stamps by"]);
    for s in &report.series {
        table.row(
            "",
            &[
                escape(&s.name()),
                escape(&s.probing()),
                escape(&words::stamps_of(s)),
            ],
        );
    }
    table.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(
            escape("<script>alert('x')</script>&\"\u{7}"),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}"
        );
    }
}
