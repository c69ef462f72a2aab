//! One direction of a line: when its queue stands, and what it carries then.
//!
//! Upward the counters see bytes enter the queue. Two probes that left at `a` and `b` and waited `p`
//! and `q` left the queue at `a + p` and `b + q`, and between them left just what had entered between
//! them: capacity is the bytes that entered from `a` to `b`, less the share that was lost, over
//! `(b + q) - (a + p)`. Whether the queue grows or shrinks meanwhile does not matter.
//!
//! Downward the counters see bytes leave the queue: capacity is their rate.

use heapless::Vec;

use super::meter::Meter;
use super::minute::Class;
use super::{Estimate, SECOND_NS, SURE};
use crate::time::Monotonic;

/// Seconds that are open: more than probes are waited for.
const OPEN: usize = 8;
/// Probes of a second that are looked at.
const PROBES: usize = 128;
/// Fewer say nothing of whether a queue stood.
const FEWEST: usize = 5;
/// They have to reach over this much of the second, ns.
const REACH_NS: u64 = 600_000_000;
/// A queue stands where nearly all probes wait longer than this above twice the idle wait, ns: a
/// cable modem waits up to 8 ms for its turn without any queue.
const STANDS_NS: u64 = 8_000_000;
/// Below this a line is idle where nothing is known of what it can, bit/s.
const IDLE_BPS: u64 = 100_000;
/// A queue before less traffic of ours than this is not ours, bit/s.
const LEAST_BPS: u64 = 64_000;
/// Seconds without a standing queue that are looked back at when one begins to stand; it may have grown for the last
/// [`GROWING`] of them.
const CALM: usize = 5;
const GROWING: usize = 2;
/// Where the line's own traffic has grown so many times as large as it was, the queue that then stands is its own.
const GREW: u64 = 4;
/// Of seconds in which the queue stood so many make an estimate.
const RUN: usize = 3;
/// A second without a standing queue between two with is no end, ns.
const BREAK_NS: u64 = 2 * SECOND_NS;
/// After a standing queue this recent, whatever the line carries is what it can, ns.
const RECENT_NS: u64 = 15 * SECOND_NS;
/// The same rate is news again after this, ns.
const NEWS_NS: u64 = 30 * SECOND_NS;
/// Another is further away than one in so many.
const OTHER: u64 = 8;

/// How long one probe waited.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// Since the second's begin, ns.
    offset_ns: u32,
    queue_ns: u32,
}

/// The probes of one second.
#[derive(Clone, Debug)]
struct Window {
    second: u64,
    waits: Vec<Wait, PROBES>,
    lost: u32,
}

impl Window {
    const fn new() -> Self {
        Self {
            second: 0,
            waits: Vec::new(),
            lost: 0,
        }
    }
}

/// What one second said.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    /// Bits per second that the interface counted; `None` where it was not read.
    pub(super) rate_bps: Option<u64>,
    /// How much that is for this line.
    pub(super) class: Class,
    /// How long its probes waited, ns.
    pub(super) queues_ns: Vec<u64, PROBES>,
    /// Whether the queue stood through all of it.
    pub(super) stands: bool,
    pub(super) estimate: Option<Estimate>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Way {
    up: bool,
    windows: [Window; OPEN],
    /// What probes wait while the household is quiet, ns.
    idle_ns: u64,
    /// The most that it was surely seen or measured to carry, slowly forgotten, bit/s; 0: nothing is known.
    best_bps: u64,
    /// What it carried in each of the last seconds without a standing queue, oldest first, bit/s.
    calm_bps: Vec<u64, CALM>,
    /// The most of that before the queue that stands, where it was seen to come; bit/s.
    before_bps: Option<u64>,
    /// Capacity by each of the last seconds with a standing queue, bit/s, and the share of losses.
    run: Vec<(u64, f64), RUN>,
    /// When the queue last stood.
    stood: Option<u64>,
    /// When the last sure estimate was; and when the last that was news, its rate, and whether it was
    /// sure.
    believed: Option<u64>,
    told: Option<(u64, u64, bool)>,
}

impl Way {
    pub(super) const fn new(up: bool) -> Self {
        Self {
            up,
            windows: [const { Window::new() }; OPEN],
            idle_ns: 0,
            best_bps: 0,
            calm_bps: Vec::new(),
            before_bps: None,
            run: Vec::new(),
            stood: None,
            believed: None,
            told: None,
        }
    }

    /// It was measured to carry so much, bit/s.
    pub(super) const fn measured(&mut self, rate_bps: u64) {
        self.best_bps = rate_bps;
    }

    fn window(&mut self, at_ns: u64) -> Option<&mut Window> {
        let second = at_ns / SECOND_NS;
        let window = &mut self.windows[(second % OPEN as u64) as usize];
        if window.second > second {
            return None;
        }
        if window.second != second {
            *window = Window::new();
            window.second = second;
        }
        Some(window)
    }

    /// A probe that passed at `at_ns` waited this long.
    pub(super) fn add(&mut self, at_ns: u64, queue_ns: u64) {
        if let Some(window) = self.window(at_ns) {
            let wait = Wait {
                offset_ns: (at_ns % SECOND_NS) as u32,
                queue_ns: u32::try_from(queue_ns).unwrap_or(u32::MAX),
            };
            // More than there is room for would say the same.
            let _ = window.waits.push(wait);
        }
    }

    /// One that would have passed at about `at_ns` was lost.
    pub(super) fn lost(&mut self, at_ns: u64) {
        if let Some(window) = self.window(at_ns) {
            window.lost += 1;
        }
    }

    /// Everything of `second` has come.
    pub(super) fn close(&mut self, second: u64, meter: &Meter, tested: bool) -> Closed {
        let begin = second * SECOND_NS;
        let window = &mut self.windows[(second % OPEN as u64) as usize];
        let mut window = if window.second == second {
            core::mem::replace(window, Window::new())
        } else {
            Window::new()
        };
        window.waits.sort_unstable_by_key(|w| w.offset_ns);
        let side = usize::from(!self.up);
        let rate_bps = meter
            .carried(begin, begin + SECOND_NS)
            .map(|bytes| 8 * bytes[side]);
        let class = self.class(rate_bps.unwrap_or(0));
        let mut closed = Closed {
            rate_bps,
            class,
            queues_ns: window.waits.iter().map(|w| w.queue_ns.into()).collect(),
            stands: false,
            estimate: None,
        };
        if tested {
            self.run.clear();
            self.calm_bps.clear();
            return closed;
        }
        if class == Class::Idle {
            self.learn_idle(&closed.queues_ns);
        }
        let carried = self.carried(&window, begin, side, meter);
        let begins = self
            .stood
            .is_none_or(|s| begin > s.saturating_add(BREAK_NS));
        if begins {
            self.run.clear();
        }
        let Some((capacity_bps, loss)) = carried else {
            self.add_calm(rate_bps);
            return closed;
        };
        if begins {
            let seen = self.calm_bps.is_full();
            let before = self.calm_bps.iter().take(CALM - GROWING).max();
            self.before_bps = before.copied().filter(|_| seen);
            self.calm_bps.clear();
        }
        closed.stands = true;
        self.stood = Some(begin + SECOND_NS);
        let _ = self.run.push((capacity_bps, loss));
        if self.run.is_full() {
            closed.estimate = Some(self.estimate(begin + SECOND_NS));
            self.run.clear();
        }
        closed
    }

    /// A second without a standing queue.
    fn add_calm(&mut self, rate_bps: Option<u64>) {
        let Some(bps) = rate_bps else {
            self.calm_bps.clear();
            return;
        };
        if self.calm_bps.is_full() {
            self.calm_bps.remove(0);
        }
        let _ = self.calm_bps.push(bps);
    }

    /// Whether so much before a queue may be a little of what the line carries, and the queue somebody else's. Where
    /// nothing has shown what it carries, only traffic that grew as the queue came speaks for its own.
    fn is_little(&self, rate_bps: u64) -> bool {
        if self.best_bps > 0 {
            return rate_bps < self.best_bps / 4;
        }
        let grew = |before_bps: u64| rate_bps / GREW >= before_bps.max(LEAST_BPS);
        !self.before_bps.is_some_and(grew)
    }

    fn class(&self, rate_bps: u64) -> Class {
        if rate_bps < IDLE_BPS.max(self.best_bps / 20) {
            Class::Idle
        } else if self.best_bps == 0 || rate_bps < self.best_bps / 4 * 3 {
            Class::Part
        } else {
            Class::Full
        }
    }

    /// What probes wait without load, as a slow mean: a second of many weighs a fiftieth.
    fn learn_idle(&mut self, queues_ns: &[u64]) {
        if queues_ns.len() < FEWEST {
            return;
        }
        let mean = queues_ns.iter().sum::<u64>() / queues_ns.len() as u64;
        self.idle_ns = if self.idle_ns == 0 {
            mean
        } else {
            (self.idle_ns * 49 + mean) / 50
        };
    }

    /// What left the queue per second, bit/s, if it stood all the time; and the share that was lost.
    fn carried(
        &self,
        window: &Window,
        begin: u64,
        side: usize,
        meter: &Meter,
    ) -> Option<(u64, f64)> {
        let waits = &window.waits;
        let (first, last) = (waits.first()?, waits.last()?);
        let reach = u64::from(last.offset_ns - first.offset_ns);
        if waits.len() < FEWEST || reach < REACH_NS {
            return None;
        }
        let stands_ns = STANDS_NS + 2 * self.idle_ns;
        let high = waits.iter().filter(|w| u64::from(w.queue_ns) > stands_ns);
        // One in twenty may be a priority's or a stray.
        if high.count() * 20 < waits.len() * 19 {
            return None;
        }
        let at = |w: &Wait| begin + u64::from(w.offset_ns);
        let bytes = meter.carried(at(first), at(last))?[side];
        let loss = f64::from(window.lost) / (f64::from(window.lost) + waits.len() as f64);
        let (took_ns, passed) = if self.up {
            let out = |w: &Wait| at(w) + u64::from(w.queue_ns);
            let passed = bytes as f64 * (1.0 - loss);
            (out(last).checked_sub(out(first))?, passed)
        } else {
            (reach, bytes as f64)
        };
        // Probes that follow each other closer than this left together: no time to divide by.
        if took_ns < REACH_NS / 2 {
            return None;
        }
        let bps = (passed * 8e9 / took_ns as f64) as u64;
        (bps >= LEAST_BPS).then_some((bps, loss))
    }

    fn estimate(&mut self, at_ns: u64) -> Estimate {
        let mut rates: [u64; RUN] = [0; RUN];
        let mut loss = 0.0;
        for (slot, (bps, lost)) in rates.iter_mut().zip(&self.run) {
            *slot = *bps;
            loss += lost / RUN as f64;
        }
        rates.sort_unstable();
        let rate_bps = rates[RUN / 2];
        let spread = (rates[RUN - 1] - rates[0]) as f64 / rate_bps.max(1) as f64;
        let mut confidence: f64 = match spread {
            s if s <= 0.05 => 0.95,
            s if s <= 0.15 => 0.8,
            s if s <= 0.3 => 0.5,
            _ => 0.2,
        };
        if self.up && loss > 0.02 {
            // Few probes say badly how many of the bytes were lost.
            confidence -= if loss > 0.1 { 0.5 } else { 0.15 };
        }
        let recent = self
            .believed
            .is_some_and(|b| at_ns.saturating_sub(b) <= RECENT_NS);
        if self.is_little(rate_bps) && !recent {
            confidence = confidence.min(0.3);
        }
        let confidence = confidence.max(0.1);
        if confidence >= SURE {
            self.believed = Some(at_ns);
            self.best_bps = if rate_bps > self.best_bps {
                rate_bps
            } else {
                self.best_bps - self.best_bps / 1024
            };
        }
        let sure = confidence >= SURE;
        let is_news = self.told.is_none_or(|(when, bps, before)| {
            at_ns.saturating_sub(when) >= NEWS_NS
                || bps.abs_diff(rate_bps) > bps / OTHER
                || (sure && !before)
        });
        if is_news {
            self.told = Some((at_ns, rate_bps, sure));
        }
        Estimate {
            at: Monotonic::from_nanos(at_ns),
            up: self.up,
            rate_bps,
            confidence,
            is_news,
        }
    }
}
