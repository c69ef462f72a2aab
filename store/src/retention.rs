//! What is given up when it is old, or when the file grows too large.

mod size;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use redb::{ReadableDatabase, ReadableTable, Table, WriteTransaction};

use crate::capacity;
use crate::codec::decode_block;
use crate::error::StoreError;
use crate::events;
use crate::model::Trust;
use crate::paths;
use crate::tables::{
    ANCHORS, BLOCKS, BOOTS, FLOORS, HEALTH, HEALTH_HOURS, HOUR_NS, HOURS, MINUTES, SeriesTime,
};
use crate::timemap::{Anchor, TimeMap};
use crate::writer::Writer;
use crate::writer::rollups::complete_hour;
pub(crate) use size::row_bytes;
use size::{Stretch, events_bytes, paths_bytes, stretches, used_bytes};

/// Rows that one pass gives up at most: some tens of MB of blocks, so that it takes a fraction of a
/// second on flash.
const ROWS_PER_PASS: u64 = 2048;

/// Ways to targets may take this part of what data may take before they go, ahead of any sample: what routers
/// answer, and so how many ways there are, is up to others.
const PATHS_PART: u64 = 16;

/// The same of events: how many there are is up to the line.
const EVENTS_PART: u64 = 16;

/// How long what is kept. `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Single samples, ns.
    pub samples_ns: Option<u64>,
    /// Rollups of a minute, ns.
    pub minutes_ns: Option<u64>,
    /// Rollups of an hour, ns.
    pub hours_ns: Option<u64>,
    /// Events, from their end on, ns. What lasts stays.
    pub events_ns: Option<u64>,
    /// The most bytes that data may take in the file: beyond it the oldest samples go first, then
    /// the oldest minutes, then the oldest ways to targets, then the oldest events; of ways and of events, what is
    /// beyond a sixteenth each goes before all else.
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
    /// Events.
    pub events: u64,
    /// Ways to targets, looks at them, sizes that pass and close looks that went by size.
    pub paths: u64,
    /// There is more to give up than one pass may: another is due soon.
    pub unfinished: bool,
}

impl RetentionReport {
    /// How many rows went.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.blocks + self.minutes + self.hours + self.events + self.paths
    }
}

impl Writer {
    /// One pass, of bounded length: gives up what `retention` no longer keeps at wall time `now_ns`.
    ///
    /// By age nothing goes unless the kernel says now that its clock is synchronised, and how old
    /// a sample is only such a clock says as well: a router that believes it is 2036 would otherwise
    /// forget everything. A boot that never had one is older than those after it. By size the oldest
    /// boot goes first, which takes no clock at all.
    ///
    /// # Errors
    /// When the file cannot be read or written; nothing is given up by the step that failed.
    pub fn enforce_retention(
        &mut self,
        retention: &Retention,
        now_ns: i64,
        trust: Trust,
    ) -> Result<RetentionReport, StoreError> {
        let mut report = RetentionReport::default();
        if trust >= Trust::Disciplined {
            let ages = self.ages(Trust::Disciplined)?;
            report = self.forget(retention, now_ns, &ages, ROWS_PER_PASS)?;
        }
        if let Some(max_bytes) = retention.max_bytes
            && !report.unfinished
        {
            let fitted = self.fit(max_bytes)?;
            report.blocks += fitted.blocks;
            report.minutes += fitted.minutes;
            report.events += fitted.events;
            report.paths += fitted.paths;
            report.unfinished |= fitted.unfinished;
        }
        Ok(report)
    }

    /// Gives up by age, at a person's word and all at once, what `retention` no longer keeps at wall
    /// time `now_ns`. Every clock is believed, as in what is shown; `max_bytes` is not looked at.
    ///
    /// # Errors
    /// When the file cannot be read or written; nothing is given up then.
    pub fn prune(
        &mut self,
        retention: &Retention,
        now_ns: i64,
    ) -> Result<RetentionReport, StoreError> {
        let ages = self.ages(Trust::None)?;
        self.forget(retention, now_ns, &ages, u64::MAX)
    }

    /// Gives up what is too old, at most `rows` blocks, rollups and events.
    fn forget(
        &mut self,
        retention: &Retention,
        now_ns: i64,
        ages: &Ages,
        mut rows: u64,
    ) -> Result<RetentionReport, StoreError> {
        let expired = |keep: Option<u64>| {
            keep.map_or_else(Vec::new, |ns| {
                ages.expired(now_ns.saturating_sub_unsigned(ns))
            })
        };
        let samples = expired(retention.samples_ns);
        let hours = expired(retention.hours_ns);
        // Whole hours, so that the minutes of one are there or not.
        let minutes: Vec<(u32, u64)> = expired(retention.minutes_ns)
            .into_iter()
            .map(|(boot, end)| (boot, end - end % HOUR_NS))
            .collect();
        let (events, next_event) = (expired(retention.events_ns), self.next_event());
        let tx = self.database()?.begin_write()?;
        let mut report = RetentionReport::default();
        let mut others = false;
        {
            let mut blocks = tx.open_table(BLOCKS)?;
            for mut keys in expired_keys(&blocks, &samples, &mut rows)? {
                // A block of a series with a probe an hour spans six weeks: it goes with its last sample.
                if let Some(last) = keys.last()
                    && !is_over(&blocks, *last, &samples)?
                {
                    keys.pop();
                    rows += 1;
                }
                let Some(last) = keys.last() else { continue };
                report.blocks += keys.len() as u64;
                remove_range(&mut blocks, &keys)?;
                forget_floors(&tx, &blocks, *last)?;
            }
            let mut minute_rows = tx.open_table(MINUTES)?;
            let mut hour_rows = tx.open_table(HOURS)?;
            for keys in expired_keys(&minute_rows, &minutes, &mut rows)? {
                for of_hour in keys.chunk_by(|a, b| a.2 / HOUR_NS == b.2 / HOUR_NS) {
                    complete_hour(&minute_rows, &mut hour_rows, of_hour[0])?;
                }
                report.minutes += keys.len() as u64;
                remove_range(&mut minute_rows, &keys)?;
            }
            for keys in expired_keys(&hour_rows, &hours, &mut rows)? {
                report.hours += keys.len() as u64;
                remove_range(&mut hour_rows, &keys)?;
            }
            others |= forget_health(&tx, &minutes)?;
        }
        // As long as hours: small rows, and what a line carried a year ago is worth knowing.
        others |= capacity::forget(&tx, &hours)?;
        others |= paths::forget(&tx, &hours)?;
        report.events = events::forget(&tx, &events, rows, next_event)?;
        rows -= report.events;
        report.unfinished = rows == 0;
        if others || report.rows() > 0 {
            tx.commit()?;
        } else {
            tx.abort()?;
        }
        Ok(report)
    }

    /// Gives up ways and events beyond their part, then the oldest samples, when there are none the oldest minutes,
    /// then the oldest ways, and at last the oldest events, until data fits into `max_bytes`.
    fn fit(&mut self, max_bytes: u64) -> Result<RetentionReport, StoreError> {
        let mut report = RetentionReport::default();
        // Data is never larger than its file, which does not shrink.
        if self.file_bytes() <= max_bytes {
            return Ok(report);
        }
        let (boot, next_event) = (self.boot(), self.next_event());
        let tx = self.database()?.begin_write()?;
        let used = used_bytes(&tx)?;
        if used <= max_bytes {
            tx.abort()?;
            return Ok(report);
        }
        // A little more than has to, so that not every pass has to.
        let mut excess = used - (max_bytes - max_bytes / 64);
        let beyond = paths_bytes(&tx)?.saturating_sub(max_bytes / PATHS_PART);
        let (freed, gone) = paths::forget_oldest(&tx, beyond.min(excess), ROWS_PER_PASS)?;
        excess = excess.saturating_sub(freed);
        report.paths += gone;
        let beyond = events_bytes(&tx)?.saturating_sub(max_bytes / EVENTS_PART);
        let left = ROWS_PER_PASS - report.paths;
        let (freed, gone) = events::forget_oldest(&tx, beyond.min(excess), left, next_event)?;
        excess = excess.saturating_sub(freed);
        report.events += gone;
        {
            let mut blocks = tx.open_table(BLOCKS)?;
            let mut oldest = Oldest::new(stretches(&blocks)?);
            let mut last: BTreeMap<(u32, u32), SeriesTime> = BTreeMap::new();
            while excess > 0
                && report.rows() < ROWS_PER_PASS
                && let Some(key) = oldest.next(&blocks)?
            {
                let bytes = blocks.remove(key)?.map_or(0, |row| row.value().len());
                excess = excess.saturating_sub(row_bytes(bytes as u64));
                report.blocks += 1;
                last.insert((key.0, key.1), key);
            }
            for key in last.into_values() {
                forget_floors(&tx, &blocks, key)?;
            }
            let mut minutes = tx.open_table(MINUTES)?;
            let mut hours = tx.open_table(HOURS)?;
            // The hour that is running needs its minutes yet.
            let whole = |s: &Stretch| s.boot != boot || s.first / HOUR_NS < s.last / HOUR_NS;
            let left = stretches(&minutes)?;
            let running: BTreeMap<u32, u64> = left
                .iter()
                .filter(|s| s.boot == boot)
                .map(|s| (s.series, s.last - s.last % HOUR_NS))
                .collect();
            let mut oldest = Oldest::new(left.into_iter().filter(whole).collect());
            while excess > 0
                && report.rows() < ROWS_PER_PASS
                && let Some(key) = oldest.next(&minutes)?
            {
                if key.1 == boot && running.get(&key.0).is_none_or(|from| key.2 >= *from) {
                    continue;
                }
                complete_hour(&minutes, &mut hours, key)?;
                let bytes = minutes.remove(key)?.map_or(0, |row| row.value().len());
                excess = excess.saturating_sub(row_bytes(bytes as u64));
                report.minutes += 1;
                forget_health(&tx, &[(key.1, key.2)])?;
            }
        }
        let left = ROWS_PER_PASS.saturating_sub(report.rows());
        let (freed, gone) = paths::forget_oldest(&tx, excess, left)?;
        excess = excess.saturating_sub(freed);
        report.paths += gone;
        let left = ROWS_PER_PASS.saturating_sub(report.rows());
        let (freed, gone) = events::forget_oldest(&tx, excess, left, next_event)?;
        excess = excess.saturating_sub(freed);
        report.events += gone;
        report.unfinished = excess > 0 && report.rows() >= ROWS_PER_PASS;
        tx.commit()?;
        Ok(report)
    }

    /// When boots were, by what anchors of at least `trust` say.
    fn ages(&mut self, trust: Trust) -> Result<Ages, StoreError> {
        let tx = self.database()?.begin_read()?;
        let mut boots = Vec::new();
        for row in tx.open_table(BOOTS)?.iter()? {
            boots.push(row?.0.value());
        }
        let mut anchors = Vec::new();
        for row in tx.open_table(ANCHORS)?.iter()? {
            let (key, value) = row?;
            let (boot, mono) = key.value();
            let (wall_ns, of) = value.value();
            let of = Trust::from_u8(of);
            if of >= trust && boots.binary_search(&boot).is_ok() {
                anchors.push(Anchor {
                    boot,
                    mono: bufferbane_core::time::Monotonic::from_nanos(mono),
                    wall_ns,
                    trust: of,
                });
            }
        }
        let map = TimeMap::new(&anchors);
        Ok(Ages { boots, map })
    }
}

/// When boots were.
struct Ages {
    /// All of them, oldest first.
    boots: Vec<u32>,
    /// Those of which a clock is believed.
    map: TimeMap,
}

impl Ages {
    /// For each boot the instant before which all is older than `wall_ns`, ns since boot.
    fn expired(&self, wall_ns: i64) -> Vec<(u32, u64)> {
        let mut ends = Vec::new();
        let mut is_before_an_old_one = false;
        for boot in self.boots.iter().rev() {
            let end = match self.map.wall_ns(*boot, 0) {
                Some(begin) => {
                    is_before_an_old_one |= begin < wall_ns;
                    self.map.older_than(*boot, wall_ns).end
                }
                None if is_before_an_old_one => u64::MAX,
                None => 0,
            };
            if end > 0 {
                ends.push((*boot, end));
            }
        }
        ends
    }
}

/// Goes through the rows of a table from the oldest boot on, of each boot by time.
struct Oldest {
    /// (boot, instant, series) of the first row of each stretch that is left.
    firsts: BinaryHeap<Reverse<(u32, u64, u32)>>,
}

impl Oldest {
    fn new(stretches: Vec<Stretch>) -> Self {
        let firsts = stretches
            .into_iter()
            .map(|s| Reverse((s.boot, s.first, s.series)))
            .collect();
        Self { firsts }
    }

    fn next(
        &mut self,
        table: &impl ReadableTable<SeriesTime, &'static [u8]>,
    ) -> Result<Option<SeriesTime>, StoreError> {
        let Some(Reverse((boot, first, series))) = self.firsts.pop() else {
            return Ok(None);
        };
        let rest = (series, boot, first.saturating_add(1))..=(series, boot, u64::MAX);
        if let Some((key, _)) = table.range(rest)?.next().transpose()? {
            self.firsts.push(Reverse((boot, key.value().2, series)));
        }
        Ok(Some((series, boot, first)))
    }
}

/// The keys of each series and boot that are before the boot's end, at most `rows` of them in all.
fn expired_keys(
    table: &impl ReadableTable<SeriesTime, &'static [u8]>,
    ends: &[(u32, u64)],
    rows: &mut u64,
) -> Result<Vec<Vec<SeriesTime>>, StoreError> {
    let mut found = Vec::new();
    if ends.is_empty() {
        return Ok(found);
    }
    let ends: BTreeMap<u32, u64> = ends.iter().copied().collect();
    for s in stretches(table)? {
        let end = ends.get(&s.boot).copied().unwrap_or(0);
        if s.first >= end || *rows == 0 {
            continue;
        }
        let mut keys = Vec::new();
        for row in table.range((s.series, s.boot, s.first)..(s.series, s.boot, end))? {
            if *rows == 0 {
                break;
            }
            keys.push(row?.0.value());
            *rows -= 1;
        }
        found.push(keys);
    }
    Ok(found)
}

/// Whether the last sample of a block is before its boot's end, too. One that cannot be read need not stay.
fn is_over(
    blocks: &impl ReadableTable<SeriesTime, &'static [u8]>,
    key: SeriesTime,
    ends: &[(u32, u64)],
) -> Result<bool, StoreError> {
    let end = ends.iter().find(|(boot, _)| *boot == key.1);
    let samples = blocks.get(key)?.map(|row| decode_block(row.value()));
    let last = samples
        .and_then(Result::ok)
        .and_then(|all| all.iter().map(|s| s.sent.as_nanos()).max());
    Ok(last.is_none_or(|last| end.is_some_and(|(_, end)| last < *end)))
}

/// Removes the rows of `keys`, which follow each other.
fn remove_range(
    table: &mut Table<'_, SeriesTime, &'static [u8]>,
    keys: &[SeriesTime],
) -> Result<(), StoreError> {
    if let [first, ..] = keys {
        table.retain_in(*first..=keys[keys.len() - 1], |_, _| false)?;
    }
    Ok(())
}

/// Gives up the floors that no sample needs any more after the block at `gone` went, and all before.
fn forget_floors(
    tx: &WriteTransaction,
    blocks: &impl ReadableTable<SeriesTime, &'static [u8]>,
    gone: SeriesTime,
) -> Result<(), StoreError> {
    let (id, boot, last) = gone;
    let oldest = blocks
        .range((id, boot, last)..=(id, boot, u64::MAX))?
        .next()
        .transpose()?
        .map_or(last, |(key, _)| key.value().2);
    let mut floors = tx.open_table(FLOORS)?;
    // The last knot before the oldest sample that is left says what its floor is.
    let needed = floors
        .range((id, boot, 0)..(id, boot, oldest))?
        .next_back()
        .transpose()?
        .map(|(key, _)| key.value());
    if let Some(needed) = needed {
        floors.retain_in((id, boot, 0)..needed, |_, _| false)?;
    }
    Ok(())
}

/// Gives up the daemon's health in each boot before its instant, and the sums of hours that any of it was
/// in. Says whether there was any.
fn forget_health(tx: &WriteTransaction, ends: &[(u32, u64)]) -> Result<bool, StoreError> {
    let mut any = false;
    for table in [HEALTH, HEALTH_HOURS] {
        let mut health = tx.open_table(table)?;
        for (boot, end) in ends {
            health.retain_in((*boot, 0)..(*boot, *end), |_, _| {
                any = true;
                false
            })?;
        }
    }
    Ok(any)
}
