//! Mean and variance in one pass (Welford 1962; merging after Chan, Golub, LeVeque 1979).

use crate::varint::{Reader, Writer};

/// Count, mean and sum of squared deviations of values in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// No value.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: 0,
            mean: 0.0,
            squares: 0.0,
        }
    }

    /// One more value, ns.
    pub fn add(&mut self, value_ns: f64) {
        self.count += 1;
        let delta = value_ns - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (value_ns - self.mean);
    }

    /// All values of `other` too.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let count = self.count.saturating_add(other.count);
        let delta = other.mean - self.mean;
        let share = other.count as f64 / count as f64;
        let squares = other.squares + delta * delta * self.count as f64 * share;
        // What a damaged row says may be too much for a number; it stays one.
        self.squares = (self.squares + squares).min(f64::MAX);
        self.mean += delta * share;
        self.count = count;
    }

    /// How many values.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their mean, ns.
    #[must_use]
    pub fn mean_ns(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// Their population variance, ns².
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        (self.count > 0).then(|| (self.squares / self.count as f64).max(0.0))
    }

    /// Writes it: count, then mean and sum of squares as IEEE 754 doubles, little-endian.
    pub fn encode(&self, out: &mut Writer<'_>) {
        out.unsigned(self.count);
        if self.count > 0 {
            out.bytes(&self.mean.to_le_bytes());
            out.bytes(&self.squares.to_le_bytes());
        }
    }

    /// Reads what [`Moments::encode`] wrote.
    #[must_use]
    pub fn decode(input: &mut Reader<'_>) -> Option<Self> {
        let count = input.unsigned()?;
        if count == 0 {
            return Some(Self::default());
        }
        // Times are not negative, and their mean is one of them.
        let mut double = |most: f64| {
            let value = f64::from_le_bytes(*input.bytes(8)?.first_chunk::<8>()?);
            (0.0..=most).contains(&value).then_some(value)
        };
        Some(Self {
            count,
            mean: double(u64::MAX as f64)?,
            squares: double(f64::MAX)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_two_passes(
            a in proptest::collection::vec(0u32.., 0..100),
            b in proptest::collection::vec(0u32.., 1..100),
        ) {
            let mut m = Moments::default();
            a.iter().for_each(|v| m.add(f64::from(*v)));
            let mut n = Moments::default();
            b.iter().for_each(|v| n.add(f64::from(*v)));
            m.merge(&n);
            let all = || a.iter().chain(&b).map(|v| f64::from(*v));
            let count = all().count() as f64;
            let mean = all().sum::<f64>() / count;
            let variance = all().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
            prop_assert!((m.mean_ns().unwrap() - mean).abs() <= mean * 1e-9 + 1e-6);
            prop_assert!((m.variance().unwrap() - variance).abs() <= variance * 1e-6 + 1e-3);
        }
    }
}
