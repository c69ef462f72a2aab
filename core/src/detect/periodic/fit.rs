//! What comes back at a period that is known about: all that lies on its places and is one trouble.

use core::ops::Range;

use heapless::{Deque, Vec};

use super::cluster::Cluster;
use super::places::{Came, MOST, Off, Places};
use super::span::Share;
use crate::time::Monotonic;

/// Knowing the places better shows more that lie on them, about twice as many each time.
const ROUNDS: usize = 6;
/// Where so many times as many lie on each second place as on the others, or on each third, the period is that
/// much longer.
const THIN: usize = 8;

/// What is known of a period, or taken for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guess {
    pub(super) places: Places,
    pub(super) share: Share,
    /// One of those in the middle of the trouble.
    pub(super) middle: Monotonic,
}

/// What was found of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    pub(super) known: Guess,
    pub(super) first: Monotonic,
    /// The last loss of it unless more comes.
    pub(super) end: Monotonic,
    /// The newest that lies on a place, whether or not it is known to make part of it.
    pub(super) seen: Monotonic,
    pub(super) members: usize,
    /// Share of all losses since the first that it explains.
    pub(super) explained: f64,
    pub(super) up: u64,
    pub(super) down: u64,
}

/// One that lies on a place.
#[derive(Clone, Copy, Debug)]
struct Member {
    off: Off,
    cluster: Cluster,
}

/// What one trouble is of all `clusters`, the oldest first, of a series with this interval, ns.
pub(super) fn of(clusters: &Deque<Cluster, MOST>, interval_ns: u64, guess: Guess) -> Option<Fit> {
    let found = refined(clusters, interval_ns, guess)?;
    // Ones by chance may have suggested a part of the period.
    let longer = (2..=3).find_map(|times| thinned(&found.1, interval_ns, times));
    let longer = longer.and_then(|guess| refined(clusters, interval_ns, guess));
    let (known, members) = longer.unwrap_or(found);
    let (first, last) = (members.first()?, members.last()?);
    let on = |c: &Cluster| known.places.on(c.when());
    let newest = clusters.iter().rev().find_map(on).map(|o| o.when);
    let sum = |of: fn(&Cluster) -> u32| members.iter().map(|m| u64::from(of(&m.cluster))).sum();
    let (mine, up, down): (u64, u64, u64) = (sum(|c| c.lost), sum(|c| c.up), sum(|c| c.down));
    let since = clusters.iter().filter(|c| c.at >= first.cluster.at);
    let all: u64 = since.map(|c| u64::from(c.lost)).sum();
    Some(Fit {
        known,
        first: first.off.when,
        end: last.cluster.until,
        seen: newest.unwrap_or(last.off.when),
        members: members.len(),
        explained: mine as f64 / all.max(1) as f64,
        up,
        down,
    })
}

/// A guess made better, and those that are the trouble, the oldest first.
fn refined(
    clusters: &Deque<Cluster, MOST>,
    interval_ns: u64,
    mut guess: Guess,
) -> Option<(Guess, Vec<Member, MOST>)> {
    let (oldest, newest) = (clusters.front()?, clusters.back()?);
    let since_ns = newest.at.saturating_since(oldest.at).max(1) as f64;
    let mut members = Vec::new();
    for _ in 0..ROUNDS {
        let all = on_places(clusters, &guess.places);
        let strays = clusters.len().saturating_sub(all.len()) as f64;
        let range = one_trouble(&all, &guess, (strays + 0.5) / since_ns)?;
        let found = Vec::from_slice(all.get(range)?).ok()?;
        guess = line(&found, interval_ns, 1)?;
        let as_before = found.len() == members.len();
        members = found;
        if as_before {
            break;
        }
    }
    Some((guess, members))
}

/// What lies on places, one on each.
fn on_places(clusters: &Deque<Cluster, MOST>, places: &Places) -> Vec<Member, MOST> {
    let mut members = Vec::<Member, MOST>::new();
    for cluster in clusters {
        let Some(off) = places.on(cluster.when()) else {
            continue;
        };
        let new = Member {
            off,
            cluster: *cluster,
        };
        match members.last_mut().filter(|m| m.off.number == off.number) {
            Some(same) if off.off_ns < same.off.off_ns => *same = new,
            Some(_) => {}
            None => members.push(new).unwrap_or(()),
        }
    }
    members
}

/// Which of `all` are the trouble in whose middle somebody guesses one, where ones by chance come so often per ns.
fn one_trouble(all: &[Member], guess: &Guess, per_ns: f64) -> Option<Range<usize>> {
    let apart_ns = |(_, m): &(usize, &Member)| m.off.when.signed_since(guess.middle).unsigned_abs();
    let (middle, m) = all.iter().enumerate().min_by_key(apart_ns)?;
    let came = |m: &Member| (m.off.number, m.off.ln_ratio(per_ns));
    let reach =
        |side: &mut dyn Iterator<Item = &Member>| guess.share.reach(m.off.number, side.map(came));
    let back = reach(&mut all.iter().take(middle).rev());
    let on = reach(&mut all.iter().skip(middle + 1));
    Some(middle - back..middle + on + 1)
}

/// Each so manieth place of `members`, where next to none lie on the others.
fn thinned(members: &[Member], interval_ns: u64, times: i64) -> Option<Guess> {
    let class = |m: &Member| m.off.number.rem_euclid(times);
    let of = |n: i64| members.iter().filter(move |m| class(m) == n);
    let (many, n) = (0..times).map(|n| (of(n).count(), n)).max()?;
    if THIN * (members.len() - many) > many {
        return None;
    }
    let kept: Vec<Member, MOST> = of(n).copied().collect();
    line(&kept, interval_ns, times)
}

/// What `members`, the oldest first, show of a period that is so many times that of their places.
fn line(members: &[Member], interval_ns: u64, times: i64) -> Option<Guess> {
    let last = members.last()?.off;
    let came = |m: &Member| Came {
        periods: ((last.number - m.off.number) / times) as u32,
        back_ns: last.when.saturating_since(m.off.when),
    };
    let came: Vec<Came, MOST> = members.iter().rev().map(came).collect();
    let of = came.last().filter(|c| c.periods > 0)?;
    Some(Guess {
        places: Places::of(last.when, &came, interval_ns),
        share: Share::of(came.len() as u32 - 1, of.periods),
        middle: members.get(members.len() / 2)?.off.when,
    })
}
