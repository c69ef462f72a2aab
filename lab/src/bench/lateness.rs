//! `lateness`: how late our probes leave, by the kernel's transmit stamp, against how late Debian's
//! `cyclictest` wakes at the same priority in the same seconds.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use argh::FromArgs;
use bufferbane_core::sample::Status;
use bufferbane_core::time::ClockSource;
use bufferbane_store::{Filter, Reader};

use super::child::installed;
use super::setup::Bench;
use super::{Fail, percentile, within};

/// How late our probes leave, by the kernel's stamp, against how late Debian's cyclictest wakes: idle
/// and with all cores saturated by stress-ng. Needs root for a priority.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "lateness",
    note = "Example: bufferbane-lab lateness --seconds 40 --priority 20"
)]
pub struct Options {
    /// how long with each load, 5 to 100 (default: 30)
    #[argh(option, default = "30")]
    pub seconds: u64,
    /// SCHED_FIFO priority of both, 0 to 50; 0 is ordinary scheduling (default: 20)
    #[argh(option, default = "20")]
    pub priority: u64,
    /// the daemon's early wake in µs, 0 to 2000 (default: 150, its own with a real-time priority)
    #[argh(option, default = "150")]
    pub wake_early_us: u64,
}

/// Both wake once in this time, ms.
const PERIOD_MS: u64 = 10;
/// What the daemon is meant to stay below, times cyclictest's.
const AIM: f64 = 2.0;
/// It has settled this long after its start.
const SETTLE: Duration = Duration::from_secs(2);
/// The longest latency that cyclictest tells apart, µs.
const LONGEST_US: usize = 100_000;

/// Lateness of one of them, ns: median, 99th percentile, largest.
#[derive(Clone, Copy, Debug)]
struct Lateness([i64; 3]);

/// Runs it and prints the result.
///
/// # Errors
/// What could not be done.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--seconds", options.seconds, 5..=100)?;
    within("--priority", options.priority, 0..=50)?;
    within("--wake-early-us", options.wake_early_us, 0..=2000)?;
    let cyclictest = installed("cyclictest", "rt-tests")?;
    let stress = installed("stress-ng", "stress-ng")?;
    println!(
        "Lateness, µs: of our echo requests to loopback, one in {PERIOD_MS} ms, from deadline to the \
         kernel's transmit\nstamp; of cyclictest, from deadline to running. Both {}, at once, {} s; \
         early wake {} µs.\n",
        match options.priority {
            0 => "scheduled ordinarily".to_owned(),
            n => format!("SCHED_FIFO at {n}"),
        },
        options.seconds,
        options.wake_early_us
    );
    println!(
        "{:<24}{:>9}{:>9}{:>9}   {:>9}{:>9}{:>9}   {:>9}",
        "", "ours p50", "p99", "max", "cycl. p50", "p99", "max", "p99 ratio"
    );
    for (name, busy) in [("idle", false), ("all cores saturated", true)] {
        let _load = if busy { Some(saturate(&stress)?) } else { None };
        let (ours, theirs) = measure(options, &cyclictest)?;
        let ratio = ours.0[1] as f64 / theirs.0[1].max(1) as f64;
        let us = |l: Lateness| l.0.map(|ns| ns as f64 / 1000.0);
        let (o, t) = (us(ours), us(theirs));
        println!(
            "{name:<24}{:>9.1}{:>9.1}{:>9.1}   {:>9.1}{:>9.1}{:>9.1}   {ratio:>9.2} {}",
            o[0],
            o[1],
            o[2],
            t[0],
            t[1],
            t[2],
            if ratio <= AIM { "kept" } else { "missed" }
        );
    }
    println!("\naim: p99 at most {AIM} times cyclictest's");
    Ok(())
}

/// A program that ends when this is dropped.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        // stress-ng ends its workers when it is asked, not when it is killed.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn saturate(stress: &Path) -> Result<Ending, Fail> {
    let child = Command::new(stress)
        .args(["--cpu", "0", "--quiet"])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| Fail::of("stress-ng", e))?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(Ending(child))
}

fn measure(options: Options, cyclictest: &PathBuf) -> Result<(Lateness, Lateness), Fail> {
    let bench = Bench::new()?;
    let text = format!(
        "daemon.realtime_priority = {}\ndaemon.wake_early = \"{}us\"\n[[interface]]\nname = \"lo\"\n\
         [[target]]\nname = \"host\"\nkind = \"icmp\"\naddress = \"127.0.0.2\"\n\
         interval = \"{PERIOD_MS}ms\"\n",
        options.priority, options.wake_early_us
    );
    let daemon = bench.daemon(&text, None)?;
    std::thread::sleep(SETTLE);
    let loops = options.seconds * 1000 / PERIOD_MS;
    let mut command = Command::new(cyclictest);
    command.args(["--quiet", "--mlockall", "--threads=1", "--default-system"]);
    command.arg(format!("--interval={}", PERIOD_MS * 1000));
    command.arg(format!("--loops={loops}"));
    command.arg(format!("--histogram={LONGEST_US}"));
    match options.priority {
        0 => command.arg("--policy=other"),
        n => command.arg(format!("--priority={n}")),
    };
    let said = command
        .output()
        .map_err(|e| Fail::of("cyclictest", e))?
        .stdout;
    daemon.stop();
    let theirs = read_cyclictest(&String::from_utf8_lossy(&said))?;
    Ok((read_ours(&bench, options.seconds)?, theirs))
}

/// Lateness of the probes of the last `seconds`.
fn read_ours(bench: &Bench, seconds: u64) -> Result<Lateness, Fail> {
    let failed = |e: &dyn std::fmt::Display| Fail::of("the daemon's store", e);
    let reader = Reader::open(&bench.store()).map_err(|e| failed(&e))?;
    let (_, to_ns) = reader
        .span()
        .map_err(|e| failed(&e))?
        .ok_or_else(|| Fail::Failed("the daemon stored no sample".into()))?;
    let series = reader.series().map_err(|e| failed(&e))?;
    let filter = Filter {
        from_ns: to_ns.saturating_sub_unsigned(seconds * 1_000_000_000),
        to_ns,
        series: series.into_keys().collect(),
    };
    let mut late = Vec::new();
    for row in reader.samples(&filter) {
        let sample = row.map_err(|e| failed(&e))?.sample;
        if sample.status != Status::Unsent && sample.tx_clock >= ClockSource::Kernel {
            late.push(sample.send_late_ns);
        }
    }
    if late.is_empty() {
        return Err(Fail::Failed("no probe has a kernel transmit stamp".into()));
    }
    Ok(Lateness([
        percentile(&late, 500),
        percentile(&late, 990),
        percentile(&late, 1000),
    ]))
}

/// From cyclictest's histogram: a line of microseconds and count for each latency, and comments.
fn read_cyclictest(said: &str) -> Result<Lateness, Fail> {
    let mut counts: Vec<(i64, u64)> = Vec::new();
    let mut max_us = None;
    for line in said.lines() {
        if let Some(max) = line.strip_prefix("# Max Latencies:") {
            max_us = max.trim().parse::<i64>().ok();
        } else if let Some((us, n)) = line.split_once(' ')
            && let (Ok(us), Ok(n)) = (us.parse(), n.trim().parse())
        {
            counts.push((us, n));
        }
    }
    let total: u64 = counts.iter().map(|(_, n)| n).sum();
    let (Some(max_us), true) = (max_us, total > 0) else {
        return Err(Fail::Failed(format!(
            "cyclictest printed no histogram; may this user have that priority? It said: {}",
            said.lines().next().unwrap_or("nothing")
        )));
    };
    let at = |permille: u64| {
        let rank = (total * permille).div_ceil(1000);
        let mut seen = 0;
        let found = counts.iter().find(|(_, n)| {
            seen += n;
            seen >= rank
        });
        found.map_or(max_us, |(us, _)| *us) * 1000
    };
    Ok(Lateness([at(500), at(990), max_us * 1000]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_read_as_it_is_printed() {
        let said = "# /dev/cpu_dma_latency set to 0us\n# Histogram\n000000 000000\n000005 000098\n\
                    000040 000002\n# Total: 000000100\n# Min Latencies: 00005\n\
                    # Max Latencies: 00040\n# Histogram Overflows: 00000\n";
        assert_eq!(read_cyclictest(said).unwrap().0, [5_000, 40_000, 40_000]);
        assert!(read_cyclictest("Unable to change scheduling policy!\n").is_err());
    }
}
