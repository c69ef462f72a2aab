//! Losses of one series: sorted into those of an outage, bursts, and scattered ones.

use heapless::Deque;

use super::event::{Direction, Finding, Kind, Severity};
use super::input::{Probe, Thresholds};
use super::outage::{Outages, Part};
use super::periodic::Periodic;
use super::rate::{Change, RateWatch};
use crate::sample::Status;
use crate::time::Monotonic;

/// Runs that wait until it is known whether they were part of an outage.
const WAITING: usize = 64;
const S: u64 = 1_000_000_000;
/// A target that is silent for this long while others answer is dead.
const DEAD_NS: u64 = 10 * S;
/// How long a run waits for the judgement of the line, and to see whether loss goes on.
const PATIENCE_NS: u64 = 5 * S;
/// Log of the chance that scattered loss makes such a run.
const UNLIKELY: f64 = -13.5;
/// Losses this near to each other are one burst, ns.
const CHAIN_NS: u64 = S / 2;

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

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Losses {
    run: Option<Run>,
    answered_before: bool,
    waiting: Deque<Run, WAITING>,
    pub(crate) rate: RateWatch,
    /// Scattered losses with a direction since the trouble began.
    up: u64,
    down: u64,
    /// The latest of them, in case trouble turns out to have begun with them.
    recent: Deque<(Monotonic, bool), 64>,
    dead_since: Option<Monotonic>,
    /// Losses near to each other: the first and the last, and whether they are told as a burst.
    chain: (Monotonic, Monotonic, bool),
    interval_ns: u64,
}

impl Losses {
    pub(crate) fn new(t: &Thresholds, interval_ns: u64) -> Self {
        Self {
            run: None,
            answered_before: false,
            waiting: Deque::new(),
            rate: RateWatch::new(t.loss, t.loss_critical, 60, interval_ns),
            up: 0,
            down: 0,
            recent: Deque::new(),
            dead_since: None,
            chain: (Monotonic::ZERO, Monotonic::ZERO, false),
            interval_ns,
        }
    }

    /// Since when nothing has come back although it did before.
    pub(crate) const fn dead_since(&self) -> Option<Monotonic> {
        self.dead_since
    }

    /// Whether it has ever answered and does so now.
    pub(crate) const fn is_alive(&self) -> bool {
        self.answered_before && self.dead_since.is_none()
    }

    pub(crate) fn step(&mut self, probe: &Probe) {
        if probe.status == Status::Unsent {
            return;
        }
        if !probe.answered() {
            if !self.answered_before {
                return;
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
        self.answered_before = true;
        self.dead_since = None;
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
            periodic.cluster(run.first, run.lost, run.up, run.down);
            if part == Part::Outage || run.last.saturating_since(run.first) >= DEAD_NS {
                continue;
            }
            if run.first.saturating_since(self.chain.1) > CHAIN_NS {
                self.chain = (run.first, run.last, false);
            }
            self.chain.1 = run.last;
            if self.chain.2 || (run.lost >= t.burst && self.is_burst(now, &run, line.scattered())) {
                self.chain.2 = true;
                let severity = if run.lost >= t.burst_critical {
                    Severity::Critical
                } else {
                    Severity::Warning
                };
                let f = Finding::new(Kind::LossBurst, severity, self.chain.0)
                    .direction(Direction::of_weights(run.up.into(), run.down.into()))
                    .number("lost", run.lost.into())
                    .number("duration_ns", run.end.saturating_since(self.chain.0));
                return Some((f, run.last));
            }
            self.scattered(now, &run);
        }
        None
    }

    /// Whether the scattered loss of the time does not explain it: that of the last minute, of all
    /// series of the line together, or of the last ten seconds by how many of them had any (a burst fills two, scattered loss most).
    fn is_burst(&mut self, now: Monotonic, run: &Run, of_line: f64) -> bool {
        let minute = self.rate.last(now, 60);
        let by_minute = (minute.hits + 0.05) / (minute.all + 20.0);
        let seconds = f64::from(self.rate.seconds_hit(now, 10).saturating_sub(2));
        let per_second = -libm::log(1.0 - (seconds / 10.0).min(0.95));
        let by_seconds = per_second * self.interval_ns as f64 / S as f64;
        let p = by_minute.max(by_seconds).max(of_line).min(0.9);
        f64::from(run.lost) * libm::log(p) < UNLIKELY
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

    /// `packet_loss`, once a second.
    pub(crate) fn each_second(&mut self, now: Monotonic) -> Option<Result<Finding, Monotonic>> {
        let waiting = self.waiting.front().map(|r| r.first);
        let known = waiting.or(self.run.map(|r| r.first)).unwrap_or(now);
        match self.rate.each_second(now, known)? {
            Change::Over(end) => Some(Err(end)),
            Change::High {
                since,
                severity,
                share,
                at_least,
            } => {
                if self.rate.since() == Some(since) {
                    // Count what lies within the trouble only.
                    let of = |way: bool| {
                        self.recent
                            .iter()
                            .filter(|(at, up)| *at >= since && *up == way)
                            .count() as u64
                    };
                    (self.up, self.down) = (of(true), of(false));
                }
                Some(Ok(Finding::new(Kind::PacketLoss, severity, since)
                    .direction(Direction::of_weights(self.up, self.down))
                    .ratio("loss", share)
                    .ratio("at_least", at_least)
                    .number("lost_up", self.up)
                    .number("lost_down", self.down)))
            }
        }
    }
}
