//! How often which failure was the answer.

use crate::failure::Failure;
use crate::varint::{Reader, Writer};

/// Reasons that are told apart in one stretch; what else there is counts together.
pub const REASONS: usize = 12;

/// Counts by reason, in the order in which the reasons were met first. Rows that are damaged may say any
/// number, so counts saturate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    known: heapless::Vec<(Failure, u64), REASONS>,
    others: u64,
}

impl Failures {
    /// None at all.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            known: heapless::Vec::new(),
            others: 0,
        }
    }

    /// `n` more for this reason.
    pub fn add(&mut self, failure: Failure, n: u64) {
        match self.known.iter_mut().find(|(f, _)| *f == failure) {
            Some((_, count)) => *count = count.saturating_add(n),
            None => {
                if self.known.push((failure, n)).is_err() {
                    self.others = self.others.saturating_add(n);
                }
            }
        }
    }

    /// Those of a later stretch, too.
    pub fn merge(&mut self, later: &Self) {
        for (failure, n) in &later.known {
            self.add(*failure, *n);
        }
        self.others = self.others.saturating_add(later.others);
    }

    /// All of them.
    #[must_use]
    pub fn count(&self) -> u64 {
        let each = self.known.iter().map(|(_, n)| *n);
        each.fold(self.others, u64::saturating_add)
    }

    /// By reason.
    pub fn iter(&self) -> impl Iterator<Item = (Failure, u64)> + '_ {
        self.known.iter().copied()
    }

    /// Those for which there was no room.
    #[must_use]
    pub const fn others(&self) -> u64 {
        self.others
    }

    pub(super) fn encode(&self, w: &mut Writer<'_>) {
        w.unsigned(self.known.len() as u64);
        for (failure, n) in &self.known {
            w.unsigned(failure.code().into());
            w.unsigned(*n);
        }
        w.unsigned(self.others);
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Option<Self> {
        let mut all = Self::new();
        for _ in 0..r.unsigned()? {
            let failure = Failure::from_code(u16::try_from(r.unsigned()?).ok()?)?;
            if all.known.iter().any(|(f, _)| *f == failure) {
                return None;
            }
            all.known.push((failure, r.unsigned()?)).ok()?;
        }
        all.others = r.unsigned()?;
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_add_up_and_come_back(codes in proptest::collection::vec(1u16..30, 0..200), at in 0usize..200) {
            let of = |codes: &[u16]| {
                let mut all = Failures::new();
                codes.iter().for_each(|c| all.add(Failure::from_code(*c).unwrap(), 1));
                all
            };
            let (a, b) = codes.split_at(at.min(codes.len()));
            let (whole, mut merged) = (of(&codes), of(a));
            merged.merge(&of(b));
            prop_assert_eq!(merged.count(), codes.len() as u64);
            prop_assert_eq!(whole.count(), codes.len() as u64);
            let mut out = [0; 256];
            let mut w = Writer::new(&mut out);
            merged.encode(&mut w);
            let len = w.finish().unwrap();
            prop_assert_eq!(Failures::decode(&mut Reader::new(&out[..len])), Some(merged.clone()));
            // What a stretch could tell apart is told apart of both together.
            for (failure, n) in of(a).iter() {
                let now = merged.iter().find(|(f, _)| *f == failure).unwrap().1;
                prop_assert!(now >= n);
            }
        }
    }
}
