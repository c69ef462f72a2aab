//! Changes to what is in blocks and rollups already: a late answer, a direction that became known, a
//! floor that turned out to have been another.

use std::collections::HashMap;

use bufferbane_core::sample::{Sample, Status};
use bufferbane_core::stats::summary::Summary;
use bufferbane_core::time::Monotonic;
use redb::{ReadableTable, WriteTransaction};

use super::Writer;
use super::rollups::rebuild_hour;
use crate::codec::{decode_block, decode_summary, encode_block, encode_summary};
use crate::error::StoreError;
use crate::floors::Floors;
use crate::model::SeriesId;
use crate::tables::{BLOCKS, FLOORS, HOUR_NS, HOURS, MINUTE_NS, MINUTES, SeriesTime};

impl Writer {
    /// Changes samples that are in blocks or rollups already.
    pub(super) fn write_revisions(&self, tx: &WriteTransaction) -> Result<(), StoreError> {
        let mut blocks = tx.open_table(BLOCKS)?;
        for (id, revised, stored) in &self.pending.revisions {
            if stored.in_block {
                self.revise_block(&mut blocks, *id, revised)?;
            }
            if stored.in_rollup {
                self.revise_rollups(tx, &blocks, *id, revised)?;
            }
        }
        Ok(())
    }

    fn revise_block(
        &self,
        blocks: &mut redb::Table<'_, SeriesTime, &'static [u8]>,
        id: SeriesId,
        revised: &Sample,
    ) -> Result<(), StoreError> {
        let mut at = revised.sent.as_nanos();
        // Blocks of two runs may reach into the same stretch, so more than one may have to be read.
        for _ in 0..4 {
            let found = blocks
                .range((id.0, self.boot, 0)..=(id.0, self.boot, at))?
                .next_back()
                .transpose()?
                .map(|(key, bytes)| {
                    Ok::<_, StoreError>((key.value(), decode_block(bytes.value())?))
                })
                .transpose()?;
            let Some((key, mut samples)) = found else {
                return Ok(());
            };
            if let Some(old) = samples.iter_mut().find(|s| {
                s.sent == revised.sent && s.seq == revised.seq && s.status != Status::Duplicate
            }) {
                *old = *revised;
                blocks.insert(key, encode_block(&samples).as_slice())?;
                return Ok(());
            }
            let Some(before) = key.2.checked_sub(1) else {
                return Ok(());
            };
            at = before;
        }
        Ok(())
    }

    /// A rollup keeps distributions, not samples: a direction is added to it, but what a late answer
    /// changes is summed up anew from the samples of its minute.
    fn revise_rollups(
        &self,
        tx: &WriteTransaction,
        blocks: &impl ReadableTable<SeriesTime, &'static [u8]>,
        id: SeriesId,
        revised: &Sample,
    ) -> Result<(), StoreError> {
        let sent_ns = revised.sent.as_nanos();
        let minute = (id.0, self.boot, sent_ns - sent_ns % MINUTE_NS);
        let hour = (id.0, self.boot, sent_ns - sent_ns % HOUR_NS);
        let mut minutes = tx.open_table(MINUTES)?;
        let mut hours = tx.open_table(HOURS)?;
        if revised.status.is_lost() {
            for (table, key) in [(&mut minutes, minute), (&mut hours, hour)] {
                let row = table.get(key)?.map(|r| r.value().to_vec());
                if let Some(row) = row {
                    let mut summary = decode_summary(&row)?;
                    summary.revise_direction(revised.status);
                    table.insert(key, encode_summary(&summary).as_slice())?;
                }
            }
            return Ok(());
        }
        let summary = self.sum_up(tx, blocks, id, minute.2)?;
        minutes.insert(minute, encode_summary(&summary).as_slice())?;
        rebuild_hour(&minutes, &mut hours, hour)
    }

    /// The summary of the minute that begins at `begin_ns`, from its samples that are rolled up.
    fn sum_up(
        &self,
        tx: &WriteTransaction,
        blocks: &impl ReadableTable<SeriesTime, &'static [u8]>,
        id: SeriesId,
        begin_ns: u64,
    ) -> Result<Summary, StoreError> {
        let window = begin_ns..begin_ns + MINUTE_NS;
        let key = |ns| (id.0, self.boot, ns);
        let buffer = self.buffers.get(&id);
        let mut rolled: Vec<Sample> = Vec::new();
        let start = blocks
            .range(key(0)..=key(begin_ns))?
            .next_back()
            .transpose()?
            .map_or(begin_ns, |(k, _)| k.value().2);
        for row in blocks.range(key(start)..key(window.end))? {
            rolled.extend(
                decode_block(row?.1.value())?
                    .into_iter()
                    .filter(|s| buffer.is_none_or(|b| !b.is_unrolled(s))),
            );
        }
        rolled.retain(|s| window.contains(&s.sent.as_nanos()));
        if let Some(b) = buffer {
            add_those_missing(
                &mut rolled,
                b.unsealed().filter(|s| {
                    let sent_ns = s.sent.as_nanos();
                    sent_ns < b.rolled_until_ns && window.contains(&sent_ns)
                }),
            );
        }
        rolled.sort_by_key(|s| (s.sent, s.seq));
        let table = tx.open_table(FLOORS)?;
        let mut floors = Floors::load(&table, id, self.boot, window.start, window.end)?;
        if let Some(recent) = self.floors.get(&id) {
            floors.overlay(&recent.floors);
        }
        let mut summary = Summary::new();
        rolled.iter().for_each(|s| floors.add_to(&mut summary, s));
        Ok(summary)
    }

    /// Where the floor turned out to have been another, minutes that were summed up with the one
    /// before are summed up again.
    pub(super) fn sum_up_again(&self, tx: &WriteTransaction) -> Result<(), StoreError> {
        for (id, recent) in &self.floors {
            let Some(from_ns) = recent.changed_from_ns() else {
                continue;
            };
            // Later minutes are summed up for the first time just now.
            let until_ns = match self.buffers.get(id) {
                Some(b) => b.rolled_until_ns,
                None => u64::MAX,
            };
            let begin_ns = from_ns - from_ns % MINUTE_NS;
            if begin_ns >= until_ns {
                continue;
            }
            let blocks = tx.open_table(BLOCKS)?;
            let (mut minutes, mut hours) = (tx.open_table(MINUTES)?, tx.open_table(HOURS)?);
            let key = |ns| (id.0, self.boot, ns);
            let begins: Vec<u64> = minutes
                .range(key(begin_ns)..key(until_ns))?
                .map(|row| row.map(|(k, _)| k.value().2))
                .collect::<Result<_, _>>()?;
            for begin_ns in &begins {
                let summary = self.sum_up(tx, &blocks, *id, *begin_ns)?;
                minutes.insert(key(*begin_ns), encode_summary(&summary).as_slice())?;
            }
            let mut of_hours: Vec<u64> = begins.iter().map(|b| b - b % HOUR_NS).collect();
            of_hours.dedup();
            for begin_ns in of_hours {
                if hours.get(key(begin_ns))?.is_some() {
                    rebuild_hour(&minutes, &mut hours, key(begin_ns))?;
                }
            }
        }
        Ok(())
    }
}

/// Adds what is in memory to what was read from blocks. What is being sealed just now is in both,
/// and counts once; the further copies of a reply have its number and send time, and count each.
fn add_those_missing<'a>(in_blocks: &mut Vec<Sample>, in_memory: impl Iterator<Item = &'a Sample>) {
    let mut unmatched: HashMap<(Monotonic, u64), Vec<Sample>> = HashMap::new();
    for s in in_blocks.iter() {
        unmatched.entry((s.sent, s.seq)).or_default().push(*s);
    }
    for s in in_memory {
        let twins = unmatched.get_mut(&(s.sent, s.seq));
        // A block does not say which series of the run it is of.
        let is_twin = |t: &Sample| {
            *s == Sample {
                series: s.series,
                ..*t
            }
        };
        let twin = twins.and_then(|t| t.iter().position(is_twin).map(|at| t.swap_remove(at)));
        if twin.is_none() {
            in_blocks.push(*s);
        }
    }
}
