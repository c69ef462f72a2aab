//! A histogram with eight buckets to the octave, which take room only where values are: what Prometheus
//! calls a native histogram.

/// Each bucket ends at the one before times 2 to the power of 2 to the power of minus this.
pub(crate) const SCHEMA: i32 = 3;

/// See the module. Bucket n holds what is above 2^((n − 1) / 8) s and at most 2^(n / 8) s.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fine {
    /// Values of 0.
    zeros: u64,
    /// The first bucket of `counts`.
    first: i32,
    /// From the first one that is not empty to the last: fewer than 550, as values are of 64 bits.
    counts: Vec<u64>,
}

impl Fine {
    /// One more value.
    pub(super) fn add(&mut self, value_ns: u64) {
        if value_ns == 0 {
            self.zeros += 1;
            return;
        }
        let bucket = bucket_of(value_ns);
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let more = (self.first - bucket) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.first = bucket;
        }
        let place = (bucket - self.first) as usize;
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
    }

    /// How many values were 0.
    pub(crate) const fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Runs of buckets that are not empty: the first one's number, and the counts.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (i32, &[u64])> {
        let mut at = self.first;
        self.counts
            .chunk_by(|a, b| (*a == 0) == (*b == 0))
            .filter_map(move |run| {
                let first = at;
                at += run.len() as i32;
                (run[0] > 0).then_some((first, run))
            })
    }
}

fn bucket_of(value_ns: u64) -> i32 {
    let octaves = (value_ns as f64 / 1e9).log2();
    (octaves * f64::from(1 << SCHEMA)).ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_value_is_in_the_bucket_whose_edges_are_about_it(
            values in proptest::collection::vec(prop_oneof![Just(0), 1u64..100, any::<u64>(),
                100_000u64..9_000_000_000], 0..100),
        ) {
            let mut fine = Fine::default();
            values.iter().for_each(|v| fine.add(*v));
            let zeros = values.iter().filter(|v| **v == 0).count() as u64;
            prop_assert_eq!(fine.zeros(), zeros);
            let mut told = 0;
            let mut last = i32::MIN;
            for (first, counts) in fine.runs() {
                prop_assert!(first > last, "runs touch: {first} after {last}");
                for (n, count) in (first..).zip(counts) {
                    // What lies within rounding of an edge may be on either side of it.
                    let edge = |n: i32| (f64::from(n) / 8.0).exp2();
                    let most = values.iter().filter(|v| {
                        let s = **v as f64 / 1e9;
                        s > edge(n - 1) * (1.0 - 1e-12) && s <= edge(n) * (1.0 + 1e-12)
                    });
                    prop_assert!(*count > 0 && *count <= most.count() as u64, "bucket {n}");
                    told += count;
                    last = n + 1;
                }
            }
            prop_assert_eq!(told + zeros, values.len() as u64);
        }
    }

    #[test]
    fn powers_of_two_are_edges_and_belong_below() {
        let bucket = |ns| bucket_of(ns);
        assert_eq!((bucket(1_000_000_000), bucket(1_000_000_001)), (0, 1));
        assert_eq!((bucket(500_000_000), bucket(500_000_001)), (-8, -7));
        assert_eq!(bucket(4_000_000_000), 16);
    }
}
