//! What lines carried and can carry: written, read, copied, and given up when it is old.

use std::path::Path;

use crate::common::{S, START_WALL_NS, writer};
use bufferbane_core::detect::cable::{Loss, Reading};
use bufferbane_core::household::{Household, Minute, Seen};
use bufferbane_core::look::{Found, Regular, Rtt, Silence};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{
    Capacity, Direction, Echoes, Escalation, EventId, KnownEchoes, KnownPath, KnownSize, Larger,
    Look, Method, Path as Way, PathEnd, PathHop, PathSize, Reader, Retention, Trust, Window,
};

fn minute() -> Minute {
    let mut h = Household::new();
    for n in 0..1000u64 {
        let now = Monotonic::from_nanos(n * S / 10);
        h.handle_counters(now, n * 100_000, n * 2_000);
        h.handle_probe(&Seen {
            sent: now,
            rtt_ns: Some(50_000_000),
            queue_up_ns: Some(30_000_000),
            queue_down_ns: Some(10_000),
            ..Seen::default()
        });
        h.handle_timeout(now);
        while h.poll_second().is_some() {}
        while h.poll_estimate().is_some() {}
        if let Some((_, mut minute)) = h.poll_minute() {
            minute.sees_household = true;
            return minute;
        }
    }
    panic!("no minute in a hundred seconds");
}

fn capacity(interface: &str, direction: Direction, bps: u64) -> Capacity {
    Capacity {
        interface: interface.into(),
        direction,
        method: Method::Passive,
        burst_bps: bps,
        sustained_bps: Some(bps),
        confidence: 0.9,
        events: Vec::new(),
    }
}

type Minutes = Vec<(i64, String, Minute)>;

fn read(path: &Path) -> (Vec<(i64, Capacity)>, Minutes) {
    let r = Reader::open(path).unwrap();
    let mut minutes = Minutes::new();
    r.load(Window::Minute, i64::MIN, i64::MAX, |interface, minute| {
        let mut whole = Minute::new();
        minute.add_to(&mut whole)?;
        minutes.push((minute.from_ns, interface.to_owned(), whole));
        Ok(())
    })
    .unwrap();
    (r.capacities(i64::MIN, i64::MAX).unwrap(), minutes)
}

#[test]
fn capacity_and_load_are_kept_copied_and_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let at = |s: u64| Monotonic::from_nanos(s * S);
    let minute = minute();
    assert!(minute.up.rate_bps.count() > 50);
    // Two interfaces and both directions at one instant.
    for (interface, direction, bps) in [
        ("eth0", Direction::Up, 1),
        ("eth0", Direction::Down, 2),
        ("wlan0", Direction::Up, 3),
    ] {
        w.capacity(at(100), capacity(interface, direction, bps));
    }
    for (s, interface) in [(60, "eth0"), (60, "wlan0"), (600_000, "eth0")] {
        w.load_minute(at(s), interface, &minute).unwrap();
    }
    w.commit().unwrap();
    let (capacities, minutes) = read(&path);
    let mut rates: Vec<u64> = capacities.iter().map(|(_, c)| c.burst_bps).collect();
    rates.sort_unstable();
    assert_eq!(rates, [1, 2, 3]);
    assert!(
        capacities
            .iter()
            .all(|(wall, _)| *wall == START_WALL_NS + 100 * S as i64)
    );
    assert_eq!(minutes.len(), 3);
    assert!(minutes.iter().all(|(_, _, m)| *m == minute));
    assert_eq!(minutes[1].1, "wlan0");

    let copy = dir.path().join("copy.redb");
    Reader::open(&path).unwrap().copy(&copy).unwrap();
    assert_eq!(read(&copy), (capacities, minutes));

    let retention = Retention {
        samples_ns: None,
        minutes_ns: None,
        hours_ns: Some(86_400 * S),
        events_ns: None,
        max_bytes: None,
    };
    let now_ns = START_WALL_NS + 600_100 * S as i64;
    w.enforce_retention(&retention, now_ns, Trust::Disciplined)
        .unwrap();
    w.close().unwrap();
    let (capacities, minutes) = read(&path);
    assert!(capacities.is_empty());
    assert_eq!(minutes.len(), 1);
}

#[test]
fn what_a_cable_shows_is_kept_once_copied_and_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let at = |s: u64| Monotonic::from_nanos(s * S);
    let loss = |up| {
        Reading::Loss(Loss {
            probes: 72_000,
            up,
            down: 1,
            idle: 500,
        })
    };
    // The same stretch as it grows, before and after a commit, and another interface and hour.
    w.cable(at(100), at(400), "eth0", loss(1));
    w.cable(at(100), at(700), "eth0", loss(2));
    w.commit().unwrap();
    w.cable(at(100), at(3700), "eth0", loss(3));
    w.cable(at(100), at(3700), "wlan0", loss(4));
    w.cable(at(600_000), at(603_600), "eth0", loss(5));
    w.commit().unwrap();
    let wall = |s: i64| START_WALL_NS + s * S as i64;
    let read = |path: &Path, from, to| {
        let rows = Reader::open(path).unwrap().cable(from, to).unwrap();
        let said = rows.into_iter().map(|r| match r.reading {
            Reading::Loss(l) => (r.interface, r.since_ns, r.until_ns, l.up),
            other => panic!("{other:?}"),
        });
        said.collect::<Vec<_>>()
    };
    let all = read(&path, i64::MIN, i64::MAX);
    assert_eq!(
        all,
        [
            ("eth0".to_owned(), wall(100), wall(3700), 3),
            ("wlan0".to_owned(), wall(100), wall(3700), 4),
            ("eth0".to_owned(), wall(600_000), wall(603_600), 5),
        ]
    );
    // What reaches into a range belongs to it, and what ended before does not.
    assert_eq!(read(&path, wall(3600), wall(4000)).len(), 2);
    assert!(read(&path, wall(3700), wall(600_000)).is_empty());

    let copy = dir.path().join("copy.redb");
    Reader::open(&path).unwrap().copy(&copy).unwrap();
    assert_eq!(read(&copy, i64::MIN, i64::MAX), all);
    let retention = Retention {
        samples_ns: None,
        minutes_ns: None,
        hours_ns: Some(86_400 * S),
        events_ns: None,
        max_bytes: None,
    };
    w.enforce_retention(&retention, wall(600_100), Trust::Disciplined)
        .unwrap();
    w.close().unwrap();
    assert_eq!(read(&path, i64::MIN, i64::MAX), all[2..]);
}

fn way(end: PathEnd, hops: &[[u8; 4]]) -> Way {
    let hop = |a: &[u8; 4]| PathHop {
        addresses: vec![(*a).into()],
        sent: 3,
        answered: 2,
        rtt_min_ns: Some(400_000),
        rtt_mean_ns: Some(500_000),
    };
    Way {
        interface: "eth0".into(),
        target: "quad9".into(),
        address: [9, 9, 9, 9].into(),
        source: Some([192, 168, 1, 2].into()),
        unsent: None,
        provider_link: false,
        end,
        hops: hops.iter().map(hop).collect(),
    }
}

#[test]
fn ways_are_kept_while_they_are_seen_and_looks_with_their_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let at = |s: u64| Monotonic::from_nanos(s * S);
    let wall = |s: u64| START_WALL_NS + (s * S) as i64;
    let whole = way(
        PathEnd::Target,
        &[[192, 168, 1, 1], [100, 64, 0, 1], [9, 9, 9, 9]],
    );
    let cut = way(PathEnd::Silence, &[[192, 168, 1, 1]]);
    let other = way(PathEnd::Target, &[[192, 168, 1, 1], [9, 9, 9, 9]]);
    assert_eq!(
        [&whole, &cut, &other].map(Way::provider),
        [Some(2), None, None]
    );
    w.path(at(60), at(60), 1, whole.clone());
    w.path(at(100), at(900), 2, other.clone());
    w.commit().unwrap();
    w.path(at(60), at(500_000), 2, whole.clone());
    let look = Look {
        events: vec![EventId(7)],
        took_ns: S,
        usual_hops: Some(3),
        other_from: None,
        path: cut,
    };
    w.escalation(at(100), look.clone());
    let found = Found {
        sent: 200,
        answered: 60,
        refused: 1,
        runs: 2,
        silence: Some(Silence {
            from: at(102),
            lasted_ns: 7 * S,
        }),
        rtt: Some(Rtt {
            min_ns: 1,
            median_ns: 2,
            p95_ns: 3,
            max_ns: 4,
        }),
        ..Found::default()
    };
    let place = ("eth0".to_owned(), "quad9".to_owned(), [9, 9, 9, 9].into());
    let mut close = Echoes::new(place, at(100), &found);
    w.echoes(at(100), close.clone());
    assert!(!close.is_limited());
    // It is written again when more is known.
    close.events.push(EventId(7));
    close.compare(Regular {
        sent: 10,
        answered: 10,
    });
    assert!(close.is_limited());
    assert_eq!(
        (close.silence_after_ns, close.silence_ns),
        (Some(2 * S), Some(7 * S))
    );
    w.echoes(at(100), close.clone());
    let size = PathSize {
        interface: "eth0".into(),
        target: "quad9".into(),
        address: [9, 9, 9, 9].into(),
        interface_bytes: 1500,
        passes_bytes: 1452,
        larger: Larger::Silent,
        told_by: None,
        direction: Some(Direction::Up),
    };
    w.size(at(70), at(70), 1, size.clone());
    w.size(at(70), at(500_000), 3, size.clone());
    let well = PathSize {
        passes_bytes: 1500,
        larger: Larger::None,
        direction: None,
        ..size.clone()
    };
    w.size(at(50), at(50), 1, well.clone());
    w.commit().unwrap();

    let read = |path: &Path, from, to| {
        let r = Reader::open(path).unwrap();
        let paths = r.paths(from, to).unwrap();
        let looks = r.escalations(from, to).unwrap();
        let echoes = r.echoes(from, to).unwrap();
        (paths, looks, r.sizes(from, to).unwrap(), echoes)
    };
    let all = read(&path, i64::MIN, i64::MAX);
    let known = |first, last, walks, path: &Way| KnownPath {
        first_ns: wall(first),
        last_ns: wall(last),
        walks,
        path: path.clone(),
    };
    assert_eq!(
        all.0,
        [known(60, 500_000, 2, &whole), known(100, 900, 2, &other)]
    );
    let seen = Escalation {
        at_ns: wall(100),
        look,
    };
    assert_eq!(all.1, [seen]);
    let found = |first, last, searches, size: &PathSize| KnownSize {
        first_ns: wall(first),
        last_ns: wall(last),
        searches,
        size: size.clone(),
    };
    let silent = found(70, 500_000, 3, &size);
    assert_eq!(all.2, [found(50, 50, 1, &well), silent.clone()]);
    let close = KnownEchoes {
        at_ns: wall(100),
        echoes: close,
    };
    assert_eq!(all.3, [close]);
    // What began before a range and is seen in it belongs to it.
    let late = read(&path, wall(1000), wall(2000));
    assert_eq!((late.0.len(), late.1.len(), late.3.len()), (1, 0, 0));
    let early = read(&path, wall(0), wall(60));
    assert_eq!((early.0.len(), early.1.len()), (0, 0));

    let copy = dir.path().join("copy.redb");
    Reader::open(&path).unwrap().copy(&copy).unwrap();
    assert_eq!(read(&copy, i64::MIN, i64::MAX), all);

    let retention = Retention {
        samples_ns: None,
        minutes_ns: None,
        hours_ns: Some(86_400 * S),
        events_ns: None,
        max_bytes: None,
    };
    w.enforce_retention(&retention, wall(500_100), Trust::Disciplined)
        .unwrap();
    w.close().unwrap();
    let (paths, looks, sizes, echoes) = read(&path, i64::MIN, i64::MAX);
    assert_eq!(sizes, [silent]);
    assert_eq!(paths, [known(60, 500_000, 2, &whole)]);
    assert_eq!((looks, echoes), (Vec::new(), Vec::new()));
}

/// How many ways there are is up to routers, and so must not cost samples, nor grow without end.
#[test]
fn ways_beyond_their_part_go_by_size_and_the_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let at = |s: u64| Monotonic::from_nanos(s * S);
    let made_up = |n: u64| way(PathEnd::Target, &[[192, 168, 1, 1], [10, 0, 0, n as u8]]);
    for n in 0..4000 {
        w.path(at(n), at(n), 1, made_up(n));
        if n % 2 == 0 {
            let look = Look {
                events: vec![EventId(n)],
                took_ns: S,
                usual_hops: None,
                other_from: None,
                path: made_up(n),
            };
            w.escalation(at(n), look);
            let place = ("eth0".to_owned(), "quad9".to_owned(), [9, 9, 9, 9].into());
            w.echoes(at(n), Echoes::new(place, at(n), &Found::default()));
        }
    }
    w.commit().unwrap();
    let fit = Retention {
        samples_ns: None,
        minutes_ns: None,
        hours_ns: None,
        events_ns: None,
        max_bytes: Some(1 << 20),
    };
    let mut passes = 0;
    loop {
        let report = w.enforce_retention(&fit, 0, Trust::None).unwrap();
        passes += 1;
        // One pass is of bounded length.
        assert!((1..=2048).contains(&report.paths), "{report:?}");
        if !report.unfinished {
            break;
        }
    }
    assert!(passes > 1, "{passes}");
    let again = w.enforce_retention(&fit, 0, Trust::None).unwrap();
    assert_eq!(again.paths, 0);
    w.close().unwrap();
    let r = Reader::open(&path).unwrap();
    let ways = r.paths(i64::MIN, i64::MAX).unwrap();
    let looks = r.escalations(i64::MIN, i64::MAX).unwrap();
    let (first_way, first_look) = (ways[0].first_ns, looks[0].at_ns);
    let close = r.echoes(i64::MIN, i64::MAX).unwrap();
    assert!(first_look.abs_diff(close[0].at_ns) <= 2 * S);
    // Of all the newest are left, from about the same time on.
    assert!(
        first_way.abs_diff(first_look) <= 2 * S,
        "{first_way} {first_look}"
    );
    let last = START_WALL_NS + (3999 * S) as i64;
    assert_eq!(ways[ways.len() - 1].first_ns, last);
    assert!((100..3900).contains(&ways.len()), "{}", ways.len());
}
