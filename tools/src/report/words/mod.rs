//! What every format for people says in the same words.

mod facts;
mod own;
mod series;

use bufferbane_store::Severity;
use jiff::tz::TimeZone;

pub(crate) use facts::facts;
pub(crate) use own::{HOW_MEASURED, health};
pub(crate) use series::{loss_of, oddities, stamps_of};

use super::compare::Change;
use super::model::{Compared, Event, Grade, Report, Verdict};
use super::outages::Outages;
use super::verdict;
use crate::show::{delay, percent, plural, stretch};
use crate::when;

/// The first verdict, or why there is none, and a line for each of the others and for what speaks for
/// the first.
pub(crate) fn verdict(report: &Report) -> (String, Vec<String>) {
    let (of_line, beside) = verdict::of_line(report);
    let also = |v: &&Verdict| format!("Also: {}", v.text);
    let also_beside = beside.iter().map(also);
    let Some((first, others)) = of_line.split_first() else {
        let mut said = no_verdict(verdict::watched_ns(report));
        let is_grave = |e: &&Event| e.severity > Severity::Info;
        match report.events.iter().filter(is_grave).count() as u64 {
            0 => {}
            n => {
                let warnings = plural(n, "warning", "warnings");
                let say = if n == 1 { "says" } else { "say" };
                said.push_str(&format!(
                    " {warnings} among the events {say} what was seen so far."
                ));
            }
        }
        return (said, also_beside.collect());
    };
    let mut lines = first.evidence.clone();
    lines.extend(others.iter().map(also));
    lines.extend(also_beside);
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

/// What follows those that a sentence spells out.
fn more_times(n: usize) -> String {
    format!("and {}", plural(n as u64, "more time", "more times"))
}

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

#[cfg(test)]
mod tests {
    use super::super::model::Time;
    use super::super::testing;
    use super::*;

    #[test]
    fn one_more_is_no_plural() {
        assert_eq!(more_times(1), "and 1\u{a0}more time");
        assert_eq!(more_times(2), "and 2\u{a0}more times");
    }

    #[test]
    fn no_verdict_says_whether_time_would_help() {
        let plain = |ns| no_verdict(ns).replace('\u{a0}', " ");
        assert_eq!(
            plain(24_000_000_000),
            "No verdict yet: probes were sent for 24 s, and it takes 10 min of them to call a line \
             well."
        );
        assert!(plain(verdict::LEAST_NS).contains("no cause"));
        let warned = testing::event("not_probed", &["six"], 10, None);
        let told = |events| {
            let r = testing::report(vec![testing::series("four", 20, 0)], events);
            verdict(&r).0.replace('\u{a0}', " ")
        };
        assert!(
            told(vec![warned]).ends_with(" 1 warning among the events says what was seen so far.")
        );
        assert!(told(Vec::new()).ends_with("to call a line well."));
        let mut expired = testing::event("certificate_bad", &["shop"], 10, None);
        expired.text = "shop: certificate expired".into();
        let mut elsewhere = expired.clone();
        elsewhere.interface = "wwan0".into();
        let events = vec![expired, elsewhere];
        let mut r = testing::report(vec![testing::series("four", 20, 0)], events);
        r.verdicts = verdict::verdicts(&r, &TimeZone::UTC);
        let (first, also) = verdict(&r);
        assert!(first.starts_with("No verdict yet"), "{first}");
        assert_eq!(also, ["Also: shop: certificate expired"]);
        // For programs it is a cause of its own.
        let told = &r.verdicts[0];
        assert_eq!((r.verdicts.len(), told.cause), (1, "certificate"));
        assert_eq!((told.interface.as_str(), told.evidence.len()), ("", 2));
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
            close_looks: Vec::new(),
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
