//! A reflector's part in a test over UDP, with a client that orders, is silent, moves and lies.

use std::vec::Vec;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use zerocopy::byteorder::network_endian::U32;

use super::*;
use crate::limits::{MAX_LOAD_BPS, MAX_LOAD_PPS};
use crate::load::guest::{Guest, GuestState, Wish};
use crate::load::host::{Asker, HostLimits};
use crate::load::negotiation::{TestHost, host_with};
use crate::wire::load::{EndReason, MIN_LOAD_SIZE, OP_POLL};

const FROM: OrderFrom = OrderFrom {
    client: 3,
    proven: true,
    session: 9,
};
/// Ten in a millisecond.
const OFFER: Offer = Offer {
    up_bps: 0,
    down_bps: 96_000_000,
    size: 1200,
};

const fn at(ms: u64) -> Monotonic {
    Monotonic::from_nanos(ms * 1_000_000)
}

fn asker() -> Asker {
    Asker {
        client: FROM.client,
        bytes_left: None,
        congestion_known: false,
        port: 1,
        max_rate_bps: None,
        proven: true,
        may_announce: true,
        figures: None,
    }
}

fn wish(offer: Offer) -> Wish {
    Wish {
        streams_up: 0,
        streams_down: 0,
        time_ms: 1000,
        dscp: [46; 8],
        congestion: [0; 16],
        prefix: None,
        offer: Some(offer),
    }
}

/// A client, and the reflector's two parts.
struct Place {
    guest: Guest,
    host: TestHost,
    flows: Flows<char>,
}

impl Place {
    fn new(offer: Offer) -> Self {
        Self::with(wish(offer))
    }

    fn with(wish: Wish) -> Self {
        let mut place = Self {
            guest: Guest::new(wish, 5, at(0)),
            host: host_with(HostLimits {
                concurrent: 1,
                streams: 1,
            }),
            flows: Flows::new(),
        };
        place.ask(0);
        assert_eq!(place.guest.state(), GuestState::Granted);
        let test = place.test();
        place.flows.begin(place.host.flow(test).unwrap());
        place
    }

    fn test(&self) -> TestHandle {
        TestHandle(self.guest.grant().unwrap().handle)
    }

    /// What the client has to say at this time, and the answer.
    fn ask(&mut self, ms: u64) {
        let Some(order) = self.guest.poll_order(at(ms)) else {
            return;
        };
        let report = self.answer(ms, &order);
        self.guest.handle_report(at(ms), &report).unwrap();
    }

    fn answer(&mut self, ms: u64, order: &Order) -> Report {
        let who = Asker {
            figures: self.flows.handle_order(at(ms), FROM, 'a', order),
            ..asker()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let report = self.host.handle_order(at(ms), &who, order, &mut rng);
        report.unwrap()
    }

    fn order(&mut self, ms: u64, number: u32, op: u8, from: OrderFrom) {
        let mut order = Guest::new(wish(OFFER), 5, at(0)).poll_order(at(0)).unwrap();
        (order.number, order.op) = (U32::new(number), op);
        self.flows.handle_order(at(ms), from, 'b', &order).unwrap();
    }

    /// Numbers of what leaves at this time.
    fn sent(&mut self, ms: u64, hears: bool) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(d) = self.flows.poll_departure(at(ms), |_, _| hears) {
            let (test, number) = (d.test, d.number);
            self.flows.handle_sent(test);
            numbers.push(number);
        }
        numbers
    }
}

#[test]
fn what_a_client_orders_it_is_sent_while_it_asks() {
    let mut p = Place::new(OFFER);
    p.ask(300);
    assert!(p.sent(300, true).is_empty(), "it was not asked for yet");
    p.guest.load(at(400), true);
    p.ask(400);
    let test = p.test();
    let departure = p
        .flows
        .poll_departure(at(400), |_, way| way == 'a')
        .unwrap();
    assert_eq!(
        (departure.dscp, departure.size, departure.way),
        (46, 1200, 'a')
    );
    assert_eq!((departure.client, departure.number), (3, 0));
    let mut first = [0; 1200];
    super::super::write(departure.key, 1, 0, &mut first).unwrap();
    p.flows.handle_sent(test);
    let keys = LoadKeys::of(&p.guest.grant().unwrap().secret);
    assert_eq!(super::super::open_datagram(&keys.down, &mut first), Ok(0));
    assert_eq!(p.sent(400, true), (1..10).collect::<Vec<u64>>());
    assert_eq!(p.sent(401, true), (10..20).collect::<Vec<u64>>());
    assert_eq!(p.flows.poll_timeout(at(401)), Some(at(402)));
    // The kernel did not take three of them.
    p.flows.handle_failed(test, 3);
    p.guest.load(at(402), false);
    p.ask(402);
    assert!(p.sent(402, true).is_empty());
    assert_eq!(p.flows.poll_timeout(at(402)), None);
    assert_eq!((p.guest.counted().sent, p.guest.sent()), (17, 17 * 1200));
}

#[test]
fn flows_take_turns_by_bursts_however_late_one_is() {
    let mut flows = Flows::new();
    for (client, down_bps) in [(0, 960_000_000), (1, 96_000_000)] {
        flows.begin(FlowPlan {
            test: TestHandle(client.into()),
            client,
            name: 5,
            secret: Secret::new([1; 32]),
            offer: Offer { down_bps, ..OFFER },
            time_ns: 60_000_000_000,
            dscp: 0,
        });
        let mut order = Guest::new(wish(OFFER), 5, at(0)).poll_order(at(0)).unwrap();
        order.op = OP_LOAD;
        let from = OrderFrom { client, ..FROM };
        flows.handle_order(at(0), from, 'a', &order).unwrap();
    }
    // A driver that never gets to the end of what is due: a burst of the one, one of the other.
    let mut sent = Vec::new();
    for n in 0..1100 {
        let d = flows.poll_departure(at(n / 50), |_, _| true).unwrap();
        let (client, test) = (d.client, d.test);
        flows.handle_sent(test);
        sent.push(client);
    }
    let of = |client: u16| sent.iter().filter(|c| **c == client).count();
    assert_eq!((of(0), of(1)), (1000, 100));
    assert!(sent[..100].iter().all(|c| *c == 0) && sent[100..110].iter().all(|c| *c == 1));
}

#[test]
fn nothing_goes_to_whom_nobody_hears_or_who_has_not_proven_to_be_there() {
    let mut p = Place::new(OFFER);
    p.order(1, 10, OP_LOAD, FROM);
    assert_eq!(p.sent(1, true).len(), 10);
    assert!(p.sent(100, false).is_empty(), "silent");
    assert!(!p.sent(700, true).is_empty(), "and heard again");
    let elsewhere = OrderFrom {
        proven: false,
        ..FROM
    };
    p.order(701, 11, OP_LOAD, elsewhere);
    assert!(p.sent(750, true).is_empty());
    // An order that was overtaken says nothing of what is wanted now.
    p.order(751, 9, OP_LOAD, FROM);
    assert!(p.sent(751, true).is_empty());
    p.order(752, 12, OP_LOAD, FROM);
    assert!(!p.sent(752, true).is_empty());
    p.order(753, 13, OP_POLL, FROM);
    assert!(p.sent(760, true).is_empty());
    p.order(761, 14, OP_LOAD, FROM);
    // The time that was asked for is over, however long it is asked on.
    assert!(!p.sent(999, true).is_empty());
    assert!(p.sent(1001, true).is_empty());
}

#[test]
fn whether_a_silent_client_is_heard_again_is_not_looked_at_all_the_time() {
    let mut p = Place::new(OFFER);
    p.order(1, 10, OP_LOAD, FROM);
    assert_eq!(p.sent(1, true).len(), 10);
    assert!(p.sent(2, false).is_empty());
    assert_eq!(p.flows.poll_timeout(at(2)), Some(at(102)));
    assert!(p.sent(101, true).is_empty());
    assert!(!p.sent(102, true).is_empty());
    assert!(p.sent(150, false).is_empty());
    // It orders: that is looked at at once.
    p.order(160, 11, OP_LOAD, FROM);
    assert_eq!(p.flows.poll_timeout(at(160)), Some(at(160)));
    assert!(!p.sent(160, true).is_empty());
}

#[test]
fn a_test_that_ended_or_has_no_bytes_left_sends_and_counts_nothing() {
    for how in 0..3 {
        let mut p = Place::new(Offer {
            up_bps: 1_000_000,
            ..OFFER
        });
        let test = p.test();
        p.order(1, 10, OP_LOAD, FROM);
        assert!(p.flows.key_of(test).is_some() && !p.sent(1, true).is_empty());
        match how {
            0 => p.order(2, 11, OP_STOP, FROM),
            1 => p.flows.end(at(2), test),
            _ => p.flows.use_up(FROM.client),
        }
        assert!(p.sent(10, true).is_empty() && p.flows.key_of(test).is_none());
        assert_eq!(p.flows.poll_timeout(at(10)), None);
    }
    assert!(Flows::<char>::new().key_of(TestHandle(1)).is_none());
}

#[test]
fn a_test_is_forgotten_once_nobody_may_ask_about_it_any_more() {
    let mut p = Place::new(OFFER);
    let mut order = Guest::new(wish(OFFER), 5, at(0)).poll_order(at(0)).unwrap();
    order.op = OP_STOP;
    let mut is_known = |p: &mut Place, ms| {
        p.flows.handle_timeout(at(ms));
        order.number.set(order.number.get() + 1);
        let figures = p.flows.handle_order(at(ms), FROM, 'a', &order);
        figures.is_some()
    };
    // The other part has not told of its end.
    assert!(is_known(&mut p, 1) && is_known(&mut p, 60_000));
    let test = p.test();
    p.flows.end(at(60_000), test);
    let last_ms = 60_000 + REMEMBER_NS / 1_000_000;
    assert!(is_known(&mut p, last_ms - 1) && !is_known(&mut p, last_ms));
}

/// A buffer before the line that holds five seconds.
#[test]
fn what_comes_long_after_the_load_is_counted_until_the_client_stops() {
    let up = Offer {
        up_bps: 1_000_000,
        down_bps: 0,
        ..OFFER
    };
    let mut p = Place::new(up);
    let test = p.test();
    p.guest.load(at(0), true);
    p.ask(0);
    p.guest.load(at(1000), false);
    let look = |p: &mut Place, ms| {
        p.ask(ms);
        p.host.handle_timeout(at(ms));
        while let Some((ended, ..)) = p.host.poll_ended() {
            p.flows.end(at(ms), ended);
        }
    };
    for ms in (1000..=6000).step_by(250) {
        look(&mut p, ms);
    }
    assert!(p.flows.handle_datagram(test, at(6000), 0, 1200));
    p.guest.stop(at(6001));
    look(&mut p, 6001);
    assert_eq!(p.guest.state(), GuestState::Ended(EndReason::None));
    assert_eq!(p.guest.counted().received, 1);
    assert!(!p.flows.handle_datagram(test, at(6002), 1, 1200));
}

#[test]
fn an_answer_to_an_order_that_overtook_another_takes_nothing_back() {
    let offer = Offer {
        up_bps: 1_000_000,
        down_bps: 0,
        ..OFFER
    };
    let mut p = Place::new(offer);
    let test = p.test();
    p.guest.load(at(100), true);
    p.ask(100);
    let early = p.guest.poll_order(at(400)).unwrap();
    let late = p.guest.poll_order(at(700)).unwrap();
    // The later one is there first.
    assert!(p.flows.handle_datagram(test, at(710), 0, 1200));
    let less = p.answer(720, &late);
    assert!(p.flows.handle_datagram(test, at(730), 1, 1200));
    let more = p.answer(900, &early);
    p.guest.handle_report(at(950), &more).unwrap();
    assert_eq!((p.guest.counted().received, p.guest.received()), (2, 2400));
    p.guest.handle_report(at(960), &less).unwrap();
    assert_eq!((p.guest.counted().received, p.guest.received()), (2, 2400));
}

#[test]
fn bins_are_told_at_their_place_after_their_test_was_forgotten_here() {
    let mut p = Place::new(OFFER);
    let test = p.test();
    p.guest.load(at(100), true);
    p.ask(100);
    for n in 0..4 {
        assert!(p.flows.handle_datagram(test, at(150 + 100 * n), n, 1200));
    }
    p.ask(400);
    let known = p.guest.bins().to_vec();
    assert_eq!(known, [1200, 1200]);
    p.flows = Flows::new();
    p.ask(700);
    assert_eq!(p.guest.bins(), known);
}

#[test]
fn the_client_reads_what_was_counted_of_what_it_sent() {
    let offer = Offer {
        up_bps: 1_000_000,
        down_bps: 0,
        ..OFFER
    };
    let mut p = Place::with(Wish {
        time_ms: 7000,
        ..wish(offer)
    });
    let test = p.test();
    p.guest.load(at(100), true);
    p.ask(100);
    let (of, key) = p.flows.key_of(test).unwrap();
    let keys = LoadKeys::of(&p.guest.grant().unwrap().secret);
    assert!(of == FROM && *key == keys.up);
    // One each 10 ms for 7 s, of which every tenth is lost, one comes again, and two change places.
    let mut counted = 0;
    for number in 0..700u64 {
        let ms = 200 + 10 * number;
        let came = match number {
            50 => 51,
            51 => 50,
            n => n,
        };
        if number % 10 != 5 {
            counted += u64::from(p.flows.handle_datagram(test, at(ms), came, 1200));
        }
        if number == 99 {
            assert!(!p.flows.handle_datagram(test, at(ms), came, 1200));
        }
        if number % 25 == 0 {
            p.ask(ms);
        }
    }
    p.ask(7300);
    p.guest.stop(at(7300));
    while !p.guest.is_over() {
        p.ask(7300);
    }
    assert_eq!(p.guest.state(), GuestState::Ended(EndReason::None));
    let c = p.guest.counted();
    assert_eq!((c.received, c.again, c.overtaken), (630, 1, 1));
    assert_eq!((counted, p.guest.received()), (630, 630 * 1200));
    let bins: Vec<u32> = (0..70).map(|_| 9 * 1200).collect();
    // More than one report has room for.
    assert_eq!(&p.guest.bins()[..70], &bins[..]);
    assert!(p.guest.bins()[70..].iter().all(|b| *b == 0));
}

#[test]
fn what_a_client_may_not_have_is_refused_before_it_begins() {
    let refused = |offer: Offer, who: Asker, streams: u8| {
        let wish = Wish {
            streams_up: streams,
            ..wish(offer)
        };
        let limits = HostLimits {
            concurrent: 1,
            streams: 4,
        };
        let mut guest = Guest::new(wish, 5, at(0));
        let order = guest.poll_order(at(0)).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let report = host_with(limits).handle_order(at(0), &who, &order, &mut rng);
        guest.handle_report(at(0), &report.unwrap()).unwrap();
        match guest.state() {
            GuestState::Granted => None,
            GuestState::Refused(reason) => Some(reason),
            other => panic!("{other:?}"),
        }
    };
    let limited = |most| Asker {
        max_rate_bps: Some(most),
        ..asker()
    };
    // A second at 96 Mbit/s.
    let left = |bytes| Asker {
        bytes_left: Some(bytes),
        ..asker()
    };
    let elsewhere = Asker {
        proven: false,
        ..asker()
    };
    let up = Offer {
        up_bps: 1,
        down_bps: 0,
        ..OFFER
    };
    let fast = |down_bps, size| Offer {
        down_bps,
        size,
        ..OFFER
    };
    let sized = |size: usize| Offer {
        size: size as u16,
        ..OFFER
    };
    for (offer, who, reason) in [
        (OFFER, limited(96_000_000), None),
        (OFFER, limited(95_999_999), Some(EndReason::Rate)),
        (OFFER, left(12_000_000), None),
        (OFFER, left(11_999_999), Some(EndReason::DailyBytes)),
        (OFFER, elsewhere.clone(), Some(EndReason::Address)),
        (up, elsewhere, None),
        (sized(MIN_LOAD_SIZE), asker(), None),
        (sized(MIN_LOAD_SIZE - 1), asker(), Some(EndReason::Rate)),
        (sized(1452), asker(), None),
        (sized(1453), asker(), Some(EndReason::Rate)),
        (fast(MAX_LOAD_BPS, 1200), asker(), None),
        (fast(MAX_LOAD_BPS + 1, 1200), asker(), Some(EndReason::Rate)),
        // Small ones cost as much.
        (fast(MAX_LOAD_PPS * 8 * 128, 128), asker(), None),
        (
            fast(MAX_LOAD_PPS * 8 * 128 + 1, 128),
            asker(),
            Some(EndReason::Rate),
        ),
        (
            Offer {
                up_bps: MAX_LOAD_BPS + 1,
                ..OFFER
            },
            asker(),
            Some(EndReason::Rate),
        ),
    ] {
        assert_eq!(refused(offer, who, 0), reason, "{offer:?}");
    }
    assert_eq!(refused(OFFER, asker(), 1), Some(EndReason::Streams));
}
