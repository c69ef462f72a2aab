//! Whatever is done to a store, in whatever order.

use bufferbane_core::sample::{Sample, Status};
use bufferbane_core::stats::summary::Summary;
use bufferbane_store::{Reader, SeriesId};
use proptest::prelude::*;

use crate::common::{S, START_WALL_NS, everything, info, sample, writer};

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
