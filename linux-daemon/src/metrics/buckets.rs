//! A histogram with few fixed buckets, as those who collect it want them.

use super::fine::Fine;

/// Upper edges of the buckets, inclusive, ns; one more holds what is longer. From a quarter of a
/// millisecond, which tells a gateway by cable from one by radio, to the five seconds after which
/// nothing is waited for.
pub(super) const EDGES_NS: [u64; 22] = [
    250_000,
    500_000,
    1_000_000,
    2_000_000,
    3_000_000,
    5_000_000,
    7_500_000,
    10_000_000,
    15_000_000,
    20_000_000,
    30_000_000,
    40_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    150_000_000,
    200_000_000,
    300_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
];

/// See the module. Values go into their bucket exactly, which those of the store's finer histograms,
/// whose edges lie elsewhere, could not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buckets {
    counts: [u64; EDGES_NS.len() + 1],
    sum_ns: u128,
    fine: Fine,
}

impl Buckets {
    /// One more value.
    pub(super) fn add(&mut self, value_ns: u64) {
        self.counts[EDGES_NS.partition_point(|edge| *edge < value_ns)] += 1;
        self.sum_ns += u128::from(value_ns);
        self.fine.add(value_ns);
    }

    /// How many values there are.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, seconds.
    pub(crate) fn sum_s(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// The same values in many buckets.
    pub(crate) const fn fine(&self) -> &Fine {
        &self.fine
    }

    /// For each edge, in seconds and with a point always, as OpenMetrics writes such numbers, how many
    /// values are at most that long.
    pub(crate) fn cumulative_s(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let text = |edge_ns: Option<u64>| {
            edge_ns.map_or_else(|| "+Inf".to_owned(), |ns| format!("{:?}", ns as f64 / 1e9))
        };
        self.cumulative().map(move |(edge, n)| (text(edge), n))
    }

    /// For each edge (`None` is infinity) how many values are at most that long.
    fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let edges = EDGES_NS.into_iter().map(Some).chain([None]);
        edges.zip(&self.counts).scan(0, |sum, (edge, count)| {
            *sum += count;
            Some((edge, *sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_value_is_counted_at_every_edge_that_is_not_below_it(
            values in proptest::collection::vec(0u64..6_000_000_000, 0..200),
            at_edges in proptest::collection::vec(0..EDGES_NS.len(), 0..20),
        ) {
            let values: Vec<u64> = values
                .into_iter()
                .chain(at_edges.into_iter().map(|i| EDGES_NS[i]))
                .collect();
            let mut buckets = Buckets::default();
            values.iter().for_each(|v| buckets.add(*v));
            for (edge, said) in buckets.cumulative() {
                let truth = values.iter().filter(|v| edge.is_none_or(|e| **v <= e)).count();
                prop_assert_eq!(said, truth as u64);
            }
            prop_assert_eq!(buckets.count(), values.len() as u64);
            let sum_s = values.iter().sum::<u64>() as f64 / 1e9;
            prop_assert!((buckets.sum_s() - sum_s).abs() < 1e-6);
        }
    }
}
