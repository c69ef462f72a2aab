//! Streams with a known truth.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;
use std::{format, println};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::sample::SeriesIndex;

use proptest::prelude::*;

const MS: f64 = 1e6;

proptest! {
    /// Whatever clocks and far ends say, the estimator goes on, and what it hands out can be used.
    #[test]
    fn nothing_that_samples_say_makes_it_panic(
        begin in 0u64..u64::MAX / 2,
        steps in proptest::collection::vec(
            (0u64..1 << 40, -1_000_000_000i64..1_000_000_000, any::<i64>(), 0u8..16, any::<u8>()),
            1..400,
        ),
    ) {
        let mut e = FloorEstimator::new();
        let mut knots = BTreeMap::new();
        let (mut sent, mut up_ns, mut down_ns) = (begin, 5_000_000i64, 6_000_000i64);
        for (seq, (gap, near, far, kind, ttl)) in steps.into_iter().enumerate() {
            // Mostly small changes at usual distances, now and then anything at all.
            sent = sent.saturating_add(if kind == 0 { gap } else { gap % 100_000_000 });
            match kind {
                1 => (up_ns, down_ns) = (far, far.wrapping_neg()),
                2 => up_ns = far,
                3 => down_ns = far,
                4..8 => up_ns = up_ns.wrapping_add(near),
                8..10 => down_ns = down_ns.wrapping_sub(near),
                _ => {}
            }
            let sent_at = Monotonic::from_nanos(sent);
            let mut s = Sample::lost(SeriesIndex(0), seq as u64, sent_at, 128);
            if kind != 15 {
                s.status = Status::Ok;
                s.rtt_ns = Some(up_ns.wrapping_add(down_ns).unsigned_abs());
                (s.raw_up_ns, s.raw_down_ns) = (Some(up_ns), Some(down_ns));
                s.ttl_up = Some(ttl % 2);
            }
            e.on_sample(&s);
            let _ = (e.queueing(&s), e.quality(), e.skew_ppb());
            while let Some(update) = e.poll_update() {
                apply(&mut knots, update);
            }
            while e.poll_change().is_some() {}
            prop_assert!(e.quality() <= 100);
            for k in knots.values() {
                let _ = k.queueing(&s, None);
            }
        }
    }
}

/// A line; all figures in s and ns of true time.
pub(super) struct Line {
    pub(super) interval: f64,
    /// Delay of each direction without a queue.
    pub(super) floor: Box<dyn Fn(f64) -> (f64, f64)>,
    /// Delay in queues.
    pub(super) queue: Box<dyn Fn(f64) -> (f64, f64)>,
    /// Far end's clock minus ours.
    pub(super) clock: Box<dyn Fn(f64) -> f64>,
    /// Random delay up and down, at most; it counts as queueing.
    pub(super) noise: (f64, f64),
    pub(super) loss: f64,
    pub(super) ttl: Box<dyn Fn(f64) -> u8>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            interval: 0.05,
            floor: Box::new(|_| (11.0 * MS, 9.0 * MS)),
            queue: Box::new(|_| (0.0, 0.0)),
            clock: Box::new(|t| 5e14 + 20_000.0 * t),
            noise: (0.3 * MS, 0.05 * MS),
            loss: 0.0,
            ttl: Box::new(|_| 58),
        }
    }
}

pub(super) struct Judged {
    pub(super) t: f64,
    /// What was said, from the knots as they were in the end, minus what was true: up, down; ns.
    pub(super) error: Option<(f64, f64)>,
    /// What was said at once, likewise.
    pub(super) live: Option<(f64, f64)>,
    pub(super) said_err_ns: f64,
}

pub(super) struct Run {
    pub(super) judged: Vec<Judged>,
    pub(super) changes: Vec<Change>,
    pub(super) knots: usize,
    pub(super) estimator: FloorEstimator,
}

impl Line {
    pub(super) fn run(&self, seconds: f64) -> Run {
        let mut rng = ChaCha8Rng::seed_from_u64(42);
        let mut unit = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
        let mut e = FloorEstimator::new();
        let mut knots: BTreeMap<Monotonic, Knot> = BTreeMap::new();
        let (mut samples, mut changes) = (Vec::new(), Vec::new());
        let mut seq = 0u64;
        let mut last = 0;
        loop {
            let t = (seq as f64 + 0.8 * unit()) * self.interval;
            if t > seconds {
                break;
            }
            let (floor, queue) = ((self.floor)(t), (self.queue)(t));
            let (up, down) = (
                queue.0 + self.noise.0 * unit(),
                queue.1 + self.noise.1 * unit(),
            );
            let clock = (self.clock)(t + (floor.0 + up) / 1e9);
            let sent = Monotonic::from_nanos(1_000_000_000 + (t * 1e9) as u64);
            let mut s = Sample::lost(SeriesIndex(0), seq, sent, 128);
            seq += 1;
            if unit() >= self.loss {
                s.status = Status::Ok;
                s.raw_up_ns = Some((floor.0 + up + clock) as i64);
                s.raw_down_ns = Some((floor.1 + down - clock) as i64);
                s.rtt_ns = Some((floor.0 + up + floor.1 + down) as u64);
                s.ttl_up = Some((self.ttl)(t));
            }
            // A packet does not overtake another in this world.
            let at = instant_of(&s).as_nanos();
            if s.status == Status::Ok && at < last {
                continue;
            }
            last = last.max(at);
            e.on_sample(&s);
            while let Some(u) = e.poll_update() {
                apply(&mut knots, u);
            }
            while let Some(c) = e.poll_change() {
                changes.push(c);
            }
            if s.status == Status::Ok {
                let live = e
                    .queueing(&s)
                    .map(|q| (q.up_ns as f64 - up, q.down_ns as f64 - down));
                samples.push((t, s, up, down, live));
            }
        }
        let judged = samples
            .into_iter()
            .map(|(t, s, up, down, live)| {
                let at = instant_of(&s);
                let before = knots.range(..=at).next_back().map(|k| k.1);
                let next = knots.range((std::ops::Bound::Excluded(at), std::ops::Bound::Unbounded));
                let q = before.and_then(|k| k.queueing(&s, next.map(|k| k.1).next()));
                Judged {
                    t,
                    error: q.map(|q| (q.up_ns as f64 - up, q.down_ns as f64 - down)),
                    live,
                    said_err_ns: q.map_or(0.0, |q| f64::from(q.err_ns)),
                }
            })
            .collect();
        Run {
            judged,
            changes,
            knots: knots.len(),
            estimator: e,
        }
    }
}

/// What a store does with an update.
pub(super) fn apply(knots: &mut BTreeMap<Monotonic, Knot>, update: Update) {
    match update {
        Update::Knot(k) => drop(knots.insert(k.at, k)),
        Update::Shift {
            from,
            up_ns,
            down_ns,
        } => {
            let before = knots.range(..from).next_back().map(|k| *k.1);
            let next = knots.range(from..).next().map(|k| *k.1);
            if let Some(before) = before
                && next.is_none_or(|n| n.at > from)
            {
                knots.insert(from, before.begun_at(from, next.as_ref()));
            }
            for k in knots.range_mut(from..) {
                *k.1 = k.1.shifted(up_ns, down_ns);
            }
        }
    }
}

impl Run {
    /// 95 % of the errors in a stretch are at most this, in either direction, ns.
    pub(super) fn p95(&self, from: f64, to: f64) -> f64 {
        percentile(
            self.judged
                .iter()
                .filter(|j| j.t >= from && j.t < to)
                .filter_map(|j| j.error),
        )
    }

    fn live_p95(&self, from: f64, to: f64) -> f64 {
        percentile(
            self.judged
                .iter()
                .filter(|j| j.t >= from && j.t < to)
                .filter_map(|j| j.live),
        )
    }

    fn known(&self, from: f64, to: f64) -> f64 {
        let all = self.judged.iter().filter(|j| j.t >= from && j.t < to);
        let known = all.clone().filter(|j| j.error.is_some()).count();
        known as f64 / all.count() as f64
    }
}

fn percentile(errors: impl Iterator<Item = (f64, f64)>) -> f64 {
    let mut all: Vec<f64> = errors.map(|(up, down)| up.abs().max(down.abs())).collect();
    all.sort_by(f64::total_cmp);
    assert!(!all.is_empty(), "nothing to judge");
    all[(all.len() * 95 / 100).min(all.len() - 1)]
}

/// A queue that fills within a second, breathes, and drains within another.
fn bloat(t: f64, from: f64, to: f64, height: f64) -> f64 {
    if t < from || t > to + 1.0 {
        return 0.0;
    }
    let edge = (t - from).min(to + 1.0 - t).clamp(0.0, 1.0);
    let saw = (t - from) % 7.0 / 7.0;
    edge * height * (0.7 + 0.3 * saw)
}

#[track_caller]
fn assert_below(what: &str, value: f64, most: f64) {
    println!("{what}: {:.1} µs", value / 1e3);
    assert!(value <= most, "{what}: {value} ns is more than {most}");
}

#[test]
fn a_queue_of_three_minutes_is_told_to_a_fifth_of_a_millisecond_in_its_direction() {
    for interval in [0.05, 1.0] {
        for (up, down) in [
            (180.0 * MS, 0.0),
            (0.0, 180.0 * MS),
            (180.0 * MS, 90.0 * MS),
        ] {
            let line = Line {
                interval,
                queue: Box::new(move |t| {
                    (bloat(t, 300.0, 480.0, up), bloat(t, 300.0, 480.0, down))
                }),
                ..Line::default()
            };
            let run = line.run(700.0);
            let what = format!("{interval} s, {up} up, {down} down");
            assert_below(&what, run.p95(295.0, 485.0), 0.2 * MS);
            assert_below(
                &format!("{what}, at once"),
                run.live_p95(295.0, 485.0),
                0.2 * MS,
            );
            assert_below(&format!("{what}, after"), run.p95(490.0, 700.0), 0.2 * MS);
            assert!(run.changes.is_empty(), "{what}: {:?}", run.changes);
            let last = run.judged.last().unwrap();
            assert!(last.said_err_ns < 0.2 * MS && run.estimator.quality() > 50);
            println!("{} knots", run.knots);
        }
    }
}

#[test]
fn a_step_of_a_clock_is_no_queue() {
    for interval in [0.05, 1.0, 10.0] {
        for step in [-100.0 * MS, 3.0 * MS, 1e15] {
            let line = Line {
                interval,
                clock: Box::new(move |t| 20_000.0 * t + if t > 400.0 { step } else { 0.0 }),
                ..Line::default()
            };
            let run = line.run(800.0);
            if interval < 5.0 || step.abs() > 50.0 * MS {
                assert_eq!(run.changes.len(), 1, "{interval} {step} {:?}", run.changes);
                assert!(matches!(run.changes[0], Change::ClockStep { .. }));
            }
            let most = if interval < 5.0 { 0.2 * MS } else { 0.5 * MS };
            assert_below(&format!("{interval} {step}"), run.p95(200.0, 800.0), most);
        }
    }
}

#[test]
fn a_step_while_a_queue_stands_is_no_queue_either() {
    let line = Line {
        queue: Box::new(|t| (bloat(t, 300.0, 480.0, 150.0 * MS), 0.0)),
        clock: Box::new(|t| -3e9 + 20_000.0 * t + if t > 400.0 { 100.0 * MS } else { 0.0 }),
        ..Line::default()
    };
    let run = line.run(700.0);
    assert!(
        matches!(run.changes[..], [Change::ClockStep { .. }]),
        "{:?}",
        run.changes
    );
    assert_below("during", run.p95(295.0, 485.0), 0.2 * MS);
    assert_below("after", run.p95(490.0, 700.0), 0.2 * MS);
}

#[test]
fn a_slewed_clock_is_followed() {
    for (interval, ppm) in [(0.05, 500.0), (0.05, -500.0), (0.05, 40.0), (1.0, 500.0)] {
        let line = Line {
            interval,
            clock: Box::new(move |t| 20_000.0 * t + ppm * 1e3 * (t.clamp(300.0, 400.0) - 300.0)),
            ..Line::default()
        };
        let run = line.run(800.0);
        assert_below(
            &format!("{interval} s, {ppm} ppm"),
            run.p95(290.0, 410.0),
            0.25 * MS,
        );
        assert_below("later", run.p95(410.0, 800.0), 0.2 * MS);
        assert!(run.changes.is_empty(), "{:?}", run.changes);
        println!("{} knots", run.knots);
    }
}

#[test]
fn a_new_route_becomes_the_floor_and_a_queue_of_a_quarter_of_an_hour_does_not() {
    for (up, down) in [(8.0 * MS, 0.0), (0.0, 8.0 * MS), (3.0 * MS, 5.0 * MS)] {
        let line = Line {
            floor: Box::new(move |t| {
                if t > 400.0 {
                    (11.0 * MS + up, 9.0 * MS + down)
                } else {
                    (11.0 * MS, 9.0 * MS)
                }
            }),
            ..Line::default()
        };
        let run = line.run(1200.0);
        assert!(
            matches!(run.changes[..], [Change::Route { .. }]),
            "{:?}",
            run.changes
        );
        // Told again once it was known.
        assert_below("new route", run.p95(380.0, 1200.0), 0.2 * MS);
    }
    let line = Line {
        queue: Box::new(|t| (bloat(t, 400.0, 1400.0, 60.0 * MS), 0.0)),
        ..Line::default()
    };
    let run = line.run(1600.0);
    assert!(run.changes.is_empty(), "{:?}", run.changes);
    assert_below("a long queue", run.p95(400.0, 1600.0), 0.2 * MS);
}

#[test]
fn other_hops_prove_a_new_route_in_seconds_and_loss_speaks_for_a_full_buffer() {
    let line = Line {
        floor: Box::new(|t| {
            if t > 400.0 {
                (19.0 * MS, 9.0 * MS)
            } else {
                (11.0 * MS, 9.0 * MS)
            }
        }),
        ttl: Box::new(|t| if t > 400.0 { 56 } else { 58 }),
        ..Line::default()
    };
    let run = line.run(430.0);
    assert!(
        matches!(run.changes[..], [Change::Route { .. }]),
        "{:?}",
        run.changes
    );
    assert_below("other hops", run.p95(300.0, 430.0), 0.2 * MS);
    // A buffer that is full for twenty minutes, as a flood makes it: as steady as a route.
    let line = Line {
        queue: Box::new(|t| {
            (
                if (400.0..1600.0).contains(&t) {
                    80.0 * MS
                } else {
                    0.0
                },
                0.0,
            )
        }),
        loss: 0.03,
        ..Line::default()
    };
    let run = line.run(1700.0);
    assert!(run.changes.is_empty(), "{:?}", run.changes);
    assert_below("a full buffer", run.p95(400.0, 1700.0), 0.2 * MS);
}

#[test]
fn a_shorter_route_is_the_floor_at_once() {
    let line = Line {
        floor: Box::new(|t| {
            if t > 700.0 {
                (11.0 * MS, 5.0 * MS)
            } else {
                (11.0 * MS, 9.0 * MS)
            }
        }),
        ..Line::default()
    };
    let run = line.run(1000.0);
    assert!(
        matches!(run.changes[..], [Change::Route { .. }]),
        "{:?}",
        run.changes
    );
    assert_below("shorter", run.p95(60.0, 1000.0), 0.2 * MS);
}

#[test]
fn who_begins_in_a_queue_says_so_and_corrects_it() {
    let line = Line {
        queue: Box::new(|t| (bloat(t, -60.0, 120.0, 90.0 * MS), 0.0)),
        ..Line::default()
    };
    let run = line.run(300.0);
    assert!(
        run.judged
            .iter()
            .take_while(|j| j.t < 4.9)
            .all(|j| j.live.is_none())
    );
    assert!(run.known(6.0, 300.0) > 0.99);
    assert_below("in the end", run.p95(6.0, 300.0), 0.5 * MS);
    let mut early = line.run(60.0);
    assert!(
        early.estimator.quality() < 60,
        "{}",
        early.estimator.quality()
    );
    assert_eq!(early.estimator.poll_change(), None);
}
