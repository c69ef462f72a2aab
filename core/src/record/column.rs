//! One column of numbers: frame of reference, bit-packed, with patched outliers.
//!
//! ```text
//! base      varint   smallest value
//! width     u8       bits of each packed value, 0 to 63
//! outliers  varint   how many values do not fit into `width` bits
//! packed    (count × width + 7) / 8 bytes, least significant bit first: low bits of value − base
//! then for each outlier: varint distance from the one before (from −1), varint high bits, not 0
//! ```

use crate::varint::{Reader, Writer};

/// Bytes an outlier is taken to cost when the width is chosen.
const OUTLIER_COST_BITS: u64 = 32;

/// Writes the values of `values`, which can be gone through more than once.
pub(super) fn encode<I>(values: &I, out: &mut Writer<'_>)
where
    I: Iterator<Item = u64> + Clone,
{
    let base = values.clone().min().unwrap_or(0);
    let width = best_width(values, base);
    let outliers = values.clone().filter(|v| (v - base) >> width != 0).count();
    out.unsigned(base);
    out.u8(width as u8);
    out.unsigned(outliers as u64);
    let mask = (1u64 << width) - 1;
    let mut bits = Bits {
        pending: 0,
        filled: 0,
    };
    for v in values.clone() {
        bits.push((v - base) & mask, width, out);
    }
    bits.flush(out);
    let mut before = None::<u64>;
    for (i, v) in (0u64..).zip(values.clone()) {
        let high = (v - base) >> width;
        if high != 0 {
            out.unsigned(before.map_or(i, |b| i - b - 1));
            out.unsigned(high);
            before = Some(i);
        }
    }
}

/// How many bytes [`encode`] writes for `values`.
pub(super) fn encoded_len<I>(values: &I) -> u64
where
    I: Iterator<Item = u64> + Clone,
{
    let base = values.clone().min().unwrap_or(0);
    let width = best_width(values, base);
    let (mut count, mut outliers, mut patches) = (0u64, 0u64, 0u64);
    let mut before = None::<u64>;
    for (i, v) in (0u64..).zip(values.clone()) {
        count += 1;
        let high = (v - base) >> width;
        if high != 0 {
            outliers += 1;
            patches += varint_len(before.map_or(i, |b| i - b - 1)) + varint_len(high);
            before = Some(i);
        }
    }
    let packed = (count * u64::from(width)).div_ceil(8);
    varint_len(base) + 1 + varint_len(outliers) + packed + patches
}

fn varint_len(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}

/// The width, 0 to 63, for which packed values and outliers together take the least room.
fn best_width<I: Iterator<Item = u64> + Clone>(values: &I, base: u64) -> u32 {
    let mut by_length = [0u32; 65];
    let mut count = 0u64;
    for v in values.clone() {
        by_length[(64 - (v - base).leading_zeros()) as usize] += 1;
        count += 1;
    }
    let mut best = (63, u64::MAX);
    let mut longer = u64::from(by_length[64]);
    for width in (0..64u32).rev() {
        let cost = count * u64::from(width) + longer * OUTLIER_COST_BITS;
        if cost <= best.1 {
            best = (width, cost);
        }
        longer += u64::from(by_length[width as usize]);
    }
    best.0
}

struct Bits {
    pending: u128,
    filled: u32,
}

impl Bits {
    fn push(&mut self, value: u64, width: u32, out: &mut Writer<'_>) {
        self.pending |= u128::from(value) << self.filled;
        self.filled += width;
        while self.filled >= 8 {
            out.u8(self.pending as u8);
            self.pending >>= 8;
            self.filled -= 8;
        }
    }

    fn flush(&mut self, out: &mut Writer<'_>) {
        if self.filled > 0 {
            out.u8(self.pending as u8);
        }
    }
}

/// Reads the values of one column, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Column<'a> {
    base: u64,
    width: u32,
    packed: &'a [u8],
    index: u64,
    outliers: Reader<'a>,
    outliers_left: u64,
    next_outlier: Option<(u64, u64)>,
}

impl<'a> Column<'a> {
    /// The column of `count` values that makes up the whole of `bytes`.
    pub(super) fn open(bytes: &'a [u8], count: usize) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let base = r.unsigned()?;
        let width = u32::from(r.u8()?);
        if width > 63 {
            return None;
        }
        let outliers_left = r.unsigned()?;
        if outliers_left > count as u64 {
            return None;
        }
        let packed = r.bytes((count * width as usize).div_ceil(8))?;
        let mut column = Self {
            base,
            width,
            packed,
            index: 0,
            outliers: r,
            outliers_left,
            next_outlier: None,
        };
        column.read_outlier(None)?;
        Some(column)
    }

    /// A column of `value` throughout: one that the block does not have.
    pub(super) fn constant(value: u64) -> Self {
        Self {
            base: value,
            width: 0,
            packed: &[],
            index: 0,
            outliers: Reader::new(&[]),
            outliers_left: 0,
            next_outlier: None,
        }
    }

    /// The next value; `None` where an outlier cannot be.
    pub(super) fn next(&mut self) -> Option<u64> {
        let at = self.index * u64::from(self.width);
        let first = (at / 8) as usize;
        let mut window = 0u128;
        for (i, b) in self.packed.iter().skip(first).take(9).enumerate() {
            window |= u128::from(*b) << (8 * i);
        }
        let mask = (1u64 << self.width) - 1;
        let mut value = (window >> (at % 8)) as u64 & mask;
        if let Some((index, high)) = self.next_outlier
            && index == self.index
        {
            value |= high << self.width;
            self.read_outlier(Some(index))?;
        }
        self.index += 1;
        self.base.checked_add(value)
    }

    fn read_outlier(&mut self, before: Option<u64>) -> Option<()> {
        self.next_outlier = None;
        if self.outliers_left > 0 {
            self.outliers_left -= 1;
            let gap = self.outliers.unsigned()?;
            let index = match before {
                None => gap,
                Some(b) => b.checked_add(gap)?.checked_add(1)?,
            };
            let high = self.outliers.unsigned()?;
            if high.leading_zeros() < self.width {
                return None;
            }
            self.next_outlier = Some((index, high));
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn values_round_trip(
            mut values in proptest::collection::vec(0u64..5_000_000, 0..300),
            wild in proptest::collection::vec((0usize..300, any::<u64>()), 0..8),
        ) {
            for (i, v) in wild {
                if let Some(slot) = values.get_mut(i) {
                    *slot = v;
                }
            }
            let mut bytes = vec![0; 8192];
            let mut w = Writer::new(&mut bytes);
            encode(&values.iter().copied(), &mut w);
            let len = w.finish().unwrap();
            prop_assert_eq!(encoded_len(&values.iter().copied()), len as u64);
            let mut column = Column::open(&bytes[..len], values.len()).unwrap();
            let back: Vec<u64> = values.iter().map(|_| column.next().unwrap()).collect();
            prop_assert_eq!(back, values);
        }
    }

    #[test]
    fn what_never_changes_takes_almost_nothing() {
        let mut bytes = [0; 16];
        let mut w = Writer::new(&mut bytes);
        encode(&core::iter::repeat_n(7u64, 1000), &mut w);
        assert_eq!(w.finish(), Some(3));
    }
}
