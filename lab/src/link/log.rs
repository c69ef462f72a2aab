//! What a line remembers: packets up to a limit, and for ever what passed in each tenth of a second.

use std::collections::VecDeque;

use super::passage::{Fate, Flow, Passage, Way};

/// Which packets are written down one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Every IP packet.
    All,
    /// ICMP echoes and UDP, which is what probes are: for lines that carry much TCP beside them.
    Probes,
    /// None; bins are kept all the same.
    None,
}

impl Record {
    const fn wants(self, flow: Flow) -> bool {
        match self {
            Self::All => true,
            Self::Probes => matches!(flow, Flow::Echo(..) | Flow::Udp(..)),
            Self::None => false,
        }
    }
}

/// How much time a bin covers, ns.
pub const BIN_NS: i64 = 100_000_000;
/// Most packets that are remembered one by one (some 100 MB); what comes after is counted only.
pub const MAX_PACKETS: usize = 1 << 20;
/// Most bins that are remembered: a day's of both directions.
const MAX_BINS: usize = 2 * 864_000;
const CHUNK: usize = 4096;

/// What one direction did with the packets that left or were dropped in [`BIN_NS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    /// Which way.
    pub way: Way,
    /// When it begins, `CLOCK_REALTIME`, ns.
    pub at_ns: i64,
    /// Delivered packets.
    pub packets: u64,
    /// Their frames, bytes.
    pub bytes: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets lost in an outage.
    pub outage: u64,
    /// Packets that did not fit into the buffer.
    pub buffer: u64,
    /// Packets that were larger than the line takes.
    pub large: u64,
    /// Packets that the far interface refused.
    pub refused: u64,
    /// How long the delivered packets waited, all together, ns.
    pub queue_sum_ns: u64,
    /// How long one of them waited at most, ns.
    pub queue_max_ns: u64,
}

#[derive(Debug)]
pub(super) struct Log {
    record: Record,
    /// In chunks, so that a full one is never copied to a larger place.
    chunks: VecDeque<Vec<Passage>>,
    packets: usize,
    left_out: u64,
    missed: u64,
    bins: VecDeque<Bin>,
}

impl Log {
    pub(super) const fn new(record: Record) -> Self {
        Self {
            record,
            chunks: VecDeque::new(),
            packets: 0,
            left_out: 0,
            missed: 0,
            bins: VecDeque::new(),
        }
    }

    pub(super) const fn set_record(&mut self, record: Record) {
        self.record = record;
    }

    pub(super) const fn add_missed(&mut self, frames: u64) {
        self.missed += frames;
    }

    pub(super) const fn missed(&self) -> u64 {
        self.missed
    }

    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Adds a packet that left or was dropped at `now_ns`.
    pub(super) fn add(&mut self, passage: &Passage, now_ns: i64) {
        self.count(passage, now_ns);
        if !self.record.wants(passage.flow) {
            return;
        }
        if self.packets == MAX_PACKETS {
            self.left_out += 1;
            return;
        }
        if self.chunks.back().is_none_or(|c| c.len() == CHUNK) {
            self.chunks.push_back(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push(*passage);
            self.packets += 1;
        }
    }

    fn count(&mut self, passage: &Passage, now_ns: i64) {
        let at_ns = now_ns - now_ns.rem_euclid(BIN_NS);
        // The two directions take turns, so the bin is one of the last two.
        let found = self
            .bins
            .iter_mut()
            .rev()
            .take(2)
            .find(|b| b.way == passage.way && b.at_ns >= at_ns);
        let bin = match found {
            Some(bin) => bin,
            None => {
                if self.bins.len() == MAX_BINS {
                    self.bins.pop_front();
                }
                self.bins.push_back(Bin {
                    way: passage.way,
                    at_ns,
                    packets: 0,
                    bytes: 0,
                    lost: 0,
                    outage: 0,
                    buffer: 0,
                    large: 0,
                    refused: 0,
                    queue_sum_ns: 0,
                    queue_max_ns: 0,
                });
                let last = self.bins.len() - 1;
                &mut self.bins[last]
            }
        };
        match passage.fate {
            Fate::Delivered(_) => {
                bin.packets += 1;
                bin.bytes += u64::from(passage.bytes);
                bin.queue_sum_ns += passage.queue_ns;
                bin.queue_max_ns = bin.queue_max_ns.max(passage.queue_ns);
            }
            Fate::Lost => bin.lost += 1,
            Fate::Outage => bin.outage += 1,
            Fate::Buffer => bin.buffer += 1,
            Fate::Large => bin.large += 1,
            Fate::Refused => bin.refused += 1,
        }
    }

    pub(super) fn packets(&self) -> Vec<Passage> {
        self.chunks.iter().flatten().copied().collect()
    }

    pub(super) fn take(&mut self) -> Vec<Vec<Passage>> {
        self.packets = 0;
        self.chunks.drain(..).collect()
    }

    pub(super) fn bins(&self) -> Vec<Bin> {
        self.bins.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(way: Way, flow: Flow, fate: Fate) -> Passage {
        Passage {
            flow,
            fate,
            queue_ns: 5,
            ..Passage::arrived(way, 0, 100)
        }
    }

    #[test]
    fn a_log_ends_at_its_limit_and_bins_go_on() {
        let mut log = Log::new(Record::Probes);
        let udp = packet(Way::Up, Flow::Udp(1, 2, 3), Fate::Delivered(0));
        for i in 0..MAX_PACKETS + 10 {
            log.add(&udp, i as i64);
        }
        log.add(&packet(Way::Up, Flow::Tcp(1, 2), Fate::Buffer), 0);
        assert_eq!((log.packets().len(), log.left_out()), (MAX_PACKETS, 10));
        let bins = log.bins();
        assert_eq!(bins.len(), 1);
        assert_eq!(
            (bins[0].packets, bins[0].buffer),
            (MAX_PACKETS as u64 + 10, 1)
        );

        let taken: usize = log.take().iter().map(Vec::len).sum();
        assert_eq!((taken, log.packets().len()), (MAX_PACKETS, 0));
        log.add(&udp, 0);
        assert_eq!(log.packets().len(), 1);
    }

    #[test]
    fn each_way_has_its_own_bins() {
        let mut log = Log::new(Record::None);
        for i in 0..10 {
            let at = i * BIN_NS / 2;
            for way in Way::BOTH {
                log.add(&packet(way, Flow::Other, Fate::Lost), at);
            }
        }
        assert!(log.packets().is_empty());
        for way in Way::BOTH {
            let bins: Vec<_> = log.bins().into_iter().filter(|b| b.way == way).collect();
            assert_eq!(bins.len(), 5);
            assert!(
                bins.iter()
                    .zip(0..)
                    .all(|(b, i)| b.at_ns == i * BIN_NS && b.lost == 2)
            );
        }
    }
}
