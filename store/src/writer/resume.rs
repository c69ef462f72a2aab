//! What a run before left: dictionaries, samples that were not sealed, events that lasted.

use std::collections::BTreeMap;

use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use super::Writer;
use super::rollups::{complete_last_hour, write_minutes};
use crate::buffer::Buffer;
use crate::codec::{decode_block, from_json};
use crate::error::StoreError;
use crate::events;
use crate::floors::Floors;
use crate::hours;
use crate::model::{SeriesId, SeriesInfo};
use crate::tables::{
    ANCHORS, BLOCKS, FLOORS, HEALTH, META, SCHEMA, SERIES, SeriesTime, TAIL, TESTS, WHOLE_TAIL,
};
use crate::tail::{self, Form, Tail, Wanted};

impl Writer {
    /// Reads the dictionaries, and closes what the run before left open.
    pub(super) fn load(&mut self) -> Result<(), StoreError> {
        let tx = self.database()?.begin_write()?;
        {
            // A file of an earlier version becomes one of this version.
            let mut meta = tx.open_table(META)?;
            let found = meta.get("schema")?.map_or(0, |v| v.value());
            if found < SCHEMA {
                meta.insert("schema", SCHEMA)?;
            }
            drop(meta);
            events::index(&tx, found)?;
            tx.open_table(FLOORS)?;
            for row in tx.open_table(SERIES)?.iter()? {
                let (id, json) = row?;
                let info: SeriesInfo = from_json(json.value())?;
                self.series.insert(info, SeriesId(id.value()));
            }
            self.next_event = events::next_number(&tx)?;
            let last_test = tx.open_table(TESTS)?.last()?.map(|(id, _)| id.value());
            self.next_test = last_test.map_or(0, |id| id + 1);
            let mut tail = Tail::default();
            if let Some(row) = tx.open_table(WHOLE_TAIL)?.get(())? {
                tail.take(tail::decode(row.value(), Form::Whole, Wanted::All)?)?;
            }
            let mut rows = tx.open_table(TAIL)?;
            while let Some((_, row)) = rows.pop_first()? {
                tail.take(tail::decode(row.value(), Form::Changes, Wanted::All)?)?;
            }
            let (parts, waiting) = tail.into_parts();
            waiting.iter().try_for_each(|row| row.put(&tx))?;
            hours::sum_up(&tx, waiting.iter(), true)?;
            for mut part in parts {
                close_part(&tx, &mut part)?;
                complete_last_hour(&tx, part.series, part.boot, u64::MAX)?;
            }
        }
        tx.delete_table(WHOLE_TAIL)?;
        // What a run before left open ends where what it recorded in that boot ends.
        events::end_all(&tx, |boot| last_instant(&tx, boot, self.series.values()))?;
        tx.commit()?;
        Ok(())
    }
}

impl Writer {
    /// Up to where each series' samples of this boot are in rollups, ns since boot: opening the file has put
    /// there all that there were, and what is told of this run must not begin before.
    pub(super) fn rolled_by_runs_before(&mut self) -> Result<BTreeMap<SeriesId, u64>, StoreError> {
        let tx = self.database()?.begin_read()?;
        let blocks = tx.open_table(BLOCKS)?;
        let mut rolled = BTreeMap::new();
        for id in self.series.values() {
            if let Some(newest) = newest_ns(&blocks, *id, self.boot)? {
                rolled.insert(*id, newest + 1);
            }
        }
        Ok(rolled)
    }
}

/// When the newest sample of a series and boot was sent, ns since boot; of a block that cannot be read, when
/// its first one was.
fn newest_ns(
    blocks: &impl ReadableTable<SeriesTime, &'static [u8]>,
    id: SeriesId,
    boot: u32,
) -> Result<Option<u64>, StoreError> {
    let of_series = (id.0, boot, 0)..=(id.0, boot, u64::MAX);
    let mut newest = None;
    // What came out of order may have the block before reach further.
    for row in blocks.range(of_series)?.rev().take(2) {
        let (key, block) = row?;
        let samples = decode_block(block.value()).unwrap_or_default();
        let last = samples.iter().map(|s| s.sent.as_nanos()).max();
        newest = newest.max(Some(last.unwrap_or(key.value().2)));
    }
    Ok(newest)
}

/// Puts what a run before left unsealed into blocks and rollups.
pub(super) fn close_part(tx: &WriteTransaction, part: &mut tail::Part) -> Result<(), StoreError> {
    let (id, boot) = (part.series, part.boot);
    let mut buffer = Buffer::rolled_until(part.rolled_until_ns);
    // Samples that are sealed but not rolled up yet.
    {
        let blocks = tx.open_table(BLOCKS)?;
        let start = blocks
            .range((id.0, boot, 0)..=(id.0, boot, part.rolled_until_ns))?
            .next_back()
            .transpose()?
            .map_or(0, |(k, _)| k.value().2);
        for row in blocks.range((id.0, boot, start)..=(id.0, boot, u64::MAX))? {
            for s in decode_block(row?.1.value())? {
                if s.sent.as_nanos() >= part.rolled_until_ns {
                    buffer.insert(s);
                }
            }
        }
    }
    let sealed = buffer.len();
    let rolled = buffer.rolled_until_ns;
    buffer.settle(sealed, rolled);
    part.samples.drain(..).for_each(|s| buffer.insert(s));
    let mut blocks = tx.open_table(BLOCKS)?;
    for block in buffer.seal(u64::MAX, true) {
        insert_block(&mut blocks, (id.0, boot, block.first_ns), &block.bytes)?;
    }
    let floors = tx.open_table(FLOORS)?;
    let floors = Floors::load(&floors, id, boot, buffer.rolled_until_ns, u64::MAX)?;
    write_minutes(tx, id, boot, &buffer.minutes(u64::MAX, true, &floors))
}

/// The last instant of a boot of which anything is recorded, ns since boot.
fn last_instant<'a>(
    tx: &WriteTransaction,
    boot: u32,
    series: impl Iterator<Item = &'a SeriesId>,
) -> Result<u64, StoreError> {
    let of_boot = (boot, 0)..=(boot, u64::MAX);
    let anchors = tx.open_table(ANCHORS)?;
    let anchor = anchors.range(of_boot.clone())?.next_back().transpose()?;
    let health = tx.open_table(HEALTH)?;
    let minute = health.range(of_boot)?.next_back().transpose()?;
    let mut last_ns = anchor.map_or(0, |(k, _)| k.value().1);
    last_ns = last_ns.max(minute.map_or(0, |(k, _)| k.value().1));
    let blocks = tx.open_table(BLOCKS)?;
    for id in series {
        last_ns = last_ns.max(newest_ns(&blocks, *id, boot)?.unwrap_or(0));
    }
    Ok(last_ns)
}

/// Inserts a block under its first instant, or right after another that has the same one.
pub(super) fn insert_block(
    blocks: &mut redb::Table<'_, SeriesTime, &'static [u8]>,
    mut key: SeriesTime,
    bytes: &[u8],
) -> Result<(), StoreError> {
    while blocks.get(key)?.is_some() {
        key.2 += 1;
    }
    blocks.insert(key, bytes)?;
    Ok(())
}
