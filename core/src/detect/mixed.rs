//! Losses by size, of a series whose probes of several sizes take turns.

use super::input::Probe;
use crate::sample::Status;
use crate::time::Monotonic;

/// Sizes of one series.
const SIZES: usize = 4;
/// What is looked at is as old as this at most twice, ns.
const SPAN_NS: u64 = 60_000_000_000;
/// So many probes of each size tell.
const LEAST: u16 = 10;
/// Share of the large ones that has to be lost, and how many times that of the small ones it has to be.
const LOST: f64 = 0.2;
const TIMES: f64 = 8.0;

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    size: u16,
    all: u16,
    lost: u16,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mixed {
    now: [Tally; SIZES],
    before: [Tally; SIZES],
    since: Monotonic,
}

impl Mixed {
    /// One probe, in the order they were sent.
    pub(crate) fn step(&mut self, probe: &Probe) {
        if probe.status == Status::Unsent {
            return;
        }
        if probe.sent.saturating_since(self.since) >= SPAN_NS {
            self.before = core::mem::take(&mut self.now);
            self.since = probe.sent;
        }
        let is_its = |t: &&mut Tally| t.all == 0 || t.size == probe.size();
        if let Some(t) = self.now.iter_mut().find(is_its) {
            t.size = probe.size();
            t.all = t.all.saturating_add(1);
            t.lost = t.lost.saturating_add(u16::from(!probe.answered()));
        }
    }

    /// Whether probes vanish from some size on, and smaller ones do not.
    pub(crate) fn only_large_are_lost(&self) -> bool {
        let all = || self.now.iter().chain(&self.before).filter(|t| t.all > 0);
        // Lost and all of those that are `large`, from `from` on, or are not.
        let sum = |from: u16, large: bool| {
            let mut sum = Tally::default();
            for t in all().filter(|t| (t.size >= from) == large) {
                sum.all = sum.all.saturating_add(t.all);
                sum.lost = sum.lost.saturating_add(t.lost);
            }
            sum
        };
        let largest = all().map(|t| t.size).max().map(|size| sum(size, true));
        let passes = |t: Tally| f64::from(t.lost) < LOST * f64::from(t.all);
        if largest.is_none_or(passes) {
            return false;
        }
        all().any(|t| {
            let (large, small) = (sum(t.size, true), sum(t.size, false));
            let lost = f64::from(large.lost) / f64::from(large.all);
            let of_small = (f64::from(small.lost) + 0.5) / (f64::from(small.all) + 1.0);
            let enough = large.all >= LEAST && small.all >= LEAST;
            enough && lost >= LOST.max(TIMES * of_small)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::Probe;
    use super::*;
    use crate::sample::{Sample, SeriesIndex};

    fn mixed(seconds: u64, is_lost: impl Fn(u64, u16) -> bool) -> bool {
        let mut mixed = Mixed::default();
        for n in 0..seconds {
            let size = [128, 512, 1400][n as usize % 3];
            let sent = Monotonic::from_nanos(n * 1_000_000_000);
            let mut sample = Sample::lost(SeriesIndex(0), n, sent, size);
            if !is_lost(n, size) {
                sample.status = Status::Ok;
            }
            mixed.step(&Probe::of(&sample));
        }
        mixed.only_large_are_lost()
    }

    #[test]
    fn what_only_large_ones_suffer_is_told_from_what_all_do() {
        assert!(mixed(100, |_, size| size == 1400));
        assert!(mixed(100, |_, size| size >= 512));
        assert!(mixed(100, |n, size| size == 1400 && n % 2 == 0));
        assert!(!mixed(100, |n, _| n % 4 == 0));
        assert!(!mixed(100, |_, size| size == 512));
        assert!(!mixed(100, |_, _| false) && !mixed(100, |_, _| true));
        // Of too few nothing is said, and what was long ago is forgotten.
        assert!(!mixed(20, |_, size| size == 1400));
        assert!(!mixed(400, |n, size| n < 200 && size == 1400));
    }
}
