//! `link`: the emulated line between two interfaces that are there, from the command line.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use argh::FromArgs;

use crate::bench::Fail;
use crate::link::{CSV_HEADER, Direction, Ends, Fate, Link, Record, write_csv};
use crate::offload;

/// An emulated line between two interfaces, as long as this runs: takes frames off one and puts them
/// onto the other. Both are to have no addresses; whatever is behind them is to have its offloads
/// switched off, or frames are too large. Needs root or CAP_NET_RAW and CAP_NET_ADMIN.
#[derive(Clone, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "link",
    note = "Example: bufferbane-lab link c0 s0 --up delay=20ms,rate=10Mbit,buffer=120ms --down delay=20ms,loss=0.1% --log line.csv

The two directions are lists of:
delay=20ms           every packet takes this long
jitter=3ms           and up to this much more; packets stay in order
rate=10Mbit          bit/s: bit, kbit, Mbit, Gbit
buffer=64KiB         what does not fit is dropped (default: 1MiB)
buffer=120ms         what would wait longer is dropped
bucket=2Mbit/128KiB  token bucket: sustained rate and burst; bursts pass at rate
grants=2ms/1ms       request and grant: one grant in 2 ms, 1 ms after a request at the earliest
largest=1400         larger IP packets vanish
loss=0.5%            each packet by itself
bursts=0.1%/200      losses in runs: chance of each packet to begin one, mean packets in it
bursts=0.1%/200/60%  the same, with this share lost in a run
outage               everything is lost
outages=10s/30s/2s   the first after 10 s, then one every 30 s, 2 s long
reorder=1%/5ms       this share is held back for so long, and passed by others
duplicate=0.1%       this share arrives twice
dscp=clear           the DSCP is cleared on the way
ttl=3                so much is taken from the TTL
only=9.9.9.9/1.1.1.1 all this happens to packets from and to these hosts; the others only take the delay"
)]
pub struct Options {
    /// the interface on the client's side
    #[argh(positional)]
    pub client: String,
    /// the interface on the server's side
    #[argh(positional)]
    pub server: String,
    /// what happens from the client to the server (default: nothing)
    #[argh(option, default = "String::new()")]
    pub up: String,
    /// what happens from the server to the client (default: nothing)
    #[argh(option, default = "String::new()")]
    pub down: String,
    /// file for what became of each packet, CSV (default: none)
    #[argh(option)]
    pub log: Option<PathBuf>,
    /// which packets are in it: all, or probes for ICMP echoes and UDP only (default: all)
    #[argh(option, default = "String::from(\"all\")")]
    pub record: String,
    /// ends after so many seconds (default: at SIGINT or SIGTERM)
    #[argh(option, default = "0")]
    pub seconds: u64,
    /// seed of everything that is left to chance (default: 1)
    #[argh(option, default = "1")]
    pub seed: u64,
}

/// How often the log is written.
const WRITE_EVERY: Duration = Duration::from_millis(200);

/// Runs until its time is over, or SIGINT or SIGTERM comes.
///
/// # Errors
/// What was typed wrong, or could not be done.
pub fn run(options: &Options) -> Result<(), Fail> {
    let parse = |spec: &str, name: &str| {
        Direction::parse(spec).map_err(|e| Fail::Usage(format!("--{name} {e}")))
    };
    let plan = [parse(&options.up, "up")?, parse(&options.down, "down")?];
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
    for interface in [&options.client, &options.server] {
        offload::switch_off(interface).map_err(|e| Fail::Failed(e.to_string()))?;
    }
    let ends = Ends {
        client: options.client.clone(),
        server: options.server.clone(),
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
    eprintln!("{} and {} are joined", options.client, options.server);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_the_help_lists_can_be_asked_for() {
        let help = Options::from_args(&["bufferbane-lab", "link"], &["--help"]);
        let help = help.err().map(|exit| exit.output).unwrap_or_default();
        let (_, list) = help.split_once("are lists of:\n").expect("the list");
        let examples = list.lines().map_while(|l| l.split_whitespace().next());
        let unread: Vec<&str> = examples
            .clone()
            .filter(|e| Direction::parse(e).is_err())
            .collect();
        assert!(examples.count() >= 17 && unread.is_empty(), "{unread:?}");
    }
}
