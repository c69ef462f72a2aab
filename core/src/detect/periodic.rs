//! `periodic_loss`: losses or spikes that come back at a fixed period.

use heapless::{Deque, Vec};

use super::baseline::median;
use super::chance::divergence;
use super::edge::Edge;
use super::event::{Direction, Finding, Kind, Severity};
use super::input::clipped;
use super::places::{self, Came, Places};
use crate::time::Monotonic;

const S: u64 = 1_000_000_000;
const CLUSTERS: usize = places::MOST;
const SHORTEST_NS: u64 = 2 * S;
const LONGEST_NS: u64 = 900 * S;
/// So many times it has to come back before it is told.
const ENOUGH: usize = 8;
/// See [`together_ns`]: of fast series.
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
/// So many make a line that others can be held against.
const LEAST_IN_LINE: usize = 4;

/// Losses near to each other, or a spike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster {
    /// The first of them, and the last.
    at: Monotonic,
    until: Monotonic,
    /// The first of most of them, and how many those are.
    main: (Monotonic, u32),
    /// How many, and upward and downward where that is known.
    lost: u32,
    up: u32,
    down: u32,
}

impl Cluster {
    /// A spike at `at`, of delay that lay this way where that is known.
    pub(crate) const fn spike(at: Monotonic, way: Option<Direction>) -> Self {
        let (up, down) = match way {
            Some(Direction::Up) => (1, 0),
            Some(Direction::Down) => (0, 1),
            Some(Direction::Both) => (1, 1),
            None => (0, 0),
        };
        Self {
            main: (at, 0),
            ..Self::run(at, at, (1, up, down))
        }
    }

    /// So many losses in a row, and so many of them upward and downward.
    pub(crate) const fn run(
        at: Monotonic,
        until: Monotonic,
        (lost, up, down): (u32, u32, u32),
    ) -> Self {
        Self {
            at,
            until,
            main: (at, lost),
            lost,
            up,
            down,
        }
    }

    /// Two that are one.
    fn join(&mut self, other: &Self) {
        self.at = self.at.min(other.at);
        self.until = self.until.max(other.until);
        if other.main.1 > self.main.1 {
            self.main = other.main;
        }
        self.lost += other.lost;
        self.up += other.up;
        self.down += other.down;
    }
}

/// What lies nearer together is one cluster of a series with this interval, ns.
pub(crate) const fn together_ns(interval_ns: u64) -> u64 {
    let slots_ns = 3 * interval_ns;
    if slots_ns > TOGETHER_NS {
        slots_ns
    } else {
        TOGETHER_NS
    }
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
    fit: Fit,
    grain_ns: u64,
}

/// What was found of a period.
#[derive(Clone, Copy, Debug)]
struct Fit {
    places: Places,
    tolerance_ns: u64,
    /// So many periods without any are its end.
    patience: u64,
    first: Monotonic,
    /// The newest, and the last loss of the trouble unless more comes.
    last: Monotonic,
    end: Monotonic,
    members: usize,
    /// From the first to the newest, periods.
    periods: u32,
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

    /// Losses that are one run, or a spike.
    pub(crate) fn add(&mut self, new: Cluster) {
        self.fresh = true;
        let together_ns = together_ns(self.interval_ns);
        let near = |c: &&mut Cluster| c.at.signed_since(new.at).unsigned_abs() < together_ns;
        if let Some(c) = self.clusters.iter_mut().rev().find(near) {
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

    /// When a cluster came: where a loss by chance is near to it, one of these. Of what is yet to be found that would
    /// make two of each.
    const fn when(&self, c: &Cluster) -> [Monotonic; 2] {
        if self.told.is_some() {
            [c.main.0, c.until]
        } else {
            [c.main.0; 2]
        }
    }

    /// How far a cluster may be from its place, ns, while no more is known.
    fn tolerance(&self, period_ns: u64) -> u64 {
        (2 * self.interval_ns).max(period_ns / 50)
    }

    /// Once a second: the finding while it lasts, or when it was last seen.
    pub(crate) fn each_second(&mut self, now: Monotonic) -> Option<Result<Finding, Edge>> {
        if let Some(t) = self.told
            && now.saturating_since(t.fit.last)
                > (t.fit.patience + 1) * t.fit.places.period_ns() + 5 * S
        {
            self.told = None;
            self.clusters.clear();
            let (at, grain_ns) = (t.fit.end, t.grain_ns);
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
            fit,
            grain_ns,
        });
        Some(Ok(Finding::new(
            Kind::PeriodicLoss,
            Severity::Warning,
            first,
        )
        .grain(grain_ns)
        .direction(Direction::of_weights(fit.up, fit.down))
        .number("period_ns", fit.places.period_ns())
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
        if let Some(Told { fit: t, .. }) = self.told {
            let period_ns = t.places.period_ns();
            // What lies near a place only, or on one long after, is not the same trouble.
            let going_on = |f: &Fit| {
                let since_ns = f.last.saturating_since(t.last);
                since_ns <= t.patience * period_ns + f.tolerance_ns && t.places.is_one(f.last)
            };
            let mut fits = self.fits(period_ns, t.periods);
            if let Some(fit) = fits.find(|f| good(f) && going_on(f)) {
                return Some(fit);
            }
            // What ones by chance suggested may turn out to be a part of the period; what they suggest now may be, too.
            let longer = |f: &Fit| {
                f.first <= t.last
                    && f.explained >= EXPLAINED.0
                    && f.places.period_ns() > period_ns + period_ns / 2
            };
            return self.search(good).filter(longer);
        }
        self.search(good)
    }

    /// The best of all periods that the latest gaps suggest.
    fn search(&self, good: impl Fn(&Fit) -> bool) -> Option<Fit> {
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
                if let Some(fit) = self.fits(gap_ns, 1).find(&good)
                    && best.is_none_or(|f| fit.members > f.members)
                {
                    best = Some(fit);
                }
            }
        }
        best
    }

    /// What comes back at about this period, as is known of so many, up to the newest, for each instant at which that
    /// may have come: once roughly, and then as exactly and as often as that is.
    fn fits(&self, guess_ns: u64, known: u32) -> impl Iterator<Item = Fit> + '_ {
        let newest = self.clusters.back().map(|c| self.when(c));
        newest.into_iter().flatten().filter_map(move |last| {
            let tolerance_ns = self.tolerance(guess_ns);
            let rough = self.chain(last, (guess_ns, known), tolerance_ns, MISSING)?;
            let guess = (rough.places.period_ns(), rough.periods);
            self.chain(last, guess, rough.tolerance_ns, rough.patience)
        })
    }

    /// Follows the chain of clusters back from the newest, which came at `last`, each at most `patience` periods
    /// before the next, while that is not by chance.
    fn chain(
        &self,
        last: Monotonic,
        (guess_ns, known): (u64, u32),
        tolerance_ns: u64,
        patience: u64,
    ) -> Option<Fit> {
        let newest = self.clusters.back()?;
        let oldest = self.clusters.front()?;
        let span_ns = last.saturating_since(oldest.at).max(1) as f64;
        // What comes at random lies within the tolerance of a place as often as this.
        let per_ns = (self.clusters.len() - 1) as f64 / span_ns;
        let by_chance = 1.0 - libm::exp(-2.0 * tolerance_ns as f64 * per_ns);
        let mut period_ns = guess_ns as f64;
        let mut at = last;
        let mut periods = 0;
        let mut offs = Vec::<u32, CLUSTERS>::new();
        let mut members = Vec::<(Came, Cluster), CLUSTERS>::new();
        let came = |periods, at| Came {
            periods,
            back_ns: last.saturating_since(at),
        };
        let _ = members.push((came(0, last), *newest));
        let mut best: Option<(f64, usize)> = None;
        for c in self.clusters.iter().rev().skip(1) {
            let place = |when: Monotonic| {
                let gap_ns = at.saturating_since(when) as f64;
                let times = libm::round(gap_ns / period_ns);
                (times, (gap_ns - times * period_ns).abs(), when)
            };
            let [one, other] = self.when(c).map(place);
            let (times, off_ns, when) = if other.1 < one.1 { other } else { one };
            if times > patience as f64 {
                break;
            }
            if times < 1.0 || off_ns > tolerance_ns as f64 {
                continue;
            }
            periods += times as u32;
            at = when;
            let _ = offs.push(clipped(off_ns as u64));
            let _ = members.push((came(periods, at), *c));
            // Over many periods the period is known ever better.
            let guessed_ns = guess_ns as f64 * f64::from(known);
            period_ns = (guessed_ns + last.saturating_since(at) as f64)
                / (f64::from(known) + f64::from(periods));
            let often = (members.len() - 1) as f64 / f64::from(periods);
            let score = f64::from(periods) * divergence(often, by_chance);
            if often >= OFTEN && best.is_none_or(|(s, _)| score >= s) {
                best = Some((score, members.len()));
            }
        }
        let (score, n) = best?;
        members.truncate(n);
        offs.truncate(n - 1);
        (score > -UNLIKELY).then(|| self.fit_of(last, &members, &offs))
    }

    /// What `members` show, of which the newest came at `last`, the newest first; `offs` is how far each gap is off,
    /// ns.
    fn fit_of(&self, last: Monotonic, members: &[(Came, Cluster)], offs: &[u32]) -> Fit {
        let came: Vec<Came, CLUSTERS> = members.iter().map(|m| m.0).collect();
        let mut came = &came[..];
        let line = |came: &[Came]| Places::of(last, came, 3 * self.interval_ns / 2);
        // One by chance may lie near where one more was, and looks like the begin.
        while let Some((first, others)) = came.split_last()
            && others.len() >= LEAST_IN_LINE
        {
            let line = line(others);
            let next = others.last().map_or(0, |c| c.periods);
            let alone = once_after(first.periods - next - 1, others.len() as u32 - 1, next);
            if line.fits(first) && alone >= self.strays(last, members.len(), &line) {
                break;
            }
            came = others;
        }
        let members = &members[..came.len()];
        let newest = members[0].1;
        let (periods, first) = members
            .last()
            .map_or((0, newest.at), |(came, c)| (came.periods, c.at));
        let sum = |of: fn(&Cluster) -> u32| members.iter().map(|(_, c)| u64::from(of(c))).sum();
        let (mine, up, down): (u64, u64, u64) = (sum(|c| c.lost), sum(|c| c.up), sum(|c| c.down));
        let within = self.clusters.iter().filter(|c| c.at >= first);
        let all: u64 = within.map(|c| u64::from(c.lost)).sum();
        let places = line(came);
        let off_ns = u64::from(median(offs).unwrap_or(0));
        let missing = missing(members.len() - 1, periods);
        let patience = ((libm::log(GAP) / libm::log(missing)) as u64 + 1).min(MISSING);
        let stray = self.strays(last, members.len(), &places);
        Fit {
            places,
            tolerance_ns: (6 * off_ns)
                .max(2 * self.interval_ns)
                .min(self.tolerance(places.period_ns())),
            patience,
            first,
            last,
            end: end_of(members, stray),
            members: members.len(),
            periods,
            explained: mine as f64 / all.max(1) as f64,
            up,
            down,
        }
    }

    /// How often one by chance lies on a place, where so many of all that came up to `last` are members.
    fn strays(&self, last: Monotonic, members: usize, places: &Places) -> f64 {
        let strays = self.clusters.len().saturating_sub(members) as f64;
        let oldest = self.clusters.front().map_or(last, |c| c.at);
        let since_ns = last.saturating_since(oldest).max(1) as f64;
        (strays + 0.5) / since_ns * 2.0 * places.reach_ns()
    }
}

/// Share of the periods that have none, of so many of which so many have one.
fn missing(have: usize, periods: u32) -> f64 {
    (1.0 - have as f64 / f64::from(periods + 1)).clamp(0.01, 0.9)
}

/// The last loss of what `members` are, if nothing more comes: of the newest, unless there are so many periods without
/// any before it that one by chance, which lies on a place as often as `stray`, is more likely.
fn end_of(members: &[(Came, Cluster)], stray: f64) -> Monotonic {
    let (newest, others) = (members[0].1, &members[1..]);
    let (Some((before, c)), Some((oldest, _))) = (others.first(), others.last()) else {
        return newest.until;
    };
    let have = others.len() as u32 - 1;
    let of = oldest.periods - before.periods;
    if once_after(before.periods - 1, have, of) < stray {
        c.until
    } else {
        newest.until
    }
}

/// The chance that after `empty` periods without any there is one with, where `have` of `of` have one: of all shares
/// that may lie behind that (Beta distribution, Jeffreys' prior).
fn once_after(empty: u32, have: u32, of: u32) -> f64 {
    let (of, without) = (f64::from(of), f64::from(of.saturating_sub(have)));
    let each = (0..empty).map(f64::from);
    let none: f64 = each.map(|i| (without + 0.5 + i) / (of + 1.0 + i)).product();
    none * (f64::from(have) + 0.5) / (of + 1.0 + f64::from(empty))
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
        assert!(p.each_second(at(275_000)).is_none());
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
