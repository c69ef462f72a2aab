//! How much of what a line carries is load.

use super::input::LoadedWays;
use crate::household::Second;
use crate::time::Monotonic;

const S: u64 = 1_000_000_000;
/// Less is never load, bit/s, nor half of what a line can that was measured to carry even less.
const LEAST_BPS: u64 = 500_000;
/// Nor is less than this part of what the line can.
const PART: u64 = 4;

/// Both ways of a line: what each was seen to carry, and so what is much for it.
///
/// What a way was seen to carry is what two of three neighbouring seconds had at least, and no more than it
/// was last measured to carry: what a host sends in a rush is more than the line lets through, for a
/// moment or as long as it is lost, and after it no ordinary upload would be load any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scales {
    /// The end of the second that was told last.
    last: Option<Monotonic>,
    up: Scale,
    down: Scale,
}

impl Scales {
    /// Of a line that was not looked at yet.
    pub(crate) const fn new() -> Self {
        Self {
            last: None,
            up: Scale::new(),
            down: Scale::new(),
        }
    }

    /// What it carried in a second, to be told in the order of time; gives which ways that is load. Seconds that are
    /// not told carried nothing to speak of.
    pub(crate) fn add(&mut self, second: &Second) -> LoadedWays {
        let apart_ns = self.last.map_or(0, |last| second.at.saturating_since(last));
        let quiet = (apart_ns.saturating_add(S / 2) / S).saturating_sub(1);
        for (scale, bps) in [
            (&mut self.up, second.up_bps),
            (&mut self.down, second.down_bps),
        ] {
            for _ in 0..quiet.min(2) {
                scale.add(0);
            }
            scale.add(bps);
        }
        self.last = Some(second.at);
        self.loaded(second.up_bps, second.down_bps)
    }

    /// It was measured to carry `bps` in the long run one way.
    pub(crate) const fn measured(&mut self, up: bool, bps: u64) {
        let scale = if up { &mut self.up } else { &mut self.down };
        scale.can_bps = Some(bps);
    }

    /// The most that it carries upward, as far as that is known, bit/s.
    pub(crate) fn most_up_bps(&self) -> u64 {
        self.up.most_bps()
    }

    /// Which ways so much up and so much down, bit/s, is load: each by itself, so that acknowledgements of a download
    /// are load upward where they are much for that way.
    pub(crate) fn loaded(&self, up_bps: u64, down_bps: u64) -> LoadedWays {
        LoadedWays {
            up: self.up.is_load(up_bps),
            down: self.down.is_load(down_bps),
        }
    }
}

/// One way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scale {
    last_bps: [u64; 2],
    most_bps: u64,
    can_bps: Option<u64>,
}

impl Scale {
    const fn new() -> Self {
        Self {
            last_bps: [0; 2],
            most_bps: 0,
            can_bps: None,
        }
    }

    fn add(&mut self, bps: u64) {
        let [a, b] = self.last_bps;
        let median = a.max(b).min(a.min(b).max(bps));
        self.most_bps = self.most_bps.max(median);
        self.last_bps = [b, bps];
    }

    fn most_bps(&self) -> u64 {
        self.most_bps.min(self.can_bps.unwrap_or(u64::MAX))
    }

    fn is_load(&self, bps: u64) -> bool {
        let least_bps = self.can_bps.map_or(LEAST_BPS, |can| LEAST_BPS.min(can / 2));
        bps >= least_bps.max(self.most_bps() / PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_second_alone_carried_is_no_measure() {
        let mut scales = Scales::new();
        let carried = [9_000_000, 80_000_000, 9_000_000, 9_000_000];
        for (s, up_bps) in carried.into_iter().enumerate() {
            let at = Monotonic::from_nanos(s as u64 * S);
            scales.add(&Second {
                at,
                up_bps,
                down_bps: 0,
            });
        }
        assert!(scales.loaded(9_000_000, 0).any());
        assert!(!scales.loaded(2_000_000, 0).any());
    }

    #[test]
    fn neither_a_rush_nor_a_flood_hides_what_the_line_really_carries() {
        let mut scale = Scale::new();
        assert!(!scale.is_load(499_999));
        assert!(scale.is_load(500_000));
        for bps in [8_000_000, 8_000_000, 90_000_000, 8_000_000, 10_000] {
            scale.add(bps);
        }
        assert!(!scale.is_load(1_900_000));
        assert!(scale.is_load(2_000_000));
        for _ in 0..5 {
            scale.add(90_000_000);
        }
        assert!(!scale.is_load(8_000_000));
        scale.can_bps = Some(8_000_000);
        assert!(scale.is_load(2_000_000));
        assert!(!scale.is_load(1_900_000));
        // A measurement says of a quiet line only what it could.
        let mut quiet = Scale::new();
        quiet.can_bps = Some(100_000_000);
        assert!(quiet.is_load(500_000));
        // One of 400 kbit/s is full of what is next to nothing elsewhere.
        quiet.can_bps = Some(400_000);
        assert!(quiet.is_load(200_000));
        assert!(!quiet.is_load(199_999));
    }

    /// Where only load is told, seconds that are told one after the other may be minutes apart.
    #[test]
    fn rushes_that_are_apart_are_no_neighbours() {
        let carries = |ends_s: [u64; 3]| {
            let mut scales = Scales::new();
            for s in ends_s {
                let second = Second {
                    at: Monotonic::from_nanos(s * S),
                    up_bps: 10_000,
                    down_bps: 90_000_000,
                };
                scales.add(&second);
            }
            scales.loaded(0, 8_000_000).any()
        };
        assert!(carries([10, 70, 130]));
        assert!(carries([10, 13, 16]));
        // Two of three.
        assert!(!carries([10, 12, 70]));
        assert!(!carries([10, 70, 71]));
    }

    /// A download that is many times as fast as any upload: an upload after it is load all the same.
    #[test]
    fn each_way_has_its_own_measure() {
        let mut scales = Scales::new();
        let mut s = 0;
        let mut carries = |up_bps, down_bps| {
            s += 1;
            let at = Monotonic::from_nanos(s * S);
            let ways = scales.add(&Second {
                at,
                up_bps,
                down_bps,
            });
            (ways.up, ways.down)
        };
        assert_eq!(carries(20_000, 60_000), (false, false));
        for _ in 0..3 {
            assert_eq!(carries(300_000, 95_000_000), (false, true));
        }
        assert_eq!(carries(9_700_000, 400_000), (true, false));
        assert_eq!(carries(400_000, 20_000_000), (false, false));
    }
}
