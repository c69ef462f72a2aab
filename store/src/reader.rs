//! The read side: beside a running daemon or without one, the same answers from the same file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bufferbane_core::clock::{Knot, Queueing};
use bufferbane_core::sample::Sample;
use redb::{ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable, TableError};

use crate::codec::{decode_block, decode_summary, from_json};
use crate::error::{OpenError, StoreError};
use crate::file::{open_database, open_read_only};
use crate::floors::{self, Floors};
use crate::loadtest::{LoadTest, TestId};
use crate::model::{Event, EventId, SeriesId, SeriesInfo, Trust};
use crate::tables::{
    ANCHORS, BLOCKS, BOOTS, EVENTS, FLOORS, HOURS, MINUTES, SERIES, TAIL, TESTS, WHOLE_TAIL,
};
use crate::tail::{self, Form, Tail, Wanted};
use crate::timemap::{Anchor, Segment, TimeMap};

/// Longer than any test, ns: so far apart may those be that overlap.
const OVERLAP_NS: u64 = 3_600_000_000_000;

/// Which samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// From this wall time on, ns since 1970.
    pub from_ns: i64,
    /// Up to this one, exclusive.
    pub to_ns: i64,
    /// Of these series.
    pub series: Vec<SeriesId>,
}

/// One sample with its place in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Its series.
    pub series: SeriesId,
    /// When it was sent, ns since 1970.
    pub wall_ns: i64,
    /// In which boot.
    pub boot: u32,
    /// The sample.
    pub sample: Sample,
    /// Its queueing delay per direction; `None` where the floor is not known, or the far end tells
    /// nothing.
    pub queueing: Option<Queueing>,
}

/// What [`Reader::check`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Series known.
    pub series: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Samples in blocks and in the tail.
    pub samples: u64,
    /// Rollup rows read.
    pub rollups: u64,
    /// Events read.
    pub events: u64,
}

/// An open store. Every answer takes a read transaction of its own, so nothing is held back from
/// the writer for longer than that.
pub struct Reader {
    path: PathBuf,
    db: ReadOnlyDatabase,
    map: TimeMap,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Opens the store for writing once, which repairs it after an unclean end, and closes it again.
///
/// # Errors
/// [`OpenError::Busy`] while a daemon has it open, and the others of [`OpenError`].
pub fn recover(path: &Path) -> Result<(), OpenError> {
    let db = open_database(path)?;
    db.close().map_err(|e| OpenError::of(path, e))
}

impl Reader {
    /// Opens the store at `path` for reading.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::NeedsRecovery`] after an unclean end of the daemon.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let db = open_read_only(path)?;
        let mut reader = Self {
            path: path.to_path_buf(),
            db,
            map: TimeMap::default(),
        };
        reader.map = reader.load_map().map_err(|e| OpenError::Corrupt {
            path: path.to_path_buf(),
            why: e.to_string(),
        })?;
        Ok(reader)
    }

    fn load_map(&self) -> Result<TimeMap, StoreError> {
        let mut anchors = Vec::new();
        for row in self.read()?.open_table(ANCHORS)?.iter()? {
            let (key, value) = row?;
            let (boot, mono) = key.value();
            let (wall_ns, trust) = value.value();
            anchors.push(Anchor {
                boot,
                mono: bufferbane_core::time::Monotonic::from_nanos(mono),
                wall_ns,
                trust: Trust::from_u8(trust),
            });
        }
        Ok(TimeMap::new(&anchors))
    }

    /// How boots and instants map to wall time.
    #[must_use]
    pub const fn time_map(&self) -> &TimeMap {
        &self.map
    }

    /// The file that is open.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn read(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.db.begin_read()?)
    }

    /// All series, by id.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn series(&self) -> Result<BTreeMap<SeriesId, SeriesInfo>, StoreError> {
        let mut series = BTreeMap::new();
        for row in self.read()?.open_table(SERIES)?.iter()? {
            let (id, json) = row?;
            series.insert(SeriesId(id.value()), from_json(json.value())?);
        }
        Ok(series)
    }

    /// The kernel's boot ids by number.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn boots(&self) -> Result<BTreeMap<u32, String>, StoreError> {
        let mut boots = BTreeMap::new();
        for row in self.read()?.open_table(BOOTS)?.iter()? {
            let (number, id) = row?;
            boots.insert(number.value(), id.value().to_owned());
        }
        Ok(boots)
    }

    /// Wall time of the first and just after the last sample or rollup, ns since 1970; `None` where
    /// there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn span(&self) -> Result<Option<(i64, i64)>, StoreError> {
        let tx = self.read()?;
        let mut span: Option<(i64, i64)> = None;
        let mut widen = |boot: u32, from_ns: u64, to_ns: u64| {
            if let (Some(a), Some(b)) = (
                self.map.wall_ns(boot, from_ns),
                self.map.wall_ns(boot, to_ns),
            ) {
                span = Some(span.map_or((a, b), |(x, y)| (x.min(a), y.max(b))));
            }
        };
        let blocks = tx.open_table(BLOCKS)?;
        for id in self.series()?.keys() {
            for boot in self.map.boots() {
                let all = (id.0, boot, 0)..=(id.0, boot, u64::MAX);
                for table in [MINUTES, HOURS] {
                    let rows = tx.open_table(table)?;
                    let mut range = rows.range(all.clone())?;
                    for row in [range.next(), range.next_back()].into_iter().flatten() {
                        let summary = decode_summary(row?.1.value())?;
                        if let (Some(first), Some(last)) = (summary.first, summary.last) {
                            widen(boot, first.as_nanos(), last.as_nanos() + 1);
                        }
                    }
                }
                let mut range = blocks.range(all)?;
                for row in [range.next(), range.next_back()].into_iter().flatten() {
                    let samples = decode_block(row?.1.value())?;
                    if let (Some(first), Some(last)) = (samples.first(), samples.last()) {
                        widen(boot, first.sent.as_nanos(), last.sent.as_nanos() + 1);
                    }
                }
            }
        }
        for part in read_tail(&tx, Wanted::All)? {
            if let (Some(first), Some(last)) = (part.samples.first(), part.samples.last()) {
                widen(part.boot, first.sent.as_nanos(), last.sent.as_nanos() + 1);
            }
        }
        Ok(span)
    }

    /// The samples of `filter` in the order of time, read block by block.
    #[must_use]
    pub fn samples(&self, filter: &Filter) -> Samples<'_> {
        let segments = self.map.clip(filter.from_ns, filter.to_ns);
        let cursors = filter
            .series
            .iter()
            .map(|id| Cursor::new(*id, segments.clone()))
            .collect();
        Samples {
            reader: self,
            cursors,
            failed: false,
        }
    }

    /// The events that touch `[from, to)` of wall time, by id. Those of boots without a clock are
    /// included.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn events(&self, from_ns: i64, to_ns: i64) -> Result<Vec<(EventId, Event)>, StoreError> {
        let mut events = Vec::new();
        for row in self.read()?.open_table(EVENTS)?.iter()? {
            let (id, json) = row?;
            let event: Event = from_json(json.value())?;
            let start = self.map.wall_ns(event.boot, event.start_ns);
            let end = event.end_ns.and_then(|e| self.map.wall_ns(event.boot, e));
            if start.is_none_or(|s| s < to_ns) && end.is_none_or(|e| e >= from_ns) {
                events.push((EventId(id.value()), event));
            }
        }
        Ok(events)
    }

    /// What is known of the clock of the far end of `series`, and the floor of its delays, at the end
    /// of `[from, to)` of wall time: the last knot before that. `None` where there is none, as for
    /// targets that tell no delay per direction.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn floor(
        &self,
        series: SeriesId,
        from_ns: i64,
        to_ns: i64,
    ) -> Result<Option<Knot>, StoreError> {
        let tx = self.read()?;
        let table = match tx.open_table(FLOORS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            table => table?,
        };
        for s in self.map.clip(from_ns, to_ns).into_iter().rev() {
            let mut rows =
                table.range((series.0, s.boot, s.from_ns)..(series.0, s.boot, s.to_ns))?;
            if let Some((key, bytes)) = rows.next_back().transpose()? {
                return floors::decode(key.value().2, bytes.value()).map(Some);
            }
        }
        Ok(None)
    }

    /// Throughput tests that began in `[from, to)` of wall time, the oldest first, each with that
    /// time, ns since 1970.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tests(
        &self,
        from_ns: i64,
        to_ns: i64,
    ) -> Result<Vec<(TestId, i64, LoadTest)>, StoreError> {
        let mut tests = Vec::new();
        let table = match self.read()?.open_table(TESTS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(tests),
            Err(e) => return Err(e.into()),
        };
        for s in self.map.clip(from_ns, to_ns) {
            let from = (s.boot, s.from_ns.saturating_sub(OVERLAP_NS));
            let until = (s.boot, s.to_ns.saturating_add(OVERLAP_NS));
            for row in table.range(first_test(&table, from)?..)? {
                let (id, json) = row?;
                let test: LoadTest = from_json(json.value())?;
                if (test.boot, test.start_ns) >= until {
                    break;
                }
                if test.boot == s.boot && (s.from_ns..s.to_ns).contains(&test.start_ns) {
                    tests.push((TestId(id.value()), s.wall_ns(test.start_ns), test));
                }
            }
        }
        Ok(tests)
    }

    /// Reads everything there is, and decodes it.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        let tx = self.read()?;
        let mut report = CheckReport {
            series: self.series()?.len() as u64,
            ..Default::default()
        };
        for row in tx.open_table(BLOCKS)?.iter()? {
            let (key, bytes) = row?;
            let samples = decode_block(bytes.value()).map_err(|e| {
                let (series, boot, at) = key.value();
                StoreError::Damaged(format!(
                    "block of series {series}, boot {boot}, at {at}: {e}"
                ))
            })?;
            report.blocks += 1;
            report.samples += samples.len() as u64;
        }
        for part in read_tail(&tx, Wanted::All)? {
            report.samples += part.samples.len() as u64;
        }
        for table in [MINUTES, HOURS] {
            for row in tx.open_table(table)?.iter()? {
                decode_summary(row?.1.value())?;
                report.rollups += 1;
            }
        }
        for row in tx.open_table(EVENTS)?.iter()? {
            let _: Event = from_json(row?.1.value())?;
            report.events += 1;
        }
        Ok(report)
    }
}

/// The samples that are in no block yet, as far as they are `wanted`.
pub(crate) fn read_tail(
    tx: &ReadTransaction,
    wanted: Wanted,
) -> Result<Vec<tail::Part>, StoreError> {
    let mut tail = Tail::default();
    match tx.open_table(WHOLE_TAIL) {
        Ok(table) => {
            if let Some(row) = table.get(())? {
                tail.take(tail::decode(row.value(), Form::Whole, wanted)?)?;
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(e) => return Err(e.into()),
    }
    match tx.open_table(TAIL) {
        Ok(table) => {
            for row in table.iter()? {
                tail.take(tail::decode(row?.1.value(), Form::Changes, wanted)?)?;
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(tail.into_parts().0)
}

/// The samples of one series and one stretch of a boot that begin in the block at or after
/// `from_key`; with the key of the block they are from, or none where they are from the tail.
pub(crate) fn read_chunk(
    tx: &ReadTransaction,
    series: SeriesId,
    segment: &Segment,
    from_key: u64,
    after_block: bool,
) -> Result<(Option<u64>, Vec<Sample>), StoreError> {
    let blocks = tx.open_table(BLOCKS)?;
    let to = (series.0, segment.boot, segment.to_ns);
    let mut start = from_key;
    if !after_block {
        // The block that begins before the stretch may reach into it.
        let before = (series.0, segment.boot, 0)..=(series.0, segment.boot, from_key);
        if let Some(row) = blocks.range(before)?.next_back() {
            start = row?.0.value().2;
        }
    }
    let from = (series.0, segment.boot, start);
    if from < to
        && let Some(row) = blocks.range(from..to)?.next()
    {
        let (key, bytes) = row?;
        return Ok((Some(key.value().2), decode_block(bytes.value())?));
    }
    let tail = read_tail(tx, Wanted::Series(series, segment.boot))?;
    Ok((None, tail.into_iter().flat_map(|p| p.samples).collect()))
}

/// Goes through one series, one block in memory at a time.
#[derive(Debug)]
struct Cursor {
    series: SeriesId,
    /// What is left to read, the present one first.
    segments: std::vec::IntoIter<Segment>,
    segment: Option<Segment>,
    /// Where the next block is looked for, and whether one was read before.
    next_key: u64,
    started: bool,
    /// Nothing but what has been read is left of this segment.
    exhausted: bool,
    last: Option<(u64, u64)>,
    chunk: std::vec::IntoIter<Sample>,
    floors: Floors,
    head: Option<Row>,
}

impl Cursor {
    fn new(series: SeriesId, segments: Vec<Segment>) -> Self {
        Self {
            series,
            segments: segments.into_iter(),
            segment: None,
            next_key: 0,
            started: false,
            exhausted: true,
            last: None,
            chunk: Vec::new().into_iter(),
            floors: Floors::default(),
            head: None,
        }
    }

    fn fill(&mut self, reader: &Reader) -> Result<(), StoreError> {
        while self.head.is_none() {
            if let Some(segment) = self.segment {
                for sample in self.chunk.by_ref() {
                    let at = sample.sent.as_nanos();
                    if at >= segment.from_ns && at < segment.to_ns {
                        self.last = Some((at, sample.seq));
                        self.head = Some(Row {
                            series: self.series,
                            wall_ns: segment.wall_ns(at),
                            boot: segment.boot,
                            sample,
                            queueing: self.floors.queueing(&sample),
                        });
                        return Ok(());
                    }
                }
            }
            if self.exhausted {
                let Some(next) = self.segments.next() else {
                    return Ok(());
                };
                self.segment = Some(next);
                self.next_key = next.from_ns;
                self.started = false;
                self.exhausted = false;
                self.last = None;
            }
            let Some(segment) = self.segment else {
                return Ok(());
            };
            let tx = reader.read()?;
            let (key, mut samples) =
                read_chunk(&tx, self.series, &segment, self.next_key, self.started)?;
            self.floors = Floors::of(&tx, self.series, segment.boot, &samples)?;
            match key {
                Some(key) => {
                    self.started = true;
                    self.next_key = key + 1;
                }
                None => {
                    // The tail may have been sealed and read as a block a moment ago.
                    if let Some((at, _)) = self.last {
                        samples.retain(|s| s.sent.as_nanos() > at);
                    }
                    self.exhausted = true;
                }
            }
            self.chunk = samples.into_iter();
        }
        Ok(())
    }
}

/// See [`Reader::samples`]. Ends after the first error.
#[derive(Debug)]
pub struct Samples<'a> {
    reader: &'a Reader,
    cursors: Vec<Cursor>,
    failed: bool,
}

impl Iterator for Samples<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        for c in &mut self.cursors {
            if let Err(e) = c.fill(self.reader) {
                self.failed = true;
                return Some(Err(e));
            }
        }
        let key = |r: &Row| (r.boot, r.sample.sent, r.series);
        let earliest = self
            .cursors
            .iter_mut()
            .filter(|c| c.head.is_some())
            .min_by_key(|c| c.head.as_ref().map(key))?;
        earliest.head.take().map(Ok)
    }
}

/// The number from which on all tests began at `wanted` or later, boot and ns since boot, give or take
/// some that overlap: they are numbered in the order in which they end. A month may hold a thousand,
/// kilobytes each, of which an hour has one.
fn first_test(
    table: &redb::ReadOnlyTable<u64, &'static [u8]>,
    wanted: (u32, u64),
) -> Result<u64, StoreError> {
    /// When a test began.
    #[derive(serde::Deserialize)]
    struct Begun {
        boot: u32,
        start_ns: u64,
    }
    let (Some(first), Some(last)) = (table.first()?, table.last()?) else {
        return Ok(0);
    };
    let (mut low, mut high) = (first.0.value(), last.0.value().saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        // Those that have been given up leave gaps.
        match table.range(middle..high)?.next().transpose()? {
            None => high = middle,
            Some((id, json)) => {
                let begun: Begun = from_json(json.value())?;
                if (begun.boot, begun.start_ns) < wanted {
                    low = id.value() + 1;
                } else {
                    high = middle;
                }
            }
        }
    }
    Ok(low)
}
