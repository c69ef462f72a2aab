//! The samples of one series that are not yet both in a sealed block and in a rollup.

use std::collections::VecDeque;

use bufferbane_core::limits::MAX_BLOCK_SAMPLES;
use bufferbane_core::record;
use bufferbane_core::sample::{Sample, Status};
use bufferbane_core::stats::summary::Summary;

use crate::floors::Floors;
use crate::tables::{HOUR_NS, MINUTE_NS};

/// Samples younger than this may still be joined by an older one: the probers' longest time-out.
pub(crate) const HOLD_BACK_NS: u64 = 13_000_000_000;

/// A block that is full is sealed: redb's pages are powers of two, so just under 16 KiB wastes least.
pub(crate) const BLOCK_BYTES: usize = 16_256;

/// Samples that a block is tried with first.
const BLOCK_SAMPLES: usize = 1024;

const _: () = assert!(BLOCK_SAMPLES <= MAX_BLOCK_SAMPLES);

/// Room for so many more samples is made at a time, and kept when samples go: left to itself a deque doubles its
/// room, and a series that waits for a little more than a block uses half of that.
const ROOM: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// Ordered by (sent, number).
    samples: VecDeque<Sample>,
    /// How many of `samples`, from the front, are in sealed blocks.
    sealed: usize,
    /// How many behind those may be, too: a commit that wrote them failed, see `writer::doubt`.
    doubtful: usize,
    /// Everything before this instant is in rollups.
    pub(crate) rolled_until_ns: u64,
    tail: InTail,
}

/// What the tail in the file has of the samples that are not sealed.
#[derive(Clone, Copy, Debug, Default)]
struct InTail {
    /// So many samples.
    count: usize,
    /// So many of those, from the front, have given way here.
    gone: usize,
    /// So many that follow them are the first ones here.
    same: usize,
}

/// What is to be said of a series in the next row of the tail.
#[derive(Debug)]
pub(crate) struct TailChange<'a> {
    pub(crate) gone: usize,
    pub(crate) kept: usize,
    pub(crate) samples: Vec<&'a Sample>,
}

/// Where in the file a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// In a sealed block.
    pub(crate) in_block: bool,
    /// Counted in rollups.
    pub(crate) in_rollup: bool,
}

impl Stored {
    /// What is no longer in memory is in both.
    pub(crate) const BOTH: Self = Self {
        in_block: true,
        in_rollup: true,
    };
}

/// A block that is ready to be written.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) first_ns: u64,
    pub(crate) samples: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Buffer {
    /// An empty one whose rollups reach `rolled_until_ns`.
    pub(crate) fn rolled_until(rolled_until_ns: u64) -> Self {
        Self {
            rolled_until_ns,
            ..Self::default()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    pub(crate) fn unsealed(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().skip(self.sealed)
    }

    /// Takes a sample at its place in time.
    pub(crate) fn insert(&mut self, sample: Sample) {
        let key = (sample.sent, sample.seq);
        let at = self.samples.partition_point(|s| (s.sent, s.seq) <= key);
        // What comes later than the hold-back allows goes behind what is sealed already.
        let at = at.max(self.sealed + self.doubtful);
        if self.samples.len() == self.samples.capacity() {
            // Where nothing can be written there are many, and each time they may all be copied.
            self.samples.reserve_exact(ROOM.max(self.samples.len() / 8));
        }
        self.samples.insert(at, sample);
        self.tail.same = self.tail.same.min(at - self.sealed);
    }

    /// Replaces the loss with the same number and send time, where it is here. Says what has to be
    /// changed in the file too.
    pub(crate) fn revise(&mut self, revised: &Sample) -> Stored {
        match self.position(revised) {
            Some(at) => {
                self.samples[at] = *revised;
                if let Some(at) = at.checked_sub(self.sealed) {
                    self.tail.same = self.tail.same.min(at);
                }
                Stored {
                    in_block: at < self.sealed,
                    in_rollup: !self.is_unrolled(revised),
                }
            }
            None => Stored::BOTH,
        }
    }

    /// The next `count` samples are in blocks, or they are not.
    pub(crate) const fn doubt(&mut self, count: usize) {
        self.doubtful = count;
    }

    /// How many of those are left.
    pub(crate) const fn doubtful(&self) -> usize {
        self.doubtful
    }

    /// Whether the sample is one of those, or may have been.
    pub(crate) fn is_doubtful(&self, sample: &Sample) -> bool {
        self.position(sample)
            .is_none_or(|at| at < self.sealed + self.doubtful)
    }

    /// Whether the sample is here and still waits to be rolled up.
    pub(crate) fn is_unrolled(&self, sample: &Sample) -> bool {
        sample.sent.as_nanos() >= self.rolled_until_ns && self.position(sample).is_some()
    }

    fn position(&self, sample: &Sample) -> Option<usize> {
        let from = self.samples.partition_point(|s| s.sent < sample.sent);
        self.samples
            .iter()
            .skip(from)
            .take_while(|s| s.sent == sample.sent)
            .position(|s| s.seq == sample.seq && s.status != Status::Duplicate)
            .map(|i| i + from)
    }

    /// The blocks that can be sealed now: full ones of samples that nothing older can join any more;
    /// with `all`, everything.
    pub(crate) fn seal(&self, newest_ns: u64, all: bool) -> Vec<Sealed> {
        let mature_before = newest_ns.saturating_sub(HOLD_BACK_NS);
        let mut blocks = Vec::new();
        let mut rest: &[Sample] = &self.unsealed().copied().collect::<Vec<_>>();
        loop {
            let mature = if all {
                rest.len()
            } else {
                rest.partition_point(|s| s.sent.as_nanos() < mature_before)
            };
            if mature == 0 || (!all && mature < BLOCK_SAMPLES) {
                return blocks;
            }
            let (samples, bytes) = pack(&rest[..mature.min(BLOCK_SAMPLES)]);
            blocks.push(Sealed {
                first_ns: rest[0].sent.as_nanos(),
                samples,
                bytes,
            });
            rest = &rest[samples..];
        }
    }

    /// The minutes that are complete, with their summaries; with `all`, those that are not as well.
    /// Each begins at a multiple of a minute since boot.
    pub(crate) fn minutes(
        &self,
        newest_ns: u64,
        all: bool,
        floors: &Floors,
    ) -> Vec<(u64, Summary)> {
        let until = if all {
            u64::MAX
        } else {
            self.next_rolled_until(newest_ns)
        };
        let mut minutes: Vec<(u64, Summary)> = Vec::new();
        for s in &self.samples {
            let sent_ns = s.sent.as_nanos();
            if sent_ns < self.rolled_until_ns || sent_ns >= until {
                continue;
            }
            let begin = sent_ns - sent_ns % MINUTE_NS;
            match minutes.last_mut() {
                Some((b, summary)) if *b == begin => floors.add_to(summary, s),
                _ => {
                    let mut summary = Summary::new();
                    floors.add_to(&mut summary, s);
                    minutes.push((begin, summary));
                }
            }
        }
        minutes
    }

    /// Up to where rollups are to reach at `newest_ns`: at most to the begin of the minute that may still
    /// grow.
    pub(crate) fn next_rolled_until(&self, newest_ns: u64) -> u64 {
        let mature = newest_ns.saturating_sub(HOLD_BACK_NS);
        // Those that are not rolled up stay in memory, sealed or not.
        let rolled = |s: &Sample| s.sent.as_nanos() < self.rolled_until_ns;
        let waiting = self.samples.len() - self.samples.partition_point(rolled);
        // Each commit with rows of minutes writes a page for each series anew: where fewer than a block wait,
        // only an hour that is over is rolled up, and until then a reader sums up the samples themselves.
        let step = if waiting < BLOCK_SAMPLES {
            HOUR_NS
        } else {
            MINUTE_NS
        };
        self.rolled_until_ns.max(mature - mature % step)
    }

    /// `sealed` more samples are in blocks, and rollups reach `rolled_until_ns`: forgets what is no
    /// longer needed.
    pub(crate) fn settle(&mut self, sealed: usize, rolled_until_ns: u64) {
        self.sealed += sealed;
        self.doubtful = 0;
        self.rolled_until_ns = rolled_until_ns;
        while self.sealed > 0
            && self
                .samples
                .front()
                .is_some_and(|s| s.sent.as_nanos() < rolled_until_ns)
        {
            self.samples.pop_front();
            self.sealed -= 1;
        }
        self.samples.shrink_to(self.samples.len() + ROOM);
        let count = self.samples.len() - self.sealed;
        self.tail = InTail {
            count,
            gone: 0,
            same: count,
        };
    }

    /// What the tail in the file lacks, or has too much, when `sealed` more samples are in blocks and
    /// rollups reach `rolled_until_ns`; `None` where that is nothing.
    pub(crate) fn tail_change(
        &self,
        sealed: usize,
        rolled_until_ns: u64,
    ) -> Option<TailChange<'_>> {
        let InTail { count, gone, same } = self.tail;
        let sealed_there = sealed.min(same);
        let (gone, kept) = (gone + sealed_there, same - sealed_there);
        let samples: Vec<&Sample> = self.unsealed().skip(sealed + kept).collect();
        let is_new = !samples.is_empty()
            || gone + kept != count
            || gone > 0
            || rolled_until_ns != self.rolled_until_ns;
        is_new.then_some(TailChange {
            gone,
            kept,
            samples,
        })
    }

    /// Drops the oldest samples until at most `most` are left; says how many that were. Only for
    /// when nothing can be written.
    pub(crate) fn shed(&mut self, most: usize) -> u64 {
        let mut shed = 0;
        while self.samples.len() > most {
            self.samples.pop_front();
            shed += u64::from(self.sealed == 0);
            if self.sealed == 0 && self.tail.same > 0 {
                self.tail.same -= 1;
                self.tail.gone += 1;
            }
            if self.sealed > 0 {
                self.sealed -= 1;
            } else {
                self.doubtful = self.doubtful.saturating_sub(1);
            }
        }
        shed
    }

    pub(crate) fn oldest_ns(&self) -> Option<u64> {
        self.samples.front().map(|s| s.sent.as_nanos())
    }

    pub(crate) fn newest_ns(&self) -> Option<u64> {
        self.samples.back().map(|s| s.sent.as_nanos())
    }
}

/// Packs as many of `samples` as fit into one block, but never splits those sent at one instant.
fn pack(samples: &[Sample]) -> (usize, Vec<u8>) {
    let mut out = vec![0; 64 << 10];
    let mut count = samples.len();
    loop {
        while count < samples.len() && count > 1 && samples[count - 1].sent == samples[count].sent {
            count -= 1;
        }
        match record::encode(&samples[..count], &mut out) {
            Some(len) if len <= BLOCK_BYTES || count == 1 => {
                out.truncate(len);
                return (count, out);
            }
            Some(len) => count = (count * BLOCK_BYTES / len).clamp(1, count - 1),
            None => count /= 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_core::sample::SeriesIndex;
    use bufferbane_core::time::Monotonic;

    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn there_is_little_more_room_than_samples() {
        let mut buffer = Buffer::default();
        let (mut most, mut sealed_in_all) = (0, 0);
        for i in 0..10_000 {
            let sent = Monotonic::from_nanos(i * S);
            buffer.insert(Sample::lost(SeriesIndex(1), i, sent, 64));
            most = most.max(buffer.samples.capacity());
            if i % 60 == 0 {
                let sealed = buffer.seal(i * S, false).iter().map(|b| b.samples).sum();
                sealed_in_all += sealed;
                buffer.settle(sealed, buffer.next_rolled_until(i * S));
                assert!(buffer.samples.capacity() <= buffer.len() + ROOM);
            }
        }
        assert!(
            sealed_in_all > 8000 && most < BLOCK_SAMPLES + 2 * ROOM,
            "{most}"
        );
    }
}
