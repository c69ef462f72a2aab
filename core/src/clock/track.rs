//! The floor from probe to probe: where the clocks' rate puts it, and where the bounds allow it; and
//! the three things that move it at once: a clock that is set, and a route that gets shorter or longer.

use super::route::RouteWatch;
use super::skew::Rate;
use super::{Change, FloorEstimator, Update};
use crate::sample::Sample;
use crate::time::Monotonic;

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
/// A lower round trip changes what was said before if it is lower by this much, ns.
const CORRECT_NS: f64 = 20_000.0;
/// But nothing is changed that is longer ago than this, s.
const CORRECT_BACK_S: f64 = 1_800.0;

/// Where the floor is; times in s since the first probe, delays in ns above the first probe's.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) t: f64,
    /// The floor upward, and between which values it must lie.
    pub(super) floor: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Smallest round trip.
    pub(super) rtt: f64,
    /// The probe before.
    pub(super) up: f64,
    pub(super) down: f64,
}

impl FloorEstimator {
    /// How fast the floor moves, and how far that may be off.
    pub(super) fn rate(&self) -> Rate {
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
    pub(super) fn advance(&mut self, before: State, t: f64, at: Monotonic, up: f64, down: f64) {
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
            let floor = between(s.floor, s.low, s.high);
            self.calm.pushed(floor - s.floor);
            s.floor = floor;
            let look = self.calm.add(t, s.up - s.floor, s.down - (s.rtt - s.floor));
            s.floor += look.by_ns;
            s.low = s.low.min(s.floor);
            s.high = s.high.max(s.floor);
            self.push(&s, if fell == 0.0 { beyond } else { 0.0 }, look.drifts, dt);
            let free_ns = self.watch.limit_ns();
            let free = (up - s.floor).min(down - (s.rtt - s.floor)) <= free_ns;
            self.skew.add((t, up, down), free, s.rtt, free_ns);
        }
        self.state = Some(s);
    }

    /// The round trip is smaller than ever, by `fell`.
    pub(super) fn fell(&mut self, s: &mut State, fell: f64, at: Monotonic) {
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
                self.calm.restart();
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
    pub(super) fn is_step(
        &self,
        beyond: f64,
        clock: f64,
        before: &State,
        s: &State,
        dt: f64,
    ) -> bool {
        let trip = ((s.up + s.down) - (before.up + before.down)).abs();
        beyond.abs() > STEP_NS + STEP_PPB * dt
            && clock.abs() > STEP_NS + STEP_PPB * dt + 4.0 * trip + 4.0 * self.unsteady
    }

    /// The clock was set. The direction that had the shorter queue has not got another one just now.
    pub(super) fn step(&mut self, s: &mut State, before: &State, clock: f64, at: Monotonic) {
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
        self.calm.restart();
        self.change(Change::ClockStep {
            at,
            by_ns: clock as i64,
        });
        self.last_knot = None;
    }

    /// Is this another route?
    pub(super) fn look(&mut self, t: f64, sample: &Sample, up: f64, down: f64) {
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
        self.calm.restart();
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
}

/// `value`, or the bound that it is beyond. Rounding may bring `low` above `high` by a hair, which
/// `f64::clamp` would panic at.
const fn between(value: f64, low: f64, high: f64) -> f64 {
    value.max(low).min(high)
}
