//! Lines that are cables and lines that are not, and what has to be found of them.

use bufferbane_core::detect::cable::{self, Finding, FindingKind, Seen, Told};
use bufferbane_core::detect::{Direction, Event, Kind, Value};
use bufferbane_core::time::Monotonic;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

pub use super::list::cables::ALL;
use super::list::cables::Line;
use super::{Watched, watch};
use crate::S;

/// What was found of a line with one seed, and its [`Line::figure`] as far as that is right.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What had to be found.
    pub expected: Vec<FindingKind>,
    /// What was.
    pub found: Vec<Finding>,
    /// What was without the day of ranging trouble of a line that has one.
    pub without: Vec<Finding>,
    /// The figure that was found, where one is asked for and there is one.
    pub figure: Option<u64>,
}

impl Outcome {
    /// Kinds of what was found.
    #[must_use]
    pub fn kinds(&self) -> Vec<FindingKind> {
        self.found.iter().map(|f| f.kind).collect()
    }
}

/// Watches one line and judges it.
#[must_use]
pub fn judge(line: &Line, seed: u64) -> Outcome {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let scenario = (line.make)(&mut rng);
    let length_ns = scenario.length_ns;
    let Watched {
        events, records, ..
    } = watch(scenario, seed);
    let mut told: Vec<Told> = events.iter().filter_map(|e| told(e, length_ns)).collect();
    let readings = records
        .iter()
        .map(|r| (r.since.as_nanos(), r.until.as_nanos(), r.reading));
    let of = |told: &[Told]| -> Vec<Finding> {
        cable::judge(readings.clone(), told, line.modem)
            .into_iter()
            .collect()
    };
    let mut without = Vec::new();
    if line.ranged {
        without = of(&told);
        told.push(another_day(length_ns));
    }
    let found = of(&told);
    let figure = line.figure.and_then(|(kind, name, ..)| {
        let f = found.iter().find(|f| f.kind == kind)?;
        match f.values.iter().find(|(n, _)| *n == name)?.1 {
            Value::Number(n) => Some(n),
            Value::Ratio(_) | Value::Word(_) => None,
        }
    });
    Outcome {
        expected: line.expected.to_vec(),
        found,
        without,
        figure,
    }
}

/// Ranging trouble on the day after.
const fn another_day(length_ns: u64) -> Told {
    let start_ns = length_ns + 86_400 * S;
    Told {
        seen: Seen::Period {
            period_ns: 30 * S,
            times: 60,
            strength: 0.9,
        },
        direction: Some(Direction::Up),
        start_ns,
        end_ns: start_ns + 1800 * S,
    }
}

/// An event as evidence.
fn told(e: &Event, length_ns: u64) -> Option<Told> {
    let value = |name: &str| e.values.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let number = |name: &str| match value(name) {
        Some(Value::Number(n)) => n,
        _ => 0,
    };
    let seen = match e.kind {
        Kind::PeriodicLoss => Seen::Period {
            period_ns: number("period_ns"),
            times: number("times"),
            strength: match value("strength") {
                Some(Value::Ratio(r)) => r,
                _ => 0.0,
            },
        },
        Kind::MicroOutage | Kind::Outage => Seen::Outage {
            near_well: value("gateway") != Some(Value::Word("down")),
        },
        Kind::PeakHourCongestion => Seen::Evening {
            days: number("days"),
            hours: (number("from_hour"), number("to_hour")),
            night_ns: number("night_ns"),
            evening_ns: number("evening_ns"),
            idle: value("load") == Some(Value::Word("idle")),
        },
        Kind::RoutingFault | Kind::FamilyDiffers | Kind::MtuBlackHole => Seen::Elsewhere,
        _ => return None,
    };
    Some(Told {
        seen,
        direction: e.direction.filter(|d| *d != Direction::Both),
        start_ns: e.start.as_nanos(),
        end_ns: e.end.map_or(length_ns, Monotonic::as_nanos),
    })
}
