//! The instants of hits, and when their rate changed.

use heapless::Deque;

use super::edge::Edge;
use crate::time::Monotonic;

/// How often something hits in trouble and else, per ns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) high: f64,
    pub(crate) quiet: f64,
}

impl Rates {
    /// What a hit says for trouble: a log likelihood ratio.
    fn of_hit(self) -> f64 {
        libm::log(self.high / self.quiet)
    }

    /// What a time without a hit says against it.
    fn of_pause(self, ns: u64) -> f64 {
        (self.high - self.quiet) * ns as f64
    }
}

/// What a rate that is made to fit is better by, a log likelihood ratio.
const OWN_RATE_FITS: f64 = 4.0;

/// Hits kept.
const MARKS: usize = 160;

/// The instants of the latest hits: finds where their rate changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(Deque<Monotonic, MARKS>);

impl Marks {
    pub(crate) fn add(&mut self, at: Monotonic) {
        if self.0.is_full() {
            self.0.pop_front();
        }
        let _ = self.0.push_back(at);
    }

    pub(crate) fn latest(&self) -> Option<Monotonic> {
        self.0.back().copied()
    }

    /// The first hit of the stretch up to `now` in which hits were most clearly more frequent than
    /// `quiet_per_ns`: the maximum of the log likelihood ratio of a Poisson process that changes its
    /// rate once.
    pub(crate) fn onset(
        &self,
        not_before: Monotonic,
        now: Monotonic,
        quiet_per_ns: f64,
    ) -> Option<Monotonic> {
        let mut best = None;
        for (i, at) in self.0.iter().enumerate() {
            if *at < not_before {
                continue;
            }
            let hits = (self.0.len() - i) as f64;
            let time_ns = now.saturating_since(*at).max(1) as f64;
            // The hit that opens the stretch says nothing of the rate within it.
            let rate = (hits - 1.0).max(0.5) / time_ns;
            let score = if rate > quiet_per_ns {
                hits * libm::log(rate / quiet_per_ns) - (rate - quiet_per_ns) * time_ns
            } else {
                0.0
            };
            if best.is_none_or(|(s, _)| score > s) {
                best = Some((score, *at));
            }
        }
        best.map(|(_, at)| at)
    }

    /// How far apart hits are since `start`, ns, on the mean of those that are kept; 0 where there are no two.
    pub(crate) fn apart_ns(&self, start: Monotonic) -> u64 {
        let mut since = self.0.iter().filter(|at| **at >= start);
        let Some(first) = since.next() else { return 0 };
        let (pairs, last) = since.fold((0, *first), |(n, _), at| (n + 1, *at));
        let all_ns = last.saturating_since(*first);
        all_ns.checked_div(pairs).unwrap_or(0)
    }

    /// Where trouble began that another series knows to have begun at `known`, if some of these hits belong to it, too.
    pub(crate) fn begin_beside(&self, known: Edge, rates: Rates) -> Monotonic {
        let before = self.0.iter().rev().filter(|at| **at < known.at);
        outermost(before, known, rates, 0)
    }

    /// Likewise its end. What hits shows up to `late_ns` before it.
    pub(crate) fn end_beside(&self, known: Edge, rates: Rates, late_ns: u64) -> Monotonic {
        let after = self.0.iter().filter(|at| **at > known.at);
        outermost(after, known, rates, late_ns)
    }

    /// The last hit of the stretch that began at `start`, once it is `certain` (a log likelihood
    /// ratio) that hits have become as rare as `quiet_per_ns` since.
    pub(crate) fn offset(
        &self,
        start: Monotonic,
        now: Monotonic,
        quiet_per_ns: f64,
        certain: f64,
    ) -> Option<Monotonic> {
        let mut best: Option<(f64, Monotonic)> = None;
        let first = self.0.iter().position(|at| *at >= start)?;
        let begin = *self.0.iter().nth(first)?;
        let hits = self.0.len() - first;
        let lasted_ns = self.0.back()?.saturating_since(begin).max(1) as f64;
        // Of the whole stretch: what is dense within it by chance must not set the measure.
        let rate = (hits as f64 - 1.0) / lasted_ns;
        if hits < 3 || rate <= quiet_per_ns {
            return None;
        }
        for (i, at) in self.0.iter().enumerate().skip(first + 2) {
            let after = (self.0.len() - i - 1) as f64;
            let time_ns = now.saturating_since(*at) as f64;
            // A few hits since may be the usual ones; many tell a rate of their own, which fits better than one that is
            // known, whatever it is.
            let (seen, fits) = if after < 5.0 {
                (quiet_per_ns, 0.0)
            } else {
                let own = (after / time_ns.max(1.0)).min(rate / 4.0);
                (own.max(quiet_per_ns), OWN_RATE_FITS)
            };
            if seen >= rate {
                continue;
            }
            let score = (rate - seen) * time_ns - after * libm::log(rate / seen) - fits;
            if score > certain && best.is_none_or(|(s, _)| score > s) {
                best = Some((score, *at));
            }
        }
        best.map(|(_, at)| at)
    }

    /// The last hit of the denser part of the stretch that began at `start`: where two rates tell most
    /// more than one (maximum likelihood of a Poisson process that changes its rate once).
    pub(crate) fn split(&self, start: Monotonic, now: Monotonic) -> Option<Monotonic> {
        let begin = *self.0.iter().find(|at| **at >= start)?;
        let hits = self.0.iter().filter(|at| **at >= start).count() as f64;
        let score = |n: f64, time_ns: u64| {
            if n > 0.0 {
                n * libm::log(n / time_ns.max(1) as f64)
            } else {
                0.0
            }
        };
        let mut best: Option<(f64, Monotonic)> = None;
        let stretch = self.0.iter().filter(|at| **at >= start);
        for (before, at) in stretch.enumerate().skip(2) {
            // The hit that opens the stretch says nothing of the rate within it.
            let (n, after) = (before as f64, hits - before as f64 - 1.0);
            let (long_ns, rest_ns) = (at.saturating_since(begin), now.saturating_since(*at));
            if n * rest_ns as f64 <= after * long_ns as f64 {
                continue;
            }
            let s = score(n, long_ns) + score(after, rest_ns);
            if best.is_none_or(|(b, _)| s > b) {
                best = Some((s, *at));
            }
        }
        best.map(|(_, at)| at)
    }
}

/// The hit up to which those outside an edge, the nearest first, speak most for being part of the trouble, together with
/// the silence of who knows that edge.
fn outermost<'a>(
    hits: impl Iterator<Item = &'a Monotonic>,
    known: Edge,
    rates: Rates,
    late_ns: u64,
) -> Monotonic {
    let both = Rates {
        high: rates.high + 1.0 / known.grain_ns.max(1) as f64,
        ..rates
    };
    let (mut best, mut sum, mut inner) = ((0.0, known.at), 0.0, known.at);
    for at in hits {
        let apart_ns = inner.saturating_since(*at) + at.saturating_since(inner);
        sum += rates.of_hit() - both.of_pause(apart_ns.saturating_sub(late_ns));
        if sum > best.0 {
            best = (sum, *at);
        }
        inner = *at;
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn at(ns: u64) -> Monotonic {
        Monotonic::from_nanos(ns)
    }

    #[test]
    fn a_change_of_rate_is_found_where_it_is() {
        let mut m = Marks::default();
        m.add(at(10 * S));
        for n in 0..30 {
            m.add(at(500 * S + n * 2 * S));
        }
        let quiet = 1e-3 / S as f64;
        assert_eq!(m.onset(at(0), at(560 * S), quiet), Some(at(500 * S)));
        assert_eq!(m.offset(at(500 * S), at(562 * S), quiet, 8.0), None);
        assert_eq!(
            m.offset(at(500 * S), at(600 * S), quiet, 8.0),
            Some(at(558 * S))
        );
    }

    fn marks(seconds: &[u64]) -> Marks {
        let mut m = Marks::default();
        seconds.iter().for_each(|s| m.add(at(s * S)));
        m
    }

    /// A ping each second hits one in twenty times in trouble that a stream knows to half a second.
    #[test]
    fn what_a_slow_series_shows_beside_an_edge_belongs_to_it_where_it_is_near() {
        let known = Edge {
            at: at(100 * S),
            grain_ns: S / 2,
        };
        let rates = Rates {
            high: 0.05 / S as f64,
            quiet: 2e-4 / S as f64,
        };
        let begin = |seconds: &[u64]| marks(seconds).begin_beside(known, rates).as_nanos() / S;
        assert_eq!(begin(&[60, 98, 110, 130]), 98);
        assert_eq!(begin(&[60, 96, 98, 110, 130]), 96);
        assert_eq!(begin(&[60, 94, 110, 130]), 100);
        let end = |seconds: &[u64]| marks(seconds).end_beside(known, rates, 0).as_nanos() / S;
        assert_eq!(end(&[60, 98, 102, 130]), 102);
        assert_eq!(end(&[60, 98, 107]), 100);
        assert_eq!(end(&[]), 100);
        // The difference to a probe of two seconds before.
        let late = |seconds: &[u64]| marks(seconds).end_beside(known, rates, 2 * S);
        assert_eq!(late(&[60, 98, 104]), at(104 * S));
        assert_eq!(late(&[60, 98, 107]), at(100 * S));
    }

    /// Five stray hits after the end must not make the part before it fit a rate of its own.
    #[test]
    fn an_end_is_not_sooner_because_a_rate_can_be_made_to_fit_what_follows() {
        // A hit each 1.4 s for minutes, a lull of 8 s by chance, and five more in 14 s.
        let mut m = Marks::default();
        for n in 0..100 {
            m.add(at(n * 14 * S / 10));
        }
        let last = 99 * 14 * S / 10;
        for ms in [8000, 11_000, 15_000, 19_000, 22_000] {
            m.add(at(last + ms * S / 1000));
        }
        let quiet = 4e-3 / S as f64;
        let (start, end) = (at(0), last + 22 * S);
        let told = (1..60).find_map(|s| m.offset(start, at(end + s * S), quiet, 14.0));
        assert_eq!(told, Some(at(end)));
    }
}
