//! When throughput tests of our own load a line: what is seen meanwhile is their doing.

use heapless::Deque;

use crate::time::Monotonic;

/// Tests that are remembered: one at a time, and those that have just ended.
const KEPT: usize = 4;
/// Before a test loads the line its probes can already meet its queue, on their way back, ns.
const BEFORE_NS: u64 = 1_000_000_000;
/// A queue that a test leaves behind is gone after this, ns.
const AFTER_NS: u64 = 2_000_000_000;

/// The latest tests on one line.
#[derive(Clone, Debug)]
pub(crate) struct OwnTests {
    /// Begin, and end once there is one.
    tests: Deque<(Monotonic, Option<Monotonic>), KEPT>,
}

impl OwnTests {
    pub(crate) const fn new() -> Self {
        Self {
            tests: Deque::new(),
        }
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
}
