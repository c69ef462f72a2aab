//! Events, and when each of them was over: by that they are found without reading all there are, and given up.

use std::collections::BTreeSet;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use crate::codec::{from_json, to_json};
use crate::error::StoreError;
use crate::model::{Event, EventId};
use crate::reader::Reader;
use crate::retention::row_bytes;
use crate::tables::{EVENT_TIMES, EVENTS, EventTime, META};

/// The first schema whose files have every event in `event_times`.
const INDEXED: u64 = 8;
/// In place of the end of an event that lasts.
const LASTS: u64 = u64::MAX;
/// Bytes of the file that an event's row of `event_times` takes.
const TIME_BYTES: u64 = row_bytes(8);

fn end_of(event: &Event) -> u64 {
    event.end_ns.unwrap_or(LASTS)
}

impl Reader {
    /// The events that touch `[from, to)` of wall time, ns since 1970, by id. Those of boots without a clock are
    /// included. Others are not read.
    ///
    /// # Errors
    /// When the file cannot be read, or one of these events.
    pub fn events(&self, from_ns: i64, to_ns: i64) -> Result<Vec<(EventId, Event)>, StoreError> {
        let tx = self.read()?;
        let map = self.time_map();
        let touches = |boot, start_ns, end_ns| {
            let start = map.wall_ns(boot, start_ns);
            let end = match end_ns {
                LASTS => None,
                ns => map.wall_ns(boot, ns),
            };
            start.is_none_or(|s| s < to_ns) && end.is_none_or(|e| e >= from_ns)
        };
        let rows = tx.open_table(EVENTS)?;
        let mut events = Vec::new();
        if !is_indexed(&tx)? {
            for row in rows.iter()? {
                let (id, json) = row?;
                let event: Event = from_json(json.value())?;
                if touches(event.boot, event.start_ns, end_of(&event)) {
                    events.push((EventId(id.value()), event));
                }
            }
            return Ok(events);
        }
        let times = tx.open_table(EVENT_TIMES)?;
        let later = map.clip(from_ns, i64::MAX);
        let mut ids = BTreeSet::new();
        for boot in boots(&times)? {
            // Clocks that were set may have gone there more than once.
            let of_boot = later.iter().filter(|s| s.boot == boot);
            let first = of_boot.map(|s| s.from_ns).min();
            let known = map.boots().any(|b| b == boot);
            let first = first.unwrap_or(if known { LASTS } else { 0 });
            for row in times.range((boot, first, 0)..=(boot, LASTS, u64::MAX))? {
                let (key, start) = row?;
                let (_, end_ns, id) = key.value();
                if touches(boot, start.value(), end_ns) {
                    ids.insert(id);
                }
            }
        }
        for id in ids {
            if let Some(json) = rows.get(id)? {
                events.push((EventId(id), from_json(json.value())?));
            }
        }
        Ok(events)
    }
}

/// Whether all events are in `event_times`. A copy of an earlier file has the table, too.
fn is_indexed(tx: &ReadTransaction) -> Result<bool, StoreError> {
    let schema = tx.open_table(META)?.get("schema")?.map(|v| v.value());
    Ok(schema.is_some_and(|n| n >= INDEXED))
}

/// The boots that there are events of.
fn boots(times: &impl ReadableTable<EventTime, u64>) -> Result<Vec<u32>, StoreError> {
    let mut found = Vec::new();
    let mut from = Some(0);
    while let Some(boot) = from {
        let Some((key, _)) = times.range((boot, 0, 0)..)?.next().transpose()? else {
            break;
        };
        let boot = key.value().0;
        found.push(boot);
        from = boot.checked_add(1);
    }
    Ok(found)
}

/// Writes events, in place of what they were before.
pub(crate) fn write<'a>(
    tx: &WriteTransaction,
    events: impl Iterator<Item = (&'a EventId, &'a Event)>,
) -> Result<(), StoreError> {
    let mut rows = tx.open_table(EVENTS)?;
    let mut times = tx.open_table(EVENT_TIMES)?;
    for (id, event) in events {
        put(&mut rows, &mut times, id.0, event)?;
    }
    Ok(())
}

fn put(
    rows: &mut Table<'_, u64, &'static [u8]>,
    times: &mut Table<'_, EventTime, u64>,
    id: u64,
    event: &Event,
) -> Result<(), StoreError> {
    let before = rows.insert(id, to_json(event)?.as_slice())?;
    // What cannot be read must not end recording; what it was known by then finds the event twice, which is once.
    if let Some(Ok(before)) = before.map(|json| from_json::<Event>(json.value())) {
        times.remove((before.boot, end_of(&before), id))?;
    }
    times.insert((event.boot, end_of(event), id), event.start_ns)?;
    Ok(())
}

/// Enters the events of a file whose schema was `found`, where it has them by number only.
pub(crate) fn index(tx: &WriteTransaction, found: u64) -> Result<(), StoreError> {
    if found >= INDEXED {
        return Ok(());
    }
    let mut times = tx.open_table(EVENT_TIMES)?;
    times.retain(|_, _| false)?;
    for row in tx.open_table(EVENTS)?.iter()? {
        let (id, json) = row?;
        let event: Event = from_json(json.value())?;
        times.insert((event.boot, end_of(&event), id.value()), event.start_ns)?;
    }
    Ok(())
}

/// The number of the next event: one more than any that there has been, of those given up as well.
pub(crate) fn next_number(tx: &WriteTransaction) -> Result<u64, StoreError> {
    let told = tx.open_table(META)?.get(NEXT)?.map_or(0, |n| n.value());
    let last = tx.open_table(EVENTS)?.last()?.map(|(id, _)| id.value());
    Ok(told.max(last.map_or(0, |id| id + 1)))
}

/// See [`next_number`]; written when events are given up.
const NEXT: &str = "next_event";

/// Ends each event that lasts at the instant `end_ns` of its boot, ns since boot, or its start if that is later.
pub(crate) fn end_all(
    tx: &WriteTransaction,
    mut end_ns: impl FnMut(u32) -> Result<u64, StoreError>,
) -> Result<(), StoreError> {
    let mut rows = tx.open_table(EVENTS)?;
    let mut times = tx.open_table(EVENT_TIMES)?;
    for boot in boots(&times)? {
        let lasting: Vec<u64> = times
            .range((boot, LASTS, 0)..=(boot, LASTS, u64::MAX))?
            .map(|row| row.map(|(key, _)| key.value().2))
            .collect::<Result<_, _>>()?;
        if lasting.is_empty() {
            continue;
        }
        let end_ns = end_ns(boot)?;
        for id in lasting {
            let event = rows.get(id)?.map(|json| from_json::<Event>(json.value()));
            let Some(mut event) = event.transpose()? else {
                continue;
            };
            event.cut_at(end_ns);
            put(&mut rows, &mut times, id, &event)?;
        }
    }
    Ok(())
}

/// Gives up events that were over in each boot before its instant, ns since boot, at most `most` of them, and gives
/// how many went. `next` is the number of the next event.
pub(crate) fn forget(
    tx: &WriteTransaction,
    ends: &[(u32, u64)],
    most: u64,
    next: u64,
) -> Result<u64, StoreError> {
    let mut keys = Vec::new();
    {
        let times = tx.open_table(EVENT_TIMES)?;
        for (boot, end) in ends {
            for row in times.range((*boot, 0, 0)..(*boot, *end, 0))? {
                if keys.len() as u64 == most {
                    break;
                }
                keys.push(row?.0.value());
            }
        }
    }
    remove(tx, &keys, next)?;
    Ok(keys.len() as u64)
}

/// Gives up events that are over, the oldest boot's first and of each boot by their end, until `bytes` of the file
/// are free or `most` went; gives how many bytes are, and how many went. `next` is the number of the next event.
pub(crate) fn forget_oldest(
    tx: &WriteTransaction,
    bytes: u64,
    most: u64,
    next: u64,
) -> Result<(u64, u64), StoreError> {
    let (mut freed, mut keys) = (0, Vec::new());
    {
        let rows = tx.open_table(EVENTS)?;
        let times = tx.open_table(EVENT_TIMES)?;
        for row in times.iter()? {
            if freed >= bytes || keys.len() as u64 == most {
                break;
            }
            let key = row?.0.value();
            if key.1 == LASTS {
                continue;
            }
            let json = rows.get(key.2)?;
            freed += TIME_BYTES + json.map_or(0, |json| row_bytes(json.value().len() as u64));
            keys.push(key);
        }
    }
    remove(tx, &keys, next)?;
    Ok((freed, keys.len() as u64))
}

fn remove(tx: &WriteTransaction, keys: &[EventTime], next: u64) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    tx.open_table(META)?.insert(NEXT, next)?;
    let mut rows = tx.open_table(EVENTS)?;
    let mut times = tx.open_table(EVENT_TIMES)?;
    for key in keys {
        rows.remove(key.2)?;
        times.remove(*key)?;
    }
    Ok(())
}

/// Bytes of the file that `event_times` takes, estimated.
pub(crate) fn times_bytes(tx: &WriteTransaction) -> Result<u64, StoreError> {
    Ok(tx.open_table(EVENT_TIMES)?.len()? * TIME_BYTES)
}

/// Reads all events, and whether each is found by its time; gives how many there are.
pub(crate) fn check(tx: &ReadTransaction) -> Result<u64, StoreError> {
    let rows = tx.open_table(EVENTS)?;
    let times = if is_indexed(tx)? {
        Some(tx.open_table(EVENT_TIMES)?)
    } else {
        None
    };
    for row in rows.iter()? {
        let (id, json) = row?;
        let event: Event = from_json(json.value())?;
        let Some(times) = &times else { continue };
        let entry = times.get((event.boot, end_of(&event), id.value()))?;
        if entry.map(|start| start.value()) != Some(event.start_ns) {
            let what = format!("event {} is not in event_times", id.value());
            return Err(StoreError::Damaged(what));
        }
    }
    Ok(rows.len()?)
}

#[cfg(test)]
mod tests;
