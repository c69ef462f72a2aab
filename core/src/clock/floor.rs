//! The floor of a stream's delays, as pieces of a line: small to keep, exact to evaluate, and open
//! to be corrected.

use crate::sample::Sample;
use crate::time::Monotonic;
use crate::varint::{Reader, Writer};

/// The smallest raw delay of either direction at one instant. Until the next knot both move by
/// [`Knot::slope_ppb`]; towards a next one that does not begin anew, in a straight line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knot {
    /// When.
    pub at: Monotonic,
    /// Floor of [`Sample::raw_up_ns`], ns.
    pub up_ns: i64,
    /// Floor of [`Sample::raw_down_ns`], ns.
    pub down_ns: i64,
    /// How fast the far end's clock gains on ours, ns per second: what `up_ns` rises and `down_ns`
    /// falls by.
    pub slope_ppb: i32,
    /// How far the two may be off, ns.
    pub err_ns: u32,
    /// How well this is known, percent; see [`super::FloorEstimator::quality`].
    pub quality: u8,
    /// The floor before this knot says nothing of it: a clock was set, a route changed, or
    /// measuring began.
    pub begins: bool,
}

/// Queueing delay of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queueing {
    /// Delay upward above that direction's floor, ns.
    pub up_ns: u64,
    /// Likewise downward.
    pub down_ns: u64,
    /// How far the floor may be off, ns.
    pub err_ns: u32,
    /// How well the floor is known, percent.
    pub quality: u8,
}

/// What becomes of a floor that is kept: it grows, or its newer part moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The next knot.
    Knot(Knot),
    /// The floor from `from` on lies this much higher than was said: what looked like a queue was
    /// a new route; or lower: there was a queue from the beginning.
    Shift {
        /// From here on.
        from: Monotonic,
        /// Upward, ns.
        up_ns: i64,
        /// Downward, ns.
        down_ns: i64,
    },
}

/// When a sample's delays are compared with the floor: halfway through its round trip.
#[must_use]
pub fn instant_of(sample: &Sample) -> Monotonic {
    sample.sent.saturating_add(sample.rtt_ns.unwrap_or(0) / 2)
}

impl Knot {
    /// Bytes that [`Knot::encode`] needs at most.
    pub const MAX_ENCODED: usize = 1 + 1 + 10 + 10 + 10 + 10;

    /// The floor of both directions at `at`, given the knot that follows, if there is one.
    #[must_use]
    pub fn floor_at(&self, at: Monotonic, next: Option<&Self>) -> (i64, i64) {
        let after_ns = i128::from(at.signed_since(self.at));
        if let Some(next) = next.filter(|n| !n.begins && n.at > self.at) {
            let whole = i128::from(next.at.signed_since(self.at));
            let part = |from: i64, to: i64| {
                let moved = (i128::from(to) - i128::from(from)) * after_ns / whole;
                from.saturating_add(i64::try_from(moved).unwrap_or(0))
            };
            return (
                part(self.up_ns, next.up_ns),
                part(self.down_ns, next.down_ns),
            );
        }
        let moved = after_ns * i128::from(self.slope_ppb) / 1_000_000_000;
        let moved = i64::try_from(moved).unwrap_or(0);
        (
            self.up_ns.saturating_add(moved),
            self.down_ns.saturating_sub(moved),
        )
    }

    /// Queueing delay of `sample`, which lies between this knot and the next; `None` where it has
    /// no delay per direction.
    #[must_use]
    pub fn queueing(&self, sample: &Sample, next: Option<&Self>) -> Option<Queueing> {
        let (up_ns, down_ns) = (sample.raw_up_ns?, sample.raw_down_ns?);
        let (floor_up_ns, floor_down_ns) = self.floor_at(instant_of(sample), next);
        let above = |raw: i64, floor: i64| raw.saturating_sub(floor).max(0).unsigned_abs();
        Some(Queueing {
            up_ns: above(up_ns, floor_up_ns),
            down_ns: above(down_ns, floor_down_ns),
            err_ns: self.err_ns,
            quality: self.quality,
        })
    }

    /// The knot at `at` of a floor that this and the next one describe, moved by a shift.
    #[must_use]
    pub fn begun_at(&self, at: Monotonic, next: Option<&Self>) -> Self {
        let (up_ns, down_ns) = self.floor_at(at, next);
        Self {
            at,
            up_ns,
            down_ns,
            begins: true,
            ..*self
        }
    }

    /// This knot moved.
    #[must_use]
    pub const fn shifted(mut self, up_ns: i64, down_ns: i64) -> Self {
        self.up_ns = self.up_ns.saturating_add(up_ns);
        self.down_ns = self.down_ns.saturating_add(down_ns);
        self
    }

    /// Writes all but [`Knot::at`] into `out`; gives its length, `None` where that is too small.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        w.u8(u8::from(self.begins));
        w.u8(self.quality);
        w.signed(self.up_ns);
        w.signed(self.down_ns);
        w.signed(i64::from(self.slope_ppb));
        w.unsigned(u64::from(self.err_ns));
        w.finish()
    }

    /// Reads what [`Knot::encode`] wrote of the knot at `at`; what may follow is passed over.
    #[must_use]
    pub fn decode(at: Monotonic, bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let (flags, quality) = (r.u8()?, r.u8()?);
        Some(Self {
            at,
            begins: flags & 1 == 1,
            quality,
            up_ns: r.signed()?,
            down_ns: r.signed()?,
            slope_ppb: i32::try_from(r.signed()?).ok()?,
            err_ns: u32::try_from(r.unsigned()?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn knot(at: u64, up_ns: i64, down_ns: i64) -> Knot {
        Knot {
            at: Monotonic::from_nanos(at),
            up_ns,
            down_ns,
            slope_ppb: 50_000,
            err_ns: 1_000,
            quality: 90,
            begins: false,
        }
    }

    #[test]
    fn between_knots_the_floor_is_straight_and_after_the_last_it_goes_on() {
        let (a, mut b) = (knot(0, 100, 900), knot(1_000_000_000, 300, 700));
        let half = Monotonic::from_nanos(500_000_000);
        assert_eq!(a.floor_at(half, Some(&b)), (200, 800));
        b.begins = true;
        assert_eq!(a.floor_at(half, Some(&b)), (25_100, 900 - 25_000));
        assert_eq!(a.floor_at(half, None), (25_100, 900 - 25_000));
    }

    proptest! {
        #[test]
        fn bytes_keep_everything(up in any::<i64>(), down in any::<i64>(), slope in any::<i32>(),
            err in any::<u32>(), quality in any::<u8>(), begins: bool) {
            let k = Knot { at: Monotonic::from_nanos(7), up_ns: up, down_ns: down, slope_ppb: slope,
                err_ns: err, quality, begins };
            let mut out = [0; Knot::MAX_ENCODED];
            let len = k.encode(&mut out).unwrap();
            prop_assert_eq!(Knot::decode(k.at, &out[..len]), Some(k));
        }

        #[test]
        fn no_bytes_and_no_times_panic(bytes: [u8; 12], at: u64, next: u64) {
            if let Some(k) = Knot::decode(Monotonic::from_nanos(at), &bytes) {
                let _ = k.floor_at(Monotonic::from_nanos(next), Some(&knot(next, i64::MAX, i64::MIN)));
                let _ = k.floor_at(Monotonic::from_nanos(next), None);
            }
        }
    }
}
