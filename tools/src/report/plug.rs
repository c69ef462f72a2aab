//! Outages of which this host knows that its own end was down: a cable that was pulled, a radio that was off.

use super::model::{Event, Report, Time};
use super::verdict::is_outage;
use crate::show::stretch;

/// The event of an interface that went down.
pub(super) const LINK_DOWN: &str = "link_down";
/// What brought an outage about is told this much later at most: the kernel says it up to a second late, and an outage
/// is dated to its first lost probe.
const GRAIN_NS: i64 = 5_000_000_000;

/// Whether nothing came through because this end of a cable, or of a radio link in the house, was down: it was so when
/// the outage began, and for most of it. Who restarts a router while the line is dead did not bring that about.
pub(super) fn unplugged(report: &Report, e: &Event) -> bool {
    let (Some(start), end) = (e.start, e.end.unwrap_or(report.to)) else {
        return false;
    };
    if !is_outage(e) || !ends_in_house(report, &e.interface) {
        return false;
    }
    let downs = report.events.iter().filter(|d| is_down_in(d, e, report.to));
    let mut spans: Vec<(i64, i64)> = downs.flat_map(|d| spells(d, report.to)).collect();
    spans.retain(|(from, until)| *from <= end.0 && *until >= start.0);
    spans.sort_unstable();
    let Some(first) = spans.first_mut() else {
        return false;
    };
    if first.0 > start.0.saturating_add(GRAIN_NS) {
        return false;
    }
    first.0 = start.0;
    // What overlaps counts once.
    let (mut covered_ns, mut until) = (0u64, start.0);
    for (from, to) in spans {
        let (from, to) = (from.max(until), to.min(end.0));
        if from < to {
            covered_ns = covered_ns.saturating_add(to.abs_diff(from));
            until = to;
        }
    }
    covered_ns > start.0.abs_diff(end.0) / 2
}

/// From when to when it was as an event says, ns since 1970: of one that came and went, each time; of moments that are one
/// event, the first and the last. `to` is the end of what lasts.
pub(crate) fn spells(e: &Event, to: Time) -> Vec<(i64, i64)> {
    let Some(start) = e.start else {
        return Vec::new();
    };
    let end = e.end.unwrap_or(to).0;
    let Some(spells) = e.values.get("spells").and_then(|s| s.as_array()) else {
        return match e.values.contains_key("times") {
            true => vec![(start.0, start.0), (end, end)],
            false => vec![(start.0, end)],
        };
    };
    let edge = |s: &serde_json::Value, n: usize| {
        let since_start = s.get(n).and_then(serde_json::Value::as_i64)?;
        Some(start.0.saturating_add(since_start).min(end))
    };
    let both = |s| Some((edge(s, 0)?, edge(s, 1).unwrap_or(end)));
    spells.iter().filter_map(both).collect()
}

/// How long an event lasted, in words, once it is over: *17.3 s within 6 min 27 s* of what came and went.
pub(super) fn lasted(e: &Event) -> Option<String> {
    let all_ns = e.duration_ns()?;
    let each = spells(e, e.end?);
    let sum_ns: u64 = each.iter().map(|(from, to)| to.abs_diff(*from)).sum();
    Some(match each.len() > 1 && sum_ns > 0 {
        true => format!("{} within {}", stretch(sum_ns), stretch(all_ns)),
        false => stretch(all_ns),
    })
}

/// Whether what an interface is joined to is in the house, as far as its kind says: a PPP session, say, ends at the
/// provider.
pub(super) fn ends_in_house(report: &Report, interface: &str) -> bool {
    let mut series = report.series.iter().filter(|s| s.interface == interface);
    series.any(|s| ["wired", "wifi"].contains(&s.interface_kind.as_str()))
}

/// Whether `d` says that the interface of `e` was down at some time of it.
pub(super) fn is_down_in(d: &Event, e: &Event, to: Time) -> bool {
    d.kind == LINK_DOWN
        && d.interface == e.interface
        && d.start <= Some(e.end.unwrap_or(to))
        && Some(d.end.unwrap_or(to)) >= e.start
}

#[cfg(test)]
mod tests {
    use super::super::testing::{event, report, series};
    use super::*;

    /// The last of the events is the outage.
    fn is_unplugged(kind: &str, spans: &[(i64, Option<i64>)]) -> bool {
        let (outage, downs) = spans.split_last().unwrap();
        let mut events: Vec<Event> = downs
            .iter()
            .map(|(from_s, to_s)| event(LINK_DOWN, &[], *from_s, *to_s))
            .collect();
        events.push(event("outage", &["vienna"], outage.0, outage.1));
        let mut s = series("vienna", 1000, 0);
        s.interface_kind = kind.into();
        let r = report(vec![s], events);
        unplugged(&r, r.events.last().unwrap())
    }

    #[test]
    fn what_came_and_went_lasted_as_long_as_its_spells() {
        let s = 1_000_000_000_i64;
        let mut e = event("reflector_lost", &[], 100, Some(170));
        assert_eq!(lasted(&e).as_deref(), Some("70\u{a0}s"));
        let each = serde_json::json!([[0, 10 * s], [60 * s, 70 * s]]);
        e.values.insert("spells".into(), each);
        assert_eq!(lasted(&e).as_deref(), Some("20\u{a0}s within 70\u{a0}s"));
        // Moments: the first and the last are known.
        let mut e = event("reflector_back", &[], 100, Some(170));
        e.values.insert("times".into(), 3.into());
        assert_eq!(
            spells(&e, Time(0)),
            [(100 * s, 100 * s), (170 * s, 170 * s)]
        );
        assert_eq!(lasted(&e).as_deref(), Some("70\u{a0}s"));
    }

    #[test]
    fn a_router_that_is_restarted_in_an_outage_did_not_bring_it_about() {
        let dead = (18 * 3600, Some(21 * 3600));
        let restart = (dead.0 + 1800, Some(dead.0 + 1840));
        assert!(!is_unplugged("wired", &[restart, dead]));
        // Nor if that was the first thing to be tried, nor if it was pulled long after and left so.
        assert!(!is_unplugged(
            "wired",
            &[(dead.0 + 2, Some(dead.0 + 42)), dead]
        ));
        assert!(!is_unplugged("wired", &[(dead.0 + 60, dead.1), dead]));
        assert!(!is_unplugged("wired", &[dead]));
    }

    #[test]
    fn a_cable_that_is_pulled_is_in_the_house() {
        let dead = (18 * 3600, Some(18 * 3600 + 60));
        assert!(is_unplugged(
            "wired",
            &[(dead.0 + 1, Some(dead.0 + 58)), dead]
        ));
        assert!(!is_unplugged(
            "ppp",
            &[(dead.0 + 1, Some(dead.0 + 58)), dead]
        ));
        // A short one, which the kernel tells late.
        assert!(is_unplugged("wifi", &[(101, Some(102)), (100, Some(101))]));
        // It lasts.
        assert!(is_unplugged("wired", &[(dead.0, None), (dead.0, None)]));
        // A plug that is loose, told as one event, and outages with one of its spells and between them.
        let loose = |outage_s: (i64, i64)| {
            let mut down = event(LINK_DOWN, &[], 100, Some(170));
            let spells = serde_json::json!([[0, 10_000_000_000_i64], [60_000_000_000_i64, null]]);
            down.values.insert("spells".into(), spells);
            let outage = event("outage", &["vienna"], outage_s.0, Some(outage_s.1));
            let mut s = series("vienna", 1000, 0);
            s.interface_kind = "wired".into();
            let r = report(vec![s], vec![down, outage]);
            unplugged(&r, &r.events[1])
        };
        assert!(loose((100, 110)) && loose((160, 171)));
        assert!(!loose((130, 145)));
        // A plug that is loose: often, and together for most of it; what overlaps counts once.
        let loose = |n: i64| (dead.0 + n * 15, Some(dead.0 + n * 15 + 9));
        assert!(is_unplugged(
            "wired",
            &[loose(0), loose(1), loose(2), loose(3), dead]
        ));
        assert!(!is_unplugged(
            "wired",
            &[loose(0), loose(0), loose(1), loose(1), dead]
        ));
    }
}
