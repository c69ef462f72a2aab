//! `report-bench`: how long a report, its charts and one hour of it take from a cold file, against the
//! same questions asked of SQLite with a row for each sample; and whether the answers agree.

mod ask;
mod naive;
mod rows;

use std::path::{Path, PathBuf};
use std::time::Instant;

use argh::FromArgs;
use bufferbane_store::{Reader, Usage};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::Value;

use super::child::ours;
use super::setup::Bench;
use super::{Fail, median, within};
use crate::synth::{self, BEGIN_WALL_NS};
use ask::ask;
use naive::Naive;

const HOUR_NS: i64 = 3_600_000_000_000;
const DAY_NS: i64 = 24 * HOUR_NS;
/// So many times as fast as SQLite an answer is to be, and so many times as small the file.
const FASTER: f64 = 50.0;
/// See [`FASTER`].
const SMALLER: f64 = 4.0;
/// Memory that an answer may take, MiB.
const MOST_MIB: f64 = 100.0;
/// Percentiles from rollups may be off by this share.
const TOLERANCE: f64 = 0.01;

/// Time and memory of a report, of a page with all charts, and of one hour, each from a cold file, over
/// eight series at 1 Hz and one at 20 Hz, against the same questions asked of SQLite with a row for
/// each sample; fails where the answers do not agree. Thirty days take 5 GB and some minutes.
#[derive(Clone, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "report-bench",
    note = "Example: bufferbane-lab report-bench --days 30 --stores /var/tmp/stores"
)]
pub struct Options {
    /// days of samples, 1 to 400 (default: 30)
    #[argh(option, default = "30")]
    pub days: u64,
    /// how often each question is asked, 1 to 99 (default: 3)
    #[argh(option, default = "3")]
    pub rounds: u64,
    /// directory that keeps the stores for another run (default: they vanish)
    #[argh(option)]
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

    /// Seconds it may take.
    const fn aim_s(self) -> f64 {
        match self {
            Self::Report => 1.0,
            Self::Charts => 3.0,
            Self::Hour => 0.05,
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
         one row for each sample with all that a block of ours says of it, by (series, time), without\n\
         further index; its answers are computed from the rows without rounding. Aims: 30 days in {} s as\n\
         JSON and in {} s with all charts, an hour in {} s, in {MOST_MIB} MiB; {FASTER} times as fast as\n\
         SQLite, in a {SMALLER}th of its size.\n",
        options.rounds,
        Question::Report.aim_s(),
        Question::Charts.aim_s(),
        Question::Hour.aim_s(),
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
        rows::copy(&store, &unfinished).map_err(|e| Fail::of("SQLite", e))?;
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
    parts(&store, ours_bytes, rows_bytes)?;
    let mut missed = Vec::new();
    let smaller = rows_bytes as f64 / ours_bytes as f64;
    if smaller < SMALLER {
        missed.push(format!(
            "the file is {smaller:.1} times as small, not {SMALLER}"
        ));
    }
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
            let (to, format) = if question == Question::Charts {
                (&out, "html")
            } else {
                (&json, "json")
            };
            let took = ask(bbtool, &["report", "--format", format], &store, range, to)?;
            mine.push(took.seconds);
            peak = peak.max(took.peak_bytes);
            make_cold(&rows)?;
            let begun = Instant::now();
            truth = rows::answers(&rows, range).map_err(|e| Fail::of("SQLite", e))?;
            theirs.push(begun.elapsed().as_secs_f64());
        }
        if question != Question::Charts {
            worst = worst.max(agreement(&json, &names(&store)?, &truth)?);
        }
        let (mine, theirs) = (median(&mine), median(&theirs));
        println!(
            "{:<22}{mine:>12.3}{theirs:>12.2}{:>10}{:>12.1}",
            question.name(),
            times(theirs / mine),
            peak as f64 / 1_048_576.0
        );
        let (aim_s, peak_mib) = (question.aim_s(), peak as f64 / 1_048_576.0);
        if mine > aim_s {
            missed.push(format!(
                "{} takes {mine:.3} s, not {aim_s}",
                question.name()
            ));
        }
        if theirs / mine < FASTER {
            missed.push(format!(
                "{} is {} times as fast, not {FASTER}",
                question.name(),
                times(theirs / mine)
            ));
        }
        if peak_mib > MOST_MIB {
            missed.push(format!(
                "{} takes {peak_mib:.0} MiB, not {MOST_MIB}",
                question.name()
            ));
        }
    }
    println!(
        "Counts and runs of losses are equal; percentiles differ by at most {:.2} %.",
        worst * 100.0
    );
    if missed.is_empty() {
        println!("Every aim is met.\n");
    } else {
        println!("Missed: {}.\n", missed.join("; "));
    }
    if hz > 1 {
        exports(bbtool, &store, &bench.path("rows"), options.days)?;
    }
    Ok(())
}

/// A ratio with as many digits as say something.
fn times(ratio: f64) -> String {
    format!("{ratio:.*}", usize::from(ratio < 10.0))
}

/// What of our file is what, and how the samples alone compare.
fn parts(store: &Path, ours_bytes: u64, rows_bytes: u64) -> Result<(), Fail> {
    let failed = |e: &dyn std::fmt::Display| Fail::of(store.display(), e);
    let reader = Reader::open(store).map_err(|e| failed(&e))?;
    let usage = reader.usage().map_err(|e| failed(&e))?;
    let of = |names: &[&str]| {
        let named = usage.iter().filter(|u| names.contains(&u.table.as_str()));
        named.map(|u: &Usage| u.page_bytes).sum::<u64>()
    };
    let samples = of(&["blocks", "floors"]);
    let minutes = of(&["rollup_1m"]);
    let hours = of(&["rollup_1h"]);
    let beside = of(&[
        "health",
        "health_1h",
        "load_1m",
        "load_1h",
        "tests",
        "capacity",
    ]);
    let rest = ours_bytes.saturating_sub(samples + minutes + hours + beside);
    println!(
        "  of ours: samples {}, their minutes {} and hours {}, load, health and tests {}, else {} MB;\n\
         \x20 SQLite to the samples alone {:.1}",
        samples / 1_000_000,
        minutes / 1_000_000,
        hours / 1_000_000,
        beside / 1_000_000,
        rest / 1_000_000,
        rows_bytes as f64 / samples.max(1) as f64
    );
    Ok(())
}

/// Whether memory depends on how much is exported.
fn exports(bbtool: &Path, store: &Path, out: &Path, days: u64) -> Result<(), Fail> {
    println!(
        "{:<22}{:>12}{:>12}{:>22}",
        "export of samples", "days", "took, s", "peak, MiB"
    );
    for format in ["csv", "json", "parquet"] {
        for part in [16, 8] {
            let span = days.cast_signed() * DAY_NS / part;
            let range = (BEGIN_WALL_NS, BEGIN_WALL_NS + span);
            let command = ["export", "--format", format];
            let took = ask(bbtool, &command, store, range, out)?;
            println!(
                "{format:<22}{:>12.1}{:>12.1}{:>22.1}",
                span as f64 / DAY_NS as f64,
                took.seconds,
                took.peak_bytes as f64 / 1_048_576.0
            );
        }
    }
    println!();
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
    use bufferbane_store::Filter;

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
