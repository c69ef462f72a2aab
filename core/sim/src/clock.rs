//! A host's monotonic clock, as it runs against true time.

/// Gains on true time, piece by piece: a crystal drifts, a time daemon slews it, and it is set: ahead
/// when its host was suspended, back only at a far end whose stamps are not on a monotonic line.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The first from true time 0 on.
    pieces: Vec<Piece>,
}

/// From `from_ns` of true time on it shows `shown_ns` and gains `drift_ppb`.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from_ns: u64,
    shown_ns: u64,
    drift_ppb: i64,
}

impl Piece {
    fn read(&self, at_ns: u64) -> u64 {
        let after = i128::from(at_ns) - i128::from(self.from_ns);
        let gained = after * i128::from(self.drift_ppb) / 1_000_000_000;
        (i128::from(self.shown_ns) + after + gained) as u64
    }
}

/// Something that is done to a clock.
#[derive(Clone, Copy, Debug)]
pub struct ClockChange {
    /// At this true time, ns,
    pub at_ns: u64,
    /// it is set by so much, ns,
    pub step_ns: i64,
    /// and gains so much each second from then on, ns.
    pub drift_ppb: i64,
}

impl Clock {
    /// A clock that is `offset_ns` ahead at true time 0 and gains `drift_ppb` ns each second, until
    /// the first of `changes`, which are in the order of time.
    #[must_use]
    pub fn new(offset_ns: u64, drift_ppb: i64, changes: &[ClockChange]) -> Self {
        let mut clock = Self {
            pieces: vec![Piece {
                from_ns: 0,
                shown_ns: offset_ns,
                drift_ppb,
            }],
        };
        for c in changes {
            let piece = Piece {
                from_ns: c.at_ns,
                shown_ns: clock.read(c.at_ns).saturating_add_signed(c.step_ns),
                drift_ppb: c.drift_ppb,
            };
            clock.pieces.push(piece);
        }
        clock
    }

    /// What it shows at true time `at_ns`.
    #[must_use]
    pub fn read(&self, at_ns: u64) -> u64 {
        let i = self.pieces.partition_point(|p| p.from_ns <= at_ns);
        self.pieces[i.saturating_sub(1)].read(at_ns)
    }

    /// Whether it is set within a stretch of true time.
    #[must_use]
    pub fn is_set_in(&self, during: std::ops::Range<u64>) -> bool {
        self.pieces.windows(2).any(|p| {
            let at_ns = p[1].from_ns;
            during.contains(&at_ns) && p[0].read(at_ns) != p[1].shown_ns
        })
    }

    /// The true time at which it shows `shown_ns`, or the first after that; of a clock that is never
    /// set back.
    #[must_use]
    pub fn when(&self, shown_ns: u64) -> u64 {
        let i = self.pieces.partition_point(|p| p.shown_ns <= shown_ns);
        let p = self.pieces[i.saturating_sub(1)];
        let ahead = i128::from(shown_ns) - i128::from(p.shown_ns);
        let after = ahead * 1_000_000_000 / (1_000_000_000 + i128::from(p.drift_ppb));
        let mut at = (i128::from(p.from_ns) + after).max(0) as u64;
        if let Some(next) = self.pieces.get(i.max(1)) {
            // It leaps over what it does not show.
            at = at.min(next.from_ns);
        }
        while self.read(at) < shown_ns {
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_inverse_of_read() {
        let slew = |drift_ppb| ClockChange {
            at_ns: 1_000_000_000,
            step_ns: 0,
            drift_ppb,
        };
        for ppb in [-50_000, 0, 50_000] {
            for changes in [vec![], vec![slew(500_000)], vec![slew(-500_000)]] {
                let c = Clock::new(1_000, ppb, &changes);
                for at in [0u64, 5, 1_000_000_007, 3_600_000_000_000] {
                    let when = c.when(c.read(at));
                    assert!(when <= at && c.read(when) == c.read(at));
                }
            }
        }
    }

    #[test]
    fn a_clock_that_leaps_shows_the_next_at_once() {
        let leap = ClockChange {
            at_ns: 500,
            step_ns: 10_000,
            drift_ppb: 0,
        };
        let c = Clock::new(1_000, 0, &[leap]);
        assert_eq!(
            (c.when(1_499), c.when(1_500), c.when(7_000)),
            (499, 500, 500)
        );
        assert_eq!((c.when(11_500), c.when(11_501)), (500, 501));
        assert!(c.is_set_in(500..501) && !c.is_set_in(0..500) && !c.is_set_in(501..900));
    }

    #[test]
    fn a_clock_that_is_set_shows_it() {
        let step = ClockChange {
            at_ns: 500,
            step_ns: -100,
            drift_ppb: 0,
        };
        let c = Clock::new(1_000, 0, &[step]);
        assert_eq!((c.read(499), c.read(500)), (1_499, 1_400));
    }
}
