//! What lines carried, and what they were found able to carry.

use std::collections::BTreeMap;

use bufferbane_core::household::{MAX_ENCODED_MINUTE, Minute};
use bufferbane_core::time::Monotonic;
use redb::{ReadTransaction, TableDefinition, TableError, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::cable::Stored;
use crate::codec::{from_json, to_json};
use crate::error::StoreError;
use crate::model::Direction;
use crate::reader::Reader;
use crate::tables::{CABLE, CAPACITY, LOAD, LineTime};
use crate::waiting::{self, For, Waiting};
use crate::writer::Writer;

/// How a capacity was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// From the household's own traffic, while the queue stood.
    Passive,
    /// By a packet train.
    Train,
    /// By a throughput test.
    Test,
}

/// How much a line could carry one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// The interface.
    pub interface: String,
    /// Up or down.
    pub direction: Direction,
    /// How that was found.
    pub method: Method,
    /// What short bursts pass at, bits of frames per second; at least what all else does.
    pub burst_bps: u64,
    /// What goes on passing; `None` where nobody looked for long enough.
    pub sustained_bps: Option<u64>,
    /// How sure, 0 to 1.
    pub confidence: f64,
}

/// A minute of load as it lies in the file.
#[derive(Clone, Copy, Debug)]
pub struct StoredMinute<'a>(&'a [u8]);

impl StoredMinute<'_> {
    /// Adds it to others: much faster than one after the other as a [`Minute`] of its own.
    ///
    /// # Errors
    /// When it is damaged; what is in `sum` then is of no use.
    pub fn add_to(self, sum: &mut Minute) -> Result<(), StoreError> {
        sum.merge_encoded(self.0)
            .ok_or_else(|| StoreError::Damaged("a minute of load is damaged".into()))
    }
}

/// What waits for the next commit.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    capacities: Vec<(u64, Capacity)>,
    minutes: Vec<(u64, String, Minute)>,
    /// By begin, interface and kind.
    pub(crate) cables: BTreeMap<(u64, String), Stored>,
}

impl Pending {
    pub(crate) fn write(&self, tx: &WriteTransaction, boot: u32) -> Result<(), StoreError> {
        let mut table = tx.open_table(CAPACITY)?;
        for (at, c) in &self.capacities {
            let which = format!("{} {}", c.interface, c.direction.as_str());
            table.insert((boot, *at, which.as_str()), to_json(c)?.as_slice())?;
        }
        let mut table = tx.open_table(CABLE)?;
        for ((begin, which), row) in &self.cables {
            table.insert((boot, *begin, which.as_str()), to_json(row)?.as_slice())?;
        }
        Ok(())
    }

    /// The minutes of load, as rows.
    pub(crate) fn waiting(&self, boot: u32) -> impl Iterator<Item = Result<Waiting, StoreError>> {
        let mut bytes = vec![0; MAX_ENCODED_MINUTE];
        self.minutes.iter().map(move |(begin, interface, minute)| {
            let len = minute
                .encode(&mut bytes)
                .ok_or_else(|| StoreError::Damaged("a minute of load is too large".into()))?;
            Ok(Waiting {
                table: For::Load,
                boot,
                at_ns: *begin,
                interface: interface.clone(),
                value: bytes[..len].to_vec(),
            })
        })
    }
}

impl Writer {
    /// Records how much a line of this boot was found to carry at `at`.
    pub fn capacity(&mut self, at: Monotonic, capacity: Capacity) {
        let rows = &mut self.pending_lines().capacities;
        rows.push((at.as_nanos(), capacity));
    }

    /// Records what a line carried in the minute of this boot that begins at `begin`.
    pub fn load_minute(&mut self, begin: Monotonic, interface: &str, minute: Minute) {
        let rows = &mut self.pending_lines().minutes;
        rows.push((begin.as_nanos(), interface.to_owned(), minute));
    }
}

impl Reader {
    /// What lines were found to carry in `[from, to)` of wall time, ns since 1970, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn capacities(&self, from_ns: i64, to_ns: i64) -> Result<Vec<(i64, Capacity)>, StoreError> {
        let mut rows = Vec::new();
        self.each_line_row(CAPACITY, None, from_ns, to_ns, |at, _, bytes| {
            rows.push((at, from_json(bytes)?));
            Ok(())
        })?;
        Ok(rows)
    }

    /// What lines carried: each minute that begins in `[from, to)` of wall time, ns since 1970, with
    /// its interface, in order.
    ///
    /// # Errors
    /// When the file cannot be read, or `each` fails.
    pub fn load_minutes(
        &self,
        from_ns: i64,
        to_ns: i64,
        mut each: impl FnMut(i64, &str, StoredMinute<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.each_line_row(
            LOAD,
            Some(For::Load),
            from_ns,
            to_ns,
            |at, interface, bytes| each(at, interface, StoredMinute(bytes)),
        )
    }

    pub(crate) fn each_line_row(
        &self,
        table: TableDefinition<'_, LineTime<'static>, &'static [u8]>,
        waiting: Option<For>,
        from_ns: i64,
        to_ns: i64,
        mut each: impl FnMut(i64, &str, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let tx: ReadTransaction = self.read()?;
        let table = match tx.open_table(table) {
            Ok(table) => table,
            // An earlier version did not make it.
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let waiting = match waiting {
            Some(table) => waiting::read(&tx, table)?,
            None => BTreeMap::new(),
        };
        for s in self.time_map().clip(from_ns, to_ns) {
            let late = waiting.range(waiting::keys(&s));
            // A row that waits replaces the one with its key.
            let first = late.clone().next().map_or(u64::MAX, |(key, _)| key.1);
            for row in table.range((s.boot, s.from_ns, "")..(s.boot, s.to_ns, ""))? {
                let (key, bytes) = row?;
                let (_, at, which) = key.value();
                if at < first || !waiting.contains_key(&(s.boot, at, which.to_owned())) {
                    each(s.wall_ns(at), which, bytes.value())?;
                }
            }
            for ((_, at, which), bytes) in late {
                each(s.wall_ns(*at), which, bytes)?;
            }
        }
        Ok(())
    }
}

/// Gives up rows of all three tables: those of each boot before its instant, ns since boot. Says whether
/// there were any.
pub(crate) fn forget(tx: &WriteTransaction, ends: &[(u32, u64)]) -> Result<bool, StoreError> {
    let mut any = false;
    for table in [CAPACITY, LOAD, CABLE] {
        let mut table = tx.open_table(table)?;
        for (boot, end) in ends {
            table.retain_in((*boot, 0, "")..(*boot, *end, ""), |_, _| {
                any = true;
                false
            })?;
        }
    }
    Ok(any)
}
