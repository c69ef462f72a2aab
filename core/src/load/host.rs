//! The reflector's side: who may test when, and what its streams have carried.

mod test;

use core::ops::DerefMut;

use heapless::Vec;
use rand_core::Rng;
use zerocopy::byteorder::network_endian::{U16, U32, U64};

use super::arrivals::Segments;
use super::datagrams::flows::{Figures, FlowPlan};
use super::{MAX_STREAMS, token_handle};
use crate::drop_reason::DropReason;
use crate::seal::Secret;
use crate::time::Monotonic;
use crate::wire::load::{
    EndReason, OP_LOAD, OP_OPEN, OP_POLL, OP_STOP, Offer, Order, REPORT_BINS, Report, TOKEN_LEN,
    TestState,
};
#[cfg(test)]
pub(super) use test::BEGIN_NS;
use test::{Test, time_ns};

/// Tests that are remembered: those that run, and those that have ended and may still be asked
/// about.
pub const MAX_TESTS: usize = 16;
/// A test ends when its client has been silent for this long, ns.
pub const SILENCE_NS: u64 = 5_000_000_000;
/// A test that has ended is remembered for this long, ns.
pub const REMEMBER_NS: u64 = 30_000_000_000;
/// A client that was told to wait keeps its turn for this long, ns: it asks again within a second.
const TURN_NS: u64 = 3_000_000_000;
/// Longest time a client is told to wait before it asks again, ms.
const LONGEST_WAIT_MS: u32 = 60_000;

/// What the reflector allows in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// Tests at a time, each of another client; 0 is none at all, [`MAX_TESTS`] the most.
    pub concurrent: u8,
    /// Streams of one test in both directions.
    pub streams: u8,
}

/// What the driver knows about who asks.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Which client.
    pub client: u16,
    /// How many bytes it may still move today; `None` is any number.
    pub bytes_left: Option<u64>,
    /// Whether this host has the congestion control that the order asks for; not looked at unless it
    /// [opens](Host::would_open) a test.
    pub congestion_known: bool,
    /// TCP port of the streams.
    pub port: u16,
    /// How fast its tests may be in each direction, bit/s; `None` is any rate.
    pub max_rate_bps: Option<u64>,
    /// Whether the order came from where the client has answered a challenge.
    pub proven: bool,
    /// Whether this client's TCP may come from the prefix that the order announces, if it does.
    pub may_announce: bool,
    /// What has been counted of its test, if that is one over UDP.
    pub figures: Option<Figures>,
}

/// Names a test between this and its driver; never used twice by one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TestHandle(pub u32);

/// A stream whose token was good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its test.
    pub test: TestHandle,
    /// Whose it is.
    pub client: u16,
    /// Its number within the test.
    pub stream: u8,
    /// Whether the client sends; otherwise the reflector does.
    pub up: bool,
    /// Streams of its test in the same direction, itself included.
    pub siblings: u8,
    /// DSCP of what the reflector sends.
    pub dscp: u8,
    /// Congestion control of what the reflector sends, zeros behind it.
    pub congestion: [u8; 16],
}

/// What TCP says of the streams that the reflector sends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderFacts {
    /// Segments sent again.
    pub retransmits: u32,
    /// Mean smoothed round-trip time, µs.
    pub rtt_us: u32,
    /// Sum of congestion windows, bytes.
    pub cwnd_bytes: u32,
}

/// Room for one test.
#[derive(Debug, Default)]
pub struct Room(Option<Test>);

/// All tests of a reflector. The caller lends the room, [`MAX_TESTS`] or fewer: a test is large, and of room that
/// is not needed hardly anything is written.
#[derive(Debug)]
pub struct Host<T> {
    limits: HostLimits,
    tests: T,
    /// Who waits, the longest first.
    waiting: Vec<Waiting, MAX_TESTS>,
    next_handle: u32,
}

/// A client that was told to wait.
#[derive(Debug)]
struct Waiting {
    client: u16,
    /// When it asked last.
    asked: Monotonic,
}

impl<T: DerefMut<Target = [Room]>> Host<T> {
    /// Without tests; what was in the room is forgotten.
    #[must_use]
    pub fn new(limits: HostLimits, mut room: T) -> Self {
        room.iter_mut().for_each(|place| place.0 = None);
        Self {
            limits,
            tests: room,
            waiting: Vec::new(),
            next_handle: 1,
        }
    }

    /// Other limits from now on; tests that run are not disturbed.
    pub const fn set_limits(&mut self, limits: HostLimits) {
        self.limits = limits;
    }

    /// Whether an order of this client would open a test, and is none of a test that is known.
    #[must_use]
    pub fn would_open(&self, client: u16, order: &Order) -> bool {
        order.op == OP_OPEN && self.find(client, order.test.get()).is_none()
    }

    fn tests(&self) -> impl Iterator<Item = &Test> + Clone {
        self.tests.iter().filter_map(|place| place.0.as_ref())
    }

    fn tests_mut(&mut self) -> impl Iterator<Item = &mut Test> {
        self.tests.iter_mut().filter_map(|place| place.0.as_mut())
    }

    fn running_now(&self) -> impl Iterator<Item = &Test> + Clone {
        self.tests().filter(|t| t.ended.is_none())
    }

    fn find(&self, client: u16, name: u64) -> Option<usize> {
        let is_it = |t: &Test| t.client == client && t.name == name;
        let mut places = self.tests.iter();
        places.position(|place| place.0.as_ref().is_some_and(is_it))
    }

    /// Answers an order.
    ///
    /// # Errors
    /// [`DropReason::Field`] where it asks for what there is not.
    pub fn handle_order(
        &mut self,
        now: Monotonic,
        asker: &Asker,
        order: &Order,
        rng: &mut impl Rng,
    ) -> Result<Report, DropReason> {
        self.handle_timeout(now);
        let mut report = empty_report(order);
        let known = self.find(asker.client, order.test.get());
        let known = known.and_then(|index| self.tests[index].0.as_mut());
        match (order.op, known) {
            (OP_OPEN, None) => match self.open(now, asker, order, rng) {
                Ok(test) => test.fill(now, asker.port, &mut report),
                Err((state, reason, wait_ms)) => {
                    report.state = state as u8;
                    report.reason = reason as u8;
                    report.wait_ms = U32::new(wait_ms);
                }
            },
            (OP_POLL | OP_LOAD | OP_STOP, None) => report.state = TestState::Unknown as u8,
            (OP_OPEN | OP_POLL | OP_LOAD | OP_STOP, Some(test)) => {
                if let Some(figures) = &asker.figures {
                    test.count(now, figures);
                }
                test.obey(now, order);
                test.fill(now, asker.port, &mut report);
            }
            _ => return Err(DropReason::Field),
        }
        Ok(report)
    }

    /// Begins a test, or says why not: state, reason, and how long to wait, ms.
    fn open(
        &mut self,
        now: Monotonic,
        asker: &Asker,
        order: &Order,
        rng: &mut impl Rng,
    ) -> Result<&mut Test, (TestState, EndReason, u32)> {
        let refuse = |reason| (TestState::Refused, reason, 0);
        let streams = usize::from(order.streams_up) + usize::from(order.streams_down);
        if self.limits.concurrent == 0 {
            return Err(refuse(EndReason::Off));
        }
        match order.offer() {
            Some(offer) if streams == 0 => may_offer(&offer, order, asker).map_err(refuse)?,
            None if (1..=MAX_STREAMS.min(usize::from(self.limits.streams))).contains(&streams) => {}
            _ => return Err(refuse(EndReason::Streams)),
        }
        order.announced().map_err(refuse)?;
        // Nobody connects for a test over UDP.
        if !asker.may_announce && order.offer().is_none() {
            return Err(refuse(EndReason::Prefix));
        }
        if !asker.congestion_known && order.offer().is_none() {
            return Err(refuse(EndReason::Congestion));
        }
        if asker.bytes_left == Some(0) {
            return Err(refuse(EndReason::DailyBytes));
        }
        let busy = |wait_ms| (TestState::Busy, EndReason::None, wait_ms);
        // One of a client at a time: together two would have twice its rate, and twice what is left to it.
        let has_one = self.running_now().any(|t| t.client == asker.client);
        let free = usize::from(self.limits.concurrent).saturating_sub(self.running_tests());
        if has_one || free <= self.ahead_of(asker.client) {
            let ends = self.running_now().map(Test::last_end);
            let soonest = ends.map(|end| end.saturating_since(now)).min();
            let ms = u32::try_from(soonest.unwrap_or(0) / 1_000_000).unwrap_or(u32::MAX);
            self.wait(now, asker.client);
            return Err(busy(ms.clamp(100, LONGEST_WAIT_MS)));
        }
        let free = self.tests.iter().position(|place| place.0.is_none());
        let index = match free {
            Some(index) => index,
            // What ended first is asked about least.
            None => {
                let places = self.tests.iter().enumerate();
                let ended = places.filter_map(|(i, place)| {
                    let test = place.0.as_ref().filter(|t| t.told)?;
                    test.ended.map(|(at, _)| (at, i))
                });
                let (_, index) = ended.min().ok_or(busy(1000))?;
                index
            }
        };
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        let handle = TestHandle(self.next_handle);
        self.next_handle = self.next_handle.wrapping_add(1);
        let test = Test::new(handle, Secret::new(secret), asker, order, now);
        self.waiting.retain(|w| w.client != asker.client);
        Ok(self.tests[index].0.insert(test))
    }

    /// How many have waited longer than this client and can have a test now. Without a turn, whoever asks again as
    /// soon as its own test is over would have every test.
    fn ahead_of(&self, client: u16) -> usize {
        let longer = self.waiting.iter().take_while(|w| w.client != client);
        let running = self.running_now();
        longer
            .filter(|w| !running.clone().any(|t| t.client == w.client))
            .count()
    }

    /// A client was told to wait. One for which there is no room here takes its chance.
    fn wait(&mut self, now: Monotonic, client: u16) {
        match self.waiting.iter_mut().find(|w| w.client == client) {
            Some(waiting) => waiting.asked = now,
            None => {
                let _ = self.waiting.push(Waiting { client, asked: now });
            }
        }
    }

    /// What of a test that was granted just now has to be counted and sent; `None` where that is one of
    /// TCP streams, or there is none.
    #[must_use]
    pub fn flow(&self, test: TestHandle) -> Option<FlowPlan> {
        self.running_now().find(|t| t.handle == test)?.flow()
    }

    /// A TCP stream began with these bytes: whether it belongs to a test.
    ///
    /// # Errors
    /// Why it does not: no such test, sealed otherwise, or a token that was used before
    /// ([`DropReason::Replay`]).
    pub fn admit(
        &mut self,
        now: Monotonic,
        token: &[u8; TOKEN_LEN],
    ) -> Result<Admitted, DropReason> {
        let handle = TestHandle(token_handle(token)?);
        let test = self.running(handle).ok_or(DropReason::UnknownSession)?;
        test.admit(now, token)
    }

    /// `bytes` came through the stream of `test` that was admitted with this number.
    pub fn received(&mut self, test: TestHandle, stream: u8, now: Monotonic, bytes: u64) {
        if let Some(t) = self.running(test) {
            t.received(stream, now, bytes);
        }
    }

    /// What TCP says of a stream upward; to be told ten times a second.
    pub fn segments(&mut self, test: TestHandle, stream: u8, now: Monotonic, segments: Segments) {
        if let Some(t) = self.running(test) {
            t.segments(stream, now, segments);
        }
    }

    /// `bytes` were handed to the kernel for a stream of `test`.
    pub fn sent(&mut self, test: TestHandle, now: Monotonic, bytes: u64) {
        if let Some(t) = self.running(test) {
            t.sent(now, bytes);
        }
    }

    /// A count that the client sent back at `now` says that a byte took `delay_ns`.
    pub fn in_band(&mut self, test: TestHandle, now: Monotonic, delay_ns: u64) {
        if let Some(t) = self.running(test) {
            t.in_band(now, delay_ns);
        }
    }

    /// What TCP says of the streams that the reflector sends on.
    pub fn set_facts(&mut self, test: TestHandle, facts: SenderFacts) {
        if let Some(t) = self.running(test) {
            t.set_facts(facts);
        }
    }

    /// Ends what has lasted too long or whose client is silent, and forgets what ended long ago.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        self.tests_mut().for_each(|t| t.handle_timeout(now));
        self.waiting
            .retain(|w| now.saturating_since(w.asked) < TURN_NS);
        let is_old = |t: &mut Test| {
            let ended = t.ended.filter(|_| t.told);
            ended.is_some_and(|(at, _)| now.saturating_since(at) >= REMEMBER_NS)
        };
        for place in self.tests.iter_mut() {
            place.0.take_if(is_old);
        }
    }

    /// Ends every test, and forgets who waits.
    pub fn end_all(&mut self, now: Monotonic) {
        self.waiting.clear();
        self.tests_mut().for_each(|t| t.end(now, EndReason::None));
    }

    /// When [`Host::handle_timeout`] is next needed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        self.running_now().map(Test::poll_timeout).min()
    }

    /// A test that has ended since this was last asked: its streams are to be closed. With it, whose
    /// it was and how many bytes it moved.
    pub fn poll_ended(&mut self) -> Option<(TestHandle, u16, u64)> {
        // In the order of granting.
        let ended = self.tests_mut().filter(|t| t.ended.is_some() && !t.told);
        let t = ended.min_by_key(|t| t.handle)?;
        t.told = true;
        Some((t.handle, t.client, t.moved()))
    }

    /// How many tests run.
    #[must_use]
    pub fn running_tests(&self) -> usize {
        self.running_now().count()
    }

    fn running(&mut self, handle: TestHandle) -> Option<&mut Test> {
        let mut tests = self.tests_mut();
        tests.find(|t| t.handle == handle && t.ended.is_none())
    }
}

/// Whether a client may have these datagrams. What they move is known before.
fn may_offer(offer: &Offer, order: &Order, asker: &Asker) -> Result<(), EndReason> {
    let fastest_bps = offer.up_bps.max(offer.down_bps);
    if !offer.is_possible() || asker.max_rate_bps.is_some_and(|most| fastest_bps > most) {
        return Err(EndReason::Rate);
    }
    if offer.down_bps > 0 && !asker.proven {
        return Err(EndReason::Address);
    }
    let bytes = offer.bytes_in(time_ns(order));
    match asker.bytes_left {
        Some(left) if bytes > left => Err(EndReason::DailyBytes),
        _ => Ok(()),
    }
}

fn empty_report(order: &Order) -> Report {
    Report {
        state: 0,
        reason: 0,
        port: U16::ZERO,
        number: order.number,
        test: order.test,
        wait_ms: U32::ZERO,
        handle: U32::ZERO,
        secret: Secret::new([0; 32]),
        received: U64::ZERO,
        sent: U64::ZERO,
        retransmits: U32::ZERO,
        rtt_us: U32::ZERO,
        cwnd_bytes: U32::ZERO,
        first_bin: order.first_bin,
        bins: U16::ZERO,
        reserved: U16::ZERO,
        bytes: [U32::ZERO; REPORT_BINS],
        in_band: [U16::ZERO; REPORT_BINS],
        datagrams: U32::ZERO,
        again: U32::ZERO,
        overtaken: U32::ZERO,
        datagrams_sent: U32::ZERO,
        sender_dropped: U32::ZERO,
        reserved2: [0; 4],
    }
}
