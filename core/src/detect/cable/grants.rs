//! Request and grant: on a cable, packets leave upward when the head end lets them, and it does so
//! once in an interval (MAP) of 1 to 2 ms. Passive optical, mobile and satellite networks have intervals
//! of the same size, and a far end that takes its packets at certain instants looks the same: that there
//! is an interval does not say of what.
//!
//! Probes are sent at random instants, so the instants at which they leave are as random, unless
//! something lets them leave at certain ones only. From one probe to the next the time between two
//! departures is then a multiple of the interval, and the mean of `cos(2π f Δ)` over many such pairs is
//! large where `f` is one in an interval, or several. Pairs are near in time, so that neither the drift
//! of two clocks nor a change of the floor says anything. Where it is the waits themselves that come in
//! steps, the same mean over the differences of waits falls and then rises again.

use crate::time::Monotonic;

/// Frequencies that are tried, Hz.
const LOWEST_HZ: f64 = 40.0;
const STEP_HZ: f64 = 4.0;
const BINS: usize = 312;
/// A pair further apart says nothing at these frequencies, ns.
const PAIR_NS: u64 = 100_000_000;
/// More than this is a queue or a step of a clock, ns.
const WAIT_NS: i64 = 10_000_000;
/// So many pairs are enough: later ones are left out.
const ENOUGH: u32 = 20_000;
/// Fewer say nothing.
const LEAST: u32 = 200;
/// Standard deviations that one of the frequencies shows by chance in no month of looks.
const SURE: f64 = 8.0;
/// Less is too faint to be told, however sure.
const FAINT: f64 = 0.03;
/// Where the probes themselves were sent at such instants, nothing can be said.
const SENT_SO: f64 = 0.15;
/// Waits come in steps where the mean falls to this, and rises again by this.
const FALLS_TO: f64 = 0.35;
const RISES_BY: f64 = 0.15;
/// Two steps are two paths; so many pairs are two steps apart where there are more of them.
const TWO_STEPS: f64 = 0.04;
/// What a MAP interval can be, ns.
const INTERVALS_NS: core::ops::RangeInclusive<u64> = 800_000..=4_200_000;
/// Differences of waits are counted by this, ns.
const JUMP_NS: u64 = 200_000;
const JUMPS: usize = 64;

/// What the pairs of a stretch show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grants {
    /// From one grant to the next, ns.
    pub period_ns: u64,
    /// Whether the waits come in steps of it; else the departures do.
    pub steps: bool,
    /// How much of it: the mean cosine, 0 to 1.
    pub strength: f64,
    /// Pairs of probes.
    pub pairs: u64,
}

/// Sums over pairs of probes.
#[derive(Clone, Debug)]
pub(crate) struct GrantWatch {
    sent: [f32; BINS],
    leave: [f32; BINS],
    wait: [f32; BINS],
    jumps: [u16; JUMPS],
    pairs: u32,
    last: Option<(Monotonic, i64)>,
}

impl GrantWatch {
    pub(crate) const fn new() -> Self {
        Self {
            sent: [0.0; BINS],
            leave: [0.0; BINS],
            wait: [0.0; BINS],
            jumps: [0; JUMPS],
            pairs: 0,
            last: None,
        }
    }

    /// An answered probe, in the order they were sent; `raw_up_ns` as in a sample.
    pub(crate) fn add(&mut self, sent: Monotonic, raw_up_ns: i64) {
        let Some((before, raw_before)) = self.last.replace((sent, raw_up_ns)) else {
            return;
        };
        let apart_ns = sent.saturating_since(before);
        let wait_ns = raw_up_ns.saturating_sub(raw_before);
        if self.pairs >= ENOUGH || !(1..=PAIR_NS).contains(&apart_ns) || wait_ns.abs() > WAIT_NS {
            return;
        }
        self.pairs += 1;
        let jump = wait_ns.unsigned_abs() / JUMP_NS;
        if let Some(n) = self.jumps.get_mut(jump as usize) {
            *n = n.saturating_add(1);
        }
        let (apart_s, wait_s) = (apart_ns as f64 / 1e9, wait_ns as f64 / 1e9);
        add_cosines(&mut self.sent, apart_s);
        add_cosines(&mut self.leave, apart_s + wait_s);
        add_cosines(&mut self.wait, wait_s);
    }

    /// What they show by now.
    pub(crate) fn found(&self) -> Option<Grants> {
        if self.pairs < LEAST {
            return None;
        }
        let n = f64::from(self.pairs);
        let found = self.departures(n).map(|f| (f, false));
        let (bin, steps) = found.or_else(|| self.steps(n).map(|b| (b, true)))?;
        let of = if steps { &self.wait } else { &self.leave };
        let period_ns = (1e9 / peak_hz(of, bin)) as u64;
        INTERVALS_NS.contains(&period_ns).then_some(Grants {
            period_ns,
            steps,
            strength: (f64::from(of[bin]) / n).clamp(0.0, 1.0),
            pairs: u64::from(self.pairs),
        })
    }

    /// The lowest frequency at which departures come together, of those that show it about as clearly
    /// as any: the others are its multiples.
    fn departures(&self, n: f64) -> Option<usize> {
        let sent = |bin: usize| (f64::from(self.sent[bin]) / n).abs();
        // Of a mean of cosines with random phases the variance is half of one over their number.
        let noise = libm::sqrt(0.5 / n);
        let score = |bin: usize| f64::from(self.leave[bin]) / n - sent(bin);
        let clear = |bin: &usize| {
            sent(*bin) <= SENT_SO && score(*bin) >= FAINT && score(*bin) >= SURE * noise
        };
        let best = (0..BINS).filter(clear).map(score).fold(0.0, f64::max);
        let is_peak = |bin: &usize| local_maximum(&self.leave, *bin) && score(*bin) >= best / 2.0;
        (0..BINS).filter(clear).find(is_peak)
    }

    /// The lowest frequency at which the waits' differences come together again.
    fn steps(&self, n: f64) -> Option<usize> {
        let noise = libm::sqrt(0.5 / n);
        let mut least = 1.0f64;
        for bin in 0..BINS {
            let mean = f64::from(self.wait[bin]) / n;
            least = least.min(mean);
            let rise = mean - least;
            let clear = least <= FALLS_TO && rise >= RISES_BY && rise >= SURE * noise;
            if clear && local_maximum(&self.wait, bin) {
                return self
                    .has_more_than_two(peak_hz(&self.wait, bin), n)
                    .then_some(bin);
            }
        }
        None
    }

    fn has_more_than_two(&self, hz: f64, n: f64) -> bool {
        let step_ns = 1e9 / hz;
        let (from, to) = (1.75 * step_ns, 2.25 * step_ns);
        let within = self.jumps.iter().enumerate().filter(|(i, _)| {
            let middle_ns = (*i as f64 + 0.5) * JUMP_NS as f64;
            (from..to).contains(&middle_ns)
        });
        let far: u32 = within.map(|(_, n)| u32::from(*n)).sum();
        f64::from(far) >= TWO_STEPS * n
    }
}

const fn hz_of(bin: f64) -> f64 {
    LOWEST_HZ + STEP_HZ * bin
}

/// Adds `cos(2π f t)` at every frequency: each follows from the two before it.
fn add_cosines(sums: &mut [f32; BINS], t_s: f64) {
    let turn = core::f64::consts::TAU * t_s;
    let double = 2.0 * libm::cos(turn * STEP_HZ);
    let mut before = libm::cos(turn * (LOWEST_HZ - STEP_HZ));
    let mut now = libm::cos(turn * LOWEST_HZ);
    for sum in sums {
        *sum += now as f32;
        (before, now) = (now, double * now - before);
    }
}

fn local_maximum(sums: &[f32; BINS], bin: usize) -> bool {
    let at = |i: Option<usize>| i.and_then(|i| sums.get(i)).copied();
    let here = sums[bin];
    let (before, after) = (at(bin.checked_sub(1)), at(bin.checked_add(1)));
    before.is_some_and(|b| b < here) && after.is_some_and(|a| a <= here)
}

/// Where the top is, by the parabola through a maximum and its neighbours.
fn peak_hz(sums: &[f32; BINS], bin: usize) -> f64 {
    let at = |i: usize| f64::from(sums[i.min(BINS - 1)]);
    let (a, b, c) = (at(bin.saturating_sub(1)), at(bin), at(bin + 1));
    let bend = a - 2.0 * b + c;
    let off = if bend < 0.0 {
        0.5 * (a - c) / bend
    } else {
        0.0
    };
    hz_of(bin as f64 + off.clamp(-0.5, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    const MS: u64 = 1_000_000;

    /// Probes at random offsets in slots, each with the wait that `wait` makes of its send time.
    fn watch(
        seed: u64,
        slot_ns: u64,
        random: bool,
        mut wait: impl FnMut(u64, &mut ChaCha8Rng) -> u64,
    ) -> GrantWatch {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut w = GrantWatch::new();
        for n in 1..=6000u64 {
            let off = if random {
                rng.next_u64() % (slot_ns * 8 / 10)
            } else {
                0
            };
            let sent = n * slot_ns + off;
            // The far end's clock is another, and drifts.
            let raw = wait(sent, &mut rng) as i64 - 5_000_000_000 + (sent / 20_000) as i64;
            w.add(Monotonic::from_nanos(sent), raw);
        }
        w
    }

    fn noise(rng: &mut ChaCha8Rng, mean_ns: f64) -> u64 {
        let unit = f64::from(rng.next_u32()) / 4_294_967_296.0;
        (-libm::log(1.0 - unit) * mean_ns) as u64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn departures_on_a_grid_tell_its_period(
            seed: u64, period_us in 850u64..4000, slot in prop::sample::select(std::vec![10u64, 20, 50, 80]),
        ) {
            let period_ns = period_us * 1000;
            let w = watch(seed, slot * MS, true, |sent, rng| {
                let asked = sent + MS;
                asked.next_multiple_of(period_ns) - sent + noise(rng, period_ns as f64 / 12.0)
            });
            let found = w.found().expect("a grid");
            prop_assert!(!found.steps);
            prop_assert!(found.period_ns.abs_diff(period_ns) < period_ns / 50, "{found:?}");
        }

        #[test]
        fn waits_in_steps_tell_their_height(seed: u64, period_us in 900u64..3000) {
            let w = watch(seed, 50 * MS, true, |_, rng| {
                u64::from(rng.next_u32() % 4) * period_us * 1000 + noise(rng, period_us as f64 * 60.0)
            });
            let found = w.found().expect("steps");
            prop_assert!(found.steps);
            prop_assert!(found.period_ns.abs_diff(period_us * 1000) < period_us * 40, "{found:?}");
        }

        /// Noise, two paths, frames of other networks, and probes that are sent on a grid themselves.
        #[test]
        fn nothing_else_is_a_grant(seed: u64, mean_us in 20u64..4000, apart_us in 500u64..6000) {
            let mean_ns = mean_us as f64 * 1000.0;
            for random in [true, false] {
                let w = watch(seed, 50 * MS, random, |_, rng| noise(rng, mean_ns));
                prop_assert_eq!(w.found(), None);
                let w = watch(seed, 50 * MS, random, |_, rng| {
                    u64::from(rng.next_u32() % 2) * apart_us * 1000 + noise(rng, 50_000.0)
                });
                prop_assert_eq!(w.found(), None);
            }
            // Symbols and frames that are shorter than any MAP, or longer.
            for frame_us in [125, 250, 5000, 10_000, 20_000] {
                let w = watch(seed, 50 * MS, true, |sent, rng| {
                    sent.next_multiple_of(frame_us * 1000) - sent + noise(rng, 20_000.0)
                });
                prop_assert_eq!(w.found(), None);
            }
        }
    }
}
