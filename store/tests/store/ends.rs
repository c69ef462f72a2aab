//! Runs that are killed or end in order, and files that are not opened.

use std::path::Path;

use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, OpenError, Reader, Severity, Window, Writer, recover};

use crate::common::{S, START_WALL_NS, everything, info, open, options, sample, writer};

/// A second run within the same boot is killed before it has rolled up anything.
#[test]
fn what_a_run_before_rolled_up_is_not_counted_again_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut next = 0;
    for until_s in [990, 1100, 1130] {
        let mut w = writer(&path);
        let id = w.series(&info("a"));
        for i in next..until_s {
            w.record(id, sample(i, i * S, Some(20_000_000)));
        }
        next = until_s;
        w.commit().unwrap();
        if until_s == 990 {
            w.close().unwrap();
        }
    }
    writer(&path).close().unwrap();
    let r = Reader::open(&path).unwrap();
    let id = *r.series().unwrap().keys().next().unwrap();
    assert_eq!(r.check().unwrap().samples, next);
    let boot = 1;
    let mut sent = 0;
    for minute in 0..60 {
        let range = minute * 60 * S..(minute + 1) * 60 * S;
        let rows = r.rollups(Window::Minute, id, boot, range).unwrap();
        sent += rows.iter().map(|(_, m)| m.sent).sum::<u64>();
    }
    assert_eq!(sent, next);
}

#[test]
fn what_was_committed_survives_a_crash_and_what_was_not_is_all_that_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    for i in 0..100 {
        w.record(id, sample(i, i * S, Some(1_000_000)));
    }
    w.commit().unwrap();
    w.record(id, sample(100, 100 * S, Some(1_000_000)));
    // What a power cut leaves: the file as it is, with the writer never closed.
    let copy = dir.path().join("copy.redb");
    std::fs::copy(&path, &copy).unwrap();
    assert!(matches!(
        Reader::open(&copy),
        Err(OpenError::NeedsRecovery(_))
    ));
    recover(&copy).unwrap();
    assert_eq!(everything(&copy).len(), 100);
    let mut again = writer(&copy);
    let id = again.series(&info("a"));
    again.record(id, sample(0, 130 * S, None));
    again.commit().unwrap();
    assert_eq!(everything(&copy).len(), 101);
    let r = Reader::open(&copy).unwrap();
    let summary = r
        .summary(id, START_WALL_NS, START_WALL_NS + 1000 * S as i64)
        .unwrap();
    assert_eq!((summary.sent, summary.lost), (101, 1));
    assert!(matches!(
        Writer::open(&copy, options()),
        Err(OpenError::Busy(_))
    ));
}

#[test]
fn events_end_with_what_recorded_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    let event = |kind, s: u64| {
        let at = Monotonic::from_nanos(s * S);
        Event::new(kind, Severity::Warning, 1, at, String::new())
    };
    let ends = |path: &Path| -> Vec<Option<u64>> {
        let events = Reader::open(path).unwrap().events(i64::MIN, i64::MAX);
        events.unwrap().iter().map(|(_, e)| e.end_ns).collect()
    };
    let over = w.event(event("outage", 10));
    w.event(event("high_jitter", 20));
    let mut ended = event("outage", 10);
    ended.end_ns = Some(15 * S);
    w.update_event(over, ended);
    for i in 0..100 {
        w.record(id, sample(i, i * S, Some(1_000_000)));
    }
    w.commit().unwrap();
    assert_eq!(ends(&path), [Some(15 * S), None]);
    // Killed: what was open ends where its run's records do.
    let killed = dir.path().join("killed.redb");
    std::fs::copy(&path, &killed).unwrap();
    drop(open(&killed));
    assert_eq!(ends(&killed), [Some(15 * S), Some(99 * S)]);
    // Ended in order: when that was.
    w.end_events(Monotonic::from_nanos(101 * S));
    w.close().unwrap();
    assert_eq!(ends(&path), [Some(15 * S), Some(101 * S)]);
    drop(open(&path));
    assert_eq!(ends(&path), [Some(15 * S), Some(101 * S)]);
}

#[test]
fn foreign_and_damaged_files_are_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let other = dir.path().join("other.redb");
    {
        let db = redb::Database::create(&other).unwrap();
        let tx = db.begin_write().unwrap();
        tx.open_table(redb::TableDefinition::<u32, u32>::new("t"))
            .unwrap();
        tx.commit().unwrap();
    }
    let mut damaged = b"redb\x1A\x0A\xA9\x0D\x0A".to_vec();
    damaged.resize(8192, 0x5a);
    for bytes in [
        b"a letter to my provider".to_vec(),
        b"x".to_vec(),
        damaged,
        std::fs::read(&other).unwrap(),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        for error in [
            Writer::open(&path, options()).map(drop).unwrap_err(),
            Reader::open(&path).map(drop).unwrap_err(),
        ] {
            assert!(
                matches!(error, OpenError::Foreign(_) | OpenError::Corrupt { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("untouched"), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    assert!(matches!(
        Reader::open(&dir.path().join("none")),
        Err(OpenError::Missing(_))
    ));
}
