//! What lines were found able to carry.

use std::collections::BTreeMap;

use bufferbane_core::time::Monotonic;
use redb::{TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::cable::Stored;
use crate::codec::{from_json, to_json};
use crate::error::StoreError;
use crate::model::{Direction, EventId};
use crate::reader::Reader;
use crate::tables::{CABLE, CAPACITY, LOAD, LOAD_HOURS, LineTime, open_if_made};
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
    /// The events that a packet train was sent because of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventId>,
}

/// What waits for the next commit.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    capacities: Vec<(u64, Capacity)>,
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
}

impl Writer {
    /// Records how much a line of this boot was found to carry at `at`.
    pub fn capacity(&mut self, at: Monotonic, capacity: Capacity) {
        let rows = &mut self.pending_lines().capacities;
        rows.push((at.as_nanos(), capacity));
    }
}

impl Reader {
    /// What lines were found to carry in `[from, to)` of wall time, ns since 1970, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn capacities(&self, from_ns: i64, to_ns: i64) -> Result<Vec<(i64, Capacity)>, StoreError> {
        let mut rows = Vec::new();
        self.each_line_row(CAPACITY, from_ns, to_ns, |at, _, bytes| {
            rows.push((at, from_json(bytes)?));
            Ok(())
        })?;
        Ok(rows)
    }

    pub(crate) fn each_line_row(
        &self,
        table: TableDefinition<'_, LineTime<'static>, &'static [u8]>,
        from_ns: i64,
        to_ns: i64,
        mut each: impl FnMut(i64, &str, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let tx = self.read()?;
        // An earlier version did not make it.
        let Some(table) = open_if_made(&tx, table)? else {
            return Ok(());
        };
        for s in self.time_map().clip(from_ns, to_ns) {
            for row in table.range((s.boot, s.from_ns, "")..(s.boot, s.to_ns, ""))? {
                let (key, bytes) = row?;
                let (_, at, which) = key.value();
                each(s.wall_ns(at), which, bytes.value())?;
            }
        }
        Ok(())
    }
}

/// Gives up rows of all these tables: those of each boot before its instant, ns since boot, and the sums of
/// hours that any of them was in. Says whether there were any.
pub(crate) fn forget(tx: &WriteTransaction, ends: &[(u32, u64)]) -> Result<bool, StoreError> {
    let mut any = false;
    for table in [CAPACITY, LOAD, LOAD_HOURS, CABLE] {
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
