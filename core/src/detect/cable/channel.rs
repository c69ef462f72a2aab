//! One of N bonded upstream channels is dead: for up to a minute each packet is lost that goes over it,
//! one in N of the small ones and more of the large, which are cut and go over several.

/// A stretch begins and ends where this share of three seconds is lost upward.
const BEGINS: f64 = 0.06;
const ENDS: f64 = 0.03;
/// Shortest and longest, seconds: longer ones the head end would have noticed.
const SECONDS: core::ops::RangeInclusive<u32> = 8..=120;
/// Probes and losses that are enough.
const PROBES: u32 = 100;
const LOST: u32 = 20;
/// Share of one channel in two to ten of them.
const SHARES: core::ops::RangeInclusive<f64> = 0.08..=0.6;
/// Each packet takes a channel by itself: losses that vary more from second to second than that would
/// make them are those of noise.
const EVEN: f64 = 1.8;

/// One such stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// Small probes.
    pub probes: u64,
    /// Of these, lost upward.
    pub lost: u64,
    /// Large probes, of 800 bytes and more.
    pub large_probes: u64,
    /// Of these, lost upward.
    pub large_lost: u64,
    /// Lost upward in its first and last second, which are left out of the others.
    pub edges: u64,
}

/// What one second saw of the losses on a line that was not loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Losses {
    pub(crate) small: u32,
    pub(crate) small_up: u32,
    pub(crate) large: u32,
    pub(crate) large_up: u32,
    pub(crate) down: u32,
}

impl Losses {
    const fn up(&self) -> u32 {
        self.small_up + self.large_up
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    seconds: u32,
    l: Losses,
    /// Of small ones: squares of the lost, products of lost and sent, squares of the sent.
    squares: [u64; 3],
}

impl Sum {
    fn add(&mut self, l: Losses) {
        self.seconds += 1;
        self.l.small += l.small;
        self.l.small_up += l.small_up;
        self.l.large += l.large;
        self.l.large_up += l.large_up;
        self.l.down += l.down;
        let (k, n) = (u64::from(l.small_up), u64::from(l.small));
        for (sum, value) in self.squares.iter_mut().zip([k * k, k * n, n * n]) {
            *sum += value;
        }
    }

    fn merge(&mut self, other: &Self) {
        let seconds = self.seconds + other.seconds;
        let squares = self.squares;
        self.add(other.l);
        self.seconds = seconds;
        for ((sum, old), more) in self.squares.iter_mut().zip(squares).zip(other.squares) {
            *sum = old + more;
        }
    }

    fn share(&self) -> f64 {
        f64::from(self.l.small_up) / f64::from(self.l.small.max(1))
    }

    /// How much more losses vary from second to second than independent ones.
    fn unevenness(&self) -> f64 {
        let p = self.share();
        let [kk, kn, nn] = self.squares.map(|v| v as f64);
        let spread = kk - 2.0 * p * kn + p * p * nn;
        spread / (p * (1.0 - p) * f64::from(self.l.small)).max(1e-9)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChannelWatch {
    /// The latest three seconds.
    recent: [Losses; 3],
    /// Since the second after the first that had losses; what comes after the last of them waits.
    stretch: Option<(u64, Sum)>,
    tail: Sum,
    /// The second of the last loss.
    last: u64,
    /// All losses upward since it began.
    total: u32,
}

impl ChannelWatch {
    /// The second that begins at `second`; in an outage, under load or without probes there is none.
    /// Gives first and last second of a stretch that has ended, and what it was.
    pub(crate) fn step(&mut self, second: u64, l: Option<Losses>) -> Option<(u64, u64, Channel)> {
        let Some(l) = l else {
            *self = Self::default();
            return None;
        };
        self.recent.rotate_left(1);
        self.recent[2] = l;
        let (up, all) = self
            .recent
            .iter()
            .fold((0, 0), |(u, a), r| (u + r.small_up, a + r.small));
        let share = f64::from(up) / f64::from(all.max(1));
        match &mut self.stretch {
            None if share >= BEGINS && up >= 3 && l.small_up > 0 => {
                self.stretch = Some((second, Sum::default()));
                self.tail = Sum::default();
                self.last = second;
                self.total = self.recent.iter().map(Losses::up).sum();
            }
            None => {}
            Some((first, sum)) if share < ENDS => {
                let (first, sum) = (*first, *sum);
                let last = self.last;
                self.stretch = None;
                let edges = (self.total + l.up()).saturating_sub(sum.l.up());
                return judged(&sum, edges).map(|c| (first, last, c));
            }
            Some((_, sum)) => {
                self.total += l.up();
                if l.small_up > 0 {
                    // The second of the first loss and of the last are whole by chance only.
                    sum.merge(&self.tail);
                    self.tail = Sum::default();
                    self.last = second;
                }
                self.tail.add(l);
            }
        }
        None
    }
}

fn judged(sum: &Sum, edges: u32) -> Option<Channel> {
    let l = sum.l;
    let is_one = SECONDS.contains(&sum.seconds)
        && l.small >= PROBES
        && l.small_up >= LOST
        && l.down <= l.small_up / 10
        && SHARES.contains(&sum.share())
        && sum.unevenness() <= EVEN;
    is_one.then_some(Channel {
        probes: l.small.into(),
        lost: l.small_up.into(),
        large_probes: l.large.into(),
        large_lost: l.large_up.into(),
        edges: edges.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    /// Twenty probes a second, lost upward with these chances of second after second.
    fn told(seed: u64, chances: impl Iterator<Item = f64>) -> std::vec::Vec<(u64, u64, Channel)> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut w = ChannelWatch::default();
        let calm = || core::iter::repeat_n(0.0, 10);
        let mut told = std::vec::Vec::new();
        for (s, chance) in calm().chain(chances).chain(calm()).enumerate() {
            let lost = (0..20).filter(|_| f64::from(rng.next_u32()) < chance * 4_294_967_296.0);
            let l = Losses {
                small: 20,
                small_up: lost.count() as u32,
                ..Losses::default()
            };
            told.extend(w.step(s as u64, Some(l)));
        }
        told
    }

    #[test]
    fn a_share_that_stays_for_a_while_is_a_channel_and_noise_is_none() {
        let mut hits = 0;
        for seed in 0..40 {
            let told_even = told(seed, core::iter::repeat_n(0.25, 40));
            hits += told_even.len();
            for (first, last, c) in told_even {
                assert!((9..=14).contains(&first) && (44..=50).contains(&last));
                let share = c.lost as f64 / c.probes as f64;
                assert!((0.17..0.33).contains(&share), "{share}");
            }
            // As much in all, but in bursts; and for far too long.
            let noise = (0..40).map(|s| if s % 3 == 0 { 0.75 } else { 0.0 });
            assert!(told(seed, noise).is_empty());
            assert!(told(seed, core::iter::repeat_n(0.25, 300)).is_empty());
            assert!(told(seed, core::iter::repeat_n(0.02, 300)).is_empty());
        }
        assert!(hits >= 36, "{hits}");
    }
}
