//! Scenarios: what lines do to probes, what has to be told of it, and what is told.
//!
//! Lines are simulated at the level of probes, so that hours and days pass in moments; each knows
//! which probes it touched, and so when each event begins and ends. [`judge`] runs the detectors of
//! core over one scenario and holds what they tell against what happened.

pub mod cable;
pub mod line;
pub mod list;
mod oracle;
pub mod spec;
pub mod table;

use std::collections::BTreeMap;

use bufferbane_core::detect::cable::Record;
pub use bufferbane_core::detect::verdict::Cause;
use bufferbane_core::detect::verdict::{Fact, Judgement, Others, Sign};
use bufferbane_core::detect::{
    Capacity, Direction, Event, Kind, LineState, Notice, Phase, Role, SeriesState, Thresholds,
    Value, Watch, verdict,
};
use bufferbane_core::time::Monotonic;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::{MS, S};
use line::{Report, Run};
use spec::{Expected, Scenario};

/// Between two looks at the clock, ns.
const TICK_NS: u64 = 250 * MS;
/// After a scenario's end, for everything that is open to be told as over, ns.
const AFTER_NS: u64 = 11 * 60 * S;
const DAY_NS: u64 = 86_400 * S;

/// An event that had to be told, or was, or both.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What had to be told.
    pub expected: Option<Expected>,
    /// What was.
    pub told: Option<Event>,
    /// Begin and end as they could be known at best, ns; of scattered loss only.
    pub at_best_ns: Option<(u64, u64)>,
}

/// An edge of an event is this far off at most, ns; those of outages two intervals.
pub const TOLERANCE_NS: u64 = S;

impl Pair {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.expected
            .map(|e| e.kind)
            .or(self.told.as_ref().map(|t| t.kind))
    }

    /// Whether the direction is right, where both are there.
    #[must_use]
    pub fn direction_right(&self) -> Option<bool> {
        let (e, t) = (self.expected?, self.told.as_ref()?);
        Some(e.direction == t.direction)
    }

    /// How far begin and end are off, ns, where both are there.
    #[must_use]
    pub fn edges_off_ns(&self) -> Option<(u64, u64)> {
        let (e, t) = (self.expected?, self.told.as_ref()?);
        let (from, to) = e.bounds_ns?;
        let end = t.end.map_or(u64::MAX, Monotonic::as_nanos);
        Some((from.abs_diff(t.start.as_nanos()), to.abs_diff(end)))
    }

    /// How many of both edges are further off than is asked.
    #[must_use]
    pub fn edges_wrong(&self) -> Option<u64> {
        self.wrong_of(self.edges_off_ns()?)
    }

    /// The same of what could be known at best.
    #[must_use]
    pub fn edges_wrong_at_best(&self) -> Option<u64> {
        let ((from, to), (a, b)) = (self.expected?.bounds_ns?, self.at_best_ns?);
        self.wrong_of((from.abs_diff(a), to.abs_diff(b)))
    }

    fn wrong_of(&self, (begin_ns, end_ns): (u64, u64)) -> Option<u64> {
        let tolerance_ns = self.expected?.tolerance_ns;
        Some(u64::from(begin_ns > tolerance_ns) + u64::from(end_ns > tolerance_ns))
    }
}

/// What came of one scenario with one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Events.
    pub pairs: Vec<Pair>,
    /// What people should be told first: the cause, and which way.
    pub blame: (Cause, Option<Direction>),
    /// What they would be.
    pub blamed: (Cause, Option<Direction>),
    /// All verdicts.
    pub verdicts: Vec<Judgement>,
    /// Probes simulated.
    pub probes: u64,
}

/// A scenario with this seed.
#[must_use]
pub fn scenario(make: list::Make, seed: u64) -> Scenario {
    make(&mut ChaCha8Rng::seed_from_u64(seed))
}

fn make_for(make: list::Make, seed: u64, days: Option<u64>) -> Scenario {
    let mut scenario = scenario(make, seed);
    if let Some(days) = days {
        scenario.length_ns = days * DAY_NS;
    }
    scenario
}

/// Runs one scenario of so many days, and keeps nothing of what is told: how many probes there were, and events.
/// `each_day` hears of each day that is over, the first one as 1.
#[must_use]
pub fn count_by_day(
    make: list::Make,
    seed: u64,
    days: u64,
    each_day: impl FnMut(u64),
) -> (u64, u64) {
    let mut scenario = make_for(make, seed, Some(days));
    // Nor of what had to be.
    scenario.expected.clear();
    for e in &mut scenario.effects {
        e.makes = None;
    }
    let mut events = 0;
    let count = |n: Notice| events += u64::from(n.phase == Phase::Begin);
    let (_, probes) = watch_and_hear(scenario, seed, count, |_| {}, each_day);
    (probes, events)
}

/// Runs one scenario, for so many days where they are given.
#[must_use]
pub fn judge(make: list::Make, seed: u64, days: Option<u64>) -> Outcome {
    let scenario = make_for(make, seed, days);
    let length_ns = scenario.length_ns;
    let (blame, roles) = (
        scenario.blame,
        scenario.series.iter().map(|s| s.facts).collect::<Vec<_>>(),
    );
    let mut told = Told::default();
    let hear = |n| told.hear(n);
    let (run, probes) = watch_and_hear(scenario, seed, hear, |_| {}, |_| {});
    let events = told.events();

    let near: Vec<usize> = roles
        .iter()
        .enumerate()
        .filter(|(_, f)| f.role != Role::Far)
        .map(|(i, _)| i)
        .collect();
    let facts: Vec<Fact> = events
        .iter()
        .map(|e| {
            let mut targets: Vec<u16> = e
                .series
                .iter()
                .filter_map(|i| roles.get(usize::from(i)).map(|f| f.target))
                .collect();
            targets.sort_unstable();
            targets.dedup();
            Fact {
                sign: Sign::Found(e.kind),
                severity: e.severity,
                direction: e.direction,
                line: e.line,
                start_ns: e.start.as_nanos(),
                end_ns: e.end.map_or(length_ns, Monotonic::as_nanos),
                series: e.series,
                targets: targets.len() as u8,
                near: Some(near.iter().any(|n| e.series.contains(*n as u8))),
                others: others_of(e),
                unsure: false,
                blame: None,
            }
        })
        .collect();
    let verdicts: Vec<Judgement> = verdict::judge(&facts, 0, length_ns).into_iter().collect();
    Outcome {
        blame,
        blamed: verdicts
            .first()
            .map_or((Cause::Nothing, None), |v| (v.cause, v.direction)),
        pairs: paired(&run, events),
        verdicts,
        probes,
    }
}

fn others_of(e: &Event) -> Others {
    let told = e.values.iter().find(|(name, _)| *name == "others");
    match told {
        Some((_, Value::Word(word))) => Others::from_word(word),
        _ => Others::Untold,
    }
}

/// What came of watching a scenario.
pub struct Watched {
    /// Events as they were told at last.
    pub events: Vec<Event>,
    /// What lines that may be cables showed: the last record of each line, kind and begin.
    pub records: Vec<Record>,
    /// The scenario at its end.
    pub run: Run,
    /// Probes simulated.
    pub probes: u64,
}

/// Lets the detectors watch a scenario to its end.
#[must_use]
pub fn watch(scenario: Scenario, seed: u64) -> Watched {
    let mut records = BTreeMap::new();
    let hear = |r: Record| {
        let kind = std::mem::discriminant(&r.reading);
        records.insert((r.since, r.line, format!("{kind:?}")), r);
    };
    let mut told = Told::default();
    let (run, probes) = watch_and_hear(scenario, seed, |n| told.hear(n), hear, |_| {});
    Watched {
        events: told.events(),
        records: records.into_values().collect(),
        run,
        probes,
    }
}

/// Events as they were told at last, by number.
#[derive(Default)]
struct Told(BTreeMap<u32, Event>);

impl Told {
    fn hear(&mut self, n: Notice) {
        let fresh = self.0.insert(n.id, n.event).is_none();
        assert_eq!(fresh, n.phase == Phase::Begin, "each begins once");
    }

    fn events(self) -> Vec<Event> {
        self.0.into_values().collect()
    }
}

/// The same, but each notice and record is handed on, and each day that is over told to `each_day`: gives the scenario
/// at its end, and how many probes were simulated.
fn watch_and_hear(
    scenario: Scenario,
    seed: u64,
    mut hear: impl FnMut(Notice),
    mut hear_record: impl FnMut(Record),
    mut each_day: impl FnMut(u64),
) -> (Run, u64) {
    let zero = Monotonic::ZERO;
    let n = scenario.series.len();
    let mut watch = Watch::new(
        zero,
        Thresholds::default(),
        vec![SeriesState::default(); n],
        vec![LineState::default(); scenario.sees_household.len()],
    );
    watch.handle_local_time(Some(0));
    for s in &scenario.series {
        assert!(watch.add_series(zero, s.facts).is_some(), "there is room");
    }
    let end_ns = scenario.length_ns + AFTER_NS;
    let mut run = Run::new(scenario, seed);
    let (mut reports, mut now_ns, mut probes) = (Vec::new(), 0, 0);
    while now_ns < end_ns {
        now_ns += TICK_NS;
        run.until(now_ns, &mut reports);
        let now = Monotonic::from_nanos(now_ns);
        for report in reports.drain(..) {
            match report {
                Report::Probe(i, p) => {
                    probes += 1;
                    watch.handle_probe(i, p);
                }
                Report::Revised(i, p) => watch.handle_revision(i, p),
                Report::Load(line, load) => _ = watch.handle_load(line, now, load, true),
                Report::Capacity(line, up, rate_bps) => {
                    let found = Capacity {
                        at: now,
                        up,
                        rate_bps,
                        by_train: false,
                        others_bps: 0,
                        speaks_for_ns: Capacity::MOMENT_NS,
                    };
                    watch.handle_capacity(line, found);
                }
            }
        }
        loop {
            let more = if now_ns >= end_ns {
                watch.handle_end(now)
            } else {
                watch.handle_timeout(now)
            };
            while let Some(n) = watch.poll_notice() {
                hear(n);
            }
            if !more {
                break;
            }
        }
        while let Some(r) = watch.poll_record() {
            hear_record(r);
        }
        if now_ns.is_multiple_of(DAY_NS) {
            each_day(now_ns / DAY_NS);
        }
    }
    assert_eq!(watch.shortfalls(), (0, 0));
    (run, probes)
}

/// What had to be told: the `n`th expected event, by the series of `told` where they have told it.
fn expected(run: &Run, n: usize, told: Option<&Event>) -> Expected {
    let e = run.scenario.expected[n];
    let source = e.same_as.unwrap_or(n);
    // An event says which series show it: its edges are theirs.
    let theirs = told.and_then(|t| {
        t.series
            .iter()
            .filter_map(|s| run.touched.get(&(source, usize::from(s))).copied())
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    });
    Expected {
        bounds_ns: theirs.or(run.scenario.expected[source].bounds_ns),
        ..e
    }
}

/// Finds for each expected event the told one that is nearest to it.
fn paired(run: &Run, told: Vec<Event>) -> Vec<Pair> {
    let mut left: Vec<Option<Event>> = told.into_iter().map(Some).collect();
    let mut pairs = Vec::new();
    for n in 0..run.scenario.expected.len() {
        let e = expected(run, n, None);
        let (from, to) = e.bounds_ns.unwrap_or((0, 0));
        let best = left
            .iter()
            .enumerate()
            .filter_map(|(i, t)| {
                let t = t.as_ref()?;
                let (start, end) = (
                    t.start.as_nanos(),
                    t.end.map_or(u64::MAX, Monotonic::as_nanos),
                );
                let fits = t.kind == e.kind
                    && t.line == e.line
                    && start <= to + 2 * S
                    && end.saturating_add(2 * S) >= from;
                fits.then_some((start.abs_diff(from), i))
            })
            .min();
        let told = best.and_then(|(_, i)| left[i].take());
        // What is told because of loss has the edges of that loss.
        let source = e.same_as.unwrap_or(n);
        let is_loss = run.scenario.expected[source].kind == Kind::PacketLoss;
        let of_loss = told.as_ref().filter(|_| is_loss);
        pairs.push(Pair {
            expected: Some(expected(run, n, told.as_ref())),
            at_best_ns: of_loss.and_then(|t| oracle::edges(run, source, t.series)),
            told,
        });
    }
    pairs.extend(left.into_iter().flatten().map(|t| Pair {
        expected: None,
        told: Some(t),
        at_best_ns: None,
    }));
    pairs
}
