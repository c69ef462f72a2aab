//! What may come back at a period: losses near to each other, or a spike.

use super::S;
use crate::detect::event::Direction;
use crate::time::Monotonic;

/// See [`together_ns`]: of fast series.
const TOGETHER_NS: u64 = S;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster {
    /// The first of them, and the last.
    pub(super) at: Monotonic,
    pub(super) until: Monotonic,
    /// The first of most of them, and how many those are.
    main: (Monotonic, u32),
    /// How many, and upward and downward where that is known.
    pub(super) lost: u32,
    pub(super) up: u32,
    pub(super) down: u32,
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
    pub(super) fn join(&mut self, other: &Self) {
        self.at = self.at.min(other.at);
        self.until = self.until.max(other.until);
        if other.main.1 > self.main.1 {
            self.main = other.main;
        }
        self.lost += other.lost;
        self.up += other.up;
        self.down += other.down;
    }

    /// When most of it came.
    pub(super) const fn mainly(&self) -> Monotonic {
        self.main.0
    }

    /// When it may have come: a loss by chance is near to some, before or after, and is one of these then.
    pub(super) const fn when(&self) -> [Monotonic; 3] {
        [self.at, self.main.0, self.until]
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
