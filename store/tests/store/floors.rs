//! Queueing delay, from the floor of delays that is stored beside samples.

use std::path::Path;

use bufferbane_core::clock::{FloorEstimator, Queueing};
use bufferbane_core::sample::Sample;
use bufferbane_store::{Filter, Reader, recover};

use crate::common::{S, START_WALL_NS, everything, info, open, sample, writer};

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
