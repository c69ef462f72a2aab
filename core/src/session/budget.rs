//! A budget that refills evenly.

use zerocopy::FromZeros;

/// So many tokens per second, and so many at once.
#[derive(Clone, Copy, Debug, FromZeros)]
pub(super) struct Budget {
    per_second: u32,
    burst: u32,
    /// Tokens left, in billionths.
    level: u64,
    at_ns: u64,
}

impl Budget {
    /// A full one.
    pub(super) const fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second,
            burst,
            level: burst as u64 * 1_000_000_000,
            at_ns: 0,
        }
    }

    /// Takes one token if there is one.
    pub(super) fn take(&mut self, now_ns: u64) -> bool {
        let refill = now_ns
            .saturating_sub(self.at_ns)
            .saturating_mul(u64::from(self.per_second));
        self.at_ns = now_ns;
        self.level = (self.level.saturating_add(refill)).min(u64::from(self.burst) * 1_000_000_000);
        if self.level < 1_000_000_000 {
            return false;
        }
        self.level -= 1_000_000_000;
        true
    }

    /// Whether there is a token.
    pub(super) fn has(&mut self, now_ns: u64) -> bool {
        let has = self.take(now_ns);
        if has {
            self.level += 1_000_000_000;
        }
        has
    }
}

/// The same in eight bytes, at a pace that its user knows: when it will be full again. Zeroed memory is a full one.
#[derive(Clone, Copy, Debug, FromZeros)]
pub(super) struct Pace {
    full_at_ns: u64,
}

impl Pace {
    /// A full one.
    pub(super) const FULL: Self = Self { full_at_ns: 0 };

    /// Takes one token if there is one: of `burst` at once, and one more each `interval_ns`.
    pub(super) fn take(&mut self, now_ns: u64, interval_ns: u64, burst: u32) -> bool {
        let full_at_ns = self.full_at_ns.max(now_ns).saturating_add(interval_ns);
        let has = full_at_ns - now_ns <= interval_ns.saturating_mul(u64::from(burst));
        if has {
            self.full_at_ns = full_at_ns;
        }
        has
    }
}
