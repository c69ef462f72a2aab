//! Something that has to last before it counts, and may be interrupted for a moment.

use super::baseline::Sketch;
use super::event::Direction;
use crate::time::Monotonic;

/// Probes without it that one with it outweighs: one by itself may be a busy host somewhere.
const HIT: u32 = 3;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It has lasted long enough, since then.
    Began(Monotonic),
    /// It was last seen then.
    Ended(Monotonic),
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Sustained {
    for_ns: u64,
    gap_ns: u64,
    first: Option<Monotonic>,
    last: Monotonic,
    /// The last that belongs to it for sure, and what speaks against those since.
    end: Monotonic,
    against: u32,
    hits: u32,
    misses: u32,
    active: bool,
    /// How much above normal, while it lasts.
    pub(crate) excess: Sketch,
    pub(crate) peak_ns: u32,
    up_ns: u64,
    down_ns: u64,
}

impl Sustained {
    /// It counts once it has lasted `for_ns`; without a hit for `gap_ns` it is over.
    pub(crate) const fn new(for_ns: u64, gap_ns: u64) -> Self {
        Self {
            for_ns,
            gap_ns,
            first: None,
            last: Monotonic::ZERO,
            end: Monotonic::ZERO,
            against: 0,
            hits: 0,
            misses: 0,
            active: false,
            excess: Sketch::new(),
            peak_ns: 0,
            up_ns: 0,
            down_ns: 0,
        }
    }

    /// How long it has to last from now on.
    pub(crate) const fn set(&mut self, for_ns: u64) {
        self.for_ns = for_ns;
    }

    pub(crate) const fn is_active(&self) -> bool {
        self.active
    }

    pub(crate) fn since(&self) -> Option<Monotonic> {
        self.first.filter(|_| self.active)
    }

    /// The direction that the excess lies in, where queues are known.
    pub(crate) const fn direction(&self) -> Option<Direction> {
        Direction::of_weights(self.up_ns, self.down_ns)
    }

    /// A probe with this much above normal, and its queues.
    pub(crate) fn hit(
        &mut self,
        at: Monotonic,
        excess_ns: u32,
        queues_ns: Option<(u32, u32)>,
    ) -> Option<Change> {
        let ended = self.quiet(at);
        let first = *self.first.get_or_insert(at);
        self.last = at;
        self.against = self.against.saturating_sub(HIT);
        if self.against == 0 {
            self.end = at;
        }
        self.hits += 1;
        self.excess.add(excess_ns);
        self.peak_ns = self.peak_ns.max(excess_ns);
        if let Some((up, down)) = queues_ns {
            self.up_ns += u64::from(up);
            self.down_ns += u64::from(down);
        }
        if ended.is_some() {
            return ended;
        }
        if !self.active
            && at.saturating_since(first) >= self.for_ns
            && self.hits >= 4
            && self.misses * 6 < self.hits
        {
            self.active = true;
            return Some(Change::Began(first));
        }
        None
    }

    /// A probe without.
    pub(crate) fn miss(&mut self, at: Monotonic) -> Option<Change> {
        if self.first.is_some() {
            self.misses += 1;
            self.against = self.against.saturating_add(1);
            let alone = self.misses > HIT * self.hits;
            if !self.active && (alone || self.misses > 8 && self.misses * 2 > self.hits) {
                self.reset();
            }
        }
        self.quiet(at)
    }

    /// Time has passed.
    pub(crate) fn quiet(&mut self, at: Monotonic) -> Option<Change> {
        if self.first.is_none() || at.saturating_since(self.last) <= self.gap_ns {
            return None;
        }
        let ended = self.active.then_some(Change::Ended(self.end));
        self.reset();
        ended
    }

    /// It is over for another reason; whether it had begun.
    pub(crate) fn stop(&mut self) -> bool {
        let active = self.active;
        self.reset();
        active
    }

    fn reset(&mut self) {
        *self = Self::new(self.for_ns, self.gap_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Ten probes a second stand high from 20 s to 30 s, and these ones, ms, for whatever reason; gives begin and end, ms.
    fn told(others_ms: &[u64]) -> Option<(u64, u64)> {
        let mut s = Sustained::new(5000 * MS, 3000 * MS);
        let (mut begun, mut over) = (None, None);
        for ms in (0..60_000).step_by(100) {
            let at = Monotonic::from_nanos(ms * MS);
            let change = if (20_000..=30_000).contains(&ms) || others_ms.contains(&ms) {
                s.hit(at, 90, None)
            } else {
                s.miss(at)
            };
            match change {
                Some(Change::Began(at)) => begun = Some(at.as_nanos() / MS),
                Some(Change::Ended(at)) => over = Some(at.as_nanos() / MS),
                None => {}
            }
        }
        begun.zip(over)
    }

    #[test]
    fn one_late_probe_near_it_is_no_edge() {
        assert_eq!(told(&[]), Some((20_000, 30_000)));
        assert_eq!(told(&[19_500, 31_500]), Some((20_000, 30_000)));
        // But what interrupts it for a moment is none, either.
        let again: std::vec::Vec<u64> = (32_000..34_000).step_by(100).collect();
        assert_eq!(told(&again), Some((20_000, 33_900)));
    }
}
