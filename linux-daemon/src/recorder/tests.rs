use bufferbane_core::household::Second;
use bufferbane_core::sample::Sample;
use bufferbane_store::{
    Capacity, Direction, Event, LoadTest, LoadedDelay, Method, Reader, SeriesInfo, TestWay,
};

use super::testing::{any_room, recorder, series};
use super::*;
use crate::probe::Health;

#[test]
fn every_sample_that_is_lost_to_ourselves_is_in_the_health_of_its_minute() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    // Nothing can be written, and no more than ten samples are kept.
    let full = WriterOptions {
        min_free_bytes: u64::MAX,
        backlog_samples: 10,
    };
    let mut recorder = recorder(&path, full);
    let begin = clock::now();
    let at = |s| begin.saturating_add(s * SECOND_NS);
    recorder.obey(Order::Series(SeriesIndex(0), series(SeriesKind::Icmp)));
    let lost = |series, seq| Sample::lost(SeriesIndex(series), seq, at(seq), 64);
    for seq in 0..30 {
        recorder.record(Observation::New(lost(0, seq)));
    }
    // Nobody told of this one's series.
    recorder.record(Observation::New(lost(1, 0)));
    let overflowed = Health {
        dropped_reports: 300,
        ..Health::default()
    };
    recorder.minute.hear(overflowed, at(59));
    recorder.write_health(at(60));
    recorder.write_health(at(120));
    recorder.writer.as_mut().unwrap().set_min_free_bytes(0);
    recorder.finish(clock::now());

    let reader = Reader::open(&path).unwrap();
    let mut dropped = Vec::new();
    reader
        .each_health(i64::MIN, i64::MAX, |_, row| {
            dropped.push(row.dropped_samples)
        })
        .unwrap();
    assert_eq!(dropped, [300 + 1 + 20, 0]);
    let events = reader.events(i64::MIN, i64::MAX).unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    let text = &events[0].1.text;
    assert!(text.starts_with("321 samples were dropped"), "{text}");
}

/// What a session tells may come before the order that names its reflector has had its turn.
#[test]
fn what_a_session_tells_waits_for_its_name() {
    use bufferbane_core::session::client::SessionEvent;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut recorder = recorder(&path, any_room());
    let (order, orders) = std::sync::mpsc::channel();
    let (mut say, reports) = rtrb::RingBuffer::new(1);
    (recorder.orders, recorder.reports) = (orders, reports);
    let named = Order::Session(
        7,
        Session {
            interface: "wan".into(),
            target: "far".into(),
            family: 4,
        },
    );
    order.send(named).unwrap();
    say.push(Report::Session(7, clock::now(), SessionEvent::Lost))
        .unwrap();
    recorder.take_reports();
    recorder.finish(clock::now());

    let reader = Reader::open(&path).unwrap();
    let events = reader.events(i64::MIN, i64::MAX).unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|(_, e)| (e.kind.as_str(), e.target.as_deref()))
        .collect();
    assert_eq!(told, [("reflector_lost", Some("far"))]);
}

/// Eighty seconds of probes that leave at grants of 2 ms only: the store knows it before anybody asks,
/// unless the interface is a mobile network's.
#[test]
fn what_a_cable_line_shows_is_in_the_store() {
    use bufferbane_core::detect::cable::Reading;
    use bufferbane_core::sample::Status;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut recorder = recorder(&path, any_room());
    for (index, interface, kind) in [(0, "wan", "wired"), (1, "wwan", "cellular")] {
        let info = SeriesInfo {
            interface: interface.into(),
            interface_kind: kind.into(),
            interval_ns: SECOND_NS / 20,
            ..series(SeriesKind::Udp)
        };
        recorder.obey(Order::Series(SeriesIndex(index), info));
    }
    let begin = clock::now();
    for seq in 0..1600u64 {
        // Anywhere in the slot.
        let off_ns = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 40_000_000;
        let sent = begin.saturating_add(seq * SECOND_NS / 20 + off_ns);
        let wait_ns = sent.as_nanos().next_multiple_of(2_000_000) - sent.as_nanos();
        for index in 0..2 {
            let mut sample = Sample::lost(SeriesIndex(index), seq, sent, 128);
            sample.status = Status::Ok;
            sample.rtt_ns = Some(20_000_000 + wait_ns);
            sample.raw_up_ns = Some(7_000_000 + wait_ns as i64);
            sample.raw_down_ns = Some(13_000_000);
            recorder.record(Observation::New(sample));
        }
        recorder.watch(sent);
        recorder.note_cables(sent, false);
    }
    recorder.finish(clock::now());

    let rows = Reader::open(&path)
        .unwrap()
        .cable(i64::MIN, i64::MAX)
        .unwrap();
    assert!(rows.iter().all(|r| r.interface == "wan"), "{rows:?}");
    let grants = rows.iter().find_map(|r| match r.reading {
        Reading::Grants(g) => Some(g),
        _ => None,
    });
    let grants = grants.expect("grants");
    assert!(
        (1_990_000..2_010_000).contains(&grants.period_ns),
        "{grants:?}"
    );
}

/// Lets a recorder hear of probes of `series` through these seconds since `begin`, of which those are answered that
/// `answers` says; gives what is in the store then.
fn run(
    store: &std::path::Path,
    begin: Monotonic,
    seconds: std::ops::Range<u64>,
    series: &[SeriesInfo],
    answers: &dyn Fn(usize, u64) -> bool,
) -> Vec<Event> {
    let mut recorder = recorder(store, any_room());
    // As if it had been started then.
    let start = begin.saturating_add(seconds.start * SECOND_NS);
    recorder.watcher = Watcher::new(start, recorder.settings.alerts.thresholds);
    for (n, info) in series.iter().enumerate() {
        recorder.obey(Order::Series(SeriesIndex(n as u16), info.clone()));
    }
    let mut last = start;
    for second in seconds {
        let at = begin.saturating_add(second * SECOND_NS);
        for n in 0..series.len() {
            let mut sample = Sample::lost(SeriesIndex(n as u16), second, at, 64);
            if answers(n, second) {
                sample.status = bufferbane_core::sample::Status::Ok;
                sample.rtt_ns = Some(20_000_000);
            }
            recorder.record(Observation::New(sample));
        }
        recorder.watch(at);
        recorder.end_carried(at);
        last = at;
    }
    recorder.finish(last);
    let reader = Reader::open(store).unwrap();
    let events = reader.events(i64::MIN, i64::MAX).unwrap();
    events.into_iter().map(|(_, e)| e).collect()
}

/// Two hosts answer, and a third never does. What lasts when recording begins is told where somebody answered before, and
/// is the same event.
#[test]
fn an_outage_over_a_restart_is_told_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let begin = clock::now();
    let hosts = [1, 2, 3].map(|n| SeriesInfo {
        target: format!("host{n}"),
        address: format!("192.0.2.{n}"),
        ..series(SeriesKind::Icmp)
    });
    let well = |n: usize, second: u64| n < 2 && !(40..120).contains(&second);
    let seconds = |e: &Event, ns: u64| (ns - begin.as_nanos()) / SECOND_NS * u64::from(e.boot);
    let outages = |events: &[Event]| {
        let edges = |e: &Event| {
            assert_eq!(e.kind, "outage", "{events:?}");
            (seconds(e, e.start_ns), e.end_ns.map(|ns| seconds(e, ns)))
        };
        events.iter().map(edges).collect::<Vec<_>>()
    };
    let events = run(&path, begin, 0..60, &hosts, &well);
    assert_eq!(outages(&events), [(40, Some(59))]);
    assert!(events[0].cut);
    let events = run(&path, begin, 65..180, &hosts, &well);
    let told = outages(&events);
    assert_eq!(told, [(40, Some(120))]);
    assert!(!events[0].cut);
    assert_eq!(events[0].text, "no answer from anywhere for 80.00 s");
    // Nobody knows when that began which is over at once.
    let slow = |n: usize, second: u64| n < 2 && second >= 205;
    let events = run(&path, begin, 200..260, &hosts, &slow);
    assert_eq!(outages(&events), told);
}

/// Three days, with a restart at noon of the second one; a probe each minute. What the evenings of before were like is read
/// from the store's hours, but for those in which the household loaded the line.
#[test]
fn slow_evenings_of_before_a_restart_count() {
    use bufferbane_core::household::Minute;

    const HOUR_NS: u64 = 60 * MINUTE_NS;
    for loaded in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let now = clock::now();
        let local_ns = |at: Monotonic| {
            let ahead_ns = clock::wall_now() as u64 - now.as_nanos();
            at.as_nanos() + ahead_ns
        };
        let begin = now.saturating_add(24 * HOUR_NS - local_ns(now) % (24 * HOUR_NS));
        let info = SeriesInfo {
            interval_ns: MINUTE_NS,
            ..series(SeriesKind::Icmp)
        };
        for minutes in [0..36 * 60, 36 * 60..72 * 60 + 5] {
            let mut recorder = recorder(&path, any_room());
            let start = begin.saturating_add(minutes.start * MINUTE_NS);
            recorder.watcher = Watcher::new(start, recorder.settings.alerts.thresholds);
            let ahead_ns = local_ns(start) - start.as_nanos();
            recorder.watcher.local_time(Some(ahead_ns as i64));
            recorder.obey(Order::Series(SeriesIndex(0), info.clone()));
            for minute in minutes {
                let at = begin.saturating_add(minute * MINUTE_NS);
                let is_evening = (19..23).contains(&(minute / 60 % 24));
                let mut sample = Sample::lost(SeriesIndex(0), minute, at, 64);
                sample.status = bufferbane_core::sample::Status::Ok;
                sample.rtt_ns = Some(if is_evening { 60_000_000 } else { 20_000_000 });
                recorder.record(Observation::New(sample));
                let mut load = Minute::new();
                let bps = if is_evening && loaded {
                    40_000_000
                } else {
                    1000
                };
                (0..60).for_each(|_| load.down.add_rate(bps));
                let writer = recorder.writer.as_mut().unwrap();
                writer.load_minute(at, "wan", &load).unwrap();
                recorder.watch(at);
            }
            recorder.finish(clock::now());
        }
        let events = Reader::open(&path).unwrap();
        let events = events.events(i64::MIN, i64::MAX).unwrap();
        let kinds: Vec<&str> = events.iter().map(|(_, e)| e.kind.as_str()).collect();
        let expected: &[&str] = if loaded {
            &[]
        } else {
            &["peak_hour_congestion"]
        };
        assert_eq!(kinds, expected, "{events:?}");
    }
}

/// A test that ran by itself and found the line to carry so much downward.
fn scheduled_test(end: Monotonic, mean_bps: u64) -> LoadTest {
    let end_ns = end.as_nanos();
    let start_ns = end_ns - 10 * SECOND_NS;
    LoadTest {
        boot: 0,
        start_ns,
        end_ns,
        load_start_ns: start_ns,
        load_end_ns: end_ns,
        ramp_ns: 0,
        interface: "wan".into(),
        reflector: "far".into(),
        kind: "down".into(),
        protocol: bufferbane_store::Protocol::Tcp,
        asked_by: "schedule".into(),
        congestion: "cubic".into(),
        cut_short: false,
        instead_of: Vec::new(),
        ways: vec![TestWay {
            direction: Direction::Down,
            streams: 4,
            bytes: mean_bps,
            mean_bps,
            p10_bps: mean_bps,
            p90_bps: mean_bps,
            retransmits: 0,
            cwnd_bytes: 0,
            rtt_us: 0,
            bins: Vec::new(),
            delay: LoadedDelay::default(),
            queue_bytes: 0,
            grade: "A".into(),
            lost: 0,
            others_bps: None,
            datagrams: None,
        }],
        rtt: LoadedDelay::default(),
        icmp: None,
        rpm: None,
        rpm_stable: false,
        rpm_variant: String::new(),
        recovery_ns: None,
        probes: Vec::new(),
    }
}

/// What a line carried before a restart is what it is held against after it, by trains and by tests; an
/// hourly test that is low stays so until the next.
#[test]
fn a_restart_forgets_no_baseline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let info = series(SeriesKind::Udp);
    let begin = clock::now();
    for (run, bps) in [(0, 10_000_000), (1, 5_000_000)] {
        let mut recorder = recorder(&path, any_room());
        recorder.obey(Order::Series(SeriesIndex(0), info.clone()));
        let begin = begin.saturating_add(run * 6 * 3600 * SECOND_NS);
        for n in 0..5u64 {
            let train = Capacity {
                interface: "wan".into(),
                direction: Direction::Up,
                method: Method::Train,
                burst_bps: bps,
                sustained_bps: None,
                confidence: 0.9,
                events: Vec::new(),
            };
            let at = begin.saturating_add(n * SECOND_NS);
            recorder.obey(Order::Train(at, Box::new(train), true, Some(bps)));
            recorder.watch(at);
        }
        for n in 1..6u64 {
            let at = begin.saturating_add(n * 3600 * SECOND_NS);
            let speaks_for_ns = 8 * 3600 * SECOND_NS;
            recorder.obey(Order::Test(
                Box::new(scheduled_test(at, bps)),
                speaks_for_ns,
            ));
            recorder.watch(at);
        }
        recorder.finish(clock::now());
    }
    let reader = Reader::open(&path).unwrap();
    let events = reader.events(i64::MIN, i64::MAX).unwrap();
    let kinds: Vec<&str> = events.iter().map(|(_, e)| e.kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["upload_degraded", "download_degraded"],
        "{events:?}"
    );
    let known = |name: &str| events[1].1.values[name].as_u64();
    assert!(known("baseline_bps") > Some(10_000_000), "{events:?}");
}

/// Counters saw a rush that was lost on the way: what a scheduled test found before or after it, in this run or the
/// one before, says what is load.
#[test]
fn a_test_says_what_is_much_for_a_line_after_a_rush_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let begin = clock::now();
    let is_load = |recorder: &mut Recorder, s: u64, down_bps| {
        let second = Second {
            at: begin.saturating_add(s * SECOND_NS),
            up_bps: 0,
            down_bps,
        };
        recorder.watcher.is_load("wan", second)
    };
    for knows in [false, true] {
        let mut recorder = recorder(&path, any_room());
        recorder.obey(Order::Series(SeriesIndex(0), series(SeriesKind::Udp)));
        for s in 0..3 {
            assert!(is_load(&mut recorder, s, 90_000_000));
        }
        assert_eq!(is_load(&mut recorder, 3, 4_000_000), knows);
        let test = Box::new(scheduled_test(begin, 8_000_000));
        recorder.obey(Order::Test(test, 0));
        assert!(is_load(&mut recorder, 4, 4_000_000));
        recorder.finish(clock::now());
    }
}

/// What is handed on to who reads capacity off the household's traffic.
#[test]
fn what_a_line_carried_before_is_what_its_last_test_found_or_more_that_traffic_showed_since() {
    let found = |method, direction, bps: u64, others_bps| Found {
        at_ns: 0,
        capacity: Capacity {
            interface: "wan".into(),
            direction,
            method,
            burst_bps: 9 * bps,
            sustained_bps: Some(bps),
            confidence: 0.9,
            events: Vec::new(),
        },
        others_bps,
    };
    let (test, passive, up) = (Method::Test, Method::Passive, Direction::Up);
    let mut past = vec![
        found(passive, up, 8_000_000, 0),
        found(test, up, 5_000_000, 0),
        found(passive, up, 100_000, 0),
        found(test, up, 2_000_000, 3_000_000),
        found(Method::Train, up, 40_000_000, 0),
        found(test, Direction::Down, 20_000_000, 0),
    ];
    let known = |past: &[Found], up| findings::carried_before(past.iter(), up);
    assert_eq!(known(&past, true), Some(5_000_000));
    assert_eq!(known(&past, false), Some(20_000_000));
    assert_eq!(known(&past[4..], true), None);
    past.push(found(passive, up, 6_000_000, 0));
    assert_eq!(known(&past, true), Some(6_000_000));
}

/// Hourly tests that come out low while the household loads the line itself say nothing of it, neither in the run
/// that made them nor after a restart, which reads them back; on an idle line the second is told.
#[test]
fn a_test_during_the_households_own_load_is_no_slower_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let begin = clock::now();
    let run = |hours: std::ops::Range<u64>, rates: &dyn Fn(u64) -> (u64, u64)| {
        let mut recorder = recorder(&path, any_room());
        recorder.obey(Order::Series(SeriesIndex(0), series(SeriesKind::Udp)));
        for hour in hours {
            let at = begin.saturating_add(hour * 3600 * SECOND_NS);
            let (found_bps, others_bps) = rates(hour);
            let mut test = scheduled_test(at, found_bps);
            test.ways[0].others_bps = Some(others_bps);
            recorder.obey(Order::Test(Box::new(test), 8 * 3600 * SECOND_NS));
            recorder.watch(at);
        }
        recorder.finish(clock::now());
        let reader = Reader::open(&path).unwrap();
        let events = reader.events(i64::MIN, i64::MAX).unwrap();
        events.into_iter().map(|(_, e)| e).collect::<Vec<_>>()
    };
    let busy = run(1..14, &|hour| match hour {
        1..6 => (10_000_000, 0),
        _ => (5_000_000, 5_500_000),
    });
    assert!(busy.is_empty(), "{busy:?}");
    let idle = run(14..17, &|_| (5_000_000, 100_000));
    let [event] = &idle[..] else {
        panic!("{idle:?}");
    };
    assert_eq!(event.kind, "download_degraded");
    let known = event.values["baseline_bps"].as_u64();
    assert!(known > Some(10_000_000), "{event:?}");
}

/// A stand-in that can send only half of what the line carries says nothing of the line: neither at once,
/// however long it stands in, nor after a restart, when the reflector that is meant is back.
#[test]
fn a_slower_stand_in_is_no_slower_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let info = series(SeriesKind::Udp);
    let begin = clock::now();
    let run = |hours: std::ops::Range<u64>, test: &dyn Fn(u64, Monotonic) -> LoadTest| {
        let mut recorder = recorder(&path, any_room());
        recorder.obey(Order::Series(SeriesIndex(0), info.clone()));
        for hour in hours {
            let at = begin.saturating_add(hour * 3600 * SECOND_NS);
            recorder.obey(Order::Test(Box::new(test(hour, at)), 8 * 3600 * SECOND_NS));
            recorder.watch(at);
        }
        recorder.finish(clock::now());
        Reader::open(&path)
            .unwrap()
            .events(i64::MIN, i64::MAX)
            .unwrap()
    };
    let before = run(1..14, &|hour, at| match hour {
        1..6 => scheduled_test(at, 10_000_000),
        _ => LoadTest {
            reflector: "near".into(),
            instead_of: vec![bufferbane_store::Instead {
                reflector: "far".into(),
                why: "no answer".into(),
            }],
            ..scheduled_test(at, 5_000_000)
        },
    });
    assert!(before.is_empty(), "{before:?}");
    let after = run(14..19, &|_, at| scheduled_test(at, 5_000_000));
    let [(_, event)] = &after[..] else {
        panic!("{after:?}");
    };
    assert_eq!(event.kind, "download_degraded");
    let known = event.values["baseline_bps"].as_u64();
    assert!(known > Some(10_000_000), "{event:?}");
}
