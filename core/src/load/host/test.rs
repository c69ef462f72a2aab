//! One test: what it has carried, when it ends, and what its reports say.

use heapless::Vec;
use zerocopy::byteorder::network_endian::{U16, U32, U64};

use super::{Admitted, Asker, SILENCE_NS, SenderFacts, TestHandle};
use crate::drop_reason::DropReason;
use crate::load::arrivals::{Arrivals, Segments};
use crate::load::bins::{Bins, MAX_BINS};
use crate::load::datagrams::flows::{Figures, FlowPlan};
use crate::load::{MAX_LOAD_NS, MAX_STREAMS, open_token};
use crate::seal::Secret;
use crate::time::Monotonic;
use crate::wire::load::{
    BIN_NS, EndReason, OP_LOAD, OP_STOP, Order, REPORT_BINS, Report, TOKEN_LEN, TestState,
};

/// From the grant on a test may last its streams' time and this, ns: phases without streams.
const SLACK_NS: u64 = 30_000_000_000;
/// A test ends where nothing of its load has come this long after the grant, ns. Its client measures latency alone for
/// three seconds, and gives up itself ten seconds later: with three SYNs lost, the fourth leaves after seven.
pub(in crate::load) const BEGIN_NS: u64 = 15_000_000_000;
/// Streams are ended this long after the time that was asked for, ns: what is queued trickles in.
const LINGER_NS: u64 = 3_000_000_000;
/// The same of a test over UDP, ns. Its client waits until latency is back, ten seconds at most, and five for
/// its last figures: what a full buffer holds until then has come late, and is not lost. It ends the test itself.
const LINGER_UDP_NS: u64 = 20_000_000_000;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Test {
    pub(super) handle: TestHandle,
    pub(super) client: u16,
    pub(super) name: u64,
    secret: Secret,
    order: Order,
    /// Number of the latest order.
    number: u32,
    granted: Monotonic,
    heard: Monotonic,
    /// When the first stream came.
    begun: Option<Monotonic>,
    pub(super) ended: Option<(Monotonic, EndReason)>,
    /// The driver has been told of the end.
    pub(super) told: bool,
    used_tokens: u32,
    bytes_left: Option<u64>,
    bins: Bins,
    /// Of each stream upward that has begun.
    arrivals: [Option<Arrivals>; MAX_STREAMS],
    sent: u64,
    /// Sum of in-band times, 100 µs, and how many: for each bin.
    in_band: Vec<(u32, u16), MAX_BINS>,
    facts: SenderFacts,
    /// Of a test over UDP: what was counted as it was last asked about.
    figures: Figures,
}

impl Test {
    /// Granted at `now`.
    pub(super) fn new(
        handle: TestHandle,
        secret: Secret,
        asker: &Asker,
        order: &Order,
        now: Monotonic,
    ) -> Self {
        Self {
            handle,
            client: asker.client,
            name: order.test.get(),
            secret,
            order: *order,
            number: order.number.get(),
            granted: now,
            heard: now,
            begun: None,
            ended: None,
            told: false,
            used_tokens: 0,
            bytes_left: asker.bytes_left,
            bins: Bins::new(),
            arrivals: [const { None }; MAX_STREAMS],
            sent: 0,
            in_band: Vec::new(),
            facts: SenderFacts::default(),
            figures: Figures::default(),
        }
    }

    /// What has to be counted and sent, of a test over UDP.
    pub(super) fn flow(&self) -> Option<FlowPlan> {
        Some(FlowPlan {
            test: self.handle,
            client: self.client,
            name: self.name,
            secret: self.secret.clone(),
            offer: self.order.offer()?,
            time_ns: time_ns(&self.order),
            dscp: self.order.dscp[0] & 0x3f,
        })
    }

    /// A TCP stream began with a token that names this test: whether it is good.
    pub(super) fn admit(
        &mut self,
        now: Monotonic,
        token: &[u8; TOKEN_LEN],
    ) -> Result<Admitted, DropReason> {
        let stream = open_token(&self.secret, *token)?;
        let order = &self.order;
        if stream >= order.streams_up + order.streams_down {
            return Err(DropReason::Field);
        }
        let bit = 1u32 << stream;
        if self.used_tokens & bit != 0 {
            return Err(DropReason::Replay);
        }
        self.used_tokens |= bit;
        if self.begun.is_none() {
            self.begun = Some(now);
            self.bins.begin(now);
        }
        let up = stream < order.streams_up;
        if up && let Some(arrivals) = self.arrivals.get_mut(usize::from(stream)) {
            *arrivals = Some(Arrivals::new());
        }
        let of_down = stream.saturating_sub(order.streams_up);
        Ok(Admitted {
            test: self.handle,
            client: self.client,
            stream,
            up,
            siblings: if up {
                order.streams_up
            } else {
                order.streams_down
            },
            dscp: order.dscp[usize::from(of_down % 8)] & 0x3f,
            congestion: order.congestion,
        })
    }

    /// `bytes` came through a stream.
    pub(super) fn received(&mut self, stream: u8, now: Monotonic, bytes: u64) {
        match self.arrivals.get_mut(usize::from(stream)) {
            Some(Some(arrivals)) => arrivals.take(now, bytes, &mut self.bins),
            _ => self.bins.add(now, bytes),
        }
        self.spend(now, bytes);
    }

    /// What TCP says of a stream upward.
    pub(super) fn segments(&mut self, stream: u8, now: Monotonic, segments: Segments) {
        if let Some(Some(arrivals)) = self.arrivals.get_mut(usize::from(stream)) {
            arrivals.look(now, segments);
        }
    }

    /// `bytes` were handed to the kernel for a stream.
    pub(super) fn sent(&mut self, now: Monotonic, bytes: u64) {
        self.sent = self.sent.saturating_add(bytes);
        self.spend(now, bytes);
    }

    /// A count that the client sent back at `now` says that a byte took `delay_ns`.
    pub(super) fn in_band(&mut self, now: Monotonic, delay_ns: u64) {
        let Some(begun) = self.begun else { return };
        let index = (now.saturating_since(begun) / BIN_NS) as usize;
        while self.in_band.len() <= index && self.in_band.push((0, 0)).is_ok() {}
        if let Some((sum, count)) = self.in_band.get_mut(index) {
            let units = u32::try_from(delay_ns / 100_000).unwrap_or(u32::MAX);
            *sum = sum.saturating_add(units);
            *count = count.saturating_add(1);
        }
    }

    pub(super) const fn set_facts(&mut self, facts: SenderFacts) {
        self.facts = facts;
    }

    /// Bytes that its streams have moved, both ways.
    pub(super) fn moved(&self) -> u64 {
        self.bins.total().saturating_add(self.sent)
    }

    /// An order came.
    pub(super) fn obey(&mut self, now: Monotonic, order: &Order) {
        let number = order.number.get();
        // One that was overtaken says neither what its client wants now nor that it is there.
        if number <= self.number {
            return;
        }
        self.number = number;
        self.heard = now;
        if order.op == OP_LOAD && self.order.offer().is_some() {
            self.begun.get_or_insert(now);
        }
        if order.op == OP_STOP {
            self.end(now, EndReason::None);
        }
    }

    /// When it ends unless its client is heard.
    pub(super) fn poll_timeout(&self) -> Monotonic {
        self.last_end().min(self.heard.saturating_add(SILENCE_NS))
    }

    /// Ends it where it has lasted too long or its client is silent.
    pub(super) fn handle_timeout(&mut self, now: Monotonic) {
        if now.saturating_since(self.heard) >= SILENCE_NS {
            self.end(now, EndReason::Silence);
        } else if now >= self.last_end() {
            self.end(now, EndReason::Time);
        }
    }

    /// What was counted and sent elsewhere so far, of a test over UDP.
    pub(super) fn count(&mut self, now: Monotonic, figures: &Figures) {
        self.figures = figures.clone();
        if figures.used_up {
            self.end(now, EndReason::DailyBytes);
        }
    }

    fn linger_ns(&self) -> u64 {
        match self.order.offer() {
            Some(_) => LINGER_UDP_NS,
            None => LINGER_NS,
        }
    }

    /// When it ends at the latest.
    pub(super) fn last_end(&self) -> Monotonic {
        match self.begun {
            Some(begun) => {
                let granted = self.granted.saturating_add(time_ns(&self.order) + SLACK_NS);
                granted.min(begun.saturating_add(time_ns(&self.order) + self.linger_ns()))
            }
            None => self.granted.saturating_add(BEGIN_NS),
        }
    }

    pub(super) fn end(&mut self, now: Monotonic, reason: EndReason) {
        if self.ended.is_none() {
            self.ended = Some((now, reason));
            for arrivals in self.arrivals.iter_mut().flatten() {
                arrivals.finish(&mut self.bins);
            }
        }
    }

    fn spend(&mut self, now: Monotonic, bytes: u64) {
        if let Some(left) = &mut self.bytes_left {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.end(now, EndReason::DailyBytes);
            }
        }
    }

    pub(super) fn fill(&self, now: Monotonic, port: u16, report: &mut Report) {
        let (at, state, reason) = match self.ended {
            Some((at, reason)) => (at, TestState::Ended, reason),
            // What a stream hands over next may have come before.
            None => {
                let known = self.arrivals.iter().flatten().map(|a| a.known(now));
                let at = known.min().map_or(now, |known| known.min(now));
                (at, TestState::Granted, EndReason::None)
            }
        };
        report.state = state as u8;
        report.reason = reason as u8;
        report.port = U16::new(port);
        report.handle = U32::new(self.handle.0);
        report.secret = self.secret.clone();
        report.received = U64::new(self.bins.total());
        report.sent = U64::new(self.sent);
        report.retransmits = U32::new(self.facts.retransmits);
        report.rtt_us = U32::new(self.facts.rtt_us);
        report.cwnd_bytes = U32::new(self.facts.cwnd_bytes);
        if self.order.offer().is_some() {
            return self.figures.fill(report);
        }
        let known = self.bins.known(at, self.ended.is_some());
        let first = report.first_bin.get() as usize;
        let count = known.saturating_sub(first).min(REPORT_BINS);
        report.bins = U16::new(count as u16);
        for i in 0..count {
            report.bytes[i] = U32::new(self.bins.get(first + i));
            let (sum, n) = self.in_band.get(first + i).copied().unwrap_or((0, 0));
            let mean = sum.checked_div(u32::from(n)).map_or(0, |m| m.max(1));
            report.in_band[i] = U16::new(u16::try_from(mean).unwrap_or(u16::MAX));
        }
    }
}

/// How long the load of a test may last that is ordered so, ns.
pub(super) fn time_ns(order: &Order) -> u64 {
    (u64::from(order.time_ms.get()) * 1_000_000).min(MAX_LOAD_NS)
}
