//! Where things have their places that come back at a fixed period: the straight line through when they came.

use heapless::Vec;

use super::baseline::median;
use super::input::clipped;
use crate::time::Monotonic;

/// Most things that a line is laid through.
pub(super) const MOST: usize = 48;
/// What is further from its place than this many times the median of all does not belong there: of what is normally
/// distributed, one in a hundred, and of what is anywhere within some slots, nothing.
const FAR: u64 = 4;

/// When something came, counted back from the latest: periods, and ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) periods: u32,
    pub(super) back_ns: u64,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    latest: Monotonic,
    /// From the latest back to its place, ns, and the same again for each period.
    offset_ns: f64,
    period_ns: f64,
    reach_ns: f64,
}

impl Places {
    /// The line of least squares through `came`, the latest first, at most [`MOST`] of two periods at least. Each may
    /// be `least_ns` off whatever the others are.
    pub(super) fn of(latest: Monotonic, came: &[Came], least_ns: u64) -> Self {
        let n = came.len().max(1) as f64;
        let mean = |of: fn(&Came) -> f64| came.iter().map(of).sum::<f64>() / n;
        let (x, y) = (mean(|c| f64::from(c.periods)), mean(|c| c.back_ns as f64));
        let (mut xx, mut xy) = (0.0, 0.0);
        for c in came {
            let dx = f64::from(c.periods) - x;
            xx += dx * dx;
            xy += dx * (c.back_ns as f64 - y);
        }
        let period_ns = if xx > 0.0 { xy / xx } else { 0.0 };
        let mut line = Self {
            latest,
            offset_ns: y - period_ns * x,
            period_ns,
            reach_ns: least_ns as f64,
        };
        let offs: Vec<u32, MOST> = came
            .iter()
            .take(MOST)
            .map(|c| clipped(line.off_ns(c) as u64))
            .collect();
        let usual_ns = u64::from(median(&offs).unwrap_or(0));
        line.reach_ns = line.reach_ns.max((FAR * usual_ns) as f64);
        line
    }

    /// From one to the next, ns.
    pub(super) const fn period_ns(&self) -> u64 {
        self.period_ns as u64
    }

    /// How far one may be from its place, ns.
    pub(super) const fn reach_ns(&self) -> f64 {
        self.reach_ns
    }

    fn off_ns(&self, c: &Came) -> f64 {
        (c.back_ns as f64 - self.offset_ns - self.period_ns * f64::from(c.periods)).abs()
    }

    /// Whether one more belongs to them.
    pub(super) fn fits(&self, c: &Came) -> bool {
        self.off_ns(c) <= self.reach_ns
    }

    /// Whether what comes at `at` lies on a place.
    pub(super) fn is_one(&self, at: Monotonic) -> bool {
        let since_ns = at.signed_since(self.latest) as f64 + self.offset_ns;
        let times = libm::round(since_ns / self.period_ns.max(1.0));
        (since_ns - times * self.period_ns).abs() <= self.reach_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Each 30 s, up to 20 ms early or late, the third from the end left out.
    fn came() -> std::vec::Vec<Came> {
        let off_ms = [0, 17, 40, 3, 25, 31, 9, 22, 38, 12];
        let all = off_ms.iter().zip(0..);
        all.filter(|(_, n)| *n != 2)
            .map(|(off, n)| Came {
                periods: n,
                back_ns: u64::from(n) * 30_000 * MS + off * MS,
            })
            .collect()
    }

    #[test]
    fn what_lies_on_a_place_is_told_from_what_is_near_one() {
        let latest = Monotonic::from_nanos(1_000_000 * MS);
        let line = Places::of(latest, &came(), 75 * MS);
        assert!(line.period_ns().abs_diff(30_000 * MS) < 3 * MS);
        let is_one = |ms: u64| line.is_one(Monotonic::from_nanos(ms * MS));
        assert!(is_one(1_030_000) && is_one(1_089_960) && is_one(970_020));
        assert!(!is_one(1_030_140) && !is_one(1_029_850) && !is_one(1_045_000));
        let before = |off_ms: u64| Came {
            periods: 11,
            back_ns: (330_000 + off_ms) * MS,
        };
        assert!(line.fits(&before(20)) && !line.fits(&before(160)));
    }

    /// What varies much may vary on.
    #[test]
    fn reach_grows_with_what_is_usual() {
        let wide: std::vec::Vec<Came> = came()
            .into_iter()
            .map(|c| Came {
                back_ns: c.back_ns + c.back_ns % (30_000 * MS) * 19,
                ..c
            })
            .collect();
        let latest = Monotonic::from_nanos(1_000_000 * MS);
        let line = Places::of(latest, &wide, 75 * MS);
        assert!(line.is_one(Monotonic::from_nanos(1_030_400 * MS)));
        assert!(!line.is_one(Monotonic::from_nanos(1_045_000 * MS)));
    }
}
