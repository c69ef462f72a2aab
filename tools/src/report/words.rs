//! What every format for people says in the same words.

use jiff::tz::TimeZone;

use super::compare::Change;
use super::model::{Compared, Event, Grade, Report, Series, Spread, Stamps};
use super::outages::Outages;
use super::verdict;
use crate::show::{count, delay, millis_or_dash, percent, plural, stretch};
use crate::when;

/// The first verdict, or why there is none, and a line for each of the others and for what speaks for
/// the first.
pub(crate) fn verdict(report: &Report) -> (String, Vec<String>) {
    let Some((first, others)) = report.verdicts.split_first() else {
        return (no_verdict(verdict::watched_ns(report)), Vec::new());
    };
    let mut lines = first.evidence.clone();
    lines.extend(others.iter().map(|v| format!("Also: {}", v.text)));
    (first.text.clone(), lines)
}

/// What a report without verdicts says in their place.
fn no_verdict(watched_ns: u64) -> String {
    if watched_ns < verdict::LEAST_NS {
        format!(
            "No verdict yet: probes were sent for {}, and it takes {} of them to call a line well.",
            stretch(watched_ns),
            stretch(verdict::LEAST_NS)
        )
    } else {
        "No verdict: what went wrong fits no cause that is known.".into()
    }
}

/// Most directions of tests that are listed.
const MOST_TESTS: usize = 12;
/// Most names or gaps that a sentence spells out.
const MOST_NAMED: usize = 3;

/// The `most` worst of `events` in the order of their times, and what is to be said of the others
/// where there are any.
pub(crate) fn worst(events: &[Event], most: usize) -> (Vec<&Event>, Option<String>) {
    let mut chosen: Vec<(usize, &Event)> = events.iter().enumerate().collect();
    let others = chosen.len().saturating_sub(most);
    if others > 0 {
        chosen.sort_by_key(|(_, e)| std::cmp::Reverse(e.weight()));
        chosen.truncate(most);
        chosen.sort_by_key(|(place, _)| *place);
    }
    let more = (others > 0).then(|| {
        let others = plural(others as u64, "event", "events");
        format!("and {others} more, none of them graver")
    });
    (chosen.into_iter().map(|(_, e)| e).collect(), more)
}

/// A grade in words: `eth0, upload` and `12 ms more than idle in the worst tenth of the load`.
pub(crate) fn grade(g: &Grade) -> (String, String) {
    let direction = match g.direction {
        "up" => "upload",
        "down" => "download",
        _ => "both directions together",
    };
    let why = match g.method {
        "test" if g.increase_ns == 0 => {
            "no added delay even in the worst tenth of the time under load".into()
        }
        "test" => format!(
            "{} more than idle in the worst tenth of the time under load",
            delay(g.increase_ns)
        ),
        "queue" if g.increase_ns == 0 => {
            "nothing queued even in the worst hundredth of the time".into()
        }
        "queue" => format!(
            "{} queued in the worst hundredth of the time",
            delay(g.increase_ns)
        ),
        _ => format!(
            "round trips {} above the shortest in the worst hundredth of the time; up and down were not \
             told apart",
            delay(g.increase_ns)
        ),
    };
    (format!("{}, {direction}", g.interface), why)
}

/// Outages of an interface in a sentence.
pub(crate) fn outages(o: &Outages, zone: &TimeZone) -> String {
    let place = if o.interface.is_empty() {
        "this host"
    } else {
        &o.interface
    };
    if o.count == 1 {
        let at = when::civil(o.longest_from.0, zone);
        return format!(
            "{place}: cut off once, at {at} for {}.",
            stretch(o.total_ns)
        );
    }
    format!(
        "{place}: cut off {} on {}, {} in all; the longest at {} for {}.",
        plural(o.count, "time", "times"),
        plural(o.days.len() as u64, "day", "days"),
        stretch(o.total_ns),
        when::civil(o.longest_from.0, zone),
        stretch(o.longest_ns)
    )
}

/// One compared quantity as cells: what, before, after, the interval, p, what it says.
pub(crate) fn change(c: &Change) -> [String; 6] {
    let figure = |v: f64| match c.quantity {
        "loss" => percent((v * 1e6).round() as u64, 1_000_000),
        _ => delay(v.round().max(0.0) as u64),
    };
    let signed = |v: f64| {
        let text = figure(v.abs());
        match v {
            v if v < 0.0 => format!("−{text}"),
            v if v > 0.0 => format!("+{text}"),
            _ => text,
        }
    };
    let what = match c.quantity {
        "rtt_p50_ns" => "median RTT",
        "rtt_p95_ns" => "RTT, 95th percentile",
        "ipdv_p95_ns" => "delay variation, 95th percentile",
        _ => "loss",
    };
    [
        what.to_owned(),
        figure(c.before),
        figure(c.after),
        c.interval.map_or_else(
            || "–".into(),
            |[a, b]| format!("{} to {}", signed(a), signed(b)),
        ),
        match c.p {
            None => "–".into(),
            Some(p) if p < 0.001 => "<0.001".into(),
            Some(p) => format!("{p:.3}"),
        },
        c.says.to_owned(),
    ]
}

/// Which ranges were compared.
pub(crate) fn compared(c: &Compared, zone: &TimeZone) -> String {
    let range = |r: [super::model::Time; 2]| when::range_label(r[0].0, r[1].0, zone);
    format!(
        "Before: {}. After: {}. Blocks of {}.",
        range(c.before),
        range(c.after),
        stretch(c.block_ns)
    )
}

/// The range, and how long it is.
pub(crate) fn range(report: &Report, zone: &TimeZone) -> String {
    format!(
        "{} ({})",
        when::range_label(report.from.0, report.to.0, zone),
        stretch(report.to.0.abs_diff(report.from.0))
    )
}

/// The throughput tests, a line for each direction of each, the newest of them.
pub(crate) fn load_tests(report: &Report, zone: &TimeZone) -> Vec<String> {
    let time = |ns| when::civil(ns, zone);
    crate::loads::lines(&report.throughput, &report.bufferbloat, time, MOST_TESTS)
}

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

/// A series' losses with their directions: `43 (0.06 %): 40 up, 3 down`.
pub(crate) fn loss_of(s: &Series) -> String {
    let mut text = format!("{} ({})", count(s.lost), percent(s.lost, s.sent));
    if let (Some(up), Some(down)) = (s.lost_up, s.lost_down)
        && s.lost > 0
    {
        text.push_str(&format!(": {} up, {} down", count(up), count(down)));
        let unknown = s.lost.saturating_sub(up + down);
        if unknown > 0 {
            text.push_str(&format!(", {} unknown", count(unknown)));
        }
    }
    text
}

/// What else happened to probes of a series, nothing where nothing did.
pub(crate) fn oddities(s: &Series) -> Vec<String> {
    let counts = [
        (s.late, "late"),
        (s.duplicated, "duplicated"),
        (s.reordered, "reordered"),
        (s.unsent, "not sent"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{} {what}", count(n)));
    let failures = s.failures.iter();
    let failures = failures.map(|(why, n)| format!("{} {why}", count(*n)));
    let counts = failures.chain(counts);
    counts.chain(marks(s)).chain(queueing(s)).collect()
}

/// What became of the marks in the headers on the way.
fn marks(s: &Series) -> Vec<String> {
    let mut marks = Vec::new();
    match s.dscp_seen {
        Some(seen) if seen != s.dscp => {
            marks.push(format!("DSCP {} arrives as {seen}", s.dscp));
        }
        _ => {}
    }
    if s.dscp_changes > 0 {
        marks.push(format!("DSCP or ECN changed {}", times(s.dscp_changes)));
    }
    if s.ttl_changes > 0 {
        marks.push(format!("hops changed {}", times(s.ttl_changes)));
    }
    marks
}

fn times(n: u64) -> String {
    match n {
        1 => "once".into(),
        n => format!("{} times", count(n)),
    }
}

/// How long packets waited in queues each way, in a phrase.
fn queueing(s: &Series) -> Option<String> {
    let way = |spread: &Spread| {
        format!(
            "{} median, {} p95, {} at most",
            millis_or_dash(spread.p50),
            millis_or_dash(spread.p95),
            millis_or_dash(spread.max)
        )
    };
    let (up, down) = (s.queue_up_ns.as_ref()?, s.queue_down_ns.as_ref()?);
    Some(format!("queued up {}, down {} ms", way(up), way(down)))
}

/// Who took the time stamps of a series, in a sentence.
pub(crate) fn stamps_of(s: &Series) -> String {
    let t = &s.timestamps;
    let near = format!("sent {}, received {}", clocks(&t.tx), clocks(&t.rx));
    if s.kind == "udp" {
        format!(
            "{near}; far end: received {}, sent {}",
            clocks(&t.remote_rx),
            clocks(&t.remote_tx)
        )
    } else {
        near
    }
}

fn clocks(s: &Stamps) -> String {
    let all = [
        (s.nic, "network card"),
        (s.kernel, "kernel"),
        (s.user, "program"),
        (s.none, "none"),
    ];
    let total: u64 = all.iter().map(|(n, _)| n).sum();
    let used: Vec<String> = all
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, name)| match n {
            n if n == total => name.to_owned(),
            n => format!("{name} {}", percent(n, total)),
        })
        .collect();
    if used.is_empty() {
        "–".into()
    } else {
        used.join(" + ")
    }
}

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
            named.push(format!(
                "and {} more times",
                h.own_trouble.len() - MOST_NAMED
            ));
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

#[cfg(test)]
mod tests {
    use bufferbane_store::Severity;

    use super::super::model::Time;
    use super::*;

    #[test]
    fn no_verdict_says_whether_time_would_help() {
        let plain = |ns| no_verdict(ns).replace('\u{a0}', " ");
        assert_eq!(
            plain(24_000_000_000),
            "No verdict yet: probes were sent for 24 s, and it takes 10 min of them to call a line \
             well."
        );
        assert!(plain(verdict::LEAST_NS).contains("no cause"));
    }

    #[test]
    fn a_list_that_is_cut_keeps_the_worst_in_the_order_of_time() {
        let event = |id: u64, severity, seconds: i64| Event {
            id,
            start: Some(Time(id as i64 * 1000)),
            end: Some(Time(id as i64 * 1000 + seconds * 1_000_000_000)),
            kind: "outage".into(),
            severity,
            interface: "eth0".into(),
            target: None,
            direction: None,
            values: Default::default(),
            seen: Vec::new(),
            trains: Vec::new(),
            text: String::new(),
        };
        let events = [
            event(1, Severity::Critical, 5),
            event(2, Severity::Warning, 900),
            event(3, Severity::Info, 9000),
            event(4, Severity::Critical, 2),
            event(5, Severity::Warning, 30),
        ];
        let ids = |most| {
            let (shown, more) = worst(&events, most);
            let ids: Vec<u64> = shown.iter().map(|e| e.id).collect();
            (ids, more.map(|m| m.replace('\u{a0}', " ")))
        };
        assert_eq!(ids(5), (vec![1, 2, 3, 4, 5], None));
        let others = Some("and 2 events more, none of them graver".into());
        assert_eq!(ids(3), (vec![1, 2, 4], others));
    }

    #[test]
    fn a_grade_of_no_delay_has_no_figure() {
        let why = |method, increase_ns| {
            let grade = Grade {
                interface: "eth0".into(),
                direction: "up",
                grade: "A+",
                increase_ns,
                method,
            };
            super::grade(&grade).1.replace('\u{a0}', " ")
        };
        assert_eq!(
            why("test", 0),
            "no added delay even in the worst tenth of the time under load"
        );
        assert!(why("test", 12_000_000).starts_with("12.0 ms more than idle"));
        assert_eq!(
            why("queue", 0),
            "nothing queued even in the worst hundredth of the time"
        );
        assert!(why("queue", 12_000_000).starts_with("12.0 ms queued"));
    }
}
