//! Readings of a line added up, and what each kind of them shows by itself.

use heapless::Vec;

use super::super::chance::wilson;
use super::super::event::Direction;
use super::judge::{Extent, Finding, FindingKind, Seen, Told, finding};
use super::{Channel, Loaded, Loss, Reading};

const S: u64 = 1_000_000_000;
/// Losses that tell a direction, and the share of probes below which nobody needs to know.
const LOSSES: u64 = 20;
const SELDOM: f64 = 0.0005;
/// Seconds of load that show a buffer or a queue manager, and the share of all loaded seconds.
const LOADED_S: u64 = 8;
const MANAGED_S: u64 = 20;
const MOSTLY: f64 = 0.6;
const DROPS: u64 = 3;
/// Standard deviations that two shares of loss may be apart to be the same.
const SAME: f64 = 2.5;
/// Most channels that are bonded.
const CHANNELS: u32 = 10;
/// Intervals that differ by less than one in this are the same.
const SAME_INTERVAL: u64 = 20;
/// As many different ones as there can be.
const INTERVALS: usize = 36;

/// Stretches whose grants come at the same interval.
#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    /// Pairs, weighted sums of period and strength, and the pairs whose waits come in steps.
    pairs: f64,
    period: f64,
    strength: f64,
    stepped: f64,
    extent: Extent,
    stretches: u64,
}

/// Readings added up.
#[derive(Debug, Default)]
pub(super) struct Sums {
    intervals: Vec<Interval, INTERVALS>,
    loss: (Loss, Extent),
    /// The last stretch whose losses were left out.
    left_out: (u64, u64),
    channels: Channels,
    loaded: (Loaded, Extent),
    /// Weighted sums of plateau, rate and managed delay.
    plateau: [f64; 3],
    said: bool,
}

impl Sums {
    pub(super) fn add(&mut self, since_ns: u64, until_ns: u64, reading: Reading, told: &[Told]) {
        let explained = |t: &&Told| {
            let owns = match t.seen {
                Seen::Period { strength, .. } => strength >= 0.5,
                Seen::Elsewhere => true,
                Seen::Outage { .. } | Seen::Evening { .. } => false,
            };
            owns && t.start_ns < until_ns && since_ns < t.end_ns
        };
        match reading {
            Reading::Grants(g) => {
                let n = g.pairs as f64;
                if let Some(of) = self.interval(g.period_ns) {
                    of.pairs += n;
                    of.period += n * g.period_ns as f64;
                    of.strength += n * g.strength;
                    of.stepped += if g.steps { n } else { 0.0 };
                    of.extent.add(since_ns, until_ns);
                    of.stretches += 1;
                }
            }
            Reading::Loss(l) if !told.iter().any(|t| explained(&t)) => {
                let (sum, extent) = &mut self.loss;
                sum.probes += l.probes;
                sum.up += l.up;
                sum.down += l.down;
                sum.idle += l.idle;
                if l.up + l.down > 0 {
                    extent.add(since_ns, until_ns);
                }
            }
            Reading::Loss(_) => self.left_out = (since_ns, until_ns),
            Reading::Said => self.said = true,
            Reading::Channel(c) => {
                if !told.iter().any(|t| explained(&t)) {
                    self.channels.add(since_ns, until_ns, c);
                    // What was left out of the losses need not be taken from them.
                    let (from, to) = self.left_out;
                    if !(from..to).contains(&since_ns) {
                        self.channels.lost += c.lost + c.large_lost + c.edges;
                    }
                }
            }
            Reading::Loaded(l) => {
                let (sum, extent) = &mut self.loaded;
                sum.seconds += l.seconds;
                sum.plateau_s += l.plateau_s;
                sum.managed_s += l.managed_s;
                sum.drops += l.drops;
                sum.in_rows += l.in_rows;
                extent.add(since_ns, until_ns);
                let (p, m) = (l.plateau_s as f64, l.managed_s as f64);
                self.plateau[0] += p * l.plateau_ns as f64;
                self.plateau[1] += p * l.rate_bps as f64;
                self.plateau[2] += m * l.managed_ns as f64;
            }
        }
    }

    /// Whether a person says that it is a cable.
    pub(super) const fn said(&self) -> bool {
        self.said
    }

    /// The sums of what has about this period; `None` where there is no more room.
    fn interval(&mut self, period_ns: u64) -> Option<&mut Interval> {
        let is_same = |i: &Interval| {
            let mean_ns = (i.period / i.pairs) as u64;
            period_ns.abs_diff(mean_ns) <= mean_ns / SAME_INTERVAL
        };
        let at = match self.intervals.iter().position(is_same) {
            Some(at) => at,
            None => {
                self.intervals.push(Interval::default()).ok()?;
                self.intervals.len() - 1
            }
        };
        self.intervals.get_mut(at)
    }

    /// What the channels' stretches say.
    pub(super) fn channel(&self) -> Option<Finding> {
        self.channels.found()
    }

    /// Losses of dead channels are no losses beside them.
    pub(super) fn leave_out_channels(&mut self) {
        let loss = &mut self.loss.0;
        loss.up = loss.up.saturating_sub(self.channels.lost);
    }

    pub(super) fn grants(&self) -> Option<Finding> {
        // The interval that most pairs show: a mean of several would be none of them.
        let of = self.intervals.iter().filter(|i| i.pairs > 0.0);
        let of = of.max_by(|a, b| a.pairs.total_cmp(&b.pairs))?;
        let strength = of.strength / of.pairs;
        // One stretch may be an oddity, hours are not.
        let often = (of.stretches.min(4) - 1) as f64;
        let confidence = 0.65 + 0.05 * often + 0.15 * strength.min(0.6) / 0.6;
        let stepped = 2.0 * of.stepped > of.pairs;
        Some(
            finding(FindingKind::RequestGrant, confidence, of.extent)
                .way(Some(Direction::Up))
                .number("interval_ns", (of.period / of.pairs) as u64)
                .ratio("strength", strength)
                .number("pairs", of.pairs as u64)
                .word("shows_in", if stepped { "waits" } else { "departures" }),
        )
    }

    pub(super) fn directional_loss(&self) -> Option<Finding> {
        let (l, extent) = self.loss;
        let lost = l.up + l.down;
        let direction = Direction::of_weights(l.up, l.down)?;
        let most = l.up.max(l.down);
        let share = most as f64 / l.probes.max(1) as f64;
        if direction == Direction::Both || lost < LOSSES || share < SELDOM {
            return None;
        }
        let (at_least, _) = wilson(most as f64, lost as f64, 1.96);
        let idle = 10 * l.idle >= 9 * l.probes;
        let known = if idle { 0.0 } else { 0.15 };
        let confidence = 0.5 + 0.4 * (at_least - 0.5) / 0.5 - known;
        Some(
            finding(FindingKind::DirectionalLoss, confidence, extent)
                .way(Some(direction))
                .number("probes", l.probes)
                .number("lost_up", l.up)
                .number("lost_down", l.down)
                .ratio("loss", share)
                .word("load", if idle { "idle" } else { "unknown" }),
        )
    }

    /// The buffer or the queue manager, whichever the loaded seconds show.
    pub(super) fn queue(&self) -> Option<Finding> {
        let (l, extent) = self.loaded;
        let of_all = |s: u64| s as f64 / l.seconds.max(1) as f64;
        if l.plateau_s >= LOADED_S && of_all(l.plateau_s) >= MOSTLY {
            let n = l.plateau_s as f64;
            let (plateau_ns, rate_bps) = (self.plateau[0] / n, self.plateau[1] / n);
            let confidence = 0.55 + 0.3 * (n / 60.0).min(1.0);
            return Some(
                finding(FindingKind::UpstreamBuffer, confidence, extent)
                    .way(Some(Direction::Up))
                    .number("plateau_ns", plateau_ns as u64)
                    .number("rate_bps", rate_bps as u64)
                    .number("bytes", (plateau_ns * rate_bps / 8e9) as u64)
                    .number("seconds", l.plateau_s)
                    .word("aqm", "absent"),
            );
        }
        let single = l.drops >= DROPS && l.in_rows <= l.drops / 4;
        if l.managed_s >= MANAGED_S && of_all(l.managed_s) >= MOSTLY && single {
            let n = l.managed_s as f64;
            let confidence = 0.5 + 0.3 * (n / 120.0).min(1.0);
            return Some(
                finding(FindingKind::Aqm, confidence, extent)
                    .way(Some(Direction::Up))
                    .number("loaded_queue_ns", (self.plateau[2] / n) as u64)
                    .number("drops", l.drops)
                    .number("seconds", l.managed_s)
                    .word("aqm", "present"),
            );
        }
        None
    }
}

/// Stretches in which an even share was lost upward.
#[derive(Debug, Default)]
struct Channels {
    count: u64,
    all: Channel,
    /// Losses, large ones too, of those whose losses are among all others as well.
    lost: u64,
    /// The smallest upper and the largest lower end of what each share may be.
    common: Option<(f64, f64)>,
    seconds: u64,
    extent: Extent,
}

impl Channels {
    fn add(&mut self, since_ns: u64, until_ns: u64, c: Channel) {
        self.count += 1;
        self.all.probes += c.probes;
        self.all.lost += c.lost;
        self.all.large_probes += c.large_probes;
        self.all.large_lost += c.large_lost;
        let (low, high) = wilson(c.lost as f64, c.probes as f64, SAME);
        let (a, b) = self.common.unwrap_or((low, high));
        self.common = Some((a.max(low), b.min(high)));
        self.seconds += until_ns.saturating_sub(since_ns) / S;
        self.extent.add(since_ns, until_ns);
    }

    fn found(&self) -> Option<Finding> {
        let (low, high) = self.common?;
        let (k, n) = (self.all.lost as f64, self.all.probes as f64);
        let share = k / n;
        let (at_least, at_most) = wilson(k, n, SAME);
        let mut fit =
            (2..=CHANNELS).filter(|c| (at_least..=at_most).contains(&(1.0 / f64::from(*c))));
        // Where two numbers of channels fit, or none, the share is no evidence.
        let (Some(channels), None) = (fit.next(), fit.next()) else {
            return None;
        };
        let (large_least, _) = wilson(
            self.all.large_lost as f64,
            self.all.large_probes as f64,
            1.96,
        );
        let worse_for_large = self.all.large_probes >= 50 && large_least > at_most.max(share);
        let enough = self.count >= 2 || worse_for_large;
        if low > high || !enough {
            return None;
        }
        let repeated = (self.count.min(4) - 1) as f64;
        let by_size = if worse_for_large { 0.15 } else { 0.0 };
        let confidence = 0.5 + 0.1 * repeated + by_size;
        let mut f = finding(FindingKind::BondedChannel, confidence.min(0.9), self.extent)
            .way(Some(Direction::Up))
            .number("channels", u64::from(channels))
            .ratio("loss", share)
            .number("times", self.count)
            .number("seconds", self.seconds);
        if self.all.large_probes > 0 {
            let large = self.all.large_lost as f64 / self.all.large_probes as f64;
            f = f.ratio("loss_of_large", large);
        }
        Some(f)
    }
}
