//! Losses that were reported without a direction, kept small until the far end's record says more.

use core::ops::DerefMut;

use crate::sample::{Sample, SeriesIndex};
use crate::time::{ClockSource, Monotonic};

/// Room for one loss whose direction is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossSlot {
    seq: u64,
    sent: Monotonic,
    send_late_ns: i64,
    size: u16,
    flags: u8,
    tx_clock: u8,
    waiting: bool,
}

/// A ring of them, oldest first, at most as many as the storage holds. When it is full the oldest
/// gives way: its direction stays unknown.
#[derive(Debug)]
pub(super) struct Losses<L> {
    ring: L,
    start: usize,
    len: usize,
}

impl<L: DerefMut<Target = [LossSlot]>> Losses<L> {
    pub(super) fn new(ring: L) -> Self {
        Self {
            ring,
            start: 0,
            len: 0,
        }
    }

    pub(super) fn push(&mut self, sample: &Sample) {
        let capacity = self.ring.len();
        if capacity == 0 {
            return;
        }
        if self.len == capacity {
            self.start = (self.start + 1) % capacity;
            self.len -= 1;
        }
        let end = (self.start + self.len) % capacity;
        self.ring[end] = LossSlot {
            seq: sample.seq,
            sent: sample.sent,
            send_late_ns: sample.send_late_ns,
            size: sample.size,
            flags: sample.flags.bits(),
            tx_clock: sample.tx_clock as u8,
            waiting: true,
        };
        self.len += 1;
    }

    /// The oldest loss that still waits for its direction.
    pub(super) fn oldest(&self) -> Option<u64> {
        (0..self.len)
            .map(|i| &self.ring[self.at(i)])
            .find(|l| l.waiting)
            .map(|l| l.seq)
    }

    /// When `seq` was sent, if it waits for its direction.
    pub(super) fn sent_at(&self, seq: u64) -> Option<Monotonic> {
        self.find(seq).map(|i| self.ring[i].sent)
    }

    /// The loss `seq`, which waits no longer.
    pub(super) fn take(&mut self, seq: u64, series: SeriesIndex) -> Option<Sample> {
        let index = self.find(seq)?;
        self.ring[index].waiting = false;
        let l = self.ring[index];
        self.trim();
        let mut sample = Sample::lost(series, l.seq, l.sent, l.size);
        sample.send_late_ns = l.send_late_ns;
        sample.flags = crate::sample::Flags::from_bits(l.flags);
        sample.tx_clock = ClockSource::from_u8(l.tx_clock).unwrap_or_default();
        Some(sample)
    }

    /// `seq` was answered after all.
    pub(super) fn forget(&mut self, seq: u64) {
        if let Some(index) = self.find(seq) {
            self.ring[index].waiting = false;
            self.trim();
        }
    }

    /// None before `seq` will learn its direction.
    pub(super) fn forget_before(&mut self, seq: u64) {
        while self.len > 0 && self.ring[self.start].seq < seq {
            self.start = (self.start + 1) % self.ring.len();
            self.len -= 1;
        }
        self.trim();
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    fn trim(&mut self) {
        while self.len > 0 && !self.ring[self.start].waiting {
            self.start = (self.start + 1) % self.ring.len();
            self.len -= 1;
        }
    }

    /// Losses are pushed in rising order, so a binary search finds them.
    fn find(&self, seq: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            let l = &self.ring[self.at(middle)];
            match l.seq.cmp(&seq) {
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
                core::cmp::Ordering::Equal => return l.waiting.then(|| self.at(middle)),
            }
        }
        None
    }

    fn at(&self, i: usize) -> usize {
        (self.start + i) % self.ring.len()
    }
}
