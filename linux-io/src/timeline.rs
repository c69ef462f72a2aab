//! Kernel stamps onto the monotonic line.
//!
//! The kernel stamps packets with `CLOCK_REALTIME`, which a time daemon slews (up to 500 ppm) and
//! steps. A [`Timeline`] remembers how far that clock was from `CLOCK_MONOTONIC` at many instants,
//! so that a stamp is converted with the offset that held when it was taken: between two anchors
//! by interpolation, across a step by the only side on which the stamp makes sense.

use bufferbane_core::time::Monotonic;

use crate::clock;

/// One reading of both clocks: the wall clock between two reads of the monotonic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Monotonic time just before, ns.
    pub before_ns: u64,
    /// Wall-clock time, ns since 1970.
    pub wall_ns: i64,
    /// Monotonic time just after, ns.
    pub after_ns: u64,
}

impl Reading {
    /// Reads both clocks three times and keeps the narrowest reading.
    #[must_use]
    pub fn take() -> Self {
        Self::narrowest(clock::raw_wall_ns)
    }

    /// The same of another clock in the wall clock's place.
    pub(crate) fn narrowest(mut other: impl FnMut() -> i64) -> Self {
        let mut read = || Self {
            before_ns: clock::raw_monotonic_ns(),
            wall_ns: other(),
            after_ns: clock::raw_monotonic_ns(),
        };
        let mut best = read();
        for _ in 0..2 {
            let next = read();
            if next.width() < best.width() {
                best = next;
            }
        }
        best
    }

    const fn width(&self) -> u64 {
        self.after_ns.saturating_sub(self.before_ns)
    }
}

/// The wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// When that was noticed; it happened between this and the reading before.
    pub noticed: Monotonic,
    /// By how much it went forward (positive) or back, ns.
    pub step_ns: i64,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    /// Monotonic time of the reading, ns.
    at: u64,
    /// Wall clock minus monotonic clock, ns.
    offset: i64,
    /// Half the width of the reading: how far `offset` may be off, ns.
    error: u64,
    /// The wall clock was set between the anchor before and this one.
    stepped: bool,
}

/// How many anchors are remembered: 2 s at the spacing below.
const ANCHORS: usize = 128;
/// Anchors closer together than this take each other's place, ns.
const SPACING_NS: u64 = 16_000_000;
/// A reading is good for this long before [`Timeline::refresh`] takes another, ns: at 500 ppm of
/// slew the offset is then 0.5 µs off at most.
const FRESH_NS: u64 = 1_000_000;
/// Faster than any slew that Linux makes (500 ppm), parts per million: what is beyond is a step.
const SLEW_LIMIT_PPM: u64 = 1000;
/// Beyond slew and reading errors, offsets may differ by this much without being a step, ns.
const STEP_SLACK_NS: u64 = 2_000;
/// A stamp may lie this far outside the interval in which its offset was seen, ns.
const EDGE_SLACK_NS: i64 = 5_000;

/// Converts wall-clock stamps of the kernel to monotonic instants.
#[derive(Debug)]
pub struct Timeline {
    /// Newest first, so that the usual search ends at once.
    anchors: [Anchor; ANCHORS],
    len: usize,
    newest: usize,
    step: Option<ClockStep>,
    steps: u32,
}

impl Timeline {
    /// A time line that begins with `reading`.
    #[must_use]
    pub const fn new(reading: Reading) -> Self {
        Self {
            anchors: [Self::anchor(&reading, false); ANCHORS],
            len: 1,
            newest: 0,
            step: None,
            steps: 0,
        }
    }

    const fn anchor(reading: &Reading, stepped: bool) -> Anchor {
        let at = reading.before_ns + reading.width() / 2;
        Anchor {
            at,
            offset: reading.wall_ns.saturating_sub(at as i64),
            error: reading.width() / 2,
            stepped,
        }
    }

    /// The `i`-th newest anchor.
    const fn nth(&self, i: usize) -> Anchor {
        self.anchors[(self.newest + ANCHORS - i) % ANCHORS]
    }

    /// Adds a reading if the newest is older than a millisecond at `raw_now_ns`.
    pub(crate) fn refresh(&mut self, raw_now_ns: u64) {
        if raw_now_ns.saturating_sub(self.nth(0).at) >= FRESH_NS {
            self.observe(&Reading::take());
        }
    }

    /// Adds a reading; notices a step of the wall clock.
    pub fn observe(&mut self, reading: &Reading) {
        let last = self.nth(0);
        let mut anchor = Self::anchor(reading, false);
        if anchor.at < last.at {
            return;
        }
        let moved = anchor.offset.saturating_sub(last.offset);
        let elapsed = anchor.at - last.at;
        let allowed =
            elapsed / 1_000_000 * SLEW_LIMIT_PPM + anchor.error + last.error + STEP_SLACK_NS;
        if moved.unsigned_abs() > allowed {
            anchor.stepped = true;
            self.steps = self.steps.saturating_add(1);
            self.step = Some(ClockStep {
                noticed: clock::from_raw(anchor.at),
                step_ns: moved,
            });
        }
        let replace = !anchor.stepped
            && !last.stepped
            && self.len > 1
            && anchor.at - self.nth(1).at < SPACING_NS;
        if !replace {
            self.newest = (self.newest + 1) % ANCHORS;
            self.len = (self.len + 1).min(ANCHORS);
        }
        self.anchors[self.newest] = anchor;
    }

    /// The step noticed last, once.
    pub const fn take_step(&mut self) -> Option<ClockStep> {
        self.step.take()
    }

    /// How many steps were noticed since the start.
    #[must_use]
    pub const fn steps(&self) -> u32 {
        self.steps
    }

    /// As [`Timeline::to_monotonic`], on the kernel's own line.
    #[must_use]
    pub(crate) fn to_raw(&self, wall_ns: i64, raw_now_ns: u64) -> Option<u64> {
        let mut upper = i64::try_from(raw_now_ns).ok()?;
        let mut newer: Option<Anchor> = None;
        for i in 0..self.len {
            let anchor = self.nth(i);
            let lower = anchor.at as i64;
            let at = match newer {
                Some(next) if !next.stepped => {
                    // Between two anchors of one slew: a straight line.
                    let rough = wall_ns.saturating_sub(next.offset);
                    let part = rough.saturating_sub(lower);
                    let whole = i64::try_from(next.at - anchor.at).map_or(i64::MAX, |w| w.max(1));
                    let moved = next.offset.saturating_sub(anchor.offset);
                    wall_ns
                        .saturating_sub(anchor.offset)
                        .saturating_sub(share(moved, part, whole))
                }
                _ => wall_ns.saturating_sub(anchor.offset),
            };
            let oldest = i + 1 == self.len && !anchor.stepped;
            if at <= upper.saturating_add(EDGE_SLACK_NS)
                && (at >= lower.saturating_sub(EDGE_SLACK_NS) || oldest)
            {
                return u64::try_from(at).ok().map(|at| at.min(raw_now_ns));
            }
            // Just before a step was noticed the clock may already have been set.
            if anchor.stepped && i + 1 < self.len {
                let before = self.nth(i + 1).at as i64;
                if (before..=upper).contains(&at) {
                    return u64::try_from(at).ok();
                }
            }
            upper = lower;
            newer = Some(anchor);
        }
        None
    }

    /// The monotonic instant of a stamp of the wall clock that was taken not later than `now`. None
    /// where it makes sense under no offset that is remembered.
    #[must_use]
    pub fn to_monotonic(&self, wall_ns: i64, now: Monotonic) -> Option<Monotonic> {
        self.to_raw(wall_ns, clock::to_raw(now))
            .map(clock::from_raw)
    }
}

/// `moved * part / whole`; `whole` is not 0.
fn share(moved: i64, part: i64, whole: i64) -> i64 {
    // A division of 128 bits takes longer than all else that is done with a stamp.
    moved.checked_mul(part).map_or_else(
        || {
            let share = i128::from(moved) * i128::from(part) / i128::from(whole);
            i64::try_from(share).unwrap_or(0)
        },
        |product| product / whole,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: i64 = 1_800_000_000_000_000_000;

    fn reading(mono: u64, offset: i64) -> Reading {
        Reading {
            before_ns: mono - 20,
            wall_ns: mono as i64 + offset,
            after_ns: mono + 20,
        }
    }

    #[test]
    fn a_steady_clock_converts_exactly() {
        let mut t = Timeline::new(reading(1_000_000, EPOCH));
        for k in 2..5000u64 {
            t.observe(&reading(k * 1_000_000, EPOCH));
        }
        let now = 5_000_000_000;
        for at in [4_999_000_000u64, 4_200_000_000, 3_333_333_333] {
            assert_eq!(t.to_raw(at as i64 + EPOCH, now), Some(at));
        }
        assert_eq!(t.steps(), 0);
    }

    #[test]
    fn a_slew_of_500_ppm_is_off_by_what_it_moves_between_two_readings() {
        let offset = |mono: u64| EPOCH + (mono / 2000) as i64;
        let mut t = Timeline::new(reading(1_000_000, offset(1_000_000)));
        for k in 2..4000u64 {
            t.observe(&reading(k * 1_000_000, offset(k * 1_000_000)));
        }
        let now = 4_000_000_000u64;
        for at in (2_100_000_000..now).step_by(7_777_777) {
            let back = t.to_raw(at as i64 + offset(at), now).unwrap();
            assert!(back.abs_diff(at) < 600, "{at} {back}");
        }
        assert_eq!(t.steps(), 0);
    }

    #[test]
    fn sparse_readings_under_slew_interpolate() {
        // One reading a second, as when one probe a second is sent: the stamps lie between.
        let offset = |mono: u64| EPOCH + (mono / 2000) as i64;
        let mut t = Timeline::new(reading(1_000_000_000, offset(1_000_000_000)));
        for k in 2..10u64 {
            t.observe(&reading(k * 1_000_000_000, offset(k * 1_000_000_000)));
        }
        let at = 8_500_000_000u64;
        let back = t.to_raw(at as i64 + offset(at), 9_000_000_100).unwrap();
        assert!(back.abs_diff(at) < 600, "{at} {back}");
    }

    #[test]
    fn steps_are_noticed_and_kept_out_of_the_stamps() {
        for step in [3_600_000_000_000i64, -3_600_000_000_000, 40_000, -40_000] {
            let mut t = Timeline::new(reading(1_000_000, EPOCH));
            for k in 2..100u64 {
                t.observe(&reading(k * 1_000_000, EPOCH));
            }
            // Taken before the step, read after it was noticed.
            let old = 98_900_000u64;
            t.observe(&reading(100_000_000, EPOCH + step));
            let now = 101_000_000;
            assert_eq!(t.to_raw(old as i64 + EPOCH, now), Some(old), "{step}");
            let new = 100_500_000u64;
            assert_eq!(
                t.to_raw(new as i64 + EPOCH + step, now),
                Some(new),
                "{step}"
            );
            let s = t.take_step().unwrap();
            assert_eq!(s.step_ns, step);
            assert_eq!(t.take_step(), None);
        }
    }

    #[test]
    fn a_stamp_between_the_step_and_its_discovery_is_kept() {
        let step = -3_600_000_000_000i64;
        let mut t = Timeline::new(reading(1_000_000, EPOCH));
        t.observe(&reading(100_000_000, EPOCH));
        t.observe(&reading(200_000_000, EPOCH + step));
        let at = 150_000_000u64;
        assert_eq!(t.to_raw(at as i64 + EPOCH + step, 201_000_000), Some(at));
    }

    #[test]
    fn nonsense_is_refused() {
        let t = Timeline::new(reading(1_000_000_000, EPOCH));
        assert_eq!(t.to_raw(EPOCH + 10_000_000_000, 2_000_000_000), None);
    }

    #[test]
    fn real_clocks_agree() {
        let mut t = Timeline::new(Reading::take());
        for _ in 0..200 {
            t.observe(&Reading::take());
            let before = clock::raw_monotonic_ns();
            let wall = clock::raw_wall_ns();
            let after = clock::raw_monotonic_ns();
            let at = t.to_raw(wall, after).unwrap();
            assert!(at + 5_000 >= before && at <= after, "{before} {at} {after}");
        }
    }

    proptest! {
        #[test]
        fn never_later_than_now_and_never_a_panic(
            steps in proptest::collection::vec((0u64..100_000_000, any::<i64>()), 0..300),
            stamp in any::<i64>(), now in any::<u64>())
        {
            let mut mono = 1_000_000u64;
            let mut t = Timeline::new(reading(mono, EPOCH));
            for (gap, offset) in steps {
                mono += gap;
                t.observe(&Reading { before_ns: mono, wall_ns: offset, after_ns: mono + 40 });
            }
            if let Some(at) = t.to_raw(stamp, now) {
                prop_assert!(at <= now);
            }
        }
    }
}
