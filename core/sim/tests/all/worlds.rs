//! Seeded worlds: each sample of each of them is compared with the truth.

use std::sync::atomic::{AtomicUsize, Ordering};

use bufferbane_core::clock::Change;
use bufferbane_core::session::client::SessionEvent;
use bufferbane_sim::clock::ClockChange;
use bufferbane_sim::link::LinkPlan;
use bufferbane_sim::{MS, Plan, S, Verdict, World};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const HOUR: u64 = 3600 * S;

fn checked(plan: Plan, seed: u64, for_ns: u64) -> (World, Verdict) {
    let mut world = World::new(plan.clone(), seed);
    world.run_until(for_ns);
    match world.check() {
        Ok(verdict) => (world, verdict),
        Err(why) => panic!("seed {seed}, {plan:?}: {why}"),
    }
}

fn run(plan: Plan, seed: u64, for_ns: u64) -> Verdict {
    checked(plan, seed, for_ns).1
}

#[test]
fn a_quiet_line_is_exact_to_the_nanosecond() {
    let v = run(
        Plan {
            client_drift_ppb: 50_000,
            ..Plan::default()
        },
        1,
        10 * HOUR,
    );
    assert!(v.answered == v.exact && v.pending <= 3, "{v:?}");
    assert_eq!((v.lost_up, v.lost_down, v.lost), (0, 0, 0));
    assert!(v.sent > 35_990);
}

/// Whatever the interval, also where the line loses some packets.
#[test]
fn a_restarted_reflector_is_found_within_three_seconds_of_the_next_probe() {
    for (interval_ns, loss_ppm) in [S, 5 * S, 30 * S]
        .into_iter()
        .flat_map(|i| [(i, 0), (i, 3_000)])
    {
        for seed in 0..20 {
            let restart_ns = 10 * interval_ns + seed * interval_ns / 20;
            let link = LinkPlan {
                loss_ppm,
                ..LinkPlan::default()
            };
            let plan = Plan {
                interval_ns,
                up: link.clone(),
                down: link,
                restarts: vec![restart_ns],
                ..Plan::default()
            };
            let mut w = World::new(plan, seed);
            w.run_until(restart_ns);
            let before = w.truth.len();
            w.events.clear();
            let mut now_ns = restart_ns;
            while w.truth.len() == before {
                now_ns += MS;
                w.run_until(now_ns);
            }
            w.run_until(w.truth[before].left_ns + 3 * S);
            let is_found = w.events.contains(&SessionEvent::RemoteRestarted);
            assert!(is_found, "{interval_ns} {loss_ppm} {seed}: {:?}", w.events);
        }
    }
}

#[test]
fn two_worlds_of_one_seed_are_the_same() {
    let plan = Plan {
        up: LinkPlan {
            loss_ppm: 50_000,
            jitter_ns: 5 * MS,
            ..LinkPlan::default()
        },
        ..Plan::default()
    };
    let samples = |seed| {
        let mut w = World::new(plan.clone(), seed);
        w.run_until(HOUR / 4);
        w.first
    };
    assert_eq!(samples(3), samples(3));
    assert_ne!(samples(3), samples(4));
}

#[test]
fn a_lossy_line_loses_what_it_loses_in_its_direction() {
    let lossy = LinkPlan {
        loss_ppm: 30_000,
        ..LinkPlan::default()
    };
    let up = run(
        Plan {
            up: lossy.clone(),
            interval_ns: 50 * MS,
            ..Plan::default()
        },
        5,
        HOUR,
    );
    assert!(up.lost_up > 1500 && up.lost_down == 0, "{up:?}");
    assert!(up.lost * 200 < up.lost_up, "{up:?}");
    let down = run(
        Plan {
            down: lossy,
            interval_ns: 50 * MS,
            ..Plan::default()
        },
        6,
        HOUR,
    );
    assert!(down.lost_down > 1500 && down.lost_up == 0, "{down:?}");
    assert!(down.lost * 200 < down.lost_down, "{down:?}");
}

#[test]
fn outages_of_any_length_have_a_direction_and_a_restart_takes_it() {
    let outage = 600 * S..1000 * S;
    let plan = Plan {
        up: LinkPlan {
            outages: vec![outage],
            ..LinkPlan::default()
        },
        interval_ns: 50 * MS,
        restarts: vec![1800 * S],
        ..Plan::default()
    };
    let mut world = World::new(plan, 7);
    world.run_until(2400 * S);
    let v = world.check().unwrap();
    assert!(v.lost_up >= 7_990, "{v:?}");
    assert!(v.lost > 0 && v.lost < 60, "{v:?}");
    assert!(world.events.contains(&SessionEvent::RemoteRestarted));
}

/// A second stamp says another time, and comes when its datagram is done with and often when another
/// has its place.
#[test]
fn a_stamp_that_comes_twice_is_believed_once() {
    for (stamp_late_ppm, stamp_missing_ppm) in [(0, 0), (300_000, 200_000)] {
        let plan = Plan {
            stamp_double_ppm: 500_000,
            stamp_late_ppm,
            stamp_missing_ppm,
            ..Plan::default()
        };
        let (w, v) = checked(plan, 8, 20 * HOUR);
        assert!(
            w.doubled.0 > 20_000 && w.doubled.1 > 20_000,
            "{:?}",
            w.doubled
        );
        // Exact is what both ends were told in time.
        let told = w.truth.iter().filter(|t| t.tx_told).count() as u64;
        assert!(v.exact > told * 6 / 10 && v.answered > 71_000, "{v:?}");
        assert!(stamp_late_ppm > 0 || v.exact == v.answered, "{v:?}");
    }
}

/// Clocks are set and slewed at both ends, also while probes are under way.
#[test]
fn clocks_that_are_set_make_no_sample_wrong() {
    // Every eleven seconds, so that a good part of the probes of 200 ms meets one.
    let clock = |set: fn(u64) -> i64| -> Vec<ClockChange> {
        let times = (1..2000u64).map(|n| n * 11 * S + n * 1_009 * MS % (11 * S));
        times
            .zip(1..)
            .map(|(at_ns, n)| ClockChange {
                at_ns,
                step_ns: set(n),
                drift_ppb: n as i64 % 3 * 400_000 - 400_000,
            })
            .collect()
    };
    let slow = LinkPlan {
        delay_ns: 100 * MS,
        jitter_ns: 20 * MS,
        ..LinkPlan::default()
    };
    let plan = Plan {
        up: slow.clone(),
        down: slow,
        client_clock: clock(|n| (n * 317 % 5000 * MS) as i64),
        reflector_clock: clock(|n| (n * 7919 % 60_000 * MS) as i64 - 30_000_000_000),
        interval_ns: 250 * MS,
        ..Plan::default()
    };
    let mut w = World::new(plan, 9);
    w.run_until(6 * HOUR);
    let v = w.check().unwrap_or_else(|why| panic!("{why}"));
    println!("{v:?}");
    assert!(v.unsure < 10, "{v:?}");
    assert!(v.sent > 60_000 && v.answered == v.sent - v.pending, "{v:?}");
    // What was under way when the client's clock leapt over its time-out came all the same.
    assert!(v.late > 100 && v.exact > v.answered * 9 / 10, "{v:?}");
    assert!(
        w.changes
            .iter()
            .any(|c| matches!(c, Change::ClockStep { .. })),
        "{:?}",
        w.changes
    );
}

/// Up to six times in 20 hours a clock is set, by up to 1000 s ahead or `back_ns` back, or slewed.
fn clock(up_to: &mut impl FnMut(u64) -> u64, back_ns: u64) -> Vec<ClockChange> {
    let mut times: Vec<u64> = (0..up_to(6)).map(|_| up_to(20 * HOUR)).collect();
    times.sort_unstable();
    let change = |at_ns| ClockChange {
        at_ns,
        step_ns: match up_to(2) {
            0 => 0,
            1 => up_to(100 * MS) as i64,
            _ => up_to(1000 * S + back_ns) as i64 - back_ns as i64,
        },
        drift_ppb: up_to(1_000_000) as i64 - 500_000,
    };
    times.into_iter().map(change).collect()
}

/// Everything at once, at random, for thousands of hours.
#[test]
fn thousands_of_hours_of_anything() {
    let hours: u64 = 2000;
    let worlds = 100;
    let mut rng = ChaCha8Rng::seed_from_u64(20_260_501);
    let plan = |_| {
        let mut up_to = |most: u64| rng.next_u64() % (most + 1);
        let mut link = || LinkPlan {
            delay_ns: MS + up_to(200) * MS,
            routes: Vec::new(),
            standing: Vec::new(),
            jitter_ns: up_to(30) * MS,
            rate_bps: [0, 64_000, 1_000_000, 10_000_000][up_to(3) as usize],
            buffer_bytes: 2_000 + up_to(200_000),
            loss_ppm: up_to(50_000) as u32,
            burst_ppm: up_to(300) as u32,
            burst_packets: 1 + up_to(5000) as u32,
            duplicate_ppm: up_to(5_000) as u32,
            reorder_ppm: up_to(5_000) as u32,
            reorder_ns: 1 + up_to(300) * MS,
            outages: (0..up_to(4))
                .map(|_| {
                    let at = up_to(20 * HOUR);
                    at..at + up_to(300 * S)
                })
                .collect(),
        };
        let (up, down) = (link(), link());
        Plan {
            up,
            down,
            interval_ns: S + up_to(4) * S,
            size: 128 + up_to(1000) as u16,
            client_drift_ppb: up_to(100_000) as i64 - 50_000,
            reflector_drift_ppb: up_to(100_000) as i64 - 50_000,
            client_clock: clock(&mut up_to, 0),
            reflector_clock: clock(&mut up_to, 1000 * S),
            restarts: (0..up_to(3)).map(|_| up_to(20 * HOUR)).collect(),
            stamp_missing_ppm: up_to(100_000) as u32,
            stamp_late_ppm: up_to(100_000) as u32,
            stamp_double_ppm: up_to(100_000) as u32,
            reflector_deaf: Vec::new(),
            client_deaf: Vec::new(),
        }
    };
    let plans: Vec<Plan> = (0..worlds).map(plan).collect();
    // This takes longer than any other test. Worlds know nothing of each other.
    let next = AtomicUsize::new(0);
    let some = || {
        let mut found = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(plan) = plans.get(i) else {
                return found;
            };
            let (w, v) = checked(plan.clone(), i as u64, hours / worlds * HOUR);
            found.push((w.doubled, v));
        }
    };
    let found = std::thread::scope(|scope| {
        let halves = [0, 1].map(|_| scope.spawn(some));
        halves.map(|half| half.join().unwrap()).concat()
    });
    let mut all = Verdict::default();
    let mut doubled = (0, 0);
    for (of_world, v) in found {
        doubled.0 += of_world.0;
        doubled.1 += of_world.1;
        all.sent += v.sent;
        all.answered += v.answered;
        all.late += v.late;
        all.lost_up += v.lost_up;
        all.lost_down += v.lost_down;
        all.lost += v.lost;
        all.exact += v.exact;
    }
    let steps = |changes: &[ClockChange]| changes.iter().filter(|c| c.step_ns != 0).count();
    let of_all = |clock: fn(&Plan) -> &[ClockChange]| -> usize {
        plans.iter().map(|p| steps(clock(p))).sum()
    };
    let set = (of_all(|p| &p.client_clock), of_all(|p| &p.reflector_clock));
    println!(
        "{hours} hours in {worlds} worlds: {all:?}, {doubled:?} stamps doubled, clocks set {set:?} times"
    );
    assert!(
        all.sent > 2_000_000 && all.exact > all.answered / 2,
        "{all:?}"
    );
    assert!(doubled.0 > 50_000 && doubled.1 > 50_000, "{doubled:?}");
    assert!(set.0 > 100 && set.1 > 100, "{set:?}");
}
