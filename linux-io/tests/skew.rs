//! A process with a shifted clock: everything that the engine takes and gives is shifted alike. Whoever else runs in
//! it is shifted, too, so nobody else does.

mod common;

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bufferbane_core::time::ClockSource;
use bufferbane_linux_io::clock::{self, Skew};
use bufferbane_linux_io::{Engine, Event, Family, Outbox, ProbeSocket, SocketId};
use common::{add_local, all_features, engine, wait_for, warm_up};

/// There is one clock in a process, so one test at a time may have it.
static CLOCK: Mutex<()> = Mutex::new(());

/// Sends a datagram to itself; both of its stamps are of this time.
fn stamped(e: &mut Engine, id: SocketId, at: SocketAddr) {
    let before = clock::now();
    e.send(id, at, b"x", 1).unwrap();
    let mut seen = 0;
    assert!(wait_for(e, 1000, |_, event| {
        let stamp = match event {
            Event::Received { meta, .. } => meta.at,
            Event::TxStamp { stamp, .. } => stamp,
            other => panic!("{other:?}"),
        };
        assert_eq!(stamp.clock, ClockSource::Kernel);
        assert!(stamp.at >= before && stamp.at <= clock::now(), "{stamp:?}");
        seen += 1;
        seen == 2
    }));
}

#[test]
fn stamps_and_deadlines_follow_an_injected_clock() {
    let _clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    warm_up();
    for skew in [
        Skew {
            offset_ns: 3_600_000_000_000,
            drift_ppb: 0,
            wall_ns: -5_000_000_000,
        },
        Skew {
            offset_ns: 1_000_000_000,
            drift_ppb: 500_000,
            wall_ns: 0,
        },
        Skew {
            offset_ns: 0,
            drift_ppb: -80_000,
            wall_ns: 0,
        },
    ] {
        clock::inject(Skew::default());
        let (plain, plain_wall) = (clock::now(), clock::wall_now());
        clock::inject(skew);
        let drift = i128::from(plain.as_nanos()) * i128::from(skew.drift_ppb) / 1_000_000_000;
        let expected = i128::from(plain.as_nanos()) + i128::from(skew.offset_ns) + drift;
        let off = i128::from(clock::now().as_nanos()) - expected;
        assert!((0..100_000_000).contains(&off), "{skew:?} {off}");
        let off = clock::wall_now() - plain_wall - skew.wall_ns;
        assert!((0..100_000_000).contains(&off), "{skew:?} {off}");

        for features in all_features() {
            let mut e = engine(features);
            let (id, at) = add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4);
            stamped(&mut e, id, at);
            let until = clock::now().saturating_add(5_000_000);
            while clock::now() < until {
                e.wait(until, &mut |_: &mut Outbox<'_>, _: Event<'_>| {})
                    .unwrap();
            }
            assert!(clock::now().saturating_since(until) < 100_000_000);
        }
    }
}

#[test]
fn a_step_of_the_wall_clock_is_in_the_stamps_and_not_in_the_times() {
    let _clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    warm_up();
    let mut e = engine(all_features()[0]);
    let (id, at) = add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4);
    clock::inject_step(clock::wall_now() + 60_000_000, 100_000_000);
    let wall_before = clock::wall_now();
    let begun = clock::now();
    let mut stepped = false;
    while clock::now().saturating_since(begun) < 200_000_000 {
        stamped(&mut e, id, at);
        stepped |= e
            .take_clock_step()
            .is_some_and(|s| (s.step_ns - 100_000_000).abs() < 1_000_000);
    }
    let (wall, monotonic) = (
        clock::wall_now() - wall_before,
        clock::now().saturating_since(begun),
    );
    clock::inject_step(i64::MAX, 0);
    assert!(stepped, "the engine says that the clock was set");
    assert!((wall - monotonic as i64 - 100_000_000).abs() < 50_000_000);
}
