//! How far trouble reaches that comes back at a period: as far as it came so often that it was not by chance.

/// So many periods without any are an end, however seldom it comes.
pub(super) const MISSING: u32 = 8;
/// A stretch of periods without any is a gap in what comes back, and not its end, unless the chance of
/// that is below this.
const GAP: f64 = 1e-4;

/// Log of how much more must speak for what is taken into the trouble than against: neither how often it comes nor how
/// often others come by chance is known well.
const SURELY: f64 = 2.0;

/// How many of the periods had some: of all shares that may lie behind that, each is as likely as Jeffreys' prior says
/// (Beta distribution).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    have: u32,
    of: u32,
}

impl Share {
    pub(super) const fn of(have: u32, of: u32) -> Self {
        Self { have, of }
    }

    /// Log of the chance that one has some.
    fn ln_one(self) -> f64 {
        libm::log((f64::from(self.have) + 0.5) / (f64::from(self.of) + 1.0))
    }

    /// Log of the chance that so many in a row have none.
    fn ln_none(self, empty: u32) -> f64 {
        let without = f64::from(self.of.saturating_sub(self.have));
        let each = (0..empty).map(f64::from);
        let chance = |i: f64| (without + 0.5 + i) / (f64::from(self.of) + 1.0 + i);
        each.map(|i| libm::log(chance(i))).sum()
    }

    /// After so many periods without any it is over.
    pub(super) fn patience(self) -> u32 {
        let over = |n: &u32| self.ln_none(*n) < libm::log(GAP);
        (1..MISSING).find(over).unwrap_or(MISSING)
    }

    /// How many of what came make part of the trouble that `from` is one of, each further from it than the one before:
    /// those that speak most for it together. Each with the number of its place, and the log of how much more likely it
    /// came there because something did than by chance.
    pub(super) fn reach(self, from: i64, came: impl Iterator<Item = (i64, f64)>) -> usize {
        let (mut before, mut sum, mut most, mut reach) = (from, 0.0, 0.0, 0);
        for (n, (number, ln_ratio)) in (1..).zip(came) {
            let empty = number.abs_diff(before).saturating_sub(1);
            if empty >= u64::from(MISSING) {
                break;
            }
            sum += self.ln_none(empty as u32) + self.ln_one() + ln_ratio;
            if sum > most + SURELY {
                (most, reach) = (sum, n);
            }
            before = number;
        }
        reach
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_that_of_what_came_so_far() {
        let patience = |have, of| Share::of(have, of).patience();
        assert_eq!([patience(60, 60), patience(8, 8)], [3, 6]);
        assert_eq!([patience(32, 40), patience(20, 40)], [7, MISSING]);
    }

    #[test]
    fn it_reaches_as_far_as_more_speaks_for_it_than_against() {
        let often = Share::of(40, 40);
        let reach = |came: &[i64]| often.reach(0, came.iter().map(|n| (*n, 8.0)));
        assert_eq!([reach(&[]), reach(&[1, 2, 3])], [0, 3]);
        // One that is left out is, and two: but for two that come after four there is more to be said than for one.
        assert_eq!([reach(&[-1, -2]), reach(&[1, 2, 6])], [2, 2]);
        assert_eq!(reach(&[1, 2, 6, 7, 8]), 5);
        assert_eq!(reach(&[1, 2, 2 + i64::from(MISSING) + 1]), 2);
    }
}
