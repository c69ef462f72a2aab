//! Queueing delay per direction, and the direction of losses, against the truth.

use bufferbane_core::clock::Change;
use bufferbane_core::sample::{Flags, Status};
use bufferbane_sim::clock::ClockChange;
use bufferbane_sim::link::{LinkPlan, Standing};
use bufferbane_sim::{MS, Plan, QueueVerdict, S, World};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const HOUR: u64 = 3600 * S;
const US: u64 = 1_000;
/// What is promised of a queue's height.
const PROMISED_NS: u64 = 200 * US;

fn world(plan: Plan, seed: u64, for_ns: u64) -> World {
    let mut world = World::new(plan.clone(), seed);
    world.run_until(for_ns);
    if let Err(why) = world.check() {
        panic!("seed {seed}, {plan:?}: {why}");
    }
    world
}

fn bloat(from_s: u64, seconds: u64, height_ms: u64) -> Standing {
    Standing {
        during: from_s * S..(from_s + seconds) * S,
        height_ns: height_ms * MS,
        breath_permille: 300,
    }
}

/// A line as cable has it: grants make packets wait upward, hardly downward.
fn line(up: Vec<Standing>, down: Vec<Standing>) -> Plan {
    Plan {
        up: LinkPlan {
            jitter_ns: 3 * MS,
            standing: up,
            ..LinkPlan::default()
        },
        down: LinkPlan {
            jitter_ns: 100 * US,
            standing: down,
            ..LinkPlan::default()
        },
        interval_ns: 50 * MS,
        client_drift_ppb: 35_000,
        reflector_drift_ppb: -12_000,
        ..Plan::default()
    }
}

#[track_caller]
fn assert_right(what: &str, v: QueueVerdict) {
    println!("{what}: {v:?}");
    assert!(
        v.answered > 50 && v.unknown * 10 <= v.answered,
        "{what}: {v:?}"
    );
    assert!(v.p95_ns <= PROMISED_NS, "{what}: {v:?}");
}

#[test]
fn three_minutes_of_bufferbloat_each_way_and_both_ways() {
    for interval_ns in [50 * MS, S] {
        let up = vec![bloat(600, 180, 250), bloat(1800, 180, 100)];
        let down = vec![bloat(1200, 180, 120), bloat(1800, 180, 60)];
        let plan = Plan {
            interval_ns,
            stamp_missing_ppm: 20_000,
            stamp_late_ppm: 20_000,
            stamp_double_ppm: 20_000,
            ..line(up, down)
        };
        let w = world(plan, 11, 2400 * S);
        for (what, from) in [("up", 600), ("down", 1200), ("both", 1800)] {
            let v = w.check_queueing(from * S..(from + 180) * S);
            assert_right(&format!("{what} at {} ms", interval_ns / MS), v);
            assert!(v.longest_ns.0 > 90 * MS || v.longest_ns.1 > 90 * MS);
        }
        assert_right("all of it", w.check_queueing(60 * S..2400 * S));
        assert!(w.changes.is_empty(), "{:?}", w.changes);
    }
}

#[test]
fn steps_and_slews_of_either_clock_are_no_queue() {
    let change = |at_s: u64, step_ns: i64, drift_ppb: i64| ClockChange {
        at_ns: at_s * S,
        step_ns,
        drift_ppb,
    };
    for (interval_ns, seed) in [(50 * MS, 21), (S, 22)] {
        let plan = Plan {
            interval_ns,
            // Slewed by 500 ppm for a minute and a half, forth and back.
            client_clock: vec![
                change(500, 0, 535_000),
                change(590, 0, 35_000),
                change(900, 0, -465_000),
                change(990, 0, 35_000),
            ],
            reflector_clock: vec![
                change(1500, 100_000_000, -12_000),
                change(1900, -2_000_000_000, -12_000),
                // In the middle of a queue.
                change(2290, 40_000_000, -12_000),
            ],
            ..line(vec![bloat(2200, 180, 150)], vec![])
        };
        let w = world(plan, seed, 2800 * S);
        // To what the way up varies by.
        let is = |c: &Change, ms: i64| match c {
            Change::ClockStep { by_ns, .. } => by_ns.abs_diff(ms * 1_000_000) < 3 * MS,
            Change::Route { .. } => false,
        };
        let all = [100, -2000, 40];
        // One probe a second does not tell the small one, in the middle of a queue, from the queue: with the seeds 100 to
        // 139 it did at 12.
        let least = if interval_ns < S { 3 } else { 2 };
        assert!(
            (least..=3).contains(&w.changes.len())
                && w.changes.iter().zip(all).all(|(c, ms)| is(c, ms)),
            "{:?}",
            w.changes
        );
        assert_right("all of it", w.check_queueing(60 * S..2800 * S));
        assert_right("the queue", w.check_queueing(2200 * S..2380 * S));
        // Not even the first probe after a step is told as having waited for it.
        let v = w.check_queueing(1400 * S..2000 * S);
        assert!(v.worst_ns < 3 * MS, "{v:?}");
    }
}

#[test]
fn a_longer_way_becomes_the_floor_and_hours_of_queue_do_not() {
    let mut plan = line(vec![], vec![]);
    plan.down.routes = vec![(1000 * S, 17 * MS)];
    let w = world(plan, 31, 2000 * S);
    let [
        Change::Route {
            from,
            up_ns,
            down_ns,
        },
    ] = w.changes[..]
    else {
        panic!("{:?}", w.changes);
    };
    assert!(up_ns.abs() < 200_000 && down_ns.abs_diff(7_000_000) < 200_000);
    assert!(from.as_nanos() > 0);
    assert_right("before", w.check_queueing(60 * S..1000 * S));
    assert_right("once it is known", w.check_queueing(1310 * S..2000 * S));

    let w = world(line(vec![bloat(1000, 10_000, 180)], vec![]), 32, 11_500 * S);
    assert!(w.changes.is_empty(), "{:?}", w.changes);
    assert_right("hours", w.check_queueing(1000 * S..11_000 * S));
}

/// A line that is flooded: full for minutes upward, then both ways, hardly breathing; from a client
/// that has only been there for a while, with crystals that differ, and with a time daemon that begins
/// to slew its clock while the queue stands.
#[test]
fn a_flood_of_minutes_both_ways_is_told_through_skew_and_slew() {
    let full = |from_s: u64, to_s: u64, height_ms: u64| Standing {
        during: from_s * S..to_s * S,
        height_ns: height_ms * MS,
        breath_permille: 20,
    };
    let mut off = 0;
    for quiet_s in [12, 60, 300] {
        for (drift_ppb, slew_ppb) in [
            (0, 0),
            (50_000, 0),
            (-50_000, 0),
            (50_000, 20_000),
            (50_000, 40_000),
            (50_000, -40_000),
        ] {
            let (up_s, both_s, end_s) = (quiet_s, quiet_s + 90, quiet_s + 180);
            let plan = Plan {
                up: LinkPlan {
                    jitter_ns: 2 * MS,
                    standing: vec![full(up_s, end_s, 120)],
                    ..LinkPlan::default()
                },
                down: LinkPlan {
                    jitter_ns: MS,
                    standing: vec![full(both_s, end_s, 80)],
                    ..LinkPlan::default()
                },
                interval_ns: 20 * MS,
                client_drift_ppb: drift_ppb,
                client_clock: vec![ClockChange {
                    at_ns: (up_s + 30) * S,
                    step_ns: 0,
                    drift_ppb: drift_ppb + slew_ppb,
                }],
                ..Plan::default()
            };
            let w = world(plan, 5, (end_s + 60) * S);
            for (part, from_s, to_s) in [
                ("before", 6, up_s),
                ("up", up_s, both_s),
                ("both ways", both_s, end_s),
                ("after", end_s, end_s + 60),
            ] {
                let what = format!("{quiet_s} s, {drift_ppb} and {slew_ppb} ppb, {part}");
                let v = w.check_queueing(from_s * S..to_s * S);
                println!("{what}: {v:?}");
                assert!(
                    v.answered > 50 && v.unknown * 10 <= v.answered,
                    "{what}: {v:?}"
                );
                // A flood both ways hides both least delays for so long that a rate which changed a minute before it may
                // be off by too much: with the seeds 100 to 139 at 23 of 2880, three at most with one seed.
                let is_hidden = part == "both ways" && slew_ppb != 0;
                let most_ns = if is_hidden { 4 } else { 1 } * PROMISED_NS;
                assert!(v.p95_ns <= most_ns, "{what}: {v:?}");
                off += u64::from(v.p95_ns > PROMISED_NS);
            }
            assert!(w.changes.is_empty(), "{:?}", w.changes);
        }
    }
    assert!(off <= 3, "{off}");
}

/// The fastest slew that Linux makes, begun while a queue stands, in either direction of the clock.
#[test]
fn a_fast_slew_in_a_queue_is_followed_within_seconds() {
    for slew_ppb in [-500_000, 500_000] {
        let plan = Plan {
            interval_ns: 20 * MS,
            client_clock: vec![ClockChange {
                at_ns: 330 * S,
                step_ns: 0,
                drift_ppb: 35_000 + slew_ppb,
            }],
            ..line(vec![bloat(300, 180, 150)], vec![])
        };
        let w = world(plan, 6, 600 * S);
        println!("{slew_ppb}: {:?}", w.check_queueing(330 * S..345 * S));
        assert_right("once followed", w.check_queueing(345 * S..480 * S));
        assert_right("all of it", w.check_queueing(60 * S..600 * S));
        assert!(w.changes.is_empty(), "{:?}", w.changes);
    }
}

/// The way gets longer while a queue stands: the queue is told the longer until it is gone, and a
/// route is told once nothing else is left.
#[test]
fn a_longer_way_in_a_queue_is_a_route_once_the_queue_is_gone() {
    let mut plan = line(vec![bloat(300, 180, 150)], vec![]);
    plan.up.routes = vec![(400 * S, 18 * MS)];
    let w = world(plan, 7, 1800 * S);
    let [Change::Route { up_ns, down_ns, .. }] = w.changes[..] else {
        panic!("{:?}", w.changes);
    };
    assert!(up_ns.abs_diff(8_000_000) < 250_000 && down_ns.abs() < 250_000);
    assert_right("before it", w.check_queueing(60 * S..400 * S));
    // It shows as sudden no more, so it has a quarter of an hour to prove itself.
    assert_right("once it is known", w.check_queueing(1400 * S..1800 * S));
    // The direction that stays as it was is right all the time.
    let said = w.said.iter().filter(|s| s.exact);
    for s in said {
        let (Some(q), Some(down_ns)) = (s.queueing, w.truth[s.seq as usize].waited_ns.1) else {
            continue;
        };
        let seconds = w.truth[s.seq as usize].left_ns / S;
        if (60..1800).contains(&seconds) {
            assert!(
                q.down_ns.abs_diff(down_ns) < 2 * MS,
                "{seconds} s: {q:?} {down_ns}"
            );
        }
    }
}

/// Clocks, queues and losses of all kinds, for hundreds of hours.
#[test]
fn hundreds_of_hours_of_queues_and_clocks() {
    let mut rng = ChaCha8Rng::seed_from_u64(20_261_124);
    let (mut all, mut bad) = (0, Vec::new());
    for seed in 0..40 {
        let mut up_to = |most: u64| rng.next_u64() % (most + 1);
        let interval_ns = [500 * MS, S, 2 * S][up_to(2) as usize];
        let mut link = |jitter_ns| LinkPlan {
            delay_ns: MS + up_to(80) * MS,
            jitter_ns,
            loss_ppm: up_to(20_000) as u32,
            reorder_ppm: up_to(2_000) as u32,
            reorder_ns: 1 + up_to(100) * MS,
            duplicate_ppm: up_to(2_000) as u32,
            standing: (0..up_to(12))
                .map(|_| bloat(900 + up_to(16_000), 10 + up_to(600), 5 + up_to(400)))
                .collect(),
            ..LinkPlan::default()
        };
        let (up, down) = (link(4 * MS), link(200 * US));
        let drift = |up_to: &mut dyn FnMut(u64) -> u64| up_to(100_000) as i64 - 50_000;
        let plan = Plan {
            up,
            down,
            interval_ns,
            client_drift_ppb: drift(&mut up_to),
            reflector_drift_ppb: drift(&mut up_to),
            restarts: (0..up_to(1))
                .map(|_| 3600 * S + up_to(10_000) * S)
                .collect(),
            ..Plan::default()
        };
        let w = world(plan.clone(), seed, 5 * HOUR);
        let v = w.check_queueing(600 * S..5 * HOUR);
        all += v.answered;
        if v.p95_ns > PROMISED_NS || v.unknown * 20 > v.answered {
            bad.push((seed, v, w.changes.clone(), plan));
        }
    }
    println!("{all} queueing delays");
    assert!(all > 500_000, "{all}");
    assert!(bad.is_empty(), "{} of 40: {bad:#?}", bad.len());
}

/// Either end's host may be too busy to take what the line has brought.
#[test]
fn what_a_host_drops_is_never_told_as_the_lines_loss() {
    for (interval_ns, seed) in [(10 * MS, 61), (50 * MS, 62), (S, 63)] {
        let lossy = LinkPlan {
            loss_ppm: 20_000,
            jitter_ns: MS,
            ..LinkPlan::default()
        };
        let times = |first: u64| {
            vec![
                first * S..(first + 40) * S,
                (first + 300) * S..(first + 302) * S,
            ]
        };
        let plan = Plan {
            up: lossy.clone(),
            down: lossy,
            interval_ns,
            reflector_deaf: times(100),
            client_deaf: times(200),
            ..Plan::default()
        };
        let w = world(plan, seed, 600 * S);
        let (mut dropped, mut wrong) = ([0, 0], Vec::new());
        let (mut lost, mut directed) = (0, 0);
        for (seq, truth) in w.truth.iter().enumerate() {
            let Some(sample) = w.last.get(&(seq as u64)) else {
                continue;
            };
            let by_hosts = truth.dropped.0 || truth.dropped.1;
            dropped[0] += u32::from(truth.dropped.0);
            dropped[1] += u32::from(truth.dropped.1);
            let has_direction = matches!(sample.status, Status::LostUp | Status::LostDown);
            if by_hosts && has_direction {
                wrong.push((seq, sample.status, truth.left_ns / MS));
            }
            // The line's own losses, away from all that, keep their direction.
            let quiet = [10..90, 150..190, 250..390, 510..590]
                .iter()
                .any(|t: &std::ops::Range<u64>| t.contains(&(truth.left_ns / S)));
            if sample.status.is_lost() && quiet {
                lost += 1;
                directed += u32::from(has_direction);
            }
        }
        println!(
            "{} ms: {dropped:?} dropped by the hosts, {} of them wrong; {directed} of {lost} others have a direction",
            interval_ns / MS,
            wrong.len()
        );
        assert!(dropped.iter().all(|n| *n >= 30), "{dropped:?}");
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(directed * 100 >= lost * 95, "{directed} of {lost}");
    }
}

/// Losses in long runs, in one direction, while packets overtake each other and are doubled in either.
#[test]
fn runs_of_thousands_keep_their_direction_through_reordering_and_duplication() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut reordered = [0; 2];
    for seed in 0..12 {
        let mut up_to = |most: u64| rng.next_u64() % (most + 1);
        let mut messy = |outages: Vec<std::ops::Range<u64>>| LinkPlan {
            jitter_ns: up_to(10) * MS,
            reorder_ppm: up_to(20_000) as u32,
            reorder_ns: 1 + up_to(200) * MS,
            duplicate_ppm: up_to(20_000) as u32,
            outages,
            ..LinkPlan::default()
        };
        // 3000 to 7400 probes in a row, and shorter runs beside them.
        let long = 300 * S..450 * S + seed * 20 * S;
        let short = 1200 * S..1203 * S;
        let outages = vec![long.clone(), short];
        let upward = seed % 2 == 0;
        let plan = Plan {
            up: messy(if upward { outages.clone() } else { vec![] }),
            down: messy(if upward { vec![] } else { outages }),
            interval_ns: 50 * MS,
            ..Plan::default()
        };
        let w = world(plan, seed, 1500 * S);
        let v = w.check().unwrap();
        let run = (long.end - long.start) / (50 * MS);
        let (right, wrong) = if upward {
            (v.lost_up, v.lost_down)
        } else {
            (v.lost_down, v.lost_up)
        };
        assert!(
            run >= 3000 && right >= run && wrong == 0,
            "seed {seed}: {v:?}"
        );
        assert!(v.lost <= 2, "seed {seed}: {v:?}");
        // Who was overtaken on which way.
        for s in w
            .last
            .values()
            .filter(|s| s.flags.contains(Flags::REORDERED))
        {
            let (told, seq) = (s.flags.contains(Flags::REORDERED_UP), s.seq as usize);
            let later = w.truth[seq + 1..].iter().take(100);
            let overtaken = later
                .filter(|t| !t.echoed_shown_ns.is_empty())
                .any(|t| t.arrived.first() < w.truth[seq].arrived.first());
            assert!(overtaken || !told, "seed {seed}: {s:?}");
            reordered[usize::from(told)] += 1;
        }
        // What the reflector got twice it answers once: a second answer was doubled on its way back.
        let doubled = w.first.iter().filter(|s| s.status == Status::Duplicate);
        for s in doubled {
            assert!(w.truth[s.seq as usize].echoed_shown_ns.len() > 1, "{s:?}");
        }
    }
    assert!(reordered[0] > 100 && reordered[1] > 100, "{reordered:?}");
}
