//! When throughput tests of our own load a line: what is seen meanwhile is their doing.

use heapless::Deque;

use crate::time::Monotonic;

/// Tests that are remembered: one at a time, and those that have just ended.
const KEPT: usize = 4;
/// Before a test loads the line its probes can already meet its queue, on their way back, ns.
pub(crate) const BEFORE_NS: u64 = 1_000_000_000;
/// A queue that a test leaves behind is gone after this, ns.
pub(crate) const AFTER_NS: u64 = 2_000_000_000;

/// Packet trains that are remembered: as many as come within the time that probes are waited for.
const TRAINS: usize = 16;
/// A train is short, and so is what it leaves behind. What leaves this long before one can meet it on
/// its way, and this long after it what is left of its queue, ns.
pub(crate) const AROUND_TRAIN_NS: u64 = 100_000_000;
/// Of one that has not ended nobody knows more than this, ns.
const LONGEST_TRAIN_NS: u64 = 3_000_000_000;

/// The latest tests on one line.
#[derive(Clone, Debug)]
pub(crate) struct OwnTests {
    /// Begin, and end once there is one.
    tests: Deque<(Monotonic, Option<Monotonic>), KEPT>,
    trains: Deque<(Monotonic, Option<Monotonic>), TRAINS>,
}

impl OwnTests {
    pub(crate) const fn new() -> Self {
        Self {
            tests: Deque::new(),
            trains: Deque::new(),
        }
    }

    /// A packet train is on its way from `at` on.
    pub(crate) fn begin_train(&mut self, at: Monotonic) {
        if self.trains.is_full() {
            self.trains.pop_front();
        }
        let _ = self.trains.push_back((at, None));
    }

    /// It no longer is.
    pub(crate) fn end_train(&mut self, at: Monotonic) {
        for (_, end) in self.trains.iter_mut() {
            end.get_or_insert(at);
        }
    }

    /// Whether a probe that left at `from` and was back at `to` could meet a packet train.
    pub(crate) fn meets_train(&self, from: Monotonic, to: Monotonic) -> bool {
        self.trains.iter().any(|(begin, end)| {
            let end = end.unwrap_or(begin.saturating_add(LONGEST_TRAIN_NS));
            to.saturating_add(AROUND_TRAIN_NS) >= *begin
                && from <= end.saturating_add(AROUND_TRAIN_NS)
        })
    }

    /// One loads the line from `at` on.
    pub(crate) fn begin(&mut self, at: Monotonic) {
        if self.tests.is_full() {
            self.tests.pop_front();
        }
        let _ = self.tests.push_back((at, None));
    }

    /// None loads it any longer.
    pub(crate) fn end(&mut self, at: Monotonic) {
        for (_, end) in self.tests.iter_mut() {
            end.get_or_insert(at);
        }
    }

    /// Whether what was sent between two instants could meet the queue of one.
    pub(crate) fn touch(&self, from: Monotonic, to: Monotonic) -> bool {
        self.tests.iter().any(|(begin, end)| {
            to.saturating_add(BEFORE_NS) >= *begin
                && end.is_none_or(|end| from <= end.saturating_add(AFTER_NS))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_meets_the_queue_of_a_test_is_known_before_and_after_it() {
        const S: u64 = 1_000_000_000;
        let at = Monotonic::from_nanos;
        let mut tests = OwnTests::new();
        for n in 1..=6u64 {
            tests.begin(at(100 * n * S));
            tests.end(at((100 * n + 8) * S));
        }
        let touched = |from, to| tests.touch(at(from), at(to));
        assert!(touched(599 * S, 599 * S) && !touched(599 * S - 1, 599 * S - 1));
        assert!(touched(610 * S, 610 * S) && !touched(610 * S + 1, 610 * S + 1));
        assert!(touched(598 * S, 599 * S) && touched(610 * S, 611 * S));
        // The oldest are forgotten, and an end is that of the test which lasted.
        assert!(touched(300 * S, 300 * S) && !touched(200 * S, 200 * S));
        assert!(!touched(350 * S, 350 * S));
        // One that lasts has no end yet.
        tests.begin(at(700 * S));
        assert!(tests.touch(at(9000 * S), at(9000 * S)));
    }

    #[test]
    fn a_train_is_met_by_those_around_it_only() {
        const MS: u64 = 1_000_000;
        let at = |ms: u64| Monotonic::from_nanos(ms * MS);
        let mut tests = OwnTests::new();
        tests.begin_train(at(10_000));
        // While it is under way nobody knows its end.
        assert!(tests.meets_train(at(12_000), at(12_020)));
        assert!(!tests.meets_train(at(14_000), at(14_020)));
        tests.end_train(at(10_080));
        let met = |ms: u64| tests.meets_train(at(ms), at(ms + 20));
        assert!(!met(9_870) && met(9_890) && met(10_050) && met(10_170) && !met(10_190));
        assert!(!tests.touch(at(10_000), at(10_080)), "it is no test");
    }
}
