//! Trains over lines whose rate is known.

use std::vec::Vec;

use super::SPAN_NS;
use super::estimate::{Arrival, Estimate, Sent, Unknown, estimate};
use crate::time::ClockSource;
use crate::wire::train::NOT_TOLD;
use proptest::prelude::*;

const MBIT: u64 = 1_000_000;
const MS: u64 = 1_000_000;
const FRAME: u32 = 1494;

fn sent(count: usize) -> Sent {
    Sent {
        count: count as u16,
        frame_bytes: FRAME,
        clock: ClockSource::Kernel,
        dropped_by_host: false,
    }
}

/// When each of `count` frames has passed a line of `rate_bps`, which have all come at once.
fn plain(count: u64, rate_bps: u64) -> Vec<Arrival> {
    let frame_ns = u64::from(FRAME) * 8_000_000_000 / rate_bps;
    let at = |i: u64| (i + 1) * frame_ns;
    arrivals((0..count).map(at))
}

fn arrivals(at_ns: impl Iterator<Item = u64>) -> Vec<Arrival> {
    let one = |(index, at_ns): (u16, u64)| Arrival {
        index,
        at_ns: at_ns as u32,
        sent_ns: u32::from(index) * 8_000,
    };
    (0..).zip(at_ns).map(one).collect()
}

fn off(e: u64, rate: u64) -> f64 {
    (e as f64 / rate as f64 - 1.0).abs()
}

fn of(mut arrivals: Vec<Arrival>) -> Result<Estimate, Unknown> {
    let count = arrivals.len();
    estimate(&sent(count), &mut arrivals)
}

#[test]
fn a_plain_line_is_known_and_whether_it_goes_on_is_not() {
    for mbit in [1, 2, 5, 10, 20, 50, 100] {
        let count = (mbit * MBIT * 60 / 8_000 / u64::from(FRAME)).max(12);
        let e = of(plain(count, mbit * MBIT)).unwrap();
        assert!(off(e.burst_bps, mbit * MBIT) < 0.001, "{mbit}: {e:?}");
        assert_eq!(e.sustained_bps, None);
        assert!(
            e.span_ns >= SPAN_NS && e.confidence_permille >= 900,
            "{e:?}"
        );
    }
}

#[test]
fn a_train_that_is_over_too_soon_is_not_believed() {
    let e = of(plain(20, 100 * MBIT)).unwrap();
    assert!(off(e.burst_bps, 100 * MBIT) < 0.001);
    assert!(e.confidence_permille < 100, "{e:?}");
    assert_eq!(of(plain(4, MBIT)), Err(Unknown::TooFew));
}

/// Every 4 ms a grant lets pass what has been asked for until then, at the channel's 60 Mbit/s: pairs
/// say 60, the line carries 10.
#[test]
fn behind_grants_the_rate_is_that_between_batches() {
    for every_ms in [2, 4, 8] {
        let frame_ns = u64::from(FRAME) * 8_000 / 60;
        let (mut left, mut at) = (0.0, Vec::new());
        for grant in 0u64.. {
            left += 10e6 * every_ms as f64 * 1e-3 / 8.0 / f64::from(FRAME);
            let n = left as u64;
            left -= n as f64;
            at.extend((0..n).map(|i| grant * every_ms * MS + i * frame_ns));
            if at.len() >= 55 {
                break;
            }
        }
        let e = of(arrivals(at.into_iter())).unwrap();
        assert!(off(e.burst_bps, 10 * MBIT) < 0.08, "{every_ms} ms: {e:?}");
        assert!(e.confidence_permille >= 500, "{e:?}");
    }
}

fn bucket(count: u64, burst_bps: u64, sustained_bps: u64, bucket_bytes: u64) -> Vec<Arrival> {
    let time = |bps: u64| u64::from(FRAME) * 8_000_000_000 / bps;
    let (mut now, mut level) = (0, bucket_bytes as f64);
    arrivals((0..count).map(move |_| {
        let mut took = time(burst_bps);
        let lacks = f64::from(FRAME) - level;
        if lacks > 0.0 {
            took = took.max((lacks * 8e9 / sustained_bps as f64) as u64);
        }
        now += took;
        level += took as f64 * sustained_bps as f64 / 8e9 - f64::from(FRAME);
        now
    }))
}

#[test]
fn a_token_bucket_is_told_from_the_line_behind_it() {
    // Within the bucket nobody can know.
    let e = of(bucket(100, 20 * MBIT, 5 * MBIT, 1 << 20)).unwrap();
    assert!(off(e.burst_bps, 20 * MBIT) < 0.01, "{e:?}");
    assert_eq!(e.sustained_bps, None);
    // Beyond it both are known, once the tail is long enough.
    let e = of(bucket(100, 20 * MBIT, 5 * MBIT, 64 << 10)).unwrap();
    assert!(off(e.burst_bps, 20 * MBIT) < 0.1, "{e:?}");
    assert!(off(e.sustained_bps.unwrap(), 5 * MBIT) < 0.05, "{e:?}");
    let e = of(bucket(70, 20 * MBIT, 5 * MBIT, 64 << 10)).unwrap();
    assert!(off(e.burst_bps, 20 * MBIT) < 0.1, "{e:?}");
    assert_eq!(e.sustained_bps, None, "{e:?}");
}

/// Behind a bucket that is nearly shut most of a train's time is pauses, one after the other: they are the
/// slow part of the line, and no batches with a grant between them.
#[test]
fn pauses_in_a_row_are_a_slow_line_and_no_batches() {
    for slow_mbit in [1, 2] {
        let e = of(bucket(64, 20 * MBIT, slow_mbit * MBIT, 64 << 10)).unwrap();
        assert!(off(e.burst_bps, 20 * MBIT) < 0.1, "{e:?}");
        let sustained = e.sustained_bps.expect("a tail of 90 ms and more");
        assert!(off(sustained, slow_mbit * MBIT) < 0.05, "{e:?}");
    }
}

/// A receiver that is held up stamps what came meanwhile all at once; a sender that is held up leaves
/// the line idle.
#[test]
fn a_pause_spoils_neither_the_rate_nor_makes_a_knee() {
    let stalled = |from: u64, to: u64| {
        let mut a = plain(42, 10 * MBIT);
        for a in &mut a {
            if (from * MS..to * MS).contains(&u64::from(a.at_ns)) {
                a.at_ns = (to * MS) as u32;
            }
        }
        a
    };
    let calm = of(plain(42, 10 * MBIT)).unwrap();
    let e = of(stalled(20, 33)).unwrap();
    assert!(off(e.burst_bps, 10 * MBIT) < 0.05, "{e:?}");
    assert!(e.confidence_permille < calm.confidence_permille);
    assert_eq!(e.sustained_bps, None);
    let mut idle = plain(42, 10 * MBIT);
    for a in &mut idle[20..] {
        a.at_ns += 12 * MS as u32;
    }
    let e = of(idle).unwrap();
    assert!(off(e.burst_bps, 10 * MBIT) < 0.05, "{e:?}");
    assert!(e.confidence_permille < calm.confidence_permille);
    // One that holds up most of it leaves nothing to know.
    assert_eq!(of(stalled(2, 45)), Err(Unknown::Heaps));
    assert_eq!(of(stalled(0, 60)), Err(Unknown::Heaps));
}

#[test]
fn a_sender_that_is_no_faster_than_the_line_measures_itself() {
    let mut slow = plain(42, 10 * MBIT);
    for a in &mut slow {
        a.sent_ns = a.at_ns - 500_000;
    }
    assert_eq!(of(slow.clone()), Err(Unknown::Sender));
    // What is not told cannot be held against it.
    for a in &mut slow {
        a.sent_ns = NOT_TOLD;
    }
    assert!(of(slow).is_ok());
}

#[test]
fn losses_and_overtaking_lower_the_confidence_and_a_full_buffer_does_not() {
    let calm = of(plain(50, 10 * MBIT)).unwrap().confidence_permille;
    let all = plain(50, 10 * MBIT);
    let mut prefix = all[..46].to_vec();
    let e = estimate(&sent(50), &mut prefix).unwrap();
    assert_eq!(e.confidence_permille, calm, "{e:?}");
    let with = |keep: fn(usize) -> bool| {
        let kept = all.iter().enumerate().filter(|(i, _)| keep(*i));
        let mut kept: Vec<Arrival> = kept.map(|(_, a)| *a).collect();
        estimate(&sent(50), &mut kept).unwrap().confidence_permille
    };
    let (few, many) = (with(|i| i % 20 != 3), with(|i| i % 5 != 3));
    assert!(
        calm > few && few > many && many < 500,
        "{calm} {few} {many}"
    );
    let mut swapped = all.clone();
    for pair in swapped.chunks_exact_mut(2) {
        let (a, b) = (pair[0].index, pair[1].index);
        (pair[0].index, pair[1].index) = (b, a);
    }
    assert!(of(swapped).unwrap().confidence_permille < calm);
}

proptest! {
    /// Whatever arrives, whenever: no panic, and what is said can be.
    #[test]
    fn any_arrivals_give_a_rate_that_can_be_or_none(
        times in proptest::collection::vec((any::<u16>(), any::<u32>(), any::<u32>()), 0..600),
        count in any::<u16>(),
        frame_bytes in 1u32..3000,
    ) {
        let one = |(index, at_ns, sent_ns): (u16, u32, u32)| Arrival { index, at_ns, sent_ns };
        let mut arrivals: Vec<Arrival> = times.into_iter().map(one).collect();
        let sent = Sent { count, frame_bytes, clock: ClockSource::Kernel, dropped_by_host: false };
        if let Ok(e) = estimate(&sent, &mut arrivals) {
            prop_assert!(e.burst_bps > 0);
            prop_assert!((50..=950).contains(&e.confidence_permille));
            prop_assert!(e.sustained_bps.is_none_or(|s| s < e.burst_bps));
        }
    }

    /// A steady line with noise on every stamp is known within a tenth, or not at all.
    #[test]
    fn noise_does_not_make_a_wrong_rate(
        mbit in 1u64..=100,
        noise in proptest::collection::vec(0u32..300_000, 512),
    ) {
        let count = (mbit * MBIT * 60 / 8_000 / u64::from(FRAME)).max(12);
        let mut arrivals = plain(count, mbit * MBIT);
        for (a, n) in arrivals.iter_mut().zip(noise) {
            a.at_ns += n;
        }
        let e = of(arrivals).unwrap();
        prop_assert!(off(e.burst_bps, mbit * MBIT) < 0.1, "{e:?}");
        prop_assert!(e.sustained_bps.is_none());
    }
}
