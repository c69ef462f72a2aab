//! Packet trains over a line that has noise, grants, losses, stalls and a household on it: how soon a
//! fall is told, and how often one that is none.

use bufferbane_core::detect::{Capacity, Kind, LineState, Phase, SeriesState, Thresholds, Watch};
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_core::train::SURE_PERMILLE;
use bufferbane_core::train::estimate::{Arrival, Sent, estimate};
use bufferbane_core::train::exchange::Plan;
use bufferbane_core::train::pacer::{Budget, Pacer, When};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const MBIT: u64 = 1_000_000;
const HEADER: u32 = 42;
/// How often the pacer is asked, ns.
const TICK: u64 = 50 * MS;

/// How a line shares between a train and others.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Queue {
    /// One queue: a train passes in one piece.
    Fifo,
    /// A queue for each flow: others have their share beside it.
    Fair,
}

#[derive(Clone, Copy, Debug)]
struct World {
    rate_bps: u64,
    queue: Queue,
    /// From one grant to the next, ns; 0 without.
    grants_ns: u64,
    /// Sustained rate and bytes of a token bucket.
    bucket: Option<(u64, u64)>,
    /// The most that others use of it, %.
    household: u64,
    share_ppm: u32,
    /// When the rate falls to half.
    halved: Option<u64>,
}

struct Line {
    world: World,
    rng: ChaCha8Rng,
    others_bps: u64,
    others_until: u64,
    bucket_level: f64,
    bucket_at: u64,
}

impl Line {
    fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n.max(1)
    }

    fn rate(&self, now: u64) -> u64 {
        match self.world.halved {
            Some(at) if now >= at => self.world.rate_bps / 2,
            _ => self.world.rate_bps,
        }
    }

    /// The household comes and goes: mostly little, now and then all that it may.
    fn household(&mut self, now: u64) {
        if now >= self.others_until {
            self.others_until = now + 500 * MS + self.below(40 * S);
            let most = self.world.rate_bps / 100 * self.world.household;
            self.others_bps = match self.below(10) {
                0..7 => self.below(most / 50),
                7..9 => self.below(most),
                _ => most,
            };
        }
        let Some((sustained, bytes)) = self.world.bucket else {
            return;
        };
        let fills =
            (sustained as f64 - self.others_bps as f64) * (now - self.bucket_at) as f64 / 8e9;
        self.bucket_level = (self.bucket_level + fills).clamp(0.0, bytes as f64);
        self.bucket_at = now;
    }

    /// A train that is handed over all at once.
    fn pass(&mut self, now: u64, plan: Plan) -> Vec<Arrival> {
        let frame = u64::from(plan.size) + u64::from(HEADER);
        let rate = self.rate(now);
        let beside = match self.world.queue {
            Queue::Fifo => rate,
            Queue::Fair => rate.saturating_sub(self.others_bps).max(rate / 2),
        };
        let channel_ns = frame * 8 * S / (rate * 6);
        let phase = self.below(self.world.grants_ns);
        let (mut served, mut free, mut stalled_to) = (0, 0, 0);
        let stall =
            (self.below(20) == 0).then(|| (self.below(60 * MS), 3 * MS + self.below(9 * MS)));
        let mut arrivals = Vec::new();
        for index in 0..plan.count {
            let mut took = frame * 8 * S / beside;
            if let Some((sustained, _)) = self.world.bucket {
                let lacks = frame as f64 - self.bucket_level;
                took = took.max((lacks.max(0.0) * 8e9 / sustained as f64) as u64);
                self.bucket_level += took as f64 * sustained as f64 / 8e9 - frame as f64;
            }
            served += took;
            let mut at = served;
            if self.world.grants_ns > 0 {
                let every = self.world.grants_ns;
                at = (served + phase).div_ceil(every) * every - phase;
                at = at.max(free) + channel_ns;
                free = at;
            }
            at += 10 * MS + self.below(200_000);
            if let Some((from, long)) = stall.filter(|(from, _)| at >= from + 10 * MS) {
                stalled_to = stalled_to.max(from + 10 * MS + long);
            }
            at = at.max(stalled_to);
            if self.below(500) != 0 {
                arrivals.push(Arrival {
                    index,
                    at_ns: at as u32,
                    sent_ns: u32::from(index) * 10_000,
                });
            }
        }
        arrivals
    }
}

#[derive(Debug)]
struct Told {
    /// When a fall was told, ns.
    falls: Vec<u64>,
    trains: u64,
    spent: u64,
    /// When a train first showed a token bucket's sustained rate, ns.
    bucket_at: Option<u64>,
}

fn run(world: World, seed: u64, length: u64) -> Told {
    let mut line = Line {
        world,
        rng: ChaCha8Rng::seed_from_u64(seed),
        others_bps: 0,
        others_until: 0,
        bucket_level: world.bucket.map_or(0.0, |(_, bytes)| bytes as f64),
        bucket_at: 0,
    };
    let budget = Budget {
        when: When::Share(world.share_ppm),
        bytes_per_s: u64::MAX,
        header_bytes: HEADER,
        most_size: 1452,
    };
    let mut pacer = Pacer::new(true, budget, Monotonic::ZERO);
    let series: Vec<SeriesState> = Vec::new();
    let lines = vec![LineState::default()];
    let mut watch = Watch::new(Monotonic::ZERO, Thresholds::default(), series, lines);
    watch.handle_train_begin(0, Monotonic::ZERO);
    watch.handle_train_end(0, Monotonic::ZERO);
    let mut told = Told {
        falls: Vec::new(),
        trains: 0,
        spent: 0,
        bucket_at: None,
    };
    let mut now = 0;
    while now < length {
        now += TICK;
        line.household(now);
        let at = Monotonic::from_nanos(now);
        let others = Some(line.others_bps);
        if let Some(plan) = pacer.poll_train(at, others, &mut line.rng) {
            told.trains += 1;
            let mut arrivals = line.pass(now, plan);
            // Until the report on it has come.
            now += u64::from(arrivals.last().map_or(0, |a| a.at_ns)) + 20 * MS;
            let sent = Sent {
                count: plan.count,
                frame_bytes: u32::from(plan.size) + HEADER,
                clock: ClockSource::Kernel,
                dropped_by_host: false,
            };
            let result = estimate(&sent, &mut arrivals);
            let at = Monotonic::from_nanos(now);
            if result
                .is_ok_and(|e| e.confidence_permille >= SURE_PERMILLE && e.sustained_bps.is_some())
            {
                told.bucket_at.get_or_insert(now);
            }
            if let Some(rate_bps) = pacer.handle_result(at, result, others) {
                let found = Capacity {
                    at,
                    up: true,
                    rate_bps,
                    by_train: true,
                    others_bps: 0,
                    speaks_for_ns: Capacity::MOMENT_NS,
                };
                watch.handle_capacity(0, found);
            }
        }
        watch.handle_timeout(Monotonic::from_nanos(now));
        while let Some(notice) = watch.poll_notice() {
            assert_eq!(notice.event.kind, Kind::UploadDegraded);
            if notice.phase == Phase::Begin {
                told.falls.push(now);
            }
        }
    }
    told.spent = pacer.spent();
    told
}

const CALM: World = World {
    rate_bps: 10 * MBIT,
    queue: Queue::Fifo,
    grants_ns: 0,
    bucket: None,
    household: 100,
    share_ppm: 10_000,
    halved: None,
};

#[test]
fn a_day_without_a_fall_has_at_most_one_false_alarm_and_costs_its_share() {
    let day = 24 * 3600 * S;
    let worlds = [
        CALM,
        World {
            grants_ns: 4 * MS,
            ..CALM
        },
        World {
            queue: Queue::Fair,
            grants_ns: 2 * MS,
            ..CALM
        },
        World {
            rate_bps: MBIT,
            share_ppm: 30_000,
            grants_ns: 6 * MS,
            ..CALM
        },
        World {
            rate_bps: 100 * MBIT,
            ..CALM
        },
        World {
            rate_bps: 40 * MBIT,
            bucket: Some((10 * MBIT, 1 << 20)),
            ..CALM
        },
    ];
    for (seed, world) in worlds.into_iter().enumerate() {
        let told = run(world, seed as u64, day);
        // What it carries in the long run, from when on that is known.
        let known_at = told.bucket_at.unwrap_or(day);
        let sustained_bps = world.bucket.map_or(world.rate_bps, |(bps, _)| bps);
        let line_bytes =
            world.rate_bps / 8 * (known_at / S) + sustained_bps / 8 * (day - known_at).div_ceil(S);
        let share = told.spent as f64 / line_bytes as f64;
        println!(
            "{world:?}: {} trains, {:.3} % of the line, {:?}",
            told.trains,
            100.0 * share,
            told.falls
        );
        assert!(told.falls.len() <= 1, "{world:?}: {told:?}");
        assert!(
            share <= 1.001 * f64::from(world.share_ppm) / 1e6,
            "{world:?}: {share}"
        );
        let least = 5_000 * sustained_bps / world.rate_bps;
        assert!(told.trains > least, "{world:?}: {told:?}");
        if world.bucket.is_some() {
            assert!(known_at < day / 4, "{world:?}: {told:?}");
        }
    }
}

#[test]
fn a_halved_upload_is_told_within_15_s_at_1_percent_and_5_s_at_3() {
    for (share_ppm, limit_s) in [(10_000, 15), (30_000, 5)] {
        for (rate_bps, grants_ns) in [
            (MBIT, 0),
            (2 * MBIT, 4 * MS),
            (10 * MBIT, 4 * MS),
            (50 * MBIT, 2 * MS),
            (100 * MBIT, 0),
        ] {
            let mut after = Vec::new();
            for seed in 0..20 {
                let halved = 600 * S + seed * 731 * MS;
                let world = World {
                    rate_bps,
                    grants_ns,
                    share_ppm,
                    household: 20,
                    halved: Some(halved),
                    ..CALM
                };
                let told = run(world, seed, halved + 60 * S);
                let told_at = told
                    .falls
                    .first()
                    .unwrap_or_else(|| panic!("{world:?}, seed {seed}: nothing is told"));
                assert!(*told_at > halved, "{world:?}, seed {seed}: {told:?}");
                after.push((told_at - halved) as f64 / 1e9);
            }
            after.sort_unstable_by(f64::total_cmp);
            println!(
                "{} % of {} Mbit/s: told after {:.1} s, at most {:.1} s",
                f64::from(share_ppm) / 1e4,
                rate_bps / MBIT,
                after[10],
                after[19]
            );
            assert!(after[19] <= f64::from(limit_s), "{after:?}");
        }
    }
}
