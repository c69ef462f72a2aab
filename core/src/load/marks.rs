//! In-band response time of a loaded stream: from when a byte was handed to the kernel until the
//! receiver's count that includes it has come back on the same connection.

use heapless::Deque;

use crate::time::Monotonic;

/// Marks remembered of one stream. Where they do not suffice, the oldest are given up.
pub const MAX_MARKS: usize = 1024;

/// When which bytes of one stream were handed to the kernel.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    marks: Deque<(u64, Monotonic), MAX_MARKS>,
    /// The mark that was passed last.
    passed: Option<(u64, Monotonic)>,
}

impl Marks {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            marks: Deque::new(),
            passed: None,
        }
    }

    /// At `now` the stream's bytes up to `offset` have been handed over.
    pub fn handed_over(&mut self, offset: u64, now: Monotonic) {
        if self.marks.is_full() {
            self.passed = self.marks.pop_front();
        }
        let _ = self.marks.push_back((offset, now));
    }

    /// At `now` the receiver's count of `received` bytes has come: how long ago the last of them was
    /// handed over, ns. Between two marks bytes count as handed over evenly.
    pub fn received(&mut self, received: u64, now: Monotonic) -> Option<u64> {
        while let Some(&(offset, at)) = self.marks.front() {
            if offset >= received {
                let (from, begun) = self.passed?;
                let part = received.checked_sub(from)?;
                let whole = (offset - from).max(1);
                let span_ns = at.saturating_since(begun);
                let ns = u128::from(span_ns) * u128::from(part) / u128::from(whole);
                let handed = begun.saturating_add(u64::try_from(ns).ok()?);
                return Some(now.saturating_since(handed));
            }
            self.passed = Some((offset, at));
            self.marks.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ns: u64) -> Monotonic {
        Monotonic::from_nanos(ns)
    }

    #[test]
    fn between_marks_bytes_leave_evenly() {
        let mut m = Marks::new();
        m.handed_over(100, at(1000));
        m.handed_over(200, at(2000));
        m.handed_over(300, at(3000));
        // Before the first mark nobody knows.
        assert_eq!(m.received(50, at(5000)), None);
        assert_eq!(m.received(150, at(5000)), Some(3500));
        assert_eq!(m.received(200, at(5000)), Some(3000));
        assert_eq!(m.received(300, at(5000)), Some(2000));
        assert_eq!(m.received(301, at(5000)), None);
    }

    #[test]
    fn the_oldest_marks_give_way() {
        let mut m = Marks::new();
        for i in 1..=2000 {
            m.handed_over(i * 10, at(i * 10));
        }
        assert_eq!(m.received(100, at(30_000)), None);
        assert_eq!(m.received(15_005, at(30_000)), Some(14_995));
    }
}
