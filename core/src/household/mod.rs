//! What a household's own traffic says of its line: load, latency against load, and capacity.
//!
//! ```text
//! interface counters, 10 Hz ─▶ meter ─┬▶ load of each second
//!                                     ├▶ minute: rates, queueing delay by class of load
//! probes with queueing delay ─▶ way ──┴▶ capacity, while a queue stands
//! ```
//!
//! While the queue before a bottleneck stands, the bottleneck is busy all the time, and what it lets
//! through is what it can. So the interface's counters say the capacity without a byte of test
//! traffic ([`Estimate`]). Upward the counters see what enters the queue, downward what leaves it:
//! `way` says how either becomes a rate.
//!
//! Sans-IO: counters, probes and the time are handed in. Everything is decided [`HOLD_NS`] late, when
//! probes that waited long have come back.

mod meter;
mod minute;
mod way;

#[cfg(test)]
mod tests;

use heapless::{Deque, Vec};

use crate::own_tests::OwnTests;
use crate::time::Monotonic;
use meter::Meter;
pub use minute::{Class, MAX_ENCODED_MINUTE, Minute, MinuteWay};
use way::{Closed, Way};

/// How long the probes of a second are waited for, ns.
pub const HOLD_NS: u64 = 3 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;
/// An estimate that is less sure than this is worth recording, but nothing is to be concluded from it.
pub const SURE: f64 = 0.5;
/// Others who carried more than this part of what a measurement of the line found may be why that is low.
const SHARED: u64 = 8;
/// After a stretch without counters this long everything begins anew, ns.
const SILENCE_NS: u64 = 30 * SECOND_NS;
/// What waits to be polled.
const QUEUE: usize = 8;

/// Whether others, who carried `others_bps` of a line meanwhile, may be why a measurement of it found no more than
/// `found_bps`: where both together are not low, it says nothing of the line.
#[must_use]
pub const fn shared(others_bps: u64, found_bps: u64) -> bool {
    others_bps > found_bps / SHARED
}

/// One probe whose queueing delay is known, or that was lost in a known direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When it left.
    pub sent: Monotonic,
    /// Its round-trip time, ns; `None` where it was lost.
    pub rtt_ns: Option<u64>,
    /// How long it waited on the way up, ns.
    pub queue_up_ns: Option<u64>,
    /// How long its answer waited on the way down, ns.
    pub queue_down_ns: Option<u64>,
    /// Whether it was lost on the way up.
    pub lost_up: bool,
    /// Whether its answer was lost on the way down.
    pub lost_down: bool,
}

/// What the line carried in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Second {
    /// The second's end.
    pub at: Monotonic,
    /// Upward, bit/s.
    pub up_bps: u64,
    /// Downward, bit/s.
    pub down_bps: u64,
}

/// What the line can carry one way, read off the household's traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The end of the second that it was last seen in.
    pub at: Monotonic,
    /// Whether upward.
    pub up: bool,
    /// Bits of frames per second, as the interface counts them.
    pub rate_bps: u64,
    /// How sure that is, 0 to 1: how well neighbouring seconds agree, less where probes were lost or
    /// where little of what the line once carried would be all of it, or where nothing says that the queue is the
    /// household's own.
    pub confidence: f64,
    /// Whether it says something that the last of its direction did not: it is another rate, or
    /// sure at last, or half a minute has passed.
    pub is_news: bool,
}

/// One line of a household. See the module.
#[derive(Clone, Debug)]
pub struct Household {
    meter: Meter,
    up: Way,
    down: Way,
    /// The second whose load is told next, and the one that is closed next, since boot.
    load_second: Option<u64>,
    close_second: u64,
    tests: OwnTests,
    seconds: Deque<Second, QUEUE>,
    estimates: Deque<Estimate, QUEUE>,
    minute: Minute,
    minute_of: u64,
    /// Whether the minute that is being summed up has anything in it.
    minute_used: bool,
}

impl Default for Household {
    fn default() -> Self {
        Self::new()
    }
}

impl Household {
    /// One of which nothing is known.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            meter: Meter::new(),
            up: Way::new(true),
            down: Way::new(false),
            load_second: None,
            close_second: 0,
            tests: OwnTests::new(),
            seconds: Deque::new(),
            estimates: Deque::new(),
            minute: Minute::new(),
            minute_of: 0,
            minute_used: false,
        }
    }

    /// At `at` the interface had sent and received so many bytes since it was made. Counters that run
    /// backwards are those of a new interface.
    pub fn handle_counters(&mut self, at: Monotonic, sent_bytes: u64, received_bytes: u64) {
        let silent = self
            .meter
            .newest()
            .is_some_and(|last| at.saturating_since(last) > SILENCE_NS);
        if !self.meter.add(at, sent_bytes, received_bytes) || silent {
            self.meter = Meter::new();
            self.meter.add(at, sent_bytes, received_bytes);
            self.load_second = None;
        }
        if self.load_second.is_none() {
            // The first whole second from here on.
            let first = at.as_nanos() / SECOND_NS + 1;
            self.load_second = Some(first);
            self.close_second = first;
        }
    }

    /// What became of a probe of the line.
    pub fn handle_probe(&mut self, seen: &Seen) {
        let sent = seen.sent.as_nanos();
        let back = seen.sent.saturating_add(seen.rtt_ns.unwrap_or(0));
        if self.tests.meets_train(seen.sent, back) {
            return;
        }
        if seen.lost_up {
            self.up.lost(sent);
        } else if let Some(queue_ns) = seen.queue_up_ns {
            self.up.add(sent, queue_ns);
        }
        let back = sent.saturating_add(seen.rtt_ns.unwrap_or(0));
        if seen.lost_down {
            self.down.lost(back);
        } else if let Some(queue_ns) = seen.queue_down_ns.filter(|_| seen.rtt_ns.is_some()) {
            self.down.add(back, queue_ns);
        }
    }

    /// The line was measured to carry so much one way, bit/s, or known to from before.
    pub const fn handle_measured(&mut self, up: bool, rate_bps: u64) {
        let way = if up { &mut self.up } else { &mut self.down };
        way.measured(rate_bps);
    }

    /// A test of our own loads the line from `at` on: what is seen meanwhile is not the household's.
    pub fn handle_test_begin(&mut self, at: Monotonic) {
        self.tests.begin(at);
    }

    /// It no longer does.
    pub fn handle_test_end(&mut self, at: Monotonic) {
        self.tests.end(at);
    }

    /// A packet train of our own is on its way from `at` on: probes that meet it say nothing of the
    /// household.
    pub fn handle_train_begin(&mut self, at: Monotonic) {
        self.tests.begin_train(at);
    }

    /// It no longer is.
    pub fn handle_train_end(&mut self, at: Monotonic) {
        self.tests.end_train(at);
    }

    /// Decides what can be decided by now. To be called some times a second, and everything to be
    /// polled after it.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        let Some(mut second) = self.load_second else {
            return;
        };
        let newest = self.meter.newest().map_or(0, Monotonic::as_nanos);
        while (second + 1) * SECOND_NS <= newest {
            let end = (second + 1) * SECOND_NS;
            if let Some([up, down]) = self.meter.carried(second * SECOND_NS, end) {
                if self.seconds.is_full() {
                    self.seconds.pop_front();
                }
                let _ = self.seconds.push_back(Second {
                    at: Monotonic::from_nanos(end),
                    up_bps: 8 * up,
                    down_bps: 8 * down,
                });
            }
            second += 1;
        }
        self.load_second = Some(second);
        // A minute that nobody has taken yet is not added to.
        let taken = |h: &Self| !h.minute_used || h.minute_of == h.close_second / 60;
        while self.close_second < second
            && taken(self)
            && (self.close_second + 1) * SECOND_NS + HOLD_NS <= now.as_nanos()
        {
            self.close(self.close_second);
            self.close_second += 1;
        }
    }

    /// The load of the next second.
    pub fn poll_second(&mut self) -> Option<Second> {
        self.seconds.pop_front()
    }

    /// The next estimate of the line's capacity.
    pub fn poll_estimate(&mut self) -> Option<Estimate> {
        self.estimates.pop_front()
    }

    /// The minute that is over, with its begin, ns since boot.
    pub fn poll_minute(&mut self) -> Option<(Monotonic, Minute)> {
        if !self.minute_used || self.minute_of == self.close_second / 60 {
            return None;
        }
        let begin = Monotonic::from_nanos(self.minute_of * 60 * SECOND_NS);
        self.minute_used = false;
        Some((begin, core::mem::take(&mut self.minute)))
    }

    fn close(&mut self, second: u64) {
        let begin = Monotonic::from_nanos(second * SECOND_NS);
        let tested = self.tests.touch(begin, begin.saturating_add(SECOND_NS));
        let mut closed: Vec<Closed, 2> = Vec::new();
        for way in [&mut self.up, &mut self.down] {
            let _ = closed.push(way.close(second, &self.meter, tested));
        }
        if !self.minute_used {
            self.minute_of = second / 60;
        }
        for (way, closed) in [&mut self.minute.up, &mut self.minute.down]
            .into_iter()
            .zip(closed)
        {
            if let Some(estimate) = closed.estimate {
                if self.estimates.is_full() {
                    self.estimates.pop_front();
                }
                let _ = self.estimates.push_back(estimate);
            }
            if tested {
                continue;
            }
            if let Some(rate_bps) = closed.rate_bps {
                self.minute_used = true;
                way.add_rate(rate_bps);
                for queue_ns in &closed.queues_ns {
                    way.add_queue(closed.class, *queue_ns);
                }
                way.standing_s += u32::from(closed.stands);
            }
        }
    }
}
