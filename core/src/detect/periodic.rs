//! `periodic_loss`: losses or spikes that come back at a fixed period.

use heapless::{Deque, Vec};

use super::baseline::median;
use super::chance::divergence;
use super::edge::Edge;
use super::event::{Direction, Finding, Kind, Severity};
use super::input::clipped;
use crate::time::Monotonic;

const S: u64 = 1_000_000_000;
const CLUSTERS: usize = 48;
const SHORTEST_NS: u64 = 2 * S;
const LONGEST_NS: u64 = 900 * S;
/// So many times it has to come back before it is told.
const ENOUGH: usize = 8;
/// What lies nearer together is one cluster, ns, and so is what is within three slots.
const TOGETHER_NS: u64 = S;
/// A period is one only if it is at least this many times as long as it is uncertain.
const SHARP: u64 = 15;
/// So many periods may be without any at most.
const MISSING: u64 = 8;
/// A stretch of periods without any is a gap in what comes back, and not its end, unless the chance of
/// that is below this.
const GAP: f64 = 1e-4;
/// Share of the periods that have some, and of the losses that lie on them: to begin, and to go on.
const OFTEN: f64 = 0.5;
const EXPLAINED: (f64, f64) = (0.7, 0.5);
/// Log of the chance that what comes at random lies on the periods as often, for each of the periods
/// that are tried every time.
const UNLIKELY: f64 = -16.0;

#[derive(Clone, Copy, Debug)]
struct Cluster {
    at: Monotonic,
    lost: u32,
    up: u32,
    down: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Periodic {
    clusters: Deque<Cluster, CLUSTERS>,
    interval_ns: u64,
    told: Option<Told>,
    fresh: bool,
}

/// What is being told.
#[derive(Clone, Copy, Debug)]
struct Told {
    first: Monotonic,
    last: Monotonic,
    period_ns: u64,
    /// So many periods without any are its end.
    patience: u64,
    grain_ns: u64,
}

/// What was found of a period.
#[derive(Clone, Copy, Debug)]
struct Fit {
    period_ns: u64,
    tolerance_ns: u64,
    patience: u64,
    first: Monotonic,
    last: Monotonic,
    members: usize,
    /// Share of all losses since `first` that it explains.
    explained: f64,
    up: u64,
    down: u64,
}

impl Periodic {
    pub(crate) const fn new(interval_ns: u64) -> Self {
        Self {
            clusters: Deque::new(),
            interval_ns,
            told: None,
            fresh: false,
        }
    }

    /// Losses together at `at`, or a spike (`lost` 1 without a direction).
    pub(crate) fn cluster(&mut self, at: Monotonic, lost: u32, up: u32, down: u32) {
        if let Some(last) = self.clusters.back_mut()
            && at.saturating_since(last.at) < TOGETHER_NS.max(3 * self.interval_ns)
        {
            last.lost += lost;
            last.up += up;
            last.down += down;
            return;
        }
        if self.clusters.is_full() {
            self.clusters.pop_front();
        }
        let _ = self.clusters.push_back(Cluster { at, lost, up, down });
        self.fresh = true;
    }

    /// How far a cluster may be from its place, ns, while no more is known.
    fn tolerance(&self, period_ns: u64) -> u64 {
        (2 * self.interval_ns).max(period_ns / 50)
    }

    /// Once a second: the finding while it lasts, or when it was last seen.
    pub(crate) fn each_second(&mut self, now: Monotonic) -> Option<Result<Finding, Edge>> {
        if let Some(t) = self.told
            && now.saturating_since(t.last) > (t.patience + 1) * t.period_ns + 5 * S
        {
            self.told = None;
            self.clusters.clear();
            let (at, grain_ns) = (t.last, t.grain_ns);
            return Some(Err(Edge { at, grain_ns }));
        }
        if !core::mem::take(&mut self.fresh) {
            return None;
        }
        let fit = self.best()?;
        let first = self.told.map_or(fit.first, |t| t.first);
        // Where one by chance would count beyond the edges.
        let grain_ns = 2 * fit.patience * fit.tolerance_ns;
        self.told = Some(Told {
            first,
            last: fit.last,
            period_ns: fit.period_ns,
            patience: fit.patience,
            grain_ns,
        });
        Some(Ok(Finding::new(
            Kind::PeriodicLoss,
            Severity::Warning,
            first,
        )
        .grain(grain_ns)
        .direction(Direction::of_weights(fit.up, fit.down))
        .number("period_ns", fit.period_ns)
        .number("times", fit.members as u64)
        .ratio("strength", fit.explained)))
    }

    /// The period that most lie on, up to the newest.
    fn best(&self) -> Option<Fit> {
        let least = if self.told.is_some() {
            EXPLAINED.1
        } else {
            EXPLAINED.0
        };
        let good = |f: &Fit| f.members >= ENOUGH && f.explained >= least;
        if let Some(t) = self.told {
            // What lies on a place long after is not the same trouble.
            let going_on = |f: &Fit| {
                f.last.saturating_since(t.last) <= t.patience * t.period_ns + f.tolerance_ns
            };
            return self.fit(t.period_ns).filter(good).filter(going_on);
        }
        // Every period that the latest gaps suggest, over one and two clusters.
        let mut best: Option<Fit> = None;
        let n = self.clusters.len();
        let nth = |back: usize| {
            n.checked_sub(1 + back)
                .and_then(|i| self.clusters.iter().nth(i))
        };
        for skip in 1..=2 {
            for back in 0..6 {
                let (Some(b), Some(a)) = (nth(back), nth(back + skip)) else {
                    continue;
                };
                let gap_ns = b.at.saturating_since(a.at);
                if !(SHORTEST_NS..=LONGEST_NS).contains(&gap_ns)
                    || SHARP * self.tolerance(gap_ns) > gap_ns
                {
                    continue;
                }
                if let Some(fit) = self.fit(gap_ns).filter(good)
                    && best.is_none_or(|f| fit.members > f.members)
                {
                    best = Some(fit);
                }
            }
        }
        best
    }

    /// What comes back at about this period, up to the newest: once roughly, and then as exactly and
    /// as often as that is.
    fn fit(&self, guess_ns: u64) -> Option<Fit> {
        let rough = self.chain(guess_ns, self.tolerance(guess_ns), MISSING)?;
        self.chain(rough.period_ns, rough.tolerance_ns, rough.patience)
    }

    /// Follows the chain of clusters back from the newest, each at most `patience` periods before the
    /// next, while that is not by chance.
    fn chain(&self, guess_ns: u64, tolerance_ns: u64, patience: u64) -> Option<Fit> {
        let last = self.clusters.back()?;
        let oldest = self.clusters.front()?;
        let span_ns = last.at.saturating_since(oldest.at).max(1) as f64;
        // What comes at random lies within the tolerance of a place as often as this.
        let per_ns = (self.clusters.len() - 1) as f64 / span_ns;
        let by_chance = 1.0 - libm::exp(-2.0 * tolerance_ns as f64 * per_ns);
        let mut period_ns = guess_ns as f64;
        let (mut members, mut slots, mut offs) = (1usize, 0u64, Vec::<u32, CLUSTERS>::new());
        let (mut mine, mut up, mut down) = (last.lost, u64::from(last.up), u64::from(last.down));
        let mut at = last.at;
        let mut best: Option<(f64, Fit)> = None;
        for c in self.clusters.iter().rev().skip(1) {
            let gap_ns = at.saturating_since(c.at);
            let times = libm::round(gap_ns as f64 / period_ns);
            let off_ns = (gap_ns as f64 - times * period_ns).abs();
            if times > patience as f64 {
                break;
            }
            if times < 1.0 || off_ns > tolerance_ns as f64 {
                continue;
            }
            members += 1;
            slots += times as u64;
            let _ = offs.push(clipped(off_ns as u64));
            mine += c.lost;
            up += u64::from(c.up);
            down += u64::from(c.down);
            at = c.at;
            // Over many periods the period is known ever better.
            period_ns = last.at.saturating_since(at) as f64 / slots as f64;
            let often = (members - 1) as f64 / slots as f64;
            let score = slots as f64 * divergence(often, by_chance);
            if often < OFTEN || best.is_some_and(|(s, _)| score < s) {
                continue;
            }
            let missing = (1.0 - (members - 1) as f64 / (slots + 1) as f64).clamp(0.01, 0.9);
            let to_end = libm::log(GAP) / libm::log(missing);
            let off_ns = u64::from(median(&offs).unwrap_or(0));
            let fit = Fit {
                period_ns: period_ns as u64,
                tolerance_ns: (6 * off_ns)
                    .max(2 * self.interval_ns)
                    .min(self.tolerance(period_ns as u64)),
                patience: (to_end as u64 + 1).min(MISSING),
                first: at,
                last: last.at,
                members,
                explained: f64::from(mine),
                up,
                down,
            };
            best = Some((score, fit));
        }
        let (score, mut fit) = best?;
        let within = self.clusters.iter().filter(|c| c.at >= fit.first);
        let all: u32 = within.map(|c| c.lost).sum();
        fit.explained /= f64::from(all.max(1));
        (score > -UNLIKELY).then_some(fit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losses at these seconds, and nothing else: begin and end of what is told, seconds.
    fn told(losses: &[u64]) -> Vec<(u64, Option<u64>), 8> {
        let mut p = Periodic::new(S / 20);
        let mut told: Vec<(u64, Option<u64>), 8> = Vec::new();
        for s in 0..4000u64 {
            let now = Monotonic::from_nanos(s * S);
            if losses.contains(&s) {
                p.cluster(now, 2, 2, 0);
            }
            match p.each_second(now) {
                Some(Ok(f)) => {
                    assert_eq!(f.direction, Some(Direction::Up));
                    if told.last().is_none_or(|t| t.1.is_some()) {
                        let _ = told.push((f.start.as_nanos() / S, None));
                    }
                }
                Some(Err(end)) => told.last_mut().unwrap().1 = Some(end.at.as_nanos() / S),
                None => {}
            }
        }
        told
    }

    #[test]
    fn a_period_is_told_by_what_lies_on_it() {
        let mut losses: Vec<u64, 64> = (0..30).map(|n| 1000 + n * 30).collect();
        assert_eq!(told(&losses)[..], [(1000, Some(1870))]);
        // Strays between, and one on a place long before and one long after, change nothing.
        for stray in [850, 1013, 1197, 1444, 2020] {
            losses.push(stray).unwrap();
        }
        assert_eq!(told(&losses)[..], [(1000, Some(1870))]);
        // Nor does one that is left out.
        losses.retain(|s| *s != 1300);
        assert_eq!(told(&losses)[..], [(1000, Some(1870))]);
    }

    #[test]
    fn what_comes_at_random_has_no_period() {
        let mut at = 7u64;
        let losses: Vec<u64, 128> = (0..128)
            .map(|n| {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n);
                100 + at / 7 % 3800
            })
            .collect();
        assert!(told(&losses).is_empty());
    }
}
