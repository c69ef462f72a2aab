//! `episodes`: what a daemon on a router makes of the household's own traffic, and of trouble that comes
//! without any.
//!
//! Somebody else in the house fills the line with iperf3 again and again; in between the line is idle,
//! and then it is slow and then it loses packets without any load, and then neighbours fill it who share it
//! with the house. Of each episode the daemon has to say what it was, which way, and nothing else.

pub mod house;
pub mod judge;

use std::time::Duration;

use argh::FromArgs;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use self::house::House;
use self::judge::{Cause, Episode, Judgement};
use super::setup::{Bench, wait_until};
use super::{Fail, within};
use crate::link::Way;

/// What the daemon on a router tells of the household's own traffic: uploads and downloads by Debian's
/// iperf3 from a host behind it, delay and loss without any, neighbours' loads, and a line that is idle and
/// well. Fails where one episode is not told as what it was. Needs root or user namespaces, and iperf3.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "episodes",
    note = "Example: bufferbane-lab episodes --uploads 20"
)]
pub struct Options {
    /// how many uploads, 1 to 1000 (default: 20)
    #[argh(option, default = "20")]
    pub uploads: u64,
    /// how many downloads after them, 0 to 1000 (default: 4)
    #[argh(option, default = "4")]
    pub downloads: u64,
    /// seconds without anything before and after, 10 to 86400 (default: 30)
    #[argh(option, default = "30")]
    pub idle: u64,
    /// seed of how long each load lasts and how many streams it has (default: 1)
    #[argh(option, default = "1")]
    pub seed: u64,
}

/// Between two episodes: longer than an event takes to end.
const REST: Duration = Duration::from_secs(7);
/// Delay or loss without load lasts this long.
const QUIET_TROUBLE: Duration = Duration::from_secs(15);
/// Neighbours load the line for so long, seconds.
const NEIGHBOURS_S: u64 = 8;

/// Runs it and prints the result.
///
/// # Errors
/// What could not be measured, and episodes that were not told as what they were.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--uploads", options.uploads, 1..=1000)?;
    within("--downloads", options.downloads, 0..=1000)?;
    within("--idle", options.idle, 10..=86_400)?;
    crate::netns::possible().map_err(Fail::Failed)?;
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let house = House::new()?;
    let bench = Bench::new()?;
    let reflector = bench.reflector(house::REFLECTOR.into(), Some(&house.home.server), None)?;
    let daemon = bench.daemon(&house::configuration("lab.key"), Some(&house.home.client))?;
    wait_until(|| bench.status("daemon.sock").is_ok());
    let idle = Duration::from_secs(options.idle);
    println!(
        "10 Mbit/s up with 250 ms of buffer, 40 down with 200, behind a router that the daemon runs on. iperf3 \
         loads it from\na host behind the router, {} times up and {} down, 6 to 9 s with some streams of cubic \
         each; {} s before and after\nit is idle.",
        options.uploads, options.downloads, options.idle
    );
    let mut episodes = vec![house.pass(idle)];
    for (way, count) in [(Way::Up, options.uploads), (Way::Down, options.downloads)] {
        for _ in 0..count {
            // So many that the queue is filled however fast the line is.
            let least = if way == Way::Up { 2 } else { 4 };
            let (seconds, streams) = (6 + rng.next_u32() % 4, least + rng.next_u32() % 4);
            episodes.push(house.load(way, seconds.into(), streams)?);
            std::thread::sleep(REST);
        }
    }
    for cause in [Cause::SlowWithoutLoad, Cause::LossWithoutLoad] {
        episodes.push(house.trouble(cause, QUIET_TROUBLE));
        std::thread::sleep(REST);
    }
    episodes.push(house.congest(NEIGHBOURS_S, 4)?);
    std::thread::sleep(REST);
    episodes.push(house.pass(idle));
    daemon.stop();
    reflector.stop();
    let judgement = Judgement::of_store(&bench.store(), &house.carried()?, &episodes)?;
    print!("{judgement}");
    report(&judgement, &episodes)
}

fn report(judgement: &Judgement, episodes: &[Episode]) -> Result<(), Fail> {
    let of = |cause| episodes.iter().filter(|e| e.cause == cause).count();
    for cause in Cause::ALL {
        if of(cause) > 0 {
            println!(
                "{:<22}{} of {} told as what they were",
                cause.as_str(),
                judgement.right(cause),
                of(cause)
            );
        }
    }
    if judgement.is_right() {
        return Ok(());
    }
    Err(Fail::Failed(
        "not everything was told as what it was".into(),
    ))
}
