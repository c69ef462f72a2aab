//! A connection that is held open, and made again where it is lost: how often that happens, and whether it is the
//! line that ends it.
//!
//! A drop is a connection that ends without the far end's closing it: reset, timed out, unreachable. Some in a short
//! time are trouble. Where each of the last had the same age, it is most likely a timer that ended them, of the far end
//! or of a NAT on the way, and no fault of the line that comes when it likes.

use heapless::Deque;

use crate::time::Monotonic;

/// Drops that are remembered.
const KEPT: usize = Limit::MOST_DROPS as usize;
/// So many of the last drops of trouble have to be of the same age, as far as there are so many, and these at least.
const ALIKE: usize = 5;
const ENOUGH: usize = 3;
/// Ages agree within this, ns, or a fiftieth of them.
const SAME_AGE_NS: u64 = 1_500_000_000;
/// The first wait before a connection is made again, and the longest, ns.
const FIRST_WAIT_NS: u64 = 1_000_000_000;
const LONGEST_WAIT_NS: u64 = 60_000_000_000;
/// A connection that lived for so long was one, ns: the next is made soon.
const LASTING_NS: u64 = 10_000_000_000;

/// When drops are trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many.
    pub drops: u32,
    /// Within this, ns; and when none comes for as long, it is over.
    pub within_ns: u64,
}

impl Limit {
    /// So many drops may be asked for; more are not remembered.
    pub const MOST_DROPS: u32 = 16;
}

impl Default for Limit {
    /// Two drops in five minutes.
    fn default() -> Self {
        Self {
            drops: 2,
            within_ns: 300_000_000_000,
        }
    }
}

/// A connection that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// When.
    pub at: Monotonic,
    /// How long it had been open, ns.
    pub age_ns: u64,
}

/// There is trouble, or more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unstable {
    /// The first of its drops.
    pub since: Monotonic,
    /// How many there were.
    pub drops: u32,
    /// The age that each of the last five of its drops had, ns, where they had the same; of four or three where there
    /// were no more.
    pub each_after_ns: Option<u64>,
}

/// The drops of one connection; see the module.
#[derive(Clone, Debug)]
pub struct Held {
    limit: Limit,
    recent: Deque<Drop, KEPT>,
    /// Since when there is trouble, and how many drops it has had.
    trouble: Option<(Monotonic, u32)>,
}

impl Held {
    /// Without drops.
    #[must_use]
    pub const fn new(limit: Limit) -> Self {
        Self {
            limit,
            recent: Deque::new(),
            trouble: None,
        }
    }

    /// Another limit from now on.
    pub const fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// The connection was lost.
    pub fn handle_drop(&mut self, drop: Drop) -> Option<Unstable> {
        if self.recent.is_full() {
            self.recent.pop_front();
        }
        // There is room.
        let _ = self.recent.push_back(drop);
        if let Some((_, drops)) = &mut self.trouble {
            *drops += 1;
        } else {
            let from = drop.at.saturating_sub(self.limit.within_ns);
            let mut within = self.recent.iter().filter(|d| d.at >= from);
            let since = within.next().map_or(drop.at, |d| d.at);
            let drops = 1 + within.count() as u32;
            if drops < self.limit.drops {
                return None;
            }
            // What was before is of no trouble.
            while self.recent.front().is_some_and(|d| d.at < since) {
                self.recent.pop_front();
            }
            self.trouble = Some((since, drops));
        }
        let (since, drops) = self.trouble?;
        Some(Unstable {
            since,
            drops,
            each_after_ns: self.same_age_ns(),
        })
    }

    /// The last drop of trouble that is over by `now`.
    pub fn handle_timeout(&mut self, now: Monotonic) -> Option<Monotonic> {
        let last = self.recent.back()?.at;
        self.trouble?;
        if now.saturating_since(last) < self.limit.within_ns {
            return None;
        }
        self.trouble = None;
        self.recent.clear();
        Some(last)
    }

    /// The age of the last, ns, where it is the same.
    fn same_age_ns(&self) -> Option<u64> {
        let before = self.recent.len().saturating_sub(ALIKE);
        let ages = || self.recent.iter().skip(before).map(|d| d.age_ns);
        let (least, most) = (ages().min()?, ages().max()?);
        let same = most - least <= SAME_AGE_NS.max(most / 50);
        // What is lost at once has no age to speak of.
        (same && self.recent.len() >= ENOUGH && least > SAME_AGE_NS).then_some(most)
    }
}

/// How long it takes until a connection that was lost is made again: the longer, the less comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    wait_ns: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            wait_ns: FIRST_WAIT_NS,
        }
    }
}

impl Patience {
    /// How long to wait, ns, after a connection that was open for so long, ns (0: none came about).
    pub fn wait_ns(&mut self, age_ns: u64) -> u64 {
        if age_ns >= LASTING_NS {
            self.wait_ns = FIRST_WAIT_NS;
        }
        let wait_ns = self.wait_ns;
        self.wait_ns = (wait_ns * 2).min(LONGEST_WAIT_NS);
        wait_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const S: u64 = 1_000_000_000;

    fn drop(at_s: u64, age_s: u64) -> Drop {
        Drop {
            at: Monotonic::from_nanos(at_s * S),
            age_ns: age_s * S,
        }
    }

    #[test]
    fn one_drop_is_no_trouble_and_two_in_five_minutes_are() {
        let mut held = Held::new(Limit::default());
        assert_eq!(held.handle_drop(drop(1000, 900)), None);
        assert_eq!(held.handle_drop(drop(1301, 300)), None);
        let unstable = |since, drops| Unstable {
            since: Monotonic::from_nanos(since * S),
            drops,
            each_after_ns: None,
        };
        assert_eq!(
            held.handle_drop(drop(1400, 98)),
            Some(unstable(1301, 2)),
            "the first of all is too long ago"
        );
        assert_eq!(held.handle_drop(drop(1690, 289)), Some(unstable(1301, 3)));
        let now = |s| Monotonic::from_nanos(s * S);
        assert_eq!(held.handle_timeout(now(1989)), None);
        let over = Some(now(1690));
        assert_eq!(held.handle_timeout(now(1990)), over);
        assert_eq!(held.handle_timeout(now(9999)), None);
        assert_eq!(held.handle_drop(drop(2000, 5)), None);
    }

    #[test]
    fn what_ends_each_at_the_same_age_is_a_timer() {
        let mut held = Held::new(Limit::default());
        let each = |news: Option<Unstable>| news?.each_after_ns;
        for n in 1..3 {
            assert_eq!(each(held.handle_drop(drop(n * 61, 60))), None);
        }
        assert_eq!(each(held.handle_drop(drop(183, 60))), Some(60 * S));
        // One that is no timer's is seen for as long as it is among the last five.
        for (n, at) in [(0, 16), (1, 60), (2, 60), (3, 60), (4, 60)] {
            assert_eq!(each(held.handle_drop(drop(200 + n * 61, at))), None);
        }
        assert_eq!(each(held.handle_drop(drop(505, 60))), Some(60 * S));
        // What was before the trouble is none of it.
        let mut held = Held::new(Limit::default());
        assert_eq!(held.handle_drop(drop(1000, 900)), None);
        for n in 0..2 {
            assert_eq!(each(held.handle_drop(drop(5000 + n * 61, 60))), None);
        }
        assert_eq!(each(held.handle_drop(drop(5122, 60))), Some(60 * S));
        // A server that resets at once is not one either.
        let mut held = Held::new(Limit::default());
        for n in 1..9 {
            assert_eq!(each(held.handle_drop(drop(n, 0))), None);
        }
    }

    #[test]
    fn the_wait_grows_and_a_connection_that_lasted_makes_it_short() {
        let mut patience = Patience::default();
        let waits: Vec<u64> = (0..8).map(|_| patience.wait_ns(0) / S).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(patience.wait_ns(9 * S), 60 * S);
        assert_eq!(patience.wait_ns(10 * S), S);
    }

    proptest! {
        #[test]
        fn trouble_begins_once_and_ends_once(gaps in proptest::collection::vec(1u64..900, 1..100)) {
            let mut held = Held::new(Limit::default());
            let (mut now, mut times, mut open) = (0, Vec::new(), None);
            for gap in gaps {
                for s in now + 1..now + gap {
                    if let Some(at) = held.handle_timeout(Monotonic::from_nanos(s * S)) {
                        prop_assert!(open.take().is_some());
                        prop_assert_eq!(at.as_nanos(), now * S);
                        prop_assert_eq!(s, now + 300);
                    }
                }
                now += gap;
                times.push(now);
                // A drop and the end of trouble at one instant: the drop goes on with it.
                let near = times.iter().rev().skip(1).take_while(|t| now - **t <= 300).count();
                match held.handle_drop(drop(now, 1)) {
                    Some(Unstable { since, drops, .. }) => {
                        prop_assert!(near > 0 || open.is_some());
                        prop_assert!(drops >= 2);
                        prop_assert!(open.is_none_or(|o| o == since));
                        open = Some(since);
                    }
                    None => prop_assert!(open.is_none()),
                }
            }
        }
    }
}
