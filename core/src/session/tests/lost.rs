//! When a reflector counts as lost, and how it is found again.

use super::*;
use crate::limits::MIN_PROBE_SIZE;
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
fn a_slow_stream_finds_a_restarted_reflector_by_its_next_probe() {
    for interval_ms in [1_000, 5_000, 30_000] {
        let mut w = slow(interval_ms);
        // Right after an echo: the longest that it can take.
        w.run_until(6 * interval_ms + 31);
        assert!(w.client.is_answering());
        w.events.clear();
        w.reflector = reflector(77, 4);
        // The probe, the check a second later, 0.3 s without an answer, and two knocks.
        w.run_until(7 * interval_ms + 1_300 + 2 * 30 + 10);
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
fn who_stood_still_has_not_lost_the_reflector() {
    for interval_ms in [50, 1_000, 30_000] {
        for (stood_ms, is_lost) in [1_500, 60_000]
            .into_iter()
            .flat_map(|ms| [(ms, false), (ms, true)])
        {
            let mut w = slow(interval_ms);
            // Right after a probe, whose answer comes meanwhile, or is lost.
            w.run_until(3 * interval_ms + 3_010);
            while w.wire.is_empty() {
                w.run_until(w.now_ms + 1);
            }
            assert!(w.client.is_answering());
            w.events.clear();
            if is_lost {
                w.wire.clear();
            }
            w.now_ms += stood_ms;
            w.run_until(w.now_ms + 3 * interval_ms + 2_000);
            let told = [SessionEvent::Lost, SessionEvent::Back];
            assert!(
                w.client.is_answering() && !w.events.iter().any(|e| told.contains(e)),
                "{interval_ms} {stood_ms} {is_lost}: {:?}",
                w.events
            );
            // One that goes is missed all the same.
            w.fate = |_| (true, true);
            w.run_until(w.now_ms + 1_150.max(4 * interval_ms + 300));
            assert_eq!(w.events, [SessionEvent::Lost], "{interval_ms} {stood_ms}");
        }
    }
}

#[test]
fn a_single_lost_probe_of_a_slow_stream_costs_a_check_and_no_knock() {
    for (interval_ms, checks) in [(500, 0), (1_000, 0), (10_000, 1), (30_000, 1)] {
        let sent = |loses: Fate| {
            let mut w = slow(interval_ms);
            w.run_until(3_000);
            w.fate = loses;
            w.run_until(60_000);
            assert!(w.client.is_answering());
            (w.up_bytes, w.samples.len())
        };
        let (bytes, probes) = sent(|_| (false, false));
        // Up, and on the way back.
        for lost in [
            (|ms| ((29_900..30_100).contains(&ms), false)) as Fate,
            |ms| (false, (29_900..30_100).contains(&ms)),
        ] {
            let expected = (bytes + checks * MIN_PROBE_SIZE, probes);
            assert_eq!(sent(lost), expected, "{interval_ms}");
        }
    }
}

#[test]
fn a_check_is_in_no_record_and_its_echo_is_no_sample() {
    let mut w = slow(30_000);
    w.fate = |ms| (false, (30_000..30_100).contains(&ms));
    w.run_until(50_000);
    let checked: Vec<_> = w.samples.iter().map(|s| (s.seq, s.status)).collect();
    assert_eq!(
        w.reflector.answered(),
        2 + 1 + 1,
        "knocks, a probe, a check"
    );
    assert_eq!(w.reflector.records_of_test(), 1);
    assert!(checked.iter().all(|(seq, _)| *seq <= 1), "{checked:?}");
    // The reflector had the probe, and says so with the next one's echo: the check was not counted with it.
    w.run_until(95_000);
    assert_eq!(w.samples[0].status, Status::LostDown, "{:?}", w.samples);
    assert!(w.client.is_answering() && !w.events.contains(&SessionEvent::Lost));
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
