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
//! long as the queue stands (`calm.rs`); while there is one in both, `f` goes on at the rate of the
//! clocks, which the lower hulls of many buckets' smallest delays give (after Moon, Skelly and Towsley
//! 1999; `skew.rs`): one line for both directions, because what one gains the other loses. Floors that
//! both rise are queues, whatever slope they would make, and leave the rate alone.
//!
//! - A *step* of a clock moves both bounds by the same amount in opposite raw directions while the
//!   round trip stays: no queue does that.
//! - A *slewed* clock is noticed because `f` has to be moved to one side again and again; it is then
//!   followed from floor to floor (`slew.rs`) until its rate is known, and the uncertainty told is
//!   larger. Of a slew that begins while queues stand both ways nothing can be known until one is gone.
//! - A *new route* raises `R` for good (`route.rs`), or lowers it at once.
//!
//! Constant asymmetry of a path cannot be known: no absolute delay per direction is claimed, only
//! what lies above each direction's own floor.
//!
//! [`FloorEstimator`] hands out the floor as [`Knot`]s for the store, from which the queueing delay
//! of every sample follows exactly; it corrects what it had said where it learns better
//! ([`Update::Shift`]).

mod calm;
mod floor;
mod hull;
mod route;
mod skew;
mod slew;
mod tell;
#[cfg(test)]
mod tests;
mod track;

use heapless::Deque;

use calm::Calm;
pub use floor::{Knot, Queueing, Update, instant_of};
use route::RouteWatch;
use skew::Skew;
use slew::Slew;
use track::State;

use crate::sample::{Sample, Status};
use crate::time::Monotonic;

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
    calm: Calm,
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
            calm: Calm::new(),
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
        let slewed = self.slew.map(|s| s.slope);
        slewed.or_else(|| self.skew.rate().map(|r| r.slope))
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
        self.skew
            .add((0.0, 0.0, 0.0), true, 0.0, self.watch.limit_ns());
    }
}
