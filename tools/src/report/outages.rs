//! Outages by interface and day, from the events that say when nothing answered.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::model::{Event, Time};
use super::plug::spells;
use crate::when;

/// The kinds of event through which nothing came.
const KINDS: [&str; 3] = ["outage", "micro_outage", "link_down"];

/// The outages of one interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Outages {
    /// The interface; empty where the host itself was cut off.
    pub(crate) interface: String,
    /// How many.
    pub(crate) count: u64,
    /// Together; outages that overlap count once.
    pub(crate) total_ns: u64,
    /// When the longest began.
    pub(crate) longest_from: Time,
    /// When it ended.
    pub(crate) longest_to: Time,
    /// How long it was.
    pub(crate) longest_ns: u64,
    /// Each day on which one began.
    pub(crate) days: Vec<Day>,
}

/// The outages that began on one day.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Day {
    /// `2026-05-01`, in the zone of the report.
    pub(crate) date: String,
    /// How many.
    pub(crate) count: u64,
    /// Together.
    pub(crate) total_ns: u64,
    /// The longest.
    pub(crate) longest_ns: u64,
}

/// Counts them between `from` and `to`; what lasts longer is cut there.
pub(crate) fn count<'a>(
    events: impl IntoIterator<Item = &'a Event>,
    from: Time,
    to: Time,
    zone: &TimeZone,
) -> Vec<Outages> {
    let mut by_interface: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    let dead = events
        .into_iter()
        .filter(|e| KINDS.contains(&e.kind.as_str()));
    for e in dead {
        for (start, end) in spells(e, to) {
            let (a, b) = (start.max(from.0), end.min(to.0));
            if a < b {
                by_interface.entry(&e.interface).or_default().push((a, b));
            }
        }
    }
    by_interface
        .into_iter()
        .map(|(interface, spans)| of(interface, joined(spans), zone))
        .collect()
}

/// Spans that overlap are one.
pub(super) fn joined(mut spans: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    spans.sort_unstable();
    let mut out: Vec<(i64, i64)> = Vec::new();
    for (a, b) in spans {
        match out.last_mut() {
            Some(last) if a <= last.1 => last.1 = last.1.max(b),
            _ => out.push((a, b)),
        }
    }
    out
}

fn of(interface: &str, spans: Vec<(i64, i64)>, zone: &TimeZone) -> Outages {
    let mut days: BTreeMap<String, Day> = BTreeMap::new();
    let mut total_ns = 0;
    for (a, b) in &spans {
        let length = b.abs_diff(*a);
        total_ns += length;
        let date = when::zoned(*a, zone).date().to_string();
        let day = days.entry(date.clone()).or_default();
        day.date = date;
        day.count += 1;
        day.total_ns += length;
        day.longest_ns = day.longest_ns.max(length);
    }
    let longest = spans
        .iter()
        .copied()
        .max_by_key(|(a, b)| b.abs_diff(*a))
        .unwrap_or_default();
    Outages {
        interface: interface.to_owned(),
        count: spans.len() as u64,
        total_ns,
        longest_from: Time(longest.0),
        longest_to: Time(longest.1),
        longest_ns: longest.1.abs_diff(longest.0),
        days: days.into_values().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_store::Severity;

    const S: i64 = 1_000_000_000;

    fn event(kind: &str, from_s: i64, to_s: Option<i64>) -> Event {
        Event {
            id: 0,
            kind: kind.into(),
            severity: Severity::Critical,
            interface: "eth0".into(),
            target: None,
            direction: None,
            start: Some(Time(from_s * S)),
            end: to_s.map(|s| Time(s * S)),
            values: serde_json::Map::new(),
            text: String::new(),
            seen: Vec::new(),
            trains: Vec::new(),
            close_looks: Vec::new(),
        }
    }

    #[test]
    fn what_overlaps_is_one_and_each_day_has_its_own() {
        let day = 86_400;
        let events = [
            event("outage", 100, Some(160)),
            event("link_down", 150, Some(170)),
            event("packet_loss", 300, Some(900)),
            event("micro_outage", day + 5, Some(day + 7)),
            event("outage", 3 * day - 10, None),
        ];
        let all = count(&events, Time(0), Time(3 * day * S), &TimeZone::UTC);
        assert_eq!(all.len(), 1);
        let o = &all[0];
        assert_eq!((o.count, o.total_ns), (3, 82_000_000_000));
        assert_eq!(
            (o.longest_from, o.longest_ns),
            (Time(100 * S), 70_000_000_000)
        );
        let days: Vec<(&str, u64)> = o.days.iter().map(|d| (d.date.as_str(), d.count)).collect();
        assert_eq!(
            days,
            [("1970-01-01", 1), ("1970-01-02", 1), ("1970-01-03", 1)]
        );
        // Down twice within a minute, for three seconds together.
        let mut flaps = event("link_down", 100, Some(160));
        let spells = serde_json::json!([[0, 1_000_000_000_i64], [58 * S, 60 * S]]);
        flaps.values.insert("spells".into(), spells);
        let all = count(&[flaps], Time(0), Time(3 * day * S), &TimeZone::UTC);
        assert_eq!((all[0].count, all[0].total_ns), (2, 3_000_000_000));
    }
}
