//! What is handed out: knots where the floor bends, shifts where it was wrong, and what happened.

use super::track::State;
use super::{Change, FloorEstimator, Knot, Update};
use crate::time::Monotonic;

/// Probes and time before the first knot, s: what has been seen so far is not yet a floor.
const WARM_UP_PROBES: u32 = 16;
const WARM_UP_S: f64 = 5.0;
/// A knot is due when the floor is this far from where the knot before foretells it, ns, but not
/// sooner than the second, s; or after the third.
const KNOT_NS: f64 = 15_000.0;
const KNOT_EVERY_S: f64 = 1.0;
const KNOT_AT_LEAST_S: f64 = 60.0;

impl FloorEstimator {
    /// Hands out a knot where one is due.
    pub(super) fn tell(&mut self, t: f64, at: Monotonic) {
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

    pub(super) fn knot(&self, s: &State, at: Monotonic, begins: bool) -> Knot {
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

    pub(super) fn error_ns(&self, s: &State) -> f64 {
        (s.high - s.low).max(0.0) / 2.0 + self.watch.usual_ns()
    }

    pub(super) fn instant(&self, t: f64) -> Monotonic {
        self.origin.0.saturating_add((t * 1e9) as u64)
    }

    pub(super) fn update(&mut self, update: Update) {
        if self.updates.is_full() {
            self.updates.pop_front();
        }
        let _ = self.updates.push_back(update);
    }

    pub(super) fn change(&mut self, change: Change) {
        if self.changes.is_full() {
            self.changes.pop_front();
        }
        let _ = self.changes.push_back(change);
    }
}
