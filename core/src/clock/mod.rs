//! Queueing delay up and queueing delay down, without synchronised clocks.
//!
//! Of each answered probe two differences of unsynchronised clocks are known:
//!
//! ```text
//! up(t)   = floor up   + queue up   + c(t)        c: far end's clock minus ours
//! down(t) = floor down + queue down − c(t)
//! ```
//!
//! Their sum is the round trip, in which `c` has no part. With `R`, the smallest round trip of the
//! route, every single probe bounds the moving floor `f(t) = floor up + c(t)` from both sides:
//!
//! ```text
//! R − down(t)  ≤  f(t)  ≤  up(t)
//! ```
//!
//! and the two bounds are as far apart as that probe waited in queues. While there is no queue, each
//! probe fixes `f`; while there is one in one direction, the other direction's bound does, for as
//! long as the queue stands; while there is one in both, `f` goes on at the rate of the clocks, which
//! the lower hulls of many buckets' smallest delays give (Moon, Skelly and Towsley 1999; `skew.rs`).
//!
//! - A *step* of a clock moves both bounds by the same amount in opposite raw directions while the
//!   round trip stays: no queue does that.
//! - A *slewed* clock is noticed because the bounds keep pushing `f` to one side; its rate is then
//!   followed from probe to probe, and the uncertainty told is larger.
//! - A *new route* raises `R` for good (`route.rs`), or lowers it at once.
//!
//! Constant asymmetry of a path cannot be known: no absolute delay per direction is claimed, only
//! what lies above each direction's own floor.
//!
//! [`FloorEstimator`] hands out the floor as [`Knot`]s for the store, from which the queueing delay
//! of every sample follows exactly; it corrects what it had said where it learns better
//! ([`Update::Shift`]).

mod floor;
mod hull;
mod route;
mod skew;
#[cfg(test)]
mod tests;

use heapless::Deque;

pub use floor::{Knot, Queueing, Update, instant_of};
use route::RouteWatch;
use skew::{Rate, Skew};

use crate::sample::{Sample, Status};
use crate::time::Monotonic;

/// Probes and time before the first knot, s: what has been seen so far is not yet a floor.
const WARM_UP_PROBES: u32 = 16;
const WARM_UP_S: f64 = 5.0;
/// Two crystals may differ by this much, ppb: assumed while nothing is known.
const UNKNOWN_RATE: Rate = Rate {
    slope: 0.0,
    error: 300_000.0,
};
/// What a rate wanders by in minutes, ppb, however well it is known.
const WANDER_PPB: f64 = 300.0;
/// A clock that is being slewed: what Linux does at most (500 ppm), with a margin, ppb.
const SLEWED_PPB: f64 = 600_000.0;
/// Both bounds at once move by this much without a step, ns, and ns for each second between probes.
const STEP_NS: f64 = 1_000_000.0;
const STEP_PPB: f64 = 1_000_000.0;
/// The bounds have pushed to one side by this much within some ten seconds: a slew, ns.
const PUSHED_NS: f64 = 300_000.0;
const PUSH_MEMORY_S: f64 = 10.0;
/// While slewed, the rate is looked at again after this long and so many probes.
const CHECK_S: f64 = 2.0;
const CHECK_PROBES: u32 = 8;
/// Rates that differ by less are the same, ppb.
const SAME_RATE_PPB: f64 = 25_000.0;
/// After so many looks with the same rate that is the clock's own now.
const NEW_RATE_CHECKS: u32 = 8;
/// A knot is due when the floor is this far from where the knot before foretells it, ns, but not
/// sooner than the second, s; or after the third.
const KNOT_NS: f64 = 15_000.0;
const KNOT_EVERY_S: f64 = 1.0;
const KNOT_AT_LEAST_S: f64 = 60.0;
/// A lower round trip changes what was said before if it is lower by this much, ns.
const CORRECT_NS: f64 = 20_000.0;
/// But nothing is changed that is longer ago than this, s.
const CORRECT_BACK_S: f64 = 1_800.0;

/// Something that happened to clocks or route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The far end's clock was set by so much against ours, or it was restarted.
    ClockStep {
        /// The first probe after it.
        at: Monotonic,
        /// ns.
        by_ns: i64,
    },
    /// The floor moved: the packets go another way, or the same way got longer or shorter.
    Route {
        /// Since when.
        from: Monotonic,
        /// Change of the smallest delay upward, ns.
        up_ns: i64,
        /// And downward.
        down_ns: i64,
    },
}

/// Where the floor is; times in s since the first probe, delays in ns above the first probe's.
#[derive(Clone, Copy, Debug)]
struct State {
    t: f64,
    /// The floor upward, and between which values it must lie.
    floor: f64,
    low: f64,
    high: f64,
    /// Smallest round trip.
    rtt: f64,
    /// The probe before.
    up: f64,
    down: f64,
}

/// A clock that is being slewed.
#[derive(Clone, Copy, Debug)]
struct Slew {
    slope: f64,
    since: (f64, f64),
    probes: u32,
    same: u32,
}

/// Estimates the floor of one stream's delays; see the module. Bounded memory, and an amount of work
/// for each sample that does not grow.
#[derive(Clone, Debug)]
pub struct FloorEstimator {
    /// Send time of the first probe, and its raw delays.
    origin: (Monotonic, i64, i64),
    state: Option<State>,
    probes: u32,
    skew: Skew,
    slew: Option<Slew>,
    pushed: f64,
    /// Mean of how far clocks alone seem to move from one probe to the next, ns.
    unsteady: f64,
    watch: RouteWatch,
    /// Since when the floor of this route counts.
    route_from: f64,
    last_knot: Option<(f64, Knot)>,
    steps: u32,
    updates: Deque<Update, 8>,
    changes: Deque<Change, 4>,
}

impl Default for FloorEstimator {
    fn default() -> Self {
        Self::new()
    }
}

impl FloorEstimator {
    /// One that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            origin: (Monotonic::ZERO, 0, 0),
            state: None,
            probes: 0,
            skew: Skew::new(),
            slew: None,
            pushed: 0.0,
            unsteady: 0.0,
            watch: RouteWatch::new(),
            route_from: 0.0,
            last_knot: None,
            steps: 0,
            updates: Deque::new(),
            changes: Deque::new(),
        }
    }

    /// The next sample of the stream, in the order in which they come to an end. Those that overtake
    /// each other, late answers and duplicates do not move the floor.
    pub fn on_sample(&mut self, sample: &Sample) {
        if sample.status.is_lost() {
            self.watch.lost();
        }
        let (Status::Ok, Some(up_ns), Some(down_ns)) =
            (sample.status, sample.raw_up_ns, sample.raw_down_ns)
        else {
            return;
        };
        let at = instant_of(sample);
        let Some(before) = self.state else {
            self.begin(at, up_ns, down_ns);
            return;
        };
        let t = at.signed_since(self.origin.0) as f64 / 1e9;
        if t <= before.t {
            return;
        }
        // Of 64-bit numbers first, so that what is left is small.
        let up = up_ns.wrapping_sub(self.origin.1) as f64;
        let down = down_ns.wrapping_sub(self.origin.2) as f64;
        self.probes = self.probes.saturating_add(1);
        self.advance(before, t, at, up, down);
        self.look(t, sample, up, down);
        self.tell(t, at);
    }

    /// The next change of the stored floor, until there is none: to be polled after each sample.
    pub fn poll_update(&mut self) -> Option<Update> {
        self.updates.pop_front()
    }

    /// The next thing that happened, likewise.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Queueing delay of a sample that was just taken in; `None` while the floor is not known.
    #[must_use]
    pub fn queueing(&self, sample: &Sample) -> Option<Queueing> {
        let (_, knot) = self.last_knot.as_ref()?;
        let state = self.state.as_ref()?;
        let now = self.knot(state, knot.at, false);
        let mut here = now;
        here.at = self.instant(state.t);
        here.queueing(sample, None)
    }

    /// How fast the far end's clock gains on ours, ns per second; `None` while that is not known.
    #[must_use]
    pub fn skew_ppb(&self) -> Option<f64> {
        self.skew.rate().map(|r| r.slope)
    }

    /// How often a clock was set.
    #[must_use]
    pub const fn steps(&self) -> u32 {
        self.steps
    }

    /// How well the floors are known, percent. 0: not at all. It rises with how often the smallest
    /// round trip has been met again (a dozen times for all of it), and falls with the width of the
    /// range in which the floor must lie (half of it at 0.2 ms), by half while a clock is being
    /// slewed, and by a third while it is open whether a standing queue or a new route is seen.
    #[must_use]
    pub fn quality(&self) -> u8 {
        let Some(state) = &self.state else { return 0 };
        let met = (f64::from(self.watch.floor_looks()) + 1.0).min(12.0) / 12.0;
        let sharp = 200_000.0 / (200_000.0 + self.error_ns(state));
        let steady = if self.slew.is_some() { 0.5 } else { 1.0 };
        let open = if self.watch.raised_s(state.t) > 60.0 {
            0.67
        } else {
            1.0
        };
        (100.0 * met * sharp * steady * open) as u8
    }

    fn begin(&mut self, at: Monotonic, up_ns: i64, down_ns: i64) {
        self.origin = (at, up_ns, down_ns);
        self.state = Some(State {
            t: 0.0,
            floor: 0.0,
            low: 0.0,
            high: 0.0,
            rtt: 0.0,
            up: 0.0,
            down: 0.0,
        });
        self.probes = 1;
        self.skew.add(0.0, 0.0, 0.0);
    }

    /// How fast the floor moves, and how far that may be off.
    fn rate(&self) -> Rate {
        let known = self.skew.rate().unwrap_or(UNKNOWN_RATE);
        match self.slew {
            Some(slew) => Rate {
                slope: slew.slope,
                error: SLEWED_PPB,
            },
            None => Rate {
                error: known.error + WANDER_PPB,
                ..known
            },
        }
    }

    /// Moves the floor on to the probe at `t`, and holds it against what that says.
    fn advance(&mut self, before: State, t: f64, at: Monotonic, up: f64, down: f64) {
        let dt = t - before.t;
        let rate = self.rate();
        let foretold = before.floor + rate.slope * dt;
        let mut s = State {
            t,
            floor: foretold,
            low: before.low + (rate.slope - rate.error) * dt,
            high: before.high + (rate.slope + rate.error) * dt,
            rtt: before.rtt,
            up,
            down,
        };
        let fell = (s.rtt - (up + down)).max(0.0);
        if fell > 0.0 {
            s.rtt -= fell;
            self.fell(&mut s, fell, at);
        }
        let (least, most) = (s.rtt - down, up);
        let clock = ((up - before.up) - (down - before.down)) / 2.0 - rate.slope * dt;
        let beyond = if least > s.high {
            least - s.high
        } else {
            (most - s.low).min(0.0)
        };
        if fell == 0.0 && self.is_step(beyond, clock, &before, &s, dt) {
            self.step(&mut s, &before, clock, at);
        } else {
            self.unsteady += (clock.abs() - self.unsteady) / 16.0;
            if least > s.high {
                (s.low, s.high) = (least, least);
            } else if most < s.low {
                (s.low, s.high) = (most, most);
            } else {
                (s.low, s.high) = (s.low.max(least), s.high.min(most));
            }
            s.floor = between(s.floor, s.low, s.high);
            self.push(&s, if fell == 0.0 { beyond } else { 0.0 }, dt);
            if self.slew.is_none() {
                self.skew.add(t, up, down);
            }
        }
        self.state = Some(s);
    }

    /// The round trip is smaller than ever, by `fell`.
    fn fell(&mut self, s: &mut State, fell: f64, at: Monotonic) {
        // What the way up became shorter by shows against where its floor should be.
        let up = (s.floor - s.up).clamp(0.0, fell);
        let down = fell - up;
        s.floor -= up;
        s.low -= up;
        s.high -= up;
        let limit_ns = STEP_NS / 2.0 + 3.0 * self.watch.usual_ns();
        if self.watch.is_established() {
            if fell > limit_ns {
                self.route_from = s.t;
                self.watch = RouteWatch::new();
                self.skew.restart(self.skew.rate());
                self.change(Change::Route {
                    from: at,
                    up_ns: -up as i64,
                    down_ns: -down as i64,
                });
                self.last_knot = None;
                return;
            }
        } else if fell > CORRECT_NS && self.last_knot.is_some() {
            // There had been a queue all the time.
            let from = self.route_from.max(s.t - CORRECT_BACK_S);
            self.update(Update::Shift {
                from: self.instant(from),
                up_ns: -up as i64,
                down_ns: -down as i64,
            });
            if let Some((_, knot)) = &mut self.last_knot {
                *knot = knot.shifted(-up as i64, -down as i64);
            }
        }
        self.watch.fell(fell);
    }

    /// Both bounds have moved one way, the round trip has not: that is a clock.
    fn is_step(&self, beyond: f64, clock: f64, before: &State, s: &State, dt: f64) -> bool {
        let trip = ((s.up + s.down) - (before.up + before.down)).abs();
        beyond.abs() > STEP_NS + STEP_PPB * dt
            && clock.abs() > STEP_NS + STEP_PPB * dt + 4.0 * trip + 4.0 * self.unsteady
    }

    /// The clock was set. The direction that had the shorter queue has not got another one just now.
    fn step(&mut self, s: &mut State, before: &State, clock: f64, at: Monotonic) {
        let (least, most) = (s.rtt - s.down, s.up);
        let queue_up = before.up - before.floor;
        let queue_down = before.down - (before.rtt - before.floor);
        s.floor = if queue_down <= queue_up {
            (least + queue_down).min(most)
        } else {
            (most - queue_up).max(least)
        };
        let open = before.high - before.low + queue_up.min(queue_down) + STEP_NS / 4.0;
        s.low = (s.floor - open).max(least);
        s.high = (s.floor + open).min(most);
        self.steps = self.steps.saturating_add(1);
        self.skew.restart(self.skew.rate());
        self.slew = None;
        self.pushed = 0.0;
        self.change(Change::ClockStep {
            at,
            by_ns: clock as i64,
        });
        self.last_knot = None;
    }

    /// Notices that a clock is being slewed, follows it, and notices when it is not any more.
    fn push(&mut self, s: &State, by: f64, dt: f64) {
        self.pushed = self.pushed / (1.0 + dt / PUSH_MEMORY_S) + by;
        let known = self.skew.rate();
        let Some(slew) = &mut self.slew else {
            if let Some(rate) = known
                && self.pushed.abs() > PUSHED_NS + 2.0 * self.unsteady
            {
                self.slew = Some(Slew {
                    slope: rate.slope,
                    since: (s.t, s.floor),
                    probes: 0,
                    same: 0,
                });
            }
            return;
        };
        slew.probes += 1;
        let whole = s.t - slew.since.0;
        if slew.probes < CHECK_PROBES || whole < CHECK_S {
            return;
        }
        let slope = (s.floor - slew.since.1) / whole;
        let same_as = |other: f64| (slope - other).abs() < SAME_RATE_PPB;
        slew.same = if same_as(slew.slope) {
            slew.same + 1
        } else {
            0
        };
        let as_before = known.is_some_and(|r| same_as(r.slope)) && slew.same >= 1;
        let settled = as_before || slew.same >= NEW_RATE_CHECKS;
        slew.slope = slope;
        slew.since = (s.t, s.floor);
        slew.probes = 0;
        if settled {
            let rate = if as_before {
                known
            } else {
                Some(Rate {
                    slope,
                    error: SAME_RATE_PPB,
                })
            };
            self.slew = None;
            self.pushed = 0.0;
            self.skew.restart(rate);
        }
    }

    /// Is this another route?
    fn look(&mut self, t: f64, sample: &Sample, up: f64, down: f64) {
        let Some(mut s) = self.state else { return };
        let (queue_up, queue_down) = (up - s.floor, down - (s.rtt - s.floor));
        let Some(new) = self.watch.add(t, sample, queue_up, queue_down) else {
            return;
        };
        let down_ns = new.by_ns - new.up_ns;
        s.rtt += new.by_ns;
        s.floor += new.up_ns;
        s.low = s.rtt - down;
        s.high = up;
        s.floor = between(s.floor, s.low, s.high);
        self.state = Some(s);
        self.route_from = new.from;
        self.watch = RouteWatch::new();
        self.skew.restart(self.skew.rate());
        let from = self.instant(new.from);
        let (up_ns, down_ns) = (new.up_ns as i64, down_ns as i64);
        if let Some((_, knot)) = &mut self.last_knot {
            *knot = knot.shifted(up_ns, down_ns);
            self.update(Update::Shift {
                from,
                up_ns,
                down_ns,
            });
        }
        self.change(Change::Route {
            from,
            up_ns,
            down_ns,
        });
    }

    /// Hands out a knot where one is due.
    fn tell(&mut self, t: f64, at: Monotonic) {
        let Some(state) = self.state else { return };
        if self.probes < WARM_UP_PROBES || t < WARM_UP_S {
            return;
        }
        let knot = self.knot(&state, at, self.last_knot.is_none());
        if let Some((before, last)) = &self.last_knot {
            let after = t - before;
            let (up_ns, down_ns) = last.floor_at(at, None);
            let off_ns = up_ns
                .abs_diff(knot.up_ns)
                .max(down_ns.abs_diff(knot.down_ns));
            let due =
                (off_ns as f64 > KNOT_NS && after >= KNOT_EVERY_S) || after >= KNOT_AT_LEAST_S;
            if !due {
                return;
            }
        }
        self.last_knot = Some((t, knot));
        self.update(Update::Knot(knot));
    }

    fn knot(&self, s: &State, at: Monotonic, begins: bool) -> Knot {
        Knot {
            at,
            up_ns: self.origin.1.wrapping_add(s.floor as i64),
            down_ns: self.origin.2.wrapping_add((s.rtt - s.floor) as i64),
            slope_ppb: self.rate().slope as i32,
            err_ns: self.error_ns(s) as u32,
            quality: self.quality(),
            begins,
        }
    }

    fn error_ns(&self, s: &State) -> f64 {
        (s.high - s.low).max(0.0) / 2.0 + self.watch.usual_ns()
    }

    fn instant(&self, t: f64) -> Monotonic {
        self.origin.0.saturating_add((t * 1e9) as u64)
    }

    fn update(&mut self, update: Update) {
        if self.updates.is_full() {
            self.updates.pop_front();
        }
        let _ = self.updates.push_back(update);
    }

    fn change(&mut self, change: Change) {
        if self.changes.is_full() {
            self.changes.pop_front();
        }
        let _ = self.changes.push_back(change);
    }
}

/// `value`, or the bound that it is beyond. Rounding may bring `low` above `high` by a hair, which
/// `f64::clamp` would panic at.
const fn between(value: f64, low: f64, high: f64) -> f64 {
    value.max(low).min(high)
}
