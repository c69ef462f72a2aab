//! Throughput tests that run by themselves, for real but more often than a configuration allows: over
//! loopback, to two reflectors.

use std::time::{Duration, Instant};

use crate::common::Place;
use bufferbane_core::train::pacer::When;
use bufferbane_store::{LoadTest, Method, Protocol, Reader};
use bufferbaned::config::{self, Config};
use bufferbaned::load::{TestNews, TestWish, UdpRates};
use bufferbaned::{Daemon, ScheduledTests};

/// Each test takes about six seconds; a busy machine may take its time.
const LONG: Duration = Duration::from_secs(180);

/// Two reflectors, `far` and `near`, and a test as soon as one may be.
fn config(far: &Place, near: &Place, monthly_budget_bytes: u64) -> Config {
    let text = far.usual("50ms")
        + &format!(
            "[[reflector]]\nname = \"near\"\naddress = \"{}\"\nkey_file = \"{}\"\n\
             interval = \"50ms\"\n\
             [http]\nlisten = \"\"\n\
             [throughput]\nseconds = 2\nstreams = 1\ncongestion = \"reno\"\n\
             skip_when_busy = false\n",
            near.address,
            near.path("far.key").display()
        );
    let mut config = config::parse("d.toml", &text, far.dir.path())
        .unwrap()
        .config;
    config.throughput.every_ns = Some(500_000_000);
    config.throughput.monthly_budget_bytes = monthly_budget_bytes;
    // A part of the budget would be kept for these.
    config.throughput.trains = When::Never;
    config
}

fn tests(place: &Place) -> Vec<LoadTest> {
    let reader = Reader::open(&place.store()).unwrap();
    let tests = reader.tests(i64::MIN, i64::MAX).unwrap();
    tests.into_iter().map(|(_, _, test)| test).collect()
}

/// Waits until the store has so many tests.
fn wait_for(place: &Place, daemon: &Daemon, count: usize) {
    let begun = Instant::now();
    while tests(place).len() < count {
        assert!(
            begun.elapsed() < LONG,
            "{:?}",
            daemon.status().scheduled_tests
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn why_a_test_came_to_nothing_is_told_until_one_does_not() {
    let (far, near) = (Place::new(), Place::new());
    let right = config(&far, &near, u64::MAX / 2);
    let mut wrong = right.clone();
    wrong.throughput.congestion = "nonesuch".into();
    let mut daemon = Daemon::start(wrong, None).unwrap();
    let failed = || {
        let tests = daemon.status().scheduled_tests;
        tests.into_iter().find_map(|t| t.failed)
    };
    let begun = Instant::now();
    let why = loop {
        assert!(begun.elapsed() < LONG);
        if let Some(why) = failed() {
            break why;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(why.contains("nonesuch"), "{why}");
    daemon.reconfigure(right);
    wait_for(&far, &daemon, 1);
    let tests = daemon.status().scheduled_tests;
    assert!(tests.iter().all(|t| t.failed.is_none()), "{tests:?}");
    daemon.stop();
}

#[test]
fn tests_run_in_turn_and_a_budget_that_is_used_up_stays_so_over_a_restart() {
    let (mut far, near) = (Place::new(), Place::new());
    let much = u64::MAX / 2;
    let mut daemon = Daemon::start(config(&far, &near, much), None).unwrap();
    wait_for(&far, &daemon, 6);
    daemon.stop();
    let made = tests(&far);
    let turns: Vec<(&str, &str)> = made
        .iter()
        .map(|t| (t.reflector.as_str(), t.kind.as_str()))
        .collect();
    let all = [
        ("far", "up"),
        ("near", "up"),
        ("far", "up"),
        ("near", "up"),
        ("far", "down"),
        ("near", "down"),
    ];
    assert_eq!(turns[..6], all);
    assert!(made.iter().all(|t| t.asked_by == "schedule"));
    for pair in made.windows(2) {
        assert!(pair[0].end_ns <= pair[1].start_ns, "two at a time");
    }
    let reader = Reader::open(&far.store()).unwrap();
    let capacities = reader.capacities(i64::MIN, i64::MAX).unwrap();
    let by_test = capacities.iter().filter(|(_, c)| c.method == Method::Test);
    assert_eq!(by_test.count(), made.len());
    drop(reader);

    // Started again with less than was moved: none runs, and it is said why.
    let moved: u64 = made.iter().flat_map(|t| &t.ways).map(|w| w.bytes).sum();
    let mut daemon = Daemon::start(config(&far, &near, much), None).unwrap();
    let told = |daemon: &Daemon, right: &dyn Fn(&ScheduledTests) -> bool| {
        let begun = Instant::now();
        loop {
            let status = daemon.status().scheduled_tests;
            if let Some(found) = status.into_iter().find(|t| right(t)) {
                return found;
            }
            assert!(
                begun.elapsed() < LONG,
                "{:?}",
                daemon.status().scheduled_tests
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let lo = told(&daemon, &|t| t.spent_bytes >= moved && t.probe_bytes > 0);
    daemon.stop();
    let before = tests(&far).len();
    let mut daemon = Daemon::start(config(&far, &near, lo.probe_bytes + moved), None).unwrap();
    let lo = told(&daemon, &|t| t.waits.is_some());
    assert!(lo.waits.unwrap().contains("used up"));
    // Somebody asks for one, and it is counted: the budget has been looked at again since. The first reflector
    // is gone, and the next one makes it, unless only that one is meant.
    far.lose_reflector();
    let ask = |wish| {
        let mut news = daemon.test(wish);
        std::iter::from_fn(|| news.blocking_recv()).last()
    };
    let last = ask(TestWish {
        reflector: Some("far".into()),
        ..TestWish::default()
    });
    assert!(matches!(last, Some(TestNews::Failed(_))), "{last:?}");
    let last = ask(TestWish::default());
    assert!(matches!(last, Some(TestNews::Done(_))), "{last:?}");
    far.regain_reflector();
    let lo = told(&daemon, &|t| t.spent_bytes > moved);
    assert!(lo.waits.unwrap().contains("used up"));
    wait_for(&far, &daemon, before + 1);
    daemon.stop();
    let made = tests(&far);
    assert_eq!(made.len(), before + 1);
    assert_eq!(made[before].asked_by, "command");
    assert_eq!(made[before].reflector, "near");
    let [instead] = &made[before].instead_of[..] else {
        panic!("{:?}", made[before].instead_of);
    };
    assert_eq!(instead.reflector, "far");
    assert!(instead.why.contains("does not answer"), "{instead:?}");
    assert!(made[..before].iter().all(|t| t.instead_of.is_empty()));

    // The first test of a line that nobody knows stops where the budget is used up, and its phases end.
    let fresh = Place::new();
    let bytes = |t: &LoadTest| t.ways.iter().map(|w| w.bytes).sum::<u64>();
    let least = made.iter().map(bytes).min().unwrap();
    let left = least / 4;
    let mut daemon = Daemon::start(config(&fresh, &near, lo.probe_bytes + left), None).unwrap();
    wait_for(&fresh, &daemon, 1);
    told(&daemon, &|t| t.spent_bytes > 0 && t.waits.is_some());
    daemon.stop();
    let [first] = &tests(&fresh)[..] else {
        panic!("one test")
    };
    // What was on its way when it ended no receiver counts.
    assert!(first.cut_short, "{left} {first:?}");
    assert!((1..least).contains(&bytes(first)), "{left} {first:?}");
    assert!(first.load_end_ns - first.load_start_ns < 2_000_000_000);
    assert!(made.iter().all(|t| !t.cut_short));

    // With more it goes on where it was: after the one downward, with what is now asked for over UDP.
    let mut more = config(&far, &near, much);
    more.throughput.udp = Some(UdpRates {
        up_bps: 1_000_000,
        down_bps: 2_000_000,
    });
    let mut daemon = Daemon::start(more, None).unwrap();
    wait_for(&far, &daemon, before + 2);
    daemon.stop();
    let next = &tests(&far)[before + 1];
    assert_eq!(
        (next.reflector.as_str(), next.kind.as_str()),
        ("far", "both")
    );
    assert_eq!(
        (next.protocol, next.asked_by.as_str()),
        (Protocol::Udp, "schedule")
    );
    let offered = next.ways.iter().map(|w| w.datagrams.unwrap().offered_bps);
    assert_eq!(offered.collect::<Vec<_>>(), [1_000_000, 2_000_000]);
    // That says nothing of what the line can carry.
    let reader = Reader::open(&far.store()).unwrap();
    let capacities = reader.capacities(i64::MIN, i64::MAX).unwrap();
    let by_test = capacities.iter().filter(|(_, c)| c.method == Method::Test);
    assert_eq!(by_test.count(), made.len());
}
