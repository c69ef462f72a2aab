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
    StoreBench(store::Options),
    Cost(cost::Options),
    Scenario(scenario::Options),
    Shapes(shapes::Options),
    Episodes(episodes::Options),
    Cuts(cuts::Options),
    Lateness(lateness::Options),
    Synth(synth::Options),
    ReportBench(report::Options),
    ReflectorBench(echo::Options),
    Accuracy(accuracy::Options),
    QueueEpisode(episode::Options),
    Link(emulate::Options),
    Bench(Bench),
    ThroughputBench(throughput::Options),
    TrainBench(train::Options),
    Flood(flood::Options),
    Endurance(endurance::Options),
    Fleet(fleet::Options),
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
        Command::StoreBench(o) => store::run(o),
        Command::Synth(o) => synth::run(&o),
        Command::ReportBench(o) => report::run(&o),
        Command::ReflectorBench(o) => echo::run(o),
        Command::Accuracy(o) => accuracy::run(o),
        Command::QueueEpisode(o) => episode::run(o),
        Command::Scenario(o) => scenario::run(&o),
        Command::Episodes(o) => episodes::run(o),
        Command::Cuts(o) => cuts::run(o),
        Command::Shapes(o) => shapes::run(&o),
        Command::Link(o) => emulate::run(&o),
        Command::Bench(_) => bench::all(),
        Command::Lateness(o) => lateness::run(o),
        Command::ThroughputBench(o) => throughput::run(o),
        Command::TrainBench(o) => train::run(o),
        Command::Cost(o) => cost::run(o),
        Command::Endurance(o) => endurance::run(&o),
        Command::Fleet(o) => fleet::run(o),
        Command::Flood(o) => flood::run(o),
    }
}
