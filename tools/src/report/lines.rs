//! What the uplinks carried, and what they can carry.

use std::collections::BTreeMap;

use bufferbane_core::household::{Class, MinuteWay};
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_store::{Reader, StoreError};
use serde_json::{Value, json};

use crate::args::Selection;
use crate::when::{Range, rfc3339};

/// One interface over the range.
#[derive(Default)]
struct Line {
    sees_household: bool,
    minutes: u64,
    up: MinuteWay,
    down: MinuteWay,
}

/// `load`: the rates of each interface's seconds, and queueing delay by what the line carried.
pub(crate) fn load(
    reader: &Reader,
    selection: &Selection,
    range: Range,
) -> Result<Vec<Value>, StoreError> {
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    reader.load_minutes(range.from_ns, range.to_ns, |_, interface, minute| {
        if is_wanted(selection, interface) {
            let line = lines.entry(interface.to_owned()).or_default();
            // What was found out last is what is known best.
            line.sees_household = minute.sees_household;
            line.minutes += 1;
            line.up.merge(&minute.up);
            line.down.merge(&minute.down);
        }
    })?;
    let one = |(interface, line): (String, Line)| {
        json!({
            "interface": interface,
            "sees_household": line.sees_household,
            "minutes": line.minutes,
            "up_bps": spread(&line.up.rate_bps),
            "down_bps": spread(&line.down.rate_bps),
            "queue_up_ns": queues(&line.up),
            "queue_down_ns": queues(&line.down),
            "standing_up_ns": u64::from(line.up.standing_s) * 1_000_000_000,
            "standing_down_ns": u64::from(line.down.standing_s) * 1_000_000_000,
        })
    };
    Ok(lines.into_iter().map(one).collect())
}

/// `capacity`: what each direction was found to carry, and how.
pub(crate) fn capacity(
    reader: &Reader,
    selection: &Selection,
    range: Range,
) -> Result<Vec<Value>, StoreError> {
    let rows = reader.capacities(range.from_ns, range.to_ns)?;
    let wanted = rows
        .into_iter()
        .filter(|(_, c)| is_wanted(selection, &c.interface));
    let one = |(at, c): (i64, bufferbane_store::Capacity)| {
        let mut value = json!(c);
        value["at"] = json!(rfc3339(at));
        value
    };
    Ok(wanted.map(one).collect())
}

fn is_wanted(selection: &Selection, interface: &str) -> bool {
    let asked = selection.interface.as_deref();
    asked.is_none_or(|asked| asked == interface)
}

fn queues(way: &MinuteWay) -> Value {
    json!({
        "idle": spread(way.queue(Class::Idle)),
        "part": spread(way.queue(Class::Part)),
        "full": spread(way.queue(Class::Full)),
    })
}

fn spread(h: &Histogram) -> Value {
    json!({
        "count": h.count(),
        "min": h.min(),
        "p50": h.quantile(0.5),
        "p90": h.quantile(0.9),
        "p95": h.quantile(0.95),
        "p99": h.quantile(0.99),
        "max": h.max(),
    })
}
