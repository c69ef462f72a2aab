//! What is found by its time, and what is no longer there.

use std::path::Path;

use bufferbane_core::sample::{Sample, SeriesIndex};
use bufferbane_core::time::Monotonic;
use redb::{Database, ReadableDatabase};

use super::*;
use crate::common::{S, START_WALL_NS as WALL_NS, info, open};
use crate::tables::SCHEMA;
use crate::{Retention, Severity, Trust};

const FOR_EVER: Retention = Retention {
    samples_ns: None,
    minutes_ns: None,
    hours_ns: None,
    events_ns: None,
    max_bytes: None,
};

const fn at(s: u64) -> Monotonic {
    Monotonic::from_nanos(s * S)
}

const fn wall(s: i64) -> i64 {
    WALL_NS + s * S as i64
}

fn event(boot: u32, start_s: u64, end_s: Option<u64>) -> Event {
    let text = "t".repeat(200);
    let mut event = Event::new("outage", Severity::Warning, boot, at(start_s), text);
    event.end_ns = end_s.map(|s| s * S);
    event
}

/// The starts in seconds of what touches these seconds of wall time.
fn starts(path: &Path, from_s: i64, to_s: i64) -> Vec<u64> {
    let events = Reader::open(path)
        .unwrap()
        .events(wall(from_s), wall(to_s))
        .unwrap();
    events.iter().map(|(_, e)| e.start_ns / S).collect()
}

/// Two boots; the clock of the first goes back by an hour after 5000 s. A third has no clock.
fn three_boots(path: &Path) -> Vec<Event> {
    let mut all = Vec::new();
    for (boot, begin_s) in [(1, 0), (2, 20_000)] {
        let mut w = open(path);
        w.begin_boot(&boot.to_string(), at(0), wall(begin_s), Trust::Disciplined)
            .unwrap();
        for n in 0..100 {
            let start_s = n * 97;
            // Some last long, and end among others.
            let lasts_s = if n % 10 == 3 { 4000 } else { n % 50 };
            let id = w.event(event(boot, start_s, None));
            if n % 3 == 0 {
                w.commit().unwrap();
            }
            let over = event(boot, start_s, Some(start_s + lasts_s));
            w.update_event(id, over.clone());
            all.push(over);
        }
        if boot == 1 {
            w.anchor(at(5000), wall(1400), Trust::Disciplined);
        }
        w.close().unwrap();
    }
    let db = Database::open(path).unwrap();
    let tx = db.begin_write().unwrap();
    let unknown = event(3, 50, Some(60));
    write(&tx, [(&EventId(1000), &unknown)].into_iter()).unwrap();
    all.push(unknown);
    tx.commit().unwrap();
    all
}

/// What [`Reader::events`] is to say.
fn touching(path: &Path, all: &[Event], from_s: i64, to_s: i64) -> Vec<u64> {
    let r = Reader::open(path).unwrap();
    let map = r.time_map();
    let touches = |e: &&Event| {
        let wall_of = |ns| map.wall_ns(e.boot, ns);
        wall_of(e.start_ns).is_none_or(|s| s < wall(to_s))
            && e.end_ns.and_then(wall_of).is_none_or(|e| e >= wall(from_s))
    };
    let found = all.iter().filter(touches);
    found.map(|e| e.start_ns / S).collect()
}

fn agree(path: &Path, all: &[Event]) {
    for from_s in (-2000..32_000).step_by(611) {
        for lasts_s in [1, 60, 3000, 40_000] {
            let to_s = from_s + lasts_s;
            assert_eq!(
                starts(path, from_s, to_s),
                touching(path, all, from_s, to_s),
                "{from_s} to {to_s}"
            );
        }
    }
    assert_eq!(starts(path, -9_000_000, 9_000_000).len(), all.len());
}

#[test]
fn what_touches_a_stretch_is_found_by_its_time_as_it_was_by_reading_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let all = three_boots(&path);
    agree(&path, &all);
    let checked = Reader::open(&path).unwrap().check().unwrap();
    assert_eq!(checked.events, 201);
}

#[test]
fn what_does_not_touch_it_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = open(&path);
    w.begin_boot("a", at(0), WALL_NS, Trust::Disciplined)
        .unwrap();
    for n in 0..10 {
        w.event(event(1, 100 * n, Some(100 * n + 10)));
    }
    w.close().unwrap();
    let db = Database::open(&path).unwrap();
    let tx = db.begin_write().unwrap();
    tx.open_table(EVENTS).unwrap().insert(4, &b"?"[..]).unwrap();
    tx.commit().unwrap();
    drop(db);
    assert_eq!(starts(&path, 500, 10_000), [500, 600, 700, 800, 900]);
    assert_eq!(starts(&path, 0, 400), [0, 100, 200, 300]);
    let r = Reader::open(&path).unwrap();
    assert!(r.events(wall(300), wall(600)).is_err());
    // Nor does it keep the next run from recording.
    drop(r);
    drop(open(&path));
}

/// Makes the file one of schema 7.
fn downgrade(path: &Path) {
    let db = Database::open(path).unwrap();
    let tx = db.begin_write().unwrap();
    assert!(tx.delete_table(EVENT_TIMES).unwrap());
    tx.open_table(META).unwrap().insert("schema", 7).unwrap();
    tx.commit().unwrap();
}

#[test]
fn a_file_of_the_schema_before_keeps_every_event_read_copied_and_written_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut all = three_boots(&path);
    // A run that was killed left one open.
    let mut w = open(&path);
    w.begin_boot("2", at(30_000), wall(50_000), Trust::Disciplined)
        .unwrap();
    w.event(event(2, 29_990, None));
    w.commit().unwrap();
    drop(w);
    all.push(event(2, 29_990, None));
    downgrade(&path);
    agree(&path, &all);
    let copy = dir.path().join("copy.redb");
    Reader::open(&path).unwrap().copy(&copy).unwrap();
    for path in [&path, &copy] {
        agree(path, &all);
        drop(open(path));
        let db = Database::open(path).unwrap();
        let tx = db.begin_read().unwrap();
        let meta = tx.open_table(META).unwrap();
        assert_eq!(meta.get("schema").unwrap().unwrap().value(), SCHEMA);
        drop((meta, tx, db));
        assert!(Reader::open(path).unwrap().check().is_ok());
        // What was open is over where its run ended.
        let mut all = all.clone();
        if let Some(open) = all.last_mut() {
            open.end_ns = Some(30_000 * S);
        }
        agree(path, &all);
    }
}

#[test]
fn what_is_over_for_long_goes_and_its_number_is_not_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = open(&path);
    w.begin_boot("a", at(0), WALL_NS, Trust::Disciplined)
        .unwrap();
    let lasts = w.event(event(1, 5, None));
    for n in 0..9 {
        w.event(event(1, 100 * n, Some(100 * n + 50)));
    }
    w.commit().unwrap();
    let keep = |s: u64| Retention {
        events_ns: Some(s * S),
        ..FOR_EVER
    };
    // A clock that nobody disciplines takes nothing.
    let mut pass = |seconds, now_s, trust| {
        let keep = keep(seconds);
        w.enforce_retention(&keep, wall(now_s), trust)
            .unwrap()
            .events
    };
    assert_eq!(pass(300, 10_000, Trust::Plausible), 0);
    assert_eq!(pass(600, 1000, Trust::Disciplined), 4);
    assert_eq!(starts(&path, 0, 1000), [5, 400, 500, 600, 700, 800]);
    assert_eq!(pass(60, 10_000, Trust::Disciplined), 5);
    assert_eq!(starts(&path, 0, 1000), [5]);
    w.update_event(lasts, event(1, 5, Some(6)));
    w.commit().unwrap();
    assert_eq!(w.prune(&keep(60), wall(1000)).unwrap().events, 1);
    w.close().unwrap();
    assert_eq!(starts(&path, 0, 1000), [0; 0]);
    let mut w = open(&path);
    assert_eq!(w.event(event(1, 1, Some(2))), EventId(10));
}

#[test]
fn events_take_their_part_of_the_file_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = open(&path);
    w.begin_boot("a", at(0), WALL_NS, Trust::Disciplined)
        .unwrap();
    w.event(event(1, 1, None));
    let line = w.series(&info("a"));
    for n in 0..30_000 {
        w.event(event(1, n, Some(n + 1)));
        w.record(line, Sample::lost(SeriesIndex(0), n, at(n), 64));
    }
    w.commit().unwrap();
    let size = w.file_bytes();
    let mut pass = |max_bytes| {
        let keep = Retention {
            max_bytes: Some(max_bytes),
            ..FOR_EVER
        };
        w.enforce_retention(&keep, wall(0), Trust::None).unwrap()
    };
    assert_eq!(pass(size).events, 0);
    // One pass is of bounded length; so many bring all there is below the limit.
    let max_bytes = size / 2;
    let first = pass(max_bytes);
    assert!(first.unfinished && first.events == 2048, "{first:?}");
    loop {
        let next = pass(max_bytes);
        assert_eq!(next.blocks, 0, "a sample went for events");
        if !next.unfinished {
            break;
        }
    }
    w.close().unwrap();
    let left = starts(&path, 0, 100_000);
    assert!((2000..20_000).contains(&left.len()), "{}", left.len());
    // What lasts is there, and else the latest.
    assert_eq!((left[0], left.last()), (1, Some(&29_999)));
    assert!(left[1] > 10_000);
}
