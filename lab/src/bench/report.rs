//! `report-bench`: how long a report, its charts and one hour of it take from a cold file, against the
//! same questions asked of SQLite with a row for each sample; and whether the answers agree.

mod naive;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bufferbane_store::{Filter, Reader};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rusqlite::{Connection, OpenFlags, params};
use serde_json::Value;

use super::child::ours;
use super::setup::Bench;
use super::{Fail, median, within};
use crate::synth::{self, BEGIN_WALL_NS};
use naive::Naive;

const HOUR_NS: i64 = 3_600_000_000_000;
const DAY_NS: i64 = 24 * HOUR_NS;
/// Percentiles from rollups may be off by this share.
const TOLERANCE: f64 = 0.01;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Days of samples.
    pub days: u64,
    /// How often each question is asked.
    pub rounds: u64,
    /// Where stores are kept and looked for; they vanish with the run where `None`.
    pub stores: Option<PathBuf>,
}

/// What is recorded: so many series, so many probes of each a second.
const SHAPES: [(u64, u64); 2] = [(8, 1), (1, 20)];

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// Counts, percentiles and runs of losses of each series over everything.
    Report,
    /// All that, a page, and an image of every chart.
    Charts,
    /// The report of one hour in the middle.
    Hour,
}

impl Question {
    const ALL: [Self; 3] = [Self::Report, Self::Charts, Self::Hour];

    const fn name(self) -> &'static str {
        match self {
            Self::Report => "report, JSON",
            Self::Charts => "page and all charts",
            Self::Hour => "one hour, JSON",
        }
    }

    /// The wall time it is about, ns since 1970.
    fn range(self, days: u64) -> (i64, i64) {
        let span = days.cast_signed() * DAY_NS;
        match self {
            Self::Report | Self::Charts => (BEGIN_WALL_NS, BEGIN_WALL_NS + span),
            Self::Hour => {
                let from = BEGIN_WALL_NS + span / 2 + HOUR_NS / 3;
                (from, from + HOUR_NS)
            }
        }
    }
}

/// What an answer took.
#[derive(Clone, Copy, Debug)]
struct Took {
    seconds: f64,
    peak_bytes: u64,
}

/// Runs it and prints the result.
///
/// # Errors
/// What could not be done, or answers that do not agree.
pub fn run(options: &Options) -> Result<(), Fail> {
    within("--days", options.days, 1..=400)?;
    within("--rounds", options.rounds, 1..=99)?;
    let bench = Bench::new()?;
    let bbtool = ours("bbtool")?;
    println!(
        "Files are cold before each question (POSIX_FADV_DONTNEED); medians of {} rounds; whole\n\
         processes of ours, from exec to exit, against the time of SQLite's queries alone. SQLite has\n\
         one row of seven columns for each sample, by (series, time), without further index; its answers\n\
         are computed from the rows without rounding.\n",
        options.rounds
    );
    for (series, hz) in SHAPES {
        shape(options, &bench, &bbtool, series, hz)?;
    }
    Ok(())
}

fn shape(
    options: &Options,
    bench: &Bench,
    bbtool: &Path,
    series: u64,
    hz: u64,
) -> Result<(), Fail> {
    let name = format!("{}d-{series}x{hz}hz", options.days);
    let place = |suffix: &str| match &options.stores {
        Some(dir) => dir.join(format!("{name}.{suffix}")),
        None => bench.path(&format!("{name}.{suffix}")),
    };
    let (store, rows) = (place("redb"), place("sqlite"));
    if !store.exists() {
        synth::make(&synth::Options {
            days: options.days as f64,
            series,
            hz: hz as f64,
            seed: 1,
            out: store.clone(),
        })?;
    }
    if !rows.exists() {
        let unfinished = place("sqlite.new");
        copy(&store, &unfinished).map_err(|e| Fail::of("SQLite", e))?;
        std::fs::rename(&unfinished, &rows).map_err(|e| Fail::of(rows.display(), e))?;
    }
    let bytes = |path: &Path| {
        let found = std::fs::metadata(path);
        found
            .map(|m| m.len())
            .map_err(|e| Fail::of(path.display(), e))
    };
    let (ours_bytes, rows_bytes) = (bytes(&store)?, bytes(&rows)?);
    println!(
        "{} days, {series} series at {hz} Hz: {:.0} MB, SQLite {:.0} MB, ratio {:.1}",
        options.days,
        ours_bytes as f64 / 1e6,
        rows_bytes as f64 / 1e6,
        rows_bytes as f64 / ours_bytes as f64
    );
    println!(
        "{:<22}{:>12}{:>12}{:>10}{:>12}",
        "", "ours, s", "SQLite, s", "ratio", "peak, MiB"
    );
    let out = bench.path("out");
    std::fs::create_dir_all(&out).map_err(|e| Fail::of(out.display(), e))?;
    let mut worst: f64 = 0.0;
    for question in Question::ALL {
        let range = question.range(options.days);
        let (mut mine, mut theirs, mut peak) = (Vec::new(), Vec::new(), 0);
        let json = bench.path("report.json");
        let mut truth = Vec::new();
        for _ in 0..options.rounds {
            make_cold(&store)?;
            let to = if question == Question::Charts {
                &out
            } else {
                &json
            };
            let took = ask(bbtool, &store, range, to)?;
            mine.push(took.seconds);
            peak = peak.max(took.peak_bytes);
            make_cold(&rows)?;
            let begun = Instant::now();
            truth = naive_answers(&rows, range).map_err(|e| Fail::of("SQLite", e))?;
            theirs.push(begun.elapsed().as_secs_f64());
        }
        if question != Question::Charts {
            worst = worst.max(agreement(&json, &names(&store)?, &truth)?);
        }
        let (mine, theirs) = (median(&mine), median(&theirs));
        println!(
            "{:<22}{mine:>12.3}{theirs:>12.2}{:>10.0}{:>12.1}",
            question.name(),
            theirs / mine,
            peak as f64 / 1_048_576.0
        );
    }
    println!(
        "Counts and runs of losses are equal; percentiles differ by at most {:.2} %.\n",
        worst * 100.0
    );
    Ok(())
}

/// The system forgets what it read of a file.
fn make_cold(path: &Path) -> Result<(), Fail> {
    let failed = |e: &dyn std::fmt::Display| Fail::of(path.display(), e);
    let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
    // What is not on the disk yet cannot be forgotten.
    file.sync_all().map_err(|e| failed(&e))?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(|e| failed(&e))
}

/// Asks `bbtool report` and waits for it. A directory gets the page and its charts, a file JSON.
fn ask(bbtool: &Path, store: &Path, range: (i64, i64), to: &Path) -> Result<Took, Fail> {
    let time = |ns: i64| {
        let time = jiff::Timestamp::from_nanosecond(i128::from(ns));
        time.map(|t| t.to_string())
            .map_err(|e| Fail::of("a time", e))
    };
    let (from, to_time) = (time(range.0)?, time(range.1)?);
    let begun = Instant::now();
    let mut child = Command::new(bbtool)
        .args(["report", "--utc", "--from", &from, "--to", &to_time])
        .arg("--store")
        .arg(store)
        .arg("--socket")
        .arg(store.with_extension("no-socket"))
        .arg("--out")
        .arg(to)
        .args(["--format", if to.is_dir() { "html" } else { "json" }])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| Fail::of(bbtool.display(), e))?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak_bytes = 0;
    loop {
        let peak = std::fs::read_to_string(&status).ok().and_then(|text| {
            let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        peak_bytes = peak.map_or(peak_bytes, |kib| peak_bytes.max(kib * 1024));
        if let Some(ended) = child.try_wait().map_err(|e| Fail::of("bbtool", e))? {
            if !ended.success() {
                return Err(Fail::of("bbtool report", ended));
            }
            let seconds = begun.elapsed().as_secs_f64();
            return Ok(Took {
                seconds,
                peak_bytes,
            });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Writes every sample of `store` as a row.
fn copy(store: &Path, rows: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let reader = Reader::open(store)?;
    let mut db = Connection::open(rows)?;
    // How long that takes is not what is measured here.
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    db.execute_batch(
        "CREATE TABLE sample (series INTEGER NOT NULL, time_ns INTEGER NOT NULL, seq INTEGER NOT NULL,
             status INTEGER NOT NULL, rtt_ns INTEGER, raw_up_ns INTEGER, raw_down_ns INTEGER,
             PRIMARY KEY (series, time_ns, seq)) WITHOUT ROWID;",
    )?;
    let tx = db.transaction()?;
    {
        let mut insert = tx.prepare("INSERT INTO sample VALUES (?,?,?,?,?,?,?)")?;
        for id in reader.series()?.keys() {
            let filter = Filter {
                from_ns: i64::MIN,
                to_ns: i64::MAX,
                series: vec![*id],
            };
            for row in reader.samples(&filter) {
                let row = row?;
                let s = &row.sample;
                insert.execute(params![
                    id.0,
                    row.wall_ns,
                    s.seq.cast_signed(),
                    s.status as u8,
                    s.rtt_ns.map(u64::cast_signed),
                    s.raw_up_ns,
                    s.raw_down_ns
                ])?;
            }
        }
    }
    tx.commit()?;
    Ok(db.close().map_err(|(_, e)| e)?)
}

/// The same answers from the rows, series by series.
fn naive_answers(rows: &Path, (from, to): (i64, i64)) -> rusqlite::Result<Vec<Naive>> {
    let db = Connection::open_with_flags(rows, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let series: Vec<u32> = db
        .prepare("SELECT DISTINCT series FROM sample")?
        .query_map([], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    let mut select = db.prepare(
        "SELECT status, rtt_ns, raw_up_ns, raw_down_ns FROM sample
         WHERE series = ? AND time_ns >= ? AND time_ns < ? ORDER BY time_ns",
    )?;
    let mut all = Vec::new();
    for id in series {
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

/// Interface and target of each series, by its number, as the rows are.
fn names(store: &Path) -> Result<Vec<[String; 2]>, Fail> {
    let series = Reader::open(store)
        .map_err(|e| Fail::of(store.display(), e))?
        .series()
        .map_err(|e| Fail::of(store.display(), e))?;
    Ok(series
        .into_values()
        .map(|s| [s.interface, s.target])
        .collect())
}

/// Holds a report, whose series may be in any order, against the truth: counts and runs must be
/// equal, percentiles within 1 %. Gives the largest deviation of these.
fn agreement(json: &Path, names: &[[String; 2]], truth: &[Naive]) -> Result<f64, Fail> {
    let text = std::fs::read_to_string(json).map_err(|e| Fail::of(json.display(), e))?;
    let report: Value = serde_json::from_str(&text).map_err(|e| Fail::of(json.display(), e))?;
    let series = report["series"].as_array().map_or(&[][..], Vec::as_slice);
    let mut worst: f64 = 0.0;
    for ([interface, target], truth) in names.iter().zip(truth) {
        let named = format!("{interface} → {target}");
        let said = series
            .iter()
            .find(|s| s["interface"] == **interface && s["target"] == **target)
            .ok_or_else(|| Fail::Failed(format!("{named} is not in the report")))?;
        let off = truth.against(&|place| said.pointer(place).and_then(Value::as_u64));
        worst = worst.max(off.map_err(|why| Fail::Failed(format!("{named}: {why}")))?);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day that is answered from rollups says what its samples say.
    #[test]
    fn rollups_agree_with_samples_and_no_border_breaks_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("s.redb");
        synth::make(&synth::Options {
            days: 0.5,
            series: 2,
            hz: 2.0,
            seed: 4,
            out: out.clone(),
        })
        .unwrap();
        let reader = Reader::open(&out).unwrap();
        // Not at the borders of minutes or hours.
        let (from, to) = (
            BEGIN_WALL_NS + 777_777_777_777,
            BEGIN_WALL_NS + 11 * HOUR_NS + 5,
        );
        for id in reader.series().unwrap().keys() {
            let mut truth = Naive::default();
            let filter = Filter {
                from_ns: from,
                to_ns: to,
                series: vec![*id],
            };
            for row in reader.samples(&filter) {
                let s = row.unwrap().sample;
                truth.add(s.status.is_lost(), s.rtt_ns);
            }
            truth.sort();
            assert!(truth.sent > 70_000);
            let found = reader
                .overview(*id, from, to, HOUR_NS as u64, 500_000_000)
                .unwrap();
            let s = &found.summary;
            let worst = truth.against(&|pointer| match pointer {
                "/sent" => Some(s.sent),
                "/lost" => Some(s.lost),
                "/loss_runs/count" => Some(s.runs.count()),
                "/loss_runs/longest" => Some(s.runs.longest().packets),
                "/rtt_ns/min" => s.rtt.min(),
                "/rtt_ns/max" => s.rtt.max(),
                other => naive::PERCENTILES
                    .into_iter()
                    .find(|(name, _)| *name == other)
                    .and_then(|(_, q)| s.rtt.quantile(q)),
            });
            assert!(worst.unwrap() < TOLERANCE);
        }
    }
}
