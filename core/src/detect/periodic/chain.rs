//! Finding a period that nothing is known of yet: the chain of clusters that each lie about so far before the next.

use heapless::{Deque, Vec};

use super::cluster::Cluster;
use super::fit::Guess;
use super::places::{Came, MOST, Places};
use super::span::{MISSING, Share};
use crate::detect::chance::divergence;

/// Share of the periods that have some.
const OFTEN: f64 = 0.5;
/// Log of the chance that what comes at random lies on the periods as often, for each of the periods
/// that are tried every time.
const UNLIKELY: f64 = -16.0;

/// Follows `clusters`, the oldest first, back from the newest over gaps of about `guess_ns`, each at most `tolerance_ns`
/// off, while that is not by chance; they are of a series with this interval, ns.
pub(super) fn follow(
    clusters: &Deque<Cluster, MOST>,
    guess_ns: u64,
    tolerance_ns: u64,
    interval_ns: u64,
) -> Option<Guess> {
    let (oldest, last) = (clusters.front()?, clusters.back()?.mainly());
    let span_ns = last.saturating_since(oldest.at).max(1) as f64;
    // What comes at random lies within the tolerance of a place as often as this.
    let per_ns = (clusters.len() - 1) as f64 / span_ns;
    let by_chance = 1.0 - libm::exp(-2.0 * tolerance_ns as f64 * per_ns);
    let (mut at, mut periods, mut period_ns) = (last, 0, guess_ns as f64);
    let mut members = Vec::<Came, MOST>::new();
    let _ = members.push(Came {
        periods: 0,
        back_ns: 0,
    });
    let mut best: Option<(f64, usize)> = None;
    for c in clusters.iter().rev().skip(1) {
        let gap_ns = at.saturating_since(c.mainly()) as f64;
        let times = libm::round(gap_ns / period_ns);
        if times > f64::from(MISSING) {
            break;
        }
        if times < 1.0 || (gap_ns - times * period_ns).abs() > tolerance_ns as f64 {
            continue;
        }
        periods += times as u32;
        at = c.mainly();
        let back_ns = last.saturating_since(at);
        let _ = members.push(Came { periods, back_ns });
        // Over many periods the period is known ever better.
        period_ns = (guess_ns as f64 + back_ns as f64) / (1.0 + f64::from(periods));
        let often = (members.len() - 1) as f64 / f64::from(periods);
        let score = f64::from(periods) * divergence(often, by_chance);
        if often >= OFTEN && best.is_none_or(|(s, _)| score >= s) {
            best = Some((score, members.len()));
        }
    }
    let (score, n) = best?;
    members.truncate(n);
    let came = members.get(n / 2)?;
    (score > -UNLIKELY).then(|| Guess {
        places: Places::of(last, &members, interval_ns),
        share: Share::of(n as u32 - 1, members.last().map_or(0, |c| c.periods)),
        middle: last.saturating_sub(came.back_ns),
    })
}
