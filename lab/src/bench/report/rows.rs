//! The other side: SQLite with a row for each sample, and what is asked of it.

use std::path::Path;

use bufferbane_store::{Filter, Reader};
use rusqlite::{Connection, OpenFlags, params};

use super::super::sqlite;
use super::naive::Naive;

/// Writes every sample of `store` as a row.
pub(super) fn copy(store: &Path, rows: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let reader = Reader::open(store)?;
    let mut db = Connection::open(rows)?;
    // How long that takes is not what is measured here.
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    // Clustered by series and time so that no index is needed.
    db.execute_batch(&format!(
        "CREATE TABLE sample ({}, PRIMARY KEY (series, time_ns, seq)) WITHOUT ROWID;",
        sqlite::COLUMNS
    ))?;
    let tx = db.transaction()?;
    {
        let mut insert = tx.prepare(sqlite::INSERT)?;
        for id in reader.series()?.keys() {
            let filter = Filter {
                from_ns: i64::MIN,
                to_ns: i64::MAX,
                series: vec![*id],
            };
            for row in reader.samples(&filter) {
                let row = row?;
                sqlite::insert(&mut insert, id.0, row.wall_ns, &row.sample)?;
            }
        }
    }
    tx.commit()?;
    Ok(db.close().map_err(|(_, e)| e)?)
}

/// The answers from the rows in `[from, to)` of wall time, series by series.
pub(super) fn answers(rows: &Path, (from, to): (i64, i64)) -> rusqlite::Result<Vec<Naive>> {
    let db = Connection::open_with_flags(rows, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // By hand: of a table in the order of its key, DISTINCT would read every row.
    let mut next = db.prepare("SELECT min(series) FROM sample WHERE series > ?")?;
    let mut select = db.prepare(
        "SELECT status, rtt_ns, raw_up_ns, raw_down_ns FROM sample
         WHERE series = ? AND time_ns >= ? AND time_ns < ? ORDER BY time_ns",
    )?;
    let mut all = Vec::new();
    let mut last = 0;
    while let Some(id) = next.query_row([last], |r| r.get::<_, Option<u32>>(0))? {
        last = id;
        let mut one = Naive::default();
        let mut found = select.query(params![id, from, to])?;
        while let Some(row) = found.next()? {
            let rtt_ns: Option<i64> = row.get(1)?;
            let lost = (3..=5).contains(&row.get::<_, u8>(0)?);
            one.add(lost, rtt_ns.map(i64::cast_unsigned));
        }
        one.sort();
        all.push(one);
    }
    Ok(all)
}
