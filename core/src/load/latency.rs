//! Latency without load and under it.

/// Three percentiles of a delay, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Median.
    pub p50: u64,
    /// 90 % are not above it.
    pub p90: u64,
    /// 99 % are not above it.
    pub p99: u64,
}

impl Spread {
    /// The percentiles (nearest rank) of `values`, which are sorted; `None` where there are none.
    #[must_use]
    pub fn of(values: &mut [u64]) -> Option<Self> {
        values.sort_unstable();
        let last = values.len().checked_sub(1)?;
        let rank = |percent: usize| values[(last * percent + 50) / 100];
        Some(Self {
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
        })
    }

    /// How far each lies above that of `idle`; 0 where it does not.
    #[must_use]
    pub const fn above(self, idle: Self) -> Self {
        Self {
            p50: self.p50.saturating_sub(idle.p50),
            p90: self.p90.saturating_sub(idle.p90),
            p99: self.p99.saturating_sub(idle.p99),
        }
    }
}

/// The mean of `values` without the largest 5 % (draft-ietf-ippm-responsiveness, "single-sided
/// trimmed mean"), ns; sorts them.
#[must_use]
pub fn trimmed_mean(values: &mut [u64]) -> Option<u64> {
    values.sort_unstable();
    let kept = values.len() - values.len() / 20;
    let sum: u128 = values[..kept].iter().map(|v| u128::from(*v)).sum();
    u64::try_from(sum.checked_div(kept as u128)?).ok()
}

/// When latency was back: how long after `end_ns` the delay fell to `threshold_ns` and stayed there
/// for `hold_ns`. `samples` are (send time, delay), both ns, by send time. `None` where they do not
/// show it.
#[must_use]
pub fn back_after(
    samples: impl Iterator<Item = (u64, u64)>,
    end_ns: u64,
    threshold_ns: u64,
    hold_ns: u64,
) -> Option<u64> {
    let mut since = None;
    for (at, delay) in samples.filter(|(at, _)| *at >= end_ns) {
        if delay > threshold_ns {
            since = None;
            continue;
        }
        let from = *since.get_or_insert(at);
        if at - from >= hold_ns {
            return Some(from - end_ns);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn percentiles_are_values_in_order(mut values in proptest::collection::vec(any::<u64>(), 1..300)) {
            let s = Spread::of(&mut values).unwrap();
            prop_assert!(s.p50 <= s.p90 && s.p90 <= s.p99);
            prop_assert!([s.p50, s.p90, s.p99].iter().all(|v| values.contains(v)));
            let below = values.iter().filter(|v| **v < s.p50).count();
            prop_assert!(below <= values.len() / 2);
            let mean = trimmed_mean(&mut values).unwrap();
            prop_assert!(mean <= *values.last().unwrap() && mean >= values[0]);
        }
    }

    #[test]
    fn the_largest_twentieth_does_not_count() {
        let mut values: Vec<u64> = (0..19).map(|_| 10).chain([1_000_000]).collect();
        assert_eq!(trimmed_mean(&mut values), Some(10));
        assert_eq!(trimmed_mean(&mut []), None);
        assert_eq!(Spread::of(&mut []), None);
    }

    #[test]
    fn latency_is_back_when_it_stays_low() {
        let samples = [
            (90, 5),
            (100, 50),
            (110, 5),
            (120, 50),
            (130, 5),
            (140, 4),
            (150, 5),
        ];
        assert_eq!(back_after(samples.into_iter(), 100, 5, 20), Some(30));
        assert_eq!(back_after(samples.into_iter(), 100, 5, 21), None);
        assert_eq!(back_after(samples.into_iter(), 100, 3, 0), None);
    }
}
