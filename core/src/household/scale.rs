//! How much of what a line carries is load.

/// Less is never load, bit/s.
const LEAST_BPS: u64 = 500_000;
/// Nor is less than this part of what the line can.
const PART: u64 = 4;

/// One way of a line: what it was seen to carry, and so what is much for it.
///
/// What it was seen to carry is what two of three neighbouring seconds had at least, and no more than it
/// was last measured to carry: what a host sends in a rush is more than the line lets through, for a
/// moment or as long as it is lost, and after it no ordinary upload would be load any more.
///
/// # Examples
/// ```
/// use bufferbane_core::household::Scale;
///
/// let mut up = Scale::new();
/// for bps in [9_000_000, 80_000_000, 9_000_000, 9_000_000] {
///     up.add(bps);
/// }
/// assert!(up.is_load(9_000_000));
/// assert!(!up.is_load(2_000_000));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    last_bps: [u64; 2],
    most_bps: u64,
    can_bps: Option<u64>,
}

impl Scale {
    /// Of a line that was not looked at yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            last_bps: [0; 2],
            most_bps: 0,
            can_bps: None,
        }
    }

    /// It carried this in the second that follows on the one told before, bit/s.
    pub fn add(&mut self, bps: u64) {
        let [a, b] = self.last_bps;
        let median = a.max(b).min(a.min(b).max(bps));
        self.most_bps = self.most_bps.max(median);
        self.last_bps = [b, bps];
    }

    /// It was measured to carry this in the long run, bit/s.
    pub const fn measured(&mut self, bps: u64) {
        self.can_bps = Some(bps);
    }

    /// The most that it carries, as far as that is known, bit/s.
    #[must_use]
    pub fn most_bps(&self) -> u64 {
        self.most_bps.min(self.can_bps.unwrap_or(u64::MAX))
    }

    /// Whether so much, bit/s, is load.
    #[must_use]
    pub fn is_load(&self, bps: u64) -> bool {
        bps >= LEAST_BPS.max(self.most_bps() / PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_rush_nor_a_flood_hides_what_the_line_really_carries() {
        let mut scale = Scale::new();
        assert!(!scale.is_load(499_999));
        assert!(scale.is_load(500_000));
        for bps in [8_000_000, 8_000_000, 90_000_000, 8_000_000, 10_000] {
            scale.add(bps);
        }
        assert!(!scale.is_load(1_900_000));
        assert!(scale.is_load(2_000_000));
        for _ in 0..5 {
            scale.add(90_000_000);
        }
        assert!(!scale.is_load(8_000_000));
        scale.measured(8_000_000);
        assert!(scale.is_load(2_000_000));
        assert!(!scale.is_load(1_900_000));
        // A measurement says of a quiet line only what it could.
        let mut quiet = Scale::new();
        quiet.measured(100_000_000);
        assert!(quiet.is_load(500_000));
    }
}
