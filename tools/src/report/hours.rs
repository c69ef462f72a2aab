//! What the line carried by hour of the day: an evening in which everybody's share is small is seen without a test.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::model::Report;
use crate::loads::rate;
use crate::show::{clean, plural};

/// Estimates that are less sure than this say little of the line.
const SURE: f64 = 0.5;
/// Of fewer hours there is nothing to compare.
const HOURS: usize = 3;
/// Where the worst hour is below the best one by less than this part of it, none is worth a name.
const ALIKE_PART: u64 = 20;

/// A sentence for each direction of each interface of which enough hours are known.
pub(crate) fn lines(report: &Report, zone: &TimeZone) -> Vec<String> {
    let mut ways: BTreeMap<(String, String), [Vec<u64>; 24]> = BTreeMap::new();
    for (way, hour, bps) in report.capacity.iter().filter_map(|c| estimate(c, zone)) {
        if let Some(found) = ways.entry(way).or_default().get_mut(hour) {
            found.push(bps);
        }
    }
    let told = ways
        .into_iter()
        .filter_map(|((interface, direction), hours)| {
            Some(format!(
                "{} {direction}: {}",
                clean(&interface),
                sentence(hours)?
            ))
        });
    told.collect()
}

/// Of which interface and direction, in which hour, and what it carried.
fn estimate(c: &Value, zone: &TimeZone) -> Option<((String, String), usize, u64)> {
    let at: Timestamp = c["at"].as_str()?.parse().ok()?;
    let hour = usize::try_from(at.to_zoned(zone.clone()).hour()).ok()?;
    // What goes on passing; a burst where nobody looked for long enough.
    let bps = c["sustained_bps"].as_u64().or(c["burst_bps"].as_u64())?;
    let word = |key: &str| Some(c[key].as_str()?.to_owned());
    let way = (word("interface")?, word("direction")?);
    (c["confidence"].as_f64()? >= SURE).then_some((way, hour, bps))
}

fn sentence(hours: [Vec<u64>; 24]) -> Option<String> {
    let medians: Vec<(usize, u64, usize)> = hours
        .into_iter()
        .enumerate()
        .filter_map(|(hour, mut found)| {
            found.sort_unstable();
            let upper = *found.get(found.len() / 2)?;
            let lower = found[(found.len() - 1) / 2];
            Some((hour, u64::midpoint(lower, upper), found.len()))
        })
        .collect();
    if medians.len() < HOURS {
        return None;
    }
    let least = medians.iter().min_by_key(|m| m.1)?;
    let most = medians.iter().max_by_key(|m| m.1)?;
    if most.1 - least.1 <= most.1 / ALIKE_PART {
        return Some(format!(
            "about {} in each of {} hours that are known",
            rate(u64::midpoint(least.1, most.1)),
            medians.len()
        ));
    }
    let word = |m: &(usize, u64, usize)| {
        let of = plural(m.2 as u64, "estimate", "estimates");
        format!("{} from {:02}:00 ({of})", rate(m.1), m.0)
    };
    let each: Vec<String> = medians
        .iter()
        .map(|(hour, bps, _)| format!("{hour:02}h\u{a0}{}", mbit(*bps)))
        .collect();
    Some(format!(
        "most {}, least {}; median of each hour in Mbit/s: {}",
        word(most),
        word(least),
        each.join(", ")
    ))
}

fn mbit(bps: u64) -> String {
    let mbit = bps as f64 / 1e6;
    let digits = if mbit < 10.0 { 2 } else { 1 };
    format!("{mbit:.digits$}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::report;
    use super::*;

    fn estimate(at: &str, bps: u64, confidence: f64) -> Value {
        json!({
            "at": at, "interface": "eth0", "direction": "up", "method": "passive",
            "burst_bps": bps, "sustained_bps": null, "confidence": confidence,
        })
    }

    #[test]
    fn an_evening_that_carries_less_is_seen_and_unsure_estimates_are_not() {
        let mut r = report(Vec::new(), Vec::new());
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        r.capacity = vec![
            estimate("2026-03-01T02:10:00Z", 9_800_000, 0.9),
            estimate("2026-03-02T02:50:00Z", 9_600_000, 0.9),
            estimate("2026-03-01T18:00:00Z", 4_000_000, 0.9),
            estimate("2026-03-02T18:59:59Z", 4_400_000, 0.6),
            estimate("2026-03-01T18:30:00Z", 90_000, 0.3),
        ];
        // Two hours are none to compare.
        assert_eq!(lines(&r, &zone), Vec::<String>::new());
        let mut even = report(Vec::new(), Vec::new());
        even.capacity = vec![
            estimate("2026-03-01T02:10:00Z", 10_200_000, 0.9),
            estimate("2026-03-01T03:10:00Z", 10_000_000, 0.9),
            estimate("2026-03-01T04:10:00Z", 9_800_000, 0.9),
        ];
        assert_eq!(
            lines(&even, &zone),
            ["eth0 up: about 10.0 Mbit/s in each of 3 hours that are known"]
        );
        let mut bucket = estimate("2026-03-01T10:00:00Z", 40_000_000, 0.8);
        bucket["sustained_bps"] = 12_000_000.into();
        r.capacity.push(bucket);
        let said = lines(&r, &zone).concat().replace('\u{a0}', " ");
        assert_eq!(
            said,
            "eth0 up: most 12.0 Mbit/s from 12:00 (1 estimate), least 4.2 Mbit/s from 20:00 (2 estimates); \
             median of each hour in Mbit/s: 04h 9.70, 12h 12.0, 20h 4.20"
        );
    }
}
