//! What was lost near something: tells whether losses in a row are more than the loss around them
//! would make now and then.

use crate::time::Monotonic;

const BINS: usize = 64;
/// Losses and probes that the usual share begins with.
const BEGIN: (f64, f64) = (0.5, 500.0);
/// When so many probes make the usual share, what is known of it counts half from there on: minutes of
/// a fast stream, so that trouble that is over does not stay usual.
const MEMORY: f64 = 4000.0;

/// Lost and all probes, in short bins and over some thousands of probes.
#[derive(Clone, Debug)]
pub(crate) struct Nearby {
    bins: [(u16, u16); BINS],
    bin_ns: u64,
    /// Number of the newest bin.
    at: u64,
    /// What has left the bins, less what was an outage.
    long: (f64, f64),
    /// So many losses that are in the bins were outages: they do not count when they leave.
    owed: f64,
}

impl Nearby {
    /// Bins of `bin_ns`: it reaches back 64 of them.
    pub(crate) const fn new(bin_ns: u64) -> Self {
        Self {
            bins: [(0, 0); BINS],
            bin_ns,
            at: 0,
            long: BEGIN,
            owed: 0.0,
        }
    }

    pub(crate) const fn bin_ns(&self) -> u64 {
        self.bin_ns
    }

    /// A probe that was sent at `at`; to be told in that order.
    pub(crate) fn add(&mut self, at: Monotonic, lost: bool) {
        self.turn(at);
        let bin = &mut self.bins[(self.at % BINS as u64) as usize];
        bin.0 = bin.0.saturating_add(u16::from(lost));
        bin.1 = bin.1.saturating_add(1);
    }

    /// These losses were an outage: they say nothing of the usual share.
    pub(crate) fn except(&mut self, lost: u32) {
        let newest: f64 = self.bins.iter().map(|(lost, _)| f64::from(*lost)).sum();
        let lost = f64::from(lost);
        let in_bins = lost.min((newest - self.owed).max(0.0));
        self.owed += in_bins;
        // Of a long one the begin counts half by now: no more can be taken than is there.
        let left = (lost - in_bins).min(self.long.0);
        self.long.0 -= left;
        self.long.1 -= left;
    }

    /// Lost and all between two instants, as far back as there are bins.
    pub(crate) fn between(&self, from: Monotonic, to: Monotonic) -> (f64, f64) {
        let (mut lost, mut all) = (0.0, 0.0);
        let (from, to) = (from.as_nanos() / self.bin_ns, to.as_nanos() / self.bin_ns);
        for n in from.max(self.oldest())..=to.min(self.at) {
            let (l, a) = self.bins[(n % BINS as u64) as usize];
            lost += f64::from(l);
            all += f64::from(a);
        }
        (lost, all)
    }

    /// From when on there are bins.
    pub(crate) const fn since(&self) -> Monotonic {
        Monotonic::from_nanos(self.oldest() * self.bin_ns)
    }

    /// The share that is lost usually.
    pub(crate) fn usual(&self) -> f64 {
        let (lost, all) = self.long;
        (lost.max(BEGIN.0) / all.max(BEGIN.1)).min(1.0)
    }

    const fn oldest(&self) -> u64 {
        self.at.saturating_sub(BINS as u64 - 1)
    }

    fn turn(&mut self, at: Monotonic) {
        let to = at.as_nanos() / self.bin_ns;
        let steps = to.saturating_sub(self.at).min(BINS as u64);
        for n in 1..=steps {
            let bin = &mut self.bins[((to - steps + n) % BINS as u64) as usize];
            let outage = self.owed.min(f64::from(bin.0));
            self.owed -= outage;
            self.long.0 += f64::from(bin.0) - outage;
            self.long.1 += f64::from(bin.1) - outage;
            *bin = (0, 0);
        }
        if self.long.1 > MEMORY {
            self.long = (self.long.0 / 2.0, self.long.1 / 2.0);
        }
        self.at = to.max(self.at);
    }
}

/// The log of the chance that `lost` of `all` probes are lost, where `near` (lost and all) others
/// were and `usual` is the share before that, which counts for `weight` probes: the beta-binomial
/// distribution, so that few others say little.
pub(crate) fn ln_chance((lost, all): (f64, f64), near: (f64, f64), usual: f64, weight: f64) -> f64 {
    let a = near.0 + usual * weight;
    let b = (near.1 - near.0).max(0.0) + (1.0 - usual) * weight;
    let passed = (all - lost).max(0.0);
    ln_beta(a + lost, b + passed)
        - ln_beta(a, b)
        - ln_beta(lost + 1.0, passed + 1.0)
        - libm::log(all + 1.0)
}

fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chance_is_that_of_its_product() {
        // Three in a row where one of 24 was lost: 1.02/26 · 2.02/27 · 3.02/28.
        let ln = ln_chance((3.0, 3.0), (1.0, 24.0), 0.01, 2.0);
        let product: f64 = (1.02 / 26.0) * (2.02 / 27.0) * (3.02 / 28.0);
        assert!((ln - libm::log(product)).abs() < 1e-9, "{ln}");
        // All outcomes together are certain.
        let all: f64 = (0..=12)
            .map(|k| libm::exp(ln_chance((f64::from(k), 12.0), (3.0, 50.0), 0.01, 2.0)))
            .sum();
        assert!((all - 1.0).abs() < 1e-9, "{all}");
    }

    /// A line that lost 6 % for ten minutes, at 23 probes a second, and nothing for eight: four losses in a
    /// row are something of their own again.
    #[test]
    fn loss_that_is_over_does_not_stay_usual() {
        let mut n = Nearby::new(250_000_000);
        for i in 0..18 * 60 * 23u64 {
            let lost = i < 10 * 60 * 23 && i % 17 == 0;
            n.add(Monotonic::from_nanos(i * 1_000_000_000 / 23), lost);
            if i == 10 * 60 * 23 {
                assert!((0.05..0.07).contains(&n.usual()), "{}", n.usual());
            }
        }
        assert!(4.0 * libm::log(n.usual()) < -20.0, "{}", n.usual());
    }

    #[test]
    fn what_was_an_outage_is_not_usual() {
        let mut n = Nearby::new(1000);
        for i in 0..7000u64 {
            let lost = i % 1000 == 0 || (3000..3500).contains(&i);
            n.add(Monotonic::from_nanos(i * 100), lost);
            if i == 3600 {
                n.except(500);
            }
            assert!(i < 3600 || n.usual() < 0.002, "{i}: {}", n.usual());
        }
    }

    /// Most of a long one is forgotten when it ends: what was usual before is so again after it.
    #[test]
    fn a_long_outage_does_not_make_loss_unusual() {
        let mut n = Nearby::new(1000);
        for i in 0..40_000u64 {
            let dead = (10_000..30_000).contains(&i);
            n.add(Monotonic::from_nanos(i * 100), dead || i % 20 == 0);
            if i == 30_000 {
                n.except(20_000);
            }
        }
        assert!(n.usual() > 0.04, "{}", n.usual());
    }
}
