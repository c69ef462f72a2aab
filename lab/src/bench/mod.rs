//! Benchmarks that hold this program against others on one machine, in one run.
//!
//! Each measures what it prints, of both sides, in the run that prints it; where the machine is
//! noisy, rounds alternate and what is compared are medians.

pub mod accuracy;
pub mod child;
pub mod cost;
pub mod cuts;
pub mod echo;
pub mod episodes;
pub mod fleet;
pub mod flood;
pub mod lateness;
pub mod report;
pub mod samples;
pub mod scenario;
pub mod setup;
pub mod shapes;
mod sqlite;
pub mod store;
pub mod throughput;
pub mod train;

use std::fmt;

/// Why a benchmark has no result.
#[derive(Debug)]
pub enum Fail {
    /// What was typed makes no sense: exit code 2.
    Usage(String),
    /// It did not work: exit code 1.
    Failed(String),
}

impl Fail {
    /// `what` failed because of `why`.
    pub fn of(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }

    /// The exit code of the program.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
        }
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Fail {}

/// Each benchmark in a short form, one after the other.
///
/// # Errors
/// What could not be done; what comes after it is done all the same.
pub fn all() -> Result<(), Fail> {
    type Part = (&'static str, fn() -> Result<(), Fail>);
    let parts: [Part; 4] = [
        ("the reflector", || {
            echo::run(echo::Options {
                rounds: 3,
                round_ms: 400,
                size: 172,
            })
        }),
        ("accuracy", || {
            accuracy::run(accuracy::Options {
                seconds: 8,
                quick: false,
            })
        }),
        ("the store", || {
            store::run(store::Options { hours: 24, seed: 1 })
        }),
        ("the daemon", || cost::run(cost::Options { seconds: 20 })),
    ];
    let mut failed = Vec::new();
    for (name, part) in parts {
        println!("==== {name}\n");
        if let Err(fail) = part() {
            println!("{fail}");
            failed.push(format!("{name}: {fail}"));
        }
        println!();
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Fail::Failed(failed.join("\n")))
}

/// `value` must lie within `range`.
///
/// # Errors
/// [`Fail::Usage`] that names the option and what is allowed.
pub fn within(option: &str, value: u64, range: std::ops::RangeInclusive<u64>) -> Result<(), Fail> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Fail::Usage(format!(
        "{option} {value} is out of range; {} to {} is allowed",
        range.start(),
        range.end()
    )))
}

/// The value below which `permille` of `values` lie; 0 where there are none.
#[must_use]
pub fn percentile(values: &[i64], permille: usize) -> i64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((sorted.len() * permille / 1000).min(last))
        .copied()
        .unwrap_or(0)
}

/// The median; 0 where there are no values.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
