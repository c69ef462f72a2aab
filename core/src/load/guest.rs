//! The client's side: asks for a test, waits where others are being tested, and reads its figures.

use heapless::Vec;
use zerocopy::byteorder::network_endian::{U16, U32, U64};

use super::bins::MAX_BINS;
use super::datagrams::Counted;
use super::host::SenderFacts;
use crate::drop_reason::DropReason;
use crate::seal::Secret;
use crate::stamp::Subnet;
use crate::time::Monotonic;
use crate::wire::load::{
    EndReason, OP_LOAD, OP_OPEN, OP_POLL, OP_STOP, Offer, Order, REPORT_BINS, Report, TestState,
};

/// Between two orders while a test runs, ns.
const POLL_NS: u64 = 250_000_000;
/// Between two orders while the first answer is awaited, ns.
const RETRY_NS: u64 = 500_000_000;
/// A reflector that others are testing is asked again after this at most, ns.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// Without an answer for this long the reflector is given up, ns.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Without an answer to the last order for this long what is known has to do, ns.
const STOP_PATIENCE_NS: u64 = 5_000_000_000;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// TCP streams from the client.
    pub streams_up: u8,
    /// TCP streams to the client.
    pub streams_down: u8,
    /// How long they are to run, ms.
    pub time_ms: u32,
    /// DSCP of the reflector's stream *i* is entry *i* modulo 8.
    pub dscp: [u8; 8],
    /// Congestion control of the reflector's streams, ASCII, zeros behind it.
    pub congestion: [u8; 16],
    /// Where the client's TCP streams may come from, if not from where its probes do.
    pub prefix: Option<Subnet>,
    /// Datagrams in place of streams.
    pub offer: Option<Offer>,
}

/// Where asking has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestState {
    /// No answer yet.
    Asking,
    /// Others are being tested; asked again by itself.
    Waiting,
    /// Streams may be opened.
    Granted,
    /// It is being ended.
    Stopping,
    /// It is over: all figures are there.
    Ended(EndReason),
    /// It will not be.
    Refused(EndReason),
    /// The reflector does not answer orders (any more).
    Silent,
}

/// What opens streams.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The reflector's name of the test.
    pub handle: u32,
    /// Seals the tokens.
    pub secret: Secret,
    /// Where the streams go.
    pub port: u16,
}

/// One test as its client knows it.
#[derive(Debug)]
pub struct Guest {
    name: u64,
    wish: Wish,
    state: GuestState,
    number: u32,
    answered: u32,
    next_at: Monotonic,
    heard: Monotonic,
    stopped: Option<Monotonic>,
    grant: Option<Grant>,
    reason: EndReason,
    bins: Vec<u32, MAX_BINS>,
    in_band: Vec<u16, MAX_BINS>,
    received: u64,
    sent: u64,
    facts: SenderFacts,
    counted: Counted,
    sender_drops: Option<u32>,
    loading: bool,
    /// The last order before the load ended: what answers it may have been counted during the load.
    last_of_load: u32,
    complete: bool,
}

impl Guest {
    /// A test that is called `name`, which is random, and is asked for from `now` on.
    #[must_use]
    pub const fn new(wish: Wish, name: u64, now: Monotonic) -> Self {
        Self {
            name,
            wish,
            state: GuestState::Asking,
            number: 0,
            answered: 0,
            next_at: now,
            heard: now,
            stopped: None,
            grant: None,
            reason: EndReason::None,
            bins: Vec::new(),
            in_band: Vec::new(),
            received: 0,
            sent: 0,
            facts: SenderFacts {
                retransmits: 0,
                rtt_us: 0,
                cwnd_bytes: 0,
            },
            counted: Counted::NONE,
            sender_drops: None,
            loading: false,
            last_of_load: 0,
            complete: false,
        }
    }

    /// Where asking has got to.
    #[must_use]
    pub const fn state(&self) -> GuestState {
        self.state
    }

    /// What opens streams, once the test is granted.
    #[must_use]
    pub const fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    /// Bytes received by the reflector in each bin of 100 ms, as far as they are known.
    #[must_use]
    pub fn bins(&self) -> &[u32] {
        &self.bins
    }

    /// Mean in-band time of the reflector's streams in each bin, 100 µs; 0: not known.
    #[must_use]
    pub fn in_band(&self) -> &[u16] {
        &self.in_band
    }

    /// Bytes that the reflector has received.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that the reflector has handed to its kernel.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// What TCP says of the reflector's streams.
    #[must_use]
    pub const fn facts(&self) -> SenderFacts {
        self.facts
    }

    /// What the reflector has counted of datagrams.
    #[must_use]
    pub const fn counted(&self) -> Counted {
        self.counted
    }

    /// Packets that the reflector's host dropped before they left: see [`Report::sender_drops`].
    #[must_use]
    pub const fn sender_drops(&self) -> Option<u32> {
        self.sender_drops
    }

    /// Whether the figures are those of a test that is over, all of them: the reflector has ended it because
    /// its client said so, and told that in answer to an order from after the load. Otherwise they may be
    /// from any time before, or of what came until the reflector stopped counting of its own accord.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// From now on the reflector is to send the datagrams that were ordered, or not any more: it is told
    /// at once.
    pub const fn load(&mut self, now: Monotonic, on: bool) {
        self.loading = on;
        self.last_of_load = self.number;
        self.next_at = now;
    }

    /// Ends the test; its last figures are still fetched.
    pub const fn stop(&mut self, now: Monotonic) {
        if matches!(
            self.state,
            GuestState::Asking | GuestState::Waiting | GuestState::Granted
        ) {
            self.state = GuestState::Stopping;
            self.stopped = Some(now);
            self.next_at = now;
        }
    }

    /// The next order, if one is due.
    pub fn poll_order(&mut self, now: Monotonic) -> Option<Order> {
        if now < self.next_at {
            return None;
        }
        let (op, wait_ns) = match self.state {
            GuestState::Asking | GuestState::Waiting => (OP_OPEN, RETRY_NS),
            GuestState::Granted if self.loading => (OP_LOAD, POLL_NS),
            GuestState::Granted => (OP_POLL, POLL_NS),
            GuestState::Stopping => (OP_STOP, POLL_NS),
            GuestState::Ended(_) | GuestState::Refused(_) | GuestState::Silent => return None,
        };
        self.next_at = now.saturating_add(wait_ns);
        self.number += 1;
        let offer = self.wish.offer;
        let mut order = Order {
            op,
            streams_up: self.wish.streams_up,
            streams_down: self.wish.streams_down,
            prefix_bits: 0,
            number: U32::new(self.number),
            test: U64::new(self.name),
            time_ms: U32::new(self.wish.time_ms),
            first_bin: U32::new(self.bins.len() as u32),
            dscp: self.wish.dscp,
            congestion: self.wish.congestion,
            prefix: [0; 16],
            up_bps: U64::new(offer.map_or(0, |o| o.up_bps)),
            down_bps: U64::new(offer.map_or(0, |o| o.down_bps)),
            size: U16::new(offer.map_or(0, |o| o.size)),
            reserved: [0; 6],
        };
        if let Some(prefix) = self.wish.prefix {
            order.announce(prefix);
        }
        Some(order)
    }

    /// When [`Guest::poll_order`] or [`Guest::handle_timeout`] is next needed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        (!self.is_over()).then_some(self.next_at)
    }

    /// Whether nothing more will be asked.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(
            self.state,
            GuestState::Ended(_) | GuestState::Refused(_) | GuestState::Silent
        )
    }

    /// Gives a silent reflector up.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        if self.is_over() {
            return;
        }
        if let Some(stopped) = self.stopped {
            if now.saturating_since(stopped) >= STOP_PATIENCE_NS {
                self.state = GuestState::Ended(self.reason);
            }
        } else if now.saturating_since(self.heard) >= PATIENCE_NS {
            self.state = GuestState::Silent;
        }
    }

    /// A report has come.
    ///
    /// # Errors
    /// [`DropReason::Unmatched`] where it answers none of this test's orders, or an older one than
    /// was answered already; [`DropReason::Field`].
    pub fn handle_report(&mut self, now: Monotonic, report: &Report) -> Result<(), DropReason> {
        let number = report.number.get();
        if report.test.get() != self.name || number <= self.answered || number > self.number {
            return Err(DropReason::Unmatched);
        }
        let state = TestState::from_u8(report.state).ok_or(DropReason::Field)?;
        let reason = EndReason::from_u8(report.reason).ok_or(DropReason::Field)?;
        if self.is_over() {
            return Err(DropReason::Unmatched);
        }
        self.answered = number;
        self.heard = now;
        let stopping = self.state == GuestState::Stopping;
        match state {
            TestState::Busy if !stopping => {
                self.state = GuestState::Waiting;
                let wait_ns = u64::from(report.wait_ms.get()) * 1_000_000;
                self.next_at = now.saturating_add(wait_ns.min(ASK_AGAIN_NS));
            }
            TestState::Busy => self.state = GuestState::Ended(EndReason::None),
            TestState::Refused => self.state = GuestState::Refused(reason),
            TestState::Granted => {
                self.take(report);
                if matches!(self.state, GuestState::Asking | GuestState::Waiting) {
                    self.state = GuestState::Granted;
                    self.next_at = now.saturating_add(POLL_NS);
                    self.grant = Some(Grant {
                        handle: report.handle.get(),
                        secret: report.secret.clone(),
                        port: report.port.get(),
                    });
                }
            }
            TestState::Ended => {
                self.take(report);
                self.reason = reason;
                if report.bins.get() as usize == REPORT_BINS {
                    // There may be more of them.
                    self.state = GuestState::Stopping;
                    self.stopped.get_or_insert(now);
                    self.next_at = now;
                } else {
                    self.state = GuestState::Ended(reason);
                    self.complete = reason == EndReason::None && number > self.last_of_load;
                }
            }
            TestState::Unknown if stopping => self.state = GuestState::Ended(EndReason::None),
            // The reflector was restarted.
            TestState::Unknown => self.state = GuestState::Ended(EndReason::Silence),
        }
        Ok(())
    }

    /// What a report says. Where a later order overtook another, the answer to it says less than one that came
    /// before: counts never go back.
    fn take(&mut self, report: &Report) {
        self.received = self.received.max(report.received.get());
        self.sent = self.sent.max(report.sent.get());
        self.facts = SenderFacts {
            retransmits: report.retransmits.get(),
            rtt_us: report.rtt_us.get(),
            cwnd_bytes: report.cwnd_bytes.get(),
        };
        self.counted = Counted {
            received: self.counted.received.max(report.datagrams.get()),
            again: self.counted.again.max(report.again.get()),
            overtaken: self.counted.overtaken.max(report.overtaken.get()),
            sent: self.counted.sent.max(report.datagrams_sent.get()),
        };
        // Not the most that was ever said: what was known before may not be any more.
        self.sender_drops = report.sender_drops();
        let count = usize::from(report.bins.get()).min(REPORT_BINS);
        let first = report.first_bin.get() as usize;
        for i in 0..count {
            // What is known already, or would leave a gap, is passed over.
            if first + i == self.bins.len() && self.bins.push(report.bytes[i].get()).is_ok() {
                let _ = self.in_band.push(report.in_band[i].get());
            }
        }
    }
}
