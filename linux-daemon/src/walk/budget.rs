//! How often an uplink's way is looked at because something looks wrong.

use bufferbane_core::time::Monotonic;

/// So many looks may follow each other at once.
const AT_ONCE: u32 = 3;
/// In the long run one look in this time, ns: six an hour.
const EACH_NS: u64 = 600_000_000_000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: u32,
    /// Since when the next look is being saved for.
    since: Monotonic,
}

impl Budget {
    pub(super) const fn new(now: Monotonic) -> Self {
        Self {
            left: AT_ONCE,
            since: now,
        }
    }

    /// Whether there may be another look at `now`; it counts then.
    pub(super) fn take(&mut self, now: Monotonic) -> bool {
        let saved = now.saturating_since(self.since) / EACH_NS;
        self.since = self.since.saturating_add(saved * EACH_NS);
        self.left = u32::try_from(saved)
            .unwrap_or(AT_ONCE)
            .saturating_add(self.left)
            .min(AT_ONCE);
        if self.left == AT_ONCE {
            self.since = now;
        }
        let any = self.left > 0;
        self.left -= u32::from(any);
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_stretch_has_more_than_its_share(gaps in proptest::collection::vec(0u64..2_000, 1..200)) {
            let mut now = Monotonic::from_nanos(5);
            let mut budget = Budget::new(now);
            let mut taken = Vec::new();
            for gap in gaps {
                now = now.saturating_add(gap * 1_000_000_000);
                let before = taken.last().copied();
                if budget.take(now) {
                    taken.push(now);
                } else {
                    // Whoever has waited for long enough is not refused.
                    let waited = before.map(|b: Monotonic| now.saturating_since(b));
                    prop_assert!(waited.is_some_and(|ns| ns < EACH_NS));
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (n, to) in taken[i..].iter().enumerate() {
                    let allowed = u64::from(AT_ONCE) + to.saturating_since(*from) / EACH_NS;
                    prop_assert!((n as u64) < allowed);
                }
            }
        }
    }
}
