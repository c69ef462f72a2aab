//! What is given up, and what is not: at the size limit, by age, on the word of which clock.

use std::path::Path;

use crate::common::{S, START_WALL_NS, everything, info, open, sample, writer};
use crate::rollups::rows;
use bufferbane_core::sample::Sample;
use bufferbane_core::stats::summary::Summary;
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Reader, Retention, Trust, Window, Writer};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

const FOR_EVER: Retention = Retention {
    samples_ns: None,
    minutes_ns: None,
    hours_ns: None,
    events_ns: None,
    max_bytes: None,
};

/// An answered probe.
fn answered(seq: u64, sent_s: u64) -> Sample {
    sample(seq, sent_s * S, Some(1_000_000 + seq * 7919 % 5_000_000))
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

#[test]
fn at_the_size_limit_only_what_does_not_fit_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let (a, b) = (w.series(&info("a")), w.series(&info("b")));
    let end = 100_000;
    for i in 0..end {
        w.record(a, answered(i, i));
        // Fewer, and smaller.
        if i % 4 == 0 {
            let mut s = answered(i / 4, i);
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
    (0..3000).for_each(|i| w.record(id, answered(i, i)));
    w.close().unwrap();
    // A battery-backed clock that is ten years ahead, and no NTP.
    let ahead = 3650 * DAY;
    let mut w = open(&path);
    boot(&mut w, "boot-b", ahead, Trust::Plausible);
    (0..3000).for_each(|i| w.record(id, answered(i, i)));
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
    (0..3000).for_each(|i| w.record(id, answered(i, i)));
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
fn a_block_that_spans_weeks_stays_until_its_last_sample_is_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("hourly"));
    let hours = 1200;
    (0..hours).for_each(|n| w.record(id, answered(n, n * HOUR)));
    w.commit().unwrap();
    let retention = Retention {
        samples_ns: Some(30 * DAY * S),
        ..FOR_EVER
    };
    let blocks = Reader::open(&path).unwrap().check().unwrap().blocks;
    assert_eq!(blocks, 1);
    let mut at = |hour: u64| {
        let now = wall(hour * HOUR);
        let report = w.enforce_retention(&retention, now, Trust::Disciplined);
        (report.unwrap().blocks, everything(&path).len() as u64)
    };
    assert_eq!(at(hours), (0, hours));
    // The last of the block's 1024 is of hour 1023.
    assert_eq!(at(1023 + 30 * 24), (0, hours));
    assert_eq!(at(1024 + 30 * 24), (1, hours - 1024));
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
            w.record(a, answered(i, i));
        }
        if i < 600 {
            w.record(b, answered(i, i));
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
    (last..last + 300).for_each(|i| w.record(a, answered(i, i)));
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
    (0..minutes).for_each(|i| w.record(id, answered(i, i * 60)));
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
fn rollups_say_what_samples_say_when_the_samples_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    let mut truth = Summary::new();
    let hours = 5;
    for i in 0..hours * 3600 {
        // A run of losses across the border between two hours, and one across a minute.
        let lost = (3590..3620).contains(&i) || (655..665).contains(&i) || i % 997 == 0;
        let s = sample(
            i,
            10 * S + i * S,
            (!lost).then_some(20_000_000 + i * 13 % 9_000_000),
        );
        truth.add(&s);
        w.record(id, s);
        if i % 60 == 0 {
            w.commit().unwrap();
        }
    }
    w.commit().unwrap();
    let end = START_WALL_NS + (hours as i64 * 3600 + 100) * S as i64;
    let retention = Retention {
        samples_ns: Some(3600 * S),
        minutes_ns: None,
        hours_ns: None,
        events_ns: None,
        max_bytes: None,
    };
    let report = w.enforce_retention(&retention, end, Trust::None).unwrap();
    assert_eq!(
        report.blocks, 0,
        "nothing is forgotten on the word of a clock nobody trusts"
    );
    let with = Reader::open(&path)
        .unwrap()
        .summary(id, START_WALL_NS, end)
        .unwrap();
    let report = w
        .enforce_retention(&retention, end, Trust::Disciplined)
        .unwrap();
    assert!(report.blocks > 10, "{report:?}");
    for summary in [
        with,
        Reader::open(&path)
            .unwrap()
            .summary(id, START_WALL_NS, end)
            .unwrap(),
    ] {
        assert_eq!((summary.sent, summary.lost), (truth.sent, truth.lost));
        assert_eq!(summary.runs, truth.runs);
        assert_eq!(summary.rtt, truth.rtt);
        assert_eq!(summary.ipdv, truth.ipdv);
    }
    let r = Reader::open(&path).unwrap();
    let buckets = r.buckets(id, START_WALL_NS, end, 50).unwrap();
    assert_eq!(
        buckets.iter().map(|b| b.summary.sent).sum::<u64>(),
        truth.sent
    );
    let all = r.overview(id, START_WALL_NS, end, 90 * S, S).unwrap();
    assert_eq!(all.gaps, []);
    assert_eq!(all.summary.sent, truth.sent);
}

#[test]
fn a_large_file_gives_up_its_oldest_samples_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    for i in 0..40_000u64 {
        w.record(id, sample(i, i * S, Some(1_000_000 + i * 7919 % 5_000_000)));
        if i % 5000 == 0 {
            w.commit().unwrap();
        }
    }
    w.commit().unwrap();
    let now = START_WALL_NS + 40_000 * S as i64;
    // The first limit that is too small.
    let report = (1..100)
        .map(|step| Retention {
            samples_ns: None,
            minutes_ns: None,
            hours_ns: None,
            events_ns: None,
            max_bytes: Some(1_000_000 - step * 10_000),
        })
        .map(|r| w.enforce_retention(&r, now, Trust::Disciplined).unwrap())
        .find(|report| report.blocks + report.minutes > 0)
        .unwrap();
    assert!(report.blocks > 0 && report.minutes == 0, "{report:?}");
    let left = everything(&path);
    assert!(left.last().is_some_and(|(_, _, s)| s.seq == 39_999));
    assert!(left[0].2.seq > 1000);
}
