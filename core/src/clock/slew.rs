//! A clock that is being slewed, or runs at another rate than it did.

use super::FloorEstimator;
use super::track::State;

/// The bounds have pushed to one side by this much within some ten seconds: a slew, ns.
const PUSHED_NS: f64 = 300_000.0;
const PUSH_MEMORY_S: f64 = 10.0;
/// While slewed, the rate is looked at again after this long and so many probes.
const CHECK_S: f64 = 2.0;
const CHECK_PROBES: u32 = 8;
/// A rate that is known this well is followed no longer from floor to floor, ppb.
const SETTLED_PPB: f64 = 10_000.0;

/// A clock that is being slewed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slew {
    pub(super) slope: f64,
    since: (f64, f64),
    probes: u32,
}

impl FloorEstimator {
    /// Notices that a clock is being slewed, or runs at another rate, and follows it from floor to
    /// floor until the rate is known again.
    pub(super) fn push(&mut self, s: &State, by: f64, drifts: Option<f64>, dt: f64) {
        self.pushed = self.pushed / (1.0 + dt / PUSH_MEMORY_S) + by;
        let known = self.skew.rate();
        let Some(slew) = &mut self.slew else {
            if let Some(rate) = known
                && (drifts.is_some() || self.pushed.abs() > PUSHED_NS + 2.0 * self.unsteady)
            {
                self.slew = Some(Slew {
                    slope: rate.slope + drifts.unwrap_or(0.0),
                    since: (s.t, s.floor),
                    probes: 0,
                });
                self.skew.restart(None);
            }
            return;
        };
        if known.is_some_and(|rate| rate.error < SETTLED_PPB) {
            self.slew = None;
            self.pushed = 0.0;
            self.calm.restart();
            return;
        }
        slew.probes += 1;
        let whole = s.t - slew.since.0;
        if slew.probes >= CHECK_PROBES && whole >= CHECK_S {
            slew.slope = (s.floor - slew.since.1) / whole;
            slew.since = (s.t, s.floor);
            slew.probes = 0;
        }
    }
}
