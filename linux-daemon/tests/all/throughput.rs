//! Throughput tests by the daemon as a child, over loopback, with a reflector that allows 50 Mbit/s.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, Place, Service};
use bufferbane_store::{Direction, LoadTest, Reader};
use serde_json::{Value, json};

/// Allowed to every user on every kernel.
const SETTINGS: &str = "[throughput]\nevery = \"never\"\ncongestion = \"reno\"\nstreams = 2\n";

fn place() -> Place {
    let place = Place::new();
    place.configure(&(place.usual("50ms") + SETTINGS));
    place
}

/// Asks for a test, and leaves the news where they are.
fn ask(place: &Place, wish: Value) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(place.path("control")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut wish = wish;
    wish["cmd"] = "test".into();
    writeln!(stream, "{wish}").unwrap();
    BufReader::new(stream)
}

fn next(news: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    news.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or(Value::Null)
}

/// Reads news until one of that phase comes.
fn wait_for(news: &mut BufReader<UnixStream>, phase: &str) {
    loop {
        let said = next(news);
        assert_eq!(said["ok"], true, "{said}");
        if said["progress"]["phase"] == phase {
            return;
        }
    }
}

fn running_tests(place: &mut Place) -> u64 {
    let status = place.reflector.as_mut().unwrap().status().unwrap();
    status["tests"]["running"].as_u64().unwrap()
}

#[test]
fn a_test_goes_through_its_phases_and_is_kept() {
    let place = place();
    let service = place.start().ready();
    place.status_with("probe", |s| crate::common::sent(s) > 0);
    let mut news = ask(&place, json!({ "direction": "both", "seconds": 2 }));
    let mut phases = Vec::new();
    let test = loop {
        let said = next(&mut news);
        assert_eq!(said["ok"], true, "{said}");
        if said["test"].is_object() {
            break said["test"].clone();
        }
        let phase = said["progress"]["phase"].as_str().unwrap().to_owned();
        if phases.last() != Some(&phase) {
            phases.push(phase);
        }
    };
    let all = ["waiting", "idle", "load", "recovery"];
    assert!(
        phases.iter().all(|p| all.contains(&p.as_str())) && phases.contains(&"load".into()),
        "{phases:?}"
    );
    assert_eq!(test["ways"].as_array().unwrap().len(), 2);
    assert_eq!(test["congestion"], "reno");
    // Nobody is asked twice, and what nobody knows is said.
    let unknown = next(&mut ask(&place, json!({ "reflector": "nowhere" })));
    assert_eq!(unknown["ok"], false);
    assert!(
        unknown["error"].as_str().unwrap().contains("far"),
        "{unknown}"
    );
    service.end();
    let reader = Reader::open(&place.store()).unwrap();
    let tests = reader.tests(i64::MIN, i64::MAX).unwrap();
    assert_eq!(tests.len(), 1);
    let kept = &tests[0].2;
    for (way, direction) in kept.ways.iter().zip([Direction::Up, Direction::Down]) {
        assert_eq!(way.direction, direction);
        let binned: u64 = way.bins.iter().map(|b| u64::from(*b)).sum();
        assert_eq!(binned, way.bytes);
        // The reflector's limit; a busy machine may stay below it.
        assert!(
            way.mean_bps > 1_000_000 && way.mean_bps < 60_000_000,
            "{direction:?} {}",
            way.mean_bps
        );
    }
    assert!(kept.rpm.is_some_and(|r| r > 0));
    assert!(kept.load_end_ns - kept.load_start_ns >= 2_000_000_000);
    assert!(kept.probes.iter().filter(|b| b.rtt_ns.is_some()).count() > 20);
}

#[test]
fn a_test_that_is_cut_off_leaves_nothing_behind() {
    let mut place = place();
    let service = place.start().ready();
    place.status_with("probe", |s| crate::common::sent(s) > 0);
    // Whoever asked hangs up.
    let mut news = ask(&place, json!({ "direction": "up", "seconds": 30 }));
    wait_for(&mut news, "load");
    assert_eq!(running_tests(&mut place), 1);
    drop(news);
    let begun = Instant::now();
    while running_tests(&mut place) > 0 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    // SIGTERM in the middle: the daemon ends at once, and so does the test at the reflector.
    let mut news = ask(&place, json!({ "direction": "down", "seconds": 30 }));
    wait_for(&mut news, "load");
    let (code, took) = service.end();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let begun = Instant::now();
    while running_tests(&mut place) > 0 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    // Killed in the middle: the reflector notices by itself.
    let service = place.start().ready();
    place.status_with("probe", |s| crate::common::sent(s) > 0);
    let mut news = ask(&place, json!({ "direction": "up", "seconds": 30 }));
    wait_for(&mut news, "load");
    service.kill();
    let begun = Instant::now();
    while running_tests(&mut place) > 0 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    // Whoever was cut off has no result.
    let reader = crate::common::reopen(&place.store());
    assert!(reader.tests(i64::MIN, i64::MAX).unwrap().is_empty());
}

#[test]
fn a_reflector_tests_one_client_at_a_time_and_the_next_waits_its_turn() {
    let mut first = place();
    let second = Place::beside(&first);
    second.configure(&(second.usual("50ms") + SETTINGS));
    let services = [&first, &second].map(|p| p.start().ready());
    for place in [&first, &second] {
        place.status_with("probe", |s| crate::common::sent(s) > 0);
    }
    let mut ours = ask(&first, json!({ "direction": "up", "seconds": 5 }));
    wait_for(&mut ours, "load");
    let mut theirs = ask(&second, json!({ "direction": "down", "seconds": 2 }));
    // A third is behind it in the same daemon.
    let mut behind = ask(&second, json!({ "direction": "up", "seconds": 2 }));
    let waits_for = |news: &mut BufReader<UnixStream>, what: &str| loop {
        let said = next(news);
        assert_eq!(said["progress"]["phase"], "waiting", "{said}");
        if said["progress"]["waits_for"]
            .as_str()
            .unwrap()
            .contains(what)
        {
            return;
        }
    };
    waits_for(&mut theirs, "the reflector, which others test");
    waits_for(&mut behind, "a test of this daemon before it");
    assert_eq!(running_tests(&mut first), 1);
    let end = |news: &mut BufReader<UnixStream>| loop {
        let mut said = next(news);
        assert_eq!(said["ok"], true, "{said}");
        if said["test"].is_object() {
            return serde_json::from_value::<LoadTest>(said["test"].take()).unwrap();
        }
    };
    let all = [end(&mut ours), end(&mut theirs), end(&mut behind)];
    for pair in all.windows(2) {
        // One boot, one clock: no load began before the one before it had ended.
        assert!(
            pair[0].load_end_ns <= pair[1].load_start_ns,
            "two at a time"
        );
    }
    for service in services {
        assert_eq!(service.end().0, Some(0));
    }
}

/// What a process has open, and how many threads it has.
fn holds(pid: u32) -> (usize, usize) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).map(Iterator::count);
    (count("fd").unwrap(), count("task").unwrap())
}

/// TCP sockets at that port that do not listen.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let end = format!(":{port:04X}");
    let of_test = |row: &&str| {
        let words: Vec<&str> = row.split_whitespace().collect();
        (words[1].ends_with(&end) || words[2].ends_with(&end)) && words[3] != "0A"
    };
    table.lines().skip(1).filter(of_test).count()
}

/// A daemon and its reflector, and what both hold while no test runs.
struct Calm {
    place: Place,
    service: Service,
    /// Descriptors, threads, and sessions at the reflector.
    before: (usize, usize, u64),
}

impl Calm {
    fn new() -> Self {
        let mut place = place();
        let service = place.start().ready();
        place.status_with("probe", |s| crate::common::sent(s) > 5);
        let begun = Instant::now();
        let sessions = loop {
            match sessions(&mut place) {
                0 => assert!(begun.elapsed() < PATIENCE, "no session"),
                some => break some,
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let (descriptors, threads) = holds(service.child.id());
        let before = (descriptors, threads, sessions);
        Self {
            place,
            service,
            before,
        }
    }

    fn ask(&self, direction: &str) -> BufReader<UnixStream> {
        let wish = json!({ "direction": direction, "seconds": 30 });
        ask(&self.place, wish)
    }

    /// Waits until nothing of a test is left, at the reflector neither where there is one.
    fn settled(mut self, what: &str) {
        let begun = Instant::now();
        loop {
            let (descriptors, threads) = holds(self.service.child.id());
            let sockets = connections(self.place.address.port());
            let [sessions, tests] = match self.place.reflector {
                Some(_) => [sessions(&mut self.place), running_tests(&mut self.place)],
                None => [0, 0],
            };
            let now = (descriptors, threads, sessions);
            if descriptors <= self.before.0
                && threads <= self.before.1
                && sessions <= self.before.2
                && (sockets, tests) == (0, 0)
            {
                self.service.end();
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: descriptors, threads and sessions {now:?}, before {:?}; {sockets} sockets, {tests} tests",
                self.before
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn sessions(place: &mut Place) -> u64 {
    let status = place.reflector.as_mut().unwrap().status().unwrap();
    status["sessions"].as_u64().unwrap()
}

/// At whatever point of its beginning.
fn hung_up_at_once() {
    let calm = Calm::new();
    for ms in 0..12 {
        drop(calm.ask("both"));
        std::thread::sleep(Duration::from_millis(ms));
    }
    calm.settled("hung up at once");
}

fn hung_up_in(phase: &str, ms: u64) {
    let calm = Calm::new();
    let mut news = calm.ask("both");
    if phase != "waiting" {
        wait_for(&mut news, phase);
    }
    std::thread::sleep(Duration::from_millis(ms));
    drop(news);
    calm.settled(&format!("hung up in {phase} + {ms} ms"));
}

/// Whoever asked is told at once.
fn left_by_its_reflector() {
    let mut calm = Calm::new();
    let mut news = calm.ask("up");
    wait_for(&mut news, "load");
    calm.place.lose_reflector();
    let said = loop {
        let said = next(&mut news);
        if said["ok"] != true {
            break said;
        }
    };
    assert!(said["error"].as_str().unwrap().contains("ended"), "{said}");
    drop(news);
    calm.settled("left by its reflector");
}

/// Until a session is gone takes a while: all at the same time.
#[test]
fn whenever_a_test_is_cut_off_no_socket_session_descriptor_or_thread_is_left() {
    std::thread::scope(|all| {
        all.spawn(hung_up_at_once);
        for (phase, ms) in [("waiting", 0), ("idle", 700), ("load", 0), ("load", 900)] {
            all.spawn(move || hung_up_in(phase, ms));
        }
        all.spawn(left_by_its_reflector);
    });
}
