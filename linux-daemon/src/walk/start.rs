//! From which hop on something is wrong: a way as it is walked in trouble, held against what is known of it.
//!
//! What is lost on the way is lost at every hop from there on, and what waits there is late at each. So it starts at the
//! first hop from which on all suffer; what only routers before others miss, or are late with, is their own leisure.

use std::net::IpAddr;

use bufferbane_core::trace::way::{Against, against};
use bufferbane_store::{Path, PathEnd, PathHop};

/// Hops that usually answer less than this say nothing about loss, %.
const ANSWERS_PERCENT: u64 = 80;
/// What is lost on a way that is well, at least.
const LEAST_LOSS: f64 = 0.005;
/// How much likelier (as a logarithm) it has to be that loss starts somewhere than that there is none of note: about
/// fifty times, so two of ten are enough and one is not.
const LIKELIER: f64 = 4.0;
/// How much likelier that a router misses more than those behind it before it is left out.
const OWN: f64 = 2.0;
/// Less than this, and than this part of what is usual, is no delay of note, ns.
const DELAY_NS: u64 = 3_000_000;
const DELAY_PART: u64 = 5;

/// Where something starts to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The first hop that suffers, from 1.
    pub(crate) hop: u64,
    /// Who that is, as far as it is known.
    pub(crate) address: Option<IpAddr>,
    /// The last hop before it of which it is known that it does not; 0 where there is none.
    pub(crate) well_to: u64,
    pub(crate) by: By,
}

/// What shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Loss,
    Delay,
}

impl By {
    /// As events have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Delay => "delay",
        }
    }
}

/// Where it starts, as far as `look`, walked in trouble, shows it beside the `usual` walks of the same way.
pub(super) fn start(usual: &Path, look: &Path) -> Option<Start> {
    if usual.end != PathEnd::Target || look.end == PathEnd::Unsent {
        return None;
    }
    // Routers that are others cannot be held against each other; the target can.
    let other_from = match against(usual.shape(), look.shape()) {
        Against::Other(hop) => Some(u64::from(hop)),
        Against::Same | Against::Shorter => None,
    };
    let pairs = pairs(usual, look, other_from);
    let (first, well_to, by) = match loss(&pairs) {
        Some(at) => (at.0, at.1, By::Loss),
        None => delay(&pairs).map(|at| (at.0, at.1, By::Delay))?,
    };
    // Where only the target suffers, behind a way that is another, it starts where that parts.
    let is_last = pairs.last().is_some_and(|p| p.number == first);
    let hop = other_from.filter(|_| is_last).unwrap_or(first);
    let who = |path: &Path| {
        let at = usize::try_from(hop).ok()?.checked_sub(1)?;
        path.hops.get(at)?.addresses.first().copied()
    };
    Some(Start {
        hop,
        address: who(look).or_else(|| who(usual).filter(|_| other_from.is_none())),
        well_to,
        by,
    })
}

/// A hop that can be compared.
struct Pair<'a> {
    /// From 1.
    number: u64,
    usual: &'a PathHop,
    /// None where the look did not come so far.
    look: Option<&'a PathHop>,
    /// Messages that the look has sent to it, or would have.
    sent: u64,
}

impl Pair<'_> {
    fn lost(&self) -> u64 {
        let answered = self.look.map_or(0, |h| h.answered);
        self.sent.saturating_sub(answered)
    }

    /// How much later than usual it answers, ns.
    fn later_ns(&self) -> Option<u64> {
        let (usual, now) = (self.usual.rtt_min_ns?, self.look?.rtt_min_ns?);
        Some(now.saturating_sub(usual))
    }
}

fn pairs<'a>(usual: &'a Path, look: &'a Path, other_from: Option<u64>) -> Vec<Pair<'a>> {
    let rounds = look.hops.iter().map(|h| h.sent).max().unwrap_or(0);
    let last = usual.hops.len() as u64;
    let is_same = |n: u64| other_from.is_none_or(|from| n < from);
    let of = |(number, hop): (u64, &'a PathHop)| {
        let is_target = number == last;
        let look = match is_target && look.end == PathEnd::Target {
            true => look.hops.last(),
            false => look.hops.get(usize::try_from(number).ok()?.checked_sub(1)?),
        };
        (is_target || is_same(number)).then(|| Pair {
            number,
            usual: hop,
            look,
            sent: look.map_or(rounds, |h| h.sent.max(1)),
        })
    };
    (1..).zip(&usual.hops).filter_map(of).collect()
}

/// The first hop of those behind which all lose more than usual, and the last before it.
fn loss(pairs: &[Pair<'_>]) -> Option<(u64, u64)> {
    let answers = |h: &PathHop| h.sent > 0 && h.answered * 100 >= h.sent * ANSWERS_PERCENT;
    // The nearest last, as they are looked through.
    let mut kept: Vec<&Pair<'_>> = Vec::new();
    let mut behind = Lost::default();
    for pair in pairs.iter().rev().filter(|p| answers(p.usual)) {
        let own = Lost::of(pair.lost(), pair.sent);
        let both = own.and(behind);
        let apart = own.likelihood(own.share()) + behind.likelihood(behind.share());
        let is_own = own.share() > behind.share()
            && apart - both.likelihood(both.share()) > OWN
            && !kept.is_empty();
        if !is_own {
            kept.push(pair);
            behind = both;
        }
    }
    // The target itself has to suffer.
    if kept.first().is_none_or(|target| target.lost() == 0) {
        return None;
    }
    let usual = kept.iter().fold(Lost::default(), |sum, p| {
        let lost = p.usual.sent.saturating_sub(p.usual.answered);
        sum.and(Lost::of(lost, p.usual.sent))
    });
    let before = usual.share().max(LEAST_LOSS);
    let mut best: Option<(f64, usize)> = None;
    let mut after = Lost::default();
    for (i, pair) in kept.iter().enumerate() {
        after = after.and(Lost::of(pair.lost(), pair.sent));
        let share = after.share().max(before);
        let gain = after.likelihood(share) - after.likelihood(before);
        if gain > LIKELIER && best.is_none_or(|(most, _)| gain > most) {
            best = Some((gain, i));
        }
    }
    let (_, i) = best?;
    let well = kept.get(i + 1).map_or(0, |p| p.number);
    Some((kept[i].number, well))
}

/// Packets that were lost, and sent.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    lost: f64,
    sent: f64,
}

impl Lost {
    fn of(lost: u64, sent: u64) -> Self {
        Self {
            lost: lost as f64,
            sent: sent as f64,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            sent: self.sent + other.sent,
        }
    }

    fn share(self) -> f64 {
        if self.sent > 0.0 {
            self.lost / self.sent
        } else {
            0.0
        }
    }

    /// The logarithm of how likely that is where this share is lost.
    fn likelihood(self, share: f64) -> f64 {
        let term = |n: f64, p: f64| if n > 0.0 { n * p.ln() } else { 0.0 };
        term(self.lost, share) + term(self.sent - self.lost, 1.0 - share)
    }
}

/// The first hop of those from which on all are later than usual by half as much as the target at least, and the last
/// before it.
fn delay(pairs: &[Pair<'_>]) -> Option<(u64, u64)> {
    let mut measured = pairs.iter().rev().filter_map(|p| Some((p, p.later_ns()?)));
    let (target, later_ns) = measured.next()?;
    let usual_ns = target.usual.rtt_min_ns.unwrap_or(0);
    let is_target = pairs.last().is_some_and(|p| p.number == target.number);
    if !is_target || later_ns < DELAY_NS.max(usual_ns / DELAY_PART) {
        return None;
    }
    let mut first = target.number;
    for (pair, ns) in measured {
        if ns < later_ns / 2 {
            return Some((first, pair.number));
        }
        first = pair.number;
    }
    Some((first, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Messages to each hop, of which these were answered, and after how many ms; the last is the target where `whole`.
    fn path(sent: u64, hops: &[(u64, u64)], whole: bool) -> Path {
        let hop = |(n, (answered, ms)): (usize, &(u64, u64))| PathHop {
            addresses: match answered {
                0 => Vec::new(),
                _ => vec![[10, 0, 0, n as u8 + 1].into()],
            },
            sent,
            answered: *answered,
            rtt_min_ns: (*answered > 0).then_some(ms * MS),
            rtt_mean_ns: None,
        };
        Path {
            interface: "eth0".into(),
            target: "far".into(),
            address: [10, 0, 0, hops.len() as u8].into(),
            source: None,
            unsent: None,
            provider_link: false,
            end: if whole {
                PathEnd::Target
            } else {
                PathEnd::Silence
            },
            hops: hops.iter().enumerate().map(hop).collect(),
        }
    }

    /// Six hops, of which the third never answers; thirty messages to each.
    fn usual() -> Path {
        let hops = [(30, 1), (30, 8), (0, 0), (29, 10), (30, 12), (30, 15)];
        path(30, &hops, true)
    }

    fn says(look: &Path) -> Option<(u64, u64, By)> {
        start(&usual(), look).map(|s| (s.hop, s.well_to, s.by))
    }

    #[test]
    fn what_is_lost_is_lost_at_every_hop_from_there_on() {
        let look = |answered: [u64; 6]| {
            let hops: Vec<(u64, u64)> = answered.into_iter().zip([1, 8, 0, 10, 12, 15]).collect();
            says(&path(10, &hops, true))
        };
        let loss = |hop, well| Some((hop, well, By::Loss));
        assert_eq!(look([10, 10, 0, 10, 10, 10]), None);
        assert_eq!(look([10, 10, 0, 7, 8, 6]), loss(4, 2));
        assert_eq!(look([10, 10, 0, 10, 10, 8]), loss(6, 5));
        assert_eq!(look([8, 7, 0, 8, 6, 7]), loss(1, 0));
        // One message is nothing to go by.
        assert_eq!(look([10, 10, 0, 10, 10, 9]), None);
        // Routers that answer when they like, before a way that is well, and before one that is not.
        assert_eq!(look([10, 3, 0, 10, 10, 10]), None);
        assert_eq!(look([10, 3, 0, 10, 10, 9]), None);
        assert_eq!(look([10, 2, 0, 10, 7, 6]), loss(5, 4));
    }

    #[test]
    fn a_way_that_ends_early_starts_to_be_wrong_behind_its_last_hop() {
        let cut = path(10, &[(10, 1), (10, 8)], false);
        let found = start(&usual(), &cut).unwrap();
        // The third never answers.
        let expected = Start {
            hop: 4,
            address: Some([10, 0, 0, 4].into()),
            well_to: 2,
            by: By::Loss,
        };
        assert_eq!(found, expected);
        let unsent = Path {
            end: PathEnd::Unsent,
            ..path(10, &[], false)
        };
        assert_eq!(says(&unsent), None);
        // What is not known to be whole is nothing to hold it against.
        let part = path(30, &[(30, 1), (30, 8)], false);
        assert_eq!(start(&part, &cut), None);
    }

    #[test]
    fn what_waits_is_late_at_every_hop_from_there_on() {
        let look = |ms: [u64; 6]| {
            let answered = [10, 10, 0, 10, 10, 10];
            let hops: Vec<(u64, u64)> = answered.into_iter().zip(ms).collect();
            says(&path(10, &hops, true))
        };
        let delay = |hop, well| Some((hop, well, By::Delay));
        assert_eq!(look([1, 8, 0, 10, 12, 15]), None);
        assert_eq!(look([1, 8, 0, 50, 55, 56]), delay(4, 2));
        assert_eq!(look([1, 8, 0, 10, 12, 40]), delay(6, 5));
        assert_eq!(look([30, 40, 0, 38, 41, 45]), delay(1, 0));
        // A router that is slow to answer.
        assert_eq!(look([1, 80, 0, 10, 12, 15]), None);
        assert_eq!(look([1, 80, 0, 10, 60, 62]), delay(5, 4));
        // Less than a fifth of what is usual, and than 3 ms.
        assert_eq!(look([1, 8, 0, 10, 12, 17]), None);
    }

    #[test]
    fn behind_routers_that_are_others_only_the_target_counts() {
        let hops = [(10, 1), (10, 8), (0, 0), (10, 40), (10, 42), (10, 45)];
        let mut other = path(10, &hops, true);
        other.hops[3].addresses = vec![[10, 0, 1, 4].into()];
        other.hops[4].addresses = vec![[10, 0, 1, 5].into()];
        let found = start(&usual(), &other).unwrap();
        let expected = Start {
            hop: 4,
            address: Some([10, 0, 1, 4].into()),
            well_to: 2,
            by: By::Delay,
        };
        assert_eq!(found, expected);
    }
}
