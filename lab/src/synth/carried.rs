//! What made-up uplinks carry, and what tests of them find.

use bufferbane_core::household::{Class, Minute};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{
    Capacity, Direction, LoadTest, LoadedDelay, Method, Percentiles, ProbeBin, StoreError, TestWay,
    Writer,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::BEGIN_NS;
use super::line::{Kind, Line, Load};

const S: u64 = 1_000_000_000;
/// Length of a row of load, ns.
const MINUTE_NS: u64 = 60 * S;
/// A test is made so often, up and down in turn, ns.
const TEST_NS: u64 = 3_600 * S;
/// Between begin and load, and between load and end, ns.
const IDLE_NS: u64 = 2 * S;
/// Length of the load, ns.
const LOAD_NS: u64 = 8 * S;
/// Length of a bin of a test, ns.
const BIN_NS: u64 = 100_000_000;

/// One uplink's traffic.
pub(super) struct Carried<'a> {
    line: &'a Line,
    rng: ChaCha8Rng,
    /// What it can carry up and down, bit/s.
    capacity_bps: [u64; 2],
    next_minute: u64,
    next_test: u64,
    tests: u64,
}

impl<'a> Carried<'a> {
    pub(super) fn new(line: &'a Line, seed: u64) -> Self {
        Self {
            line,
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0xca11),
            capacity_bps: if line.interface_kind == "wired" {
                [10_400_000, 52_000_000]
            } else {
                [4_800_000, 21_000_000]
            },
            next_minute: MINUTE_NS,
            next_test: TEST_NS / 2,
            tests: 0,
        }
    }

    /// Writes what has become known up to `at_ns` after the begin.
    pub(super) fn write(&mut self, writer: &mut Writer, at_ns: u64) -> Result<(), StoreError> {
        while self.next_minute <= at_ns {
            let begin_ns = self.next_minute - MINUTE_NS;
            self.next_minute += MINUTE_NS;
            if !self.is(begin_ns, |k| k == Kind::Silence) {
                let minute = self.minute(begin_ns);
                let begin = Monotonic::from_nanos(BEGIN_NS + begin_ns);
                writer.load_minute(begin, &self.line.interface, &minute)?;
            }
        }
        while self.next_test <= at_ns {
            let begin_ns = self.next_test;
            self.next_test += TEST_NS;
            // Nobody tests a line that is used, or dead, or not watched.
            if !self.is(begin_ns, |_| true) {
                self.test(writer, begin_ns);
            }
        }
        Ok(())
    }

    fn is(&self, at_ns: u64, wanted: impl Fn(Kind) -> bool) -> bool {
        let episodes = self.line.episodes.iter();
        let mut now = episodes.filter(|e| (e.from_ns..e.to_ns).contains(&at_ns));
        now.any(|e| wanted(e.kind))
    }

    fn below(&mut self, n: u64) -> u64 {
        (u64::from(self.rng.next_u32()) * n) >> 32
    }

    fn minute(&mut self, begin_ns: u64) -> Minute {
        let mut minute = Minute::new();
        minute.sees_household = true;
        let episodes = self.line.episodes.iter();
        let busy: Vec<_> = episodes
            .filter(|e| e.from_ns < begin_ns + MINUTE_NS && e.to_ns > begin_ns)
            .collect();
        for second in 0..60 {
            let at_ns = begin_ns + second * S;
            for (i, load) in [Load::Up, Load::Down].into_iter().enumerate() {
                let used = busy
                    .iter()
                    .find(|e| e.kind == Kind::Busy(load) && (e.from_ns..e.to_ns).contains(&at_ns));
                let queue_ns = used.map_or(200_000, |e| e.queue_at(at_ns) as u64);
                let (class, rate_bps) = if used.is_some() {
                    let full = self.capacity_bps[i];
                    (Class::Full, full - self.below(full / 20))
                } else {
                    (Class::Idle, self.below(90_000))
                };
                let way = if i == 0 {
                    &mut minute.up
                } else {
                    &mut minute.down
                };
                way.add_rate(rate_bps);
                let waited_ns = queue_ns + self.below(queue_ns / 5 + 300_000);
                way.add_queue(class, waited_ns);
                way.standing_s += u32::from(class == Class::Full);
            }
        }
        minute
    }

    fn test(&mut self, writer: &mut Writer, begin_ns: u64) {
        let is_down = self.tests % 2 == 1;
        self.tests += 1;
        let (direction, way) = if is_down {
            (Direction::Down, 1)
        } else {
            (Direction::Up, 0)
        };
        let shaped = begin_ns > self.line.shaped_from_ns;
        let full_bps = self.capacity_bps[way];
        let queue_ns = match (is_down, shaped) {
            (true, _) => 25_000_000,
            (false, true) => 12_000_000,
            (false, false) => 150_000_000,
        } + self.below(20_000_000);
        let start_ns = BEGIN_NS + begin_ns;
        let bins: Vec<u32> = (0..LOAD_NS / BIN_NS)
            .map(|i| {
                let share = (i + 1).min(10) * 9 + self.below(10);
                (full_bps / 80 * share / 100) as u32
            })
            .collect();
        let probes = (0..(LOAD_NS + 2 * IDLE_NS) / BIN_NS)
            .map(|i| {
                let at_ns = i * BIN_NS;
                let loaded = (IDLE_NS..IDLE_NS + LOAD_NS).contains(&at_ns);
                let filled = (at_ns.saturating_sub(IDLE_NS)).min(S);
                let waits_ns = if loaded {
                    queue_ns / 1000 * (filled / 1_000_000)
                } else {
                    0
                };
                let noise = [self.below(400_000), self.below(300_000)];
                let delay = |this: bool, noise: u64| noise + if this { waits_ns } else { 0 };
                ProbeBin {
                    up_ns: Some(delay(!is_down, noise[0])),
                    down_ns: Some(delay(is_down, noise[1])),
                    rtt_ns: Some(14_000_000 + waits_ns + noise[0] + noise[1]),
                    lost: u32::from(loaded && self.below(40) == 0),
                }
            })
            .collect();
        let three = |p50: u64| Percentiles {
            p50,
            p90: p50 + p50 / 10,
            p99: p50 + p50 / 6,
        };
        let delay = LoadedDelay {
            idle: three(250_000),
            loaded: three(queue_ns + 250_000),
            increase: three(queue_ns),
        };
        let mean_bps = full_bps - full_bps / 50;
        let load_start_ns = start_ns + IDLE_NS;
        writer.capacity(
            Monotonic::from_nanos(load_start_ns),
            Capacity {
                interface: self.line.interface.clone(),
                direction,
                method: Method::Test,
                burst_bps: full_bps,
                sustained_bps: Some(mean_bps),
                confidence: 0.9,
                events: Vec::new(),
            },
        );
        writer.load_test(LoadTest {
            boot: 0,
            start_ns,
            end_ns: start_ns + LOAD_NS + 2 * IDLE_NS,
            load_start_ns,
            load_end_ns: load_start_ns + LOAD_NS,
            ramp_ns: S,
            interface: self.line.interface.clone(),
            reflector: "vienna".into(),
            kind: direction.as_str().into(),
            protocol: bufferbane_store::Protocol::Tcp,
            asked_by: "schedule".into(),
            congestion: "cubic".into(),
            cut_short: false,
            instead_of: Vec::new(),
            ways: vec![TestWay {
                direction,
                streams: 4,
                bytes: bins.iter().map(|b| u64::from(*b)).sum(),
                mean_bps,
                p10_bps: mean_bps - mean_bps / 10,
                p90_bps: full_bps,
                retransmits: 20 + self.below(30),
                cwnd_bytes: 180_000,
                rtt_us: 14_000 + queue_ns / 1000,
                bins,
                delay,
                queue_bytes: queue_ns / 1_000_000 * mean_bps / 8_000,
                grade: delay.grade().as_str().into(),
                lost: self.below(3),
                others_bps: None,
                datagrams: None,
            }],
            rtt: delay,
            icmp: None,
            rpm: Some((60_000_000_000 / (14_000_000 + queue_ns)) as u32),
            rpm_stable: true,
            rpm_variant: "draft-08".into(),
            recovery_ns: Some(200_000_000 + queue_ns),
            probes,
        });
    }
}
