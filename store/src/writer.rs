//! The write side: samples go in one by one, and into the file in batches.

mod doubt;
mod resume;
mod revisions;
pub(crate) mod rollups;
mod tail;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use bufferbane_core::clock::Update;
use bufferbane_core::sample::Sample;
use bufferbane_core::time::Monotonic;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use crate::buffer::{Buffer, HOLD_BACK_NS, Stored};
use crate::capacity;
use crate::codec::to_json;
use crate::error::{OpenError, StoreError};
use crate::events;
use crate::file::{free_bytes, keep, open_database, open_tentatively, unless_it_panics};
use crate::floors::{Floors, Recent};
use crate::loadtest::{LoadTest, TestId};
use crate::model::{Event, EventId, SeriesId, SeriesInfo, Trust};
use crate::paths;
use crate::tables::{ANCHORS, BLOCKS, BOOTS, SERIES, TESTS};
use crate::waiting::{For, Waiting};
use doubt::InDoubt;
use resume::insert_block;
use rollups::{complete_last_hour, write_minutes};
use tail::{Settled, TailRows};

/// Rows of minutes, of load and of health, that are kept while nothing can be written: two days of two lines,
/// 5 MB.
const BACKLOG_ROWS: usize = 10_000;

/// How a store is written.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// No commit is tried while less than this is free on the file system, bytes.
    pub min_free_bytes: u64,
    /// Samples kept in memory for each series while nothing can be written.
    pub backlog_samples: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            min_free_bytes: 100 << 20,
            backlog_samples: 100_000,
        }
    }
}

/// What one commit wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// Samples that are durable now and were not before.
    pub samples: u64,
    /// Blocks sealed.
    pub blocks: u64,
    /// Rollup rows written.
    pub rollups: u64,
}

/// Writes one store. There is one of these at a time for a file.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    options: WriterOptions,
    db: Option<Database>,
    boot: u32,
    series: HashMap<SeriesInfo, SeriesId>,
    next_event: u64,
    next_test: u64,
    buffers: BTreeMap<SeriesId, Buffer>,
    /// Up to where samples of this boot are in rollups from runs before, ns since boot.
    rolled_before: BTreeMap<SeriesId, u64>,
    floors: BTreeMap<SeriesId, Recent>,
    /// Events of this run that last.
    open: BTreeMap<EventId, Event>,
    pending: Pending,
    fresh_samples: u64,
    shed_samples: u64,
    shed_rows: u64,
    /// What is in the file of the tail; `None` where that is not known.
    tail: Option<TailRows>,
    /// Rows that are in the tail and not in their tables yet.
    waiting: Vec<Waiting>,
    /// The number of the last commit that was tried.
    commits: u64,
    in_doubt: Option<InDoubt>,
}

/// What waits for the next commit beside samples.
#[derive(Debug, Default)]
struct Pending {
    boot: Option<String>,
    anchors: Vec<(u64, i64, Trust)>,
    series: Vec<(SeriesId, SeriesInfo)>,
    events: BTreeMap<EventId, Event>,
    tests: Vec<(TestId, LoadTest)>,
    lines: capacity::Pending,
    paths: paths::Pending,
    /// Those that get into their tables later, see `waiting`.
    rows: VecDeque<Waiting>,
    /// Of what is in the file, or may be.
    revisions: VecDeque<(SeriesId, Sample, Stored)>,
}

impl Writer {
    /// Opens the store at `path`, or makes it. After an unclean end this repairs the file first
    /// (about a second for 100 MB), and puts what was left unsealed into blocks and rollups.
    ///
    /// # Errors
    /// [`OpenError`]; the file is left untouched where it is not a store of this program.
    pub fn open(path: &Path, options: WriterOptions) -> Result<Self, OpenError> {
        let (db, decision) = open_tentatively(path)?;
        let mut writer = Self {
            path: path.to_path_buf(),
            options,
            db: Some(db),
            boot: 0,
            series: HashMap::new(),
            next_event: 0,
            next_test: 0,
            buffers: BTreeMap::new(),
            rolled_before: BTreeMap::new(),
            floors: BTreeMap::new(),
            open: BTreeMap::new(),
            pending: Pending::default(),
            fresh_samples: 0,
            shed_samples: 0,
            shed_rows: 0,
            tail: None,
            waiting: Vec::new(),
            commits: 0,
            in_doubt: None,
        };
        unless_it_panics(path, || {
            writer.load().map_err(|e| OpenError::Corrupt {
                path: path.to_path_buf(),
                why: e.to_string(),
            })
        })?;
        keep(path, decision)?;
        Ok(writer)
    }

    /// Samples from now on belong to the boot with the kernel's id `boot_id`; at `now` the wall clock
    /// shows `wall_ns`. Gives the boot's number.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn begin_boot(
        &mut self,
        boot_id: &str,
        now: Monotonic,
        wall_ns: i64,
        trust: Trust,
    ) -> Result<u32, StoreError> {
        let (known, next) = {
            let tx = self.database()?.begin_read()?;
            let boots = tx.open_table(BOOTS)?;
            let mut known = None;
            let mut next = 1;
            for row in boots.iter()? {
                let (number, id) = row?;
                next = number.value() + 1;
                if id.value() == boot_id {
                    known = Some(number.value());
                }
            }
            (known, next)
        };
        if known.is_none() {
            self.pending.boot = Some(boot_id.to_owned());
        }
        self.boot = known.unwrap_or(next);
        self.rolled_before = self.rolled_by_runs_before()?;
        self.anchor(now, wall_ns, trust);
        Ok(self.boot)
    }

    /// From now on no commit is tried while less than `bytes` are free on the file system.
    pub const fn set_min_free_bytes(&mut self, bytes: u64) {
        self.options.min_free_bytes = bytes;
    }

    /// The number of the event that is recorded next.
    pub(crate) const fn next_event(&self) -> u64 {
        self.next_event
    }

    /// The number of the boot that samples are recorded under.
    #[must_use]
    pub const fn boot(&self) -> u32 {
        self.boot
    }

    /// At `mono` the wall clock shows `wall_ns`: to be called at start, when the clock has stepped,
    /// and when it becomes trustworthy.
    pub fn anchor(&mut self, mono: Monotonic, wall_ns: i64, trust: Trust) {
        self.pending.anchors.push((mono.as_nanos(), wall_ns, trust));
    }

    /// The id of a series, which is added if it is new.
    pub fn series(&mut self, info: &SeriesInfo) -> SeriesId {
        if let Some(id) = self.series.get(info) {
            return *id;
        }
        let next = self.series.values().map(|id| id.0 + 1).max().unwrap_or(1);
        let id = SeriesId(next);
        self.series.insert(info.clone(), id);
        self.pending.series.push((id, info.clone()));
        id
    }

    /// Records one sample.
    pub fn record(&mut self, series: SeriesId, sample: Sample) {
        self.fresh_samples += 1;
        let buffer = self.buffers.entry(series).or_insert_with(|| {
            Buffer::rolled_until(self.rolled_before.get(&series).copied().unwrap_or(0))
        });
        buffer.insert(sample);
        // A commit every minute keeps buffers short; this bounds them while commits fail.
        self.shed_samples += buffer.shed(self.options.backlog_samples);
    }

    /// More became known of the floor of a series' delays, from which the queueing delay of its
    /// samples follows: to be told after the sample that it was learned from.
    pub fn floor(&mut self, series: SeriesId, update: &Update) {
        let oldest = self.buffers.get(&series).and_then(Buffer::oldest_ns);
        let floors = self.floors.entry(series).or_default();
        floors.take(update, oldest.unwrap_or(0));
    }

    /// More became known of a sample that was recorded as lost.
    pub fn revise(&mut self, series: SeriesId, sample: Sample) {
        let stored = self
            .buffers
            .get_mut(&series)
            .map_or(Stored::BOTH, |b| b.revise(&sample));
        if !stored.in_block && !stored.in_rollup && self.in_doubt.is_none() {
            return;
        }
        let revisions = &mut self.pending.revisions;
        revisions.push_back((series, sample, stored));
        if revisions.len() > self.options.backlog_samples {
            revisions.pop_front();
            if let Some(doubt) = &mut self.in_doubt {
                doubt.revisions = doubt.revisions.saturating_sub(1);
            }
        }
    }

    /// Records an event; it is durable with the next commit.
    pub fn event(&mut self, event: Event) -> EventId {
        let id = EventId(self.next_event);
        self.next_event += 1;
        self.update_event(id, event);
        id
    }

    /// Records a throughput test of this boot.
    pub fn load_test(&mut self, test: LoadTest) -> TestId {
        let id = TestId(self.next_test);
        self.next_test += 1;
        let boot = self.boot;
        self.pending.tests.push((id, LoadTest { boot, ..test }));
        id
    }

    /// Writes an event again: it has ended, or its values have changed.
    pub fn update_event(&mut self, id: EventId, event: Event) {
        if event.end_ns.is_none() {
            self.open.insert(id, event.clone());
        } else {
            self.open.remove(&id);
        }
        self.pending.events.insert(id, event);
    }

    /// Recording ends: whatever lasts is known up to `at` and no further. What a killed run could not
    /// say so of is ended by [`Writer::open`], at the last instant of which it recorded anything.
    pub fn end_events(&mut self, at: Monotonic) {
        for (id, mut event) in std::mem::take(&mut self.open) {
            event.cut_at(at.as_nanos());
            self.pending.events.insert(id, event);
        }
    }

    /// A row of this boot for a table that it gets into later.
    pub(crate) fn wait(&mut self, table: For, at: Monotonic, interface: &str, value: Vec<u8>) {
        self.pending.rows.push_back(Waiting {
            table,
            boot: self.boot,
            at_ns: at.as_nanos(),
            interface: interface.to_owned(),
            value,
        });
        if self.pending.rows.len() > BACKLOG_ROWS {
            self.pending.rows.pop_front();
            self.shed_rows += 1;
        }
    }

    pub(crate) const fn pending_lines(&mut self) -> &mut capacity::Pending {
        &mut self.pending.lines
    }

    pub(crate) const fn pending_paths(&mut self) -> &mut paths::Pending {
        &mut self.pending.paths
    }

    /// Samples that are not durable yet.
    #[must_use]
    pub const fn uncommitted(&self) -> u64 {
        self.fresh_samples
    }

    /// Samples that had to be given up because nothing could be written for too long.
    #[must_use]
    pub const fn shed(&self) -> u64 {
        self.shed_samples
    }

    /// Minutes of load and of health that had to be given up because nothing could be written for too long.
    #[must_use]
    pub const fn shed_rows(&self) -> u64 {
        self.shed_rows
    }

    /// The size of the file, bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |m| m.len())
    }

    /// Makes everything durable that was recorded so far.
    ///
    /// # Errors
    /// Nothing is lost by an error: the same is tried again with the next call, unless it proves to be in the
    /// file, where redb failed after it had written all of it. Where
    /// [`StoreError::is_full`], that will fail until there is room.
    pub fn commit(&mut self) -> Result<CommitReport, StoreError> {
        self.commit_inner(false)
    }

    /// Commits, seals everything, and closes the file so that it needs no recovery.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub fn close(mut self) -> Result<CommitReport, StoreError> {
        let report = self.commit_inner(true)?;
        if let Some(db) = self.db.take() {
            db.close()
                .map_err(|e| StoreError::Reopen(OpenError::of(&self.path, e)))?;
        }
        Ok(report)
    }

    fn commit_inner(&mut self, all: bool) -> Result<CommitReport, StoreError> {
        let free_bytes = free_bytes(&self.path);
        if free_bytes < self.options.min_free_bytes {
            return Err(StoreError::Full {
                free_bytes,
                min_free_bytes: self.options.min_free_bytes,
            });
        }
        let result = self.try_commit(all);
        if result.is_err() {
            // After an I/O error redb refuses everything on that handle.
            self.db = None;
            self.tail = None;
        }
        result
    }

    fn try_commit(&mut self, all: bool) -> Result<CommitReport, StoreError> {
        let mut report = CommitReport {
            samples: self.fresh_samples,
            ..CommitReport::default()
        };
        self.database()?;
        self.commits += 1;
        let commit = self.commits;
        let newest = self
            .buffers
            .values()
            .filter_map(Buffer::newest_ns)
            .max()
            .unwrap_or(0);
        let boot = self.boot;
        let db = self.database()?;
        let tx = db.begin_write()?;
        self.write_pending(&tx)?;
        // What each buffer may forget once the commit has succeeded.
        let mut settled = Vec::new();
        {
            for (id, recent) in &self.floors {
                recent.write(&tx, *id, boot)?;
            }
            let none = Floors::default();
            let mut blocks = tx.open_table(BLOCKS)?;
            for (id, buffer) in &self.buffers {
                let sealed = buffer.seal(newest, all);
                let mut count = 0;
                for block in &sealed {
                    insert_block(&mut blocks, (id.0, boot, block.first_ns), &block.bytes)?;
                    count += block.samples;
                    report.blocks += 1;
                }
                let floors = self.floors.get(id).map(|r| &r.floors);
                let minutes = buffer.minutes(newest, all, floors.unwrap_or(&none));
                report.rollups += minutes.len() as u64;
                write_minutes(&tx, *id, boot, &minutes)?;
                let until_ns = if all {
                    u64::MAX
                } else {
                    newest.saturating_sub(HOLD_BACK_NS)
                };
                complete_last_hour(&tx, *id, boot, until_ns)?;
                let rolled_until_ns = if all {
                    buffer.newest_ns().map_or(buffer.rolled_until_ns, |n| n + 1)
                } else {
                    buffer.next_rolled_until(newest)
                };
                settled.push(Settled {
                    id: *id,
                    sealed: count,
                    rolled_until_ns,
                });
            }
        }
        let tail_rows = self.write_tail(&tx, commit, &settled, &self.pending.rows, all)?;
        self.write_revisions(&tx)?;
        self.sum_up_again(&tx)?;
        if let Err(e) = tx.commit() {
            let revisions = self.pending.revisions.len();
            self.doubt(InDoubt {
                commit,
                settled,
                revisions,
            });
            return Err(e.into());
        }
        self.tail = Some(tail_rows);
        self.waiting.extend(self.pending.rows.drain(..));
        if tail_rows.is_whole() {
            self.waiting.clear();
        }
        for s in settled {
            if let Some(buffer) = self.buffers.get_mut(&s.id) {
                buffer.settle(s.sealed, s.rolled_until_ns);
            }
        }
        for (id, recent) in &mut self.floors {
            let oldest = self.buffers.get(id).and_then(Buffer::oldest_ns);
            recent.settle(oldest.unwrap_or(u64::MAX));
        }
        self.pending = Pending::default();
        self.fresh_samples = 0;
        Ok(report)
    }

    fn write_pending(&self, tx: &WriteTransaction) -> Result<(), StoreError> {
        let p = &self.pending;
        if let Some(id) = &p.boot {
            tx.open_table(BOOTS)?.insert(self.boot, id.as_str())?;
        }
        let mut anchors = tx.open_table(ANCHORS)?;
        for (mono, wall_ns, trust) in &p.anchors {
            anchors.insert((self.boot, *mono), (*wall_ns, *trust as u8))?;
        }
        let mut series = tx.open_table(SERIES)?;
        for (id, info) in &p.series {
            series.insert(id.0, to_json(info)?.as_slice())?;
        }
        events::write(tx, p.events.iter())?;
        let mut tests = tx.open_table(TESTS)?;
        for (id, test) in &p.tests {
            tests.insert(id.0, to_json(test)?.as_slice())?;
        }
        p.lines.write(tx, self.boot)?;
        p.paths.write(tx, self.boot)
    }

    /// The open file, opened again if an error closed it.
    pub(crate) fn database(&mut self) -> Result<&Database, StoreError> {
        if self.db.is_none() {
            let db = open_database(&self.path).map_err(StoreError::Reopen)?;
            self.resolve_doubt(&db)?;
            self.db = Some(db);
        }
        self.db
            .as_ref()
            .ok_or_else(|| StoreError::Damaged("the store is closed".into()))
    }
}
