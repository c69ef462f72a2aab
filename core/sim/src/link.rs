//! One direction of a line.

use rand_core::Rng;

/// What a direction does to packets.
#[derive(Clone, Debug)]
pub struct LinkPlan {
    /// Every packet takes at least this long, ns.
    pub delay_ns: u64,
    /// And up to this much longer, at random, without overtaking, ns.
    pub jitter_ns: u64,
    /// Bits per second; 0 is without limit.
    pub rate_bps: u64,
    /// Bytes that may wait for the rate.
    pub buffer_bytes: u64,
    /// Share of packets lost, each by itself, per million.
    pub loss_ppm: u32,
    /// Share of packets that begin a burst of losses, per million.
    pub burst_ppm: u32,
    /// Longest burst, packets.
    pub burst_packets: u32,
    /// Share of packets doubled, per million.
    pub duplicate_ppm: u32,
    /// Share of packets that are overtaken, per million.
    pub reorder_ppm: u32,
    /// How much later an overtaken packet arrives at most, ns.
    pub reorder_ns: u64,
    /// Stretches of true time, ns, through which everything is lost.
    pub outages: Vec<std::ops::Range<u64>>,
}

impl Default for LinkPlan {
    /// 10 ms, and nothing else.
    fn default() -> Self {
        Self {
            delay_ns: 10_000_000,
            jitter_ns: 0,
            rate_bps: 0,
            buffer_bytes: 64 << 10,
            loss_ppm: 0,
            burst_ppm: 0,
            burst_packets: 0,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            reorder_ns: 0,
            outages: Vec::new(),
        }
    }
}

/// A direction at work.
#[derive(Clone, Debug)]
pub struct Link {
    plan: LinkPlan,
    free_at_ns: u64,
    last_arrival_ns: u64,
    burst_left: u32,
}

impl Link {
    /// An idle one.
    #[must_use]
    pub const fn new(plan: LinkPlan) -> Self {
        Self {
            plan,
            free_at_ns: 0,
            last_arrival_ns: 0,
            burst_left: 0,
        }
    }

    /// A packet of `bytes` enters at true time `now_ns`: when its copies arrive; none if it is lost.
    pub fn pass(&mut self, now_ns: u64, bytes: usize, rng: &mut impl Rng) -> Vec<u64> {
        let p = &self.plan;
        let mut chance = |ppm: u32| ppm > 0 && rng.next_u32() % 1_000_000 < ppm;
        let lost = chance(p.loss_ppm);
        if chance(p.burst_ppm) {
            self.burst_left = 1 + rng.next_u32() % p.burst_packets.max(1);
        }
        let in_burst = self.burst_left > 0;
        self.burst_left = self.burst_left.saturating_sub(1);
        if lost || in_burst || p.outages.iter().any(|o| o.contains(&now_ns)) {
            return Vec::new();
        }
        let mut left_ns = now_ns;
        if p.rate_bps > 0 {
            let start_ns = self.free_at_ns.max(now_ns);
            let waiting = (start_ns - now_ns) as u128 * u128::from(p.rate_bps) / 8_000_000_000;
            if waiting + bytes as u128 > u128::from(p.buffer_bytes) {
                return Vec::new();
            }
            left_ns = start_ns + bytes as u64 * 8_000_000_000 / p.rate_bps;
            self.free_at_ns = left_ns;
        }
        let jitter_ns = if p.jitter_ns > 0 {
            rng.next_u64() % p.jitter_ns
        } else {
            0
        };
        let mut chance = |ppm: u32| ppm > 0 && rng.next_u32() % 1_000_000 < ppm;
        let (overtaken, doubled) = (chance(p.reorder_ppm), chance(p.duplicate_ppm));
        let in_order_ns = (left_ns + p.delay_ns + jitter_ns).max(self.last_arrival_ns);
        let mut arrivals = Vec::new();
        if overtaken {
            arrivals.push(in_order_ns + rng.next_u64() % p.reorder_ns.max(1));
        } else {
            self.last_arrival_ns = in_order_ns;
            arrivals.push(in_order_ns);
        }
        if doubled {
            arrivals.push(in_order_ns + 1 + rng.next_u64() % 5_000_000);
        }
        arrivals
    }
}
