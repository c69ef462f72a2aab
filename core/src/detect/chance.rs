//! What can be said of a rate from few observations.

use crate::time::Monotonic;

/// Standard deviations of a 95 % interval.
pub(crate) const Z95: f64 = 1.96;
/// Minus the log of the chance that a rate at the threshold shows as much: a rate that is looked at
/// every second over several windows is above a single look's 95 % by chance every few hours. A month
/// of looks at five series is 13 million, of which about one in ten is a new one; at this the
/// Chernoff bound, which is above the chance itself, lets hardly any of them pass.
const OF_ALL_LOOKS: f64 = 16.0;

/// Lower and upper end of Wilson's interval for `k` hits of `n` (E. B. Wilson, 1927), at `z` standard
/// deviations. 0 and 1 where `n` is 0.
pub(crate) fn wilson(k: f64, n: f64, z: f64) -> (f64, f64) {
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    let (p, z2) = (k / n, z * z);
    let middle = p + z2 / (2.0 * n);
    let half = z * libm::sqrt(p * (1.0 - p) / n + z2 / (4.0 * n * n));
    let scale = 1.0 + z2 / n;
    (
        ((middle - half) / scale).max(0.0),
        ((middle + half) / scale).min(1.0),
    )
}

/// Of a share that was seen from the one that is expected (Kullback and Leibler); 0 below that.
pub(crate) fn divergence(seen: f64, expected: f64) -> f64 {
    if seen <= expected {
        return 0.0;
    }
    let of = |p: f64, q: f64| if p > 0.0 { p * libm::log(p / q) } else { 0.0 };
    of(seen, expected) + of(1.0 - seen, 1.0 - expected)
}

/// Short buckets, ns: together they make the shortest window.
const FINE_NS: u64 = 1_000_000_000;
const COARSE_NS: u64 = 60_000_000_000;
const FINE: usize = 60;
const COARSE: usize = 60;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    hits: u32,
    all: u32,
}

/// Hits of trials over windows of 10 s to an hour.
#[derive(Clone, Debug)]
pub(crate) struct RateWindow {
    fine: [Bucket; FINE],
    coarse: [Bucket; COARSE],
    /// Number of the newest bucket since the epoch of its clock.
    fine_at: u64,
    coarse_at: u64,
}

impl Default for RateWindow {
    fn default() -> Self {
        Self {
            fine: [Bucket::default(); FINE],
            coarse: [Bucket::default(); COARSE],
            fine_at: 0,
            coarse_at: 0,
        }
    }
}

/// Hits of trials, and how much more the hits cluster than independent ones would.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    pub(crate) hits: f64,
    pub(crate) all: f64,
    /// Variance of the hits per bucket over that of independent hits, at least 1.
    pub(crate) clustering: f64,
}

impl Rate {
    pub(crate) fn share(self) -> f64 {
        if self.all > 0.0 {
            self.hits / self.all
        } else {
            0.0
        }
    }

    /// Whether the share is above `threshold`, for all looks of a month together: by the Chernoff bound
    /// of the binomial tail.
    pub(crate) fn is_above(self, threshold: f64) -> bool {
        let trials = self.all / self.clustering.max(1.0);
        threshold > 0.0 && trials * divergence(self.share(), threshold) > OF_ALL_LOOKS
    }

    /// Whether the share is below `threshold`, as surely as [`Rate::is_above`] says the reverse.
    pub(crate) fn is_below(self, threshold: f64) -> bool {
        self.share() < threshold
            && Self {
                hits: self.all - self.hits,
                ..self
            }
            .is_above(1.0 - threshold)
    }

    /// Both ends of the interval; hits that come in clusters count as fewer trials.
    pub(crate) fn bounds(self, z: f64) -> (f64, f64) {
        let c = self.clustering.max(1.0);
        wilson(self.hits / c, self.all / c, z)
    }
}

impl RateWindow {
    /// `hits` of `all` trials that were made at `at` and are known `now`. They count where they were made:
    /// what becomes known together would look like a cluster.
    pub(crate) fn add(&mut self, now: Monotonic, at: Monotonic, hits: u32, all: u32) {
        self.turn(now);
        let fine = bucket(&mut self.fine, self.fine_at, at.as_nanos() / FINE_NS);
        let coarse = bucket(&mut self.coarse, self.coarse_at, at.as_nanos() / COARSE_NS);
        for b in [fine, coarse].into_iter().flatten() {
            b.hits += hits;
            b.all += all;
        }
    }

    /// Empties what has become too old.
    fn turn(&mut self, now: Monotonic) {
        advance(&mut self.fine, &mut self.fine_at, now.as_nanos() / FINE_NS);
        advance(
            &mut self.coarse,
            &mut self.coarse_at,
            now.as_nanos() / COARSE_NS,
        );
    }

    /// The minute that ended `back` minutes ago.
    pub(crate) fn minute_before(&mut self, now: Monotonic, back: u64) -> Rate {
        self.turn(now);
        let Some(at) = self.coarse_at.checked_sub(back + 1) else {
            return Rate::default();
        };
        let b = self.coarse[(at % COARSE as u64) as usize];
        Rate {
            hits: f64::from(b.hits),
            all: f64::from(b.all),
            clustering: 1.0,
        }
    }

    /// The last `seconds`, up to 60, or from there up to an hour in minutes of the clock, the one that
    /// has just begun included.
    pub(crate) fn last(&mut self, now: Monotonic, seconds: u64) -> Rate {
        self.turn(now);
        if seconds <= FINE as u64 {
            sum(&self.fine, self.fine_at, seconds as usize)
        } else {
            sum(&self.coarse, self.coarse_at, (seconds / 60) as usize)
        }
    }
}

/// The bucket `number`, where it is not too old.
fn bucket(buckets: &mut [Bucket], newest: u64, number: u64) -> Option<&mut Bucket> {
    let n = buckets.len() as u64;
    let is_kept = number <= newest && newest - number < n;
    buckets.get_mut((number % n) as usize).filter(|_| is_kept)
}

fn advance(buckets: &mut [Bucket], at: &mut u64, to: u64) {
    let steps = to.saturating_sub(*at).min(buckets.len() as u64);
    for n in 1..=steps {
        let i = (to - steps + n) % buckets.len() as u64;
        buckets[i as usize] = Bucket::default();
    }
    *at = to.max(*at);
}

fn sum(buckets: &[Bucket], at: u64, n: usize) -> Rate {
    let n = n.min(buckets.len()).min(at as usize + 1);
    let newest = |back: usize| buckets[((at - back as u64) % buckets.len() as u64) as usize];
    let (mut hits, mut all) = (0.0, 0.0);
    for back in 0..n {
        let b = newest(back);
        hits += f64::from(b.hits);
        all += f64::from(b.all);
    }
    let share = if all > 0.0 { hits / all } else { 0.0 };
    let (mut spread, mut used) = (0.0, 0.0);
    for back in 0..n {
        let b = newest(back);
        if b.all > 0 {
            let off = f64::from(b.hits) - share * f64::from(b.all);
            spread += off * off;
            used += 1.0;
        }
    }
    let expected = share * (1.0 - share) * all;
    let clustering = if expected > 0.0 && used > 5.0 {
        (spread / expected).max(1.0)
    } else {
        1.0
    };
    Rate {
        hits,
        all,
        clustering,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn at(ns: u64) -> Monotonic {
        Monotonic::from_nanos(ns)
    }

    #[test]
    fn one_lost_ping_in_a_minute_is_not_a_rate() {
        assert!(wilson(1.0, 60.0, 1.96).0 < 0.01);
        assert!(wilson(60.0, 1200.0, Z95).0 > 0.03);
        // Agresti and Coull's worked figure for 0 of 10.
        assert!((wilson(0.0, 10.0, 1.96).1 - 0.2775).abs() < 1e-3);
    }

    #[test]
    fn the_window_forgets() {
        let mut w = RateWindow::default();
        for s in 0..300 {
            w.add(at(s * S), at(s * S), u32::from(s < 100), 10);
        }
        assert_eq!(w.last(at(299 * S), 60).hits, 0.0);
        assert_eq!(w.last(at(299 * S), 60).all, 600.0);
        assert_eq!(w.last(at(299 * S), 600).hits, 100.0);
        assert_eq!(w.last(at(9999 * S), 3600).hits, 0.0);
    }

    #[test]
    fn clusters_count_for_less() {
        let (mut even, mut lumpy) = (RateWindow::default(), RateWindow::default());
        for s in 100..160 {
            even.add(at(s * S), at(s * S), 1, 20);
            lumpy.add(at(s * S), at(s * S), if s == 130 { 20 } else { 0 }, 20);
        }
        assert!(even.last(at(159 * S), 60).bounds(1.96).0 > 0.03);
        assert!(lumpy.last(at(159 * S), 60).bounds(1.96).0 < 0.01);
    }
}
