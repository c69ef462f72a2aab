//! The tables of the file. docs/store.md describes them.

use redb::{ConcurrencyMode, ReadOnlyTable, ReadTransaction, TableDefinition, TableError};

use crate::error::StoreError;

/// Version of everything below; a file with a larger one is refused.
pub(crate) const SCHEMA: u64 = 8;

/// Bytes of page cache: more makes nothing faster here.
pub(crate) const CACHE_BYTES: usize = 2 << 20;

/// One writer, readers beside it.
pub(crate) const MODE: ConcurrencyMode = ConcurrencyMode::SingleWriter;

/// What every redb file begins with.
pub(crate) const REDB_MAGIC: [u8; 9] = [b'r', b'e', b'd', b'b', 0x1A, 0x0A, 0xA9, 0x0D, 0x0A];

/// (series, boot, ns since boot): of the first sample, or of a window's begin.
pub(crate) type SeriesTime = (u32, u32, u64);

/// (boot, when it was over in ns since boot, event).
pub(crate) type EventTime = (u32, u64, u64);

/// (boot, ns since boot, interface and what else tells rows of one instant apart).
pub(crate) type LineTime<'a> = (u32, u64, &'a str);

/// Name → number: `schema`; `next_event`, once events were given up.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("bufferbane_meta");
/// Boot → the kernel's boot id.
pub(crate) const BOOTS: TableDefinition<'_, u32, &str> = TableDefinition::new("boots");
/// (boot, ns since boot) → (wall clock ns since 1970, trust).
pub(crate) const ANCHORS: TableDefinition<'_, (u32, u64), (i64, u8)> =
    TableDefinition::new("anchors");
/// Series → `SeriesInfo` as JSON.
pub(crate) const SERIES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("series");
/// (series, boot, first sample) → packed block.
pub(crate) const BLOCKS: TableDefinition<'_, SeriesTime, &[u8]> = TableDefinition::new("blocks");
/// Number → what a commit changed of the samples that are in no block yet. Files of schema 5 and older
/// have `WHOLE_TAIL` instead.
pub(crate) const TAIL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("unsealed");
/// The one row of those samples in files of schema 5 and older.
pub(crate) const WHOLE_TAIL: TableDefinition<'_, (), &[u8]> = TableDefinition::new("tail");
/// (series, boot, begin of the minute) → summary.
pub(crate) const MINUTES: TableDefinition<'_, SeriesTime, &[u8]> =
    TableDefinition::new("rollup_1m");
/// (series, boot, begin of the hour) → summary.
pub(crate) const HOURS: TableDefinition<'_, SeriesTime, &[u8]> = TableDefinition::new("rollup_1h");
/// (series, boot, instant) → knot of the floor of its delays. Files of schema 1 have none.
pub(crate) const FLOORS: TableDefinition<'_, SeriesTime, &[u8]> = TableDefinition::new("floors");
/// Event → `Event` as JSON.
pub(crate) const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
/// By when each event was over, or `u64::MAX` while it lasts → its start, ns since boot. Files of schema 7 and
/// older have none.
pub(crate) const EVENT_TIMES: TableDefinition<'_, EventTime, u64> =
    TableDefinition::new("event_times");
/// Test → `LoadTest` as JSON. Files made before there were tests lack the table.
pub(crate) const TESTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("tests");
/// (boot, ns since boot) → `Health` as JSON, of the minute that ends there.
pub(crate) const HEALTH: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("health");
/// (boot, begin of the hour) → `HealthSum` of all minutes that end in it. Files of schema 6 and older have
/// none.
pub(crate) const HEALTH_HOURS: TableDefinition<'_, (u32, u64), &[u8]> =
    TableDefinition::new("health_1h");

/// What lines were found to carry: `Capacity` as JSON, by interface and direction. Older files lack
/// the table.
pub(crate) const CAPACITY: TableDefinition<'_, LineTime<'static>, &[u8]> =
    TableDefinition::new("capacity");
/// What lines carried: a minute, by its begin and the interface. Older files lack the table.
pub(crate) const LOAD: TableDefinition<'_, LineTime<'static>, &[u8]> =
    TableDefinition::new("load_1m");
/// Those minutes added up, by the begin of the hour and the interface. Files of schema 6 and older have none.
pub(crate) const LOAD_HOURS: TableDefinition<'_, LineTime<'static>, &[u8]> =
    TableDefinition::new("load_1h");

/// What lines showed of what cables do: `Stored` of `cable.rs` as JSON, by its begin, the interface and
/// the kind. Older files lack the table.
pub(crate) const CABLE: TableDefinition<'_, LineTime<'static>, &[u8]> =
    TableDefinition::new("cable");

/// Ways to targets: `StoredPath` of `paths.rs` as JSON, by when each was first seen and whose it is. Older
/// files lack the table.
pub(crate) const PATHS: TableDefinition<'_, LineTime<'static>, &[u8]> =
    TableDefinition::new("paths");
/// What was seen of ways when something looked wrong: `Look` as JSON, likewise. Older files lack the
/// table.
pub(crate) const ESCALATIONS: TableDefinition<'_, LineTime<'static>, &[u8]> =
    TableDefinition::new("escalations");

/// The largest packets that pass on ways: `StoredSize` of `sizes.rs` as JSON, likewise. Older files lack the
/// table.
pub(crate) const SIZES: TableDefinition<'_, LineTime<'static>, &[u8]> =
    TableDefinition::new("sizes");

/// Close looks: `Echoes` as JSON, by when each began and whose it is. Older files lack the table.
pub(crate) const ECHOES: TableDefinition<'_, LineTime<'static>, &[u8]> =
    TableDefinition::new("echoes");

/// Length of a short rollup window, ns.
pub(crate) const MINUTE_NS: u64 = 60_000_000_000;
/// Length of a long one, ns.
pub(crate) const HOUR_NS: u64 = 60 * MINUTE_NS;

/// A table that earlier versions did not make.
pub(crate) fn open_if_made<K: redb::Key + 'static, V: redb::Value + 'static>(
    tx: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, StoreError> {
    match tx.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
