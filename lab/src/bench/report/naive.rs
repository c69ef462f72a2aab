//! What a series did, computed from its samples one by one: slow, and beyond doubt.

use super::TOLERANCE;

/// Percentiles that are held against a report, by their place in it.
pub(super) const PERCENTILES: [(&str, f64); 5] = [
    ("/rtt_ns/p50", 0.5),
    ("/rtt_ns/p90", 0.9),
    ("/rtt_ns/p95", 0.95),
    ("/rtt_ns/p99", 0.99),
    ("/rtt_ns/p999", 0.999),
];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Naive {
    /// Probes.
    pub(super) sent: u64,
    lost: u64,
    runs: u64,
    longest: u64,
    /// Losses in a row up to now.
    run: u64,
    rtts_ns: Vec<u64>,
}

impl Naive {
    /// The next probe.
    pub(super) fn add(&mut self, lost: bool, rtt_ns: Option<u64>) {
        self.sent += 1;
        if lost {
            self.lost += 1;
            self.run += 1;
            self.runs += u64::from(self.run == 1);
            self.longest = self.longest.max(self.run);
        } else {
            self.run = 0;
        }
        self.rtts_ns.extend(rtt_ns);
    }

    /// There are no more.
    pub(super) fn sort(&mut self) {
        self.rtts_ns.sort_unstable();
    }

    /// Holds what `said` gives for places in a report against this. Gives the largest deviation of a
    /// percentile.
    ///
    /// # Errors
    /// The first figure that is wrong.
    pub(super) fn against(&self, said: &dyn Fn(&str) -> Option<u64>) -> Result<f64, String> {
        let exact = [
            ("/sent", Some(self.sent)),
            ("/lost", Some(self.lost)),
            ("/loss_runs/count", Some(self.runs)),
            ("/loss_runs/longest", Some(self.longest)),
            ("/rtt_ns/min", self.rtts_ns.first().copied()),
            ("/rtt_ns/max", self.rtts_ns.last().copied()),
        ];
        for (place, truth) in exact {
            if said(place) != truth {
                return Err(format!("{place} is {:?}, not {truth:?}", said(place)));
            }
        }
        let mut worst: f64 = 0.0;
        for (place, q) in PERCENTILES {
            // Nearest rank.
            let rank = (q * self.rtts_ns.len() as f64).ceil().max(1.0) as usize;
            let (Some(truth), Some(said)) = (self.rtts_ns.get(rank - 1), said(place)) else {
                continue;
            };
            let off = said.abs_diff(*truth) as f64 / (*truth).max(1) as f64;
            if off > TOLERANCE {
                return Err(format!("{place} is {said}, not {truth}"));
            }
            worst = worst.max(off);
        }
        Ok(worst)
    }
}
