//! `link`: the emulated line between two interfaces that are there, from the command line.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bench::Fail;
use crate::link::{CSV_HEADER, Direction, Ends, Fate, Link, Record, write_csv};
use crate::offload;

/// How the line is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interfaces on the client's and on the server's side.
    pub interfaces: [String; 2],
    /// What it does to what goes up, and down; see [`Direction::parse`].
    pub specs: [String; 2],
    /// Where the log goes; `None` is nowhere.
    pub log: Option<PathBuf>,
    /// Which packets are in it: all, probes.
    pub record: String,
    /// When it ends, seconds; 0: when it is told to.
    pub seconds: u64,
    /// Decides everything that is left to chance.
    pub seed: u64,
}

/// How often the log is written.
const WRITE_EVERY: Duration = Duration::from_millis(200);

/// Runs until its time is over, or SIGINT or SIGTERM comes.
///
/// # Errors
/// What was typed wrong, or could not be done.
pub fn run(options: &Options) -> Result<(), Fail> {
    let parse = |i: usize, name: &str| {
        Direction::parse(&options.specs[i]).map_err(|e| Fail::Usage(format!("--{name} {e}")))
    };
    let plan = [parse(0, "up")?, parse(1, "down")?];
    let record = match (options.record.as_str(), &options.log) {
        ("all" | "probes", None) => Record::None,
        ("all", Some(_)) => Record::All,
        ("probes", Some(_)) => Record::Probes,
        (other, _) => {
            return Err(Fail::Usage(format!(
                "--record \"{other}\": all or probes is allowed"
            )));
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).map_err(|e| Fail::of("signals", e))?;
    }
    for interface in &options.interfaces {
        offload::switch_off(interface).map_err(|e| Fail::Failed(e.to_string()))?;
    }
    let [client, server] = options.interfaces.clone();
    let ends = Ends {
        client,
        server,
        plan,
        seed: options.seed,
    };
    let links = Link::start(None, vec![ends]).map_err(|e| Fail::of("the line", e))?;
    let link = &links[0];
    link.record(record);
    let failed = |e: io::Error| Fail::of("the log", e);
    let mut out = match &options.log {
        Some(path) => Some(BufWriter::new(
            File::create(path).map_err(|e| Fail::of(path.display(), e))?,
        )),
        None => None,
    };
    if let Some(out) = &mut out {
        out.write_all(CSV_HEADER.as_bytes()).map_err(failed)?;
    }
    eprintln!(
        "{} and {} are joined",
        options.interfaces[0], options.interfaces[1]
    );
    let begun = Instant::now();
    let over = || options.seconds > 0 && begun.elapsed().as_secs() >= options.seconds;
    let mut last = false;
    while !last {
        std::thread::sleep(WRITE_EVERY);
        last = stop.load(Ordering::Relaxed) || over();
        for passage in link.take_log().iter().flatten() {
            if let Some(out) = &mut out {
                write_csv(out, passage).map_err(failed)?;
            }
        }
        if let Some(out) = &mut out {
            out.flush().map_err(failed)?;
        }
    }
    summarise(link);
    Ok(())
}

fn summarise(link: &Link) {
    let bins = link.bins();
    for (way, name) in [
        (crate::link::Way::Up, "up"),
        (crate::link::Way::Down, "down"),
    ] {
        let sum = |pick: fn(&crate::link::Bin) -> u64| -> u64 {
            bins.iter().filter(|b| b.way == way).map(pick).sum()
        };
        let packets = sum(|b| b.packets);
        let longest_ns = bins
            .iter()
            .filter(|b| b.way == way)
            .map(|b| b.queue_max_ns)
            .max();
        eprintln!(
            "{name}: {packets} packets ({} bytes) {}, {} {}, {} {}, {} {}, {} {}, {} {}; waited {:.1} ms on average, {:.1} ms at most",
            sum(|b| b.bytes),
            Fate::Delivered(0).as_str(),
            sum(|b| b.lost),
            Fate::Lost.as_str(),
            sum(|b| b.outage),
            Fate::Outage.as_str(),
            sum(|b| b.buffer),
            Fate::Buffer.as_str(),
            sum(|b| b.large),
            Fate::Large.as_str(),
            sum(|b| b.refused),
            Fate::Refused.as_str(),
            sum(|b| b.queue_sum_ns) as f64 / packets.max(1) as f64 / 1e6,
            longest_ns.unwrap_or(0) as f64 / 1e6,
        );
    }
    if link.missed() > 0 {
        eprintln!(
            "{} frames were missed: too many, or larger than 2048 bytes (switch off the offloads of the \
             neighbouring interfaces too)",
            link.missed()
        );
    }
}
