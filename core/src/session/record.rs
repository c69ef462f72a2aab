//! What a reflector remembers of one stream: which of the latest probes arrived, and when their
//! echoes left.

use zerocopy::FromZeros;

use crate::limits::RECEIVE_RECORD_BITS;
use crate::time::ClockSource;

const WORDS: usize = RECEIVE_RECORD_BITS / 64;

/// See the module. It belongs to the stream, not to a session, so it survives a new key. Zeroed memory
/// is an empty one.
#[derive(Clone, Copy, Debug, FromZeros)]
pub struct StreamRecord {
    pub(super) in_use: bool,
    /// Whose clocks the times in `tx_ns` are of; [`ClockSource::None`] where there is no such echo.
    tx_clocks: [ClockSource; 2],
    /// The place of the session that the latest probe came in.
    pub(super) session: u16,
    /// Of a place that was given back: the next such place.
    pub(super) next_free: u16,
    /// When its latest probe came.
    pub(super) used_ns: u64,
    /// Stamps from before this are those of a stream whose place this was.
    pub(super) stamps_from_ns: u64,
    /// Probes received, each once.
    pub(super) received: u64,
    /// The first probe there is a record of.
    first: u64,
    /// The probe after the highest received.
    next: u64,
    words: [u64; WORDS],
    /// The last two echoes whose transmit time is known, newest first, and when they left.
    tx_seqs: [u64; 2],
    tx_ns: [u64; 2],
}

/// When an echo left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    pub(super) seq: u64,
    pub(super) at_ns: u64,
    pub(super) clock: ClockSource,
}

impl Default for StreamRecord {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamRecord {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self::new_zeroed()
    }

    /// Probe `seq` arrived.
    pub(super) fn receive(&mut self, seq: u64) {
        let bits = RECEIVE_RECORD_BITS as u64;
        if self.received == 0 {
            self.first = seq;
            self.next = seq;
        }
        if seq >= self.next {
            if seq - self.next >= bits {
                self.words = [0; WORDS];
            } else {
                for s in self.next..seq {
                    self.words[Self::word(s)] &= !Self::bit(s);
                }
            }
            self.next = seq.saturating_add(1);
        } else if self.next - seq > bits {
            return;
        }
        self.words[Self::word(seq)] |= Self::bit(seq);
        self.received += 1;
    }

    /// The record of 64 probes and the number of the first of them, if all of it is remembered. It
    /// begins at `first`, a multiple of 64, or where the record itself begins: what became of probes
    /// before that is not known, and nothing is said of them.
    pub(super) fn record(&self, first: u64) -> Option<(u64, u64)> {
        let aligned = first.is_multiple_of(64);
        let first = first.max(self.first);
        let recent =
            first.saturating_add(RECEIVE_RECORD_BITS as u64) >= self.next.saturating_add(64);
        if !aligned || !recent || first >= self.next {
            return None;
        }
        let skipped = first % 64;
        let mut word = self.words[Self::word(first)] >> skipped;
        if skipped > 0 {
            word |= self.words[Self::word(first.saturating_add(64))] << (64 - skipped);
        }
        // What lies beyond the newest probe is left from a round before.
        let known = self.next - first;
        if known < 64 {
            word &= (1 << known) - 1;
        }
        Some((first, word))
    }

    /// The echo of probe `seq` left at `tx_ns`.
    pub(super) fn transmitted(&mut self, seq: u64, tx_ns: u64, clock: ClockSource) {
        if tx_ns < self.stamps_from_ns {
            return;
        }
        let is_newest = self.tx_clocks[0] != ClockSource::None && self.tx_seqs[0] == seq;
        if seq < self.next && !is_newest {
            self.tx_seqs = [seq, self.tx_seqs[0]];
            self.tx_ns = [tx_ns, self.tx_ns[0]];
            self.tx_clocks = [clock, self.tx_clocks[0]];
        }
    }

    /// The last two echoes whose transmit time is known, newest first; `None` where there is no such echo.
    pub(super) fn departures(&self) -> [Option<Departure>; 2] {
        [0, 1].map(|i| {
            let left = Departure {
                seq: self.tx_seqs[i],
                at_ns: self.tx_ns[i],
                clock: self.tx_clocks[i],
            };
            (left.clock != ClockSource::None).then_some(left)
        })
    }

    const fn word(seq: u64) -> usize {
        (seq / 64) as usize % WORDS
    }

    const fn bit(seq: u64) -> u64 {
        1 << (seq % 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn the_record_agrees_with_a_set(start in 0u64..200, steps in proptest::collection::vec(1u64..400, 1..100)) {
            let mut record = StreamRecord::new();
            let mut seen = BTreeSet::new();
            let mut seq = start;
            for step in steps {
                record.receive(seq);
                seen.insert(seq);
                for first in (0..seq + 64).step_by(64) {
                    if let Some((begin, word)) = record.record(first) {
                        prop_assert_eq!(begin, first.max(start));
                        let truth: Vec<bool> = (begin..begin + 64).map(|s| seen.contains(&s)).collect();
                        let said: Vec<bool> = (0..64).map(|i| word >> i & 1 == 1).collect();
                        prop_assert_eq!(said, truth);
                    } else {
                        prop_assert!(first > seq || seq - first > 4000);
                    }
                }
                seq += step;
            }
            prop_assert_eq!(record.received, seen.len() as u64);
        }
    }
}
