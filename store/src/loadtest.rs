//! A throughput test as it is kept: what was carried each way, and what became of latency.

use bufferbane_core::load::grade::Grade;
use redb::{ReadOnlyTable, ReadableTable};
use serde::{Deserialize, Serialize};

use crate::codec::from_json;
use crate::error::StoreError;
use crate::model::Direction;
use crate::reader::Reader;
use crate::tables::{TESTS, open_if_made};

/// A throughput test in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TestId(pub u64);

/// Three percentiles of a delay, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: u64,
    /// 90 % are not above it.
    pub p90: u64,
    /// 99 % are not above it.
    pub p99: u64,
}

/// A delay without load, under load, and how far the second lies above the first, percentile by
/// percentile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedDelay {
    /// Before the load.
    pub idle: Percentiles,
    /// During its steady part.
    pub loaded: Percentiles,
    /// The difference.
    pub increase: Percentiles,
}

impl LoadedDelay {
    /// The grade of what load does: of the rise of the 90th percentile. Where a queue fills and
    /// empties the median may hardly rise, while every tenth packet waits for the whole queue.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        Grade::of_increase(self.increase.p90)
    }
}

/// What a test is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams, as fast as the line lets them be.
    #[default]
    Tcp,
    /// Datagrams at a given rate, which says what becomes of them, and not what the line can carry.
    Udp,
}

impl Protocol {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What became of the datagrams of one direction, from the first to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagrams {
    /// The rate at which they were to be sent, bit/s of UDP payload.
    pub offered_bps: u64,
    /// UDP payload of each, bytes.
    pub size: u16,
    /// Datagrams that left the sender.
    pub sent: u64,
    /// Those that arrived, each once.
    pub received: u64,
    /// Those that the line lost: those that did not arrive; `None` where a host may have dropped some of them
    /// itself.
    pub lost: Option<u64>,
    /// Packets of whatever kind that the sending host dropped itself meanwhile of what was to leave by the same
    /// interface: a shaper does, and its queue is full. `None` where that is not known, so that some of `lost` may be
    /// among them.
    #[serde(default)]
    pub sender_drops: Option<u64>,
    /// Datagrams of whatever kind that the receiving host dropped itself meanwhile: its socket's buffer
    /// was full, or it had too much to do.
    #[serde(default)]
    pub receiver_drops: u64,
    /// Of those that arrived, those that came after one that was sent later.
    pub reordered: u64,
    /// Those that arrived once more.
    pub duplicated: u64,
}

/// One direction of a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestWay {
    /// Which.
    pub direction: Direction,
    /// TCP streams.
    pub streams: u8,
    /// Bytes that the receiver received, from the first stream to the last.
    pub bytes: u64,
    /// Mean of the steady part by the receiver's count, bit/s.
    pub mean_bps: u64,
    /// 10 % of its bins of 100 ms were not faster.
    pub p10_bps: u64,
    /// 90 % of them were not faster.
    pub p90_bps: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Sum of the senders' congestion windows at the end, bytes.
    pub cwnd_bytes: u64,
    /// Mean of their smoothed round-trip times at the end, µs.
    pub rtt_us: u64,
    /// Bytes received in each bin of 100 ms; the first begins with the load.
    pub bins: Vec<u32>,
    /// Delay of probes in this direction, above its floor.
    pub delay: LoadedDelay,
    /// What stood in the queue at the median increase and the mean rate, bytes.
    pub queue_bytes: u64,
    /// `A+` to `F` ([`LoadedDelay::grade`]).
    pub grade: String,
    /// Probes of the load phase that were lost in this direction.
    pub lost: u64,
    /// What others carried in this direction in the steady part, bit/s of frames, as far as the interface's counters
    /// show it; `None` where nobody looked: of a test of both directions or of datagrams.
    #[serde(default)]
    pub others_bps: Option<u64>,
    /// Of a test over UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagrams: Option<Datagrams>,
}

impl TestWay {
    /// What the line had to carry, bytes: what a line that is paid for is paid for.
    #[must_use]
    pub fn moved_bytes(&self) -> u64 {
        let sent = self.datagrams.map_or(0, |d| d.sent * u64::from(d.size));
        self.bytes.max(sent)
    }
}

/// Probes of 100 ms together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeBin {
    /// Median delay up above the floor, ns.
    pub up_ns: Option<u64>,
    /// Median delay down above the floor, ns.
    pub down_ns: Option<u64>,
    /// Median round-trip time, ns.
    pub rtt_ns: Option<u64>,
    /// Probes lost.
    pub lost: u32,
}

/// A reflector that was to make a test, and did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instead {
    /// Its name.
    pub reflector: String,
    /// Why it did not.
    pub why: String,
}

/// A throughput test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadTest {
    /// Boot and instants, ns since boot: from the first probe to the last.
    pub boot: u32,
    /// See `boot`.
    pub start_ns: u64,
    /// See `boot`.
    pub end_ns: u64,
    /// When streams began to carry.
    pub load_start_ns: u64,
    /// When they were ended.
    pub load_end_ns: u64,
    /// What of the load counts as steady begins this long after its start, ns.
    pub ramp_ns: u64,
    /// The interface.
    pub interface: String,
    /// The reflector's name.
    pub reflector: String,
    /// `up`, `down`, `both` or `rrul`.
    pub kind: String,
    /// What it was made of.
    #[serde(default)]
    pub protocol: Protocol,
    /// Who asked: `command` or `schedule`.
    pub asked_by: String,
    /// Congestion control of all streams; empty where there are none.
    pub congestion: String,
    /// Whether the load was ended early, because it had moved what the month's budget left.
    #[serde(default)]
    pub cut_short: bool,
    /// The reflectors that it stands in for, in the order in which they were asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instead_of: Vec<Instead>,
    /// What was carried, one or two directions.
    pub ways: Vec<TestWay>,
    /// Round-trip time of probes.
    pub rtt: LoadedDelay,
    /// Round-trip time of ICMP echoes to the reflector beside them, of `rrul`, where it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<LoadedDelay>,
    /// Round trips per minute under load, where they are known.
    pub rpm: Option<u32>,
    /// Whether the last seconds' values agree (draft-ietf-ippm-responsiveness).
    pub rpm_stable: bool,
    /// Which variant of the draft that is.
    pub rpm_variant: String,
    /// From the end of the load until latency was back, ns; `None`: it was not within the recovery
    /// phase.
    pub recovery_ns: Option<u64>,
    /// Probes in bins of 100 ms; the first begins with the test.
    pub probes: Vec<ProbeBin>,
}

/// Longer than any test, ns: so far apart may those be that overlap.
const OVERLAP_NS: u64 = 3_600_000_000_000;

impl Reader {
    /// Throughput tests that began in `[from, to)` of wall time, the oldest first, each with that
    /// time, ns since 1970.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tests(
        &self,
        from_ns: i64,
        to_ns: i64,
    ) -> Result<Vec<(TestId, i64, LoadTest)>, StoreError> {
        let mut tests = Vec::new();
        self.each_test(from_ns, to_ns, |id, at_ns, test| {
            tests.push((id, at_ns, test));
        })?;
        Ok(tests)
    }

    /// The same, one after the other: each takes kilobytes, and they are kept for ever.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn each_test(
        &self,
        from_ns: i64,
        to_ns: i64,
        mut each: impl FnMut(TestId, i64, LoadTest),
    ) -> Result<(), StoreError> {
        let Some(table) = open_if_made(&self.read()?, TESTS)? else {
            return Ok(());
        };
        for s in self.time_map().clip(from_ns, to_ns) {
            let from = (s.boot, s.from_ns.saturating_sub(OVERLAP_NS));
            let until = (s.boot, s.to_ns.saturating_add(OVERLAP_NS));
            for row in table.range(first_test(&table, from)?..)? {
                let (id, json) = row?;
                let test: LoadTest = from_json(json.value())?;
                if (test.boot, test.start_ns) >= until {
                    break;
                }
                if test.boot == s.boot && (s.from_ns..s.to_ns).contains(&test.start_ns) {
                    each(TestId(id.value()), s.wall_ns(test.start_ns), test);
                }
            }
        }
        Ok(())
    }

    /// Throughput tests of one boot that began `from_ns` after it or later, the oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tests_of_boot(&self, boot: u32, from_ns: u64) -> Result<Vec<LoadTest>, StoreError> {
        let mut tests = Vec::new();
        let Some(table) = open_if_made(&self.read()?, TESTS)? else {
            return Ok(tests);
        };
        let from = (boot, from_ns.saturating_sub(OVERLAP_NS));
        for row in table.range(first_test(&table, from)?..)? {
            let test: LoadTest = from_json(row?.1.value())?;
            if test.boot > boot {
                break;
            }
            if test.boot == boot && test.start_ns >= from_ns {
                tests.push(test);
            }
        }
        tests.sort_by_key(|t| t.start_ns);
        Ok(tests)
    }

    /// When the last throughput test of all boots before `boot` began, ns since 1970; `None` where there is
    /// none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_test_before(&self, boot: u32) -> Result<Option<i64>, StoreError> {
        let Some(table) = open_if_made(&self.read()?, TESTS)? else {
            return Ok(None);
        };
        let until = first_test(&table, (boot, 0))?;
        let Some(row) = table.range(..until)?.next_back() else {
            return Ok(None);
        };
        let test: LoadTest = from_json(row?.1.value())?;
        Ok(self.time_map().wall_ns(test.boot, test.start_ns))
    }
}

/// The number from which on all tests began at `wanted` or later, boot and ns since boot, give or take
/// some that overlap: they are numbered in the order in which they end. A month may hold a thousand,
/// kilobytes each, of which an hour has one.
fn first_test(
    table: &ReadOnlyTable<u64, &'static [u8]>,
    wanted: (u32, u64),
) -> Result<u64, StoreError> {
    /// When a test began.
    #[derive(Deserialize)]
    struct Begun {
        boot: u32,
        start_ns: u64,
    }
    let (Some(first), Some(last)) = (table.first()?, table.last()?) else {
        return Ok(0);
    };
    let (mut low, mut high) = (first.0.value(), last.0.value().saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        // Those that have been given up leave gaps.
        match table.range(middle..high)?.next().transpose()? {
            None => high = middle,
            Some((id, json)) => {
                let begun: Begun = from_json(json.value())?;
                if (begun.boot, begun.start_ns) < wanted {
                    low = id.value() + 1;
                } else {
                    high = middle;
                }
            }
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_median_does_not_hide_what_every_tenth_packet_waits() {
        let delay = |p50, p90| LoadedDelay {
            increase: Percentiles {
                p50,
                p90,
                p99: 10 * p90,
            },
            ..LoadedDelay::default()
        };
        let ms = 1_000_000;
        assert_eq!(delay(4 * ms, 149 * ms).grade(), Grade::C);
        assert_eq!(delay(4 * ms, 4 * ms).grade(), Grade::APlus);
    }
}
