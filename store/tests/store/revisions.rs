//! What becomes known of a sample after it was recorded.

use bufferbane_core::sample::{Flags, Sample, SeriesIndex, Status};
use bufferbane_core::stats::summary::Summary;
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_store::{Reader, Window};

use crate::common::{S, START_WALL_NS, everything, info, sample, writer};
use crate::rollups::rows;

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
