//! A log-linear histogram of durations.
//!
//! Each octave from 512 ns to 137 s is cut into 64 equal buckets, so a bucket is at most 1/64 wide
//! and its middle is within 0.8 % of everything in it. What is shorter shares one bucket, what is
//! longer is counted in the last one; the smallest and largest value are kept exactly.

use crate::varint::{Reader, Writer};

/// log2 of the smallest value that has a bucket of its own, ns.
const FIRST_OCTAVE: u32 = 9;
const LAST_OCTAVE: u32 = 36;
const BUCKETS_PER_OCTAVE_LOG2: u32 = 6;
const BUCKETS_PER_OCTAVE: usize = 1 << BUCKETS_PER_OCTAVE_LOG2;

/// How many buckets there are, the one for everything shorter included.
pub const BUCKETS: usize = 1 + (LAST_OCTAVE - FIRST_OCTAVE + 1) as usize * BUCKETS_PER_OCTAVE;

/// How often durations occurred; the relative error of what it says is below 1 % from 512 ns to
/// 137 s.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u32; BUCKETS],
    total: u64,
    min_ns: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Histogram")
            .field("total", &self.total)
            .field("min_ns", &self.min())
            .field("p50_ns", &self.quantile(0.5))
            .field("max_ns", &self.max())
            .finish()
    }
}

impl Histogram {
    /// One without values.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
            min_ns: u64::MAX,
            max_ns: 0,
        }
    }

    /// One more value.
    pub fn add(&mut self, value_ns: u64) {
        let count = &mut self.counts[bucket_of(value_ns)];
        *count = count.saturating_add(1);
        self.total += 1;
        self.min_ns = self.min_ns.min(value_ns);
        self.max_ns = self.max_ns.max(value_ns);
    }

    /// All values of `other` too.
    pub fn merge(&mut self, other: &Self) {
        // Of a minute most are empty, and there are a million minutes in two years.
        if other.total == 0 {
            return;
        }
        for (a, b) in self.counts.iter_mut().zip(&other.counts) {
            *a = a.saturating_add(*b);
        }
        self.total = self.total.saturating_add(other.total);
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many values.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.total
    }

    /// The smallest value, exactly.
    #[must_use]
    pub const fn min(&self) -> Option<u64> {
        if self.total == 0 {
            None
        } else {
            Some(self.min_ns)
        }
    }

    /// The largest value, exactly.
    #[must_use]
    pub const fn max(&self) -> Option<u64> {
        if self.total == 0 {
            None
        } else {
            Some(self.max_ns)
        }
    }

    /// The value below which the share `q` (0 to 1) of all values lies, by the nearest-rank method,
    /// within 1 %.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        // Nearest rank: ceil(q·n), at least 1. `as` truncates, and no_std has no ceil.
        let exact = q.clamp(0.0, 1.0) * self.total as f64;
        let rank = (exact as u64 + u64::from(exact > (exact as u64) as f64)).clamp(1, self.total);
        if rank == 1 {
            return Some(self.min_ns);
        }
        if rank == self.total {
            return Some(self.max_ns);
        }
        let mut seen = 0u64;
        for (i, &n) in self.counts.iter().enumerate() {
            seen += u64::from(n);
            if seen >= rank {
                return Some(middle_of(i).clamp(self.min_ns, self.max_ns));
            }
        }
        Some(self.max_ns)
    }

    /// Each bucket that is not empty: its lower edge, its upper edge (exclusive) and its count.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, u32)> + '_ {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0)
            .map(|(i, &n)| (lower_edge(i), lower_edge(i + 1), n))
    }

    /// Writes it: how many buckets, smallest and largest value, then for each bucket that is not
    /// empty the gap to the one before and its count, all as varints.
    pub fn encode(&self, out: &mut Writer<'_>) {
        let used = self.counts.iter().filter(|n| **n > 0).count();
        out.unsigned(used as u64);
        if used == 0 {
            return;
        }
        out.unsigned(self.min_ns);
        out.unsigned(self.max_ns - self.min_ns);
        let mut last = 0;
        for (i, &n) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            out.unsigned((i - last) as u64);
            out.unsigned(u64::from(n));
            last = i;
        }
    }

    /// Reads what [`Histogram::encode`] wrote; `None` where the bytes are not such a thing.
    #[must_use]
    pub fn decode(input: &mut Reader<'_>) -> Option<Self> {
        let mut h = Self::new();
        h.merge_encoded(input)?;
        Some(h)
    }

    /// Adds what [`Histogram::encode`] wrote, without making a histogram of it first: of a minute a
    /// few buckets are used, and there are a million minutes in two years. `None` where the bytes are
    /// not such a thing; what was read before that became apparent has been added.
    #[must_use]
    pub fn merge_encoded(&mut self, input: &mut Reader<'_>) -> Option<()> {
        let used = input.unsigned()?;
        if used == 0 {
            return Some(());
        }
        if used > BUCKETS as u64 {
            return None;
        }
        let min_ns = input.unsigned()?;
        let max_ns = min_ns.checked_add(input.unsigned()?)?;
        let mut at = 0usize;
        for i in 0..used {
            let gap = usize::try_from(input.unsigned()?).ok()?;
            if i > 0 && gap == 0 {
                return None;
            }
            at = at.checked_add(gap).filter(|a| *a < BUCKETS)?;
            let n = u32::try_from(input.unsigned()?).ok().filter(|n| *n > 0)?;
            self.counts[at] = self.counts[at].saturating_add(n);
            self.total = self.total.saturating_add(u64::from(n));
        }
        self.min_ns = self.min_ns.min(min_ns);
        self.max_ns = self.max_ns.max(max_ns);
        Some(())
    }
}

fn bucket_of(value_ns: u64) -> usize {
    if value_ns >> FIRST_OCTAVE == 0 {
        return 0;
    }
    let octave = 63 - value_ns.leading_zeros();
    if octave > LAST_OCTAVE {
        return BUCKETS - 1;
    }
    let within =
        (value_ns >> (octave - BUCKETS_PER_OCTAVE_LOG2)) as usize & (BUCKETS_PER_OCTAVE - 1);
    1 + (octave - FIRST_OCTAVE) as usize * BUCKETS_PER_OCTAVE + within
}

/// The smallest value that falls into `bucket`, ns.
fn lower_edge(bucket: usize) -> u64 {
    let Some(i) = bucket.checked_sub(1) else {
        return 0;
    };
    let octave = FIRST_OCTAVE + (i / BUCKETS_PER_OCTAVE) as u32;
    let within = (i % BUCKETS_PER_OCTAVE) as u64;
    (BUCKETS_PER_OCTAVE as u64 + within) << (octave - BUCKETS_PER_OCTAVE_LOG2)
}

fn middle_of(bucket: usize) -> u64 {
    let low = lower_edge(bucket);
    low + (lower_edge(bucket + 1) - low) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn buckets_meet_without_gap_or_overlap() {
        for b in 1..BUCKETS {
            assert_eq!(bucket_of(lower_edge(b)), b);
            assert_eq!(bucket_of(lower_edge(b) - 1), b - 1);
        }
        assert!(lower_edge(BUCKETS) > 100_000_000_000);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(
            values in proptest::collection::vec(1_000u64..100_000_000_000, 1..500),
            q in 0.0f64..=1.0,
        ) {
            let mut h = Histogram::new();
            let mut sorted = values.clone();
            sorted.sort_unstable();
            values.iter().for_each(|v| h.add(*v));
            let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
            let truth = sorted[rank - 1] as f64;
            let said = h.quantile(q).unwrap() as f64;
            prop_assert!((said - truth).abs() <= truth * 0.01, "{said} for {truth}");
        }

        #[test]
        fn merging_is_adding_and_bytes_keep_everything(
            a in proptest::collection::vec(any::<u64>(), 0..200),
            b in proptest::collection::vec(0u64..10_000_000, 0..200),
        ) {
            let build = |v: &[u64]| {
                let mut h = Histogram::new();
                v.iter().for_each(|x| h.add(*x));
                h
            };
            let mut merged = build(&a);
            merged.merge(&build(&b));
            let both: Vec<u64> = a.iter().chain(&b).copied().collect();
            prop_assert!(merged == build(&both));
            let mut bytes = [0; 8192];
            let mut w = Writer::new(&mut bytes);
            merged.encode(&mut w);
            let len = w.finish().unwrap();
            let back = Histogram::decode(&mut Reader::new(&bytes[..len]));
            let mut added = build(&b);
            added.merge_encoded(&mut Reader::new(&bytes[..len])).unwrap();
            prop_assert!(back.as_ref() == Some(&merged));
            merged.merge(&build(&b));
            prop_assert!(added == merged);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Histogram::decode(&mut Reader::new(&bytes));
        }
    }
}
