//! The client's side of one train: what it says and hears until the arrivals are known.

use heapless::Vec;

use zerocopy::byteorder::network_endian::{U16, U32};

use super::estimate::{Arrival, Sent};
use crate::drop_reason::DropReason;
use crate::time::{ClockSource, Monotonic, Stamp};
use crate::wire::train::{
    Arrived, Ask, Car, MAX_TRAIN, NOT_TOLD, OP_ARRIVALS, OP_SEND, REPORT_ARRIVALS, RefusedTrain,
    TrainReport, TrainState, ask_len,
};

/// An ask without an answer is repeated after this, ns.
const RETRY_NS: u64 = 400_000_000;
/// Where datagrams are missing they are asked for once more after this, ns: the ask itself queued
/// behind the train, so only what was overtaken can still come.
const STRAGGLERS_NS: u64 = 80_000_000;
/// A train down whose last datagram came this long ago is over, ns.
const QUIET_NS: u64 = 150_000_000;
/// A reflector that is busy is asked again after this, ns.
const BUSY_NS: u64 = 250_000_000;
/// Nothing is waited for longer than this, ns.
const PATIENCE_NS: u64 = 4_000_000_000;

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether to the reflector.
    pub up: bool,
    /// Datagrams, at most [`MAX_TRAIN`].
    pub count: u16,
    /// Bytes of each, as UDP counts them.
    pub size: u16,
}

/// How an exchange has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything that came is known.
    Heard,
    /// The reflector would not.
    Refused(RefusedTrain),
    /// It said nothing.
    Silent,
}

/// One train. See the module.
#[derive(Clone, Debug)]
pub struct Exchange {
    plan: Plan,
    train: u32,
    /// When each was handed to the kernel, since the first, ns.
    sent_ns: Vec<u32, MAX_TRAIN>,
    first_sent: Option<Monotonic>,
    arrivals: Vec<Arrival, MAX_TRAIN>,
    seen: [u64; MAX_TRAIN / 64],
    first_arrival: Option<Monotonic>,
    last_arrival: Monotonic,
    clock: ClockSource,
    dropped_by_host: bool,
    /// When the next ask is due; `None` before everything has been sent.
    ask_at: Option<Monotonic>,
    until: Monotonic,
    asks: u32,
    /// How many had arrived by the last report, where some were missing.
    missing_since: Option<usize>,
    answered: bool,
    most: Option<u16>,
    ending: Option<Ending>,
}

impl Exchange {
    /// A train that begins at `now`; `train` is random, and another for each.
    #[must_use]
    pub fn new(plan: Plan, train: u32, now: Monotonic) -> Self {
        let plan = Plan {
            count: plan.count.clamp(1, MAX_TRAIN as u16),
            ..plan
        };
        Self {
            plan,
            train,
            sent_ns: Vec::new(),
            first_sent: None,
            arrivals: Vec::new(),
            seen: [0; MAX_TRAIN / 64],
            first_arrival: None,
            last_arrival: now,
            clock: ClockSource::Nic,
            dropped_by_host: false,
            ask_at: (!plan.up).then_some(now),
            until: now.saturating_add(PATIENCE_NS),
            asks: 0,
            missing_since: None,
            answered: false,
            most: None,
            ending: None,
        }
    }

    /// What it is.
    #[must_use]
    pub const fn plan(&self) -> Plan {
        self.plan
    }

    /// Datagram `index` of a train up.
    #[must_use]
    pub fn car(&self, index: u16) -> Car {
        Car {
            train: U32::new(self.train),
            index: U16::new(index),
            count: U16::new(self.plan.count),
            sent_ns: U32::new(NOT_TOLD),
            reserved: U32::ZERO,
        }
    }

    /// The next datagram of a train up is handed to the kernel at `at`.
    pub fn handle_sent(&mut self, at: Monotonic) {
        let first = *self.first_sent.get_or_insert(at);
        // One more than there are is nobody's.
        let _ = self.sent_ns.push(offset_ns(at, first));
    }

    /// All of a train up that could be sent has been.
    pub fn handle_all_sent(&mut self, now: Monotonic) {
        self.ask_at = Some(now);
        self.until = now.saturating_add(PATIENCE_NS);
    }

    /// An ask, and how long its datagram is to be, if one is due.
    pub fn poll_ask(&mut self, now: Monotonic) -> Option<(Ask, usize)> {
        if self.ending.is_some() || self.ask_at.is_none_or(|at| now < at) {
            return None;
        }
        self.ask_at = Some(now.saturating_add(RETRY_NS));
        self.asks += 1;
        let (op, room) = if self.plan.up {
            let known = self.arrivals.len();
            (
                OP_ARRIVALS,
                usize::from(self.plan.count).saturating_sub(known),
            )
        } else {
            (OP_SEND, 0)
        };
        let ask = Ask {
            op,
            reserved: 0,
            count: U16::new(self.plan.count),
            train: U32::new(self.train),
            size: U16::new(self.plan.size),
            first: U16::new(self.arrivals.len() as u16),
            number: U32::new(self.asks),
            reserved2: [0; 16],
        };
        Some((ask, ask_len(room.min(REPORT_ARRIVALS))))
    }

    /// A report came, with these arrivals.
    ///
    /// # Errors
    /// [`DropReason::Unmatched`] where it is about no ask of this train, [`DropReason::Field`] where
    /// it says what cannot be.
    pub fn handle_report(
        &mut self,
        now: Monotonic,
        report: &TrainReport,
        arrivals: &[Arrived],
    ) -> Result<(), DropReason> {
        let number = report.number.get();
        if report.train.get() != self.train || number == 0 || number > self.asks {
            return Err(DropReason::Unmatched);
        }
        let state = TrainState::from_u8(report.state).ok_or(DropReason::Field)?;
        self.answered = true;
        self.most = Some(report.most.get());
        match state {
            TrainState::Refused => {
                let reason = RefusedTrain::from_u8(report.reason).ok_or(DropReason::Field)?;
                self.ending.get_or_insert(Ending::Refused(reason));
            }
            TrainState::Busy => self.ask_at = Some(now.saturating_add(BUSY_NS)),
            // The train is its own answer; where nothing of it comes, it is not sent again.
            TrainState::Sent => self.ask_at = None,
            TrainState::Unknown if self.plan.up => self.missing(now, 0),
            TrainState::Unknown => return Err(DropReason::Field),
            TrainState::Arrivals => self.take_arrivals(now, report, arrivals)?,
        }
        Ok(())
    }

    fn take_arrivals(
        &mut self,
        now: Monotonic,
        report: &TrainReport,
        arrivals: &[Arrived],
    ) -> Result<(), DropReason> {
        if !self.plan.up {
            return Err(DropReason::Field);
        }
        if usize::from(report.first.get()) != self.arrivals.len() {
            // What an ask that was repeated has brought already.
            return Err(DropReason::Unmatched);
        }
        for a in arrivals {
            let index = a.index.get();
            if !self.is_new(index) {
                return Err(DropReason::Field);
            }
            let sent_ns = self.sent_ns.get(usize::from(index)).copied();
            // There is room for each of its datagrams, once.
            let _ = self.arrivals.push(Arrival {
                index,
                at_ns: a.since_ns.get(),
                sent_ns: sent_ns.unwrap_or(NOT_TOLD),
            });
        }
        let clock = ClockSource::from_u8(report.clock).unwrap_or(ClockSource::None);
        self.clock = self.clock.min(clock);
        self.dropped_by_host |= report.socket_drops.get() != 0;
        let arrived = usize::from(report.arrived.get());
        if self.arrivals.len() >= self.sent_ns.len() {
            self.ending.get_or_insert(Ending::Heard);
        } else if self.arrivals.len() < arrived {
            self.ask_at = Some(now);
        } else {
            self.missing(now, arrived);
        }
        Ok(())
    }

    /// Some are missing, and so many are there: they are given one more chance.
    fn missing(&mut self, now: Monotonic, arrived: usize) {
        if self.missing_since == Some(arrived) {
            self.ending.get_or_insert(Ending::Heard);
        }
        self.missing_since = Some(arrived);
        self.ask_at = Some(now.saturating_add(STRAGGLERS_NS));
    }

    /// A datagram of a train down came.
    ///
    /// # Errors
    /// [`DropReason::Unmatched`] where it is none of this train, [`DropReason::Replay`] where it came
    /// before, [`DropReason::Field`] where it cannot be.
    pub fn handle_car(&mut self, at: Stamp, car: &Car) -> Result<(), DropReason> {
        if self.plan.up || car.train.get() != self.train || self.ending.is_some() {
            return Err(DropReason::Unmatched);
        }
        let index = car.index.get();
        if car.count.get() != self.plan.count || index >= self.plan.count {
            return Err(DropReason::Field);
        }
        if !self.is_new(index) {
            return Err(DropReason::Replay);
        }
        let first = *self.first_arrival.get_or_insert(at.at);
        self.last_arrival = self.last_arrival.max(at.at);
        self.clock = self.clock.min(at.clock);
        // There is room for each of its datagrams, once.
        let _ = self.arrivals.push(Arrival {
            index,
            at_ns: offset_ns(at.at, first),
            sent_ns: car.sent_ns.get(),
        });
        self.ask_at = None;
        if self.arrivals.len() == usize::from(self.plan.count) {
            self.ending = Some(Ending::Heard);
        }
        Ok(())
    }

    /// The receiving socket has dropped something meanwhile.
    pub const fn handle_own_drops(&mut self) {
        self.dropped_by_host = true;
    }

    /// Notices that nothing more will come.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        if self.ending.is_some() {
            return;
        }
        let quiet = !self.plan.up
            && !self.arrivals.is_empty()
            && now >= self.last_arrival.saturating_add(QUIET_NS);
        if quiet || (now >= self.until && !self.arrivals.is_empty()) {
            self.ending = Some(Ending::Heard);
        } else if now >= self.until {
            let ending = if self.answered {
                Ending::Heard
            } else {
                Ending::Silent
            };
            self.ending = Some(ending);
        }
    }

    /// When [`Exchange::poll_ask`] or [`Exchange::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Monotonic {
        let quiet = (!self.plan.up && !self.arrivals.is_empty())
            .then(|| self.last_arrival.saturating_add(QUIET_NS));
        let soonest = [self.ask_at, quiet].into_iter().flatten();
        soonest.fold(self.until, Monotonic::min)
    }

    /// How it has ended, once it has.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Most datagrams that a train may have, where the reflector has said so.
    #[must_use]
    pub const fn most(&self) -> Option<u16> {
        self.most
    }

    /// What there is to estimate from. `header_bytes` is what a frame has beside the datagram.
    pub fn result(&mut self, header_bytes: u32) -> (Sent, &mut [Arrival]) {
        let count = if self.plan.up {
            self.sent_ns.len() as u16
        } else {
            self.plan.count
        };
        let sent = Sent {
            count,
            frame_bytes: u32::from(self.plan.size) + header_bytes,
            clock: self.clock,
            dropped_by_host: self.dropped_by_host,
        };
        (sent, &mut self.arrivals)
    }

    fn is_new(&mut self, index: u16) -> bool {
        let Some(word) = self.seen.get_mut(usize::from(index / 64)) else {
            return false;
        };
        let bit = 1 << (index % 64);
        let new = index < self.plan.count && *word & bit == 0;
        *word |= bit;
        new
    }
}

/// Since `first`, ns; what lies before it is at it.
fn offset_ns(at: Monotonic, first: Monotonic) -> u32 {
    u32::try_from(at.saturating_since(first)).unwrap_or(u32::MAX - 1)
}
