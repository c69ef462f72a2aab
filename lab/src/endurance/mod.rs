//! `endurance`: a month of recording in minutes.
//!
//! Samples of made-up lines go through the real [`Writer`](bufferbane_store::Writer), which commits,
//! rolls up and gives up as the daemon has it do: every so often, at once when an event begins or ends,
//! and once an hour. Only time is made up. `month` says what happens on the way.

mod counted;
mod month;
mod outcome;
mod plan;
mod probed;

use std::path::{Path, PathBuf};
use std::time::Instant;

use argh::FromArgs;

use crate::bench::{Fail, within};
pub use outcome::Outcome;
pub use plan::Plan;

const S: u64 = 1_000_000_000;
/// What a day may write by default, and with a commit every five minutes, bytes.
const AIMS: [(u64, u64); 2] = [(60, 100_000_000), (300, 50_000_000)];
/// How often a block of cheap flash can be erased.
const ERASES: u64 = 3000;
/// Sizes of flash for which the wear is told, bytes.
const FLASH: [(&str, u64); 2] = [("128 MiB", 128 << 20), ("4 GiB", 4 << 30)];
/// Late in the month memory may be so much more than early, in percent, and so many bytes.
const GROWTH_PERCENT: u64 = 10;
const GROWTH_BYTES: u64 = 1 << 20;
/// The least that a disk writes, bytes.
const BLOCK: u64 = 4096;
/// Writes of the file's header in a commit.
const HEADERS: u64 = 2;

/// A month of recording in minutes, through the real store with the daemon's commits: bytes written to
/// disk a day and what that means for flash, resident memory early and late, and whether every sample
/// is there at the end. Clocks step, summer time ends, runs are killed, interfaces come and go.
#[derive(Clone, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "endurance",
    note = "Example: bufferbane-lab endurance --days 30"
)]
pub struct Options {
    /// days, 1 to 400 (default: 30)
    #[argh(option, default = "30")]
    pub days: u64,
    /// seed of everything (default: 1)
    #[argh(option, default = "1")]
    pub seed: u64,
    /// a directory on a real disk for the stores (default: that of temporary files)
    #[argh(option)]
    pub dir: Option<PathBuf>,
    /// with a reflector probed 20 times a second, too
    #[argh(switch)]
    pub reflector: bool,
}

/// Runs it once for each commit interval, and prints what came out.
///
/// # Errors
/// What could not be done, samples that are missing, and aims that are.
pub fn run(options: &Options) -> Result<(), Fail> {
    within("--days", options.days, 1..=400)?;
    let base = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    println!(
        "{} days of what is probed without a configuration (five hosts at 1 Hz; two resolvers at 0.1 Hz, and\n\
         each minute over TCP and for random names){},\n\
         and a second uplink for six hours a day with two series; seed {}. The store is a file in {};\n\
         bytes are those that it writes (wchar of /proc/thread-self/io), each of the two writes of its header in a\n\
         commit as a whole block of {BLOCK}, without what the file system adds.\n",
        options.days,
        if options.reflector {
            " and of a reflector at 20 Hz"
        } else {
            ""
        },
        options.seed,
        base.display()
    );
    let mut missed = Vec::new();
    for (commit_s, aim_bytes) in AIMS {
        let dir = tempfile::tempdir_in(&base).map_err(|e| Fail::of(base.display(), e))?;
        let plan = Plan {
            seconds: options.days * 86_400,
            seed: options.seed,
            commit_s,
            reflector: options.reflector,
        };
        let begun = Instant::now();
        let outcome = month::live(&plan, &dir.path().join("month.redb"))?;
        print(&plan, &outcome, begun);
        // How much may be written is said of what is probed by default.
        missed.extend(judge(&outcome, (!options.reflector).then_some(aim_bytes)));
    }
    if missed.is_empty() {
        return Ok(());
    }
    Err(Fail::Failed(format!("missed: {}", missed.join(", "))))
}

fn print(plan: &Plan, o: &Outcome, begun: Instant) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "A commit every {} s: {} samples, {} commits, {} blocks and {} minutes given up, in {:.0} s.",
        plan.commit_s,
        o.samples,
        o.commits,
        o.blocks_given_up,
        o.minutes_given_up,
        begun.elapsed().as_secs_f64()
    );
    println!(
        "  written a day            {:>9.1} MB in the middle, {:.1} to {:.1}; {:.1} GB a year",
        o.day_bytes() as f64 / 1e6,
        o.days_bytes.iter().min().copied().unwrap_or(0) as f64 / 1e6,
        o.days_bytes.iter().max().copied().unwrap_or(0) as f64 / 1e6,
        o.day_bytes() as f64 * 365.0 / 1e9
    );
    for (name, bytes) in FLASH {
        let years = (ERASES * bytes) as f64 / (o.day_bytes().max(1) as f64 * 365.0);
        println!(
            "  {name:>8} of flash        {years:>9.1} years until each block was erased {ERASES} times, if it were \
             spread evenly and the flash wrote nothing twice"
        );
    }
    println!(
        "  resident memory          {:>9.1} MiB after a tenth, {:.1} MiB at the end",
        mib(o.early_bytes),
        mib(o.late_bytes)
    );
    println!(
        "  the file                 {:>9.1} MiB before its limit was set to {:.1} MiB, {:.1} MiB at the end, {:.1} MiB \
         compacted",
        mib(o.before_limit_bytes),
        mib(o.limit_bytes),
        mib(o.file_bytes),
        mib(o.compact_bytes)
    );
    println!(
        "  looked at on the way     {:>9} samples, each hour's as many as were recorded and lost; {} in rollups, likewise",
        o.checked, o.rolled_up
    );
}

/// Prints what was aimed at, and whether it was kept; gives what was missed.
fn judge(o: &Outcome, aim_bytes: Option<u64>) -> Vec<String> {
    let growth = o.early_bytes * GROWTH_PERCENT / 100 + GROWTH_BYTES;
    let written = aim_bytes.map(|aim| {
        let name = format!("at most {} MB a day", aim / 1_000_000);
        (name, o.day_bytes() <= aim)
    });
    let memory = format!("memory grows by at most {GROWTH_PERCENT} % and 1 MiB");
    let flat = o.late_bytes <= o.early_bytes + growth;
    let size = "the limit of the size holds".to_owned();
    let others = [(memory, flat), (size, o.is_within_limit())];
    let aims: Vec<(String, bool)> = written.into_iter().chain(others).collect();
    for (aim, kept) in &aims {
        println!("  aim: {aim}: {}", if *kept { "kept" } else { "missed" });
    }
    println!();
    let missed = aims.into_iter().filter(|(_, kept)| !kept);
    missed.map(|(aim, _)| aim).collect()
}

/// Bytes that this thread has written, as it said them to the kernel. The store writes in the thread that commits.
///
/// `write_bytes` of the same file counts whole folios of the page cache, which is many times what is
/// written back of them where the file system has large ones.
fn written_bytes() -> Result<u64, Fail> {
    let path = Path::new("/proc/thread-self/io");
    let text = std::fs::read_to_string(path).map_err(|e| Fail::of(path.display(), e))?;
    text.lines()
        .find_map(|l| l.strip_prefix("wchar: ")?.parse().ok())
        .ok_or_else(|| Fail::of(path.display(), "says no wchar"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_day_with_everything_in_it_loses_nothing_and_writes_little() {
        for (commit_s, day_bytes) in AIMS {
            let dir = tempfile::tempdir().unwrap();
            let plan = Plan {
                seconds: 12 * 3600,
                seed: 3,
                commit_s,
                reflector: false,
            };
            let o = month::live(&plan, &dir.path().join("s.redb")).unwrap();
            println!("{o:?}");
            assert!(o.samples > 5 * 11 * 3600);
            assert!(o.commits > plan.seconds / commit_s * 9 / 10);
            assert!(o.blocks_given_up > 0 && o.minutes_given_up > 0);
            assert!(o.checked > o.samples / 3 && o.rolled_up > o.samples * 3 / 5);
            assert!(o.is_within_limit());
            assert!(o.written_bytes * 86_400 / plan.seconds <= day_bytes);
            // Other tests of this process take memory, too: this is for what gets out of hand.
            assert!(o.late_bytes < o.early_bytes + (64 << 20));
        }
    }
}
