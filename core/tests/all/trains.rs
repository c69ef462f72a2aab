//! Packet trains between a client and a reflector, datagram by datagram.

use bufferbane_core::drop_reason::DropReason;
use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::packet::RecvMeta;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_core::session::client::Client;
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{KeyEntry, Reflector, Session};
use bufferbane_core::time::{Monotonic, Stamp};
use bufferbane_core::train::estimate::estimate;
use bufferbane_core::train::exchange::{Ending, Exchange, Plan};
use bufferbane_core::train::host::{Host, Record};
use bufferbane_core::wire::train::{Ask, RefusedTrain, TrainState, arrivals};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const MS: u64 = 1_000_000;
const HOME: ([u8; 4], u16) = ([192, 0, 2, 1], 1000);
const ELSEWHERE: ([u8; 4], u16) = ([198, 51, 100, 9], 1000);

struct World {
    client: Client<Vec<Slot>, Vec<LossSlot>>,
    reflector: Reflector<Vec<KeyEntry>, Vec<Session>, Vec<StreamRecord>>,
    host: Host<Vec<Record>, ()>,
    rng: ChaCha8Rng,
    now: Monotonic,
    bytes_left: Option<u64>,
}

fn meta(at: Monotonic, from: ([u8; 4], u16)) -> RecvMeta {
    RecvMeta {
        at: Stamp::kernel(at),
        from: from.into(),
        to: None,
        ttl: None,
        tos: None,
        socket_drops: 0,
        truncated: false,
    }
}

impl World {
    /// A client with a session, which may send so many packets per second.
    fn new(max_pps: u32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let key = PresharedKey {
            id: KeyId([1; 8]),
            secret: Secret::new([2; 32]),
        };
        let now = Monotonic::from_nanos(1_000 * MS);
        let reflector = Reflector::new(
            vec![KeyEntry::new(key.clone(), 3, max_pps, 4)],
            vec![Session::default(); 4],
            vec![StreamRecord::default(); 4],
            100,
            &mut rng,
        );
        let mut world = Self {
            client: Client::new(key, now, &mut rng),
            reflector,
            host: Host::new(vec![Record::default(); 2]),
            rng,
            now,
            bytes_left: None,
        };
        world.knock(HOME);
        world
    }

    fn knock(&mut self, from: ([u8; 4], u16)) {
        let (mut knock, mut answer) = ([0; 1500], [0; 1500]);
        while !self.client.is_answering() {
            let sent = self
                .client
                .poll_transmit(self.now, &mut self.rng, &mut knock);
            let (len, _token) = sent.expect("a knock");
            let meta = meta(self.now, from);
            let request = &mut knock[..len];
            let answered =
                self.reflector
                    .handle_request(self.now, &meta, request, &mut answer, &mut self.rng);
            let answer = &mut answer[..answered.expect("an answer").len];
            assert_eq!(self.client.handle_reply(self.now, &meta, answer), Ok(()));
        }
    }

    /// Hands an ask over, and its report back.
    fn ask(&mut self, exchange: &mut Exchange, from: ([u8; 4], u16)) -> Option<TrainState> {
        let (ask, len) = exchange.poll_ask(self.now)?;
        let state = self.ask_for(&ask, len, from, Some(exchange));
        Some(state)
    }

    fn ask_for(
        &mut self,
        ask: &Ask,
        len: usize,
        from: ([u8; 4], u16),
        exchange: Option<&mut Exchange>,
    ) -> TrainState {
        let mut datagram = vec![0; len];
        self.client
            .write_ask(ask, &mut datagram)
            .expect("a session");
        let meta = meta(self.now, from);
        let opened = self.reflector.open_ask(self.now, &meta, &mut datagram);
        let (from, ask) = opened.expect("an ask");
        let answer = self
            .host
            .handle_ask(self.now, from, (), &ask, self.bytes_left);
        let mut answer = answer.expect("an answer");
        answer.fit(len);
        if let Some(left) = &mut self.bytes_left {
            *left -= answer.granted;
        }
        // No longer than what asked for it.
        let mut report = vec![0; len];
        self.reflector
            .write_train_report(from, &answer.report, answer.arrivals, &mut report)
            .expect("a session");
        let told = self.client.open_train_report(self.now, &mut report);
        let told = told.expect("a report");
        let follow = arrivals(&told, &report).expect("as many as it says");
        if let Some(exchange) = exchange {
            assert_eq!(exchange.handle_report(self.now, &told, follow), Ok(()));
        }
        TrainState::from_u8(told.state).expect("a state")
    }

    /// Sends a whole train up, which passes at 1 ms for each datagram that `arrives`.
    fn send_up(&mut self, exchange: &mut Exchange, arrives: impl Fn(u16) -> bool) {
        let plan = exchange.plan();
        for index in 0..plan.count {
            let mut datagram = vec![0; plan.size.into()];
            let car = exchange.car(index);
            self.client
                .write_car(&car, &mut datagram)
                .expect("a session");
            exchange.handle_sent(self.now.saturating_add(u64::from(index) * MS / 100));
            if !arrives(index) {
                continue;
            }
            let at = self.now.saturating_add(u64::from(index) * MS);
            let opened = self.reflector.open_car(at, &meta(at, HOME), &mut datagram);
            let (from, car) = opened.expect("a train");
            let taken = self.host.handle_car(from, Stamp::kernel(at), &car, 0);
            assert_eq!(taken, Ok(()));
        }
        self.now = self.now.saturating_add(u64::from(plan.count) * MS);
        exchange.handle_all_sent(self.now);
    }
}

const UP: Plan = Plan {
    up: true,
    count: 300,
    size: 208,
};

#[test]
fn a_train_up_is_timed_by_the_reflector() {
    let mut w = World::new(1000);
    let mut exchange = Exchange::new(UP, 9, w.now);
    assert!(
        exchange.poll_ask(w.now).is_none(),
        "nothing has been sent yet"
    );
    w.send_up(&mut exchange, |_| true);
    // More arrivals than one report has room for.
    assert_eq!(w.ask(&mut exchange, HOME), Some(TrainState::Arrivals));
    assert_eq!(exchange.ending(), None);
    assert_eq!(w.ask(&mut exchange, HOME), Some(TrainState::Arrivals));
    assert_eq!(exchange.ending(), Some(Ending::Heard));
    assert_eq!(exchange.most(), Some(500));
    let (sent, arrived) = exchange.result(42);
    assert_eq!(arrived.len(), 300);
    let e = estimate(&sent, arrived).expect("a rate");
    assert_eq!(e.burst_bps, 250 * 8 * 1000);
    assert_eq!(w.ask(&mut exchange, HOME), None, "it is over");
}

#[test]
fn what_is_missing_is_asked_for_once_more() {
    let mut w = World::new(1000);
    let plan = Plan { count: 50, ..UP };
    let mut exchange = Exchange::new(plan, 9, w.now);
    w.send_up(&mut exchange, |index| index % 10 != 4);
    w.ask(&mut exchange, HOME);
    assert_eq!(exchange.ending(), None);
    assert!(exchange.poll_ask(w.now).is_none(), "not at once");
    w.now = exchange.poll_timeout();
    w.ask(&mut exchange, HOME);
    assert_eq!(exchange.ending(), Some(Ending::Heard));
    assert_eq!(exchange.result(42).1.len(), 45);

    // Nothing at all arrives.
    let mut exchange = Exchange::new(plan, 10, w.now);
    w.send_up(&mut exchange, |_| false);
    assert_eq!(w.ask(&mut exchange, HOME), Some(TrainState::Unknown));
    w.now = exchange.poll_timeout();
    w.ask(&mut exchange, HOME);
    assert_eq!(exchange.ending(), Some(Ending::Heard));
    assert!(exchange.result(42).1.is_empty());

    // And nobody answers.
    let mut exchange = Exchange::new(plan, 11, w.now);
    w.send_up(&mut exchange, |_| true);
    let mut asks = 0;
    while exchange.ending().is_none() {
        asks += u32::from(exchange.poll_ask(w.now).is_some());
        w.now = exchange.poll_timeout();
        exchange.handle_timeout(w.now);
    }
    assert_eq!(exchange.ending(), Some(Ending::Silent));
    assert!((5..20).contains(&asks), "{asks}");
}

#[test]
fn a_session_has_one_record_and_the_silent_give_way() {
    let mut w = World::new(1000);
    let plan = Plan { count: 20, ..UP };
    for train in 0..5 {
        let mut exchange = Exchange::new(plan, train, w.now);
        w.send_up(&mut exchange, |_| true);
        w.ask(&mut exchange, HOME);
        assert_eq!(exchange.result(42).1.len(), 20, "train {train}");
    }
    // A client that numbers its datagrams twice finds no more room than there is.
    let mut exchange = Exchange::new(plan, 77, w.now);
    w.send_up(&mut exchange, |_| true);
    let mut taken = 20;
    let full = loop {
        let mut datagram = vec![0; 128];
        w.client.write_car(&exchange.car(3), &mut datagram).unwrap();
        w.now = w.now.saturating_add(2 * MS);
        let at = meta(w.now, HOME);
        let (from, car) = w.reflector.open_car(w.now, &at, &mut datagram).unwrap();
        match w.host.handle_car(from, Stamp::kernel(w.now), &car, 0) {
            Ok(()) => taken += 1,
            Err(why) => break why,
        }
    };
    assert_eq!((taken, full), (512, DropReason::Field));
}

const DOWN: Plan = Plan {
    up: false,
    count: 30,
    size: 1452,
};

#[test]
fn a_train_down_goes_to_a_proven_address_and_out_of_the_days_bytes() {
    let mut w = World::new(1000);
    w.bytes_left = Some(50_000);
    let mut exchange = Exchange::new(DOWN, 9, w.now);
    let (ask, len) = exchange.poll_ask(w.now).expect("an order");
    assert!(len <= 128 && !w.host.is_sending());
    let sent = w.ask_for(&ask, len, HOME, Some(&mut exchange));
    assert_eq!(
        (sent, w.bytes_left),
        (TrainState::Sent, Some(50_000 - 30 * 1452))
    );
    // Asked for again it is not sent again.
    let again = w.ask_for(&ask, len, HOME, None);
    assert_eq!(
        (again, w.bytes_left),
        (TrainState::Sent, Some(50_000 - 30 * 1452))
    );
    let begin = w.now;
    let mut n = 0;
    while let Some(departure) = w.host.poll_car(begin.saturating_add(n * MS / 100)) {
        let mut datagram = vec![0; departure.size.into()];
        w.reflector
            .write_car(departure.to, &departure.car, &mut datagram)
            .expect("a session");
        let at = begin.saturating_add(n * MS);
        let car = w.client.open_car(at, &mut datagram).expect("a train");
        assert_eq!(exchange.handle_car(Stamp::kernel(at), &car), Ok(()));
        let again = exchange.handle_car(Stamp::kernel(at), &car);
        assert!(again.is_err(), "each counts once");
        n += 1;
    }
    assert_eq!((n, exchange.ending()), (30, Some(Ending::Heard)));
    let (sent, arrived) = exchange.result(42);
    let e = estimate(&sent, arrived).expect("a rate");
    assert_eq!(e.burst_bps, (1452 + 42) * 8 * 1000);

    // There is nothing left for another one; and where there is, it comes too soon.
    let mut next = Exchange::new(DOWN, 10, w.now);
    assert_eq!(w.ask(&mut next, HOME), Some(TrainState::Refused));
    assert_eq!(
        next.ending(),
        Some(Ending::Refused(RefusedTrain::DailyBytes))
    );
    w.bytes_left = None;
    let mut soon = Exchange::new(DOWN, 13, w.now);
    assert_eq!(w.ask(&mut soon, HOME), Some(TrainState::Busy));
    assert_eq!(soon.ending(), None);
    w.now = w.now.saturating_add(250 * MS);
    assert_eq!(w.ask(&mut soon, HOME), Some(TrainState::Sent));
    // More than half of what the client may send in a second.
    let large = Plan { count: 501, ..DOWN };
    let mut large = Exchange::new(large, 12, w.now);
    w.ask(&mut large, HOME);
    assert_eq!(large.ending(), Some(Ending::Refused(RefusedTrain::Size)));
    // The largest is granted where there is just as much left, and not where a byte is missing.
    let largest = Plan { count: 500, ..DOWN };
    for (left, state) in [
        (500 * 1452 - 1, TrainState::Refused),
        (500 * 1452, TrainState::Sent),
    ] {
        while w.host.poll_car(w.now).is_some() {}
        w.now = w.now.saturating_add(250 * MS);
        w.bytes_left = Some(left);
        let mut largest = Exchange::new(largest, 15, w.now);
        assert_eq!(w.ask(&mut largest, HOME), Some(state));
    }
    w.bytes_left = None;
    // From elsewhere it would be more than what asked for it, to who knows whom.
    let mut moved = Exchange::new(DOWN, 11, w.now);
    assert_eq!(w.ask(&mut moved, ELSEWHERE), Some(TrainState::Refused));
    assert_eq!(moved.ending(), Some(Ending::Refused(RefusedTrain::Address)));
    // Nor is it clear then, until a challenge came back, who is at home.
    let mut back = Exchange::new(DOWN, 14, w.now);
    assert_eq!(w.ask(&mut back, HOME), Some(TrainState::Refused));
    assert_eq!(back.ending(), Some(Ending::Refused(RefusedTrain::Address)));
}

#[test]
fn a_train_down_that_is_cut_short_is_over_all_the_same() {
    let mut w = World::new(1000);
    let mut exchange = Exchange::new(DOWN, 9, w.now);
    assert_eq!(w.ask(&mut exchange, HOME), Some(TrainState::Sent));
    for n in 0..20 {
        let departure = w.host.poll_car(w.now).expect("a datagram");
        if n % 2 == 0 {
            let at = w.now.saturating_add(n * MS);
            exchange
                .handle_car(Stamp::kernel(at), &departure.car)
                .unwrap();
        }
    }
    w.now = exchange.poll_timeout();
    exchange.handle_timeout(w.now);
    assert_eq!(exchange.ending(), Some(Ending::Heard));
    assert_eq!(exchange.result(42).1.len(), 10);
}
