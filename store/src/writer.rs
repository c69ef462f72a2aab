//! The write side: samples go in one by one, and into the file in batches.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use bufferbane_core::clock::Update;
use bufferbane_core::record;
use bufferbane_core::sample::{Sample, Status};
use bufferbane_core::stats::summary::{MAX_ENCODED, Summary};
use bufferbane_core::time::Monotonic;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use crate::buffer::{Buffer, Stored};
use crate::error::{OpenError, StoreError};
use crate::floors::{Floors, Recent};
use crate::loadtest::{LoadTest, TestId};
use crate::model::{Event, EventId, Health, SeriesId, SeriesInfo, Trust};
use crate::tables::{
    ANCHORS, BLOCKS, BOOTS, CACHE_BYTES, EVENTS, FLOORS, HEALTH, HOUR_NS, HOURS, META, MINUTE_NS,
    MINUTES, MODE, REDB_MAGIC, SCHEMA, SERIES, SeriesTime, TAIL, TESTS,
};
use crate::tail;
use crate::tentative::{Decision, Tentative};

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
    floors: BTreeMap<SeriesId, Recent>,
    /// Events of this run that last.
    open: BTreeMap<EventId, Event>,
    pending: Pending,
    fresh_samples: u64,
    shed_samples: u64,
}

/// What waits for the next commit beside samples.
#[derive(Debug, Default)]
struct Pending {
    boot: Option<String>,
    anchors: Vec<(u64, i64, Trust)>,
    series: Vec<(SeriesId, SeriesInfo)>,
    events: BTreeMap<EventId, Event>,
    tests: Vec<(TestId, LoadTest)>,
    health: Vec<(u64, Health)>,
    revisions: Vec<(SeriesId, Sample, Stored)>,
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
            floors: BTreeMap::new(),
            open: BTreeMap::new(),
            pending: Pending::default(),
            fresh_samples: 0,
            shed_samples: 0,
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

    /// Reads the dictionaries, and closes what the run before left open.
    fn load(&mut self) -> Result<(), StoreError> {
        let tx = self.database()?.begin_write()?;
        {
            // A file of an earlier version becomes one of this version.
            let mut meta = tx.open_table(META)?;
            let found = meta.get("schema")?.map_or(0, |v| v.value());
            if found < SCHEMA {
                meta.insert("schema", SCHEMA)?;
            }
            tx.open_table(FLOORS)?;
            for row in tx.open_table(SERIES)?.iter()? {
                let (id, json) = row?;
                let info: SeriesInfo = from_json(json.value())?;
                self.series.insert(info, SeriesId(id.value()));
            }
            let last_event = tx.open_table(EVENTS)?.last()?.map(|(id, _)| id.value());
            self.next_event = last_event.map_or(0, |id| id + 1);
            let last_test = tx.open_table(TESTS)?.last()?.map(|(id, _)| id.value());
            self.next_test = last_test.map_or(0, |id| id + 1);
            let mut tail_table = tx.open_table(TAIL)?;
            let parts = match tail_table.get(())? {
                Some(row) => tail::decode(row.value())?,
                None => Vec::new(),
            };
            for mut part in parts {
                close_part(&tx, &mut part)?;
            }
            tail_table.remove(())?;
        }
        end_events(&tx, self.series.values())?;
        tx.commit()?;
        Ok(())
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
        self.anchor(now, wall_ns, trust);
        Ok(self.boot)
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
        let buffer = self.buffers.entry(series).or_default();
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
        self.pending.revisions.push((series, sample, stored));
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
            event.end_ns = Some(at.as_nanos().max(event.start_ns));
            self.pending.events.insert(id, event);
        }
    }

    /// Records the daemon's own health over the minute that ends at `now`.
    pub fn health(&mut self, now: Monotonic, health: Health) {
        self.pending.health.push((now.as_nanos(), health));
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

    /// The size of the file, bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |m| m.len())
    }

    /// Makes everything durable that was recorded so far.
    ///
    /// # Errors
    /// Nothing is lost by an error: the same is tried again with the next call. Where
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
        }
        result
    }

    fn try_commit(&mut self, all: bool) -> Result<CommitReport, StoreError> {
        let mut report = CommitReport {
            samples: self.fresh_samples,
            ..CommitReport::default()
        };
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
                let rolled_until_ns = if all {
                    buffer.newest_ns().map_or(buffer.rolled_until_ns, |n| n + 1)
                } else {
                    buffer.next_rolled_until(newest)
                };
                settled.push((*id, count, rolled_until_ns));
            }
            let row = tail::encode(
                self.buffers
                    .iter()
                    .zip(&settled)
                    .map(|((id, b), s)| (*id, boot, s.2, b.unsealed().skip(s.1).collect())),
            );
            let mut tail = tx.open_table(TAIL)?;
            if all {
                tail.remove(())?
            } else {
                tail.insert((), row.as_slice())?
            };
        }
        self.write_revisions(&tx)?;
        self.sum_up_again(&tx)?;
        tx.commit()?;
        for (id, count, rolled_until_ns) in settled {
            if let Some(buffer) = self.buffers.get_mut(&id) {
                buffer.settle(count, rolled_until_ns);
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
        let mut events = tx.open_table(EVENTS)?;
        for (id, event) in &p.events {
            events.insert(id.0, to_json(event)?.as_slice())?;
        }
        let mut tests = tx.open_table(TESTS)?;
        for (id, test) in &p.tests {
            tests.insert(id.0, to_json(test)?.as_slice())?;
        }
        let mut health = tx.open_table(HEALTH)?;
        for (mono, row) in &p.health {
            health.insert((self.boot, *mono), to_json(row)?.as_slice())?;
        }
        Ok(())
    }

    /// Changes samples that are in blocks or rollups already.
    fn write_revisions(&self, tx: &WriteTransaction) -> Result<(), StoreError> {
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
        if let Some(b) = buffer {
            rolled.extend(
                b.unsealed()
                    .filter(|s| s.sent.as_nanos() < b.rolled_until_ns),
            );
        }
        rolled.retain(|s| window.contains(&s.sent.as_nanos()));
        rolled.sort_by_key(|s| (s.sent, s.seq));
        // What is being sealed just now is in a block and still in memory.
        rolled.dedup();
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
    fn sum_up_again(&self, tx: &WriteTransaction) -> Result<(), StoreError> {
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

    /// The open file, opened again if an error closed it.
    pub(crate) fn database(&mut self) -> Result<&Database, StoreError> {
        if self.db.is_none() {
            self.db = Some(open_database(&self.path).map_err(StoreError::Reopen)?);
        }
        self.db
            .as_ref()
            .ok_or_else(|| StoreError::Damaged("the store is closed".into()))
    }
}

/// Makes the file smaller if nobody else has it open. Gives whether it did.
///
/// # Errors
/// As [`Writer::open`]; [`StoreError`] within [`OpenError::Corrupt`] where compaction fails.
pub fn compact(path: &Path) -> Result<bool, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing(path.to_path_buf()));
    }
    let mut db = open_database(path)?;
    let corrupt = |why: String| OpenError::Corrupt {
        path: path.to_path_buf(),
        why,
    };
    let done = db.compact().map_err(|e| corrupt(e.to_string()))?;
    db.close().map_err(|e| OpenError::of(path, e))?;
    Ok(done)
}

/// Refuses what is not ours before redb touches it.
pub(crate) fn check_foreign(path: &Path) -> Result<bool, OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    let mut file = match File::open(path) {
        Ok(f) => f,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(io(e)),
    };
    if file.metadata().map_err(io)?.len() == 0 {
        return Ok(false);
    }
    let mut magic = [0; REDB_MAGIC.len()];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == REDB_MAGIC => Ok(true),
        Ok(()) => Err(OpenError::Foreign(path.to_path_buf())),
        Err(_) => Err(OpenError::Foreign(path.to_path_buf())),
    }
}

/// Whether the opened database `tx` reads from is a store of ours, of a version we know.
pub(crate) fn check_schema(path: &Path, db: &impl ReadableDatabase) -> Result<(), OpenError> {
    let foreign = || OpenError::Foreign(path.to_path_buf());
    let tx = db.begin_read().map_err(|_| foreign())?;
    let meta = tx.open_table(META).map_err(|_| foreign())?;
    let found = meta
        .get("schema")
        .ok()
        .flatten()
        .map(|v| v.value())
        .ok_or_else(foreign)?;
    if found > SCHEMA {
        return Err(OpenError::Newer {
            path: path.to_path_buf(),
            found,
        });
    }
    Ok(())
}

/// What redb does with a file whose pages are garbage: some it reports, at some it panics.
fn unless_it_panics<T>(
    path: &Path,
    open: impl FnOnce() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).unwrap_or_else(|_| {
        Err(OpenError::Corrupt {
            path: path.to_path_buf(),
            why: "its pages make no sense".into(),
        })
    })
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_concurrency_mode(MODE);
    builder
}

/// An empty database in a new file.
pub(crate) fn new_database(path: &Path) -> Result<Database, OpenError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|source| OpenError::Io {
            path: path.to_path_buf(),
            source,
        })?;
    FileBackend::new(file)
        .and_then(|file| builder().create_with_backend(file))
        .map_err(|e| OpenError::of(path, e))
}

pub(crate) fn open_read_only(path: &Path) -> Result<redb::ReadOnlyDatabase, OpenError> {
    if !check_foreign(path)? {
        return Err(OpenError::Missing(path.to_path_buf()));
    }
    unless_it_panics(path, || {
        let db = builder()
            .open_read_only(path)
            .map_err(|e| OpenError::of(path, e))?;
        check_schema(path, &db)?;
        Ok(db)
    })
}

pub(crate) fn open_database(path: &Path) -> Result<Database, OpenError> {
    let (db, decision) = open_tentatively(path)?;
    keep(path, decision)?;
    Ok(db)
}

/// Opens the store, or makes it, without changing a byte of one that is there before the decision:
/// until then it may prove to be damaged.
fn open_tentatively(path: &Path) -> Result<(Database, Decision), OpenError> {
    if !check_foreign(path)? {
        make(path)?;
    }
    // A look that changes nothing first; after an unclean end only a writer can look.
    match open_read_only(path) {
        Ok(_) | Err(OpenError::NeedsRecovery(_)) => {}
        Err(e) => return Err(e),
    }
    let io = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(io)?;
    unless_it_panics(path, || {
        let backend = FileBackend::new(file).map_err(|e| OpenError::of(path, e))?;
        let (backend, decision) = Tentative::new(backend).map_err(io)?;
        let db = builder()
            .create_with_backend(backend)
            .map_err(|e| OpenError::of(path, e))?;
        check_schema(path, &db)?;
        Ok((db, decision))
    })
}

fn keep(path: &Path, decision: Decision) -> Result<(), OpenError> {
    decision.keep().map_err(|source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    })
}

/// Makes an empty store. It gets its name when it is whole: one that a power cut left half made
/// could not be told from another program's file, and would be refused for ever.
fn make(path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    let corrupt = |why: String| OpenError::Corrupt {
        path: path.to_path_buf(),
        why,
    };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let unnamed = PathBuf::from(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&unnamed)
        .map_err(io)?;
    // What a killed one left is made anew; what another is making now is not touched.
    file.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => OpenError::Busy(path.to_path_buf()),
        TryLockError::Error(e) => io(e),
    })?;
    file.set_len(0).map_err(io)?;
    let scrap = |path: &Path| match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io(e)),
        _ => Ok(()),
    };
    let made = || -> Result<(), OpenError> {
        let db = FileBackend::new(file)
            .and_then(|file| builder().create_with_backend(file))
            .map_err(|e| OpenError::of(path, e))?;
        write_tables(&db).map_err(|e| corrupt(e.to_string()))?;
        db.close().map_err(|e| OpenError::of(path, e))?;
        // An empty file in its place holds nothing that could be lost.
        if std::fs::metadata(path).is_ok_and(|m| m.len() == 0) {
            scrap(path)?;
        }
        // Unlike a renaming, a link never replaces what another has made meanwhile.
        match std::fs::hard_link(&unnamed, path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            // Some file systems have no links.
            Err(_) => std::fs::rename(&unnamed, path).map_err(io)?,
        }
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty());
        let dir = File::open(dir.unwrap_or(Path::new("."))).map_err(io)?;
        dir.sync_all().map_err(io)
    };
    let result = made();
    let scrapped = scrap(&unnamed);
    result.and(scrapped)
}

/// Every table, so that readers find each from the beginning.
fn write_tables(db: &Database) -> Result<(), StoreError> {
    let tx = db.begin_write()?;
    tx.open_table(META)?.insert("schema", SCHEMA)?;
    for table in [BLOCKS, MINUTES, HOURS] {
        tx.open_table(table)?;
    }
    tx.open_table(BOOTS)?;
    tx.open_table(ANCHORS)?;
    tx.open_table(SERIES)?;
    tx.open_table(FLOORS)?;
    tx.open_table(EVENTS)?;
    tx.open_table(TESTS)?;
    tx.open_table(HEALTH)?;
    tx.open_table(TAIL)?;
    tx.commit()?;
    Ok(())
}

/// Puts what a run before left unsealed into blocks and rollups.
fn close_part(tx: &WriteTransaction, part: &mut tail::Part) -> Result<(), StoreError> {
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

/// Ends the events that a run before left open where what it recorded in their boot ends.
fn end_events<'a>(
    tx: &WriteTransaction,
    series: impl Iterator<Item = &'a SeriesId> + Clone,
) -> Result<(), StoreError> {
    let mut open: Vec<(u64, Event)> = Vec::new();
    let mut table = tx.open_table(EVENTS)?;
    for row in table.iter()? {
        let (id, json) = row?;
        let event: Event = from_json(json.value())?;
        if event.end_ns.is_none() {
            open.push((id.value(), event));
        }
    }
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    for (id, mut event) in open {
        let end_ns = match ends.get(&event.boot) {
            Some(ns) => *ns,
            None => last_instant(tx, event.boot, series.clone())?,
        };
        ends.insert(event.boot, end_ns);
        event.end_ns = Some(end_ns.max(event.start_ns));
        table.insert(id, to_json(&event)?.as_slice())?;
    }
    Ok(())
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
        let of_series = (id.0, boot, 0)..=(id.0, boot, u64::MAX);
        if let Some((_, block)) = blocks.range(of_series)?.next_back().transpose()? {
            let samples = decode_block(block.value())?;
            let newest = samples.iter().map(|s| s.sent.as_nanos()).max();
            last_ns = last_ns.max(newest.unwrap_or(0));
        }
    }
    Ok(last_ns)
}

/// Inserts a block under its first instant, or right after another that has the same one.
fn insert_block(
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

/// Writes rows of minutes, joined with what a run before left there, and the hours they complete.
fn write_minutes(
    tx: &WriteTransaction,
    id: SeriesId,
    boot: u32,
    new: &[(u64, Summary)],
) -> Result<(), StoreError> {
    if new.is_empty() {
        return Ok(());
    }
    let mut minutes = tx.open_table(MINUTES)?;
    let mut hours = tx.open_table(HOURS)?;
    for (begin, summary) in new {
        let key = (id.0, boot, *begin);
        let existing = minutes
            .get(key)?
            .map(|r| decode_summary(r.value()))
            .transpose()?;
        let joined = match existing {
            Some(mut before) => {
                before.merge(summary);
                before
            }
            None => summary.clone(),
        };
        minutes.insert(key, encode_summary(&joined).as_slice())?;
    }
    let mut hour_begins: Vec<u64> = new.iter().map(|(b, _)| b - b % HOUR_NS).collect();
    hour_begins.dedup();
    // The hour that is still running is summed up from its minutes by readers; it is written when
    // the first minute of the next one is, or when its series ends.
    let last_minute = new.last().map_or(0, |(b, _)| *b);
    let previous = last_minute.saturating_sub(MINUTE_NS);
    hour_begins.push(previous - previous % HOUR_NS);
    hour_begins.sort_unstable();
    hour_begins.dedup();
    for begin in hour_begins {
        if begin + HOUR_NS <= last_minute + MINUTE_NS {
            rebuild_hour(&minutes, &mut hours, (id.0, boot, begin))?;
        }
    }
    Ok(())
}

fn rebuild_hour(
    minutes: &impl ReadableTable<SeriesTime, &'static [u8]>,
    hours: &mut redb::Table<'_, SeriesTime, &'static [u8]>,
    key: SeriesTime,
) -> Result<(), StoreError> {
    let mut joined = Summary::new();
    for row in minutes.range(key..(key.0, key.1, key.2 + HOUR_NS))? {
        joined.merge(&decode_summary(row?.1.value())?);
    }
    if !joined.is_empty() {
        hours.insert(key, encode_summary(&joined).as_slice())?;
    }
    Ok(())
}

/// One block of all `samples`, however large.
pub(crate) fn encode_block(samples: &[Sample]) -> Vec<u8> {
    let mut out = vec![0; 64 << 10];
    loop {
        match record::encode(samples, &mut out) {
            Some(len) => {
                out.truncate(len);
                return out;
            }
            None => out.resize(out.len() * 2, 0),
        }
    }
}

pub(crate) fn decode_block(bytes: &[u8]) -> Result<Vec<Sample>, StoreError> {
    let mut samples = record::decode(bytes).map_err(|e| StoreError::Damaged(e.to_string()))?;
    let all: Vec<Sample> = samples.by_ref().collect();
    if samples.is_damaged() {
        return Err(StoreError::Damaged("a block of samples ends early".into()));
    }
    Ok(all)
}

pub(crate) fn decode_summary(bytes: &[u8]) -> Result<Summary, StoreError> {
    Summary::decode(bytes).ok_or_else(|| StoreError::Damaged("a damaged rollup row".into()))
}

fn encode_summary(summary: &Summary) -> Vec<u8> {
    let mut out = vec![0; MAX_ENCODED];
    let len = summary.encode(&mut out).unwrap_or(0);
    out.truncate(len);
    out
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|e| StoreError::Damaged(format!("a damaged row: {e}")))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError::Damaged(e.to_string()))
}

fn free_bytes(path: &Path) -> u64 {
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Where the system cannot say, a commit is tried.
    nix::sys::statvfs::statvfs(dir).map_or(u64::MAX, |s| {
        s.blocks_available().saturating_mul(s.fragment_size())
    })
}
