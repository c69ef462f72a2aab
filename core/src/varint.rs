//! Numbers in as few bytes as they need: LEB128, and signed ones folded by zigzag.

/// Writes into a lent slice, and remembers whether everything fitted.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
    overflowed: bool,
}

impl<'a> Writer<'a> {
    /// Writes from the begin of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self {
            out,
            len: 0,
            overflowed: false,
        }
    }

    /// One byte.
    pub fn u8(&mut self, byte: u8) {
        match self.out.get_mut(self.len) {
            Some(slot) => {
                *slot = byte;
                self.len += 1;
            }
            None => self.overflowed = true,
        }
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.u8(b);
        }
    }

    /// An unsigned number, 1 to 10 bytes.
    pub fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    /// A signed number, 1 to 10 bytes.
    pub fn signed(&mut self, value: i64) {
        self.unsigned(zigzag(value));
    }

    /// How many bytes are written; `None` where some did not fit.
    #[must_use]
    pub const fn finish(&self) -> Option<usize> {
        if self.overflowed {
            None
        } else {
            Some(self.len)
        }
    }

    /// What has been written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.out[..self.len]
    }
}

/// Reads what [`Writer`] wrote; every method gives `None` where the bytes end or make no number.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the begin of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What has not been read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(head)
    }

    /// An unsigned number.
    pub fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A signed number.
    pub fn signed(&mut self) -> Option<i64> {
        self.unsigned().map(unzigzag)
    }
}

/// Folds a signed number so that small ones of either sign are small: 0, -1, 1, -2 → 0, 1, 2, 3.
#[must_use]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The reverse of [`zigzag`].
#[must_use]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(u: u64, i: i64) {
            let mut buffer = [0; 20];
            let mut w = Writer::new(&mut buffer);
            w.unsigned(u);
            w.signed(i);
            let len = w.finish().unwrap();
            let mut r = Reader::new(&buffer[..len]);
            prop_assert_eq!((r.unsigned(), r.signed()), (Some(u), Some(i)));
            prop_assert!(r.rest().is_empty());
        }
    }

    #[test]
    fn what_does_not_fit_or_ends_early_is_noticed() {
        let mut small = [0; 1];
        let mut w = Writer::new(&mut small);
        w.unsigned(300);
        assert_eq!(w.finish(), None);
        assert_eq!(Reader::new(&[0x80]).unsigned(), None);
        assert_eq!(Reader::new(&[0xff; 10]).unsigned(), None);
        assert_eq!(Reader::new(&[1, 2]).bytes(3), None);
    }
}
