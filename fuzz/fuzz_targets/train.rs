//! Any reports on a train, and any arrivals: what is kept is each datagram once, and a rate is one
//! that can be.
#![no_main]

use bufferbane_core::time::{ClockSource, Monotonic, Stamp};
use bufferbane_core::train::estimate::{Arrival, Sent, estimate};
use bufferbane_core::train::exchange::{Exchange, Plan};
use bufferbane_core::wire::train::{Arrived, Car, MAX_TRAIN, TrainReport};

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [up, count, rest @ ..] = bytes else { return };
    let plan = Plan {
        up: up % 2 == 0,
        count: u16::from(*count) * 2,
        size: 1452,
    };
    let mut now = Monotonic::ZERO;
    let mut exchange = Exchange::new(plan, 7, now);
    for _ in 0..exchange.plan().count {
        exchange.handle_sent(now);
    }
    exchange.handle_all_sent(now);
    // Each eight bytes: what comes, how much later, and two numbers that it says.
    for piece in rest.chunks_exact(8) {
        now = now.saturating_add(u64::from(number(&piece[1..3])) * 10_000);
        let asked = exchange.poll_ask(now).is_some();
        let (a, b) = (number(&piece[3..5]) as u16, number(&piece[5..8]));
        let arrived = [Arrived {
            index: a.into(),
            since_ns: (b << 5).into(),
        }; 2];
        let report = TrainReport {
            state: piece[0] % 7,
            reason: (b % 5) as u8,
            arrived: (b as u16).into(),
            train: 7.into(),
            number: u32::from(!asked || piece[0] < 250).into(),
            most: a.into(),
            first: ((b >> 8) as u16).into(),
            follow: 1.into(),
            clock: (b % 5) as u8,
            reserved: 0,
            socket_drops: (b % 2).into(),
            begin_ns: 0.into(),
        };
        let follow = &arrived[..usize::from(1 + piece[0] / 200)];
        let _ = exchange.handle_report(now, &report, follow);
        let car = Car {
            train: 7.into(),
            index: a.into(),
            count: exchange.plan().count.into(),
            sent_ns: b.into(),
            reserved: 0.into(),
        };
        let _ = exchange.handle_car(Stamp::kernel(now), &car);
        exchange.handle_timeout(now);
    }
    let (sent, arrivals) = exchange.result(42);
    let mut seen = [false; MAX_TRAIN];
    for a in arrivals.iter() {
        assert!(!std::mem::replace(&mut seen[usize::from(a.index)], true));
    }
    check(&sent, arrivals);
    let mut arrivals: Vec<Arrival> = rest
        .chunks_exact(10)
        .map(|c| Arrival {
            index: number(&c[..2]) as u16,
            at_ns: number(&c[2..6]),
            sent_ns: number(&c[6..]),
        })
        .collect();
    let sent = Sent {
        clock: ClockSource::Kernel,
        ..sent
    };
    check(&sent, &mut arrivals);
});

fn check(sent: &Sent, arrivals: &mut [Arrival]) {
    if let Ok(e) = estimate(sent, arrivals) {
        assert!(e.burst_bps > 0 && (50..=950).contains(&e.confidence_permille));
        assert!(e.sustained_bps.is_none_or(|s| s < e.burst_bps));
    }
}
