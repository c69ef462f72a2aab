//! When probes leave: absolute slots with a random offset inside each.
//!
//! A fixed period beats against the media-access cycle of the line (a DOCSIS upstream hands out
//! grants every 1–2 ms), so the delay of every probe would wander slowly with the phase between the
//! two. A random offset inside the slot samples that cycle evenly.

use core::ops::RangeInclusive;

use heapless::Vec;
use rand_core::Rng;

use crate::time::Monotonic;

/// An endless row of slots of equal length, and the deadline within the present one.
///
/// Deadlines are computed from the slot's number, so they never drift, however late one is served.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    origin: Monotonic,
    interval_ns: u64,
    spread_ns: u64,
    slot: u64,
    deadline: Monotonic,
    skipped: u64,
}

impl Slots {
    /// Slots of `interval_ns` from `origin` on, each with its deadline a random share of at most
    /// `spread_permille` (0 to 1000) of the slot after its begin.
    pub fn new(
        origin: Monotonic,
        interval_ns: u64,
        spread_permille: u16,
        rng: &mut impl Rng,
    ) -> Self {
        let interval_ns = interval_ns.max(1);
        let spread = u128::from(interval_ns) * u128::from(spread_permille.min(1000)) / 1000;
        let mut slots = Self {
            origin,
            interval_ns,
            spread_ns: spread as u64,
            slot: 0,
            deadline: origin,
            skipped: 0,
        };
        slots.place(rng);
        slots
    }

    /// When the next probe is to leave.
    #[must_use]
    pub const fn deadline(&self) -> Monotonic {
        self.deadline
    }

    /// The length of a slot, ns.
    #[must_use]
    pub const fn interval_ns(&self) -> u64 {
        self.interval_ns
    }

    /// Slots that passed without a probe because the driver did not come back in time.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The present slot has been served at `now`: moves on to the next one whose deadline is to come.
    /// Those that have passed meanwhile are skipped and counted: a stall is followed by one late
    /// probe, never by a second at the same time, let alone a burst.
    pub fn advance(&mut self, now: Monotonic, rng: &mut impl Rng) {
        let next = self.slot.saturating_add(1);
        let current = now.saturating_since(self.origin) / self.interval_ns;
        self.slot = next.max(current);
        self.place(rng);
        if self.deadline <= now {
            // It passed while the one before was late; the slot after it has not begun.
            self.slot = self.slot.saturating_add(1);
            self.place(rng);
        }
        self.skipped = self.skipped.saturating_add(self.slot - next);
    }

    fn place(&mut self, rng: &mut impl Rng) {
        let offset = if self.spread_ns == 0 {
            0
        } else {
            rng.next_u64() % self.spread_ns
        };
        let begin = self.slot.saturating_mul(self.interval_ns);
        self.deadline = self.origin.saturating_add(begin).saturating_add(offset);
    }
}

/// Most sizes of a series beside its first.
pub const MORE_SIZES: usize = 3;

/// Further sizes that the probes of a series take in turn with its first: what a line does to large
/// packets and not to small ones shows within one series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mix(Vec<u16, MORE_SIZES>);

impl Mix {
    /// The first [`MORE_SIZES`] of `more`, each brought into `allowed`, bytes.
    pub(crate) fn new(more: &[u16], allowed: RangeInclusive<u16>) -> Self {
        let (low, high) = (*allowed.start(), *allowed.end());
        let more = more.iter().take(MORE_SIZES);
        Self(more.map(|n| (*n).clamp(low, high)).collect())
    }

    /// The size of probe `seq` of a series whose first size is `first`, bytes.
    pub(crate) fn size(&self, first: u16, seq: u64) -> u16 {
        let turn = (seq % (self.0.len() as u64 + 1)) as usize;
        match turn.checked_sub(1) {
            None => first,
            Some(i) => self.0[i],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    #[test]
    fn the_hundred_thousandth_probe_leaves_in_its_own_slot() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let origin = Monotonic::from_nanos(12_345);
        let mut s = Slots::new(origin, 50_000_000, 800, &mut rng);
        for k in 0..100_000u64 {
            let begin = origin.saturating_add(k * 50_000_000);
            assert!(s.deadline() >= begin);
            assert!(s.deadline().saturating_since(begin) < 40_000_000);
            s.advance(s.deadline().saturating_add(1000), &mut rng);
        }
        assert_eq!(s.skipped(), 0);
    }

    #[test]
    fn a_stall_costs_slots_and_makes_no_burst() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut s = Slots::new(Monotonic::ZERO, 1_000, 0, &mut rng);
        s.advance(Monotonic::from_nanos(10_500), &mut rng);
        assert_eq!(s.deadline(), Monotonic::from_nanos(11_000));
        assert_eq!(s.skipped(), 10);
        s.advance(Monotonic::from_nanos(11_100), &mut rng);
        assert_eq!(s.deadline(), Monotonic::from_nanos(12_000));
        assert_eq!(s.skipped(), 10);
    }

    proptest! {
        #[test]
        fn deadlines_never_go_back(seed: u64, steps in proptest::collection::vec(0u64..5_000, 1..50)) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut s = Slots::new(Monotonic::ZERO, 1_000, 1_000, &mut rng);
            let mut last = s.deadline();
            let mut now = Monotonic::ZERO;
            for step in steps {
                now = now.max(s.deadline()).saturating_add(step);
                s.advance(now, &mut rng);
                prop_assert!(s.deadline() >= last && s.deadline() > now);
                last = s.deadline();
            }
        }
    }

    #[test]
    fn sizes_take_turns_and_stay_within_what_is_allowed() {
        let mix = Mix::new(&[512, 10, 9000, 7], 64..=1452);
        let sizes: [u16; 6] = core::array::from_fn(|seq| mix.size(128, seq as u64));
        assert_eq!(sizes, [128, 512, 64, 1452, 128, 512]);
        assert_eq!(Mix::default().size(99, 3), 99);
    }
}
