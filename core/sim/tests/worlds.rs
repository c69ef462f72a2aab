//! Seeded worlds: each sample of each of them is compared with the truth.

use bufferbane_core::session::client::SessionEvent;
use bufferbane_sim::link::LinkPlan;
use bufferbane_sim::{MS, Plan, S, Verdict, World};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const HOUR: u64 = 3600 * S;

fn run(plan: Plan, seed: u64, for_ns: u64) -> Verdict {
    let mut world = World::new(plan.clone(), seed);
    world.run_until(for_ns);
    match world.check() {
        Ok(verdict) => verdict,
        Err(why) => panic!("seed {seed}, {plan:?}: {why}"),
    }
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

/// Everything at once, at random, for thousands of hours.
#[test]
fn thousands_of_hours_of_anything() {
    let hours: u64 = 2000;
    let worlds = 100;
    let mut rng = ChaCha8Rng::seed_from_u64(20_260_501);
    let mut all = Verdict::default();
    for seed in 0..worlds {
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
        let plan = Plan {
            up,
            down,
            interval_ns: S + up_to(4) * S,
            size: 128 + up_to(1000) as u16,
            client_drift_ppb: up_to(100_000) as i64 - 50_000,
            reflector_drift_ppb: up_to(100_000) as i64 - 50_000,
            client_clock: Vec::new(),
            reflector_clock: Vec::new(),
            restarts: (0..up_to(3)).map(|_| up_to(20 * HOUR)).collect(),
            stamp_missing_ppm: up_to(100_000) as u32,
            stamp_late_ppm: up_to(100_000) as u32,
            reflector_deaf: Vec::new(),
            client_deaf: Vec::new(),
        };
        let v = run(plan, seed, hours / worlds * HOUR);
        all.sent += v.sent;
        all.answered += v.answered;
        all.late += v.late;
        all.lost_up += v.lost_up;
        all.lost_down += v.lost_down;
        all.lost += v.lost;
        all.exact += v.exact;
    }
    println!("{hours} hours in {worlds} worlds: {all:?}");
    assert!(
        all.sent > 2_000_000 && all.exact > all.answered / 2,
        "{all:?}"
    );
}
