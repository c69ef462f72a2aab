//! What is given up, and what is not: at the size limit, by age, on the word of which clock.

use std::path::Path;

use bufferbane_core::sample::{Sample, SeriesIndex, Status};
use bufferbane_core::stats::summary::Summary;
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_store::{
    Reader, Retention, SeriesId, SeriesInfo, SeriesKind, Trust, Window, Writer, WriterOptions,
};

const S: u64 = 1_000_000_000;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const START_WALL_NS: i64 = 1_790_000_000 * S as i64;

const FOR_EVER: Retention = Retention {
    samples_ns: None,
    minutes_ns: None,
    hours_ns: None,
    max_bytes: None,
};

fn info(target: &str) -> SeriesInfo {
    SeriesInfo {
        interface: "eth0".into(),
        interface_kind: "wired".into(),
        target: target.into(),
        kind: SeriesKind::Icmp,
        family: 4,
        dscp: 0,
        size: 64,
        interval_ns: S,
        address: "192.0.2.1".into(),
    }
}

/// A probe of the run's second series.
fn sample(seq: u64, sent_s: u64) -> Sample {
    let sent = Monotonic::from_nanos(sent_s * S);
    let mut s = Sample::lost(SeriesIndex(1), seq, sent, 64);
    s.tx_clock = ClockSource::Kernel;
    s.rx_clock = ClockSource::Kernel;
    s.status = Status::Ok;
    s.rtt_ns = Some(1_000_000 + seq * 7919 % 5_000_000);
    s
}

fn open(path: &Path) -> Writer {
    let options = WriterOptions {
        min_free_bytes: 0,
        ..WriterOptions::default()
    };
    Writer::open(path, options).unwrap()
}

fn writer(path: &Path) -> Writer {
    let mut w = open(path);
    boot(&mut w, "boot-a", 0, Trust::Disciplined);
    w
}

fn wall(at_s: u64) -> i64 {
    START_WALL_NS + (at_s * S) as i64
}

fn boot(w: &mut Writer, id: &str, wall_s: u64, trust: Trust) {
    w.begin_boot(id, Monotonic::ZERO, wall(wall_s), trust)
        .unwrap();
}

/// Bytes of the pages that the closed file at `path` uses.
fn used_bytes(path: &Path) -> u64 {
    let db = redb::Database::open(path).unwrap();
    let tx = db.begin_write().unwrap();
    let stats = tx.stats().unwrap();
    stats.allocated_pages() * stats.page_size() as u64
}

fn rows(path: &Path, window: Window, id: SeriesId, boot: u32) -> Vec<(u64, Summary)> {
    let r = Reader::open(path).unwrap();
    let (mut rows, mut from) = (Vec::new(), 0);
    loop {
        let more = r.rollups(window, id, boot, from..u64::MAX).unwrap();
        let Some((last, _)) = more.last() else {
            return rows;
        };
        from = last + 1;
        rows.extend(more);
    }
}

#[test]
fn at_the_size_limit_only_what_does_not_fit_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let (a, b) = (w.series(&info("a")), w.series(&info("b")));
    let end = 100_000;
    for i in 0..end {
        w.record(a, sample(i, i));
        // Fewer, and smaller.
        if i % 4 == 0 {
            let mut s = sample(i / 4, i);
            s.rtt_ns = Some(1_000_000 + i % 64);
            w.record(b, s);
        }
        if i % 2000 == 0 {
            w.commit().unwrap();
        }
    }
    w.close().unwrap();
    let before = used_bytes(&path);
    let blocks = Reader::open(&path).unwrap().check().unwrap().blocks;
    assert!(blocks > 100, "{blocks}");

    let max_bytes = before / 20 * 19;
    let retention = Retention {
        max_bytes: Some(max_bytes),
        ..FOR_EVER
    };
    let mut w = writer(&path);
    let mut pass = || {
        // The limit holds whatever the clock says.
        w.enforce_retention(&retention, wall(end), Trust::None)
            .unwrap()
    };
    let first = pass();
    assert!(
        (blocks / 10..=blocks / 3).contains(&first.blocks) && first.minutes == 0,
        "{first:?} of {blocks}"
    );
    let later: u64 = (0..10).map(|_| pass().blocks).sum();
    assert!(later <= 2, "{later} more went with nothing new");
    w.close().unwrap();
    let after = used_bytes(&path);
    assert!(
        after <= max_bytes + max_bytes / 10 && after >= max_bytes / 10 * 9,
        "{after} of {max_bytes}, {before} before"
    );
    // The oldest of either went.
    let r = Reader::open(&path).unwrap();
    for id in [a, b] {
        let rows = r.samples(&bufferbane_store::Filter {
            from_ns: i64::MIN,
            to_ns: i64::MAX,
            series: vec![id],
        });
        let sent: Vec<u64> = rows.map(|r| r.unwrap().sample.sent.as_nanos()).collect();
        assert!((5_000 * S..50_000 * S).contains(&sent[0]), "{}", sent[0]);
        assert!(sent[sent.len() - 1] > (end - 5) * S);
    }
}

#[test]
fn a_clock_that_nobody_disciplines_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    (0..3000).for_each(|i| w.record(id, sample(i, i)));
    w.close().unwrap();
    // A battery-backed clock that is ten years ahead, and no NTP.
    let ahead = 3650 * DAY;
    let mut w = open(&path);
    boot(&mut w, "boot-b", ahead, Trust::Plausible);
    (0..3000).for_each(|i| w.record(id, sample(i, i)));
    w.commit().unwrap();
    let retention = Retention {
        samples_ns: Some(30 * DAY * S),
        minutes_ns: Some(30 * DAY * S),
        ..FOR_EVER
    };
    let given_up = w
        .enforce_retention(&retention, wall(ahead + 3000), Trust::Plausible)
        .unwrap();
    assert_eq!(given_up.blocks + given_up.minutes, 0, "{given_up:?}");
    w.close().unwrap();

    // The right time again: two days after the first boot, nothing is old yet.
    let mut w = open(&path);
    boot(&mut w, "boot-c", 2 * DAY, Trust::Disciplined);
    (0..3000).for_each(|i| w.record(id, sample(i, i)));
    w.commit().unwrap();
    let mut at = |day: u64| {
        let now = wall(day * DAY);
        w.enforce_retention(&retention, now, Trust::Disciplined)
            .unwrap()
            .blocks
    };
    assert_eq!(at(3), 0);
    // First the first boot; that of the wrong clock when the one after it is old.
    assert_eq!(at(31), 3);
    assert_eq!(at(31), 0);
    assert!(at(33) >= 3);
    w.close().unwrap();
    assert_eq!(rows(&path, Window::Minute, id, 2).len(), 0);
}

#[test]
fn every_minute_is_in_an_hour_before_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let (a, b) = (w.series(&info("a")), w.series(&info("b")));
    // Silence from the 50th minute of each hour until the fifth of the next one but one; b ends early.
    for i in 0..6 * HOUR {
        let minute = i / 60 % 120;
        if (5..50).contains(&minute) {
            w.record(a, sample(i, i));
        }
        if i < 600 {
            w.record(b, sample(i, i));
        }
        if i % 60 == 0 {
            w.commit().unwrap();
        }
        if i == 3 * HOUR {
            // While the run goes on.
            let told = |id| rows(&path, Window::Hour, id, 1);
            assert_eq!((told(a).len(), told(b).len()), (1, 1));
        }
    }
    w.close().unwrap();
    let check = |hours: usize| {
        let found = rows(&path, Window::Hour, a, 1);
        assert_eq!(found.len(), hours);
        assert!(found.iter().all(|(_, hour)| hour.sent == 45 * 60));
        assert_eq!(rows(&path, Window::Hour, b, 1)[0].1.sent, 600);
    };
    check(3);

    // A run of the same boot after that adds to the hour that was running.
    let mut w = writer(&path);
    let last = 4 * HOUR + 50 * 60;
    (last..last + 300).for_each(|i| w.record(a, sample(i, i)));
    w.close().unwrap();
    assert_eq!(rows(&path, Window::Hour, a, 1)[2].1.sent, 45 * 60 + 300);

    // A file of a version that left hours out.
    {
        let db = redb::Database::open(&path).unwrap();
        let tx = db.begin_write().unwrap();
        let hours = redb::TableDefinition::<(u32, u32, u64), &[u8]>::new("rollup_1h");
        let mut table = tx.open_table(hours).unwrap();
        table.retain(|_, _| false).unwrap();
        drop(table);
        tx.commit().unwrap();
    }
    let mut w = writer(&path);
    let retention = Retention {
        minutes_ns: Some(DAY * S),
        ..FOR_EVER
    };
    let given_up = w
        .enforce_retention(&retention, wall(3 * DAY), Trust::Disciplined)
        .unwrap();
    assert_eq!(given_up.minutes, 3 * 45 + 5 + 10);
    w.close().unwrap();
    let sent: Vec<u64> = rows(&path, Window::Hour, a, 1)
        .iter()
        .map(|(_, hour)| hour.sent)
        .collect();
    assert_eq!(sent, [45 * 60, 45 * 60, 45 * 60 + 300]);
    assert_eq!(rows(&path, Window::Hour, b, 1)[0].1.sent, 600);
}

#[test]
fn a_pass_is_bounded_and_says_that_there_is_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    let minutes = 3000;
    (0..minutes).for_each(|i| w.record(id, sample(i, i * 60)));
    w.close().unwrap();
    let mut w = writer(&path);
    let retention = Retention {
        minutes_ns: Some(DAY * S),
        ..FOR_EVER
    };
    let now = wall(minutes * 60 + 2 * DAY);
    let mut pass = || {
        let report = w.enforce_retention(&retention, now, Trust::Disciplined);
        let report = report.unwrap();
        (report.minutes, report.unfinished)
    };
    assert_eq!(pass(), (2048, true));
    assert_eq!(pass(), (952, false));
    assert_eq!(pass(), (0, false));
    w.close().unwrap();
    let hours = rows(&path, Window::Hour, id, 1);
    assert_eq!(hours.iter().map(|(_, h)| h.sent).sum::<u64>(), minutes);
}

#[test]
fn copies_of_a_reply_count_once_each_when_their_minute_is_summed_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    let mut truth = Summary::new();
    for i in 0..1100 {
        let mut s = sample(i, i);
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
    let mut late = sample(30, 30);
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
fn a_disk_that_is_called_full_is_written_to_when_less_has_to_stay_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    w.set_min_free_bytes(u64::MAX);
    w.record(id, sample(0, 0));
    assert!(w.commit().is_err_and(|e| e.is_full()));
    w.set_min_free_bytes(0);
    assert_eq!(w.commit().unwrap().samples, 1);
}
