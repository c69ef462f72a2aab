//! Where things have their places that come back at a fixed period: the straight line through when they came.

use heapless::Vec;

use crate::detect::baseline::median;
use crate::detect::input::clipped;
use crate::time::Monotonic;

/// Most things that a line is laid through.
pub(super) const MOST: usize = 48;
/// What is further from its place than this many times the median of all does not belong there: four standard
/// deviations of what is normally distributed.
const FAR: u64 = 6;
const DEVIATIONS: f64 = 4.0;

/// When something came, counted back from the latest: periods, and ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) periods: u32,
    pub(super) back_ns: u64,
}

/// How something lies on a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Off {
    /// The number of the place: 0 is that of the latest, and those before are below.
    pub(super) number: i64,
    /// How far from it, and how far it may be at most, ns.
    pub(super) off_ns: f64,
    reach_ns: f64,
    pub(super) when: Monotonic,
}

impl Off {
    /// Log of how much more likely one that is so far off comes there because something does at each place than by
    /// chance, where so many do per ns: what lies on places is normally distributed about them.
    pub(super) fn ln_ratio(self, per_ns: f64) -> f64 {
        let deviation_ns = self.reach_ns / DEVIATIONS;
        let far = self.off_ns / deviation_ns;
        let chance = per_ns * deviation_ns * libm::sqrt(core::f64::consts::TAU);
        -far * far / 2.0 - libm::log(chance)
    }
}

/// How far what comes back at a period may be off at most, ns.
pub(super) fn tolerance_ns(period_ns: u64, interval_ns: u64) -> u64 {
    (2 * interval_ns).max(period_ns / 50)
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    latest: Monotonic,
    /// From the latest back to its place, ns, and the same again for each period.
    offset_ns: f64,
    period_ns: f64,
    reach_ns: f64,
    /// What it is laid through: one by how many, the mean of their periods, and the sum of the squares about it.
    by_number: f64,
    mean: f64,
    squares: f64,
}

impl Places {
    /// The line of least squares through `came`, the latest first, at most [`MOST`] of two periods at least, of a series
    /// with this interval, ns.
    pub(super) fn of(latest: Monotonic, came: &[Came], interval_ns: u64) -> Self {
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
        let offset_ns = y - period_ns * x;
        let off_ns =
            |c: &Came| (c.back_ns as f64 - offset_ns - period_ns * f64::from(c.periods)).abs();
        let offs = came.iter().take(MOST).map(|c| clipped(off_ns(c) as u64));
        let usual_ns = median(&offs.collect::<Vec<u32, MOST>>()).unwrap_or(0);
        // It is not known to less than a slot when something came.
        let reach_ns = (FAR * u64::from(usual_ns))
            .min(tolerance_ns(period_ns as u64, interval_ns))
            .max(3 * interval_ns / 2);
        Self {
            latest,
            offset_ns,
            period_ns,
            reach_ns: reach_ns as f64,
            by_number: 1.0 / n,
            mean: x,
            squares: xx,
        }
    }

    /// From one to the next, ns.
    pub(super) const fn period_ns(&self) -> u64 {
        self.period_ns as u64
    }

    /// How far one may be from its place, ns.
    pub(super) const fn reach_ns(&self) -> u64 {
        self.reach_ns as u64
    }

    /// How something lies on a place that came at one of these instants: at the one that is nearest to a place; `None`
    /// where none is near enough.
    pub(super) fn on(&self, when: impl IntoIterator<Item = Monotonic>) -> Option<Off> {
        let all = when.into_iter().map(|at| self.off(at));
        let nearest = all.min_by(|a, b| a.off_ns.total_cmp(&b.off_ns));
        nearest.filter(|o| o.off_ns <= o.reach_ns)
    }

    fn off(&self, when: Monotonic) -> Off {
        let since_ns = when.signed_since(self.latest) as f64 + self.offset_ns;
        let times = libm::round(since_ns / self.period_ns.max(1.0));
        // A line through few is known less well the further from their middle.
        let from_middle = -times - self.mean;
        let unsure = self.by_number + from_middle * from_middle / self.squares.max(1.0);
        let reach_ns = self.reach_ns * libm::sqrt(1.0 + unsure);
        Off {
            number: times as i64,
            off_ns: (since_ns - times * self.period_ns).abs(),
            reach_ns: reach_ns.min(self.period_ns / 4.0),
            when,
        }
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
        let line = Places::of(latest, &came(), 50 * MS);
        assert!(line.period_ns().abs_diff(30_000 * MS) < 3 * MS);
        let on = |ms: u64| line.on([Monotonic::from_nanos(ms * MS)]).map(|o| o.number);
        assert_eq!(
            [1_030_000, 1_089_960, 970_020, 670_000].map(on),
            [1, 3, -1, -11].map(Some)
        );
        assert_eq!(
            [1_030_140, 1_029_850, 1_045_000, 669_840].map(on),
            [None; 4]
        );
        let both = [1_030_060, 1_030_010].map(|ms| Monotonic::from_nanos(ms * MS));
        assert_eq!(line.on(both).map(|o| o.when), Some(both[1]));
    }

    /// What varies much may vary on, but not more than a fiftieth of the period.
    #[test]
    fn reach_grows_with_what_is_usual() {
        let latest = Monotonic::from_nanos(1_000_000 * MS);
        let reach_ms = |times: u64| {
            let wide = came().into_iter().map(|c| Came {
                back_ns: c.back_ns + c.back_ns % (30_000 * MS) * (times - 1),
                ..c
            });
            let wide: std::vec::Vec<Came> = wide.collect();
            Places::of(latest, &wide, 50 * MS).reach_ns() / MS
        };
        assert_eq!([reach_ms(1), reach_ms(100)], [75, 603]);
        assert!((200..600).contains(&reach_ms(5)), "{}", reach_ms(5));
    }
}
