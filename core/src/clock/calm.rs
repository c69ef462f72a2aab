//! Holds the floor to the direction that is free while a queue stands in the other, and notices when
//! it keeps having to be moved.
//!
//! The bounds only push the floor out of a direction that would have negative queueing delay. What
//! moves it the other way, a rate that was not quite known or a clock that begins to be slewed, opens
//! a gap instead: the free direction seems to wait a little, ever longer, and the other a little
//! less. A queue does not come like that, so the floor follows.

/// A look is as long as this many probes, and not shorter than the other, s.
const LOOK_PROBES: u32 = 20;
const LOOK_S: f64 = 2.0;
/// A gap that may still be the clock's, ns, and what it may open by within a second, ppb: a little,
/// or, where it goes on opening, as much as a clock is slewed at most.
const GAP_NS: f64 = 200_000.0;
const GAP_PPB: f64 = 50_000.0;
const GAP_SLEWED_PPB: f64 = 600_000.0;
/// It goes on opening if the later half of a look has so much more of it than the earlier, or if the
/// looks before it have shown a clock at work.
const OPENING: f64 = 0.3;
/// What of it is only the stamps', ns, and what a rate may be off by, ppb.
const STAMP_NS: f64 = 20_000.0;
const OFF_PPB: f64 = 5_000.0;
/// A pause of so many times what is usual between probes, and longer than the shortest look, ends one:
/// what a clock may have done meanwhile is as much as a queue.
const PAUSE: f64 = 4.0;
/// So many looks in a row that move the floor to one side are a clock.
const IN_A_ROW: i32 = 3;

/// What a look came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Look {
    /// The floor upward is to move by this much, ns.
    pub(super) by_ns: f64,
    /// The floor drifts by this much beside what is known of the clocks, ns per second.
    pub(super) drifts: Option<f64>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Calm {
    /// Begin of the present look, s.
    began: Option<f64>,
    /// The probe before, s.
    last: Option<f64>,
    /// What is usual between probes, s.
    spacing: Option<f64>,
    probes: u32,
    /// The smallest delays above the floor in it, up and down, ns.
    least: (f64, f64),
    /// The same of the later half of it.
    later: (f64, f64),
    /// What these usually are while both directions are free.
    usual: (f64, f64),
    /// By how much the floor was moved in it, ns.
    moved: f64,
    /// How many looks in a row have moved the floor up; negative: down.
    streak: i32,
}

impl Calm {
    pub(super) const fn new() -> Self {
        Self {
            began: None,
            last: None,
            spacing: None,
            probes: 0,
            least: (f64::MAX, f64::MAX),
            later: (f64::MAX, f64::MAX),
            usual: (0.0, 0.0),
            moved: 0.0,
            streak: 0,
        }
    }

    /// The bounds have pushed the floor upward by so much, ns.
    pub(super) fn pushed(&mut self, by: f64) {
        if self.probes > 0 {
            self.least.0 -= by;
            self.least.1 += by;
            self.later.0 -= by;
            self.later.1 += by;
        }
        self.moved += by;
    }

    /// The clocks, or what is known of their rate, are others now.
    pub(super) const fn restart(&mut self) {
        self.begin(None);
        self.streak = 0;
    }

    const fn begin(&mut self, at: Option<f64>) {
        self.began = at;
        self.probes = 0;
        self.least = (f64::MAX, f64::MAX);
        self.later = (f64::MAX, f64::MAX);
        self.moved = 0.0;
    }

    /// A probe at `t` took `up` and `down` above the floors. Gives a look that has come to its end.
    pub(super) fn add(&mut self, t: f64, up: f64, down: f64) -> Look {
        self.bridge(t);
        let began = *self.began.get_or_insert(t);
        let mut look = Look::default();
        if t - began >= LOOK_S && self.probes >= LOOK_PROBES {
            look = self.finish_look(t - began);
            self.begin(Some(t));
        }
        self.probes += 1;
        self.least = (self.least.0.min(up), self.least.1.min(down));
        if 2.0 * (t - began) >= LOOK_S && 2 * self.probes >= LOOK_PROBES {
            self.later = (self.later.0.min(up), self.later.1.min(down));
        }
        look
    }

    /// Ends a look that a pause before the probe at `t` has torn.
    fn bridge(&mut self, t: f64) {
        let Some(pause) = self.last.replace(t).map(|last| t - last) else {
            return;
        };
        let spacing = self.spacing.get_or_insert(pause);
        let usual = *spacing;
        *spacing += (pause - usual) / 8.0;
        if pause > LOOK_S && pause > PAUSE * usual {
            self.begin(Some(t));
        }
    }

    fn finish_look(&mut self, seconds: f64) -> Look {
        // What the bounds have pushed away since is not there any more.
        let (up, down) = (self.least.0.max(0.0), self.least.1.max(0.0));
        let is_slewed = self.streak.abs() >= IN_A_ROW;
        let is_free = |least: f64, later: f64, usual: f64| {
            let opening = later < f64::MAX && later - least >= OPENING * least;
            let ppb = if opening || is_slewed {
                GAP_SLEWED_PPB
            } else {
                GAP_PPB
            };
            least <= GAP_NS + ppb * seconds + 3.0 * usual
        };
        let gap = |least: f64, usual: f64| {
            if least > 2.0 * usual + STAMP_NS {
                least - usual
            } else {
                0.0
            }
        };
        let free = (
            is_free(up, self.later.0, self.usual.0),
            is_free(down, self.later.1, self.usual.1),
        );
        let by_ns = match free {
            (true, false) => gap(up, self.usual.0),
            (false, true) => -gap(down, self.usual.1),
            _ => 0.0,
        };
        let noise_ns = STAMP_NS + OFF_PPB * seconds + 2.0 * self.usual.0.max(self.usual.1);
        if free == (true, true) {
            self.usual.0 += (up - self.usual.0) / 8.0;
            self.usual.1 += (down - self.usual.1) / 8.0;
        }
        let moved = self.moved + by_ns;
        self.streak = if moved > noise_ns {
            self.streak.max(0) + 1
        } else if moved < -noise_ns {
            self.streak.min(0) - 1
        } else {
            0
        };
        Look {
            by_ns,
            drifts: (self.streak.abs() >= IN_A_ROW).then(|| moved / seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every look of probes that are `spacing` seconds apart, from `begin` for so many seconds.
    fn looks(
        calm: &mut Calm,
        begin: f64,
        seconds: f64,
        spacing: f64,
        up: f64,
        down: f64,
    ) -> std::vec::Vec<Look> {
        let probes = (seconds / spacing) as u32;
        let at = |i: u32| begin + f64::from(i) * spacing;
        let looks = (0..probes).map(|i| calm.add(at(i), up, down));
        looks.filter(|l| *l != Look::default()).collect()
    }

    #[test]
    fn a_pause_does_not_make_a_queue_look_free() {
        // Both directions full, the way down a little less; an outage; and on.
        for before in [0.02, 0.2, 0.5, 0.9, 1.5] {
            let mut calm = Calm::new();
            looks(&mut calm, 0.0, 4.0, 0.02, 0.0, 0.0);
            calm.restart();
            let full = (30e6, 12e6);
            let mut told = looks(&mut calm, 10.0, before, 0.02, full.0, full.1);
            told.extend(looks(&mut calm, 40.0, 10.0, 0.02, full.0, full.1));
            assert_eq!(told, [], "{before}");
        }
    }

    #[test]
    fn probes_that_are_sent_seldom_are_looked_at_too() {
        for spacing in [0.02, 1.0, 5.0] {
            let mut calm = Calm::new();
            let told = looks(&mut calm, 0.0, 300.0 * spacing, spacing, 150_000.0, 40e6);
            assert!(
                told.iter().any(|l| l.by_ns > 100_000.0),
                "{spacing}: {told:?}"
            );
        }
    }
}
