//! What must hold of a summary.

use super::*;
use crate::record::tests::sample_strategy;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn build(samples: &[Sample]) -> Summary {
    let mut s = Summary::new();
    for x in samples {
        s.add(x);
        if let (Some(up), Some(down)) = (x.raw_up_ns, x.raw_down_ns) {
            let queueing = Queueing {
                up_ns: up.unsigned_abs(),
                down_ns: down.unsigned_abs(),
                err_ns: 0,
                quality: 100,
            };
            s.add_queueing(x, &queueing);
        }
    }
    s
}

/// Probes from number `from` on that are answered after these times, ms.
fn answered(from: u64, rtts_ms: &[u64]) -> Summary {
    let mut s = Summary::new();
    for (seq, ms) in (from..).zip(rtts_ms) {
        let sent = Monotonic::from_nanos(seq);
        let mut x = Sample::lost(Default::default(), seq, sent, 128);
        x.status = Status::Ok;
        x.rtt_ns = Some(ms * 1_000_000);
        s.add(&x);
    }
    s
}

/// The bytes that an earlier version wrote of a summary without queueing delays, changes on the
/// way and reordering.
fn as_version(version: u8, mut s: Summary) -> Vec<u8> {
    s.jitter = None;
    let mut bytes = vec![0; MAX_ENCODED];
    let len = s.encode(&mut bytes).unwrap();
    // Version 2 brought two histograms and three times what was seen, version 3 a count, version 5
    // two.
    let absent = [0, 2 + 9 + 1, 1, 0, 0][usize::from(version)] + 2;
    bytes.truncate(len - absent);
    bytes[0] = version;
    bytes
}

#[test]
fn what_earlier_versions_wrote_is_still_read() {
    for version in 1..FORMAT {
        let mut s = answered(7, &[10, 14, 11]);
        let bytes = as_version(version, s.clone());
        s.jitter = None;
        assert_eq!(Summary::decode(&bytes), Some(s), "{version}");
        assert_eq!(Summary::decode(&bytes[..bytes.len() - 1]), None);
        // One of which nothing was answered has no jitter, which is known.
        let nothing = as_version(version, Summary::new());
        assert_eq!(Summary::decode(&nothing), Some(Summary::new()));
    }
}

#[test]
fn jitter_is_that_of_the_part_that_knows_it() {
    let old = Summary::decode(&as_version(3, answered(0, &[10, 90]))).unwrap();
    let (a, b) = (answered(2, &[20, 24, 21]), answered(5, &[25, 20]));
    let mut new = a.clone();
    new.merge(&b);
    assert_eq!(new.jitter.map(|j| j.pairs()), Some(4));
    let mut from_the_left = old.clone();
    from_the_left.merge(&a);
    from_the_left.merge(&b);
    let mut from_the_right = old.clone();
    from_the_right.merge(&new);
    assert_eq!(from_the_left.jitter, new.jitter);
    assert_eq!(from_the_right.jitter, new.jitter);
    let mut joined = Summary::new();
    joined.merge(&old);
    assert_eq!(joined.jitter, None);
}

#[test]
fn jitter_goes_over_losses_and_ipdv_does_not() {
    let mut s = answered(0, &[10]);
    s.merge(&answered(5, &[26]));
    assert_eq!(s.ipdv.count(), 0);
    assert_eq!(s.jitter.and_then(|j| j.last_ns()), Some(1_000_000));
}

#[test]
fn short_queues_are_rounded_and_long_ones_are_not() {
    for (ns, to) in [
        (0, 0),
        (8_191, 0),
        (8_192, 16_384),
        (131_000, 131_072),
        (140_000, 139_264),
        (7_900_000, 7_864_320),
        (8_388_607, 8_388_608),
        (8_400_001, 8_400_001),
        (180_000_123, 180_000_123),
    ] {
        assert_eq!(coarse_ns(ns), to);
    }
}

#[test]
fn what_changes_on_the_way_is_counted_over_borders() {
    let seen = |values: &[Option<u8>]| {
        let mut s = Seen::default();
        values.iter().for_each(|v| s.add(*v));
        s
    };
    let mut joined = seen(&[Some(184), None, Some(184)]);
    joined.merge(&seen(&[None, Some(0), Some(0)]));
    assert_eq!(joined, seen(&[Some(184), Some(184), Some(0)]));
    assert_eq!(
        (joined.first, joined.last, joined.changes),
        (Some(184), Some(0), 1)
    );
}

proptest! {
    #[test]
    fn a_border_changes_nothing_and_bytes_keep_everything(
        mut samples in proptest::collection::vec(sample_strategy(), 0..80),
        cut in 0usize..80,
    ) {
        for (i, s) in samples.iter_mut().enumerate() {
            s.seq = i as u64;
            s.sent = Monotonic::from_nanos(i as u64 * 1000);
        }
        let whole = build(&samples);
        let cut = cut.min(samples.len());
        let mut joined = Summary::new();
        for part in [&samples[..cut], &samples[cut..]] {
            let mut bytes = vec![0; MAX_ENCODED];
            let len = build(part).encode(&mut bytes).unwrap();
            joined.merge(&Summary::decode(&bytes[..len]).unwrap());
        }
        // Mean and jitter are the figures that depend on the order of additions.
        let jitter = |s: &Summary| s.jitter.map(|j| (j.pairs(), j.last_ns(), j.mean_ns()));
        let ((n, last, mean), (m, of_all, mean_of_all)) =
            (jitter(&joined).unwrap(), jitter(&whole).unwrap());
        prop_assert_eq!(n, m);
        let near = |a: Option<u64>, b: Option<u64>| {
            a.unwrap_or(0).abs_diff(b.unwrap_or(0)) <= 1 + (b.unwrap_or(0) >> 40)
        };
        prop_assert!(near(last, of_all) && near(mean, mean_of_all));
        joined.jitter = whole.jitter;
        let (a, b) = (joined.rtt_moments.mean_ns(), whole.rtt_moments.mean_ns());
        prop_assert!((a.unwrap_or(0.0) - b.unwrap_or(0.0)).abs() <= b.unwrap_or(0.0).abs() * 1e-9);
        joined.rtt_moments = whole.rtt_moments;
        // Of more reasons than there is room for, which are told apart depends on it, too.
        prop_assert_eq!(joined.failures.count(), whole.failures.count());
        joined.failures.clone_from(&whole.failures);
        prop_assert_eq!(&joined, &whole);
        prop_assert_eq!(whole.sent, whole.received + whole.lost);
        prop_assert_eq!(
            samples.len() as u64,
            whole.sent + whole.unsent + whole.duplicated
        );
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>) {
        let _ = Summary::decode(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = FORMAT;
        }
        let _ = Summary::decode(&bytes);
    }
}

#[test]
fn ipdv_is_only_taken_between_neighbours() {
    let mut s = Summary::new();
    for (seq, rtt) in [(0, Some(10)), (1, Some(14)), (2, None), (3, Some(50))] {
        let mut x = Sample::lost(Default::default(), seq, Monotonic::from_nanos(seq), 1);
        if let Some(ms) = rtt {
            x.status = Status::Ok;
            x.rtt_ns = Some(ms * 1_000_000);
        }
        s.add(&x);
    }
    assert_eq!((s.ipdv.count(), s.ipdv.max()), (1, Some(4_000_000)));
    assert_eq!((s.sent, s.lost, s.runs.count()), (4, 1, 1));
}
