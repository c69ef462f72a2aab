//! How fast a test has been in the last second.

use bufferbane_core::time::Monotonic;

/// Between two marks that are kept, ns: whoever moves datagrams comes by thousands of times a second.
const APART_NS: u64 = 20_000_000;

/// See the module.
#[derive(Default)]
pub(super) struct Meter {
    /// When, bytes up, bytes down. The latest is always kept.
    marks: Vec<(u64, u64, u64)>,
}

impl Meter {
    /// What was received up and down until `now`, bytes.
    pub(super) fn add(&mut self, now: Monotonic, up: u64, down: u64) {
        let now = now.as_nanos();
        if let [.., before, last] = &mut self.marks[..]
            && last.0 - before.0 < APART_NS
        {
            *last = (now, up, down);
            return;
        }
        self.marks.push((now, up, down));
        let old = now.saturating_sub(1_000_000_000);
        let first = self.marks.partition_point(|(at, ..)| *at < old);
        self.marks.drain(..first.saturating_sub(1));
    }

    /// Up and down, bit/s.
    pub(super) fn rates(&self) -> (Option<u64>, Option<u64>) {
        let (Some(a), Some(b)) = (self.marks.first(), self.marks.last()) else {
            return (None, None);
        };
        let ns = b.0.saturating_sub(a.0);
        let rate = |from: u64, to: u64| {
            let bits = u128::from(to.saturating_sub(from)) * 8_000_000_000;
            u64::try_from(bits.checked_div(u128::from(ns))?).ok()
        };
        (rate(a.1, b.1), rate(a.2, b.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_second() {
        let mut meter = Meter::default();
        assert_eq!(meter.rates(), (None, None));
        for tenth in 0..=50u64 {
            let at = Monotonic::from_nanos(tenth * 100_000_000);
            // Upward ten times as fast for the last second and a half.
            let up = 1000 * tenth.min(35) + 10_000 * tenth.saturating_sub(35);
            meter.add(at, up, 500 * tenth);
        }
        assert_eq!(meter.rates(), (Some(800_000), Some(40_000)));
    }

    #[test]
    fn however_often_it_hears_it_keeps_some_marks_of_a_second_and_the_latest() {
        let mut meter = Meter::default();
        for ms in 0..=5000u64 {
            meter.add(Monotonic::from_nanos(ms * 1_000_000), 1000 * ms, ms);
            let latest = meter.marks.last().map(|mark| mark.1);
            assert_eq!(latest, Some(1000 * ms));
        }
        assert!(meter.marks.len() <= 53, "{}", meter.marks.len());
        assert_eq!(meter.rates(), (Some(8_000_000), Some(8_000)));
    }
}
