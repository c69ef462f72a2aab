//! The ways to one target: the one it is reached by now, and some that it was reached by before.

use std::collections::VecDeque;

use bufferbane_core::time::Monotonic;
use bufferbane_core::trace::way::{Against, against, reach};
use bufferbane_store::Path;

/// Ways that are remembered: one that comes back is no new one.
const KEPT: usize = 8;
/// So many walks in a row that end early make a way that ends there.
const SHORTER: u32 = 4;
/// So many changes are told in a day.
const TOLD: usize = 4;
/// So many new ways are recorded in a day: who makes up addresses of routers makes no store grow.
const RECORDED: usize = 16;
const DAY_NS: u64 = 86_400_000_000_000;

/// A way, and when it was seen.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) first: Monotonic,
    pub(super) last: Monotonic,
    pub(super) walks: u64,
    pub(super) path: Path,
    is_recorded: bool,
}

/// The way has become another.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    /// When that was first seen.
    pub(crate) since: Monotonic,
    /// The first hop that is another, from 1.
    pub(crate) hop: u8,
    /// The way before.
    pub(crate) before: Path,
    /// The way now.
    pub(crate) after: Path,
}

/// What a walk says.
#[derive(Debug)]
pub(super) enum Said {
    /// Nothing: it did not come as far as others did.
    Nothing,
    /// It went another way; another walk has to say so too.
    Doubt,
    /// The way is the one that [`Ways::now`] gives.
    Seen,
    /// It is, and it is another than before.
    Changed(Box<Changed>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ways {
    kept: Vec<Kept>,
    /// Index of the way now.
    current: usize,
    /// Another way, seen once.
    candidate: Option<(Monotonic, Path)>,
    /// Walks in a row that ended early.
    shorter: u32,
    told: VecDeque<Monotonic>,
    recorded: VecDeque<Monotonic>,
}

impl Ways {
    /// With the ways of before this run, the latest first: what is walked now is held against them.
    pub(super) fn of_before(paths: impl IntoIterator<Item = Path>) -> Self {
        let mut ways = Self::default();
        for path in paths {
            let same = |k: &Kept| against(k.path.shape(), path.shape()) == Against::Same;
            let is_new = !path.hops.is_empty() && !ways.kept.iter().any(same);
            if is_new && ways.kept.len() < KEPT {
                ways.kept.push(Kept {
                    first: Monotonic::ZERO,
                    last: Monotonic::ZERO,
                    walks: 0,
                    path,
                    is_recorded: false,
                });
            }
        }
        ways
    }

    /// The way now.
    pub(super) fn now(&self) -> Option<&Kept> {
        self.kept.get(self.current)
    }

    /// The way now, where it is to be recorded at `at`: as it was before, or new within what a day may have.
    pub(super) fn record_now(&mut self, at: Monotonic) -> Option<&Kept> {
        let kept = self.kept.get_mut(self.current)?;
        kept.is_recorded = kept.is_recorded || is_within(&mut self.recorded, RECORDED, at);
        Some(&*kept).filter(|k| k.is_recorded)
    }

    /// A walk that began at `at`. In trouble a walk that ends early says nothing of the time after.
    pub(super) fn hear(&mut self, at: Monotonic, path: Path, in_trouble: bool) -> Said {
        if path.hops.is_empty() {
            return Said::Nothing;
        }
        let Some(now) = self.now() else {
            self.turn_to(at, path);
            return Said::Seen;
        };
        match against(now.path.shape(), path.shape()) {
            Against::Same => {
                let is_farther = reach(&path.hops) > reach(&now.path.hops);
                let is_known = |k: &Kept| {
                    let same = against(k.path.shape(), path.shape()) == Against::Same;
                    same && reach(&k.path.hops) >= reach(&path.hops)
                };
                // A way that ended early has come to the end of a longer one again.
                if let Some(i) = self.kept.iter().position(is_known).filter(|_| is_farther) {
                    self.current = i;
                }
                self.kept[self.current].add(at, path);
                (self.shorter, self.candidate) = (0, None);
                Said::Seen
            }
            Against::Shorter => {
                self.candidate = None;
                self.shorter += u32::from(!in_trouble);
                if self.shorter < SHORTER {
                    return Said::Nothing;
                }
                self.turn_to(at, path);
                Said::Seen
            }
            Against::Other(hop) => {
                let confirmed = self
                    .candidate
                    .take()
                    .filter(|(_, c)| !is_other(c, &path) && !is_other(&path, c));
                let Some((since, _)) = confirmed else {
                    self.candidate = Some((at, path));
                    return Said::Doubt;
                };
                let before = self.kept[self.current].path.clone();
                self.turn_to(at, path.clone());
                if !is_within(&mut self.told, TOLD, at) {
                    return Said::Seen;
                }
                Said::Changed(Box::new(Changed {
                    since,
                    hop,
                    before,
                    after: path,
                }))
            }
        }
    }

    /// `path` is the way from now on: one that is known, or a new one.
    fn turn_to(&mut self, at: Monotonic, path: Path) {
        self.shorter = 0;
        let same = |k: &Kept| against(k.path.shape(), path.shape()) == Against::Same;
        if let Some(known) = self.kept.iter().position(same) {
            self.current = known;
            self.kept[known].add(at, path);
            return;
        }
        if self.kept.len() >= KEPT {
            let oldest = self.kept.iter().enumerate().min_by_key(|(_, k)| k.last);
            if let Some((i, _)) = oldest {
                self.kept.remove(i);
            }
        }
        self.kept.push(Kept {
            first: at,
            last: at,
            walks: 1,
            path,
            is_recorded: false,
        });
        self.current = self.kept.len() - 1;
    }
}

/// Whether there were fewer than `most` in the day before `at`; this one counts then.
fn is_within(times: &mut VecDeque<Monotonic>, most: usize, at: Monotonic) -> bool {
    times.retain(|t| at.saturating_since(*t) < DAY_NS);
    let is_within = times.len() < most;
    if is_within {
        times.push_back(at);
    }
    is_within
}

fn is_other(a: &Path, b: &Path) -> bool {
    matches!(against(a.shape(), b.shape()), Against::Other(_))
}

impl Kept {
    /// The same way, walked once more.
    fn add(&mut self, at: Monotonic, more: Path) {
        if self.walks == 0 {
            // What was walked before this run has a row of its own.
            self.first = at;
            for hop in &mut self.path.hops {
                (hop.sent, hop.answered) = (0, 0);
                (hop.rtt_min_ns, hop.rtt_mean_ns) = (None, None);
            }
        }
        self.last = self.last.max(at);
        self.walks += 1;
        self.path.add(more);
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_store::{PathEnd, PathHop};

    use super::*;

    fn at(s: u64) -> Monotonic {
        Monotonic::from_nanos(s * 1_000_000_000)
    }

    /// A way of these routers; 9 is the target, 0 nobody.
    fn path(hops: &[u8]) -> Path {
        let hop = |n: &u8| match n {
            0 => PathHop {
                sent: 3,
                ..PathHop::default()
            },
            n => PathHop {
                addresses: vec![[10, 0, 0, *n].into()],
                sent: 3,
                answered: 2,
                rtt_min_ns: Some(1000),
                rtt_mean_ns: Some(1000 + u64::from(*n)),
            },
        };
        Path {
            interface: "eth0".into(),
            target: "x".into(),
            address: [10, 0, 0, 9].into(),
            source: None,
            unsent: None,
            provider_link: false,
            end: if hops.last() == Some(&9) {
                PathEnd::Target
            } else {
                PathEnd::Silence
            },
            hops: hops.iter().map(hop).collect(),
        }
    }

    #[test]
    fn a_way_is_summed_up_and_silent_hops_become_known() {
        let mut ways = Ways::default();
        assert!(matches!(
            ways.hear(at(0), path(&[1, 0, 9]), false),
            Said::Seen
        ));
        assert!(matches!(
            ways.hear(at(900), path(&[1, 2, 9]), false),
            Said::Seen
        ));
        let now = ways.now().unwrap();
        assert_eq!((now.first, now.last, now.walks), (at(0), at(900), 2));
        let hops = &now.path.hops;
        assert_eq!((hops[0].sent, hops[0].answered), (6, 4));
        assert_eq!((hops[1].sent, hops[1].answered), (6, 2));
        assert_eq!(hops[1].rtt_mean_ns, Some(1002));
        assert_eq!(hops[2].rtt_mean_ns, Some(1009));
    }

    #[test]
    fn another_way_has_to_be_seen_twice_and_one_that_comes_back_is_known() {
        let mut ways = Ways::default();
        ways.hear(at(0), path(&[1, 2, 9]), false);
        // Seen once in two is how a load balancer looks.
        for s in [1, 3, 5] {
            assert!(matches!(
                ways.hear(at(s), path(&[1, 3, 9]), false),
                Said::Doubt
            ));
            assert!(matches!(
                ways.hear(at(s + 1), path(&[1, 2, 9]), false),
                Said::Seen
            ));
        }
        // Two that are seen once each are not one seen twice.
        ways.hear(at(10), path(&[1, 3, 9]), false);
        let said = ways.hear(at(11), path(&[1, 3, 0, 9]), false);
        assert!(matches!(said, Said::Doubt), "{said:?}");
        let said = ways.hear(at(12), path(&[1, 3, 0, 9]), false);
        let Said::Changed(changed) = said else {
            panic!("{said:?}");
        };
        assert_eq!((changed.since, changed.hop), (at(11), 2));
        let lengths = [&changed.before, &changed.after].map(|p| p.hops.len());
        assert_eq!(lengths, [3, 4]);
        ways.hear(at(20), path(&[1, 2, 9]), false);
        let said = ways.hear(at(21), path(&[1, 2, 9]), false);
        assert!(matches!(said, Said::Changed(_)), "{said:?}");
        let now = ways.now().unwrap();
        assert_eq!((now.first, now.last), (at(0), at(21)));
        assert_eq!(ways.kept.len(), 2);
    }

    #[test]
    fn what_was_known_before_a_restart_is_what_walks_are_held_against() {
        let before = || Ways::of_before([path(&[1, 2, 9]), path(&[1, 5, 9]), path(&[1, 2, 9])]);
        let mut ways = before();
        assert_eq!((ways.kept.len(), ways.now().unwrap().walks), (2, 0));
        // The same way: a row of this run, with the walks of this run.
        assert!(matches!(
            ways.hear(at(70), path(&[1, 0, 9]), false),
            Said::Seen
        ));
        let now = ways.record_now(at(70)).unwrap();
        assert_eq!((now.first, now.last, now.walks), (at(70), at(70), 1));
        let hops = &now.path.hops;
        assert_eq!((hops[0].sent, hops[1].sent, hops[1].answered), (3, 3, 0));
        assert_eq!(hops[1].addresses.len(), 1);
        // Another one: told, and with what was measured of the one before.
        let mut ways = before();
        assert!(matches!(
            ways.hear(at(70), path(&[1, 3, 9]), false),
            Said::Doubt
        ));
        let Said::Changed(changed) = ways.hear(at(75), path(&[1, 3, 9]), false) else {
            panic!("{ways:?}");
        };
        assert_eq!((changed.since, changed.hop), (at(70), 2));
        assert_eq!(changed.before.hops[2].rtt_min_ns, Some(1000));
        // A start in trouble makes no way that ends early the usual one.
        let mut ways = before();
        assert!(matches!(
            ways.hear(at(70), path(&[1]), false),
            Said::Nothing
        ));
        assert_eq!(ways.now().unwrap().path.hops.len(), 3);
    }

    #[test]
    fn a_way_that_ends_early_is_one_only_where_that_stays() {
        let mut ways = Ways::default();
        ways.hear(at(0), path(&[1, 2, 9]), false);
        for s in 1..10 {
            assert!(matches!(ways.hear(at(s), path(&[1]), true), Said::Nothing));
        }
        for s in 10..13 {
            assert!(matches!(ways.hear(at(s), path(&[1]), false), Said::Nothing));
        }
        assert!(matches!(ways.hear(at(13), path(&[]), false), Said::Nothing));
        assert_eq!(ways.now().unwrap().path.hops.len(), 3);
        assert!(matches!(ways.hear(at(14), path(&[1]), false), Said::Seen));
        assert_eq!(ways.now().unwrap().path.hops.len(), 1);
        // And back.
        assert!(matches!(
            ways.hear(at(15), path(&[1, 2, 9]), false),
            Said::Seen
        ));
        let now = ways.now().unwrap();
        assert_eq!((now.first, now.last), (at(0), at(15)));
    }

    #[test]
    fn memory_what_is_told_and_what_is_recorded_are_bounded() {
        let mut ways = Ways::default();
        let mut told = 0;
        let mut rows = std::collections::BTreeSet::new();
        for n in 0..40u64 {
            let other = path(&[1, 10 + n as u8, 9]);
            ways.hear(at(n * 10), other.clone(), false);
            let said = ways.hear(at(n * 10 + 1), other.clone(), false);
            told += usize::from(matches!(said, Said::Changed(_)));
            assert_eq!(
                ways.now().unwrap().path.hops[1].addresses,
                other.hops[1].addresses
            );
            rows.extend(ways.record_now(at(n * 10 + 1)).map(|k| k.first));
        }
        let counts = (ways.kept.len(), told, rows.len());
        assert_eq!(counts, (KEPT, TOLD, RECORDED));
        // A way that stays is recorded once there is room again, with all of its walks.
        let day = DAY_NS / 1_000_000_000;
        ways.hear(at(day + 20), path(&[1, 49, 9]), false);
        let late = ways.record_now(at(day + 20)).unwrap();
        assert_eq!((late.first, late.walks), (at(391), 2));
    }
}
