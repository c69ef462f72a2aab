//! What the uplinks carried, and what they can carry.

use std::collections::BTreeMap;

use bufferbane_core::household::{Class, Minute, MinuteWay};
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_store::{Reader, StoreError, Window};
use serde_json::{Value, json};

use crate::args::Selection;
use crate::when::{Range, rfc3339};

/// `load`: the rates of each interface's seconds, and queueing delay by what the line carried.
pub(crate) fn load(
    reader: &Reader,
    selection: &Selection,
    range: Range,
) -> Result<Vec<Value>, StoreError> {
    // Each interface's minutes: how many, and what they come to.
    let mut lines: BTreeMap<String, (u64, Minute)> = BTreeMap::new();
    reader.load(
        Window::Hour,
        range.from_ns,
        range.to_ns,
        |interface, load| {
            if !is_wanted(selection, interface) {
                return Ok(());
            }
            let (minutes, sum) = lines.entry(interface.to_owned()).or_default();
            *minutes += load.minutes;
            load.add_to(sum)
        },
    )?;
    let one = |(interface, (minutes, sum)): (String, (u64, Minute))| {
        json!({
            "interface": interface,
            // What was found out last is what is known best.
            "sees_household": sum.sees_household,
            "minutes": minutes,
            "up_bps": spread(&sum.up.rate_bps),
            "down_bps": spread(&sum.down.rate_bps),
            "queue_up_ns": queues(&sum.up),
            "queue_down_ns": queues(&sum.down),
            "standing_up_ns": u64::from(sum.up.standing_s) * 1_000_000_000,
            "standing_down_ns": u64::from(sum.down.standing_s) * 1_000_000_000,
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
