//! Losses of one series: sorted into those of an outage, bursts, and scattered ones.

use heapless::Deque;

use super::chance::{Rate, Z95};
use super::edge::{Beside, Edge};
use super::event::{Direction, Finding, Kind, LOST, PROBES, Severity, WITHIN_NS};
use super::input::{Probe, Thresholds};
use super::nearby::{Nearby, ln_chance};
use super::outage::{Outages, Part};
use super::periodic::{Cluster, Periodic};
use super::rate::{Change, RateWatch};
use crate::sample::Status;
use crate::time::Monotonic;

/// Runs that wait until it is known whether they were part of an outage.
const WAITING: usize = 64;
const S: u64 = 1_000_000_000;
const MINUTE_S: u64 = 60;
/// Windows of rates reach back so many minutes.
const MINUTES: u64 = 59;
/// A target that is silent for this long while others answer is dead.
const DEAD_NS: u64 = 10 * S;
/// How long a run waits for the judgement of the line, and to see whether loss goes on.
const PATIENCE_NS: u64 = 5 * S;
/// Log of the chance that scattered loss makes such a burst, by the loss around it and by the
/// long-term loss: see the same of outages.
const UNLIKELY: f64 = -16.0;
const UNLIKELY_EVER: f64 = -20.0;
/// Probes that the long-term loss stands for beside those around.
const PRIOR: f64 = 20.0;
/// How far around a burst loss is looked at, in slots and ns at least, and what right beside it is
/// still part of it.
const SIDES: [(u64, u64); 2] = [(40, 2 * S), (120, 6 * S)];
const BESIDE_NS: u64 = S;
/// So many times as many probes of the line as of the series tell of the series, too.
const MANY: f64 = 10.0;
/// Losses this near to each other are one burst, ns.
const CHAIN_NS: u64 = S / 2;
/// What goes on for longer is loss that lasts, however near to each other the losses are, ns.
const LONGEST_NS: u64 = 3 * S;

/// Losses in a row.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: Monotonic,
    last: Monotonic,
    /// The probe that was answered after it.
    end: Monotonic,
    lost: u32,
    up: u32,
    down: u32,
}

/// Losses near to each other.
#[derive(Clone, Copy, Debug)]
struct Chain {
    first: Monotonic,
    last: Monotonic,
    lost: u32,
    /// Whether they are told as a burst.
    told: bool,
}

impl Chain {
    const NONE: Self = Self {
        first: Monotonic::ZERO,
        last: Monotonic::ZERO,
        lost: 0,
        told: false,
    };

    /// With `run`, where it is near enough.
    fn with(self, run: &Run) -> Option<Self> {
        let near = run.first.saturating_since(self.last) <= CHAIN_NS;
        near.then_some(Self {
            last: run.last,
            lost: self.lost + run.lost,
            ..self
        })
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Losses {
    run: Option<Run>,
    answered_before: bool,
    /// Whether it answered in an earlier run.
    recalled: bool,
    waiting: Deque<Run, WAITING>,
    pub(crate) rate: RateWatch,
    /// Scattered losses with a direction since the trouble began.
    up: u64,
    down: u64,
    /// The latest of them, in case trouble turns out to have begun with them.
    recent: Deque<(Monotonic, bool), 64>,
    dead_since: Option<Monotonic>,
    chain: Chain,
    nearby: Nearby,
    interval_ns: u64,
}

impl Losses {
    pub(crate) fn new(t: &Thresholds, interval_ns: u64) -> Self {
        Self {
            run: None,
            answered_before: false,
            recalled: false,
            waiting: Deque::new(),
            rate: RateWatch::new(t.loss, t.loss_critical, t.loss_over_ns / S, interval_ns),
            up: 0,
            down: 0,
            recent: Deque::new(),
            dead_since: None,
            chain: Chain::NONE,
            nearby: Nearby::new((5 * interval_ns).max(S / 4)),
            interval_ns,
        }
    }

    /// Other thresholds from now on.
    pub(crate) const fn set(&mut self, t: &Thresholds) {
        self.rate.set(t.loss, t.loss_critical, t.loss_over_ns / S);
    }

    /// Since when nothing has come back although it did before.
    pub(crate) const fn dead_since(&self) -> Option<Monotonic> {
        self.dead_since
    }

    /// It answered in an earlier run.
    pub(crate) const fn recall(&mut self) {
        self.recalled = true;
    }

    /// Whether it has ever answered and does so now, as far as is known.
    pub(crate) const fn is_alive(&self) -> bool {
        (self.answered_before || self.recalled) && self.dead_since.is_none()
    }

    pub(crate) fn step(&mut self, probe: &Probe) {
        if probe.status == Status::Unsent {
            return;
        }
        if !probe.answered() {
            if !self.answered_before && !self.recalled {
                return;
            }
            // Before the first answer of a run nobody knows what has just begun, and what has lasted: only silence counts.
            if self.answered_before {
                self.nearby.add(probe.sent, true);
            }
            let run = self.run.get_or_insert(Run {
                first: probe.sent,
                last: probe.sent,
                end: probe.sent,
                lost: 0,
                up: 0,
                down: 0,
            });
            run.last = probe.sent;
            run.lost += 1;
            run.up += u32::from(probe.status == Status::LostUp);
            run.down += u32::from(probe.status == Status::LostDown);
            if run.lost >= 5 && run.last.saturating_since(run.first) >= DEAD_NS {
                self.dead_since = Some(run.first);
            }
            return;
        }
        if !core::mem::replace(&mut self.answered_before, true) {
            self.run = None;
        }
        self.dead_since = None;
        self.nearby.add(probe.sent, false);
        self.rate.add(probe.sent, probe.sent, false);
        if let Some(mut run) = self.run.take() {
            run.end = probe.sent;
            if self.waiting.is_full() {
                self.waiting.pop_front();
            }
            let _ = self.waiting.push_back(run);
        }
    }

    /// Sorts runs of which enough is known; gives the bursts among them.
    pub(crate) fn settle(
        &mut self,
        now: Monotonic,
        line: &Outages,
        t: &Thresholds,
        periodic: &mut Periodic,
    ) -> Option<(Finding, Monotonic)> {
        while let Some(run) = self.waiting.front().copied() {
            let waited_ns = now.saturating_since(run.end);
            let part = line.part(run.first, run.last);
            let undecided = part == Part::Unknown || run.lost >= t.burst;
            if undecided && waited_ns < PATIENCE_NS {
                return None;
            }
            self.waiting.pop_front();
            let counts = (run.lost, run.up, run.down);
            periodic.add(Cluster::run(run.first, run.last, counts));
            if part == Part::Outage || run.last.saturating_since(run.first) >= DEAD_NS {
                self.nearby.except(run.lost);
                continue;
            }
            self.chain = self.chain.with(&run).unwrap_or(Chain {
                first: run.first,
                last: run.last,
                lost: run.lost,
                told: false,
            });
            if self.chain.told || (run.lost >= t.burst && self.is_burst(line, &run)) {
                self.chain.told = true;
                let severity = if run.lost >= t.burst_critical {
                    Severity::Critical
                } else {
                    Severity::Warning
                };
                let first = self.chain.first;
                let f = Finding::new(Kind::LossBurst, severity, first)
                    .weights(run.up.into(), run.down.into())
                    .number(LOST, run.lost.into())
                    .number("duration_ns", run.end.saturating_since(run.first));
                return Some((f, run.last));
            }
            self.scattered(now, &run);
        }
        None
    }

    /// The same where probing ends, so that no run can wait.
    pub(crate) fn settle_all(
        &mut self,
        now: Monotonic,
        line: &Outages,
        t: &Thresholds,
        periodic: &mut Periodic,
    ) -> Option<(Finding, Monotonic)> {
        self.settle(now.saturating_add(PATIENCE_NS), line, t, periodic)
    }

    /// Whether the scattered loss of the time does not explain the losses that are near to each other
    /// now: that of the series and of its line, right before and after, and over a long time.
    fn is_burst(&self, line: &Outages, run: &Run) -> bool {
        let mut chain = self.chain;
        for run in &self.waiting {
            let Some(longer) = chain.with(run) else { break };
            chain = longer;
        }
        let (first, last) = (chain.first, chain.last);
        // Losses in a row are what they are: a slow series needs seconds for as many.
        let several = (first, last) != (run.first, run.last);
        if several && last.saturating_since(first) > LONGEST_NS {
            return false;
        }
        let lost = f64::from(chain.lost);
        let slots = last.saturating_since(first) / self.interval_ns.max(1) + 1;
        let own = (lost, lost.max(slots as f64));
        let ln = |near, usual| ln_chance(own, near, usual, PRIOR);
        let mut chance = f64::NEG_INFINITY;
        for (slots, least_ns) in SIDES {
            let far_ns = (slots * self.interval_ns).max(least_ns);
            for n in [&self.nearby, &line.nearby] {
                let beside_ns = BESIDE_NS.max(n.bin_ns());
                let begin = first.saturating_sub(beside_ns);
                let before = n.between(begin.saturating_sub(far_ns), begin);
                let end = last.saturating_add(beside_ns);
                let after = n.between(end, end.saturating_add(far_ns));
                chance = chance.max(ln(before, n.usual()));
                chance = chance.max(ln(after, n.usual()));
            }
        }
        // What others met meanwhile, where there are many more of them.
        let (lost_by_all, all) = line.nearby.between(first, last);
        if all - own.1 >= MANY * own.1 {
            let others = ((lost_by_all - lost).max(0.0), all - own.1);
            chance = chance.max(ln(others, line.nearby.usual()));
        }
        let usual = self.nearby.usual().max(line.nearby.usual());
        chance < UNLIKELY && ln_chance(own, (0.0, 0.0), usual, 1e6) < UNLIKELY_EVER
    }

    fn scattered(&mut self, now: Monotonic, run: &Run) {
        for n in 0..run.lost {
            // Neighbours are as far apart as the run is long, evenly.
            let step = run.last.saturating_since(run.first) / u64::from(run.lost.max(2) - 1);
            let at = run.first.saturating_add(step * u64::from(n));
            self.rate.add(now, at, true);
            let known = match (n < run.up, n < run.up + run.down) {
                (true, _) => Some(true),
                (false, true) => Some(false),
                _ => None,
            };
            if let Some(up) = known {
                self.up += u64::from(up);
                self.down += u64::from(!up);
                if self.recent.is_full() {
                    self.recent.pop_front();
                }
                let _ = self.recent.push_back((at, up));
            }
        }
    }

    /// `packet_loss`, once a second: what there is to tell, and its end where it is over. Others know so much of it.
    pub(crate) fn each_second(
        &mut self,
        now: Monotonic,
        beside: Beside,
    ) -> Option<(Finding, Option<Edge>)> {
        let waiting = self.waiting.front().map(|r| r.first);
        let known = waiting.or(self.run.map(|r| r.first)).unwrap_or(now);
        let lasting = self
            .rate
            .since()
            .map(|since| (since, self.since(now, since)));
        match self.rate.each_second(now, known, beside)? {
            Change::Over(end) => {
                let (since, (mut whole, from)) = lasting?;
                // Of what came after it, and before it in its first minute, nothing was lost, or no more than ever.
                let not_ns = now.saturating_since(end.at) + since.at.saturating_since(from);
                let not = not_ns / self.interval_ns.max(1);
                whole.all = (whole.all - not as f64).max(whole.hits);
                let within_ns = end.at.saturating_since(since.at.max(from));
                let within_s = within_ns.div_ceil(S).max(1);
                let told = self.told(Severity::Info, since, whole, whole.bounds(Z95).0, within_s);
                Some((told, Some(end)))
            }
            Change::High {
                since,
                severity,
                rate,
                at_least,
                within_s,
            } => {
                if self.rate.since() == Some(since) {
                    // Count what lies within the trouble only.
                    let of = |way: bool| {
                        self.recent
                            .iter()
                            .filter(|(at, up)| *at >= since.at && *up == way)
                            .count() as u64
                    };
                    (self.up, self.down) = (of(true), of(false));
                }
                Some((self.told(severity, since, rate, at_least, within_s), None))
            }
        }
    }

    /// All since the trouble began, as far back as windows go, and from when on that is: longer windows are of whole
    /// minutes, of which the first may not have been counted from its begin.
    fn since(&mut self, now: Monotonic, since: Edge) -> (Rate, Monotonic) {
        let counted = self.rate.counted_from(now);
        let lasted_s = now.saturating_since(since.at) / S;
        if lasted_s < MINUTE_S {
            return (self.rate.last(now, lasted_s + 1), since.at.max(counted));
        }
        let minute = |at: Monotonic| at.as_nanos() / (MINUTE_S * S);
        let minutes = (minute(now) - minute(since.at) + 1).min(MINUTES);
        let from = Monotonic::from_nanos((minute(now) + 1 - minutes) * MINUTE_S * S);
        (self.rate.last(now, MINUTE_S * minutes), from.max(counted))
    }

    fn told(
        &self,
        severity: Severity,
        since: Edge,
        rate: Rate,
        at_least: f64,
        within_s: u64,
    ) -> Finding {
        Finding::new(Kind::PacketLoss, severity, since.at)
            .grain(since.grain_ns)
            .direction(Direction::of_weights(self.up, self.down))
            .ratio("loss", rate.share())
            .ratio("at_least", at_least)
            .number(WITHIN_NS, within_s * S)
            .number(PROBES, rate.all as u64)
            .number("lost_up", self.up)
            .number("lost_down", self.down)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Value;
    use super::*;

    /// Of ten a second one in ten is lost for a while that begins in the middle of a minute of the clock. Right before,
    /// in the same minute, probing has begun; or what was lost before is over.
    #[test]
    fn the_share_of_what_is_over_is_one_of_what_was_sent() {
        for is_second in [false, true] {
            let mut losses = Losses::new(&Thresholds::default(), S / 10);
            let bad = |s: u64| (58..128).contains(&s) || (is_second && (165..205).contains(&s));
            let (begin_s, bad_s) = if is_second { (160, 40) } else { (48, 70) };
            let mut told = std::vec::Vec::new();
            for n in 480..7000 {
                let now = Monotonic::from_nanos(n * (S / 10));
                losses.rate.add(now, now, n % 10 == 7 && bad(n / 10));
                if n % 10 == 9
                    && let Some((finding, Some(_))) = losses.each_second(now, Beside::default())
                    && n / 10 >= begin_s
                {
                    told.push(finding);
                }
            }
            let [over] = &told[..] else {
                panic!("{told:?}")
            };
            let get = |name| over.values.iter().find(|(n, _)| *n == name).map(|v| v.1);
            let (Some(Value::Ratio(loss)), Some(Value::Number(probes))) =
                (get("loss"), get(PROBES))
            else {
                panic!("{over:?}")
            };
            assert!((loss - 0.1).abs() < 0.02, "{over:?}");
            assert!(probes.abs_diff(10 * bad_s) <= 20, "{over:?}");
        }
    }
}
