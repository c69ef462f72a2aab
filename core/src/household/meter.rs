//! Counters of an interface over the last seconds, read at any instant between two readings.

use heapless::HistoryBuf;

use crate::time::Monotonic;

/// Readings that are kept: twelve seconds of ten a second.
const MARKS: usize = 128;
/// Readings further apart than this say nothing of what is between them, ns.
const GAP_NS: u64 = 1_500_000_000;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    marks: HistoryBuf<(Monotonic, [u64; 2]), MARKS>,
}

impl Meter {
    pub(super) const fn new() -> Self {
        Self {
            marks: HistoryBuf::new(),
        }
    }

    pub(super) fn newest(&self) -> Option<Monotonic> {
        self.marks.recent().map(|(at, _)| *at)
    }

    /// One reading: bytes sent and received; whether it follows on those before.
    pub(super) fn add(&mut self, at: Monotonic, sent: u64, received: u64) -> bool {
        if let Some((last, [s, r])) = self.marks.recent()
            && (at <= *last || sent < *s || received < *r)
        {
            return false;
        }
        self.marks.write((at, [sent, received]));
        true
    }

    /// Bytes sent and received between two instants, where both are known.
    pub(super) fn carried(&self, from_ns: u64, to_ns: u64) -> Option<[u64; 2]> {
        let (a, b) = (self.at(from_ns)?, self.at(to_ns)?);
        Some([b[0].checked_sub(a[0])?, b[1].checked_sub(a[1])?])
    }

    /// The counters at an instant, on the straight line between the readings round it.
    fn at(&self, ns: u64) -> Option<[u64; 2]> {
        let mut before: Option<(u64, [u64; 2])> = None;
        for (at, bytes) in self.marks.oldest_ordered() {
            let at = at.as_nanos();
            if at < ns {
                before = Some((at, *bytes));
                continue;
            }
            if at == ns {
                return Some(*bytes);
            }
            let (from, was) = before?;
            if at - from > GAP_NS {
                return None;
            }
            let part = |i: usize| {
                let more = u128::from(bytes[i] - was[i]) * u128::from(ns - from);
                was[i] + (more / u128::from(at - from)) as u64
            };
            return Some([part(0), part(1)]);
        }
        None
    }
}
