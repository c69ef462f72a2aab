//! The reflector's side: counts the datagrams of tests, and sends those that clients ordered.
//!
//! Another part of the reflector says which tests there are ([`crate::load::host`]); orders pass by
//! here on their way to it, and take with them what has been counted.

use heapless::Vec;

use super::pace::Pace;
use super::tally::Tally;
use super::{Counted, LoadKeys};
use crate::load::host::{MAX_TESTS, REMEMBER_NS, TestHandle};
use crate::seal::Secret;
use crate::session::reflector::OrderFrom;
use crate::time::Monotonic;
use crate::wire::load::{OP_LOAD, OP_STOP, Offer, Order, REPORT_BINS, Report};

/// A client that has been silent for this long is sent nothing, ns.
pub const SILENCE_NS: u64 = 1_000_000_000;
/// Whether a client that was silent is heard again is looked at this often, ns, and with each order.
const LOOK_NS: u64 = 100_000_000;

/// A test over UDP that was granted.
#[derive(Clone, Debug)]
pub struct FlowPlan {
    /// The reflector's name of it.
    pub test: TestHandle,
    /// Whose it is.
    pub client: u16,
    /// The client's name of it.
    pub name: u64,
    /// Its secret.
    pub secret: Secret,
    /// What was ordered.
    pub offer: Offer,
    /// How long the load may last, ns; no more than [`crate::load::MAX_LOAD_NS`].
    pub time_ns: u64,
    /// DSCP of what is sent.
    pub dscp: u8,
}

/// What has been counted of a test, as far as one report has room for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// UDP payload that has arrived, bytes.
    pub received: u64,
    /// UDP payload that was sent, bytes.
    pub sent: u64,
    /// The datagrams.
    pub counted: Counted,
    /// The bin that was asked for.
    pub first_bin: u32,
    /// Bytes of the bins that are over, from that one on.
    pub bins: Vec<u32, REPORT_BINS>,
    /// The client's bytes of the day are used up: no more is sent or counted.
    pub used_up: bool,
}

impl Figures {
    /// Puts them into a report, as far as they are of its first bin or later ones: where a test is asked about that
    /// is no longer known elsewhere, they are those of the last order before.
    pub(in crate::load) fn fill(&self, report: &mut Report) {
        report.received = self.received.into();
        report.sent = self.sent.into();
        report.datagrams = self.counted.received.into();
        report.again = self.counted.again.into();
        report.overtaken = self.counted.overtaken.into();
        report.datagrams_sent = self.counted.sent.into();
        let before = report.first_bin.get().checked_sub(self.first_bin);
        let bins = before.and_then(|n| self.bins.get(n as usize..));
        let bins = bins.unwrap_or_default();
        report.bins = (bins.len() as u16).into();
        for (place, bytes) in report.bytes.iter_mut().zip(bins) {
            *place = (*bytes).into();
        }
    }
}

/// One datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Departure<'a, W> {
    /// How, as the driver said with the order that it was sent for.
    pub way: W,
    /// Whose it is.
    pub client: u16,
    /// The test.
    pub test: TestHandle,
    /// Its number.
    pub number: u64,
    /// Its bytes on the wire.
    pub size: u16,
    /// Its DSCP.
    pub dscp: u8,
    /// Seals it.
    pub key: &'a Secret,
}

#[derive(Debug)]
struct Flow<W> {
    plan: FlowPlan,
    keys: LoadKeys,
    tally: Tally,
    pace: Option<Pace>,
    /// Nothing is due before: its client was not heard.
    look_at: Monotonic,
    /// The latest order, and whether it asks for datagrams.
    from: Option<(OrderFrom, W)>,
    asked: bool,
    /// Number of the latest order.
    order: u32,
    /// Since when there is load.
    begun: Option<Monotonic>,
    /// Datagrams that were queued: the number of the next.
    queued: u32,
    /// Those of them that the kernel did not take.
    failed: u32,
    used_up: bool,
    ended: bool,
    /// When [`Flows::end`] was told of the end.
    over: Option<Monotonic>,
}

/// All tests over UDP that run, or have ended and may still be asked about. `W` is the driver's note
/// of where a client is.
#[derive(Debug)]
pub struct Flows<W> {
    flows: Vec<Flow<W>, MAX_TESTS>,
    /// Whose turn it is: the first that is asked whether something of it is due.
    turn: usize,
}

impl<W: Copy> Default for Flows<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Copy> Flows<W> {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            flows: Vec::new(),
            turn: 0,
        }
    }

    /// A test was granted. Where there is no room, one that has ended is forgotten.
    pub fn begin(&mut self, plan: FlowPlan) {
        if self.flows.is_full()
            && let Some(ended) = self.flows.iter().position(|f| f.ended)
        {
            // The oldest: others keep their order.
            self.flows.remove(ended);
        }
        // As many tests as there is room for run at a time.
        let _ = self.flows.push(Flow {
            keys: LoadKeys::of(&plan.secret),
            plan,
            tally: Tally::new(),
            pace: None,
            look_at: Monotonic::ZERO,
            from: None,
            asked: false,
            order: 0,
            begun: None,
            queued: 0,
            failed: 0,
            used_up: false,
            ended: false,
            over: None,
        });
    }

    /// A test has ended: nothing of it is sent or counted any more. It may be asked about as long as
    /// whoever said which tests there are remembers it, [`REMEMBER_NS`] from its end on.
    pub fn end(&mut self, now: Monotonic, test: TestHandle) {
        let of_test = self.flows.iter_mut().filter(|f| f.plan.test == test);
        of_test.for_each(|f| (f.ended, f.over) = (true, Some(now)));
    }

    /// Forgets tests that ended long ago, and their keys; to be called now and then.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        let is_recent = |over| now.saturating_since(over) < REMEMBER_NS;
        self.flows.retain(|f| f.over.is_none_or(is_recent));
    }

    /// An order passes by. Gives what has been counted of its test, if that is one over UDP.
    pub fn handle_order(
        &mut self,
        now: Monotonic,
        from: OrderFrom,
        way: W,
        order: &Order,
    ) -> Option<Figures> {
        let name = order.test.get();
        let mut flows = self.flows.iter_mut();
        let flow = flows.find(|f| (f.plan.client, f.plan.name) == (from.client, name))?;
        let number = order.number.get();
        // One that was overtaken says nothing of what its client wants now.
        if number > flow.order && !flow.ended {
            flow.order = number;
            flow.from = Some((from, way));
            flow.look_at = now;
            // Nothing goes to where the client has not proven to be.
            flow.asked = order.op == OP_LOAD && from.proven;
            match order.op {
                OP_LOAD => _ = flow.begun.get_or_insert(now),
                OP_STOP => flow.ended = true,
                _ => {}
            }
        }
        Some(flow.figures(now, order.first_bin.get()))
    }

    /// The order that a test goes on by, and what opens its datagrams; `None` where no such test runs.
    #[must_use]
    pub fn key_of(&self, test: TestHandle) -> Option<(OrderFrom, &Secret)> {
        let mut flows = self.flows.iter();
        let flow = flows.find(|f| f.plan.test == test && !f.ended && !f.used_up)?;
        Some((flow.from?.0, &flow.keys.up))
    }

    /// Datagram `number` of a test, of so many bytes, arrived at `at`. Says whether it is counted.
    pub fn handle_datagram(
        &mut self,
        test: TestHandle,
        at: Monotonic,
        number: u64,
        bytes: u64,
    ) -> bool {
        let mut flows = self.flows.iter_mut();
        let flow = flows.find(|f| f.plan.test == test && !f.ended);
        flow.is_some_and(|f| f.tally.take(at, number, bytes))
    }

    /// A client's bytes of the day are used up.
    pub fn use_up(&mut self, client: u16) {
        let of_client = self.flows.iter_mut().filter(|f| f.plan.client == client);
        of_client.for_each(|f| f.used_up = true);
    }

    /// The next datagram that is due, of one flow after the other, a burst of each, so that none keeps others
    /// from theirs however late it is; of clients that `hears` says are still where the driver's note of
    /// their order says: nobody is sent what they do not ask for any more. To be asked until there is
    /// none; each one that could be queued is to be told of by [`Flows::handle_sent`].
    pub fn poll_departure(
        &mut self,
        now: Monotonic,
        mut hears: impl FnMut(OrderFrom, W) -> bool,
    ) -> Option<Departure<'_, W>> {
        let count = self.flows.len();
        let turn = self.turn;
        let due = (0..count).map(|n| (turn + n) % count).find(|n| {
            let f = &mut self.flows[*n];
            let Some((from, way)) = f.from.filter(|_| f.is_sending(now)) else {
                return false;
            };
            let Offer { down_bps, size, .. } = f.plan.offer;
            let pace = f.pace.get_or_insert_with(|| Pace::new(down_bps, size, now));
            if now < f.look_at.max(pace.poll_timeout()) {
                return false;
            }
            let is_heard = hears(from, way);
            if !is_heard {
                // What is due stays so meanwhile: the driver is not to come by without a pause.
                f.look_at = now.saturating_add(LOOK_NS);
            }
            is_heard && pace.poll(now)
        })?;
        let flow = &self.flows[due];
        let has_more = flow.pace.is_some_and(|p| p.is_in_burst());
        self.turn = if has_more { due } else { due + 1 };
        let (_, way) = flow.from?;
        Some(Departure {
            way,
            client: flow.plan.client,
            test: flow.plan.test,
            number: u64::from(flow.queued),
            size: flow.plan.offer.size,
            dscp: flow.plan.dscp,
            key: &flow.keys.down,
        })
    }

    /// What [`Flows::poll_departure`] gave of a test was queued.
    pub fn handle_sent(&mut self, test: TestHandle) {
        if let Some(flow) = self.flows.iter_mut().find(|f| f.plan.test == test) {
            flow.queued = flow.queued.saturating_add(1);
        }
    }

    /// So many of those that were queued did not leave this host.
    pub fn handle_failed(&mut self, test: TestHandle, count: u32) {
        if let Some(flow) = self.flows.iter_mut().find(|f| f.plan.test == test) {
            flow.failed = flow.failed.saturating_add(count);
        }
    }

    /// When [`Flows::poll_departure`] is next needed.
    #[must_use]
    pub fn poll_timeout(&self, now: Monotonic) -> Option<Monotonic> {
        let sending = self.flows.iter().filter(|f| f.is_sending(now));
        let due = sending.map(|f| {
            let paced = f.pace.map_or(now, |p| p.poll_timeout());
            paced.max(f.look_at).max(now)
        });
        due.min()
    }
}

impl<W> Flow<W> {
    fn is_sending(&self, now: Monotonic) -> bool {
        let is_time = self
            .begun
            .is_some_and(|begun| now.saturating_since(begun) < self.plan.time_ns);
        is_time && self.asked && self.plan.offer.down_bps > 0 && !self.ended && !self.used_up
    }

    fn figures(&self, now: Monotonic, first_bin: u32) -> Figures {
        let bins = self.tally.bins();
        let size = u64::from(self.plan.offer.size);
        let sent = self.queued.saturating_sub(self.failed);
        Figures {
            received: bins.total(),
            sent: u64::from(sent) * size,
            counted: self.tally.counted(sent),
            first_bin,
            bins: (first_bin as usize..bins.known(now, self.ended))
                .take(REPORT_BINS)
                .map(|i| bins.get(i))
                .collect(),
            used_up: self.used_up,
        }
    }
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
