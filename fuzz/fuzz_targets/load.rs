//! A test over UDP between both ends, of which either may lie in what it orders or reports, while
//! datagrams are lost, doubled, overtaken and changed: no panic, nothing sent that was not asked for from a
//! place that is proven, no faster than it was ordered, no number twice under one key, and nothing counted
//! that did not arrive.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::load::datagrams::flows::{FlowPlan, Flows, SILENCE_NS};
use bufferbane_core::load::datagrams::pace::Pace;
use bufferbane_core::load::datagrams::tally::Tally;
use bufferbane_core::load::datagrams::{LoadKeys, handle_of, open_datagram, write};
use bufferbane_core::load::guest::{Grant, Guest, Wish};
use bufferbane_core::load::host::{Asker, Host, HostLimits, MAX_TESTS, Room, TestHandle};
use bufferbane_core::packet::RecvMeta;
use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_core::session::client::{Client, StreamConfig};
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{KeyEntry, Reflector, Session};
use bufferbane_core::time::{Monotonic, Stamp};
use bufferbane_core::wire::load::{OP_LOAD, ORDER_LEN, Offer, Order, Report, TestState};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// Both directions, the second faster than the first.
const OFFER: Offer = Offer {
    up_bps: 1_000_000,
    down_bps: 4_000_000,
    size: 200,
};
/// What leaves at once at the most, bits: what the rate makes in a millisecond and a datagram.
const BURST_NS: u64 = 1_000_000;
/// Datagrams that leave between two looks, and that are under way each way.
const AT_ONCE: usize = 8;
const UNDER_WAY: usize = 64;

type FuzzReflector<'a> = Reflector<&'a mut [KeyEntry], &'a mut [Session], &'a mut [StreamRecord]>;

/// What the reflector has of a test, and what is true of it.
struct Truth {
    plan: FlowPlan,
    since: Monotonic,
    /// Numbers that have left, and those that have come.
    left: BTreeSet<u64>,
    came: BTreeSet<u64>,
}

/// Datagrams under way.
#[derive(Default)]
struct Wire(Vec<Vec<u8>>);

impl Wire {
    fn add(&mut self, datagram: &[u8]) {
        if self.0.len() < UNDER_WAY {
            self.0.push(datagram.to_vec());
        }
    }

    /// One that arrives, once or not for the last time, changed or not; says whether it is as it was sent.
    fn take(&mut self, which: u8, how: u8, change: u8) -> Option<(Vec<u8>, bool)> {
        let len = self.0.len();
        let at = usize::from(which) % len.max(1);
        let mut datagram = match how & 1 {
            0 if at < len => self.0.remove(at),
            _ => self.0.get(at)?.clone(),
        };
        let is_whole = how & 2 == 0;
        if !is_whole {
            let at = usize::from(change) % datagram.len();
            datagram[at] ^= 1 << (how >> 5);
        }
        Some((datagram, is_whole))
    }
}

/// An order as a client that lies may send it.
fn lie(order: &mut Order, field: u8, to: u8) {
    let wide = u64::from(to) << (to & 31);
    match field % 10 {
        0 => order.op = to,
        1 => order.streams_up = to,
        2 => order.streams_down = to,
        3 => order.number = (wide as u32).into(),
        4 => order.test = (u64::from(to & 3)).into(),
        5 => order.time_ms = (wide as u32).into(),
        6 => order.first_bin = (wide as u32).into(),
        7 => order.up_bps = wide.into(),
        8 => order.down_bps = wide.into(),
        _ => order.size = (u16::from(to) << 3).into(),
    }
}

/// A report as a reflector that lies may send it.
fn misreport(report: &mut Report, field: u8, to: u8) {
    let wide = u64::from(to) << (to & 31);
    match field % 10 {
        0 => report.state = to,
        1 => report.reason = to,
        2 => report.number = (wide as u32).into(),
        3 => report.wait_ms = (wide as u32).into(),
        4 => report.handle = (wide as u32).into(),
        5 => report.received = wide.into(),
        6 => report.bins = u16::from(to).into(),
        7 => report.first_bin = (wide as u32).into(),
        8 => report.datagrams = (wide as u32).into(),
        _ => report.datagrams_sent = (wide as u32).into(),
    }
}

/// What the client has of its test.
struct Near {
    grant: Grant,
    keys: LoadKeys,
    pace: Pace,
    sent: u64,
    tally: Tally,
    came: BTreeSet<u64>,
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let key = PresharedKey {
        id: KeyId([1; 8]),
        secret: Secret::new([2; 32]),
    };
    let mut now = Monotonic::from_nanos(1_000_000_000);
    let mut keys = [KeyEntry::new(key.clone(), 0, 1000, 2)];
    let mut sessions = [Session::default(), Session::default()];
    let mut streams = [StreamRecord::default(); 2];
    let mut reflector: FuzzReflector<'_> = Reflector::new(
        &mut keys[..],
        &mut sessions[..],
        &mut streams[..],
        100,
        &mut rng,
    );
    let mut client = Client::new(key, now, &mut rng);
    let config = StreamConfig {
        series: SeriesIndex(0),
        size: 128,
        interval_ns: 10_000_000,
        spread_permille: 1000,
        timeout_ns: 100_000_000,
    };
    let slots = vec![Slot::default(); 32];
    let added = client.add_stream(config, now, slots, vec![LossSlot::default(); 32], &mut rng);
    assert!(added.is_ok());
    let meta_of = |now, elsewhere: bool| RecvMeta {
        at: Stamp::kernel(now),
        from: ([192, 0, 2, 1 + u8::from(elsewhere)], 1).into(),
        to: None,
        ttl: None,
        tos: None,
        socket_drops: 0,
        truncated: false,
    };
    let mut out = [0; 2048];
    let mut answer = [0; 2048];
    // What follows is about the test alone.
    while !client.is_answering() {
        now = now.saturating_add(10_000_000);
        client.handle_timeout(now);
        let meta = meta_of(now, false);
        while let Some((len, _)) = client.poll_transmit(now, &mut rng, &mut out) {
            let request = &mut out[..len];
            let answered = reflector.handle_request(now, &meta, request, &mut answer, &mut rng);
            if let Ok(a) = answered {
                let _ = client.handle_reply(now, &meta, &mut answer[..a.len]);
            }
        }
    }
    let wish = Wish {
        streams_up: 0,
        streams_down: 0,
        time_ms: 2000,
        dscp: [0; 8],
        congestion: [0; 16],
        prefix: None,
        offer: Some(OFFER),
    };
    let mut guest = Guest::new(wish, 1, now);
    let limits = HostLimits {
        concurrent: 2,
        streams: 0,
    };
    let room = std::iter::repeat_with(Room::default).take(MAX_TESTS);
    let mut host = Host::new(limits, room.collect::<Vec<_>>());
    let mut flows: Flows<bool> = Flows::new();
    let mut tests: BTreeMap<TestHandle, Truth> = BTreeMap::new();
    let mut near: Option<Near> = None;
    let (mut orders, mut reports) = (Wire::default(), Wire::default());
    let (mut up, mut down) = (Wire::default(), Wire::default());
    let mut both_are_honest = true;
    for op in bytes.chunks(4) {
        let arg = |i: usize| op.get(i).copied().unwrap_or(0);
        let (a, b, c) = (arg(1), arg(2), arg(3));
        match arg(0) % 10 {
            0 => {
                now = now.saturating_add(u64::from(a) * 1_000_000 * (1 + u64::from(b & 3) * 20));
                guest.handle_timeout(now);
                host.handle_timeout(now);
                flows.handle_timeout(now);
            }
            1 => match b & 3 {
                0 => guest.load(now, true),
                1 => guest.load(now, false),
                2 => guest.stop(now),
                _ => flows.use_up(0),
            },
            2 => {
                if let Some(order) = guest.poll_order(now)
                    && let Some(sealed) = client.write_order(&order)
                {
                    orders.add(&sealed);
                }
            }
            3 => {
                let Some((mut sealed, is_whole)) = orders.take(a, b, c) else {
                    continue;
                };
                let meta = meta_of(now, b & 4 > 0);
                let Ok((from, mut order)) = reflector.open_order(now, &meta, &mut sealed) else {
                    continue;
                };
                assert!(is_whole, "a changed order was opened");
                if b & 8 > 0 {
                    both_are_honest = false;
                    lie(&mut order, b >> 4, c);
                }
                let asks = order.op == OP_LOAD && from.proven;
                let figures = flows.handle_order(now, from, asks, &order);
                let asker = Asker {
                    client: from.client,
                    bytes_left: (b & 16 > 0).then_some(1 << (c & 31)),
                    congestion_known: false,
                    port: 9,
                    max_rate_bps: None,
                    proven: from.proven,
                    may_announce: true,
                    figures,
                };
                let Ok(report) = host.handle_order(now, &asker, &order, &mut rng) else {
                    continue;
                };
                assert!(host.running_tests() <= 2);
                let handle = TestHandle(report.handle.get());
                if report.state == TestState::Granted as u8 && !tests.contains_key(&handle) {
                    let plan = host
                        .flow(handle)
                        .expect("a test over UDP, for there is no other");
                    flows.begin(plan.clone());
                    let truth = Truth {
                        plan,
                        since: now,
                        left: BTreeSet::new(),
                        came: BTreeSet::new(),
                    };
                    tests.insert(handle, truth);
                }
                if let Some(truth) = tests.get(&handle) {
                    assert!(report.datagrams.get() as usize <= truth.came.len());
                    assert!(report.datagrams_sent.get() as usize <= truth.left.len());
                }
                if let Some(sealed) = reflector.write_report(from, &report) {
                    assert!(sealed.len() == ORDER_LEN);
                    reports.add(&sealed);
                }
            }
            4 => {
                let Some((mut sealed, is_whole)) = reports.take(a, b, c) else {
                    continue;
                };
                let Ok(mut report) = client.open_report(now, &mut sealed) else {
                    continue;
                };
                assert!(is_whole, "a changed report was opened");
                if b & 8 > 0 {
                    both_are_honest = false;
                    misreport(&mut report, b >> 4, c);
                }
                let _ = guest.handle_report(now, &report);
                assert_eq!(guest.bins().len(), guest.in_band().len());
                if near.is_none() {
                    near = guest.grant().map(|grant| Near {
                        grant: grant.clone(),
                        keys: LoadKeys::of(&grant.secret),
                        pace: Pace::new(OFFER.up_bps, OFFER.size, now),
                        sent: 0,
                        tally: Tally::new(),
                        came: BTreeSet::new(),
                    });
                }
                if both_are_honest && let Some(near) = &near {
                    assert!(u64::from(guest.counted().received) <= near.sent);
                    assert!(
                        guest.bins().iter().map(|b| u64::from(*b)).sum::<u64>() <= guest.received()
                    );
                }
            }
            5 => {
                let Some(near) = &mut near else { continue };
                let datagram = &mut out[..OFFER.size.into()];
                for _ in 0..AT_ONCE {
                    if !near.pace.poll(now) {
                        break;
                    }
                    let written = write(&near.keys.up, near.grant.handle, near.sent, datagram);
                    assert!(written.is_ok());
                    near.sent += 1;
                    up.add(datagram);
                }
            }
            6 => {
                let Some((mut datagram, is_whole)) = up.take(a, b, c) else {
                    continue;
                };
                let meta = meta_of(now, b & 4 > 0);
                let test = handle_of(&datagram).map(TestHandle);
                let of = test.ok().and_then(|test| flows.key_of(test));
                let Ok(number) = reflector.open_load(&meta, of, &mut datagram) else {
                    continue;
                };
                assert!(is_whole, "a changed datagram was opened");
                let test = test.expect("it was opened");
                let bytes = datagram.len() as u64;
                if flows.handle_datagram(test, now, number, bytes) {
                    let truth = tests.get_mut(&test).expect("it runs");
                    assert!(truth.came.insert(number), "{number} was counted twice");
                }
            }
            7 => {
                let meta = meta_of(now, false);
                for _ in 0..AT_ONCE {
                    // Orders alone have to do, too.
                    let hears =
                        |from, _| b & 4 > 0 || reflector.hears(from, meta.from, now, SILENCE_NS);
                    let Some(departure) = flows.poll_departure(now, hears) else {
                        break;
                    };
                    assert!(
                        departure.way,
                        "nobody asked for it, or not from a place that is proven"
                    );
                    let (test, number) = (departure.test, departure.number);
                    let truth = tests.get_mut(&test).expect("it runs");
                    let Offer { down_bps, size, .. } = truth.plan.offer;
                    assert_eq!(departure.size, size);
                    let datagram = &mut out[..size.into()];
                    assert!(write(departure.key, test.0, number, datagram).is_ok());
                    if b & 1 > 0 {
                        // There was no room for it: its number is the next one's.
                        break;
                    }
                    down.add(datagram);
                    flows.handle_sent(test);
                    if b & 2 > 0 {
                        flows.handle_failed(test, 1);
                    }
                    assert!(truth.left.insert(number), "{number} left twice");
                    let ns = u128::from(now.saturating_since(truth.since) + BURST_NS);
                    let most = u128::from(down_bps) * ns / 1_000_000_000 + 8 * u128::from(size);
                    assert!(truth.left.len() as u128 * 8 * u128::from(size) <= most);
                }
            }
            8 => {
                let Some((mut datagram, is_whole)) = down.take(a, b, c) else {
                    continue;
                };
                let Some(near) = &mut near else { continue };
                if handle_of(&datagram) == Ok(near.grant.handle)
                    && let Ok(number) = open_datagram(&near.keys.down, &mut datagram)
                {
                    assert!(is_whole, "a changed datagram was opened");
                    if near.tally.take(now, number, datagram.len() as u64) {
                        assert!(near.came.insert(number), "{number} was counted twice");
                    }
                    let counted = near.tally.counted(0);
                    assert_eq!(counted.received as usize, near.came.len());
                    assert!(counted.overtaken <= counted.received);
                }
            }
            // The client's probes go on, so that it is heard.
            _ => {
                client.handle_timeout(now);
                let meta = meta_of(now, a & 1 > 0);
                while let Some((len, _)) = client.poll_transmit(now, &mut rng, &mut out) {
                    let request = &mut out[..len];
                    let answered =
                        reflector.handle_request(now, &meta, request, &mut answer, &mut rng);
                    if let Ok(a) = answered {
                        assert!(a.len <= len);
                        let _ = client.handle_reply(now, &meta, &mut answer[..a.len]);
                    }
                }
                while client.poll_observation().is_some() || client.poll_event().is_some() {}
            }
        }
        while let Some((test, ..)) = host.poll_ended() {
            flows.end(now, test);
        }
    }
});
