//! `shapes`: what throughput tests say of lines of many shapes, against what those lines did.
//!
//! ```text
//! bufferbaned ── emulated line, or a router that shapes with the kernel's tbf ── bufferbane-reflector
//!      └ asked for a test           └ log of packets, or counters                       each way alone
//! ```
//!
//! Rates are of TCP's payload, each byte once. A line's log has the sequence numbers; behind a bucket, of
//! each frame the headers are taken off that TCP with time stamps has over IPv4. Increases of latency are held against the same percentiles of how long the
//! line held the same probes, or, behind a bucket, of what waited in it over its rate.

pub mod ask;
mod kernel;
mod line;
mod site;

use std::fmt;

use argh::FromArgs;
use bufferbane_core::load::latency::Spread;

use self::ask::Told;
pub use self::line::{hold, truth_of_log};
use self::site::Site;
use super::{Fail, within};
use crate::link::{Direction, Way};

/// What throughput tests say of ten emulated lines, from 2/1 to 200/50 Mbit/s with buffers from 20 ms to
/// 2 s, against the lines' own logs, and of two faster ones against the counters of the kernel's tbf.
/// Fails where an aim is missed. Needs root or user namespaces, and tc.
#[derive(Clone, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "shapes",
    note = "Example: bufferbane-lab shapes --only 25/5"
)]
pub struct Options {
    /// how long each test loads a line, 4 to 60; lines with long buffers are given more (default: 8)
    #[argh(option, default = "8")]
    pub seconds: u64,
    /// only the line of this name, such as 25/5
    #[argh(option)]
    pub only: Option<String>,
}

/// What a rate may be off, per mille.
const RATE_AIM: f64 = 30.0;
/// What an increase of latency may be off, per mille.
const DELAY_AIM: f64 = 100.0;

/// One direction of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Frames per second, bit/s.
    pub rate_bps: u64,
    /// What waits longer is dropped, ms.
    pub buffer_ms: u64,
}

impl Lane {
    const fn new(mbit: u64, buffer_ms: u64) -> Self {
        Self {
            rate_bps: mbit * 1_000_000,
            buffer_ms,
        }
    }

    /// The same for the emulator, with 10 ms of delay.
    #[must_use]
    pub const fn direction(self) -> Direction {
        Direction {
            rate_bps: self.rate_bps,
            buffer_ns: self.buffer_ms * 1_000_000,
            buffer_bytes: u64::MAX,
            ..Direction::delay(10_000_000)
        }
    }
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Mbit/s down and up.
    pub name: &'static str,
    /// Towards the client.
    pub down: Lane,
    /// From the client.
    pub up: Lane,
    /// Shaped by the kernel instead of the emulator, which does not keep up with the fastest.
    pub kernel: bool,
}

const fn shape(name: &'static str, down: Lane, up: Lane) -> Shape {
    Shape {
        name,
        down,
        up,
        kernel: false,
    }
}

/// All of them.
pub const SHAPES: [Shape; 12] = [
    shape("2/1", Lane::new(2, 500), Lane::new(1, 2000)),
    shape("6/1", Lane::new(6, 300), Lane::new(1, 600)),
    shape("8/2", Lane::new(8, 100), Lane::new(2, 250)),
    shape("10/10", Lane::new(10, 20), Lane::new(10, 20)),
    shape("16/4", Lane::new(16, 200), Lane::new(4, 1000)),
    shape("25/5", Lane::new(25, 60), Lane::new(5, 120)),
    shape("50/10", Lane::new(50, 1000), Lane::new(10, 300)),
    shape("100/20", Lane::new(100, 40), Lane::new(20, 150)),
    shape("100/40", Lane::new(100, 80), Lane::new(40, 50)),
    shape("200/50", Lane::new(200, 20), Lane::new(50, 100)),
    Shape {
        kernel: true,
        ..shape("300/300", Lane::new(300, 60), Lane::new(300, 60))
    },
    Shape {
        kernel: true,
        ..shape("500/500", Lane::new(500, 30), Lane::new(500, 30))
    },
];

impl Shape {
    /// One direction of it.
    #[must_use]
    pub const fn lane(&self, way: Way) -> Lane {
        match way {
            Way::Up => self.up,
            Way::Down => self.down,
        }
    }

    /// How long a test is to take that is to see the buffer fill and empty, s.
    const fn seconds(&self, way: Way, base: u64) -> u64 {
        base + 4 * self.lane(way).buffer_ms / 1000
    }
}

/// What a line did while a test was run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Payload of TCP delivered in the steady part, bit/s.
    pub rate_bps: u64,
    /// How long it held probes before the load, ns.
    pub idle: Spread,
    /// And in the steady part, ns.
    pub loaded: Spread,
}

/// One test against the line that it ran over.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which way was loaded.
    pub way: Way,
    /// What the test said, bit/s.
    pub said_bps: u64,
    /// What it said that others carried meanwhile, bit/s.
    pub others_bps: Option<u64>,
    /// What it said of latency: the increase, ns.
    pub said: Spread,
    /// What was the case.
    pub truth: Truth,
}

impl Row {
    fn new(told: &Told, truth: Truth) -> Self {
        Self {
            way: told.way,
            said_bps: told.rate_bps,
            others_bps: told.others_bps,
            said: told.increase,
            truth,
        }
    }

    /// By how much the rate is off, per mille of the truth.
    #[must_use]
    pub fn rate_error(&self) -> f64 {
        (self.said_bps as f64 / self.truth.rate_bps as f64 - 1.0) * 1000.0
    }

    /// By how much the increase is off at the 50th, 90th and 99th percentile, per mille of the truth.
    #[must_use]
    pub fn delay_errors(&self) -> [f64; 3] {
        let (said, is) = (self.said, self.truth.loaded.above(self.truth.idle));
        let error = |said: u64, is: u64| (said as f64 / is as f64 - 1.0) * 1000.0;
        [
            error(said.p50, is.p50),
            error(said.p90, is.p90),
            error(said.p99, is.p99),
        ]
    }

    /// Whether everything is as near to the truth as is promised.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let delays = self.delay_errors();
        // What is not a number is no error that is small.
        self.rate_error().abs() <= RATE_AIM && delays.iter().all(|e| e.abs() <= DELAY_AIM)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mbit = |bps: u64| bps as f64 / 1e6;
        let ms = |ns: u64| ns as f64 / 1e6;
        let is = self.truth.loaded.above(self.truth.idle);
        write!(
            f,
            "{:<6}{:>9.3}{:>9.3}{:>7.1} %",
            match self.way {
                Way::Up => "up",
                Way::Down => "down",
            },
            mbit(self.said_bps),
            mbit(self.truth.rate_bps),
            self.rate_error() / 10.0
        )?;
        let pairs = [
            (self.said.p50, is.p50),
            (self.said.p90, is.p90),
            (self.said.p99, is.p99),
        ];
        for ((said, is), error) in pairs.into_iter().zip(self.delay_errors()) {
            write!(
                f,
                "{:>10.1}{:>9.1}{:>7.1} %",
                ms(said),
                ms(is),
                error / 10.0
            )?;
        }
        write!(f, "  {}", if self.is_kept() { "kept" } else { "missed" })
    }
}

/// Runs it and prints the result.
///
/// # Errors
/// What could not be measured, and aims that were missed.
pub fn run(options: &Options) -> Result<(), Fail> {
    within("--seconds", options.seconds, 4..=60)?;
    let wanted: Vec<&Shape> = SHAPES
        .iter()
        .filter(|s| options.only.as_ref().is_none_or(|name| name == s.name))
        .collect();
    if wanted.is_empty() {
        let names: Vec<&str> = SHAPES.iter().map(|s| s.name).collect();
        return Err(Fail::Usage(format!(
            "--only {}: there is no such shape; there are {}",
            options.only.as_deref().unwrap_or_default(),
            names.join(", ")
        )));
    }
    crate::netns::possible().map_err(Fail::Failed)?;
    println!(
        "A test each way of every line, {} s and more of load. Rates are of TCP's payload in Mbit/s, increases \
         of latency in ms;\nof each what the test said, what the line's log or counters say, and the error. \
         Aims: rate 3 %, increase 10 % at each percentile.\n",
        options.seconds
    );
    println!(
        "{:<9}{:<9}{:<6}{:>9}{:>9}{:>9}{:>10}{:>9}{:>9}{:>10}{:>9}{:>9}{:>10}{:>9}{:>9}",
        "shape",
        "buffer",
        "",
        "said",
        "line",
        "error",
        "p50 said",
        "line",
        "error",
        "p90 said",
        "line",
        "error",
        "p99 said",
        "line",
        "error"
    );
    let (mut rows, mut missed) = (0, 0);
    for shape in wanted {
        let site = Site::new(shape)?;
        for way in Way::BOTH {
            let row = site.test(shape, way, shape.seconds(way, options.seconds))?;
            let buffer = format!("{} ms", shape.lane(way).buffer_ms);
            println!("{:<9}{buffer:<9}{row}", shape.name);
            rows += 1;
            missed += usize::from(!row.is_kept());
        }
    }
    println!("\n{} of {rows} tests kept the aims", rows - missed);
    if missed > 0 {
        return Err(Fail::Failed(format!("{missed} tests missed an aim")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(said_bps: u64, said_ns: u64) -> Row {
        let spread = |ns| Spread {
            p50: ns,
            p90: ns,
            p99: ns,
        };
        Row {
            way: Way::Up,
            said_bps,
            others_bps: None,
            said: spread(said_ns),
            truth: Truth {
                rate_bps: 1_000_000,
                idle: spread(10_000_000),
                loaded: spread(110_000_000),
            },
        }
    }

    #[test]
    fn what_is_further_off_than_promised_is_missed() {
        assert!(row(1_029_000, 109_000_000).is_kept());
        assert!(row(971_000, 91_000_000).is_kept());
        assert!(!row(1_031_000, 100_000_000).is_kept());
        assert!(!row(969_000, 100_000_000).is_kept());
        assert!(!row(1_000_000, 111_000_000).is_kept());
        assert!(!row(1_000_000, 89_000_000).is_kept());
    }

    #[test]
    fn shapes_reach_from_the_slowest_to_the_fastest_with_names_of_their_own() {
        let emulated: Vec<&Shape> = SHAPES.iter().filter(|s| !s.kernel).collect();
        assert_eq!(emulated.len(), 10);
        let buffers = emulated
            .iter()
            .flat_map(|s| [s.up.buffer_ms, s.down.buffer_ms]);
        let (least, most) = (buffers.clone().min(), buffers.max());
        assert_eq!((least, most), (Some(20), Some(2000)));
        for shape in SHAPES {
            let [down, up] = [shape.down, shape.up].map(|l| l.rate_bps / 1_000_000);
            assert_eq!(shape.name, format!("{down}/{up}"));
        }
    }
}
