//! From (boot, monotonic) to wall time and back.
//!
//! An anchor says what the wall clock showed at an instant. Between two anchors the wall clock runs
//! with the monotonic one (slewing moves both), so an anchor holds from its instant to the next
//! one. What was recorded before the first anchor that can be trusted takes that one: a router that
//! boots in 1970 and learns the time a minute later misplaces nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use bufferbane_core::time::Monotonic;

use crate::model::Trust;

/// What the wall clock showed at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The boot.
    pub boot: u32,
    /// The instant.
    pub mono: Monotonic,
    /// The wall clock then, ns since 1970.
    pub wall_ns: i64,
    /// How far it can be trusted.
    pub trust: Trust,
}

/// A stretch of one boot through which wall time runs evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The boot.
    pub boot: u32,
    /// From here on, ns since boot.
    pub from_ns: u64,
    /// Up to here, exclusive.
    pub to_ns: u64,
    /// Wall clock minus monotonic clock, ns.
    pub offset_ns: i64,
}

impl Segment {
    /// Wall time of an instant, ns since 1970.
    #[must_use]
    pub fn wall_ns(&self, mono_ns: u64) -> i64 {
        self.offset_ns.saturating_add_unsigned(mono_ns)
    }

    /// The part of the segment that lies in `[from, to)` of wall time.
    fn clip(&self, from_wall_ns: i64, to_wall_ns: i64) -> Option<Self> {
        let mono = |wall_ns: i64| {
            u64::try_from(i128::from(wall_ns) - i128::from(self.offset_ns)).unwrap_or(0)
        };
        let from_ns = self.from_ns.max(mono(from_wall_ns));
        let to_ns = self.to_ns.min(mono(to_wall_ns));
        (from_ns < to_ns).then_some(Self {
            from_ns,
            to_ns,
            ..*self
        })
    }
}

/// All segments of all boots, in order.
#[derive(Clone, Debug, Default)]
pub struct TimeMap {
    segments: Vec<Segment>,
    trust: BTreeMap<u32, Trust>,
}

impl TimeMap {
    /// The map that `anchors`, ordered by boot and instant, make.
    #[must_use]
    pub fn new(anchors: &[Anchor]) -> Self {
        let mut map = Self::default();
        for of_boot in anchors.chunk_by(|a, b| a.boot == b.boot) {
            map.add_boot(of_boot);
        }
        map
    }

    fn add_boot(&mut self, anchors: &[Anchor]) {
        let Some(best) = anchors.iter().map(|a| a.trust).max() else {
            return;
        };
        let first = anchors.iter().position(|a| a.trust == best).unwrap_or(0);
        let boot = anchors[first].boot;
        self.trust.insert(boot, best);
        let mut from_ns = 0;
        for (i, a) in anchors[first..].iter().enumerate() {
            let next = anchors[first..].get(i + 1);
            let to_ns = next.map_or(u64::MAX, |n| n.mono.as_nanos());
            let offset_ns = a.wall_ns.saturating_sub_unsigned(a.mono.as_nanos());
            self.segments.push(Segment {
                boot,
                from_ns,
                to_ns,
                offset_ns,
            });
            from_ns = to_ns;
        }
    }

    /// The wall time of an instant, ns since 1970; `None` for a boot without an anchor.
    #[must_use]
    pub fn wall_ns(&self, boot: u32, mono_ns: u64) -> Option<i64> {
        let of_boot = self.of_boot(boot);
        let i = of_boot.partition_point(|s| s.to_ns <= mono_ns);
        of_boot
            .get(i)
            .or(of_boot.last())
            .map(|s| s.wall_ns(mono_ns))
    }

    /// The parts of all boots that lie in `[from, to)` of wall time, in the order they happened.
    #[must_use]
    pub fn clip(&self, from_wall_ns: i64, to_wall_ns: i64) -> Vec<Segment> {
        self.segments
            .iter()
            .filter_map(|s| s.clip(from_wall_ns, to_wall_ns))
            .collect()
    }

    /// The instants of `boot` before which everything is older than `wall_ns`.
    #[must_use]
    pub(crate) fn older_than(&self, boot: u32, wall_ns: i64) -> Range<u64> {
        let end = self
            .of_boot(boot)
            .iter()
            .filter_map(|s| s.clip(i64::MIN, wall_ns))
            .map(|s| s.to_ns)
            .max()
            .unwrap_or(0);
        0..end
    }

    /// The best trust there has been in `boot`.
    #[must_use]
    pub fn trust(&self, boot: u32) -> Trust {
        self.trust.get(&boot).copied().unwrap_or(Trust::None)
    }

    /// The boots that are mapped, oldest first.
    pub fn boots(&self) -> impl Iterator<Item = u32> + '_ {
        self.trust.keys().copied()
    }

    fn of_boot(&self, boot: u32) -> &[Segment] {
        let from = self.segments.partition_point(|s| s.boot < boot);
        let to = self.segments.partition_point(|s| s.boot <= boot);
        &self.segments[from..to]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn anchor(boot: u32, mono_s: u64, wall_s: i64, trust: Trust) -> Anchor {
        Anchor {
            boot,
            mono: Monotonic::from_nanos(mono_s * S),
            wall_ns: wall_s * S as i64,
            trust,
        }
    }

    #[test]
    fn a_boot_in_1970_is_mapped_by_what_the_router_learned_later() {
        let map = TimeMap::new(&[
            anchor(1, 5, 5, Trust::None),
            anchor(1, 60, 1_800_000_060, Trust::Disciplined),
        ]);
        assert_eq!(map.wall_ns(1, 10 * S), Some(1_800_000_010 * S as i64));
        assert_eq!(map.wall_ns(1, 90 * S), Some(1_800_000_090 * S as i64));
        assert_eq!(map.wall_ns(2, 0), None);
        let clip = map.clip(1_800_000_020 * S as i64, 1_800_000_030 * S as i64);
        assert_eq!((clip[0].from_ns, clip[0].to_ns), (20 * S, 30 * S));
    }

    #[test]
    fn a_later_step_holds_from_its_own_instant() {
        let map = TimeMap::new(&[
            anchor(1, 0, 1_000, Trust::Plausible),
            anchor(1, 100, 2_000, Trust::Plausible),
            anchor(2, 0, 5_000, Trust::Plausible),
        ]);
        assert_eq!(map.wall_ns(1, 99 * S), Some(1_099 * S as i64));
        assert_eq!(map.wall_ns(1, 100 * S), Some(2_000 * S as i64));
        assert_eq!(map.older_than(1, 2_050 * S as i64), 0..150 * S);
        assert_eq!(map.older_than(2, 2_050 * S as i64), 0..0);
        assert_eq!(map.clip(0, i64::MAX).len(), 3);
    }
}
