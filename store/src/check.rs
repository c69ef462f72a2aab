//! Whether everything in the file can be read.

use bufferbane_core::household::Minute;
use redb::{ReadTransaction, ReadableTable};

use crate::codec::{decode_block, decode_summary, from_json};
use crate::error::StoreError;
use crate::floors;
use crate::model::Event;
use crate::query::Window;
use crate::reader::Reader;
use crate::tables::{BLOCKS, EVENTS, FLOORS, HOURS, MINUTES, open_if_made};
use crate::tail::{self, Wanted};

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

impl Reader {
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
        for part in tail::read(&tx, Wanted::All)? {
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
        self.check_others(&tx)?;
        Ok(report)
    }

    /// What is not counted.
    fn check_others(&self, tx: &ReadTransaction) -> Result<(), StoreError> {
        let (from_ns, to_ns) = (i64::MIN, i64::MAX);
        if let Some(knots) = open_if_made(tx, FLOORS)? {
            for row in knots.iter()? {
                let (key, bytes) = row?;
                floors::decode(key.value().2, bytes.value())?;
            }
        }
        self.each_health(from_ns, to_ns, |_, _| {})?;
        self.health_sum(from_ns, to_ns)?;
        for window in [Window::Minute, Window::Hour] {
            self.load(window, from_ns, to_ns, |_, load| {
                load.add_to(&mut Minute::new())
            })?;
        }
        self.capacities(from_ns, to_ns)?;
        self.cable(from_ns, to_ns)?;
        self.paths(from_ns, to_ns)?;
        self.escalations(from_ns, to_ns)?;
        self.sizes(from_ns, to_ns)?;
        self.tests(from_ns, to_ns)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_core::time::Monotonic;
    use redb::{Database, TableDefinition};

    use super::*;
    use crate::tables::{
        CABLE, CAPACITY, ESCALATIONS, HEALTH, HEALTH_HOURS, LOAD, LOAD_HOURS, PATHS, SIZES, TESTS,
    };
    use crate::{Trust, Writer, WriterOptions};

    #[test]
    fn a_damaged_row_is_found_in_whatever_table_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.redb");
        let options = WriterOptions {
            min_free_bytes: 0,
            ..WriterOptions::default()
        };
        let mut w = Writer::open(&path, options).unwrap();
        w.begin_boot("a", Monotonic::ZERO, 1, Trust::Disciplined)
            .unwrap();
        let boot = w.boot();
        w.close().unwrap();

        fn damaged<K: redb::Key + 'static>(
            path: &std::path::Path,
            table: TableDefinition<'_, K, &'static [u8]>,
            key: K::SelfType<'_>,
        ) {
            let check = || Reader::open(path).unwrap().check().map(drop);
            assert!(check().is_ok(), "before {table}");
            let change = |row: Option<&[u8]>| {
                let db = Database::open(path).unwrap();
                let tx = db.begin_write().unwrap();
                {
                    let mut rows = tx.open_table(table).unwrap();
                    match row {
                        Some(row) => drop(rows.insert(&key, row).unwrap()),
                        None => drop(rows.remove(&key).unwrap()),
                    }
                }
                tx.commit().unwrap();
            };
            change(Some(&[0xff; 3]));
            assert!(
                matches!(check(), Err(StoreError::Damaged(_))),
                "{table}: {:?}",
                check()
            );
            change(None);
        }
        for table in [BLOCKS, MINUTES, HOURS, FLOORS] {
            damaged(&path, table, (1, boot, 0));
        }
        for table in [EVENTS, TESTS] {
            damaged(&path, table, 1);
        }
        for table in [HEALTH, HEALTH_HOURS] {
            damaged(&path, table, (boot, 0));
        }
        for table in [LOAD, LOAD_HOURS, CAPACITY, CABLE, PATHS, ESCALATIONS, SIZES] {
            damaged(&path, table, (boot, 0, "eth0"));
        }
    }
}
