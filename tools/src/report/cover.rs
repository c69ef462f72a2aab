//! A paragraph to paste into a complaint: dates, times and counts that somebody can check.

use jiff::tz::TimeZone;

use super::model::{Grade, Report, Series};
use crate::show::{count, delay, percent, plural, stretch};
use crate::when;

/// Losing less than this share is nothing to complain about.
const LOSS: f64 = 0.001;

/// One paragraph for each interface that has something to complain about.
pub(crate) fn paragraphs(report: &Report, zone: &TimeZone) -> Vec<String> {
    let mut interfaces: Vec<&str> = report.series.iter().map(|s| s.interface.as_str()).collect();
    interfaces.dedup();
    interfaces
        .into_iter()
        .filter_map(|i| paragraph(report, i, zone))
        .collect()
}

fn paragraph(report: &Report, interface: &str, zone: &TimeZone) -> Option<String> {
    // What became of questions to services is not the line's doing alone, and no word against it.
    let own = || {
        let all = report.series.iter();
        all.filter(|s| s.interface == interface && !s.of_service)
    };
    let sent: u64 = own().map(|s| s.sent).sum();
    // The way beyond the house: the one that was lost most often of what answers from far away; the
    // first of equals.
    let far = own()
        .rev()
        .filter(|s| !is_near(s))
        .max_by_key(|s| (s.lost_up.is_some(), s.lost))?;
    let mut found = Vec::new();
    if let Some(o) = report.outages.iter().find(|o| o.interface == interface) {
        found.push(format!(
            "The connection was interrupted {} on {}, for {} in all; the longest interruption began on \
             {} and lasted {}.",
            plural(o.count, "time", "times"),
            plural(o.days.len() as u64, "day", "different days"),
            stretch(o.total_ns),
            when::civil(o.longest_from.0, zone),
            stretch(o.longest_ns)
        ));
    }
    if far.sent > 0 && far.lost as f64 / far.sent as f64 >= LOSS {
        let mut text = format!(
            "Of {} packets to {} {} were lost ({})",
            count(far.sent),
            far.target,
            count(far.lost),
            percent(far.lost, far.sent)
        );
        if let (Some(up), Some(down)) = (far.lost_up, far.lost_down) {
            text.push_str(&format!(
                ", {} of them on the way from me into your network and {} on the way back",
                count(up),
                count(down)
            ));
        }
        found.push(text + ".");
    }
    for g in report
        .grades
        .iter()
        .filter(|g| g.interface == interface && g.grade > "B")
    {
        found.push(slow(g));
    }
    if found.is_empty() {
        return None;
    }
    Some(format!(
        "From {} I measured my connection ({interface}) without a break of my own: {}, one every {}. {} \
         The times are {}; every single measurement was recorded and can be handed over. Please tell \
         me the cause, and by when it will be fixed.",
        when::range_label(report.from.0, report.to.0, zone),
        plural(sent, "packet", "packets"),
        stretch(far.interval_ns),
        found.join(" "),
        when::zone_label(report.to.0, zone)
    )
    .replace(" without a break of my own:", if report.health.gaps.is_empty() {
        " without a break:"
    } else {
        ", apart from the gaps listed in the report:"
    }))
}

/// What a grade was given for, in words that say no more than was measured.
fn slow(g: &Grade) -> String {
    let (added, grade) = (delay(g.increase_ns), g.grade);
    let way = match g.direction {
        "up" => "up",
        "down" => "down",
        _ => "up and down together",
    };
    match g.method {
        "test" => format!(
            "With the line in use, one packet in ten waited {added} longer or more on its way {way} than \
             on the idle line, in the median of the load tests (grade {grade})."
        ),
        "queue" => format!(
            "In the worst hundredth of the time packets waited at least {added} in a queue on their \
             way {way} (grade {grade})."
        ),
        _ => format!(
            "In the worst hundredth of the time packets took at least {added} longer than on the \
             idle line, {way} (grade {grade})."
        ),
    }
}

/// Whether it answers from within the house.
pub(crate) fn is_near(s: &Series) -> bool {
    s.target == "gateway" || s.target == "modem" || s.rtt_ns.min.is_some_and(|n| n < 2_000_000)
}
