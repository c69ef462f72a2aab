//! What has arrived of datagrams that are numbered from 0.

use super::Counted;
use crate::load::bins::Bins;
use crate::seal::Window;
use crate::time::Monotonic;

/// Datagrams that may be overtaken by: at 1 Gbit/s as many as come in 80 ms.
pub const REORDER_WINDOW: usize = 8192;

/// See the module. What is not there when everything has come that will come is lost: the sender's
/// count less [`Counted::received`].
#[derive(Clone, Debug, Default)]
pub struct Tally {
    seen: Window<{ REORDER_WINDOW / 64 }>,
    bins: Bins,
    /// Nothing is sent here.
    counted: Counted,
}

impl Tally {
    /// Nothing has arrived.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            seen: Window::new(),
            bins: Bins::new(),
            counted: Counted::NONE,
        }
    }

    /// Datagram `number`, of so many bytes, arrived at `at`. Says whether it is counted: one that comes
    /// again is not, and neither is one that more than [`REORDER_WINDOW`] have overtaken, of which nobody
    /// knows whether it came before.
    pub fn take(&mut self, at: Monotonic, number: u64, bytes: u64) -> bool {
        let next = self.seen.next();
        if self.seen.is_before(number) {
            return false;
        }
        if self.seen.accept(number).is_err() {
            self.counted.again = self.counted.again.saturating_add(1);
            return false;
        }
        self.counted.received = self.counted.received.saturating_add(1);
        if number < next {
            self.counted.overtaken = self.counted.overtaken.saturating_add(1);
        }
        self.bins.add(at, bytes);
        true
    }

    /// Bin 0 begins at `now`, unless it has begun.
    pub fn begin(&mut self, now: Monotonic) {
        self.bins.begin(now);
    }

    /// Bytes in bins of 100 ms.
    #[must_use]
    pub const fn bins(&self) -> &Bins {
        &self.bins
    }

    /// What has arrived, of an end that has itself `sent` so many.
    #[must_use]
    pub const fn counted(&self, sent: u32) -> Counted {
        Counted {
            sent,
            ..self.counted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn losses_repeats_and_overtaking_are_told_apart() {
        let mut tally = Tally::new();
        for (ms, number) in [
            (0, 0),
            (10, 1),
            (110, 4),
            (120, 2),
            (130, 2),
            (140, 4),
            (250, 6),
        ] {
            tally.take(at(ms), number, 100);
        }
        // 3 and 5 are lost of seven, 2 was overtaken, 2 and 4 came again.
        let expected = Counted {
            received: 5,
            again: 2,
            overtaken: 1,
            sent: 9,
        };
        assert_eq!(tally.counted(9), expected);
        assert_eq!(tally.bins().as_slice(), [200, 200, 100]);
    }

    #[test]
    fn of_what_too_many_have_overtaken_nothing_is_said() {
        let mut tally = Tally::new();
        let far = REORDER_WINDOW as u64;
        assert!(tally.take(at(0), far, 1) && tally.take(at(1), 1, 1));
        assert!(!tally.take(at(2), 0, 1));
        let counted = tally.counted(0);
        assert_eq!((counted.received, counted.again), (2, 0));
    }

    proptest! {
        /// Against a set: each datagram once, whatever is lost, doubled and reordered within the window.
        #[test]
        fn each_is_counted_once(numbers in proptest::collection::vec((0u64..500, 0u64..40), 0..300)) {
            let mut tally = Tally::new();
            let (mut seen, mut highest) = (BTreeSet::new(), None);
            let (mut again, mut overtaken, mut bins) = (0, 0, Vec::<u32>::new());
            let (mut ms, mut first) = (0, None);
            for (number, step) in numbers {
                ms += step;
                if seen.insert(number) {
                    overtaken += u32::from(highest.is_some_and(|h| number < h));
                    highest = highest.max(Some(number));
                    let bin = ((ms - *first.get_or_insert(ms)) / 100) as usize;
                    bins.resize(bins.len().max(bin + 1), 0);
                    bins[bin] += 1200;
                } else {
                    again += 1;
                }
                tally.take(at(ms), number, 1200);
            }
            let received = seen.len() as u32;
            prop_assert_eq!(tally.counted(0), Counted { received, again, overtaken, sent: 0 });
            prop_assert_eq!(tally.bins().as_slice(), &bins[..]);
            prop_assert_eq!(tally.bins().total(), 1200 * seen.len() as u64);
        }
    }
}
