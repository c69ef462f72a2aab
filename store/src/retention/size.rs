//! How much of the file data takes, without reading it: tables know how many rows they have, and a
//! few rows of each stretch tell how large those are.

use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};

use crate::error::StoreError;
use crate::events;
use crate::tables::{
    BLOCKS, CABLE, CAPACITY, ECHOES, ESCALATIONS, EVENTS, FLOORS, HEALTH, HEALTH_HOURS, HOURS,
    LOAD, LOAD_HOURS, MINUTES, PATHS, SIZES, SeriesTime, TESTS,
};

/// Stretches of a table of which rows are looked at.
const STRETCHES: usize = 64;

/// Rows that are looked at at either end of one.
const ROWS: usize = 4;

/// The rows of one series in one boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) series: u32,
    pub(super) boot: u32,
    /// Where the first row begins, ns since boot.
    pub(super) first: u64,
    /// Where the last one does.
    pub(super) last: u64,
}

/// All stretches of a table, found by their ends.
pub(super) fn stretches(
    table: &impl ReadableTable<SeriesTime, &'static [u8]>,
) -> Result<Vec<Stretch>, StoreError> {
    let mut found = Vec::new();
    let mut from = (0, 0, 0);
    while let Some((key, _)) = table.range(from..)?.next().transpose()? {
        let (series, boot, first) = key.value();
        let end = (series, boot, u64::MAX);
        let last = table
            .range((series, boot, first)..=end)?
            .next_back()
            .transpose()?
            .map_or(first, |(key, _)| key.value().2);
        found.push(Stretch {
            series,
            boot,
            first,
            last,
        });
        from = end;
        if last == u64::MAX {
            break;
        }
    }
    Ok(found)
}

/// Bytes of the file that a row takes whose value has `value` bytes: a page of its own, the next power of two,
/// where it is large; else a share of one that is two thirds full.
pub(crate) const fn row_bytes(value: u64) -> u64 {
    let row = value + 32;
    if row > 2048 {
        let page = row.next_power_of_two();
        if page < 4096 { 4096 } else { page }
    } else {
        row + row / 2
    }
}

/// Bytes of the file that data takes, estimated.
pub(super) fn used_bytes(tx: &WriteTransaction) -> Result<u64, StoreError> {
    let mut used = 0;
    for table in [BLOCKS, MINUTES, HOURS, FLOORS] {
        used += of_series(&tx.open_table(table)?)?;
    }
    used += of_rows(tx, TESTS)?;
    used += of_rows(tx, HEALTH)?;
    used += of_rows(tx, HEALTH_HOURS)?;
    used += of_rows(tx, CAPACITY)?;
    used += of_rows(tx, LOAD)?;
    used += of_rows(tx, LOAD_HOURS)?;
    used += of_rows(tx, CABLE)?;
    Ok(used + events_bytes(tx)? + paths_bytes(tx)?)
}

/// The same of events.
pub(super) fn events_bytes(tx: &WriteTransaction) -> Result<u64, StoreError> {
    Ok(of_rows(tx, EVENTS)? + events::times_bytes(tx)?)
}

/// The same of ways to targets, looks at them, the sizes that pass, and close looks.
pub(super) fn paths_bytes(tx: &WriteTransaction) -> Result<u64, StoreError> {
    let tables = [PATHS, ESCALATIONS, SIZES, ECHOES];
    tables.into_iter().map(|table| of_rows(tx, table)).sum()
}

/// Of a table by series: each stretch has rows of its own size and frequency.
fn of_series(table: &Table<'_, SeriesTime, &'static [u8]>) -> Result<u64, StoreError> {
    let all = stretches(table)?;
    let (mut rows, mut bytes) = (0.0, 0.0);
    for s in all.iter().step_by(all.len().div_ceil(STRETCHES).max(1)) {
        let whole = (s.series, s.boot, s.first)..=(s.series, s.boot, s.last);
        let (mut seen, mut seen_bytes, mut gaps, mut gaps_ns) = (0u32, 0, 0u32, 0);
        let mut look = |edge: &[(u64, u64)]| {
            seen += edge.len() as u32;
            seen_bytes += edge.iter().map(|(_, bytes)| bytes).sum::<u64>();
            if let [first, .., last] = edge {
                gaps += edge.len() as u32 - 1;
                gaps_ns += first.0.abs_diff(last.0);
            }
        };
        let row = |row: Result<
            (
                redb::AccessGuard<'_, SeriesTime>,
                redb::AccessGuard<'_, &'static [u8]>,
            ),
            redb::StorageError,
        >| {
            row.map(|(key, value)| (key.value().2, row_bytes(value.value().len() as u64)))
        };
        let edge = table.range(whole.clone())?.take(ROWS).map(row);
        look(&edge.collect::<Result<Vec<_>, _>>()?);
        let edge = table.range(whole)?.rev().take(ROWS).map(row);
        look(&edge.collect::<Result<Vec<_>, _>>()?);
        let count = match gaps_ns {
            0 => 1.0,
            ns => 1.0 + (s.last - s.first) as f64 * f64::from(gaps) / ns as f64,
        };
        rows += count;
        bytes += count * seen_bytes as f64 / f64::from(seen.max(1));
    }
    Ok(if rows > 0.0 {
        (table.len()? as f64 * bytes / rows) as u64
    } else {
        0
    })
}

/// Of a table whose rows are all alike.
fn of_rows<K: redb::Key + 'static>(
    tx: &WriteTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
) -> Result<u64, StoreError> {
    let table = tx.open_table(table)?;
    let (mut seen, mut bytes) = (0, 0);
    for row in table.iter()?.take(64).chain(table.iter()?.rev().take(64)) {
        bytes += row_bytes(row?.1.value().len() as u64);
        seen += 1;
    }
    Ok(table.len()? * bytes / seen.max(1))
}
