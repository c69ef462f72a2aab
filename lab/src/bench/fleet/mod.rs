//! `fleet`: what a router costs the reflector that it probes and the receiver that it pushes to, with a
//! thousand of them.
//!
//! Each has a key, a session and counters of its own with one real reflector, and a connection and series of
//! its own with one real VictoriaMetrics. docs/fleet.md makes a hundred thousand of them, on paper.

mod probing;
mod pushing;

use argh::FromArgs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Fail, within};

/// What each of a thousand routers costs: simulated ones probe one reflector through sealed sessions of their own,
/// and push batches of a daemon to one victoria-metrics. Needs root and Debian's victoria-metrics.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "fleet",
    note = "Example: bufferbane-lab fleet --routers 1000"
)]
pub struct Options {
    /// routers, 1 to 4000 (default: 1000)
    #[argh(option, default = "1000")]
    pub routers: u64,
    /// seconds of probing, 2 to 60 (default: 20)
    #[argh(option, default = "20")]
    pub seconds: u64,
    /// batches that each router pushes, 2 to 60 (default: 20)
    #[argh(option, default = "20")]
    pub batches: u64,
}

/// Probes of a router, per second, and bytes of their payload: what a daemon sends by default.
const PROBES_HZ: u64 = 20;
const PROBE_BYTES: usize = 128;
/// IPv4 and UDP.
const HEADER_BYTES: usize = 28;
/// Between two batches of a router by default, s.
const PUSH_S: u64 = 15;
const DAY_S: u64 = 86_400;
/// Files that are open beside the routers' sockets.
const OTHER_FILES: u64 = 500;

/// Runs it and prints the result.
///
/// # Errors
/// What could not be done, and samples that the receiver lacks.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--routers", options.routers, 1..=4000)?;
    within("--seconds", options.seconds, 2..=60)?;
    within("--batches", options.batches, 2..=60)?;
    allow_files(options.routers + OTHER_FILES)?;
    probing::run(options)?;
    println!();
    pushing::run(options)
}

/// Lets this process, and those that it starts, have so many files open.
fn allow_files(count: u64) -> Result<(), Fail> {
    let failed = |e: nix::Error| Fail::of(format!("{count} open files (ulimit -n)"), e);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if soft >= count {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count)).map_err(failed)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
