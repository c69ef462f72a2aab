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
        let longest_ns = interval_ns.saturating_mul(u64::from(burst));
        let until_full_ns = self.full_at_ns.saturating_sub(now_ns);
        // It is never longer than that, unless the clock was set back.
        let until_full_ns = Some(until_full_ns).filter(|ns| *ns <= longest_ns);
        let until_full_ns = until_full_ns.unwrap_or(0).saturating_add(interval_ns);
        let has = until_full_ns <= longest_ns;
        if has {
            self.full_at_ns = now_ns.saturating_add(until_full_ns);
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_lets_a_burst_pass_and_then_one_each_interval_also_after_the_clock_was_set_back() {
        let mut pace = Pace::FULL;
        let mut taken = |from_ns: u64, until_ns: u64| {
            let times = from_ns..until_ns;
            times.filter(|now_ns| pace.take(*now_ns, 10, 5)).count()
        };
        assert_eq!(taken(1_000, 1_040), 5 + 3);
        assert_eq!(taken(1_040, 1_100), 6);
        assert_eq!(taken(5_000, 5_010), 5);
        // An hour back: whatever was taken before, it is no reason to wait for an hour.
        assert_eq!(taken(100, 140), 5 + 3);
        assert!(!pace.take(140, 10, 0), "none is none");
    }
}
