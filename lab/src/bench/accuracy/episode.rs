//! `queue-episode`: minutes of bufferbloat, up and then both ways, and what was said of each direction's
//! queue against what the line's log has, probe by probe.

use std::ops::Range;

use argh::FromArgs;

use super::ours::Ours;
use super::site::{self, Site};
use super::truth::{Line, Truth};
use super::{errors, matched, print_head, print_losses, print_row, state, verdict};
use crate::bench::{Fail, percentile, within};

/// The error of queueing delay per direction, probe by probe against the line's own log, while a queue
/// stands for minutes: first upward, then both ways. Needs root or user namespaces, and stress-ng with
/// --loaded.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "queue-episode",
    note = "Example: bufferbane-lab queue-episode --seconds 180"
)]
pub struct Options {
    /// seconds of the queue, 10 to 3600 (default: 180)
    #[argh(option, default = "180")]
    pub seconds: u64,
    /// keep every core busy meanwhile
    #[argh(switch)]
    pub loaded: bool,
}

/// What is promised of a queue's height, p95, ns.
const AIM_NS: i64 = 200_000;

/// What is said of a queue in some part of an episode.
pub(super) struct Part {
    pub(super) name: &'static str,
    /// `CLOCK_REALTIME`, ns.
    pub(super) during: Range<i64>,
}

/// Runs it and prints the result.
///
/// # Errors
/// What could not be measured. An aim that is missed is printed as missed.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--seconds", options.seconds, 10..=3600)?;
    crate::netns::possible().map_err(Fail::Failed)?;
    let site = Site::bloated()?;
    let (mut ours, parts) = site::episode(&site, options.seconds, options.loaded)?;
    let log = site.log()?;
    let probes = matched(&mut ours, &log)?;
    let truth = probes.truth();
    print_head(&format!(
        "10 Mbit/s up with 120 ms of buffer, 20 down with 80, filled up for {} s and down for the second \
         half of them, {}:\nerror of queueing delay against the line's log, in µs",
        options.seconds,
        state(options.loaded)
    ));
    let least = |pick: fn(&Line) -> i64| truth.values().map(pick).min().unwrap_or(0);
    let floors = [least(|l| l.up_ns), least(|l| l.down_ns)];
    for part in &parts {
        let of_part =
            |(n, l): (&u64, &Line)| part.during.contains(&l.arrival_ns).then_some((*n, *l));
        let truth: Truth = truth.iter().filter_map(of_part).collect();
        print_part(part.name, &ours, &truth, floors)?;
    }
    print_part("all of it", &ours, &truth, floors)?;
    print_losses("bufferbane UDP", &ours.udp, &probes, true);
    Ok(())
}

fn print_part(name: &str, ours: &Ours, truth: &Truth, floors: [i64; 2]) -> Result<(), Fail> {
    let [up_floor, down_floor] = floors;
    let up = |l: &Line| l.up_ns - up_floor;
    let down = |l: &Line| l.down_ns - down_floor;
    print_direction(name, "up", &errors(&ours.queue.up, truth, up), truth, up)?;
    print_direction(
        name,
        "down",
        &errors(&ours.queue.down, truth, down),
        truth,
        down,
    )
}

fn print_direction(
    name: &str,
    way: &str,
    errors: &[i64],
    truth: &Truth,
    queue: impl Fn(&Line) -> i64,
) -> Result<(), Fail> {
    let heights: Vec<i64> = truth.values().map(queue).collect();
    let kept = verdict(percentile(errors, 950) <= AIM_NS, "p95 200 µs");
    let note = format!(
        "{kept}; queue p50 {} ms",
        percentile(&heights, 500) / 1_000_000
    );
    print_row(&format!("{name}, {way}"), errors, &note)
}
