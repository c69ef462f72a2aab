//! A host's monotonic clock, as it runs against true time.

/// Shows `offset + true time × (1 + ppb / 10⁹)`. It never steps; a host that restarts gets another.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: u64,
    drift_ppb: i64,
}

impl Clock {
    /// A clock that is `offset_ns` ahead at true time 0 and gains `drift_ppb` ns each second.
    #[must_use]
    pub const fn new(offset_ns: u64, drift_ppb: i64) -> Self {
        Self {
            offset_ns,
            drift_ppb,
        }
    }

    /// What it shows at true time `at_ns`.
    #[must_use]
    pub fn read(&self, at_ns: u64) -> u64 {
        let gained = i128::from(at_ns) * i128::from(self.drift_ppb) / 1_000_000_000;
        (i128::from(self.offset_ns) + i128::from(at_ns) + gained) as u64
    }

    /// The true time at which it shows `shown_ns`, or the first after that.
    #[must_use]
    pub fn when(&self, shown_ns: u64) -> u64 {
        let ahead = i128::from(shown_ns) - i128::from(self.offset_ns);
        let guess = ahead * 1_000_000_000 / (1_000_000_000 + i128::from(self.drift_ppb));
        let mut at = guess.max(0) as u64;
        while self.read(at) < shown_ns {
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_inverse_of_read() {
        for ppb in [-50_000, 0, 50_000] {
            let c = Clock::new(1_000, ppb);
            for at in [0u64, 5, 1_000_000_007, 3_600_000_000_000] {
                let when = c.when(c.read(at));
                assert!(when <= at && c.read(when) == c.read(at));
            }
        }
    }
}
