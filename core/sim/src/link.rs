//! One direction of a line.

use rand_core::Rng;

/// A queue that others keep full: it fills within a second, breathes with their congestion control,
/// and drains within a second.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Through this stretch of true time, ns.
    pub during: std::ops::Range<u64>,
    /// How long it makes packets wait at most, ns.
    pub height_ns: u64,
    /// How much of that comes and goes, permille.
    pub breath_permille: u64,
}

impl Standing {
    const EDGE_NS: u64 = 1_000_000_000;
    const BREATH_NS: u64 = 7_000_000_000;

    fn wait_ns(&self, now_ns: u64) -> u64 {
        if !self.during.contains(&now_ns) {
            return 0;
        }
        let (in_ns, left_ns) = (now_ns - self.during.start, self.during.end - now_ns);
        let edge = u128::from(in_ns.min(left_ns).min(Self::EDGE_NS));
        let phase = u128::from(in_ns % Self::BREATH_NS);
        let low = u128::from(1000 - self.breath_permille.min(1000));
        let breath = low + u128::from(self.breath_permille) * phase / u128::from(Self::BREATH_NS);
        let full = u128::from(self.height_ns) * breath / 1000;
        (full * edge / u128::from(Self::EDGE_NS)) as u64
    }
}

/// What a direction does to packets.
#[derive(Clone, Debug)]
pub struct LinkPlan {
    /// Every packet takes at least this long, ns.
    pub delay_ns: u64,
    /// From these true times on, ns, it is this long instead: other routes.
    pub routes: Vec<(u64, u64)>,
    /// Queues of other people's packets.
    pub standing: Vec<Standing>,
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
            routes: Vec::new(),
            standing: Vec::new(),
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

    /// How long a packet of `bytes` that enters at true time `now_ns` takes if nobody else is there.
    #[must_use]
    pub fn floor_ns(&self, now_ns: u64, bytes: usize) -> u64 {
        let routes = self.plan.routes.iter().rev();
        let route = routes.clone().find(|(from, _)| *from <= now_ns);
        let rate_ns = (bytes as u64 * 8_000_000_000).checked_div(self.plan.rate_bps);
        route.map_or(self.plan.delay_ns, |(_, delay)| *delay) + rate_ns.unwrap_or(0)
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
        let delay_ns = self.floor_ns(now_ns, 0);
        let standing_ns: u64 = p.standing.iter().map(|s| s.wait_ns(now_ns)).sum();
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
        let in_order_ns = (left_ns + delay_ns + standing_ns + jitter_ns).max(self.last_arrival_ns);
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
