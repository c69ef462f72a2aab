//! When a reflector counts as lost, and how it is found again.

use super::*;
use crate::wire::header::{Kind, Prefix};

#[test]
fn what_comes_down_again_does_not_say_that_the_reflector_is_there() {
    let mut w = World::new(|_| (false, false));
    w.run_until(3_000);
    while w.wire.iter().all(|(_, up, _)| *up) {
        w.run_until(w.now_ms + 1);
    }
    let captured = w.wire.iter().find(|(_, up, _)| !up);
    let captured = captured.map(|(.., bytes)| bytes.clone()).unwrap();
    let gone_ms = w.now_ms;
    // It goes without a word, and somebody sends its last answer again and again.
    w.fate = |_| (true, true);
    while w.now_ms < gone_ms + 5_000 {
        w.run_until(w.now_ms + 500);
        w.wire.push_back((w.now_ms, false, captured.clone()));
    }
    assert!(w.events.contains(&SessionEvent::Lost), "{:?}", w.events);
    assert!(!w.events.contains(&SessionEvent::Back), "{:?}", w.events);
    assert!(!w.client.is_answering());
    let copies = |w: &World| {
        let told = w.samples.iter();
        told.filter(|s| s.status == Status::Duplicate).count()
    };
    assert!(copies(&w) > 0, "the line's copies are measured");
    // Another one is found amid all that.
    w.reflector = reflector(77, 4);
    w.fate = |_| (false, false);
    while w.now_ms < gone_ms + 8_000 {
        w.run_until(w.now_ms + 100);
        w.wire.push_back((w.now_ms, false, captured.clone()));
    }
    assert!(w.client.is_answering());
    assert!(w.events.contains(&SessionEvent::RemoteRestarted));
}

/// A world whose only stream is as slow as `interval_ms`, and whose client has a session.
fn slow(interval_ms: u64) -> World {
    let mut w = World::new(|_| (false, false));
    w.client = Client::new(key(1), Monotonic::ZERO, &mut w.rng);
    let config = StreamConfig {
        series: SeriesIndex(0),
        size: 128,
        interval_ns: interval_ms * MS,
        spread_permille: 0,
        timeout_ns: 3000 * MS,
    };
    let (slots, losses) = (vec![Slot::default(); 64], vec![LossSlot::default(); 64]);
    let added = w
        .client
        .add_stream(config, Monotonic::ZERO, slots, losses, &mut w.rng);
    assert!(added.is_ok());
    w
}

#[test]
fn a_slow_stream_finds_a_restarted_reflector_by_two_probes_without_an_echo() {
    for (interval_ms, within_ms) in [(1_000, 3_000), (10_000, 21_000)] {
        let mut w = slow(interval_ms);
        // Right after an echo: the longest that it can take.
        let gone_ms = 6 * interval_ms + 31;
        w.run_until(gone_ms);
        assert!(w.client.is_answering());
        w.events.clear();
        w.reflector = reflector(77, 4);
        w.run_until(gone_ms + within_ms);
        assert!(
            w.events.contains(&SessionEvent::RemoteRestarted),
            "{interval_ms}: {:?}",
            w.events
        );
        assert!(w.client.is_answering());
        // Nothing was silent for so long that it counts as lost.
        assert!(!w.events.contains(&SessionEvent::Lost), "{:?}", w.events);
    }
}

#[test]
fn a_single_lost_probe_of_a_slow_stream_costs_no_knock() {
    for interval_ms in [500, 1_000, 10_000] {
        let sent = |loses: Fate| {
            let mut w = slow(interval_ms);
            w.run_until(3_000);
            w.fate = loses;
            w.run_until(60_000);
            assert!(w.client.is_answering());
            (w.up_bytes, w.samples.len())
        };
        let lost: Fate = |ms| ((19_900..20_100).contains(&ms), false);
        assert_eq!(sent(lost), sent(|_| (false, false)), "{interval_ms}");
    }
}

#[test]
fn the_third_join_is_as_good_as_the_first_and_there_is_no_fourth() {
    // The challenge is taken by 32 ms; joins leave then, 0.3 s later and 0.6 s after that.
    let mut w = World::new(|ms| ((1..900).contains(&ms), false));
    w.run_until(930);
    assert!(!w.client.is_answering());
    w.run_until(1_000);
    assert!(w.client.is_answering());

    let mut w = World::new(|ms| ((1..1_000).contains(&ms), false));
    w.run_until(2_132);
    let (count, mut out) = (w.wire.len(), [0; 1500]);
    assert_eq!(count, 0, "nothing since the third");
    let now = Monotonic::from_nanos(2_132 * MS);
    let (len, _) = w.client.poll_transmit(now, &mut w.rng, &mut out).unwrap();
    assert_eq!(Prefix::kind_of(&out[..len]).unwrap(), Kind::Hello);
}
