//! What is given up when it is old, or when the file grows too large.

use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use crate::capacity;
use crate::error::StoreError;
use crate::model::Trust;
use crate::tables::{ANCHORS, BLOCKS, BOOTS, FLOORS, HEALTH, HOURS, MINUTES, SERIES, SeriesTime};
use crate::timemap::{Anchor, TimeMap};
use crate::writer::Writer;

/// How long what is kept. `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Single samples, ns.
    pub samples_ns: Option<u64>,
    /// Rollups of a minute, ns.
    pub minutes_ns: Option<u64>,
    /// Rollups of an hour, ns.
    pub hours_ns: Option<u64>,
    /// The most bytes that data may take in the file: beyond it the oldest samples go first, then
    /// the oldest minutes.
    pub max_bytes: Option<u64>,
}

/// What was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Blocks of samples.
    pub blocks: u64,
    /// Rollup rows of a minute.
    pub minutes: u64,
    /// Rollup rows of an hour.
    pub hours: u64,
}

impl RetentionReport {
    fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.minutes += other.minutes;
        self.hours += other.hours;
    }
}

impl Writer {
    /// Gives up what `retention` no longer keeps at wall time `now_ns`. By age nothing is given up
    /// while the clock of this boot cannot be trusted: a router that believes it is 2036 would
    /// otherwise forget everything.
    ///
    /// # Errors
    /// When the file cannot be read or written; nothing is given up then.
    pub fn enforce_retention(
        &mut self,
        retention: &Retention,
        now_ns: i64,
        trust: Trust,
    ) -> Result<RetentionReport, StoreError> {
        let mut report = RetentionReport::default();
        if trust >= Trust::Plausible {
            let before = |keep: Option<u64>| keep.map(|k| now_ns.saturating_sub_unsigned(k));
            report.add(self.forget([
                before(retention.samples_ns),
                before(retention.minutes_ns),
                before(retention.hours_ns),
            ])?);
        }
        // The oldest tenth at a time, until it fits.
        for _ in 0..20 {
            let Some(max_bytes) = retention.max_bytes else {
                break;
            };
            if self.used_bytes()? <= max_bytes {
                break;
            }
            let (samples, minutes) = self.oldest(now_ns)?;
            let tenth = |oldest: i64| oldest.saturating_add(now_ns.saturating_sub(oldest) / 10 + 1);
            let step = if let Some(oldest) = samples {
                self.forget([Some(tenth(oldest)), None, None])?
            } else if let Some(oldest) = minutes {
                self.forget([None, Some(tenth(oldest)), None])?
            } else {
                break;
            };
            if step == RetentionReport::default() {
                break;
            }
            report.add(step);
        }
        Ok(report)
    }

    /// Gives up samples, minutes and hours, each before its wall time.
    fn forget(&mut self, before: [Option<i64>; 3]) -> Result<RetentionReport, StoreError> {
        let map = self.time_map()?;
        let tx = self.database()?.begin_write()?;
        let series: Vec<u32> = {
            let table = tx.open_table(SERIES)?;
            let rows = table.iter()?.collect::<Result<Vec<_>, _>>()?;
            rows.iter().map(|(id, _)| id.value()).collect()
        };
        let mut removed = [0u64; 3];
        for ((table, before), removed) in [BLOCKS, MINUTES, HOURS]
            .into_iter()
            .zip(before)
            .zip(&mut removed)
        {
            let Some(wall_ns) = before else { continue };
            for boot in map.boots() {
                let range = map.older_than(boot, wall_ns);
                for &id in &series {
                    *removed += remove(&tx, table, (id, boot, range.start), (id, boot, range.end))?;
                }
            }
        }
        if let [Some(wall_ns), ..] = before {
            for boot in map.boots() {
                let end = map.older_than(boot, wall_ns).end;
                for &id in &series {
                    // The last knot before the oldest sample that is left says what its floor is.
                    let needed = tx
                        .open_table(FLOORS)?
                        .range((id, boot, 0)..(id, boot, end))?
                        .next_back()
                        .transpose()?
                        .map(|(key, _)| key.value());
                    if let Some(needed) = needed {
                        remove(&tx, FLOORS, (id, boot, 0), needed)?;
                    }
                }
            }
        }
        if let [_, Some(wall_ns), _] = before {
            let mut health = tx.open_table(HEALTH)?;
            for boot in map.boots() {
                let range = map.older_than(boot, wall_ns);
                health.retain_in((boot, range.start)..(boot, range.end), |_, _| false)?;
            }
        }
        if let [_, _, Some(wall_ns)] = before {
            // As long as hours: small rows, and what a line carried a year ago is worth knowing.
            capacity::forget(&tx, &map, wall_ns)?;
        }
        let [blocks, minutes, hours] = removed;
        tx.commit()?;
        Ok(RetentionReport {
            blocks,
            minutes,
            hours,
        })
    }

    /// Wall time of the oldest block and of the oldest minute.
    fn oldest(&mut self, now_ns: i64) -> Result<(Option<i64>, Option<i64>), StoreError> {
        let map = self.time_map()?;
        let tx = self.database()?.begin_read()?;
        let mut oldest = [None::<i64>; 2];
        for (table, oldest) in [BLOCKS, MINUTES].into_iter().zip(&mut oldest) {
            for row in tx.open_table(table)?.iter()? {
                let (_, boot, at) = row?.0.value();
                let wall = map.wall_ns(boot, at).unwrap_or(now_ns);
                *oldest = Some(oldest.map_or(wall, |o| o.min(wall)));
            }
        }
        Ok((oldest[0], oldest[1]))
    }

    /// Bytes that data takes in the file, without what is free for reuse.
    fn used_bytes(&mut self) -> Result<u64, StoreError> {
        let tx = self.database()?.begin_write()?;
        let stats = tx.stats()?;
        tx.abort()?;
        Ok(stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes())
    }

    fn time_map(&mut self) -> Result<TimeMap, StoreError> {
        let tx = self.database()?.begin_read()?;
        let mut anchors = Vec::new();
        let boots = tx.open_table(BOOTS)?;
        for row in tx.open_table(ANCHORS)?.iter()? {
            let (key, value) = row?;
            let (boot, mono) = key.value();
            let (wall_ns, trust) = value.value();
            if boots.get(boot)?.is_some() {
                anchors.push(Anchor {
                    boot,
                    mono: bufferbane_core::time::Monotonic::from_nanos(mono),
                    wall_ns,
                    trust: Trust::from_u8(trust),
                });
            }
        }
        Ok(TimeMap::new(&anchors))
    }
}

/// Removes the rows that begin in `[from, to)`. Gives how many.
fn remove(
    tx: &WriteTransaction,
    table: redb::TableDefinition<'_, SeriesTime, &'static [u8]>,
    from: SeriesTime,
    to: SeriesTime,
) -> Result<u64, StoreError> {
    if from >= to {
        return Ok(0);
    }
    let mut table = tx.open_table(table)?;
    let mut count = 0;
    table.retain_in(from..to, |_, _| {
        count += 1;
        false
    })?;
    Ok(count)
}
