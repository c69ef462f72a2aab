//! Variation of delay between packets that follow each other.

use crate::varint::{Reader, Writer};

/// Inter-packet delay variation (RFC 3393): the delay of a packet minus that of the one before it,
/// ns, both answered.
#[must_use]
pub const fn ipdv_ns(before_ns: u64, this_ns: u64) -> i64 {
    crate::time::signed_difference_ns(this_ns, before_ns)
}

/// Share of the old value that each pair of packets leaves.
const KEPT: f64 = 15.0 / 16.0;

/// The smoothed jitter of RFC 3550, section 6.4.1, over a stretch: `J += (|D| - J) / 16` for each
/// packet and the one before it, from 0 on.
///
/// Only its last value and the sum of all are kept. The filter is linear, so that two stretches make
/// up one without a packet being looked at again: what the first leaves behind fades through the
/// second as through any other packets. A largest value could not be had that way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rfc3550 {
    pairs: u64,
    last: f64,
    sum: f64,
}

impl Rfc3550 {
    /// No pair.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pairs: 0,
            last: 0.0,
            sum: 0.0,
        }
    }

    /// One more pair of packets, with their [`ipdv_ns`].
    pub fn add(&mut self, ipdv_ns: i64) {
        self.last += (ipdv_ns.unsigned_abs() as f64 - self.last) / 16.0;
        self.sum += self.last;
        self.pairs += 1;
    }

    /// Appends a stretch that follows. The pair across the border is neither's and comes first.
    pub fn merge(&mut self, later: &Self) {
        // A damaged row may hold anything; what was read has to be readable again.
        let later = later.after(self);
        self.pairs = self.pairs.saturating_add(later.pairs);
        self.last = later.last.min(f64::MAX);
        self.sum = (self.sum + later.sum).min(f64::MAX);
    }

    /// This stretch as it is where it does not begin at 0, but with what `before` ended with.
    #[must_use]
    pub fn after(&self, before: &Self) -> Self {
        let left = power(KEPT, self.pairs);
        Self {
            pairs: self.pairs,
            last: before.last * left + self.last,
            // The sum of the powers 1 to `pairs` of 15/16 is 15 (1 - (15/16)^pairs).
            sum: before.last * 15.0 * (1.0 - left) + self.sum,
        }
    }

    /// How many pairs of packets.
    #[must_use]
    pub const fn pairs(&self) -> u64 {
        self.pairs
    }

    /// The value after the last pair, ns.
    #[must_use]
    pub fn last_ns(&self) -> Option<u64> {
        (self.pairs > 0).then_some((self.last + 0.5) as u64)
    }

    /// The mean of the values after each pair, ns.
    #[must_use]
    pub fn mean_ns(&self) -> Option<u64> {
        (self.pairs > 0).then_some((self.sum / self.pairs as f64 + 0.5) as u64)
    }

    /// Writes it: pairs; where there are any, last value and sum as IEEE 754 doubles, little-endian.
    pub fn encode(&self, out: &mut Writer<'_>) {
        out.unsigned(self.pairs);
        if self.pairs > 0 {
            out.bytes(&self.last.to_le_bytes());
            out.bytes(&self.sum.to_le_bytes());
        }
    }

    /// Reads what [`Rfc3550::encode`] wrote.
    #[must_use]
    pub fn decode(input: &mut Reader<'_>) -> Option<Self> {
        let pairs = input.unsigned()?;
        if pairs == 0 {
            return Some(Self::default());
        }
        let mut double = || {
            let value = f64::from_le_bytes(*input.bytes(8)?.first_chunk::<8>()?);
            (value.is_finite() && value >= 0.0).then_some(value)
        };
        Some(Self {
            pairs,
            last: double()?,
            sum: double()?,
        })
    }
}

/// `base` to the power of `exponent`.
fn power(mut base: f64, mut exponent: u64) -> f64 {
    let mut product = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            product *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn of(ipdv: &[i64]) -> Rfc3550 {
        let mut j = Rfc3550::default();
        ipdv.iter().for_each(|d| j.add(*d));
        j
    }

    #[test]
    fn agrees_with_the_integer_code_of_the_rfc() {
        // RFC 3550, appendix A.8: jitter kept with four more bits.
        let ipdv: Vec<i64> = (0..1000).map(|i| (i * 7919 % 4001 - 2000) * 1000).collect();
        let mut scaled = 0u64;
        for d in &ipdv {
            scaled = scaled + d.unsigned_abs() - ((scaled + 8) >> 4);
        }
        let ours = of(&ipdv).last_ns().unwrap();
        assert!(ours.abs_diff(scaled >> 4) < 2, "{ours} {}", scaled >> 4);
    }

    #[test]
    fn what_a_damaged_row_claims_can_still_be_merged_and_read() {
        let absurd = Rfc3550 {
            pairs: u64::MAX,
            last: f64::MAX,
            sum: f64::MAX,
        };
        let mut merged = absurd;
        merged.merge(&absurd);
        let mut buffer = [0; 64];
        let mut out = Writer::new(&mut buffer);
        merged.encode(&mut out);
        let written = out.written().to_vec();
        assert_eq!(Rfc3550::decode(&mut Reader::new(&written)), Some(merged));
    }

    #[test]
    fn a_steady_delay_has_none_and_a_single_packet_does_not_say() {
        assert_eq!(ipdv_ns(5, 5), 0);
        assert_eq!(ipdv_ns(7, 5), -2);
        assert_eq!(of(&[0]).last_ns(), Some(0));
        assert_eq!((of(&[]).last_ns(), of(&[]).mean_ns()), (None, None));
    }

    #[test]
    fn sixteen_pairs_bring_it_to_two_thirds() {
        let j = of(&[1_000_000; 16]);
        assert_eq!(j.last_ns(), Some(643_926)); // 1 - (15/16)^16
        assert_eq!(j.mean_ns(), Some(396_319)); // 1 - 15 * 0.643926 / 16
    }

    proptest! {
        #[test]
        fn stretches_merge_as_if_there_were_no_border(
            ipdv in proptest::collection::vec(-1_000_000_000i64..1_000_000_000, 1..400),
            cuts in proptest::collection::vec(0usize..400, 2),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c % ipdv.len()).collect();
            cuts.sort_unstable();
            let parts = [&ipdv[..cuts[0]], &ipdv[cuts[0]..cuts[1]], &ipdv[cuts[1]..]];
            let mut from_the_left = of(parts[0]);
            from_the_left.merge(&of(parts[1]));
            from_the_left.merge(&of(parts[2]));
            let mut right = of(parts[1]);
            right.merge(&of(parts[2]));
            let mut from_the_right = of(parts[0]);
            from_the_right.merge(&right);
            let whole = of(&ipdv);
            for joined in [from_the_left, from_the_right] {
                prop_assert_eq!(joined.pairs(), whole.pairs());
                prop_assert!(joined.last_ns().unwrap().abs_diff(whole.last_ns().unwrap()) <= 1);
                prop_assert!(joined.mean_ns().unwrap().abs_diff(whole.mean_ns().unwrap()) <= 1);
            }
        }
    }
}
