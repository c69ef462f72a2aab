//! The store as its users see it: written in batches, read beside the writer, killed, refused.

mod common;

use std::path::Path;

use bufferbane_core::clock::{FloorEstimator, Queueing};
use bufferbane_core::sample::{Flags, Sample, SeriesIndex, Status};
use bufferbane_core::stats::summary::Summary;
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_store::{
    Event, Filter, OpenError, Reader, SeriesId, Severity, Trust, Window, Writer, recover,
};
use common::{S, START_WALL_NS, everything, info, open, options, rows, sample, writer};
use proptest::prelude::*;

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

/// A probe every 100 ms that waits `queue` upward, on a line whose clocks are far apart; its floor
/// upward is 10 ms, or 18 ms where `longer`.
fn directed(seq: u64, queue_ns: u64, longer: bool) -> Sample {
    let sent_ns = seq * S / 10 + 1;
    let up_ns = if longer { 18_000_000 } else { 10_000_000 } + queue_ns as i64;
    let mut s = sample(seq, sent_ns, Some(up_ns.unsigned_abs() + 10_000_000));
    s.raw_up_ns = Some(up_ns - 77_000_000_000);
    s.raw_down_ns = Some(10_000_000 + 77_000_000_000);
    s
}

fn queueing(path: &Path) -> Vec<Option<Queueing>> {
    let r = Reader::open(path).unwrap();
    let filter = Filter {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        series: r.series().unwrap().into_keys().collect(),
    };
    let rows = r.samples(&filter).map(Result::unwrap);
    rows.map(|row| row.queueing).collect()
}

#[test]
fn queueing_delay_is_read_from_the_floor_and_corrected_with_it_in_rollups_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    let mut estimator = FloorEstimator::new();
    // Ten minutes of which the fifth is queued; then a longer way, for ten more.
    let queue_ns = |seq| if seq / 600 == 4 { 30_000_000 } else { 0 };
    let mut told_as_queue = 0;
    for seq in 0..12_000 {
        let s = directed(seq, queue_ns(seq), seq >= 6000);
        w.record(id, s);
        estimator.on_sample(&s);
        while let Some(update) = estimator.poll_update() {
            w.floor(id, &update);
        }
        if seq % 600 == 599 {
            w.commit().unwrap();
        }
        if seq == 8399 {
            let last = queueing(&path).last().copied().flatten().unwrap();
            told_as_queue = last.up_ns;
        }
    }
    // Four minutes after the change of route it still looked like a queue.
    assert!(
        told_as_queue.abs_diff(8_000_000) < 10_000,
        "{told_as_queue}"
    );
    w.commit().unwrap();
    let check = |path: &Path| {
        let all = queueing(path);
        assert_eq!(all.len(), 12_000);
        assert!(
            all[..40].iter().all(Option::is_none),
            "nothing is known at once"
        );
        for (seq, q) in all.iter().enumerate().skip(60) {
            let q = q.unwrap();
            let (up, down) = (queue_ns(seq as u64), 0);
            assert!(
                q.up_ns.abs_diff(up) < 10_000 && q.down_ns.abs_diff(down) < 10_000,
                "{seq} {q:?}"
            );
        }
        let r = Reader::open(path).unwrap();
        let whole = r.summary(id, i64::MIN, i64::MAX).unwrap();
        assert!(whole.queue_up.count() > 11_900);
        assert!(whole.queue_up.quantile(0.94).unwrap() < 10_000);
        assert!(whole.queue_up.quantile(0.96).unwrap() > 29_000_000);
        assert!(whole.queue_down.max().unwrap() < 10_000);
        let begin = START_WALL_NS + 600 * S as i64;
        let minutes = r.buckets(id, begin, begin + 600 * S as i64, 5).unwrap();
        for m in minutes {
            assert!(
                m.summary.queue_up.max().unwrap() < 10_000,
                "{}",
                m.from_ns - begin
            );
        }
        let knot = r.floor(id, i64::MIN, i64::MAX).unwrap().unwrap();
        assert!(knot.slope_ppb.abs() < 1000 && knot.quality > 50, "{knot:?}");
    };
    check(&path);
    // A crash, and then a clean end: the same.
    let crashed = dir.path().join("crashed.redb");
    std::fs::copy(&path, &crashed).unwrap();
    recover(&crashed).unwrap();
    drop(open(&crashed));
    check(&crashed);
    w.close().unwrap();
    check(&path);
}

#[test]
fn a_store_of_the_schema_before_is_read_and_written_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    (0..200).for_each(|seq| w.record(id, directed(seq, 0, false)));
    w.close().unwrap();
    let before = everything(&path);
    {
        let db = redb::Database::create(&path).unwrap();
        let tx = db.begin_write().unwrap();
        let floors = redb::TableDefinition::<(u32, u32, u64), &[u8]>::new("floors");
        assert!(tx.delete_table(floors).unwrap());
        let meta = redb::TableDefinition::<&str, u64>::new("bufferbane_meta");
        tx.open_table(meta).unwrap().insert("schema", 1).unwrap();
        tx.commit().unwrap();
    }
    assert_eq!(everything(&path), before);
    assert!(queueing(&path).iter().all(Option::is_none));
    let r = Reader::open(&path).unwrap();
    assert_eq!(r.floor(id, i64::MIN, i64::MAX).unwrap(), None);
    assert_eq!(r.summary(id, i64::MIN, i64::MAX).unwrap().sent, 200);
    drop(r);
    let mut w = writer(&path);
    w.record(id, directed(500, 0, false));
    w.close().unwrap();
    assert_eq!(everything(&path).len(), 201);
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
fn a_loss_learns_its_direction_wherever_it_is_by_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    let lost = [5, 1500, 2995];
    for i in 0..3000 {
        w.record(
            id,
            sample(i, i * S, (!lost.contains(&i)).then_some(7_000_000)),
        );
        if i % 100 == 99 {
            w.commit().unwrap();
        }
    }
    for (seq, status) in lost
        .into_iter()
        .zip([Status::LostUp, Status::LostDown, Status::LostUp])
    {
        let mut s = sample(seq, seq * S, None);
        s.status = status;
        s.flags = Flags::DIRECTION_LATER;
        w.revise(id, s);
    }
    w.commit().unwrap();
    // And one turns out to have been answered late.
    let mut late = sample(5, 5 * S, Some(8 * S));
    late.status = Status::Late;
    w.revise(id, late);
    w.close().unwrap();
    let all = everything(&path);
    let status = |seq: usize| all[seq].2.status;
    assert_eq!(
        (status(5), status(1500), status(2995)),
        (Status::Late, Status::LostDown, Status::LostUp)
    );
    let r = Reader::open(&path).unwrap();
    let exact = r
        .summary(id, START_WALL_NS, START_WALL_NS + 3000 * S as i64)
        .unwrap();
    assert_eq!(
        (exact.lost, exact.lost_up, exact.lost_down, exact.late),
        (2, 1, 1, 1)
    );
    let minutes = r
        .buckets(id, START_WALL_NS, START_WALL_NS + 3000 * S as i64, 10)
        .unwrap();
    let sum = |f: fn(&Summary) -> u64| minutes.iter().map(|b| f(&b.summary)).sum::<u64>();
    assert_eq!(
        (sum(|s| s.lost), sum(|s| s.lost_up), sum(|s| s.late)),
        (2, 1, 1)
    );
}

/// A probe of the run's second series.
fn of_second(seq: u64, sent_s: u64) -> Sample {
    let sent = Monotonic::from_nanos(sent_s * S);
    let mut s = Sample::lost(SeriesIndex(1), seq, sent, 64);
    s.tx_clock = ClockSource::Kernel;
    s.rx_clock = ClockSource::Kernel;
    s.status = Status::Ok;
    s.rtt_ns = Some(1_000_000 + seq * 7919 % 5_000_000);
    s
}

#[test]
fn copies_of_a_reply_count_once_each_when_their_minute_is_summed_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    let mut truth = Summary::new();
    for i in 0..1100 {
        let mut s = of_second(i, i);
        let mut copy = s;
        copy.status = Status::Duplicate;
        let mut later = s;
        if i == 30 {
            s = Sample::lost(SeriesIndex(1), i, s.sent, 64);
            later.status = Status::Late;
            later.rtt_ns = Some(5 * S);
        }
        // Its minute is in rollups by now, and it goes into a block with the next commit.
        if i == 80 {
            w.commit().unwrap();
        }
        w.record(id, s);
        if i < 60 {
            truth.add(&later);
        }
        // Two copies, alike in everything.
        if i % 10 == 5 {
            w.record(id, copy);
            w.record(id, copy);
            if i < 60 {
                truth.add(&copy);
                truth.add(&copy);
            }
        }
    }
    let mut late = of_second(30, 30);
    late.status = Status::Late;
    late.rtt_ns = Some(5 * S);
    w.revise(id, late);
    w.commit().unwrap();
    let minute = rows(&path, Window::Minute, id, 1).remove(0).1;
    let counts = |s: &Summary| (s.sent, s.received, s.late, s.duplicated);
    assert_eq!(counts(&minute), counts(&truth));
    assert_eq!((minute.late, minute.duplicated), (1, 12));
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is recorded, committed, and reopened in whatever order: what comes out is what a
    /// plain list would hold.
    #[test]
    fn the_store_is_a_list(ops in proptest::collection::vec((0u8..12, 1u64..40, 0u64..3), 1..120)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.redb");
        let mut w = writer(&path);
        let mut model: Vec<(SeriesId, Sample)> = Vec::new();
        let mut now = 0;
        let mut seq = 0;
        for (op, n, which) in ops {
            let id = w.series(&info(["a", "b", "c"][which as usize]));
            match op {
                0..=6 => for _ in 0..n {
                    now += n * S / 7 + 1;
                    // Some arrive up to three seconds late, as losses do.
                    let back = if (seq + n) % 5 == 0 { 3 * S } else { 0 };
                    let s = sample(seq, now.saturating_sub(back), (seq % 9 != 0).then_some(seq * 1000 + 1));
                    seq += 1;
                    w.record(id, s);
                    model.push((id, s));
                },
                7 | 8 => { w.commit().unwrap(); }
                9 => {
                    w.close().unwrap();
                    w = writer(&path);
                    now += 20 * S;
                }
                _ => {
                    let lost = model.iter_mut().filter(|(_, s)| s.status == Status::Lost).nth(n as usize);
                    if let Some((id, s)) = lost {
                        s.status = Status::LostUp;
                        w.revise(*id, *s);
                    }
                }
            }
        }
        w.commit().unwrap();
        model.sort_by_key(|(id, s)| (s.sent, *id, s.seq));
        let seen: Vec<(SeriesId, Sample)> = everything(&path).into_iter().map(|(id, _, s)| (id, s)).collect();
        prop_assert_eq!(&seen, &model);
        let r = Reader::open(&path).unwrap();
        for id in r.series().unwrap().into_keys() {
            let mut truth = Summary::new();
            model.iter().filter(|(i, _)| *i == id).for_each(|(_, s)| truth.add(s));
            let whole = r.summary(id, i64::MIN, i64::MAX).unwrap();
            prop_assert_eq!((whole.sent, whole.lost, whole.lost_up), (truth.sent, truth.lost, truth.lost_up));
            let mut minutes = Summary::new();
            for b in r.buckets(id, START_WALL_NS, START_WALL_NS + now as i64 + 3600 * S as i64, 4).unwrap() {
                minutes.merge(&b.summary);
            }
            prop_assert_eq!((minutes.sent, minutes.lost, minutes.lost_up), (truth.sent, truth.lost, truth.lost_up));
            prop_assert_eq!(minutes.rtt, truth.rtt);
        }
    }
}
