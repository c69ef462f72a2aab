//! What is read of what was recorded, and when that was.

use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, Reader, Severity, Trust, Window};

use crate::common::{S, START_WALL_NS, everything, info, open, sample, writer};

#[test]
fn samples_are_read_beside_the_writer_and_after_it_with_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let (a, b) = (w.series(&info("a")), w.series(&info("b")));
    assert_eq!(w.series(&info("a")), a);
    for i in 0..5000 {
        w.record(a, sample(i, i * S, (i % 50 != 7).then_some(20_000_000 + i)));
        w.record(b, sample(i, i * S + 5, Some(1_000_000)));
        if i % 60 == 0 {
            w.commit().unwrap();
        }
    }
    w.commit().unwrap();
    let beside = everything(&path);
    assert_eq!(beside.len(), 10_000);
    assert!(beside.is_sorted_by_key(|(_, wall, _)| *wall));
    let r = Reader::open(&path).unwrap();
    let range = (START_WALL_NS, START_WALL_NS + 5000 * S as i64);
    let before = r.summary(a, range.0, range.1).unwrap();
    assert_eq!(
        (before.sent, before.lost, before.runs.count()),
        (5000, 100, 100)
    );
    drop(r);
    w.close().unwrap();
    assert_eq!(everything(&path), beside);
    let r = Reader::open(&path).unwrap();
    assert_eq!(r.summary(a, range.0, range.1).unwrap(), before);
    let report = r.check().unwrap();
    assert_eq!((report.series, report.samples), (2, 10_000));
}

#[test]
fn gaps_and_narrow_buckets_do_not_vanish_within_an_hour() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    let gap = 5000..5900;
    for i in (0..6 * 3600).filter(|i| !gap.contains(i)) {
        w.record(id, sample(i, i * S, Some(1_000_000)));
    }
    w.close().unwrap();
    let r = Reader::open(&path).unwrap();
    let wall = |i: u64| START_WALL_NS + (i * S) as i64;
    let all = r.overview(id, wall(0), wall(6 * 3600), 120 * S, S).unwrap();
    assert_eq!(all.extent, Some((wall(0), wall(6 * 3600 - 1))));
    assert_eq!(all.summary.sent, 6 * 3600 - 900);
    let gaps = all.gaps;
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].from_ns, gaps[0].to_ns), (wall(4999), wall(5900)));
    assert_eq!(
        r.extent(id, wall(10), wall(6 * 3600)).unwrap(),
        Some((wall(10), wall(6 * 3600 - 1)))
    );
    assert_eq!(r.extent(id, wall(5000), wall(5900)).unwrap(), None);
    let hourly = r.hourly(id, wall(0), wall(6 * 3600)).unwrap();
    assert!(hourly.windows(2).all(|w| w[0].to_ns <= w[1].from_ns));
    assert!(
        hourly
            .iter()
            .all(|b| b.to_ns - b.from_ns <= 3600 * S as i64)
    );
    let sent = hourly.iter().map(|b| b.summary.sent).sum::<u64>();
    assert_eq!(sent, 6 * 3600 - 900);
    let buckets = r.buckets(id, wall(0), wall(6 * 3600), 24).unwrap();
    let sent: Vec<u64> = buckets.iter().map(|b| b.summary.sent).collect();
    // A bucket of 15 minutes; the gap empties most of two of them.
    assert!(sent.iter().all(|n| *n > 0 && *n <= 900), "{sent:?}");
    assert_eq!(sent.iter().filter(|n| **n == 900).count(), 22, "{sent:?}");

    let (mut begin, mut minutes, mut rolled) = (0, 0, 0);
    loop {
        let rows = r.rollups(Window::Minute, id, 1, begin..u64::MAX).unwrap();
        let Some((last, _)) = rows.last() else { break };
        begin = last + 1;
        minutes += rows.len();
        rolled += rows.iter().map(|(_, s)| s.sent).sum::<u64>();
    }
    assert_eq!((minutes, rolled), (6 * 60 - 14, 6 * 3600 - 900));
    assert!(
        r.rollups(Window::Hour, id, 1, 0..Window::Hour.length_ns())
            .is_ok_and(|rows| rows.len() == 1)
    );
}

#[test]
fn an_hour_that_is_over_hides_no_sample_that_is_in_no_block_yet() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    // Ten minutes before the hour and one after it: fewer samples than a block holds.
    for i in 3000..3660 {
        w.record(id, sample(i, i * S, Some(1_000_000)));
    }
    w.commit().unwrap();
    let r = Reader::open(&path).unwrap();
    let rolled = r.rollups(Window::Minute, id, 1, 0..u64::MAX).unwrap();
    assert_eq!(rolled.len(), 10);
    let wall = |i: u64| START_WALL_NS + (i * S) as i64;
    let buckets = r.buckets(id, wall(3000), wall(3660), 660).unwrap();
    let sent: Vec<u64> = buckets.iter().map(|b| b.summary.sent).collect();
    assert!(sent.iter().all(|n| *n == 1), "{sent:?}");
    // Within a minute, too.
    let inner = r.summary(id, wall(3330), wall(3350)).unwrap();
    assert_eq!(inner.sent, 20);
}

#[test]
fn a_router_that_boots_in_1970_misplaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = open(&path);
    w.begin_boot("b", Monotonic::from_nanos(S), 1, Trust::None)
        .unwrap();
    let id = w.series(&info("a"));
    w.record(id, sample(0, 10 * S, Some(5)));
    w.commit().unwrap();
    w.anchor(
        Monotonic::from_nanos(60 * S),
        START_WALL_NS + 60 * S as i64,
        Trust::Disciplined,
    );
    w.record(id, sample(1, 70 * S, Some(5)));
    let mut event = Event::new(
        "clock_step",
        Severity::Info,
        w.boot(),
        Monotonic::from_nanos(60 * S),
        "x".into(),
    );
    event.end_ns = Some(60 * S);
    w.event(event);
    w.close().unwrap();
    let walls: Vec<i64> = everything(&path).iter().map(|(_, w, _)| *w).collect();
    assert_eq!(
        walls,
        [START_WALL_NS + 10 * S as i64, START_WALL_NS + 70 * S as i64]
    );
    let r = Reader::open(&path).unwrap();
    assert_eq!(
        r.events(START_WALL_NS, START_WALL_NS + 100 * S as i64)
            .unwrap()
            .len(),
        1
    );
    assert_eq!(r.events(0, START_WALL_NS).unwrap().len(), 0);
    assert_eq!(r.span().unwrap(), Some((walls[0], walls[1] + 1)));
}
