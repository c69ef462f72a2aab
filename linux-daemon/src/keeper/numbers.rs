//! Numbers of series, which the probe thread and the recorder know them by.

use bufferbane_core::sample::SeriesIndex;

/// Gives out numbers in turn, so that one is free again for as long as possible before it is used
/// again: samples of its former series may still be on their way.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    next: u16,
}

impl Numbers {
    /// A number that is not `used`. There are many more than series at a time.
    pub(super) fn next(&mut self, used: impl Fn(SeriesIndex) -> bool) -> SeriesIndex {
        loop {
            let number = SeriesIndex(self.next);
            self.next = self.next.wrapping_add(1);
            if !used(number) {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_that_lives_on_keeps_its_number_however_many_others_come_and_go() {
        let mut numbers = Numbers::default();
        let lives = numbers.next(|_| false);
        for _ in 0..70_000 {
            assert_ne!(numbers.next(|n| n == lives), lives);
        }
    }
}
