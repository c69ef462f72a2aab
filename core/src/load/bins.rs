//! What was received, in bins of 100 ms.

use heapless::Vec;

use super::MAX_LOAD_NS;
use crate::time::Monotonic;
use crate::wire::load::BIN_NS;

/// Bins of the longest test, and of what trickles in after it.
pub const MAX_BINS: usize = (MAX_LOAD_NS / BIN_NS) as usize + 100;

/// Bytes per bin of 100 ms. Bin 0 begins with [`Bins::begin`] or the first byte; what comes after the
/// last bin is in the total only.
#[derive(Clone, Debug, Default)]
pub struct Bins {
    begun: Option<Monotonic>,
    bytes: Vec<u32, MAX_BINS>,
    total: u64,
}

impl Bins {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            begun: None,
            bytes: Vec::new(),
            total: 0,
        }
    }

    /// Bin 0 begins at `now`, unless it has begun.
    pub fn begin(&mut self, now: Monotonic) {
        self.begun.get_or_insert(now);
    }

    /// `bytes` came at `now`; earlier than the first counts as with it.
    pub fn add(&mut self, now: Monotonic, bytes: u64) {
        let begun = *self.begun.get_or_insert(now);
        self.total = self.total.saturating_add(bytes);
        self.put((now.saturating_since(begun) / BIN_NS) as usize, bytes);
    }

    /// `bytes` were handed over at `now`, and those before them on the same stream at `since`: they came
    /// evenly in between. TCP hands over all at once what came behind a hole, when that is filled; where
    /// a long queue stands, that may be seconds.
    pub fn add_since(&mut self, since: Monotonic, now: Monotonic, bytes: u64) {
        let begun = *self.begun.get_or_insert(now);
        let (from, to) = (since.saturating_since(begun), now.saturating_since(begun));
        if from >= to {
            return self.add(now, bytes);
        }
        self.total = self.total.saturating_add(bytes);
        let by = |ns: u64| u128::from(bytes) * u128::from(ns - from) / u128::from(to - from);
        let mut put = 0;
        for index in from / BIN_NS..=(to / BIN_NS).min(MAX_BINS as u64) {
            let end = (index + 1).saturating_mul(BIN_NS).min(to);
            // No more than `bytes`.
            let by_end = by(end) as u64;
            self.put(index as usize, by_end - put);
            put = by_end;
        }
    }

    fn put(&mut self, index: usize, bytes: u64) {
        if index >= MAX_BINS {
            return;
        }
        while self.bytes.len() <= index {
            // There is room: the index was looked at.
            let _ = self.bytes.push(0);
        }
        let bin = &mut self.bytes[index];
        *bin = bin.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// When bin 0 began.
    #[must_use]
    pub const fn begun(&self) -> Option<Monotonic> {
        self.begun
    }

    /// Bytes in all.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The bins so far; the last one may still grow.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.bytes
    }

    /// How many bins are over at `now`: those that will not grow any more, empty ones included.
    #[must_use]
    pub fn complete(&self, now: Monotonic) -> usize {
        let over = self
            .begun
            .map_or(0, |b| (now.saturating_since(b) / BIN_NS) as usize);
        over.min(MAX_BINS)
    }

    /// How many bins will not grow any more: those that are over, and once everything `has_ended` the one
    /// of `now`, too.
    #[must_use]
    pub fn known(&self, now: Monotonic, has_ended: bool) -> usize {
        let last = usize::from(has_ended && self.begun.is_some());
        (self.complete(now) + last).min(MAX_BINS)
    }

    /// Bytes in bin `index`: 0 where nothing came.
    #[must_use]
    pub fn get(&self, index: usize) -> u32 {
        self.bytes.get(index).copied().unwrap_or(0)
    }
}

/// Mean rate over `bins`, bit/s; `None` of none.
#[must_use]
pub fn mean_bps(bins: &[u32]) -> Option<u64> {
    let bytes: u64 = bins.iter().map(|b| u64::from(*b)).sum();
    let ns = BIN_NS.checked_mul(bins.len() as u64).filter(|n| *n > 0)?;
    u64::try_from(u128::from(bytes) * 8_000_000_000 / u128::from(ns)).ok()
}

/// Rate that `quantile` (0 to 1) of `bins` do not exceed, bit/s; sorts them.
#[must_use]
pub fn quantile_bps(bins: &mut [u32], quantile: f64) -> Option<u64> {
    bins.sort_unstable();
    let last = bins.len().checked_sub(1)?;
    // Nearest rank.
    let index = (quantile.clamp(0.0, 1.0) * last as f64 + 0.5) as usize;
    Some(u64::from(bins[index.min(last)]) * 8 * (1_000_000_000 / BIN_NS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_lost_between_bins(steps in proptest::collection::vec((0u64..300_000_000, 0u64..100_000), 1..200)) {
            let mut bins = Bins::new();
            let (mut at, mut sum) = (5, 0);
            for (step, bytes) in steps {
                let since = at;
                at += step;
                sum += bytes;
                bins.add_since(Monotonic::from_nanos(since), Monotonic::from_nanos(at), bytes);
            }
            prop_assert_eq!(bins.total(), sum);
            prop_assert_eq!(bins.as_slice().iter().map(|b| u64::from(*b)).sum::<u64>(), sum);
            prop_assert_eq!(bins.complete(Monotonic::from_nanos(at)) + 1 >= bins.as_slice().len(), true);
        }
    }

    #[test]
    fn what_came_behind_a_hole_is_spread_over_the_time_for_which_it_was_open() {
        let at = |ms: u64| Monotonic::from_nanos(ms * 1_000_000);
        let mut bins = Bins::new();
        bins.begin(at(1000));
        bins.add_since(at(1050), at(1350), 300);
        assert_eq!(bins.as_slice(), [50, 100, 100, 50]);
        // At once, and from before the begin.
        bins.add_since(at(1350), at(1350), 7);
        bins.add_since(at(500), at(1200), 20);
        assert_eq!(bins.as_slice(), [60, 110, 100, 57]);
        assert_eq!(bins.total(), 327);
    }

    #[test]
    fn what_comes_after_the_last_bin_is_in_the_total() {
        let mut bins = Bins::new();
        bins.add(Monotonic::ZERO, 1);
        bins.add(Monotonic::MAX, 2);
        assert_eq!((bins.total(), bins.as_slice()), (3, &[1][..]));
        assert_eq!(bins.complete(Monotonic::MAX), MAX_BINS);
    }

    #[test]
    fn the_last_bin_is_known_once_nothing_more_comes() {
        let at = |ms: u64| Monotonic::from_nanos(ms * 1_000_000);
        let mut bins = Bins::new();
        assert_eq!(bins.known(at(500), true), 0, "there is none");
        bins.begin(at(500));
        for (ms, is_running, ended) in [(500, 0, 1), (599, 0, 1), (600, 1, 2)] {
            assert_eq!(bins.known(at(ms), false), is_running);
            assert_eq!(bins.known(at(ms), true), ended);
        }
        assert_eq!(bins.known(Monotonic::MAX, true), MAX_BINS);
    }

    #[test]
    fn rates_are_bits_per_second() {
        let mut bins = [125_000, 250_000, 0, 125_000];
        assert_eq!(mean_bps(&bins), Some(10_000_000));
        assert_eq!(quantile_bps(&mut bins, 0.0), Some(0));
        assert_eq!(quantile_bps(&mut bins, 1.0), Some(20_000_000));
        assert_eq!(mean_bps(&[]), None);
        assert_eq!(quantile_bps(&mut [], 0.5), None);
    }
}
