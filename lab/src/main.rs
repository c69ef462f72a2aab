//! `cargo run --release -p bufferbane-lab -- <command>`: the benchmarks.

use std::process::ExitCode;

use argh::FromArgs;
use bufferbane_lab::bench::accuracy::episode;
use bufferbane_lab::bench::{
    self, Fail, accuracy, cost, cuts, echo, episodes, fleet, flood, lateness, report, scenario,
    shapes, store, throughput, train,
};
use bufferbane_lab::{emulate, endurance, synth};

/// Measures Bufferbane against other programs on this machine. Traffic stays on loopback or in
/// network namespaces made for it.
#[derive(FromArgs)]
struct Args {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    StoreBench(StoreBench),
    Cost(Cost),
    Scenario(Scenario),
    Shapes(Shapes),
    Episodes(Episodes),
    Cuts(Cuts),
    Lateness(Lateness),
    Synth(Synth),
    ReportBench(ReportBench),
    ReflectorBench(ReflectorBench),
    Accuracy(Accuracy),
    QueueEpisode(QueueEpisode),
    Link(Link),
    Bench(Bench),
    ThroughputBench(ThroughputBench),
    TrainBench(TrainBench),
    Flood(Flood),
    Endurance(Endurance),
    Fleet(Fleet),
}

/// Bytes per sample and write rate of our store against SQLite with a row for each sample.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "store-bench",
    note = "Example: bufferbane-lab store-bench --hours 24"
)]
struct StoreBench {
    /// hours of samples, 1 to 240 (default: 24)
    #[argh(option, default = "24")]
    hours: u64,
    /// seed of the samples (default: 1)
    #[argh(option, default = "1")]
    seed: u64,
}

/// What a client of the reflector notices while strangers flood it: junk, empty datagrams, wrong tags,
/// replays, made-up sources, at half of what the reflector can take and at the highest rate there is.
/// Needs root.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "flood",
    note = "Example: bufferbane-lab flood --seconds 10"
)]
struct Flood {
    /// how long each flood takes at each rate, 2 to 120 (default: 5)
    #[argh(option, default = "5")]
    seconds: u64,
}

/// What each of a thousand routers costs: simulated ones probe one reflector through sealed sessions of their own,
/// and push batches of a daemon to one victoria-metrics. Needs root and Debian's victoria-metrics.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "fleet",
    note = "Example: bufferbane-lab fleet --routers 1000"
)]
struct Fleet {
    /// routers, 1 to 4000 (default: 1000)
    #[argh(option, default = "1000")]
    routers: u64,
    /// seconds of probing, 2 to 60 (default: 20)
    #[argh(option, default = "20")]
    seconds: u64,
    /// batches that each router pushes, 2 to 60 (default: 20)
    #[argh(option, default = "20")]
    batches: u64,
}

/// A month of recording in minutes, through the real store with the daemon's commits: bytes written to
/// disk a day and what that means for flash, resident memory early and late, and whether every sample
/// is there at the end. Clocks step, summer time ends, runs are killed, interfaces come and go.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "endurance",
    note = "Example: bufferbane-lab endurance --days 30"
)]
struct Endurance {
    /// days, 1 to 400 (default: 30)
    #[argh(option, default = "30")]
    days: u64,
    /// seed of everything (default: 1)
    #[argh(option, default = "1")]
    seed: u64,
    /// a directory on a real disk for the stores (default: that of temporary files)
    #[argh(option)]
    dir: Option<std::path::PathBuf>,
    /// with a reflector probed 20 times a second, too
    #[argh(switch)]
    reflector: bool,
}

/// CPU time and memory of the daemon with ten series on loopback.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "cost",
    note = "Example: bufferbane-lab cost --seconds 60"
)]
struct Cost {
    /// how long it is measured, 5 to 86400 (default: 30)
    #[argh(option, default = "30")]
    seconds: u64,
}

/// How late our probes leave, by the kernel's stamp, against how late Debian's cyclictest wakes: idle
/// and with all cores saturated by stress-ng. Needs root for a priority.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "lateness",
    note = "Example: bufferbane-lab lateness --seconds 40 --priority 20"
)]
struct Lateness {
    /// how long with each load, 5 to 100 (default: 30)
    #[argh(option, default = "30")]
    seconds: u64,
    /// SCHED_FIFO priority of both, 0 to 50; 0 is ordinary scheduling (default: 20)
    #[argh(option, default = "20")]
    priority: u64,
    /// the daemon's early wake in µs, 0 to 2000 (default: 150, its own with a real-time priority)
    #[argh(option, default = "150")]
    wake_early_us: u64,
}

/// A plausible store of any size, with what happened in it beside it as JSON.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "synth",
    note = "Example: bufferbane-lab synth --days 30 --series 8 --hz 1 month.redb"
)]
struct Synth {
    /// days of samples, from 2026-05-01 00:00 UTC (default: 1)
    #[argh(option, default = "1.0")]
    days: f64,
    /// series, four to an interface (default: 8)
    #[argh(option, default = "8")]
    series: u64,
    /// probes of each series a second (default: 1)
    #[argh(option, default = "1.0")]
    hz: f64,
    /// seed of everything (default: 1)
    #[argh(option, default = "1")]
    seed: u64,
    /// the file to make; OUT.json beside it says what happened
    #[argh(positional)]
    out: std::path::PathBuf,
}

/// Time and memory of a report, of a page with all charts, and of one hour, each from a cold file, over
/// eight series at 1 Hz and one at 20 Hz, against the same questions asked of SQLite with a row for
/// each sample; fails where the answers do not agree. Thirty days take 5 GB and some minutes.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "report-bench",
    note = "Example: bufferbane-lab report-bench --days 30 --stores /var/tmp/stores"
)]
struct ReportBench {
    /// days of samples, 1 to 400 (default: 30)
    #[argh(option, default = "30")]
    days: u64,
    /// how often each question is asked, 1 to 99 (default: 3)
    #[argh(option, default = "3")]
    rounds: u64,
    /// directory that keeps the stores for another run (default: they vanish)
    #[argh(option)]
    stores: Option<std::path::PathBuf>,
}

/// Echoes per second of the reflector on one core against plain loops and Debian's irtt server, its
/// residence time, and the memory of 10 000 sessions.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "reflector-bench",
    note = "Example: bufferbane-lab reflector-bench --rounds 5"
)]
struct ReflectorBench {
    /// rounds of everything, 1 to 99 (default: 5)
    #[argh(option, default = "5")]
    rounds: u64,
    /// how long each round of each program takes, 50 to 10000 ms (default: 600)
    #[argh(option, default = "600")]
    round_ms: u64,
    /// bytes of UDP payload, 128 to 1452 (default: 172)
    #[argh(option, default = "172")]
    size: u64,
}

/// The error of our probes, ping, fping and irtt against what an emulated line really did, packet by
/// packet: idle and with every core busy, per direction, with a clock that is wrong, and what is left
/// over a plain virtual cable. Needs root or user namespaces, and ping, fping, irtt and stress-ng.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "accuracy",
    note = "Example: bufferbane-lab accuracy --quick"
)]
struct Accuracy {
    /// seconds of each of the six runs, 6 to 600 (default: 30)
    #[argh(option, default = "30")]
    seconds: u64,
    /// runs of 8 seconds
    #[argh(switch)]
    quick: bool,
}

/// The error of queueing delay per direction, probe by probe against the line's own log, while a queue
/// stands for minutes: first upward, then both ways. Needs root or user namespaces, and stress-ng with
/// --loaded.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "queue-episode",
    note = "Example: bufferbane-lab queue-episode --seconds 180"
)]
struct QueueEpisode {
    /// seconds of the queue, 10 to 3600 (default: 180)
    #[argh(option, default = "180")]
    seconds: u64,
    /// keep every core busy meanwhile
    #[argh(switch)]
    loaded: bool,
}

/// Gbit/s and CPU time per Gbit of the streams of a throughput test against Debian's iperf3, over a
/// virtual cable that limits nobody, one stream and eight, up and down. Needs root or user
/// namespaces, and iperf3.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "throughput-bench",
    note = "Example: bufferbane-lab throughput-bench --rounds 5"
)]
struct ThroughputBench {
    /// rounds of everything, 1 to 99 (default: 3)
    #[argh(option, default = "3")]
    rounds: u64,
    /// how long each program sends in each round, 1 to 60 s (default: 2)
    #[argh(option, default = "2")]
    seconds: u64,
}

/// What throughput tests say of ten emulated lines, from 2/1 to 200/50 Mbit/s with buffers from 20 ms to
/// 2 s, against the lines' own logs, and of two faster ones against the counters of the kernel's tbf.
/// Fails where an aim is missed. Needs root or user namespaces, and tc.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "shapes",
    note = "Example: bufferbane-lab shapes --only 25/5"
)]
struct Shapes {
    /// how long each test loads a line, 4 to 60; lines with long buffers are given more (default: 8)
    #[argh(option, default = "8")]
    seconds: u64,
    /// only the line of this name, such as 25/5
    #[argh(option)]
    only: Option<String>,
}

/// What the daemon on a router tells of the household's own traffic: uploads and downloads by Debian's
/// iperf3 from a host behind it, delay and loss without any, and a line that is idle and well. Fails where
/// one episode is not told as what it was. Needs root or user namespaces, and iperf3.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "episodes",
    note = "Example: bufferbane-lab episodes --uploads 20"
)]
struct Episodes {
    /// how many uploads, 1 to 1000 (default: 20)
    #[argh(option, default = "20")]
    uploads: u64,
    /// how many downloads after them, 0 to 1000 (default: 4)
    #[argh(option, default = "4")]
    downloads: u64,
    /// seconds without anything before and after, 10 to 86400 (default: 30)
    #[argh(option, default = "30")]
    idle: u64,
    /// seed of how long each load lasts and how many streams it has (default: 1)
    #[argh(option, default = "1")]
    seed: u64,
}

/// What throughput tests leave behind that are cut off at random moments: sockets, sessions, tests,
/// descriptors and threads. Fails where one leaves anything. Needs root or user namespaces.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "cuts",
    note = "Example: bufferbane-lab cuts --cuts 24"
)]
struct Cuts {
    /// how many tests are cut off, 1 to 1000 (default: 24)
    #[argh(option, default = "24")]
    cuts: u64,
    /// seed of the moments (default: 1)
    #[argh(option, default = "1")]
    seed: u64,
}

/// What packet trains say of lines of 1 to 100 Mbit/s, behind a request-grant upstream and behind a token
/// bucket, against what the lines are made to carry. Needs root.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "train-bench",
    note = "Example: bufferbane-lab train-bench --trains 20"
)]
struct TrainBench {
    /// trains of each line each way, 5 to 99 (default: 11)
    #[argh(option, default = "11")]
    trains: u64,
}

/// What is told of simulated lines against what happened on them: precision, recall, direction,
/// begin and end of each kind of event, and the first verdict.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "scenario",
    note = "Example: bufferbane-lab scenario all --first-seed 101"
)]
struct Scenario {
    /// a scenario's name, or all
    #[argh(positional, default = "\"all\".into()")]
    name: String,
    /// how many seeds (default: 3)
    #[argh(option, default = "3")]
    seeds: u64,
    /// the first seed (default: 1)
    #[argh(option, default = "1")]
    first_seed: u64,
    /// how many days it takes, 1 to 400 (default: as long as it is made for)
    #[argh(option)]
    days: Option<u64>,
    /// list every event, not only those that are wrong
    #[argh(switch)]
    verbose: bool,
}

/// An emulated line between two interfaces, as long as this runs: takes frames off one and puts them
/// onto the other. Both are to have no addresses; whatever is behind them is to have its offloads
/// switched off, or frames are too large. Needs root or CAP_NET_RAW and CAP_NET_ADMIN.
#[derive(FromArgs)]
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
ttl=3                so much is taken from the TTL"
)]
struct Link {
    /// the interface on the client's side
    #[argh(positional)]
    client: String,
    /// the interface on the server's side
    #[argh(positional)]
    server: String,
    /// what happens from the client to the server (default: nothing)
    #[argh(option, default = "String::new()")]
    up: String,
    /// what happens from the server to the client (default: nothing)
    #[argh(option, default = "String::new()")]
    down: String,
    /// file for what became of each packet, CSV (default: none)
    #[argh(option)]
    log: Option<std::path::PathBuf>,
    /// which packets are in it: all, or probes for ICMP echoes and UDP only (default: all)
    #[argh(option, default = "String::from(\"all\")")]
    record: String,
    /// ends after so many seconds (default: at SIGINT or SIGTERM)
    #[argh(option, default = "0")]
    seconds: u64,
    /// seed of everything that is left to chance (default: 1)
    #[argh(option, default = "1")]
    seed: u64,
}

/// All benchmarks in one run: the reflector against plain loops and irtt, errors against the truth
/// beside ping, fping and irtt, bytes per sample against SQLite, CPU time and memory of the daemon.
#[derive(FromArgs)]
#[argh(subcommand, name = "bench", note = "Example: bufferbane-lab bench")]
struct Bench {}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => {
            eprintln!("{fail}");
            ExitCode::from(fail.code())
        }
    }
}

fn run() -> Result<(), Fail> {
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.into_string())
        .collect::<Result<_, _>>()
        .map_err(|a| Fail::Usage(format!("\"{}\" is not UTF-8", a.display())))?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let args = match Args::from_args(&["bufferbane-lab"], &words) {
        Ok(args) => args,
        Err(exit) if exit.status.is_ok() => {
            print!("{}", exit.output);
            return Ok(());
        }
        Err(exit) => return Err(Fail::Usage(exit.output.trim_end().to_owned())),
    };
    match args.command {
        Command::StoreBench(a) => store::run(store::Options {
            hours: a.hours,
            seed: a.seed,
        }),
        Command::Synth(a) => synth::run(&synth::Options {
            days: a.days,
            series: a.series,
            hz: a.hz,
            seed: a.seed,
            out: a.out,
        }),
        Command::ReportBench(a) => report::run(&report::Options {
            days: a.days,
            rounds: a.rounds,
            stores: a.stores,
        }),
        Command::ReflectorBench(a) => echo::run(echo::Options {
            rounds: a.rounds,
            round_ms: a.round_ms,
            size: a.size,
        }),
        Command::Accuracy(a) => accuracy::run(accuracy::Options {
            seconds: if a.quick { 8 } else { a.seconds },
        }),
        Command::QueueEpisode(a) => episode::run(episode::Options {
            seconds: a.seconds,
            loaded: a.loaded,
        }),
        Command::Scenario(a) => scenario::run(&scenario::Options {
            name: a.name,
            seeds: a.seeds,
            first_seed: a.first_seed,
            days: a.days,
            verbose: a.verbose,
        }),
        Command::Episodes(a) => episodes::run(episodes::Options {
            uploads: a.uploads,
            downloads: a.downloads,
            idle: a.idle,
            seed: a.seed,
        }),
        Command::Cuts(a) => cuts::run(cuts::Options {
            cuts: a.cuts,
            seed: a.seed,
        }),
        Command::Shapes(a) => shapes::run(&shapes::Options {
            seconds: a.seconds,
            only: a.only,
        }),
        Command::Link(a) => emulate::run(&emulate::Options {
            interfaces: [a.client, a.server],
            specs: [a.up, a.down],
            log: a.log,
            record: a.record,
            seconds: a.seconds,
            seed: a.seed,
        }),
        Command::Bench(_) => bench::all(),
        Command::Lateness(a) => lateness::run(lateness::Options {
            seconds: a.seconds,
            priority: a.priority,
            wake_early_us: a.wake_early_us,
        }),
        Command::ThroughputBench(a) => throughput::run(throughput::Options {
            rounds: a.rounds,
            seconds: a.seconds,
        }),
        Command::TrainBench(a) => train::run(train::Options { trains: a.trains }),
        Command::Cost(a) => cost::run(cost::Options { seconds: a.seconds }),
        Command::Endurance(a) => endurance::run(&endurance::Options {
            days: a.days,
            seed: a.seed,
            dir: a.dir,
            reflector: a.reflector,
        }),
        Command::Fleet(a) => fleet::run(fleet::Options {
            routers: a.routers,
            seconds: a.seconds,
            batches: a.batches,
        }),
        Command::Flood(a) => flood::run(flood::Options { seconds: a.seconds }),
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_lab::link::Direction;

    use super::*;

    #[test]
    fn everything_that_the_help_of_link_lists_can_be_asked_for() {
        let help = Args::from_args(&["bufferbane-lab"], &["link", "--help"]);
        let help = help.err().map(|exit| exit.output).unwrap_or_default();
        let (_, list) = help.split_once("are lists of:\n").expect("the list");
        let examples = list.lines().map_while(|l| l.split_whitespace().next());
        let unread: Vec<&str> = examples
            .clone()
            .filter(|e| Direction::parse(e).is_err())
            .collect();
        assert!(examples.count() >= 16 && unread.is_empty(), "{unread:?}");
    }
}
