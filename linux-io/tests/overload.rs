//! More than there is room for: completions beyond the queue, stamps beyond the receive buffer. What
//! is lost is told as missing, and nothing is told of another probe.

mod common;

use std::collections::BTreeMap;

use bufferbane_core::awaited::{Awaited, Place};
use bufferbane_core::flight::{Flight, FlightConfig, LossSlot, ReplyFacts, Slot};
use bufferbane_core::packet::SendOutcome;
use bufferbane_core::sample::{Observation, Sample, SeriesIndex, Status};
use bufferbane_core::time::{ClockSource, Monotonic, Stamp};
use bufferbane_linux_io::{Engine, EngineOptions, Event, Family, ProbeSocket, clock};
use common::{add_local, all_features, wait_for, warm_up};

/// How far stamps of two sides of this host may be apart beyond what they say, ns: both are converted
/// from the wall clock.
const SLACK_NS: u64 = 5_000;
/// Datagrams at once.
const BURST: u32 = 200;

/// The stamps of sending and of arriving, by key.
type Stamps = BTreeMap<u32, Stamp>;

/// Loopback delivers each datagram before the next one leaves, so the stamps alternate.
fn assert_of_its_own(sent: &Stamps, arrived: &Stamps) {
    for (key, tx) in sent.iter().filter(|(_, s)| s.clock == ClockSource::Kernel) {
        let rx = arrived[key];
        assert!(
            tx.at <= rx.at.saturating_add(SLACK_NS),
            "{key}: {tx:?} {rx:?}"
        );
        if let Some(before) = key.checked_sub(1).and_then(|k| arrived.get(&k)) {
            let after_ns = tx.at.saturating_add(SLACK_NS);
            assert!(before.at <= after_ns, "{key}: {before:?} {tx:?}");
        }
    }
}

#[test]
fn more_completions_than_the_queue_holds_lose_nothing() {
    warm_up();
    for features in all_features() {
        let options = EngineOptions {
            sockets: 1,
            send_slots: 4,
            completions: 16,
            features,
            ..EngineOptions::prober()
        };
        let mut e = Engine::new(&options).unwrap();
        let (id, at) = add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4);
        let (mut full, mut next) = (0, 0u32);
        for _ in 0..3 {
            let (mut sent, mut arrived) = (Stamps::new(), Stamps::new());
            let first = next;
            for _ in 0..BURST {
                // Without a look at what has come of those before.
                e.send(id, at, &next.to_le_bytes(), next).unwrap();
                next += 1;
            }
            let all = wait_for(&mut e, 2000, |_, event| {
                match event {
                    Event::Received { meta, bytes, .. } => {
                        let key = u32::from_le_bytes(bytes.try_into().unwrap());
                        assert!(arrived.insert(key, meta.at).is_none(), "{key} came twice");
                    }
                    Event::TxStamp { key, stamp, .. } => {
                        assert!(sent.insert(key, stamp).is_none(), "{key} was told twice");
                    }
                    other => panic!("{other:?}"),
                }
                sent.len().min(arrived.len()) == BURST as usize
            });
            let counters = e.counters();
            assert!(
                all,
                "{features:?} {} {} {counters:?}",
                sent.len(),
                arrived.len()
            );
            assert!(sent.keys().copied().eq(first..next));
            assert!(arrived.keys().copied().eq(first..next));
            assert_of_its_own(&sent, &arrived);
            full = counters.overflows;
        }
        println!("{:?}", e.counters());
        assert!(full > 0, "the trap was there");
        assert_eq!(e.counters().stray_stamps, 0);
    }
}

/// A driver of one stream, as small as it can be.
struct Driver {
    flight: Flight<Vec<Slot>, Vec<LossSlot>>,
    awaited: Awaited<Vec<Option<Place<u64>>>>,
}

impl Driver {
    fn new() -> Self {
        let config = FlightConfig {
            series: SeriesIndex(0),
            timeout_ns: 3_000_000_000,
            interval_ns: 1_000_000,
            interleaved: false,
        };
        Self {
            flight: Flight::new(config, vec![Slot::default(); 512], Vec::new()),
            awaited: Awaited::new((0..512).map(|_| None).collect()),
        }
    }

    /// The key and the number of the next probe.
    fn next(&mut self) -> (u32, u64) {
        let (now, key) = (clock::now(), self.awaited.next_key());
        let seq = self.flight.on_send(now, now, 4).unwrap();
        assert!(self.awaited.insert(seq, now).is_none());
        (key, seq)
    }

    fn stamped(&mut self, key: u32, stamp: Stamp) {
        let seq = self.awaited.take(key).expect("told once");
        self.flight.on_sent(seq, SendOutcome::Stamped(stamp));
    }

    /// No stamp comes any more.
    fn samples(&mut self) -> Vec<Sample> {
        while let Some(seq) = self.awaited.take_expired(Monotonic::MAX, 0) {
            self.flight.on_sent(seq, SendOutcome::NoStamp);
        }
        std::iter::from_fn(|| self.flight.poll_observation())
            .map(|o| match o {
                Observation::New(s) => s,
                Observation::Revised(s) => panic!("{s:?}"),
            })
            .collect()
    }
}

#[test]
fn stamps_without_room_are_missing_and_never_anothers() {
    warm_up();
    for features in all_features() {
        let options = EngineOptions {
            features,
            ..EngineOptions::prober()
        };
        let mut e = Engine::new(&options).unwrap();
        // The kernel's least: room for a few stamps.
        let narrow = ProbeSocket::udp(Family::V4).receive_buffer(1);
        let (id, _) = add_local(&mut e, narrow, Family::V4);
        let (_, to) = add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4);
        let mut driver = Driver::new();
        let (mut missing, mut probes) = (0, 0);
        // All at once, then one after the other: nothing is the worse for what was lost before.
        for burst in [BURST, 1, 1, 1, BURST, 1, 1] {
            let (mut sent, mut arrived) = (Stamps::new(), Stamps::new());
            for _ in 0..burst {
                let (key, seq) = driver.next();
                assert_eq!(u64::from(key), seq);
                e.send(id, to, &key.to_le_bytes(), key).unwrap();
            }
            let patience_ms = if burst == 1 { 3000 } else { 400 };
            let quiet = wait_for(&mut e, patience_ms, |_, event| {
                match event {
                    Event::Received { meta, bytes, .. } => {
                        let key = u32::from_le_bytes(bytes.try_into().unwrap());
                        assert!(arrived.insert(key, meta.at).is_none());
                        let facts = ReplyFacts {
                            rx: meta.at,
                            ttl_down: None,
                            remote: None,
                        };
                        driver.flight.on_reply(u64::from(key), &facts).unwrap();
                    }
                    Event::TxStamp { key, stamp, .. } => {
                        assert!(sent.insert(key, stamp).is_none());
                        driver.stamped(key, stamp);
                    }
                    other => panic!("{other:?}"),
                }
                // All of a lonely one; of a burst, whatever comes.
                burst == 1 && sent.len() + arrived.len() == 2
            });
            assert_eq!(quiet, burst == 1, "{features:?} {sent:?} {arrived:?}");
            assert_eq!(arrived.len(), burst as usize, "the line lost nothing");
            assert_of_its_own(&sent, &arrived);
            // Every probe has its end, and says whose clock its time of sending is by.
            let samples = driver.samples();
            assert_eq!(samples.len(), burst as usize);
            for s in samples {
                assert_eq!(s.status, Status::Ok);
                let told = sent.get(&(s.seq as u32));
                let expected = told.map_or(ClockSource::User, |s| s.clock);
                assert_eq!(s.tx_clock, expected, "{s:?}");
                missing += u64::from(told.is_none());
            }
            probes += u64::from(burst);
        }
        let counters = e.counters();
        println!("{missing} of {probes} missing: {counters:?}");
        assert!(missing > u64::from(BURST), "the trap was there");
        assert_eq!(counters.sends - counters.stamps, missing, "{counters:?}");
        assert_eq!(counters.stray_stamps, 0);
    }
}
