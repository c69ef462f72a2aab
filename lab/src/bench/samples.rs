//! Samples as a cable line gives them, the same for the same seed.

use bufferbane_core::sample::{Flags, Sample, SeriesIndex, Status};
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_store::{SeriesInfo, SeriesKind};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// When the first sample is sent, ns since boot.
pub const BEGIN_NS: u64 = 86_400_000_000_000;
/// Of two clocks that have nothing to do with each other, ns.
const OFFSET_NS: i64 = 512_345_678_901_234;
/// How fast they drift apart, parts per billion.
const SKEW_PPB: i64 = 9_300;
/// The line's own delay, ns, up and down.
const FLOOR_NS: [u64; 2] = [14_200_000, 8_900_000];
/// Mean of the random part of the delay, ns, up and down.
const SPREAD_NS: [f64; 2] = [900_000.0, 180_000.0];
/// One packet in so many is lost.
const LOSS: u32 = 800;
/// Every so many seconds somebody uploads, for a twentieth of that.
const BUSY_PERIOD_NS: u64 = 600_000_000_000;
/// What that adds upwards, ns.
const BUSY_NS: f64 = 45_000_000.0;

/// An endless series of samples in the order of time.
#[derive(Debug)]
pub struct Samples {
    kind: SeriesKind,
    interval_ns: u64,
    seq: u64,
    rng: ChaCha8Rng,
}

impl Samples {
    /// A series with one probe in each slot of `interval_ns`.
    #[must_use]
    pub fn new(kind: SeriesKind, interval_ns: u64, seed: u64) -> Self {
        Self {
            kind,
            interval_ns,
            seq: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// What the store calls it.
    #[must_use]
    pub fn info(&self) -> SeriesInfo {
        let udp = self.kind == SeriesKind::Udp;
        SeriesInfo {
            interface: "eth0".into(),
            interface_kind: "wired".into(),
            target: if udp { "vienna" } else { "quad9" }.into(),
            kind: self.kind,
            family: 4,
            dscp: 0,
            size: if udp { 128 } else { 64 },
            interval_ns: self.interval_ns,
            address: if udp { "192.0.2.1" } else { "9.9.9.9" }.into(),
        }
    }

    /// Evenly distributed in 0 to 1, never 0.
    fn unit(&mut self) -> f64 {
        f64::from(self.rng.next_u32()).max(1.0) / f64::from(u32::MAX)
    }

    /// Exponentially distributed around `mean`.
    fn spread(&mut self, mean: f64) -> u64 {
        (-self.unit().ln() * mean) as u64
    }

    fn delays_ns(&mut self, at_ns: u64) -> [u64; 2] {
        let mut up = FLOOR_NS[0] + self.spread(SPREAD_NS[0]);
        let down = FLOOR_NS[1] + self.spread(SPREAD_NS[1]);
        if at_ns % BUSY_PERIOD_NS < BUSY_PERIOD_NS / 20 {
            up += self.spread(BUSY_NS);
        }
        [up, down]
    }
}

impl Iterator for Samples {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let slot_ns = BEGIN_NS + self.seq * self.interval_ns;
        let offset_ns = (self.unit() * self.interval_ns as f64 * 0.5) as u64;
        let late_ns = 4_000 + self.spread(9_000.0);
        let sent_ns = slot_ns + offset_ns + late_ns;
        let udp = self.kind == SeriesKind::Udp;
        let size = if udp { 128 } else { 64 };
        let sent = Monotonic::from_nanos(sent_ns);
        let mut sample = Sample::lost(SeriesIndex(u16::from(!udp)), self.seq, sent, size);
        sample.send_late_ns = late_ns as i64;
        sample.tx_clock = ClockSource::Kernel;
        self.seq += 1;
        let [up_ns, down_ns] = self.delays_ns(sent_ns);
        if self.rng.next_u32().is_multiple_of(LOSS) {
            sample.status = match (udp, self.rng.next_u32().is_multiple_of(3)) {
                (false, _) => Status::Lost,
                (true, true) => Status::LostDown,
                (true, false) => Status::LostUp,
            };
            return Some(sample);
        }
        sample.status = Status::Ok;
        sample.flags = Flags::NONE;
        sample.rtt_ns = Some(up_ns + down_ns);
        sample.rx_clock = ClockSource::Kernel;
        sample.ttl_down = Some(57);
        if udp {
            let skew_ns = (sent_ns as i128 * i128::from(SKEW_PPB) / 1_000_000_000) as i64;
            sample.raw_up_ns = Some(up_ns as i64 + OFFSET_NS + skew_ns);
            sample.raw_down_ns = Some(down_ns as i64 - OFFSET_NS - skew_ns);
            sample.remote_rx_clock = ClockSource::Kernel;
            sample.remote_tx_clock = ClockSource::Kernel;
            sample.ttl_up = Some(56);
            sample.tos_seen = Some(0);
        }
        Some(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_samples_in_the_order_of_time() {
        let series = || Samples::new(SeriesKind::Udp, 50_000_000, 7).take(5_000);
        assert!(series().eq(series()));
        assert!(series().zip(series().skip(1)).all(|(a, b)| a.sent < b.sent));
        let lost = series().filter(|s| s.status.is_lost()).count();
        assert!((1..50).contains(&lost), "{lost}");
    }
}
