//! `periodic_loss`: losses or spikes that come back at a fixed period.
//!
//! A [`chain`] of them suggests a period; [`places`] are where each lies that it explains. From then on whatever comes is
//! held against the places, and a [`fit`] is what lies on them from where on, and up to where, that is not by chance
//! ([`span`]).

mod chain;
mod cluster;
mod fit;
mod places;
mod span;

use heapless::Deque;

use super::edge::Edge;
use super::event::{Direction, Finding, Kind, Severity};
use crate::time::Monotonic;
pub(crate) use cluster::{Cluster, together_ns};
use fit::Fit;
use places::{MOST, tolerance_ns};

const S: u64 = 1_000_000_000;
const SHORTEST_NS: u64 = 2 * S;
const LONGEST_NS: u64 = 900 * S;
/// So many times it has to come back before it is told.
const ENOUGH: usize = 8;
/// A period is one only if it is at least this many times as long as it is uncertain.
const SHARP: u64 = 15;
/// Share of the losses that lie on places: to begin, and to go on.
const EXPLAINED: (f64, f64) = (0.7, 0.5);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Periodic {
    /// The oldest first.
    clusters: Deque<Cluster, MOST>,
    interval_ns: u64,
    told: Option<Told>,
    fresh: bool,
}

/// What is being told.
#[derive(Clone, Copy, Debug)]
struct Told {
    first: Monotonic,
    fit: Fit,
}

impl Told {
    /// One by chance within this, ns, would count beyond the edges.
    fn grain_ns(&self) -> u64 {
        let known = &self.fit.known;
        2 * u64::from(known.share.patience()) * known.places.reach_ns()
    }

    /// Whether so many periods had none that it is over.
    fn is_over(&self, now: Monotonic) -> bool {
        let known = &self.fit.known;
        let periods = u64::from(known.share.patience()) + 1;
        now.saturating_since(self.fit.seen) > periods * known.places.period_ns() + 5 * S
    }
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

    /// Losses that are one run, or a spike.
    pub(crate) fn add(&mut self, new: Cluster) {
        self.fresh = true;
        if let Some(c) = self.near(new.at) {
            c.join(&new);
            return;
        }
        if self.clusters.is_full() {
            self.clusters.pop_front();
        }
        let _ = self.clusters.push_back(new);
        // Spikes are known at once, but losses only when it is known whether they go on.
        for n in (1..self.clusters.len()).rev() {
            let at = |n: usize| self.clusters.get(n).map(|c| c.at);
            if at(n - 1) <= at(n) {
                break;
            }
            self.clusters.swap(n - 1, n);
        }
    }

    /// A spike was another one from `at` on: what came before may have been by chance.
    pub(crate) fn again(&mut self, at: Monotonic) {
        if let Some(c) = self.near(at) {
            c.until = c.until.max(at);
            self.fresh = true;
        }
    }

    fn near(&mut self, at: Monotonic) -> Option<&mut Cluster> {
        let together_ns = together_ns(self.interval_ns);
        let near = |c: &&mut Cluster| c.at.signed_since(at).unsigned_abs() < together_ns;
        self.clusters.iter_mut().rev().find(near)
    }

    /// Once a second: the finding while it lasts, or when it was last seen.
    pub(crate) fn each_second(&mut self, now: Monotonic) -> Option<Result<Finding, Edge>> {
        if let Some(t) = self.told.take_if(|t| t.is_over(now)) {
            let (at, grain_ns) = (t.fit.end, t.grain_ns());
            // What came since may be the begin of more.
            while self.clusters.front().is_some_and(|c| c.at <= at) {
                self.clusters.pop_front();
            }
            return Some(Err(Edge { at, grain_ns }));
        }
        if !core::mem::take(&mut self.fresh) {
            return None;
        }
        let (fit, least) = match &self.told {
            Some(t) => (self.fit(t.fit.known)?, EXPLAINED.1),
            None => (self.search()?, EXPLAINED.0),
        };
        if !is_good(&fit, least) {
            return None;
        }
        // What is no longer remembered does not turn out otherwise.
        let oldest = self.clusters.front().map_or(now, |c| c.at);
        let fixed = self.told.map(|t| t.first).filter(|first| *first < oldest);
        let told = Told {
            first: fixed.unwrap_or(fit.first),
            fit,
        };
        self.told = Some(told);
        let finding = Finding::new(Kind::PeriodicLoss, Severity::Warning, told.first)
            .grain(told.grain_ns())
            .direction(Direction::of_weights(fit.up, fit.down))
            .number("period_ns", fit.known.places.period_ns())
            .number("times", fit.members as u64)
            .ratio("strength", fit.explained);
        Some(Ok(finding))
    }

    fn fit(&self, guess: fit::Guess) -> Option<Fit> {
        fit::of(&self.clusters, self.interval_ns, guess)
    }

    /// The one with most members of all periods that the latest gaps suggest, over one and two clusters: as closely as a
    /// series can keep them, and as loosely as they may be.
    fn search(&self) -> Option<Fit> {
        let mut best: Option<Fit> = None;
        let nth = |back: usize| {
            let n = self.clusters.len().checked_sub(1 + back)?;
            self.clusters.get(n)
        };
        for skip in 1..=2 {
            for back in 0..6 {
                let (Some(b), Some(a)) = (nth(back), nth(back + skip)) else {
                    continue;
                };
                let gap_ns = b.mainly().saturating_since(a.mainly());
                let loose_ns = tolerance_ns(gap_ns, self.interval_ns);
                if !(SHORTEST_NS..=LONGEST_NS).contains(&gap_ns) || SHARP * loose_ns > gap_ns {
                    continue;
                }
                for tolerance_ns in [tolerance_ns(0, self.interval_ns), loose_ns] {
                    let guess =
                        chain::follow(&self.clusters, gap_ns, tolerance_ns, self.interval_ns);
                    let fit = guess.and_then(|g| self.fit(g));
                    if let Some(fit) = fit.filter(|f| is_good(f, EXPLAINED.0))
                        && best.is_none_or(|f| fit.members > f.members)
                    {
                        best = Some(fit);
                    }
                }
            }
        }
        best
    }
}

/// Whether it came often enough, and explains at least so much.
const fn is_good(fit: &Fit, explained: f64) -> bool {
    fit.members >= ENOUGH && fit.explained >= explained
}

#[cfg(test)]
mod tests {
    use super::*;
    use heapless::Vec;

    /// Losses at these seconds, and nothing else: begin and end of what is told, seconds.
    fn told(losses: &[u64]) -> Vec<(u64, Option<u64>), 8> {
        let mut p = Periodic::new(S / 20);
        let mut told: Vec<(u64, Option<u64>), 8> = Vec::new();
        for s in 0..4000u64 {
            let now = Monotonic::from_nanos(s * S);
            if losses.contains(&s) {
                p.add(Cluster::run(now, now, (2, 2, 0)));
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

    /// A loss on a place after two that have none: one more, or one by chance where there are many of those.
    #[test]
    fn one_that_comes_after_some_were_left_out_may_be_by_chance() {
        let mut losses: Vec<u64, 64> = (0..30).map(|n| 1000 + n * 30).collect();
        losses.push(1870 + 3 * 30).unwrap();
        assert_eq!(told(&losses)[..], [(1000, Some(1960))]);
        for stray in [1313, 1377, 1404, 1448, 1497, 1523, 1555, 1588, 1615, 1668] {
            losses.push(stray).unwrap();
        }
        assert_eq!(told(&losses)[..], [(1000, Some(1870))]);
    }

    /// What suggests half the period at first does not end when that turns out.
    #[test]
    fn a_period_that_was_taken_for_its_half_goes_on() {
        let mut losses: Vec<u64, 64> = (0..40).map(|n| 1000 + n * 30).collect();
        for stray in [1045, 1105, 1135, 1165, 1195] {
            losses.push(stray).unwrap();
        }
        assert_eq!(told(&losses)[..], [(1000, Some(2170))]);
    }

    /// A spike is known sooner than a loss before it, and a loss by chance right before one that counts hides it not.
    #[test]
    fn what_is_known_later_may_have_come_before() {
        let mut p = Periodic::new(S / 20);
        let at = |ms: u64| Monotonic::from_nanos(ms * 1_000_000);
        let run = |ms: u64| Cluster::run(at(ms), at(ms), (1, 0, 1));
        for n in 0..20 {
            p.add(run(10_000 + n * 12_000));
            p.each_second(at(10_000 + n * 12_000 + 3000));
        }
        p.add(Cluster::spike(at(250_400), Some(Direction::Up)));
        p.add(run(250_010));
        assert!(p.each_second(at(255_000)).is_some_and(|t| t.is_ok()));
        p.add(run(261_300));
        p.add(run(262_010));
        assert!(p.each_second(at(266_000)).is_some_and(|t| t.is_ok()));
        p.add(Cluster::spike(at(270_000), None));
        p.add(run(267_000));
        assert!(p.clusters.iter().map(|c| c.at).is_sorted());
        assert!(p.each_second(at(275_000)).is_none_or(|t| t.is_ok()));
        let end = p.each_second(at(400_000));
        assert_eq!(end.unwrap().unwrap_err().at, at(262_010));
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
