//! What the upstream queue does while the line is loaded: a flat top is a buffer that is full, and
//! delay near a target with single drops is a queue manager (AQM).

/// Seconds that are judged together, at least and at most; the first few fill the queue.
const LEAST: usize = 8;
const MOST: usize = 30;
const FILLING: u32 = 3;
/// A plateau, µs, at least.
const PLATEAU_US: u32 = 15_000;
/// Its tops lie this near to each other, as a part, and this, µs; this share of them.
const FLAT_PART: u32 = 10;
const FLAT_US: u32 = 1_000;
const FLAT: f64 = 0.7;
/// The queue stands where the mean of a second is this share of the top.
const STANDS: f64 = 0.75;
/// Delay that a queue manager leaves, µs: its target and some.
const MANAGED_US: core::ops::RangeInclusive<u32> = 3_000..=40_000;
const MANAGED_TOP_US: u32 = 120_000;

/// What loaded seconds showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Seconds that were judged.
    pub seconds: u64,
    /// Of these, those with a flat top.
    pub plateau_s: u64,
    /// How high that is, ns: the median.
    pub plateau_ns: u64,
    /// What the line carried meanwhile, bit/s: the median.
    pub rate_bps: u64,
    /// Seconds with delay near a target.
    pub managed_s: u64,
    /// That delay, ns: the median of the seconds' means.
    pub managed_ns: u64,
    /// Probes that were lost upward by themselves meanwhile.
    pub drops: u64,
    /// Probes that were lost upward beside another.
    pub in_rows: u64,
}

/// A second of load.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Second {
    pub(crate) top_us: u32,
    pub(crate) mean_us: u32,
    pub(crate) rate_kbps: u32,
    pub(crate) drops: u32,
    pub(crate) in_rows: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct BufferWatch {
    filling: u32,
    part: heapless::Vec<Second, MOST>,
    /// Of the parts with a plateau: its height, µs, and the rate, kbit/s; of the managed: the delay.
    plateaus: heapless::Deque<(u32, u32), 32>,
    managed: heapless::Deque<u32, 32>,
    all: Loaded,
}

impl BufferWatch {
    pub(crate) const fn new() -> Self {
        Self {
            filling: 0,
            part: heapless::Vec::new(),
            plateaus: heapless::Deque::new(),
            managed: heapless::Deque::new(),
            all: Loaded {
                seconds: 0,
                plateau_s: 0,
                plateau_ns: 0,
                rate_bps: 0,
                managed_s: 0,
                managed_ns: 0,
                drops: 0,
                in_rows: 0,
            },
        }
    }

    /// The next second; `None` where the line was not loaded upward.
    pub(crate) fn step(&mut self, second: Option<Second>) {
        let Some(second) = second else {
            self.judge();
            self.filling = 0;
            return;
        };
        self.filling += 1;
        if self.filling <= FILLING {
            return;
        }
        if self.part.is_full() {
            self.judge();
        }
        let _ = self.part.push(second);
    }

    /// What was found since the last time this was asked with `anew`.
    pub(crate) fn found(&mut self, anew: bool) -> Option<Loaded> {
        let mut all = self.all;
        let of = |values: &mut dyn Iterator<Item = u32>| {
            let values: heapless::Vec<u32, 32> = values.collect();
            u64::from(super::super::baseline::median(&values).unwrap_or(0))
        };
        all.plateau_ns = of(&mut self.plateaus.iter().map(|p| p.0)) * 1000;
        all.rate_bps = of(&mut self.plateaus.iter().map(|p| p.1)) * 1000;
        all.managed_ns = of(&mut self.managed.iter().copied()) * 1000;
        if anew {
            self.all = Loaded::default();
            self.plateaus.clear();
            self.managed.clear();
        }
        (all.plateau_s + all.managed_s > 0).then_some(all)
    }

    fn judge(&mut self) {
        let part = core::mem::take(&mut self.part);
        if part.len() < LEAST {
            return;
        }
        let median = |of: fn(&Second) -> u32| {
            let values: heapless::Vec<u32, MOST> = part.iter().map(of).collect();
            super::super::baseline::median(&values).unwrap_or(0)
        };
        let (top, mean, rate) = (
            median(|s| s.top_us),
            median(|s| s.mean_us),
            median(|s| s.rate_kbps),
        );
        let share = |of: &dyn Fn(&Second) -> bool| {
            part.iter().filter(|s| of(s)).count() as f64 / part.len() as f64
        };
        let flat = share(&|s| s.top_us.abs_diff(top) <= top / FLAT_PART + FLAT_US);
        let stands = share(&|s| f64::from(s.mean_us) >= STANDS * f64::from(top));
        let seconds = part.len() as u64;
        self.all.seconds += seconds;
        if top >= PLATEAU_US && flat >= FLAT && stands >= FLAT {
            self.all.plateau_s += seconds;
            if self.plateaus.is_full() {
                self.plateaus.pop_front();
            }
            let _ = self.plateaus.push_back((top, rate));
        } else if MANAGED_US.contains(&mean) && top <= MANAGED_TOP_US {
            self.all.managed_s += seconds;
            self.all.drops += part.iter().map(|s| u64::from(s.drops)).sum::<u64>();
            self.all.in_rows += part.iter().map(|s| u64::from(s.in_rows)).sum::<u64>();
            if self.managed.is_full() {
                self.managed.pop_front();
            }
            let _ = self.managed.push_back(mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tops: impl Iterator<Item = (u32, u32)>) -> Option<Loaded> {
        let mut w = BufferWatch::new();
        for (top_us, mean_us) in tops {
            w.step(Some(Second {
                top_us,
                mean_us,
                rate_kbps: 5_000,
                drops: 1,
                in_rows: 0,
            }));
        }
        w.step(None);
        w.found(true)
    }

    #[test]
    fn a_flat_top_is_a_buffer_and_delay_near_a_target_is_managed() {
        let full = found((0..60).map(|n| (580_000 + n % 5 * 2_000, 540_000))).unwrap();
        assert_eq!((full.plateau_s, full.managed_s), (57, 0));
        assert_eq!((full.plateau_ns, full.rate_bps), (584_000_000, 5_000_000));
        let managed = found((0..60).map(|n| (14_000 + n * 7 % 23 * 1_000, 10_000 + n % 3 * 1_000)));
        let managed = managed.unwrap();
        assert_eq!((managed.plateau_s, managed.managed_s), (0, 57));
        assert_eq!((managed.managed_ns, managed.drops), (11_000_000, 57));
        // A queue that swings is neither, and no queue at all is nothing.
        assert_eq!(
            found((0..60).map(|n| (60_000 + n % 7 * 40_000, 50_000))),
            None
        );
        assert_eq!(found((0..60).map(|_| (900, 300))), None);
        assert_eq!(found((0..9).map(|_| (580_000, 540_000))), None);
    }
}
