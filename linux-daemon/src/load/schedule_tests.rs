use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_core::train::pacer::When;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use super::super::budget::MONTH_NS;
use super::*;
use crate::config::quiet::QuietHours;
use crate::config::{Config, Uplink as Configured};

const SECOND_NS: i64 = 1_000_000_000;
/// 1 July 2026, midnight in UTC.
const BEGIN_NS: i64 = 1_782_864_000 * SECOND_NS;

/// A host whose clock goes as it is told, and that keeps what is tested.
struct World {
    begin: Instant,
    now: Instant,
    counters: Option<(u64, u64)>,
    /// What others move each second.
    traffic: u64,
    /// The only interface that carries it; `None`: all do.
    busy: Option<u32>,
    clock_is_set: bool,
    /// With when each began.
    spent: Vec<(i64, Spent)>,
    router: bool,
    /// What tests find in turn, bit/s.
    rates_bps: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let begin = Instant::now();
        Self {
            begin,
            now: begin,
            counters: Some((0, 0)),
            traffic: 0,
            busy: None,
            clock_is_set: true,
            spent: Vec::new(),
            router: false,
            rates_bps: Vec::new(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if let Some((tx, _)) = &mut self.counters {
            *tx += self.traffic * time.as_millis() as u64 / 1000;
        }
    }

    fn at_ns(&self) -> i64 {
        let passed = self.now.saturating_duration_since(self.begin);
        BEGIN_NS + i64::try_from(passed.as_nanos()).unwrap()
    }

    /// The local time of the day in UTC, s.
    fn time_of_day(&self) -> i64 {
        (self.at_ns() - BEGIN_NS) / SECOND_NS % 86_400
    }
}

impl Facts for World {
    fn counters(&mut self, index: u32) -> Option<(u64, u64)> {
        match self.busy {
            Some(busy) if busy != index => Some((0, 0)),
            _ => self.counters,
        }
    }

    fn wall_ns(&self) -> Option<i64> {
        self.clock_is_set.then(|| self.at_ns())
    }

    fn spent(&mut self) -> Result<Vec<Spent>, String> {
        let now_ns = self.at_ns();
        let with_age = self.spent.iter().map(|(at_ns, spent)| Spent {
            age_ns: Some(now_ns.abs_diff(*at_ns)),
            ..spent.clone()
        });
        let recent = with_age.filter(|s| s.age_ns <= Some(MONTH_NS));
        Ok(recent.collect())
    }

    fn is_router(&mut self) -> bool {
        self.router
    }
}

fn path(interface: &str, reflector: &str) -> Path {
    Path {
        interface: interface.into(),
        index: 1,
        source: None,
        mark: None,
        cellular: interface == "lte",
        probe_bytes: 0,
        reflector: reflector.into(),
        remote: ([192, 0, 2, 1], 9876).into(),
        key: PresharedKey {
            id: KeyId([0; 8]),
            secret: Secret::new([0; 32]),
        }
        .into(),
        tcp_prefix: None,
    }
}

fn config() -> Config {
    let mut config = Config {
        timezone: Some("UTC".into()),
        ..Config::default()
    };
    config.throughput.every_ns = Some(3600 * SECOND_NS as u64);
    config.throughput.skip_when_busy = false;
    config
}

/// Lets a schedule run for so many days; gives the tests, each of `bytes`, with when they began. What each says
/// has to hold until the next of its kind.
fn run(
    world: &mut World,
    config: &Config,
    paths: &[Path],
    days: u32,
    bytes: u64,
) -> (Schedule, Vec<(i64, String, Turn)>) {
    let settings = Settings::from(config);
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let mut s = Schedule::new(&config.throughput, &mut rng);
    s.next = s
        .next
        .map(|n| world.now + n.saturating_duration_since(Instant::now()));
    let mut tests: Vec<(i64, String, Turn)> = Vec::new();
    let mut speak_until_ns = HashMap::new();
    let end = world.now + Duration::from_secs(86_400) * days;
    while world.now < end {
        world.pass(if s.chosen.is_some() {
            LOOK
        } else {
            Duration::from_secs(20)
        });
        let Some(due) = s.due(world.now, paths, &settings, world, &mut rng) else {
            continue;
        };
        let at_ns = world.at_ns();
        let name = format!("{} {}", due.path.interface, due.path.reflector);
        let rates = world.rates_bps.len().max(1);
        let spent = Spent {
            age_ns: None,
            interface: due.path.interface.clone(),
            reflector: due.path.reflector.clone(),
            scheduled: Some(due.turn),
            rate_bps: world.rates_bps.get(tests.len() % rates).copied(),
            others_bps: 0,
            bytes,
        };
        world.spent.push((at_ns, spent));
        let by = (&due, due.path.reflector.as_str());
        let speaks_for_ns = s.ended(world.now, by, paths, &settings, world, &mut rng);
        let until_ns = at_ns.saturating_add_unsigned(speaks_for_ns);
        let spoke = speak_until_ns.insert((name.clone(), due.turn as u8), until_ns);
        assert!(spoke.is_none_or(|until_ns| at_ns < until_ns), "{tests:?}");
        tests.push((at_ns, name, due.turn));
    }
    (s, tests)
}

#[test]
fn trains_keep_quiet_hours_and_their_part_of_the_budget() {
    const MINUTE_NS: i64 = 60 * SECOND_NS;
    let mut config = config();
    config.throughput.monthly_budget_bytes = 1000;
    let trains = |config: &Config, path: &Path| Settings::from(config).train_bytes(path);
    let (mut dsl, lte) = (path("dsl", "vienna"), path("lte", "vienna"));
    dsl.probe_bytes = 400;
    assert_eq!(trains(&config, &dsl), 0, "none was asked for");
    config.throughput.trains = When::AtAlarms;
    assert_eq!((trains(&config, &dsl), trains(&config, &lte)), (30, 0));
    config.throughput.trains = When::Share(10_000);
    assert_eq!((trains(&config, &dsl), trains(&config, &lte)), (300, 0));
    let budget = Settings::from(&config).budget(&dsl);
    assert_eq!((budget.all, budget.probes), (Some(1000), 700));

    let is_quiet = |config: &Config, at| Settings::from(config).is_quiet_for_trains(at);
    assert!(!is_quiet(&config, None) && !is_quiet(&config, Some(30 * MINUTE_NS)));
    config.throughput.quiet_hours = vec![QuietHours::parse("01:00-02:00").unwrap()];
    assert!(is_quiet(&config, None), "nobody knows when they are");
    let at = |minutes: i64| is_quiet(&config, Some(minutes * MINUTE_NS - SECOND_NS));
    assert!(!at(59) && at(60) && at(61) && at(120) && !at(121));
}

#[test]
fn tests_are_spread_so_that_the_budget_lasts() {
    let mut world = World::new();
    let mut config = config();
    config.throughput.monthly_budget_bytes = 1 << 30;
    let mut paths = [path("eth0", "vienna")];
    let (_, tests) = run(&mut world, &config, &paths, 30, 10 << 20);
    // 1 GiB in pieces of 10 MiB: about a hundred tests, not one each hour, and not all at once.
    assert!((80..=102).contains(&tests.len()), "{}", tests.len());
    let kinds: Vec<Turn> = tests.iter().map(|t| t.2).collect();
    assert_eq!(kinds[..6], [Turn::Up, Turn::Up, Turn::Down].repeat(2)[..]);
    let half = tests
        .iter()
        .filter(|t| t.0 < BEGIN_NS + MONTH_NS as i64 / 2)
        .count();
    assert!(
        (tests.len() / 2 - 5..=tests.len() / 2 + 5).contains(&half),
        "{half}"
    );
    // A restart forgets nothing.
    let mut again = world;
    let before = tests.len();
    let (_, more) = run(&mut again, &config, &paths, 3, 10 << 20);
    assert!(more.len() <= before / 10 + 1, "{}", more.len());
    // Probes count: with half of it gone there are half as many.
    paths[0].probe_bytes = 512 << 20;
    let (s, tests) = run(&mut World::new(), &config, &paths, 30, 10 << 20);
    assert!((40..=51).contains(&tests.len()), "{}", tests.len());
    let (_, uplink) = s.uplinks().next().unwrap();
    assert_eq!(
        (uplink.budget_bytes, uplink.probe_bytes),
        (1 << 30, 512 << 20)
    );
    config.throughput.every_ns = None;
    assert!(run(&mut World::new(), &config, &paths, 2, 1).1.is_empty());
}

#[test]
fn every_path_has_its_turn_and_a_cellular_one_where_somebody_says_so() {
    let paths = [
        path("eth0", "vienna"),
        path("eth0", "oslo"),
        path("lte", "oslo"),
    ];
    let mut config = config();
    let (s, tests) = run(&mut World::new(), &config, &paths, 1, 1);
    let names: Vec<&str> = tests.iter().map(|t| t.1.as_str()).collect();
    assert_eq!(
        names[..4],
        ["eth0 vienna", "eth0 oslo", "eth0 vienna", "eth0 oslo"]
    );
    assert!(
        names.len() > 18 && !names.contains(&"lte oslo"),
        "{names:?}"
    );
    let kinds: Vec<Turn> = tests.iter().map(|t| t.2).collect();
    assert_eq!(
        kinds[..6],
        [[Turn::Up; 2], [Turn::Up; 2], [Turn::Down; 2]].concat()[..]
    );
    let lte = s.uplinks().find(|(name, _)| *name == "lte").unwrap().1;
    assert!(lte.waits.is_some_and(|why| why.contains("cellular")));
    config.interfaces = vec![
        Configured::from("eth0"),
        Configured {
            monthly_budget_bytes: Some(30),
            ..Configured::from("lte")
        },
    ];
    let (_, tests) = run(&mut World::new(), &config, &paths, 2, 1);
    let lte = tests.iter().filter(|t| t.1 == "lte oslo").count();
    // 30 in 30 days: one a day.
    assert!((2..=3).contains(&lte), "{lte}");
}

#[test]
fn none_runs_in_quiet_hours_or_into_them() {
    let mut config = config();
    config.throughput.quiet_hours = vec![QuietHours::parse("23:00-07:00").unwrap()];
    let paths = [path("eth0", "vienna")];
    let mut world = World::new();
    let settings = Settings::from(&config);
    let mut rng = ChaCha12Rng::seed_from_u64(2);
    let mut s = Schedule::new(&config.throughput, &mut rng);
    let (mut tests, mut firsts) = (0, Vec::new());
    let mut day = -1;
    while world.now < world.begin + Duration::from_secs(20 * 86_400) {
        world.pass(Duration::from_secs(20));
        if s.due(world.now, &paths, &settings, &mut world, &mut rng)
            .is_some()
        {
            tests += 1;
            let time = world.time_of_day();
            assert!((7 * 3600..23 * 3600 - 100).contains(&time), "{time}");
            let today = (world.at_ns() - BEGIN_NS) / SECOND_NS / 86_400;
            if today != day {
                day = today;
                firsts.push(time - 7 * 3600);
            }
        }
    }
    assert!(tests > 20 * 12, "{tests}");
    // Not all at seven.
    assert!(
        firsts.iter().filter(|s| **s > 600).count() > 10,
        "{firsts:?}"
    );
    // Nobody knows what time it is.
    world.clock_is_set = false;
    s.next = Some(world.now);
    assert_eq!(
        s.due(world.now, &paths, &settings, &mut world, &mut rng)
            .map(|d| d.turn),
        None
    );
    assert!(s.waits.is_some_and(|why| why.contains("not set")));
}

#[test]
fn a_line_in_use_is_left_alone_and_what_cannot_be_known_is_said() {
    let mut config = config();
    config.throughput.skip_when_busy = true;
    let paths = [path("eth0", "vienna")];
    let caveat = |s: &Schedule| s.uplinks().next().unwrap().1.caveat;
    let mut world = World::new();
    world.traffic = 1_000_000;
    let (s, tests) = run(&mut world, &config, &paths, 1, 1);
    assert!(tests.is_empty());
    assert_eq!(
        s.uplinks().next().unwrap().1.waits.unwrap(),
        "the line is in use"
    );
    assert_eq!(caveat(&s), Some(UNSEEN));
    // Its own little traffic keeps nobody waiting; a router sees everybody's.
    world.traffic = 10_000;
    world.router = true;
    let (s, tests) = run(&mut world, &config, &paths, 1, 1);
    assert!(tests.len() > 15, "{}", tests.len());
    assert_eq!(caveat(&s), None);
    config.interfaces = vec![Configured {
        sees_household: Some(false),
        ..Configured::from("eth0")
    }];
    let (s, _) = run(&mut world, &config, &paths, 1, 1);
    assert_eq!(caveat(&s), Some(UNSEEN));
    world.counters = None;
    let (s, tests) = run(&mut world, &config, &paths, 1, 1);
    assert!(tests.len() > 15 && caveat(&s) == Some(UNCOUNTED));
}

#[test]
fn an_uplink_in_use_keeps_no_other_from_its_turn() {
    let mut config = config();
    config.throughput.skip_when_busy = true;
    let mut other = path("dsl", "vienna");
    other.index = 2;
    let mut world = World::new();
    world.traffic = 1_000_000;
    world.busy = Some(1);
    let paths = [path("eth0", "vienna"), other];
    let (s, tests) = run(&mut world, &config, &paths, 1, 1);
    assert!(tests.len() > 15, "{}", tests.len());
    assert!(tests.iter().all(|t| t.1 == "dsl vienna"), "{tests:?}");
    let eth = s.uplinks().find(|(name, _)| *name == "eth0").unwrap().1;
    assert_eq!(eth.waits.unwrap(), IN_USE);
}

#[test]
fn own_probes_are_no_household() {
    let mut config = config();
    config.throughput.skip_when_busy = true;
    config.throughput.monthly_budget_bytes = u64::MAX / 2;
    // 1.2 Mbit/s each way.
    let bytes_a_second = 150_000;
    let mut world = World::new();
    world.traffic = bytes_a_second;
    let mut path = path("eth0", "vienna");
    let made = |world: &mut World, path: &Path| {
        let paths = std::slice::from_ref(path);
        run(world, &config, paths, 1, 1).1.len()
    };
    assert_eq!(made(&mut world, &path), 0);
    path.probe_bytes = bytes_a_second * 2 * (MONTH_NS / SECOND_NS as u64);
    assert!(made(&mut world, &path) > 15);
    world.traffic = bytes_a_second + 70_000;
    assert_eq!(made(&mut world, &path), 0);
}

#[test]
fn tests_that_fail_have_their_turn_too() {
    let config = config();
    let settings = Settings::from(&config);
    let mut rng = ChaCha12Rng::seed_from_u64(3);
    let mut world = World::new();
    let mut s = Schedule::new(&config.throughput, &mut rng);
    let mut kinds = Vec::new();
    while kinds.len() < 6 {
        world.pass(Duration::from_secs(7200));
        // Nothing of it comes into the store.
        let due = s.due(
            world.now,
            &[path("eth0", "vienna")],
            &settings,
            &mut world,
            &mut rng,
        );
        kinds.extend(due.map(|d| d.turn));
    }
    assert_eq!(kinds, [Turn::Up, Turn::Up, Turn::Down].repeat(2));
}

#[test]
fn a_low_test_is_repeated_within_minutes_and_once() {
    const MBIT: u64 = 1_000_000;
    let config = config();
    let paths = [path("eth0", "vienna"), path("eth0", "oslo")];
    let mut world = World::new();
    world.rates_bps = vec![10 * MBIT];
    let (_, well) = run(&mut world, &config, &paths, 3, 1);
    let apart = |tests: &[(i64, String, Turn)]| -> Vec<i64> {
        let minutes = |pair: &[(i64, String, Turn)]| (pair[1].0 - pair[0].0) / SECOND_NS / 60;
        tests.windows(2).map(minutes).collect()
    };
    assert!(apart(&well).iter().all(|minutes| *minutes >= 60));
    // Half as much from then on: the first of each path and direction is in doubt, and no other.
    world.rates_bps = vec![5 * MBIT];
    let (_, low) = run(&mut world, &config, &paths, 1, 1);
    let minutes = apart(&low);
    let mut repeated = Vec::new();
    for (minutes, pair) in minutes.iter().zip(low.windows(2)) {
        if *minutes < 60 {
            assert!((2..=5).contains(minutes), "{minutes} min");
            assert_eq!((&pair[0].1, pair[0].2), (&pair[1].1, pair[1].2));
            repeated.push((pair[0].1.as_str(), pair[0].2));
        }
    }
    repeated.sort_by_key(|(name, turn)| (*turn as u8, *name));
    let [up, down] = [Turn::Up, Turn::Down];
    let all = [
        ("eth0 oslo", up),
        ("eth0 vienna", up),
        ("eth0 oslo", down),
        ("eth0 vienna", down),
    ];
    assert_eq!(repeated, all);
}

#[test]
fn a_line_that_falls_again_and_again_keeps_the_budget() {
    const MBIT: u64 = 1_000_000;
    let mut config = config();
    config.throughput.monthly_budget_bytes = 1 << 30;
    let mut world = World::new();
    world.rates_bps = vec![10 * MBIT, 10 * MBIT, 9 * MBIT, 3 * MBIT];
    let (_, tests) = run(&mut world, &config, &[path("eth0", "vienna")], 30, 10 << 20);
    let soon = tests
        .windows(2)
        .filter(|t| t[1].0 - t[0].0 < 600 * SECOND_NS);
    assert!(soon.count() > 10);
    assert!((80..=102).contains(&tests.len()), "{}", tests.len());
    let half = BEGIN_NS + MONTH_NS as i64 / 2;
    let before = tests.iter().filter(|t| t.0 < half).count();
    assert!(before.abs_diff(tests.len() / 2) <= 5, "{before}");
}

#[test]
fn lines_that_come_back_together_are_not_tested_together() {
    let mut config = config();
    config.throughput.every_ns = Some(86_400 * SECOND_NS as u64);
    let settings = Settings::from(&config);
    let paths = [path("eth0", "vienna")];
    let mut firsts: Vec<u64> = (0..20)
        .map(|seed| {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let mut world = World::new();
            let mut s = Schedule::new(&config.throughput, &mut rng);
            world.pass(Duration::from_secs(2 * 86_400));
            assert!(
                s.due(world.now, &[], &settings, &mut world, &mut rng)
                    .is_none()
            );
            let back = world.now;
            while s
                .due(world.now, &paths, &settings, &mut world, &mut rng)
                .is_none()
            {
                world.pass(Duration::from_secs(20));
            }
            world.now.saturating_duration_since(back).as_secs()
        })
        .collect();
    firsts.sort_unstable();
    // All of them within an hour, and half of them not in its first ten minutes.
    assert!(firsts[10] > 600 && firsts[19] <= 3620, "{firsts:?}");
}

#[test]
fn what_the_budget_allows_soon_waits_for_no_whole_interval() {
    let mut config = config();
    config.throughput.every_ns = Some(86_400 * SECOND_NS as u64);
    // One each day.
    config.throughput.monthly_budget_bytes = 30;
    let settings = Settings::from(&config);
    let mut rng = ChaCha12Rng::seed_from_u64(4);
    let mut world = World::new();
    let paths = [path("eth0", "vienna")];
    let spent = Spent {
        age_ns: None,
        interface: "eth0".into(),
        reflector: "vienna".into(),
        scheduled: Some(Turn::Up),
        rate_bps: None,
        others_bps: 0,
        bytes: 1,
    };
    world.spent = vec![(BEGIN_NS, spent)];
    let mut s = Schedule::new(&config.throughput, &mut rng);
    world.pass(Duration::from_secs(86_400 - 120));
    s.next = Some(world.now);
    while s
        .due(world.now, &paths, &settings, &mut world, &mut rng)
        .is_none()
    {
        world.pass(Duration::from_secs(20));
    }
    let day = Duration::from_secs(86_400);
    let passed = world.now.saturating_duration_since(world.begin);
    // A fifth of what was left at most is added by chance.
    assert!((day..day + Duration::from_secs(40 + 120 / 5)).contains(&passed));
}
