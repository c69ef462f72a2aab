//! `store-bench`: bytes per sample and write rate of our store, against SQLite with a row for each.

use std::path::Path;
use std::time::{Duration, Instant};

use argh::FromArgs;
use bufferbane_core::sample::Sample;
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Reader, SeriesKind, Trust, Writer, WriterOptions};
use rusqlite::Connection;

use super::samples::{BEGIN_NS, Samples};
use super::setup::Bench;
use super::{Fail, sqlite, within};

/// Both commit this often in the samples' own time, ns.
const COMMIT_NS: u64 = 60_000_000_000;
/// The wall clock at the begin, ns since 1970.
const WALL_NS: i64 = 1_790_000_000_000_000_000;

/// Bytes per sample and write rate of our store against SQLite with a row for each sample.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "store-bench",
    note = "Example: bufferbane-lab store-bench --hours 24"
)]
pub struct Options {
    /// hours of samples, 1 to 240 (default: 24)
    #[argh(option, default = "24")]
    pub hours: u64,
    /// seed of the samples (default: 1)
    #[argh(option, default = "1")]
    pub seed: u64,
}

/// How one store did.
#[derive(Clone, Copy, Debug)]
struct Written {
    /// Its file once it is closed, bytes.
    closed_bytes: u64,
    /// The same after its own way to give back unused room, bytes.
    compact_bytes: u64,
    /// Time for writing and closing, without compaction.
    took: Duration,
}

struct Load {
    series: Vec<(Samples, Vec<Sample>)>,
    samples: u64,
}

/// Runs it and prints the result.
///
/// # Errors
/// What could not be done.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--hours", options.hours, 1..=240)?;
    let load = load(options);
    let bench = Bench::new()?;
    let (ours, sqlite) = (bench.path("ours.redb"), bench.path("rows.sqlite"));
    let redb = write_ours(&ours, &load)?;
    let rows = write_sqlite(&sqlite, &load).map_err(|e| Fail::of("SQLite", e))?;

    println!(
        "{} samples: {} h of a reflector series at 20 Hz and an ICMP series at 1 Hz, seed {}.",
        load.samples, options.hours, options.seed
    );
    println!(
        "Both commit durably once for each minute of samples. Ours holds its rollups of minutes and\n\
         hours in the same file; SQLite has one row with every column of a sample, and an index on\n\
         (series, time).\n"
    );
    let per_sample = |bytes: u64| bytes as f64 / load.samples as f64;
    let rate = |w: &Written| load.samples as f64 / w.took.as_secs_f64();
    println!(
        "{:<10}{:>16}{:>20}{:>16}",
        "", "bytes/sample", "after compaction", "samples/s"
    );
    for (name, w) in [("ours", &redb), ("SQLite", &rows)] {
        println!(
            "{name:<10}{:>16.2}{:>20.2}{:>16.0}",
            per_sample(w.closed_bytes),
            per_sample(w.compact_bytes),
            rate(w)
        );
    }
    println!(
        "{:<10}{:>16.1}{:>20.1}{:>16.2}",
        "ratio",
        rows.closed_bytes as f64 / redb.closed_bytes as f64,
        rows.compact_bytes as f64 / redb.compact_bytes as f64,
        rate(&redb) / rate(&rows)
    );
    Ok(())
}

fn load(options: Options) -> Load {
    let hour_ns = 3_600_000_000_000;
    let mut samples = 0;
    let series = [
        (SeriesKind::Udp, 50_000_000),
        (SeriesKind::Icmp, 1_000_000_000),
    ]
    .map(|(kind, interval_ns)| {
        let count = options.hours * hour_ns / interval_ns;
        samples += count;
        let mut series = Samples::new(kind, interval_ns, options.seed ^ interval_ns);
        let list = series.by_ref().take(count as usize).collect();
        (series, list)
    });
    Load {
        series: series.into(),
        samples,
    }
}

/// The samples of each minute: which series, and which of its samples.
fn minutes(load: &Load) -> impl Iterator<Item = Vec<(usize, &[Sample])>> {
    let mut rest: Vec<&[Sample]> = load.series.iter().map(|(_, s)| s.as_slice()).collect();
    (1..).map_while(move |minute| {
        if rest.iter().all(|r| r.is_empty()) {
            return None;
        }
        let end = Monotonic::from_nanos(BEGIN_NS + minute * COMMIT_NS);
        let parts = rest.iter_mut().enumerate().map(|(i, r)| {
            let (now, later) = r.split_at(r.partition_point(|s| s.sent < end));
            *r = later;
            (i, now)
        });
        Some(parts.collect())
    })
}

fn bytes(path: &Path) -> Result<u64, Fail> {
    std::fs::metadata(path)
        .map(|m| m.len())
        .map_err(|e| Fail::of(path.display(), e))
}

fn write_ours(path: &Path, load: &Load) -> Result<Written, Fail> {
    let failed = |e: &dyn std::fmt::Display| Fail::of("our store", e);
    let begun = Instant::now();
    let mut writer = Writer::open(path, WriterOptions::default()).map_err(|e| failed(&e))?;
    let begin = Monotonic::from_nanos(BEGIN_NS);
    writer
        .begin_boot("bench", begin, WALL_NS, Trust::Disciplined)
        .map_err(|e| failed(&e))?;
    let ids: Vec<_> = load
        .series
        .iter()
        .map(|(s, _)| writer.series(&s.info()))
        .collect();
    for minute in minutes(load) {
        for (index, samples) in minute {
            for sample in samples {
                writer.record(ids[index], *sample);
            }
        }
        writer.commit().map_err(|e| failed(&e))?;
    }
    writer.close().map_err(|e| failed(&e))?;
    let took = begun.elapsed();
    let closed_bytes = bytes(path)?;
    while bufferbane_store::compact(path).map_err(|e| failed(&e))? {}
    let kept = Reader::open(path)
        .map_err(|e| failed(&e))?
        .check()
        .map_err(|e| failed(&e))?;
    if kept.samples != load.samples {
        return Err(Fail::Failed(format!(
            "our store has {} of {} samples",
            kept.samples, load.samples
        )));
    }
    Ok(Written {
        closed_bytes,
        compact_bytes: bytes(path)?,
        took,
    })
}

fn write_sqlite(path: &Path, load: &Load) -> Result<Written, Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let mut db = Connection::open(path)?;
    // Our keys hold the boot, too.
    db.execute_batch(&format!(
        "CREATE TABLE sample ({}, boot INTEGER NOT NULL DEFAULT 1);
         CREATE INDEX sample_time ON sample (series, time_ns);",
        sqlite::COLUMNS
    ))?;
    for minute in minutes(load) {
        let tx = db.transaction()?;
        {
            let mut insert = tx.prepare_cached(sqlite::INSERT)?;
            for (index, samples) in minute {
                for s in samples {
                    let at_ns = s.sent.as_nanos().cast_signed();
                    sqlite::insert(&mut insert, index as u32 + 1, at_ns, s)?;
                }
            }
        }
        tx.commit()?;
    }
    db.close().map_err(|(_, e)| e)?;
    let took = begun.elapsed();
    let closed_bytes = bytes(path)?;
    Connection::open(path)?.execute_batch("VACUUM")?;
    Ok(Written {
        closed_bytes,
        compact_bytes: bytes(path)?,
        took,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_in_one_minute() {
        let load = load(Options { hours: 1, seed: 3 });
        let all: usize = minutes(&load)
            .flat_map(|m| m.into_iter().map(|(_, s)| s.len()).collect::<Vec<_>>())
            .sum();
        assert_eq!(all as u64, load.samples);
        // The last slot of the hour may be sent in the minute after it.
        assert!((60..=61).contains(&minutes(&load).count()));
    }
}
