//! Whether everything in the file can be read.

use redb::{Key, ReadTransaction, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;

use crate::cable;
use crate::capacity::Capacity;
use crate::codec::{decode_block, decode_summary, from_json};
use crate::echoes::Echoes;
use crate::error::StoreError;
use crate::events;
use crate::floors;
use crate::health::HealthSum;
use crate::load;
use crate::loadtest::LoadTest;
use crate::model::Health;
use crate::paths::{Look, StoredPath};
use crate::reader::Reader;
use crate::sizes::StoredSize;
use crate::tables::{
    BLOCKS, CABLE, CAPACITY, ECHOES, ESCALATIONS, FLOORS, HEALTH, HEALTH_HOURS, HOURS, LOAD,
    LOAD_HOURS, MINUTES, PATHS, SIZES, TESTS, open_if_made,
};
use crate::tail::{self, Wanted};
use crate::waiting::{self, For};

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
        report.events = events::check(&tx)?;
        self.check_others(&tx)?;
        Ok(report)
    }

    /// What is not counted.
    fn check_others(&self, tx: &ReadTransaction) -> Result<(), StoreError> {
        if let Some(knots) = open_if_made(tx, FLOORS)? {
            for row in knots.iter()? {
                let (key, bytes) = row?;
                floors::decode(key.value().2, bytes.value())?;
            }
        }
        each(tx, HEALTH, json::<Health>)?;
        each(tx, HEALTH_HOURS, |bytes| {
            HealthSum::default().add_encoded(bytes, 0)
        })?;
        each(tx, LOAD, load::check_minute)?;
        each(tx, LOAD_HOURS, load::check_hour)?;
        for (table, check) in [
            (For::Health, json::<Health> as fn(&[u8]) -> _),
            (For::Load, load::check_minute),
        ] {
            let rows = waiting::read(tx, table)?;
            rows.values().try_for_each(|bytes| check(bytes))?;
        }
        each(tx, CAPACITY, json::<Capacity>)?;
        each(tx, CABLE, json::<cable::Stored>)?;
        each(tx, PATHS, json::<StoredPath>)?;
        each(tx, ESCALATIONS, json::<Look>)?;
        each(tx, SIZES, json::<StoredSize>)?;
        each(tx, ECHOES, json::<Echoes>)?;
        each(tx, TESTS, json::<LoadTest>)
    }
}

/// Gives each row of a table to `check`, one after the other: some have years of rows.
fn each<K: Key + 'static>(
    tx: &ReadTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
    check: impl Fn(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    // An earlier version did not make all of them.
    let Some(rows) = open_if_made(tx, table)? else {
        return Ok(());
    };
    for row in rows.iter()? {
        check(row?.1.value())?;
    }
    Ok(())
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<(), StoreError> {
    from_json::<T>(bytes).map(drop)
}

#[cfg(test)]
mod tests {
    use redb::Database;

    use super::*;
    use crate::common::writer;
    use crate::tables::EVENTS;

    #[test]
    fn a_damaged_row_is_found_in_whatever_table_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.redb");
        let w = writer(&path);
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
        for table in [
            LOAD,
            LOAD_HOURS,
            CAPACITY,
            CABLE,
            PATHS,
            ESCALATIONS,
            SIZES,
            ECHOES,
        ] {
            damaged(&path, table, (boot, 0, "eth0"));
        }
    }
}
