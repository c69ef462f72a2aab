//! The reflector's side of trains: when those from its clients arrived, and which it sends.

use core::ops::DerefMut;

use heapless::Vec;
use zerocopy::byteorder::network_endian::{U16, U32, U64};

use crate::session::reflector::TrainFrom;
use crate::time::{ClockSource, Monotonic, Stamp};
use crate::wire::train::{
    Arrived, Ask, Car, MAX_TRAIN, MIN_TRAIN_SIZE, OP_ARRIVALS, OP_SEND, RefusedTrain, TrainReport,
    TrainState,
};
use crate::{drop_reason::DropReason, limits::MAX_DATAGRAM};

/// Trains that are sent at a time, or have been of late.
const SENDING: usize = 8;
/// Between two trains to one client, ns.
const APART_NS: u64 = 200_000_000;
/// A train that has been sent is remembered for this long: an ask that is repeated gets no other, ns.
const REMEMBER_NS: u64 = 5_000_000_000;

/// Room for the arrivals of one train.
#[derive(Clone, Debug)]
pub struct Record {
    /// Whose, and which.
    of: Option<(u32, u32)>,
    begin: Monotonic,
    latest: Monotonic,
    drops_at_begin: u32,
    drops: u32,
    clock: ClockSource,
    arrivals: Vec<Arrived, MAX_TRAIN>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            of: None,
            begin: Monotonic::ZERO,
            latest: Monotonic::ZERO,
            drops_at_begin: 0,
            drops: 0,
            clock: ClockSource::Nic,
            arrivals: Vec::new(),
        }
    }
}

/// A train to a client.
#[derive(Clone, Copy, Debug)]
struct Sending<W> {
    to: TrainFrom,
    way: W,
    train: u32,
    count: u16,
    size: u16,
    next: u16,
    granted: Monotonic,
    begun: Option<Monotonic>,
}

/// One datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Departure<W> {
    /// To whom.
    pub to: TrainFrom,
    /// How, as the driver said when the train was asked for.
    pub way: W,
    /// What it says.
    pub car: Car,
    /// Its bytes, as UDP counts them.
    pub size: u16,
}

/// Remembers the arrivals of as many trains as the caller lends records for, the latest of each
/// session, and sends trains to clients. `W` is the driver's note of where a client is.
#[derive(Debug)]
pub struct Host<R, W> {
    records: R,
    sending: Vec<Sending<W>, SENDING>,
}

impl<R: DerefMut<Target = [Record]>, W: Copy> Host<R, W> {
    /// One that knows of no train.
    pub const fn new(records: R) -> Self {
        Self {
            records,
            sending: Vec::new(),
        }
    }

    /// A datagram of a train from a client arrived; `socket_drops` is its socket's own count, wrapping.
    ///
    /// # Errors
    /// [`DropReason::Field`] where it cannot be, [`DropReason::Full`] where there are no records.
    pub fn handle_car(
        &mut self,
        from: TrainFrom,
        at: Stamp,
        car: &Car,
        socket_drops: u32,
    ) -> Result<(), DropReason> {
        let (index, count) = (car.index.get(), car.count.get());
        if index >= count || usize::from(count) > MAX_TRAIN {
            return Err(DropReason::Field);
        }
        let of = (from.session, car.train.get());
        let record = self.record_for(of).ok_or(DropReason::Full)?;
        if record.of != Some(of) {
            record.of = Some(of);
            record.arrivals.clear();
            record.begin = at.at;
            record.drops_at_begin = socket_drops;
            record.clock = at.clock;
        }
        record.latest = record.latest.max(at.at);
        record.drops = socket_drops;
        record.clock = record.clock.min(at.clock);
        let since_ns = at.at.saturating_since(record.begin);
        // Each counter opens once, and a train has no more datagrams than there is room for; only a
        // client that numbers them twice finds none.
        record
            .arrivals
            .push(Arrived {
                index: car.index,
                since_ns: U32::new(u32::try_from(since_ns).unwrap_or(u32::MAX)),
            })
            .map_err(|_| DropReason::Field)
    }

    /// The record of a train, else that of an earlier one of its session, else an unused one or the
    /// one that has been silent longest.
    fn record_for(&mut self, of: (u32, u32)) -> Option<&mut Record> {
        let rank = |r: &Record| match r.of {
            Some((session, _)) if session == of.0 => (0, Monotonic::ZERO),
            None => (1, Monotonic::ZERO),
            Some(_) => (2, r.latest),
        };
        self.records.iter_mut().min_by_key(|r| rank(r))
    }

    /// Answers an ask: the report, and the arrivals that are to follow it as far as there is room.
    /// `bytes_left` is what the client may still move today; a train is granted whole or not at all,
    /// and [`TrainState::Sent`] is said of one when it is granted and when it is asked for again, so
    /// `granted` tells the bytes of a new one.
    ///
    /// # Errors
    /// [`DropReason::Field`] where it asks for what there is not.
    pub fn handle_ask(
        &mut self,
        now: Monotonic,
        from: TrainFrom,
        way: W,
        ask: &Ask,
        bytes_left: Option<u64>,
    ) -> Result<Answer<'_>, DropReason> {
        let mut answer = Answer {
            report: TrainReport {
                state: TrainState::Unknown as u8,
                reason: RefusedTrain::No as u8,
                arrived: U16::ZERO,
                train: ask.train,
                number: ask.number,
                most: U16::new(most(from)),
                first: ask.first,
                follow: U16::ZERO,
                clock: 0,
                reserved: 0,
                socket_drops: U32::ZERO,
                begin_ns: U64::ZERO,
            },
            arrivals: &[],
            granted: 0,
        };
        match ask.op {
            OP_SEND => {
                let (state, reason) = self.grant(now, from, way, ask, bytes_left);
                if state == TrainState::Sent && reason.is_none() {
                    answer.granted = u64::from(ask.count.get()) * u64::from(ask.size.get());
                }
                answer.report.state = state as u8;
                let refused = (state == TrainState::Refused).then_some(reason).flatten();
                answer.report.reason = refused.unwrap_or(RefusedTrain::No) as u8;
            }
            OP_ARRIVALS => {
                let of = Some((from.session, ask.train.get()));
                if let Some(r) = self.records.iter().find(|r| r.of == of) {
                    answer.report.state = TrainState::Arrivals as u8;
                    answer.report.arrived = U16::new(r.arrivals.len() as u16);
                    answer.report.clock = r.clock as u8;
                    answer.report.socket_drops = U32::new(r.drops.wrapping_sub(r.drops_at_begin));
                    answer.report.begin_ns = U64::new(r.begin.as_nanos());
                    let first = usize::from(ask.first.get());
                    answer.arrivals = r.arrivals.get(first..).unwrap_or(&[]);
                }
            }
            _ => return Err(DropReason::Field),
        }
        Ok(answer)
    }

    /// What becomes of an order; `Sent` with a reason is one that was granted before.
    fn grant(
        &mut self,
        now: Monotonic,
        to: TrainFrom,
        way: W,
        ask: &Ask,
        bytes_left: Option<u64>,
    ) -> (TrainState, Option<RefusedTrain>) {
        let refuse = |reason| (TrainState::Refused, Some(reason));
        let (train, count, size) = (ask.train.get(), ask.count.get(), ask.size.get());
        let same = |s: &&Sending<W>| s.to.session == to.session && s.train == train;
        if self.sending.iter().any(|s| same(&s)) {
            return (TrainState::Sent, Some(RefusedTrain::No));
        }
        if !to.proven {
            return refuse(RefusedTrain::Address);
        }
        let sizes = MIN_TRAIN_SIZE..=MAX_DATAGRAM;
        if count == 0 || count > most(to) || !sizes.contains(&usize::from(size)) {
            return refuse(RefusedTrain::Size);
        }
        if bytes_left.is_some_and(|left| left < u64::from(count) * u64::from(size)) {
            return refuse(RefusedTrain::DailyBytes);
        }
        let recent = |s: &Sending<W>| !s.is_done() || now.saturating_since(s.granted) < APART_NS;
        let busy = (TrainState::Busy, None);
        if self
            .sending
            .iter()
            .any(|s| s.to.client == to.client && recent(s))
        {
            return busy;
        }
        self.sending
            .retain(|s| !s.is_done() || now.saturating_since(s.granted) < REMEMBER_NS);
        if self.sending.is_full()
            && let Some(done) = self.sending.iter().position(Sending::is_done)
        {
            self.sending.remove(done);
        }
        let granted = self.sending.push(Sending {
            to,
            way,
            train,
            count,
            size,
            next: 0,
            granted: now,
            begun: None,
        });
        if granted.is_ok() {
            (TrainState::Sent, None)
        } else {
            busy
        }
    }

    /// Whether a train is being sent.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.sending.iter().any(|s| !s.is_done())
    }

    /// The next datagram of a train to a client, which is handed to the kernel at `now`.
    pub fn poll_car(&mut self, now: Monotonic) -> Option<Departure<W>> {
        let s = self.sending.iter_mut().find(|s| !s.is_done())?;
        let begun = *s.begun.get_or_insert(now);
        let sent_ns = now.saturating_since(begun);
        let car = Car {
            train: U32::new(s.train),
            index: U16::new(s.next),
            count: U16::new(s.count),
            sent_ns: U32::new(u32::try_from(sent_ns).unwrap_or(u32::MAX - 1)),
            reserved: U32::ZERO,
        };
        s.next += 1;
        Some(Departure {
            to: s.to,
            way: s.way,
            car,
            size: s.size,
        })
    }

    /// What is left of a train whose session has ended is not sent.
    pub fn abandon(&mut self, to: TrainFrom) {
        let of = self
            .sending
            .iter_mut()
            .filter(|s| s.to.session == to.session);
        of.for_each(|s| s.next = s.count);
    }
}

impl<W> Sending<W> {
    const fn is_done(&self) -> bool {
        self.next >= self.count
    }
}

/// What an ask earns.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The report; [`Answer::fit`] says what follows it.
    pub report: TrainReport,
    /// All arrivals from the first that was asked for.
    pub arrivals: &'a [Arrived],
    /// Bytes of a train that was granted just now.
    pub granted: u64,
}

impl Answer<'_> {
    /// Cuts the arrivals to what an answer of `len` bytes has room for, and says so in the report.
    pub fn fit(&mut self, len: usize) {
        let room = crate::wire::train::arrivals_in(len);
        self.arrivals = &self.arrivals[..self.arrivals.len().min(room)];
        self.report.follow = U16::new(self.arrivals.len() as u16);
    }
}

/// Most datagrams of a train from or to this client: half of what it may send in a second, so that
/// what it asks, and another train, are not refused.
fn most(of: TrainFrom) -> u16 {
    let most = (of.max_pps / 2).min(MAX_TRAIN as u32);
    u16::try_from(most.max(1)).unwrap_or(MAX_TRAIN as u16)
}
