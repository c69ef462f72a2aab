//! `periodic_loss`: losses or spikes that come back at a fixed period.

use heapless::Deque;

use super::event::{Direction, Finding, Kind, Severity};
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
    told: Option<(Monotonic, u64, Monotonic)>,
    fresh: bool,
}

/// What was found of a period.
#[derive(Clone, Copy, Debug)]
struct Fit {
    period_ns: u64,
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

    /// How far a cluster may be from its place, ns.
    fn tolerance(&self, period_ns: u64) -> u64 {
        (2 * self.interval_ns).max(period_ns / 50)
    }

    /// Once a second: the finding while it lasts, or when it was last seen.
    pub(crate) fn each_second(&mut self, now: Monotonic) -> Option<Result<Finding, Monotonic>> {
        if let Some((_, period_ns, last)) = self.told
            && now.saturating_since(last) > 5 * period_ns + 5 * S
        {
            self.told = None;
            self.clusters.clear();
            return Some(Err(last));
        }
        if !core::mem::take(&mut self.fresh) {
            return None;
        }
        let fit = self.best()?;
        let first = self.told.map_or(fit.first, |(first, ..)| first);
        self.told = Some((first, fit.period_ns, fit.last));
        Some(Ok(Finding::new(
            Kind::PeriodicLoss,
            Severity::Warning,
            first,
        )
        .direction(Direction::of_weights(fit.up, fit.down))
        .number("period_ns", fit.period_ns)
        .number("times", fit.members as u64)
        .ratio("strength", fit.explained)))
    }

    fn best(&self) -> Option<Fit> {
        let newest = self.clusters.back()?.at;
        let mut best: Option<Fit> = None;
        // Every period that the latest gaps suggest, over one and two clusters.
        for skip in 1..=2 {
            for back in 0..6 {
                let n = self.clusters.len();
                let (Some(b), Some(a)) = (
                    n.checked_sub(1 + back)
                        .and_then(|i| self.clusters.iter().nth(i)),
                    n.checked_sub(1 + back + skip)
                        .and_then(|i| self.clusters.iter().nth(i)),
                ) else {
                    continue;
                };
                let gap_ns = b.at.saturating_since(a.at);
                if !(SHORTEST_NS..=LONGEST_NS).contains(&gap_ns)
                    || SHARP * self.tolerance(gap_ns) > gap_ns
                {
                    continue;
                }
                if let Some(fit) = self.fit(gap_ns, newest)
                    && best.is_none_or(|f| fit.members > f.members)
                {
                    best = Some(fit);
                }
            }
        }
        best.filter(|f| f.members >= ENOUGH && f.explained >= 0.7 && f.last == newest)
    }

    /// Follows the chain of clusters back from the newest, each about a period before the next; one
    /// in four may be missing.
    fn fit(&self, guess_ns: u64, newest: Monotonic) -> Option<Fit> {
        let mut period_ns = guess_ns as f64;
        let (mut members, mut slots) = (1usize, 0u64);
        let mut first = newest;
        let last = self.clusters.back()?;
        let (mut mine, mut up, mut down) = (last.lost, u64::from(last.up), u64::from(last.down));
        let mut at = newest;
        for c in self.clusters.iter().rev().skip(1) {
            let gap_ns = at.saturating_since(c.at);
            let times = libm::round(gap_ns as f64 / period_ns) as u64;
            let off_ns = (gap_ns as f64 - times as f64 * period_ns).abs();
            if times == 0 || off_ns > self.tolerance(guess_ns) as f64 * libm::sqrt(times as f64) {
                if gap_ns as f64 > 6.5 * period_ns {
                    break;
                }
                continue;
            }
            if times > 6 {
                break;
            }
            members += 1;
            slots += times;
            mine += c.lost;
            up += u64::from(c.up);
            down += u64::from(c.down);
            first = c.at;
            at = c.at;
            // Over many periods the period is known ever better.
            period_ns = newest.saturating_since(first) as f64 / slots as f64;
        }
        if slots == 0 || (members - 1) as f64 / (slots as f64) < 0.75 {
            return None;
        }
        let all: u32 = self
            .clusters
            .iter()
            .filter(|c| c.at >= first)
            .map(|c| c.lost)
            .sum();
        Some(Fit {
            period_ns: period_ns as u64,
            first,
            last: newest,
            members,
            explained: f64::from(mine) / f64::from(all.max(1)),
            up,
            down,
        })
    }
}
