//! Throughput tests as charts see them: one panel for each uplink, reflector and direction.

use bufferbane_store::{Direction, LoadTest, Protocol};

use super::data::{Material, Tested};
use super::frame::Plot;

/// What was tested over one way, over time.
pub(crate) struct Way<'a> {
    /// `eth0 → vienna, up`.
    pub(crate) name: String,
    /// Which way.
    pub(crate) direction: Direction,
    /// When each test began, ns since 1970, and the test; the oldest first.
    pub(crate) tests: Vec<(i64, &'a LoadTest)>,
}

/// The ways that were tested as fast as they could be: up and down where they were loaded, and the round
/// trip where `with_trip`. What was sent at a rate that somebody chose is no figure of the line.
pub(crate) fn ways(material: &Material, with_trip: bool) -> Vec<Way<'_>> {
    let mut ways: Vec<Way<'_>> = Vec::new();
    let full = |(_, _, t): &&Tested| t.protocol == Protocol::Tcp;
    for (_, at_ns, test) in material.tests.iter().filter(full) {
        let loaded = test.ways.iter().map(|w| w.direction);
        for direction in loaded.chain(with_trip.then_some(Direction::Both)) {
            let word = match direction {
                Direction::Both => "round trip",
                one => crate::loads::word(one),
            };
            let name = format!("{} → {}, {word}", test.interface, test.reflector);
            match ways.iter_mut().find(|w| w.name == name) {
                Some(way) => way.tests.push((*at_ns, test)),
                None => ways.push(Way {
                    name,
                    direction,
                    tests: vec![(*at_ns, test)],
                }),
            }
        }
    }
    // The direction that hurts first, and what is not told apart last.
    let place = |w: &Way<'_>| {
        let pair = w.name.rsplit_once(", ").map(|(pair, _)| pair.to_owned());
        let rank = [Direction::Up, Direction::Down, Direction::Both];
        (pair, rank.iter().position(|d| *d == w.direction))
    };
    ways.sort_by_cached_key(place);
    ways
}

/// The median of what `of` says of each.
pub(crate) fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut all: Vec<u64> = values.collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

/// Left and right of a mark for a test that began at `at_ns`: as wide as the test, and wide enough
/// to see.
pub(crate) fn place(plot: &Plot, at_ns: i64, test: &LoadTest, least: f64) -> (f64, f64) {
    let long = test.end_ns.saturating_sub(test.start_ns);
    let (x0, x1) = (plot.x(at_ns), plot.x(at_ns.saturating_add_unsigned(long)));
    let spare = (least - (x1 - x0)).max(0.0) / 2.0;
    (x0 - spare, x1 + spare)
}

/// The label of a rate on an axis, bit/s: `0`, `500 kbit/s`, `20 Mbit/s`, `2.5 Gbit/s`.
pub(crate) fn rate_mark(bps: f64) -> String {
    let (value, unit) = match bps {
        v if v < 0.5 => return "0".into(),
        v if v < 999_500.0 => (v / 1e3, "kbit/s"),
        v if v < 999_500_000.0 => (v / 1e6, "Mbit/s"),
        v => (v / 1e9, "Gbit/s"),
    };
    let mut text = format!("{value:.3}");
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    format!("{text} {unit}")
}
